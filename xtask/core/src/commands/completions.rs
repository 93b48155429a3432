//! `completions`: a completion script for a shell.

use anyhow::Result;
use clap::Args;
use clap_complete::{Shell, generate};

use crate::commands::command::{Standalone, StandaloneContext};

/// Print a completion script for a shell
#[derive(Args, Clone, Debug)]
pub struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

impl Standalone for Completions {
    fn run(&self, cx: &StandaloneContext) -> Result<()> {
        let mut script = Vec::new();
        // Shells complete after a program's name, and that of `cargo xtask` is cargo. So the script is for
        // the installed binary, and for an alias `xtask='cargo xtask'`.
        let mut cli = cx.cli.clone().name("xtask").bin_name("xtask");
        generate(self.shell, &mut cli, "xtask", &mut script);
        Ok(cx.ui.print(&String::from_utf8_lossy(&script))?)
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Completions {}
