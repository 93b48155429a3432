use clap::Parser;

use super::*;

const PROJECT: &str = "schema = 1\n[image]\nrepository = 'ghcr.io/stigmer/agent-runner'\n";

fn resolve(args: &[&str], env: &[(&str, &str)], project: &str) -> Result<Settings, Failure> {
    let cli = Cli::try_parse_from(["xtask"].iter().chain(args)).unwrap();
    let files = Files {
        root: PathBuf::from("/src"),
        project: project.to_owned(),
        local: None,
    };
    Settings::resolve(&cli, &Env::fake(env), &files)
}

fn tags_of(version: &str) -> Vec<String> {
    let settings = resolve(&["build-image", "--version", version], &[], PROJECT).unwrap();
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
fn a_channel_decides() {
    let channel = |version| {
        resolve(&["build-image", "--version", version], &[], PROJECT)
            .unwrap()
            .channel
    };
    let dev = channel("dev-me");
    assert_eq!(
        (dev.name.as_str(), dev.publish, dev.check, dev.work_tree),
        ("dev", Publish::ByName, CheckFirst::No, WorkTree::Any)
    );
    let release = channel("1.2.3");
    assert_eq!(
        (
            release.name.as_str(),
            release.publish,
            release.check,
            release.work_tree
        ),
        ("release", Publish::Yes, CheckFirst::Yes, WorkTree::Tagged)
    );
    assert_eq!(channel("1.2.3-rc.1").name, "prerelease");
}

#[test]
fn the_version_comes_from_flag_then_environment_then_ci_then_file() {
    let ci = [("GITHUB_REF_TYPE", "tag"), ("GITHUB_REF_NAME", "v2.0.0")];
    let from = |args: &[&str], env: &[(&str, &str)]| {
        let version = resolve(args, env, PROJECT).unwrap().version;
        (version.value.to_string(), version.origin.to_string())
    };
    let is = |found: (String, String), version: &str, origin: &str| {
        assert_eq!(found, (version.to_owned(), origin.to_owned()));
    };
    let flag = ["build-image", "--version", "v1.0.0"];
    let with_version = [("VERSION", "1.5.0"), ci[0], ci[1]];
    is(from(&flag, &with_version), "1.0.0", "flag --version");
    is(
        from(&["build-image"], &with_version),
        "1.5.0",
        "environment VERSION",
    );
    is(
        from(&["build-image"], &ci),
        "2.0.0",
        "environment GITHUB_REF_NAME",
    );
    let branch = [("GITHUB_REF_TYPE", "branch"), ("GITHUB_REF_NAME", "main")];
    is(from(&["build-image"], &branch), "dev-local", "default");
}

#[test]
fn a_version_that_is_no_tag_is_refused_with_its_source() {
    let error = resolve(&["build-image"], &[("VERSION", "a/b")], PROJECT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the version `a/b` (from environment VERSION) cannot be an image's tag: it has '/', a tag only letters, digits, `_`, `.` and `-`"
    );
    assert_eq!(error.exit_code(), crate::error::USAGE);
}

#[test]
fn flags_win_over_everything() {
    let args = [
        "build-image",
        "--engine",
        "podman",
        "--target",
        "x",
        "--build-arg",
        "A=1",
        "--build-arg",
        "B=2",
    ];
    let project = format!("{PROJECT}[build]\ntarget = 'y'\nargs = {{ A = '0', C = '3' }}\n");
    let settings = resolve(&args, &[("XTASK_ENGINE", "docker")], &project).unwrap();
    assert_eq!(settings.engine.prefer, Prefer::Podman);
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
fn a_wrong_flag_is_told_as_typed() {
    let error = resolve(&["stop", "--engine", "dokcer"], &[], PROJECT)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "`--engine dokcer`: `engine.prefer` must be one of \"auto\", \"docker\", \"podman\"; did you mean \"docker\"?"
    );
}

#[test]
fn a_secret_is_no_build_argument() {
    let error = resolve(
        &["build-image", "--build-arg", "PIP_TOKEN=abc"],
        &[],
        PROJECT,
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the build argument `PIP_TOKEN` (from flag --build-arg)")
    );
    assert!(!error.to_string().contains("abc"));
    assert_eq!(
        error.hint_lines()[0],
        "make it a build secret: `build.secrets = [\"id=pip_token,env=PIP_TOKEN\"]`"
    );
}

#[test]
fn templates_of_git_need_git() {
    let project =
        format!("{PROJECT}[[channel]]\nname = 'dev'\ntags = ['{{version}}-{{git.short}}']\n");
    let settings = resolve(&["build-image", "--version", "dev-me"], &[], &project).unwrap();
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
        "channel `dev`: template `{version}-{git.short}` uses `{git.short}`, but this is no git work tree"
    );
}
