//! What a build asks the engine for. Pure: made of the settings and the facts.

use std::collections::BTreeMap;

use crate::{
    base::{
        error::Failure,
        image::{Platform, VERSION_LABEL},
        time::rfc3339,
    },
    build::{
        facts::BuildFacts,
        foundation::{self, Foundation},
    },
    cli::CheckOption,
    engine::{build::Build, label},
    facts::git::WorkTree,
    plan::{Cmd, Output, Step},
    settings::{CheckFirst, Settings},
};

/// The build of a stage that runs on this machine, for the engine's own platform. `build.platforms`
/// need not list it, because the stages of `check` and of the development server are no part of the
/// image.
///
/// # Errors
/// When a build argument looks like a secret, or a template needs a value that is missing.
pub fn build_for_engine_platform(
    settings: &Settings,
    facts: &BuildFacts,
) -> Result<Build, Failure> {
    build_request(settings, facts, &facts.engine.platform)
}

/// The build of a version for one platform.
///
/// # Errors
/// When the configuration does not list the platform, and as [`build_for_engine_platform`].
pub fn build_for_platform(
    settings: &Settings,
    facts: &BuildFacts,
    platform: &Platform,
) -> Result<Build, Failure> {
    let known = settings.platforms();
    if !known.is_empty() && !known.contains(platform) {
        let names: Vec<_> = known.iter().map(ToString::to_string).collect();
        return Err(Failure::usage(format!(
            "the image cannot be built for {platform}: the configuration has {}",
            names.join(" and ")
        ))
        .hint(format!(
            "choose one of them, which needs no emulation: `--platform {}`",
            names[0]
        )));
    }
    build_request(settings, facts, platform)
}

fn build_request(
    settings: &Settings,
    facts: &BuildFacts,
    platform: &Platform,
) -> Result<Build, Failure> {
    settings.refuse_secret_build_args()?;
    let git = &facts.git.values;
    let absolute = |path: &str| settings.root.join(path).to_string_lossy().into_owned();
    let mut args = settings.build.args.clone();
    let (base, base_arg) = (&settings.build.base_image, &settings.build.base_image_arg);
    if !base.is_empty() && !base_arg.is_empty() {
        args.insert(base_arg.clone(), base.clone());
    }
    for (name, template) in &settings.channel.build_args {
        args.insert(name.clone(), settings.fill(template, git)?);
    }
    let context = match settings.build.context.as_str() {
        "." => settings.root.to_string_lossy().into_owned(),
        context => absolute(context),
    };
    Ok(Build {
        dockerfile: facts.files.dockerfile.to_string_lossy().into_owned(),
        dockerfile_text: facts.files.text.clone(),
        ignore_file_for_podman: facts
            .files
            .ignore_file_for_podman
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
        context,
        target: settings.build.target.clone(),
        platforms: vec![platform.clone()],
        args,
        secrets: facts.secrets.clone(),
        labels: labels(settings, facts)?,
        references: settings.references(git)?,
        network: settings.build.network.clone(),
        pull: settings.build.pull,
        no_cache: false,
        replaced_stage: None,
        progress: settings.build.progress,
        tmpdir: facts.tmpdir.clone(),
    })
}

/// The commit as the `revision` label has it, with `-dirty` if the work tree has changes.
pub fn revision(git: &WorkTree) -> Option<String> {
    let sha = git.values.sha.as_ref()?;
    Some(if git.dirty {
        format!("{sha}-dirty")
    } else {
        sha.clone()
    })
}

/// The image's labels. A later group overrides an earlier one: the OCI's, xtask's own, the
/// configured ones, the channel's.
/// <https://github.com/opencontainers/image-spec/blob/main/annotations.md>
fn labels(settings: &Settings, facts: &BuildFacts) -> Result<BTreeMap<String, String>, Failure> {
    let image = &settings.image;
    // Without a digest, nobody knows which image of that name the builder takes.
    let base = &settings.build.base_image;
    let (base_name, base_digest) = base.split_once('@').unwrap_or((base, ""));
    let oci = [
        ("version", settings.version.value.to_string()),
        ("created", rfc3339(facts.created)),
        ("revision", revision(&facts.git).unwrap_or_default()),
        ("source", image.source.clone()),
        ("title", image.title.clone()),
        ("description", image.description.clone()),
        ("licenses", image.licenses.clone()),
        ("base.name", base_name.to_owned()),
        ("base.digest", base_digest.to_owned()),
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
    if let Some(flavour) = &settings.flavour {
        labels.insert(label::FLAVOUR.to_owned(), flavour.name.clone());
    }
    labels.extend(image.labels.clone());
    for (name, template) in &settings.channel.labels {
        labels.insert(name.clone(), settings.fill(template, &facts.git.values)?);
    }
    Ok(labels)
}

/// The image that a build starts from. A build with `--no-cache` or `--pull` makes everything anew.
pub fn foundation_of<'a>(facts: &'a BuildFacts, build: &Build) -> Option<&'a Foundation> {
    let anew = build.no_cache || build.pull;
    let is_for_engine = build.is_only_for(&facts.engine.platform);
    facts.foundation.as_ref().filter(|_| is_for_engine && !anew)
}

/// The steps that build the version's image for one platform into the engine's store. They start from the image of
/// the stage `foundation`, if the engine can, and make it first if it is missing.
pub fn image_steps(facts: &BuildFacts, build: &Build, what: String) -> Vec<Step> {
    let engine = &facts.engine;
    let mut build = build.clone();
    let mut steps = Vec::new();
    if let Some(foundation) = facts.foundation.as_ref().filter(|known| known.exists)
        && build.no_cache
    {
        let untag = engine.untag(&foundation.reference);
        steps.push(Step::new(untag, Output::Quiet));
    }
    if let Some(foundation) = foundation_of(facts, &build) {
        if !foundation.exists {
            let mut of_stage = build.clone();
            foundation::STAGE.clone_into(&mut of_stage.target);
            of_stage.references = vec![foundation.reference.clone()];
            // `clean` finds it by this label.
            of_stage.labels.retain(|name, _| name == label::IMAGE);
            let step = engine.build_step(engine.build(&of_stage));
            steps.push(step.status(
                "Building",
                "the layers below the code, from which later builds start",
            ));
        }
        build.replaced_stage = Some((foundation::STAGE, foundation.reference.clone()));
    }
    steps.push(
        engine
            .build_step(engine.build(&build))
            .status("Building", what),
    );
    steps
}

/// The steps before any build: the cache folder of [`BuildFacts::tmpdir`] must exist.
pub fn preparation(facts: &BuildFacts) -> Vec<Step> {
    let folder = facts.tmpdir.iter();
    folder
        .map(|folder| Step::new(Cmd::new("mkdir").args(["-p", folder]), Output::Quiet))
        .collect()
}

/// The step of `check`: a build of the stage with the checks.
///
/// # Errors
/// When the configuration names no such stage, and as [`build_for_engine_platform`].
pub fn check_step(
    settings: &Settings,
    facts: &BuildFacts,
    no_cache: bool,
) -> Result<Step, Failure> {
    let target = &settings.build.check_target;
    if target.is_empty() {
        return Err(Failure::usage("`build.check-target` names no stage with checks")
            .hint("write a stage whose RUN steps fail if they find a problem, and set `build.check-target` to its name"));
    }
    let mut build = build_for_engine_platform(settings, facts)?;
    build.target.clone_from(target);
    build.references.clear();
    // Podman keeps an image of the stage. `clean` finds it by these labels.
    build
        .labels
        .retain(|name, _| name == label::IMAGE || name == VERSION_LABEL);
    build.no_cache = no_cache;
    let cmd = facts.engine.build_and_discard(&build);
    Ok(facts
        .engine
        .build_step(cmd)
        .status("Checking", format!("the stage `{target}`")))
}

/// Whether `check` runs first: the flag decides, else the channel, if there are checks.
pub fn check_first(settings: &Settings, flag: CheckOption) -> CheckFirst {
    match (flag.check, flag.no_check) {
        (true, _) => CheckFirst::Yes,
        (_, true) => CheckFirst::No,
        (false, false) if settings.build.check_target.is_empty() => CheckFirst::No,
        (false, false) => settings.channel.check,
    }
}
