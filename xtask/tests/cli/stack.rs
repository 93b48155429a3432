//! The whole stack: `up`, `ask` and `down`, and `run-local` after `up`.

use std::{fs, net::TcpListener, time::Instant};

use serde_json::{Value, json};

use crate::sandbox::{
    PROJECT, Sandbox, answer, container, docker_version, hung, image, no_container, podman_version,
};

/// Addresses at which nothing listens.
const ADDRESSES: &str =
    "TEMPORAL_SERVICE_ADDRESS=localhost:1\nSTIGMER_BACKEND_ENDPOINT=localhost:2\n";

fn ok(args: &str) -> Value {
    answer(args, 0, "", "")
}

/// A container of Docker that belongs to the stack.
fn member(name: &str, cmd: &[&str]) -> Value {
    let labels = json!({ "ai.stigmer.xtask.container": "server", "ai.stigmer.xtask.stack": "box" });
    let found = json!([{
        "Id": format!("id-of-{name}"), "Image": "sha256:old", "Name": format!("/{name}"),
        "State": { "Status": "running", "Running": true },
        "Config": { "Image": "x", "Cmd": cmd, "Labels": labels },
    }]);
    let args = format!("container inspect {name}");
    answer(&args, 0, &found.to_string(), "")
}

/// A checkout with this environment file, and with Docker.
fn sandbox(env_file: &str, more: &str, answers: &[Value]) -> Sandbox {
    let project = format!("{PROJECT}env-file = '.env'\n{more}");
    let answers = [&[docker_version()], answers].concat();
    let sandbox = Sandbox::new(&project)
        .engine("docker", &answers)
        .env("XTASK_STACK_SERVER_TARGET", "devserver");
    fs::write(sandbox.path("src/.env"), env_file).unwrap();
    sandbox
}

const UP: [&str; 4] = ["up", "--version", "dev-me", "--dry-run"];

/// The line of a dry run that starts a container.
fn run_of(plan: &str, name: &str) -> String {
    let start = format!("run --detach --name {name} ");
    let mut lines = plan.lines().filter(|line| line.contains(&start));
    lines
        .next()
        .unwrap_or_else(|| panic!("{name}: {plan}"))
        .to_owned()
}

#[test]
fn a_model_in_the_environment_file_is_used_and_not_mixed_with_the_scripted_one() {
    for line in [
        "OPENAI_API_KEY=sk-made-up",
        "STIGMER_LLM_PROVIDER=anthropic\nANTHROPIC_API_KEY=sk-made-up",
        "STIGMER_LLM_MODEL=m",
    ] {
        let up = sandbox(&format!("{ADDRESSES}{line}\n"), "", &[image()]).run(&UP);
        assert_eq!(up.code, 0, "{up:?}");
        let runner = run_of(&up.stdout, "box");
        assert!(!runner.contains("STIGMER_LLM"), "{line}: {runner}");
        assert!(!up.stdout.contains("made-up"));
    }
    for line in ["", "STIGMER_LLM_API_KEY=any\nOPENAI_API_KEY="] {
        let up = sandbox(&format!("{ADDRESSES}{line}\n"), "", &[image()]).run(&UP);
        let runner = run_of(&up.stdout, "box");
        for variable in [
            "STIGMER_LLM_PROVIDER=openai",
            "STIGMER_LLM_MODEL=scripted",
            "STIGMER_LLM_BASE_URL=http://localhost:3/v1",
            "STIGMER_LLM_API_KEY=none-needed",
        ] {
            assert!(runner.contains(&format!(" --env {variable} ")), "{runner}");
        }
    }
}

#[test]
fn tls_for_temporal_is_refused() {
    let more = "pass-env = ['TEMPORAL_TLS', 'TEMPORAL_API_KEY']\n";
    let up = |line: &str| sandbox(&format!("{ADDRESSES}{line}\n"), more, &[image()]);
    let refused = up("TEMPORAL_TLS=True").run(&UP);
    assert_eq!(
        (refused.code, refused.stderr.as_str()),
        (
            2,
            "error: `TEMPORAL_TLS` in .env turns TLS on, which the Temporal of `up` does not have\n\
             hint: leave it out for this command: `TEMPORAL_TLS=false cargo xtask up --version dev-me`\n"
        )
    );
    let typed = up("TEMPORAL_TLS=True").run(&[&UP[..], &["--engine", "docker"]].concat());
    assert!(
        typed
            .stderr
            .ends_with("`TEMPORAL_TLS=false cargo xtask up --engine docker --version dev-me`\n"),
        "{}",
        typed.stderr
    );
    let off = up("TEMPORAL_TLS=true")
        .env("TEMPORAL_TLS", "false")
        .run(&UP);
    assert_eq!(off.code, 0, "{off:?}");
    let key = up("TEMPORAL_API_KEY=made-up").run(&UP);
    assert_eq!(key.code, 0, "{key:?}");
}

#[test]
fn the_model_and_its_reason_are_one_line() {
    let answers = [no_container("docker"), image(), ok("run"), ok("exec")];
    let env = format!("{ADDRESSES}OPENAI_API_KEY=sk-made-up\n");
    // The line is for projects whose container has a model.
    let more = "pass-env = ['STIGMER_LLM_PROVIDER']\n";
    let output = sandbox(&env, more, &answers).run(&["run-local", "--version", "dev-me"]);
    assert_eq!(output.code, 0, "{output:?}");
    let line =
        "       Model openai (OPENAI_API_KEY in .env), its default model, at its default address\n";
    assert!(output.stderr.contains(line), "{}", output.stderr);
    assert!(!output.stderr.contains("made-up"));
    let env = format!(
        "{env}STIGMER_LLM_MODEL=m\nSTIGMER_LLM_BASE_URL=http://me:made-up@box:8080/v1?key=made-up\n"
    );
    let output = sandbox(&env, more, &answers).run(&["run-local", "--version", "dev-me"]);
    let line = "       Model openai (OPENAI_API_KEY in .env), m (STIGMER_LLM_MODEL in .env), at box:8080 (STIGMER_LLM_BASE_URL in .env)\n";
    assert!(output.stderr.contains(line), "{}", output.stderr);
    assert!(!output.stderr.contains("made-up"));
}

#[test]
fn run_local_after_up_keeps_the_scripted_model_and_the_stack() {
    let server = member("box-server", &["serve", "--port", "2"]);
    let answers = [server, no_container("docker"), image()];
    let line = ["run-local", "--version", "dev-me", "--dry-run"];
    let runner = |env: &str| {
        let output = sandbox(&format!("{ADDRESSES}{env}"), "", &answers).run(&line);
        run_of(&output.stdout, "box")
    };
    let scripted = runner("");
    assert!(
        scripted.contains("--label ai.stigmer.xtask.stack=box "),
        "{scripted}"
    );
    assert!(
        scripted.contains("--env STIGMER_LLM_MODEL=scripted "),
        "{scripted}"
    );
    let own = runner("OPENAI_API_KEY=sk-1\n");
    assert!(own.contains("--label ai.stigmer.xtask.stack=box "), "{own}");
    assert!(!own.contains("STIGMER_LLM"), "{own}");
    // The server of `up` has other ports: no model listens on the port 3.
    for command in [
        &["serve", "--port", "1", "--model-port", "2"][..],
        &["serve", "--port", "5", "--temporal", "localhost:2"],
    ] {
        let answers = [
            member("box-server", command),
            no_container("docker"),
            image(),
        ];
        let output = sandbox(ADDRESSES, "", &answers).run(&line);
        let elsewhere = run_of(&output.stdout, "box");
        assert!(
            elsewhere.contains("--label ai.stigmer.xtask.stack=box "),
            "{elsewhere}"
        );
        assert!(!elsewhere.contains("STIGMER_LLM"), "{elsewhere}");
    }
    let alone = sandbox(ADDRESSES, "", &[no_container("docker"), image()]).run(&line);
    let alone = run_of(&alone.stdout, "box");
    assert!(
        !alone.contains("stack=box") && !alone.contains("STIGMER_LLM"),
        "{alone}"
    );
}

#[test]
fn an_address_that_is_not_on_this_machine_is_refused() {
    for (variable, value, what) in [
        (
            "STIGMER_BACKEND_ENDPOINT",
            "https://api.example.com",
            "is api.example.com:443",
        ),
        (
            "STIGMER_BACKEND_ENDPOINT",
            "http://me:secret@box/",
            "is box:80",
        ),
        (
            "TEMPORAL_SERVICE_ADDRESS",
            "localhost",
            "is an address whose port cannot be read",
        ),
    ] {
        for command in [&["up"][..], &["ask", "hello"]] {
            let sandbox = sandbox(&format!("{variable}={value}\n"), "", &[image()]);
            let output = sandbox.run(command);
            assert_eq!(output.code, 2, "{output:?}");
            let expected = format!(
                "error: `{variable}` in .env {what}; the servers of `up` and `ask` must be on this machine\n"
            );
            assert!(output.stderr.starts_with(&expected), "{}", output.stderr);
            assert_eq!(sandbox.calls(), [""; 0]);
        }
    }
}

#[test]
fn ports_that_overlap_are_refused() {
    let env = "TEMPORAL_SERVICE_ADDRESS=localhost:7235\n";
    let output = sandbox(env, "", &[]).run(&["up"]);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(
        output.stderr.contains("Temporal's port 7235 must not be"),
        "{}",
        output.stderr
    );
}

#[test]
fn port_namespace_and_queue_reach_the_servers() {
    let env = format!(
        "{ADDRESSES}TEMPORAL_NAMESPACE=mine\nTEMPORAL_AGENT_EXECUTION_RUNNER_TASK_QUEUE=queue\n"
    );
    // No image is here.
    let up = sandbox(&env, "", &[]).run(&UP);
    assert_eq!(up.code, 0, "{up:?}");
    let temporal = run_of(&up.stdout, "box-temporal");
    assert!(
        temporal.ends_with(" --port 1 --namespace mine"),
        "{temporal}"
    );
    let server = run_of(&up.stdout, "box-server");
    let flags = " serve --host 127.0.0.1 --port 2 --model-port 3 --temporal localhost:1 --namespace mine --runner-task-queue queue";
    assert!(server.ends_with(flags), "{server}");
    let runner = run_of(&up.stdout, "box");
    assert!(runner.contains(" --env-file /src/.env "), "{runner}");
}

#[test]
fn a_network_from_which_the_servers_cannot_be_reached_is_refused_first() {
    for network in ["bridge", "mine", "none"] {
        let more = format!("network = '{network}'\n");
        let sandbox = sandbox(ADDRESSES, &more, &[image()]);
        let output = sandbox.run(&["up", "--version", "dev-me"]);
        assert_eq!(output.code, 2, "{output:?}");
        let expected = format!("error: the runner on the network `{network}` could not reach");
        assert!(output.stderr.starts_with(&expected), "{}", output.stderr);
        let calls = sandbox.calls();
        assert!(
            !calls
                .iter()
                .any(|call| call.contains(" run ") || call.contains(" build "))
        );
    }
}

#[test]
fn a_foreign_container_with_the_runners_name_is_refused_first() {
    let sandbox = sandbox(ADDRESSES, "", &[container("running", false), image()]);
    let output = sandbox.run(&["up", "--version", "dev-me"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.stderr.contains("`box` is not ours"),
        "{}",
        output.stderr
    );
    let calls = sandbox.calls();
    assert!(
        !calls
            .iter()
            .any(|call| call.contains(" run ") || call.contains(" build "))
    );
}

#[test]
fn a_server_that_ends_is_not_waited_for() {
    let ended = "Error response from daemon: container 0123 is not running\n";
    let answers = [
        no_container("docker"),
        image(),
        answer("info", 0, "overlay2 null\n", ""),
        ok("buildx"),
        ok("build"),
        ok("run"),
        answer("exec", 1, "", ended),
        answer("logs", 0, "port 1 is taken\n", ""),
    ];
    let begin = Instant::now();
    let output = sandbox(ADDRESSES, "", &answers).run(&["up", "--version", "dev-me"]);
    assert!(begin.elapsed().as_secs() < 20);
    assert_eq!(output.code, 1, "{output:?}");
    let end = "port 1 is taken\nerror: `docker exec box-temporal` failed: Error response from daemon: container 0123 is not running\n";
    assert!(output.stderr.ends_with(end), "{}", output.stderr);
}

#[test]
fn ask_runs_in_the_server_of_up() {
    let server = member("box-server", &["serve", "--port", "2"]);
    let ask = |exec: Value| {
        let sandbox = sandbox(ADDRESSES, "", &[server.clone(), exec]);
        let output = sandbox.run(&["ask", "--session", "mine", "hello"]);
        (sandbox.calls(), output)
    };
    let (calls, output) = ask(answer("exec", 0, "the answer\n", ""));
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "the answer\n"),
        "{output:?}"
    );
    assert_eq!(
        calls,
        [
            "docker container inspect box-server",
            "docker exec box-server /venv/bin/python -m devserver ask --server 127.0.0.1:2 --session mine --workspace /home/work -- hello",
        ]
    );
    for (code, error) in [
        (
            3,
            "error: the execution failed: the reason is the last line above\nhint: look at the runner: `cargo xtask logs`",
        ),
        (4, "error: the stigmer-server did not accept the request"),
        (
            126,
            "error: `docker exec box-server` failed with exit code 126\n",
        ),
    ] {
        let (_, output) = ask(answer("exec", code, "", "why\n"));
        assert_eq!(output.code, 1, "{output:?}");
        assert!(
            output.stderr.starts_with(&format!("why\n{error}")),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn ask_without_a_session_says_how_to_continue() {
    let server = member("box-server", &["serve", "--port", "2"]);
    let output = sandbox(ADDRESSES, "", &[server, ok("exec")]).run(&["ask", "hello"]);
    let hint = "hint: continue this session: `cargo xtask ask --session ask-";
    assert!(output.stderr.starts_with(hint), "{output:?}");
}

#[test]
fn down_removes_the_stack_and_names_a_runner_that_stays() {
    let docker = [
        docker_version(),
        member("box", &[]),
        member("box-server", &[]),
        ok("stop"),
        ok("rm"),
    ];
    let other = json!([{
        "Id": "1", "Name": "box", "ImageName": "x", "State": { "Status": "running", "Running": true },
        "Config": { "Labels": { "ai.stigmer.xtask.container": "run" } },
    }]);
    let podman = [
        podman_version(),
        answer("container inspect box", 0, &other.to_string(), ""),
    ];
    let sandbox = Sandbox::new(PROJECT)
        .engine("docker", &docker)
        .engine("podman", &podman);
    let output = sandbox.run(&["down"]);
    assert_eq!(output.code, 0, "{output:?}");
    let warning = "warning: `box` in Podman stays: `up` did not start it\n";
    assert!(output.stderr.contains(warning), "{}", output.stderr);
    let calls = sandbox.calls();
    let removed: Vec<_> = calls.iter().filter(|call| call.contains(" rm ")).collect();
    assert_eq!(
        removed,
        ["docker rm --force box", "docker rm --force box-server"]
    );
}

/// A server that an earlier `up` has started may not be ready yet.
#[test]
fn up_waits_for_a_server_that_it_keeps() {
    let first = sandbox(ADDRESSES, "", &[image()]).run(&UP).stdout;
    let args_of = |name: &str, first_word: &str| -> Vec<String> {
        let run = run_of(&first, name);
        let (_, args) = run.split_once(&format!(" {first_word} ")).unwrap();
        let args = format!("{first_word} {args}");
        args.split(' ').map(str::to_owned).collect()
    };
    let kept = |name: &str, first_word: &str| {
        let args = args_of(name, first_word);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let found = member(name, &args).to_string();
        // Its image is the newest one.
        serde_json::from_str(&found.replace("sha256:old", "sha256:0123456789abcdef")).unwrap()
    };
    let answers = [
        image(),
        kept("box-temporal", "server"),
        kept("box-server", "serve"),
    ];
    let again = sandbox(ADDRESSES, "", &answers).run(&UP);
    assert_eq!(again.code, 0, "{again:?}");
    for name in ["box-temporal", "box-server"] {
        let start = format!("--name {name} ");
        assert!(!again.stdout.contains(&start), "{}", again.stdout);
        let wait = format!("until docker exec {name} ");
        assert!(again.stdout.contains(&wait), "{}", again.stdout);
    }
}

#[test]
fn a_stack_in_another_engine_is_not_doubled() {
    let labels = json!({ "ai.stigmer.xtask.container": "server", "ai.stigmer.xtask.stack": "box" });
    let found = json!([{
        "Id": "1", "Name": "box-server", "ImageName": "x",
        "State": { "Status": "running", "Running": true },
        "Config": { "Cmd": ["serve"], "Labels": labels },
    }]);
    let podman = [
        podman_version(),
        answer("container inspect box-server", 0, &found.to_string(), ""),
        no_container("podman"),
    ];
    let docker = [docker_version(), no_container("docker"), image()];
    let output = Sandbox::new(PROJECT)
        .engine("docker", &docker)
        .engine("podman", &podman)
        .run(&["up", "--version", "dev-me"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.stderr.ends_with(
            "error: the stack runs in Podman already: `box-server`\n\
             hint: continue there: `cargo xtask up --engine podman --version dev-me`; or remove it first: `cargo xtask down`\n"
        ),
        "{}",
        output.stderr
    );
}

/// A Docker that sleeps and may have the stack, and a Podman that could make another one.
fn asleep(env_file: &str) -> Sandbox {
    let podman = [podman_version(), no_container("podman"), image()];
    let project = format!("{PROJECT}env-file = '.env'\n");
    let sandbox = Sandbox::new(&project)
        .engine("docker", &[hung("version"), hung("container inspect")])
        .engine("podman", &podman)
        .env("XTASK_STACK_SERVER_TARGET", "devserver")
        .env("XTASK_ENGINE_TIMEOUT", "2s");
    fs::write(sandbox.path("src/.env"), env_file).unwrap();
    sandbox
}

#[test]
fn hints_keep_the_version_and_the_flavour_that_were_typed() {
    let flavour = "[flavour.tools]\ntarget = 'tools'\n";
    let typed = ["--version", "dev-me", "--flavour", "tools"];
    let stderr = |sandbox: &Sandbox, command: &str| {
        let output = sandbox.run(&[&[command][..], &typed].concat());
        assert_ne!(output.code, 0, "{output:?}");
        output.stderr
    };
    let elsewhere = sandbox("STIGMER_BACKEND_ENDPOINT=box:1\n", flavour, &[]);
    let network = sandbox(
        ADDRESSES,
        &format!("network = 'bridge'\n{flavour}"),
        &[image()],
    );
    let remote = sandbox(ADDRESSES, flavour, &[image()]).env("DOCKER_HOST", "ssh://me@box");
    for (sandbox, command) in [
        (elsewhere, "run-local"),
        (network, "XTASK_RUN_NETWORK=auto cargo xtask up"),
        (remote, "cargo xtask up"),
    ] {
        let stderr = stderr(&sandbox, "up");
        let expected = format!("{command} --version dev-me --flavour tools`");
        assert!(stderr.contains(&expected), "{stderr}");
    }
}

#[test]
fn run_local_names_the_stack_of_the_same_version() {
    let answers = [no_container("docker"), image(), ok("run"), ok("exec")];
    let more = "addresses = ['TEMPORAL_SERVICE_ADDRESS', 'STIGMER_BACKEND_ENDPOINT']\n";
    let output = sandbox(ADDRESSES, more, &answers).run(&["run-local", "--version", "dev-me"]);
    assert_eq!(output.code, 0, "{output:?}");
    for hint in [
        "hint: start Temporal: `temporal server start-dev`, or the whole stack: `cargo xtask up --version dev-me`; the worker waits for it\n",
        "hint: start stigmer-server: `stigmer server`, or the whole stack: `cargo xtask up --version dev-me`; executions fail until it runs\n",
    ] {
        assert!(output.stderr.contains(hint), "{}", output.stderr);
    }
}

/// `up` did not start the server that answers, so `ask` builds an image of this version.
#[test]
fn up_names_the_version_for_ask_if_it_found_another_server() {
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (temporal, server) = (listener(), listener());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let env = format!(
        "TEMPORAL_SERVICE_ADDRESS=127.0.0.1:{}\nSTIGMER_BACKEND_ENDPOINT=127.0.0.1:{}\n",
        port(&temporal),
        port(&server)
    );
    let answers = [no_container("docker"), image(), ok("run"), ok("exec")];
    let output = sandbox(&env, "", &answers).run(&["up", "--version", "dev-me"]);
    assert_eq!(output.code, 0, "{output:?}");
    let hint = "hint: next: `cargo xtask ask --version dev-me \"write a haiku into haiku.txt\"`, and `cargo xtask down`\n";
    assert!(output.stderr.ends_with(hint), "{}", output.stderr);
}

#[test]
fn an_engine_that_sleeps_may_have_the_stack() {
    for (command, container) in [
        (&["ask", "hello"][..], "box-server"),
        (&["ask", "hello", "--dry-run"], "box-server"),
        (&["up", "--version", "dev-me"], "box"),
        (&UP, "box"),
    ] {
        let sandbox = asleep(ADDRESSES);
        let output = sandbox.run(command);
        assert_eq!(output.code, 1, "{command:?}: {output:?}");
        let error = format!(
            "error: there is no container `{container}` in Podman, but `docker` did not answer within 2s, so it may have one\n\
             hint: run the same command again; give the engine more time with `XTASK_ENGINE_TIMEOUT=30s`\n\
             hint: ask only the other engine: `--engine podman`\n"
        );
        assert!(output.stderr.ends_with(&error), "{}", output.stderr);
        let calls = sandbox.calls();
        let changes = |call: &String| call.contains(" run ") || call.contains(" build ");
        assert!(!calls.iter().any(changes), "{calls:?}");
    }
    let podman = asleep(ADDRESSES).run(&[&UP[..], &["--engine", "podman"]].concat());
    assert_eq!(podman.code, 0, "{podman:?}");
}

#[test]
fn up_continues_a_stack_that_runs_here_while_the_other_engine_sleeps() {
    let server = member("box-server", &["serve", "--port", "2"]);
    let output = sandbox(ADDRESSES, "", &[server, image()])
        .engine("podman", &[hung("container inspect")])
        .env("XTASK_ENGINE_TIMEOUT", "2s")
        .run(&UP);
    assert_eq!(output.code, 0, "{output:?}");
    let warning = "warning: `podman` did not answer within 2s; it may have a container `box` too\n";
    assert!(output.stderr.contains(warning), "{}", output.stderr);
}

#[test]
fn a_remote_engine_cannot_have_the_stack() {
    let output = sandbox(ADDRESSES, "", &[image()])
        .env("DOCKER_HOST", "ssh://me@box")
        .run(&UP);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(
        output.stderr.contains("the engine is on another machine")
            && !output.stderr.contains("XTASK_RUN_NETWORK"),
        "{}",
        output.stderr
    );
}

#[test]
fn down_fails_if_an_engine_does_not_answer() {
    let output = Sandbox::new(PROJECT)
        .engine("docker", &[hung("version"), hung("container inspect")])
        .engine("podman", &[podman_version(), no_container("podman")])
        .env("XTASK_ENGINE_TIMEOUT", "300ms")
        .run(&["down"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output
            .stderr
            .contains("`docker` did not answer within 300ms"),
        "{}",
        output.stderr
    );
}

#[test]
fn ask_passes_the_key_of_the_environment_file() {
    let env = format!("{ADDRESSES}STIGMER_API_KEY=marked-key\n");
    let output = sandbox(&env, "", &[image()]).run(&["ask", "--dry-run", "hello"]);
    assert_eq!(output.code, 0, "{output:?}");
    let line = output.stdout.lines().last().unwrap();
    assert!(
        line.starts_with("STIGMER_API_KEY=*** docker run "),
        "{line}"
    );
    assert!(!output.stdout.contains("marked-key"));
}

#[test]
fn smoke_does_not_use_the_addresses_of_the_project() {
    let more = "[run.env]\nTEMPORAL_SERVICE_ADDRESS = 'localhost:7300'\nTEMPORAL_NAMESPACE = 'mine'\nKEPT = 'yes'\n";
    let output = sandbox("", more, &[image()]).run(&["smoke", "--version", "dev-me", "--dry-run"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        output.stdout.contains("--env KEPT=yes"),
        "{}",
        output.stdout
    );
    for name in ["TEMPORAL_SERVICE_ADDRESS", "TEMPORAL_NAMESPACE"] {
        assert!(!output.stdout.contains(name), "{}", output.stdout);
    }
}
