//! The JSON that `--json` prints: always an object, with the version of its format.

use anyhow::Result;
use serde::Serialize;

use crate::{
    base::ui::Ui,
    engine::{EngineFacts, Location},
};

/// The version of the format. A change that breaks readers raises it.
const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Envelope<'a, T> {
    schema: u32,
    #[serde(flatten)]
    content: &'a T,
}

/// Prints an object, with `schema` before its own fields.
///
/// # Errors
/// When standard output cannot be written.
pub fn print<T: Serialize>(ui: Ui, content: &T) -> Result<()> {
    let envelope = Envelope {
        schema: SCHEMA_VERSION,
        content,
    };
    let text = serde_json::to_string_pretty(&envelope)?;
    Ok(ui.print_prose(&format!("{text}\n"))?)
}

/// An engine.
#[derive(Clone, Debug, Serialize)]
pub struct JsonEngine {
    /// `docker` or `podman`.
    kind: &'static str,
    /// The program by which it is called.
    program: String,
    version: String,
    rootless: bool,
    /// `here`, `vm`, or the address of another machine.
    place: String,
}

impl From<&EngineFacts> for JsonEngine {
    fn from(facts: &EngineFacts) -> Self {
        let place = match &facts.location {
            Location::Host => "here",
            Location::VirtualMachine => "vm",
            Location::Remote(address) => address,
        };
        Self {
            kind: facts.engine.kind.program(),
            program: facts.engine.program.clone(),
            version: facts.version.clone(),
            rootless: facts.rootless,
            place: place.to_owned(),
        }
    }
}
