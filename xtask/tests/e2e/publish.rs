//! Publishing to a real registry, with every engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    os::unix::fs::DirEntryExt as _,
    path::Path,
    process::Command,
    time::SystemTime,
};

use serde_json::Value;

use crate::{
    engines::{
        Checkout, CommandOutput, DOCKER, DOCKER_CONTAINERD, PODMAN, RealEngine, command_output, var,
    },
    remote::{Remote, needed},
    small::{self, PLATFORMS},
};

/// A checkout that publishes to a test repository.
pub struct Publisher<'a> {
    pub checkout: &'a Checkout<'a>,
    pub remote: Remote,
    env: Vec<(String, String)>,
}

impl<'a> Publisher<'a> {
    /// The credentials are in a separate folder, so the person's own credentials do not change.
    pub fn new(checkout: &'a Checkout<'a>, remote: Remote) -> Self {
        let kept = checkout.src().join("target/auth");
        fs::create_dir_all(&kept).unwrap();
        let file = kept.join("config.json");
        // Podman fails if the file in `REGISTRY_AUTH_FILE` does not exist.
        fs::write(&file, "{}").unwrap();
        checkout.make_folder(&kept);
        // The repository's releases are signed with the identity of a job, which no test has. Only the test of
        // flavours builds them.
        let unsigned = ["release", "prerelease"]
            .map(|name| format!("[[channel]]\nname = '{name}'\nsign = 'no'\nflavours = []\n"));
        let local = format!("schema = 1\n{}", unsigned.concat());
        fs::write(checkout.src().join("xtask.local.toml"), local).unwrap();
        let env = [
            ("XTASK_IMAGE_REPOSITORY", remote.repository()),
            ("DOCKER_CONFIG", kept.to_str().unwrap().to_owned()),
            ("REGISTRY_AUTH_FILE", file.to_str().unwrap().to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        Self {
            checkout,
            remote,
            env,
        }
    }

    pub fn command(&self, args: &[&str], more: &[(&str, &str)]) -> Command {
        self.checkout.command(args, &self.env_with(more))
    }

    fn env_with<'e>(&'e self, more: &[(&'e str, &'e str)]) -> Vec<(&'e str, &'e str)> {
        self.env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain(more.iter().copied())
            .collect()
    }

    pub fn run_with(&self, args: &[&str], more: &[(&str, &str)]) -> CommandOutput {
        self.checkout.run_with(args, &self.env_with(more))
    }

    pub fn run(&self, args: &[&str]) -> CommandOutput {
        self.run_with(args, &[])
    }

    pub fn ok(&self, args: &[&str]) -> CommandOutput {
        let output = self.run(args);
        assert_eq!(
            output.code, 0,
            "{} {args:?}: {}",
            self.checkout.engine.name, output.stderr
        );
        output
    }

    pub fn refused(&self, args: &[&str], why: &str) -> CommandOutput {
        let output = self.run(args);
        assert_ne!(output.code, 0, "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(why), "{args:?}: {}", output.stderr);
        output
    }

    fn sign_in(&self) {
        let auth = self.remote.auth.as_deref().unwrap();
        let (user, password) = auth.split_once(':').unwrap();
        let env = self.env_with(&[]);
        let args = ["docker-login", "--username", user, "--password-stdin"];
        let mut child = self
            .checkout
            .command_with_input(&args, &env)
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        assert!(child.wait_with_output().unwrap().status.success());
    }

    /// A JSON file beside the receipt.
    pub fn artifact(&self, name: &str) -> Value {
        let path = self.checkout.src().join("target/dist").join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{name}: {why}"));
        serde_json::from_str(&text).unwrap()
    }

    fn receipt(&self, version: &str) -> Value {
        self.artifact(&format!("{version}.json"))
    }

    /// The names in an SBOM.
    pub fn packages(&self, name: &str) -> Vec<String> {
        let document = self.artifact(name);
        let packages = document["packages"].as_array().unwrap();
        packages
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Creates an empty commit and its tag.
    pub fn commit_and_tag(&self, tag: &str) {
        let commit = ["commit", "-q", "--allow-empty", "-m", tag];
        assert_eq!(self.checkout.git(&commit).code, 0);
        assert_eq!(self.checkout.git(&["tag", "-f", tag]).code, 0);
    }

    /// The command with which this engine publishes. Docker's classic store supports one platform.
    fn publish(&self, version: &str) -> (Vec<&'static str>, Vec<String>) {
        let tail = vec!["--version".to_owned(), version.to_owned()];
        if self.checkout.engine.name == DOCKER {
            let build = ["build-image", "--no-check", "--version", version];
            assert_eq!(self.run(&build).code, 0);
            (vec!["push-image"], tail)
        } else {
            (vec!["push-multiarch", "--no-check"], tail)
        }
    }
}

impl Drop for Publisher<'_> {
    fn drop(&mut self) {
        // Podman keeps untagged images of other platforms.
        self.run(&["clean", "--yes"]);
    }
}

/// The arguments of the command that publishes a version.
macro_rules! line {
    ($publisher:expr, $version:expr) => {{
        let (head, tail) = $publisher.publish($version);
        head.into_iter()
            .map(str::to_owned)
            .chain(tail)
            .collect::<Vec<_>>()
    }};
}

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

/// The steps of a release, from the first refusal to a second version that does not move `latest`.
pub fn release(checkout: &Checkout) {
    let Some(remote) = Remote::with_password(checkout.engine.name) else {
        return;
    };
    let release = Publisher::new(checkout, remote);
    let remote = &release.remote;

    // HEAD has no tag, then nobody is signed in. Both errors are reported before the build.
    if checkout.engine.program == "podman" {
        // Another test runs `smoke` with this engine.
        edit(
            &checkout.src().join("xtask.toml"),
            "smoke = true",
            "smoke = false",
        );
        assert_eq!(checkout.git(&["commit", "-qam", "smoke"]).code, 0);
    }
    let first = line!(release, "1.2.3");
    release.refused(&words(&first), "HEAD has no tag `v1.2.3`");
    release.commit_and_tag("v1.2.3");
    let first = line!(release, "1.2.3");
    let refused = release.refused(&words(&first), "not signed in to ");
    assert!(!refused.stderr.contains("Building"), "{}", refused.stderr);
    assert!(remote.tags().is_empty());

    release.sign_in();
    let done = release.ok(&words(&first));
    let digest = remote.digest("1.2.3").unwrap();
    assert_eq!(done.stdout, format!("{}@{digest}\n", remote.repository()));
    assert_eq!(remote.tags(), ["1", "1.2", "1.2.3", "latest", "v1.2.3"]);
    for tag in ["1", "1.2", "latest", "v1.2.3"] {
        assert_eq!(remote.digest(tag).as_ref(), Some(&digest), "{tag}");
    }
    let receipt = release.receipt("1.2.3");
    assert_eq!(receipt["digest"], digest.as_str());
    assert_eq!(
        receipt["tags"],
        serde_json::json!(["1.2.3", "v1.2.3", "1.2", "1", "latest"])
    );
    // The channel wants attestations. They are files, because it does not sign.
    assert_eq!(receipt["attestations"], 0);
    for platform in receipt["platforms"].as_array().unwrap() {
        let platform = platform["platform"].as_str().unwrap().replace('/', "-");
        let packages = release.packages(&format!("1.2.3.{platform}.spdx.json"));
        for name in ["temporalio", "libc6"] {
            assert!(packages.iter().any(|one| one == name), "{packages:?}");
        }
    }
    assert!(release.artifact("1.2.3.provenance.json")["buildDefinition"].is_object());
    if checkout.engine.name != DOCKER {
        let index = remote.manifest("1.2.3");
        let title = &index["annotations"]["org.opencontainers.image.title"];
        assert_eq!(title, "agent-runner", "{index}");
        both_platforms_can_be_pulled(&release, &digest);
    }

    // A second run builds nothing and moves no tag.
    let again = release.ok(&words(&first));
    assert!(
        again.stderr.contains("nothing is built"),
        "{}",
        again.stderr
    );
    assert_eq!(again.stdout, done.stdout);
    release.ok(&verify(checkout, "1.2.3"));

    // The remaining steps do not depend on the engine, so one engine is enough.
    if checkout.engine.name == DOCKER {
        second_release(&release, &digest);
    }
    if checkout.engine.name == DOCKER_CONTAINERD {
        all_platforms_replace_one(&release);
    }
    for version in ["1.2.3", "1.1.9", "1.2.4"] {
        release.ok(&["clean", "--yes", "--version", version]);
    }
}

/// `push-image` has published one platform. `push-multiarch` replaces it only with `--force` and the typed tag.
fn all_platforms_replace_one(release: &Publisher) {
    let remote = &release.remote;
    release.commit_and_tag("v1.2.4");
    release.ok(&["push-image", "--no-check", "--version", "1.2.4"]);
    let one = remote.digest("1.2.4");
    assert_eq!(remote.digest("latest"), one);
    let all = "push-multiarch --no-check --version 1.2.4";
    let words: Vec<_> = all.split(' ').collect();
    release.refused(
        &words,
        "overwrite the tag: pass `--force` (no tag was moved)",
    );
    assert_eq!(remote.digest("1.2.4"), one);

    let mut command = release.checkout.on_terminal(&format!("{all} --force"));
    command.envs(release.env_with(&[]));
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.as_mut().unwrap(), "1.2.4").unwrap();
    let done = command_output(&child.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(remote.images("1.2.4").len(), 2);
    for tag in ["1", "1.2", "latest", "v1.2.4"] {
        assert_eq!(remote.digest(tag), remote.digest("1.2.4"), "{tag}");
    }
}

fn second_release(release: &Publisher, digest: &str) {
    let (checkout, remote) = (release.checkout, &release.remote);
    let digest = digest.to_owned();
    let first = line!(release, "1.2.3");

    // Another commit cannot be released as the same version, even if it has the tag.
    release.commit_and_tag("v1.2.3");
    release.refused(&words(&first), "is released already, as sha256:");
    let mut forced = words(&first);
    forced.push("--force");
    release.refused(
        &forced,
        "run the same command in a terminal, where `--force` asks",
    );
    assert_eq!(remote.digest("1.2.3").as_ref(), Some(&digest));

    // A patch of an older release line does not move the tags of a newer version.
    release.commit_and_tag("v1.1.9");
    let older = line!(release, "1.1.9");
    let done = release.ok(&words(&older));
    assert!(
        done.stderr.contains("latest at 1.2.3, which is newer"),
        "{}",
        done.stderr
    );
    assert_eq!(remote.digest("latest").as_ref(), Some(&digest));
    assert_eq!(remote.digest("1").as_ref(), Some(&digest));
    assert_eq!(remote.digest("1.1"), remote.digest("1.1.9"));
    assert_ne!(remote.digest("1.1.9").as_ref(), Some(&digest));
    release.ok(&verify(checkout, "1.1.9"));
}

fn verify<'a>(checkout: &Checkout, version: &'a str) -> Vec<&'a str> {
    let mut line = vec!["verify-image", "--version", version];
    if checkout.engine.name == DOCKER {
        line.extend(["--platform", "linux/amd64"]);
    }
    line
}

/// The engine can pull both architectures from the registry.
fn both_platforms_can_be_pulled(release: &Publisher, digest: &str) {
    let (checkout, remote) = (release.checkout, &release.remote);
    let by_digest = format!("{}@{digest}", remote.repository());
    for (platform, machine_is) in PLATFORMS {
        let config = remote.config(digest, platform);
        assert_eq!(
            config["architecture"],
            platform.trim_start_matches("linux/")
        );
        assert_eq!(config["config"]["User"], "1000:1000");
        assert_eq!(
            config["config"]["Labels"]["org.opencontainers.image.version"],
            "1.2.3"
        );
        assert!(
            config["config"]["Healthcheck"]["Test"].is_array(),
            "{config}"
        );

        let pulled = pull(release, &by_digest, platform);
        assert_eq!(pulled.code, 0, "{pulled:?}");
        let name = format!("{}-{}", checkout.container, platform.replace('/', "-"));
        let created = checkout.engine.run(&[
            "create",
            "--platform",
            platform,
            "--name",
            &name,
            &by_digest,
        ]);
        assert_eq!(created.code, 0, "{created:?}");
        assert_eq!(machine(checkout, &name), machine_is, "{platform}");
        checkout.engine.run(&["image", "rm", &by_digest]);
    }
}

/// The machine number of the Python interpreter in a container. Removes the container.
fn machine(checkout: &Checkout, name: &str) -> u8 {
    let python = checkout.src().join("target/python3.11");
    checkout.make_folder(python.parent().unwrap());
    let copied = checkout.engine.run(&[
        "cp",
        &format!("{name}:/usr/local/bin/python3.11"),
        python.to_str().unwrap(),
    ]);
    checkout.engine.run(&["rm", "-f", name]);
    assert_eq!(copied.code, 0, "{copied:?}");
    let program = fs::read(&python).unwrap();
    fs::remove_file(&python).unwrap();
    assert_eq!(&program[..4], b"\x7fELF");
    program[18]
}

fn pull(release: &Publisher, reference: &str, platform: &str) -> CommandOutput {
    let kept = release.checkout.src().join("target/auth");
    let file = kept.join("config.json");
    let env = [
        ("DOCKER_CONFIG", kept.to_str().unwrap()),
        ("REGISTRY_AUTH_FILE", file.to_str().unwrap()),
    ];
    let engine = release.checkout.engine;
    let args = ["pull", "--quiet", "--platform", platform, reference];
    let mut command = engine.command_of(Path::new(engine.program), &args, &env);
    crate::engines::command_output(&command.output().unwrap())
}

/// Builds of the same commit have the same digest, with and without cached steps. Those of two commits share the layers
/// that did not change.
pub fn reproducible(checkout: &Checkout) {
    checkout.ok(&["build-image"]);
    // Cached steps are older than this time, and the steps of a build without a cache are not.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    // Where the compressed layers are kept.
    let compressed = |name: &str| checkout.src().join(format!("target/{name}"));
    let build = |name: &str, time: u64, compressed: &Path, cache: &[&str]| -> (String, Value) {
        let path = checkout.src().join(format!("target/{name}.oci.tar"));
        let output = ["--output", path.to_str().unwrap()];
        let line = ["build-multiarch", "--shard", "linux/amd64"];
        let line = [&line[..], &output, cache].concat();
        let time = time.to_string();
        let env = [
            ("SOURCE_DATE_EPOCH", time.as_str()),
            ("XDG_CACHE_HOME", compressed.to_str().unwrap()),
        ];
        let output = checkout.run_with(&line, &env);
        assert_eq!(output.code, 0, "{}", output.stderr);
        let index = file_in(&path, "index.json");
        let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let manifest = file_in(&path, &format!("blobs/{}", digest.replace(':', "/")));
        (digest, manifest["layers"].clone())
    };
    let shared = compressed("shared");
    // A layer that is compressed again becomes another file of the same name.
    let kept_files = || -> BTreeSet<u64> {
        let files = fs::read_dir(shared.join("agent-runner/layers")).unwrap();
        files.map(|file| file.unwrap().ino()).collect()
    };
    let (cached, layers) = build("cached", now, &shared, &[]);
    let kept = kept_files();
    assert!(!kept.is_empty());
    let (next, layers_of_next) = build("next", now + 60, &shared, &[]);
    assert_ne!(next, cached);
    assert_eq!(layers_of_next, layers);
    assert_eq!(kept_files(), kept, "no layer was compressed again");
    checkout.make_all_executable();
    let (anew, _) = build("anew", now, &compressed("anew"), &["--no-cache"]);
    assert_eq!(anew, cached, "{}", checkout.engine.name);
}

/// A file in JSON in an archive.
fn file_in(archive: &Path, name: &str) -> Value {
    let file = std::process::Command::new("tar")
        .args(["-xOf", archive.to_str().unwrap(), name])
        .output()
        .unwrap();
    serde_json::from_slice(&file.stdout).unwrap()
}

/// Merging the archives of two shards gives the same release as one build.
pub fn shards(checkout: &Checkout) {
    let Some(remote) = Remote::open("shards") else {
        return;
    };
    small::project(checkout);
    let release = Publisher::new(checkout, remote);
    let version = checkout.version.as_str();
    for platform in ["linux/amd64", "linux/arm64"] {
        release.ok(&["build-multiarch", "--shard", platform]);
    }
    // An archive with one of the platforms cannot be published.
    let part = format!("../target/dist/agent-runner-{version}-linux-amd64.oci.tar");
    release.refused(
        &["push-archive", "--version", version, &part],
        "linux/arm64 is missing",
    );
    assert!(release.remote.tags().is_empty());
    release.ok(&[
        "push-multiarch",
        "--version",
        version,
        "--merge",
        "../target/dist",
    ]);
    let merged: BTreeMap<_, _> = release.remote.images(version).into_iter().collect();
    assert!(
        PLATFORMS
            .iter()
            .all(|(platform, _)| merged.contains_key(*platform))
    );
    if checkout.engine.program == "docker" {
        release.ok(&["push-multiarch", "--version", version]);
        let whole: BTreeMap<_, _> = release.remote.images(version).into_iter().collect();
        assert_eq!(merged, whole, "the same images by platform");
    }
}

/// Docker and Podman publish equal images, except for the differences that docs/engines.md lists.
pub fn equal_images() {
    let (Some(docker), Some(podman)) = (
        RealEngine::find(DOCKER_CONTAINERD),
        RealEngine::find(PODMAN),
    ) else {
        return;
    };
    let Some(remote) = Remote::open("equal_images") else {
        return;
    };
    let checkout = Checkout::new(&docker, "equal_images");
    let release = Publisher::new(&checkout, remote);
    let publish = |version: &str, engine: &str| {
        let line = ["push-multiarch", "--version", version];
        let output = release.run_with(&line, &[("XTASK_ENGINE", engine)]);
        assert_eq!(output.code, 0, "{engine}: {}", output.stderr);
    };
    publish("dev-docker", docker.program);
    publish("dev-podman", podman.program);
    for platform in ["linux/amd64", "linux/arm64"] {
        let [by_docker, by_podman] = ["dev-docker", "dev-podman"].map(|version| {
            let mut config = release.remote.config(version, platform);
            let run = config["config"].take();
            let mut labels = run["Labels"].clone();
            labels["org.opencontainers.image.version"].take();
            // Buildah adds a label of its own.
            labels.as_object_mut().unwrap().remove("io.buildah.version");
            let mut env: Vec<String> = serde_json::from_value(run["Env"].clone()).unwrap();
            env.sort();
            let volumes = run["Volumes"].clone();
            (
                labels,
                env,
                volumes,
                ["User", "WorkingDir", "Cmd", "Healthcheck"].map(|key| run[key].clone()),
                run["Entrypoint"].as_array().is_none_or(Vec::is_empty),
                config["architecture"].clone(),
            )
        });
        assert_eq!(by_docker, by_podman, "{platform}");
    }
}

/// In GitHub Actions, xtask writes groups, the step's outputs and a summary.
pub fn in_github_actions(checkout: &Checkout) {
    let Some(remote) = Remote::open("actions") else {
        return;
    };
    small::project(checkout);
    let release = Publisher::new(checkout, remote);
    let folder = checkout.src().join("target/actions");
    checkout.make_folder(&folder);
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (output, summary) = (at("output"), at("summary"));
    checkout.ok(&["build-image"]);
    let env = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_OUTPUT", output.as_str()),
        ("GITHUB_STEP_SUMMARY", summary.as_str()),
    ];
    let built = release.run(&["build-image"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let pushed = release.run_with(&["push-image", "--version", &checkout.version], &env);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    for line in [
        "::group::preflight\n",
        "::group::promote\n",
        "::endgroup::\n",
    ] {
        assert!(pushed.stderr.contains(line), "{line}: {}", pushed.stderr);
    }
    let digest = release.remote.digest(&checkout.version).unwrap();
    assert_eq!(
        fs::read_to_string(&output).unwrap(),
        format!(
            "image={}\ndigest={digest}\ntags={version}\nversion={version}\n",
            release.remote.repository(),
            version = checkout.version
        )
    );
    let summary = fs::read_to_string(&summary).unwrap();
    assert!(
        summary.contains(&format!("| Digest | `{digest}` |")),
        "{summary}"
    );

    // A failing line of the Dockerfile gets an annotation.
    let file = checkout.src().join("Dockerfile");
    let text = fs::read_to_string(&file).unwrap();
    let broken = format!(
        "FROM {} AS broken\nRUN exit 7\n\n{text}COPY --from=broken /etc/passwd /x\n",
        small::base_image()
    );
    fs::write(&file, broken).unwrap();
    let failed = release.run_with(&["build-image"], &env);
    assert_ne!(failed.code, 0);
    let place = "::error file=Dockerfile,line=";
    assert!(failed.stderr.contains(place), "{}", failed.stderr);
}

/// Two BuildKit daemons build at the same time, each for its platform.
pub fn nodes(checkout: &Checkout) {
    let Some([amd64, arm64]) = needed(["XTASK_E2E_BUILDKIT_AMD64", "XTASK_E2E_BUILDKIT_ARM64"])
    else {
        return;
    };
    small::project(checkout);
    let nodes = format!("linux/amd64={amd64},linux/arm64={arm64}");
    // Entries have the form `builder/node/build`. Entries are found by their node.
    let history = || -> Vec<String> {
        let line = [
            "buildx",
            "history",
            "ls",
            "--builder",
            "agent-runner-xtask-nodes",
            "--format",
            "json",
        ];
        let answer = checkout.engine.run(&line);
        let entry = |line: &str| serde_json::from_str::<Value>(line).ok();
        answer
            .stdout
            .lines()
            .filter_map(entry)
            .map(|entry| entry["ref"].as_str().unwrap().to_owned())
            .collect()
    };
    let build = || checkout.run_with(&["build-multiarch"], &[("XTASK_BUILD_NODES", &nodes)]);
    // The daemons keep their history. It can be queried only through a builder, which the first build
    // creates.
    assert_eq!(build().code, 0);
    let before = history();
    assert!(!before.is_empty());
    let built = build();
    assert_eq!(built.code, 0, "{}", built.stderr);
    for platform in ["linux/amd64", "linux/arm64"] {
        let line = format!("    Platform {platform}: ");
        assert!(built.stderr.contains(&line), "{}", built.stderr);
    }
    let new: Vec<_> = history()
        .into_iter()
        .filter(|entry| !before.contains(entry))
        .collect();
    for (node, platform) in [("nodes0", "linux/amd64"), ("nodes1", "linux/arm64")] {
        // The parallel build has the same id on both nodes. The build that writes the archive has an id of
        // its own.
        let of_node: Vec<_> = new
            .iter()
            .filter(|entry| entry.contains(&format!("{node}/")))
            .filter_map(|entry| entry.rsplit_once('/'))
            .map(|(_, build)| build)
            .collect();
        let alone =
            |build: &&&str| new.iter().filter(|entry| entry.ends_with(**build)).count() == 1;
        assert!(of_node.iter().any(|build| !alone(&build)), "{new:?}");
        let wrote = of_node.iter().find(alone).unwrap();
        let line = [
            "buildx",
            "history",
            "inspect",
            "--builder",
            "agent-runner-xtask-nodes",
        ];
        let answer = checkout
            .engine
            .run(&[&line[..], &["--format", "json", wrote]].concat());
        let answer: Value =
            serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{answer:?}"));
        assert_eq!(answer["Platform"], serde_json::json!([platform]), "{node}");
    }
    // An existing builder can be selected by its name.
    let line = ["build-multiarch", "--shard", "linux/arm64"];
    let named = [("XTASK_BUILD_BUILDER", "agent-runner-xtask-nodes")];
    let built = checkout.run_with(&line, &named);
    assert_eq!(built.code, 0, "{}", built.stderr);
}

/// If Docker's store supports only one platform, xtask creates a builder. `clean --all` removes it.
pub fn own_builder(checkout: &Checkout) {
    let Some([image]) = needed(["XTASK_E2E_BUILDKIT_IMAGE"]) else {
        return;
    };
    small::project(checkout);
    let opts = format!("image={image}");
    let env = [("XTASK_BUILD_BUILDER_OPTS", opts.as_str())];
    let built = checkout.run_with(&["build-multiarch"], &env);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let there = || {
        checkout
            .engine
            .run(&["buildx", "inspect", "agent-runner-xtask"])
            .code
            == 0
    };
    assert!(there());
    // A second build uses the existing builder.
    let again = checkout.run_with(&["build-multiarch", "--dry-run"], &env);
    assert!(!again.stdout.contains("buildx create"), "{}", again.stdout);
    let line = "docker buildx rm --force agent-runner-xtask";
    assert!(!checkout.ok(&["clean", "--dry-run"]).contains(line));
    let clean = checkout.ok(&["clean", "--all", "--dry-run"]);
    assert!(clean.contains(line), "{clean}");
}

/// An image is signed before it gets tags. If the signature cannot be verified, no tag moves.
pub fn signed(checkout: &Checkout) {
    let programs = needed(["XTASK_E2E_COSIGN", "XTASK_E2E_COSIGN3"]);
    let (Some(remote), Some(programs)) = (Remote::open("signed"), programs) else {
        return;
    };
    let attested = "[[channel]]\nname = 'dev'\nprovenance = true\nsbom = true\nsign = 'key'\n";
    let config = format!("{}{attested}", small::CONFIG);
    small::project_with(checkout, &[("xtask.toml", config.as_bytes())]);
    let release = Publisher::new(checkout, remote);
    checkout.ok(&["build-image"]);
    assert_eq!(release.run(&["build-image"]).code, 0);
    let push = ["push-image", "--version", &checkout.version];
    release.refused(
        &push,
        "signs what it publishes, and cosign is not installed",
    );

    for cosign in &programs {
        signed_with(&release, cosign, &push);
    }
}

fn signed_with(release: &Publisher, cosign: &str, push: &[&str]) {
    let checkout = release.checkout;
    let bin = checkout.src().join("target/bin");
    let _ = fs::remove_dir_all(&bin);
    fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(cosign, bin.join("cosign")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run_cosign = |args: &[&str]| {
        let output = std::process::Command::new(cosign)
            .args(args)
            .env("COSIGN_PASSWORD", "marked-password")
            .current_dir(&bin)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    for name in ["ours", "other"] {
        run_cosign(&["generate-key-pair", "--output-key-prefix", name]);
    }
    let key = |name: &str| bin.join(name).to_str().unwrap().to_owned();
    let run = |args: &[&str], public: &str| {
        let env = [
            ("PATH", path.as_str()),
            ("COSIGN_PASSWORD", "marked-password"),
            ("XTASK_SIGN_KEY", &key("ours.key")),
            ("XTASK_SIGN_PUBLIC_KEY", public),
            ("XTASK_SIGN_TRANSPARENCY_LOG", "false"),
        ];
        release.run_with(args, &env)
    };
    let before = release.remote.digest(&checkout.version);
    let wrong = run(push, &key("other.pub"));
    assert_ne!(wrong.code, 0, "{}", wrong.stderr);
    assert_eq!(
        release.remote.digest(&checkout.version),
        before,
        "no tag moved"
    );
    let right = run(push, "");
    assert_eq!(right.code, 0, "{}", right.stderr);
    for output in [&wrong, &right] {
        assert!(!output.stderr.contains("marked"), "{}", output.stderr);
    }
    let receipt = release.receipt(&checkout.version);
    assert_eq!(receipt["signed"], true);
    // The provenance, and the packages of one platform.
    assert_eq!(receipt["attestations"], 2);
    let public = key("ours.pub");
    let rest = [
        "--insecure-ignore-tlog=true",
        "--allow-http-registry",
        "--key",
        &public,
        right.stdout.trim(),
    ];
    run_cosign(&[&["verify"], &rest[..]].concat());
    for kind in ["slsaprovenance1", "spdxjson"] {
        run_cosign(&[&["verify-attestation", "--type", kind], &rest[..]].concat());
    }
}

pub fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{}", file.display());
    fs::write(file, text.replace(from, to)).unwrap();
}

/// `--load` stores both platforms, even if the name belongs to an image or a list.
pub fn loaded(checkout: &Checkout) {
    if !Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        assert!(var("XTASK_E2E_REQUIRE").is_none());
        let _ = writeln!(std::io::stderr(), "skipped: no emulator for arm64");
        return;
    }
    small::project(checkout);
    // The name belongs first to an image and then to a list.
    checkout.ok(&["build-image"]);
    checkout.ok(&["build-multiarch", "--load"]);
    checkout.ok(&["build-multiarch", "--load"]);
    let reference = checkout.reference();
    for (platform, machine_is) in PLATFORMS {
        // Podman 4.3's `create` uses the first image of a list and ignores `--platform`.
        let line = [
            "run",
            "--rm",
            "--pull=never",
            "--network",
            "none",
            "--platform",
            platform,
            &reference,
        ];
        let output = checkout.engine.run(&line);
        assert_eq!(output.code, i32::from(machine_is), "{platform}: {output:?}");
    }
    checkout.ok(&["clean", "--yes"]);
    assert_eq!(
        checkout.engine.inspect("image", &checkout.reference()),
        None
    );
}

/// A build exports its cache to the configured location, and the next build imports it.
pub fn cached(checkout: &Checkout) {
    let Some(remote) = Remote::open("cached") else {
        return;
    };
    small::project(checkout);
    let release = Publisher::new(checkout, remote);
    let build = |cache: &str| {
        let line = [
            "build-multiarch",
            "--shard",
            "linux/amd64",
            "--progress",
            "plain",
        ];
        let output = release.run_with(&line, &[("XTASK_BUILD_CACHE", cache)]);
        assert_eq!(output.code, 0, "{cache}: {}", output.stderr);
        output.stderr
    };
    build("registry");
    let cache = Remote {
        host: release.remote.host.clone(),
        path: format!("{}/cache/linux-amd64", release.remote.path),
        auth: None,
    };
    assert!(!cache.tags().is_empty(), "the registry has no cache");
    if checkout.engine.program == "docker" {
        let again = build("registry");
        let import = format!("importing cache manifest from {}", cache.repository());
        assert!(again.contains(&import), "{again}");
        build("local");
        let local = checkout
            .src()
            .join("target/build-cache/linux-amd64/index.json");
        assert!(local.is_file());
        let again = build("local");
        assert!(
            again.contains("importing cache manifest from local:"),
            "{again}"
        );
    }
}
