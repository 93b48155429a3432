//! `formula`: what it writes is Ruby, and the program in it starts the container as it should.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::world::{Ran, World, answer, docker_version, podman_version, skipped};

/// The project file of this repository: the formula is for its image.
const OURS: &str = include_str!("../../../xtask.toml");
const FORMULA: &str = "src/target/dist/stigmer-agent-runner.rb";
const VERSIONS: &str = "src/target/dist/versions.json";

fn digest(version: &str) -> String {
    let number = version
        .bytes()
        .fold(0_u64, |sum, b| sum * 31 + u64::from(b));
    format!("sha256:{number:064x}")
}

fn image(version: &str) -> String {
    format!("ghcr.io/stigmer/agent-runner@{}", digest(version))
}

/// As `push-multiarch` leaves it.
fn receipt(world: &World, version: &str) {
    let folder = world.path("src/target/dist");
    fs::create_dir_all(&folder).unwrap();
    let receipt = json!({
        "schema": 1, "image": "ghcr.io/stigmer/agent-runner", "version": version,
        "channel": "release", "digest": digest(version), "reference": image(version),
        "platforms": [{ "platform": "linux/amd64" }, { "platform": "linux/arm64" }],
        "revision": "3f1c0a9b7d523f1c0a9b7d523f1c0a9b7d523f1c",
    });
    fs::write(folder.join(format!("{version}.json")), receipt.to_string()).unwrap();
}

fn formula(world: &World, version: &str) -> Ran {
    receipt(world, version);
    world.run(&["formula", "--version", version])
}

fn versions(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.path(VERSIONS)).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let all = all["versions"].as_array().unwrap();
    all.iter()
        .map(|one| one["version"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_newest_stable_version_has_the_formula() {
    let world = World::new(OURS);
    let ran = formula(&world, "1.9.0");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, format!("/{VERSIONS}\n/{FORMULA}\n").as_str()),
        "{ran:?}"
    );
    assert_eq!(formula(&world, "1.10.0").code, 0);
    let newest = fs::read_to_string(world.path(FORMULA)).unwrap();
    assert!(newest.contains(&image("1.10.0")), "{newest}");

    // An older line that is patched, and a pre-release.
    for version in ["1.9.1", "2.0.0-rc.1"] {
        let ran = formula(&world, version);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (0, format!("/{VERSIONS}\n").as_str())
        );
        assert!(
            ran.stderr.ends_with("Kept the formula of 1.10.0\n"),
            "{}",
            ran.stderr
        );
        assert_eq!(fs::read_to_string(world.path(FORMULA)).unwrap(), newest);
    }
    assert_eq!(versions(&world), ["2.0.0-rc.1", "1.10.0", "1.9.1", "1.9.0"]);

    // Into another folder, where nothing is yet.
    let elsewhere = world.run(&["formula", "--version", "1.9.0", "--output", "tap"]);
    assert_eq!(elsewhere.code, 0, "{elsewhere:?}");
    let there = fs::read_to_string(world.path("src/deep/er/tap/stigmer-agent-runner.rb"));
    assert!(there.unwrap().contains(&image("1.9.0")));
}

#[test]
fn what_cannot_be_written_is_said() {
    let world = World::new(OURS);
    let ran = world.run(&["formula", "--version", "1.2.3"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "error: there is no receipt of 1.2.3: cannot read `target/dist/1.2.3.json`: No such file or directory (os error 2)\n\
         hint: publish it: `cargo xtask push-multiarch --version 1.2.3`; if it is published already, that only writes the receipt\n"
    );
    let ran = world.run(&["formula", "--version", "dev-me"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    receipt(&world, "1.2.3");
    let dry = world.run(&["formula", "--version", "1.2.3", "--dry-run"]);
    assert_eq!(
        dry.stdout,
        "# read target/dist/1.2.3.json\n\
         # put 1.2.3 into target/dist/versions.json\n\
         # write target/dist/stigmer-agent-runner.rb, unless a newer version is in versions.json\n"
    );
    assert!(!world.path(FORMULA).exists());
}

/// Whether the tool is there; a CI must have it.
fn have(tool: &str) -> bool {
    let found = which::which(tool).is_ok();
    if !found {
        skipped(tool);
    }
    found
}

#[test]
fn the_formula_is_ruby() {
    if !have("ruby") {
        return;
    }
    let world = World::new(OURS);
    formula(&world, "1.2.3");
    let path = world.path(FORMULA);
    let ran = Command::new("ruby").arg("-wc").arg(&path).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "");
    // What Homebrew's classes would do of it: the program that `install` writes.
    let brew = format!(
        "class Formula; def self.method_missing(*) = nil; def self.test = nil; def bin = Dir.pwd; def chmod(mode, path) = File.chmod(mode, path); end\n\
         class String; def /(name) = Pathname.new(self).join(name); end\n\
         require 'pathname'\nload '{}'\nStigmerAgentRunner.new.install\n",
        path.display()
    );
    let ran = Command::new("ruby")
        .args(["-e", &brew])
        .current_dir(world.path("home"))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let program = world.path("home/stigmer-agent-runner");
    assert_eq!(
        fs::metadata(&program).unwrap().permissions().mode() & 0o777,
        0o755
    );
    assert_eq!(
        fs::read_to_string(program).unwrap(),
        wrapper(&world),
        "what these tests take for it is it"
    );
}

/// The program in the formula.
fn wrapper(world: &World) -> String {
    let text = fs::read_to_string(world.path(FORMULA)).unwrap();
    let program = text.split("<<~'SH'\n").nth(1).unwrap();
    let program = program.split("    SH\n").next().unwrap();
    program
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("      ").unwrap_or(line)))
        .collect()
}

/// A machine with the wrapper installed; the engine is the world's, the other tools are real.
struct Machine {
    world: World,
    program: PathBuf,
}

impl Machine {
    fn new(engine: &str, answers: &[Value]) -> Self {
        let world = World::new(OURS);
        assert_eq!(formula(&world, "1.2.3").code, 0);
        let program = world.path("wrapper");
        fs::write(&program, wrapper(&world)).unwrap();
        Self {
            world: world.engine(engine, answers),
            program,
        }
    }

    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.world.path("bin").display());
        Command::new("/bin/sh")
            .arg(&self.program)
            .args(args)
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.world.path("home"))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The last call that the engine got, after the world's own folder.
    fn call(&self) -> String {
        self.world.calls().pop().unwrap_or_default()
    }
}

const OPTIONS: &str = "--pids-limit 512 --init --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --stop-timeout 10";

fn docker(info: &str) -> Vec<Value> {
    vec![
        docker_version(),
        answer("--version", 0, "Docker version 28.2.2, build e6534b4\n", ""),
        answer("info", 0, info, ""),
        answer("run", 0, "", ""),
        answer("pull", 0, "", ""),
    ]
}

fn podman(rootless: &str) -> Vec<Value> {
    vec![
        podman_version(),
        answer("--version", 0, "podman version 4.3.1\n", ""),
        answer("info", 0, rootless, ""),
        answer("run", 0, "", ""),
    ]
}

/// What the person's id makes of it; tests run as root, too.
fn as_me() -> String {
    let id = |flag| {
        let out = Command::new("id").arg(flag).output().unwrap().stdout;
        String::from_utf8(out).unwrap().trim().to_owned()
    };
    match id("-u").as_str() {
        "0" => String::new(),
        uid => format!(" --user {uid}:{}", id("-g")),
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_program_starts_the_released_image() {
    let enforcing = fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|on| on.trim() == "1");
    let z = if enforcing { ":z" } else { "" };
    let names = "--env TEMPORAL_SERVICE_ADDRESS --env STIGMER_BACKEND_ENDPOINT --env OPENAI_API_KEY --env MODE --env SANDBOX_ROOT_DIR --env SANDBOX_TYPE";
    let expected = |engine: &str, user: &str| {
        format!(
            "{engine} run --rm --name stigmer-agent-runner {OPTIONS}{user} --network host --volume /home/.stigmer/data/workspace:/workspace{z} {names} {}",
            image("1.2.3")
        )
    };
    let keep_id = " --userns=keep-id:uid=1000,gid=1000 --user 1000:1000";
    for (program, answers, user) in [
        ("docker", docker("[name=seccomp]\n"), as_me()),
        (
            "docker",
            docker("[name=seccomp name=rootless]\n"),
            " --user 0:0".to_owned(),
        ),
        ("podman", podman("true\n"), keep_id.to_owned()),
        ("podman", podman("false\n"), as_me()),
        // Podman posing as docker.
        ("docker", podman("true\n"), keep_id.to_owned()),
    ] {
        let machine = Machine::new(program, &answers);
        let env = [("OPENAI_API_KEY", "marked"), ("STIGMER_ENGINE", program)];
        let ran = machine.run(&[], &env);
        assert!(ran.status.success(), "{ran:?}");
        assert_eq!(machine.call(), expected(program, &user));
        let workspace = machine.world.path("home/.stigmer/data/workspace");
        assert!(workspace.is_dir(), "it is made before the engine makes it");
    }
}

#[test]
fn the_program_answers_without_an_engine() {
    let machine = Machine::new("docker", &[answer("version", 1, "", "down\n")]);
    let said = |args: &[&str]| {
        let ran = machine.run(args, &[("STIGMER_ENGINE", "docker")]);
        let stdout = String::from_utf8(ran.stdout).unwrap();
        (
            ran.status.code(),
            stdout,
            String::from_utf8(ran.stderr).unwrap(),
        )
    };
    assert_eq!(
        said(&["--image"]),
        (Some(0), format!("{}\n", image("1.2.3")), String::new())
    );
    assert_eq!(said(&["--version"]).1, "1.2.3\n");
    assert!(said(&["--help"]).1.contains("\n  OPENAI_API_KEY\n"));
    assert_eq!(said(&["--nonsense"]).0, Some(2));
    assert!(machine.world.calls().is_empty());
    let (code, _, why) = said(&[]);
    assert_eq!(code, Some(1));
    assert!(
        why.starts_with("stigmer-agent-runner: docker does not answer: start it"),
        "{why}"
    );
}

#[test]
fn the_program_fetches_the_image_by_digest() {
    let machine = Machine::new("docker", &docker(""));
    assert!(machine.run(&["--pull"], &[]).status.success());
    assert_eq!(machine.call(), format!("docker pull {}", image("1.2.3")));
}
