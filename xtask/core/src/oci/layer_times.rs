//! Gives the files of a layer one time, so that the layer's digest does not depend on when it was built.
//! `podman build --timestamp` does so for the steps that it runs, but not for those that it takes from its cache.
//!
//! Times before that one are replaced too, unlike by BuildKit's `rewrite-timestamp`: a cached step may be older than the
//! commit that is released, and its age differs from machine to machine.
//! <https://github.com/moby/buildkit/blob/master/docs/build-repro.md>
//!
//! A time before [`OLDEST`] stays: a program has set it on purpose. So a layer whose files all have such a time is the
//! same in each release, and nobody stores or downloads it again.

use std::io::{self, Read};

use tar::{EntryType, Header};

/// The size of a tar block in bytes. Headers are one block; contents are padded to whole blocks.
const BLOCK: usize = 512;
/// The beginning of 1981, in seconds since 1970. Build tools give files a time in the year 1970 or 1980, the first years
/// of Unix and of ZIP files.
const OLDEST: u64 = 347_155_200;
/// The largest extended header that is read, in bytes: extended attributes are at most 64 KiB each.
const MAX_EXTENDED_HEADER: u64 = 1 << 20;

/// Reads a layer's tar file with its times replaced. Everything else stays, byte for byte.
pub struct Retimed<R> {
    source: R,
    timestamp: u64,
    is_timestamp_used: bool,
    /// A rewritten header that the caller has not read yet.
    header: io::Cursor<Vec<u8>>,
    next: Next,
    /// The next entry's size from its extended header, where the header's own field is too small.
    extended_size: Option<u64>,
    /// The next entry's time from its extended header, which is more exact than the header's own field.
    extended_time: Option<Vec<u8>>,
}

/// What comes next in the source.
enum Next {
    Header,
    /// The rest of an entry's content with its padding, in bytes.
    Content(u64),
    /// The blocks of zeros after the last entry.
    End,
}

impl<R: Read> Retimed<R> {
    /// The timestamp is in seconds since 1970.
    pub fn new(source: R, timestamp: u64) -> Self {
        Self {
            source,
            timestamp,
            is_timestamp_used: false,
            header: io::Cursor::default(),
            next: Next::Header,
            extended_size: None,
            extended_time: None,
        }
    }

    /// Whether a file got the timestamp so far. Without such a file, any other timestamp would make the same tar file.
    pub fn is_timestamp_used(&self) -> bool {
        self.is_timestamp_used
    }

    fn set_time(&mut self, header: &mut Header) {
        header.set_mtime(self.timestamp);
        self.is_timestamp_used = true;
    }

    /// Reads and rewrites a header, and returns what comes after it.
    fn read_header(&mut self) -> io::Result<Next> {
        let mut header = Header::new_old();
        let mut block = Vec::with_capacity(BLOCK);
        (&mut self.source)
            .take(BLOCK as u64)
            .read_to_end(&mut block)?;
        match block.len() {
            0 => return Ok(Next::End), // some programs write no blocks of zeros
            BLOCK => header.as_mut_bytes().copy_from_slice(&block),
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.header = io::Cursor::new(header.as_bytes().to_vec());
            return Ok(Next::End);
        }
        let mut sum = header.clone();
        set_checksum(&mut sum);
        if header.cksum().ok() != sum.cksum().ok() {
            return Err(invalid("it is not a tar file, or it is damaged"));
        }
        let size = header.entry_size()?;
        let kind = header.entry_type();
        if kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
            self.rewrite_extended_header(header, size)?;
            return Ok(Next::Header);
        }
        if kind.is_gnu_sparse() {
            return Err(invalid(
                "it contains a sparse file in GNU tar's old format, which is not supported",
            ));
        }
        // A long name is an entry of its own before the entry that it belongs to.
        let is_name = matches!(kind, EntryType::GNULongName | EntryType::GNULongLink);
        let size = match kind {
            _ if is_name => size,
            // They have no content, whatever their size field says: Go's tar reader, which
            // engines use, ignores it as well.
            EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo => {
                self.extended_size = None;
                0
            }
            _ => self.extended_size.take().unwrap_or(size),
        };
        let time = self.extended_time.take_if(|_| !is_name);
        if time.is_some_and(|time| !is_fixed(&time)) {
            self.set_time(&mut header);
        }
        self.put_header(header, &[]);
        Ok(Next::Content(padded(size)?))
    }

    /// Reads an extended header, and removes the times from it: the entry's own header has a time
    /// in whole seconds, which is enough.
    /// <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_03>
    fn rewrite_extended_header(&mut self, mut header: Header, size: u64) -> io::Result<()> {
        if size > MAX_EXTENDED_HEADER {
            return Err(invalid("an extended header is too large"));
        }
        let mut content = Vec::new();
        let padded_size = padded(size)?;
        if (&mut self.source)
            .take(padded_size)
            .read_to_end(&mut content)? as u64
            != padded_size
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = content
            .get(..usize::try_from(size).unwrap_or(usize::MAX))
            .unwrap_or_default();
        let mut kept = Vec::new();
        while !rest.is_empty() {
            let (record, key, value) =
                record(rest).ok_or_else(|| invalid("an extended header is malformed"))?;
            match key {
                b"mtime" => self.extended_time = Some(value.to_vec()),
                b"atime" | b"ctime" => {}
                _ => kept.extend_from_slice(record),
            }
            if key == b"size" && header.entry_type().is_pax_local_extensions() {
                let value = std::str::from_utf8(value)
                    .ok()
                    .and_then(|it| it.parse().ok());
                self.extended_size = Some(
                    value.ok_or_else(|| invalid("the size in an extended header is malformed"))?,
                );
            }
            rest = &rest[record.len()..];
        }
        if !kept.is_empty() {
            header.set_size(kept.len() as u64);
            kept.resize(kept.len().next_multiple_of(BLOCK), 0);
            self.put_header(header, &kept);
        }
        Ok(())
    }

    /// Makes a header, and the content of an extended one, what the caller reads next.
    fn put_header(&mut self, mut header: Header, content: &[u8]) {
        if header.mtime().map_or(true, |mtime| mtime >= OLDEST) {
            self.set_time(&mut header);
        }
        if let Some(gnu) = header.as_gnu_mut() {
            // Optional fields of GNU tar's format.
            gnu.atime = [0; 12];
            gnu.ctime = [0; 12];
        }
        set_checksum(&mut header);
        self.header = io::Cursor::new([header.as_bytes(), content].concat());
    }
}

impl<R: Read> Read for Retimed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.header.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.next {
                Next::Header | Next::Content(0) => self.next = self.read_header()?,
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

/// Whether a time of an extended header, in seconds since 1970, is one that a program has set on purpose.
fn is_fixed(time: &[u8]) -> bool {
    let seconds = time.split(|byte| *byte == b'.').next();
    let seconds = seconds.and_then(|text| std::str::from_utf8(text).ok());
    seconds.is_some_and(|text| text.parse().is_ok_and(|time: u64| time < OLDEST))
}

/// The first record, `LENGTH KEY=VALUE\n`, of an extended header: the whole record, its key and its
/// value.
fn record(content: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = content.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&content[..space]).ok()?.parse().ok()?;
    let record = content.get(..length)?;
    let text = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some((record, &text[..equals], &text[equals + 1..]))
}

/// A size rounded up to whole blocks.
fn padded(size: u64) -> io::Result<u64> {
    size.checked_next_multiple_of(BLOCK as u64)
        .ok_or_else(|| invalid("an entry is too large"))
}

/// Sets the checksum in the form that Go's tar writer and GNU tar use: the sum of all bytes, where
/// those of the checksum itself count as spaces.
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
mod tests;
