//! Odd worlds: whatever is missing, misspelt or full, every command says what is wrong in its own
//! words and ends as a command does, with no panic and no silence.

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
    let world = machine();
    let help = world.run(&["help"]).stdout;
    let listed = help.lines().take_while(|line| !line.starts_with("Options"));
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let lines: Vec<_> = names.map(|name| line(&world, name)).collect();
    assert!(lines.len() > 20, "{help}");
    lines
}

fn line(world: &Sandbox, name: &str) -> Vec<String> {
    let help = world.run(&["help", name]).stdout;
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

/// Those that need nothing of the world.
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

/// It ended as a command does: well, or with an error of its own and one of its codes.
fn is_sane(what: &str, output: &Output) {
    let (code, stdout, stderr) = ran(output);
    let all = format!("{what}: exit code {code}\n{stdout}\n{stderr}");
    for word in ["panicked", "RUST_BACKTRACE", "unwrap", "src/main.rs"] {
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

/// Every command in a world that `change` makes odd, rehearsed and for good.
fn every_command(what: &str, world: &Sandbox, change: impl Fn(&mut Command)) {
    for line in lines() {
        let mut line: Vec<_> = line.iter().map(String::as_str).collect();
        for rehearsed in [false, true] {
            if rehearsed && !line.contains(&"--dry-run") {
                line.push("--dry-run");
            }
            let mut command = world.command(&line);
            change(&mut command);
            is_sane(&format!("{what}: {line:?}"), &command.output().unwrap());
        }
    }
}

#[test]
fn a_json_report_is_an_object_with_a_schema() {
    let world = machine();
    let (mut offered, mut printed) = (0, 0);
    for mut line in lines() {
        if !world.run(&["help", &line[0]]).stdout.contains("  --json") {
            continue;
        }
        offered += 1;
        line.push("--json".to_owned());
        let line: Vec<_> = line.iter().map(String::as_str).collect();
        let output = world.command(&line).output().unwrap();
        is_sane(&format!("{line:?}"), &output);
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
    let world = machine();
    every_command("no HOME", &world, |command| {
        command.env_remove("HOME");
    });
    let mut command = world.command(&["run-local"]);
    let (code, _, stderr) = ran(&command.env_remove("HOME").output().unwrap());
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("HOME, which is not set"), "{stderr}");
}

#[test]
fn without_a_path() {
    let world = machine();
    every_command("no PATH", &world, |command| {
        command.env_remove("PATH");
    });
    let mut command = world.command(&["build-image"]);
    let (code, _, stderr) = ran(&command.env_remove("PATH").output().unwrap());
    assert_eq!(code, 1);
    assert!(
        stderr.contains("error: no container engine answers\n"),
        "{stderr}"
    );
}

#[test]
fn with_an_empty_or_strange_environment() {
    let world = machine();
    every_command("nothing at all", &world, |command| {
        command.env_clear();
    });
    let strange = OsStr::from_bytes(b"\xff\xfe");
    every_command("not UTF-8", &world, |command| {
        command.env("HOME", strange).env("VERSION", strange);
        command.env("XTASK_RUN_CONTAINER", strange);
    });
    every_command("control characters", &world, |command| {
        command.env("VERSION", "1.2\n3\u{1b}[31m");
        command.env("XTASK_RUN_NETWORK", "a\nb");
    });
}

#[test]
fn a_time_that_is_none_is_refused() {
    let world = machine();
    for time in ["yesterday", "-1", "1.5", "999999999999999"] {
        every_command(time, &world, |command| {
            command.env("SOURCE_DATE_EPOCH", time);
        });
        let mut command = world.command(&["build-image", "--dry-run"]);
        let output = command.env("SOURCE_DATE_EPOCH", time).output().unwrap();
        let (code, _, stderr) = ran(&output);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("must be seconds since 1970"), "{stderr}");
    }
}

#[test]
fn arguments_that_are_no_text_are_refused() {
    let world = machine();
    let mut command = world.command(&["build-image", "--version"]);
    let output = command.arg(OsStr::from_bytes(b"dev-\xff")).output();
    let output = output.unwrap();
    is_sane("an argument", &output);
    assert_eq!(output.status.code(), Some(2));
}

/// The workspace at another place.
fn moved(world: &Sandbox, name: &OsStr) -> PathBuf {
    let root = world.path("").join(name);
    fs::create_dir_all(root.join("deep")).unwrap();
    fs::copy(world.path("src/xtask.toml"), root.join("xtask.toml")).unwrap();
    root
}

#[test]
fn a_path_with_all_that_a_shell_knows_works() {
    let world = machine();
    let root = moved(
        &world,
        OsStr::new("it's \"a\" $HOME `id`;\n&& *~ #\u{e9}\u{1f600}"),
    );
    every_command("a strange path", &world, |command| {
        command.current_dir(root.join("deep"));
    });
    // What is rehearsed, pasted into a shell, is what would be called.
    let rehearsed = {
        let mut command = world.command(&["build-image", "--dry-run"]);
        ran(&command.current_dir(root.join("deep")).output().unwrap())
    };
    assert_eq!(rehearsed.0, 0, "{rehearsed:?}");
    let pasted = Command::new("/bin/sh")
        .args(["-c", &rehearsed.1])
        .env_clear()
        .env("PATH", world.path("bin"))
        .output()
        .unwrap();
    // The fake engine builds nothing; it notes what it is told.
    assert_eq!(pasted.status.code(), Some(97), "{pasted:?}");
    let calls = fs::read_to_string(world.path("bin/calls")).unwrap();
    let told = format!("--file {}/Dockerfile --platform", root.display());
    assert!(calls.contains(&told), "{calls}");
}

#[test]
fn a_path_that_is_no_text_is_refused_at_once() {
    let world = machine();
    let root = moved(&world, OsStr::from_bytes(b"no-\xff-text"));
    every_command("a path that is no text", &world, |command| {
        command.current_dir(&root);
    });
    let mut command = world.command(&["build-image"]);
    let (code, _, stderr) = ran(&command.current_dir(&root).output().unwrap());
    assert_eq!(code, 2);
    assert!(stderr.contains("is not UTF-8"), "{stderr}");
    assert!(
        stderr.contains("hint: move the checkout to another folder"),
        "{stderr}"
    );
}

#[test]
fn a_folder_that_is_gone_is_told() {
    let world = machine();
    let gone = world.path("src/gone");
    for line in lines() {
        fs::create_dir_all(&gone).unwrap();
        let line: Vec<_> = line.iter().map(String::as_str).collect();
        let mut command = world.command(&line);
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
        is_sane(&format!("{line:?}"), &command.output().unwrap());
    }
}

#[test]
fn a_target_that_cannot_be_written_is_told() {
    let world = machine();
    // Root may write anywhere; a file in the folder's place stops everybody.
    fs::write(world.path("src/target"), "").unwrap();
    every_command("target is a file", &world, |_| {});
    let ran = world.run(&["build-multiarch", "--no-check"]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("mkdir"), "{}", ran.stderr);
}

#[test]
fn a_configuration_that_cannot_be_read_is_told() {
    let world = machine();
    let file = world.path("src/xtask.toml");
    for content in [
        &b"\xff\xfe"[..],
        b"",
        b"schema",
        b"schema = 99999999999999999999",
        b"\0",
        b"[[[[",
    ] {
        fs::write(&file, content).unwrap();
        every_command("a broken file", &world, |_| {});
        let ran = world.run(&["build-image"]);
        assert!(ran.code == 2 || ran.code == 1, "{ran:?}");
        assert!(ran.stderr.contains("xtask.toml"), "{}", ran.stderr);
    }
    fs::remove_file(&file).unwrap();
    symlink(&file, &file).unwrap();
    every_command("a link to itself", &world, |_| {});
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    every_command("a folder", &world, |_| {});
}

fn with_git(world: Sandbox) -> Sandbox {
    symlink(which::which("git").unwrap(), world.path("bin/git")).unwrap();
    world
}

fn git(world: &Sandbox, args: &[&str]) {
    let who = ["-c", "user.name=x", "-c", "user.email=x@example.com"];
    let output = Command::new("git")
        .args(who)
        .args(args)
        .current_dir(world.path("src"))
        .output();
    assert!(output.unwrap().status.success(), "{args:?}");
}

#[test]
fn a_work_tree_without_git_builds() {
    let world = with_git(machine());
    every_command("no work tree", &world, |_| {});
    let ran = world.run(&["build-image", "--dry-run"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.stdout.contains("revision"), "{}", ran.stdout);
    // One that is broken is as good as none.
    fs::write(world.path("src/.git"), "gitdir: /nowhere\n").unwrap();
    every_command("a broken work tree", &world, |_| {});
}

#[test]
fn a_detached_head_has_no_branch() {
    let project = format!(
        "{PROJECT}[[channel]]\nname = 'branch'\nmatch = ['branch']\ntags = ['{{git.branch}}']\npublish = 'no'\n"
    );
    let world = with_git(Sandbox::new(&project).engine("docker", &answers(docker_version())));
    for args in [
        &["init", "-q"][..],
        &["add", "xtask.toml"],
        &["commit", "-q", "-m", "x"],
        &["checkout", "-q", "--detach"],
    ] {
        git(&world, args);
    }
    every_command("detached", &world, |_| {});
    let ran = world.run(&["build-image", "--dry-run"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("image.revision="), "{}", ran.stdout);
    let ran = world.run(&["build-image", "--dry-run", "--version", "branch"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("git.branch"), "{}", ran.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let world = machine();
    for line in [
        &["config"][..],
        &["explain"],
        &["help"],
        &["doctor"],
        &["completions", "bash"],
    ] {
        let mut command = world.command(line);
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let (code, _, stderr) = ran(&output);
        assert!(!stderr.contains("Broken pipe"), "{line:?}: {stderr}");
        assert!(code == 0 || line == ["doctor"], "{line:?}: {code} {stderr}");
        // And nobody who listens to what is said.
        let mut command = world.command(line);
        let mut child = command.spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_ne!(child.wait().unwrap().code(), Some(101), "{line:?}");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let world = machine();
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
        let output = world.command(line).stdout(full).output().unwrap();
        is_sane(&format!("{line:?} > /dev/full"), &output);
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
    let world = machine();
    for line in lines() {
        let words: String = line.iter().map(|word| format!(" '{word}'")).collect();
        let script = format!("exec '{XTASK}'{words} <&- >&- 2>&-");
        let status = Command::new("/bin/sh")
            .args(["-c", &script])
            .current_dir(world.path("src"))
            .env_clear()
            .env("PATH", world.path("bin"))
            .env("HOME", world.path("home"))
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
    world: &Sandbox,
    columns: u16,
    env: &[(&str, &str)],
    line: &[&str],
) -> Option<String> {
    let script = which::which("script").ok()?;
    let stty = world.path("bin/stty");
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
        .current_dir(world.path("src"))
        .env_clear()
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", world.path("bin").display()),
        )
        .env("HOME", world.path("home"))
        .env("TERM", "xterm-256color")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let world = machine();
    let lines: &[&[&str]] = &[
        &["doctor"],
        &["config"],
        &["build-image", "--version", "?"],
        &["help"],
    ];
    for line in lines {
        let Some(coloured) = on_terminal(&world, 80, &[], line) else {
            return skipped("script");
        };
        let plain = on_terminal(&world, 80, &[("NO_COLOR", "1")], line).unwrap();
        assert!(!plain.contains("\x1b[1;3"), "{line:?}: {plain}");
        if *line == ["build-image", "--version", "?"] {
            assert!(coloured.contains("\x1b[1;31merror:"), "{coloured:?}");
            assert!(plain.contains("error: "), "{plain:?}");
        }
        let output = world.command(line).output().unwrap();
        assert!(
            !output.stderr.contains(&0x1b) && !output.stdout.contains(&0x1b),
            "{line:?}"
        );
    }
}

#[test]
fn forty_columns_are_enough() {
    // Never healthy: the line that tells of waiting is drawn over and over.
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
    let world = Sandbox::new(&project).engine("docker", &answers);
    for line in [
        &["run-local"][..],
        &["doctor"],
        &["config"],
        &["status"],
        &["clean", "--dry-run"],
    ] {
        let Some(said) = on_terminal(&world, 40, &[], line) else {
            return skipped("script");
        };
        assert!(!said.contains("panicked"), "{line:?}: {said}");
        // A line that is drawn over must not be wider than the terminal, or a part of it stays.
        let drawn: Vec<_> = said.split("\r\x1b[2K\x1b[2m").skip(1).collect();
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
fn those_that_need_nothing_work_anywhere() {
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

/// A machine on which everything works at once, and a Temporal answers at this port: `up` would
/// wait a minute for one that never comes.
fn willing(temporal: u16) -> Sandbox {
    let ok = |args: &str| answer(args, 0, "", "");
    let address = format!("env = {{ TEMPORAL_SERVICE_ADDRESS = 'localhost:{temporal}' }}\n");
    Sandbox::new(&format!("{PROJECT}{address}")).engine(
        "docker",
        &[
            docker_version(),
            no_container_at_first(),
            container("running", true),
            image(),
            answer("run", 0, "0123456789abcdef\n", ""),
            ok("exec"),
            ok("rm"),
            ok("stop"),
            ok("image rm"),
            answer(
                "image ls",
                0,
                "ghcr.io/x/y:dev-me sha256:0123456789abcdef\n",
                "",
            ),
            ok("build"),
            ok("logs"),
            ok("volume"),
            ok("restart"),
            answer("info", 0, "overlay2 null\n", ""),
            answer("buildx", 0, "", ""),
        ],
    )
}

/// Ctrl-C while any of an engine's calls is under way: it ends at once, with the signal's code, and
/// what was only started for the time being is gone.
#[test]
fn an_interruption_at_any_call_ends_at_once() {
    let temporal = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = temporal.local_addr().unwrap().port();
    let (mut moments, mut started) = (0, 0);
    for line in [
        &["check"][..],
        &["build-image"],
        &["run-local"],
        &["test-image"],
        &["stop"],
        &["up"],
        &["down"],
        &["smoke"],
        &["clean", "--yes"],
        &["build-multiarch"],
    ] {
        let line = [line, &["--version", "dev-me"]].concat();
        let line = if matches!(line[0], "stop" | "down") {
            &line[..line.len() - 2]
        } else {
            &line[..]
        };
        let (count, usual) = {
            let world = willing(port);
            let ran = world.run(line);
            (world.calls().len(), ran.code)
        };
        assert!(count > 0, "{line:?}");
        for number in 1..=count {
            let world = willing(port);
            fs::write(world.path("bin/hang"), number.to_string()).unwrap();
            let child = world.start(line);
            let begin = Instant::now();
            // Calls side by side come in any order, and one may answer before the other hangs.
            while world.calls().len() < number && begin.elapsed() < Duration::from_secs(5) {
                thread::sleep(Duration::from_millis(2));
            }
            thread::sleep(Duration::from_millis(20));
            signal(child.id(), libc::SIGINT);
            let sent = Instant::now();
            let ran = world.command_output(&child.wait_with_output().unwrap());
            let took = sent.elapsed();
            let what = format!(
                "{line:?}, call {number} of {count}: {ran:?} {:?}",
                world.calls()
            );
            assert!(took < Duration::from_secs(5), "{took:?}: {what}");
            assert!(!ran.stderr.contains("panicked"), "{what}");
            // Of two calls side by side neither may have been the one that hangs, and what came when
            // all was done changes nothing of it.
            let done = world.calls().len() >= count && ran.code == usual;
            assert!(ran.code == 130 || done, "{what}");
            moments += 1;
            if matches!(line[0], "test-image" | "smoke") {
                for name in names_of(&world, " run ") {
                    started += 1;
                    let gone = names_of(&world, " rm ");
                    assert!(gone.contains(&name), "{name} is left: {what}");
                }
            }
        }
    }
    assert!(moments > 30 && started > 5, "{moments} {started}");
}

/// The containers of the calls of a kind.
fn names_of(world: &Sandbox, kind: &str) -> Vec<String> {
    let calls = world.calls();
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
