//! Embeds the sources' digest, by which an installed binary knows that it is not what the checkout
//! would build. It depends on the sources alone, so builds stay reproducible.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // a program of its own

#[path = "src/base/sources.rs"]
mod sources;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let digest = sources::digest(Path::new("."))?;
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rustc-env=XTASK_SOURCES={digest:016x}");
    Ok(())
}
