//! `explain`: what is known of a failure, by its code or by what was printed, at length; without
//! either, all that are known.

use anyhow::Result;

use crate::{
    catalogue::{self, ENTRIES},
    config::schema::nearest,
    error::Failure,
    ui::Ui,
};

pub fn run(code: Option<&str>, ui: Ui) -> Result<()> {
    let text = match code {
        Some(text) => catalogue::of_code(text)
            .or_else(|| catalogue::find(text))
            .ok_or_else(|| unknown(text))?
            .explain(),
        None => catalogue::list(),
    };
    Ok(ui.words(&text)?)
}

fn unknown(code: &str) -> Failure {
    let failure = Failure::usage(format!("there is no known failure `{code}`"));
    match nearest(code, ENTRIES.iter().map(|entry| entry.code)) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("`cargo xtask explain` lists them"),
    }
}
