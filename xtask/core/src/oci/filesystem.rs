//! One pass over the tar file of a file system or a layer: its size, its size after gzip, and the
//! processor that each program and library in it is for.

use std::io::{self, Read, Write};

use super::gzip;
use crate::base::image::Platform;

/// What a tar file contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The size of the tar file in bytes.
    pub size: u64,
    /// All files with an ELF header.
    pub programs: Vec<Program>,
}

/// A program or library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub path: String,
    /// `e_machine` of the ELF header.
    pub machine: u16,
}

/// Reads a tar file to its end.
///
/// # Errors
/// When it cannot be read, or is not a tar file.
pub fn read(source: impl Read) -> io::Result<Contents> {
    read_and_copy(source, &mut io::sink())
}

/// Reads a tar file to its end, and returns also its size in bytes after compression with gzip, as
/// registries store layers.
///
/// # Errors
/// When it cannot be read, or is not a tar file.
pub fn read_and_compress(source: impl Read) -> io::Result<(Contents, u64)> {
    let mut encoder = gzip::encoder(Counter(0));
    let contents = read_and_copy(source, &mut encoder)?;
    Ok((contents, encoder.finish()?.0))
}

/// What is wrong with the programs of an image for a platform, as a sentence without a subject.
/// `None` if nothing is wrong.
pub fn wrong_programs(programs: &[Program], platform: &Platform) -> Option<String> {
    let Some(machine) = platform.elf_machine() else {
        return Some(format!(
            "the programs cannot be checked: the ELF machine number of {platform} is unknown"
        ));
    };
    let foreign: Vec<_> = programs
        .iter()
        .filter(|program| program.machine != machine)
        .collect();
    match (programs.is_empty(), foreign.first()) {
        (true, _) => Some("no program was found in the image".to_owned()),
        (false, None) => None,
        (false, Some(first)) => Some(format!(
            "{} of {} programs and libraries are not for {platform}, such as {}",
            foreign.len(),
            programs.len(),
            first.path
        )),
    }
}

fn read_and_copy(source: impl Read, copy: &mut impl Write) -> io::Result<Contents> {
    let mut tee = Tee {
        source,
        copy,
        size: 0,
    };
    let mut programs = Vec::new();
    let mut archive = tar::Archive::new(&mut tee);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let mut header = [0; 20];
        if read_up_to(&mut entry, &mut header)? == header.len()
            && let Some(machine) = elf_machine(&header)
        {
            let path = entry.path()?.display().to_string();
            programs.push(Program { path, machine });
        }
    }
    // The zeros after the last entry belong to the file's size.
    io::copy(&mut tee, &mut io::sink())?;
    Ok(Contents {
        size: tee.size,
        programs,
    })
}

fn read_up_to(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// `e_machine` of an ELF header: at byte 18, in the byte order of byte 5.
/// <https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>
fn elf_machine(header: &[u8; 20]) -> Option<u16> {
    let machine = [header[18], header[19]];
    match header {
        [0x7f, b'E', b'L', b'F', _, 1, ..] => Some(u16::from_le_bytes(machine)),
        [0x7f, b'E', b'L', b'F', _, 2, ..] => Some(u16::from_be_bytes(machine)),
        _ => None,
    }
}

/// Counts what is read, and copies it.
struct Tee<'a, R, W> {
    source: R,
    copy: &'a mut W,
    size: u64,
}

impl<R: Read, W: Write> Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.size += count as u64;
        self.copy.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// Counts what is written, and drops it.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        self.0 += content.len() as u64;
        Ok(content.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn programs_are_found_by_their_headers() {
        let mut amd64 = vec![
            0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 62, 0,
        ];
        amd64.extend([0; 100]);
        let mut arm64 = amd64.clone();
        arm64[18] = 183;
        let bytes = archive(&[
            ("bin/a", &amd64),
            ("lib/b.so", &arm64),
            ("etc/text", b"hello"),
            ("empty", b""),
        ]);
        let mut copy = Vec::new();
        let contents = read_and_copy(bytes.as_slice(), &mut copy).unwrap();
        assert_eq!(contents.size, bytes.len() as u64);
        assert_eq!(copy, bytes, "the copy is complete");
        assert_eq!(
            contents.programs,
            [
                Program {
                    path: "bin/a".into(),
                    machine: 62
                },
                Program {
                    path: "lib/b.so".into(),
                    machine: 183
                }
            ]
        );
    }

    #[test]
    fn the_compressed_size_is_gzips() {
        let bytes = archive(&[("zeros", &vec![0; 100_000])]);
        let (contents, compressed) = read_and_compress(bytes.as_slice()).unwrap();
        assert_eq!(contents.size, bytes.len() as u64);
        let packed = gzip::compress(bytes.as_slice(), Vec::new()).unwrap();
        // The size of each write may change a few bytes.
        assert!(
            compressed.abs_diff(packed.len() as u64) < 100,
            "{compressed}"
        );
    }

    #[test]
    fn a_truncated_archive_is_an_error() {
        let bytes = archive(&[("a", &[7; 5000])]);
        assert!(read(&bytes[..2000]).is_err());
    }
}
