//! `ci-check` in jobs that each lack something. A fake registry and fake programs give the answers of real
//! ones.

use serde_json::Value;

use crate::{
    registry::fake::{Auth, FakeRegistry, Oddities},
    sandbox::{CommandOutput, PROJECT, Sandbox, answer, docker_version},
};

const SHA: &str = "3f1c0a9b7d523f1c0a9b7d523f1c0a9b7d523f1c";

/// A job of GitHub Actions for the tag `v1.2.3`. By default it can publish.
struct Job {
    project: String,
    head: &'static str,
    shallow: bool,
    registry: Oddities,
    /// Whether the version's tag names some other image.
    is_released: bool,
    env: Vec<(&'static str, &'static str)>,
    without: &'static str,
}

const DENIED: &str =
    r#"{"errors":[{"code":"DENIED","message":"permission_denied: write_package"}]}"#;

impl Job {
    fn new() -> Self {
        Self {
            project: PROJECT.to_owned(),
            head: "HEAD, tag: refs/tags/v1.2.3",
            shallow: false,
            registry: Oddities::default(),
            is_released: false,
            env: vec![
                ("GITHUB_ACTIONS", "true"),
                ("GITHUB_EVENT_NAME", "push"),
                ("GITHUB_REF_TYPE", "tag"),
                ("GITHUB_REF_NAME", "v1.2.3"),
                ("GITHUB_ACTOR", "me"),
                ("GITHUB_TOKEN", "marked-token"),
            ],
            without: "",
        }
    }

    fn sandbox(&self) -> Sandbox {
        let mut sandbox = Sandbox::new(&self.project);
        let git = |args: &str, stdout: &str| answer(args, 0, stdout, "");
        let head = format!("{SHA}\n1700000000\n{}\n", self.head);
        let shallow = if self.shallow { "true\n" } else { "false\n" };
        let git = [
            git("status", ""),
            git("log", &head),
            git("rev-parse --is-shallow-repository", shallow),
            git("tag", "v1.2.3\n"),
        ];
        let registry = FakeRegistry::start(self.registry.clone());
        if self.is_released {
            registry.add_tags(&["1.2.3"]);
        }
        let docker = [
            docker_version(),
            answer("info", 0, "overlay2 []\n", ""),
            answer("buildx version", 0, "github.com/docker/buildx 0.29.1\n", ""),
            answer("buildx inspect", 1, "", "ERROR: no builder found\n"),
        ];
        sandbox = sandbox.engine("git", &git).engine("docker", &docker);
        sandbox = registry.serve_sandbox(sandbox);
        for (name, value) in &self.env {
            if *name != self.without {
                sandbox = sandbox.env(name, value);
            }
        }
        sandbox
    }

    /// Runs `ci-check`. The result is the output, and the findings that are not `ok`, by name.
    fn check(&self) -> (CommandOutput, Vec<(String, Value)>) {
        let sandbox = self.sandbox();
        let output = sandbox.run(&["ci-check", "--json"]);
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(report["schema"], 1);
        let bad = report["findings"]
            .as_array()
            .unwrap()
            .clone()
            .into_iter()
            .filter(|finding| finding["level"] != "ok")
            .map(|finding| (finding["what"].as_str().unwrap().to_owned(), finding))
            .collect();
        let all = format!("{output:?}{:?}", sandbox.calls());
        assert!(!all.contains("marked-"), "{all}");
        (output, bad)
    }

    /// Checks that this is the only finding that is not `ok`.
    fn has_finding(&self, what: &str, level: &str, detail: &str, fix: &str) {
        let (output, bad) = self.check();
        let [(name, finding)] = &bad[..] else {
            panic!("{bad:?}")
        };
        assert_eq!((name.as_str(), &finding["level"]), (what, &level.into()));
        assert_eq!(finding["detail"], detail);
        assert_eq!(finding["fix"], fix);
        assert_eq!(output.code, i32::from(level == "failure"), "{output:?}");
        if level == "failure" {
            let message = format!("publishing would fail: {what} (see above)");
            assert_eq!(
                output.stderr,
                format!("error: {message}\n::error::{message}\n")
            );
        }
    }
}

#[test]
fn a_complete_job_has_only_ok_findings() {
    let output = Job::new().sandbox().run(&["ci-check"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    let lines: Vec<_> = output
        .stdout
        .lines()
        .filter(|line| !line.starts_with("ok   emulation"))
        .collect();
    assert_eq!(
        lines,
        [
            "ok   CI             GitHub Actions: push of the tag `v1.2.3`",
            "ok   version        1.2.3 (from environment GITHUB_REF_NAME), channel `release`",
            "ok   work tree      in the state that the channel requires",
            "ok   clone          complete, with all tags",
            "ok   token          from GITHUB_TOKEN",
            "ok   permission     ghcr.io/x/y can be pushed to",
            "ok   release        1.2.3 is not released yet",
            "ok   signing        none: the channel does not sign",
            "ok   builder        Docker 28.5.2, the builder `y-xtask`, which is created first",
            "ok   cache          none: the builder keeps its own",
        ]
    );
}

#[test]
fn a_branch_is_not_published_without_a_version() {
    let mut job = Job::new();
    job.env.retain(|(name, _)| !name.starts_with("GITHUB_REF"));
    job.has_finding(
        "version",
        "failure",
        "`dev-local` (from default) is published only if `--version` names it",
        "add `--version dev-local`",
    );
}

#[test]
fn head_without_the_versions_tag() {
    let mut job = Job::new();
    job.head = "HEAD, tag: refs/tags/v1.2.2";
    job.has_finding(
        "work tree",
        "failure",
        "not fit to publish: the channel `release` requires a clean and tagged work tree, and HEAD has no tag `v1.2.3`",
        "commit, then tag the commit: `git tag v1.2.3` (`work-tree` of the channel `release` in xtask.toml requires it)",
    );
}

#[test]
fn a_shallow_clone_is_a_warning() {
    let mut job = Job::new();
    job.shallow = true;
    job.has_finding(
        "clone",
        "warning",
        "shallow, so git does not know all tags: xtask cannot publish to a registry that does not list its tags",
        "`git fetch --tags --unshallow`; in GitHub Actions `fetch-depth: 0` for actions/checkout",
    );
}

#[test]
fn a_list_of_tags_that_nobody_can_read() {
    let mut job = Job::new();
    job.shallow = true;
    job.registry.list_refusal = Some((403, DENIED));
    let (output, bad) = job.check();
    assert_eq!(output.code, 1);
    let names: Vec<_> = bad.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["clone", "release"]);
    let detail = bad[1].1["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("cannot find out which versions are released: the registry's list of tags cannot be read (")
            && detail.ends_with("and this clone has not all tags: it is shallow"),
        "{detail}"
    );
}

#[test]
fn a_token_without_permission_to_push() {
    let mut job = Job::new();
    job.registry.push_refusal = Some((403, DENIED));
    job.has_finding(
        "permission",
        "failure",
        "you may not push to ghcr.io/x/y with the login from GITHUB_TOKEN: status 403, denied: permission_denied: write_package",
        "get a token that may push: `gh auth refresh --scopes write:packages`, then `cargo xtask docker-login`; in GitHub Actions: `permissions: packages: write`, and the package must let this repository write (package settings, Manage Actions access); see `cargo xtask explain push-denied`",
    );
}

#[test]
fn a_missing_token() {
    let mut job = Job::new();
    (job.registry.auth, job.without) = (Auth::Basic, "GITHUB_TOKEN");
    let (output, bad) = job.check();
    assert_eq!(output.code, 1);
    let names: Vec<_> = bad.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["token", "permission"]);
    assert_eq!(bad[0].1["detail"], "none for ghcr.io");
    assert_eq!(
        bad[0].1["fix"],
        "`GITHUB_TOKEN: ${{ github.token }}` in the step's `env`"
    );
}

#[test]
fn a_token_without_a_user_name() {
    let mut job = Job::new();
    job.registry.auth = Auth::Basic;
    job.project = job.project.replace("ghcr.io", "registry.example.com");
    job.env.push(("REGISTRY_TOKEN", "marked-token"));
    let (_, bad) = job.check();
    assert_eq!(
        bad[0].1["detail"],
        "REGISTRY_TOKEN is set, but its user name is not"
    );
}

#[test]
fn a_version_that_is_already_released() {
    let mut job = Job::new();
    job.is_released = true;
    let (output, bad) = job.check();
    assert_eq!(output.code, 1);
    assert_eq!(bad[0].0, "release");
    let detail = bad[0].1["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("ghcr.io/x/y:1.2.3 is released already, as sha256:"),
        "{detail}"
    );
}

#[test]
fn signing_needs_cosign_and_an_identity() {
    let signing = |sign: &str| {
        let mut job = Job::new();
        job.project += &format!(
            "[sign]\nissuer = 'https://token.actions.githubusercontent.com'\n\
             identity = 'https://github.com/x/y/.github/workflows/release.yml@refs/tags/v{{version}}'\n\
             [[channel]]\nname = 'release'\nmatch = ['semver:release']\nsign = '{sign}'\n"
        );
        job
    };
    let what = |job: &Job| {
        let (output, bad) = job.check();
        assert_eq!((output.code, bad.len()), (1, 1), "{bad:?}");
        bad[0].1["detail"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        what(&signing("keyless")),
        "the channel `release` signs what it publishes, and cosign is not installed"
    );

    // Now with cosign in PATH.
    let run = |job: &Job, env: &[(&str, &str)]| {
        let cosign = answer("version", 0, "GitVersion: v3.0.4\n", "");
        let mut sandbox = job.sandbox().engine("cosign", &[cosign]);
        for (name, value) in env {
            sandbox = sandbox.env(name, value);
        }
        let output = sandbox.run(&["ci-check"]);
        let line = output
            .stdout
            .lines()
            .find(|line| line.contains(" signing "));
        (output.code, line.unwrap_or_default().to_owned())
    };
    assert_eq!(
        run(&signing("keyless"), &[]),
        (
            1,
            "FAIL signing        the job has no identity token: ACTIONS_ID_TOKEN_REQUEST_URL is not set"
                .to_owned()
        )
    );
    let identity = [
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://example.com"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "marked-token"),
    ];
    let job = "https://github.com/x/y/.github/workflows/release.yml@refs/tags/v1.2.3";
    assert_eq!(
        run(&signing("keyless"), &identity),
        (0, format!("ok   signing        cosign, as {job}"))
    );
    // The job is of another workflow than the configuration expects.
    let mut other = signing("keyless");
    other.env.extend(identity);
    other.env.push((
        "GITHUB_WORKFLOW_REF",
        "x/y/.github/workflows/other.yml@refs/tags/v1.2.3",
    ));
    assert_eq!(
        run(&other, &[]),
        (
            0,
            format!(
                "warn signing        this job signs as {}, and `sign.identity` expects {job}",
                job.replace("release.yml", "other.yml")
            )
        )
    );
    for name in ["issuer", "identity"] {
        let mut incomplete = signing("keyless");
        let unset = format!("\n{name} = '");
        incomplete.project = incomplete
            .project
            .replace(&unset, &format!("\n# {name} = '"));
        assert_eq!(
            run(&incomplete, &identity),
            (
                1,
                format!(
                    "FAIL signing        the channel `release` signs with the identity of a job, and `sign.{name}` is not set: signatures could not be verified"
                )
            )
        );
    }
    assert_eq!(
        run(&signing("key"), &[]),
        (
            1,
            "FAIL signing        the channel `release` signs with a key, and `sign.key` is not set"
                .to_owned()
        )
    );
    let key = [("XTASK_SIGN_KEY", "cosign.key")];
    assert_eq!(
        run(&signing("key"), &key),
        (
            1,
            "FAIL signing        there is no key file `cosign.key`".to_owned()
        )
    );
}

#[test]
fn githubs_cache_needs_variables_that_a_step_does_not_have() {
    let mut job = Job::new();
    job.env.extend([
        ("XTASK_BUILD_CACHE", "gha"),
        ("ACTIONS_RUNTIME_TOKEN", "marked-token"),
        ("ACTIONS_RESULTS_URL", "https://example.com"),
    ]);
    job.has_finding(
        "cache",
        "warning",
        "GitHub's cache cannot be used: a `run:` step does not get ACTIONS_CACHE_SERVICE_V2",
        "expose them in an earlier step: `actions/github-script`, see docs/publishing.md",
    );
    job.env.push(("ACTIONS_CACHE_SERVICE_V2", "True"));
    assert!(job.check().1.is_empty());
}

#[test]
fn outside_of_ci_the_report_is_about_this_machine() {
    let mut job = Job::new();
    job.env.clear();
    job.env.push(("VERSION", "1.2.3"));
    let output = job.sandbox().run(&["ci-check"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    for line in [
        "ok   CI             not a CI job: the findings are about this machine\n",
        "ok   token          none, and ghcr.io needs none\n",
    ] {
        assert!(output.stdout.contains(line), "{line}: {}", output.stdout);
    }
}

#[test]
fn a_missing_engine_is_only_a_warning() {
    let mut sandbox = Sandbox::new(PROJECT);
    for (name, value) in Job::new().env {
        sandbox = sandbox.env(name, value);
    }
    let registry = FakeRegistry::start(Oddities::default());
    let output = registry.serve_sandbox(sandbox).run(&["ci-check"]);
    let line = output
        .stdout
        .lines()
        .find(|line| line.contains(" builder "));
    assert_eq!(
        line,
        Some(
            "warn builder        no container engine answers; docker is not installed (not in PATH); podman is not installed (not in PATH)"
        )
    );
}

/// A second run of the job finds the archive of the first run in the folder that it merges.
#[test]
fn a_merge_ignores_the_archive_of_an_earlier_merge() {
    let sandbox = Sandbox::new(PROJECT);
    let release = sandbox.path("src/target/dist");
    std::fs::create_dir_all(&release).unwrap();
    for name in ["-linux-amd64", "-linux-arm64", ""] {
        std::fs::write(release.join(format!("y-1.2.3{name}.oci.tar")), "").unwrap();
    }
    let args = [
        "build-multiarch",
        "--version",
        "1.2.3",
        "--merge",
        "../../target/dist",
        "--dry-run",
    ];
    let output = sandbox.run(&args);
    let words: Vec<_> = output.stdout.split_whitespace().collect();
    let below = |name: &str| format!("/src/deep/er/../../target/dist/y-1.2.3{name}.oci.tar");
    assert_eq!(
        words,
        [
            "cargo",
            "xtask",
            "pack-archive",
            &below("-linux-amd64"),
            &below("-linux-arm64"),
            "--output",
            "/src/target/dist/y-1.2.3.oci.tar"
        ],
        "{output:?}"
    );
}
