//! `build-multiarch`: the image for all platforms, as a verified OCI archive, or in the engine's
//! store. One platform at a time on machines of their own, and the parts put together.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{
    Context, MultiFacts, archive, archive_path, expected, facts, folder_step, holds_several,
    release, remarks, shown,
};
use crate::{
    cli::MultiArgs,
    commands::{build_image, check},
    engine::{
        capabilities::Capability,
        label,
        multiarch::{Builder, ToArchive},
    },
    error::Failure,
    image::{Platform, human_bytes},
    oci::{
        archive::Archive,
        pack,
        verify::{self, Attestations, Verified},
    },
    plan::Plan,
    settings::{CheckFirst, Provenance, Sbom, Settings},
    ui::Clock,
};

/// What is built, and what it is written to.
pub struct MultiPlan {
    pub before: Plan,
    /// What is packed into it, if it is not written at once.
    pub pack: Vec<PathBuf>,
    /// The time that packing gives it.
    pub timestamp: Option<u64>,
    pub after: Plan,
    pub archive: PathBuf,
    pub attestations: Attestations,
}

impl MultiPlan {
    /// What an engine takes for an archive, after what comes first.
    pub fn new(
        mut before: Plan,
        made: ToArchive,
        archive: PathBuf,
        attestations: Attestations,
    ) -> Self {
        before.steps.extend(made.steps);
        Self {
            before,
            pack: made.pack.into_iter().map(PathBuf::from).collect(),
            timestamp: made.timestamp,
            after: Plan { steps: made.after },
            archive,
            attestations,
        }
    }

    pub fn render(&self) -> String {
        let pack = if self.pack.is_empty() {
            String::new()
        } else {
            archive::line(&self.pack, self.timestamp, &self.archive)
        };
        self.before.render() + &pack + &self.after.render()
    }

    /// Runs it; what it made, not yet looked at.
    pub fn run(&self, cx: &Context) -> Result<Archive> {
        self.make(cx, || {
            if self.pack.is_empty() {
                return Archive::open(&self.archive);
            }
            cx.ui.status("Packing", &shown(cx.settings, &self.archive));
            self.packed(cx)
        })
    }

    /// The same of an image that is saved, not built.
    pub fn save(&self, cx: &Context) -> Result<Archive> {
        cx.ui.status("Saving", &shown(cx.settings, &self.archive));
        self.make(cx, || self.packed(cx))
    }

    fn packed(&self, cx: &Context) -> Result<Archive> {
        cx.exec
            .interruptible(|stop| pack::pack(&self.pack, self.timestamp, &self.archive, stop))
    }

    fn make(&self, cx: &Context, archive: impl FnOnce() -> Result<Archive>) -> Result<Archive> {
        let made = cx.exec.run(&self.before).and_then(|()| archive());
        // What is left over goes, also after a failure or Ctrl-C.
        cx.exec.cleaning(|| {
            for step in &self.after.steps {
                let _ = cx.exec.step(step);
            }
        });
        made
    }
}

/// The platforms of a call: one for a shard, else all of the version's.
fn platforms(settings: &Settings, shard: Option<&str>) -> Result<Vec<Platform>, Failure> {
    let Some(shard) = shard else {
        return Ok(settings.platforms().to_vec());
    };
    let platform: Platform = shard
        .parse()
        .map_err(|why| Failure::usage(format!("`--shard {shard}` {why}")))?;
    if settings.platforms().contains(&platform) {
        return Ok(vec![platform]);
    }
    let known: Vec<_> = settings
        .platforms()
        .iter()
        .map(ToString::to_string)
        .collect();
    Err(Failure::usage(format!(
        "`--shard {shard}`: the image is for {}",
        known.join(" and ")
    )))
}

/// The plan of an archive.
///
/// # Errors
/// When the settings and the engine don't go together.
pub fn plan(
    settings: &Settings,
    facts: &MultiFacts,
    args: &MultiArgs,
    check_first: CheckFirst,
) -> Result<MultiPlan, Failure> {
    let platforms = platforms(settings, args.shard.as_deref())?;
    let shard = args.shard.as_ref().and(platforms.first());
    let archive = args
        .output
        .clone()
        .unwrap_or_else(|| archive_path(settings, shard));
    let release = release(settings, facts, shard)?;
    let build = request(settings, facts, &platforms, args)?;
    let mut before = before(settings, facts, args, check_first)?;
    before.push(folder_step(&archive));
    let made = facts.build.engine.build_archive(&build, &release, &archive);
    let attestations = if release.provenance == Provenance::Off && release.sbom == Sbom::Off {
        Attestations::Optional
    } else {
        Attestations::Required
    };
    Ok(MultiPlan::new(before, made, archive, attestations))
}

fn request(
    settings: &Settings,
    facts: &MultiFacts,
    platforms: &[Platform],
    args: &MultiArgs,
) -> Result<crate::engine::build::Build, Failure> {
    let mut build = build_image::request(settings, &facts.build, None)?;
    build.platforms = platforms.to_vec();
    build.no_cache = args.build.no_cache;
    Ok(build)
}

fn before(
    settings: &Settings,
    facts: &MultiFacts,
    args: &MultiArgs,
    check_first: CheckFirst,
) -> Result<Plan, Failure> {
    let mut plan = Plan {
        steps: build_image::cache_step(&facts.build).into_iter().collect(),
    };
    match check_first {
        CheckFirst::Yes => plan.push(check::step(settings, &facts.build, args.build.no_cache)?),
        CheckFirst::No => {}
    }
    Ok(plan)
}

/// Builds for all platforms into the engine's store.
fn load_plan(
    settings: &Settings,
    facts: &MultiFacts,
    args: &MultiArgs,
    check_first: CheckFirst,
) -> Result<Plan, Failure> {
    if !holds_several(facts) {
        return Err(Failure::usage(format!(
            "`--load`: the image store of {} holds one platform under a name",
            facts.build.engine.describe()
        ))
        .hint("leave `--load` away: the result is an archive")
        .hint("or turn on the containerd image store: https://docs.docker.com/engine/storage/containerd/"));
    }
    let release = release(settings, facts, None)?;
    if matches!(release.builder, Builder::Nodes(_)) && !facts.build.engine.can(Capability::Builders)
    {
        return Err(Failure::usage(
            "`--load`: what the machines of `build.nodes` build gets into no store",
        )
        .hint("leave `--load` away: the result is an archive"));
    }
    build_image::may_take_tags(settings, &facts.build)?;
    let platforms = platforms(settings, args.shard.as_deref())?;
    let build = request(settings, facts, &platforms, args)?;
    let mut plan = before(settings, facts, args, check_first)?;
    let steps = facts.build.engine.build_and_load(&build, &release);
    plan.steps.extend(steps);
    Ok(plan)
}

/// The jobs of a CI that builds each platform on a machine of its own, as GitHub Actions'
/// `strategy.matrix` takes it.
fn matrix(settings: &Settings) -> serde_json::Value {
    let runner = |platform: &Platform| match platform.arch.as_str() {
        "arm64" => "ubuntu-24.04-arm",
        _ => "ubuntu-24.04",
    };
    let job = |platform: &Platform| {
        serde_json::json!({
            "platform": platform.to_string(),
            "name": platform.to_string().replace('/', "-"),
            "runner": runner(platform),
        })
    };
    let jobs: Vec<_> = settings.platforms().iter().map(job).collect();
    serde_json::json!({ "include": jobs })
}

/// Which platform of a shard or all: what verifying expects.
fn wanted(
    settings: &Settings,
    facts: &MultiFacts,
    args: &MultiArgs,
    attestations: Attestations,
) -> Result<verify::Expected, Failure> {
    let mut wanted = expected(settings, &facts.build.git, attestations);
    wanted.platforms = platforms(settings, args.shard.as_deref())?;
    Ok(wanted)
}

pub fn run(cx: &Context, args: &MultiArgs) -> Result<()> {
    let (settings, ui) = (cx.settings, cx.ui);
    // What is typed is typed where one stands.
    let output = args.output.as_ref().map(|path| cx.env.cwd.join(path));
    let args = &MultiArgs {
        output,
        ..args.clone()
    };
    if args.matrix_json {
        return Ok(ui.result(&format!("{}\n", matrix(settings)))?);
    }
    if !args.merge.is_empty() {
        return merge(cx, args);
    }
    let clock = Clock::start();
    let facts = facts(cx)?;
    for remark in remarks(settings, &facts) {
        ui.warn(&remark);
    }
    let check_first = build_image::check_first(settings, args.check);
    if args.load {
        let plan = load_plan(settings, &facts, args, check_first)?;
        if cx.carry_out(&plan)? == crate::commands::Ran::Yes {
            let reference = settings.reference(&facts.build.git.values)?;
            ui.status(
                "Built",
                &format!("{reference} for all platforms in {clock}"),
            );
            ui.result(&format!("{reference}\n"))?;
        }
        return Ok(());
    }
    let plan = plan(settings, &facts, args, check_first)?;
    if cx.dry_run {
        return Ok(ui.result(&plan.render())?);
    }
    let archive = plan.run(cx)?;
    let wanted = wanted(settings, &facts, args, plan.attestations)?;
    let verified = look(cx, &archive, &wanted)?;
    report(cx, &archive, &verified, clock)
}

/// Puts archives of single platforms together.
fn merge(cx: &Context, args: &MultiArgs) -> Result<()> {
    let clock = Clock::start();
    let settings = cx.settings;
    let inputs = merged(cx, &args.merge)?;
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| archive_path(settings, None));
    if cx.dry_run {
        return Ok(cx.ui.result(&archive::line(&inputs, None, &output))?);
    }
    let archive = cx
        .exec
        .interruptible(|stop| pack::pack(&inputs, None, &output, stop))?;
    let git = crate::probe::git(cx.exec, &settings.root);
    let verified = look(
        cx,
        &archive,
        &expected(settings, &git, Attestations::Optional),
    )?;
    report(cx, &archive, &verified, clock)
}

/// The archives that were named, a folder standing for all that are in it but for what a merge
/// before has made of them.
///
/// # Errors
/// When there is none.
pub fn merged(cx: &Context, named: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let whole = archive_path(cx.settings, None).canonicalize().ok();
    let is_whole = |path: &Path| whole.is_some() && path.canonicalize().ok() == whole;
    let mut found = Vec::new();
    for path in named.iter().map(|path| cx.env.cwd.join(path)) {
        if !path.is_dir() {
            found.push(path);
            continue;
        }
        let mut below: Vec<_> = std::fs::read_dir(&path)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.to_string_lossy().ends_with(".oci.tar") && !is_whole(path))
            .collect();
        below.sort();
        if below.is_empty() {
            return Err(Failure::usage(format!(
                "`{}` holds no archive (`*.oci.tar`)",
                path.display()
            )));
        }
        found.extend(below);
    }
    Ok(found)
}

/// Looks at an archive.
///
/// # Errors
/// All that is wrong with it.
pub fn look(cx: &Context, archive: &Archive, wanted: &verify::Expected) -> Result<Verified> {
    cx.ui
        .status("Verifying", &shown(cx.settings, archive.path()));
    let root = &archive.root.digest;
    let verified = cx
        .exec
        .interruptible(|stop| verify::verify(archive, root, wanted, stop));
    verified.map_err(|error| {
        if error.downcast_ref::<Failure>().is_some() {
            return error;
        }
        let path = shown(cx.settings, archive.path());
        let wrong = format!("{error:#}");
        let failure = Failure::new(format!("`{path}` is not what it should be\n{wrong}"))
            .hint("it was not pushed; it is kept so that you can look at it");
        if !wrong.contains(label::IMAGE) {
            return failure.into();
        }
        let settings = cx.settings;
        failure
            .hint(format!(
                "it was built for another place: leave `image.repository` as it was then, and name a mirror: `cargo xtask push-archive --version {} --repository {} {path}`",
                settings.version.value,
                settings.image.repository.as_str()
            ))
            .into()
    })
}

fn report(cx: &Context, archive: &Archive, verified: &Verified, clock: Clock) -> Result<()> {
    for one in &verified.platforms {
        cx.ui.status(
            "Platform",
            &format!(
                "{}: {} to download, {} unpacked, {} programs and libraries",
                one.platform,
                human_bytes(one.compressed),
                human_bytes(one.unpacked),
                one.programs
            ),
        );
    }
    let path = shown(cx.settings, archive.path());
    cx.ui.status(
        "Built",
        &format!("{path} ({}) in {clock}", archive.root.digest),
    );
    let version = &cx.settings.version.value;
    if verified.platforms.len() == cx.settings.platforms().len() {
        cx.ui.hint(&format!(
            "next: `cargo xtask push-archive --version {version} {path}`"
        ));
    }
    Ok(cx.ui.result(&format!("{}\n", archive.path().display()))?)
}
