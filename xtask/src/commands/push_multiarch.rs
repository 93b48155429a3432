//! `push-multiarch`: builds the image for all platforms and publishes it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::{
    base::error::Failure,
    build::{facts::BuildFacts, request},
    cli::{BuildOptions, CheckOption, PublishingOptions, RepositoryOption, VersionOption},
    commands::{
        build_image::{self, BuildImage},
        command::Command,
        smoke,
    },
    config::layer::Override,
    facts::{context::Context, git},
    plan::Plan,
    release::{
        archive::{self, ArchivePlan, MultiarchRequest, merge_inputs, pack_line},
        builder::{self, MultiarchFacts},
        destination, dist,
        expected::expected,
        paths,
        pipeline::{PublishRequest, publish, push_line, smoke_line, warn_of_refusal},
        preflight,
    },
    settings::{Settings, SmokeFirst},
};

/// Build the image for all platforms and publish it
#[derive(Args, Clone, Debug)]
pub struct PushMultiarch {
    #[command(flatten)]
    version: VersionOption,
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

    fn overrides(&self) -> Vec<Override> {
        self.build.overrides().list
    }

    fn run(&self, cx: &Context) -> Result<()> {
        preflight::may_publish(cx.settings)?;
        let settings = &destination::with_repository(cx.settings, &self.repository)?;
        let there = &Context { settings, ..*cx };
        if self.merge.is_empty() {
            self.push_build(cx, there)
        } else {
            self.push_merged(cx, there)
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
    fn plan(&self, settings: &Settings, facts: &MultiarchFacts) -> Result<PushPlans, Failure> {
        let request = MultiarchRequest {
            shard: None,
            options: &self.build,
            check_first: request::check_first(settings, self.check),
        };
        Ok(PushPlans {
            native: native_plan(settings, &facts.build)?,
            archive: archive::plan(settings, facts, &request, None)?,
        })
    }

    fn render(&self, settings: &Settings, plans: &PushPlans) -> String {
        let archive = &plans.archive;
        plans.native.as_ref().map(Plan::render).unwrap_or_default()
            + &smoke_line(settings)
            + &archive.render()
            + &self.push_line(settings, &archive.archive)
    }

    fn push_line(&self, settings: &Settings, archive: &Path) -> String {
        push_line(settings, archive, None, self.publishing, &self.repository)
    }

    /// `there` has the repository that the image is published to.
    fn push_build(&self, cx: &Context, there: &Context) -> Result<()> {
        let settings = cx.settings;
        let facts = MultiarchFacts::gather(cx)?;
        for warning in builder::warnings(settings, &facts) {
            cx.ui.warn(&warning);
        }
        let plans = self.plan(settings, &facts)?;
        if cx.dry_run {
            cx.ui.print_plan(&self.render(settings, &plans))?;
            warn_of_refusal(cx, &facts.build.git, self.publishing);
            return Ok(());
        }
        let PushPlans { native, archive } = plans;
        let request = PublishRequest {
            expected: expected(settings, &facts.build.git),
            git: facts.build.git,
            options: self.publishing,
            digest: None,
        };
        publish(there, request, |publication| {
            if let Some(native) = native {
                publication.phase("smoke", |_| {
                    cx.exec.run(&native)?;
                    smoke::require_success(cx)
                })?;
            }
            let path = paths::display(settings, &archive.archive);
            cx.ui.status("Writing", &path);
            publication.phase("build", |_| archive.run(cx))
        })
    }

    fn push_merged(&self, cx: &Context, there: &Context) -> Result<()> {
        let settings = cx.settings;
        let inputs = merge_inputs(cx, &self.merge)?;
        let output = paths::archive(settings, None);
        let git = git::work_tree(cx.exec, &settings.root);
        if cx.dry_run {
            let text = pack_line(&inputs, None, &output) + &self.push_line(settings, &output);
            cx.ui.print_plan(&text)?;
            warn_of_refusal(cx, &git, self.publishing);
            return Ok(());
        }
        let request = PublishRequest {
            expected: expected(settings, &git),
            git,
            options: self.publishing,
            digest: None,
        };
        publish(there, request, |publication| {
            publication.phase("merge", |_| dist::pack(cx, &inputs, None, &output))
        })
    }
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
            let plans = command.plan(settings, &machine.multi_facts())?;
            Ok(command.render(settings, &plans))
        })
    }
}
