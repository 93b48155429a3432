//! Pages of documentation that are made of the code, for the tests that hold them to it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of the repository.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

pub fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
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

/// Line for line, for the message: `how` is the file whose top says how to write the page anew.
pub fn must_be(name: &str, wanted: &str, how: &str) {
    let page = read(name);
    for (number, (is, should)) in page.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(
            is,
            should,
            "{name}:{}: write it with the command at the top of {how}",
            number + 1
        );
    }
    assert_eq!(page.len(), wanted.len());
}
