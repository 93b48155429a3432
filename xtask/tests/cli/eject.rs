//! `--eject`: every command is a script that shells and shellcheck take, or says why it is none; and
//! a script does what xtask would do, and nothing that it would refuse.

use std::{fs, path::Path, process::Command};

use crate::world::{
    PROJECT, Ran, World, XTASK, answer, container, docker_version, image, no_container, no_image,
    podman_version, skipped,
};

/// The commands that can be scripts, with what they need to be told.
const SCRIPTS: &[&[&str]] = &[
    &["check", "--version", "dev-me"],
    &["build-image", "--version", "dev-me"],
    &["run-local", "--version", "dev-me"],
    &["run-local", "--version", "1.2.3"],
    &["run-local", "--version", "dev-me", "--foreground"],
    &["run-local", "--version", "dev-me", "--no-wait"],
    &["logs"],
    &["logs", "--follow", "--tail", "5"],
    &["shell"],
    &["shell", "--", "echo", "it's", "--tty"],
    &["stop"],
    &["docker-login", "--username", "me"],
    &["docker-login", "--username", "me", "--password-stdin"],
];

/// A project with a secret in each place where one can be.
fn project() -> String {
    PROJECT.to_owned()
        + "pass-env = ['OPENAI_API_KEY']\n[run.env]\nMY_TOKEN = 'sk-in-the-file'\n\
           [health]\ncommand = ['probe']\nbudget = '2s'\n\
           [build]\nsecrets = ['id=npm,env=NPM_TOKEN']\n\
           [[channel]]\nname = 'release'\nmatch = ['semver:release']\npublish = 'yes'\n"
}

const SECRETS: &[(&str, &str)] = &[
    ("OPENAI_API_KEY", "sk-passed"),
    ("NPM_TOKEN", "sk-build"),
    ("GITHUB_TOKEN", "sk-login"),
    ("MY_TOKEN", "sk-by-hand"),
];

fn world(engine: &str, answers: &[serde_json::Value]) -> World {
    let world = World::new(&project()).engine(engine, answers);
    SECRETS.iter().fold(world, |world, (k, v)| world.env(k, v))
}

fn ejected(world: &World, args: &[&str]) -> String {
    let output = world
        .command(&[&["--eject"], args].concat())
        .output()
        .unwrap();
    let ran = world.ran(&output);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs it in the world, as `sh script`.
fn sh(world: &World, script: &str, env: &[(&str, &str)]) -> Ran {
    let file = world.path("home/script.sh");
    fs::write(&file, script).unwrap();
    let mut command = world.command_of(Path::new("/bin/sh"), &[file.to_str().unwrap()]);
    command.envs(env.iter().copied());
    world.ran(&command.output().unwrap())
}

/// What there is to check a script with; it must be there in CI.
fn checkers() -> Vec<Vec<&'static str>> {
    let all = [
        vec!["sh", "-n"],
        vec!["dash", "-n"],
        vec!["shellcheck", "-s", "sh"],
    ];
    let there = |checker: &Vec<&str>| {
        let found = which::which(checker[0]).is_ok();
        if !found {
            skipped(checker[0]);
        }
        found
    };
    all.into_iter().filter(there).collect()
}

#[test]
fn shells_and_shellcheck_take_every_script_and_none_holds_a_secret() {
    let checkers = checkers();
    for (engine, version) in [("docker", docker_version()), ("podman", podman_version())] {
        let world = world(engine, &[version, no_container(engine), image()]);
        for args in SCRIPTS {
            let script = ejected(&world, args);
            assert!(!script.contains("sk-"), "{args:?}: {script}");
            let file = world.path("home/checked.sh");
            fs::write(&file, &script).unwrap();
            for checker in &checkers {
                let output = Command::new(checker[0])
                    .args(&checker[1..])
                    .arg(&file)
                    .output()
                    .unwrap();
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(
                    output.status.success(),
                    "{checker:?} {args:?}: {said}\n{script}"
                );
            }
        }
        let asked = |call: &String| {
            ["version", "container inspect", "image inspect"]
                .iter()
                .any(|question| call.split_once(' ').unwrap().1.starts_with(question))
        };
        assert!(
            world.calls().iter().all(asked),
            "nothing ran: {:?}",
            world.calls()
        );
    }
}

#[test]
fn every_other_command_says_why_it_is_no_script() {
    let world = world(
        "docker",
        &[docker_version(), no_container("docker"), image()],
    );
    let help = Command::new(XTASK).arg("help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("\nOptions of every").next().unwrap();
    let names = commands
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let mut refused = 0;
    for name in names.filter(|name| !SCRIPTS.iter().any(|args| args[0] == *name)) {
        let more: &[&str] = match name {
            "ask" => &["hello"],
            "push-archive" => &["x.tar"],
            "pack-archive" => &["x.tar", "--output", "y.tar"],
            "completions" => &["bash"],
            _ => &[],
        };
        let ran = world.run(&[&[name, "--eject"], more].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{name}");
        let why = "error: this command cannot be a script: ";
        assert!(
            ran.stderr.starts_with(why) && ran.stderr.contains("\nhint: "),
            "{ran:?}"
        );
        refused += 1;
    }
    assert!(refused > 10, "{refused}");
    assert_eq!(world.run(&["stop", "--eject", "--dry-run"]).code, 2);
}

#[test]
fn a_script_asks_again_what_there_is() {
    let ok = |args: &str| answer(args, 0, "", "");
    let then = |labels: &str, there: i32| {
        let inspect = answer("container inspect --format", there, labels, "");
        let mut answers = vec![inspect, docker_version(), no_container("docker"), image()];
        answers.extend(["run", "exec", "stop", "rm"].map(ok));
        world("docker", &answers)
    };
    let script_of = |world: &World| ejected(world, SCRIPTS[2]);
    let changes = |world: &World| -> Vec<String> {
        let calls = world.calls();
        let word = |call: &String| call.split(' ').nth(1).unwrap().to_owned();
        let changes = |word: &String| ["run", "stop", "rm"].contains(&word.as_str());
        calls.iter().map(word).filter(changes).collect()
    };

    let ours = then("run\n", 0);
    let ran = sh(&ours, &script_of(&ours), &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "box\n"), "{ran:?}");
    assert_eq!(changes(&ours), ["stop", "rm", "run"]);
    assert!(ours.path("home/work").is_dir(), "the folder is made");

    let nothing = then("", 1);
    let ran = sh(&nothing, &script_of(&nothing), &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(changes(&nothing), ["run"]);

    for label in ["\n", "<no value>\n"] {
        let foreign = then(label, 0);
        let ran = sh(&foreign, &script_of(&foreign), &[]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(
            ran.stderr
                .ends_with("error: the container box is not ours\n"),
            "{ran:?}"
        );
        assert_eq!(changes(&foreign), [""; 0]);
        let stop = ejected(&foreign, &["stop"]);
        assert_eq!(sh(&foreign, &stop, &[]).code, 1);
        assert_eq!(changes(&foreign), [""; 0]);
    }
}

#[test]
fn a_script_takes_no_tag_from_somebody_elses_image() {
    let labels = |label: &str| {
        let labels = answer("image inspect --format", 0, label, "");
        let answers = [
            docker_version(),
            labels,
            no_image(),
            answer("build", 0, "", ""),
        ];
        let world = world("docker", &answers);
        let script = ejected(&world, SCRIPTS[1]);
        (
            sh(&world, &script, &[]),
            world.calls().last().unwrap().clone(),
        )
    };
    let (ran, last) = labels("\n");
    let theirs = "error: ghcr.io/x/y:dev-me is there already, and xtask did not build it\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (1, theirs));
    assert!(last.contains("image inspect"), "nothing is built: {last}");
    let (ran, _) = labels("ghcr.io/x/y\n");
    assert!(
        ran.stderr
            .contains("the build ended, but there is no image"),
        "{ran:?}"
    );
}

#[test]
fn a_script_refuses_what_it_was_not_made_for() {
    let answers = [docker_version(), no_image(), container("running", true)];
    let world = world("docker", &answers);
    let script = ejected(&world, SCRIPTS[2]);
    let ran = sh(&world, &script, &[]);
    let missing = "error: there is no image ghcr.io/x/y:dev-me: build it first\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (1, missing));

    let mut command = world.command_of(Path::new("/bin/sh"), &["-c", &script]);
    let ran = world.ran(&command.env_remove("OPENAI_API_KEY").output().unwrap());
    assert_ne!(ran.code, 0);
    assert!(
        ran.stderr
            .contains("OPENAI_API_KEY: the container is given it"),
        "{ran:?}"
    );

    let uid = script.lines().find(|line| line.contains("id -u")).unwrap();
    let other = script.replace(uid, &uid.replace("] ||", "] && [ 1 = 2 ] ||"));
    let ran = sh(&world, &other, &[]);
    assert!(
        ran.stderr.starts_with("error: this was made for the user "),
        "{ran:?}"
    );
}
