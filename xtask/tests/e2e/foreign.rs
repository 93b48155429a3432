//! A project that has nothing of the agent-runner: another Dockerfile, root, no health check, no workspace.

use std::{fs, process::Command, time::SystemTime};

use crate::{
    engines::{Checkout, DOCKER, DOCKER_CONTAINERD},
    ports::free_port,
    remote::Remote,
    small,
};

/// The configuration says all that differs, and every command works.
pub fn another_project(checkout: &Checkout) {
    let base = small::base_image();
    let dockerfile = format!(
        "FROM {base}\nCOPY page.html /srv/\nWORKDIR /srv\n\
         ENTRYPOINT [\"python3\", \"-m\", \"http.server\"]\nCMD [\"1\"]\n"
    );
    let Some(remote) = Remote::open(&format!("foreign-{}", checkout.engine.name)) else {
        return;
    };
    // `image` runs the image as root. On the host's network, the command chooses the port.
    let port = free_port();
    // Docker's classic store holds one platform of an image.
    let (publish, platforms) = match checkout.engine.name {
        DOCKER => ("push-image", "'linux/amd64'"),
        _ => ("push-multiarch", "'linux/amd64', 'linux/arm64'"),
    };
    let project = format!(
        "schema = 1\n[image]\nrepository = '{}'\n\
         [run]\nnetwork = 'host'\nuser = 'image'\ncommand = ['{port}']\n\
         [run.hardening]\ndrop-capabilities = []\n\
         [build]\nplatforms = [{platforms}]\n\
         [require]\nuser = 'any'\nhealth-check = false\n",
        remote.repository()
    );
    small::replace_all(
        checkout,
        &[
            ("Dockerfile", dockerfile.as_bytes()),
            (".dockerignore", b""),
            ("page.html", b"hello\n"),
            ("xtask.toml", project.as_bytes()),
        ],
    );

    // The base image is older.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs().to_string();
    let env = [("XTASK_RUN_WORKSPACE", ""), ("SOURCE_DATE_EPOCH", &now)];
    let run = |line: &str| {
        let done = checkout.run_line(line, &env);
        assert_eq!(done.code, 0, "{line}: {done:?}");
        done
    };
    run("build-image");
    let tested = run("test-image");
    assert!(tested.stdout.contains("ok   user "), "{tested:?}");
    assert!(!tested.stdout.contains("/workspace"), "{tested:?}");
    let started = run("run-local");
    for word in ["Model", "warning", "stigmer"] {
        assert!(!started.stderr.contains(word), "{word}: {started:?}");
    }
    assert_eq!(
        read_page(&format!("http://127.0.0.1:{port}/page.html")),
        "hello\n"
    );
    run("status --exit-code");
    run("stop");
    assert_eq!(checkout.git(&["tag", "v1.2.3"]).code, 0);
    run(&format!("{publish} --version 1.2.3"));
    assert_eq!(remote.tags(), ["1", "1.2", "1.2.3", "latest"]);
    if publish == "push-multiarch" {
        assert_eq!(remote.images("1.2.3").len(), 2);
    }
    if checkout.engine.name == DOCKER_CONTAINERD {
        // Whoever has the base image does not download its layers again.
        let (base, tag) = base.rsplit_once(':').unwrap();
        let (host, path) = base.split_once('/').unwrap();
        let base = Remote {
            host: host.to_owned(),
            path: path.to_owned(),
            auth: None,
        };
        for platform in ["linux/amd64", "linux/arm64"] {
            let layers = remote.layers("1.2.3", platform);
            let of_base = base.layers(tag, platform);
            assert_eq!(layers[..of_base.len()], of_base);
            assert!(layers.len() > of_base.len());
        }
    }
    run("verify-image --version 1.2.3");
    run("clean --all --yes");
}

/// A server that is one program, in an image that has nothing else.
const HELLO: &str = r#"
use std::{env, io::{Read, Write}, net::TcpListener, process::exit};

fn main() {
    let port = env::args().nth(1).unwrap();
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).unwrap();
    for connection in listener.incoming() {
        let mut connection = connection.unwrap();
        let mut request = [0; 1000];
        let length = connection.read(&mut request).unwrap_or(0);
        if request[..length].starts_with(b"GET /fail") {
            exit(3);
        }
        let body = format!("hello {}", env::var("GREETING").unwrap_or_default());
        let _ = write!(connection, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }
}
"#;

/// An image `FROM scratch` has no shell, no users and no libraries.
pub fn only_a_program(checkout: &Checkout) {
    let src = checkout.src();
    fs::write(src.join("hello.rs"), HELLO).unwrap();
    let built = Command::new("rustc")
        .args(["-C", "target-feature=+crt-static", "hello.rs"])
        .current_dir(&src)
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let dockerfile = "FROM scratch\nCOPY hello /hello\nENTRYPOINT [\"/hello\"]\n";
    fs::write(src.join("Dockerfile"), dockerfile).unwrap();
    fs::write(src.join(".dockerignore"), "*\n!hello\n").unwrap();
    let port = free_port();
    let project = format!(
        "schema = 1\n[image]\nrepository = 'localhost/e2e/hello'\n\
         [run]\nnetwork = 'host'\nuser = 'image'\ncommand = ['{port}']\nenv = {{ GREETING = 'world' }}\n\
         [require]\nuser = 'any'\nhealth-check = false\n"
    );
    fs::write(src.join("xtask.toml"), project).unwrap();
    checkout.engine.hand_over(&src);
    let run_with = |line: &str, env: &[(&str, &str)]| {
        checkout.run_line(line, &[&[("XTASK_RUN_WORKSPACE", "")], env].concat())
    };
    let run = |line: &str| run_with(line, &[]);
    for line in ["build-image", "test-image", "run-local"] {
        let done = run(line);
        assert_eq!(done.code, 0, "{line}: {done:?}");
    }
    assert_eq!(
        read_page(&format!("http://127.0.0.1:{port}")),
        "hello world"
    );
    let shell = run("shell");
    assert_ne!(shell.code, 0, "{shell:?}");
    // Docker prints this error on standard output.
    let told = format!("{}{}", shell.stdout, shell.stderr);
    assert!(told.contains("/bin/sh"), "{shell:?}");

    // In a network of its own, with a port of this machine. The engine starts it again after a failure.
    let outside = free_port().to_string();
    let ports = format!("{outside}:{port}");
    let env = [
        ("XTASK_RUN_NETWORK", "bridge"),
        ("XTASK_RUN_PORTS", ports.as_str()),
        ("XTASK_RUN_RESTART", "on-failure"),
    ];
    let started = run_with("run-local", &env);
    assert_eq!(started.code, 0, "{started:?}");
    let page = format!("http://127.0.0.1:{outside}");
    assert_eq!(read_page(&page), "hello world");
    let first = started_at(checkout);
    let fail = format!("{page}/fail");
    let failed = Command::new("curl").args(["-sS", &fail]).output().unwrap();
    assert!(!failed.status.success(), "{failed:?}");
    assert_eq!(read_page(&page), "hello world");
    assert_ne!(started_at(checkout), first);
    // Its log cannot fill the disk.
    let host = &checkout
        .engine
        .inspect("container", &checkout.container)
        .unwrap()["HostConfig"];
    assert_eq!(host["RestartPolicy"]["Name"], "on-failure");
    let log = &host["LogConfig"];
    let limit = log["Config"]["max-size"].as_str().or(log["Size"].as_str());
    assert!(
        limit.is_some_and(|limit| !["", "0", "0B"].contains(&limit)),
        "{log}"
    );
    for line in ["status --exit-code", "stop", "clean --yes"] {
        let done = run(line);
        assert_eq!(done.code, 0, "{line}: {done:?}");
    }
}

fn started_at(checkout: &Checkout) -> String {
    let container = checkout.engine.inspect("container", &checkout.container);
    container.unwrap()["State"]["StartedAt"].to_string()
}

fn read_page(url: &str) -> String {
    // While the server starts, the engine may accept connections and close them.
    let got = Command::new("curl")
        .args(["-sS", "--retry", "5", "--retry-all-errors", url])
        .output();
    String::from_utf8(got.unwrap().stdout).unwrap()
}
