// The sources' digest, for the build script, which embeds it, and for the binary, which compares.
// Not for security: it tells one state of the sources from another. It takes eight bytes at a time,
// so that it is quick in a build without optimisation too.

use std::{
    fs, io,
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
    let mut state = 0xcbf2_9ce4_8422_2325;
    for file in files {
        add(&mut state, file.to_string_lossy().as_bytes());
        add(&mut state, &fs::read(package.join(file))?);
    }
    Ok(state)
}

/// FNV-1a's step, on words. <http://www.isthe.com/chongo/tech/comp/fnv/>
fn add(state: &mut u64, bytes: &[u8]) {
    let mut step = |word: u64| {
        *state = (*state ^ word)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(29);
    };
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        step(u64::from_le_bytes(word));
    }
    step(bytes.len() as u64);
}
