//! How xtask was called: `cargo xtask`, or by itself, installed or copied. What it says names the
//! command that works here.

use std::borrow::Cow;

use crate::env::Env;

/// The words that call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// `cargo xtask`: by Cargo, which builds it anew where that is needed.
    ByCargo,
    /// `xtask`: a binary that somebody built before.
    ByItself,
}

impl Called {
    /// `cargo run` tells what it runs.
    /// <https://doc.rust-lang.org/cargo/reference/environment-variables.html>
    pub fn of(env: &Env) -> Self {
        match env.get("CARGO_PKG_NAME") {
            Some(env!("CARGO_PKG_NAME")) => Self::ByCargo,
            Some(_) | None => Self::ByItself,
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::ByCargo => "cargo xtask",
            Self::ByItself => "xtask",
        }
    }

    /// A text of ours, with the words that call it here.
    pub fn say(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::ByCargo => text.into(),
            Self::ByItself => text
                .replace(Self::ByCargo.words(), Self::ByItself.words())
                .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_the_command_that_works() {
        let of = |vars: &[(&str, &str)]| Called::of(&Env::fake(vars));
        assert_eq!(of(&[("CARGO_PKG_NAME", "xtask")]), Called::ByCargo);
        assert_eq!(of(&[("CARGO_PKG_NAME", "other")]), Called::ByItself);
        assert_eq!(of(&[]), Called::ByItself);
        let text = "start it: `cargo xtask run-local`";
        assert_eq!(Called::ByCargo.say(text), text);
        assert_eq!(Called::ByItself.say(text), "start it: `xtask run-local`");
    }
}
