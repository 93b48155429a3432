//! `explain`: the entry of the catalogue for a failure, by its code or by what was printed; without either,
//! the list of all entries.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    base::error::Failure,
    catalogue::{self, ENTRIES, Entry},
    cli::JsonOption,
    commands::{
        command::{Standalone, StandaloneContext},
        json,
    },
    config::schema::closest_match,
};

/// Explain a known failure: why, and what to do
#[derive(Args, Clone, Debug)]
pub struct Explain {
    /// The failure's code, or a line of output [default: list all failures]
    failure: Option<String>,
    #[command(flatten)]
    json: JsonOption,
}

#[derive(Serialize)]
struct Report {
    failures: Vec<&'static Entry>,
}

impl Standalone for Explain {
    fn run(&self, cx: &StandaloneContext) -> Result<()> {
        let ui = cx.ui;
        let entry = self.failure.as_deref().map(known).transpose()?;
        if self.json.json {
            let failures = match entry {
                Some(entry) => vec![entry],
                None => ENTRIES.iter().collect(),
            };
            return json::print(ui, &Report { failures });
        }
        let text = entry.map_or_else(catalogue::list, Entry::explain);
        Ok(ui.print_prose(&text)?)
    }
}

/// The entry of a code, or of a line that was printed.
fn known(text: &str) -> Result<&'static Entry, Failure> {
    catalogue::find_by_code(text)
        .or_else(|| catalogue::find_in_output(text))
        .ok_or_else(|| unknown(text))
}

fn unknown(code: &str) -> Failure {
    let failure = Failure::usage(format!("there is no known failure `{code}`"));
    match closest_match(code, ENTRIES.iter().map(|entry| entry.code)) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("list them: `cargo xtask explain`"),
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Explain {}
