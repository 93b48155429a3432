// The sources' digest, for the build script, which embeds it, and for the binary, which compares.
// Not for security: it tells one state of the sources from another. The hasher may be another in
// another Rust, but one Rust builds both.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

/// Of all files below the package's `src`, their paths and contents, and of its manifest.
pub fn digest(package: &Path) -> io::Result<u64> {
    let mut files = vec![PathBuf::from("Cargo.toml")];
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(package.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    let mut state = DefaultHasher::new();
    for file in files {
        file.hash(&mut state);
        fs::read(package.join(file))?.hash(&mut state);
    }
    Ok(state.finish())
}
