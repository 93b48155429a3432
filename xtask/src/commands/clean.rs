//! `clean`: our container and this version's images; with `--all` every image built here.
//! Never the workspace folder, never what is not ours.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Result;

use super::{Context, Ran};
use crate::{
    cli::CleanArgs,
    engine::{
        Engine,
        cache::{self, CacheMount, read_cache_mounts},
        container::{Container, Owner},
        image::{self, Image},
    },
    error::Failure,
    image::{VERSION_LABEL, human_bytes},
    plan::{Cmd, Output, Plan, Step},
    probe::{self, Folder, Wanted},
    settings::{GitValues, Settings},
    ui::Clock,
};

/// How long an engine may take to list what it has.
const LISTING: Duration = Duration::from_secs(30);
/// Before each time that it is asked.
const LISTING_PAUSES: &[Duration] = &[
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// How long a removal that another run began may take.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// An image to remove: under each of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    pub id: String,
    pub size: u64,
    /// References to remove; the bare id for an image without any.
    pub references: Vec<String>,
    /// Whether references stay that keep the image.
    pub kept_by_others: bool,
}

/// What the plan needs to know.
#[derive(Clone, Debug)]
pub struct CleanFacts {
    pub engine: Engine,
    pub container: Option<Container>,
    pub images: Vec<Doomed>,
    pub caches: Vec<CacheMount>,
    /// The builders that we made.
    pub builders: Vec<&'static str>,
}

impl CleanFacts {
    /// The container of our name, if it is whose it is asked to be.
    fn container_of(&self, owner: Owner) -> Option<&Container> {
        self.container
            .as_ref()
            .filter(|found| found.owner() == owner)
    }
}

/// Asks for images. Engines fail when one is removed while they list them, so they are asked again;
/// what cannot be listed is not said to be nothing.
fn list_images(cx: &Context, engine: &Engine, cmd: &Cmd) -> Result<String, Failure> {
    let kind = engine.kind;
    let mut complaint = format!("no answer within {}", humantime::format_duration(LISTING));
    for pause in LISTING_PAUSES {
        cx.exec.check()?;
        std::thread::sleep(*pause);
        match cx.exec.ask(cmd, LISTING) {
            Ok(done) if done.ok() => return Ok(done.stdout),
            Ok(done) => done.complaint().clone_into(&mut complaint),
            Err(_) => break,
        }
    }
    cx.exec.check()?;
    let failure = Failure::new(format!("{kind} cannot list its images: {complaint}"));
    // A list of images stays when `podman image prune` removes those that it lists, and Podman 4.3
    // then lists none at all.
    let pruned = complaint.split("for image with ID \"").nth(1);
    Err(match pruned.and_then(|rest| rest.split('"').next()) {
        Some(id) => failure.hint(format!(
            "the images of a list were pruned; remove the list: `{} manifest rm {id}`",
            engine.program
        )),
        None => failure,
    })
}

fn facts(cx: &Context, args: &CleanArgs) -> Result<CleanFacts> {
    let settings = cx.settings;
    let wanted = Wanted {
        container: Some(&settings.run.container),
        images: &[],
    };
    let world = cx.probe().world(wanted)?;
    let folders = world
        .engine
        .cache_folder(cx.env.get("TMPDIR"), cx.env.user.euid);
    let engine = world.engine.engine;
    let cmd = engine.list_images(&settings.image.repository);
    let listed = image::read_list(&list_images(cx, &engine, &cmd)?);
    let mut ids: Vec<_> = listed.iter().map(|listed| listed.id.clone()).collect();
    ids.sort();
    ids.dedup();
    let images = if ids.is_empty() {
        Vec::new()
    } else {
        // One that has gone since is none to remove.
        let answer = cx
            .exec
            .ask(&image::inspect_cmd(&engine.program, &ids), LISTING);
        cx.exec.check()?;
        image::read_inspect(&answer, LISTING).map_err(Failure::new)?
    };
    let git = probe::git(cx.exec, &settings.root).values;
    Ok(CleanFacts {
        container: world.container,
        images: doomed(settings, &git, &images, args)?,
        caches: if args.all {
            caches(cx, &engine, folders)
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

/// Those of ours that are there.
fn builders(cx: &Context, engine: &Engine) -> Vec<&'static str> {
    engine
        .our_builders()
        .into_iter()
        .filter(|(_, question)| cx.exec.ask(question, LISTING).is_ok_and(|done| done.ok()))
        .map(|(name, _)| name)
        .collect()
}

/// Our cache mounts: what the builder lists, and folders of our own in Buildah's place.
fn caches(cx: &Context, engine: &Engine, folder: Option<PathBuf>) -> Vec<CacheMount> {
    let listed = engine
        .list_cache_mounts()
        .and_then(|cmd| cx.exec.ask(&cmd, LISTING).ok());
    let mut found = listed
        .map(|done| read_cache_mounts(&done.stdout))
        .unwrap_or_default();
    // Where somebody else owns the shared folder, builds used one of ours: see `own_cache`.
    let own = folder.as_ref().and_then(|_| cx.env.cache_folder());
    for folder in folder
        .into_iter()
        .chain(own.map(|own| own.join("buildah-cache")))
    {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut mounts: Vec<_> = entries
            .filter(|entry| matches!(probe::folder(&entry.path()), Folder::There { uid, .. } if uid == cx.env.user.euid))
            .filter_map(|entry| {
                let id = entry.file_name().into_string().ok().filter(|id| cache::ours(id))?;
                Some(CacheMount { place: entry.path().to_str()?.to_owned(), id })
            })
            .collect();
        mounts.sort_by(|a, b| a.place.cmp(&b.place));
        found.extend(mounts);
    }
    found
}

/// Which of our images go, and under which names.
fn doomed(
    settings: &Settings,
    git: &GitValues,
    images: &[Image],
    args: &CleanArgs,
) -> Result<Vec<Doomed>, Failure> {
    let repository = settings.image.repository.as_str();
    let of_version: Vec<_> = settings
        .tags(git)?
        .iter()
        .map(|tag| settings.image.repository.tagged(tag))
        .collect();
    let in_repository = |reference: &str| {
        reference
            .rsplit_once(':')
            .is_some_and(|(name, _)| name == repository)
    };
    let mut by_id: BTreeMap<&str, Doomed> = BTreeMap::new();
    for image in images {
        let all = image.repo_tags.clone().unwrap_or_default();
        let goes = |reference: &String| {
            if args.all {
                in_repository(reference)
            } else {
                of_version.contains(reference)
            }
        };
        let (mut go, stay): (Vec<_>, Vec<_>) = all.into_iter().partition(goes);
        // One that lost its tag to a newer build has no name left to remove it by.
        let leftover = go.is_empty() && stay.is_empty();
        let of_this_version = image.label(VERSION_LABEL) == Some(settings.version.value.as_str());
        if leftover && (args.all || of_this_version) {
            go.push(image.id.clone());
        }
        if !go.is_empty() {
            by_id.insert(
                &image.id,
                Doomed {
                    id: image.id.clone(),
                    size: image.size,
                    references: go,
                    kept_by_others: !stay.is_empty(),
                },
            );
        }
    }
    Ok(by_id.into_values().collect())
}

pub fn plan(settings: &Settings, facts: &CleanFacts) -> Plan {
    let name = &settings.run.container;
    let mut plan = Plan::default();
    if let Some(container) = facts.container_of(Owner::Us) {
        if container.state.running {
            plan.push(
                Step::new(
                    facts.engine.stop(name, settings.run.stop_grace),
                    Output::Quiet,
                )
                .say("Stopping", name.as_str())
                .or_go_on(),
            );
        }
        // Another run may be removing it at this moment, which is as good: it is looked for after.
        plan.push(
            Step::new(facts.engine.remove(name), Output::Quiet)
                .say("Removing", format!("container {name}"))
                .or_go_on(),
        );
    }
    for image in &facts.images {
        for reference in &image.references {
            // In use by somebody's container: the engine says so, and the rest goes on.
            plan.push(
                Step::new(facts.engine.remove_image(reference), Output::Quiet)
                    .say("Removing", format!("image {reference}"))
                    .or_go_on(),
            );
        }
    }
    for mount in &facts.caches {
        let step = Step::new(facts.engine.remove_cache_mount(mount), Output::Quiet);
        plan.push(
            step.say("Removing", format!("build cache {}", mount.id))
                .or_go_on(),
        );
    }
    for name in &facts.builders {
        let step = facts.engine.remove_builder(name);
        plan.push(step.say("Removing", format!("builder {name}")));
    }
    plan
}

pub fn run(cx: &Context, args: &CleanArgs) -> Result<()> {
    let facts = facts(cx, args)?;
    let plan = plan(cx.settings, &facts);
    if !cx.dry_run {
        let name = &cx.settings.run.container;
        if let Some(container) = facts.container_of(Owner::Somebody) {
            cx.ui.warn(&format!(
                "the container `{name}` stays: it is not ours, {}",
                container.looks_like()
            ));
        }
        if plan.steps.is_empty() {
            cx.ui.status("Clean", "nothing of ours to remove");
            return Ok(());
        }
        list(cx, &facts, args);
        ask_first(cx, args)?;
    }
    let before = facts.images.iter().filter(|image| !image.kept_by_others);
    let (count, bytes) = before.fold((0, 0), |(count, bytes), image| {
        (count + 1, bytes + image.size)
    });
    if cx.carry_out(&plan)? == Ran::No {
        return Ok(());
    }
    container_must_be_gone(cx, &facts)?;
    let stayed = try_again(cx, &facts, still_there(cx, &facts));
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

/// What goes, a line each. Who is to be asked sees it also with `--quiet`.
fn list(cx: &Context, facts: &CleanFacts, args: &CleanArgs) {
    let mut lines = vec!["this will be removed:".to_owned()];
    if let Some(container) = facts.container_of(Owner::Us) {
        let name = &cx.settings.run.container;
        lines.push(format!("  container {name} ({})", container.state.status));
    }
    lines.extend(facts.images.iter().map(|image| {
        let size = if image.kept_by_others {
            "only these names".to_owned()
        } else {
            human_bytes(image.size)
        };
        format!("  image {} ({size})", image.references.join(", "))
    }));
    let caches = facts.caches.iter();
    lines.extend(caches.map(|mount| format!("  build cache {} ({})", mount.id, mount.place)));
    lines.extend(
        facts
            .builders
            .iter()
            .map(|name| format!("  builder {name}, with its cache")),
    );
    let text = lines.join("\n");
    if args.yes {
        cx.ui.line(&text);
    } else {
        cx.ui.raw(&text);
    }
}

fn ask_first(cx: &Context, args: &CleanArgs) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if !cx.env.stdin_tty {
        return Err(Failure::usage("nobody can be asked whether to remove this")
            .hint("add `--yes`, or look first with `--dry-run`"));
    }
    if cx.ui.confirm("Remove it?") {
        Ok(())
    } else {
        Err(Failure::new("nothing was removed"))
    }
}

/// The container that was to go, once more if need be: what keeps it is then the engine's to say.
fn container_must_be_gone(cx: &Context, facts: &CleanFacts) -> Result<()> {
    let Some(ours) = facts.container_of(Owner::Us) else {
        return Ok(());
    };
    let name = &cx.settings.run.container;
    let clock = Clock::start();
    loop {
        let found = cx.probe().container_of(&facts.engine, name)?;
        if found.is_none_or(|found| found.id != ours.id) {
            return Ok(());
        }
        if clock.elapsed() > UNDER_WAY {
            let step = Step::new(facts.engine.remove(name), Output::Quiet);
            return cx.exec.step(&step).map(|_| ());
        }
        cx.exec
            .pause(Duration::from_millis(100))
            .map_err(Failure::signal)?;
    }
}

/// What stayed because our own container still counted: it went a moment ago, and where two runs
/// remove it, one is told that it has gone while the other is still at it.
fn try_again(cx: &Context, facts: &CleanFacts, stayed: Vec<Doomed>) -> Vec<Doomed> {
    if stayed.is_empty() || facts.container_of(Owner::Us).is_none() {
        return stayed;
    }
    for reference in stayed.iter().flat_map(|image| &image.references) {
        let step = Step::new(facts.engine.remove_image(reference), Output::Quiet);
        let _ = cx.exec.step(&step.or_go_on());
    }
    still_there(cx, facts)
}

/// Images that the engine kept because containers use them.
fn still_there(cx: &Context, facts: &CleanFacts) -> Vec<Doomed> {
    let limit = cx.settings.engine.timeout.max(Duration::from_secs(10));
    facts
        .images
        .iter()
        .filter(|doomed| !doomed.kept_by_others)
        .filter(|doomed| {
            let answer = cx.exec.ask(
                &image::inspect_cmd(&facts.engine.program, &[&doomed.id]),
                limit,
            );
            image::read_inspect(&answer, limit).is_ok_and(|found| !found.is_empty())
        })
        .cloned()
        .collect()
}
