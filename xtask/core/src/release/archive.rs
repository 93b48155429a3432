//! The plan that makes the archive of an image: by a build for all platforms, or from an image in the
//! engine's store.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    base::{error::Failure, image::Platform},
    build::request,
    cli::BuildOptions,
    engine::{build::Build, label, multiarch::ArchiveSteps},
    facts::context::Context,
    oci::{archive::Archive, manifest::Manifest, verify},
    plan::{Plan, quote_for_shell},
    release::{
        builder::{self, MultiarchFacts},
        dist, paths,
    },
    settings::{CheckFirst, Settings},
};

/// How an archive is made: the engine's steps, then xtask packs what they wrote.
pub struct ArchivePlan {
    /// Its cleanup runs after the packing.
    pub plan: Plan,
    /// The files to pack.
    pub pack: Vec<PathBuf>,
    /// See [`ArchiveSteps::timestamp`].
    pub timestamp: Option<u64>,
    pub archive: PathBuf,
}

impl ArchivePlan {
    /// `preparation`, then the engine's own steps.
    pub fn new(preparation: Plan, engine: ArchiveSteps, archive: PathBuf) -> Self {
        let mut plan = preparation;
        plan.steps.extend(engine.steps);
        plan.cleanup.extend(engine.cleanup);
        Self {
            plan,
            pack: engine.pack.into_iter().map(PathBuf::from).collect(),
            timestamp: engine.timestamp,
            archive,
        }
    }

    /// The lines of a dry run. What xtask packs itself is a line that calls xtask.
    pub fn render(&self) -> String {
        let pack = pack_line(&self.pack, self.timestamp, &self.archive);
        let cleanup = Plan::from(self.plan.cleanup.clone());
        self.before_packing().render() + &pack + &cleanup.render()
    }

    /// Makes the archive. It is not verified yet.
    ///
    /// # Errors
    /// When a step fails, or the archive cannot be read or written.
    pub fn run(&self, cx: &Context) -> Result<Archive> {
        let _lock = dist::lock_for_writing(&cx.settings.root, &self.archive);
        let steps = cx.exec.run(&self.before_packing());
        let archive = steps.and_then(|()| self.finish(cx));
        cx.exec.clean_up(&self.plan);
        archive
    }

    /// The plan without its cleanup, which removes what is packed.
    fn before_packing(&self) -> Plan {
        self.plan.steps.clone().into()
    }

    fn finish(&self, cx: &Context) -> Result<Archive> {
        let path = paths::display(cx.settings, &self.archive);
        cx.ui.status("Packing", &path);
        dist::pack(cx, &self.pack, self.timestamp, &self.archive)
    }
}

/// The command that packs the inputs into an archive, as a line for a shell.
pub fn pack_line(inputs: &[PathBuf], timestamp: Option<u64>, output: &Path) -> String {
    let timestamp = timestamp.map_or(String::new(), |time| format!("--timestamp {time} "));
    let word = |path: &Path| quote_for_shell(&path.to_string_lossy());
    let inputs: Vec<_> = inputs.iter().map(|path| word(path)).collect();
    format!(
        "cargo xtask pack-archive {timestamp}{} --output {}\n",
        inputs.join(" "),
        word(output)
    )
}

/// What is built for several platforms.
pub struct MultiarchRequest<'a> {
    /// The one platform of a shard; none for all platforms of the version.
    pub shard: Option<&'a Platform>,
    pub options: &'a BuildOptions,
    pub check_first: CheckFirst,
}

impl MultiarchRequest<'_> {
    /// The platforms that are built.
    pub fn platforms(&self, settings: &Settings) -> Vec<Platform> {
        match self.shard {
            Some(platform) => vec![platform.clone()],
            None => settings.platforms().to_vec(),
        }
    }

    /// What the engine is asked to build.
    ///
    /// # Errors
    /// As [`request::build_for_engine_platform`].
    pub fn build(&self, settings: &Settings, facts: &MultiarchFacts) -> Result<Build, Failure> {
        let mut build = request::build_for_engine_platform(settings, &facts.build)?;
        build.platforms = self.platforms(settings);
        build.no_cache = self.options.no_cache;
        Ok(build)
    }

    /// The steps before the build.
    ///
    /// # Errors
    /// As [`request::check_step`].
    pub fn preparation(
        &self,
        settings: &Settings,
        facts: &MultiarchFacts,
    ) -> Result<Plan, Failure> {
        let mut plan = Plan::from(request::preparation(&facts.build));
        match self.check_first {
            CheckFirst::Yes => plan.push(request::check_step(
                settings,
                &facts.build,
                self.options.no_cache,
            )?),
            CheckFirst::No => {}
        }
        Ok(plan)
    }
}

/// The plan of a build for several platforms that writes an archive to `output`, or to the version's
/// usual place.
///
/// # Errors
/// When the engine cannot build what the settings ask for.
pub fn plan(
    settings: &Settings,
    facts: &MultiarchFacts,
    request: &MultiarchRequest,
    output: Option<&Path>,
) -> Result<ArchivePlan, Failure> {
    let archive = output.map_or_else(
        || paths::archive(settings, request.shard),
        Path::to_path_buf,
    );
    let multi = builder::multiarch_options(settings, facts, request.shard)?;
    let build = request.build(settings, facts)?;
    let mut preparation = request.preparation(settings, facts)?;
    preparation.push(paths::folder_step(&archive));
    let steps = facts.build.engine.build_archive(&build, &multi, &archive);
    Ok(ArchivePlan::new(preparation, steps, archive))
}

/// The archives, of those given, whose images have the settings' flavour; for the plain image, no flavour.
///
/// # Errors
/// When an archive cannot be read, and when there is none of the flavour.
pub fn archives_of(settings: &Settings, archives: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if settings.flavours.is_empty() {
        return Ok(archives.to_vec());
    }
    let ours = settings.flavour.as_ref().map(|one| one.name.clone());
    let mut found = Vec::new();
    for path in archives {
        if flavour_of(path)? == ours {
            found.push(path.clone());
        }
    }
    if found.is_empty() {
        let what = match &ours {
            Some(name) => format!("the flavour `{name}`"),
            None => "the plain image".to_owned(),
        };
        return Err(Failure::usage(format!("none of the archives of `--merge` holds {what}"))
            .hint(format!(
                "build it too, for each platform: `cargo xtask build-multiarch {} --shard OS/ARCH`",
                settings.version_options()
            ))
            .into());
    }
    Ok(found)
}

/// The flavour that the label of an image names; none for the plain image.
fn flavour_of(path: &Path) -> Result<Option<String>> {
    let archive = Archive::open(path)?;
    let manifest = |digest: &str| -> Result<Manifest> {
        Ok(serde_json::from_slice(&verify::read_manifest(
            &archive, digest,
        )?)?)
    };
    let mut image = manifest(&archive.root.digest)?;
    if let Some(first) = image.manifests.iter().find(|one| !one.is_attestation()) {
        image = manifest(&first.digest.clone())?;
    }
    let Some(config) = &image.config else {
        return Ok(None);
    };
    let config = verify::read_config(&archive, config)?;
    Ok(config.label(label::FLAVOUR).map(str::to_owned))
}

/// The archives that `--merge` names. A folder stands for all archives in it, without the one that an
/// earlier merge wrote there.
///
/// # Errors
/// When a folder holds no archive.
pub fn merge_inputs(cx: &Context, named: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let merged = paths::archive(cx.settings, None).canonicalize().ok();
    let is_merged = |path: &Path| merged.is_some() && path.canonicalize().ok() == merged;
    let mut inputs = Vec::new();
    for path in named.iter().map(|path| cx.env.cwd.join(path)) {
        if !path.is_dir() {
            inputs.push(path);
            continue;
        }
        let mut below: Vec<_> = std::fs::read_dir(&path)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.to_string_lossy().ends_with(".oci.tar") && !is_merged(path))
            .collect();
        below.sort();
        if below.is_empty() {
            return Err(Failure::usage(format!(
                "`{}` holds no archive (`*.oci.tar`)",
                path.display()
            )));
        }
        inputs.extend(below);
    }
    Ok(inputs)
}
