//! Helpers for tests which check that generated parts of the documentation are up to date.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub fn repository_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name)
}

pub fn read(name: &str) -> String {
    fs::read_to_string(repository_file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The page with this table between `<!-- table: NAME -->` and `<!-- /table -->`.
pub fn with_table(page: &str, name: &str, table: &str) -> String {
    let begin = format!("<!-- table: {name} -->\n");
    let (head, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no `{}`", begin.trim_end()));
    let (_, tail) = rest.split_once("<!-- /table -->").expect("the table's end");
    format!("{head}{begin}{table}<!-- /table -->{tail}")
}

/// Compares a page line by line, so that a failure names the line. The comment at the top of the `generator`
/// file has the command that writes the page.
pub fn assert_page(name: &str, expected: &str, generator: &str) {
    let page = read(name);
    for (number, (line, expected)) in page.lines().zip(expected.lines()).enumerate() {
        assert_eq!(
            line,
            expected,
            "{name}:{}: write the page with the command at the top of {generator}",
            number + 1
        );
    }
    assert_eq!(page.len(), expected.len());
}
