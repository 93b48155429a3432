//! Embeds a digest of the sources, with which an installed binary detects that the checkout has other sources.
//! The digest depends only on the sources, so builds are reproducible.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // it is not part of xtask

#[path = "src/base/sources.rs"]
mod sources;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let digest = sources::digest(Path::new(".."))?;
    for path in ["src", "Cargo.toml", "../src", "../Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rustc-env=XTASK_SOURCES={digest:016x}");
    Ok(())
}
