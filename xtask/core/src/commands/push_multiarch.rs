//! `push-multiarch`: builds the image for all platforms and publishes it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::{
    base::error::Failure,
    build::{facts::BuildFacts, request},
    cli::{
        BuildOptions, CheckOption, FlavourOption, PublishingOptions, RepositoryOption,
        VersionOption,
    },
    commands::{
        build_image::{self, BuildImage},
        command::Command,
        smoke,
    },
    config::layer::Override,
    facts::{
        context::Context,
        git::{self, WorkTree},
    },
    plan::Plan,
    release::{
        archive::{self, ArchivePlan, MultiarchRequest, archives_of, merge_inputs, pack_line},
        builder::{self, MultiarchFacts},
        destination, dist,
        expected::expected,
        paths,
        pipeline::{Part, PublishRequest, publish_all, push_line, smoke_line, warn_of_refusal},
        preflight,
    },
    settings::{CheckFirst, EngineChoice, Settings, SmokeFirst},
};

/// Build the image for all platforms and publish it
#[derive(Args, Clone, Debug)]
pub struct PushMultiarch {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
    #[command(flatten)]
    build: BuildOptions,
    #[command(flatten)]
    publishing: PublishingOptions,
    #[command(flatten)]
    repository: RepositoryOption,
    #[command(flatten)]
    check: CheckOption,
    /// Build nothing: publish these archives of single platforms together, or those in a folder
    #[arg(long, value_name = "ARCHIVE|FOLDER")]
    merge: Vec<PathBuf>,
}

impl Command for PushMultiarch {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn flavour(&self) -> Option<&str> {
        self.flavour.get()
    }

    fn overrides(&self) -> Vec<Override> {
        self.build.overrides().list
    }

    fn run(&self, cx: &Context) -> Result<()> {
        preflight::may_publish(cx.settings)?;
        // `there` has the same images in the same order.
        let flavours = self.flavours(cx.settings)?;
        let mut there = Vec::new();
        for settings in &flavours {
            there.push(destination::with_repository(settings, &self.repository)?);
        }
        let (here, there) = (contexts(cx, &flavours), contexts(cx, &there));
        if self.merge.is_empty() {
            self.push_build(cx, &here, &there)
        } else {
            self.push_merged(cx, &here, &there)
        }
    }
}

/// The plans, in their order.
struct PushPlans {
    /// See [`native_plan`].
    native: Option<Plan>,
    archive: ArchivePlan,
}

impl PushMultiarch {
    /// The images of the release: the plain one and the channel's flavours, or the flavour that was named.
    fn flavours(&self, settings: &Settings) -> Result<Vec<Settings>, Failure> {
        match self.flavour.get() {
            Some(_) => Ok(vec![settings.clone()]),
            None => settings.released_together(),
        }
    }

    /// The checks are the same for all flavours, so they run before the first one only.
    fn plan(
        &self,
        settings: &Settings,
        facts: &MultiarchFacts,
        is_first: bool,
    ) -> Result<PushPlans, Failure> {
        let request = MultiarchRequest {
            shard: None,
            options: &self.build,
            check_first: if is_first {
                request::check_first(settings, self.check)
            } else {
                CheckFirst::No
            },
        };
        Ok(PushPlans {
            native: native_plan(settings, &facts.build)?,
            archive: archive::plan(settings, facts, &request, None)?,
        })
    }

    /// Nothing is published before all flavours are built.
    fn render(&self, plans: &[(&Settings, PushPlans)]) -> String {
        let builds = plans.iter().map(|(settings, plans)| {
            plans.native.as_ref().map(Plan::render).unwrap_or_default()
                + &smoke_line(settings)
                + &plans.archive.render()
        });
        let pushes = plans
            .iter()
            .map(|(settings, plans)| self.push_line(settings, &plans.archive.archive));
        builds.chain(pushes).collect()
    }

    fn push_line(&self, settings: &Settings, archive: &Path) -> String {
        push_line(settings, archive, None, self.publishing, &self.repository)
    }

    /// `there` has the repository that the images are published to.
    fn push_build(&self, cx: &Context, here: &[Context], there: &[Context]) -> Result<()> {
        let mut all_facts = Vec::new();
        let mut plans = Vec::new();
        for (number, cx) in here.iter().enumerate() {
            let facts = MultiarchFacts::gather(cx)?;
            if number == 0 {
                builder::warn(cx, &facts);
            }
            plans.push((cx.settings, self.plan(cx.settings, &facts, number == 0)?));
            all_facts.push(facts);
        }
        if cx.dry_run {
            cx.ui.print_plan(&self.render(&plans))?;
            warn_of_refusal(cx, &all_facts[0].build.git, self.publishing);
            return Ok(());
        }
        // The login is that of the engine that builds.
        let engine = EngineChoice::Only(all_facts[0].build.engine.engine.kind);
        let mut with_engine = Vec::new();
        for cx in there {
            let mut settings = cx.settings.clone();
            settings.engine.prefer = engine;
            with_engine.push(settings);
        }
        let there = contexts(cx, &with_engine);
        let mut parts = Vec::new();
        for (number, (settings, plans)) in plans.into_iter().enumerate() {
            let git = all_facts[number].build.git.clone();
            let here = &here[number];
            let PushPlans { native, archive } = plans;
            parts.push(Part {
                cx: &there[number],
                request: self.request(settings, git),
                make: Box::new(move |publication| {
                    if let Some(native) = native {
                        publication.phase("smoke", |_| {
                            here.exec.run(&native)?;
                            smoke::require_success(here)
                        })?;
                    }
                    let path = paths::display(settings, &archive.archive);
                    here.ui.status("Writing", &path);
                    publication.phase("build", |_| archive.run(here))
                }),
            });
        }
        publish_all(parts)
    }

    fn request(&self, settings: &Settings, git: WorkTree) -> PublishRequest {
        PublishRequest {
            expected: expected(settings, &git),
            git,
            options: self.publishing,
            digest: None,
        }
    }

    fn push_merged(&self, cx: &Context, here: &[Context], there: &[Context]) -> Result<()> {
        let git = git::work_tree(cx.exec, &cx.settings.root);
        let inputs = merge_inputs(cx, &self.merge)?;
        let mut text = String::new();
        let mut parts = Vec::new();
        for (here, there) in here.iter().zip(there) {
            let settings = here.settings;
            let inputs = archives_of(settings, &inputs)?;
            let output = paths::archive(settings, None);
            text += &pack_line(&inputs, None, &output);
            text += &self.push_line(settings, &output);
            parts.push(Part {
                cx: there,
                request: self.request(settings, git.clone()),
                make: Box::new(move |publication| {
                    publication.phase("merge", |_| dist::pack(here, &inputs, None, &output))
                }),
            });
        }
        if cx.dry_run {
            cx.ui.print_plan(&text)?;
            warn_of_refusal(cx, &git, self.publishing);
            return Ok(());
        }
        publish_all(parts)
    }
}

/// What the parts of the release work with.
fn contexts<'a>(cx: &Context<'a>, all: &'a [Settings]) -> Vec<Context<'a>> {
    let of = |settings| Context { settings, ..*cx };
    all.iter().map(of).collect()
}

/// The build for this machine's platform into the engine's store, which `smoke` runs; none if the channel
/// does not ask for it. Its steps are those of the release, so the second build takes them from the
/// cache.
fn native_plan(settings: &Settings, facts: &BuildFacts) -> Result<Option<Plan>, Failure> {
    match settings.channel.smoke {
        SmokeFirst::Yes => {
            let check = CheckOption {
                check: false,
                no_check: true,
            };
            build_image::plan(settings, facts, &BuildImage::with_check(check)).map(Some)
        }
        SmokeFirst::No => Ok(None),
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for PushMultiarch {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let line = "push-multiarch --version 1.2.3 --no-check";
        machine.rendered_examples(&[line], |command: &Self, settings, _| {
            let mut plans = Vec::new();
            let flavours = command.flavours(settings)?;
            for (number, one) in flavours.iter().enumerate() {
                let plan = command.plan(one, &machine.multi_facts(), number == 0)?;
                plans.push((one, plan));
            }
            Ok(command.render(&plans))
        })
    }
}
