//! A project that has nothing of the agent-runner: another Dockerfile, root, no health check, no workspace.

use std::fs;

use crate::{
    engines::{Checkout, var},
    remote::Remote,
};

/// The configuration says all that differs, and every command works.
pub fn another_project(checkout: &Checkout) {
    let src = checkout.src();
    let folder = src.join("agent-runner");
    fs::remove_dir_all(&folder).unwrap();
    // The commands of the tests run in it.
    fs::create_dir(&folder).unwrap();
    let base = var("XTASK_BUILD_BASE_IMAGE").unwrap();
    let dockerfile = format!(
        "FROM {base}\nCOPY page.html /srv/\nWORKDIR /srv\n\
         ENTRYPOINT [\"python3\", \"-m\", \"http.server\"]\nCMD [\"1\"]\n"
    );
    fs::write(src.join("Dockerfile"), dockerfile).unwrap();
    fs::write(src.join(".dockerignore"), "").unwrap();
    fs::write(src.join("page.html"), "hello\n").unwrap();
    let Some(remote) = Remote::open(&format!("foreign-{}", checkout.engine.name)) else {
        return;
    };
    // `image` runs the image as root. On the host's network, the command chooses the port.
    let port = if checkout.engine.program == "docker" {
        18_181
    } else {
        18_182
    };
    let project = format!(
        "schema = 1\n[image]\nrepository = '{}'\n\
         [run]\nnetwork = 'host'\nuser = 'image'\ncommand = ['{port}']\n\
         [run.hardening]\ndrop-capabilities = []\n\
         [build]\nplatforms = ['linux/amd64']\n\
         [require]\nuser = 'any'\nhealth-check = false\n",
        remote.repository()
    );
    fs::write(src.join("xtask.toml"), project).unwrap();
    checkout.git(&["add", "-A"]);
    assert_eq!(
        checkout
            .git(&["commit", "-q", "-m", "another project"])
            .code,
        0
    );

    let env = [("XTASK_RUN_WORKSPACE", "")];
    let run = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let done = checkout.run_with(&words, &env);
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
    let page = || {
        let url = format!("http://127.0.0.1:{port}/page.html");
        let got = std::process::Command::new("curl")
            .args(["-sS", "--retry", "5", "--retry-connrefused", &url])
            .output();
        String::from_utf8(got.unwrap().stdout).unwrap()
    };
    assert_eq!(page(), "hello\n");
    run("status --exit-code");
    run("stop");
    assert_eq!(checkout.git(&["tag", "v1.2.3"]).code, 0);
    run("push-image --version 1.2.3");
    assert_eq!(remote.tags(), ["1", "1.2", "1.2.3", "latest"]);
    run("verify-image --version 1.2.3");
    run("clean --all --yes");
}
