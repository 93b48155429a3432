//! What `export` prints, with and without an engine.

use std::{fs, os::unix::fs::MetadataExt as _};

use serde_json::{Value, json};

use crate::sandbox::{
    CommandOutput, PROJECT, Sandbox, answer, docker_version, image, no_image, podman_version,
};

const FORMATS: [&str; 3] = ["compose", "kubernetes", "quadlet"];

/// A checkout with a workspace and more lines in `[run]`, and without an engine.
fn sandbox(more: &str) -> Sandbox {
    let sandbox = Sandbox::new(&format!("{PROJECT}{more}"));
    fs::create_dir(sandbox.path("home/work")).unwrap();
    sandbox
}

/// The same, with the health check that the probes need.
fn sandbox_with_check(more: &str) -> Sandbox {
    sandbox(&format!("{more}[health]\ncommand = ['probe']\n"))
}

fn export(sandbox: &Sandbox, format: &str, more: &[&str]) -> CommandOutput {
    let args = ["export", format, "--version", "dev-me"];
    sandbox.run(&[&args, more].concat())
}

fn text(sandbox: &Sandbox, format: &str, more: &[&str]) -> String {
    let output = export(sandbox, format, more);
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout
}

fn service(sandbox: &Sandbox, more: &[&str]) -> Value {
    let file: Value = serde_json::from_str(&text(sandbox, "compose", more)).unwrap();
    file["services"]["y"].clone()
}

/// The claims and the Deployment.
fn manifests(sandbox: &Sandbox, more: &[&str]) -> Vec<Value> {
    let text = text(sandbox, "kubernetes", more);
    let documents = text.split("---\n").skip(1);
    documents
        .map(|document| serde_json::from_str(document).unwrap())
        .collect()
}

/// The Deployment's pod.
fn pod(sandbox: &Sandbox, more: &[&str]) -> Value {
    let deployment = manifests(sandbox, more).pop().unwrap();
    assert_eq!(deployment["kind"], "Deployment");
    deployment["spec"]["template"]["spec"].clone()
}

/// The lines of a section of the unit.
fn section(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let unit = text(sandbox, "quadlet", &[]);
    let mut sections = unit.split("\n\n");
    let head = format!("[{name}]\n");
    let found = sections.find_map(|section| section.strip_prefix(&head));
    found.unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn no_format_needs_an_engine_if_the_health_check_is_configured() {
    let sandbox = sandbox_with_check("");
    for format in FORMATS {
        let output = export(&sandbox, format, &[]);
        assert_eq!(output.code, 0, "{format}: {output:?}");
        assert!(!output.stderr.contains("warning"), "{format}: {output:?}");
        let dry = export(&sandbox, format, &["--dry-run"]);
        assert_eq!(dry.stdout, output.stdout, "{format}");
    }
}

#[test]
fn the_last_line_says_what_to_do_with_the_output() {
    let sandbox = sandbox_with_check("env-file = '.env'\n");
    fs::write(sandbox.path("src/.env"), "A=1\n").unwrap();
    // The tests may run as root.
    let is_root = fs::metadata(sandbox.path("src")).unwrap().uid() == 0;
    let (folder, systemctl) = if is_root {
        ("/etc/containers/systemd", "systemctl")
    } else {
        ("~/.config/containers/systemd", "systemctl --user")
    };
    let quadlet = format!(
        "save the output as `{folder}/box.container`; then run `{systemctl} daemon-reload` and `{systemctl} start box`"
    );
    for (format, hint) in [
        (
            "compose",
            "pipe the output into `docker compose -f - up --detach --wait`",
        ),
        (
            "kubernetes",
            "create the Secret, for variables without a value in the output: `kubectl create secret generic box --from-env-file=/src/.env`; then pipe the output into `kubectl apply -f -`",
        ),
        ("quadlet", &quadlet),
    ] {
        let output = export(&sandbox, format, &[]);
        assert_eq!(output.stderr, format!("hint: {hint}\n"));
    }
}

#[test]
fn a_stop_that_is_too_short_for_executions_is_reported() {
    for (stop_grace, seconds, is_short) in [
        ("10s", "8", false),
        ("10s", "10", true),
        ("620s", "600", false),
    ] {
        let sandbox = sandbox_with_check(&format!("stop-grace = '{stop_grace}'\n"));
        let variable = format!("SHUTDOWN_GRACE_SECONDS={seconds}");
        for format in FORMATS {
            let output = export(&sandbox, format, &["-e", &variable]);
            let warning = "warning: `SHUTDOWN_GRACE_SECONDS` is 10, and the container is killed 10 s after it is told to stop: executions that still run then are lost\n\
                           hint: give it more time: `run.stop-grace = \"12s\"`\n";
            assert_eq!(output.stderr.contains(warning), is_short, "{output:?}");
        }
    }
}

/// The generators of Quadlet end the command line at an empty argument.
#[test]
fn an_empty_argument_is_refused_for_quadlet() {
    let sandbox = sandbox_with_check("command = ['a', '', 'b']\n");
    for format in FORMATS {
        let output = export(&sandbox, format, &[]);
        let refusal = "error: `run.command` has an empty argument, and Quadlet drops it with all that follow\n";
        assert_eq!(
            output.stderr.starts_with(refusal),
            format == "quadlet",
            "{output:?}"
        );
        assert_eq!(output.code == 0, format != "quadlet");
    }
}

#[test]
fn no_limit_of_processes_is_said_in_so_many_words() {
    let sandbox = sandbox_with_check("limits.pids = 0\n");
    assert_eq!(service(&sandbox, &[])["pids_limit"], -1);
    let options = section(&sandbox, "Container");
    assert!(
        options.iter().any(|line| line.contains("--pids-limit=-1")),
        "{options:?}"
    );
}

#[test]
fn a_flavour_is_another_image_of_the_version() {
    let sandbox = sandbox_with_check("[flavour.tools]\ntarget = 'x'\n");
    for format in FORMATS {
        for (options, tag) in [
            (&[][..], "dev-me"),
            (&["--flavour", "tools"], "dev-me-tools"),
        ] {
            let output = text(&sandbox, format, options);
            let images = output.lines().filter(|line| line.contains("ghcr.io/x/y"));
            let images: Vec<_> = images.collect();
            let ends = format!("ghcr.io/x/y:{tag}");
            assert!(!images.is_empty(), "{format}: {output}");
            for line in images {
                let line = line.trim_end_matches(['"', ',']);
                assert!(line.ends_with(&ends), "{format}: {line}");
            }
        }
    }
}

#[test]
fn only_the_probes_ask_an_engine_for_the_images_health_check() {
    let sandbox = sandbox("").engine("docker", &[docker_version(), image()]);
    service(&sandbox, &[]);
    text(&sandbox, "quadlet", &[]);
    assert_eq!(sandbox.calls(), [""; 0]);
    let container = pod(&sandbox, &[])["containers"][0].clone();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["exec"]["command"], json!(["probe"]));
    }
}

#[test]
fn an_images_user_without_a_number_is_reported_for_kubernetes() {
    for (user, run_user, is_reported) in [
        ("app", "image", true),
        ("app:staff", "image", true),
        ("", "image", true),
        ("1000:staff", "image", false),
        ("app", "auto", false),
        ("app", "5:5", false),
    ] {
        let found = json!([{
            "Id": "sha256:0123456789abcdef", "Os": "linux", "Architecture": "amd64",
            "Config": { "User": user, "Healthcheck": { "Test": ["CMD", "probe"] } },
        }]);
        let image = answer("image inspect", 0, &found.to_string(), "");
        let sandbox = sandbox(&format!("user = '{run_user}'\n"));
        let sandbox = sandbox.engine("docker", &[docker_version(), image]);
        let output = export(&sandbox, "kubernetes", &[]);
        let what = match user {
            "" => "the image has no user, so its user is root: Kubernetes does not start the pod"
                .to_owned(),
            user => format!(
                "the image's user `{user}` is no number: Kubernetes does not start the pod, because it could be root"
            ),
        };
        let warning = format!(
            "warning: {what}\n\
             hint: set `run.user = \"UID:GID\"`, or write a number after USER in the Dockerfile\n"
        );
        assert_eq!(output.stderr.contains(&warning), is_reported, "{output:?}");
    }
}

#[test]
fn probes_without_a_known_health_check_are_refused() {
    let without_check = answer("image inspect", 0, r#"[{"Id": "sha256:0"}]"#, "");
    for (answer, why) in [
        (no_image(), "the engine does not have it"),
        (without_check, "the engine reports no health check for it"),
    ] {
        let sandbox = sandbox("").engine("docker", &[docker_version(), answer]);
        let output = export(&sandbox, "kubernetes", &[]);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""));
        assert_eq!(
            output.stderr,
            format!(
                "error: the probes run the health check of `ghcr.io/x/y:dev-me`, and {why}\n\
                 hint: build the image, whose Dockerfile needs a HEALTHCHECK: `cargo xtask build-image --version dev-me`; or set `health.command` in `xtask.toml`\n"
            )
        );
    }
    let output = export(&sandbox(""), "kubernetes", &[]);
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("`health.command`"), "{output:?}");
}

/// Secrets in each place, with each form that xtask recognises, and one whose form it cannot recognise.
#[test]
fn no_format_has_the_value_of_a_secret() {
    let sandbox = sandbox_with_check(
        "pass-env = ['OPENAI_API_KEY', 'PLAIN_NAME']\nenv-file = '.env'\n\
         env.MY_TOKEN = 'canary-toml'\nenv.PROXY = 'http://me:canary-url@box:1'\n",
    )
    .env("OPENAI_API_KEY", "canary-passed")
    .env("PLAIN_NAME", "canary-plain")
    .env("TYPED_KEY", "canary-typed-name");
    fs::write(
        sandbox.path("src/.env"),
        "ANTHROPIC_API_KEY=canary-file\nOTHER=canary-$other\nOPENAI_API_KEY=canary-both\n",
    )
    .unwrap();
    let typed = ["-e", "TYPED_KEY", "-e", "DB_PASSWORD=canary-typed"];
    for format in FORMATS {
        let output = export(&sandbox, format, &typed);
        assert_eq!(output.code, 0, "{output:?}");
        for text in [&output.stdout, &output.stderr] {
            assert!(!text.contains("canary"), "{format}: {text}");
        }
        let withheld = "warning: the output does not contain what looks like a secret: the value of DB_PASSWORD, MY_TOKEN, PROXY\n";
        assert!(output.stderr.contains(withheld), "{}", output.stderr);
    }
}

#[test]
fn variables_reach_the_container_by_their_sources() {
    let sandbox = sandbox_with_check(
        "pass-env = ['PASSED', 'UNSET', 'IN_FILE', 'BOTH']\nenv-file = '.env'\n\
         env.BOTH = 'fixed'\nenv.FIXED = 'fixed'\nenv.ALSO_IN_FILE = 'fixed'\n",
    )
    .env("PASSED", "mine")
    .env("BARE", "mine");
    let file = sandbox.path("src/.env");
    fs::write(&file, "IN_FILE=1\nALSO_IN_FILE=1\nBARE\nBARE_AND_UNSET\n").unwrap();
    let typed = ["-e", "FIXED=typed"];
    let service = service(&sandbox, &typed);
    assert_eq!(
        service["environment"],
        json!({ "PASSED": null, "BARE": null, "BOTH": "fixed", "FIXED": "typed" }),
        "a name without a value would override a later line of the file"
    );
    assert_eq!(service["env_file"], json!(["/src/.env"]));
    let container = pod(&sandbox, &typed)["containers"][0].clone();
    assert_eq!(
        container["env"],
        json!([{ "name": "BOTH", "value": "fixed" }, { "name": "FIXED", "value": "typed" }])
    );
    assert_eq!(
        container["envFrom"],
        json!([{ "secretRef": { "name": "box", "optional": true } }])
    );
    let unit = text(&sandbox, "quadlet", &typed);
    let environment: Vec<_> = unit
        .lines()
        .filter(|line| line.starts_with("Environment"))
        .collect();
    assert_eq!(
        environment,
        [
            "Environment=\"BOTH=fixed\"",
            "Environment=\"FIXED=typed\"",
            "EnvironmentFile=\"/src/.env\"",
        ]
    );
    for (format, place) in [
        ("kubernetes", "the Secret `box`"),
        ("quadlet", "`/src/.env`"),
    ] {
        let warned = format!(
            "warning: the runner will not see these variables of your environment: PASSED, BARE\nhint: put them into {place}, "
        );
        let output = export(&sandbox, format, &typed);
        assert!(output.stderr.contains(&warned), "{}", output.stderr);
    }
}

#[test]
fn without_an_environment_file_compose_takes_every_variable_by_name() {
    let sandbox = sandbox("pass-env = ['PASSED', 'UNSET']\n").env("PASSED", "mine");
    let service = service(&sandbox, &[]);
    let expected = json!({ "PASSED": null, "UNSET": null });
    assert_eq!(service["environment"], expected);
    assert_eq!(service["env_file"], Value::Null);
}

#[test]
fn an_address_of_this_machine_is_not_exported_to_a_cluster_in_silence() {
    let sandbox = sandbox_with_check(
        "addresses = ['A', 'B', 'C']\npass-env = ['C']\nenv.A = 'localhost:7233'\nenv.B = 'http://me@127.0.0.1:1'\n",
    )
    .env("C", "[::1]:5");
    let warning = |name: &str| {
        format!(
            "warning: {name} is an address of this machine: in a cluster it leads to the runner's own pod\n\
             hint: export with the address in the cluster: `-e {name}=HOST:PORT`\n"
        )
    };
    let output = export(&sandbox, "kubernetes", &["-e", "A=temporal:7233"]);
    assert_eq!(output.code, 0);
    assert!(!output.stderr.contains(&warning("A")), "{}", output.stderr);
    for name in ["B", "C"] {
        assert!(output.stderr.contains(&warning(name)), "{}", output.stderr);
    }
    assert!(!export(&sandbox, "compose", &[]).stderr.contains("cluster"));
}

#[test]
fn on_a_bridge_the_host_has_a_name() {
    let sandbox =
        sandbox_with_check("network = 'bridge'\naddresses = ['A']\nenv.A = 'localhost:1'\n");
    let service = service(&sandbox, &[]);
    assert_eq!(service["network_mode"], Value::Null);
    assert_eq!(
        service["extra_hosts"],
        json!(["host.docker.internal:host-gateway"])
    );
    assert_eq!(service["environment"]["A"], "host.docker.internal:1");
    let unit = text(&sandbox, "quadlet", &[]);
    assert!(!unit.contains("Network="), "{unit}");
    assert!(unit.contains("\"A=host.containers.internal:1\""), "{unit}");
}

#[test]
fn an_address_in_the_environment_file_that_leads_to_the_container_is_reported() {
    for (network, is_reported) in [("bridge", true), ("host", false)] {
        let sandbox = sandbox(&format!(
            "network = '{network}'\nenv-file = '.env'\naddresses = ['A', 'B']\nenv.A = 'localhost:1'\n"
        ));
        fs::write(sandbox.path("src/.env"), "A=127.0.0.1:7233\nB=other:1\n").unwrap();
        for (format, host) in [
            ("compose", "host.docker.internal"),
            ("quadlet", "host.containers.internal"),
        ] {
            let output = export(&sandbox, format, &[]);
            let warning = format!(
                "warning: A is an address of this machine: in the container's own network it leads to the container\n\
                 hint: export with the name that this machine has there: `-e A={host}:PORT`\n"
            );
            assert_eq!(
                output.stderr.contains(&warning),
                is_reported,
                "{}",
                output.stderr
            );
            assert!(!output.stderr.contains("warning: B"), "{}", output.stderr);
        }
    }
}

#[test]
fn limits_and_restarts_are_those_of_run_local() {
    let sandbox = sandbox_with_check(
        "restart = 'unless-stopped'\nstop-grace = '30s'\n\
         [run.limits]\nmemory = '512MiB'\ncpus = '1.5'\npids = 99\n\
         [run.hardening]\ntmpfs = ['/tmp:size=64m']\n",
    );
    let service = service(&sandbox, &[]);
    for (key, value) in [
        ("mem_limit", json!(512 << 20)),
        ("cpus", json!("1.5")),
        ("pids_limit", json!(99)),
        ("restart", json!("unless-stopped")),
        ("stop_grace_period", json!("30s")),
        ("tmpfs", json!(["/tmp:size=64m"])),
        ("cap_drop", json!(["ALL"])),
        ("security_opt", json!(["no-new-privileges"])),
        ("init", json!(true)),
        ("read_only", json!(true)),
    ] {
        assert_eq!(service[key], value, "{key}");
    }
    let pod = pod(&sandbox, &[]);
    assert_eq!(pod["terminationGracePeriodSeconds"], 30);
    assert_eq!(
        pod["containers"][0]["resources"],
        json!({
            "requests": { "memory": "268435456", "cpu": "0.1" },
            "limits": { "memory": "536870912", "cpu": "1.5" },
        })
    );
    let tmpfs = &pod["volumes"][1]["emptyDir"];
    assert_eq!(tmpfs, &json!({ "medium": "Memory", "sizeLimit": "64Mi" }));
    let unit = text(&sandbox, "quadlet", &[]);
    for line in [
        "PodmanArgs=\"--memory=536870912\"",
        "PodmanArgs=\"--cpus=1.5\"",
        "PodmanArgs=\"--pids-limit=99\"",
        "PodmanArgs=\"--tmpfs=/tmp:size=64m\"",
        "PodmanArgs=\"--stop-timeout=30\"",
        "Restart=always",
        "TimeoutStopSec=40",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}: {unit}");
    }
}

#[test]
fn folders_of_this_machine_are_not_in_a_cluster() {
    let sandbox = sandbox_with_check("volumes = ['~/more:/more:ro', 'cache:/cache']\n");
    let pod = pod(&sandbox, &[]);
    let volumes = pod["volumes"].as_array().unwrap();
    let claims: Vec<_> = volumes
        .iter()
        .filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
        .collect();
    assert_eq!(claims, ["box-workspace", "box-volume-cache"]);
    let output = export(&sandbox, "kubernetes", &[]);
    let warning = "warning: a cluster does not have the folder `/home/more`: nothing is mounted at `/more`\n\
                   hint: name a volume, which becomes a claim: `run.volumes = [\"NAME:/more\"]`\n";
    assert!(output.stderr.contains(warning), "{}", output.stderr);
    let missing = "warning: there is no folder `/home/more` to mount: only `run-local` creates it\n\
                   hint: create it: `mkdir -p /home/more`\n";
    for format in ["compose", "quadlet"] {
        let output = export(&sandbox, format, &[]);
        assert!(output.stderr.contains(missing), "{}", output.stderr);
    }
    let file: Value = serde_json::from_str(&text(&sandbox, "compose", &[])).unwrap();
    assert_eq!(file["volumes"], json!({ "cache": { "name": "cache" } }));
}

#[test]
fn an_older_podman_is_reported_and_the_unit_is_printed() {
    let old = sandbox("").engine("podman", &[podman_version()]);
    let output = export(&old, "quadlet", &[]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.starts_with("[Unit]\n"), "{output:?}");
    let warning = "has no Quadlet, which Podman has since 4.4\n";
    assert!(output.stderr.contains(warning), "{}", output.stderr);
    let mut new = podman_version();
    let version = new["stdout"].as_str().unwrap().replace("4.3.1", "4.4.0");
    new["stdout"] = version.into();
    let output = export(&sandbox("").engine("podman", &[new]), "quadlet", &[]);
    assert!(!output.stderr.contains("warning"), "{}", output.stderr);
}

#[test]
fn ports_are_published_for_this_machine_only() {
    let ports = "ports = ['9464:80', '8081:80', '443:8443']\n";
    let sandbox_on = |network: &str| sandbox_with_check(&format!("{ports}network = '{network}'\n"));
    let published = |sandbox: &Sandbox| -> Vec<String> {
        let lines = section(sandbox, "Container").into_iter();
        lines
            .filter(|line| line.starts_with("PublishPort="))
            .collect()
    };
    let warning = "warning: `run.ports` has no effect: on this network, the container has no ports of its own\n\
                   hint: export with another network: `XTASK_RUN_NETWORK=bridge`\n";
    for network in ["bridge", "mine"] {
        let sandbox = sandbox_on(network);
        assert_eq!(
            service(&sandbox, &[])["ports"],
            json!([
                "127.0.0.1:9464:80",
                "127.0.0.1:8081:80",
                "127.0.0.1:443:8443"
            ])
        );
        assert_eq!(
            published(&sandbox),
            [
                "PublishPort=127.0.0.1:9464:80",
                "PublishPort=127.0.0.1:8081:80",
                "PublishPort=127.0.0.1:443:8443",
            ]
        );
        for format in FORMATS {
            let output = export(&sandbox, format, &[]);
            assert!(!output.stderr.contains("run.ports"), "{output:?}");
        }
    }
    for network in ["host", "none", "container:db"] {
        let sandbox = sandbox_on(network);
        assert_eq!(service(&sandbox, &[])["ports"], Value::Null, "{network}");
        assert_eq!(published(&sandbox), [""; 0], "{network}");
        for format in ["compose", "quadlet"] {
            let output = export(&sandbox, format, &[]);
            assert!(output.stderr.contains(warning), "{}", output.stderr);
        }
        // The network is the cluster's.
        assert_eq!(
            pod(&sandbox, &[])["containers"][0]["ports"],
            json!([{ "containerPort": 80 }, { "containerPort": 8443 }])
        );
        let output = export(&sandbox, "kubernetes", &[]);
        assert!(!output.stderr.contains("run.ports"), "{output:?}");
    }
}

#[test]
fn the_entry_point_gets_the_configured_arguments() {
    let command = r#"command = ['serve', '--rate=100%', '$HOME $(HOME) $$', 'a "b" c\']"#;
    let sandbox = sandbox_with_check(&format!("{command}\n"));
    assert_eq!(
        service(&sandbox, &[])["command"],
        json!([
            "serve",
            "--rate=100%",
            "$$HOME $$(HOME) $$$$",
            r#"a "b" c\"#
        ])
    );
    assert_eq!(
        pod(&sandbox, &[])["containers"][0]["args"],
        json!(["serve", "--rate=100%", "$HOME $$(HOME) $$$", r#"a "b" c\"#])
    );
    let exec = r#"Exec="serve" "--rate=100%%" "$$HOME $$(HOME) $$$$" "a \"b\" c\\""#;
    let lines = section(&sandbox, "Container");
    assert!(lines.iter().any(|line| line == exec), "{lines:?}");

    let images = sandbox_with_check("");
    assert_eq!(service(&images, &[])["command"], Value::Null);
    assert_eq!(pod(&images, &[])["containers"][0]["args"], Value::Null);
    let unit = text(&images, "quadlet", &[]);
    assert!(!unit.contains("\nExec="), "{unit}");
}

#[test]
fn probes_run_the_health_check_as_it_is_configured() {
    let sandbox =
        sandbox("[health]\ncommand = ['sh', '-c', 'kill -0 $$ && probe $(cat $HOME/x)']\n");
    let container = pod(&sandbox, &[])["containers"][0].clone();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(
            container[probe]["exec"]["command"],
            json!(["sh", "-c", "kill -0 $$$ && probe $$(cat $HOME/x)"])
        );
    }
}

#[test]
fn a_volume_has_one_claim_and_different_volumes_have_different_ones() {
    let sandbox = sandbox_with_check(
        "volumes = ['cache:/a', 'cache:/b:ro', 'data_1:/c', 'data-1:/d', 'plain:/e']\n\
         [run.hardening]\ntmpfs = []\n",
    );
    let manifests = manifests(&sandbox, &[]);
    let claims = manifests.iter().filter(|it| it["kind"] != "Deployment");
    let claims: Vec<_> = claims
        .map(|claim| claim["metadata"]["name"].as_str().unwrap())
        .collect();
    let [workspace, cache, data, other_data, plain] = claims[..] else {
        panic!("{claims:?}");
    };
    assert_eq!(
        [workspace, cache, plain],
        ["box-workspace", "box-volume-cache", "box-volume-plain"]
    );
    // Neither name depends on the other volume.
    assert!(data.starts_with("box-volume-data-1-"), "{data}");
    assert_eq!(other_data, "box-volume-data-1");
    let pod = pod(&sandbox, &[]);
    let volumes: Vec<_> = claims
        .iter()
        .map(|name| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }))
        .collect();
    assert_eq!(pod["volumes"], Value::from(volumes));
    assert_eq!(
        pod["containers"][0]["volumeMounts"],
        json!([
            { "name": workspace, "mountPath": "/workspace" },
            { "name": cache, "mountPath": "/a" },
            { "name": cache, "mountPath": "/b", "readOnly": true },
            { "name": data, "mountPath": "/c" },
            { "name": other_data, "mountPath": "/d" },
            { "name": plain, "mountPath": "/e" },
        ])
    );
}

#[test]
fn volumes_of_a_container_with_a_long_name_have_different_names() {
    let name = "a".repeat(70);
    let project = PROJECT.replace("'box'", &format!("'{name}'"));
    let sandbox = Sandbox::new(&format!("{project}[health]\ncommand = ['probe']\n"));
    let pod = pod(&sandbox, &[]);
    let mut names: Vec<_> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| volume["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 2);
    for name in &names {
        assert!(name.len() <= 63, "{name}");
    }
    names.dedup();
    assert_eq!(names.len(), 2);
}

#[test]
fn the_service_has_the_name_of_the_image() {
    for (repository, name) in [
        ("ghcr.io/stigmer/agent-runner", "agent-runner"),
        ("localhost/web_server", "web-server"),
    ] {
        let project = PROJECT.replace("ghcr.io/x/y", repository);
        let sandbox = Sandbox::new(&format!("{project}[health]\ncommand = ['probe']\n"));
        let file: Value = serde_json::from_str(&text(&sandbox, "compose", &[])).unwrap();
        assert_eq!(file["name"], "box");
        let services = file["services"].as_object().unwrap();
        assert_eq!(services.keys().collect::<Vec<_>>(), [name]);
        assert_eq!(services[name]["container_name"], "box");
        let manifests = manifests(&sandbox, &[]);
        for manifest in &manifests {
            assert_eq!(
                manifest["metadata"]["labels"],
                json!({ "app.kubernetes.io/name": name, "app.kubernetes.io/instance": "box" })
            );
        }
        assert_eq!(pod(&sandbox, &[])["containers"][0]["name"], name);
    }
}

#[test]
fn in_a_cluster_an_image_can_have_its_own_user() {
    let security = |user: &str, required: &str| {
        let sandbox = sandbox_with_check(&format!(
            "user = '{user}'\n[require]\nuser = '{required}'\n"
        ));
        let security = pod(&sandbox, &[])["securityContext"].clone();
        let keys = ["runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup"];
        keys.map(|key| security[key].clone())
    };
    let of = |non_root: Option<bool>, user: Option<u32>, group: u32| {
        [json!(non_root), json!(user), json!(user), json!(group)]
    };
    assert_eq!(security("image", "any"), of(None, None, 1000));
    assert_eq!(security("image", "0"), of(None, None, 1000));
    assert_eq!(security("image", "not-root"), of(Some(true), None, 1000));
    assert_eq!(security("image", "1000"), of(Some(true), None, 1000));
    assert_eq!(security("auto", "any"), of(Some(true), Some(1000), 1000));
    assert_eq!(security("7:7", "any"), of(Some(true), Some(7), 7));
    assert_eq!(security("0:0", "any"), of(Some(false), Some(0), 0));
}

#[test]
fn systemd_waits_for_a_pull_and_between_restarts() {
    for (restart, lines) in [
        (
            "no",
            &["Restart=no", "TimeoutStartSec=900", "TimeoutStopSec=20"][..],
        ),
        (
            "on-failure",
            &[
                "Restart=on-failure",
                "RestartSec=5",
                "TimeoutStartSec=900",
                "TimeoutStopSec=20",
            ],
        ),
        (
            "unless-stopped",
            &[
                "Restart=always",
                "RestartSec=5",
                "TimeoutStartSec=900",
                "TimeoutStopSec=20",
            ],
        ),
    ] {
        let sandbox = sandbox(&format!("restart = '{restart}'\n"));
        assert_eq!(section(&sandbox, "Service"), lines);
    }
}
