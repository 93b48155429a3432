//! The workflows below `.github/`: what they call is there, and nothing that they use can change
//! unseen. Their form is actionlint's to judge, in `.ci/run`.

use std::fs;

use crate::{machine, must_run, root};

/// Each line of each workflow, with its place.
fn lines() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(root().join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim().trim_start_matches("- ");
            if !line.starts_with('#') {
                lines.push((
                    format!(".github/workflows/{name}:{number}"),
                    line.to_owned(),
                ));
            }
        }
    }
    assert!(!lines.is_empty(), "the workflows are found");
    lines
}

/// What a job's environment gives to the commands of the workflows.
const VARIABLES: &str = "PLATFORM=linux/arm64\n";

#[test]
fn their_commands_run() {
    let world = machine();
    // What a job before left there.
    let release = world.path("src/target/dist");
    fs::create_dir_all(&release).unwrap();
    for name in ["linux-amd64", "linux-arm64"] {
        let archive = release.join(format!("agent-runner-1.2.3-{name}.oci.tar"));
        fs::write(archive, "").unwrap();
    }
    let mut count = 0;
    for (place, line) in lines() {
        let script = line.strip_prefix("run: ").unwrap_or(&line);
        if script.contains("cargo xtask ") {
            // From the root, as a job's step.
            must_run(&place, &world, &format!("{VARIABLES}cd ../..\n{script}"));
            count += 1;
        }
    }
    assert!(count > 5, "the commands are found: {count}");
}

/// A tag can be moved to another commit, a commit's digest cannot.
#[test]
fn foreign_actions_are_pinned_by_digest() {
    let mut count = 0;
    for (place, line) in lines() {
        let Some(action) = line.strip_prefix("uses: ") else {
            continue;
        };
        if action.starts_with("./.github/") {
            continue;
        }
        let (action, version) = action.split_once(" # ").unwrap_or((action, ""));
        let digest = action.split_once('@').map_or("", |(_, digest)| digest);
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        assert!(
            digest.len() == 40 && digest.chars().all(hex),
            "{place}: {line}"
        );
        assert!(version.starts_with('v'), "{place}: which version is it?");
        count += 1;
    }
    assert!(count > 5, "the actions are found: {count}");
}

/// A job gets what it asks for, and only the one file that publishes asks for more than reading.
#[test]
fn permissions_are_the_least() {
    for entry in fs::read_dir(root().join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.display();
        let before_jobs = text.split("\njobs:\n").next().unwrap();
        assert!(
            before_jobs.contains("\npermissions:\n  contents: read\n"),
            "{name}"
        );
        assert_eq!(before_jobs.matches(": write").count(), 0, "{name}");
        let writes: Vec<_> = text
            .lines()
            .filter_map(|line| line.trim().split_once(": write"))
            .map(|(what, _)| what)
            .collect();
        if path.ends_with("release.yml") {
            assert!(writes.iter().all(|what| *what == "packages"), "{writes:?}");
        } else {
            assert_eq!(writes, [""; 0], "{name}");
        }
    }
}
