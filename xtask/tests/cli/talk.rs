//! Help, wrong calls, configuration, and where what is printed goes.

use std::{fs, io::Read};

use crate::world::{PROJECT, World, answer, container, docker_version};

#[test]
fn help_needs_no_engine_and_shows_the_configuration() {
    let world = World::new(PROJECT);
    for args in [&["help"][..], &["--help"], &["-h"]] {
        let ran = world.run(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
        for part in [
            "Development:\n",
            "Environment:\n",
            "  build-image      Build the image",
            "Configuration (all of it: `cargo xtask config`):\n",
            "  image       ghcr.io/x/y  # xtask.toml:3\n",
        ] {
            assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
        }
    }
    assert_eq!(world.run(&[]).code, 2, "no command is a wrong call");
    let ran = world.run(&["help", "build-image"]);
    assert!(ran.stdout.contains("--no-cache"), "{ran:?}");
    assert_eq!(world.run(&["build-image", "--help"]).code, 0);
    let ran = world.run(&["help", "biuld-image"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            2,
            "error: there is no command `biuld-image`\nhint: did you mean `build-image`?\n"
        )
    );
}

#[test]
fn help_survives_a_broken_configuration() {
    let ran = World::new("schema = 7\n").run(&["help"]);
    assert_eq!(ran.code, 0);
    assert!(
        ran.stdout.contains(
            "\nConfiguration: the configuration has a problem (see `cargo xtask config`)\n"
        ),
        "{}",
        ran.stdout
    );
}

#[test]
fn wrong_calls_exit_with_2() {
    let world = World::new(PROJECT);
    for args in [
        &["biuld"][..],
        &["stop", "--nope"],
        &["stop", "--engine", "dokcer"],
        &["build-image", "--progress", "fast"],
    ] {
        assert_eq!(world.run(args).code, 2, "{args:?}");
    }
    let broken = World::new("schema = 1\nx = 1\n");
    assert_eq!(broken.run(&["stop"]).code, 2);
}

#[test]
fn a_folder_without_a_workspace_says_so() {
    let world = World::new(PROJECT);
    fs::remove_file(world.path("src/xtask.toml")).unwrap();
    let ran = world.run(&["stop"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            2,
            "error: there is no `xtask.toml` in `/src/deep/er` or its parent folders\nhint: run xtask in a checkout of the agent-runner repository\n"
        )
    );
}

#[test]
fn config_tells_each_values_source() {
    let world = World::new(PROJECT)
        .env("XTASK_RUN_STOP_GRACE", "20s")
        .env("VERSION", "v1.2.3");
    fs::write(
        world.path("src/xtask.local.toml"),
        "schema = 1\n[engine]\nprefer = 'podman'\n",
    )
    .unwrap();
    let ran = world.run(&["config"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for line in [
        "version = \"1.2.3\"  # environment VERSION\n",
        "tags = [\"1.2.3\", \"1.2\", \"1\", \"latest\"]\n",
        "engine.prefer = \"podman\"  # xtask.local.toml:3\n",
        "run.container = \"box\"  # xtask.toml:5\n",
        "run.stop-grace = \"20s\"  # environment XTASK_RUN_STOP_GRACE\n",
        "run.limits.pids = 512  # default\n",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    let json: serde_json::Value =
        serde_json::from_str(&world.run(&["config", "--json"]).stdout).unwrap();
    assert_eq!(json["values"]["run.stop-grace"]["value"], 20.0);
    assert_eq!(
        json["values"]["engine.prefer"]["source"],
        "xtask.local.toml:3"
    );
}

#[test]
fn colour_is_for_terminals_and_for_who_asks() {
    let ours = || World::new(PROJECT).engine("docker", &[container("exited", true)]);
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
        World::new(PROJECT).engine(
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
fn a_reader_that_goes_away_is_no_error() {
    let world = World::new(PROJECT);
    let mut child = world.start(&["config"]);
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
fn secrets_of_the_environment_reach_neither_arguments_nor_output() {
    let project = format!(
        "{PROJECT}pass-env = ['API_KEY', 'UNSET_KEY']\nenv = {{ FIXED_TOKEN = 'marked-fixed' }}\n"
    );
    let world = World::new(&project)
        .engine(
            "docker",
            &[
                docker_version(),
                crate::world::no_container("docker"),
                crate::world::image(),
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
        let ran = world.run(args);
        let all = format!("{}{}{:?}", ran.stdout, ran.stderr, world.calls());
        assert!(!all.contains("marked-"), "{args:?}: {all}");
        if args.contains(&"--dry-run") {
            assert!(
                ran.stdout.contains("FIXED_TOKEN=*** docker run"),
                "{}",
                ran.stdout
            );
            assert!(ran.stdout.contains("--env API_KEY"), "{}", ran.stdout);
            assert!(!ran.stdout.contains("UNSET_KEY"), "{}", ran.stdout);
        }
    }
}

#[test]
fn explain_needs_neither_a_configuration_nor_an_engine() {
    let world = World::new("schema = 7\n");
    let ran = world.run(&["explain"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(
        ran.stdout.starts_with("Engine:\n  daemon-down "),
        "{}",
        ran.stdout
    );
    assert_eq!(
        world.run(&["explain", "name-taken"]).stdout,
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
        world.run(&["explain", "ERROR: write /x: No space left on device"]),
        world.run(&["explain", "disk-full"])
    );
    let one: serde_json::Value =
        serde_json::from_str(&world.run(&["explain", "name-taken", "--json"]).stdout).unwrap();
    assert_eq!(one["schema"], 1);
    assert_eq!(one["failures"].as_array().unwrap().len(), 1);
    assert_eq!(one["failures"][0]["code"], "name-taken");
    assert_eq!(one["failures"][0]["retry"], "now");
    let ran = world.run(&["explain", "disk-fill"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            2,
            "error: there is no known failure `disk-fill`\nhint: did you mean `disk-full`?\n"
        )
    );
    assert_eq!(
        world.run(&["explain", "zzz"]).stderr,
        "error: there is no known failure `zzz`\nhint: `cargo xtask explain` lists them\n"
    );
}

#[test]
fn completions_are_printed_for_each_shell() {
    let world = World::new(PROJECT);
    for shell in ["bash", "zsh", "fish"] {
        let ran = world.run(&["completions", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("build-image"), "{shell}");
    }
}

#[test]
fn a_login_token_is_on_standard_input_and_nowhere_else() {
    let login =
        serde_json::json!({ "args": "login", "read_stdin": true, "stdout": "Login Succeeded\n" });
    let world = World::new(PROJECT)
        .engine("docker", &[docker_version(), login])
        .env("GITHUB_ACTOR", "me")
        .env("GITHUB_TOKEN", "marked-token");
    let dry = world.run(&["docker-login", "--dry-run"]);
    assert_eq!(
        dry.stdout,
        "printenv GITHUB_TOKEN | docker login --username me --password-stdin ghcr.io\n"
    );
    let ran = world.run(&["docker-login", "--verbose"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        !format!("{ran:?}{:?}", world.calls()).contains("marked-"),
        "{ran:?}"
    );
    assert_eq!(
        world.calls().last().unwrap(),
        "docker login --username me --password-stdin ghcr.io"
    );
}

#[test]
fn each_refusal_has_its_own_message_and_fix() {
    let said = |stderr: &str| {
        let world = World::new(PROJECT)
            .engine(
                "docker",
                &[docker_version(), answer("login", 1, "", stderr)],
            )
            .env("GITHUB_ACTOR", "me")
            .env("GITHUB_TOKEN", "t");
        let ran = world.run(&["docker-login", "--quiet"]);
        assert_eq!(ran.code, 1);
        ran.stderr.strip_prefix(stderr).unwrap().to_owned()
    };
    let wrong = said("Error response from daemon: Get \"https://ghcr.io/v2/\": denied: denied\n");
    assert!(wrong.starts_with("error: ghcr.io refuses this token of me\nhint: a new one that may push: `gh auth refresh --scopes write:packages`"), "{wrong}");
    let helper = said(
        "Error saving credentials: error storing credentials - err: exec: \"docker-credential-desktop\": executable file not found in $PATH, out: ``\n",
    );
    assert!(helper.starts_with("error: the credential helper does not work, so the login was not kept\nhint: remove `credsStore`"), "{helper}");
    let gone = said(
        "Error response from daemon: Get \"https://ghcr.io/v2/\": dial tcp: lookup ghcr.io: no such host\n",
    );
    assert!(
        gone.starts_with("error: ghcr.io cannot be reached\nhint: "),
        "{gone}"
    );
}

#[test]
fn timings_are_told_of_failures_too_and_stay_out_of_the_result() {
    let mut failing = answer("build", 7, "", "no\n");
    failing["sleep_ms"] = 150.into();
    let world = World::new(PROJECT).engine("docker", &[docker_version(), failing]);
    let ran = world.run(&["build-image", "--version", "dev-me", "--timings"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (7, ""));
    let (_, table) = ran.stderr.split_once("   began       took\n").unwrap();
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
    let probe = "docker version --format '{{json .}}'";
    assert!(
        rows.iter().any(|row| row.ends_with(&["probe", probe])),
        "{rows:?}"
    );
    let whole = rows
        .iter()
        .find(|row| row.last() == Some(&"in all"))
        .unwrap();
    assert!(took(whole) >= took(step), "{rows:?}");
    assert!(
        ran.stderr
            .ends_with("error: `docker build` failed with exit code 7\n"),
        "{ran:?}"
    );

    let ran = world.run(&["build-image", "--version", "dev-me"]);
    assert!(!ran.stderr.contains("in all"), "{ran:?}");
}

#[test]
fn timings_come_before_a_command_that_takes_over() {
    let answers = [
        container("running", true),
        answer("logs", 0, "its log\n", ""),
    ];
    let world = World::new(PROJECT).engine("docker", &answers);
    let ran = world.run(&["logs", "--no-follow", "--timings"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "its log\n"));
    assert!(
        ran.stderr.contains("probe  docker container inspect box\n"),
        "{ran:?}"
    );
}

#[test]
fn login_is_docker_login() {
    let world = World::new(PROJECT).engine("docker", &[docker_version()]);
    let ran = |name| world.run(&[name, "--username", "me", "--password-stdin", "--dry-run"]);
    let login = ran("login");
    assert_eq!(login.code, 0, "{}", login.stderr);
    assert!(login.stdout.contains("login"), "{}", login.stdout);
    assert_eq!(login, ran("docker-login"));
}
