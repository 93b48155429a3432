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
    promises::{interrupt, xtask_pids},
};

/// How long a round may take on a machine that has other things to do.
const LONG: Duration = Duration::from_secs(180);

/// A change is in the container, a broken build leaves the container alone, and Ctrl-C ends only
/// the watching.
pub fn rounds(checkout: &Checkout) {
    let talk = checkout.src().parent().unwrap().join("talk");
    let mut child = checkout
        .command(&["watch"], &[])
        .stderr(fs::File::create(&talk).unwrap())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(&talk).unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, healthy) = mpsc::channel();
    thread::spawn(move || stdout.lines().try_for_each(|line| sender.send(line)));
    let round = || {
        let line = healthy.recv_timeout(LONG);
        let line = line.unwrap_or_else(|_| panic!("no round: {}", said()));
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
    assert_ne!(first.1, second.1, "another image");
    assert_eq!(
        checkout.inside("tail -n1 /app/worker/probe.py").stdout,
        "# a change\n"
    );

    let dockerfile = checkout.src().join("Dockerfile");
    let whole = fs::read(&dockerfile).unwrap();
    change(&dockerfile, "NONSENSE\n");
    let runs_on = format!(
        "hint: the old container {} is still running",
        checkout.container
    );
    wait_until(|| said().contains(&runs_on), &said);
    assert!(said().contains("error: `"), "{}", said());
    let container = checkout
        .engine
        .inspect("container", &checkout.container)
        .unwrap();
    assert_eq!(container["Id"], second.0.as_str());
    assert_eq!(container["State"]["Running"], true);

    fs::write(&dockerfile, whole).unwrap();
    assert_ne!(round().0, second.0, "mended, it is started anew");

    let pids = xtask_pids(child.id());
    assert!(!pids.is_empty());
    wait_until(|| said().matches("Watching").count() == 4, &said);
    let ended = interrupt(child, libc::SIGINT);
    assert_eq!(ended.code, 130, "{}", said());
    assert!(
        said().ends_with("ends it\nerror: interrupted\n"),
        "{}",
        said()
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

fn wait_until(mut done: impl FnMut() -> bool, said: &impl Fn() -> String) {
    for _ in 0..LONG.as_millis() / 50 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("it did not come to that: {}", said());
}
