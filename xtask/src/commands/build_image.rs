//! `build-image`: the image for one platform, under all the version's tags.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;

use super::{Context, Ran, check};
use crate::{
    cli::{BuildArgs, CheckChoice},
    config::schema::{BuildSecret, SecretSource},
    engine::{
        EngineFacts,
        build::Build,
        capabilities::Capability,
        image::{self, Image, SizeMeans},
        label,
    },
    env::Env,
    error::Failure,
    image::{Platform, human_bytes},
    plan::{Cmd, Output, Plan, Step},
    probe::{self, Folder, Git, Wanted, World},
    settings::{CheckFirst, GitValues, Settings, WorkTree},
    time,
    ui::Clock,
};

/// What a build's plan needs to know.
#[derive(Clone, Debug)]
pub struct BuildFacts {
    pub engine: EngineFacts,
    pub git: Git,
    /// When the image counts as created, in seconds since 1970: `SOURCE_DATE_EPOCH`, else the
    /// commit's time (so that nothing changes when nothing has changed), else now.
    pub created: u64,
    /// Secrets, their files absolute.
    pub secrets: Vec<BuildSecret>,
    /// See [`Build::tmpdir`].
    pub tmpdir: Option<String>,
    /// Those of the version's references that name an image of somebody else's.
    pub foreign: Vec<String>,
}

/// Asks for them; git and the engine are asked at the same time.
pub fn facts(cx: &Context) -> Result<BuildFacts> {
    // Few tags need to know what git says.
    let early = cx.settings.references(&GitValues::default());
    let early = early.unwrap_or_default();
    let (world, git) = std::thread::scope(|scope| {
        let git = scope.spawn(|| probe::git(cx.exec, &cx.settings.root));
        let world = cx.probe().world(Wanted {
            container: None,
            images: &early,
        });
        (world, git.join().unwrap_or_default())
    });
    let World { engine, images, .. } = world?;
    let foreign = if early.is_empty() {
        let references = cx.settings.references(&git.values)?;
        let cmd = image::inspect_cmd(&engine.engine.program, &references);
        let answer = cx.probe().ask(&cmd);
        let images = image::read_inspect(&answer, cx.settings.engine.timeout);
        foreign(&references, &images.map_err(Failure::new)?)
    } else {
        foreign(&early, &images)
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let epoch = epoch(cx.env)?;
    Ok(BuildFacts {
        foreign,
        tmpdir: own_cache(cx, &engine),
        engine,
        created: epoch.or(git.commit_time).unwrap_or(now),
        git,
        secrets: secrets(cx.settings, cx.env)?,
    })
}

/// `SOURCE_DATE_EPOCH`, in seconds since 1970, where it is set.
/// <https://reproducible-builds.org/specs/source-date-epoch/>
///
/// # Errors
/// When it is no time.
fn epoch(env: &Env) -> Result<Option<u64>, Failure> {
    let Some(text) = env.get("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    match text.parse() {
        Ok(time) if time <= time::MAX_TIMESTAMP => Ok(Some(time)),
        Ok(_) | Err(_) => Err(Failure::usage(format!(
            "`SOURCE_DATE_EPOCH={text}` must be seconds since 1970, before the year 10000"
        ))
        .hint("the commit's: `export SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)`; or unset it")),
    }
}

/// The references that a build would take from images of somebody else's.
fn foreign(references: &[String], images: &[Image]) -> Vec<String> {
    let theirs = images.iter().filter(|image| !image.is_ours());
    let tags: Vec<_> = theirs
        .flat_map(|image| image.repo_tags.iter().flatten())
        .collect();
    let taken = |reference: &&String| tags.contains(reference);
    references.iter().filter(taken).cloned().collect()
}

/// A build gives its tags to what it builds. An image that has no other name would be as good as
/// lost: no list shows what it was.
///
/// # Errors
/// When a tag is somebody else's.
pub fn may_take_tags(settings: &Settings, facts: &BuildFacts) -> Result<(), Failure> {
    match facts.foreign.first() {
        None => Ok(()),
        Some(reference) => Err(not_ours(settings, &facts.engine, reference)),
    }
}

/// The refusal to take an image's name.
pub fn not_ours(settings: &Settings, engine: &EngineFacts, reference: &str) -> Failure {
    let program = &engine.engine.program;
    let version = &settings.version.value;
    Failure::new(format!(
        "`{reference}` is there already, and xtask did not build it: it has no label `{}`",
        label::IMAGE
    ))
    .hint(format!(
        "keep it under another name: `{program} tag {reference} localhost/kept:{version} && {program} image rm {reference}`"
    ))
    .hint("or build another version: `--version dev-other`")
}

/// A cache folder of our own, where the engine's belongs to another user of this machine.
/// One that nobody has yet is left to root: whoever makes it shuts the others out, also one who
/// begins at the same time.
fn own_cache(cx: &Context, engine: &EngineFacts) -> Option<String> {
    let shared = engine
        .cache_folder(cx.env.get("TMPDIR"), cx.env.user.euid)
        .filter(|_| !engine.can(Capability::OwnCacheFolder))?;
    let owner = match probe::folder(&shared) {
        Folder::There { uid, .. } => uid,
        Folder::Missing => 0,
        Folder::Other => return None,
    };
    (owner != cx.env.user.euid)
        .then(|| cx.env.cache_folder())?
        .and_then(|folder| folder.to_str().map(str::to_owned))
}

/// The configured secrets, each of which must be there.
fn secrets(settings: &Settings, env: &Env) -> Result<Vec<BuildSecret>, Failure> {
    let place = |secret: &BuildSecret| {
        let missing = |what: String| {
            Failure::usage(format!(
                "the build secret `{}` is missing: {what}",
                secret.id
            ))
            .hint("correct `build.secrets` (`cargo xtask config` shows where it is set)")
        };
        let source = match &secret.source {
            SecretSource::File(file) => {
                let path = env
                    .expand(file, &settings.root)
                    .ok_or_else(|| missing(format!("`{file}` needs HOME, which is not set")))?;
                if !path.is_file() {
                    return Err(missing(format!("there is no file `{}`", path.display())));
                }
                SecretSource::File(path.to_string_lossy().into_owned())
            }
            SecretSource::Env(name) if env.has(name) => SecretSource::Env(name.clone()),
            SecretSource::Env(name) => return Err(missing(format!("`{name}` is not set"))),
        };
        Ok(BuildSecret {
            id: secret.id.clone(),
            source,
        })
    };
    settings.build.secrets.iter().map(place).collect()
}

/// What to build for a version, in no engine's words.
pub fn request(
    settings: &Settings,
    facts: &BuildFacts,
    platform: Option<&str>,
) -> Result<Build, Failure> {
    let git = &facts.git.values;
    let absolute = |path: &str| settings.root.join(path).to_string_lossy().into_owned();
    let mut args = settings.build.args.clone();
    args.insert(
        settings.build.base_image_arg.clone(),
        settings.build.base_image.clone(),
    );
    for (name, template) in &settings.channel.build_args {
        args.insert(name.clone(), settings.fill(template, git)?);
    }
    let context = match settings.build.context.as_str() {
        "." => settings.root.to_string_lossy().into_owned(),
        context => absolute(context),
    };
    Ok(Build {
        dockerfile: absolute(&settings.build.dockerfile),
        context,
        target: settings.build.target.clone(),
        platforms: vec![choose_platform(settings, &facts.engine, platform)?],
        args,
        secrets: facts.secrets.clone(),
        labels: labels(settings, facts)?,
        references: settings.references(git)?,
        network: settings.build.network.clone(),
        pull: settings.build.pull,
        no_cache: false,
        progress: settings.build.progress,
        tmpdir: facts.tmpdir.clone(),
    })
}

/// The platform that was asked for, else the engine's own: what runs here without emulation.
fn choose_platform(
    settings: &Settings,
    engine: &EngineFacts,
    typed: Option<&str>,
) -> Result<Platform, Failure> {
    let platform = match typed {
        Some(text) => text
            .parse()
            .map_err(|why| Failure::usage(format!("`--platform {text}` {why}")))?,
        None => engine.platform.clone(),
    };
    let known = settings.platforms();
    if known.is_empty() || known.contains(&platform) {
        return Ok(platform);
    }
    let names: Vec<_> = known.iter().map(ToString::to_string).collect();
    Err(Failure::usage(format!(
        "the image cannot be built for {platform}: the configuration has {}",
        names.join(" and ")
    )))
}

/// The commit as a label has it.
pub fn revision(git: &Git) -> Option<String> {
    let sha = git.values.sha.as_ref()?;
    Some(if git.dirty {
        format!("{sha}-dirty")
    } else {
        sha.clone()
    })
}

/// The OCI's labels, ours, the configured ones, and the channel's, later over earlier.
/// <https://github.com/opencontainers/image-spec/blob/main/annotations.md>
fn labels(settings: &Settings, facts: &BuildFacts) -> Result<BTreeMap<String, String>, Failure> {
    let image = &settings.image;
    let oci = [
        ("version", settings.version.value.to_string()),
        ("created", time::rfc3339(facts.created)),
        ("revision", revision(&facts.git).unwrap_or_default()),
        ("source", image.source.clone()),
        ("title", image.title.clone()),
        ("description", image.description.clone()),
        ("licenses", image.licenses.clone()),
        ("base.name", settings.build.base_image.clone()),
    ];
    let mut labels: BTreeMap<_, _> = oci
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value))
        .collect();
    labels.insert(
        label::IMAGE.to_owned(),
        image.repository.as_str().to_owned(),
    );
    labels.extend(image.labels.clone());
    for (name, template) in &settings.channel.labels {
        labels.insert(name.clone(), settings.fill(template, &facts.git.values)?);
    }
    Ok(labels)
}

/// The folder that [`BuildFacts::tmpdir`] names must be there.
pub fn cache_step(facts: &BuildFacts) -> Option<Step> {
    let folder = facts.tmpdir.as_ref()?;
    Some(Step::new(
        Cmd::new("mkdir").args(["-p", folder]),
        Output::Quiet,
    ))
}

/// Whether `check` comes first: what was typed, else what the channel says.
pub fn check_first(settings: &Settings, typed: CheckChoice) -> CheckFirst {
    match (typed.check, typed.no_check) {
        (true, _) => CheckFirst::Yes,
        (_, true) => CheckFirst::No,
        (false, false) => settings.channel.check,
    }
}

pub fn plan(settings: &Settings, facts: &BuildFacts, args: &BuildArgs) -> Result<Plan, Failure> {
    let mut plan = Plan {
        steps: cache_step(facts).into_iter().collect(),
    };
    match check_first(settings, args.check) {
        CheckFirst::Yes => plan.push(check::step(settings, facts, args.build.no_cache)?),
        CheckFirst::No => {}
    }
    may_take_tags(settings, facts)?;
    let mut build = request(settings, facts, args.platform.as_deref())?;
    build.no_cache = args.build.no_cache;
    let what = format!(
        "{} for {} with {}",
        build.references.join(", "),
        build.platform_words(),
        facts.engine.describe()
    );
    plan.push(Step::new(facts.engine.build(&build), Output::Talk).say("Building", what));
    Ok(plan)
}

pub fn run(cx: &Context, args: &BuildArgs) -> Result<()> {
    if let Some(reference) = build(cx, args)? {
        let version = &cx.settings.version.value;
        cx.ui.hint(&format!("next: `cargo xtask run-local --version {version}` or `cargo xtask test-image --version {version}`"));
        cx.ui.result(&format!("{reference}\n"))?;
    }
    Ok(())
}

/// Builds it, and says what was built. The reference; none of a dry run.
///
/// # Errors
/// When it is not built.
pub fn build(cx: &Context, args: &BuildArgs) -> Result<Option<String>> {
    let clock = Clock::start();
    let facts = facts(cx)?;
    let plan = plan(cx.settings, &facts, args)?;
    match cx.carry_out(&plan)? {
        Ran::No => Ok(None),
        Ran::Yes => report(cx, &facts, clock).map(Some),
    }
}

/// What was built.
fn report(cx: &Context, facts: &BuildFacts, clock: Clock) -> Result<String> {
    let reference = cx.settings.reference(&facts.git.values)?;
    let limit = cx.settings.engine.timeout.max(Duration::from_secs(10));
    let answer = cx.exec.ask(
        &image::inspect_cmd(&facts.engine.engine.program, &[&reference]),
        limit,
    );
    cx.exec.check()?;
    // Podman 4.3 exits with 0 when a signal ends its build, so only the image itself is proof.
    let built = image::read_inspect(&answer, limit)
        .ok()
        .and_then(|found| found.into_iter().next())
        .ok_or_else(|| {
            Failure::new(format!(
                "the build ended, but there is no image `{reference}`"
            ))
        })?;
    let ui = cx.ui;
    ui.status(
        "Built",
        &format!(
            "{reference} ({}, {}) in {clock}",
            built.short_id(),
            built.platform()
        ),
    );
    ui.status("Size", &size_line(&built, cx.settings));
    if let Some(warning) = unpublishable(cx.settings, &facts.git) {
        ui.warn(&warning);
    }
    Ok(reference)
}

/// The size that the engine tells, against the budget that counts the same.
fn size_line(image: &Image, settings: &Settings) -> String {
    let (means, budget) = match image.size_means() {
        SizeMeans::Compressed => ("compressed", settings.budget.compressed),
        SizeMeans::Unpacked => ("unpacked", settings.budget.unpacked),
    };
    let size = human_bytes(image.size);
    match budget {
        None => format!("{size} {means}"),
        Some(budget) if image.size <= budget => {
            format!(
                "{size} {means}, within the budget of {}",
                human_bytes(budget)
            )
        }
        Some(budget) => format!(
            "{size} {means}, OVER the budget of {} by {}",
            human_bytes(budget),
            human_bytes(image.size - budget)
        ),
    }
}

/// Why the work tree keeps this image from being published, if it does.
pub fn unpublishable(settings: &Settings, git: &Git) -> Option<String> {
    let version = &settings.version.value;
    let wanted = settings.channel.work_tree;
    let why = match wanted {
        WorkTree::Any => return None,
        WorkTree::Clean | WorkTree::Tagged if git.values.sha.is_none() => {
            "this is no git work tree".to_owned()
        }
        WorkTree::Clean | WorkTree::Tagged if git.dirty => {
            "there are uncommitted changes".to_owned()
        }
        WorkTree::Clean => return None,
        WorkTree::Tagged => {
            let tag = format!("v{version}");
            if git.tags.contains(&tag) || git.tags.iter().any(|tag| tag == version.as_str()) {
                return None;
            }
            format!("HEAD has no tag `{tag}`")
        }
    };
    Some(format!(
        "not fit to publish: the channel `{}` wants a {} work tree, and {why}",
        settings.channel.name,
        match wanted {
            WorkTree::Tagged => "clean and tagged",
            WorkTree::Any | WorkTree::Clean => "clean",
        }
    ))
}
