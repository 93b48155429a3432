//! The facts of a build.

use std::{
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;

use crate::{
    base::{env::Env, error::Failure, image::VERSION_LABEL, time::MAX_TIMESTAMP, version::Version},
    build::{
        dockerfile::{self, BuildFiles},
        foundation::Foundation,
    },
    engine::{EngineFacts, capabilities::Capability, image::Image},
    facts::{
        context::{Context, EngineQuery, EngineState},
        git::{self, WorkTree},
        host::{self, Folder},
    },
    settings::{BuildSecret, GitValues, SecretSource, Settings},
};

/// What the plan of a build needs to know.
#[derive(Clone, Debug)]
pub struct BuildFacts {
    pub engine: EngineFacts,
    pub files: BuildFiles,
    pub git: WorkTree,
    /// The image's creation time, in seconds since 1970: `SOURCE_DATE_EPOCH`, else the commit's
    /// time, so that an unchanged commit makes an unchanged image, else now.
    pub created: u64,
    /// The configured secrets, with absolute file paths.
    pub secrets: Vec<BuildSecret>,
    /// See [`crate::engine::build::Build::tmpdir`].
    pub tmpdir: Option<String>,
    /// Those of the version's references that name an image which xtask did not build.
    pub foreign_references: Vec<String>,
    /// Those of the version's references that belong to a newer version in the engine, such as
    /// `latest`, each with the newer version.
    pub newer: Vec<(String, Version)>,
    /// The image that the build can start from.
    pub foundation: Option<Foundation>,
}

impl BuildFacts {
    /// Asks the engine and git, side by side.
    ///
    /// # Errors
    /// When no engine answers, a secret is missing, or `SOURCE_DATE_EPOCH` is not a time.
    pub fn gather(cx: &Context) -> Result<Self> {
        // Most tags can be made without git, so their images are asked for at the same time.
        let without_git = cx.settings.references(&GitValues::default());
        let without_git = without_git.unwrap_or_default();
        let base = &cx.settings.build.base_image;
        let with_base: Vec<_> = without_git
            .iter()
            .chain((!base.is_empty()).then_some(base))
            .cloned()
            .collect();
        let (state, git) = thread::scope(|scope| {
            let git = scope.spawn(|| git::work_tree(cx.exec, &cx.settings.root));
            let state = cx.query_engine(EngineQuery {
                container: None,
                images: &with_base,
            });
            (state, git.join().unwrap_or_default())
        });
        let EngineState { engine, images, .. } = state?;
        let known_base = images.iter().find(|image| image.has_tag(base)).cloned();
        let (references, images) = if without_git.is_empty() {
            let references = cx.settings.references(&git.values)?;
            let images = cx.images_of(&engine.engine, &references)?;
            (references, images)
        } else {
            (without_git, images)
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let epoch = source_date_epoch(cx.env)?;
        let files = dockerfile::read(cx.settings);
        Ok(Self {
            foundation: Foundation::find(cx, &engine, &files, known_base)?,
            files,
            foreign_references: foreign_references(&references, &images),
            newer: newer_references(&cx.settings.version.value, &references, &images),
            tmpdir: own_cache_folder(cx, &engine),
            engine,
            created: epoch.or(git.commit_time).unwrap_or(now),
            git,
            secrets: secrets(cx.settings, cx.env)?,
        })
    }

    /// Warns about files that do not have the effect that they seem to have, and about build arguments that
    /// have no effect.
    pub fn warn(&self, cx: &Context) {
        for warning in &self.files.warnings {
            cx.ui.warn(warning);
        }
    }

    /// Leaves out the references that belong to a newer version in the engine's store. A tag such as
    /// `latest` only moves forward, as in the registry.
    pub fn retain_newest(&self, references: &mut Vec<String>) {
        let is_newer = |reference: &String| self.newer.iter().any(|(newer, _)| newer == reference);
        references.retain(|reference| !is_newer(reference));
    }

    /// Says which references stay where they are.
    pub fn report_newer(&self, cx: &Context) {
        for (reference, version) in &self.newer {
            cx.ui.status(
                "Stays",
                &format!("{reference} at {version}, which is newer"),
            );
        }
    }
}

/// Those of the references that name an image which xtask did not build.
fn foreign_references(references: &[String], images: &[Image]) -> Vec<String> {
    let foreign: Vec<_> = images
        .iter()
        .filter(|image| !image.is_built_by_xtask())
        .flat_map(|image| image.repo_tags.iter().flatten())
        .collect();
    references
        .iter()
        .filter(|reference| foreign.contains(reference))
        .cloned()
        .collect()
}

/// Those of the references that belong to an image of a newer version. The first reference is
/// skipped, because it is the version's own.
fn newer_references(
    ours: &Version,
    references: &[String],
    images: &[Image],
) -> Vec<(String, Version)> {
    let version_of = |reference: &&String| {
        let named = images.iter().find(|image| image.has_tag(reference))?;
        let version = named.label(VERSION_LABEL)?;
        let version = Version::parse(version).ok()?;
        let newer = version.is_newer_than(ours);
        newer.then(|| ((*reference).clone(), version))
    };
    references
        .iter()
        .skip(1)
        .filter_map(|one| version_of(&one))
        .collect()
}

/// `SOURCE_DATE_EPOCH` in seconds since 1970, if it is set.
/// <https://reproducible-builds.org/specs/source-date-epoch/>
///
/// # Errors
/// When its value is not a time.
fn source_date_epoch(env: &Env) -> Result<Option<u64>, Failure> {
    let Some(text) = env.get("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    match text.parse() {
        Ok(time) if time <= MAX_TIMESTAMP => Ok(Some(time)),
        Ok(_) | Err(_) => Err(Failure::usage(format!(
            "`SOURCE_DATE_EPOCH={text}` must be seconds since 1970, before the year 10000"
        ))
        .hint("take the commit's time: `export SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)`; or unset it")),
    }
}

/// A cache folder of our own, if the engine's shared one belongs to another user of this machine.
/// A shared folder that does not exist yet is left to root: whoever creates it locks all others out,
/// also those whose build starts at the same moment.
fn own_cache_folder(cx: &Context, engine: &EngineFacts) -> Option<String> {
    let shared = engine
        .cache_folder(cx.env.get("TMPDIR"), cx.env.user.euid)
        .filter(|_| !engine.can(Capability::PerUserCacheFolder))?;
    let owner = match host::folder(&shared) {
        Folder::Exists { uid, .. } => uid,
        Folder::Missing => 0,
        Folder::DanglingLink { .. } | Folder::Other => return None,
    };
    (owner != cx.env.user.euid)
        .then(|| cx.env.cache_folder())?
        .and_then(|folder| folder.to_str().map(str::to_owned))
}

/// The configured secrets, each of which must exist.
fn secrets(settings: &Settings, env: &Env) -> Result<Vec<BuildSecret>, Failure> {
    let resolve = |secret: &BuildSecret| {
        let missing = |what: String| {
            Failure::usage(format!(
                "the build secret `{}` is missing: {what}",
                secret.id
            ))
            .hint("correct `build.secrets` (`cargo xtask config` shows where it is set)")
        };
        let source = match &secret.source {
            SecretSource::File(file) => {
                let path = env.expand(file, &settings.root).ok_or_else(|| {
                    missing(format!(
                        "`{file}` needs your home folder, which is not known"
                    ))
                })?;
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
    settings.build.secrets.iter().map(resolve).collect()
}
