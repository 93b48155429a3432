use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf};

use crate::{
    base::{
        env::Env,
        error::{Failure, USAGE},
        secret,
    },
    config::{
        display::{quote_for_toml, to_toml},
        files::Files,
        layer::Layer,
        resolve::resolve,
        schema::{CHANNEL, CHANNEL_KEYS, KEYS, Key, SCHEMA_VERSION, ValueType},
    },
    properties::{text, version::is_tag},
    settings::{GitValues, Settings, resolve::Arguments},
};

fn read(project: &str) -> Result<Layer, Failure> {
    let files = Files {
        root: PathBuf::from("/src"),
        project: project.to_owned(),
        local: None,
    };
    resolve(&files, &Env::fake(&[]))
}

/// A file is read, or each problem is reported with a position in the file and with help. The report contains
/// no secret.
pub fn is_read_or_reported(input: &[u8]) {
    let project = text(input);
    let Err(failure) = read(&project) else { return };
    assert_eq!(failure.exit_code(), USAGE);
    let report = failure.to_string();
    let (count, problems) = report.split_once("\n\n").expect("a heading");
    assert!(count.starts_with("the configuration has "), "{count}");
    let lines: Vec<_> = project.split('\n').collect();
    let (mut places, mut helps) = (0, 0);
    for line in problems.split('\n') {
        if let Some(place) = line.trim_start().strip_prefix("--> xtask.toml:") {
            let (line, column) = place.split_once(':').expect("line:column");
            let (line, column): (usize, usize) = (line.parse().unwrap(), column.parse().unwrap());
            let chars = lines.get(line - 1).map(|line| line.chars().count());
            assert!(
                chars.is_some_and(|chars| (1..=chars + 1).contains(&column)),
                "{line}:{column} is not in the file\n{report}"
            );
            places += 1;
        }
        helps += usize::from(line.trim_start().starts_with("= help: "));
    }
    let many = count
        .split(' ')
        .find_map(|word| word.parse().ok())
        .unwrap_or(1);
    // The name of a key comes from the file and can look like a position, so the report may have more of
    // them.
    assert!(places >= many && helps >= many, "{report}");
    assert!(!secret::looks_like_secret(&report), "{report}");
}

/// `config` prints a file's values as TOML that reads as the same values.
pub fn can_be_read_again(input: &[u8]) {
    let Ok(layer) = read(&text(input)) else {
        return;
    };
    let printed = print(&layer);
    let again = read(&printed).unwrap_or_else(|failure| panic!("{failure}\n\n{printed}"));
    assert_eq!(again.channels(), layer.channels(), "{printed}");
    assert_eq!(print(&again), printed);
    let same = |path: &str| {
        let [one, other] = [&layer, &again].map(|layer| layer.get(path).map(|one| &one.value));
        let hidden = one.is_some_and(|one| to_toml(path, one).contains(secret::MASK));
        assert!(hidden || one == other, "{path}: {one:?} became {other:?}");
    };
    for key in KEYS {
        same(key.path);
        for (name, _) in layer.entries(key.path) {
            assert!(
                !name.is_empty() && !name.contains(['=', ' ', '\n', '\0']),
                "{name:?}"
            );
            same(&format!("{}.{name}", key.path));
        }
    }
    for channel in layer.channels() {
        for key in CHANNEL_KEYS {
            same(&format!("{CHANNEL}.{channel}.{}", key.path));
        }
    }
}

/// A layer as a file, with the values that `config` prints.
fn print(layer: &Layer) -> String {
    let mut out = format!("schema = {SCHEMA_VERSION}\n");
    print_keys(&mut out, layer, "", KEYS);
    for channel in layer.channels() {
        let _ = writeln!(out, "[[{CHANNEL}]]\nname = \"{channel}\"");
        print_keys(
            &mut out,
            layer,
            &format!("{CHANNEL}.{channel}."),
            CHANNEL_KEYS,
        );
    }
    out
}

fn print_keys(out: &mut String, layer: &Layer, store: &str, keys: &[Key]) {
    for key in keys {
        let path = format!("{store}{}", key.path);
        if let ValueType::Map(_) = key.value_type {
            for (name, sourced) in layer.entries(&path) {
                let value = to_toml(&format!("{path}.{name}"), &sourced.value);
                assert!(!secret::looks_like_secret(&value), "{value}");
                let _ = writeln!(out, "{}.{} = {value}", key.path, quote_for_toml(name));
            }
        } else if let Some(sourced) = layer.get(&path) {
            let _ = writeln!(out, "{} = {}", key.path, to_toml(&path, &sourced.value));
        }
    }
}

/// For every configuration and every name of a branch, the image's tags are valid and unique, or the reason
/// is reported.
pub fn tags(input: &[u8]) {
    let project = text(input);
    let branch = project.lines().next_back().unwrap_or("").to_owned();
    let files = Files {
        root: PathBuf::from("/src"),
        project: project.into_owned(),
        local: None,
    };
    let git = GitValues {
        sha: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        branch: Some(branch),
    };
    for version in ["1.2.3", "2.0.0-rc.1+build.5", "dev-me"] {
        let arguments = Arguments {
            version: Some(version.to_owned()),
            ..Arguments::default()
        };
        let tags = Settings::resolve(&arguments, &Env::fake(&[]), &files)
            .and_then(|settings| settings.tags(&git));
        match tags {
            Ok(tags) => {
                assert!(
                    !tags.is_empty() && tags.iter().all(|tag| is_tag(tag)),
                    "{tags:?}"
                );
                let once: BTreeSet<_> = tags.iter().collect();
                assert_eq!(once.len(), tags.len(), "{tags:?}");
            }
            Err(failure) => {
                assert_eq!(failure.exit_code(), USAGE);
                super::assert_reason(&failure.to_string());
            }
        }
    }
}

/// A file with a newer schema has exactly one problem, the schema, whatever else it contains.
pub fn newer_schema(input: &[u8]) {
    let newer = SCHEMA_VERSION + 1;
    let project = format!("schema = {newer}\n{}", text(input));
    let report = read(&project).unwrap_err().to_string();
    let message = format!(
        "the file has schema {newer}, but this xtask supports only schemas up to {SCHEMA_VERSION}\n"
    );
    assert!(
        report.starts_with("the configuration has a problem\n") && report.contains(&message),
        "{report}"
    );
}

/// A value is accepted for a key, or rejected with the name of its variable.
pub fn environment_variable(input: &[u8]) {
    let value = text(input);
    let files = Files {
        root: PathBuf::from("/src"),
        project: "schema = 1\n".to_owned(),
        local: None,
    };
    let names: Vec<_> = KEYS.iter().map(Key::env).collect();
    let env: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), value.as_ref()))
        .collect();
    let Err(failure) = resolve(&files, &Env::fake(&env)) else {
        return;
    };
    let report = failure.to_string();
    for problem in report.split("\n\nenvironment variable `").skip(1) {
        let (name, why) = problem.split_once("`: `").expect("a name and a reason");
        assert!(KEYS.iter().any(|key| key.env() == name), "{name}");
        super::assert_reason(why);
    }
    assert!(!secret::looks_like_secret(&report), "{report}");
}

/// The line of a problem is shown without the values of secrets.
pub fn hides_secrets(input: &[u8]) {
    let junk = text(input);
    let secret = "hunter2-marked";
    if secret.split('-').any(|part| junk.contains(part)) {
        return;
    }
    for line in [
        format!("API_KEY = \"{secret}\" {junk}"),
        format!("{junk} API_KEY = \"{secret}\""),
        format!("env.\"API_KEY\" = {secret} {junk}"),
        format!("a = {{ b = 1, MY_TOKEN='{secret}' }} {junk}"),
    ] {
        let project = format!("schema = 1\n[run.env]\n{line}\n");
        if let Err(failure) = read(&project) {
            assert!(!failure.to_string().contains(secret), "{failure}");
        }
    }
}
