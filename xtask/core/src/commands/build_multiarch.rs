//! `build-multiarch`: the image for all platforms, as a verified OCI archive or in the engine's store. Each
//! platform can also be built on a machine of its own, and the parts merged.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{
    base::{error::Failure, image::Platform, ui::Clock},
    build::{ownership, request},
    cli::{BuildOptions, CheckOption, FlavourOption, VersionOption, parse_platform},
    commands::command::Command,
    config::layer::{Origin, Override},
    engine::{capabilities::Capability, multiarch::Builder},
    facts::{
        context::{Context, Ran},
        git,
    },
    oci::{archive::Archive, verify::Verified},
    plan::{Plan, quote_for_shell},
    release::{
        archive::{self, MultiarchRequest, archives_of, merge_inputs, pack_line},
        attest,
        builder::{self, MultiarchFacts},
        dist,
        expected::expected,
        paths, preflight, verify,
    },
    settings::Settings,
};

/// Build the image for all platforms, as a verified OCI archive
#[derive(Args, Clone, Debug)]
pub struct BuildMultiarch {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
    #[command(flatten)]
    build: BuildOptions,
    #[command(flatten)]
    check: CheckOption,
    /// Keep the result in the engine's image store, and write no archive
    #[arg(long, conflicts_with_all = ["shard", "merge", "output"])]
    load: bool,
    /// Build one platform, on a machine of its own: the parts are merged later
    #[arg(long, value_name = "OS/ARCH", conflicts_with = "merge")]
    shard: Option<String>,
    /// Build nothing: merge these archives, or those in a folder; can be given several times
    #[arg(long, value_name = "ARCHIVE|FOLDER")]
    merge: Vec<PathBuf>,
    /// Where to write the archive [default: target/dist/NAME-VERSION.oci.tar]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Build nothing: print the build jobs, one for each platform, for the matrix of a CI
    #[arg(long, conflicts_with_all = ["load", "shard", "merge", "output"])]
    matrix_json: bool,
}

impl Command for BuildMultiarch {
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
        if self.matrix_json {
            return Ok(cx.ui.print(&format!("{}\n", matrix(cx.settings)))?);
        }
        if !self.merge.is_empty() {
            return self.merge(cx);
        }
        let clock = Clock::start();
        let facts = MultiarchFacts::gather(cx)?;
        builder::warn(cx, &facts);
        if self.load {
            return self.load(cx, &facts, clock);
        }
        let shard = self.shard(cx.settings)?;
        let request = self.request(cx.settings, shard.as_ref());
        let output = self.output.as_ref().map(|path| cx.env.cwd.join(path));
        let plan = archive::plan(cx.settings, &facts, &request, output.as_deref())?;
        if cx.dry_run {
            return Ok(cx.ui.print_plan(&plan.render())?);
        }
        let archive = plan.run(cx)?;
        let mut expected = expected(cx.settings, &facts.build.git);
        expected.platforms = request.platforms(cx.settings);
        let verified = verify::archive(cx, &archive, &expected)?;
        report(cx, &archive, &verified, clock)
    }
}

impl BuildMultiarch {
    fn request<'a>(
        &'a self,
        settings: &Settings,
        shard: Option<&'a Platform>,
    ) -> MultiarchRequest<'a> {
        MultiarchRequest {
            shard,
            options: &self.build,
            check_first: request::check_first(settings, self.check),
        }
    }

    /// The platform of `--shard`.
    fn shard(&self, settings: &Settings) -> Result<Option<Platform>, Failure> {
        let Some(platform) = parse_platform("--shard", self.shard.as_deref())? else {
            return Ok(None);
        };
        if settings.platforms().contains(&platform) {
            return Ok(Some(platform));
        }
        let known: Vec<_> = settings
            .platforms()
            .iter()
            .map(ToString::to_string)
            .collect();
        Err(Failure::usage(format!(
            "`--shard {platform}`: the image is for {}",
            known.join(" and ")
        )))
    }

    /// Builds into the engine's store.
    fn load(&self, cx: &Context, facts: &MultiarchFacts, clock: Clock) -> Result<()> {
        let plan = self.load_plan(cx.settings, facts)?;
        if cx.run_or_print(&plan)? == Ran::Yes {
            let reference = cx.settings.reference(&facts.build.git.values)?;
            cx.ui.status(
                "Built",
                &format!("{reference} for all platforms in {clock}"),
            );
            facts.build.report_newer(cx);
            cx.ui.print(&format!("{reference}\n"))?;
        }
        Ok(())
    }

    fn load_plan(&self, settings: &Settings, facts: &MultiarchFacts) -> Result<Plan, Failure> {
        if !facts.store_holds_several_platforms() {
            return Err(Failure::usage(format!(
                "`--load`: the image store of {} holds only one platform per name",
                facts.build.engine.describe()
            ))
            .hint("leave out `--load`: the result is an archive")
            .hint("turn on the containerd image store: https://docs.docker.com/engine/storage/containerd/"));
        }
        let multi = builder::multiarch_options(settings, facts, None)?;
        if matches!(multi.builder, Builder::Nodes(_))
            && !facts.build.engine.can(Capability::Builders)
        {
            return Err(Failure::usage(
                "`--load`: images that the machines of `build.nodes` build are not in a local store",
            )
            .hint("leave out `--load`: the result is an archive"));
        }
        ownership::check_tags(settings, &facts.build)?;
        let request = self.request(settings, None);
        let mut build = request.build(settings, facts)?;
        facts.build.retain_newest(&mut build.references);
        let mut plan = request.preparation(settings, facts)?;
        let steps = facts.build.engine.build_and_load(&build, &multi);
        plan.steps.extend(steps);
        Ok(plan)
    }

    /// Merges archives of single platforms.
    fn merge(&self, cx: &Context) -> Result<()> {
        let clock = Clock::start();
        let settings = cx.settings;
        let named = merge_inputs(cx, &self.merge)?;
        let inputs = archives_of(settings, &named)?;
        for path in named.iter().filter(|path| !inputs.contains(path)) {
            let path = paths::display(settings, path);
            cx.ui
                .status("Skipping", &format!("{path}, which is of another flavour"));
        }
        let output = self.output.as_ref().map_or_else(
            || paths::archive(settings, None),
            |path| cx.env.cwd.join(path),
        );
        if cx.dry_run {
            return Ok(cx.ui.print_plan(&pack_line(&inputs, None, &output))?);
        }
        let archive = dist::pack(cx, &inputs, None, &output)?;
        let git = git::work_tree(cx.exec, &settings.root);
        let expected = expected(settings, &git);
        let verified = verify::archive(cx, &archive, &expected)?;
        report(cx, &archive, &verified, clock)
    }
}

/// The jobs of a CI that builds each platform on a machine of its own, in the form of GitHub Actions'
/// `strategy.matrix`.
fn matrix(settings: &Settings) -> serde_json::Value {
    let runner = |platform: &Platform| match platform.arch.as_str() {
        "arm64" => "ubuntu-24.04-arm",
        _ => "ubuntu-24.04",
    };
    let job = |platform: &Platform| {
        serde_json::json!({
            "platform": platform.to_string(),
            "name": paths::dashed(platform),
            "runner": runner(platform),
        })
    };
    let jobs: Vec<_> = settings.platforms().iter().map(job).collect();
    serde_json::json!({ "include": jobs })
}

fn report(cx: &Context, archive: &Archive, verified: &Verified, clock: Clock) -> Result<()> {
    for platform in &verified.platforms {
        cx.ui.status(
            "Platform",
            &format!("{}: {}", platform.platform, platform.summary()),
        );
    }
    attest::write_sboms(cx, archive, verified)?;
    let path = paths::display(cx.settings, archive.path());
    cx.ui.status(
        "Built",
        &format!("{path} ({}) in {clock}", archive.root.digest),
    );
    if verified.platforms.len() == cx.settings.platforms().len()
        && let Some(next) = next_command(cx, archive)
    {
        cx.ui.hint(&format!("next: `{next}`"));
    }
    Ok(cx.ui.print(&format!("{}\n", archive.path().display()))?)
}

/// The command that publishes the archive; none if it would refuse the version.
fn next_command(cx: &Context, archive: &Archive) -> Option<String> {
    // The command names the version, as a channel may require.
    let mut named = cx.settings.clone();
    named.version.origin = Origin::Flag("--version");
    preflight::may_publish(&named).ok()?;
    let path = archive.path();
    let path = path.strip_prefix(&cx.env.cwd).unwrap_or(path);
    let path = quote_for_shell(&path.to_string_lossy());
    Some(format!(
        "cargo xtask push-archive {} {path}",
        cx.settings.version_options()
    ))
}

#[cfg(test)]
impl crate::commands::testing::Examples for BuildMultiarch {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let lines = [
            "build-multiarch --version dev-me",
            "build-multiarch --version 1.2.3 --shard linux/arm64 --no-check",
        ];
        machine.rendered_examples(&lines, |command: &Self, settings, _| {
            let shard = command.shard(settings)?;
            let request = command.request(settings, shard.as_ref());
            let plan = archive::plan(settings, &machine.multi_facts(), &request, None)?;
            Ok(plan.render())
        })
    }
}
