//! Promises and whether they are kept: a line each, or JSON.

use anyhow::Result;
use serde::Serialize;

use super::Context;
use crate::{error::Failure, ui::Clock};

/// One promise, and whether it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    pub detail: String,
}

impl Check {
    pub fn new(name: &'static str, ok: bool, detail: impl Into<String>) -> Self {
        Self {
            name,
            ok,
            detail: detail.into(),
        }
    }
}

/// Tells all of an image's.
///
/// # Errors
/// When one is not kept.
pub fn report(
    cx: &Context,
    json: bool,
    image: &str,
    engine: &str,
    checks: &[Check],
    clock: Clock,
) -> Result<()> {
    let failed = checks.iter().filter(|check| !check.ok).count();
    if json {
        let json = serde_json::json!({
            "image": image,
            "engine": engine,
            "ok": failed == 0,
            "checks": checks,
        });
        cx.ui
            .result(&format!("{}\n", serde_json::to_string_pretty(&json)?))?;
    } else {
        let lines: String = checks
            .iter()
            .map(|check| {
                let mark = if check.ok { "ok  " } else { "FAIL" };
                format!("{mark} {:<22} {}\n", check.name, check.detail)
            })
            .collect();
        cx.ui.result(&lines)?;
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
