//! A fake engine. It prints recorded output and exits with the recorded code. Tests use it for what a real
//! engine does not do on demand: it hangs, fails, or has another version or operating system.
//!
//! It is in PATH as `docker` or `podman`. Next to it, `NAME.json` has its answers. It gives the first answer
//! whose `args` are the beginning of its arguments. An `inspect` without an answer says that there is
//! no such container, image or network. It records every call in `calls`. The call whose number is in the file
//! `hang` does not end.

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
    // If it is started through PATH, argv[0] has no folder.
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let folder = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .find(|folder| folder.join(format!("{name}.json")).is_file())
        .unwrap_or_else(|| die(&format!("there is no {name}.json in PATH")));
    let args: Vec<_> = args.collect();
    record(&folder, &name, &args);
    hang(&folder);

    let script = fs::read_to_string(folder.join(format!("{name}.json")))
        .unwrap_or_else(|error| die(&error.to_string()));
    let answers: Vec<serde_json::Value> =
        serde_json::from_str(&script).unwrap_or_else(|error| die(&error.to_string()));
    let Some(answer) = answers.iter().enumerate().find_map(|(number, answer)| {
        let expected: Vec<_> = answer["args"]
            .as_str()
            .unwrap_or_default()
            .split(' ')
            .collect();
        let matches =
            args.len() >= expected.len() && expected.iter().zip(&args).all(|(w, a)| w == a);
        (matches && is_available(&folder, &name, number, answer)).then_some(answer)
    }) else {
        if let [kind, subcommand, object, ..] = &args[..]
            && subcommand == "inspect"
        {
            not_found(&name, kind, object);
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

/// The answer for an image or container that does not exist.
fn not_found(name: &str, kind: &str, object: &str) -> ! {
    let (code, stderr) = match (name, kind) {
        ("podman", "image") => (
            125,
            format!("Error: inspecting object: {object}: image not known"),
        ),
        ("podman", "network") => (
            125,
            format!(
                "Error: inspecting object: network {object}: unable to find network with name or ID {object}: network not found"
            ),
        ),
        (_, "network") => (
            1,
            format!("Error response from daemon: network {object} not found"),
        ),
        ("podman", "container") => (
            125,
            format!("Error: inspecting object: no such container {object}"),
        ),
        (_, "image" | "container") => (
            1,
            format!("Error response from daemon: No such {kind}: {object}"),
        ),
        _ => die(&format!("no answer to `{kind} inspect`")),
    };
    let _ = std::io::stdout().write_all(b"[]\n");
    let _ = writeln!(std::io::stderr(), "{stderr}");
    std::process::exit(code)
}

/// Whether an answer is still available: `times` limits how often it is given.
fn is_available(folder: &Path, name: &str, number: usize, answer: &serde_json::Value) -> bool {
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

/// Records a call in one line: some variables, the program's name and the arguments.
fn record(folder: &Path, name: &str, args: &[String]) {
    let env: String = [
        "DOCKER_BUILDKIT",
        "BUILDX_BUILDER",
        "DOCKER_DEFAULT_PLATFORM",
        "TMPDIR",
    ]
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

/// Waits if this is the call whose number is in the file `hang`.
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
