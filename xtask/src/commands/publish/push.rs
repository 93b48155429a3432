//! `push-image`, `push-multiarch` and `push-archive`: the same release from three beginnings.

use anyhow::{Context as _, Result};

use super::{
    Context, archive, archive_path,
    build_multiarch::{self, MultiPlan},
    expected, facts, folder_step,
    github::{self, Group},
    placed,
    preflight::{self, Options, Released},
    promote,
    receipt::Receipt,
    registry, remarks, shown, sign,
};
use crate::{
    cli::{BuildArgs, CheckChoice, MultiArgs, PushArchiveArgs, PushImageArgs, PushMultiArgs},
    commands::{build_image, stack::smoke},
    error::Failure,
    image::Platform,
    oci::{
        archive::Archive,
        pack,
        verify::{self, Attestations, Expected, Verified},
    },
    plan::Plan,
    probe::{self, Git, Wanted},
    registry::client::{RawManifest, Registry},
    settings::{Settings, SmokeFirst},
    ui::{Clock, human_time},
};

/// A release on its way.
struct Release<'a> {
    cx: &'a Context<'a>,
    registry: &'a Registry<'a>,
    git: Git,
    options: Options,
    /// Whether it goes to another place than the one that the image was built for.
    is_mirror: bool,
    seconds: Vec<(String, f64)>,
}

impl Release<'_> {
    /// Does a part, and notes how long it took.
    fn phase<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let clock = Clock::start();
        let group = Group::begin(self.cx, name);
        let done = work(self);
        drop(group);
        self.seconds
            .push((name.to_owned(), clock.elapsed().as_secs_f64()));
        done
    }

    fn preflight(&mut self) -> Result<Released> {
        sign::check(self.cx)?;
        if !self.options.preflight {
            return Ok(Released::No);
        }
        self.phase("preflight", |it| {
            it.cx.ui.status(
                "Asking",
                &format!("{} whether this may be pushed", it.registry.host()),
            );
            preflight::run(it.cx, it.registry, &it.git, it.options)
        })
    }

    /// Pushes an archive by digest.
    fn upload(&mut self, archive: &Archive) -> Result<RawManifest> {
        self.phase("push", |it| promote::upload(it.cx, it.registry, archive))
            .context("the push did not end; no tag was moved")
    }

    /// Looks at what the registry holds, signs it, and gives it its tags.
    fn finish(mut self, image: &RawManifest, wanted: &Expected, overwrite: bool) -> Result<()> {
        let cx = self.cx;
        let digest = image.digest();
        let verified = self.phase("verify", |it| {
            verify_in_registry(it.cx, it.registry, &digest, wanted)
        })?;
        let reference = format!("{}@{digest}", cx.settings.image.repository.as_str());
        let signing = sign::plan(cx.settings, &reference, self.registry.is_plain_http())?;
        let signed = !signing.steps.is_empty();
        if signed {
            self.phase("sign", |it| it.cx.exec.run(&signing))?;
        }
        let tags = self.phase("promote", |it| {
            promote::promote(it.cx, it.registry, &it.git, image, overwrite)
        })?;
        let receipt = Receipt::new(cx, &self.git, &verified, &tags, signed, self.seconds);
        let path = receipt.write(cx, self.is_mirror)?;
        github::tell(cx, &receipt)?;
        let phases: Vec<_> = receipt
            .seconds
            .iter()
            .map(|(name, seconds)| {
                let time = std::time::Duration::from_secs_f64(*seconds);
                format!("{name} {}", human_time(time))
            })
            .collect();
        cx.ui
            .status("Published", &format!("{reference} ({})", phases.join(", ")));
        cx.ui.status("Receipt", &shown(cx.settings, &path));
        Ok(cx.ui.result(&format!("{reference}\n"))?)
    }
}

/// Looks at an image in the registry.
///
/// # Errors
/// All that is wrong with it.
pub fn verify_in_registry(
    cx: &Context,
    registry: &Registry,
    digest: &str,
    wanted: &Expected,
) -> Result<Verified> {
    cx.ui.status(
        "Verifying",
        &format!("{} in {}", promote::short(digest), registry.host()),
    );
    let verified = cx
        .exec
        .interruptible(|stop| verify::verify(registry, digest, wanted, stop));
    verified.map_err(|error| {
        if error.downcast_ref::<Failure>().is_some() {
            return error;
        }
        Failure::new(format!(
            "what {} holds as {digest} is not what it should be\n{error:#}",
            registry.host()
        ))
        .hint("no tag was moved; run the same command again, and if it is said again, build with `--no-cache`")
        .into()
    })
}

/// The line of a dry run that pushes an archive.
fn archive_line(settings: &Settings, archive: &std::path::Path, options: Options) -> String {
    let flag = |given: bool, flag: &str| {
        if given {
            format!(" {flag}")
        } else {
            String::new()
        }
    };
    format!(
        "cargo xtask push-archive --version {}{}{} {}\n",
        settings.version.value,
        flag(options.force, "--force"),
        flag(!options.preflight, "--no-preflight"),
        crate::plan::quote(&archive.to_string_lossy())
    )
}

/// Confirms what is overwritten, once.
fn overwrites(cx: &Context, released: &Released, options: Options) -> Result<bool> {
    match released {
        Released::Other(which) if options.force => {
            preflight::confirm_overwrite(cx, which)?;
            Ok(true)
        }
        Released::No | Released::Same(_) | Released::Other(_) => Ok(false),
    }
}

/// An earlier run pushed and promoted this very commit, at least its own tag.
fn go_on(release: Release, found: &RawManifest, wanted: &Expected) -> Result<()> {
    release.cx.ui.status(
        "Going on",
        "with what is released from this commit already: nothing is built",
    );
    release.finish(found, wanted, false)
}

pub fn run_multiarch(cx: &Context, args: &PushMultiArgs) -> Result<()> {
    let options = args.options.options();
    preflight::may_publish(cx.settings)?;
    if !args.merge.is_empty() {
        return push_merged(cx, args, options);
    }
    let facts = facts(cx)?;
    for remark in remarks(cx.settings, &facts) {
        cx.ui.warn(&remark);
    }
    let multi = MultiArgs {
        build: args.build.clone(),
        ..MultiArgs::default()
    };
    let check_first = build_image::check_first(cx.settings, args.check);
    let plan = build_multiarch::plan(cx.settings, &facts, &multi, check_first)?;
    let wanted = expected(cx.settings, &facts.build.git, plan.attestations);
    if cx.dry_run {
        let smoke = match cx.settings.channel.smoke {
            SmokeFirst::Yes => {
                native_plan(cx.settings, &facts.build)?.render() + &smoke_line(cx.settings)
            }
            SmokeFirst::No => String::new(),
        };
        let text = smoke + &plan.render() + &archive_line(cx.settings, &plan.archive, options);
        return Ok(cx.ui.result(&text)?);
    }
    let native = native_plan(cx.settings, &facts.build)?;
    let git = facts.build.git;
    publish(cx, git, options, &wanted, |release, wanted| {
        if cx.settings.channel.smoke == SmokeFirst::Yes {
            release.phase("smoke", |it| {
                it.cx.exec.run(&native)?;
                smoke::must_hold(it.cx)
            })?;
        }
        let MultiPlan { archive, .. } = &plan;
        cx.ui.status("Writing", &shown(cx.settings, archive));
        let made = release.phase("build", |it| plan.run(it.cx))?;
        release.phase("check", |it| build_multiarch::look(it.cx, &made, wanted))?;
        Ok(made)
    })
}

/// The image for this machine's platform, in the engine's store: what `smoke` runs. Its steps are
/// the release's, so one of the two builds is for nothing.
fn native_plan(settings: &Settings, facts: &build_image::BuildFacts) -> Result<Plan, Failure> {
    let args = BuildArgs {
        check: CheckChoice {
            no_check: true,
            ..CheckChoice::default()
        },
        ..BuildArgs::default()
    };
    build_image::plan(settings, facts, &args)
}

fn smoke_line(settings: &Settings) -> String {
    format!("cargo xtask smoke --version {}\n", settings.version.value)
}

fn push_merged(cx: &Context, args: &PushMultiArgs, options: Options) -> Result<()> {
    let inputs = build_multiarch::merged(cx, &args.merge)?;
    let output = archive_path(cx.settings, None);
    if cx.dry_run {
        let text =
            archive::line(&inputs, None, &output) + &archive_line(cx.settings, &output, options);
        return Ok(cx.ui.result(&text)?);
    }
    let git = probe::git(cx.exec, &cx.settings.root);
    let wanted = expected(cx.settings, &git, Attestations::Optional);
    publish(cx, git, options, &wanted, |release, wanted| {
        let made = release.phase("merge", |it| {
            it.cx
                .exec
                .interruptible(|stop| pack::pack(&inputs, None, &output, stop))
        })?;
        release.phase("check", |it| build_multiarch::look(it.cx, &made, wanted))?;
        Ok(made)
    })
}

pub fn run_archive(cx: &Context, args: &PushArchiveArgs) -> Result<()> {
    let options = args.options.options();
    preflight::may_publish(cx.settings)?;
    let path = cx.env.cwd.join(&args.archive);
    let settings = placed(cx.settings, &args.place)?;
    // What the image is to say of itself is still what it was built for.
    let built_for = cx.settings;
    let cx = &Context {
        settings: &settings,
        ..*cx
    };
    if cx.dry_run {
        return dry_run_archive(cx, &path);
    }
    let git = probe::git(cx.exec, &settings.root);
    let archive = Archive::open(&path)?;
    let mut wanted = expected(built_for, &git, Attestations::Optional);
    if let Some(platform) = &args.platform {
        wanted.platforms = vec![one_platform(platform)?];
    }
    let root = archive.root.digest.clone();
    let registry = registry(cx);
    let mut release = begin(cx, &registry, git, options);
    release.is_mirror = settings.image.repository != built_for.image.repository;
    let released = release.preflight()?;
    let overwrite = overwrites(cx, &released, options)?;
    if let Released::Same(found) = &released
        && found.digest() == root
    {
        return go_on(release, found, &wanted);
    }
    release.phase("check", |it| {
        build_multiarch::look(it.cx, &archive, &wanted)
    })?;
    let pushed = release.upload(&archive)?;
    release.finish(&pushed, &wanted, overwrite)
}

/// Requests to a registry are no shell commands: they are told as comments, and what is only
/// read is read.
fn dry_run_archive(cx: &Context, path: &std::path::Path) -> Result<()> {
    let settings = cx.settings;
    let archive = Archive::open(path)?;
    let place = settings.image.repository.as_str();
    let mut text = format!(
        "# push {} to {place} by digest: {}\n",
        shown(settings, path),
        archive.root.digest
    );
    let git = probe::git(cx.exec, &settings.root);
    for tag in settings.tags(&git.values)? {
        text.push_str(&format!(
            "# tag it {place}:{tag}, unless a newer version has that tag\n"
        ));
    }
    let reference = format!("{place}@{}", archive.root.digest);
    text.push_str(&sign::plan(settings, &reference, false)?.render());
    Ok(cx.ui.result(&text)?)
}

fn one_platform(text: &str) -> Result<Platform, Failure> {
    text.parse()
        .map_err(|why| Failure::usage(format!("`--platform {text}` {why}")))
}

pub fn run_image(cx: &Context, args: &PushImageArgs) -> Result<()> {
    let options = args.options.options();
    let settings = cx.settings;
    preflight::may_publish(settings)?;
    let reference = cx.reference()?;
    let wanted_image = Wanted {
        images: std::slice::from_ref(&reference),
        ..Wanted::default()
    };
    let (world, git) = std::thread::scope(|scope| {
        let git = scope.spawn(|| probe::git(cx.exec, &settings.root));
        let world = cx.probe().world(wanted_image);
        (world, git.join().unwrap_or_default())
    });
    let world = world?;
    let image = world.images.into_iter().next().ok_or_else(|| {
        let version = &settings.version.value;
        Failure::new(format!("there is no image `{reference}` to push"))
            .hint(format!(
                "build it: `cargo xtask build-image --version {version}`"
            ))
            .hint("or build and push all platforms at once: `cargo xtask push-multiarch`")
    })?;
    let platform = Platform {
        os: image.os.clone(),
        arch: image.architecture.clone(),
        variant: None,
    };
    let path = archive_path(settings, Some(&platform));
    let before = Plan {
        steps: vec![folder_step(&path)],
    };
    let saved = world.engine.save(&reference, &path);
    let plan = MultiPlan::new(before, saved, path, Attestations::Optional);
    if cx.dry_run {
        let smoke = match settings.channel.smoke {
            SmokeFirst::Yes => smoke_line(settings),
            SmokeFirst::No => String::new(),
        };
        let push = archive_line(settings, &plan.archive, options).replace(
            "push-archive",
            &format!("push-archive --platform {platform}"),
        );
        return Ok(cx.ui.result(&(smoke + &plan.render() + &push))?);
    }
    let mut wanted = expected(settings, &git, Attestations::Optional);
    wanted.platforms = vec![platform];
    publish(cx, git, options, &wanted, |release, wanted| {
        if settings.channel.smoke == SmokeFirst::Yes {
            release.phase("smoke", |it| smoke::must_hold(it.cx))?;
        }
        let made = release.phase("save", |it| plan.save(it.cx))?;
        release.phase("check", |it| build_multiarch::look(it.cx, &made, wanted))?;
        Ok(made)
    })?;
    // The engine's store has it.
    let _ = std::fs::remove_file(&plan.archive);
    Ok(())
}

fn begin<'a>(
    cx: &'a Context<'a>,
    registry: &'a Registry<'a>,
    git: Git,
    options: Options,
) -> Release<'a> {
    Release {
        cx,
        registry,
        git,
        options,
        is_mirror: false,
        seconds: Vec::new(),
    }
}

/// The whole of it: what makes the archive is the caller's.
fn publish(
    cx: &Context,
    git: Git,
    options: Options,
    wanted: &Expected,
    make: impl FnOnce(&mut Release, &Expected) -> Result<Archive>,
) -> Result<()> {
    let registry = registry(cx);
    let mut release = begin(cx, &registry, git, options);
    let released = release.preflight()?;
    let overwrite = overwrites(cx, &released, options)?;
    if let Released::Same(found) = &released {
        return go_on(release, found, wanted);
    }
    let archive = make(&mut release, wanted)?;
    let pushed = release.upload(&archive)?;
    release.finish(&pushed, wanted, overwrite)
}
