//! Checks that the table of commands in README.md agrees with the code. After a change of a command's help:
//!
//! ```sh
//! cargo test -p xtask-core --lib -- --ignored write_the_commands
//! ```

use std::fs;

use clap::CommandFactory;

use crate::{
    base::pages::{assert_page, read, repository_file, with_table},
    commands::table::{Cli, GROUPS},
};

const PAGE: &str = "README.md";

fn render() -> String {
    let cli = Cli::command();
    let mut out = "| Command | What it does |\n|---|---|\n".to_owned();
    for group in GROUPS {
        out += &format!("| **{}** | |\n", group.heading);
        for name in group.commands {
            let command = cli.find_subcommand(name).unwrap();
            let about = command.get_about().unwrap();
            out += &format!("| `cargo xtask {name}` | {about} |\n");
        }
    }
    out
}

fn wanted() -> String {
    with_table(&read(PAGE), "commands", &render())
}

#[test]
fn the_table_agrees_with_the_code() {
    assert_page(PAGE, &wanted(), file!());
}

#[test]
#[ignore = "writes README.md"]
fn write_the_commands() {
    fs::write(repository_file(PAGE), wanted()).unwrap();
}
