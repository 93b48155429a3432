//! `config`: the effective configuration, each value with its origin.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::{
    base::error::Failure,
    cli::{JsonOption, VersionOption},
    commands::{command::Command, json},
    config::{
        display::{to_json, to_toml},
        schema::{CHANNEL, CHANNEL_KEYS, FLAVOUR, FLAVOUR_KEYS, KEYS, ValueType},
    },
    facts::{context::Context, git},
    settings::Settings,
};

/// Show the effective configuration and where each value comes from
#[derive(Args, Clone, Debug)]
pub struct Config {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    json: JsonOption,
}

impl Command for Config {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let git = git::work_tree(cx.exec, &cx.settings.root).values;
        // The settings are shown even if a template needs what git does not have, such as a branch.
        let tags = cx.settings.tags(&git);
        if self.json.json {
            json::print(cx.ui, &as_json(cx.settings, &tags))
        } else {
            Ok(cx.ui.print(&as_text(cx.settings, &tags))?)
        }
    }
}

/// The paths of all values, in the schema's order. A table of texts has a path for each entry.
fn paths(settings: &Settings) -> Vec<String> {
    let mut paths = Vec::new();
    let mut add = |path: String, value_type: ValueType| match value_type {
        ValueType::Map(_) => paths.extend(
            settings
                .layer
                .entries(&path)
                .map(|(name, _)| format!("{path}.{name}")),
        ),
        ValueType::Bool
        | ValueType::Count(..)
        | ValueType::Size
        | ValueType::Duration
        | ValueType::Seconds
        | ValueType::Choice(_)
        | ValueType::Text(_)
        | ValueType::List(_) => {
            paths.push(path);
        }
    };
    for key in KEYS {
        add(key.path.to_owned(), key.value_type);
    }
    for flavour in settings.layer.flavours() {
        for key in FLAVOUR_KEYS {
            add(format!("{FLAVOUR}.{flavour}.{}", key.path), key.value_type);
        }
    }
    for channel in settings.layer.channels() {
        for key in CHANNEL_KEYS {
            add(format!("{CHANNEL}.{channel}.{}", key.path), key.value_type);
        }
    }
    paths
}

fn as_text(settings: &Settings, tags: &Result<Vec<String>, Failure>) -> String {
    let tags = match tags {
        Ok(tags) => format!("{tags:?}"),
        Err(why) => format!("[]  # {why}"),
    };
    let mut out = format!(
        "version = \"{}\"  # {}\nchannel = \"{}\"\ntags = {tags}\n\n",
        settings.version.value, settings.version.origin, settings.channel.name,
    );
    for path in paths(settings) {
        if let Some(sourced) = settings.layer.get(&path) {
            let _ = writeln!(
                out,
                "{path} = {}  # {}",
                to_toml(&path, &sourced.value),
                sourced.origin
            );
        }
    }
    out
}

fn as_json(settings: &Settings, tags: &Result<Vec<String>, Failure>) -> serde_json::Value {
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
        "tags": tags.as_deref().unwrap_or_default(),
        "tags-problem": tags.as_ref().err().map(ToString::to_string),
        "values": values,
    })
}

#[cfg(test)]
impl crate::commands::testing::Examples for Config {}
