use crate::{
    plan::{Cmd, EnvValue, quote_for_shell},
    properties::text,
};

/// Splits the input into words at NUL characters, which arguments cannot contain.
fn split(input: &[u8]) -> Vec<String> {
    let mut words: Vec<_> = text(input).split('\0').map(str::to_owned).collect();
    words.truncate(64);
    words
}

/// The standard output of a shell script.
#[allow(clippy::disallowed_methods)] // the test runs a real shell
fn sh(script: &str) -> String {
    let done = duct::cmd("sh", ["-c", script])
        .stdout_capture()
        .unchecked()
        .run()
        .unwrap();
    assert!(done.status.success(), "{script}");
    String::from_utf8(done.stdout).unwrap()
}

/// The words, each followed by a NUL, as `printf '%s\0'` prints them.
fn joined(words: &[String]) -> String {
    words.iter().map(|word| format!("{word}\0")).collect()
}

fn printf(words: &[String]) -> Cmd {
    Cmd::new("printf").arg(r"%s\0").args(words)
}

/// A real shell reads the same words and the same environment from a rendered command.
pub fn words(input: &[u8]) {
    let words = split(input);
    assert_eq!(sh(&printf(&words).render()), joined(&words));
    let value = words.last().cloned().unwrap_or_default();
    let cmd = Cmd::new("sh")
        .args(["-c", "printf %s \"$VALUE\""])
        .env("VALUE", EnvValue::Plain(value.clone()));
    assert_eq!(sh(&cmd.render()), value);
    assert!(quote_for_shell(&value).len() >= value.len());
}
