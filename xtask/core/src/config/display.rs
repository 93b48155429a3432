//! Formats configuration values as TOML and as JSON.

use crate::{
    base::secret,
    config::schema::{KEYS, Value},
};

/// A text as a TOML string. <https://toml.io/en/v1.0.0#string>
pub fn quote_for_toml(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Whether a path ends in a name, chosen by the user, that says that its value is a secret. No key of
/// the schema holds one: `sign.key` is a file or an address.
fn has_secret_name(path: &str) -> bool {
    secret::is_secret_name(path) && !KEYS.iter().any(|key| key.path == path)
}

/// A value as TOML, for people. What looks like a secret is masked.
pub fn to_toml(path: &str, value: &Value) -> String {
    match value {
        Value::Bool(yes) => yes.to_string(),
        Value::Count(count) => count.to_string(),
        Value::Size(None) => "\"\"".to_owned(),
        Value::Size(Some(bytes)) => quote_for_toml(&bytes.to_string()),
        Value::Duration(duration) => {
            quote_for_toml(&humantime::format_duration(*duration).to_string())
        }
        Value::Text(_) if has_secret_name(path) => format!("\"{}\"", secret::MASK),
        Value::Text(text) => quote_for_toml(&secret::redact(text)),
        Value::List(items) => {
            format!(
                "[{}]",
                items
                    .iter()
                    .map(|item| quote_for_toml(&secret::redact(item)))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        Value::Map(_) => String::new(),
    }
}

/// A value as JSON. Texts that look like secrets are masked.
pub fn to_json(path: &str, value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(yes) => (*yes).into(),
        Value::Count(count) => (*count).into(),
        Value::Size(bytes) => (*bytes).into(),
        Value::Duration(duration) => duration.as_secs_f64().into(),
        Value::Text(_) if has_secret_name(path) => secret::MASK.into(),
        Value::Text(text) => secret::redact(text).into(),
        Value::List(items) => items.iter().map(|item| secret::redact(item)).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(k, v)| (k.clone(), secret::redact(v).into()))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
