//! `explain`: what is known of a failure, at length; without a code, all that are known.

use anyhow::Result;

use crate::{
    catalogue::{self, ENTRIES},
    config::schema::nearest,
    error::Failure,
    ui::Ui,
};

pub fn run(code: Option<&str>, ui: Ui) -> Result<()> {
    let text = match code {
        Some(code) => catalogue::of_code(code)
            .ok_or_else(|| unknown(code))?
            .explain(),
        None => catalogue::list(),
    };
    Ok(ui.result(&text)?)
}

fn unknown(code: &str) -> Failure {
    let failure = Failure::usage(format!("there is no known failure `{code}`"));
    match nearest(code, ENTRIES.iter().map(|entry| entry.code)) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("`cargo xtask explain` lists them"),
    }
}
