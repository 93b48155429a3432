//! The transfers of blobs that are running, shown on a terminal: a line each.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::base::{
    image::human_bytes,
    ui::{Ui, human_time},
};

/// How often the lines are drawn.
const INTERVAL: Duration = Duration::from_millis(200);
/// Shorter transfers are not shown.
const SHOWN_AFTER: Duration = Duration::from_millis(500);

/// The transfers that are running.
#[derive(Clone)]
pub struct Transfers {
    ui: Ui,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<u64, Arc<Count>>,
    next: u64,
    is_drawn: bool,
}

/// How much of a blob was transferred, in bytes.
struct Count {
    verb: &'static str,
    name: String,
    total: u64,
    done: AtomicU64,
    began: Instant,
}

/// A transfer that is shown until it is dropped.
pub struct Transfer {
    transfers: Transfers,
    number: u64,
    count: Arc<Count>,
}

impl Transfers {
    pub fn new(ui: Ui) -> Self {
        Self {
            ui,
            state: Arc::default(),
        }
    }

    /// Begins a transfer of a size in bytes, which may be 0 if it is unknown.
    pub fn begin(&self, verb: &'static str, name: &str, total: u64) -> Transfer {
        let count = Arc::new(Count {
            verb,
            name: name.to_owned(),
            total,
            done: AtomicU64::new(0),
            began: Instant::now(),
        });
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.running.insert(number, Arc::clone(&count));
        if self.ui.live && !state.is_drawn {
            state.is_drawn = true;
            let transfers = self.clone();
            thread::spawn(move || transfers.draw());
        }
        Transfer {
            transfers: self.clone(),
            number,
            count,
        }
    }

    /// Draws the lines until no transfer is left.
    fn draw(&self) {
        loop {
            thread::sleep(INTERVAL);
            let mut state = self.state();
            let lines: Vec<_> = state
                .running
                .values()
                .filter(|count| count.began.elapsed() >= SHOWN_AFTER)
                .map(|count| count.line(count.began.elapsed()))
                .collect();
            self.ui.draw(&lines);
            if state.running.is_empty() {
                state.is_drawn = false;
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    /// Such as `Pushing 3f1c0a9b7d52  12.0 MB of 28.0 MB, 6.0 MB/s, 2.7 s left`.
    fn line(&self, elapsed: Duration) -> String {
        let done = self.done.load(Ordering::Relaxed);
        let (verb, name) = (self.verb, &self.name);
        let mut line = format!("{verb:>12} {name}  {}", human_bytes(done));
        if self.total > 0 {
            line.push_str(&format!(" of {}", human_bytes(self.total)));
        }
        let rate = u128::from(done) * 1000 / elapsed.as_millis().max(1);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        line.push_str(&format!(", {}/s", human_bytes(rate)));
        if self.total > 0
            && let Some(left) = self.total.saturating_sub(done).checked_div(rate)
        {
            line.push_str(&format!(", {} left", human_time(Duration::from_secs(left))));
        }
        line
    }
}

impl Transfer {
    pub fn name(&self) -> &str {
        &self.count.name
    }

    /// The size in bytes; 0 if it is unknown.
    pub fn total(&self) -> u64 {
        self.count.total
    }

    /// A reader whose bytes count as transferred. It begins anew.
    pub fn counting<R: Read>(&self, content: R) -> Counting<R> {
        self.count.done.store(0, Ordering::Relaxed);
        Counting {
            content,
            count: Arc::clone(&self.count),
        }
    }

    /// Counts bytes that were read in another way.
    pub fn add(&self, bytes: u64) {
        self.count.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.transfers.state().running.remove(&self.number);
    }
}

/// See [`Transfer::counting`].
pub struct Counting<R> {
    content: R,
    count: Arc<Count>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.count.done.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(done: u64, total: u64, seconds: u64) -> String {
        let count = Count {
            verb: "Pushing",
            name: "3f1c0a9b7d52".to_owned(),
            total,
            done: AtomicU64::new(done),
            began: Instant::now(),
        };
        count.line(Duration::from_secs(seconds))
    }

    #[test]
    fn a_line_says_how_much_how_fast_and_how_long() {
        assert_eq!(
            line(12_000_000, 28_000_000, 2),
            "     Pushing 3f1c0a9b7d52  12.0 MB of 28.0 MB, 6.0 MB/s, 2.0 s left"
        );
        // Nothing is known about the time yet.
        assert_eq!(
            line(0, 28_000_000, 1),
            "     Pushing 3f1c0a9b7d52  0 B of 28.0 MB, 0 B/s"
        );
        assert_eq!(
            line(5_000, 0, 1),
            "     Pushing 3f1c0a9b7d52  5.0 kB, 5.0 kB/s"
        );
    }

    #[test]
    fn a_transfer_counts_until_it_is_dropped() {
        use crate::base::{invocation::Invocation, ui::Verbosity};
        let transfers = Transfers::new(Ui {
            verbosity: Verbosity::Quiet,
            live: false,
            invocation: Invocation::Cargo,
            engine: None,
        });
        let transfer = transfers.begin("Pushing", "x", 3);
        let mut content = transfer.counting(&b"abc"[..]);
        io::copy(&mut content, &mut io::sink()).unwrap();
        transfer.add(1);
        assert_eq!(transfer.count.done.load(Ordering::Relaxed), 4);
        let again = transfer.counting(&b"abc"[..]);
        assert_eq!(transfer.count.done.load(Ordering::Relaxed), 0);
        drop((again, transfer));
        assert!(transfers.state().running.is_empty());
    }
}
