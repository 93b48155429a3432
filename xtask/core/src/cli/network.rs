//! The value of `--network`: a word that every engine has, or the name of a network.

use std::ffi::OsStr;

use clap::{
    Arg, Command, Error,
    builder::{NonEmptyStringValueParser, PossibleValue, TypedValueParser},
};

use crate::config::values::Network;

/// Takes any name, and offers the usual words for completion.
#[derive(Clone, Copy)]
pub struct NetworkParser;

impl TypedValueParser for NetworkParser {
    type Value = String;

    fn parse_ref(&self, cmd: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        NonEmptyStringValueParser::new().parse_ref(cmd, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Network::WORDS.iter().map(PossibleValue::new)))
    }
}
