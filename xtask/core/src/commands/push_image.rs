//! `push-image`: builds the image for this machine's platform and publishes it.

use anyhow::Result;
use clap::Args;

use crate::{
    base::{error::Failure, image::Platform},
    build::facts::BuildFacts,
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
    engine::EngineFacts,
    facts::{
        context::{Context, EngineQuery},
        git::{self, WorkTree},
    },
    plan::{Plan, quote_for_shell},
    release::{
        archive::ArchivePlan,
        destination, dist,
        expected::expected,
        paths,
        pipeline::{PublishRequest, publish, push_line, smoke_line, warn_of_refusal},
        preflight,
    },
    settings::{EngineChoice, Settings, SmokeFirst},
};

/// Build the image for this machine's platform and publish it
#[derive(Args, Clone, Debug)]
pub struct PushImage {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
    #[command(flatten)]
    build: BuildOptions,
    #[command(flatten)]
    check: CheckOption,
    #[command(flatten)]
    publishing: PublishingOptions,
    #[command(flatten)]
    repository: RepositoryOption,
    /// Build nothing: publish the local image as it is
    #[arg(long, conflicts_with_all = ["no_cache", "pull", "no_pull", "build_args", "secrets", "check", "no_check"])]
    no_build: bool,
}

/// What the plan needs to know.
struct PushFacts {
    engine: EngineFacts,
    reference: String,
    platform: Platform,
    git: WorkTree,
    /// The id of this process.
    process: u32,
    /// The facts of the build; none with `--no-build`.
    build: Option<BuildFacts>,
}

/// The plans, in their order.
struct PushPlans {
    build: Plan,
    archive: ArchivePlan,
}

impl PushImage {
    fn gather(&self, cx: &Context) -> Result<PushFacts> {
        let reference = cx.reference()?;
        if !self.no_build {
            let build = BuildFacts::gather(cx)?;
            build.warn(cx);
            return Ok(PushFacts {
                engine: build.engine.clone(),
                platform: build.engine.platform.clone(),
                git: build.git.clone(),
                process: std::process::id(),
                reference,
                build: Some(build),
            });
        }
        let query = EngineQuery {
            images: std::slice::from_ref(&reference),
            ..EngineQuery::default()
        };
        let (state, git) = std::thread::scope(|scope| {
            let git = scope.spawn(|| git::work_tree(cx.exec, &cx.settings.root));
            (cx.query_engine(query), git.join().unwrap_or_default())
        });
        let state = state?;
        let image = state.images.into_iter().next().ok_or_else(|| {
            Failure::new(format!("there is no image `{reference}` to push"))
                .hint("build it first: leave out `--no-build`")
                .hint(format!(
                    "build and push all platforms at once: `cargo xtask push-multiarch{}`",
                    cx.settings.given_version_options()
                ))
        })?;
        Ok(PushFacts {
            engine: state.engine,
            platform: Platform {
                os: image.os,
                arch: image.architecture,
                variant: None,
            },
            git,
            process: std::process::id(),
            reference,
            build: None,
        })
    }

    fn plan(&self, settings: &Settings, facts: &PushFacts) -> Result<PushPlans, Failure> {
        let build = match &facts.build {
            Some(build) => {
                let options = BuildImage::with_options(self.build.clone(), self.check);
                build_image::plan(settings, build, &options)?
            }
            None => Plan::default(),
        };
        let path = paths::archive(settings, Some(&facts.platform));
        let preparation = vec![paths::folder_step(&path)].into();
        let saved = facts.engine.save(&facts.reference, &path, facts.process);
        // Another run in this checkout may publish another image of this name.
        let path = dist::partial(&path, facts.process);
        Ok(PushPlans {
            build,
            archive: ArchivePlan::new(preparation, saved, path),
        })
    }

    fn render(&self, settings: &Settings, facts: &PushFacts, plans: &PushPlans) -> String {
        let archive = &plans.archive;
        plans.build.render()
            + &smoke_line(settings)
            + &archive.render()
            + &push_line(
                settings,
                &archive.archive,
                Some(&facts.platform),
                self.publishing,
                &self.repository,
            )
            + &format!(
                "rm -f {}\n",
                quote_for_shell(&archive.archive.to_string_lossy())
            )
    }
}

impl Command for PushImage {
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
        let settings = cx.settings;
        preflight::may_publish(settings)?;
        let mut there = destination::with_repository(settings, &self.repository)?;
        let facts = self.gather(cx)?;
        // The login is that of the engine that was chosen.
        there.engine.prefer = EngineChoice::Only(facts.engine.engine.kind);
        let plans = self.plan(settings, &facts)?;
        if cx.dry_run {
            cx.ui.print_plan(&self.render(settings, &facts, &plans))?;
            warn_of_refusal(cx, &facts.git, self.publishing);
            return Ok(());
        }
        let mut expected = expected(settings, &facts.git);
        expected.platforms = vec![facts.platform.clone()];
        let request = PublishRequest {
            git: facts.git,
            options: self.publishing,
            expected,
            digest: None,
        };
        let PushPlans { build, archive } = plans;
        let there = &Context {
            settings: &there,
            ..*cx
        };
        // It also keeps other runs from removing the archive.
        let _lock = dist::lock_for_writing(&settings.root, &archive.archive);
        publish(there, request, |publication| {
            if !build.steps.is_empty() {
                publication.phase("build", |_| cx.exec.run(&build))?;
            }
            match settings.channel.smoke {
                SmokeFirst::Yes => publication.phase("smoke", |_| smoke::require_success(cx))?,
                SmokeFirst::No => {}
            }
            let path = paths::display(settings, &archive.archive);
            cx.ui.status("Saving", &path);
            publication.phase("save", |_| archive.run(cx))
        })?;
        // The image itself is in the engine's store.
        let _ = std::fs::remove_file(&archive.archive);
        if settings.platforms().len() > 1 {
            cx.ui.hint(&format!(
                "this image is for {} alone; for all platforms: `cargo xtask push-multiarch{}`",
                facts.platform,
                settings.given_version_options()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for PushImage {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let lines = [
            "push-image --version dev-me",
            "push-image --version dev-me --no-build",
        ];
        machine.rendered_examples(&lines, |command: &Self, settings, _| {
            let facts = PushFacts {
                engine: machine.engine(),
                reference: machine.reference(settings),
                platform: machine.engine().platform,
                git: machine.build_facts().git,
                process: crate::commands::testing::PROCESS,
                build: (!command.no_build).then(|| machine.build_facts()),
            };
            let plans = command.plan(settings, &facts)?;
            Ok(command.render(settings, &facts, &plans))
        })
    }
}
