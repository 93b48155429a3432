//! Ending long work in this process early, for example after Ctrl-C.

use std::io::{self, Read};

/// Called before each read of a long stream. When it returns an error, the work ends with it.
pub type StopCheck<'a> = &'a (dyn Fn() -> io::Result<()> + Sync);

/// A reader that asks a [`StopCheck`] before each read.
pub struct Stoppable<'a, R> {
    source: R,
    check: StopCheck<'a>,
}

impl<'a, R> Stoppable<'a, R> {
    pub fn new(source: R, check: StopCheck<'a>) -> Self {
        Self { source, check }
    }
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.check)()?;
        self.source.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn an_endless_copy_ends() {
        let reads = AtomicU32::new(0);
        let check = || match reads.fetch_add(1, Ordering::Relaxed) {
            0..3 => Ok(()),
            _ => Err(io::Error::other("interrupted")),
        };
        let mut endless = Stoppable::new(io::repeat(7), &check);
        let error = io::copy(&mut endless, &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "interrupted");
        assert_eq!(reads.into_inner(), 4);
    }
}
