use super::text;
use crate::{
    plan::{Cmd, EnvValue, OnFailure, Output, Plan, Step, quote},
    script::Script,
};

/// The words of an input: a NUL ends one, for no argument can have it.
fn split(input: &[u8]) -> Vec<String> {
    let mut words: Vec<_> = text(input).split('\0').map(str::to_owned).collect();
    words.truncate(64);
    words
}

/// What a shell prints when it runs a text; to standard output, and to standard error.
fn sh(script: &str) -> (String, String) {
    let (success, said, told) = run(script);
    assert!(success, "{script}\n{told}");
    (said, told)
}

fn run(script: &str) -> (bool, String, String) {
    let done = duct::cmd("sh", ["-c", script])
        .stdout_capture()
        .stderr_capture()
        .unchecked()
        .run()
        .unwrap();
    let utf8 = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.success(), utf8(done.stdout), utf8(done.stderr))
}

/// Each with a NUL behind it, as `printf '%s\0'` prints them.
fn joined(words: &[String]) -> String {
    words.iter().map(|word| format!("{word}\0")).collect()
}

fn printf(words: &[String]) -> Cmd {
    Cmd::new("printf").arg(r"%s\0").args(words)
}

/// A real shell reads back the words of a command, and its environment, as they are.
pub fn words(input: &[u8]) {
    let words = split(input);
    assert_eq!(sh(&printf(&words).render()).0, joined(&words));
    let value = words.last().cloned().unwrap_or_default();
    let cmd = Cmd::new("sh")
        .args(["-c", "printf %s \"$VALUE\""])
        .env("VALUE", EnvValue::Plain(value.clone()));
    assert_eq!(sh(&cmd.render()).0, value);
    assert!(quote(&value).len() >= value.len());
}

/// A script does what the plan would: its commands get their words, what is told is told, and no
/// free text in it (a reason, a name, a result) is ever run.
pub fn script(input: &[u8]) {
    let words = split(input);
    let last = words.last().cloned().unwrap_or_default();
    let mut said = Step::new(printf(&words), Output::Result).say("Saying", last.as_str());
    said.on_failure = OnFailure::GoOn;
    let plan = Plan { steps: vec![said] };
    let mut script = Script::of(last.clone(), plan, "true", "/no/such/checkout");
    script.needs = vec![("PATH".to_owned(), last.clone())];
    script.result = Some(last.clone());
    if words.iter().any(|word| word.contains(&script.root)) {
        return;
    }
    let (out, told) = sh(&script.render());
    assert_eq!(out, format!("{}{last}\n", joined(&words)));
    assert_eq!(told, format!("Saying {last}\n"));
    // Without what it needs it says why, and does nothing.
    script.needs = vec![("NO_SUCH.variable".to_owned(), last.clone())];
    let why = format!("error: NO_SUCH.variable: {last}\n");
    assert_eq!(run(&script.render()), (false, String::new(), why));
    script.needs = vec![("NO_SUCH_VARIABLE".to_owned(), last.clone())];
    let why = format!("error: NO_SUCH_VARIABLE: {last}\n");
    assert_eq!(run(&script.render()), (false, String::new(), why));
}
