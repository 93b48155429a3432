//! What `run-local` gives the container: mounts, environment, network and user, and what it leaves.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
};

use serde_json::{Value, json};

use crate::sandbox::{
    CommandOutput, PROJECT, Sandbox, answer, container, docker_version, image, no_container,
    podman_version,
};

fn ok(args: &str) -> Value {
    answer(args, 0, "", "")
}

/// A checkout with more lines in `[run]` and with an engine that has the image.
fn sandbox(engine: &str, more: &str) -> Sandbox {
    let version = if engine == "docker" {
        docker_version()
    } else {
        podman_version()
    };
    Sandbox::new(&format!("{PROJECT}{more}")).engine(engine, &[version, image()])
}

fn local(sandbox: &Sandbox, text: &str) {
    let file = sandbox.path("src/xtask.local.toml");
    fs::write(file, format!("schema = 1\n{text}")).unwrap();
}

fn dry_run(sandbox: &Sandbox, more: &[&str]) -> CommandOutput {
    let run = ["run-local", "--version", "dev-me", "--dry-run"];
    sandbox.run(&[&run, more].concat())
}

/// The values of an option of the engine's `run`, such as `--volume`.
fn values(output: &CommandOutput, option: &str) -> Vec<String> {
    assert_eq!(output.code, 0, "{output:?}");
    let line = output.stdout.lines().find(|line| line.contains(" run "));
    let mut words = line.unwrap().split(' ');
    let mut found = Vec::new();
    while words.any(|word| word == option) {
        found.extend(words.next().map(str::to_owned));
    }
    found
}

#[test]
fn a_stop_that_is_too_short_for_executions_is_reported() {
    let answers = [docker_version(), no_container("docker"), image(), ok("run")];
    let project = format!("{PROJECT}env-file = '.env'\n");
    let sandbox = Sandbox::new(&project).engine("docker", &answers);
    for (seconds, needed) in [
        ("8", None),
        ("9.5", None),
        ("10.5", Some(12)),
        ("600", Some(602)),
    ] {
        let line = format!("SHUTDOWN_GRACE_SECONDS={seconds}\n");
        fs::write(sandbox.path("src/.env"), line).unwrap();
        let output = sandbox.run(&["run-local", "--version", "dev-me", "--no-wait"]);
        assert_eq!(output.code, 0, "{output:?}");
        let Some(needed) = needed else {
            assert!(!output.stderr.contains("SHUTDOWN_GRACE"), "{output:?}");
            continue;
        };
        let warning = format!(
            "warning: `SHUTDOWN_GRACE_SECONDS` is {seconds}, and the container is killed 10 s after it is told to stop: executions that still run then are lost\n\
             hint: give it more time: `run.stop-grace = \"{needed}s\"`\n"
        );
        assert!(output.stderr.contains(&warning), "{output:?}");
    }
}

#[test]
fn a_personal_volume_does_not_take_the_place_of_the_workspace() {
    let sandbox = sandbox("docker", "volumes = ['~/a:/a']\n");
    local(&sandbox, "[run]\nvolumes = ['~/extra:/extra']\n");
    let output = dry_run(&sandbox, &["-v", "/tmp:/c"]);
    assert_eq!(
        values(&output, "--volume"),
        [
            "/home/work:/workspace",
            "/home/a:/a",
            "/home/extra:/extra",
            "/tmp:/c"
        ]
    );
    let output = sandbox.run(&["config"]);
    let volumes =
        "run.volumes = [\"~/a:/a\", \"~/extra:/extra\"]  # xtask.toml:7, xtask.local.toml:3\n";
    assert!(output.stdout.contains(volumes), "{}", output.stdout);
}

#[test]
fn the_old_form_of_the_workspace_is_refused_with_the_new_one() {
    let sandbox = sandbox("docker", "");
    local(&sandbox, "[run]\nvolumes = ['~/mine:/workspace']\n");
    let output = dry_run(&sandbox, &[]);
    assert_eq!(output.code, 2, "{output:?}");
    assert_eq!(
        output.stderr,
        "error: the container's folder `/workspace` has two mounts: `run.workspace` (from xtask.toml:6) and `~/mine:/workspace` in `run.volumes` (from xtask.local.toml:3)\n\
         hint: for another workspace write `run.workspace = \"~/mine\"` or set `XTASK_RUN_WORKSPACE`, and remove the volume\n"
    );
    assert!(sandbox.calls().is_empty(), "{:?}", sandbox.calls());
}

#[test]
fn a_project_without_a_workspace_mounts_none() {
    let project = "schema = 1\n[image]\nrepository = 'ghcr.io/x/y'\n";
    let sandbox = Sandbox::new(project).engine("docker", &[docker_version(), image()]);
    assert!(values(&dry_run(&sandbox, &[]), "--volume").is_empty());
}

/// A container of an image with a volume for which nothing is mounted has an unnamed volume. It can hold
/// files of the user.
#[test]
fn a_replaced_or_stopped_container_leaves_its_unnamed_volumes() {
    for engine in ["docker", "podman"] {
        let version = if engine == "docker" {
            docker_version()
        } else {
            podman_version()
        };
        let answers = [version, container("running", true), image()];
        let sandbox = Sandbox::new(PROJECT).engine(
            engine,
            &[&answers[..], &[ok("stop"), ok("rm"), ok("run")]].concat(),
        );
        for line in [
            &["run-local", "--version", "dev-me", "--no-wait"][..],
            &["stop"],
        ] {
            let output = sandbox.run(line);
            assert_eq!(output.code, 0, "{output:?}");
        }
        let calls = sandbox.calls();
        let removals: Vec<_> = calls.iter().filter(|call| call.contains(" rm ")).collect();
        assert_eq!(removals.len(), 2, "{calls:?}");
        for call in removals {
            let removes_volumes = call.contains(" -v") || call.contains("--volumes");
            assert!(!removes_volumes, "{call}");
        }
    }
}

/// An image that declares the volumes `/workspace` and `/data`.
fn image_with_volumes() -> Value {
    let found = json!([{
        "Id": "sha256:0123456789abcdef", "Os": "linux", "Architecture": "amd64",
        "Config": { "Volumes": { "/workspace": {}, "/data": {} } },
    }]);
    answer("image inspect", 0, &found.to_string(), "")
}

#[test]
fn files_that_an_unnamed_volume_would_hold_are_announced() {
    let answers = [
        docker_version(),
        no_container("docker"),
        image_with_volumes(),
        ok("run"),
    ];
    let sandbox = Sandbox::new(PROJECT).engine("docker", &answers);
    let warning = "warning: nothing is mounted at `/data`, a volume of the image: the next container does not get the files in it\n\
         hint: mount a folder: `run.volumes = [\"~/FOLDER:/data\"]` in `xtask.local.toml`\n";
    let output = sandbox.run(&["run-local", "--version", "dev-me", "--no-wait"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains(warning), "{}", output.stderr);
    assert!(!output.stderr.contains("`/workspace`"), "{}", output.stderr);
    let foreground = sandbox.run(&["run-local", "--version", "dev-me", "--foreground"]);
    assert!(foreground.stderr.contains(warning), "{foreground:?}");
    let calls = sandbox.calls().join("\n");
    assert!(
        !calls.contains("--rm"),
        "the engine would remove the volume: {calls}"
    );
    let output = sandbox.run(&[
        "run-local",
        "--version",
        "dev-me",
        "--no-wait",
        "-v",
        "data:/data",
    ]);
    assert!(!output.stderr.contains("/data"), "{}", output.stderr);
}

#[test]
fn a_network_of_ones_own_has_the_hosts_name() {
    let addresses = "env = { SERVER = 'localhost:7234' }\naddresses = ['SERVER']\n";
    let of = |engine: &str, network: &str| {
        let answers = [ok("network inspect mine"), image()];
        let version = if engine == "docker" {
            docker_version()
        } else {
            podman_version()
        };
        let other = answer(
            "container inspect other",
            0,
            r#"[{"Id":"1","State":{"Status":"running","Running":true}}]"#,
            "",
        );
        let sandbox = Sandbox::new(&format!("{PROJECT}{addresses}"))
            .engine(engine, &[&answers[..], &[version, other]].concat());
        let output = dry_run(&sandbox, &["--network", network]);
        let server = values(&output, "--env").concat();
        assert!(
            output.stdout.contains(&format!(" --network {network} ")),
            "{output:?}"
        );
        (server, values(&output, "--add-host").concat())
    };
    let is = |server: &str, host: &str| (format!("SERVER={server}"), host.to_owned());
    let docker = "host.docker.internal";
    assert_eq!(
        of("docker", "mine"),
        is(&format!("{docker}:7234"), &format!("{docker}:host-gateway"))
    );
    assert_eq!(
        of("podman", "mine"),
        is("host.containers.internal:7234", "")
    );
    for engine in ["docker", "podman"] {
        for apart in ["none", "container:other"] {
            assert_eq!(
                of(engine, apart),
                is("localhost:7234", ""),
                "{engine} {apart}"
            );
        }
    }
}

#[test]
fn a_network_apart_from_the_host_is_announced() {
    let addresses = "env = { SERVER = 'localhost:1' }\naddresses = ['SERVER']\n";
    let other = answer(
        "container inspect other",
        0,
        r#"[{"Id":"1","State":{"Status":"running","Running":true}}]"#,
        "",
    );
    let answers = [
        docker_version(),
        no_container("docker"),
        other,
        image(),
        ok("run"),
    ];
    let sandbox = Sandbox::new(&format!("{PROJECT}{addresses}")).engine("docker", &answers);
    for (network, warning) in [
        (
            "none",
            "the container cannot reach this machine through its network, so its addresses stay as they are",
        ),
        (
            "container:other",
            "the container shares the network of `other`: `localhost` in its addresses is that container",
        ),
    ] {
        let line = [
            "run-local",
            "--version",
            "dev-me",
            "--no-wait",
            "--network",
            network,
        ];
        let output = sandbox.run(&line);
        let warnings: Vec<_> = output
            .stderr
            .lines()
            .filter(|line| line.starts_with("warning"))
            .collect();
        assert_eq!(warnings, [format!("warning: {warning}")], "{output:?}");
    }
}

#[test]
fn a_missing_network_is_reported_before_the_old_container_is_stopped() {
    for engine in ["docker", "podman"] {
        let version = if engine == "docker" {
            docker_version()
        } else {
            podman_version()
        };
        let answers = [
            version,
            container("running", true),
            image(),
            ok("stop"),
            ok("rm"),
        ];
        let sandbox = Sandbox::new(PROJECT).engine(engine, &answers);
        let said = |network: &str| {
            let output = sandbox.run(&["run-local", "--version", "dev-me", "--network", network]);
            assert_eq!(output.code, 1, "{output:?}");
            output.stderr
        };
        assert_eq!(
            said("missing"),
            format!(
                "error: {engine} has no network `missing`\nhint: create it: `{engine} network create missing`; or use another network: `--network bridge`\n"
            )
        );
        assert_eq!(
            said("container:gone"),
            "error: there is no container `gone` whose network the new one could share\nhint: start that container first, or use another network: `--network bridge`\n"
        );
        let calls = sandbox.calls();
        let touched = calls.iter().any(|call| {
            [" stop ", " rm ", " run "]
                .iter()
                .any(|word| call.contains(word))
        });
        assert!(!touched, "{calls:?}");
    }
}

#[test]
fn a_network_that_cannot_be_shared_is_refused_before_the_old_container_is_stopped() {
    let stopped = json!([{
        "Id": "id-of-db", "Name": "/db", "State": { "Status": "exited", "Running": false },
        "Config": { "Image": "db", "Labels": {} },
    }]);
    let db = answer("container inspect db", 0, &stopped.to_string(), "");
    let Value::String(own) = container("running", true)["stdout"].clone() else {
        panic!("no description");
    };
    let by_id = answer("container inspect 0123456789ab", 0, &own, "");
    let answers = [
        docker_version(),
        container("running", true),
        db,
        by_id,
        image(),
        ok("stop"),
        ok("rm"),
    ];
    let old = Sandbox::new(PROJECT).engine("docker", &answers);
    let none = [docker_version(), no_container("docker"), image()];
    let none = Sandbox::new(PROJECT).engine("docker", &none);
    let own = "error: the new container cannot share the network of `{NAME}`, because it replaces that container\nhint: use another network: `--network bridge`\n";
    for (sandbox, network, expected) in [
        (
            &old,
            "container:db",
            "error: the new container cannot share the network of `db`, because that container is not running (it is exited)\nhint: start it: `docker start db`; or use another network: `--network bridge`\n",
        ),
        (&old, "container:box", own),
        (&old, "container:0123456789ab", own),
        (&none, "container:box", own),
    ] {
        let output = sandbox.run(&["run-local", "--version", "dev-me", "--network", network]);
        assert_eq!(output.code, 1, "{network}: {output:?}");
        let name = network.trim_start_matches("container:");
        assert_eq!(output.stderr, expected.replace("{NAME}", name));
        let calls = sandbox.calls();
        let touches = |call: &String| {
            [" stop ", " rm ", " run "]
                .iter()
                .any(|it| call.contains(it))
        };
        assert!(!calls.iter().any(touches), "{calls:?}");
    }
    // Docker can share the network of a paused container. Podman starts a stopped one.
    let paused = stopped.to_string().replace("exited", "paused");
    let podmans = stopped
        .to_string()
        .replace("\"Name\"", "\"ImageName\":\"db\",\"Name\"");
    for (engine, version, db) in [
        ("docker", docker_version(), paused),
        ("podman", podman_version(), podmans),
    ] {
        let db = answer("container inspect db", 0, &db, "");
        let sandbox = Sandbox::new(PROJECT).engine(engine, &[version, db, image()]);
        let output = dry_run(&sandbox, &["--network", "container:db"]);
        assert_eq!(values(&output, "--network"), ["container:db"], "{output:?}");
    }
}

#[test]
fn a_labelled_volume_is_not_labelled_twice() {
    let volumes = "volumes = ['/tmp:/a:Z', '/tmp:/b:ro,z', '/tmp:/c:ro', '/tmp:/d']\n[run.hardening]\nselinux-relabel = 'yes'\n";
    let sandbox = sandbox("docker", volumes);
    assert_eq!(
        values(&dry_run(&sandbox, &[]), "--volume")[1..],
        ["/tmp:/a:Z", "/tmp:/b:ro,z", "/tmp:/c:ro,z", "/tmp:/d:z"]
    );
}

/// Podman passes the proxies of its environment to a container unless it is told not to. Docker does not.
#[test]
fn a_proxy_of_the_environment_does_not_reach_the_container() {
    for (engine, says) in [("docker", false), ("podman", true)] {
        let sandbox = sandbox(engine, "").env("HTTPS_PROXY", "http://me:secret@127.0.0.1:1");
        let output = dry_run(&sandbox, &[]);
        assert_eq!(
            output.stdout.contains(" --http-proxy=false "),
            says,
            "{output:?}"
        );
        assert!(!output.stdout.contains("secret"), "{output:?}");
    }
}

#[test]
fn a_proxy_can_be_passed_by_name() {
    let sandbox = sandbox("podman", "").env("HTTPS_PROXY", "http://me:secret@proxy:1");
    local(&sandbox, "[run]\npass-env = ['HTTPS_PROXY']\n");
    let output = dry_run(&sandbox, &[]);
    assert_eq!(values(&output, "--env"), ["HTTPS_PROXY"]);
    assert!(!output.stdout.contains("secret"), "{output:?}");
}

/// A checkout with defaults in `run.env` and with this environment file.
fn with_env_file(engine: &str, text: &str) -> Sandbox {
    let defaults = "env-file = '.env'\npass-env = ['LEVEL', 'MODE']\nenv = { MODE = 'local', SERVER = 'localhost:1' }\naddresses = ['SERVER']\n";
    let sandbox = sandbox(engine, defaults);
    fs::write(sandbox.path("src/.env"), text).unwrap();
    sandbox
}

#[test]
fn a_bare_name_without_a_value_keeps_the_default() {
    for engine in ["docker", "podman"] {
        let of = |sandbox: &Sandbox| values(&dry_run(sandbox, &[]), "--env");
        let server = "SERVER=localhost:1";
        let unset = with_env_file(engine, "MODE\nSERVER\n");
        assert_eq!(of(&unset), ["MODE=local", server]);
        let empty = unset.env("MODE", "").env("SERVER", "");
        assert_eq!(of(&empty), ["MODE=local", server], "an empty variable");
        // The engine takes the value itself.
        let set = with_env_file(engine, "OTHER\nSERVER\n")
            .env("OTHER", "x")
            .env("SERVER", "far:1");
        assert_eq!(of(&set), ["MODE=local"]);
        // The engine would take the empty value of the later line.
        let both = with_env_file(engine, "OTHER=first\nOTHER\n").env("OTHER", "");
        assert_eq!(of(&both), ["MODE=local", server, "OTHER"]);
    }
}

#[test]
fn an_exported_empty_variable_keeps_the_default() {
    let sandbox = with_env_file("docker", "LEVEL=debug\n")
        .env("MODE", "")
        .env("LEVEL", "");
    let output = dry_run(&sandbox, &[]);
    assert_eq!(
        values(&output, "--env"),
        ["MODE=local", "SERVER=localhost:1"]
    );
    assert_eq!(values(&output, "--env-file"), ["/src/.env"]);
    let output = dry_run(&sandbox, &["-e", "MODE="]);
    assert_eq!(values(&output, "--env"), ["MODE=", "SERVER=localhost:1"]);
}

#[test]
fn a_value_of_the_command_line_can_have_several_lines() {
    let sandbox = with_env_file("docker", "");
    let output = dry_run(&sandbox, &["-e", "MODE=a\nb"]);
    assert!(output.stdout.contains("--env 'MODE=a\nb' "), "{output:?}");
}

#[test]
fn what_engines_take_literally_is_announced_with_its_line_and_without_its_value() {
    let text =
        "# a file of Docker Compose\nSERVER=\"localhost:1\"\r\nLEVEL=debug # more\nKEY='made-up'\n";
    let version = [docker_version(), no_container("docker"), image(), ok("run")];
    let sandbox = with_env_file("docker", text);
    fs::remove_file(sandbox.path("bin/docker")).unwrap();
    let sandbox = sandbox.engine("docker", &version);
    let output = sandbox.run(&["run-local", "--version", "dev-me", "--no-wait"]);
    assert_eq!(output.code, 0, "{output:?}");
    for warning in [
        "warning: `/src/.env:2`: the quotes around the value of SERVER become part of it: remove them\n",
        "warning: `/src/.env:3`: the text after ` #` becomes part of the value of LEVEL: write the comment on a line of its own\n",
        "warning: `/src/.env:4`: the quotes around the value of KEY become part of it: remove them\n",
    ] {
        assert!(output.stderr.contains(warning), "{}", output.stderr);
    }
    assert!(!output.stderr.contains("made-up"), "{}", output.stderr);
}

#[test]
fn a_line_that_is_too_long_is_refused_before_the_old_container_is_stopped() {
    let sandbox = with_env_file("podman", &format!("A=1\nCA={}\n", "x".repeat(70_000)));
    let output = sandbox.run(&["run-local", "--version", "dev-me"]);
    assert_eq!(output.code, 2, "{output:?}");
    assert_eq!(
        output.stderr,
        "error: `/src/.env:2`: has more than 65535 bytes, which engines do not read: set the variable in your environment, and name it in `run.pass-env`\n"
    );
}

#[test]
fn a_link_that_leads_nowhere_is_named_before_the_old_container_is_stopped() {
    let answers = [
        docker_version(),
        container("running", true),
        image(),
        ok("stop"),
        ok("rm"),
    ];
    let sandbox = Sandbox::new(PROJECT).engine("docker", &answers);
    symlink("/unplugged/disk", sandbox.path("home/work")).unwrap();
    let why = "the folder `/home/work` cannot be mounted: the link `/home/work` leads to `/unplugged/disk`, which is not there";
    let output = sandbox.run(&["run-local", "--version", "dev-me"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert_eq!(
        output.stderr,
        format!(
            "error: {why}\nhint: connect or create what the link leads to, or remove the link\n"
        )
    );
    assert!(!sandbox.calls().iter().any(|call| call.contains(" stop ")));
    let output = sandbox.run(&["doctor"]);
    assert!(output.stdout.contains(why), "{}", output.stdout);
}

#[test]
fn a_missing_file_does_not_become_a_folder() {
    let sandbox = sandbox("docker", "");
    let models = "[run]\nvolumes = ['~/models.json:/etc/models.json:ro']\n";
    local(&sandbox, models);
    let output = dry_run(&sandbox, &[]);
    assert_eq!(output.code, 1, "{output:?}");
    assert_eq!(
        output.stderr,
        "error: there is no file `/home/models.json` to mount at `/etc/models.json`\n\
         hint: create the file; if a folder is meant, create it: `mkdir -p /home/models.json`\n"
    );
    fs::write(sandbox.path("home/models.json"), "{}").unwrap();
    fs::create_dir(sandbox.path("home/shared")).unwrap();
    let read_only = "[run]\nvolumes = ['~/shared:/shared:ro']\n";
    local(&sandbox, read_only);
    let report = sandbox.run(&["doctor"]).stdout;
    let finding = "ok   workspace      /home/shared is mounted read-only\n";
    assert!(report.contains(finding), "{report}");
    local(&sandbox, models);
    let volumes = values(
        &dry_run(&sandbox, &["-v", "~/x.d:/etc/x.d", "-v", "~/v1.2:/v"]),
        "--volume",
    );
    assert_eq!(
        volumes[1..],
        [
            "/home/models.json:/etc/models.json:ro",
            "/home/x.d:/etc/x.d",
            "/home/v1.2:/v"
        ]
    );
}

#[test]
fn a_volume_that_an_engine_would_misread_is_refused_with_its_line() {
    let sandbox = sandbox("docker", "");
    for (volume, why) in [
        (
            "$HOME/models:/models:ro",
            "has `$HOME`, which is not expanded: write `~/models`",
        ),
        (
            "data/models:/models:ro",
            "has `data/models`, which is neither a folder nor the name of a volume: for a folder in the checkout write `./data/models`",
        ),
    ] {
        local(&sandbox, &format!("[run]\nvolumes = [\"{volume}\"]\n"));
        let output = dry_run(&sandbox, &[]);
        assert_eq!(output.code, 2, "{output:?}");
        let problem = format!("`{volume}` in `run.volumes` {why}\n --> xtask.local.toml:3:12\n");
        assert!(output.stderr.contains(&problem), "{}", output.stderr);
    }
    assert!(sandbox.calls().is_empty(), "{:?}", sandbox.calls());
}

#[test]
fn a_typed_relative_folder_is_relative_to_the_current_one() {
    let sandbox = sandbox("docker", "volumes = ['./a:/a']\n");
    assert_eq!(
        values(&dry_run(&sandbox, &["-v", "./b:/b"]), "--volume")[1..],
        ["/src/a:/a", "/src/deep/er/b:/b"]
    );
}

#[test]
fn with_sudo_the_home_folder_and_new_folders_are_the_callers() {
    // Only root can act for another user. Each system has the user 1, `daemon`, who has a home folder.
    let sandbox = sandbox("docker", "")
        .env("SUDO_UID", "1")
        .env("SUDO_GID", "1");
    local(&sandbox, "[run]\nvolumes = ['~/new/er:/a']\n");
    let output = dry_run(
        &sandbox,
        &["-v", &format!("{}/b/c:/b", sandbox.path("new").display())],
    );
    let volumes = values(&output, "--volume");
    let is_root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if !is_root {
        assert_eq!(
            volumes,
            ["/home/work:/workspace", "/home/new/er:/a", "/new/b/c:/b"]
        );
        return;
    }
    assert_ne!(volumes[0], "/home/work:/workspace", "{volumes:?}");
    assert!(
        output
            .stdout
            .contains("mkdir -p /new/b/c\nchown 1:1 /new /new/b\nchown 1:1 /new/b/c\n"),
        "{output:?}"
    );
}

/// These refusals are the same for root, for `sudo` and for everybody else.
#[test]
fn an_existing_folder_keeps_its_owner() {
    let is_root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    for caller in [None, Some("1")] {
        let sandbox = sandbox("docker", "");
        let sandbox = match caller {
            Some(id) => sandbox.env("SUDO_UID", id).env("SUDO_GID", id),
            None => sandbox,
        };
        for (folder, hint) in [
            ("/etc", "mount it read-only: `/etc:/host:ro`"),
            ("/", "mount it read-only: `/:/host:ro`"),
            (
                "/etc/../etc/.",
                "mount it read-only: `/etc/../etc:/host:ro`",
            ),
        ] {
            let output = dry_run(&sandbox, &["-v", &format!("{folder}:/host")]);
            assert_eq!(output.code, 1, "{folder}: {output:?}");
            assert!(output.stderr.contains("could not write to"), "{output:?}");
            assert!(
                output.stderr.ends_with(&format!("hint: {hint}\n")),
                "{output:?}"
            );
            assert!(!output.stdout.contains("chown"), "{output:?}");
            let output = dry_run(&sandbox, &["-v", &format!("{folder}:/host:ro")]);
            assert_eq!(output.code, 0, "{folder}: {output:?}");
            assert!(!output.stdout.contains(" /etc\n"), "{output:?}");
        }
        symlink("/etc", sandbox.path("home/link")).unwrap();
        for folder in ["/etc", "~/link"] {
            if folder == "~/link" && caller.is_some() {
                continue; // `~` is the home folder of the user 1.
            }
            local(&sandbox, &format!("[run]\nworkspace = '{folder}'\n"));
            let output = dry_run(&sandbox, &[]);
            assert_eq!(output.code, 1, "{output:?}");
            let hint = "hint: set `run.workspace` to another folder in `xtask.local.toml`\n";
            assert!(output.stderr.ends_with(hint), "{output:?}");
        }
        if !is_root {
            continue;
        }
        // Root owns this folder.
        let folder = sandbox.path("theirs").display().to_string();
        fs::create_dir(&folder).unwrap();
        local(&sandbox, "");
        let output = dry_run(&sandbox, &["-v", &format!("{folder}:/host")]);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains("sudo chown -R "), "{output:?}");
        // As the workspace, root gives it to the container's user, and `sudo` does not.
        local(&sandbox, &format!("[run]\nworkspace = '{folder}'\n"));
        let output = dry_run(&sandbox, &[]);
        match caller {
            None => assert!(
                output.stdout.contains("chown 1000:1000 /theirs\n"),
                "{output:?}"
            ),
            Some(_) => assert!(
                output.stderr.contains("`sudo chown -R 1:1 /theirs`"),
                "{output:?}"
            ),
        }
        // A folder of another user stays as it is.
        std::os::unix::fs::chown(&folder, Some(2), Some(2)).unwrap();
        let output = dry_run(&sandbox, &[]);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(
            output.stderr.contains("it belongs to uid 2, not to "),
            "{output:?}"
        );
    }
}

#[test]
fn the_images_own_user_has_no_options_and_its_files_are_announced() {
    let mut rootless = docker_version();
    let version = rootless["stdout"].as_str().unwrap();
    let components = "\"Components\":[";
    let version = version.replace(
        components,
        &format!("{components}{{\"Name\":\"rootlesskit\"}},"),
    );
    rootless["stdout"] = version.into();
    let answers = [rootless, no_container("docker"), image(), ok("run")];
    let sandbox = Sandbox::new(&format!("{PROJECT}user = 'image'\n")).engine("docker", &answers);
    assert!(values(&dry_run(&sandbox, &[]), "--user").is_empty());
    let output = sandbox.run(&["run-local", "--version", "dev-me", "--no-wait"]);
    let warning = "warning: with this `run.user`, the container's files in `/home/work` belong to a subordinate id and not to you, and the container can write only to what everyone can write to\n";
    assert!(output.stderr.contains(warning), "{}", output.stderr);
}

#[test]
fn only_a_build_refuses_an_argument_that_looks_like_a_secret() {
    let sandbox = sandbox("docker", "").env("XTASK_BUILD_CHECK_TARGET", "checks");
    local(
        &sandbox,
        "[build.args]\nMONKEY = 'a'\nSIGNING_PUBLIC_KEY = 'ssh-ed25519 AAAA'\nKMS_KEY_ALIAS = 'alias/x'\nPASSWORD_MIN_LENGTH = '12'\nCACHE_KEY = '2026-11'\n",
    );
    for line in [
        &["config"][..],
        &["run-local", "--version", "dev-me", "--dry-run"],
    ] {
        assert_eq!(sandbox.run(line).code, 0, "{line:?}");
    }
    for line in [
        &["check"][..],
        &["build-multiarch", "--version", "dev-me"],
        &["push-image", "--version", "dev-me"],
        &["push-multiarch", "--version", "dev-me"],
    ] {
        let output = sandbox.run(&[line, &["--dry-run"]].concat());
        assert_eq!(output.code, 2, "{line:?}: {output:?}");
        assert!(
            output
                .stderr
                .starts_with("error: the build argument `CACHE_KEY` in "),
            "{line:?}: {output:?}"
        );
    }
    let build = ["build-image", "--version", "dev-me", "--dry-run"];
    let output = sandbox.run(&build);
    assert_eq!(output.code, 2, "{output:?}");
    assert_eq!(
        output.stderr,
        "error: the build argument `CACHE_KEY` in `build.args` (from xtask.local.toml:7) looks like a secret, and build arguments stay readable in the image's history\n\
         hint: make it a build secret: `build.secrets = [\"id=cache_key,env=CACHE_KEY\"]`\n\
         hint: if its value is public, say so: `build.public-args = [\"CACHE_KEY\"]`\n"
    );
    let sandbox = sandbox
        .env("XTASK_BUILD_PUBLIC_ARGS", "CACHE_KEY")
        .env("TYPED", "x y");
    let output = sandbox.run(&[&build[..], &["--build-arg", "TYPED"]].concat());
    assert_eq!(output.code, 0, "{output:?}");
    for argument in ["CACHE_KEY=2026-11", "MONKEY=a", "'TYPED=x y'"] {
        let argument = format!(" --build-arg {argument} ");
        assert!(output.stdout.contains(&argument), "{}", output.stdout);
    }
}

#[test]
fn a_secret_of_the_command_line_adds_to_those_of_the_configuration() {
    let sandbox = sandbox("docker", "").env("TOKEN", "made-up");
    local(
        &sandbox,
        "[build]\nsecrets = ['id=ca,src=xtask.toml', 'id=token,src=xtask.toml']\n",
    );
    let output = sandbox.run(&[
        "build-image",
        "--version",
        "dev-me",
        "--dry-run",
        "--secret",
        "type=env,env=TOKEN,id=token",
    ]);
    assert_eq!(output.code, 0, "{output:?}");
    let secrets = " --secret id=ca,src=/src/xtask.toml --secret id=token,env=TOKEN ";
    assert!(output.stdout.contains(secrets), "{}", output.stdout);
}

#[test]
fn engines_do_not_get_docker_default_platform() {
    let sandbox = sandbox("docker", "").env("DOCKER_DEFAULT_PLATFORM", "linux/arm64");
    for how in ["--foreground", "--no-wait"] {
        sandbox.run(&["run-local", "--version", "dev-me", how]);
    }
    let calls = sandbox.calls().join("\n");
    assert_eq!(calls.matches("docker run ").count(), 2, "{calls}");
    assert!(!calls.contains("DOCKER_DEFAULT_PLATFORM"), "{calls}");
    let printed = dry_run(&sandbox, &[]);
    let hint = "hint: run these commands without `DOCKER_DEFAULT_PLATFORM`, as xtask does\n";
    assert!(printed.stderr.contains(hint), "{printed:?}");
}

#[test]
fn an_argument_that_the_dockerfile_does_not_declare_is_announced() {
    let sandbox = sandbox("docker", "");
    fs::write(sandbox.path("src/Dockerfile"), "FROM scratch\nARG USED\n").unwrap();
    let build = |command: &str| {
        let line = [command, "--version", "dev-me", "--dry-run"];
        let more = ["--build-arg", "USED=1", "--build-arg", "TYPO=1"];
        let output = sandbox.run(&[&line[..], &more].concat());
        assert_eq!(output.code, 0, "{output:?}");
        output.stderr
    };
    let warning =
        "warning: the build argument `TYPO` is not used: `Dockerfile` has no `ARG TYPO`\n";
    assert_eq!(build("build-image"), warning);
}

/// Docker's description of the container that the stigmer CLI starts.
fn stigmer_clis_container() -> Value {
    let found = json!([{
        "Id": "0123456789abcdef", "Name": "/stigmer-agent-runner",
        "State": { "Status": "running", "Running": true },
        "Config": { "Image": "ghcr.io/stigmer/agent-runner:latest", "Env": ["WORKSPACE_ROOT=/workspace"] },
    }]);
    let question = "container inspect stigmer-agent-runner";
    answer(question, 0, &found.to_string(), "")
}

#[test]
fn the_runner_of_the_stigmer_cli_is_recognised() {
    let engine = [
        docker_version(),
        stigmer_clis_container(),
        image(),
        answer("info --format {{.LoggingDriver}}", 0, "journald\n", ""),
        ok("run"),
    ];
    let run = ["run-local", "--version", "dev-me", "--no-wait"];

    // The warning is for projects whose container has a model.
    let project = format!("{PROJECT}pass-env = ['STIGMER_LLM_PROVIDER']\n");
    let same_name = project.replace("'box'", "'stigmer-agent-runner'");
    let refused = Sandbox::new(&same_name).engine("docker", &engine).run(&run);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(
        refused.stderr,
        "error: the container `stigmer-agent-runner` is the stigmer CLI's: it runs `ghcr.io/stigmer/agent-runner:latest` (running)\n\
         hint: stop the CLI's runner and its server: `stigmer server stop`\n\
         hint: give ours another name: `XTASK_RUN_CONTAINER=my-runner`; both then take executions from the same task queue\n"
    );

    let beside = Sandbox::new(&project).engine("docker", &engine);
    let started = beside.run(&run);
    assert_eq!(started.code, 0, "{started:?}");
    let warning = "warning: the stigmer CLI's runner `stigmer-agent-runner` runs too: ";
    assert!(started.stderr.contains(warning), "{}", started.stderr);
    let report = beside.run(&["doctor"]);
    let finding = "warn stigmer CLI ";
    assert!(report.stdout.contains(finding), "{}", report.stdout);

    // The CLI uses Docker. Our container is in Podman, under whatever name.
    let podman = [podman_version(), image(), no_container("podman"), ok("run")];
    for project in [&project, &same_name] {
        let both = Sandbox::new(project)
            .engine("docker", &engine)
            .engine("podman", &podman);
        let started = both.run(&[&["--engine", "podman"][..], &run].concat());
        assert_eq!(started.code, 0, "{started:?}");
        assert!(started.stderr.contains(warning), "{}", started.stderr);
        let report = both.run(&["doctor", "--engine", "podman"]);
        assert!(report.stdout.contains(finding), "{}", report.stdout);
    }
}

#[test]
fn the_log_and_the_restarts_are_limited_as_the_engine_can() {
    let options = |engine: &str, driver: &str, more: &[&str]| {
        let version = if engine == "docker" {
            docker_version()
        } else {
            podman_version()
        };
        let info = answer("info --format {{.LoggingDriver}}", 0, driver, "");
        let project = format!("{PROJECT}restart = 'unless-stopped'\n");
        let sandbox = Sandbox::new(&project).engine(engine, &[version, image(), info]);
        let output = dry_run(&sandbox, more);
        (values(&output, "--log-opt"), values(&output, "--restart"))
    };
    let restart = vec!["unless-stopped".to_owned()];
    for driver in ["json-file\n", "local\n"] {
        let (log, restarts) = options("docker", driver, &[]);
        assert_eq!(log, ["max-size=10m", "max-file=3"]);
        assert_eq!(restarts, restart);
    }
    let (log, _) = options("docker", "journald\n", &[]);
    assert!(log.is_empty(), "Docker refuses the options: {log:?}");
    let (log, restarts) = options("podman", "", &[]);
    assert_eq!((log, restarts), (vec!["max-size=30mb".to_owned()], restart));
    // Ctrl-C would end the container, and the engine would start it again.
    let (_, restarts) = options("docker", "local\n", &["--foreground"]);
    assert!(restarts.is_empty());
}

#[test]
fn ports_and_the_command_reach_the_container() {
    let more = "ports = ['8080:80']\ncommand = ['serve', '--all']\n";
    let sandbox = sandbox("docker", more);
    let output = dry_run(&sandbox, &["--network", "bridge"]);
    assert_eq!(values(&output, "--publish"), ["127.0.0.1:8080:80"]);
    let end = " ghcr.io/x/y:dev-me serve --all\n";
    assert!(output.stdout.ends_with(end), "{}", output.stdout);
    let output = dry_run(&sandbox, &["--network", "host"]);
    assert!(values(&output, "--publish").is_empty());
    let wrong = sandbox_with_ports("80");
    assert_eq!(wrong.code, 2);
    assert!(
        wrong
            .stderr
            .contains("must be `HOST:CONTAINER`, two ports such as `8080:80`"),
        "{}",
        wrong.stderr
    );
}

/// A busy port is found before our earlier container is removed, unless that container itself has the port.
#[test]
fn a_used_port_does_not_cost_the_earlier_container() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let with_earlier = |published: &Value| {
        let earlier = json!([{
            "Id": "0123456789abcdef", "Name": "/box",
            "State": { "Status": "running", "Running": true },
            "HostConfig": { "PortBindings": published },
            "Config": {
                "Image": "ghcr.io/x/y:dev-me",
                "Labels": { "ai.stigmer.xtask.container": "run" },
            },
        }]);
        let inspect = answer("container inspect box", 0, &earlier.to_string(), "");
        let answers = [docker_version(), image(), inspect];
        let project = format!("{PROJECT}ports = ['{port}:80']\n");
        let sandbox = Sandbox::new(&project).engine("docker", &answers);
        dry_run(&sandbox, &["--network", "bridge"])
    };
    let refused = with_earlier(&Value::Null);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    let error = format!(
        "error: another program listens on 127.0.0.1:{port}, which `run.ports` publishes\n\
         hint: stop the program that uses the port"
    );
    assert!(refused.stderr.contains(&error), "{}", refused.stderr);
    let replaced = json!({ "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": port.to_string() }], "81/tcp": null });
    let started = with_earlier(&replaced);
    assert_eq!(
        values(&started, "--publish"),
        [format!("127.0.0.1:{port}:80")]
    );
}

/// Without a health check, a program that fails after it has read its configuration seems to run at first.
#[test]
fn a_container_that_ends_at_once_is_reported_also_without_a_health_check() {
    let mut missing = no_container("docker");
    let mut running = container("running", true);
    missing["times"] = 1.into();
    running["times"] = 1.into();
    let found = json!([{
        "Id": "sha256:0123456789abcdef", "Os": "linux", "Architecture": "amd64",
        "RepoTags": ["ghcr.io/x/y:dev-me"], "Config": { "User": "1000" },
    }]);
    let sandbox = Sandbox::new(PROJECT).engine(
        "docker",
        &[
            docker_version(),
            missing,
            running,
            container("exited", true),
            answer("image inspect", 0, &found.to_string(), ""),
            ok("run"),
            answer("logs", 0, "", "no such setting\n"),
        ],
    );
    let output = sandbox.run(&["run-local", "--version", "dev-me", "--quiet"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            1,
            "no such setting\nerror: the container `box` exited with code 3 before it was healthy\nhint: read its whole log: `cargo xtask logs`\n"
        )
    );
}

fn sandbox_with_ports(ports: &str) -> CommandOutput {
    dry_run(&sandbox("docker", &format!("ports = ['{ports}']\n")), &[])
}
