//! Guarantees of single commands, for every engine.

use std::{
    collections::BTreeSet,
    env::consts::ARCH,
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    engines::{Checkout, CommandOutput, PODMAN_ROOTLESS, command_output, var},
    small,
};

/// `check` passes for the committed sources, and fails with the messages of ruff and mypy.
pub fn check_finds_errors(checkout: &Checkout) {
    checkout.ok(&["check"]);
    let fault = checkout.src().join("agent-runner/worker/fault.py");
    // mypy runs even if ruff finds an error.
    fs::write(
        &fault,
        "\"\"\"Wrong.\"\"\"\n\nimport os\n\nx: int = \"text\"\n",
    )
    .unwrap();
    let checked = checkout.run(&["check", "--progress", "plain"]);
    assert_ne!(checked.code, 0);
    for (who, words) in [
        ("ruff", "F401"),
        ("mypy", "Incompatible types in assignment"),
    ] {
        assert!(checked.stderr.contains(words), "{who}: {}", checked.stderr);
    }
}

/// A build with Podman starts from the image of the layers below the code, if they have not changed, and makes the
/// same image as a build of the whole Dockerfile.
pub fn foundation(checkout: &Checkout) {
    let engine = &checkout.engine;
    let plan = || checkout.ok(&["build-image", "--dry-run"]);
    let start_of = |plan: &str| {
        let words = plan.split(' ');
        let mut starts =
            words.filter_map(|word| word.strip_prefix("foundation=container-image://"));
        starts.next().unwrap_or_else(|| panic!("{plan}")).to_owned()
    };
    let layers = |reference: &str| engine.inspect("image", reference).unwrap()["RootFS"].clone();
    checkout.ok(&["build-image"]); // pulls the base image, if it is missing
    checkout.ok(&["build-image"]);
    let start = start_of(&plan());
    assert_eq!(
        plan().matches(" build ").count(),
        1,
        "{start} is in the store"
    );
    let first = layers(&checkout.reference());

    // A change of the code: another image, from the same start.
    let main = checkout.src().join("agent-runner/main.py");
    let code = fs::read_to_string(&main).unwrap();
    fs::write(&main, format!("{code}# changed\n")).unwrap();
    assert_eq!(start_of(&plan()), start);
    checkout.ok(&["build-image"]);
    assert_ne!(layers(&checkout.reference()), first);
    let read = [
        "run",
        "--rm",
        "--network=none",
        &checkout.reference(),
        "tail",
        "-n1",
        "main.py",
    ];
    assert_eq!(engine.run(&read).stdout, "# changed\n");
    fs::write(&main, code).unwrap();

    // A change below the code: the layers are made first.
    let dockerfile = checkout.src().join("Dockerfile");
    let text = fs::read_to_string(&dockerfile).unwrap();
    let changed = format!("LANG=C.UTF-8 BELOW={}", checkout.src().display());
    fs::write(&dockerfile, text.replace("LANG=C.UTF-8", &changed)).unwrap();
    assert_eq!(plan().matches(" build ").count(), 2);
    let other_start = start_of(&plan());
    assert_ne!(other_start, start);
    checkout.ok(&["build-image"]);
    let env = engine.inspect("image", &checkout.reference()).unwrap()["Config"]["Env"].to_string();
    assert!(env.contains("BELOW="), "{env}");
    fs::write(&dockerfile, text).unwrap();
    engine.run(&["untag", &other_start, &other_start]);

    // The whole Dockerfile, as without xtask.
    checkout.ok(&["build-image"]);
    let plain = format!("{}-plain", checkout.reference());
    let base = small::base_image();
    let src = checkout.src().display().to_string();
    let ca = "id=ca,src=/etc/ssl/certs/ca-certificates.crt";
    let built = engine.run(&[
        "build",
        "--format=docker",
        "--network=host",
        "--platform=linux/amd64",
        "--secret",
        ca,
        "--build-arg=BUILDPLATFORM=linux/amd64",
        "--build-arg",
        &format!("PYTHON_IMAGE={base}"),
        "--tag",
        &plain,
        &src,
    ]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let files = |reference: &str| {
        let list = "find /app /usr -type f -exec sha256sum {} + | sort";
        let listed = engine.run(&["run", "--rm", "--network=none", reference, "sh", "-c", list]);
        let lines = listed.stdout.lines().map(str::to_owned);
        lines.collect::<BTreeSet<_>>()
    };
    let (whole, ours) = (files(&plain), files(&checkout.reference()));
    assert!(whole.len() > 1000, "{whole:?}");
    let different: Vec<_> = whole.symmetric_difference(&ours).collect();
    assert!(different.is_empty(), "{different:?}");
    engine.run(&["image", "rm", &plain]);
}

/// An image for another architecture contains only programs for it.
pub fn cross_build(checkout: &Checkout) {
    checkout.ok(&["build-image", "--platform", "linux/arm64"]);
    let image = checkout
        .engine
        .inspect("image", &checkout.reference())
        .unwrap();
    assert_eq!(image["Architecture"], "arm64");
    // Emulated on a busy machine, the worker starts slowly.
    let slow = [("XTASK_HEALTH_BUDGET", "5m")];
    let tested = checkout.run_with(&["test-image", "--json"], &slow);
    let result: Value =
        serde_json::from_str(&tested.stdout).unwrap_or_else(|_| panic!("{tested:?}"));
    let checks = result["checks"].as_array().unwrap();
    let architecture = checks
        .iter()
        .find(|check| check["name"] == "architecture")
        .unwrap();
    assert_eq!(architecture["ok"], true, "{architecture}");
    let detail = architecture["detail"].as_str().unwrap();
    assert!(detail.starts_with("linux/arm64: all "), "{architecture}");
    // Without an emulator the container cannot run. With one, all checks pass.
    if Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        assert_eq!(result["ok"], true, "{result}");
    }
}

/// Each check of `test-image` fails for an image that is broken on purpose.
pub fn broken_images(checkout: &Checkout) {
    checkout.ok(&["build-image"]);
    let reference = checkout.reference();
    let good = format!("{reference}-good");
    let engine = &checkout.engine;
    assert_eq!(engine.run(&["tag", &reference, &good]).code, 0);
    let folder = checkout.src().join("target/broken");
    fs::create_dir_all(&folder).unwrap();
    // The header of a program for 64-bit SPARC.
    let mut program = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    program.resize(64, 0);
    program[18] = 43;
    fs::write(folder.join("sparc"), program).unwrap();
    let budget = [
        ("XTASK_BUDGET_COMPRESSED", "1MB"),
        ("XTASK_BUDGET_UNPACKED", "1MB"),
        // The image has no volume /other.
        ("XTASK_REQUIRE_VOLUMES", "/workspace,/other"),
    ];
    let failed_with = |lines: &str, env: &[(&str, &str)]| {
        let text = format!("FROM {good}\n{lines}\n");
        fs::write(folder.join("Dockerfile"), text).unwrap();
        let mut build = vec!["build", "--quiet", "--tag", &reference];
        if engine.program == "podman" {
            build.extend(["--format", "docker"]);
        }
        let folder = folder.to_str().unwrap();
        build.push(folder);
        let built = engine.run(&build);
        assert_eq!(built.code, 0, "{built:?}");
        failed_checks(checkout, env)
    };
    let failed = |lines: &str| failed_with(lines, &[]);
    let all = failed_with(
        "LABEL org.opencontainers.image.title=other\nENV API_TOKEN=abcdef\nSTOPSIGNAL SIGURG\nCOPY sparc /usr/local/bin/sparc",
        &budget,
    );
    assert_eq!(
        all,
        [
            "volumes",
            "stops on SIGTERM",
            "labels",
            "no secrets",
            "architecture",
            "size compressed",
            "size unpacked"
        ]
    );
    if engine.program == "docker" {
        checkout.ok(&["build-image"]);
        read_only_root_fails(checkout);
    }
    assert!(failed("USER 0").contains(&"user".to_owned()));
    assert!(failed("HEALTHCHECK NONE").contains(&"health check".to_owned()));
    // It never becomes healthy.
    let short = [("XTASK_HEALTH_BUDGET", "5s")];
    let unhealthy = failed_with("HEALTHCHECK CMD false", &short);
    assert!(unhealthy.contains(&"health check".to_owned()));
    engine.run(&["image", "rm", &good]);
}

/// With a client that ignores `--read-only`, the root file system can be written.
fn read_only_root_fails(checkout: &Checkout) {
    let folder = checkout.src().join("target/forgetful");
    fs::create_dir_all(&folder).unwrap();
    let real = which::which("docker").unwrap();
    let text = format!(
        "#!/bin/sh\nfor word do shift; [ \"$word\" = --read-only ] || set -- \"$@\" \"$word\"; done\nexec {} \"$@\"\n",
        real.display()
    );
    let client = folder.join("docker");
    fs::write(&client, text).unwrap();
    fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.display(), var("PATH").unwrap());
    assert_eq!(
        failed_checks(checkout, &[("PATH", &path)]),
        ["read-only root"]
    );
}

/// The names of the checks with which `test-image` fails.
fn failed_checks(checkout: &Checkout, env: &[(&str, &str)]) -> Vec<String> {
    let tested = checkout.run_with(&["test-image", "--json"], env);
    assert_eq!(tested.code, 1, "{tested:?}");
    let report: Value = serde_json::from_str(&tested.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["ok"] == false);
    let names = failed.map(|check| check["name"].as_str().unwrap().to_owned());
    names.collect()
}

/// A container gets what the environment and the file say, whatever else is set.
pub fn environment(checkout: &Checkout) {
    let file = checkout.src().join("env");
    let lines = "PLAIN=a b\r\nQUOTED=\"c d\"\nTWICE=1\nTWICE=2\nGIVEN\nEMPTY=\n# NONE=x\n";
    fs::write(&file, lines).unwrap();
    let other = match ARCH {
        "x86_64" => "linux/arm64",
        _ => "linux/amd64",
    };
    let env = [
        ("XTASK_RUN_ENV_FILE", file.to_str().unwrap()),
        ("XTASK_RUN_PASS_ENV", "HTTPS_PROXY"),
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
        ("GIVEN", "given"),
        ("DOCKER_DEFAULT_PLATFORM", other),
    ];
    let run = |line: &str| {
        let done = checkout.run_line(line, &env);
        assert_eq!(done.code, 0, "{line}: {done:?}");
    };
    run("build-image --no-check");
    run("run-local");
    let inside = checkout.inside("uname -m; env");
    let lines: Vec<_> = inside.stdout.lines().collect();
    for line in [
        ARCH,
        "PLAIN=a b",
        "QUOTED=\"c d\"",
        "TWICE=2",
        "GIVEN=given",
        "EMPTY=",
        "HTTPS_PROXY=http://127.0.0.1:9",
    ] {
        assert!(lines.contains(&line), "{line}: {inside:?}");
    }
    for name in ["NONE=", "HTTP_PROXY=", "http_proxy="] {
        assert!(
            !lines.iter().any(|line| line.starts_with(name)),
            "{inside:?}"
        );
    }
    run("stop");
}

/// `run-local` shows the log of a container that exits at once, and fails.
pub fn failing_container(checkout: &Checkout) {
    checkout.ok(&["build-image"]);
    let failed = checkout.run_with(
        &["run-local"],
        &[("XTASK_RUN_ENV", "TEMPORAL_MAX_CONCURRENCY=none")],
    );
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.stderr.contains("before it was healthy"),
        "{}",
        failed.stderr
    );
    assert!(
        failed.stderr.contains("TEMPORAL_MAX_CONCURRENCY"),
        "the log is not shown: {}",
        failed.stderr
    );
}

/// Without a mount at `/workspace`, the engine makes a volume without a name. It outlives the container, also one
/// that ran in the foreground and was interrupted.
pub fn unnamed_volume(checkout: &Checkout) {
    checkout.ok(&["build-image"]);
    let local = "schema = 1\n[run]\nworkspace = ''\n";
    fs::write(checkout.src().join("xtask.local.toml"), local).unwrap();
    let run = |args: &[&str]| {
        let output = checkout.run_with(args, &[("XTASK_RUN_WORKSPACE", "")]);
        assert_eq!(output.code, 0, "{output:?}");
        output.stderr
    };
    let engine = checkout.engine;
    let volume = || {
        let container = engine.inspect("container", &checkout.container).unwrap();
        let mounts = container["Mounts"].as_array().unwrap();
        let workspace = mounts
            .iter()
            .find(|mount| mount["Destination"] == "/workspace");
        workspace.unwrap()["Name"].as_str().unwrap().to_owned()
    };
    let exists = |volume: &str| engine.inspect("volume", volume).is_some();

    let said = run(&["run-local", "--no-wait"]);
    assert!(
        said.contains("nothing is mounted at `/workspace`"),
        "{said}"
    );
    let first = volume();
    run(&["run-local", "--no-wait"]);
    let second = volume();
    assert_ne!(first, second);
    run(&["stop"]);
    for volume in [first, second] {
        assert!(exists(&volume), "{volume} is gone");
        engine.run(&["volume", "rm", &volume]);
    }

    let line = ["run-local", "--foreground"];
    let without_workspace = [("XTASK_RUN_WORKSPACE", "")];
    let child = checkout.command(&line, &without_workspace).spawn().unwrap();
    let state = || {
        let container = engine.inspect("container", &checkout.container);
        container.map(|found| found["State"]["Status"].clone())
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    // It has handlers for signals by then.
    let log = || {
        let log = checkout.run(&["logs", "--no-follow"]);
        log.stdout + &log.stderr
    };
    while !log().contains("Temporal at ") {
        assert!(Instant::now() < deadline, "{:?}: {}", state(), log());
        thread::sleep(Duration::from_millis(100));
    }
    let third = volume();
    let ended = interrupt(child, engine.program, libc::SIGINT);
    let state_at_end = state();
    // Podman says `stopped` until it has cleaned up.
    let has_ended = ["exited", "stopped"]
        .iter()
        .any(|it| state_at_end == Some((*it).into()));
    assert!(has_ended, "{state_at_end:?} {ended:?}");
    assert!(log().contains("Temporal at "), "{}", log());
    run(&["stop"]);
    assert_eq!(state(), None);
    assert!(exists(&third), "{third} is gone");
    engine.run(&["volume", "rm", &third]);
}

/// A build that a signal interrupts exits with the signal's code, even though Podman exits with 0.
pub fn interrupted_build(checkout: &Checkout) {
    let child = checkout
        .command(&["build-image", "--no-cache"], &[])
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_secs(3));
    let ended = interrupt(child, "xtask", libc::SIGTERM);
    assert_eq!(ended.code, 143, "{ended:?}");
    assert!(
        ended.stderr.ends_with("error: interrupted\n"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        checkout.engine.inspect("image", &checkout.reference()),
        None
    );
}

/// An interrupted multi-platform build leaves no incomplete files.
pub fn interrupted_release(checkout: &Checkout) {
    // A step sleeps, so that the build still runs when it is interrupted, on a fast machine too.
    let dockerfile = format!(
        "FROM --platform=$BUILDPLATFORM {} AS slow\nRUN sleep 100\n\n{}COPY --from=slow /etc/passwd /\n",
        small::base_image(),
        small::DOCKERFILE
    );
    small::project_with(checkout, &[("Dockerfile", dockerfile.as_bytes())]);
    let line = ["build-multiarch", "--no-cache", "--progress", "plain"];
    let child = checkout.command(&line, &[]).spawn().unwrap();
    thread::sleep(Duration::from_secs(3));
    let ended = interrupt(child, "xtask", libc::SIGINT);
    assert_eq!(ended.code, 130, "{ended:?}");
    let left: Vec<_> = fs::read_dir(checkout.src().join("target/dist"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    if checkout.engine.program == "podman" {
        let ours = format!("localhost/agent-runner-xtask-release:{}-", checkout.version);
        let images = checkout
            .engine
            .run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        assert!(!images.stdout.contains(&ours), "{}", images.stdout);
    }
}

/// An interrupted `test-image` leaves no container.
pub fn interrupted_test(checkout: &Checkout) {
    checkout.ok(&["build-image"]);
    let child = checkout.command(&["test-image"], &[]).spawn().unwrap();
    let ours = format!("name={}-test", checkout.container);
    let listed = || {
        checkout
            .engine
            .run(&["ps", "-aq", "--filter", &ours])
            .stdout
    };
    for _ in 0..200 {
        if !listed().trim().is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(25));
    }
    let ended = interrupt(child, "xtask", libc::SIGINT);
    assert_eq!(ended.code, 130, "{ended:?}");
    assert_eq!(listed().trim(), "");
}

/// Two parallel runs with the same tag and container either succeed or report the conflict. Afterwards there
/// is one healthy container.
pub fn parallel_runs(checkout: &Checkout) {
    let both = |args: &[&str]| {
        let children = [(); 2].map(|()| checkout.command(args, &[]).spawn().unwrap());
        children.map(|child| command_output(&child.wait_with_output().unwrap()))
    };
    for built in both(&["build-image"]) {
        assert_eq!(built.code, 0, "{}", built.stderr);
    }
    let started = both(&["run-local"]);
    assert!(started.iter().any(|output| output.code == 0), "{started:?}");
    for output in &started {
        let reported =
            output.stderr.contains("error: ") && output.stderr.contains(&checkout.container);
        assert!(output.code == 0 || reported, "{output:?}");
    }
    let status = checkout.ok(&["status", "--json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["health"], "healthy", "{status}");
    let tested = both(&["test-image"]);
    for tested in tested {
        assert_eq!(tested.code, 0, "{}{}", tested.stdout, tested.stderr);
    }
    let stopped = both(&["stop"]);
    for stopped in stopped {
        assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    }
    let cleaned = both(&["clean", "--yes"]);
    for cleaned in &cleaned {
        assert_eq!(cleaned.code, 0, "{}", cleaned.stderr);
    }
    let named = format!("name={}", checkout.container);
    let left = checkout.engine.run(&["ps", "-aq", "--filter", &named]);
    assert_eq!(left.stdout.trim(), "");
    let left = checkout.engine.inspect("image", &checkout.reference());
    assert!(left.is_none(), "{cleaned:#?}");
}

/// A local image of a published version is used. If it is missing, it is pulled.
pub fn published_is_pulled(checkout: &Checkout) {
    let Some(registry) = var("XTASK_E2E_REGISTRY") else {
        let required = var("XTASK_E2E_REQUIRE");
        assert!(
            required.is_none(),
            "a registry is required, and XTASK_E2E_REGISTRY is not set"
        );
        let _ = writeln!(std::io::stderr(), "skipped: no registry");
        return;
    };
    let dockerfile = format!(
        "FROM {}\nUSER 1000:1000\nHEALTHCHECK CMD true\nCMD [\"sleep\", \"infinity\"]\n",
        small::base_image()
    );
    small::project_with(checkout, &[("Dockerfile", dockerfile.as_bytes())]);
    let repository = format!("{registry}/e2e/{}", checkout.container);
    let reference = format!("{repository}:9.9.9-e2e");
    let env = [
        ("XTASK_IMAGE_REPOSITORY", repository.as_str()),
        ("VERSION", "9.9.9-e2e"),
    ];
    let run = |args: &[&str]| {
        let output = checkout.run_with(args, &env);
        assert_eq!(output.code, 0, "{args:?}: {output:?}");
        output
    };
    run(&["build-image", "--no-check"]);
    let pushed = checkout.engine.run(&["push", &reference]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let started = run(&["run-local"]);
    assert!(!started.stderr.contains("Pulling"), "{}", started.stderr);
    let cleaned = run(&["clean", "--yes"]);
    let left = checkout.engine.inspect("image", &reference);
    assert!(left.is_none(), "{}", cleaned.stderr);

    let started = run(&["run-local"]);
    assert!(
        started.stderr.contains(&format!("Pulling {reference}")),
        "{}",
        started.stderr
    );
    assert!(started.stderr.contains("Healthy"), "{}", started.stderr);
    run(&["clean", "--yes"]);
}

/// Sends a signal to a program, which is the child or a descendant of it, and waits until the child exits.
pub fn interrupt(child: Child, program: &str, signal: i32) -> CommandOutput {
    let pids = pids_of(child.id(), program);
    assert!(!pids.is_empty(), "{program} does not run");
    for pid in pids {
        #[allow(unsafe_code)]
        // SAFETY: takes two numbers and touches no memory; the process is ours.
        unsafe {
            libc::kill(pid, signal)
        };
    }
    command_output(&child.wait_with_output().unwrap())
}

/// The processes of a program among a child and its descendants: the child may be `runuser`.
pub fn pids_of(child: u32, program: &str) -> Vec<libc::pid_t> {
    let mut found = vec![child];
    let mut at = 0;
    while at < found.len() {
        let children = format!("/proc/{0}/task/{0}/children", found[at]);
        let text = fs::read_to_string(children).unwrap_or_default();
        found.extend(
            text.split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        at += 1;
    }
    let is_program = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == program)
    };
    found
        .into_iter()
        .filter(is_program)
        .filter_map(|pid| libc::pid_t::try_from(pid).ok())
        .collect()
}

/// The runner works as a user that the image does not know.
pub fn any_user(checkout: &Checkout) {
    const UID: u32 = 12_345;
    // Rootless Podman maps the container's user to the one who runs Podman.
    let owner = if checkout.engine.name == PODMAN_ROOTLESS {
        checkout.engine.id("-u")
    } else {
        UID
    };
    let workspace = checkout.src().join("target/of-12345");
    fs::create_dir_all(&workspace).unwrap();
    chown(&workspace, Some(owner), Some(owner)).unwrap();
    checkout.ok(&["build-image"]);
    let env = [
        ("XTASK_RUN_USER", "12345:12345"),
        ("XTASK_RUN_WORKSPACE", workspace.to_str().unwrap()),
    ];
    let started = checkout.run_with(&["run-local"], &env);
    assert_eq!(started.code, 0, "{started:?}");
    assert!(started.stderr.contains("Healthy"), "{started:?}");
    let inside = checkout.inside("id -u && touch /workspace/file");
    assert_eq!(inside.stdout, "12345\n", "{inside:?}");
    assert_eq!(fs::metadata(workspace.join("file")).unwrap().uid(), owner);
    checkout.ok(&["stop"]);
}
