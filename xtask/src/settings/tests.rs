use std::path::PathBuf;

use crate::{
    base::{engine_kind::EngineKind, env::Env, error::Failure},
    cli::Overrides,
    config::{files::Files, layer::Origin},
    settings::{
        CheckFirst, EngineChoice, GitValues, Publish, Settings, WorkTreeRequirement,
        resolve::Arguments,
    },
};

const PROJECT: &str = "schema = 1\n[image]\nrepository = 'ghcr.io/stigmer/agent-runner'\n";

fn version(version: &str) -> Arguments {
    Arguments {
        version: Some(version.to_owned()),
        ..Arguments::default()
    }
}

fn flags(overrides: Overrides) -> Arguments {
    Arguments {
        overrides: overrides.list,
        ..Arguments::default()
    }
}

fn resolve(
    arguments: &Arguments,
    env: &[(&str, &str)],
    project: &str,
) -> Result<Settings, Failure> {
    let files = Files {
        root: PathBuf::from("/src"),
        project: project.to_owned(),
        local: None,
    };
    Settings::resolve(arguments, &Env::fake(env), &files)
}

fn tags_of(version: &str) -> Vec<String> {
    let settings = resolve(&self::version(version), &[], PROJECT).unwrap();
    settings.tags(&GitValues::default()).unwrap()
}

#[test]
fn a_version_makes_its_tags() {
    assert_eq!(tags_of("1.2.3"), ["1.2.3", "1.2", "1", "latest"]);
    assert_eq!(tags_of("v1.2.3"), ["1.2.3", "1.2", "1", "latest"]);
    assert_eq!(tags_of("1.2.3-rc.1"), ["1.2.3-rc.1"]);
    assert_eq!(tags_of("dev-me"), ["dev-me"]);
    assert_eq!(
        tags_of("1.2"),
        ["1.2"],
        "no SemVer: a dev version, never latest"
    );
}

#[test]
fn the_channel_decides_publishing_check_and_work_tree() {
    let channel = |version| {
        resolve(&self::version(version), &[], PROJECT)
            .unwrap()
            .channel
    };
    let dev = channel("dev-me");
    assert_eq!(
        (dev.name.as_str(), dev.publish, dev.check, dev.work_tree),
        (
            "dev",
            Publish::ByName,
            CheckFirst::No,
            WorkTreeRequirement::Any
        )
    );
    let release = channel("1.2.3");
    assert_eq!(
        (
            release.name.as_str(),
            release.publish,
            release.check,
            release.work_tree
        ),
        (
            "release",
            Publish::Yes,
            CheckFirst::Yes,
            WorkTreeRequirement::Tagged
        )
    );
    assert_eq!(channel("1.2.3-rc.1").name, "prerelease");
}

#[test]
fn the_version_comes_from_flag_then_environment_then_ci_then_file() {
    let ci = [("GITHUB_REF_TYPE", "tag"), ("GITHUB_REF_NAME", "v2.0.0")];
    let from = |arguments: &Arguments, env: &[(&str, &str)]| {
        let version = resolve(arguments, env, PROJECT).unwrap().version;
        (version.value.to_string(), version.origin.to_string())
    };
    let is = |found: (String, String), version: &str, origin: &str| {
        assert_eq!(found, (version.to_owned(), origin.to_owned()));
    };
    let flag = version("v1.0.0");
    let none = Arguments::default();
    let with_version = [("VERSION", "1.5.0"), ci[0], ci[1]];
    is(from(&flag, &with_version), "1.0.0", "flag --version");
    is(from(&none, &with_version), "1.5.0", "environment VERSION");
    is(from(&none, &ci), "2.0.0", "environment GITHUB_REF_NAME");
    let branch = [("GITHUB_REF_TYPE", "branch"), ("GITHUB_REF_NAME", "main")];
    is(from(&none, &branch), "dev-local", "default");
}

#[test]
fn a_version_that_cannot_be_a_tag_is_refused_with_its_origin() {
    let error = resolve(&Arguments::default(), &[("VERSION", "a/b")], PROJECT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the version `a/b` (from environment VERSION) cannot be an image's tag: it contains '/'; a tag can contain only letters, digits, `_`, `.` and `-`"
    );
    assert_eq!(error.exit_code(), crate::base::error::USAGE);
}

#[test]
fn flags_win_over_everything() {
    let arguments = flags(
        Overrides::default()
            .set("engine.prefer", "--engine", Some("podman".to_owned()))
            .set("build.target", "--target", Some("x".to_owned()))
            .set("build.args", "--build-arg", Some("A=1\nB=2".to_owned())),
    );
    let project = format!("{PROJECT}[build]\ntarget = 'y'\nargs = {{ A = '0', C = '3' }}\n");
    let settings = resolve(&arguments, &[("XTASK_ENGINE", "docker")], &project).unwrap();
    assert_eq!(
        settings.engine.prefer,
        EngineChoice::Only(EngineKind::Podman)
    );
    assert_eq!(settings.build.target, "x");
    let args: Vec<_> = settings
        .build
        .args
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(args, ["A=1", "B=2", "C=3"]);
    assert_eq!(
        settings.layer.get("build.args.A").unwrap().origin,
        Origin::Flag("--build-arg")
    );
}

#[test]
fn a_wrong_flag_is_reported_as_typed() {
    let flag = Overrides::default().set("run.user", "--user", Some("me".to_owned()));
    let error = resolve(&flags(flag), &[], PROJECT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`--user me`: `run.user` must be `auto`, `image` or `UID:GID`"
    );
}

#[test]
fn a_flag_can_add_to_a_list() {
    let project = format!("{PROJECT}[run]\nvolumes = ['~/a:/a']\n");
    let more = ["~/b:/b", "~/c:/c"].map(str::to_owned).to_vec();
    let flag = Overrides::default().add("run.volumes", "--volume", more);
    let settings = resolve(&flags(flag), &[], &project).unwrap();
    assert_eq!(settings.run.volumes, ["~/a:/a", "~/b:/b", "~/c:/c"]);
    let wrong = Overrides::default().add("run.volumes", "--volume", vec!["x".to_owned()]);
    let error = resolve(&flags(wrong), &[], &project).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`--volume x`: `run.volumes` must be `HOST:CONTAINER` or `HOST:CONTAINER:OPTIONS`"
    );
}

#[test]
fn a_secret_build_argument_is_refused() {
    for (name, value) in [
        ("PIP_TOKEN", "abc"),
        ("PIP_INDEX_URL", "https://me:abc@pypi.example.com/simple"),
    ] {
        let text = Some(format!("{name}={value}"));
        let flag = Overrides::default().set("build.args", "--build-arg", text);
        let error = resolve(&flags(flag), &[], PROJECT).unwrap_err();
        let message = format!("the build argument `{name}` (from flag --build-arg)");
        assert!(error.to_string().starts_with(&message), "{error}");
        assert!(!error.to_string().contains("abc"), "{error}");
        let id = name.to_lowercase();
        assert_eq!(
            error.hint_lines()[0],
            format!("make it a build secret: `build.secrets = [\"id={id},env={name}\"]`")
        );
    }
}

#[test]
fn git_placeholders_need_a_work_tree() {
    let project =
        format!("{PROJECT}[[channel]]\nname = 'dev'\ntags = ['{{version}}-{{git.short}}']\n");
    let settings = resolve(&version("dev-me"), &[], &project).unwrap();
    let git = GitValues {
        sha: Some("0123456789abcdef0".to_owned()),
        branch: None,
    };
    assert_eq!(settings.tags(&git).unwrap(), ["dev-me-0123456789ab"]);
    let error = settings
        .tags(&GitValues::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "channel `dev`: the template `{version}-{git.short}` uses `{git.short}`, but this is not a git work tree"
    );
}
