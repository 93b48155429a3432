//! `cargo xtask` starts a program without an HTTP client, which hands some commands over to xtask.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::sandbox::{CommandOutput, PROJECT, Sandbox, XTASK, build, docker_version, no_container};

const CORE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/core");
/// The commands that send requests to a registry.
const HANDED_OVER: &[&str] = &[
    "ci-check",
    "push-archive",
    "push-image",
    "push-multiarch",
    "verify-image",
];

struct Handover {
    sandbox: Sandbox,
    program: PathBuf,
}

impl Handover {
    /// `cargo` stands in for Cargo: a script for `sh`.
    fn new(cargo: &str) -> Self {
        let sandbox =
            Sandbox::new(PROJECT).engine("docker", &[docker_version(), no_container("docker")]);
        let path = sandbox.path("cargo");
        fs::write(&path, format!("#!/bin/sh\n{cargo}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            program: build(&["xtask-core"]).join("xtask-core"),
            sandbox: sandbox.env("CARGO", path.to_str().unwrap()),
        }
    }

    /// Runs the program as `cargo run` does.
    fn run(&self, args: &[&str]) -> CommandOutput {
        let mut command = self.sandbox.command_of(&self.program, args);
        command
            .env("CARGO_PKG_NAME", "xtask-core")
            .env("CARGO_MANIFEST_DIR", CORE);
        self.sandbox.command_output(&command.output().unwrap())
    }
}

#[test]
fn commands_that_need_an_http_client_are_handed_over() {
    // The variables that describe the first program are removed. The user's own are not.
    let script =
        "printf '%s\\n' \"$@\" $CARGO_PKG_NAME $CARGO_MANIFEST_DIR $OUT_DIR $OUT_DIRECTORY; exit 7";
    let mut handover = Handover::new(script);
    handover.sandbox = handover
        .sandbox
        .env("OUT_DIR", "cargo")
        .env("OUT_DIRECTORY", "mine");
    let help = handover.run(&["help"]).stdout;
    let commands = help.lines().take_while(|line| !line.starts_with("Options"));
    let commands = commands.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let manifest = Path::new(CORE).with_file_name("Cargo.toml");
    let mut handed_over = Vec::new();
    for command in commands {
        let arguments = match command {
            "export" => &["compose"][..],
            "ask" => &["hello"],
            "completions" => &["bash"],
            "pack-archive" | "push-archive" => &["a.tar"],
            _ => &[],
        };
        let typed = [&[command][..], arguments, &["--dry-run"]].concat();
        let output = handover.run(&typed);
        if output.code == 7 {
            let mut expected = format!(
                "run\n--quiet\n--bin\nxtask\n--manifest-path\n{}\n--\n",
                manifest.display()
            );
            expected.extend(typed.iter().map(|word| format!("{word}\n")));
            expected.push_str("mine\n");
            assert_eq!(output.stdout, expected);
            handed_over.push(command.to_owned());
        }
        let no_client = "has no HTTP client";
        assert!(!output.stderr.contains(no_client), "{command}: {output:?}");
    }
    handed_over.sort();
    assert_eq!(handed_over, HANDED_OVER);
}

#[test]
fn a_command_that_was_handed_over_gives_the_same_result() {
    let script = format!(
        "while [ \"$1\" != -- ]; do shift; done; shift\n\
         CARGO_PKG_NAME=xtask exec {XTASK} \"$@\""
    );
    let handover = Handover::new(&script);
    for args in [
        &["ci-check", "--json"][..],
        &["verify-image", "--version", "1.2.3"],
    ] {
        let by_xtask = handover.sandbox.run(args);
        assert_ne!(by_xtask.code, 0, "{by_xtask:?}");
        assert_eq!(handover.run(args), by_xtask);
    }
}

#[test]
fn without_cargo_the_missing_client_is_named() {
    let handover = Handover::new("");
    let mut command = handover
        .sandbox
        .command_of(&handover.program, &["ci-check"]);
    command.env_remove("CARGO").env_remove("CARGO_PKG_NAME");
    let output = handover.sandbox.command_output(&command.output().unwrap());
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr,
        "error: this program has no HTTP client, which the command needs\n\
         hint: install the program that has one, and run the command with it: `cargo install --locked --path xtask`\n"
    );
}
