//! Multi-platform builds.

use std::path::Path;

use crate::{
    base::{engine_kind::EngineKind, image::Repository},
    engine::{
        Engine, EngineFacts,
        build::{Build, DEFAULT_BUILDER},
        capabilities::{Capability, ImageStore},
    },
    exec::Finished,
    plan::{Cmd, EnvValue, Output, Step},
    settings::{BuildSettings, BuilderChoice, BuilderDriver, Cache, Node},
};

/// The name of Podman's temporary manifest list. It exists until the list is written to a folder.
const MANIFEST_LIST: &str = "localhost/agent-runner-xtask-release";

/// What an engine reports about its image store and builders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuilderFacts {
    pub store: ImageStore,
    pub names: BuilderNames,
    /// Whether the builder of xtask already exists.
    pub xtask_builder_exists: bool,
}

/// The names of the builders that xtask creates for a project. They differ between projects, so that
/// `clean --all` of one leaves the builders of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuilderNames {
    /// Used if Docker's default builder cannot build several platforms.
    pub multi_platform: String,
    /// Used for `build.nodes`.
    pub nodes: String,
}

impl BuilderNames {
    pub fn of(repository: &Repository) -> Self {
        let path = repository.path();
        let project = path.rsplit('/').next().unwrap_or(path);
        // The name of a builder begins with a letter.
        let prefix = if project.starts_with(|c: char| c.is_ascii_alphabetic()) {
            ""
        } else {
            "p"
        };
        Self {
            multi_platform: format!("{prefix}{project}-xtask"),
            nodes: format!("{prefix}{project}-xtask-nodes"),
        }
    }
}

/// The builder to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Builder {
    /// The engine's default builder.
    EngineDefault,
    /// An existing builder of this name.
    Existing(String),
    /// A builder that xtask creates with this command, under this name.
    Create(Cmd, String),
    /// Machines that each build one platform.
    Nodes(Vec<Node>),
}

/// The further options of a multi-platform build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiarchOptions {
    pub builder: Builder,
    pub cache_from: Vec<String>,
    pub cache_to: Vec<String>,
    /// The time of files and build steps, in seconds since 1970.
    pub epoch: u64,
    /// See [`unfinished`].
    pub process: u32,
    /// See [`BuilderNames::nodes`].
    pub nodes_builder: String,
}

/// The steps that write files from which an archive is packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveSteps {
    pub steps: Vec<Step>,
    /// The files that have to be packed into an archive after the steps.
    pub pack: Vec<String>,
    /// The time that packing gives to files and build steps, in seconds since 1970; none for an image of the store,
    /// which keeps its times.
    pub timestamp: Option<u64>,
    /// The steps that remove temporary files and images.
    pub cleanup: Vec<Step>,
}

impl Engine {
    /// The names of the builders of xtask, each with a command that succeeds if the builder exists.
    pub fn xtask_builders(&self, repository: &Repository) -> Vec<(String, Cmd)> {
        let names = BuilderNames::of(repository);
        let inspect = |name: String| {
            let cmd = self.cmd().args(["buildx", "inspect", &name]);
            (name, cmd)
        };
        match self.kind {
            EngineKind::Docker => vec![inspect(names.multi_platform), inspect(names.nodes)],
            EngineKind::Podman => Vec::new(),
        }
    }

    /// Removes a builder and its cache. The step ignores a missing builder.
    pub fn remove_builder(&self, name: &str) -> Step {
        let cmd = self.cmd().args(["buildx", "rm", "--force", name]);
        Step::new(cmd, Output::Quiet).ignore_failure()
    }
}

impl EngineFacts {
    /// Asks which image store the engine uses; none if the engine has only one kind.
    pub fn image_store_cmd(&self) -> Option<Cmd> {
        match self.engine.kind {
            EngineKind::Docker => Some(self.engine.cmd().args([
                "info",
                "--format",
                "{{.Driver}} {{json .DriverStatus}}",
            ])),
            EngineKind::Podman => None,
        }
    }

    /// Reads the answer to [`Self::image_store_cmd`]. <https://docs.docker.com/engine/storage/containerd/>
    pub fn read_image_store(&self, answer: Option<&Finished>) -> ImageStore {
        let snapshotter = "io.containerd.snapshotter";
        let reported = if answer.is_some_and(|answer| answer.stdout.contains(snapshotter)) {
            ImageStore::MultiPlatform
        } else {
            ImageStore::SinglePlatform
        };
        if self.can_with(Capability::MultiPlatformStore, reported) {
            ImageStore::MultiPlatform
        } else {
            ImageStore::SinglePlatform
        }
    }

    /// Chooses the builder.
    ///
    /// # Errors
    /// When the engine cannot use the configured builder.
    pub fn choose_builder(
        &self,
        settings: &BuildSettings,
        facts: &BuilderFacts,
        config: Option<&str>,
    ) -> Result<Builder, String> {
        let kind = self.engine.kind;
        if !self.can(Capability::Builders) {
            return match &settings.builder {
                BuilderChoice::Auto if !settings.nodes.is_empty() => service_nodes(&settings.nodes),
                BuilderChoice::Auto => Ok(Builder::EngineDefault),
                BuilderChoice::Named(name) if name.starts_with("farm:") => Err(format!(
                    "`build.builder = \"{name}\"` is not supported: `podman farm build` pushes the \
                     image before it can be verified; list the farm's machines in `build.nodes` \
                     instead, such as `linux/arm64=ssh://…` (`podman system connection list` shows \
                     their addresses)"
                )),
                BuilderChoice::Named(name) => Err(format!(
                    "{kind} has no builders, so it cannot use `build.builder = \"{name}\"`"
                )),
            };
        }
        Ok(match &settings.builder {
            BuilderChoice::Named(name) => Builder::Existing(name.clone()),
            BuilderChoice::Auto if !settings.nodes.is_empty() => {
                Builder::Nodes(settings.nodes.clone())
            }
            BuilderChoice::Auto
                if facts.store == ImageStore::MultiPlatform
                    && settings.builder_driver == BuilderDriver::DockerContainer =>
            {
                Builder::EngineDefault
            }
            BuilderChoice::Auto if facts.xtask_builder_exists => {
                Builder::Existing(facts.names.multi_platform.clone())
            }
            BuilderChoice::Auto => {
                let name = &facts.names.multi_platform;
                let create = self.create_builder(name, settings, config);
                Builder::Create(create, name.clone())
            }
        })
    }

    fn create_builder(&self, name: &str, settings: &BuildSettings, config: Option<&str>) -> Cmd {
        let mut cmd = self.engine.cmd().args([
            "buildx",
            "create",
            "--name",
            name,
            "--driver",
            settings.builder_driver.word(),
        ]);
        for opt in &settings.builder_opts {
            cmd = cmd.args(["--driver-opt", opt]);
        }
        if settings.network == "host" {
            cmd = cmd.args(["--driver-opt", "network=host"]);
            cmd = cmd.args([
                "--buildkitd-flags",
                "--allow-insecure-entitlement network.host",
            ]);
        }
        if let Some(config) = config {
            cmd = cmd.args(["--buildkitd-config", config]);
        }
        cmd
    }

    /// Creates the builder for `build.nodes`, a list of existing BuildKit daemons.
    fn create_nodes(&self, name: &str, nodes: &[Node]) -> Vec<Cmd> {
        let add = |(number, node): (usize, &Node)| {
            let mut cmd = self.engine.cmd().args(["buildx", "create", "--name", name]);
            if number > 0 {
                cmd = cmd.arg("--append");
            }
            cmd.args([
                "--driver",
                "remote",
                "--platform",
                &node.platform.to_string(),
            ])
            .arg(node.endpoint.as_str())
        };
        nodes.iter().enumerate().map(add).collect()
    }

    /// Builds for all platforms and writes an archive.
    pub fn build_archive(
        &self,
        build: &Build,
        multi: &MultiarchOptions,
        archive: &Path,
    ) -> ArchiveSteps {
        let archive = archive.display().to_string();
        match self.engine.kind {
            EngineKind::Docker => {
                if matches!(multi.builder, Builder::Nodes(_)) && build.platforms.len() > 1 {
                    return self.build_on_nodes(build, multi, &archive);
                }
                // An interrupted BuildKit leaves an incomplete file, so only a complete one is packed.
                let built = unfinished(&archive, multi.process);
                let (mut steps, cmd) = self.buildx(build, multi);
                let cmd = add_archive_output(cmd, build, &built);
                steps.push(self.multiarch_step(cmd, build));
                ArchiveSteps {
                    steps,
                    cleanup: vec![remove_path(&built)],
                    pack: vec![built],
                    timestamp: Some(multi.epoch),
                }
            }
            EngineKind::Podman => {
                if let Builder::Nodes(nodes) = &multi.builder {
                    return self.build_on_services(nodes, build, multi, &archive);
                }
                let list = manifest_list(build, multi.process);
                let folder = unfinished(&archive, multi.process);
                let write = self.engine.cmd().args([
                    "manifest",
                    "push",
                    "--all",
                    "--format",
                    "v2s2",
                    &list,
                    &format!("dir:{folder}"),
                ]);
                ArchiveSteps {
                    steps: vec![
                        self.remove_manifest_list(&list),
                        self.multiarch_step(self.build_manifest_list(build, multi, &list), build),
                        remove_path(&folder),
                        Step::new(write, Output::Quiet),
                    ],
                    cleanup: vec![self.remove_manifest_list(&list), remove_path(&folder)],
                    pack: vec![folder],
                    timestamp: Some(multi.epoch),
                }
            }
        }
    }

    /// buildx cannot write one archive from several nodes (`oci for multi-node builds currently not
    /// supported`). So all nodes first build in parallel into their caches. Then each node writes an archive
    /// of its platform, and these are packed into one.
    fn build_on_nodes(
        &self,
        build: &Build,
        multi: &MultiarchOptions,
        archive: &str,
    ) -> ArchiveSteps {
        let folder = unfinished(archive, multi.process);
        // All nodes would export their cache under the same name, so the last would overwrite the others.
        // The nodes keep their own caches.
        let multi = &MultiarchOptions {
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            ..multi.clone()
        };
        let (mut steps, cmd) = self.buildx(build, multi);
        let cmd = cmd
            .args(["--output", "type=cacheonly"])
            .arg(build.context.as_str());
        steps.push(self.multiarch_step(cmd, build));
        steps.push(remove_path(&folder));
        steps.push(Step::new(
            Cmd::new("mkdir").args(["-p", &folder]),
            Output::Quiet,
        ));
        let mut pack = Vec::new();
        for platform in &build.platforms {
            let part = format!(
                "{folder}/{}.oci.tar",
                platform.to_string().replace('/', "-")
            );
            let mut build = build.clone();
            build.platforms = vec![platform.clone()];
            build.no_cache = false;
            let (_, cmd) = self.buildx(&build, multi);
            let cmd = add_archive_output(cmd, &build, &part);
            let image = format!("the image for {platform}");
            steps.push(Step::new(cmd, Output::Progress).status("Fetching", image));
            pack.push(part);
        }
        ArchiveSteps {
            steps,
            pack,
            timestamp: Some(multi.epoch),
            cleanup: vec![remove_path(&folder)],
        }
    }

    /// Each Podman service builds the image for its platform, and this machine saves it to a file. Unlike
    /// `podman farm build`, this pushes nothing before the image is verified, and the configuration assigns
    /// the platforms to the machines. This machine builds the platforms that no machine is assigned to.
    fn build_on_services(
        &self,
        nodes: &[Node],
        build: &Build,
        multi: &MultiarchOptions,
        archive: &str,
    ) -> ArchiveSteps {
        let folder = unfinished(archive, multi.process);
        let mut result = ArchiveSteps {
            steps: vec![
                remove_path(&folder),
                Step::new(Cmd::new("mkdir").args(["-p", &folder]), Output::Quiet),
            ],
            pack: Vec::new(),
            timestamp: Some(multi.epoch),
            cleanup: vec![remove_path(&folder)],
        };
        for platform in &build.platforms {
            let node = nodes.iter().find(|node| node.platform == *platform);
            let engine = || match node {
                Some(node) => self
                    .engine
                    .cmd()
                    .env("CONTAINER_HOST", EnvValue::Plain(node.endpoint.clone())),
                None => self.engine.cmd(),
            };
            let mut build = build.clone();
            build.platforms = vec![platform.clone()];
            let location = if let Some(node) = node {
                build.tmpdir = None;
                format!("at {}", node.endpoint)
            } else {
                build = self.with_build_platform(&build);
                "on this machine".to_owned()
            };
            let name = platform.to_string().replace('/', "-");
            let image = format!("{}-{name}", manifest_list(&build, multi.process));
            let part = format!("{folder}/{name}.tar");
            let cmd = self
                .podman_build(engine(), &build)
                .args(["--tag", &image])
                .arg(build.context.as_str());
            let what = format!("for {platform} with {} {location}", self.engine.kind);
            result
                .steps
                .push(self.build_step(cmd).status("Building", what));
            let save = ["save", "--format", "docker-archive", "--output", &part];
            let save = engine().args(save).arg(image.as_str());
            let what = format!("the image for {platform}");
            result
                .steps
                .push(Step::new(save, Output::Quiet).status("Fetching", what));
            let remove = engine().args(["image", "rm", &image]);
            result
                .cleanup
                .push(Step::new(remove, Output::Quiet).ignore_failure());
            result.pack.push(part);
        }
        result
    }

    /// Builds for all platforms into the engine's store, under the build's references.
    pub fn build_and_load(&self, build: &Build, multi: &MultiarchOptions) -> Vec<Step> {
        match self.engine.kind {
            EngineKind::Docker => {
                let (mut steps, mut cmd) = self.buildx(build, multi);
                cmd = cmd.arg("--load");
                for reference in &build.references {
                    cmd = cmd.args(["--tag", reference]);
                }
                let step = self.multiarch_step(cmd.arg(build.context.as_str()), build);
                steps.push(step);
                steps
            }
            EngineKind::Podman => {
                let first = build.references.first().map_or("", String::as_str);
                let tag = |name: &String| {
                    Step::new(self.engine.cmd().args(["tag", first, name]), Output::Quiet)
                };
                let mut steps = vec![
                    self.remove_manifest_list(first),
                    // Podman cannot create a list while an image has its name.
                    Step::new(self.engine.cmd().args(["untag", first]), Output::Quiet)
                        .ignore_failure(),
                    self.multiarch_step(self.build_manifest_list(build, multi, first), build),
                ];
                steps.extend(build.references.iter().skip(1).map(tag));
                steps
            }
        }
    }

    /// Writes an image from the engine's store to a file or folder that can be packed.
    pub fn save(&self, reference: &str, archive: &Path, process: u32) -> ArchiveSteps {
        let parts = unfinished(&archive.display().to_string(), process);
        match self.engine.kind {
            EngineKind::Docker => ArchiveSteps {
                steps: vec![Step::new(
                    self.engine
                        .cmd()
                        .args(["save", "--output", &parts, reference]),
                    Output::Quiet,
                )],
                cleanup: vec![remove_path(&parts)],
                pack: vec![parts],
                timestamp: None,
            },
            EngineKind::Podman => ArchiveSteps {
                steps: vec![
                    remove_path(&parts),
                    Step::new(
                        self.engine.cmd().args([
                            "push",
                            "--format",
                            "v2s2",
                            reference,
                            &format!("dir:{parts}"),
                        ]),
                        Output::Quiet,
                    ),
                ],
                cleanup: vec![remove_path(&parts)],
                pack: vec![parts],
                timestamp: None,
            },
        }
    }

    /// The steps that prepare the builder, and `docker buildx build` without the option for its output.
    fn buildx(&self, build: &Build, multi: &MultiarchOptions) -> (Vec<Step>, Cmd) {
        let (create, name) = match &multi.builder {
            Builder::EngineDefault => (Vec::new(), DEFAULT_BUILDER),
            Builder::Existing(name) => (Vec::new(), name.as_str()),
            Builder::Create(create, name) => (vec![create.clone()], name.as_str()),
            Builder::Nodes(nodes) => {
                let name = multi.nodes_builder.as_str();
                (self.create_nodes(name, nodes), name)
            }
        };
        let mut steps = Vec::new();
        if !create.is_empty() {
            // An interrupted run may have left a builder of this name.
            steps.push(self.engine.remove_builder(name));
        }
        steps.extend(create.into_iter().map(|cmd| Step::new(cmd, Output::Quiet)));
        let cmd = self
            .engine
            .cmd()
            .args(["buildx", "build", "--builder", name])
            .env(
                "SOURCE_DATE_EPOCH",
                EnvValue::Plain(multi.epoch.to_string()),
            );
        let mut cmd = self.add_build_options(cmd, build);
        if build.network == "host" && name != DEFAULT_BUILDER {
            cmd = cmd.args(["--allow", "network.host"]);
        }
        (steps, add_cache_options(cmd, multi))
    }

    fn multiarch_step(&self, cmd: Cmd, build: &Build) -> Step {
        let what = format!("for {} with {}", build.platform_list(), self.describe());
        self.build_step(cmd).status("Building", what)
    }

    fn build_manifest_list(&self, build: &Build, multi: &MultiarchOptions, list: &str) -> Cmd {
        let build = &self.with_build_platform(build);
        // Podman appends to an existing list, so an earlier step removes it.
        add_cache_options(self.podman_build(self.engine.cmd(), build), multi)
            .args(["--manifest", list])
            .arg(build.context.as_str())
    }

    /// `podman build` without the option for its output. Packing sets the timestamps, because Podman does
    /// not change those of cached steps.
    fn podman_build(&self, podman: Cmd, build: &Build) -> Cmd {
        // Podman 5.8 reads this variable as an option and would change some of the timestamps.
        let podman = podman.env("SOURCE_DATE_EPOCH", EnvValue::Plain(String::new()));
        self.add_build_options(podman.arg("build"), build)
    }

    fn remove_manifest_list(&self, list: &str) -> Step {
        Step::new(self.engine.remove_manifest_list(list), Output::Quiet).ignore_failure()
    }

    /// The values of `--cache-from` and `--cache-to`; empty if the engine does not support the cache.
    pub fn cache_options(
        &self,
        cache: Cache,
        repository: &str,
        folder: &str,
        scope: Option<&str>,
    ) -> CacheOptions {
        let options = |from: String, to: String| CacheOptions {
            from: vec![from],
            to: vec![to],
        };
        match self.engine.kind {
            EngineKind::Docker => match cache {
                Cache::None => CacheOptions::default(),
                Cache::Local => options(
                    format!("type=local,src={folder}"),
                    format!("type=local,dest={folder},mode=max"),
                ),
                Cache::Registry => options(
                    format!("type=registry,ref={repository}"),
                    format!("type=registry,ref={repository},mode=max"),
                ),
                Cache::GitHub => {
                    let scope = scope.map_or(String::new(), |scope| format!(",scope={scope}"));
                    options(
                        format!("type=gha{scope}"),
                        format!("type=gha{scope},mode=max"),
                    )
                }
            },
            EngineKind::Podman => match cache {
                // Podman accepts a repository without a tag.
                // https://github.com/containers/buildah/issues/4935
                Cache::Registry => options(repository.to_owned(), repository.to_owned()),
                // Podman's image store is its local cache. It cannot use GitHub's cache.
                Cache::None | Cache::Local | Cache::GitHub => CacheOptions::default(),
            },
        }
    }
}

/// Whether an engine's builder can use the cache of GitHub Actions.
pub fn supports_github_cache(kind: EngineKind) -> bool {
    match kind {
        EngineKind::Docker => true,
        EngineKind::Podman => false,
    }
}

/// The builder for `build.nodes`, if Podman can reach services at these addresses.
fn service_nodes(nodes: &[Node]) -> Result<Builder, String> {
    let schemes = ["ssh://", "tcp://", "unix://"];
    let unreachable = |node: &&Node| !schemes.iter().any(|one| node.endpoint.starts_with(one));
    match nodes.iter().find(unreachable) {
        None => Ok(Builder::Nodes(nodes.to_vec())),
        Some(node) => Err(format!(
            "`build.nodes`: Podman cannot reach a service at `{}`; use an `ssh://`, `tcp://` or `unix://` address",
            node.endpoint
        )),
    }
}

/// The values of `--cache-from` and `--cache-to`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheOptions {
    pub from: Vec<String>,
    pub to: Vec<String>,
}

fn add_cache_options(mut cmd: Cmd, multi: &MultiarchOptions) -> Cmd {
    for from in &multi.cache_from {
        cmd = cmd.args(["--cache-from", from]);
    }
    for to in &multi.cache_to {
        cmd = cmd.args(["--cache-to", to]);
    }
    cmd
}

/// Adds the options that write an OCI archive. It has Docker's media types, as the packed archive has, because Podman
/// cannot read the health check of an image that has the OCI's.
/// <https://github.com/containers/podman/issues/18904>
///
/// Packing sets the times of files and compresses, as it does for Podman, so a commit's digest does not depend on how
/// a version of `BuildKit` does this.
/// An archive without `BuildKit`'s own compression would be three times as large, and writing it takes as long.
fn add_archive_output(cmd: Cmd, build: &Build, archive: &str) -> Cmd {
    let output = format!("type=oci,dest={archive},oci-mediatypes=false");
    cmd.args(["--output", &output]).arg(build.context.as_str())
}

fn remove_path(folder: &str) -> Step {
    Step::new(Cmd::new("rm").args(["-rf", folder]), Output::Quiet)
}

/// The name of an unfinished file or folder. It contains the process's id, so that two runs for one archive do not
/// write to the same file. If a run is killed, the next one finds what it left by this ending.
fn unfinished(archive: &str, process: u32) -> String {
    format!("{archive}.{process}.parts")
}

/// The temporary manifest list of a process. Its tag begins with that of the build's first reference.
fn manifest_list(build: &Build, process: u32) -> String {
    let first = build.references.first().map_or("", String::as_str);
    let tag = first.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    // A tag can have 128 characters.
    let tag: String = tag.chars().take(100).collect();
    format!("{MANIFEST_LIST}:{tag}-{process}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{base::image::Platform, engine::Location, settings::Progress};

    #[test]
    fn builders_are_named_after_their_project() {
        let names = |repository: &str| BuilderNames::of(&Repository::parse(repository).unwrap());
        let ours = names("ghcr.io/stigmer/agent-runner");
        assert_eq!(ours.multi_platform, "agent-runner-xtask");
        assert_eq!(ours.nodes, "agent-runner-xtask-nodes");
        assert_eq!(names("ghcr.io/x/3d").multi_platform, "p3d-xtask");
    }

    #[test]
    fn each_node_writes_an_archive_of_its_platform() {
        let docker = EngineFacts {
            engine: Engine {
                kind: EngineKind::Docker,
                program: "docker".to_owned(),
            },
            version: "28.5.2".to_owned(),
            platform: Platform::linux("amd64"),
            rootless: false,
            location: Location::Host,
        };
        let nodes = ["linux/amd64=tcp://a:1", "linux/arm64=tcp://b:1"]
            .map(|node| Node::try_from(node.to_owned()).unwrap());
        let multi = MultiarchOptions {
            builder: Builder::Nodes(nodes.to_vec()),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            epoch: 7,
            process: 42,
            nodes_builder: "agent-runner-xtask-nodes".to_owned(),
        };
        let build = Build {
            dockerfile: "/src/Dockerfile".to_owned(),
            dockerfile_text: None,
            ignore_file_for_podman: None,
            context: "/src".to_owned(),
            target: String::new(),
            platforms: ["amd64", "arm64"].map(Platform::linux).to_vec(),
            args: BTreeMap::new(),
            secrets: Vec::new(),
            labels: BTreeMap::new(),
            references: Vec::new(),
            network: "default".to_owned(),
            pull: false,
            no_cache: false,
            replaced_stage: None,
            progress: Progress::Plain,
            tmpdir: None,
        };
        let archive = docker.build_archive(&build, &multi, Path::new("/x.oci.tar"));
        let parts =
            ["amd64", "arm64"].map(|arch| format!("/x.oci.tar.42.parts/linux-{arch}.oci.tar"));
        assert_eq!(archive.pack, parts);
        let builds: Vec<_> = archive
            .steps
            .iter()
            .map(|step| step.cmd.render())
            .filter(|line| line.contains(" buildx build "))
            .collect();
        let (together, builds) = builds.split_first().unwrap();
        assert!(
            together.contains(" --platform linux/amd64,linux/arm64 ")
                && together.contains(" --output type=cacheonly "),
            "{together}"
        );
        for ((line, part), platform) in builds.iter().zip(&parts).zip(&build.platforms) {
            assert!(line.contains(&format!(" --platform {platform} ")), "{line}");
            assert!(line.contains(&format!("type=oci,dest={part},")), "{line}");
        }
        assert_eq!(builds.len(), 2);
    }
}
