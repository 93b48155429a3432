//! What all that publishes has in common: preflight, then push by digest, look at what the
//! registry holds, and only then give it its tags.

pub mod archive;
pub mod build_multiarch;
pub mod ci_check;
pub mod formula;
pub mod github;
pub mod preflight;
mod promote;
pub mod push;
mod receipt;
mod sign;
pub mod verify_image;

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Context, build_image};
use crate::{
    cli::PlaceArg,
    credentials::{files, find::find, login::Credentials},
    engine::{
        capabilities::Capability,
        label,
        multiarch::{BuilderFacts, CacheWords, Release, Store},
    },
    env::Env,
    error::Failure,
    image::{Platform, Repository, VERSION_LABEL},
    oci::verify::{Attestations, Expected},
    plan::{Cmd, Output, Step},
    probe::Git,
    registry::client::Registry,
    settings::{Cache, Provenance, Sbom, Settings},
};

const REVISION_LABEL: &str = "org.opencontainers.image.revision";

/// Where releases are written, relative to the workspace.
const FOLDER: &str = "target/release";

/// The archive of a version: `target/release/agent-runner-1.2.3.oci.tar`. A shard of it, for one
/// platform, has the platform in its name.
pub fn archive_path(settings: &Settings, shard: Option<&Platform>) -> PathBuf {
    let path = settings.image.repository.path();
    let name = path.rsplit('/').next().unwrap_or(path);
    let version = &settings.version.value;
    let shard = shard.map_or(String::new(), |platform| {
        format!("-{}", platform.to_string().replace('/', "-"))
    });
    settings
        .root
        .join(FOLDER)
        .join(format!("{name}-{version}{shard}.oci.tar"))
}

/// Makes the folder that an archive is written to.
pub fn folder_step(archive: &Path) -> Step {
    let folder = archive.parent().unwrap_or(Path::new("."));
    Step::new(
        Cmd::new("mkdir").args(["-p", &folder.to_string_lossy()]),
        Output::Quiet,
    )
}

/// What BuildKit needs to use GitHub's cache. Actions are given it, steps of commands are not.
/// <https://docs.docker.com/build/cache/backends/gha/#authentication>
const GITHUB_CACHE: &[&str] = &[
    "ACTIONS_RUNTIME_TOKEN",
    "ACTIONS_RESULTS_URL",
    "ACTIONS_CACHE_SERVICE_V2",
];

/// What of it is missing.
fn github_cache_lacks(env: &Env) -> Vec<&'static str> {
    let missing = |name: &&&str| env.get(name).is_none();
    GITHUB_CACHE.iter().filter(missing).copied().collect()
}

/// What a multi-architecture build needs to know.
#[derive(Clone, Debug)]
pub struct MultiFacts {
    pub build: build_image::BuildFacts,
    pub builder: BuilderFacts,
    /// What the environment lacks for GitHub's cache.
    pub github_cache_lacks: Vec<&'static str>,
}

/// Asks for them.
pub fn facts(cx: &Context) -> Result<MultiFacts> {
    let build = build_image::facts(cx)?;
    let engine = &build.engine;
    let ask = |cmd: Cmd| cx.probe().ask(&cmd).ok();
    let ours = engine.engine.our_builders().into_iter().next();
    let (store, ours) = std::thread::scope(|scope| {
        let ours = scope.spawn(|| ours.and_then(|(_, question)| ask(question)));
        let store = engine.store_question().and_then(ask);
        (store, ours.join().ok().flatten())
    });
    Ok(MultiFacts {
        builder: BuilderFacts {
            store: engine.read_store(store.as_ref()),
            ours_is_there: ours.is_some_and(|answer| answer.ok()),
        },
        github_cache_lacks: github_cache_lacks(cx.env),
        build,
    })
}

/// Whether the engine's own builder does.
pub fn holds_several(facts: &MultiFacts) -> bool {
    facts.builder.store == Store::SeveralPlatforms
}

/// What the settings and the engine make of a release's build.
pub fn release(
    settings: &Settings,
    facts: &MultiFacts,
    shard: Option<&Platform>,
) -> Result<Release, Failure> {
    let engine = &facts.build.engine;
    let config = Some(&settings.builder.config)
        .filter(|config| !config.is_empty())
        .map(|config| settings.root.join(config).to_string_lossy().into_owned());
    let builder = engine
        .choose_builder(
            &settings.builder,
            facts.builder,
            config.as_deref(),
            &settings.build.network,
        )
        .map_err(Failure::usage)?;
    let CacheWords { from, to } = cache(settings, facts, shard);
    let channel = &settings.channel;
    let attests = engine.can(Capability::Attestations);
    Ok(Release {
        builder,
        provenance: if attests {
            channel.provenance
        } else {
            Provenance::Off
        },
        sbom: if attests {
            channel.sbom.clone()
        } else {
            Sbom::Off
        },
        cache_from: from,
        cache_to: to,
        epoch: facts.build.created,
    })
}

/// Shards that kept their cache under one name would overwrite each other's.
fn cache(settings: &Settings, facts: &MultiFacts, shard: Option<&Platform>) -> CacheWords {
    let wanted = match settings.builder.cache {
        Cache::GitHub if !facts.github_cache_lacks.is_empty() => Cache::Registry,
        wanted => wanted,
    };
    let shard = shard.map(|platform| platform.to_string().replace('/', "-"));
    let mut repository = match settings.builder.cache_ref.as_str() {
        "" => format!("{}/cache", settings.image.repository.as_str()),
        repository => repository.to_owned(),
    };
    let mut folder = settings.root.join("target/build-cache");
    if let Some(shard) = &shard {
        repository.push_str(&format!("/{shard}"));
        folder.push(shard);
    }
    facts.build.engine.cache_words(
        wanted,
        &repository,
        &folder.to_string_lossy(),
        shard.as_deref(),
    )
}

/// What is left out or done in another way than the configuration has it; each is said.
pub fn remarks(settings: &Settings, facts: &MultiFacts) -> Vec<String> {
    let mut remarks = Vec::new();
    let channel = &settings.channel;
    if !facts.build.engine.can(Capability::Attestations)
        && (channel.provenance != Provenance::Off || channel.sbom != Sbom::Off)
    {
        remarks.push(format!(
            "{} writes no attestations: the image goes without provenance and SBOM",
            facts.build.engine.engine.kind
        ));
    }
    let lacks = &facts.github_cache_lacks;
    if settings.builder.cache == Cache::GitHub && !lacks.is_empty() {
        remarks.push(format!(
            "build.cache = \"gha\" needs {}, which a `run:` step is not given: expose them in a step \
             before (`actions/github-script`, see docs/publishing.md); the registry's cache is used instead",
            lacks.join(", ")
        ));
    }
    remarks
}

/// The settings for publishing the same image at another place. What the image says of itself
/// stays: a mirror holds what was built for `image.repository`, digest for digest.
///
/// # Errors
/// When it is no repository.
pub fn placed(settings: &Settings, place: &PlaceArg) -> Result<Settings, Failure> {
    let mut settings = settings.clone();
    if let Some(text) = &place.repository {
        settings.image.repository = Repository::parse(text)
            .map_err(|why| Failure::usage(format!("`--repository {text}` {why}")))?;
    }
    Ok(settings)
}

/// The registry of the configured repository, as whoever the engines' clients or the
/// environment say we are.
pub fn registry<'a>(cx: &'a Context) -> Registry<'a> {
    let scratch = cx.settings.root.join(FOLDER);
    let repository = &cx.settings.image.repository;
    Registry::new(cx.exec, cx.ui, repository, credentials(cx), &scratch)
}

fn credentials(cx: &Context) -> Option<Credentials> {
    let repository = &cx.settings.image.repository;
    let files = files::of_all_engines(cx.env);
    let user = &cx.settings.registry_user;
    find(cx.exec, cx.env, &files, repository, user)
}

/// What the image must be to be published as this version.
pub fn expected(settings: &Settings, git: &Git, attestations: Attestations) -> Expected {
    let mut labels = std::collections::BTreeMap::from([
        (VERSION_LABEL.to_owned(), settings.version.value.to_string()),
        (
            label::IMAGE.to_owned(),
            settings.image.repository.as_str().to_owned(),
        ),
    ]);
    if let (Some(sha), false) = (&git.values.sha, git.dirty) {
        labels.insert(REVISION_LABEL.to_owned(), sha.clone());
    }
    Expected {
        platforms: settings.platforms().to_vec(),
        labels,
        budget: settings.budget,
        attestations,
    }
}

/// A path as it is shown and typed: relative to the workspace where it is below it.
pub fn shown(settings: &Settings, path: &Path) -> String {
    path.strip_prefix(&settings.root)
        .unwrap_or(path)
        .display()
        .to_string()
}
