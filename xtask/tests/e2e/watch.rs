//! `watch` with a real engine.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    engines::Checkout,
    promises::{interrupt, pids_of},
};

/// The time limit of a round on a busy machine.
const LONG: Duration = Duration::from_secs(180);

/// A change gets into the container, a failed build keeps the container running, and Ctrl-C stops only
/// `watch`.
pub fn rounds(checkout: &Checkout) {
    let log = checkout.src().parent().unwrap().join("log");
    let mut child = checkout
        .command(&["watch"], &[])
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let stderr = || fs::read_to_string(&log).unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, healthy) = mpsc::channel();
    thread::spawn(move || stdout.lines().try_for_each(|line| sender.send(line)));
    let round = || {
        let line = healthy.recv_timeout(LONG);
        let line = line.unwrap_or_else(|_| panic!("no round: {}", stderr()));
        assert_eq!(line.unwrap(), checkout.container);
        let container = checkout
            .engine
            .inspect("container", &checkout.container)
            .unwrap();
        let of = |name: &str| container[name].as_str().unwrap().to_owned();
        (of("Id"), of("Image"))
    };
    let first = round();

    change(
        &checkout.src().join("agent-runner/worker/probe.py"),
        "# a change\n",
    );
    let second = round();
    assert_ne!(first.1, second.1, "the image did not change");
    assert_eq!(
        checkout.inside("tail -n1 /app/worker/probe.py").stdout,
        "# a change\n"
    );

    let dockerfile = checkout.src().join("Dockerfile");
    let whole = fs::read(&dockerfile).unwrap();
    change(&dockerfile, "NONSENSE\n");
    let runs_on = format!(
        "hint: keep using the old container {}, which is still running",
        checkout.container
    );
    wait_until(|| stderr().contains(&runs_on), &stderr);
    assert!(stderr().contains("error: `"), "{}", stderr());
    let container = checkout
        .engine
        .inspect("container", &checkout.container)
        .unwrap();
    assert_eq!(container["Id"], second.0.as_str());
    assert_eq!(container["State"]["Running"], true);

    fs::write(&dockerfile, whole).unwrap();
    assert_ne!(
        round().0,
        second.0,
        "the container was not replaced after the fix"
    );

    let pids = pids_of(child.id(), "xtask");
    assert!(!pids.is_empty());
    wait_until(|| stderr().matches("Watching").count() == 4, &stderr);
    let ended = interrupt(child, "xtask", libc::SIGINT);
    assert_eq!(ended.code, 130, "{}", stderr());
    assert!(
        stderr().ends_with("ends it\nerror: interrupted\n"),
        "{}",
        stderr()
    );
    for pid in pids {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} is left"
        );
    }
    checkout.ok(&["stop"]);
}

fn change(file: &Path, line: &str) {
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, text + line).unwrap();
}

fn wait_until(mut done: impl FnMut() -> bool, stderr: &impl Fn() -> String) {
    for _ in 0..LONG.as_millis() / 50 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the condition was not met: {}", stderr());
}
