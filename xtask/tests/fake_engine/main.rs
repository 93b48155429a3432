//! An engine that prints what a real one printed and exits as it did, for what a real one cannot
//! be made to do at will: hang, fail, be old, be of another OS.
//!
//! It stands in PATH as `docker` or `podman`. Beside it, `NAME.json` holds its answers:
//! the first whose `args` begin the call's own is given. An image or container that nobody told it
//! of is not there. Every call is noted in `calls`; the one whose number is in `hang` never ends.

#![allow(clippy::disallowed_methods)] // it is a program of its own

use std::{
    env, fs,
    io::{Read as _, Write as _},
    path::Path,
    thread,
    time::Duration,
};

fn main() {
    let mut args = env::args();
    let program = args.next().unwrap_or_default();
    let path = Path::new(&program);
    // Started through PATH, argv[0] is the bare name.
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let folder = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .find(|folder| folder.join(format!("{name}.json")).is_file())
        .unwrap_or_else(|| die("no folder of PATH has its answers"));
    let args: Vec<_> = args.collect();
    note(&folder, &name, &args);
    hang(&folder);

    let script = fs::read_to_string(folder.join(format!("{name}.json")))
        .unwrap_or_else(|error| die(&error.to_string()));
    let answers: Vec<serde_json::Value> =
        serde_json::from_str(&script).unwrap_or_else(|error| die(&error.to_string()));
    let Some(answer) = answers.iter().enumerate().find_map(|(number, answer)| {
        let wanted: Vec<_> = answer["args"]
            .as_str()
            .unwrap_or_default()
            .split(' ')
            .collect();
        let fits = args.len() >= wanted.len() && wanted.iter().zip(&args).all(|(w, a)| w == a);
        (fits && still_wanted(&folder, &name, number, answer)).then_some(answer)
    }) else {
        if let [what, question, asked, ..] = &args[..]
            && question == "inspect"
        {
            not_there(&name, what, asked);
        }
        die(&format!("no answer to {args:?}"))
    };
    if answer["read_stdin"].as_bool() == Some(true) {
        let mut ignored = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut ignored);
    }
    let _ = std::io::stdout().write_all(answer["stdout"].as_str().unwrap_or_default().as_bytes());
    let _ = std::io::stderr().write_all(answer["stderr"].as_str().unwrap_or_default().as_bytes());
    let _ = std::io::stdout().flush();
    thread::sleep(Duration::from_millis(
        answer["sleep_ms"].as_u64().unwrap_or(0),
    ));
    std::process::exit(i32::try_from(answer["code"].as_i64().unwrap_or(0)).unwrap_or(1));
}

/// It has nothing, unless it was told otherwise.
fn not_there(name: &str, what: &str, asked: &str) -> ! {
    let (code, words) = match (name, what) {
        ("podman", "image") => (
            125,
            format!("Error: inspecting object: {asked}: image not known"),
        ),
        ("podman", "container") => (
            125,
            format!("Error: inspecting object: no such container {asked}"),
        ),
        (_, "image" | "container") => (
            1,
            format!("Error response from daemon: No such {what}: {asked}"),
        ),
        _ => die(&format!("no answer to `{what} inspect`")),
    };
    let _ = std::io::stdout().write_all(b"[]\n");
    let _ = writeln!(std::io::stderr(), "{words}");
    std::process::exit(code)
}

/// `times` limits how often an answer is given; the next one that fits comes after it.
fn still_wanted(folder: &Path, name: &str, number: usize, answer: &serde_json::Value) -> bool {
    let Some(times) = answer["times"].as_u64() else {
        return true;
    };
    let counter = folder.join(format!("{name}.{number}.count"));
    let given: u64 = fs::read_to_string(&counter)
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let _ = fs::write(&counter, (given + 1).to_string());
    given < times
}

/// A line a call: what matters of the environment, the name, the arguments.
fn note(folder: &Path, name: &str, args: &[String]) {
    let env: String = ["DOCKER_BUILDKIT", "TMPDIR"]
        .iter()
        .filter_map(|name| env::var(name).ok().map(|value| format!("{name}={value} ")))
        .collect();
    let line = format!("{env}{name} {}\n", args.join(" "));
    let calls = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("calls"));
    if let Ok(mut calls) = calls {
        let _ = calls.write_all(line.as_bytes());
    }
}

/// The call whose number is in `hang` never ends.
fn hang(folder: &Path) {
    let Ok(number) = fs::read_to_string(folder.join("hang")) else {
        return;
    };
    let calls = fs::read_to_string(folder.join("calls")).unwrap_or_default();
    if calls.lines().count().to_string() == number {
        thread::sleep(Duration::from_secs(60));
    }
}

fn die(why: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "fake engine: {why}");
    std::process::exit(97)
}
