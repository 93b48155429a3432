//! What a search for a login found.

use super::login::Credentials;
use crate::base::ui::Ui;

/// What a search found. The login is the first one.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub credentials: Option<Credentials>,
    /// The places that were searched without success, each with what is there, as one line.
    pub looked_in: Vec<String>,
    /// What kept places from being searched.
    pub problems: Vec<Problem>,
    /// The variable that has the login, if it is in one.
    pub variable: Option<String>,
    /// The command that stores a login for this registry.
    pub sign_in: String,
    /// What to do in CI if there is no login.
    pub in_ci: &'static str,
}

/// What keeps a place from being searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A sentence without an end.
    pub what: String,
    /// An instruction that begins with a verb.
    pub fix: String,
}

impl Found {
    /// Shows the problems. The search went on without those places.
    pub fn warn(&self, ui: Ui) {
        for problem in &self.problems {
            ui.warn(&problem.what);
            ui.hint(&problem.fix);
        }
    }

    /// What to do about the problems.
    pub fn fixes(&self) -> Vec<String> {
        self.problems.iter().map(|it| it.fix.clone()).collect()
    }

    /// What to do if the registry rejects the login.
    pub fn renewal(&self) -> String {
        match &self.variable {
            Some(name) => format!(
                "set a new login in {name}, or unset it to use a stored one: `{}`",
                self.sign_in
            ),
            None => format!("sign in again: `{}`", self.sign_in),
        }
    }

    /// The message if there is no login and the registry demands one for what the verb says. It lists
    /// the places.
    pub fn not_signed_in(&self, registry: &str, verb: &str, repository: &str) -> String {
        let what = if self.problems.is_empty() {
            format!("not signed in to {registry}")
        } else {
            format!("no login for {registry} could be read")
        };
        let mut text = format!("{what}, which is needed to {verb} {repository}");
        for line in &self.looked_in {
            text.push_str(&format!("\n  {line}"));
        }
        text
    }
}
