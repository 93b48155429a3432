//! Flavours: variants of the image, with tags of their own.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    publication::{Image, Publication},
    registry::fake::{FakeRegistry, Oddities},
    sandbox::{
        CommandOutput, PROJECT, Sandbox, answer, command_output, docker_version, image, no_image,
    },
};

const TOOLS: &str = "[flavour.tools]\ntarget = 'runtime-tools'\n";

fn docker(answers: &[Value]) -> Sandbox {
    Sandbox::new(&format!("{PROJECT}{TOOLS}")).engine("docker", answers)
}

fn refused(output: &CommandOutput, stderr: &str) {
    assert_eq!((output.code, output.stderr.as_str()), (2, stderr));
}

#[test]
fn a_flavour_is_built_under_its_own_tags() {
    let sandbox = docker(&[docker_version(), answer("build", 0, "", ""), image()]);
    let output = sandbox.run(&["build-image", "--version", "dev-me", "--flavour", "tools"]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "ghcr.io/x/y:dev-me-tools\n"),
        "{}",
        output.stderr
    );
    let options = "--version dev-me --flavour tools";
    let next = format!(
        "hint: next: `cargo xtask run-local {options}` or `cargo xtask test-image {options}`\n"
    );
    assert!(output.stderr.ends_with(&next), "{}", output.stderr);
    let calls = sandbox.calls();
    let build = calls.iter().find(|call| call.contains(" build ")).unwrap();
    for part in [
        "--target runtime-tools",
        "--label ai.stigmer.xtask.flavour=tools",
        "--label org.opencontainers.image.version=dev-me ",
        "--tag ghcr.io/x/y:dev-me-tools ",
    ] {
        assert!(build.contains(part), "{part}: {build}");
    }
}

#[test]
fn hints_keep_the_flavour() {
    let sandbox = docker(&[docker_version(), no_image()]);
    for command in ["test-image", "run-local"] {
        let output = sandbox.run(&[command, "--version", "dev-me", "--flavour", "tools"]);
        let hint = "hint: build it: `cargo xtask build-image --version dev-me --flavour tools`\n";
        assert!(output.stderr.contains(hint), "{command}: {}", output.stderr);
        assert!(output.stderr.contains("`ghcr.io/x/y:dev-me-tools`"));
    }
}

#[test]
fn the_tag_of_a_flavour_is_no_version() {
    let sandbox = docker(&[docker_version()]);
    refused(
        &sandbox.run(&["build-image", "--version", "1.2.3-tools"]),
        "error: `1.2.3-tools` (from flag --version) is the tag of the flavour `tools`, not a version\n\
         hint: name both: `--version 1.2.3 --flavour tools`\n",
    );
    let sandbox = sandbox.env("VERSION", "v1.2.3-tools");
    refused(
        &sandbox.run(&["push-multiarch"]),
        "error: `1.2.3-tools` (from environment VERSION) is the tag of the flavour `tools`, not a version\n\
         hint: set the version to `1.2.3`, and name the flavour: `--flavour tools`; `push-multiarch` publishes all flavours of a version\n",
    );
    assert!(sandbox.calls().is_empty());
}

#[test]
fn an_unknown_flavour_names_the_known_ones() {
    let sandbox = docker(&[docker_version()]);
    refused(
        &sandbox.run(&["run-local", "--flavour", "tool"]),
        "error: there is no flavour `tool`: the configuration has `tools`\n\
         hint: name one of them, such as `--flavour tools`, or leave out `--flavour`\n",
    );
}

#[test]
fn the_configuration_shows_flavours() {
    let output = docker(&[]).run(&["config"]);
    let line = "flavour.tools.target = \"runtime-tools\"  # xtask.toml:8\n";
    assert!(output.stdout.contains(line), "{}", output.stdout);
    let json = docker(&[]).run(&["config", "--json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        json["values"]["flavour.tools.target"]["value"],
        "runtime-tools"
    );
}

#[test]
fn clean_removes_all_flavours_of_the_version() {
    let found = |id: &str, tags: &[&str]| {
        json!({
            "Id": format!("sha256:{id}"), "Os": "linux", "Architecture": "amd64",
            "RepoTags": tags,
            "Config": { "Labels": { "ai.stigmer.xtask.image": "ghcr.io/x/y" } },
        })
    };
    let images = json!([
        found("1", &["ghcr.io/x/y:dev-me"]),
        found("2", &["ghcr.io/x/y:dev-me-tools"]),
        found("3", &["ghcr.io/x/y:dev-you-tools"]),
    ]);
    let sandbox = docker(&[
        docker_version(),
        answer("image ls", 0, "sha256:1\nsha256:2\nsha256:3\n", ""),
        answer("image inspect", 0, &images.to_string(), ""),
        answer(
            "container inspect",
            1,
            "[]\n",
            "Error response from daemon: No such container: box\n",
        ),
    ]);
    let output = sandbox.run(&["clean", "--version", "dev-me", "--dry-run"]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (
            0,
            "docker image rm ghcr.io/x/y:dev-me || true\ndocker image rm ghcr.io/x/y:dev-me-tools || true\n"
        ),
        "{}",
        output.stderr
    );
}

/// A release with the flavour, whose images are in archives.
struct Release {
    registry: FakeRegistry,
    publication: Publication,
}

impl Release {
    fn new() -> Self {
        Self::to(Oddities::default())
    }

    fn to(oddities: Oddities) -> Self {
        let registry = FakeRegistry::start(oddities);
        let repository = format!("{}/team/agent-runner", registry.address);
        let project = format!(
            "{TOOLS}budget.compressed = '1MB'\n[[channel]]\nname = 'release'\nflavours = ['tools']\n"
        );
        let image = Image {
            project: &project,
            ..Image::default()
        };
        Self {
            publication: Publication::new(&repository, image),
            registry,
        }
    }

    /// Writes the archive of the flavour.
    fn add_tools(&self, image: Image) -> PathBuf {
        let path = self.publication.path().join("target/b.oci.tar");
        let repository = format!("{}/team/agent-runner", self.registry.address);
        let image = Image {
            flavour: Some("tools"),
            content: 2,
            ..image
        };
        self.publication.write_archive(&path, &repository, image);
        path
    }

    fn push(&self) -> CommandOutput {
        let args = ["push-multiarch", "--version", "1.2.3", "--merge", "target"];
        command_output(&self.publication.command(&args).output().unwrap())
    }

    fn receipt(&self, name: &str) -> Value {
        let path = self.publication.path().join("target/dist").join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{name}: {why}"));
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn all_flavours_of_the_channel_are_published_together() {
    let release = Release::new();
    // It reads as a newer pre-release, and it is of a newer version of the flavour.
    release.registry.add_tags(&["2.0.0-tools"]);
    release.add_tools(Image::default());
    let output = release.push();
    assert_eq!(output.code, 0, "{}", output.stderr);
    let (plain, tools) = (
        release.receipt("1.2.3.json"),
        release.receipt("1.2.3-tools.json"),
    );
    assert_eq!(plain["flavour"], Value::Null);
    assert_eq!(plain["tags"], json!(["1.2.3", "1.2", "1", "latest"]));
    assert_eq!(
        (&tools["flavour"], &tools["version"]),
        (&json!("tools"), &json!("1.2.3"))
    );
    assert_eq!(
        tools["tags"],
        json!(["1.2.3-tools", "1.2-tools", "1-tools"])
    );
    assert_eq!(
        tools["kept"],
        json!([{ "tag": "latest-tools", "with": "2.0.0" }])
    );
    let references = [&plain, &tools].map(|one| one["reference"].as_str().unwrap());
    assert_eq!(output.stdout, format!("{}\n", references.join("\n")));
    let tags = release.registry.tags();
    assert_eq!(tags["latest"], plain["digest"].as_str().unwrap());
    assert_eq!(tags["1-tools"], tools["digest"].as_str().unwrap());
    assert_ne!(plain["digest"], tools["digest"]);
    assert_eq!(tags["latest-tools"], tags["2.0.0-tools"]);
    let file = |name: &str| {
        release
            .publication
            .path()
            .join("target/dist")
            .join(name)
            .is_file()
    };
    assert!(file("1.2.3-tools.provenance.json") && file("1.2.3-tools.linux-arm64.spdx.json"));

    // The registry holds both images before the first tag moves.
    let requests = release.registry.requests();
    let first = |begin: &str| {
        let position = requests.iter().position(|line| line.starts_with(begin));
        position.unwrap_or_else(|| panic!("{begin}: {requests:?}"))
    };
    let manifests = "PUT /v2/team/agent-runner/manifests";
    let digest = tools["digest"].as_str().unwrap();
    assert!(first(&format!("{manifests}/{digest}")) < first(&format!("{manifests}/1.2.3 ")));

    // The same command again changes nothing.
    release.registry.forget_requests();
    let again = release.push();
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(again.stdout, output.stdout);
    assert_eq!(release.registry.count("PUT "), 0);
}

#[test]
fn no_tag_moves_if_one_flavour_is_not_as_it_should_be() {
    let release = Release::new();
    release.add_tools(Image {
        size: 3_000_000,
        ..Image::default()
    });
    let output = release.push();
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("the budget is 1.0 MB"),
        "{}",
        output.stderr
    );
    assert!(release.registry.tags().is_empty());
}

#[test]
fn a_failure_between_two_images_says_how_many_have_their_tags() {
    let release = Release::to(Oddities {
        immutable_tags: Some(400),
        ..Oddities::default()
    });
    // The registry does not let this tag move.
    release.registry.add_tags(&["latest-tools"]);
    release.add_tools(Image::default());
    let output = release.push();
    assert_eq!(output.code, 1);
    let message = "1 of 2 images have their tags; run the same command again to continue";
    assert!(output.stderr.contains(message), "{}", output.stderr);
    let plain = release.receipt("1.2.3.json");
    let tags = release.registry.tags();
    assert_eq!(tags["latest"], plain["digest"].as_str().unwrap());
    assert!(tags.contains_key("1.2.3-tools"));
}

#[test]
fn an_archive_belongs_to_its_flavour() {
    let release = Release::new();
    let output = release.push();
    assert_eq!(output.code, 2);
    assert!(
        output.stderr.ends_with(
            "error: none of the archives of `--merge` holds the flavour `tools`\n\
             hint: build it too, for each platform: `cargo xtask build-multiarch --version 1.2.3 --flavour tools --shard OS/ARCH`\n"
        ),
        "{}",
        output.stderr
    );
    let tools = release.add_tools(Image::default());
    for (archive, flavour, problem) in [
        (
            &tools,
            None,
            "label ai.stigmer.xtask.flavour is `tools`, but there should be none",
        ),
        (
            &release.publication.archive,
            Some("tools"),
            "label ai.stigmer.xtask.flavour is missing",
        ),
    ] {
        let mut args = vec![
            "push-archive",
            "--version",
            "1.2.3",
            archive.to_str().unwrap(),
        ];
        args.extend(flavour.iter().flat_map(|name| ["--flavour", name]));
        let output = command_output(&release.publication.command(&args).output().unwrap());
        assert_eq!(output.code, 1, "{}", output.stderr);
        assert!(output.stderr.contains(problem), "{}", output.stderr);
    }
    assert!(release.registry.tags().is_empty());
}
