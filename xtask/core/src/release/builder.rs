//! The facts and choices of a build for several platforms: which builder, which cache.

use std::thread;

use anyhow::Result;

use crate::{
    base::{env::Env, error::Failure, image::Platform},
    build::facts::BuildFacts,
    engine::{
        capabilities::ImageStore,
        multiarch::{BuilderFacts, BuilderNames, CacheOptions, MultiarchOptions},
    },
    facts::context::Context,
    plan::Cmd,
    release::paths,
    settings::{Cache, Settings},
};

/// The variables that BuildKit needs for GitHub's cache. GitHub gives them to actions, not to the
/// steps that run commands.
/// <https://docs.docker.com/build/cache/backends/gha/#authentication>
const GITHUB_CACHE_VARIABLES: &[&str] = &[
    "ACTIONS_RUNTIME_TOKEN",
    "ACTIONS_RESULTS_URL",
    "ACTIONS_CACHE_SERVICE_V2",
];

/// The variables for GitHub's cache that are not set.
pub fn missing_github_cache_variables(env: &Env) -> Vec<&'static str> {
    let missing = |name: &&&str| env.get(name).is_none();
    GITHUB_CACHE_VARIABLES
        .iter()
        .filter(missing)
        .copied()
        .collect()
}

/// What the plan of a multi-architecture build needs to know.
#[derive(Clone, Debug)]
pub struct MultiarchFacts {
    pub build: BuildFacts,
    pub builder: BuilderFacts,
    /// See [`missing_github_cache_variables`].
    pub missing_github_cache_variables: Vec<&'static str>,
    /// The id of this process.
    pub process: u32,
}

impl MultiarchFacts {
    /// Asks the engine and git.
    ///
    /// # Errors
    /// As [`BuildFacts::gather`].
    pub fn gather(cx: &Context) -> Result<Self> {
        let build = BuildFacts::gather(cx)?;
        let engine = &build.engine;
        let ask = |cmd: Cmd| cx.ask(&cmd).ok();
        let ours = engine
            .engine
            .xtask_builders(&cx.settings.image.repository)
            .into_iter()
            .next();
        let (store, ours) = thread::scope(|scope| {
            let ours = scope.spawn(|| ours.and_then(|(_, question)| ask(question)));
            let store = engine.image_store_cmd().and_then(ask);
            (store, ours.join().ok().flatten())
        });
        Ok(Self {
            builder: BuilderFacts {
                names: BuilderNames::of(&cx.settings.image.repository),
                store: engine.read_image_store(store.as_ref()),
                xtask_builder_exists: ours.is_some_and(|answer| answer.ok()),
            },
            missing_github_cache_variables: missing_github_cache_variables(cx.env),
            process: std::process::id(),
            build,
        })
    }

    /// Whether the engine's image store holds several platforms under one name.
    pub fn store_holds_several_platforms(&self) -> bool {
        self.builder.store == ImageStore::MultiPlatform
    }
}

/// Chooses builder and cache. `platform` is that of a shard.
///
/// # Errors
/// When the engine has no builder as configured.
pub fn multiarch_options(
    settings: &Settings,
    facts: &MultiarchFacts,
    platform: Option<&Platform>,
) -> Result<MultiarchOptions, Failure> {
    let engine = &facts.build.engine;
    let config = Some(&settings.build.builder_config)
        .filter(|config| !config.is_empty())
        .map(|config| settings.root.join(config).to_string_lossy().into_owned());
    let builder = engine
        .choose_builder(&settings.build, &facts.builder, config.as_deref())
        .map_err(Failure::usage)?;
    let CacheOptions { from, to } = cache(settings, facts, platform);
    Ok(MultiarchOptions {
        builder,
        cache_from: from,
        cache_to: to,
        epoch: facts.build.created,
        process: facts.process,
        nodes_builder: facts.builder.names.nodes.clone(),
    })
}

/// Each shard has a cache of its own: under one name they would overwrite each other's.
fn cache(settings: &Settings, facts: &MultiarchFacts, platform: Option<&Platform>) -> CacheOptions {
    let cache = match settings.build.cache {
        Cache::GitHub if !facts.missing_github_cache_variables.is_empty() => Cache::Registry,
        configured => configured,
    };
    let shard = platform.map(paths::dashed);
    let mut repository = match settings.build.cache_ref.as_str() {
        "" => format!("{}/cache", settings.image.repository.as_str()),
        repository => repository.to_owned(),
    };
    let mut folder = settings.root.join("target/build-cache");
    if let Some(shard) = &shard {
        repository.push_str(&format!("/{shard}"));
        folder.push(shard);
    }
    facts.build.engine.cache_options(
        cache,
        &repository,
        &folder.to_string_lossy(),
        shard.as_deref(),
    )
}

/// Warns about what the build leaves out or does in another way than configured.
pub fn warn(cx: &Context, facts: &MultiarchFacts) {
    facts.build.warn(cx);
    let missing = &facts.missing_github_cache_variables;
    if cx.settings.build.cache == Cache::GitHub && !missing.is_empty() {
        cx.ui.warn(&format!(
            "build.cache = \"gha\" needs {}, which GitHub does not give to a `run:` step: expose them in a step \
             before it (`actions/github-script`, see docs/publishing.md); the registry's cache is used instead",
            missing.join(", ")
        ));
    }
}
