//! `--timings`: what ran, when it began, and how long it took.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::plan::Step;

/// Why a process was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A command of a plan.
    Step,
    /// A read-only question.
    Question,
}

/// One process that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    pub purpose: Purpose,
    pub what: String,
    /// Since xtask began.
    pub began: Duration,
    pub took: Duration,
    /// How it failed, such as its exit code; none if it succeeded.
    pub failed: Option<String>,
}

/// Records what ran, if `--timings` asks for it. Clones share the record, because questions are asked in
/// parallel.
#[derive(Clone, Debug)]
pub struct Timings {
    start: Instant,
    notes: Option<Arc<Mutex<Vec<Timing>>>>,
}

impl Timings {
    pub fn new(enabled: bool) -> Self {
        Self {
            start: Instant::now(),
            notes: enabled.then(Arc::default),
        }
    }

    /// Records a process that began at a time and ends now.
    pub fn note(&self, purpose: Purpose, what: &str, began: Instant, failed: Option<String>) {
        let Some(notes) = &self.notes else { return };
        let timing = Timing {
            purpose,
            what: what.to_owned(),
            began: began.duration_since(self.start),
            took: began.elapsed(),
            failed,
        };
        notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(timing);
    }

    /// The table so far; none without `--timings`.
    pub fn table(&self) -> Option<String> {
        let notes = self.notes.as_ref()?;
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        notes.sort_by_key(|timing| timing.began);
        Some(render(&notes, self.start.elapsed()))
    }
}

/// How many characters of a command a row shows.
const WIDTH: usize = 60;

/// The name of a step: its status line, else its command.
pub fn step_name(step: &Step) -> String {
    match &step.status {
        Some((verb, object)) => format!("{verb} {object}"),
        None => step.cmd.render(),
    }
}

/// One row for each process, in the order in which they began. A question that was repeated, such as a health
/// check, has one row for all its runs.
fn render(timings: &[Timing], whole: Duration) -> String {
    let mut out = "   began       took\n".to_owned();
    let mut rows: Vec<Vec<&Timing>> = Vec::new();
    for timing in timings {
        let same = |row: &&mut Vec<&Timing>| {
            timing.purpose == Purpose::Question
                && (row[0].purpose, &row[0].what) == (timing.purpose, &timing.what)
        };
        match rows.iter_mut().find(same) {
            Some(row) => row.push(timing),
            None => rows.push(vec![timing]),
        }
    }
    for row in rows {
        let (first, last) = (row[0], row[row.len() - 1]);
        let took: Duration = row.iter().map(|timing| timing.took).sum();
        let purpose = match first.purpose {
            Purpose::Step => "step    ",
            Purpose::Question => "question",
        };
        let times = match row.len() {
            1 => String::new(),
            times => format!(", {times} times"),
        };
        let failed = last
            .failed
            .as_ref()
            .map_or(String::new(), |failed| format!(", {failed}"));
        let _ = writeln!(
            out,
            "{}  {}  {purpose}  {}{times}{failed}",
            seconds(first.began),
            seconds(took),
            cut(&first.what),
        );
    }
    let _ = writeln!(out, "{:9}  {}  in all", "", seconds(whole));
    out
}

fn seconds(time: Duration) -> String {
    format!("{:7.3} s", time.as_secs_f64())
}

/// The beginning of a long line.
fn cut(what: &str) -> String {
    let line = what.lines().next().unwrap_or_default();
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    let begin: String = line.chars().take(WIDTH - 1).collect();
    format!("{begin}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(purpose: Purpose, what: &str, began: u64, took: u64, failed: Option<&str>) -> Timing {
        Timing {
            purpose,
            what: what.to_owned(),
            began: Duration::from_millis(began),
            took: Duration::from_millis(took),
            failed: failed.map(str::to_owned),
        }
    }

    #[test]
    fn the_table() {
        let check = "docker exec box probe";
        let long = format!("docker run {}", "x".repeat(60));
        let timings = [
            timing(Purpose::Question, "docker version", 1, 15, None),
            timing(Purpose::Step, "Building r:1", 20, 12_345, None),
            timing(Purpose::Step, &long, 12_400, 300, None),
            timing(Purpose::Question, check, 12_700, 50, Some("exit code 1")),
            timing(
                Purpose::Question,
                "docker container inspect box",
                12_750,
                20,
                None,
            ),
            timing(Purpose::Question, check, 12_850, 50, None),
            timing(
                Purpose::Step,
                "docker rm box",
                13_000,
                9,
                Some("exit code 3"),
            ),
        ];
        assert_eq!(
            render(&timings, Duration::from_millis(13_010)),
            "   began       took\n\
             \x20 0.001 s    0.015 s  question  docker version\n\
             \x20 0.020 s   12.345 s  step      Building r:1\n\
             \x2012.400 s    0.300 s  step      docker run xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…\n\
             \x2012.700 s    0.100 s  question  docker exec box probe, 2 times\n\
             \x2012.750 s    0.020 s  question  docker container inspect box\n\
             \x2013.000 s    0.009 s  step      docker rm box, exit code 3\n\
             \x20           13.010 s  in all\n"
        );
    }

    #[test]
    fn nothing_is_recorded_unless_asked_for() {
        let timings = Timings::new(false);
        timings.note(Purpose::Step, "x", Instant::now(), None);
        assert_eq!(timings.table(), None);
        let timings = Timings::new(true);
        timings.note(Purpose::Step, "x", Instant::now(), None);
        assert!(timings.table().unwrap().contains("step      x\n"));
    }
}
