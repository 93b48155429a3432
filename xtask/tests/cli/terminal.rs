//! Questions and progress on a terminal, which `script` makes.

use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::sandbox::{
    CommandOutput, PROJECT, Sandbox, XTASK, answer, container, docker_version, image, skipped,
};

/// Runs a command of a sandbox on a terminal, and types an answer as soon as a text is shown. None without `script`.
fn on_terminal(
    sandbox: &Sandbox,
    line: &str,
    question: &str,
    typed: &[u8],
) -> Option<CommandOutput> {
    let mut command = script(&format!("'{XTASK}' {line}"))?;
    command
        .current_dir(sandbox.path("src"))
        .env_clear()
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", sandbox.path("bin").display()),
        )
        .env("HOME", sandbox.path("home"));
    Some(answer_question(command, question, typed))
}

/// As [`on_terminal`], for any command.
pub fn type_answer(command: &Command, question: &str, typed: &[u8]) -> Option<CommandOutput> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut script = script(&words.join(" "))?;
    script.current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    Some(answer_question(script, question, typed))
}

fn script(line: &str) -> Option<Command> {
    let Ok(script) = which::which("script") else {
        skipped("script");
        return None;
    };
    let mut command = Command::new(script);
    command.args(["-qec", line, "/dev/null"]);
    Some(command)
}

fn answer_question(mut script: Command, question: &str, typed: &[u8]) -> CommandOutput {
    let mut child = script
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (mut seen, mut chunk) = (Vec::new(), [0; 1024]);
    let mut asked = false;
    while let Ok(count @ 1..) = stdout.read(&mut chunk) {
        seen.extend_from_slice(&chunk[..count]);
        if !asked && String::from_utf8_lossy(&seen).contains(question) {
            asked = true;
            stdin.write_all(typed).unwrap();
        }
    }
    assert!(asked, "{}", String::from_utf8_lossy(&seen));
    let status = child.wait().unwrap();
    CommandOutput {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&seen).into_owned(),
        stderr: String::new(),
    }
}

fn with_container() -> Sandbox {
    Sandbox::new(PROJECT).engine(
        "docker",
        &[
            docker_version(),
            container("exited", true),
            answer("image ls", 0, "", ""),
            answer("rm", 0, "", ""),
            answer("login", 0, "Login Succeeded\n", ""),
        ],
    )
}

const CTRL_C: &[u8] = b"\x03";

#[test]
fn ctrl_c_ends_a_question() {
    for (line, question, never) in [
        ("clean", "Remove it? [y/N]", "docker rm"),
        (
            "login --username me --registry r.example",
            "token of me for r.example:",
            "docker login",
        ),
    ] {
        let sandbox = with_container();
        let start = Instant::now();
        let Some(output) = on_terminal(&sandbox, line, question, CTRL_C) else {
            return;
        };
        assert_eq!(output.code, 130, "{output:?}");
        assert!(output.stdout.contains("interrupted"), "{output:?}");
        assert!(start.elapsed() < Duration::from_secs(10));
        let called = sandbox.calls().iter().any(|call| call.starts_with(never));
        assert!(!called, "{:?}", sandbox.calls());
    }
}

#[test]
fn an_answer_is_read() {
    for (typed, is_removed) in [(&b"y\n"[..], true), (b"\n", false), (b"no\n", false)] {
        let sandbox = with_container();
        let Some(output) = on_terminal(&sandbox, "clean", "[y/N]", typed) else {
            return;
        };
        let calls = sandbox.calls();
        let removed = calls.iter().any(|call| call.starts_with("docker rm"));
        assert_eq!(removed, is_removed, "{output:?}");
    }
}

#[test]
fn a_typed_token_is_not_shown() {
    let sandbox = with_container();
    let line = "login --username me --registry r.example";
    let Some(output) = on_terminal(&sandbox, line, "token of me", b"geheim-123\n") else {
        return;
    };
    assert_eq!(output.code, 0, "{output:?}");
    assert!(!output.stdout.contains("geheim"), "{output:?}");
    let login = "docker login --username me --password-stdin r.example";
    assert!(sandbox.calls().contains(&login.to_owned()));
}

/// An engine draws its progress on a terminal itself. A failure that it prints there is recognised too.
#[test]
fn a_failed_build_has_a_hint_on_a_terminal() {
    let failed = answer(
        "build",
        1,
        "",
        "\u{1b}[1mERROR: failed to solve: write /x: no space left on device\u{1b}[0m\n",
    );
    let sandbox = Sandbox::new(PROJECT).engine("docker", &[docker_version(), image(), failed]);
    let line = "build-image --version dev-me --no-check";
    let Some(output) = on_terminal(&sandbox, line, "ERROR", b"") else {
        return;
    };
    assert_eq!(output.code, 1, "{output:?}");
    let drawn = "\u{1b}[1mERROR: failed to solve";
    assert!(output.stdout.contains(drawn), "as drawn: {output:?}");
    assert!(
        output.stdout.contains("cargo xtask explain disk-full")
            || output.stdout.contains("xtask explain disk-full"),
        "{output:?}"
    );
}
