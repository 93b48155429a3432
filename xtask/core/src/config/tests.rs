use std::path::PathBuf;

use crate::{
    base::env::Env,
    config::{
        display::{to_json, to_toml},
        files::Files,
        layer::Layer,
        resolve::resolve,
        schema::{KEYS, Value, ValueType},
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
fn default_toml_sets_every_key() {
    let layer = resolved("schema = 1", &[]);
    for key in KEYS {
        let is_table = matches!(key.value_type, ValueType::Map(_));
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
fn numbers_are_read_as_toml_means_them() {
    for (number, means) in [
        ("0x200", 512),
        ("0o17", 15),
        ("0b1", 1),
        ("1_000", 1000),
        ("0", 0),
    ] {
        let layer = resolved(
            &format!("schema = 0x1\n[run.limits]\npids = {number}\n"),
            &[],
        );
        assert_eq!(
            text(&layer, "run.limits.pids").0,
            &Value::Count(means),
            "{number}"
        );
    }
    assert!(problems("schema = 0b10").contains("the file has schema 2"));
    let report = problems("schema = 1\n[run.limits]\npids = 0xffff_ffff_ffff_ffff_f\n");
    assert!(report.contains("must be a whole number"), "{report}");
}

#[test]
fn later_sources_override_earlier_ones() {
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
    is("build.dockerfile", "Dockerfile", "default");
}

#[test]
fn a_newer_schema_is_the_only_problem_reported() {
    assert_eq!(
        problems("schema = 2\nnew-thing = true\n"),
        "the configuration has a problem\n\n\
         the file has schema 2, but this xtask supports only schemas up to 1\n\
         \x20--> xtask.toml:1:10\n  |\n1 | schema = 2\n  |          ^\n  = help: update your checkout: `git pull`"
    );
}

#[test]
fn a_newer_schema_is_reported_before_invalid_toml() {
    assert!(problems("schema = 2\n<<<\n").contains("the file has schema 2"));
    assert!(problems("schema = 1\n<<<\n").contains("= help: see the TOML specification: "));
}

#[test]
fn names_in_tables_are_checked() {
    let report = problems("schema = 1\n[run.env]\n\"A=B\" = \"x\"\n\"\" = \"x\"\n");
    assert!(
        report.contains("a name in `run.env` must not be empty"),
        "{report}"
    );
    assert!(report.contains("--> xtask.toml:3:1"), "{report}");
}

#[test]
fn a_missing_schema_is_reported_with_the_line_to_add() {
    assert_eq!(
        problems("[run]\ncontainer = 'a'\n"),
        "the configuration has a problem\n\n\
         `xtask.toml` does not have the key `schema`\n\
         \x20--> xtask.toml:1:1\n  |\n1 | [run]\n  | ^\n  = help: add this line at the top of the file: `schema = 1`"
    );
    assert!(problems("schema = 'one'").contains("must be a whole number from 1 to 1"));
    assert!(problems("schema = 0").contains("must be a whole number from 1 to 1"));
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
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
  = help: did you mean `run.limits.memory`?

`run.limits.pids` must be a whole number from 0 to 4194304
 --> xtask.toml:8:8
  |
8 | pids = -1
  |        ^^
  = help: the maximum number of processes; 0 for no limit

`run.limits.cpus` must be text, but is a whole number
 --> xtask.toml:9:8
  |
9 | cpus = 2
  |        ^
  = help: the maximum number of processors, such as `1.5`; empty for no limit

`engine.prefer` must be one of \"auto\", \"docker\", \"podman\"; did you mean \"docker\"?
  --> xtask.toml:11:10
   |
11 | prefer = 'dokcer'
   |          ^^^^^^^^
   = help: the engine; `auto` uses Docker if it answers, else Podman

`{nope}` in `tags` is not a template: the template `{nope}` uses `{nope}`, which is not one of `{version}`, `{major}`, `{minor}`, `{patch}`, `{pre}`, `{channel}`, `{git.sha}`, `{git.short}`, `{git.branch}`
  --> xtask.toml:14:9
   |
14 | tags = ['{nope}', 3]
   |         ^^^^^^^^
   = help: the image's tags, as templates

`tags` must contain only texts, but this is a whole number
  --> xtask.toml:14:19
   |
14 | tags = ['{nope}', 3]
   |                   ^
   = help: the image's tags, as templates";
    assert_eq!(report, expected);
}

#[test]
fn invalid_toml_is_reported_with_its_position() {
    let report = problems("schema = 1\n[run\ncontainer = 'a'\n");
    assert!(report.contains("--> xtask.toml:2:"), "{report}");
}

#[test]
fn channels_are_merged_by_name_and_new_ones_come_first() {
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
fn flavours_are_merged_by_name() {
    let files = Files {
        root: PathBuf::from("/src"),
        project: "schema = 1\n[flavour.tools]\ntarget = 't'\n[flavour.a-1]\ntarget = 'a'\n"
            .to_owned(),
        local: Some("schema = 1\n[flavour.tools.budget]\nunpacked = '1GB'\n".to_owned()),
    };
    let layer = resolve(&files, &Env::fake(&[])).unwrap();
    assert_eq!(layer.flavours(), ["a-1", "tools"]);
    assert_eq!(
        text(&layer, "flavour.tools.target").0,
        &Value::Text("t".to_owned())
    );
    assert_eq!(
        text(&layer, "flavour.tools.budget.unpacked").0,
        &Value::Size(Some(1_000_000_000))
    );
}

#[test]
fn problems_of_flavours_are_reported() {
    for (text, problem) in [
        ("flavour = 1", "a flavour must be a table `[flavour.NAME]`"),
        (
            "[flavour]\ntarget = 'x'",
            "a flavour must be a table `[flavour.NAME]`",
        ),
        (
            "[flavour.Tools]\ntarget = 'x'",
            "a flavour's name can contain only",
        ),
        ("[flavour.tools]", "the flavour `tools` has no keys"),
        ("[flavour.tools]\ntarge = 'x'", "did you mean `target`?"),
        (
            "[flavour.tools]\nsuffix = 'tools'",
            "`suffix` must be `-`, `_` or `.`",
        ),
        ("[flavours.tools]\ntarget = 'x'", "did you mean `flavour`?"),
    ] {
        let report = problems(&format!("schema = 1\n{text}\n"));
        assert!(report.contains(problem), "{text}: {report}");
    }
}

#[test]
fn each_channel_has_a_unique_name() {
    let report = problems(
        "schema = 1\n[[channel]]\ntags = []\n[[channel]]\nname = 'a'\n[[channel]]\nname = 'a'\n",
    );
    assert!(report.contains("the channel has no name"), "{report}");
    assert!(
        report.contains("the channel `a` is defined twice"),
        "{report}"
    );
    assert!(
        problems("schema = 1\nchannel = 1\n")
            .contains("a channel must be an item of the array `[[channel]]`")
    );
}

#[test]
fn environment_variables_are_checked() {
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
            "unknown environment variable `XTASK_RUN_CONTAINR`\n  = help: did you mean `XTASK_RUN_CONTAINER`?"
        ),
        "{report}"
    );
    assert!(
        !report.contains("XTASK_E2E_X") && !report.contains("XTASK_FLAVOUR"),
        "{report}"
    );
}

#[test]
fn secrets_are_masked() {
    let value = Value::Text("sk-secret".to_owned());
    assert_eq!(to_toml("run.env.API_KEY", &value), "\"***\"");
    assert_eq!(to_json("run.env.API_KEY", &value), "***");
    assert_eq!(to_toml("run.env.MODE", &value), "\"sk-secret\"");
    let file = Value::Text("/home/me/cosign.key".to_owned());
    for path in ["sign.key", "sign.public-key"] {
        assert_eq!(to_toml(path, &file), "\"/home/me/cosign.key\"");
        assert_eq!(to_json(path, &file), "/home/me/cosign.key");
    }
    let proxy = Value::Text("http://me:pw@box".to_owned());
    assert_eq!(to_toml("run.env.MODE", &proxy), "\"http://me:***@box\"");
    let list = Value::List(vec!["image=ghp_abcdefghijklmnopqrst".to_owned()]);
    assert_eq!(to_toml("build.builder-opts", &list), "[\"image=***\"]");
    assert_eq!(
        to_json("build.builder-opts", &list),
        serde_json::json!(["image=***"])
    );
}
