//! Every command in unusual environments (no HOME, no PATH, a broken file, a full disk) exits with an
//! error message and never panics.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::symlink,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::commands::signal;
use crate::sandbox::{
    PROJECT, Sandbox, XTASK, answer, container, docker_version, image, no_container,
    no_container_at_first, podman_version, skipped,
};

/// Options that a command needs here to end, and to come further than its first check.
const OPTIONS: &[(&str, &[&str])] = &[
    ("run-local", &["--no-wait"]),
    ("watch", &["--dry-run"]), // it does not end by itself
    ("logs", &["--no-follow"]),
    ("shell", &["true"]),
    ("docker-login", &["--username", "me"]),
    ("formula", &["--version", "1.2.3"]),
];

/// A line for every command that the help lists, with a word for each argument that its usage requires.
fn lines() -> Vec<Vec<String>> {
    let sandbox = machine();
    let help = sandbox.run(&["help"]).stdout;
    let listed = help.lines().take_while(|line| !line.starts_with("Options"));
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let lines: Vec<_> = names.map(|name| line(&sandbox, name)).collect();
    assert!(lines.len() > 20, "{help}");
    lines
}

fn line(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let help = sandbox.run(&["help", name]).stdout;
    let usage = help.lines().find(|line| line.starts_with("Usage: "));
    let (_, usage) = usage.unwrap().split_once(name).unwrap();
    let options = OPTIONS.iter().find(|(of, _)| *of == name);
    let options = options.map_or(&[][..], |(_, options)| options);
    let version = help.contains("--version <VERSION>") && !options.contains(&"--version");
    let required = usage.split_whitespace().filter_map(|word| match word {
        "<SHELL>" => Some("bash"),
        word if word.starts_with('<') => Some("a.tar"),
        word if word.starts_with("--") => Some(word),
        _ => None,
    });
    [name]
        .into_iter()
        .chain(
            if version {
                &["--version", "dev-me"][..]
            } else {
                &[]
            }
            .iter()
            .copied(),
        )
        .chain(options.iter().copied())
        .chain(required)
        .map(str::to_owned)
        .collect()
}

/// The commands that need no configuration and no engine.
const NEEDS_NOTHING: &[&str] = &["explain", "completions", "help"];

fn answers(version: Value) -> Vec<Value> {
    vec![
        version,
        no_container("docker"),
        image(),
        answer("image ls", 0, "", ""),
        answer("buildx", 1, "", "ERROR: no builder\n"),
        answer("info", 0, "overlay2 null\n", ""),
    ]
}

fn machine() -> Sandbox {
    Sandbox::new(PROJECT)
        .engine("docker", &answers(docker_version()))
        .engine("podman", &answers(podman_version()))
}

fn ran(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code();
    let code = code.unwrap_or_else(|| 1000 + output.status.signal().unwrap_or(0));
    (code, text(&output.stdout), text(&output.stderr))
}

/// Checks that the command succeeded, or printed an error and ended with a known exit code.
fn assert_no_panic(what: &str, output: &Output) {
    let (code, stdout, stderr) = ran(output);
    let all = format!("{what}: exit code {code}\n{stdout}\n{stderr}");
    for word in ["panicked", "RUST_BACKTRACE", "unwrap", ".rs:"] {
        assert!(!stderr.contains(word), "{all}");
    }
    match code {
        0 => {}
        // clap's own errors begin so too.
        1 | 2 | 127 => assert!(
            stderr.lines().any(|line| line.starts_with("error: ")),
            "{all}"
        ),
        // The fake engine's, handed on.
        97 => {}
        _ => panic!("{all}"),
    }
}

/// Runs every command, with and without `--dry-run`, after `change`.
fn every_command(what: &str, sandbox: &Sandbox, change: impl Fn(&mut Command)) {
    for line in lines() {
        let mut line: Vec<_> = line.iter().map(String::as_str).collect();
        for dry_run in [false, true] {
            if dry_run && !line.contains(&"--dry-run") {
                line.push("--dry-run");
            }
            let mut command = sandbox.command(&line);
            change(&mut command);
            assert_no_panic(&format!("{what}: {line:?}"), &command.output().unwrap());
        }
    }
}

#[test]
fn a_json_report_is_an_object_with_a_schema() {
    let sandbox = machine();
    let (mut offered, mut printed) = (0, 0);
    for mut line in lines() {
        if !sandbox.run(&["help", &line[0]]).stdout.contains("  --json") {
            continue;
        }
        offered += 1;
        line.push("--json".to_owned());
        let line: Vec<_> = line.iter().map(String::as_str).collect();
        let output = sandbox.command(&line).output().unwrap();
        assert_no_panic(&format!("{line:?}"), &output);
        if output.stdout.is_empty() {
            assert_ne!(output.status.code(), Some(0), "{line:?}");
            continue;
        }
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["schema"], 1, "{line:?}: {report}");
        printed += 1;
    }
    assert!(offered > 6 && printed > 4, "{offered} {printed}");
}

#[test]
fn without_a_home() {
    let sandbox = machine();
    every_command("no HOME", &sandbox, |command| {
        command.env_remove("HOME");
    });
    let mut command = sandbox.command(&["run-local"]);
    let (code, _, stderr) = ran(&command.env_remove("HOME").output().unwrap());
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("needs your home folder, which is not known\nhint: set HOME"),
        "{stderr}"
    );
}

#[test]
fn without_a_path() {
    let sandbox = machine();
    every_command("no PATH", &sandbox, |command| {
        command.env_remove("PATH");
    });
    let mut command = sandbox.command(&["build-image"]);
    let (code, _, stderr) = ran(&command.env_remove("PATH").output().unwrap());
    assert_eq!(code, 1);
    assert!(
        stderr.contains("error: no container engine answers\n"),
        "{stderr}"
    );
}

#[test]
fn with_an_empty_or_strange_environment() {
    let sandbox = machine();
    every_command("nothing at all", &sandbox, |command| {
        command.env_clear();
    });
    let strange = OsStr::from_bytes(b"\xff\xfe");
    every_command("not UTF-8", &sandbox, |command| {
        command.env("HOME", strange).env("VERSION", strange);
        command.env("XTASK_RUN_CONTAINER", strange);
    });
    every_command("control characters", &sandbox, |command| {
        command.env("VERSION", "1.2\n3\u{1b}[31m");
        command.env("XTASK_RUN_NETWORK", "a\nb");
    });
}

#[test]
fn an_invalid_source_date_epoch_is_refused() {
    let sandbox = machine();
    for time in ["yesterday", "-1", "1.5", "999999999999999"] {
        every_command(time, &sandbox, |command| {
            command.env("SOURCE_DATE_EPOCH", time);
        });
        let mut command = sandbox.command(&["build-image", "--dry-run"]);
        let output = command.env("SOURCE_DATE_EPOCH", time).output().unwrap();
        let (code, _, stderr) = ran(&output);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("must be seconds since 1970"), "{stderr}");
    }
}

#[test]
fn arguments_that_are_not_utf8_are_refused() {
    let sandbox = machine();
    let mut command = sandbox.command(&["build-image", "--version"]);
    let output = command.arg(OsStr::from_bytes(b"dev-\xff")).output();
    let output = output.unwrap();
    assert_no_panic("an argument", &output);
    assert_eq!(output.status.code(), Some(2));
}

/// A copy of the checkout in a folder with this name.
fn moved(sandbox: &Sandbox, name: &OsStr) -> PathBuf {
    let root = sandbox.path("").join(name);
    fs::create_dir_all(root.join("deep")).unwrap();
    fs::copy(sandbox.path("src/xtask.toml"), root.join("xtask.toml")).unwrap();
    root
}

#[test]
fn a_path_with_shell_characters_works() {
    let sandbox = machine();
    let root = moved(
        &sandbox,
        OsStr::new("it's \"a\" $HOME `id`;\n&& *~ #\u{e9}\u{1f600}"),
    );
    every_command("a strange path", &sandbox, |command| {
        command.current_dir(root.join("deep"));
    });
    // The lines of a dry run work when pasted into a shell.
    let dry_run = {
        let mut command = sandbox.command(&["build-image", "--dry-run"]);
        ran(&command.current_dir(root.join("deep")).output().unwrap())
    };
    assert_eq!(dry_run.0, 0, "{dry_run:?}");
    let pasted = Command::new("/bin/sh")
        .args(["-c", &dry_run.1])
        .env_clear()
        .env("PATH", sandbox.path("bin"))
        .output()
        .unwrap();
    // The fake engine builds nothing; it notes what it is told.
    assert_eq!(pasted.status.code(), Some(97), "{pasted:?}");
    let calls = fs::read_to_string(sandbox.path("bin/calls")).unwrap();
    let told = format!("--file {}/Dockerfile --platform", root.display());
    assert!(calls.contains(&told), "{calls}");
}

#[test]
fn a_path_that_is_not_utf8_is_refused() {
    let sandbox = machine();
    let root = moved(&sandbox, OsStr::from_bytes(b"no-\xff-text"));
    every_command("a path that is no text", &sandbox, |command| {
        command.current_dir(&root);
    });
    let mut command = sandbox.command(&["build-image"]);
    let (code, _, stderr) = ran(&command.current_dir(&root).output().unwrap());
    assert_eq!(code, 2);
    assert!(stderr.contains("is not UTF-8"), "{stderr}");
    assert!(
        stderr.contains("hint: move the checkout to another folder"),
        "{stderr}"
    );
}

#[test]
fn a_missing_working_directory_is_reported() {
    let sandbox = machine();
    let gone = sandbox.path("src/gone");
    for line in lines() {
        fs::create_dir_all(&gone).unwrap();
        let line: Vec<_> = line.iter().map(String::as_str).collect();
        let mut command = sandbox.command(&line);
        command.current_dir(&gone);
        // SAFETY: removes a folder between fork and exec, with nothing but a system call.
        #[allow(unsafe_code)]
        unsafe {
            let gone = std::ffi::CString::new(gone.as_os_str().as_bytes()).unwrap();
            command.pre_exec(move || {
                libc::rmdir(gone.as_ptr());
                Ok(())
            });
        }
        assert_no_panic(&format!("{line:?}"), &command.output().unwrap());
    }
}

#[test]
fn an_unwritable_target_folder_is_reported() {
    let sandbox = machine();
    // Root can write anywhere, but not to a folder whose name is a file's.
    fs::write(sandbox.path("src/target"), "").unwrap();
    every_command("target is a file", &sandbox, |_| {});
    let ran = sandbox.run(&["build-multiarch", "--no-check"]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("mkdir"), "{}", ran.stderr);
}

#[test]
fn an_unreadable_configuration_is_reported() {
    let sandbox = machine();
    let file = sandbox.path("src/xtask.toml");
    for content in [
        &b"\xff\xfe"[..],
        b"",
        b"schema",
        b"schema = 99999999999999999999",
        b"\0",
        b"[[[[",
    ] {
        fs::write(&file, content).unwrap();
        every_command("a broken file", &sandbox, |_| {});
        let ran = sandbox.run(&["build-image"]);
        assert!(ran.code == 2 || ran.code == 1, "{ran:?}");
        assert!(ran.stderr.contains("xtask.toml"), "{}", ran.stderr);
    }
    fs::remove_file(&file).unwrap();
    symlink(&file, &file).unwrap();
    every_command("a link to itself", &sandbox, |_| {});
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    every_command("a folder", &sandbox, |_| {});
}

fn with_git(sandbox: Sandbox) -> Sandbox {
    symlink(which::which("git").unwrap(), sandbox.path("bin/git")).unwrap();
    sandbox
}

fn git(sandbox: &Sandbox, args: &[&str]) {
    let who = ["-c", "user.name=x", "-c", "user.email=x@example.com"];
    let output = Command::new("git")
        .args(who)
        .args(args)
        .current_dir(sandbox.path("src"))
        .output();
    assert!(output.unwrap().status.success(), "{args:?}");
}

#[test]
fn a_work_tree_without_git_builds() {
    let sandbox = with_git(machine());
    every_command("no work tree", &sandbox, |_| {});
    let ran = sandbox.run(&["build-image", "--dry-run"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.stdout.contains("revision"), "{}", ran.stdout);
    // A broken work tree counts as none.
    fs::write(sandbox.path("src/.git"), "gitdir: /nowhere\n").unwrap();
    every_command("a broken work tree", &sandbox, |_| {});
}

#[test]
fn a_detached_head_has_no_branch() {
    let project = format!(
        "{PROJECT}[[channel]]\nname = 'branch'\nmatch = ['branch']\ntags = ['{{git.branch}}']\npublish = 'no'\n"
    );
    let sandbox = with_git(Sandbox::new(&project).engine("docker", &answers(docker_version())));
    for args in [
        &["init", "-q"][..],
        &["add", "xtask.toml"],
        &["commit", "-q", "-m", "x"],
        &["checkout", "-q", "--detach"],
    ] {
        git(&sandbox, args);
    }
    every_command("detached", &sandbox, |_| {});
    let ran = sandbox.run(&["build-image", "--dry-run"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("image.revision="), "{}", ran.stdout);
    let ran = sandbox.run(&["build-image", "--dry-run", "--version", "branch"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("git.branch"), "{}", ran.stderr);
    let ran = sandbox.run(&["config", "--version", "branch"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let tags = "tags = []  # channel `branch`: the template `{git.branch}` uses `{git.branch}`, but no branch is checked out\n";
    assert!(ran.stdout.contains(tags), "{}", ran.stdout);
    let ran = sandbox.run(&["config", "--json", "--version", "branch"]);
    assert!(ran.stdout.contains("no branch is checked out"), "{ran:?}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let sandbox = machine();
    for line in [
        &["config"][..],
        &["explain"],
        &["help"],
        &["doctor"],
        &["completions", "bash"],
    ] {
        let mut command = sandbox.command(line);
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let (code, _, stderr) = ran(&output);
        assert!(!stderr.contains("Broken pipe"), "{line:?}: {stderr}");
        assert!(code == 0 || line == ["doctor"], "{line:?}: {code} {stderr}");
        // Standard error is closed too.
        let mut command = sandbox.command(line);
        let mut child = command.spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_ne!(child.wait().unwrap().code(), Some(101), "{line:?}");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let sandbox = machine();
    for line in [
        &["config"][..],
        &["explain"],
        &["help"],
        &["completions", "bash"],
        &["build-image", "--dry-run"],
    ] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = sandbox.command(line).stdout(full).output().unwrap();
        assert_no_panic(&format!("{line:?} > /dev/full"), &output);
        assert_ne!(output.status.code(), Some(0), "{line:?}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            stderr.contains("No space left on device"),
            "{line:?}: {stderr}"
        );
    }
}

#[test]
fn closed_standard_streams_do_no_harm() {
    let sandbox = machine();
    for line in lines() {
        let words: String = line.iter().map(|word| format!(" '{word}'")).collect();
        let script = format!("exec '{XTASK}'{words} <&- >&- 2>&-");
        let status = Command::new("/bin/sh")
            .args(["-c", &script])
            .current_dir(sandbox.path("src"))
            .env_clear()
            .env("PATH", sandbox.path("bin"))
            .env("HOME", sandbox.path("home"))
            .status()
            .unwrap();
        assert!(
            status.code().is_some_and(|code| code != 101),
            "{line:?}: {status}"
        );
    }
}

/// What is said on a terminal of this width, with these variables.
fn on_terminal(
    sandbox: &Sandbox,
    columns: u16,
    env: &[(&str, &str)],
    line: &[&str],
) -> Option<String> {
    let script = which::which("script").ok()?;
    let stty = sandbox.path("bin/stty");
    if !stty.exists() {
        symlink(which::which("stty").ok()?, stty).unwrap();
    }
    let words: String = line.iter().map(|word| format!(" '{word}'")).collect();
    let output = Command::new(script)
        .args([
            "-qec",
            &format!("stty cols {columns}; '{XTASK}'{words}"),
            "/dev/null",
        ])
        .current_dir(sandbox.path("src"))
        .env_clear()
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", sandbox.path("bin").display()),
        )
        .env("HOME", sandbox.path("home"))
        .env("TERM", "xterm-256color")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let sandbox = machine();
    let lines: &[&[&str]] = &[
        &["doctor"],
        &["config"],
        &["build-image", "--version", "?"],
        &["help"],
    ];
    for line in lines {
        let Some(coloured) = on_terminal(&sandbox, 80, &[], line) else {
            return skipped("script");
        };
        let plain = on_terminal(&sandbox, 80, &[("NO_COLOR", "1")], line).unwrap();
        assert!(!plain.contains("\x1b[1;3"), "{line:?}: {plain}");
        if *line == ["build-image", "--version", "?"] {
            assert!(coloured.contains("\x1b[1;31merror:"), "{coloured:?}");
            assert!(plain.contains("error: "), "{plain:?}");
        }
        let output = sandbox.command(line).output().unwrap();
        assert!(
            !output.stderr.contains(&0x1b) && !output.stdout.contains(&0x1b),
            "{line:?}"
        );
    }
}

#[test]
fn progress_lines_fit_into_forty_columns() {
    // The container never becomes healthy, so the progress line is redrawn.
    let mut answers = answers(docker_version());
    answers.extend([
        answer("run", 0, "0123456789abcdef\n", ""),
        answer(
            "exec",
            1,
            "not yet, and what is said of it is long enough to fill two lines\n",
            "",
        ),
        answer("logs", 0, "", ""),
    ]);
    let starting = container("running", true);
    answers.insert(0, no_container_at_first());
    answers.insert(1, starting);
    let project = format!("{PROJECT}[health]\nbudget = '2s'\n");
    let sandbox = Sandbox::new(&project).engine("docker", &answers);
    for line in [
        &["run-local"][..],
        &["doctor"],
        &["config"],
        &["status"],
        &["clean", "--dry-run"],
    ] {
        let Some(said) = on_terminal(&sandbox, 40, &[], line) else {
            return skipped("script");
        };
        assert!(!said.contains("panicked"), "{line:?}: {said}");
        // A line that is drawn over must not be wider than the terminal, or a part of it stays.
        let drawn: Vec<_> = said.split("\r\x1b[J\x1b[2m").skip(1).collect();
        assert!(line != ["run-local"] || !drawn.is_empty(), "{said:?}");
        for text in drawn {
            let text = text.split(['\r', '\n']).next().unwrap_or_default();
            assert!(visible(text) < 40, "{line:?}: {text:?}");
        }
    }
}

/// How many characters are seen.
fn visible(text: &str) -> usize {
    let mut count = 0;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            rest.by_ref().find(char::is_ascii_alphabetic);
        } else {
            count += 1;
        }
    }
    count
}

#[test]
fn standalone_commands_work_in_any_folder() {
    for name in NEEDS_NOTHING {
        let output = Command::new(XTASK)
            .args(line(&machine(), name))
            .current_dir(Path::new("/"))
            .env_clear()
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
    }
}

/// A sandbox in which every call succeeds, with a Temporal on this port. The container runs when the engine is first
/// asked, or only later.
fn working_sandbox(temporal: u16, runs_at_first: bool) -> Sandbox {
    let ok = |args: &str| answer(args, 0, "", "");
    let settings = format!(
        "env = {{ TEMPORAL_SERVICE_ADDRESS = 'localhost:{temporal}' }}\n[health]\ncommand = ['probe']\n"
    );
    let runs = container("running", true);
    let at_first = if runs_at_first {
        runs.clone()
    } else {
        no_container_at_first()
    };
    Sandbox::new(&format!("{PROJECT}{settings}")).engine(
        "docker",
        &[
            docker_version(),
            at_first,
            runs,
            image(),
            answer("run", 0, "0123456789abcdef\n", ""),
            ok("exec"),
            ok("rm"),
            ok("stop"),
            ok("image rm"),
            answer("image ls", 0, "sha256:0123456789abcdef\n", ""),
            ok("build"),
            ok("logs"),
            ok("volume"),
            ok("restart"),
            answer("info", 0, "overlay2 null\n", ""),
            answer("buildx", 0, "", ""),
        ],
    )
}

/// Ctrl-C during any engine call ends the command at once with the signal's code, and temporary
/// containers are removed.
#[test]
fn an_interruption_at_any_call_ends_at_once() {
    let temporal = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = temporal.local_addr().unwrap().port();
    let (mut moments, mut started) = (0, 0);
    for line in [
        "check --version dev-me",
        "build-image --version dev-me",
        "run-local --version dev-me",
        "test-image --version dev-me",
        "status --exit-code",
        "doctor",
        "stop",
        "up --version dev-me",
        "down",
        "smoke --version dev-me",
        "clean --yes --version dev-me",
        "build-multiarch --version dev-me",
    ] {
        let line: Vec<_> = line.split(' ').collect();
        let line = &line[..];
        let runs_at_first = matches!(line[0], "status" | "doctor" | "stop" | "down");
        let (count, usual) = {
            let sandbox = working_sandbox(port, runs_at_first);
            let ran = sandbox.run(line);
            (sandbox.calls().len(), ran.code)
        };
        assert!(count > 0, "{line:?}");
        for number in 1..=count {
            let sandbox = working_sandbox(port, runs_at_first);
            fs::write(sandbox.path("bin/hang"), number.to_string()).unwrap();
            let child = sandbox.start(line);
            let begin = Instant::now();
            // Calls side by side come in any order, and one may answer before the other hangs.
            while sandbox.calls().len() < number && begin.elapsed() < Duration::from_secs(5) {
                thread::sleep(Duration::from_millis(2));
            }
            thread::sleep(Duration::from_millis(20));
            signal(child.id(), libc::SIGINT);
            let sent = Instant::now();
            let ran = sandbox.command_output(&child.wait_with_output().unwrap());
            let took = sent.elapsed();
            let what = format!(
                "{line:?}, call {number} of {count}: {ran:?} {:?}",
                sandbox.calls()
            );
            assert!(took < Duration::from_secs(5), "{took:?}: {what}");
            assert!(!ran.stderr.contains("panicked"), "{what}");
            // With parallel calls, the hanging call may not be reached before the command ends.
            let done = sandbox.calls().len() >= count && ran.code == usual;
            assert!(ran.code == 130 || done, "{what}");
            moments += 1;
            if matches!(line[0], "test-image" | "smoke") {
                for name in names_of(&sandbox, " run ") {
                    started += 1;
                    let gone = names_of(&sandbox, " rm ");
                    assert!(gone.contains(&name), "{name} is left: {what}");
                }
            }
        }
    }
    assert!(moments > 30 && started > 5, "{moments} {started}");
}

/// The containers of the calls of a kind.
fn names_of(sandbox: &Sandbox, kind: &str) -> Vec<String> {
    let calls = sandbox.calls();
    let of_kind = calls.iter().filter(|call| call.contains(kind));
    of_kind
        .filter_map(|call| {
            let mut words = call.split(' ');
            if kind == " run " {
                words.find(|word| *word == "--name")?;
                words.next().map(str::to_owned)
            } else {
                words.next_back().map(str::to_owned)
            }
        })
        .collect()
}
