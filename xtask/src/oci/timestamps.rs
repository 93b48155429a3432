//! One time for all that an image holds, whenever its parts were made: what `podman build
//! --timestamp` does to the steps that it runs, and not to those that it takes from its cache.
//!
//! Times are set, and not only those that are later, as with BuildKit's `rewrite-timestamp`: a
//! cached step may be older than the commit that it is released with, and each machine's has
//! another age.
//! <https://github.com/moby/buildkit/blob/master/docs/build-repro.md>

use std::io::{self, Read};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tar::{EntryType, Header};

use crate::time::rfc3339;

/// Tar files come in these.
const BLOCK: usize = 512;
/// More than this is no header's record: the longest are extended attributes, of 64 KiB each.
const RECORDS: u64 = 1 << 20;

/// Sets the times of a configuration, and what its layers are now.
///
/// # Errors
/// When it has other layers.
pub fn in_config(config: &mut Value, epoch: u64, diff_ids: &[String]) -> Result<()> {
    let time = Value::from(rfc3339(epoch));
    let layers = config.pointer_mut("/rootfs/diff_ids");
    let layers = layers.and_then(Value::as_array_mut);
    let layers = layers.context("the configuration names no layers")?;
    if layers.len() != diff_ids.len() {
        bail!(
            "the configuration names {} layers, the manifest {}",
            layers.len(),
            diff_ids.len()
        );
    }
    *layers = diff_ids.iter().cloned().map(Value::from).collect();
    for step in config
        .get_mut("history")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        step["created"] = time.clone();
    }
    config["created"] = time;
    Ok(())
}

/// A layer's tar file, read with other times. All else stays, byte for byte.
pub struct Layer<R> {
    source: R,
    epoch: u64,
    /// Read and not yet handed on.
    ready: io::Cursor<Vec<u8>>,
    next: Next,
    /// The next entry's size, where its header has no room for it.
    size: Option<u64>,
}

/// What the source holds next.
enum Next {
    Header,
    /// So many bytes of an entry.
    Content(u64),
    /// The zeros at the end.
    End,
}

impl<R: Read> Layer<R> {
    /// Times become this one, in seconds since 1970.
    pub fn new(source: R, epoch: u64) -> Self {
        Self {
            source,
            epoch,
            ready: io::Cursor::default(),
            next: Next::Header,
            size: None,
        }
    }

    /// Reads a header, and tells what comes after it.
    fn header(&mut self) -> io::Result<Next> {
        let mut header = Header::new_old();
        self.source.read_exact(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.ready = io::Cursor::new(header.as_bytes().to_vec());
            return Ok(Next::End);
        }
        let mut sum = header.clone();
        set_checksum(&mut sum);
        if header.cksum().ok() != sum.cksum().ok() {
            return Err(invalid("it is no tar file, or a damaged one"));
        }
        let size = header.entry_size()?;
        let kind = header.entry_type();
        if kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
            self.records(header, size)?;
            return Ok(Next::Header);
        }
        if kind.is_gnu_sparse() {
            return Err(invalid(
                "it holds a sparse file in GNU tar's old form, which engines don't write",
            ));
        }
        let size = match kind {
            // A name that is too long for its header comes before it, as an entry of its own.
            EntryType::GNULongName | EntryType::GNULongLink => size,
            // Whatever size they tell: so has it Go's reader, which engines read with.
            EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo => {
                self.size = None;
                0
            }
            _ => self.size.take().unwrap_or(size),
        };
        self.hand_on(header, &[]);
        Ok(Next::Content(padded(size)?))
    }

    /// Reads an extended header. Its times go: the header that follows has one, to the second, as
    /// all have that Podman writes.
    /// <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_03>
    fn records(&mut self, mut header: Header, size: u64) -> io::Result<()> {
        if size > RECORDS {
            return Err(invalid("an extended header is too long"));
        }
        let mut content = Vec::new();
        let whole = padded(size)?;
        if (&mut self.source).take(whole).read_to_end(&mut content)? as u64 != whole {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = content
            .get(..usize::try_from(size).unwrap_or(usize::MAX))
            .unwrap_or_default();
        let mut kept = Vec::new();
        while !rest.is_empty() {
            let (record, key, value) =
                record(rest).ok_or_else(|| invalid("an extended header cannot be read"))?;
            match key {
                b"mtime" | b"atime" | b"ctime" => {}
                _ => kept.extend_from_slice(record),
            }
            if key == b"size" && header.entry_type().is_pax_local_extensions() {
                let value = std::str::from_utf8(value)
                    .ok()
                    .and_then(|it| it.parse().ok());
                self.size = Some(value.ok_or_else(|| invalid("a size cannot be read"))?);
            }
            rest = &rest[record.len()..];
        }
        if !kept.is_empty() {
            header.set_size(kept.len() as u64);
            kept.resize(kept.len().next_multiple_of(BLOCK), 0);
            self.hand_on(header, &kept);
        }
        Ok(())
    }

    fn hand_on(&mut self, mut header: Header, content: &[u8]) {
        header.set_mtime(self.epoch);
        if let Some(gnu) = header.as_gnu_mut() {
            // They may be left out, and mostly are.
            gnu.atime = [0; 12];
            gnu.ctime = [0; 12];
        }
        set_checksum(&mut header);
        self.ready = io::Cursor::new([header.as_bytes(), content].concat());
    }
}

impl<R: Read> Read for Layer<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.ready.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.next {
                Next::Header | Next::Content(0) => self.next = self.header()?,
                Next::Content(left) => {
                    let count = (&mut self.source).take(left).read(buffer)?;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.next = Next::Content(left - count as u64);
                    return Ok(count);
                }
                Next::End => return self.source.read(buffer),
            }
        }
    }
}

/// The first record of an extended header, with its key and its value: `LENGTH KEY=VALUE\n`.
fn record(content: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = content.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&content[..space]).ok()?.parse().ok()?;
    let record = content.get(..length)?;
    let text = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some((record, &text[..equals], &text[equals + 1..]))
}

/// With the zeros up to the next block.
fn padded(size: u64) -> io::Result<u64> {
    size.checked_next_multiple_of(BLOCK as u64)
        .ok_or_else(|| invalid("an entry is too long"))
}

/// The sum of all bytes, with the sum's own as spaces, written as Go's writer and GNU tar do.
fn set_checksum(header: &mut Header) {
    header.as_old_mut().cksum = *b"        ";
    let sum: u32 = header.as_bytes().iter().map(|byte| u32::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    header.as_old_mut().cksum.copy_from_slice(text.as_bytes());
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 1_234_567_890;

    /// An entry with its content, as Podman's tar writer has it.
    fn entry(kind: u8, name: &str, mtime: u64, content: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(kind));
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_mtime(mtime);
        set_checksum(&mut header);
        let mut entry = [header.as_bytes(), content].concat();
        entry.resize(entry.len().next_multiple_of(BLOCK), 0);
        entry
    }

    fn records(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut content = Vec::new();
        for (key, value) in records {
            let length = key.len() + value.len() + 3;
            let length = (1..).map(|digits| length + digits);
            let length = length
                .zip(1..)
                .find(|(length, digits)| length.to_string().len() == *digits);
            content.extend(format!("{} {key}=", length.unwrap().0).bytes());
            content.extend(*value);
            content.push(b'\n');
        }
        content
    }

    fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut tar = entries.concat();
        tar.resize(tar.len() + 2 * BLOCK, 0);
        tar
    }

    fn read(tar: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        Layer::new(tar, EPOCH).read_to_end(&mut read)?;
        Ok(read)
    }

    /// What is read, of any times, is what is written with the epoch's.
    fn becomes_this(with: impl Fn(u64) -> Vec<Vec<u8>>) {
        let wanted = tar(&with(EPOCH));
        for time in [
            0,
            315_532_800,
            EPOCH,
            EPOCH + 1,
            1_795_567_706,
            u64::MAX >> 1,
        ] {
            assert_eq!(read(&tar(&with(time))).unwrap(), wanted, "{time}");
        }
    }

    #[test]
    fn times_are_set_and_all_else_stays() {
        becomes_this(|time| {
            let mut device = Header::new_ustar();
            device.set_entry_type(EntryType::Char);
            device.set_device_major(1).unwrap();
            device.set_device_minor(3).unwrap();
            device.set_uid(5_000_000); // in binary: too many for octal digits
            device.set_size(0);
            device.set_mtime(time);
            set_checksum(&mut device);
            let mut link = Header::new_ustar();
            link.set_entry_type(EntryType::Symlink);
            link.set_link_name("/app/x").unwrap();
            link.set_username("stigmer").unwrap();
            link.set_size(0);
            link.set_mtime(time);
            set_checksum(&mut link);
            vec![
                entry(b'5', "app/", time, b""),
                entry(b'0', "app/main.py", time, &[7; 513]),
                entry(b'0', "app/empty", time, b""),
                entry(b'1', "app/hard", time, b""),
                device.as_bytes().to_vec(),
                link.as_bytes().to_vec(),
                entry(b'0', "app/.wh.gone", time, b""),
            ]
        });
    }

    #[test]
    fn links_have_no_content_whatever_their_size() {
        becomes_this(|time| {
            let mut link = Header::new_ustar();
            link.set_entry_type(EntryType::Link);
            link.set_size(513);
            link.set_mtime(time);
            set_checksum(&mut link);
            vec![link.as_bytes().to_vec(), entry(b'0', "x", time, b"x")]
        });
    }

    #[test]
    fn long_names_and_extended_attributes_stay() {
        let long = "deep/".repeat(60);
        let kept = records(&[
            ("path", long.as_bytes()),
            (
                "SCHILY.xattr.security.capability",
                b"\x01\0\n=\xff 7 mtime=1\n",
            ),
        ]);
        becomes_this(|time| {
            vec![
                entry(b'x', "PaxHeaders.0/x", time, &kept),
                entry(b'0', "x", time, b"content"),
                entry(b'L', "././@LongLink", time, long.as_bytes()),
                entry(b'0', "deep/", time, b"content"),
            ]
        });
    }

    #[test]
    fn times_in_extended_headers_go() {
        let times: &[(&str, &[u8])] = &[
            ("mtime", b"1795567706.054723321"),
            ("atime", b"-1.5"),
            ("ctime", b"1795567706"),
        ];
        let kept: (&str, &[u8]) = ("path", b"app/x");
        let with = |all: &[(&str, &[u8])]| {
            tar(&[
                entry(b'g', "pax_global_header", 5, &records(times)),
                entry(b'x', "PaxHeaders.0/x", 5, &records(all)),
                entry(b'0', "x", 5, b"content"),
            ])
        };
        let content = entry(b'0', "x", EPOCH, b"content");
        assert_eq!(
            read(&with(times)).unwrap(),
            tar(std::slice::from_ref(&content))
        );
        let header = entry(b'x', "PaxHeaders.0/x", EPOCH, &records(&[kept]));
        assert_eq!(
            read(&with(&[times[0], kept, times[1], times[2]])).unwrap(),
            tar(&[header, content])
        );
    }

    #[test]
    fn a_size_that_is_in_the_extended_header_counts() {
        becomes_this(|time| {
            // What the file holds looks like an entry.
            let inner = entry(b'0', "inner", 99, b"x");
            let mut outer = entry(b'0', "outer", time, b"");
            outer.extend_from_slice(&inner);
            vec![
                entry(b'x', "PaxHeaders.0/x", time, &records(&[("size", b"1024")])),
                outer,
                entry(b'0', "after", time, b"x"),
            ]
        });
    }

    #[test]
    fn gnu_tars_own_times_go() {
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.as_gnu_mut().unwrap().set_atime(1_795_567_706);
        header.as_gnu_mut().unwrap().set_ctime(1_795_567_706);
        set_checksum(&mut header);
        let read = read(&tar(&[header.as_bytes().to_vec()])).unwrap();
        let header = Header::from_byte_slice(&read[..BLOCK]);
        let gnu = header.as_gnu().unwrap();
        assert_eq!((gnu.atime, gnu.ctime), ([0; 12], [0; 12]));
        assert_eq!(header.mtime().unwrap(), EPOCH);
    }

    #[test]
    fn what_is_no_layer_is_refused() {
        let file = entry(b'0', "x", 5, &[7; 2000]);
        let mut damaged = tar(std::slice::from_ref(&file));
        damaged[0] ^= 1;
        for (content, why) in [
            (damaged, "damaged"),
            (vec![7; 1024], "no tar file"),
            (file[..1024].to_vec(), ""),
            (file[..100].to_vec(), ""),
            (Vec::new(), ""),
            (
                tar(&[entry(b'x', "x", 5, b"12 path=x\n")]),
                "cannot be read",
            ),
            (tar(&[entry(b'x', "x", 5, b"0 path=x\n")]), "cannot be read"),
            (tar(&[entry(b'x', "x", 5, b"no record")]), "cannot be read"),
            (
                tar(&[entry(b'x', "x", 5, &records(&[("size", b"-1")]))]),
                "size",
            ),
            (tar(&[entry(b'S', "x", 5, b"")]), "sparse"),
        ] {
            let error = read(&content).unwrap_err();
            match why {
                "" => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
                why => assert!(error.to_string().contains(why), "{why}: {error}"),
            }
        }
    }

    #[test]
    fn a_configuration_has_one_time() {
        let mut config = serde_json::json!({
            "created": "2026-11-25T00:51:07.054723321Z",
            "history": [
                {"created": "2001-01-01T00:00:00Z", "created_by": "a", "empty_layer": true},
                {"created_by": "b"},
            ],
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
        });
        in_config(&mut config, EPOCH, &["sha256:2".to_owned()]).unwrap();
        let time = "2009-02-13T23:31:30Z";
        let wanted = serde_json::json!({
            "created": time,
            "history": [
                {"created": time, "created_by": "a", "empty_layer": true},
                {"created": time, "created_by": "b"},
            ],
            "rootfs": {"type": "layers", "diff_ids": ["sha256:2"]},
        });
        assert_eq!(config, wanted);
        let error = in_config(&mut config, EPOCH, &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the configuration names 1 layers, the manifest 0"
        );
    }
}
