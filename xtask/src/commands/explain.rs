//! `explain`: the entry of the catalogue for a failure, by its code or by what was printed; without either,
//! the list of all entries.

use anyhow::Result;
use clap::Args;

use crate::{
    base::error::Failure,
    catalogue::{self, ENTRIES},
    commands::command::{Standalone, Surroundings},
    config::schema::closest_match,
};

/// Explain a known failure: why, and what to do
#[derive(Args, Clone, Debug)]
pub struct Explain {
    /// Its code, or a line that was printed; without one, all failures are listed
    failure: Option<String>,
}

impl Standalone for Explain {
    fn run(&self, surroundings: &Surroundings) -> Result<()> {
        let text = match &self.failure {
            Some(text) => catalogue::find_by_code(text)
                .or_else(|| catalogue::find_in_output(text))
                .ok_or_else(|| unknown(text))?
                .explain(),
            None => catalogue::list(),
        };
        Ok(surroundings.ui.print_prose(&text)?)
    }
}

fn unknown(code: &str) -> Failure {
    let failure = Failure::usage(format!("there is no known failure `{code}`"));
    match closest_match(code, ENTRIES.iter().map(|entry| entry.code)) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("`cargo xtask explain` lists them"),
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Explain {
    /// It runs no command.
    fn examples(_: &crate::commands::testing::Machine) -> Vec<crate::commands::testing::Example> {
        Vec::new()
    }
}
