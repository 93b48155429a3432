//! `pack-archive`: makes one OCI archive of what engines write, or of several archives.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{
    base::time::MAX_TIMESTAMP,
    commands::command::Command,
    facts::context::Context,
    release::{archive::pack_line, dist, paths},
};

/// Make one OCI archive of several, or of what an engine wrote
#[derive(Args, Clone, Debug)]
pub struct PackArchive {
    /// OCI archives, archives of `docker save`, or folders of `podman push … dir:`
    #[arg(required = true, value_name = "ARCHIVE|FOLDER")]
    inputs: Vec<PathBuf>,
    /// Give files and build steps this time, in seconds since 1970
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=MAX_TIMESTAMP))]
    timestamp: Option<u64>,
    /// Where to write the archive
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

impl Command for PackArchive {
    fn run(&self, cx: &Context) -> Result<()> {
        let absolute = |path: &PathBuf| cx.env.cwd.join(path);
        let inputs: Vec<_> = self.inputs.iter().map(absolute).collect();
        let output = absolute(&self.output);
        if cx.dry_run {
            let line = pack_line(&inputs, self.timestamp, &output);
            return Ok(cx.ui.print_plan(&line)?);
        }
        let archive = dist::pack(cx, &inputs, self.timestamp, &output)?;
        cx.ui.status(
            "Packed",
            &format!(
                "{} ({})",
                paths::display(cx.settings, archive.path()),
                archive.root.digest
            ),
        );
        Ok(cx.ui.print(&format!("{}\n", archive.path().display()))?)
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for PackArchive {}
