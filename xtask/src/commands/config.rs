//! `config`: the effective configuration, each value with where it comes from.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;

use super::Context;
use crate::{
    cli::ConfigArgs,
    config::{
        schema::{CHANNEL, CHANNEL_KEYS, KEYS, Kind},
        show, to_json,
    },
    probe,
    settings::Settings,
};

pub fn run(cx: &Context, args: &ConfigArgs) -> Result<()> {
    let git = probe::git(cx.exec, &cx.settings.root).values;
    let tags = cx.settings.tags(&git)?;
    let text = if args.json {
        format!(
            "{}\n",
            serde_json::to_string_pretty(&as_json(cx.settings, &tags))?
        )
    } else {
        as_text(cx.settings, &tags)
    };
    Ok(cx.ui.result(&text)?)
}

/// All paths with a value, in the schema's order: a table of texts has one path an entry.
fn paths(settings: &Settings) -> Vec<String> {
    let mut paths = Vec::new();
    let mut add = |path: String, kind: Kind| match kind {
        Kind::Map(_) => paths.extend(
            settings
                .layer
                .entries(&path)
                .map(|(name, _)| format!("{path}.{name}")),
        ),
        Kind::Bool
        | Kind::Count(..)
        | Kind::Size
        | Kind::Duration
        | Kind::Choice(_)
        | Kind::Text(_)
        | Kind::List(_) => {
            paths.push(path);
        }
    };
    for key in KEYS {
        add(key.path.to_owned(), key.kind);
    }
    for channel in settings.layer.channels() {
        for key in CHANNEL_KEYS {
            add(format!("{CHANNEL}.{channel}.{}", key.path), key.kind);
        }
    }
    paths
}

fn as_text(settings: &Settings, tags: &[String]) -> String {
    let mut out = format!(
        "version = \"{}\"  # {}\nchannel = \"{}\"\ntags = {tags:?}\n\n",
        settings.version.value, settings.version.origin, settings.channel.name,
    );
    for path in paths(settings) {
        if let Some(sourced) = settings.layer.get(&path) {
            let _ = writeln!(
                out,
                "{path} = {}  # {}",
                show(&path, &sourced.value),
                sourced.origin
            );
        }
    }
    out
}

fn as_json(settings: &Settings, tags: &[String]) -> serde_json::Value {
    let values: serde_json::Map<_, _> = paths(settings)
        .into_iter()
        .filter_map(|path| {
            let sourced = settings.layer.get(&path)?;
            let value = json!({
                "value": to_json(&path, &sourced.value),
                "source": sourced.origin.to_string(),
            });
            Some((path, value))
        })
        .collect();
    json!({
        "version": { "value": settings.version.value.as_str(), "source": settings.version.origin.to_string() },
        "channel": settings.channel.name,
        "tags": tags,
        "values": values,
    })
}
