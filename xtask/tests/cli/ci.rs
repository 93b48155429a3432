//! `ci-check` in jobs that lack one thing or another: a registry, git and cosign that say what real
//! ones said.

use serde_json::Value;

use crate::world::{PROJECT, Ran, World, answer, docker_version};

const SHA: &str = "3f1c0a9b7d523f1c0a9b7d523f1c0a9b7d523f1c";

/// A job of GitHub Actions for the tag `v1.2.3` that lacks nothing.
struct Job {
    project: String,
    head: &'static str,
    shallow: bool,
    /// The registry's answer to an upload that is begun.
    upload: &'static str,
    /// What it says of the version's tag.
    tag: &'static str,
    env: Vec<(&'static str, &'static str)>,
    without: &'static str,
}

const TAKEN: &str = "HTTP/2 202 \r\nlocation: /v2/x/y/blobs/uploads/1\r\n\r\n";
const UNKNOWN: &str = "HTTP/2 404 \r\n\r\n{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest unknown\"}]}";
const DENIED: &str = "HTTP/2 403 \r\n\r\n{\"errors\":[{\"code\":\"DENIED\",\"message\":\"permission_denied: write_package\"}]}";
const WHO: &str = "HTTP/2 401 \r\nwww-authenticate: Basic realm=\"x\"\r\n\r\n{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"authentication required\"}]}";

impl Job {
    fn new() -> Self {
        Self {
            project: PROJECT.to_owned(),
            head: "HEAD, tag: refs/tags/v1.2.3",
            shallow: false,
            upload: TAKEN,
            tag: UNKNOWN,
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

    fn world(&self) -> World {
        let mut world = World::new(&self.project);
        let git = |args: &str, said: &str| answer(args, 0, said, "");
        let head = format!("{SHA}\n1700000000\n{}\n", self.head);
        let shallow = if self.shallow { "true\n" } else { "false\n" };
        let git = [
            git("status", ""),
            git("log", &head),
            git("rev-parse --is-shallow-repository", shallow),
            git("tag", "v1.2.3\n"),
        ];
        let asked = "--silent --show-error --config - --dump-header - --suppress-connect-headers --connect-timeout 15 --max-time 60";
        let curl = |args: &str, said: &str| {
            let mut answer = answer(&format!("{asked} {args}"), 0, said, "");
            answer["read_stdin"] = true.into();
            answer
        };
        let curl = [
            curl("--request POST", self.upload),
            curl("--request DELETE", "HTTP/2 204 \r\n\r\n"),
            curl("--header", self.tag),
        ];
        let docker = [
            docker_version(),
            answer("info", 0, "overlay2 []\n", ""),
            answer("buildx version", 0, "github.com/docker/buildx 0.29.1\n", ""),
            answer("buildx inspect", 1, "", "ERROR: no builder found\n"),
        ];
        world = world
            .engine("git", &git)
            .engine("curl", &curl)
            .engine("docker", &docker);
        for (name, value) in &self.env {
            if *name != self.without {
                world = world.env(name, value);
            }
        }
        world
    }

    /// What it says, and the findings that are no `ok`, by their names.
    fn check(&self) -> (Ran, Vec<(String, Value)>) {
        let world = self.world();
        let ran = world.run(&["ci-check", "--json"]);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(report["schema"], 1);
        let bad = report["findings"]
            .as_array()
            .unwrap()
            .clone()
            .into_iter()
            .filter(|finding| finding["level"] != "ok")
            .map(|finding| (finding["what"].as_str().unwrap().to_owned(), finding))
            .collect();
        let all = format!("{ran:?}{:?}", world.calls());
        assert!(!all.contains("marked-"), "{all}");
        (ran, bad)
    }

    /// The one thing that is wrong, and what is said of it.
    fn lacks(&self, what: &str, level: &str, detail: &str, fix: &str) {
        let (ran, bad) = self.check();
        let [(name, finding)] = &bad[..] else {
            panic!("{bad:?}")
        };
        assert_eq!((name.as_str(), &finding["level"]), (what, &level.into()));
        assert_eq!(finding["detail"], detail);
        assert_eq!(finding["fix"], fix);
        assert_eq!(ran.code, i32::from(level == "failure"), "{ran:?}");
        if level == "failure" {
            let said = format!("publishing cannot work: {what} (see above)");
            assert_eq!(ran.stderr, format!("error: {said}\n::error::{said}\n"));
        }
    }
}

#[test]
fn a_job_that_lacks_nothing() {
    let ran = Job::new().world().run(&["ci-check"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let lines: Vec<_> = ran
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
            "ok   builder        Docker 28.5.2, the builder `agent-runner-xtask`, which is created first",
            "ok   cache          none: the builder keeps its own",
        ]
    );
}

#[test]
fn a_branch_publishes_nothing_by_itself() {
    let mut job = Job::new();
    job.env.retain(|(name, _)| !name.starts_with("GITHUB_REF"));
    job.lacks(
        "version",
        "failure",
        "`dev-local` (from default) is published only if `--version` names it",
        "add `--version dev-local`",
    );
}

#[test]
fn a_tag_that_is_not_on_head() {
    let mut job = Job::new();
    job.head = "HEAD, tag: refs/tags/v1.2.2";
    job.lacks(
        "work tree",
        "failure",
        "not fit to publish: the channel `release` requires a clean and tagged work tree, and HEAD has no tag `v1.2.3`",
        "commit, then tag the commit: `git tag v1.2.3` (`work-tree` of the channel `release` in xtask.toml requires it)",
    );
}

#[test]
fn a_shallow_clone() {
    let mut job = Job::new();
    job.shallow = true;
    job.lacks(
        "clone",
        "warning",
        "shallow, so git does not know all tags: a registry that lists none cannot be published to",
        "`git fetch --tags --unshallow`; in GitHub Actions `fetch-depth: 0` for actions/checkout",
    );
}

#[test]
fn a_token_that_may_not_push() {
    let mut job = Job::new();
    job.upload = DENIED;
    job.lacks(
        "permission",
        "failure",
        "you may not push to ghcr.io/x/y: status 403, denied: permission_denied: write_package",
        "a token that may push: `gh auth refresh --scopes write:packages`, then `cargo xtask docker-login`; in GitHub Actions: `permissions: packages: write`, and the package must let this repository write (package settings, Manage Actions access); see `cargo xtask explain push-denied`",
    );
}

#[test]
fn no_token_at_all() {
    let mut job = Job::new();
    (job.upload, job.without) = (WHO, "GITHUB_TOKEN");
    let (ran, bad) = job.check();
    assert_eq!(ran.code, 1);
    let names: Vec<_> = bad.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["token", "permission"]);
    assert_eq!(bad[0].1["detail"], "none for ghcr.io");
    assert_eq!(
        bad[0].1["fix"],
        "`GITHUB_TOKEN: ${{ github.token }}` in the step's `env`"
    );
}

#[test]
fn a_token_of_nobody() {
    let mut job = Job::new();
    job.upload = WHO;
    job.project = job.project.replace("ghcr.io", "registry.example.com");
    job.env.push(("REGISTRY_TOKEN", "marked-token"));
    let (_, bad) = job.check();
    assert_eq!(
        bad[0].1["detail"],
        "REGISTRY_TOKEN is set, but its user name is not"
    );
}

#[test]
fn a_version_that_is_released_otherwise() {
    let mut job = Job::new();
    job.tag = "HTTP/2 200 \r\ncontent-type: application/vnd.oci.image.index.v1+json\r\n\r\n{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[]}";
    let (ran, bad) = job.check();
    assert_eq!(ran.code, 1);
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
            "[[channel]]\nname = 'release'\nmatch = ['semver:release']\nsign = '{sign}'\n"
        );
        job
    };
    let what = |job: &Job| {
        let (ran, bad) = job.check();
        assert_eq!((ran.code, bad.len()), (1, 1), "{bad:?}");
        bad[0].1["detail"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        what(&signing("keyless")),
        "the channel `release` signs what it publishes, and cosign is not installed"
    );

    // With cosign in PATH.
    let run = |job: &Job, env: &[(&str, &str)]| {
        let mut world = job.world().engine("cosign", &[]);
        for (name, value) in env {
            world = world.env(name, value);
        }
        let ran = world.run(&["ci-check"]);
        let line = ran.stdout.lines().find(|line| line.contains(" signing "));
        (ran.code, line.unwrap_or_default().to_owned())
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
    assert_eq!(
        run(&signing("keyless"), &identity),
        (0, "ok   signing        cosign, as this job".to_owned())
    );
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
fn githubs_cache_needs_what_a_step_is_not_given() {
    let mut job = Job::new();
    job.env.extend([
        ("XTASK_BUILD_CACHE", "gha"),
        ("ACTIONS_RUNTIME_TOKEN", "marked-token"),
        ("ACTIONS_RESULTS_URL", "https://example.com"),
    ]);
    job.lacks(
        "cache",
        "warning",
        "GitHub's cache cannot be used: a `run:` step does not get ACTIONS_CACHE_SERVICE_V2",
        "expose them in an earlier step: `actions/github-script`, see docs/publishing.md",
    );
    job.env.push(("ACTIONS_CACHE_SERVICE_V2", "True"));
    assert!(job.check().1.is_empty());
}

#[test]
fn outside_of_ci_it_says_so() {
    let mut job = Job::new();
    job.env.clear();
    job.env.push(("VERSION", "1.2.3"));
    let ran = job.world().run(&["ci-check"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    for line in [
        "ok   CI             not a CI job: the findings are about this machine\n",
        "ok   token          none, and ghcr.io needs none\n",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
}

#[test]
fn no_engine_is_needed_where_parts_are_merged() {
    let mut world = World::new(PROJECT);
    for (name, value) in Job::new().env {
        world = world.env(name, value);
    }
    let ran = world.run(&["ci-check"]);
    let line = ran.stdout.lines().find(|line| line.contains(" builder "));
    assert_eq!(
        line,
        Some(
            "warn builder        no container engine answers; docker is not installed (not in PATH); podman is not installed (not in PATH)"
        )
    );
}

/// A job that runs again finds what it made in the folder that it merges.
#[test]
fn a_merge_leaves_out_what_the_one_before_made() {
    let world = World::new(PROJECT);
    let release = world.path("src/target/dist");
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
    let ran = world.run(&args);
    let words: Vec<_> = ran.stdout.split_whitespace().collect();
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
        "{ran:?}"
    );
}
