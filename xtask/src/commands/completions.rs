//! `completions`: a script for a shell.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::{cli::Cli, ui::Ui};

pub fn run(shell: Shell, ui: Ui) -> Result<()> {
    let mut script = Vec::new();
    // Shells complete after a program's name, and `cargo xtask` is cargo's: this is for the
    // installed binary and for an alias `xtask='cargo xtask'`.
    generate(
        shell,
        &mut Cli::command().name("xtask").bin_name("xtask"),
        "xtask",
        &mut script,
    );
    Ok(ui.result(&String::from_utf8_lossy(&script))?)
}
