//! What `clean` finds in one engine.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Result;

use crate::{
    base::{error::Failure, image::VERSION_LABEL},
    build::foundation,
    commands::stack::{devserver_image, devserver_repository},
    engine::{
        Engine,
        cache::{self, CacheMount, read_cache_mounts},
        container::{Container, Owner, inspect_all_cmd, read_containers},
        image::{self, Image},
    },
    exec::Finished,
    facts::{
        context::{Context, EngineQuery, EngineState},
        git,
        host::{self, Folder},
    },
    plan::Cmd,
    settings::{GitValues, Settings},
};

/// How long an engine may take to list what it has.
const LIST_LIMIT: Duration = Duration::from_secs(30);

/// An image to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub id: String,
    /// The references to remove; the id of an image that has none.
    pub references: Vec<String>,
    /// Whether the image stays under other references.
    pub has_other_references: bool,
}

/// An image that stays, because somebody else uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    pub references: Vec<String>,
    /// The name of a container that was made from it, and that xtask did not start.
    pub container: String,
    pub creator: String,
}

/// What the plan needs to know of an engine.
#[derive(Clone, Debug)]
pub struct CleanFacts {
    pub engine: Engine,
    pub container: Option<Container>,
    /// References of manifest lists.
    pub lists: Vec<String>,
    pub images: Vec<Removal>,
    pub in_use: Vec<InUse>,
    pub caches: Vec<CacheMount>,
    /// The builders that xtask created.
    pub builders: Vec<String>,
}

impl CleanFacts {
    /// The container of our name, if it has this owner.
    pub fn container_of(&self, owner: Owner) -> Option<&Container> {
        self.container
            .as_ref()
            .filter(|found| found.owner() == owner)
    }
}

/// Which images are removed.
struct Selection {
    /// The references of the version, in all flavours.
    of_version: Vec<String>,
    /// The repositories of all images that are built here.
    repositories: Vec<String>,
    version: String,
    all: bool,
}

impl Selection {
    fn of(settings: &Settings, git: &GitValues, all: bool) -> Result<Self, Failure> {
        let repository = &settings.image.repository;
        let mut of_version = Vec::new();
        for flavour in settings.all_flavours()? {
            of_version.extend(flavour.references(git)?);
        }
        of_version.push(devserver_image(settings));
        Ok(Self {
            of_version,
            repositories: vec![
                repository.as_str().to_owned(),
                devserver_repository(settings),
                foundation::repository(settings),
            ],
            version: settings.version.value.to_string(),
            all,
        })
    }

    fn has(&self, reference: &String) -> bool {
        if self.all {
            let name = reference.rsplit_once(':').map(|(name, _)| name);
            name.is_some_and(|name| self.repositories.iter().any(|one| one == name))
        } else {
            self.of_version.contains(reference)
        }
    }
}

/// Asks every engine that may be used.
///
/// # Errors
/// When an engine that may have something of ours does not answer.
pub fn gather(cx: &Context, all: bool) -> Result<Vec<CleanFacts>> {
    let query = EngineQuery {
        container: Some(&cx.settings.run.container),
        images: &[],
    };
    let answers = cx.ask_all(&cx.candidates(), |program| cx.query_program(program, query))?;
    let mut states: Vec<EngineState> = Vec::new();
    for answer in answers {
        match answer {
            // Two programs can be clients of the same engine.
            Ok(state)
                if states
                    .iter()
                    .any(|known| known.engine.engine.kind == state.engine.engine.kind) => {}
            Ok(state) => states.push(state),
            Err(silent) if silent.may_have_containers() => {
                let program = silent.program;
                let others = cx
                    .candidates()
                    .into_iter()
                    .filter(|other| *other != program);
                let others: Vec<_> = others.map(|other| format!("`--engine {other}`")).collect();
                return Err(Failure::new(format!(
                    "`{program}` {}, and it may have images of ours; nothing was removed",
                    silent.why
                ))
                .hint("run the same command again; give the engine more time with `XTASK_ENGINE_TIMEOUT=30s`")
                .hint(format!("clean only the other engine: {}", others.join(" or ")))
                .into());
            }
            Err(_) => {}
        }
    }
    let git = git::work_tree(cx.exec, &cx.settings.root).values;
    let selection = Selection::of(cx.settings, &git, all)?;
    states
        .into_iter()
        .map(|state| of_engine(cx, state, &selection))
        .collect()
}

fn of_engine(cx: &Context, state: EngineState, selection: &Selection) -> Result<CleanFacts> {
    let settings = cx.settings;
    let cache_folder = state
        .engine
        .cache_folder(cx.env.get("TMPDIR"), cx.env.user.euid);
    let engine = state.engine.engine;
    let lists = manifest_lists(cx, &engine, &selection.repositories)?;
    let (lists, other_lists): (Vec<_>, Vec<_>) =
        lists.into_iter().partition(|list| selection.has(list));
    let cmd = engine.list_images(&settings.image.repository);
    let ids = image::read_image_ids(&list_images(cx, &engine, &cmd)?);
    let ids: Vec<_> = ids.into_iter().collect();
    let images = if ids.is_empty() {
        Vec::new()
    } else {
        // An image that was removed in the meantime is not in the answer.
        let found = cx.inspect_images(&engine.program, &ids, LIST_LIMIT);
        cx.exec.fail_if_interrupted()?;
        found.map_err(|why| engine.failure(&why))?
    };
    let images = removals(selection, &images, &lists, &other_lists);
    let containers = if images.is_empty() {
        Vec::new()
    } else {
        all_containers(cx, &engine)?
    };
    let (images, in_use) = split_off_images_of_others(images, &containers);
    Ok(CleanFacts {
        container: state.container,
        images,
        in_use,
        lists,
        caches: if selection.all {
            caches(cx, &engine, cache_folder)
        } else {
            Vec::new()
        },
        builders: if selection.all {
            builders(cx, &engine)
        } else {
            Vec::new()
        },
        engine,
    })
}

/// The references of our repositories that name a manifest list. Podman keeps a list when its images are
/// removed, and cannot list any image after that.
fn manifest_lists(
    cx: &Context,
    engine: &Engine,
    repositories: &[String],
) -> Result<Vec<String>, Failure> {
    let mut lists = Vec::new();
    for repository in repositories {
        let Some(cmd) = engine.list_references(repository) else {
            return Ok(lists);
        };
        for reference in list_images(cx, engine, &cmd)?.lines() {
            let question = engine.is_manifest_list(reference.trim());
            let answer = cx.exec.capture(&question, LIST_LIMIT);
            if answer.is_ok_and(|done| done.ok()) {
                lists.push(reference.trim().to_owned());
            }
        }
    }
    cx.exec.fail_if_interrupted()?;
    Ok(lists)
}

/// Lists images. An engine can fail if an image is removed while it lists them, so it is asked again.
///
/// # Errors
/// When the engine cannot list them. A failure is not taken for an empty list.
fn list_images(cx: &Context, engine: &Engine, cmd: &Cmd) -> Result<String, Failure> {
    let kind = engine.kind;
    let has_failed =
        |answer: &Result<Finished, _>| answer.as_ref().is_ok_and(|finished| !finished.ok());
    let answer = cx.ask_repeatedly(cmd, LIST_LIMIT, has_failed);
    cx.exec.fail_if_interrupted()?;
    let reason = match answer {
        Ok(done) if done.ok() => return Ok(done.stdout),
        Ok(done) => done.first_error_line(),
        Err(_) => format!(
            "no answer within {}",
            humantime::format_duration(LIST_LIMIT)
        ),
    };
    let failure = Failure::new(format!("{kind} cannot list its images: {reason}"));
    // If the images of a manifest list were removed, Podman 4.3 cannot list any image.
    let pruned = reason.split("for image with ID \"").nth(1);
    Err(match pruned.and_then(|rest| rest.split('"').next()) {
        Some(id) => failure.hint(format!(
            "a manifest list refers to an image that does not exist any more; remove the list: `{} manifest rm {id}`",
            engine.program
        )),
        None => failure,
    })
}

/// All containers. Empty if the engine does not list them. The engine itself refuses to remove an image that a
/// container uses.
fn all_containers(cx: &Context, engine: &Engine) -> Result<Vec<Container>> {
    let answer = |cmd: &Cmd| cx.exec.capture(cmd, LIST_LIMIT).ok();
    let listed = answer(&engine.list_containers()).filter(Finished::ok);
    let listed = listed.map(|done| done.stdout).unwrap_or_default();
    let ids: Vec<_> = listed.split_whitespace().collect();
    // A container that was removed in the meantime is not in the answer.
    let found = (!ids.is_empty()).then(|| answer(&inspect_all_cmd(&engine.program, &ids)));
    cx.exec.fail_if_interrupted()?;
    let found = found.flatten().map(|done| read_containers(&done.stdout));
    Ok(found.and_then(Result::ok).unwrap_or_default())
}

/// The builders that xtask created and that exist.
fn builders(cx: &Context, engine: &Engine) -> Vec<String> {
    engine
        .xtask_builders(&cx.settings.image.repository)
        .into_iter()
        .filter(|(_, question)| {
            cx.exec
                .capture(question, LIST_LIMIT)
                .is_ok_and(|done| done.ok())
        })
        .map(|(name, _)| name)
        .collect()
}

/// Our cache mounts: those that the builder lists, and our folders among Buildah's.
fn caches(cx: &Context, engine: &Engine, folder: Option<PathBuf>) -> Vec<CacheMount> {
    let Some(prefix) = cache_prefix(cx) else {
        return Vec::new();
    };
    let listed = engine
        .list_cache_mounts()
        .and_then(|cmd| cx.exec.capture(&cmd, LIST_LIMIT).ok());
    let mut found = listed
        .map(|done| read_cache_mounts(&done.stdout, &prefix))
        .unwrap_or_default();
    // If somebody else owns the shared folder, builds used one of ours: see `build::facts`.
    let own = folder.as_ref().and_then(|_| cx.env.cache_folder());
    for folder in folder
        .into_iter()
        .chain(own.map(|own| own.join("buildah-cache")))
    {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut mounts: Vec<_> = entries
            .filter(|entry| matches!(host::folder(&entry.path()), Folder::Exists { uid, .. } if uid == cx.env.user.euid))
            .filter_map(|entry| {
                let id = entry.file_name().into_string().ok().filter(|id| cache::is_our_cache_id(id, &prefix))?;
                Some(CacheMount { location: entry.path().to_str()?.to_owned(), id })
            })
            .collect();
        mounts.sort_by(|a, b| a.location.cmp(&b.location));
        found.extend(mounts);
    }
    found
}

/// The prefix of the cache mounts' ids: the build argument of the Dockerfile that names it. A Dockerfile
/// without that argument has no cache mounts that are certainly its own.
fn cache_prefix(cx: &Context) -> Option<String> {
    let build = &cx.settings.build;
    let file = std::fs::read_to_string(cx.settings.root.join(&build.dockerfile));
    let default = cache::prefix_in_dockerfile(&file.ok()?)?;
    Some(
        build
            .args
            .get(cache::PREFIX_ARG)
            .cloned()
            .unwrap_or(default),
    )
}

/// Splits off the images that a container of somebody else uses.
fn split_off_images_of_others(
    images: Vec<Removal>,
    containers: &[Container],
) -> (Vec<Removal>, Vec<InUse>) {
    let (mut free, mut in_use) = (Vec::new(), Vec::new());
    for image in images {
        let id = image.id.trim_start_matches("sha256:");
        let user = containers
            .iter()
            .find(|one| one.owner() == Owner::Other && one.image_id() == id);
        match user {
            Some(user) => in_use.push(InUse {
                references: image.references,
                container: user.name().to_owned(),
                creator: user.likely_creator(),
            }),
            None => free.push(image),
        }
    }
    (free, in_use)
}

/// Chooses the images to remove, and their references.
fn removals(
    selection: &Selection,
    images: &[Image],
    lists: &[String],
    other_lists: &[String],
) -> Vec<Removal> {
    let mut by_id: BTreeMap<&str, Removal> = BTreeMap::new();
    for image in images {
        let all = image.repo_tags.clone().unwrap_or_default();
        let all = all.into_iter().filter(|one| !lists.contains(one));
        let (mut go, stay): (Vec<_>, Vec<_>) = all.partition(|one| selection.has(one));
        // An image without references lost its tag to a newer build, or belongs to a manifest list.
        // If a list stays, its images must stay too.
        let leftover = go.is_empty() && stay.is_empty() && other_lists.is_empty();
        let of_this_version = image.label(VERSION_LABEL) == Some(&selection.version);
        if leftover && (selection.all || of_this_version) {
            go.push(image.id.clone());
        }
        if !go.is_empty() {
            by_id.insert(
                &image.id,
                Removal {
                    id: image.id.clone(),
                    references: go,
                    has_other_references: !stay.is_empty(),
                },
            );
        }
    }
    by_id.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_others_use_stay() {
        let text = r#"[
            {"Name":"/cli","Image":"sha256:2","Config":{}},
            {"Name":"ours","Image":"3","Config":{"Labels":{"ai.stigmer.xtask.container":"run"}}}
        ]"#;
        let containers = read_containers(text).unwrap();
        let image = |id: &str| Removal {
            id: format!("sha256:{id}"),
            references: vec![format!("x:{id}")],
            has_other_references: false,
        };
        let (free, in_use) =
            split_off_images_of_others(vec![image("1"), image("2"), image("3")], &containers);
        assert_eq!(free, [image("1"), image("3")]);
        assert_eq!(
            in_use,
            [InUse {
                references: vec!["x:2".to_owned()],
                container: "cli".to_owned(),
                creator: "created manually or by an unknown tool".to_owned(),
            }]
        );
    }
}
