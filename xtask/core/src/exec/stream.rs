//! The standard output of a process, read while it runs.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// A running process whose standard output can be read. It is killed when xtask gets a signal, even if
/// only xtask got it.
pub struct Stream {
    reader: Arc<duct::ReaderHandle>,
    dropped: Arc<AtomicBool>,
}

impl Stream {
    /// Kills the process as soon as `is_interrupted` says so.
    pub fn new(
        reader: duct::ReaderHandle,
        interval: Duration,
        is_interrupted: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        let stream = Self {
            reader: Arc::new(reader),
            dropped: Arc::default(),
        };
        let (reader, dropped) = (Arc::clone(&stream.reader), Arc::clone(&stream.dropped));
        // A read returns only when there is output, so it cannot look for signals itself.
        thread::spawn(move || {
            while !dropped.load(Ordering::SeqCst) {
                if is_interrupted() {
                    let _ = reader.kill();
                    break;
                }
                thread::sleep(interval);
            }
        });
        stream
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (&*self.reader).read(buffer)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}
