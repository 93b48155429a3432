//! Builds for several platforms.

use std::path::Path;

use crate::{
    base::engine_kind::EngineKind,
    engine::{
        Engine, EngineFacts,
        build::Build,
        capabilities::{Capability, Store},
    },
    exec::Finished,
    plan::{Cmd, EnvValue, Output, Step},
    settings::{BuildSettings, BuilderChoice, BuilderDriver, Cache, Node, Provenance, Sbom},
};

/// The builder that xtask creates if Docker's own cannot build several platforms, and the one for
/// `build.nodes`.
const OUR_BUILDER: &str = "agent-runner-xtask";
const OUR_NODES: &str = "agent-runner-xtask-nodes";
/// Docker's own builder.
const ENGINES_OWN: &str = "default";
/// The name of Podman's manifest list until it is written to a folder.
const LIST: &str = "localhost/agent-runner-xtask-release";

/// What is known of the engine's builders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuilderFacts {
    pub store: Store,
    /// Whether the builder that xtask creates exists.
    pub ours_exists: bool,
}

/// The builder to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Builder {
    /// The engine's own.
    Own,
    /// An existing one.
    Named(String),
    /// The one that xtask creates first, with this command and name.
    Create(Cmd, String),
    /// Machines, each for one platform.
    Nodes(Vec<Node>),
}

/// The options of a build for several platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiBuild {
    pub builder: Builder,
    pub provenance: Provenance,
    pub sbom: Sbom,
    pub cache_from: Vec<String>,
    pub cache_to: Vec<String>,
    /// The time of every file and every build step, in seconds since 1970.
    pub epoch: u64,
}

/// The steps that write an archive, or files to pack into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveSteps {
    pub steps: Vec<Step>,
    /// The files the steps produce, if they still have to be packed into an archive.
    pub pack: Vec<String>,
    /// The time that packing gives to files and build steps; none if they have it already.
    pub timestamp: Option<u64>,
    /// The steps that remove temporary files and images.
    pub cleanup: Vec<Step>,
}

impl Engine {
    /// The builders that xtask creates, each with the question whether it exists.
    pub fn our_builders(&self) -> Vec<(&'static str, Cmd)> {
        let question = |name| (name, self.cmd().args(["buildx", "inspect", name]));
        match self.kind {
            EngineKind::Docker => vec![question(OUR_BUILDER), question(OUR_NODES)],
            EngineKind::Podman => Vec::new(),
        }
    }

    /// Removes one of them with its cache. It may be missing.
    pub fn remove_builder(&self, name: &str) -> Step {
        let cmd = self.cmd().args(["buildx", "rm", "--force", name]);
        Step::new(cmd, Output::Quiet).or_go_on()
    }
}

impl EngineFacts {
    /// Asks which image store the engine has, if there are two kinds.
    pub fn store_question(&self) -> Option<Cmd> {
        match self.engine.kind {
            EngineKind::Docker => Some(self.engine.cmd().args([
                "info",
                "--format",
                "{{.Driver}} {{json .DriverStatus}}",
            ])),
            EngineKind::Podman => None,
        }
    }

    /// Reads the answer to [`Self::store_question`]. <https://docs.docker.com/engine/storage/containerd/>
    pub fn read_store(&self, answer: Option<&Finished>) -> Store {
        let snapshotter = "io.containerd.snapshotter";
        let containerd = if answer.is_some_and(|said| said.stdout.contains(snapshotter)) {
            Store::SeveralPlatforms
        } else {
            Store::OnePlatform
        };
        if self.can_with(Capability::SeveralPlatforms, containerd) {
            Store::SeveralPlatforms
        } else {
            Store::OnePlatform
        }
    }

    /// Chooses the builder.
    ///
    /// # Errors
    /// When the engine has no builder as configured: a whole sentence.
    pub fn choose_builder(
        &self,
        settings: &BuildSettings,
        facts: BuilderFacts,
        config: Option<&str>,
    ) -> Result<Builder, String> {
        let kind = self.engine.kind;
        if !self.can(Capability::Builders) {
            return match &settings.builder {
                BuilderChoice::Auto if !settings.nodes.is_empty() => podman_nodes(&settings.nodes),
                BuilderChoice::Auto => Ok(Builder::Own),
                BuilderChoice::Named(name) if name.starts_with("farm:") => Err(format!(
                    "`build.builder = \"{name}\"`: `podman farm build` pushes the image before it \
                     can be verified; name the farm's machines in `build.nodes` instead, as \
                     `linux/arm64=ssh://…` (`podman system connection list` shows their addresses)"
                )),
                BuilderChoice::Named(name) => Err(format!(
                    "{kind} has no builders, so it cannot use `build.builder = \"{name}\"`"
                )),
            };
        }
        Ok(match &settings.builder {
            BuilderChoice::Named(name) => Builder::Named(name.clone()),
            BuilderChoice::Auto if !settings.nodes.is_empty() => {
                Builder::Nodes(settings.nodes.clone())
            }
            BuilderChoice::Auto
                if facts.store == Store::SeveralPlatforms
                    && settings.builder_driver == BuilderDriver::DockerContainer =>
            {
                Builder::Own
            }
            BuilderChoice::Auto if facts.ours_exists => Builder::Named(OUR_BUILDER.to_owned()),
            BuilderChoice::Auto => {
                let create = self.create_builder(settings, config);
                Builder::Create(create, OUR_BUILDER.to_owned())
            }
        })
    }

    fn create_builder(&self, settings: &BuildSettings, config: Option<&str>) -> Cmd {
        let mut cmd = self.engine.cmd().args([
            "buildx",
            "create",
            "--name",
            OUR_BUILDER,
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

    /// Creates a builder that is a list of existing daemons. It is created anew for each build.
    fn create_nodes(&self, nodes: &[Node]) -> Vec<Cmd> {
        let add = |(number, node): (usize, &Node)| {
            let mut cmd = self
                .engine
                .cmd()
                .args(["buildx", "create", "--name", OUR_NODES]);
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
    pub fn build_archive(&self, build: &Build, multi: &MultiBuild, archive: &Path) -> ArchiveSteps {
        let text = archive.display().to_string();
        if let (EngineKind::Podman, Builder::Nodes(nodes)) = (self.engine.kind, &multi.builder) {
            return self.build_on_services(nodes, build, multi, &text);
        }
        match self.engine.kind {
            EngineKind::Docker => {
                if matches!(multi.builder, Builder::Nodes(_)) && build.platforms.len() > 1 {
                    return self.build_on_nodes(build, multi, &text);
                }
                // An interrupted BuildKit leaves a part of the archive, so it gets its name only when it is
                // complete.
                let partial = format!("{text}.partial");
                let (mut steps, cmd) = self.buildx(build, multi);
                let cmd = to_file(cmd, build, multi, &partial);
                steps.push(self.build_step(cmd, build));
                let rename = Cmd::new("mv").args(["-f", &partial, &text]);
                steps.push(Step::new(rename, Output::Quiet));
                ArchiveSteps {
                    steps,
                    pack: Vec::new(),
                    timestamp: None,
                    cleanup: vec![remove_folder(&partial)],
                }
            }
            EngineKind::Podman => {
                let list = format!("{LIST}:{}", list_tag(&build.references));
                let folder = format!("{text}.parts");
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
                        self.remove_list(&list),
                        self.build_step(self.build_list(build, multi, &list), build),
                        remove_folder(&folder),
                        Step::new(write, Output::Quiet),
                    ],
                    cleanup: vec![self.remove_list(&list), remove_folder(&folder)],
                    pack: vec![folder],
                    timestamp: Some(multi.epoch),
                }
            }
        }
    }

    /// buildx cannot write one archive of what several nodes built (`oci for multi-node builds currently
    /// not supported`). So all nodes build side by side into their caches. Then each writes an archive
    /// of its own platform, and these are packed into one.
    fn build_on_nodes(&self, build: &Build, multi: &MultiBuild, archive: &str) -> ArchiveSteps {
        let folder = format!("{archive}.parts");
        // Each node has a cache of its own. Under one name, the last would overwrite the others'.
        let multi = &MultiBuild {
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            ..multi.clone()
        };
        let (mut steps, cmd) = self.buildx(build, multi);
        let cmd = cmd
            .args(["--output", "type=cacheonly"])
            .arg(build.context.as_str());
        steps.push(self.build_step(cmd, build));
        steps.push(remove_folder(&folder));
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
            let cmd = to_file(cmd, &build, multi, &part);
            let say = format!("what was built for {platform}");
            steps.push(Step::new(cmd, Output::Talk).say("Fetching", say));
            pack.push(part);
        }
        ArchiveSteps {
            steps,
            pack,
            timestamp: None,
            cleanup: vec![remove_folder(&folder)],
        }
    }

    /// Each Podman service builds its platform, and the result is saved here. Unlike `podman farm build`,
    /// this pushes nothing before it is verified, and the configuration says which platform a machine
    /// builds. A platform without a machine is built here.
    fn build_on_services(
        &self,
        nodes: &[Node],
        build: &Build,
        multi: &MultiBuild,
        archive: &str,
    ) -> ArchiveSteps {
        let folder = format!("{archive}.parts");
        let mut made = ArchiveSteps {
            steps: vec![
                remove_folder(&folder),
                Step::new(Cmd::new("mkdir").args(["-p", &folder]), Output::Quiet),
            ],
            pack: Vec::new(),
            timestamp: Some(multi.epoch),
            cleanup: vec![remove_folder(&folder)],
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
            let mut place = "here".to_owned();
            match node {
                Some(node) => {
                    place = format!("at {}", node.endpoint);
                    build.tmpdir = None;
                }
                None => build = self.with_build_platform(&build),
            }
            let name = platform.to_string().replace('/', "-");
            let image = format!("{LIST}:{}-{name}", list_tag(&build.references));
            let part = format!("{folder}/{name}.tar");
            let cmd = self
                .podman_build(engine(), &build)
                .args(["--tag", &image])
                .arg(build.context.as_str());
            let what = format!("for {platform} with {} {place}", self.engine.kind);
            made.steps
                .push(Step::new(cmd, Output::Talk).say("Building", what));
            let save = ["save", "--format", "docker-archive", "--output", &part];
            let save = engine().args(save).arg(image.as_str());
            let what = format!("what was built for {platform}");
            made.steps
                .push(Step::new(save, Output::Quiet).say("Fetching", what));
            let remove = engine().args(["image", "rm", &image]);
            made.cleanup
                .push(Step::new(remove, Output::Quiet).or_go_on());
            made.pack.push(part);
        }
        made
    }

    /// Builds for all platforms into the engine's store, under the build's references.
    pub fn build_and_load(&self, build: &Build, multi: &MultiBuild) -> Vec<Step> {
        match self.engine.kind {
            EngineKind::Docker => {
                let (mut steps, mut cmd) = self.buildx(build, multi);
                cmd = cmd.arg("--load");
                for reference in &build.references {
                    cmd = cmd.args(["--tag", reference]);
                }
                let step = self.build_step(cmd.arg(build.context.as_str()), build);
                steps.push(step);
                steps
            }
            EngineKind::Podman => {
                let first = build.references.first().map_or("", String::as_str);
                let tag = |name: &String| {
                    Step::new(self.engine.cmd().args(["tag", first, name]), Output::Quiet)
                };
                let mut steps = vec![
                    self.remove_list(first),
                    // An image of that name would otherwise stand in the list's way.
                    Step::new(self.engine.cmd().args(["untag", first]), Output::Quiet).or_go_on(),
                    self.build_step(self.build_list(build, multi, first), build),
                ];
                steps.extend(build.references.iter().skip(1).map(tag));
                steps
            }
        }
    }

    /// Writes an image of the engine's store to a file or folder that can be packed.
    pub fn save(&self, reference: &str, archive: &Path) -> ArchiveSteps {
        let parts = format!("{}.parts", archive.display());
        match self.engine.kind {
            EngineKind::Docker => ArchiveSteps {
                steps: vec![Step::new(
                    self.engine
                        .cmd()
                        .args(["save", "--output", &parts, reference]),
                    Output::Quiet,
                )],
                cleanup: vec![remove_folder(&parts)],
                pack: vec![parts],
                timestamp: None,
            },
            EngineKind::Podman => ArchiveSteps {
                steps: vec![
                    remove_folder(&parts),
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
                cleanup: vec![remove_folder(&parts)],
                pack: vec![parts],
                timestamp: None,
            },
        }
    }

    /// `docker buildx build` without its output, and the steps before it.
    fn buildx(&self, build: &Build, multi: &MultiBuild) -> (Vec<Step>, Cmd) {
        let (create, name) = match &multi.builder {
            Builder::Own => (Vec::new(), ENGINES_OWN),
            Builder::Named(name) => (Vec::new(), name.as_str()),
            Builder::Create(create, name) => (vec![create.clone()], name.as_str()),
            Builder::Nodes(nodes) => (self.create_nodes(nodes), OUR_NODES),
        };
        let mut steps = Vec::new();
        if !create.is_empty() {
            // An interrupted run may have left one.
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
        let mut cmd = self.add_build(cmd, build);
        if build.network == "host" && name != ENGINES_OWN {
            cmd = cmd.args(["--allow", "network.host"]);
        }
        cmd = cmd.arg(match multi.provenance {
            Provenance::Off => "--provenance=false",
            Provenance::Min => "--provenance=mode=min",
            Provenance::Max => "--provenance=mode=max",
        });
        match &multi.sbom {
            Sbom::Off => {}
            Sbom::On => cmd = cmd.arg("--sbom=true"),
            Sbom::Generator(image) => cmd = cmd.arg(format!("--sbom=generator={image}")),
        }
        (steps, add_cache(cmd, multi))
    }

    fn build_step(&self, cmd: Cmd, build: &Build) -> Step {
        let what = format!("for {} with {}", build.platform_list(), self.describe());
        Step::new(cmd, Output::Talk).say("Building", what)
    }

    fn build_list(&self, build: &Build, multi: &MultiBuild, list: &str) -> Cmd {
        let build = &self.with_build_platform(build);
        // Podman appends to an existing list of that name, so the steps before remove it.
        add_cache(self.podman_build(self.engine.cmd(), build), multi)
            .args(["--manifest", list])
            .arg(build.context.as_str())
    }

    /// `podman build` without its output. Packing sets the times, because Podman does not change those of
    /// cached steps.
    fn podman_build(&self, podman: Cmd, build: &Build) -> Cmd {
        // Podman 5.8 takes the variable as an option, which would change some of the times.
        let podman = podman.env("SOURCE_DATE_EPOCH", EnvValue::Plain(String::new()));
        self.add_build(podman.arg("build"), build)
    }

    fn remove_list(&self, list: &str) -> Step {
        Step::new(
            self.engine.cmd().args(["manifest", "rm", list]),
            Output::Quiet,
        )
        .or_go_on()
    }

    /// The engine's options for a cache.
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
        match (self.engine.kind, cache) {
            (_, Cache::None) => CacheOptions::default(),
            (EngineKind::Docker, Cache::Local) => options(
                format!("type=local,src={folder}"),
                format!("type=local,dest={folder},mode=max"),
            ),
            (EngineKind::Docker, Cache::Registry) => options(
                format!("type=registry,ref={repository}"),
                format!("type=registry,ref={repository},mode=max"),
            ),
            (EngineKind::Docker, Cache::GitHub) => {
                let scope = scope.map_or(String::new(), |scope| format!(",scope={scope}"));
                options(
                    format!("type=gha{scope}"),
                    format!("type=gha{scope},mode=max"),
                )
            }
            // A bare repository, without a tag. https://github.com/containers/buildah/issues/4935
            (EngineKind::Podman, Cache::Registry) => {
                options(repository.to_owned(), repository.to_owned())
            }
            // Podman's own store is its local cache, and it cannot use GitHub's.
            (EngineKind::Podman, Cache::Local | Cache::GitHub) => CacheOptions::default(),
        }
    }
}

/// The nodes, if Podman can reach services at their addresses.
fn podman_nodes(nodes: &[Node]) -> Result<Builder, String> {
    let schemes = ["ssh://", "tcp://", "unix://"];
    let unreachable = |node: &&Node| !schemes.iter().any(|one| node.endpoint.starts_with(one));
    match nodes.iter().find(unreachable) {
        None => Ok(Builder::Nodes(nodes.to_vec())),
        Some(node) => Err(format!(
            "`build.nodes`: Podman cannot reach a service at `{}`, only at ssh://, tcp:// and unix:// addresses",
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

fn add_cache(mut cmd: Cmd, multi: &MultiBuild) -> Cmd {
    for from in &multi.cache_from {
        cmd = cmd.args(["--cache-from", from]);
    }
    for to in &multi.cache_to {
        cmd = cmd.args(["--cache-to", to]);
    }
    cmd
}

/// Makes the build write an OCI archive.
fn to_file(cmd: Cmd, build: &Build, multi: &MultiBuild, archive: &str) -> Cmd {
    let mut output = format!("type=oci,dest={archive},rewrite-timestamp=true");
    if multi.provenance == Provenance::Off && multi.sbom == Sbom::Off {
        // Podman sees no health check in images with OCI media types, but attestations need those.
        output.push_str(",oci-mediatypes=false");
    }
    cmd.args(["--output", &output]).arg(build.context.as_str())
}

fn remove_folder(folder: &str) -> Step {
    Step::new(Cmd::new("rm").args(["-rf", folder]), Output::Quiet)
}

/// The tag of the first reference, so that each version has a list of its own.
fn list_tag(references: &[String]) -> String {
    let first = references.first().map_or("", String::as_str);
    first
        .rsplit_once(':')
        .map_or("latest", |(_, tag)| tag)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{base::image::Platform, engine::Place, settings::Progress};

    #[test]
    fn each_node_writes_an_archive_of_its_own() {
        let docker = EngineFacts {
            engine: Engine {
                kind: EngineKind::Docker,
                program: "docker".to_owned(),
            },
            version: "28.5.2".to_owned(),
            platform: Platform::linux("amd64"),
            rootless: false,
            place: Place::Here,
        };
        let nodes = ["linux/amd64=tcp://a:1", "linux/arm64=tcp://b:1"]
            .map(|node| Node::try_from(node.to_owned()).unwrap());
        let multi = MultiBuild {
            builder: Builder::Nodes(nodes.to_vec()),
            provenance: Provenance::Off,
            sbom: Sbom::Off,
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            epoch: 7,
        };
        let build = Build {
            dockerfile: "/src/Dockerfile".to_owned(),
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
            progress: Progress::Plain,
            tmpdir: None,
        };
        let made = docker.build_archive(&build, &multi, Path::new("/x.oci.tar"));
        let parts = ["amd64", "arm64"].map(|arch| format!("/x.oci.tar.parts/linux-{arch}.oci.tar"));
        assert_eq!(made.pack, parts);
        let builds: Vec<_> = made
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
