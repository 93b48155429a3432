//! `formula`: the formula is valid Ruby, and its wrapper starts the container with the right options.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::sandbox::{CommandOutput, Sandbox, answer, docker_version, skipped};

/// This repository's xtask.toml, for whose image the formula is.
const PROJECT: &str = include_str!("../../../xtask.toml");
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

/// Writes a receipt like `push-multiarch`.
fn receipt(sandbox: &Sandbox, version: &str) {
    let folder = sandbox.path("src/target/dist");
    fs::create_dir_all(&folder).unwrap();
    let receipt = json!({
        "schema": 1, "image": "ghcr.io/stigmer/agent-runner", "version": version,
        "channel": "release", "digest": digest(version), "reference": image(version),
        "platforms": [{ "platform": "linux/amd64" }, { "platform": "linux/arm64" }],
        "revision": "3f1c0a9b7d523f1c0a9b7d523f1c0a9b7d523f1c",
    });
    fs::write(folder.join(format!("{version}.json")), receipt.to_string()).unwrap();
}

fn formula(sandbox: &Sandbox, version: &str) -> CommandOutput {
    receipt(sandbox, version);
    sandbox.run(&["formula", "--version", version])
}

fn versions(sandbox: &Sandbox) -> Vec<String> {
    let text = fs::read_to_string(sandbox.path(VERSIONS)).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let all = all["versions"].as_array().unwrap();
    all.iter()
        .map(|one| one["version"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_formula_has_the_newest_stable_version() {
    let sandbox = Sandbox::new(PROJECT);
    let output = formula(&sandbox, "1.9.0");
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, format!("/{VERSIONS}\n/{FORMULA}\n").as_str()),
        "{output:?}"
    );
    assert_eq!(formula(&sandbox, "1.10.0").code, 0);
    let newest = fs::read_to_string(sandbox.path(FORMULA)).unwrap();
    assert!(newest.contains(&image("1.10.0")), "{newest}");

    // A patch of an older release line, and a pre-release.
    for version in ["1.9.1", "2.0.0-rc.1"] {
        let output = formula(&sandbox, version);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (0, format!("/{VERSIONS}\n").as_str())
        );
        assert!(
            output.stderr.ends_with("Kept the formula of 1.10.0\n"),
            "{}",
            output.stderr
        );
        assert_eq!(fs::read_to_string(sandbox.path(FORMULA)).unwrap(), newest);
    }
    assert_eq!(
        versions(&sandbox),
        ["2.0.0-rc.1", "1.10.0", "1.9.1", "1.9.0"]
    );

    // An empty folder has no newer version.
    let elsewhere = sandbox.run(&["formula", "--version", "1.9.0", "--output", "tap"]);
    assert_eq!(elsewhere.code, 0, "{elsewhere:?}");
    let there = fs::read_to_string(sandbox.path("src/deep/er/tap/stigmer-agent-runner.rb"));
    assert!(there.unwrap().contains(&image("1.9.0")));
}

#[test]
fn the_formulas_name_is_that_of_the_project() {
    let sandbox = Sandbox::new(PROJECT).env("XTASK_RUN_CONTAINER", "mine");
    let output = formula(&sandbox, "1.2.3");
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, format!("/{VERSIONS}\n/{FORMULA}\n").as_str()),
        "{output:?}"
    );
    let text = fs::read_to_string(sandbox.path(FORMULA)).unwrap();
    assert!(text.contains("class StigmerAgentRunner "), "{text}");
    assert!(!text.contains("mine"), "{text}");
}

#[test]
fn a_formula_without_a_receipt_is_an_error() {
    let sandbox = Sandbox::new(PROJECT);
    let output = sandbox.run(&["formula", "--version", "1.2.3"]);
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr,
        "error: there is no receipt of 1.2.3: cannot read `target/dist/1.2.3.json`: No such file or directory (os error 2)\n\
         hint: publish it: `cargo xtask push-multiarch --version 1.2.3`; if it is published already, that only writes the receipt\n"
    );
    let output = sandbox.run(&["formula", "--version", "dev-me"]);
    assert_eq!(output.code, 2, "{output:?}");
    receipt(&sandbox, "1.2.3");
    let dry = sandbox.run(&["formula", "--version", "1.2.3", "--dry-run"]);
    assert_eq!(
        dry.stdout,
        "# read target/dist/1.2.3.json\n\
         # put 1.2.3 into target/dist/versions.json\n\
         # write target/dist/stigmer-agent-runner.rb, unless a newer version is in versions.json\n"
    );
    assert!(!sandbox.path(FORMULA).exists());
}

/// Whether this machine has a tool. In CI, a missing tool fails the test.
fn have(tool: &str) -> bool {
    let found = which::which(tool).is_ok();
    if !found {
        skipped(tool);
    }
    found
}

#[test]
fn the_formula_is_valid_ruby() {
    if !have("ruby") {
        return;
    }
    let sandbox = Sandbox::new(PROJECT);
    formula(&sandbox, "1.2.3");
    let path = sandbox.path(FORMULA);
    let output = Command::new("ruby").arg("-wc").arg(&path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // Stubs of Homebrew's classes. `install` then writes the wrapper.
    let brew = format!(
        "class Formula; def self.method_missing(*) = nil; def self.test = nil; def bin = Dir.pwd; def chmod(mode, path) = File.chmod(mode, path); end\n\
         class String; def /(name) = Pathname.new(self).join(name); end\n\
         require 'pathname'\nload '{}'\nStigmerAgentRunner.new.install\n",
        path.display()
    );
    let output = Command::new("ruby")
        .args(["-e", &brew])
        .current_dir(sandbox.path("home"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let program = sandbox.path("home/stigmer-agent-runner");
    assert_eq!(
        fs::metadata(&program).unwrap().permissions().mode() & 0o777,
        0o755
    );
    assert_eq!(
        fs::read_to_string(program).unwrap(),
        wrapper(&sandbox),
        "`wrapper` does not find the wrapper in the formula"
    );
}

/// The wrapper in the formula: a shell script.
fn wrapper(sandbox: &Sandbox) -> String {
    let text = fs::read_to_string(sandbox.path(FORMULA)).unwrap();
    let program = text.split("<<~'SH'\n").nth(1).unwrap();
    let program = program.split("    SH\n").next().unwrap();
    program
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("      ").unwrap_or(line)))
        .collect()
}

/// A sandbox with the wrapper. The engine is a fake one, and the other tools are real.
struct Machine {
    sandbox: Sandbox,
    program: PathBuf,
}

impl Machine {
    fn new(engine: &str, answers: &[Value]) -> Self {
        let sandbox = Sandbox::new(PROJECT);
        assert_eq!(formula(&sandbox, "1.2.3").code, 0);
        let program = sandbox.path("wrapper");
        fs::write(&program, wrapper(&sandbox)).unwrap();
        Self {
            sandbox: sandbox.engine(engine, answers),
            program,
        }
    }

    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.sandbox.path("bin").display());
        Command::new("/bin/sh")
            .arg(&self.program)
            .args(args)
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.sandbox.path("home"))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The engine's last call.
    fn call(&self) -> String {
        self.sandbox.calls().pop().unwrap_or_default()
    }
}

fn docker(info: &str) -> Vec<Value> {
    vec![
        docker_version(),
        answer("--version", 0, "Docker version 28.2.2, build e6534b4\n", ""),
        answer("info", 0, info, ""),
        answer("run", 0, "", ""),
        answer("pull", 0, "", ""),
    ]
}

#[test]
fn the_wrapper_prints_its_version_without_an_engine() {
    let machine = Machine::new("docker", &[answer("version", 1, "", "down\n")]);
    let run = |args: &[&str]| {
        let output = machine.run(args, &[("STIGMER_ENGINE", "docker")]);
        let stdout = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code(),
            stdout,
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(
        run(&["--image"]),
        (Some(0), format!("{}\n", image("1.2.3")), String::new())
    );
    assert_eq!(run(&["--version"]).1, "1.2.3\n");
    assert!(run(&["--help"]).1.contains("\n  OPENAI_API_KEY\n"));
    assert_eq!(run(&["--nonsense"]).0, Some(2));
    assert!(machine.sandbox.calls().is_empty());
    let (code, _, why) = run(&[]);
    assert_eq!(code, Some(1));
    assert!(
        why.starts_with("stigmer-agent-runner: docker does not answer: start it"),
        "{why}"
    );
}

#[test]
fn the_wrapper_pulls_the_image_by_digest() {
    let machine = Machine::new("docker", &docker(""));
    assert!(machine.run(&["--pull"], &[]).status.success());
    assert_eq!(machine.call(), format!("docker pull {}", image("1.2.3")));
}

/// The container uses the host's network and user, which is so on Linux only.
#[cfg(target_os = "linux")]
mod on_linux {
    use super::*;
    use crate::sandbox::podman_version;

    const OPTIONS: &str = "--pids-limit 512 --init --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --stop-timeout 10";

    fn podman(rootless: &str) -> Vec<Value> {
        vec![
            podman_version(),
            answer("--version", 0, "podman version 4.3.1\n", ""),
            answer("info", 0, rootless, ""),
            answer("run", 0, "", ""),
        ]
    }

    /// The option `--user` for the user who runs the tests; empty for root.
    fn user_option() -> String {
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
    fn the_wrapper_starts_the_released_image() {
        let enforcing =
            fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|on| on.trim() == "1");
        let z = if enforcing { ":z" } else { "" };
        let names = "--env TEMPORAL_SERVICE_ADDRESS --env STIGMER_BACKEND_ENDPOINT --env OPENAI_API_KEY --env MODE --env SANDBOX_ROOT_DIR --env SANDBOX_TYPE";
        let expected = |engine: &str, user: &str| {
            format!(
                "{engine} run --rm --name stigmer-agent-runner {OPTIONS}{user} --network host --volume /home/.stigmer/data/workspace:/workspace{z} {names} {}",
                image("1.2.3")
            )
        };
        let no_proxy = " --http-proxy=false";
        let keep_id = format!("{no_proxy} --userns=keep-id:uid=1000,gid=1000 --user 1000:1000");
        for (program, answers, user) in [
            ("docker", docker("[name=seccomp]\n"), user_option()),
            (
                "docker",
                docker("[name=seccomp name=rootless]\n"),
                " --user 0:0".to_owned(),
            ),
            ("podman", podman("true\n"), keep_id.clone()),
            (
                "podman",
                podman("false\n"),
                no_proxy.to_owned() + &user_option(),
            ),
            // Podman installed as `docker`.
            ("docker", podman("true\n"), keep_id),
        ] {
            let machine = Machine::new(program, &answers);
            let env = [("OPENAI_API_KEY", "marked"), ("STIGMER_ENGINE", program)];
            let output = machine.run(&[], &env);
            assert!(output.status.success(), "{output:?}");
            assert_eq!(machine.call(), expected(program, &user));
            let workspace = machine.sandbox.path("home/.stigmer/data/workspace");
            assert!(
                workspace.is_dir(),
                "the wrapper did not create the workspace"
            );
        }
    }
}
