//! `pack-archive`: makes one OCI archive of what engines write, or of several archives.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Context, shown};
use crate::{cli::PackArgs, oci::pack};

/// The line that does it, for a dry run.
pub fn line(inputs: &[PathBuf], timestamp: Option<u64>, output: &Path) -> String {
    let timestamp = timestamp.map_or(String::new(), |time| format!("--timestamp {time} "));
    let words: Vec<_> = inputs
        .iter()
        .chain([&output.to_path_buf()])
        .map(|path| crate::plan::quote(&path.to_string_lossy()))
        .collect();
    let (output, inputs) = words
        .split_last()
        .map_or((&words[0], &words[..0]), |both| both);
    format!(
        "cargo xtask pack-archive {timestamp}{} --output {output}\n",
        inputs.join(" ")
    )
}

pub fn run(cx: &Context, args: &PackArgs) -> Result<()> {
    let at = |path: &PathBuf| cx.env.cwd.join(path);
    let inputs: Vec<_> = args.inputs.iter().map(at).collect();
    let output = at(&args.output);
    if cx.dry_run {
        return Ok(cx.ui.result(&line(&inputs, args.timestamp, &output))?);
    }
    let archive = cx
        .exec
        .interruptible(|stop| pack::pack(&inputs, args.timestamp, &output, stop))?;
    cx.ui.status(
        "Packed",
        &format!(
            "{} ({})",
            shown(cx.settings, archive.path()),
            archive.root.digest
        ),
    );
    Ok(cx.ui.result(&format!("{}\n", archive.path().display()))?)
}
