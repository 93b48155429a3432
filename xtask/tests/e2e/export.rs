//! What `export` prints is what Compose, Podman, Quadlet and Kubernetes read.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    engines::{Checkout, CommandOutput, PODMAN, command_output},
    remote::needed,
    stack::{OwnStack, remove_server_image},
};

/// The time that a container has to become healthy.
const HEALTHY_WITHIN: Duration = Duration::from_secs(20);

/// A value with everything that a format or systemd could replace.
const SPECIAL: &str = r#"a $HOME ${HOME} $(HOME) $$ %h 100% "b" 'c' \d"#;

fn export(checkout: &Checkout, format: &str, more: &[&str]) -> String {
    checkout.ok(&[&["export", format], more].concat())
}

fn write(checkout: &Checkout, name: &str, text: &str) -> PathBuf {
    let file = checkout.src().join("target").join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text).unwrap();
    file
}

/// The text after each `---`.
fn documents(manifests: &str) -> Vec<Value> {
    let documents = manifests.split("---\n").skip(1);
    let read = |document| serde_json::from_str(document).unwrap();
    documents.map(read).collect()
}

/// What the engine restricts, without what differs because Compose started the container.
fn host_config(checkout: &Checkout) -> Value {
    let found = checkout.engine.inspect("container", &checkout.container);
    let mut config = found.unwrap()["HostConfig"].take();
    // Compose adds the default option of a mount.
    let binds = config["Binds"].to_string().replace(":rw\"", "\"");
    config["Binds"] = binds.into();
    let keys = [
        "ReadonlyRootfs",
        "CapAdd",
        "CapDrop",
        "SecurityOpt",
        "Privileged",
        "Init",
        "Tmpfs",
        "Binds",
        "NetworkMode",
        "PidsLimit",
        "Memory",
        "NanoCpus",
        "RestartPolicy",
        "LogConfig",
        "UsernsMode",
    ];
    keys.iter().map(|key| json!([key, config[key]])).collect()
}

fn printenv(checkout: &Checkout, container: &str, name: &str) -> String {
    let output = checkout.engine.run(&["exec", container, "printenv", name]);
    output.stdout.trim_end_matches('\n').to_owned()
}

/// Compose starts a container that has the restrictions of `run-local`'s, and it becomes healthy.
pub fn compose(checkout: &Checkout) {
    let Some([plugin]) = needed(["XTASK_E2E_COMPOSE"]) else {
        return;
    };
    let docker = checkout.src().join("target/docker-config");
    fs::create_dir_all(docker.join("cli-plugins")).unwrap();
    symlink(plugin, docker.join("cli-plugins/docker-compose")).unwrap();
    let docker = docker.to_str().unwrap();
    checkout.ok(&["build-image"]);
    fs::write(checkout.src().join(".env"), "STIGMER_API_KEY=from-file\n").unwrap();
    checkout.ok(&["run-local", "--no-wait"]);
    let expected = host_config(checkout);
    checkout.ok(&["stop"]);

    let special = format!("SPECIAL={SPECIAL}");
    let key = [("OPENAI_API_KEY", "from-export")];
    let exported = checkout.run_with(&["export", "compose", "-e", &special], &key);
    assert_eq!(exported.code, 0, "{}", exported.stderr);
    let file = exported.stdout;
    assert!(!file.contains("from-"), "a secret is in {file}");
    let run = |args: &[&str]| {
        let env = [("DOCKER_CONFIG", docker), ("OPENAI_API_KEY", "from-caller")];
        let args = [&["compose", "-f", "-"], args].concat();
        let mut command = checkout.engine.command_of(Path::new("docker"), &args, &env);
        with_input(&mut command, &file)
    };
    let up = run(&["up", "--detach", "--wait"]);
    assert_eq!(up.code, 0, "{}", up.stderr);
    let container = checkout.engine.inspect("container", &checkout.container);
    assert_eq!(container.unwrap()["State"]["Health"]["Status"], "healthy");
    assert_eq!(host_config(checkout), expected);
    for (name, value) in [
        ("SPECIAL", SPECIAL),
        ("OPENAI_API_KEY", "from-caller"),
        ("STIGMER_API_KEY", "from-file"),
        ("TEMPORAL_SERVICE_ADDRESS", "localhost:7233"),
    ] {
        assert_eq!(printenv(checkout, &checkout.container, name), value);
    }
    let down = run(&["down"]);
    assert_eq!(down.code, 0, "{}", down.stderr);
    let container = checkout.engine.inspect("container", &checkout.container);
    assert!(container.is_none());
}

/// An agent works in a runner that Compose or Podman started from what `export` printed.
pub fn executions(checkout: &Checkout) {
    let names = [
        "XTASK_E2E_COMPOSE",
        "XTASK_E2E_TEMPORAL",
        "XTASK_STACK_TEMPORAL_IMAGE",
    ];
    let Some([plugin, ..]) = needed(names) else {
        return;
    };
    let stack = OwnStack::new(checkout, 7233);
    stack.ok(&["up"]);
    // The server stays, with its model.
    let runner = checkout.engine.inspect("container", &checkout.container);
    let runner = runner.unwrap()["Config"]["Env"].take();
    let variables = runner.as_array().unwrap().iter().filter_map(Value::as_str);
    let is_ours = |one: &&str| one.starts_with("STIGMER_") || one.starts_with("TEMPORAL_");
    let options: Vec<_> = variables
        .filter(is_ours)
        .flat_map(|one| ["-e", one])
        .collect();
    stack.ok(&["stop"]);

    let with_podman = checkout.engine.name == PODMAN;
    let format = if with_podman { "kubernetes" } else { "compose" };
    let exported = stack.ok(&[&["export", format], &options[..]].concat());
    let file = write(checkout, "exported.yaml", &exported.stdout);
    let path = file.to_str().unwrap();
    let _played = with_podman.then(|| Played {
        checkout,
        file: file.clone(),
    });
    let program = if with_podman { "podman" } else { &plugin };
    let run = |args: &[&str]| command_output(&Command::new(program).args(args).output().unwrap());
    let started = if with_podman {
        run(&["kube", "play", "--network=host", path])
    } else {
        run(&["-f", path, "up", "--detach", "--wait"])
    };
    assert_eq!(started.code, 0, "{started:?}");
    let ask = |message: &str| stack.run(&["ask", "--session", "one", message]);
    let asked = ask("write a haiku into haiku.txt");
    assert_eq!(asked.stdout, "I wrote haiku into haiku.txt.\n", "{asked:?}");
    // The file is kept, and the session remembers.
    let asked = ask("read haiku.txt");
    assert!(asked.stdout.contains("Worker wakes and polls"), "{asked:?}");
    let asked = ask("what did I ask before?");
    assert!(asked.stdout.contains("write a haiku"), "{asked:?}");
    let ended = if with_podman {
        run(&["kube", "down", path])
    } else {
        run(&["-f", path, "down"])
    };
    assert_eq!(ended.code, 0, "{ended:?}");
    stack.ok(&["down"]);
    remove_server_image(checkout);
}

fn with_input(command: &mut Command, input: &str) -> CommandOutput {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    command_output(&child.wait_with_output().unwrap())
}

/// Podman runs the manifests, the worker passes the probes' check, and a Secret gives it variables.
pub fn kube_play(checkout: &Checkout) {
    checkout.ok(&["build-image"]);
    let special = format!("SPECIAL={SPECIAL}");
    let manifests = export(checkout, "kubernetes", &["-e", &special]);
    let documents = documents(&manifests);
    let pod = &documents.last().unwrap()["spec"]["template"]["spec"];
    let played = Played {
        checkout,
        file: write(
            checkout,
            "manifests.yaml",
            &with_secret(checkout, &manifests),
        ),
    };
    let file = played.file.to_str().unwrap();
    // The bridge of these machines needs programs that not all of them have.
    let play = checkout
        .engine
        .run(&["kube", "play", "--network=host", file]);
    assert_eq!(play.code, 0, "{play:?}");
    let container = container_of_pod(checkout);

    let check = pod["containers"][0]["livenessProbe"]["exec"]["command"].as_array();
    let check: Vec<_> = check.unwrap().iter().filter_map(Value::as_str).collect();
    let exec = |args: &[&str]| {
        checkout
            .engine
            .run(&[&["exec", container.as_str()], args].concat())
    };
    let begun = Instant::now();
    loop {
        let answer = exec(&check);
        if answer.code == 0 {
            break;
        }
        assert!(begun.elapsed() < HEALTHY_WITHIN, "{answer:?}");
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(printenv(checkout, &container, "SPECIAL"), in_podman());
    assert_eq!(
        printenv(checkout, &container, "OPENAI_API_KEY"),
        "from-secret"
    );
    let identity = exec(&["id", "-u"]);
    assert_eq!(identity.stdout, "1000\n");
    let status = exec(&[
        "grep",
        "-E",
        "^(CapEff|CapBnd|NoNewPrivs)",
        "/proc/self/status",
    ])
    .stdout;
    let fields: Vec<_> = status.split_whitespace().collect();
    let none = "0000000000000000";
    assert_eq!(
        fields,
        ["CapEff:", none, "CapBnd:", none, "NoNewPrivs:", "1"]
    );
    for (folder, code) in [("/app", 1), ("/tmp", 0), ("/workspace", 0)] {
        let output = exec(&["touch", &format!("{folder}/file")]);
        assert_eq!(output.code, code, "{folder}: {output:?}");
    }
    let down = checkout.engine.run(&["kube", "down", file]);
    assert_eq!(down.code, 0, "{down:?}");
}

/// Creates the Secret of the runner, and returns what to play.
fn with_secret(checkout: &Checkout, manifests: &str) -> String {
    // The base64 of `from-secret`.
    let data = json!({ "OPENAI_API_KEY": "ZnJvbS1zZWNyZXQ=" });
    let name = &checkout.container;
    if checkout.engine.name == PODMAN {
        // Podman 4.3 reads the data of a Secret, and not its manifest.
        let mut create = checkout.engine.command(&["secret", "create", name, "-"]);
        let created = with_input(&mut create, &data.to_string());
        assert_eq!(created.code, 0, "{created:?}");
        return manifests.to_owned();
    }
    let metadata = json!({ "name": name });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data,
    });
    format!("---\n{secret}\n{manifests}")
}

/// Podman does not replace `$(NAME)`, and so leaves both `$`, with which Kubernetes makes one.
fn in_podman() -> String {
    SPECIAL.replace("$(", "$$(").replace("$$ ", "$$$ ")
}

fn container_of_pod(checkout: &Checkout) -> String {
    let filter = format!("name={}-pod", checkout.container);
    let listed = checkout
        .engine
        .run(&["ps", "--filter", &filter, "--format", "{{.Names}}"]);
    let mut names = listed.stdout.lines();
    let found = names.find(|name| name.ends_with("-agent-runner"));
    found.unwrap_or_else(|| panic!("{listed:?}")).to_owned()
}

/// What `podman kube play` made. It is removed at the end of the test.
struct Played<'a> {
    checkout: &'a Checkout<'a>,
    file: PathBuf,
}

impl Drop for Played<'_> {
    fn drop(&mut self) {
        let Self { checkout, file } = self;
        let name = &checkout.container;
        let file = file.to_str().unwrap();
        for args in [
            &["kube", "down", file][..],
            &["volume", "rm", &format!("{name}-workspace")],
            &["volume", "rm", &format!("{name}-tmpfs-0")],
            &["secret", "rm", name],
        ] {
            checkout.engine.run(args);
        }
    }
}

/// The generators of the engine and of the first Podman with Quadlet make a command of the unit that has the
/// options of `run-local`.
pub fn quadlet(checkout: &Checkout) {
    let Some([ages, first]) = needed(["XTASK_E2E_AGES", "XTASK_E2E_QUADLET"]) else {
        return;
    };
    let of_engine = Path::new(&ages).join(checkout.engine.name).join("quadlet");
    let special = format!("SPECIAL={SPECIAL}");
    // A released version, because `run-local` would pull its image.
    let version_and_env = ["--version", "1.2.3", "-e", &special];
    let limits = "[run.limits]\nmemory = '512MiB'\ncpus = '1.5'\n\
                  [run]\nvolumes = ['/tmp/a %h b:/more:ro', 'cache:/cache']\n";
    let local = checkout.src().join("xtask.local.toml");
    fs::write(local, format!("schema = 1\n{limits}")).unwrap();
    fs::write(checkout.src().join(".env"), "STIGMER_API_KEY=from-file\n").unwrap();

    let unit = export(checkout, "quadlet", &version_and_env);
    let file = write(checkout, "units/runner.container", &unit);
    let plan = checkout.ok(&[&["run-local", "--dry-run"][..], &version_and_env].concat());
    let run = plan.lines().find(|line| line.starts_with("podman run "));
    let run = words_of_shell(run.unwrap());
    // The journal limits the log. xtask's containers have labels, and systemd's have units.
    let expected = options_of(&run, &["detach", "pull", "label", "log-opt"]);
    for option in [
        "read-only",
        "init",
        "cap-drop=all",
        &format!("env={special}"),
    ] {
        assert!(expected.iter().any(|one| one == option), "{expected:?}");
    }
    for generator in [of_engine, first.into()] {
        let start = generated_command(&generator, file.parent().unwrap());
        let place = generator.display();
        assert_eq!(options_of(&start, &OF_QUADLET), expected, "{place}");
    }
}

/// The options that the generators add.
const OF_QUADLET: [&str; 9] = [
    "cidfile",
    "replace",
    "rm",
    "cgroups",
    "sdnotify",
    "d",
    // Podman 4.4's.
    "log-driver",
    "runtime",
    "read-only-tmpfs",
];

/// The command of the service that a generator makes of the only unit in a folder.
fn generated_command(generator: &Path, units: &Path) -> Vec<String> {
    let generated = Command::new(generator)
        .arg("-dryrun")
        .env("QUADLET_UNIT_DIRS", units)
        .output()
        .unwrap();
    let generated = command_output(&generated);
    let mut lines = generated.stdout.lines();
    let start = lines.find_map(|line| line.strip_prefix("ExecStart="));
    words_of_systemd(start.unwrap_or_else(|| panic!("{generated:?}")))
}

/// The options and the image of a `podman run`, sorted and in one form, without those of the list.
fn options_of(words: &[String], without: &[&str]) -> Vec<String> {
    let flags = ["init", "read-only", "replace", "rm", "d", "detach"];
    let mut found = Vec::new();
    let mut words = words.iter().skip(2);
    while let Some(word) = words.next() {
        let option = word.trim_start_matches('-');
        if option == word || option.contains('=') || flags.contains(&option) {
            found.push(option.to_owned());
        } else {
            found.push(format!("{option}={}", words.next().unwrap()));
        }
    }
    found.retain(|one| !without.contains(&one.split('=').next().unwrap()));
    for one in &mut found {
        if let Some(volume) = one.strip_prefix("v=") {
            *one = format!("volume={volume}");
        }
        if one.starts_with("cap-drop=") {
            *one = one.to_lowercase();
        }
    }
    found.sort();
    found
}

/// The words of a command line in a unit, as systemd starts it.
fn words_of_systemd(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
                continue;
            }
            '"' => quoted = !quoted,
            '\\' => match chars.next().unwrap() {
                'x' => {
                    let digits: String = chars.by_ref().take(2).collect();
                    word.push(u8::from_str_radix(&digits, 16).unwrap().into());
                }
                c => word.push(c),
            },
            '%' | '$' => {
                assert!(
                    chars.next() == Some(c) || word.starts_with("--cidfile"),
                    "systemd would replace `{c}` in {line}"
                );
                word.push(c);
            }
            _ => word.push(c),
        }
        any = true;
    }
    words.push(word);
    words
}

fn words_of_shell(line: &str) -> Vec<String> {
    let script = format!("set -- {line}\nprintf '%s\\n' \"$@\"");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let words = command_output(&output).stdout;
    words.lines().map(str::to_owned).collect()
}

/// The types of Kubernetes' own API have every field of the manifests.
pub fn manifests(checkout: &Checkout) {
    let Some([decoder]) = needed(["XTASK_E2E_DECODE_MANIFESTS"]) else {
        return;
    };
    let decode = |text: &str| with_input(&mut Command::new(&decoder), text);
    // All fields that the settings can add.
    let local = checkout.src().join("xtask.local.toml");
    let settings = "schema = 1\n[run]\nvolumes = ['cache:/cache:ro']\n\
                    [run.limits]\nmemory = '512MiB'\ncpus = '1.5'\n\
                    [run.hardening]\ntmpfs = ['/tmp:size=64m']\n[health]\ncommand = ['probe']\n";
    fs::write(local, settings).unwrap();
    let manifests = export(checkout, "kubernetes", &["-e", "A=b"]);
    let decoded = decode(&manifests);
    assert_eq!(decoded.code, 0, "{}", decoded.stderr);
    let name = &checkout.container;
    assert_eq!(
        decoded.stdout,
        format!(
            "PersistentVolumeClaim {name}-workspace\nPersistentVolumeClaim {name}-volume-cache\nDeployment {name}\n"
        )
    );
    for (right, wrong) in [
        ("\"fsGroup\"", "\"fsgroup\""),
        ("\"mountPath\"", "\"path\""),
        ("\"1.5\"", "\"1.5 cores\""),
    ] {
        let wrong = manifests.replace(right, wrong);
        assert_ne!(wrong, manifests);
        assert_eq!(decode(&wrong).code, 1, "{right}");
    }
}
