//! `clean`: removes our container and this version's images; with `--all`, every image built here. It never
//! touches the workspace folder, nor what is not ours.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;

use crate::{
    base::{
        error::Failure,
        image::{VERSION_LABEL, human_bytes},
    },
    cli::VersionOption,
    commands::{
        command::Command,
        removal,
        stack::{devserver_image, devserver_repository},
    },
    engine::{
        Engine,
        cache::{self, CacheMount, read_cache_mounts},
        container::{Container, Owner},
        image::{self, Image},
    },
    facts::{
        context::{Context, EngineQuery, Ran},
        git,
        host::{self, Folder},
    },
    plan::{Cmd, Output, Plan, Step},
    settings::{GitValues, Settings},
};

/// Remove our container and this version's images
#[derive(Args, Clone, Debug)]
pub struct Clean {
    #[command(flatten)]
    version: VersionOption,
    /// Remove the images of all versions that were built here, and our build cache
    #[arg(long)]
    all: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

/// How long an engine may take to list what it has.
const LIST_LIMIT: Duration = Duration::from_secs(30);
/// The pause before each attempt to list.
const LIST_PAUSES: &[Duration] = &[
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// An image to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Removal {
    id: String,
    size: u64,
    /// The references to remove; the id of an image that has none.
    references: Vec<String>,
    /// Whether the image stays under other references.
    has_other_references: bool,
}

/// What the plan needs to know.
#[derive(Clone, Debug)]
struct CleanFacts {
    engine: Engine,
    container: Option<Container>,
    images: Vec<Removal>,
    caches: Vec<CacheMount>,
    /// The builders that xtask created.
    builders: Vec<&'static str>,
}

impl CleanFacts {
    /// The container of our name, if it has this owner.
    fn container_of(&self, owner: Owner) -> Option<&Container> {
        self.container
            .as_ref()
            .filter(|found| found.owner() == owner)
    }
}

/// Lists images. An engine fails if an image is removed while it lists them, so it is asked again.
///
/// # Errors
/// When the list cannot be had. It is not taken for an empty one.
fn list_images(cx: &Context, engine: &Engine, cmd: &Cmd) -> Result<String, Failure> {
    let kind = engine.kind;
    let mut reason = format!(
        "no answer within {}",
        humantime::format_duration(LIST_LIMIT)
    );
    for pause in LIST_PAUSES {
        cx.exec.fail_if_interrupted()?;
        std::thread::sleep(*pause);
        match cx.exec.capture(cmd, LIST_LIMIT) {
            Ok(done) if done.ok() => return Ok(done.stdout),
            Ok(done) => done.first_error_line().clone_into(&mut reason),
            Err(_) => break,
        }
    }
    cx.exec.fail_if_interrupted()?;
    let failure = Failure::new(format!("{kind} cannot list its images: {reason}"));
    // `podman image prune` may remove the images of a manifest list and leave the list. Podman 4.3 then
    // cannot list any image.
    let pruned = reason.split("for image with ID \"").nth(1);
    Err(match pruned.and_then(|rest| rest.split('"').next()) {
        Some(id) => failure.hint(format!(
            "the images of a manifest list were pruned; remove the list: `{} manifest rm {id}`",
            engine.program
        )),
        None => failure,
    })
}

fn facts(cx: &Context, args: &Clean) -> Result<CleanFacts> {
    let settings = cx.settings;
    let query = EngineQuery {
        container: Some(&settings.run.container),
        images: &[],
    };
    let state = cx.query_engine(query)?;
    let cache_folder = state
        .engine
        .cache_folder(cx.env.get("TMPDIR"), cx.env.user.euid);
    let engine = state.engine.engine;
    let cmd = engine.list_images(&settings.image.repository);
    let ids = image::read_image_ids(&list_images(cx, &engine, &cmd)?);
    let ids: Vec<_> = ids.into_iter().collect();
    let images = if ids.is_empty() {
        Vec::new()
    } else {
        // An image that was removed in the meantime is not in the answer.
        let answer = cx
            .exec
            .capture(&image::inspect_cmd(&engine.program, &ids), LIST_LIMIT);
        cx.exec.fail_if_interrupted()?;
        image::read_inspect(&answer).map_err(Failure::new)?
    };
    let git = git::work_tree(cx.exec, &settings.root).values;
    Ok(CleanFacts {
        container: state.container,
        images: removals(settings, &git, &images, args)?,
        caches: if args.all {
            caches(cx, &engine, cache_folder)
        } else {
            Vec::new()
        },
        builders: if args.all {
            builders(cx, &engine)
        } else {
            Vec::new()
        },
        engine,
    })
}

/// The builders that xtask created and that exist.
fn builders(cx: &Context, engine: &Engine) -> Vec<&'static str> {
    engine
        .xtask_builders()
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
    let listed = engine
        .list_cache_mounts()
        .and_then(|cmd| cx.exec.capture(&cmd, LIST_LIMIT).ok());
    let mut found = listed
        .map(|done| read_cache_mounts(&done.stdout))
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
                let id = entry.file_name().into_string().ok().filter(|id| cache::is_our_cache_id(id))?;
                Some(CacheMount { location: entry.path().to_str()?.to_owned(), id })
            })
            .collect();
        mounts.sort_by(|a, b| a.location.cmp(&b.location));
        found.extend(mounts);
    }
    found
}

/// Chooses the images to remove, and their references.
fn removals(
    settings: &Settings,
    git: &GitValues,
    images: &[Image],
    args: &Clean,
) -> Result<Vec<Removal>, Failure> {
    let repository = settings.image.repository.as_str();
    let repositories = [repository, &devserver_repository(settings)];
    let is_built_here = |reference: &str| {
        let name = reference.rsplit_once(':').map(|(name, _)| name);
        name.is_some_and(|name| repositories.contains(&name))
    };
    let mut of_version: Vec<_> = settings
        .tags(git)?
        .iter()
        .map(|tag| settings.image.repository.tagged(tag))
        .collect();
    of_version.push(devserver_image(settings));
    let mut by_id: BTreeMap<&str, Removal> = BTreeMap::new();
    for image in images {
        let all = image.repo_tags.clone().unwrap_or_default();
        let is_selected = |reference: &String| {
            if args.all {
                is_built_here(reference)
            } else {
                of_version.contains(reference)
            }
        };
        let (mut go, stay): (Vec<_>, Vec<_>) = all.into_iter().partition(is_selected);
        // An image that lost its tag to a newer build has no reference left.
        let leftover = go.is_empty() && stay.is_empty();
        let of_this_version = image.label(VERSION_LABEL) == Some(settings.version.value.as_str());
        if leftover && (args.all || of_this_version) {
            go.push(image.id.clone());
        }
        if !go.is_empty() {
            by_id.insert(
                &image.id,
                Removal {
                    id: image.id.clone(),
                    size: image.size,
                    references: go,
                    has_other_references: !stay.is_empty(),
                },
            );
        }
    }
    Ok(by_id.into_values().collect())
}

fn plan(settings: &Settings, facts: &CleanFacts) -> Plan {
    let name = &settings.run.container;
    let mut plan = Plan::default();
    if let Some(container) = facts.container_of(Owner::Xtask) {
        if container.state.running {
            plan.push(
                Step::new(
                    facts.engine.stop(name, settings.run.stop_grace),
                    Output::Quiet,
                )
                .status("Stopping", name.as_str())
                .ignore_failure(),
            );
        }
        // Another run may be removing it at this moment. Whether it is gone is checked afterwards.
        plan.push(
            Step::new(facts.engine.remove(name), Output::Quiet)
                .status("Removing", format!("container {name}"))
                .ignore_failure(),
        );
    }
    for image in &facts.images {
        for reference in &image.references {
            // The engine refuses an image that a container uses. The other images are removed all the same.
            plan.push(
                Step::new(facts.engine.remove_image(reference), Output::Quiet)
                    .status("Removing", format!("image {reference}"))
                    .ignore_failure(),
            );
        }
    }
    for mount in &facts.caches {
        let step = Step::new(facts.engine.remove_cache_mount(mount), Output::Quiet);
        plan.push(
            step.status("Removing", format!("build cache {}", mount.id))
                .ignore_failure(),
        );
    }
    for name in &facts.builders {
        let step = facts.engine.remove_builder(name);
        plan.push(step.status("Removing", format!("builder {name}")));
    }
    plan
}

impl Command for Clean {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let facts = facts(cx, self)?;
        let plan = plan(cx.settings, &facts);
        if !cx.dry_run {
            let name = &cx.settings.run.container;
            if let Some(container) = facts.container_of(Owner::Other) {
                cx.ui.warn(&format!(
                    "the container `{name}` stays: it is not ours, {}",
                    container.likely_creator()
                ));
            }
            if plan.steps.is_empty() {
                cx.ui.status("Clean", "nothing of ours to remove");
                return Ok(());
            }
            list(cx, &facts, self);
            ask_first(cx, self)?;
        }
        let before = facts
            .images
            .iter()
            .filter(|image| !image.has_other_references);
        let (count, bytes) = before.fold((0, 0), |(count, bytes), image| {
            (count + 1, bytes + image.size)
        });
        if cx.run_or_print(&plan)? == Ran::No {
            return Ok(());
        }
        ensure_container_removed(cx, &facts)?;
        let stayed = retry_removal(cx, &facts, kept_images(cx, &facts));
        for image in &stayed {
            cx.ui.warn(&format!(
                "image {} stays: a container uses it",
                image.references.join(", ")
            ));
        }
        let kept: u64 = stayed.iter().map(|image| image.size).sum();
        cx.ui.status(
            "Reclaimed",
            &format!(
                "{} of {} images",
                human_bytes(bytes - kept),
                count - stayed.len()
            ),
        );
        Ok(())
    }
}

/// Lists what will be removed, one line each. Before the question it is shown even with `--quiet`.
fn list(cx: &Context, facts: &CleanFacts, args: &Clean) {
    let mut lines = vec!["this will be removed:".to_owned()];
    if let Some(container) = facts.container_of(Owner::Xtask) {
        let name = &cx.settings.run.container;
        lines.push(format!("  container {name} ({})", container.state.status));
    }
    lines.extend(facts.images.iter().map(|image| {
        let size = if image.has_other_references {
            "only these names".to_owned()
        } else {
            human_bytes(image.size)
        };
        format!("  image {} ({size})", image.references.join(", "))
    }));
    let caches = facts.caches.iter();
    lines.extend(caches.map(|mount| format!("  build cache {} ({})", mount.id, mount.location)));
    lines.extend(
        facts
            .builders
            .iter()
            .map(|name| format!("  builder {name}, with its cache")),
    );
    let text = lines.join("\n");
    if args.yes {
        cx.ui.detail(&text);
    } else {
        cx.ui.print_unchanged(&text);
    }
}

fn ask_first(cx: &Context, args: &Clean) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if !cx.env.stdin_tty {
        return Err(
            Failure::usage("standard input is not a terminal; pass `--yes`")
                .hint("see what would be removed: `--dry-run`"),
        );
    }
    if cx.ui.confirm("Remove it?") {
        Ok(())
    } else {
        Err(Failure::new("nothing was removed"))
    }
}

/// Waits until the container is gone. If it stays, it is removed once more, so that the engine says why.
///
/// # Errors
/// When it cannot be removed.
fn ensure_container_removed(cx: &Context, facts: &CleanFacts) -> Result<()> {
    let Some(ours) = facts.container_of(Owner::Xtask) else {
        return Ok(());
    };
    let name = &cx.settings.run.container;
    if !removal::is_gone(cx, &facts.engine, name, ours)? {
        let step = Step::new(facts.engine.remove(name), Output::Quiet);
        cx.exec.step(&step)?;
    }
    Ok(())
}

/// Removes images that stayed once more. Our own container may have kept them: if two runs remove it at the
/// same time, one may go on while the other has not finished.
fn retry_removal(cx: &Context, facts: &CleanFacts, stayed: Vec<Removal>) -> Vec<Removal> {
    if stayed.is_empty() || facts.container_of(Owner::Xtask).is_none() {
        return stayed;
    }
    for reference in stayed.iter().flat_map(|image| &image.references) {
        let step = Step::new(facts.engine.remove_image(reference), Output::Quiet);
        let _ = cx.exec.step(&step.ignore_failure());
    }
    kept_images(cx, facts)
}

/// The images that the engine kept, because containers use them.
fn kept_images(cx: &Context, facts: &CleanFacts) -> Vec<Removal> {
    let exists = |image: &&Removal| {
        let found = cx.images_of(&facts.engine, &[&image.id]);
        found.is_ok_and(|found| !found.is_empty())
    };
    facts
        .images
        .iter()
        .filter(|image| !image.has_other_references)
        .filter(exists)
        .cloned()
        .collect()
}

#[cfg(test)]
impl crate::commands::testing::Examples for Clean {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        machine.examples(
            &["clean --version dev-me --all"],
            |_: &Self, settings, _| {
                let engine = machine.engine().engine;
                let builders = engine.xtask_builders();
                let image = Removal {
                    id: "sha256:1".to_owned(),
                    size: 100,
                    references: vec![settings.reference(&GitValues::default())?],
                    has_other_references: false,
                };
                let facts = CleanFacts {
                    builders: builders.iter().map(|(name, _)| *name).take(1).collect(),
                    engine,
                    container: Some(machine.running_container()),
                    images: vec![image],
                    caches: vec![CacheMount {
                        location: "/var/tmp/buildah-cache/agent-runner-uv".to_owned(),
                        id: "agent-runner-uv".to_owned(),
                    }],
                };
                Ok(plan(settings, &facts))
            },
        )
    }
}
