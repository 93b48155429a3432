//! One pass over an exported file system: its size, its size after gzip, and for which
//! processor each program and library in it is.

use std::io::{self, Read, Write};

use anyhow::{Context as _, Result};

use crate::{exec::Exec, image::Platform, plan::Cmd};

/// What the pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Bytes of the tar archive, which all engines make alike.
    pub unpacked: Option<u64>,
    /// Bytes after `gzip -6`, as registries store layers.
    pub compressed: Option<u64>,
    pub programs: Vec<Program>,
}

/// A file with an ELF header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub path: String,
    /// `e_machine`.
    pub machine: u16,
}

/// Runs the export and reads it.
///
/// # Errors
/// When it cannot be read to its end.
pub fn measure(exec: &Exec, export: &Cmd) -> Result<Measured> {
    let source = exec.stream(export)?;
    let (to_gzip, gzip) = match exec.count_gzip() {
        Ok((writer, count)) => (Some(writer), Some(count)),
        Err(_) => (None, None),
    };
    let mut measured =
        read(source, to_gzip).context("the image's file system could not be read")?;
    measured.compressed = gzip.and_then(|count| count.join().ok().flatten());
    Ok(measured)
}

/// Reads one layer; what is beneath it, and the gzip of it, is not its affair.
///
/// # Errors
/// When it cannot be read to its end.
pub fn read_layer(source: impl Read) -> io::Result<Measured> {
    read(source, None::<io::Sink>)
}

/// What is wrong with the programs of an image for a platform, as a sentence without a subject.
pub fn complaint(programs: &[Program], platform: &Platform) -> Option<String> {
    let Some(machine) = platform.elf_machine() else {
        return Some(format!("{platform} is a platform that is not known here"));
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

fn read(source: impl Read, copy_to: Option<impl Write>) -> io::Result<Measured> {
    let mut tee = Tee {
        source,
        copy_to,
        count: 0,
    };
    let mut measured = Measured::default();
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
            measured.programs.push(Program { path, machine });
        }
    }
    // The zeros at an archive's end count too.
    io::copy(&mut tee, &mut io::sink())?;
    measured.unpacked = Some(tee.count);
    Ok(measured)
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

/// `e_machine` of an ELF header: at byte 18, in the byte order that byte 5 tells.
/// <https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>
fn elf_machine(header: &[u8; 20]) -> Option<u16> {
    let machine = [header[18], header[19]];
    match header {
        [0x7f, b'E', b'L', b'F', _, 1, ..] => Some(u16::from_le_bytes(machine)),
        [0x7f, b'E', b'L', b'F', _, 2, ..] => Some(u16::from_be_bytes(machine)),
        _ => None,
    }
}

/// Reads, counts, and hands on what was read.
struct Tee<R, W> {
    source: R,
    copy_to: Option<W>,
    count: u64,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.count += count as u64;
        if let Some(copy_to) = &mut self.copy_to
            && copy_to.write_all(&buffer[..count]).is_err()
        {
            // gzip has gone: sizes are not worth failing for.
            self.copy_to = None;
        }
        Ok(count)
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
        let measured = read(bytes.as_slice(), Some(&mut copy)).unwrap();
        assert_eq!(measured.unpacked, Some(bytes.len() as u64));
        assert_eq!(copy, bytes, "the copy is whole");
        assert_eq!(
            measured.programs,
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
    fn a_torn_archive_is_an_error() {
        let bytes = archive(&[("a", &[7; 5000])]);
        assert!(read(&bytes[..2000], None::<Vec<u8>>).is_err());
    }
}
