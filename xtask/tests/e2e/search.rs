//! The search for the container on every engine.

use std::{os::unix::net::UnixListener, thread};

use crate::engines::{Checkout, CommandOutput};

/// Docker's client waits for a daemon that never answers. Commands find the container in the other engine, and none
/// says that there is no container.
pub fn silent_daemon(checkout: &Checkout) {
    let socket = checkout.src().join("target/silent.sock");
    checkout.make_folder(socket.parent().unwrap());
    // Clients can connect, and wait for an answer.
    let _listener = UnixListener::bind(&socket).unwrap();
    let host = format!("unix://{}", socket.display());
    let run = |line: &str| {
        let env = [
            ("XTASK_ENGINE", "auto"),
            ("DOCKER_HOST", host.as_str()),
            ("XTASK_ENGINE_TIMEOUT", "10s"), // Podman answers in time on a busy machine
        ];
        checkout.run_line(line, &env)
    };
    let silence = "`docker` did not answer within 10s";
    let has = |output: &CommandOutput, code: i32, words: &str| {
        assert_eq!(output.code, code, "{output:?}");
        assert!(output.stderr.contains(words), "{words}: {output:?}");
        assert!(output.stderr.contains(silence), "{output:?}");
    };

    has(&run("build-image --no-check"), 0, "warning: ");
    checkout.ok(&["run-local", "--no-wait"]);
    let may_have = format!("it may have a container `{}` too", checkout.container);
    has(&run("status"), 0, &may_have);
    has(&run("stop"), 0, &may_have);
    // These change nothing, so they wait for the daemon at the same time.
    thread::scope(|scope| {
        for line in ["status --exit-code", "stop", "logs --no-follow"] {
            scope.spawn(move || has(&run(line), 1, "error: "));
        }
        let report = run("status --json");
        assert!(
            report.stdout.contains("\"state\": \"unknown\""),
            "{report:?}"
        );
    });
}
