//! Tests of README.md, CONTRIBUTING.md, CHANGELOG.md, SECURITY.md, docs/ and the workflows: their commands run, their
//! links lead somewhere, and no command is missing.
#![allow(clippy::disallowed_methods)] // tests start processes

#[allow(dead_code)] // the command line's own tests use all of it
#[path = "../publication/mod.rs"]
mod publication;
#[allow(dead_code)] // as the one before
#[path = "../cli/sandbox.rs"]
mod sandbox;

mod layers;
mod workflows;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sandbox::{Sandbox, XTASK, answer, docker_version, image, podman_version};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A page: its path from the root, and its text.
struct Page {
    name: String,
    text: String,
}

fn page(name: &str) -> Page {
    let text = fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    Page {
        name: name.to_owned(),
        text,
    }
}

fn pages() -> Vec<Page> {
    let mut names: Vec<_> = [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ]
    .map(str::to_owned)
    .into();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name)
            .extension()
            .is_some_and(|extension| extension == "md")
        {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    assert!(names.len() > 5, "few pages found: {names:?}");
    names.iter().map(|name| page(name)).collect()
}

/// A fenced block, with the number of its first line and the text of the line before it.
struct Block {
    line: usize,
    language: String,
    before: String,
    text: String,
}

/// The page's blocks, and its other lines with their numbers.
fn blocks(page: &Page) -> (Vec<Block>, Vec<(usize, &str)>) {
    let (mut blocks, mut prose) = (Vec::new(), Vec::new());
    let mut open: Option<Block> = None;
    let mut before = "";
    for (number, line) in (1..).zip(page.text.lines()) {
        let bare = line.trim();
        match (&mut open, bare.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.text += &format!("{bare}\n"),
            (None, Some(language)) => {
                open = Some(Block {
                    line: number,
                    language: language.to_owned(),
                    before: before.to_owned(),
                    text: String::new(),
                });
            }
            (None, None) => prose.push((number, line)),
        }
        before = bare;
    }
    assert!(open.is_none(), "{}: a block has no end", page.name);
    (blocks, prose)
}

/// The commands of a block: all of `sh`, and of a session (`console`) what follows the prompt.
fn script(block: &Block) -> String {
    match block.language.as_str() {
        "sh" => block.text.clone(),
        "console" => block
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("$ "))
            .map(|line| format!("{line}\n"))
            .collect(),
        _ => String::new(),
    }
}

/// The page's lines outside of blocks and of the tables that are made from the code.
fn sentences(page: &Page) -> Vec<(usize, &str)> {
    let mut in_table = false;
    let mut sentences = blocks(page).1;
    sentences.retain(|(_, line)| {
        in_table = (in_table || line.starts_with("<!-- table: ")) && *line != "<!-- /table -->";
        !in_table
    });
    sentences
}

/// The texts in backticks of a line, and the line without them.
fn code_spans(line: &str) -> (Vec<&str>, String) {
    let (mut spans, mut rest) = (Vec::new(), String::new());
    for (number, part) in line.split('`').enumerate() {
        if number % 2 == 1 {
            spans.push(part);
            rest.push_str("``");
        } else {
            rest.push_str(part);
        }
    }
    (spans, rest)
}

/// The reason why a block is not run, if the page gives one.
fn not_tested(block: &Block) -> Option<&str> {
    let reason = block
        .before
        .strip_prefix("<!-- not tested:")?
        .strip_suffix("-->")?
        .trim();
    assert!(!reason.is_empty(), "a reason is needed: {}", block.text);
    Some(reason)
}

/// A machine with this repository's own configuration and both engines, on which no container runs.
fn machine() -> Sandbox {
    let both = |version| {
        [
            version,
            answer(
                "container inspect",
                1,
                "[]\n",
                "Error: No such container: stigmer-agent-runner\n",
            ),
            image(),
            answer("image ls", 0, "", ""),
            answer("buildx du", 0, "", ""),
            answer(
                "info",
                0,
                "overlayfs [[\"driver-type\",\"io.containerd.snapshotter.v1\"]]\n",
                "",
            ),
            answer(
                "buildx inspect",
                1,
                "",
                "ERROR: no builder \"agent-runner-xtask\" found\n",
            ),
        ]
    };
    Sandbox::new(&page("xtask.toml").text)
        .engine("docker", &both(docker_version()))
        .engine("podman", &both(podman_version()))
}

fn run_script(sandbox: &Sandbox, script: &str) -> Output {
    // `cargo` is a function, because a program that was just written may still be busy.
    let cargo = format!(
        "cargo() {{ [ \"$1\" = xtask ] || return 98; shift; '{XTASK}' --dry-run \"$@\"; }}\n"
    );
    Command::new("/bin/sh")
        .args(["-eu", "-c", &(cargo + script)])
        .current_dir(sandbox.path("src/deep/er"))
        .env_clear()
        .env("PATH", sandbox.path("bin"))
        .env("HOME", sandbox.path("home"))
        .env("CARGO_PKG_NAME", "xtask")
        // The environment of a CI job for a tag: `docker-login` and `push-multiarch` need it.
        .env("GITHUB_REF_TYPE", "tag")
        .env("GITHUB_REF_NAME", "v1.2.3")
        .env("GITHUB_ACTOR", "me")
        .env("GITHUB_TOKEN", "token")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn assert_runs(place: &str, sandbox: &Sandbox, script: &str) {
    let output = run_script(sandbox, script);
    assert!(
        output.status.success(),
        "{place}: exit code {:?} of\n{script}\n{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stderr)
    );
    let changed: Vec<_> = sandbox
        .calls()
        .into_iter()
        .filter(|call| !is_question(call))
        .collect();
    assert!(changed.is_empty(), "{place}: {changed:?}");
}

fn is_question(call: &str) -> bool {
    let questions = [
        "version ",
        "container inspect ",
        "image inspect ",
        "image ls ",
        "buildx du ",
        "buildx inspect ",
        "info ",
    ];
    let (_, args) = call.split_once(' ').unwrap_or_default();
    questions.iter().any(|question| args.starts_with(question))
}

#[test]
fn commands_in_blocks_run() {
    let mut count = 0;
    for page in pages() {
        for block in blocks(&page).0 {
            let script = script(&block);
            if script.contains("cargo xtask") && not_tested(&block).is_none() {
                let place = format!("{}:{}", page.name, block.line);
                assert_runs(&place, &machine(), &script);
                count += 1;
            }
        }
    }
    assert!(count > 5, "few blocks found: {count}");
}

#[test]
fn commands_in_sentences_run() {
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    for page in pages() {
        for (number, line) in sentences(&page) {
            for span in code_spans(line).0 {
                if span.starts_with("cargo xtask ") && !span.contains('…') {
                    places.insert(span.to_owned(), format!("{}:{number}", page.name));
                }
            }
        }
    }
    let sandbox = machine();
    for (command, place) in &places {
        assert_runs(place, &sandbox, command);
    }
    assert!(places.len() > 5, "few commands found: {places:?}");
}

/// The headings' anchors, as GitHub makes them.
fn anchors(page: &Page) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = Vec::new();
    for (_, line) in blocks(page).1 {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let times = seen.entry(slug.clone()).or_default();
        anchors.push(match times {
            0 => slug.clone(),
            _ => format!("{slug}-{times}"),
        });
        *times += 1;
    }
    anchors
}

/// The targets of the links in a line: `[text](target)`, `![text](target)`.
fn targets(line: &str) -> Vec<String> {
    let without_code = code_spans(line).1;
    without_code
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target.to_owned()))
        .collect()
}

/// Why a link leads nowhere. Of a link to another machine only the form is checked.
fn broken(page: &Page, target: &str) -> Option<String> {
    if let Some(address) = target.strip_prefix("https://") {
        let host = address.split(['/', '#']).next().unwrap_or_default();
        let fine = host.contains('.') && !target.contains(char::is_whitespace);
        return (!fine).then(|| "is not an address".to_owned());
    }
    if target.contains("://") {
        return Some("is not https".to_owned());
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let name = if path.is_empty() {
        page.name.clone()
    } else {
        let folder = Path::new(&page.name).parent().unwrap_or(Path::new(""));
        folder.join(path).to_string_lossy().into_owned()
    };
    if !root().join(&name).exists() {
        return Some("does not exist".to_owned());
    }
    let found = anchor.is_empty() || anchors(&self::page(&name)).iter().any(|one| one == anchor);
    (!found).then(|| "has no such heading".to_owned())
}

#[test]
fn links_lead_somewhere() {
    let (mut count, mut problems) = (0, Vec::new());
    for page in pages() {
        for (number, line) in blocks(&page).1 {
            for target in targets(line) {
                count += 1;
                let why = broken(&page, &target);
                problems.extend(why.map(|why| format!("{}:{number}: {target} {why}", page.name)));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(count > 30, "few links found: {count}");
}

/// The groups and commands in the help, in their order.
fn in_help() -> Vec<String> {
    let output = Command::new(XTASK).arg("help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let commands = text.split("\nOptions of every command:").next().unwrap();
    commands
        .lines()
        .skip_while(|line| !line.starts_with("Usage:"))
        .skip(1)
        .filter(|line| !line.is_empty())
        .map(|line| match line.strip_prefix("  ") {
            Some(command) => command.split(' ').next().unwrap().to_owned(),
            None => format!("**{}**", line.trim_end_matches(':')),
        })
        .collect()
}

/// The groups and commands in the README's table, in their order.
fn in_readme() -> Vec<String> {
    page("README.md")
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .filter_map(|cell| {
            let command = cell
                .strip_prefix("`cargo xtask ")
                .and_then(|rest| rest.split([' ', '`']).next());
            command.or(cell.starts_with("**").then_some(cell))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_readme_has_every_command() {
    assert_eq!(in_readme(), in_help());
}

#[test]
fn the_readme_is_short() {
    assert!(page("README.md").text.lines().count() < 100);
}

#[test]
fn the_changelog_has_an_unreleased_section() {
    let page = page("CHANGELOG.md");
    assert!(anchors(&page).contains(&"unreleased".to_owned()));
}

#[test]
fn every_make_target_has_a_row() {
    let page = page("docs/docker.md");
    for target in [
        "help",
        "build-image",
        "run-local",
        "test-image",
        "logs",
        "stop",
        "clean",
        "docker-login",
        "push-image",
        "build-multiarch",
        "push-multiarch",
    ] {
        let row = format!("| `make {target}` |");
        assert!(
            page.text.lines().any(|line| line.starts_with(&row)),
            "{row}"
        );
    }
}

/// The runner's variables: the fields of the worker's `Settings`, in capital letters.
fn runner_variables() -> Vec<String> {
    let text = page("agent-runner/worker/settings.py").text;
    let class = text.split("class Settings(").nth(1).unwrap();
    let fields: Vec<_> = class
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.split_once(": "))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .map(str::to_uppercase)
        .collect();
    assert!(fields.len() > 10, "few fields found: {fields:?}");
    fields
}

#[test]
fn every_variable_of_the_runner_is_explained() {
    let guide = page("docs/docker.md");
    let rows: Vec<_> = guide.text.lines().filter(|l| l.starts_with('|')).collect();
    let mut variables = runner_variables();
    variables.push("AGENT_RUNNER_HEALTH_FILE".to_owned());
    for variable in variables {
        let name = format!("`{variable}`");
        let explained = rows.iter().any(|row| {
            let cell = row.split(" | ").next().unwrap_or_default();
            cell.contains(&name)
        });
        assert!(explained, "{variable}");
    }
}

#[test]
fn the_table_of_variables_matches_pass_env() {
    let project = page("xtask.toml").text;
    let pass_env = project.split("pass-env = [").nth(1).unwrap();
    let pass_env = pass_env.split(']').next().unwrap();
    let guide = page("docs/docker.md");
    for row in guide.text.lines() {
        let cells: Vec<_> = row.split(" | ").collect();
        let [names, _, yes @ ("yes" | "no"), _] = cells[..] else {
            continue;
        };
        for name in code_spans(names).0 {
            let is = pass_env.contains(&format!("\"{name}\""));
            assert_eq!(is, yes == "yes", "{name}");
        }
    }
}

/// Each message in the table is one of xtask's: the texts between the `…` are in the code.
#[test]
fn the_messages_of_failed_publications_are_those_of_the_code() {
    let sources = ["xtask/core/src/**/*.rs", "xtask/src/*.rs"].into_iter();
    let sources =
        sources.flat_map(|files| glob::glob(root().join(files).to_str().unwrap()).unwrap());
    let code: String = sources
        .map(|path| fs::read_to_string(path.unwrap()).unwrap())
        .map(|text| text.split("\n#[cfg(test)]\n").next().unwrap().to_owned())
        .collect();
    // Without the backticks in messages, and with a message of several lines in one.
    let code: String = code
        .replace('`', "")
        .split("\\\n")
        .fold(String::new(), |code, line| code + line.trim_start());
    let page = page("docs/publishing.md");
    let (_, table) = page.text.split_once("| You see | Why |").unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut count = 0;
    for row in rows {
        let message = row.split('`').nth(1).unwrap();
        for part in message.split('…').map(str::trim) {
            assert!(
                code.contains(part),
                "{}: no `{part}` of `{message}`",
                page.name
            );
        }
        count += 1;
    }
    assert!(count > 10, "{count} rows");
}
