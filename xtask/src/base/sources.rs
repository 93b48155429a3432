// The digest of the sources. The build script embeds it in the binary, which compares it with the checkout.
// The digest is no protection against manipulation. The hasher may differ between Rust versions, but the
// same version compiles the build script and the binary.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

/// The digest of the paths and contents of all files in the package's `src`, and of its manifest.
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
