//! Images for several platforms, written to a file: what each engine takes for it.

use std::path::Path;

use super::{Engine, EngineFacts, Kind, build::Build, capabilities::Capability};
use crate::{
    config::schema::Node,
    exec::Finished,
    plan::{Cmd, EnvValue, Output, Step},
    settings::{BuilderChoice, BuilderSettings, Cache, Provenance, Sbom},
};

/// The builder that we make where Docker's own cannot do it, and the one for `build.nodes`.
const OUR_BUILDER: &str = "agent-runner-xtask";
const OUR_NODES: &str = "agent-runner-xtask-nodes";
/// Docker's own builder.
const ENGINES_OWN: &str = "default";
/// Below this name Podman keeps the list of images while it is written out.
const LIST: &str = "localhost/agent-runner-xtask-release";

/// Whether the engine's store holds an image for several platforms under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    SeveralPlatforms,
    OnePlatform,
}

/// What is known of builders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuilderFacts {
    pub store: Store,
    /// Whether our own builder is there already.
    pub ours_is_there: bool,
}

/// The builder to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Builder {
    /// The engine's own.
    Own,
    /// One that is there, by its name.
    Named(String),
    /// Ours, made first.
    Make(Cmd, String),
    /// Machines, each for its platform.
    Nodes(Vec<Node>),
}

/// What is wanted beside what every build takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub builder: Builder,
    pub provenance: Provenance,
    pub sbom: Sbom,
    pub cache_from: Vec<String>,
    pub cache_to: Vec<String>,
    /// Every file's and every step's time, in seconds since 1970.
    pub epoch: u64,
}

/// What writes the archive, and what the archive is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToArchive {
    pub steps: Vec<Step>,
    /// What the steps leave, if that is not the archive itself.
    pub pack: Vec<String>,
    /// The time that packing gives to files and steps, if the steps above don't.
    pub timestamp: Option<u64>,
    /// What takes away what is left over.
    pub after: Vec<Step>,
}

impl Engine {
    /// The builders that we make, each with the question whether it is there.
    pub fn our_builders(&self) -> Vec<(&'static str, Cmd)> {
        let question = |name| (name, self.cmd().args(["buildx", "inspect", name]));
        match self.kind {
            Kind::Docker => vec![question(OUR_BUILDER), question(OUR_NODES)],
            Kind::Podman => Vec::new(),
        }
    }

    /// Removes one of them, with its cache; it may be missing.
    pub fn remove_builder(&self, name: &str) -> Step {
        let cmd = self.cmd().args(["buildx", "rm", "--force", name]);
        Step::new(cmd, Output::Quiet).or_go_on()
    }
}

impl EngineFacts {
    /// Asks of the image store, where it can be of two kinds.
    pub fn store_question(&self) -> Option<Cmd> {
        match self.engine.kind {
            Kind::Docker => Some(self.engine.cmd().args([
                "info",
                "--format",
                "{{.Driver}} {{json .DriverStatus}}",
            ])),
            Kind::Podman => None,
        }
    }

    /// Reads the answer. <https://docs.docker.com/engine/storage/containerd/>
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

    /// The builder that the settings want and the engine has.
    ///
    /// # Errors
    /// When the engine has nothing of the kind; why, as a whole sentence.
    pub fn choose_builder(
        &self,
        settings: &BuilderSettings,
        facts: BuilderFacts,
        config: Option<&str>,
        network: &str,
    ) -> Result<Builder, String> {
        let kind = self.engine.kind;
        if !self.can(Capability::Builders) {
            return match &settings.choice {
                BuilderChoice::Auto if !settings.nodes.is_empty() => podman_nodes(&settings.nodes),
                BuilderChoice::Auto => Ok(Builder::Own),
                BuilderChoice::Named(name) if name.starts_with("farm:") => Err(format!(
                    "`build.builder = \"{name}\"`: `podman farm build` pushes before anybody has looked at \
                     the image; name the farm's machines in `build.nodes` instead, as \
                     `linux/arm64=ssh://…` (`podman system connection list` shows their addresses)"
                )),
                BuilderChoice::Named(name) => Err(format!(
                    "{kind} has no builders, so `build.builder = \"{name}\"` means nothing to it"
                )),
            };
        }
        Ok(match &settings.choice {
            BuilderChoice::Named(name) => Builder::Named(name.clone()),
            BuilderChoice::Auto if !settings.nodes.is_empty() => {
                Builder::Nodes(settings.nodes.clone())
            }
            BuilderChoice::Auto
                if facts.store == Store::SeveralPlatforms
                    && settings.driver == "docker-container" =>
            {
                Builder::Own
            }
            BuilderChoice::Auto if facts.ours_is_there => Builder::Named(OUR_BUILDER.to_owned()),
            BuilderChoice::Auto => {
                let make = self.make_builder(settings, config, network);
                Builder::Make(make, OUR_BUILDER.to_owned())
            }
        })
    }

    fn make_builder(&self, settings: &BuilderSettings, config: Option<&str>, network: &str) -> Cmd {
        let mut cmd = self.engine.cmd().args([
            "buildx",
            "create",
            "--name",
            OUR_BUILDER,
            "--driver",
            &settings.driver,
        ]);
        for opt in &settings.opts {
            cmd = cmd.args(["--driver-opt", opt]);
        }
        if network == "host" {
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

    /// The nodes are somebody's own daemons: ours is only the list of them, made anew each time.
    fn make_nodes(&self, nodes: &[Node]) -> Vec<Cmd> {
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
    pub fn build_archive(&self, build: &Build, release: &Release, archive: &Path) -> ToArchive {
        let text = archive.display().to_string();
        if let (Kind::Podman, Builder::Nodes(nodes)) = (self.engine.kind, &release.builder) {
            return self.build_on_services(nodes, build, release, &text);
        }
        match self.engine.kind {
            Kind::Docker => {
                if matches!(release.builder, Builder::Nodes(_)) && build.platforms.len() > 1 {
                    return self.build_on_nodes(build, release, &text);
                }
                // It gets its name when it is whole: BuildKit leaves what it had written so far.
                let partial = format!("{text}.partial");
                let (mut steps, cmd) = self.buildx(build, release);
                let cmd = to_file(cmd, build, release, &partial);
                steps.push(self.build_step(cmd, build));
                let rename = Cmd::new("mv").args(["-f", &partial, &text]);
                steps.push(Step::new(rename, Output::Quiet));
                ToArchive {
                    steps,
                    pack: Vec::new(),
                    timestamp: None,
                    after: vec![remove_folder(&partial)],
                }
            }
            Kind::Podman => {
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
                ToArchive {
                    steps: vec![
                        self.remove_list(&list),
                        self.build_step(self.build_list(build, release, &list), build),
                        remove_folder(&folder),
                        Step::new(write, Output::Quiet),
                    ],
                    after: vec![self.remove_list(&list), remove_folder(&folder)],
                    pack: vec![folder],
                    timestamp: Some(release.epoch),
                }
            }
        }
    }

    /// buildx writes no archive of what several nodes built (`oci for multi-node builds currently
    /// not supported`). So all nodes build side by side into their caches, and then each writes an
    /// archive of its own platform, to be packed.
    fn build_on_nodes(&self, build: &Build, release: &Release, archive: &str) -> ToArchive {
        let folder = format!("{archive}.parts");
        // Each keeps its own cache; one name for all would hold the last one's only.
        let release = &Release {
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            ..release.clone()
        };
        let (mut steps, cmd) = self.buildx(build, release);
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
            let (_, cmd) = self.buildx(&build, release);
            let cmd = to_file(cmd, &build, release, &part);
            let say = format!("what was built for {platform}");
            steps.push(Step::new(cmd, Output::Talk).say("Fetching", say));
            pack.push(part);
        }
        ToArchive {
            steps,
            pack,
            timestamp: None,
            after: vec![remove_folder(&folder)],
        }
    }

    /// Podman's services, each builds for its platform and hands over what it built. Unlike
    /// `podman farm build`, nothing is pushed before it was looked at, and what a machine builds for
    /// is said, not taken from what it is. A platform without a machine is built here.
    fn build_on_services(
        &self,
        nodes: &[Node],
        build: &Build,
        release: &Release,
        archive: &str,
    ) -> ToArchive {
        let folder = format!("{archive}.parts");
        let mut made = ToArchive {
            steps: vec![
                remove_folder(&folder),
                Step::new(Cmd::new("mkdir").args(["-p", &folder]), Output::Quiet),
            ],
            pack: Vec::new(),
            timestamp: Some(release.epoch),
            after: vec![remove_folder(&folder)],
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
            made.after.push(Step::new(remove, Output::Quiet).or_go_on());
            made.pack.push(part);
        }
        made
    }

    /// Builds for all platforms into the engine's store, under the build's references.
    pub fn build_and_load(&self, build: &Build, release: &Release) -> Vec<Step> {
        match self.engine.kind {
            Kind::Docker => {
                let (mut steps, mut cmd) = self.buildx(build, release);
                cmd = cmd.arg("--load");
                for reference in &build.references {
                    cmd = cmd.args(["--tag", reference]);
                }
                let step = self.build_step(cmd.arg(build.context.as_str()), build);
                steps.push(step);
                steps
            }
            Kind::Podman => {
                let first = build.references.first().map_or("", String::as_str);
                let tag = |name: &String| {
                    Step::new(self.engine.cmd().args(["tag", first, name]), Output::Quiet)
                };
                let mut steps = vec![
                    self.remove_list(first),
                    // An image of that name would otherwise stand in the list's way.
                    Step::new(self.engine.cmd().args(["untag", first]), Output::Quiet).or_go_on(),
                    self.build_step(self.build_list(build, release, first), build),
                ];
                steps.extend(build.references.iter().skip(1).map(tag));
                steps
            }
        }
    }

    /// Writes an image of the engine's store to a file or folder that can be packed.
    pub fn save(&self, reference: &str, archive: &Path) -> ToArchive {
        let parts = format!("{}.parts", archive.display());
        match self.engine.kind {
            Kind::Docker => ToArchive {
                steps: vec![Step::new(
                    self.engine
                        .cmd()
                        .args(["save", "--output", &parts, reference]),
                    Output::Quiet,
                )],
                after: vec![remove_folder(&parts)],
                pack: vec![parts],
                timestamp: None,
            },
            Kind::Podman => ToArchive {
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
                after: vec![remove_folder(&parts)],
                pack: vec![parts],
                timestamp: None,
            },
        }
    }

    /// `docker buildx build` up to its output, and what comes before it.
    fn buildx(&self, build: &Build, release: &Release) -> (Vec<Step>, Cmd) {
        let (make, name) = match &release.builder {
            Builder::Own => (Vec::new(), ENGINES_OWN),
            Builder::Named(name) => (Vec::new(), name.as_str()),
            Builder::Make(make, name) => (vec![make.clone()], name.as_str()),
            Builder::Nodes(nodes) => (self.make_nodes(nodes), OUR_NODES),
        };
        let mut steps = Vec::new();
        if !make.is_empty() {
            // What a run that was interrupted may have left.
            steps.push(self.engine.remove_builder(name));
        }
        steps.extend(make.into_iter().map(|cmd| Step::new(cmd, Output::Quiet)));
        let cmd = self
            .engine
            .cmd()
            .args(["buildx", "build", "--builder", name])
            .env(
                "SOURCE_DATE_EPOCH",
                EnvValue::Plain(release.epoch.to_string()),
            );
        let mut cmd = self.add_build(cmd, build);
        if build.network == "host" && name != ENGINES_OWN {
            cmd = cmd.args(["--allow", "network.host"]);
        }
        cmd = cmd.arg(match release.provenance {
            Provenance::Off => "--provenance=false",
            Provenance::Min => "--provenance=mode=min",
            Provenance::Max => "--provenance=mode=max",
        });
        match &release.sbom {
            Sbom::Off => {}
            Sbom::On => cmd = cmd.arg("--sbom=true"),
            Sbom::Generator(image) => cmd = cmd.arg(format!("--sbom=generator={image}")),
        }
        (steps, add_cache(cmd, release))
    }

    fn build_step(&self, cmd: Cmd, build: &Build) -> Step {
        let what = format!("for {} with {}", build.platform_words(), self.describe());
        Step::new(cmd, Output::Talk).say("Building", what)
    }

    fn build_list(&self, build: &Build, release: &Release, list: &str) -> Cmd {
        let build = &self.with_build_platform(build);
        // It appends to a list of that name, hence the list was removed before.
        add_cache(self.podman_build(self.engine.cmd(), build), release)
            .args(["--manifest", list])
            .arg(build.context.as_str())
    }

    /// `podman build` up to its output. Packing sets the times: of the steps that come from the cache
    /// Podman leaves them as they are.
    fn podman_build(&self, podman: Cmd, build: &Build) -> Cmd {
        // Podman 5.8 reads it as an option, by which some times would be other ones already.
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

    /// How a cache is named to the engine: where it is read from and where it is written to.
    pub fn cache_words(
        &self,
        cache: Cache,
        repository: &str,
        folder: &str,
        scope: Option<&str>,
    ) -> CacheWords {
        let words = |from: String, to: String| CacheWords {
            from: vec![from],
            to: vec![to],
        };
        match (self.engine.kind, cache) {
            (_, Cache::None) => CacheWords::default(),
            (Kind::Docker, Cache::Local) => words(
                format!("type=local,src={folder}"),
                format!("type=local,dest={folder},mode=max"),
            ),
            (Kind::Docker, Cache::Registry) => words(
                format!("type=registry,ref={repository}"),
                format!("type=registry,ref={repository},mode=max"),
            ),
            (Kind::Docker, Cache::GitHub) => {
                let scope = scope.map_or(String::new(), |scope| format!(",scope={scope}"));
                words(
                    format!("type=gha{scope}"),
                    format!("type=gha{scope},mode=max"),
                )
            }
            // A bare repository, without a tag. https://github.com/containers/buildah/issues/4935
            (Kind::Podman, Cache::Registry) => words(repository.to_owned(), repository.to_owned()),
            // Its own store is the local cache, and GitHub's it does not know.
            (Kind::Podman, Cache::Local | Cache::GitHub) => CacheWords::default(),
        }
    }
}

/// Podman's services at the nodes' addresses.
fn podman_nodes(nodes: &[Node]) -> Result<Builder, String> {
    let understood = ["ssh://", "tcp://", "unix://"];
    let reached = |node: &&Node| !understood.iter().any(|one| node.endpoint.starts_with(one));
    match nodes.iter().find(reached) {
        None => Ok(Builder::Nodes(nodes.to_vec())),
        Some(node) => Err(format!(
            "`build.nodes`: Podman reaches no service at `{}`, only at ssh://, tcp:// and unix:// addresses",
            node.endpoint
        )),
    }
}

/// What `--cache-from` and `--cache-to` take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheWords {
    pub from: Vec<String>,
    pub to: Vec<String>,
}

fn add_cache(mut cmd: Cmd, release: &Release) -> Cmd {
    for from in &release.cache_from {
        cmd = cmd.args(["--cache-from", from]);
    }
    for to in &release.cache_to {
        cmd = cmd.args(["--cache-to", to]);
    }
    cmd
}

/// Writes what is built to an OCI archive.
fn to_file(cmd: Cmd, build: &Build, release: &Release, archive: &str) -> Cmd {
    let mut output = format!("type=oci,dest={archive},rewrite-timestamp=true");
    if release.provenance == Provenance::Off && release.sbom == Sbom::Off {
        // In OCI's own words Podman sees no health check; attestations need them.
        output.push_str(",oci-mediatypes=false");
    }
    cmd.args(["--output", &output]).arg(build.context.as_str())
}

fn remove_folder(folder: &str) -> Step {
    Step::new(Cmd::new("rm").args(["-rf", folder]), Output::Quiet)
}

/// The tag of the first reference: one list a version.
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
    use crate::{engine::Place, image::Platform, settings::Progress};

    #[test]
    fn each_node_writes_an_archive_of_its_own() {
        let docker = EngineFacts {
            engine: Engine {
                kind: Kind::Docker,
                program: "docker".to_owned(),
            },
            version: "28.5.2".to_owned(),
            platform: Platform::linux("amd64"),
            rootless: false,
            place: Place::Here,
        };
        let nodes = ["linux/amd64=tcp://a:1", "linux/arm64=tcp://b:1"]
            .map(|node| Node::parse(node).unwrap());
        let release = Release {
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
        let made = docker.build_archive(&build, &release, Path::new("/x.oci.tar"));
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
