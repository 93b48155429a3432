//! How xtask was invoked: with `cargo xtask`, or as an installed or copied binary. Messages use the same
//! command.

use std::borrow::Cow;

use crate::base::env::Env;

/// How xtask was invoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// `cargo xtask`. Cargo builds xtask first if its sources have changed.
    Cargo,
    /// `xtask`, an existing binary.
    Binary,
}

impl Invocation {
    /// Determines the invocation: `cargo run` sets `CARGO_PKG_NAME` to the program's package, which is `xtask-core` or,
    /// after it has handed a command over, `xtask`.
    /// <https://doc.rust-lang.org/cargo/reference/environment-variables.html>
    pub fn of(env: &Env) -> Self {
        match env.get("CARGO_PKG_NAME") {
            Some("xtask" | "xtask-core") => Self::Cargo,
            Some(_) | None => Self::Binary,
        }
    }

    /// The command that invokes xtask.
    pub fn command(self) -> &'static str {
        match self {
            Self::Cargo => "cargo xtask",
            Self::Binary => "xtask",
        }
    }

    /// Replaces `cargo xtask` in a text with the command that invokes xtask.
    pub fn adapt(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Cargo => text.into(),
            Self::Binary => text
                .replace(Self::Cargo.command(), Self::Binary.command())
                .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_command_that_invoked_xtask() {
        let of = |vars: &[(&str, &str)]| Invocation::of(&Env::fake(vars));
        assert_eq!(of(&[("CARGO_PKG_NAME", "xtask")]), Invocation::Cargo);
        assert_eq!(of(&[("CARGO_PKG_NAME", "xtask-core")]), Invocation::Cargo);
        assert_eq!(of(&[("CARGO_PKG_NAME", "other")]), Invocation::Binary);
        assert_eq!(of(&[]), Invocation::Binary);
        let text = "start it: `cargo xtask run-local`";
        assert_eq!(Invocation::Cargo.adapt(text), text);
        assert_eq!(
            Invocation::Binary.adapt(text),
            "start it: `xtask run-local`"
        );
    }
}
