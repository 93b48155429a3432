//! Tests of the workflows in `.github/`: their commands run, the actions they use are pinned, and they
//! have no permission that they do not need. `.ci/run` checks their syntax with actionlint.

use std::{fs, process::Command};

use crate::{
    assert_runs, machine, page,
    publication::{Image, Publication},
    root,
};

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
    assert!(!lines.is_empty(), "no workflows found");
    lines
}

/// The variables of a job that the commands of the workflows use.
const VARIABLES: &str = "PLATFORM=linux/arm64\n";

#[test]
fn the_commands_of_workflows_run() {
    let world = machine();
    // The archives that an earlier job uploaded.
    let release = world.path("src/target/dist");
    fs::create_dir_all(&release).unwrap();
    let repository = "ghcr.io/stigmer/agent-runner";
    let publication = Publication::new(repository, Image::default());
    for (name, flavour) in [("1.2.3", None), ("1.2.3-tools", Some("tools"))] {
        let archive = release.join(format!("agent-runner-{name}-linux-arm64.oci.tar"));
        let image = Image {
            flavour,
            ..Image::default()
        };
        publication.write_archive(&archive, repository, image);
    }
    let mut count = 0;
    for (place, line) in lines() {
        let script = line.strip_prefix("run: ").unwrap_or(&line);
        if script.contains("cargo xtask ") {
            // A step runs in the root of the checkout.
            assert_runs(&place, &world, &format!("{VARIABLES}cd ../..\n{script}"));
            count += 1;
        }
    }
    assert!(count > 5, "few commands found: {count}");
}

/// A tag can be moved to another commit. The digest of a commit cannot.
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
        assert!(
            version.starts_with('v'),
            "{place}: the comment names no version"
        );
        count += 1;
    }
    assert!(count > 5, "few actions found: {count}");
}

/// The permissions to write that a workflow's jobs have, in their order.
const WRITES: &[(&str, &[&str])] = &[
    ("base-image.yml", &["contents", "pull-requests"]),
    ("ci.yml", &[]),
    // `ci-check`, `push-multiarch`, and the GitHub release.
    (
        "release.yml",
        &["packages", "id-token", "packages", "id-token", "contents"],
    ),
];

#[test]
fn permissions_are_minimal() {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
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
        let known = WRITES.iter().find(|(known, _)| *known == name);
        assert_eq!(
            known.map(|(_, writes)| writes.to_vec()),
            Some(writes),
            "{name}"
        );
        names.push(name);
    }
    assert_eq!(names.len(), WRITES.len());
}

/// The workflow that pins the base image finds its line in xtask.toml, and xtask reads what it writes.
#[test]
fn the_base_image_can_be_pinned() {
    let workflow = page(".github/workflows/base-image.yml").text;
    let line = |begin: &str| {
        let line = workflow
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with(begin));
        line.unwrap_or_else(|| panic!("no line `{begin}`"))
            .to_owned()
    };
    let world = machine();
    let digest = |c: &str| format!("sha256:{}", c.repeat(64));
    let name = "docker.io/library/python:3.11-slim";
    // A second digest replaces the first.
    for digest in [digest("a"), digest("b")] {
        let script = format!(
            "cd ../..\n{}\n[ \"$image\" = {name} ]\ndigest={digest}\n{}\n",
            line("image=$("),
            line("sed -Ei ")
        );
        let done = Command::new("bash")
            .args(["-euc", &script])
            .current_dir(world.path("src/deep/er"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        let config = world.run(&["config", "--json"]);
        assert_eq!(config.code, 0, "{}", config.stderr);
        assert!(
            config.stdout.contains(&format!("{name}@{digest}")),
            "{}",
            config.stdout
        );
    }
}

/// What the last job writes as the notes of a release is a section of the changelog.
#[test]
fn the_notes_of_a_release_are_a_section_of_the_changelog() {
    let workflow = page(".github/workflows/release.yml").text;
    let function = workflow
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("notes() {"))
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let changelog = "# Changelog\n\n## Unreleased\n\nnew\n\n## 1.2.3 (2026-01-02)\n\n### Added\n\nthis\n\n## 1.2.2\n\nold\n";
    fs::write(folder.path().join("CHANGELOG.md"), changelog).unwrap();
    for (title, notes) in [
        ("1.2.3", "\n### Added\n\nthis\n\n"),
        ("Unreleased", "\nnew\n\n"),
        ("1.2", ""),
    ] {
        let done = Command::new("bash")
            .args(["-euc", &format!("{function}\nnotes {title}")])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout), notes, "{title}");
    }
}

/// A job that hangs ends, and no step after the checkout can read the token that it used.
#[test]
fn jobs_have_a_time_limit_and_keep_no_credentials() {
    for entry in fs::read_dir(root().join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for (one, other) in [
            ("    runs-on: ", "    timeout-minutes: "),
            (
                "uses: actions/checkout@",
                "          persist-credentials: false\n",
            ),
        ] {
            let count = |what| text.matches(what).count();
            assert_eq!(count(one), count(other), "{}: {other}", path.display());
        }
    }
}

/// The value of a key in a line such as `- { name: a, target: b }`.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let rest = line.split(&format!("{key}: ")).nth(1)?;
    rest.split([',', ' ', '}']).next()
}

/// Each binary that release.yml builds is in the table of docs/without-rust.md, and the artifacts that
/// the page downloads are among them.
#[test]
fn released_binaries_are_documented() {
    let workflow = page(".github/workflows/release.yml").text;
    let guide = page("docs/without-rust.md").text;
    let mut artifacts = Vec::new();
    for line in workflow.lines().filter(|line| line.contains("target: ")) {
        let (name, target) = (value(line, "name").unwrap(), value(line, "target").unwrap());
        if name.starts_with("linux-") {
            assert!(target.ends_with("-musl"), "static: {line}");
        }
        let artifact = format!("xtask-{name}");
        assert!(guide.contains(&format!("| `{artifact}` |")), "{artifact}");
        artifacts.push(artifact);
    }
    assert_eq!(artifacts.len(), 4, "{artifacts:?}");
    for line in guide.lines() {
        if let Some(name) = value(line, "name").filter(|name| name.starts_with("xtask-")) {
            assert!(artifacts.iter().any(|artifact| artifact == name), "{line}");
        }
    }
}
