use std::path::PathBuf;

use crate::{
    base::{engine_kind::EngineKind, env::Env, error::Failure},
    cli::Overrides,
    config::{files::Files, layer::Origin},
    settings::{
        CheckFirst, EngineChoice, GitValues, Publish, SecretSource, Settings, WorkTreeRequirement,
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
            .add(
                "build.args",
                "--build-arg",
                ["A=1", "B=2"].map(str::to_owned).to_vec(),
            ),
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

/// The settings of a project's file and a personal one.
fn with_local(project: &str, local: &str, env: &[(&str, &str)]) -> Result<Settings, Failure> {
    let files = Files {
        root: PathBuf::from("/src"),
        project: format!("{PROJECT}{project}"),
        local: Some(format!("schema = 1\n{local}")),
    };
    Settings::resolve(&Arguments::default(), &Env::fake(env), &files)
}

#[test]
fn a_personal_volume_leaves_the_workspace_and_the_projects_volumes() {
    let project = "[run]\nworkspace = '~/work'\nvolumes = ['~/a:/a', '~/b:/b']\n";
    let local = "[run]\nvolumes = ['~/other:/a/', '~/c:/c']\n";
    let settings = with_local(project, local, &[("XTASK_RUN_VOLUMES", "~/d:/d:rw,z")]).unwrap();
    let mounts: Vec<_> = settings
        .mounts()
        .iter()
        .map(|mount| format!("{}  # {}", mount.value, mount.origin))
        .collect();
    assert_eq!(
        mounts,
        [
            "~/work:/workspace  # xtask.toml:5",
            "~/b:/b  # xtask.toml:6",
            "~/other:/a/  # xtask.local.toml:3",
            "~/c:/c  # xtask.local.toml:3",
            "~/d:/d:rw,z  # environment XTASK_RUN_VOLUMES",
        ]
    );
    assert_eq!(
        settings
            .layer
            .get("run.volumes")
            .unwrap()
            .origin
            .to_string(),
        "xtask.toml:6, xtask.local.toml:3, environment XTASK_RUN_VOLUMES"
    );
}

#[test]
fn lists_of_additions_add_and_lists_of_choices_replace() {
    let project = "[build]\nsecrets = ['id=ca,src=/a', 'id=b,src=/b']\nplatforms = ['linux/amd64', 'linux/arm64']\n\
        [run]\npass-env = ['A']\naddresses = ['A']\n[registry]\ninsecure = ['a.lan']\n";
    let local = "[build]\nsecrets = ['src=/mine,id=ca']\nplatforms = ['linux/amd64']\n\
        [run]\npass-env = ['B', 'A']\naddresses = ['B']\nhardening.drop-capabilities = []\n[registry]\ninsecure = ['b.lan']\n";
    let settings = with_local(project, local, &[]).unwrap();
    let ids: Vec<_> = settings
        .build
        .secrets
        .iter()
        .map(|secret| secret.id.as_str())
        .collect();
    assert_eq!(ids, ["b", "ca"]);
    assert_eq!(
        settings.build.secrets[1].source,
        SecretSource::File("/mine".to_owned())
    );
    assert_eq!(settings.build.platforms.len(), 1);
    assert_eq!(settings.run.pass_env, ["B", "A"]);
    assert_eq!(settings.run.addresses, ["A", "B"]);
    assert_eq!(settings.registry.insecure, ["a.lan", "b.lan"]);
    assert!(settings.run.hardening.drop_capabilities.is_empty());
}

#[test]
fn a_port_of_this_machine_is_published_once() {
    let project = "[run]\nports = ['8080:80', '8443:443']\n";
    let settings = with_local(project, "[run]\nports = ['8080:81']\n", &[]).unwrap();
    let ports = settings.run.ports.iter();
    let ports: Vec<_> = ports.map(|port| (port.host, port.container)).collect();
    assert_eq!(ports, [(8443, 443), (8080, 81)]);
    let error = with_local("[run]\nports = ['8080:80', '8080:81']\n", "", &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`run.ports` has two entries for `8080`: `8080:80` (from xtask.toml:5) and `8080:81` (from xtask.toml:5)"
    );
}

#[test]
fn two_mounts_at_one_folder_are_refused_with_both_places() {
    let workspace = "[run]\nworkspace = '~/work'\n";
    let refused = |local: &str| {
        let error = with_local(workspace, local, &[]).unwrap_err();
        format!("{error}\nhint: {}", error.hint_lines().join("; "))
    };
    assert_eq!(
        refused("[run]\nvolumes = ['~/mine:/workspace/']\n"),
        "the container's folder `/workspace` has two mounts: `run.workspace` (from xtask.toml:5) and `~/mine:/workspace/` in `run.volumes` (from xtask.local.toml:3)\n\
         hint: for another workspace write `run.workspace = \"~/mine\"` or set `XTASK_RUN_WORKSPACE`, and remove the volume"
    );
    assert_eq!(
        refused("[run]\nvolumes = ['mine:/workspace']\n"),
        "the container's folder `/workspace` has two mounts: `run.workspace` (from xtask.toml:5) and `mine:/workspace` in `run.volumes` (from xtask.local.toml:3)\n\
         hint: remove it, or write `run.workspace = \"\"` to mount no folder of the host there"
    );
    assert_eq!(
        refused("[run.hardening]\ntmpfs = ['/tmp', '/workspace:size=1m']\n"),
        "the container's folder `/workspace` has two mounts: `run.workspace` (from xtask.toml:5) and `/workspace:size=1m` in `run.hardening.tmpfs` (from xtask.local.toml:3)\n\
         hint: remove one of the two"
    );
    assert_eq!(
        refused("[run]\nvolumes = ['~/a:/a', '~/b:/a']\n"),
        "`run.volumes` has two entries for `/a`: `~/a:/a` (from xtask.local.toml:3) and `~/b:/a` (from xtask.local.toml:3)\nhint: remove one of the two"
    );
    let none = with_local("", "[run]\nvolumes = ['mine:/workspace']\n", &[]).unwrap();
    assert_eq!(none.mounts().len(), 1, "a project without `run.workspace`");
}

#[test]
fn a_value_of_a_flag_can_have_several_lines_or_come_from_the_environment() {
    let args = ["LINES=first\nsecond", "SET", "UNSET", "EMPTY"]
        .map(str::to_owned)
        .to_vec();
    let flag = Overrides::default().add("build.args", "--build-arg", args);
    let project = format!("{PROJECT}[build]\nargs = {{ UNSET = 'configured' }}\n");
    let settings = resolve(&flags(flag), &[("SET", "a=b"), ("EMPTY", "")], &project).unwrap();
    let args: Vec<_> = settings
        .build
        .args
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(
        args,
        [
            "EMPTY=",
            "LINES=first\nsecond",
            "SET=a=b",
            "UNSET=configured"
        ]
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
        let text = vec![format!("{name}={value}")];
        let flag = Overrides::default().add("build.args", "--build-arg", text);
        let settings = resolve(&flags(flag), &[], PROJECT).unwrap();
        let error = settings.refuse_secret_build_args().unwrap_err();
        let message =
            format!("the build argument `{name}` in `build.args` (from flag --build-arg)");
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
fn a_build_argument_can_be_declared_public() {
    let refused = |more: &str| {
        let project = format!("{PROJECT}{more}");
        let settings = resolve(&version("dev-me"), &[], &project).unwrap();
        settings.refuse_secret_build_args().err()
    };
    let error = refused("[build]\nargs = { CACHE_KEY = '2026-11' }\n").unwrap();
    assert_eq!(
        error.hint_lines()[1],
        "if its value is public, say so: `build.public-args = [\"CACHE_KEY\"]`"
    );
    let public = "[build]\npublic-args = ['CACHE_KEY']\n";
    assert!(refused(&format!("{public}args = {{ CACHE_KEY = '2026-11' }}\n")).is_none());
    let known_form = format!("{public}args = {{ CACHE_KEY = 'ghp_abcdefghijklmnopqrst' }}\n");
    assert_eq!(refused(&known_form).unwrap().hint_lines().len(), 1);
    let channel = |name: &str| {
        format!("[[channel]]\nname = '{name}'\nbuild-args = {{ PIP_TOKEN = '{{version}}' }}\n")
    };
    let error = refused(&channel("dev")).unwrap().to_string();
    assert!(
        error.starts_with("the build argument `PIP_TOKEN` in `build-args` (from xtask.toml:6)"),
        "{error}"
    );
    assert!(refused(&channel("release")).is_none(), "another channel");
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
