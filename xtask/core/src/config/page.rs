//! Checks that docs/configuration.md agrees with the code: its tables are generated from the schema and from
//! default.toml, and all examples are valid. After a change of the schema, write the tables again:
//!
//! ```sh
//! cargo test -p xtask-core --lib -- --ignored write_the_tables
//! ```

use std::{fs, ops::Range, path::PathBuf};

use toml::de::{DeTable, DeValue};

use crate::{
    base::{
        env::Env,
        pages::{assert_page, read, repository_file, with_table},
    },
    config::{
        files::Files,
        resolve::{DEFAULTS, resolve},
        schema::{
            CHANNEL, CHANNEL_KEYS, CHANNEL_NAME_KEY, FLAVOUR, FLAVOUR_KEYS, KEYS, Key, Merge,
            SCHEMA_KEY, SCHEMA_VERSION,
        },
    },
};

const PAGE: &str = "docs/configuration.md";
/// The pages whose TOML examples are checked.
const PAGES: &[&str] = &[
    PAGE,
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/docker.md",
    "docs/engines.md",
    "docs/performance.md",
    "docs/publishing.md",
    "docs/troubleshooting.md",
];

/// The lines around a generated table.
const BEGIN: &str = "<!-- table: ";

/// The names of the tables. The first part of a key's path is the name of its table.
fn tables() -> Vec<&'static str> {
    let mut tables: Vec<_> = KEYS.iter().filter_map(|key| table_of(key.path)).collect();
    tables.dedup();
    tables.extend([CHANNEL, FLAVOUR]);
    tables
}

fn table_of(path: &str) -> Option<&str> {
    path.rsplit_once('.').map(|(table, _)| table)
}

/// The text of a default value in default.toml.
fn default_text(path: &[&str], channel: Option<&str>) -> String {
    let (document, _) = DeTable::parse_recoverable(DEFAULTS);
    let mut table = document.get_ref();
    if let Some(name) = channel {
        let DeValue::Array(channels) = table[CHANNEL].get_ref() else {
            panic!("channels are an array")
        };
        table = channels
            .iter()
            .find_map(|one| match one.get_ref() {
                DeValue::Table(one) if one[CHANNEL_NAME_KEY].get_ref().as_str() == Some(name) => {
                    Some(one)
                }
                _ => None,
            })
            .unwrap_or_else(|| panic!("no channel {name}"));
    }
    let (last, folders) = path.split_last().unwrap();
    for folder in folders {
        table = match table[*folder].get_ref() {
            DeValue::Table(inner) => inner,
            _ => panic!("{path:?} is not a path"),
        };
    }
    let span: Range<usize> = table
        .get(*last)
        .unwrap_or_else(|| panic!("default.toml lacks {path:?}"))
        .span();
    format!("`{}`", &DEFAULTS[span])
}

fn row(cells: &[&str]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', r"\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// The type of a key, and whether its list adds.
fn describe(key: &Key) -> String {
    let described = key.value_type.describe();
    match key.merge {
        Merge::Replace => described,
        Merge::Add(_) => format!("{described}; adds"),
    }
}

fn render(table: &str) -> String {
    if table == CHANNEL {
        return render_channels();
    }
    if table == FLAVOUR {
        return render_flavours();
    }
    let mut out = row(&["Key", "Type", "Default", "Environment", "Meaning"]);
    out += "|---|---|---|---|---|\n";
    for key in KEYS.iter().filter(|key| table_of(key.path) == Some(table)) {
        out += &row(&[
            &format!("`{}`", key.path),
            &describe(key),
            &default_text(&key.path.split('.').collect::<Vec<_>>(), None),
            &format!("`{}`", key.env()),
            key.doc,
        ]);
    }
    out
}

fn render_channels() -> String {
    let layer = resolve(
        &Files {
            root: PathBuf::new(),
            project: format!("{SCHEMA_KEY} = {SCHEMA_VERSION}"),
            local: None,
        },
        &Env::fake(&[]),
    )
    .unwrap();
    let names: Vec<_> = layer.channels().iter().map(String::as_str).collect();
    let headings: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let headings: Vec<_> = headings.iter().map(String::as_str).collect();
    let mut out = row(&[&["Key", "Type"], &headings[..], &["Meaning"]].concat());
    out += &format!("|{}\n", "---|".repeat(names.len() + 3));
    for key in CHANNEL_KEYS {
        let path = format!("`{}`", key.path);
        let kind = describe(key);
        let defaults: Vec<_> = names
            .iter()
            .map(|name| default_text(&[key.path], Some(name)))
            .collect();
        let defaults: Vec<_> = defaults.iter().map(String::as_str).collect();
        out += &row(&[&[path.as_str(), kind.as_str()], &defaults[..], &[key.doc]].concat());
    }
    out
}

/// No flavour has defaults.
fn render_flavours() -> String {
    let mut out = row(&["Key", "Type", "Meaning"]) + "|---|---|---|\n";
    for key in FLAVOUR_KEYS {
        out += &row(&[&format!("`{}`", key.path), &describe(key), key.doc]);
    }
    out
}

/// The page with its tables rendered again.
fn expected() -> String {
    tables().iter().fold(read(PAGE), |page, name| {
        with_table(&page, name, &format!("\n{}\n", render(name)))
    })
}

#[test]
fn the_tables_agree_with_the_schema() {
    let page = read(PAGE);
    let begins = page.lines().filter_map(|line| line.strip_prefix(BEGIN));
    let mut names: Vec<_> = begins
        .filter_map(|rest| rest.strip_suffix(" -->"))
        .collect();
    let mut tables = tables();
    names.sort_unstable();
    tables.sort_unstable();
    assert_eq!(names, tables, "the page's tables");
    assert_page(PAGE, &expected(), file!());
}

#[test]
#[ignore = "writes docs/configuration.md"]
fn write_the_tables() {
    fs::write(repository_file(PAGE), expected()).unwrap();
}

/// The TOML examples of a page, each with the number of its first line.
fn examples(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.trim_end()) {
            (None, "```toml") => open = Some((number + 1, String::new())),
            (Some(_), "```") => found.extend(open.take()),
            (Some((_, text)), line) => *text += &format!("{line}\n"),
            (None, _) => {}
        }
    }
    found
}

#[test]
fn every_example_is_valid() {
    let mut count = 0;
    for page in PAGES {
        for (line, example) in examples(&read(page)) {
            let schema = if example.contains("schema = ") {
                String::new()
            } else {
                format!("{SCHEMA_KEY} = {SCHEMA_VERSION}\n")
            };
            let files = Files {
                root: PathBuf::new(),
                project: format!("{schema}{example}"),
                local: None,
            };
            if let Err(error) = resolve(&files, &Env::fake(&[])) {
                panic!("{page}:{line}: {error}");
            }
            count += 1;
        }
    }
    assert!(count > 5, "only {count} examples are found");
}
