//! The checks of an image, as `test-image` and `smoke` report them.

use anyhow::Result;
use serde::Serialize;

use crate::{
    base::{error::Failure, ui::Clock},
    cli::JsonOption,
    commands::json::{self, JsonEngine},
    engine::EngineFacts,
    facts::context::Context,
};

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    pub name: &'static str,
    pub ok: bool,
    pub detail: String,
}

impl CheckResult {
    pub fn new(name: &'static str, ok: bool, detail: impl Into<String>) -> Self {
        Self {
            name,
            ok,
            detail: detail.into(),
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    image: &'a str,
    engine: JsonEngine,
    ok: bool,
    checks: &'a [CheckResult],
}

/// Prints the checks of an image.
///
/// # Errors
/// When a check failed.
pub fn report(
    cx: &Context,
    json: JsonOption,
    image: &str,
    engine: &EngineFacts,
    checks: &[CheckResult],
    clock: Clock,
) -> Result<()> {
    let failed = checks.iter().filter(|check| !check.ok).count();
    if json.json {
        let report = Report {
            image,
            engine: engine.into(),
            ok: failed == 0,
            checks,
        };
        json::print(cx.ui, &report)?;
    } else {
        let lines: String = checks
            .iter()
            .map(|check| {
                let mark = if check.ok { "ok  " } else { "FAIL" };
                format!("{mark} {:<22} {}\n", check.name, check.detail)
            })
            .collect();
        cx.ui.print(&lines)?;
    }
    if failed > 0 {
        return Err(Failure::new(format!(
            "{failed} of {} checks failed for {image}",
            checks.len(),
        ))
        .into());
    }
    cx.ui.status(
        "Tested",
        &format!("{image}: {} checks passed in {clock}", checks.len()),
    );
    Ok(())
}
