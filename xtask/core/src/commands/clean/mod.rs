//! `clean`: removes our container and this version's images; with `--all`, every image built here. It never
//! touches the workspace folder, nor what is not ours.

mod facts;

use std::fs;

use anyhow::Result;
use clap::Args;

use crate::{
    base::error::Failure,
    cli::VersionOption,
    commands::{
        clean::facts::{CleanFacts, Removal},
        command::Command,
        removal,
    },
    engine::container::Owner,
    facts::context::Context,
    plan::{Cmd, Output, Plan, Step},
    settings::Settings,
};

/// Remove our container and this version's images
#[derive(Args, Clone, Debug)]
pub struct Clean {
    #[command(flatten)]
    version: VersionOption,
    /// Remove the images of all versions that were built here, our build cache, and the compressed layers
    #[arg(long)]
    all: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

fn plan(settings: &Settings, facts: &CleanFacts) -> Plan {
    let name = &settings.run.container;
    let mut plan = Plan::default();
    if let Some(container) = facts.container_of(Owner::Xtask) {
        let grace = settings.run.stop_grace;
        let stop = removal::stop_steps(&facts.engine, name, name.as_str(), container, grace);
        plan.steps
            .extend(stop.into_iter().map(Step::ignore_failure));
        // Another run may be removing it at this moment. Whether it is gone is checked afterwards.
        plan.push(
            Step::new(facts.engine.remove(name), Output::Quiet)
                .status("Removing", format!("container {name}"))
                .ignore_failure(),
        );
    }
    // Lists come first: a list without its images would break the engine's other commands.
    for reference in &facts.lists {
        plan.push(
            Step::new(facts.engine.remove_manifest_list(reference), Output::Quiet)
                .status("Removing", format!("manifest list {reference}"))
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

/// Removes the layers that packing keeps compressed. They belong to no engine. Another run may be adding one.
fn layers_plan(folder: &str) -> Plan {
    let step = Step::new(Cmd::new("rm").args(["-rf", folder]), Output::Quiet);
    let step = step.status("Removing", format!("compressed layers {folder}"));
    vec![step.ignore_failure()].into()
}

/// The folder of the compressed layers, if there is one. A link to a folder somewhere else stays.
fn layers_folder(cx: &Context) -> Option<String> {
    let folder = cx.env.layer_cache()?;
    let found = fs::symlink_metadata(&folder).ok()?;
    found.is_dir().then(|| folder.to_str().map(str::to_owned))?
}

impl Command for Clean {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let found = facts::gather(cx, self.all)?;
        let found: Vec<_> = found
            .into_iter()
            .map(|facts| (plan(cx.settings, &facts), facts))
            .collect();
        let layers = self.all.then(|| layers_folder(cx)).flatten();
        for image in found.iter().flat_map(|(_, facts)| &facts.in_use) {
            cx.ui.warn(&format!(
                "image {} stays: the container `{}` uses it, {}",
                image.references.join(", "),
                image.container,
                image.creator
            ));
        }
        if cx.dry_run {
            let plans = found.into_iter().map(|(plan, _)| plan);
            return plans
                .chain(layers.as_deref().map(layers_plan))
                .try_for_each(|plan| cx.run_or_print(&plan).map(|_| ()));
        }
        let name = &cx.settings.run.container;
        for (_, facts) in &found {
            if let Some(container) = facts.container_of(Owner::Other) {
                cx.ui.warn(&format!(
                    "the container `{name}` stays: it is not ours, {}",
                    container.likely_creator()
                ));
            }
        }
        let found: Vec<_> = found
            .into_iter()
            .filter(|(plan, _)| !plan.steps.is_empty())
            .collect();
        if found.is_empty() && layers.is_none() {
            cx.ui.status("Clean", "nothing of ours to remove");
            return Ok(());
        }
        list(
            cx,
            found.iter().map(|(_, facts)| facts),
            layers.as_deref(),
            self,
        );
        ask_first(cx, self)?;
        let mut removed = 0;
        for (plan, facts) in &found {
            removed += remove(cx, plan, facts)?;
        }
        if let Some(folder) = layers {
            remove_layers(cx, &folder)?;
        }
        // Engines report the size of each image with the layers that it shares, so there is no true sum.
        let lists: usize = found.iter().map(|(_, facts)| facts.lists.len()).sum();
        let lists = match lists {
            0 => String::new(),
            1 => " and 1 manifest list".to_owned(),
            _ => format!(" and {lists} manifest lists"),
        };
        let images = if removed == 1 { "image" } else { "images" };
        if !found.is_empty() {
            cx.ui
                .status("Removed", &format!("{removed} {images}{lists}"));
        }
        Ok(())
    }
}

/// Removes what the plan names from one engine. Returns the number of images that are gone.
///
/// # Errors
/// When our container cannot be removed, and when a signal interrupts.
fn remove(cx: &Context, plan: &Plan, facts: &CleanFacts) -> Result<usize> {
    cx.exec.run(plan)?;
    ensure_container_removed(cx, facts)?;
    let stayed = retry_removal(cx, facts, kept_images(cx, facts));
    for image in &stayed {
        cx.ui.warn(&format!(
            "image {} stays: a container uses it",
            image.references.join(", ")
        ));
    }
    Ok(whole_images(facts).count() - stayed.len())
}

fn remove_layers(cx: &Context, folder: &str) -> Result<()> {
    cx.exec.run(&layers_plan(folder))?;
    if layers_folder(cx).is_some() {
        cx.ui.warn(&format!(
            "`{folder}` stays: it cannot be removed, or another run uses it"
        ));
    }
    Ok(())
}

/// The images that do not stay under another reference.
fn whole_images(facts: &CleanFacts) -> impl Iterator<Item = &Removal> {
    let images = facts.images.iter();
    images.filter(|image| !image.has_other_references)
}

/// Lists what will be removed, one line each. Before the question it is shown even with `--quiet`.
fn list<'a>(
    cx: &Context,
    found: impl Iterator<Item = &'a CleanFacts>,
    layers: Option<&str>,
    args: &Clean,
) {
    let mut lines = vec!["this will be removed:".to_owned()];
    for facts in found {
        let kind = facts.engine.kind;
        if let Some(container) = facts.container_of(Owner::Xtask) {
            let name = &cx.settings.run.container;
            lines.push(format!(
                "  container {name} ({}) of {kind}",
                container.state.status
            ));
        }
        let lists = facts.lists.iter();
        lines.extend(lists.map(|reference| format!("  manifest list {reference} of {kind}")));
        lines.extend(facts.images.iter().map(|image| {
            let names = if image.has_other_references {
                " (only these names)"
            } else {
                ""
            };
            format!("  image {}{names} of {kind}", image.references.join(", "))
        }));
        let caches = facts.caches.iter();
        lines
            .extend(caches.map(|mount| format!("  build cache {} ({})", mount.id, mount.location)));
        let builders = facts.builders.iter();
        lines.extend(builders.map(|name| format!("  builder {name}, with its cache")));
    }
    if let Some(folder) = layers {
        lines.push(format!("  compressed layers {folder}"));
    }
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
    if cx.exec.confirm("Remove it?")? {
        Ok(())
    } else {
        Err(Failure::new("nothing was removed"))
    }
}

/// Waits until the container is gone. If it stays, tries once more, to show the engine's reason.
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

/// Tries once more to remove the images that stayed. Our own container may have used them until
/// now: if two runs remove it at the same time, one can continue before the other has finished.
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
    whole_images(facts).filter(exists).cloned().collect()
}

#[cfg(test)]
impl crate::commands::testing::Examples for Clean {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        use crate::{engine::cache::CacheMount, settings::GitValues};
        machine.examples(
            &["clean --version dev-me --all"],
            |_: &Self, settings, _| {
                let engine = machine.engine().engine;
                let builders = engine.xtask_builders(&settings.image.repository);
                let image = Removal {
                    id: "sha256:1".to_owned(),
                    references: vec![settings.reference(&GitValues::default())?],
                    has_other_references: false,
                };
                let facts = CleanFacts {
                    builders: builders.into_iter().map(|(name, _)| name).take(1).collect(),
                    engine,
                    container: Some(machine.running_container()),
                    lists: Vec::new(),
                    images: vec![image],
                    in_use: Vec::new(),
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
