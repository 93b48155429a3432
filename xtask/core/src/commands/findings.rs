//! The findings of `doctor` and `ci-check`: one line each, with a fix.

use anyhow::Result;
use serde::Serialize;

use crate::{base::error::Failure, cli::JsonOption, commands::json, facts::context::Context};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Warning,
    Failure,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub what: &'static str,
    pub level: Level,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

pub fn ok(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding {
        what,
        level: Level::Ok,
        detail: detail.into(),
        fix: None,
    }
}

pub fn warning(what: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding {
        what,
        level: Level::Warning,
        detail: detail.into(),
        fix: Some(fix.into()),
    }
}

pub fn failure(what: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding {
        what,
        level: Level::Failure,
        detail: detail.into(),
        fix: Some(fix.into()),
    }
}

/// A failure as a finding, with its hints as the fix.
pub fn from_failure(what: &'static str, why: &Failure) -> Finding {
    let message = why.to_string();
    let lines: Vec<_> = message.lines().map(str::trim).collect();
    Finding {
        what,
        level: Level::Failure,
        detail: lines.join("; "),
        fix: Some(why.hint_lines().join("; ")).filter(|fix| !fix.is_empty()),
    }
}

/// Any error as a finding.
pub fn from_error(what: &'static str, why: &anyhow::Error) -> Finding {
    match why.downcast_ref::<Failure>() {
        Some(why) => from_failure(what, why),
        None => from_failure(what, &Failure::new(format!("{why:#}"))),
    }
}

/// The names of the failures.
pub fn failure_names(findings: &[Finding]) -> Vec<&'static str> {
    let failure_names = findings
        .iter()
        .filter(|finding| finding.level == Level::Failure);
    failure_names.map(|finding| finding.what).collect()
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    findings: &'a [Finding],
}

/// Prints the findings.
///
/// # Errors
/// When standard output cannot be written.
pub fn show(cx: &Context, json: JsonOption, findings: &[Finding]) -> Result<()> {
    if json.json {
        let ok = failure_names(findings).is_empty();
        let adapt = |text: &String| cx.ui.invocation.adapt(text).into_owned();
        let findings: Vec<_> = findings
            .iter()
            .map(|finding| Finding {
                detail: adapt(&finding.detail),
                fix: finding.fix.as_ref().map(adapt),
                ..finding.clone()
            })
            .collect();
        let findings = &findings;
        return json::print(cx.ui, &Report { ok, findings });
    }
    let mut out = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Ok => "\x1b[32mok  \x1b[0m",
            Level::Warning => "\x1b[33mwarn\x1b[0m",
            Level::Failure => "\x1b[31mFAIL\x1b[0m",
        };
        out.push_str(&format!("{mark} {:<14} {}\n", finding.what, finding.detail));
        if let Some(fix) = &finding.fix {
            out.push_str(&format!("     {:<14} → {fix}\n", ""));
        }
    }
    Ok(cx.ui.print_prose(&out)?)
}
