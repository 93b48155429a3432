// The digest of the sources. The build script embeds it in the binary, which compares it with the checkout.
// The digest is no protection against manipulation. The hasher may differ between Rust versions, but the
// same version compiles the build script and the binary.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

/// The digest of the paths and contents of all source files and manifests in the folder `xtask`.
pub fn digest(xtask: &Path) -> io::Result<u64> {
    let mut files = ["Cargo.toml", "core/Cargo.toml"]
        .map(PathBuf::from)
        .to_vec();
    let mut folders = ["src", "core/src"].map(PathBuf::from).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(xtask.join(&folder))? {
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
        fs::read(xtask.join(file))?.hash(&mut state);
    }
    Ok(state.finish())
}
