//! Help, invalid arguments, the configuration, and what is printed to standard output and standard error.

use std::{fs, io::Read};

use crate::sandbox::{PROJECT, Sandbox, answer, container, docker_version};

#[test]
fn help_needs_no_engine_and_shows_the_configuration() {
    let sandbox = Sandbox::new(PROJECT);
    for args in [&["help"][..], &["--help"], &["-h"]] {
        let output = sandbox.run(args);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{args:?}");
        for part in [
            "Development:\n",
            "Environment:\n",
            "  build-image      Build the image",
            "Configuration (all of it: `cargo xtask config`):\n",
            "  image       ghcr.io/x/y  # xtask.toml:3\n",
        ] {
            assert!(output.stdout.contains(part), "{part}: {}", output.stdout);
        }
    }
    assert_eq!(sandbox.run(&[]).code, 2, "without a command");
    let output = sandbox.run(&["help", "build-image"]);
    assert!(output.stdout.contains("--no-cache"), "{output:?}");
    assert_eq!(sandbox.run(&["build-image", "--help"]).code, 0);
    let output = sandbox.run(&["help", "biuld-image"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            2,
            "error: there is no command `biuld-image`\nhint: did you mean `build-image`?\n"
        )
    );
}

#[test]
fn help_works_with_an_invalid_configuration() {
    let output = Sandbox::new("schema = 7\n").run(&["help"]);
    assert_eq!(output.code, 0);
    assert!(
        output.stdout.contains(
            "\nConfiguration: the configuration has a problem (see `cargo xtask config`)\n"
        ),
        "{}",
        output.stdout
    );
}

#[test]
fn invalid_arguments_exit_with_2() {
    let sandbox = Sandbox::new(PROJECT);
    for args in [
        &["biuld"][..],
        &["stop", "--nope"],
        &["stop", "--engine", "dokcer"],
        &["build-image", "--progress", "fast"],
    ] {
        assert_eq!(sandbox.run(args).code, 2, "{args:?}");
    }
    let broken = Sandbox::new("schema = 1\nx = 1\n");
    assert_eq!(broken.run(&["stop"]).code, 2);
}

#[test]
fn a_folder_outside_a_checkout_is_reported() {
    let sandbox = Sandbox::new(PROJECT);
    fs::remove_file(sandbox.path("src/xtask.toml")).unwrap();
    let output = sandbox.run(&["stop"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            2,
            "error: there is no `xtask.toml` in `/src/deep/er` or its parent folders\nhint: run xtask in a checkout of the agent-runner repository\n"
        )
    );
}

#[test]
fn config_prints_the_origin_of_each_value() {
    let sandbox = Sandbox::new(PROJECT)
        .env("XTASK_RUN_STOP_GRACE", "20s")
        .env("VERSION", "v1.2.3");
    fs::write(
        sandbox.path("src/xtask.local.toml"),
        "schema = 1\n[engine]\nprefer = 'podman'\n",
    )
    .unwrap();
    let output = sandbox.run(&["config"]);
    assert_eq!(output.code, 0, "{output:?}");
    for line in [
        "version = \"1.2.3\"  # environment VERSION\n",
        "tags = [\"1.2.3\", \"1.2\", \"1\", \"latest\"]\n",
        "engine.prefer = \"podman\"  # xtask.local.toml:3\n",
        "run.container = \"box\"  # xtask.toml:5\n",
        "run.stop-grace = \"20s\"  # environment XTASK_RUN_STOP_GRACE\n",
        "run.limits.pids = 512  # default\n",
    ] {
        assert!(output.stdout.contains(line), "{line}: {}", output.stdout);
    }
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.run(&["config", "--json"]).stdout).unwrap();
    assert_eq!(json["values"]["run.stop-grace"]["value"], 20.0);
    assert_eq!(
        json["values"]["engine.prefer"]["source"],
        "xtask.local.toml:3"
    );
}

#[test]
fn colour_is_used_on_terminals_and_on_request() {
    let ours = || Sandbox::new(PROJECT).engine("docker", &[container("exited", true)]);
    assert!(!ours().run(&["stop"]).stderr.contains('\x1b'));
    assert!(
        ours()
            .run(&["stop", "--color", "always"])
            .stderr
            .contains('\x1b')
    );
    assert!(
        !ours()
            .env("NO_COLOR", "1")
            .run(&["stop"])
            .stderr
            .contains('\x1b')
    );
}

#[test]
fn quiet_and_verbose() {
    let ours = || {
        Sandbox::new(PROJECT).engine(
            "docker",
            &[
                container("running", true),
                answer("stop", 0, "box\n", ""),
                answer("rm", 0, "box\n", ""),
            ],
        )
    };
    assert_eq!(ours().run(&["stop", "--quiet"]).stderr, "");
    let verbose = ours().run(&["stop", "--verbose"]).stderr;
    assert!(
        verbose.contains("? docker container inspect box\n"),
        "{verbose}"
    );
    assert!(verbose.contains("+ docker stop -t 10 box\n"), "{verbose}");
}

#[test]
fn a_closed_standard_output_is_not_an_error() {
    let sandbox = Sandbox::new(PROJECT);
    let mut child = sandbox.start(&["config"]);
    drop(child.stdout.take());
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert!(child.wait().unwrap().success(), "{stderr}");
    assert_eq!(stderr, "");
}

#[test]
fn secrets_are_neither_in_arguments_nor_in_output() {
    let project = format!(
        "{PROJECT}pass-env = ['API_KEY', 'UNSET_KEY']\nenv = {{ FIXED_TOKEN = 'marked-fixed' }}\n"
    );
    let sandbox = Sandbox::new(&project)
        .engine(
            "docker",
            &[
                docker_version(),
                crate::sandbox::no_container("docker"),
                crate::sandbox::image(),
                answer("run", 1, "", ""),
            ],
        )
        .env("API_KEY", "marked-passed");
    for args in [
        &["run-local", "--version", "dev-me", "--verbose"][..],
        &["run-local", "--version", "dev-me", "--dry-run"],
        &["config"],
        &["config", "--json"],
    ] {
        let output = sandbox.run(args);
        let all = format!("{}{}{:?}", output.stdout, output.stderr, sandbox.calls());
        assert!(!all.contains("marked-"), "{args:?}: {all}");
        if args.contains(&"--dry-run") {
            assert!(
                output.stdout.contains("FIXED_TOKEN=*** docker run"),
                "{}",
                output.stdout
            );
            assert!(output.stdout.contains("--env API_KEY"), "{}", output.stdout);
            assert!(!output.stdout.contains("UNSET_KEY"), "{}", output.stdout);
        }
    }
}

#[test]
fn explain_works_without_a_configuration_and_an_engine() {
    let sandbox = Sandbox::new("schema = 7\n");
    let output = sandbox.run(&["explain"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert!(
        output.stdout.starts_with("Engine:\n  daemon-down "),
        "{}",
        output.stdout
    );
    assert_eq!(
        sandbox.run(&["explain", "name-taken"]).stdout,
        "name-taken: another run of xtask has just used the container's name\n\n\
         Message (in upper or lower case)\n  \
         is already in use … container name\n\n\
         Cause\n  \
         xtask checks that the name is free before it starts the container. Another process has used the name since that check, usually a second run of xtask.\n\n\
         What to do\n  \
         run the same command again: another run has just used the container's name\n  \
         give one of two parallel runs another name: `XTASK_RUN_CONTAINER=other cargo xtask run-local`\n\n\
         Retry\n  \
         run the same command again\n"
    );
    assert_eq!(
        sandbox.run(&["explain", "ERROR: write /x: No space left on device"]),
        sandbox.run(&["explain", "disk-full"])
    );
    let one = sandbox.run(&["explain", "name-taken", "--json"]).stdout;
    let one: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["schema"], 1);
    assert_eq!(one["failures"].as_array().unwrap().len(), 1);
    assert_eq!(one["failures"][0]["code"], "name-taken");
    assert_eq!(one["failures"][0]["retry"], "now");
    let output = sandbox.run(&["explain", "disk-fill"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            2,
            "error: there is no known failure `disk-fill`\nhint: did you mean `disk-full`?\n"
        )
    );
    assert_eq!(
        sandbox.run(&["explain", "zzz"]).stderr,
        "error: there is no known failure `zzz`\nhint: list them: `cargo xtask explain`\n"
    );
}

#[test]
fn completions_are_printed_for_each_shell() {
    let sandbox = Sandbox::new(PROJECT);
    for shell in ["bash", "zsh", "fish"] {
        let output = sandbox.run(&["completions", shell]);
        assert_eq!(output.code, 0);
        assert!(output.stdout.contains("build-image"), "{shell}");
    }
}

#[test]
fn the_login_token_is_only_on_standard_input() {
    let login =
        serde_json::json!({ "args": "login", "read_stdin": true, "stdout": "Login Succeeded\n" });
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &[docker_version(), login])
        .env("GITHUB_ACTOR", "me")
        .env("GITHUB_TOKEN", "marked-token");
    let dry = sandbox.run(&["docker-login", "--dry-run"]);
    assert_eq!(
        dry.stdout,
        "printenv GITHUB_TOKEN | docker login --username me --password-stdin ghcr.io\n"
    );
    let output = sandbox.run(&["docker-login", "--verbose"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        !format!("{output:?}{:?}", sandbox.calls()).contains("marked-"),
        "{output:?}"
    );
    assert_eq!(
        sandbox.calls().last().unwrap(),
        "docker login --username me --password-stdin ghcr.io"
    );
}

#[test]
fn each_login_failure_has_its_own_message_and_hint() {
    let message = |stderr: &str| {
        let sandbox = Sandbox::new(PROJECT)
            .engine(
                "docker",
                &[docker_version(), answer("login", 1, "", stderr)],
            )
            .env("GITHUB_ACTOR", "me")
            .env("GITHUB_TOKEN", "t");
        let output = sandbox.run(&["docker-login", "--quiet"]);
        assert_eq!(output.code, 1);
        output.stderr.strip_prefix(stderr).unwrap().to_owned()
    };
    let wrong =
        message("Error response from daemon: Get \"https://ghcr.io/v2/\": denied: denied\n");
    assert!(wrong.starts_with("error: ghcr.io refuses this token of me\nhint: get a token that may push: `gh auth refresh --scopes write:packages`"), "{wrong}");
    let helper = message(
        "Error saving credentials: error storing credentials - err: exec: \"docker-credential-desktop\": executable file not found in $PATH, out: ``\n",
    );
    assert!(helper.starts_with("error: the credential helper does not work, so the login was not kept\nhint: remove `credsStore`"), "{helper}");
    let unreachable = message(
        "Error response from daemon: Get \"https://ghcr.io/v2/\": dial tcp: lookup ghcr.io: no such host\n",
    );
    assert!(
        unreachable.starts_with("error: ghcr.io cannot be reached\nhint: "),
        "{unreachable}"
    );
}

#[test]
fn timings_are_printed_to_standard_error_even_after_a_failure() {
    let mut failing = answer("build", 7, "", "no\n");
    failing["sleep_ms"] = 150.into();
    let sandbox = Sandbox::new(PROJECT).engine("docker", &[docker_version(), failing]);
    let output = sandbox.run(&["build-image", "--version", "dev-me", "--timings"]);
    assert_eq!((output.code, output.stdout.as_str()), (7, ""));
    let (_, table) = output.stderr.split_once("   began       took\n").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|l| l.split("  ").map(str::trim).collect())
        .collect();
    let step = rows.iter().find(|row| row.contains(&"step")).unwrap();
    let name = "Building ghcr.io/x/y:dev-me for linux/amd64 with Docker 28.…";
    assert_eq!(*step.last().unwrap(), format!("{name}, exit code 7"));
    let took = |row: &[&str]| -> f64 {
        let column = row.iter().rev().find_map(|cell| cell.strip_suffix(" s"));
        column.unwrap().trim().parse().unwrap()
    };
    assert!((0.15..5.0).contains(&took(step)), "{step:?}");
    let question = "docker version --format '{{json .}}'";
    assert!(
        rows.iter()
            .any(|row| row.ends_with(&["question", question])),
        "{rows:?}"
    );
    let whole = rows
        .iter()
        .find(|row| row.last() == Some(&"in all"))
        .unwrap();
    assert!(took(whole) >= took(step), "{rows:?}");
    assert!(
        output
            .stderr
            .ends_with("error: `docker build` failed with exit code 7\n"),
        "{output:?}"
    );

    let output = sandbox.run(&["build-image", "--version", "dev-me"]);
    assert!(!output.stderr.contains("in all"), "{output:?}");
}

#[test]
fn timings_are_printed_before_the_process_is_replaced() {
    let answers = [
        container("running", true),
        answer("logs", 0, "its log\n", ""),
    ];
    let sandbox = Sandbox::new(PROJECT).engine("docker", &answers);
    let output = sandbox.run(&["logs", "--no-follow", "--timings"]);
    assert_eq!((output.code, output.stdout.as_str()), (0, "its log\n"));
    assert!(
        output
            .stderr
            .contains("question  docker container inspect box\n"),
        "{output:?}"
    );
}

#[test]
fn login_is_docker_login() {
    let sandbox = Sandbox::new(PROJECT).engine("docker", &[docker_version()]);
    let output = |name| sandbox.run(&[name, "--username", "me", "--password-stdin", "--dry-run"]);
    let login = output("login");
    assert_eq!(login.code, 0, "{}", login.stderr);
    assert!(login.stdout.contains("login"), "{}", login.stdout);
    assert_eq!(login, output("docker-login"));
}
