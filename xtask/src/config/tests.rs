use std::path::PathBuf;

use crate::{
    base::env::Env,
    config::{
        display::{show, to_json},
        files::Files,
        layer::Layer,
        resolve::resolve,
        schema::{KEYS, Kind, Value},
    },
};

fn files(project: &str) -> Files {
    Files {
        root: PathBuf::from("/src"),
        project: project.to_owned(),
        local: None,
    }
}

fn resolved(project: &str, env: &[(&str, &str)]) -> Layer {
    resolve(&files(project), &Env::fake(env)).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(project: &str) -> String {
    resolve(&files(project), &Env::fake(&[]))
        .unwrap_err()
        .to_string()
}

fn text<'a>(layer: &'a Layer, path: &str) -> (&'a Value, String) {
    let sourced = layer.get(path).unwrap_or_else(|| panic!("no {path}"));
    (&sourced.value, sourced.origin.to_string())
}

#[test]
fn the_defaults_set_every_key_and_no_other() {
    let layer = resolved("schema = 1", &[]);
    for key in KEYS {
        let is_table = matches!(key.kind, Kind::Map(_));
        assert!(
            is_table || layer.get(key.path).is_some(),
            "default.toml lacks {}",
            key.path
        );
    }
    assert_eq!(layer.channels(), ["release", "prerelease", "dev"]);
    assert_eq!(
        text(&layer, "run.limits.pids"),
        (&Value::Count(512), "default".to_owned())
    );
}

#[test]
fn later_layers_win_and_each_value_knows_its_own() {
    let files = Files {
        root: PathBuf::from("/src"),
        project:
            "schema = 1\n[run]\ncontainer = 'a'\nnetwork = 'host'\nenv = { A = '1', B = '1' }\n"
                .to_owned(),
        local: Some("schema = 1\n[run]\ncontainer = 'b'\nenv.B = '2'\n".to_owned()),
    };
    let env = Env::fake(&[("XTASK_RUN_CONTAINER", "c")]);
    let layer = resolve(&files, &env).unwrap();
    let is = |path: &str, value: &str, origin: &str| {
        assert_eq!(
            text(&layer, path),
            (&Value::Text(value.to_owned()), origin.to_owned())
        );
    };
    is("run.container", "c", "environment XTASK_RUN_CONTAINER");
    is("run.network", "host", "xtask.toml:4");
    is("run.env.A", "1", "xtask.toml:5");
    is("run.env.B", "2", "xtask.local.toml:4");
    is("build.target", "runtime", "default");
}

#[test]
fn a_newer_schema_says_update_and_nothing_of_its_unknown_keys() {
    assert_eq!(
        problems("schema = 2\nnew-thing = true\n"),
        "the configuration has a problem\n\n\
         the file is written in schema 2, this xtask reads up to 1\n\
         \x20--> xtask.toml:1:10\n  |\n1 | schema = 2\n  |          ^\n  = help: update your checkout: `git pull`"
    );
}

#[test]
fn a_newer_schema_comes_before_what_it_has_of_a_newer_toml() {
    assert!(problems("schema = 2\n<<<\n").contains("is written in schema 2"));
    assert!(problems("schema = 1\n<<<\n").contains("= help: the TOML format: "));
}

#[test]
fn names_in_tables_are_words() {
    let report = problems("schema = 1\n[run.env]\n\"A=B\" = \"x\"\n\"\" = \"x\"\n");
    assert!(
        report.contains("a name in `run.env` must not be empty"),
        "{report}"
    );
    assert!(report.contains("--> xtask.toml:3:1"), "{report}");
}

#[test]
fn a_missing_schema_says_which_line_to_add() {
    assert_eq!(
        problems("[run]\ncontainer = 'a'\n"),
        "the configuration has a problem\n\n\
         `xtask.toml` does not say which schema it is written in\n\
         \x20--> xtask.toml:1:1\n  |\n1 | [run]\n  | ^\n  = help: add this line at its top: `schema = 1`"
    );
    assert!(problems("schema = 'one'").contains("must be a whole number from 1 to 1"));
    assert!(problems("schema = 0").contains("must be a whole number from 1 to 1"));
}

#[test]
fn all_problems_are_told_at_once_in_the_files_order() {
    let report = problems(
        "schema = 1\n\
         [imag]\n\
         x = 1\n\
         [run]\n\
         containr = 'a'\n\
         memory = '2GB'\n\
         [run.limits]\n\
         pids = -1\n\
         cpus = 2\n\
         [engine]\n\
         prefer = 'dokcer'\n\
         [[channel]]\n\
         name = 'x'\n\
         tags = ['{nope}', 3]\n",
    );
    let expected = "the configuration has 8 problems

unknown key `imag`
 --> xtask.toml:2:2
  |
2 | [imag]
  |  ^^^^
  = help: did you mean `image`?

unknown key `run.containr`
 --> xtask.toml:5:1
  |
5 | containr = 'a'
  | ^^^^^^^^
  = help: did you mean `container`?

unknown key `run.memory`
 --> xtask.toml:6:1
  |
6 | memory = '2GB'
  | ^^^^^^
  = help: there is a key `run.limits.memory`

`run.limits.pids` must be a whole number from 0 to 4194304
 --> xtask.toml:8:8
  |
8 | pids = -1
  |        ^^
  = help: the most processes; 0 for no limit

`run.limits.cpus` must be text, but is a whole number
 --> xtask.toml:9:8
  |
9 | cpus = 2
  |        ^
  = help: the most processors, such as `1.5`; empty for no limit

`engine.prefer` must be one of \"auto\", \"docker\", \"podman\"; did you mean \"docker\"?
  --> xtask.toml:11:10
   |
11 | prefer = 'dokcer'
   |          ^^^^^^^^
   = help: the engine: `auto` takes the first of Docker and Podman that answers

`{nope}` in `tags` is no template: template `{nope}` uses `{nope}`, which is not one of `{version}`, `{major}`, `{minor}`, `{patch}`, `{pre}`, `{channel}`, `{git.sha}`, `{git.short}`, `{git.branch}`
  --> xtask.toml:14:9
   |
14 | tags = ['{nope}', 3]
   |         ^^^^^^^^
   = help: the image's tags, as templates

`tags` must hold texts, but this is a whole number
  --> xtask.toml:14:19
   |
14 | tags = ['{nope}', 3]
   |                   ^
   = help: the image's tags, as templates";
    assert_eq!(report, expected);
}

#[test]
fn broken_toml_is_told_with_its_place() {
    let report = problems("schema = 1\n[run\ncontainer = 'a'\n");
    assert!(report.contains("--> xtask.toml:2:"), "{report}");
}

#[test]
fn channels_merge_by_name_and_new_ones_come_first() {
    let files = Files {
        root: PathBuf::from("/src"),
        project: "schema = 1\n[[channel]]\nname = 'nightly'\nmatch = ['nightly-*']\ntags = ['{version}']\n".to_owned(),
        local: Some("schema = 1\n[[channel]]\nname = 'dev'\ncheck = true\n".to_owned()),
    };
    let layer = resolve(&files, &Env::fake(&[])).unwrap();
    assert_eq!(
        layer.channels(),
        ["nightly", "release", "prerelease", "dev"]
    );
    assert_eq!(text(&layer, "channel.dev.check").0, &Value::Bool(true));
    assert_eq!(
        text(&layer, "channel.dev.publish").0,
        &Value::Text("by-name".to_owned())
    );
}

#[test]
fn a_channel_needs_a_name_and_each_name_is_one() {
    let report = problems(
        "schema = 1\n[[channel]]\ntags = []\n[[channel]]\nname = 'a'\n[[channel]]\nname = 'a'\n",
    );
    assert!(report.contains("a channel needs a name"), "{report}");
    assert!(
        report.contains("there is a channel `a` already"),
        "{report}"
    );
    assert!(
        problems("schema = 1\nchannel = 1\n").contains("channels are written as `[[channel]]`")
    );
}

#[test]
fn the_environment_is_checked_as_the_files_are() {
    let report = resolve(
        &files("schema = 1"),
        &Env::fake(&[
            ("XTASK_ENGINE", "dcoker"),
            ("XTASK_RUN_CONTAINR", "x"),
            ("XTASK_E2E_X", "1"),
            ("XTASK_FLAVOUR", "another project's"),
        ]),
    )
    .unwrap_err()
    .to_string();
    assert!(
        report.contains("environment variable `XTASK_ENGINE`: `engine.prefer` must be one of"),
        "{report}"
    );
    assert!(
        report.contains(
            "`XTASK_RUN_CONTAINR` is no setting\n  = help: did you mean `XTASK_RUN_CONTAINER`?"
        ),
        "{report}"
    );
    assert!(
        !report.contains("XTASK_E2E_X") && !report.contains("XTASK_FLAVOUR"),
        "{report}"
    );
}

#[test]
fn secrets_are_not_shown() {
    let value = Value::Text("sk-secret".to_owned());
    assert_eq!(show("run.env.API_KEY", &value), "\"***\"");
    assert_eq!(to_json("run.env.API_KEY", &value), "***");
    assert_eq!(show("run.env.MODE", &value), "\"sk-secret\"");
    let file = Value::Text("/home/me/cosign.key".to_owned());
    for path in ["sign.key", "sign.public-key"] {
        assert_eq!(show(path, &file), "\"/home/me/cosign.key\"");
        assert_eq!(to_json(path, &file), "/home/me/cosign.key");
    }
    let proxy = Value::Text("http://me:pw@box".to_owned());
    assert_eq!(show("run.env.MODE", &proxy), "\"http://me:***@box\"");
    let list = Value::List(vec!["image=ghp_abcdefghijklmnopqrst".to_owned()]);
    assert_eq!(show("build.builder-opts", &list), "[\"image=***\"]");
    assert_eq!(
        to_json("build.builder-opts", &list),
        serde_json::json!(["image=***"])
    );
}
