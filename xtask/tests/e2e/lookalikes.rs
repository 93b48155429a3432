//! A lookalikes full of what looks like ours and is not: names, labels, images, volumes, networks.
//! Every command that changes anything goes through it, and all of it is as it was.

use std::{collections::BTreeMap, fs, io::Write as _, process::Stdio};

use serde_json::Value;

use crate::{
    engines::{Checkout, CommandOutput, command_output},
    publish::edit,
};

/// How many there are, by kind; each is looked at after every command.
const CONTAINERS: usize = 6;
const IMAGES: usize = 6;

struct Lookalikes<'a> {
    checkout: &'a Checkout<'a>,
    /// A repository of its own, so that `clean --all` is about nothing but this.
    repository: String,
    names: BTreeMap<&'static str, Vec<String>>,
    /// How they were, by kind.
    before: BTreeMap<&'static str, Vec<Value>>,
}

impl<'a> Lookalikes<'a> {
    fn new(checkout: &'a Checkout<'a>) -> Self {
        Self {
            checkout,
            repository: format!("localhost/{}/agent-runner", checkout.container),
            names: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }

    fn reference(&self, version: &str) -> String {
        format!("{}:{version}", self.repository)
    }

    fn run(&self, args: &[&str]) -> CommandOutput {
        let config = self.checkout.src().join("target/buildx");
        let env = [
            ("XTASK_IMAGE_REPOSITORY", self.repository.as_str()),
            // The builder of our name is another test's.
            ("BUILDX_CONFIG", config.to_str().unwrap()),
        ];
        self.checkout.run_with(args, &env)
    }

    fn engine(&self, args: &[&str]) -> CommandOutput {
        let output = self.checkout.engine.run(args);
        assert_eq!(
            output.code, 0,
            "{} {args:?}: {output:?}",
            self.checkout.engine.name
        );
        output
    }

    /// A container that runs, with the labels that it inherits from our image and these.
    fn container(&mut self, name: &str, labels: &[&str]) {
        let reference = self.reference(&self.checkout.version);
        let mut args = vec!["run", "-d", "--name", name, "--network", "none"];
        for label in labels {
            args.extend(["--label", label]);
        }
        args.extend(["--entrypoint", "sleep", &reference, "600"]);
        self.engine(&args);
        self.note("container", name);
    }

    /// An image with nothing in it but a label, so that each is another one.
    fn image(&mut self, reference: &str, label: &str) {
        let mut import = self.checkout.engine.command(&[
            "import",
            "--change",
            &format!("LABEL {label}"),
            "-",
            reference,
        ]);
        let mut child = import
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(label.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "label", label.as_bytes())
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&tar.into_inner().unwrap()).unwrap();
        drop(input);
        let imported = command_output(&child.wait_with_output().unwrap());
        assert_eq!(imported.code, 0, "{imported:?}");
        self.note("image", reference);
    }

    /// What must not change of all of a kind, with one question.
    fn state(&self, kind: &str) -> Vec<Value> {
        let names = self.names[kind].iter().map(String::as_str);
        let line: Vec<_> = [kind, "inspect"].into_iter().chain(names).collect();
        let said = self.checkout.engine.run(&line).stdout;
        let found: Vec<Value> = serde_json::from_str(&said).unwrap_or_default();
        let pick = |one: &Value| match kind {
            "container" => [one["Id"].clone(), one["State"]["Running"].clone()],
            "image" => [one["Id"].clone(), one["RepoTags"].clone()],
            // Podman's networks are lower case.
            _ => [one["Name"].clone(), one["name"].clone()],
        };
        found.iter().map(|one| pick(one).into()).collect()
    }

    fn note(&mut self, kind: &'static str, name: &str) {
        self.names.entry(kind).or_default().push(name.to_owned());
    }

    /// From here on, nothing of it may change.
    fn is_whole(&mut self) {
        for (kind, names) in &self.names {
            let state = self.state(kind);
            assert_eq!(state.len(), names.len(), "{kind}: {state:?}");
            self.before.insert(kind, state);
        }
    }

    fn all_are_as_they_were(&self, after: &[&str]) {
        for (kind, before) in &self.before {
            let now = self.state(kind);
            assert_eq!(
                &now, before,
                "{}: {kind} after {after:?}",
                self.checkout.engine.name
            );
        }
    }

    /// Runs a command; whatever comes of it, nothing of the others' has changed.
    fn passes_through(&self, args: &[&str]) -> CommandOutput {
        let output = self.run(args);
        self.all_are_as_they_were(args);
        output
    }
}

impl Drop for Lookalikes<'_> {
    fn drop(&mut self) {
        for (kind, names) in &self.names {
            let all = |what: &[&'static str]| {
                let names = names.iter().map(String::as_str);
                let line: Vec<_> = what.iter().copied().chain(names).collect();
                self.checkout.engine.run(&line);
            };
            if *kind == "container" {
                // Podman would wait for each to stop.
                all(&["kill"]);
            }
            all(&[kind, "rm", "--force"]);
        }
        let reference = self.reference(&self.checkout.version);
        self.checkout.engine.run(&["image", "rm", &reference]);
    }
}

/// What is not ours is not touched, though it has our name, our image or our labels.
pub fn untouched(checkout: &Checkout) {
    let mut lookalikes = Lookalikes::new(checkout);
    let built = lookalikes.run(&["build-image"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let ours = checkout.container.clone();

    // Containers inherit an image's labels, so all of them have those too.
    lookalikes.container(&ours, &["com.docker.compose.project=shop"]);
    for part in ["-server", "-temporal", "-test-1", "-smoke-1"] {
        lookalikes.container(&format!("{ours}{part}"), &[]);
    }
    // Started by xtask, of another checkout, under another name.
    let other = format!("{ours}-second");
    lookalikes.container(&other, &["ai.stigmer.xtask.container=run"]);

    // In our repository under another tag, of a version that was never built, of a name that
    // only begins as ours, with our label for another repository, and the server's name.
    let repository = lookalikes.repository.clone();
    lookalikes.image(&lookalikes.reference("theirs"), "a=theirs");
    lookalikes.image(&lookalikes.reference("dev-taken"), "a=taken");
    lookalikes.image(
        &format!("{repository}-tools:{}", checkout.version),
        "a=tools",
    );
    lookalikes.image(
        &format!("localhost/{ours}/other:1"),
        "ai.stigmer.xtask.image=localhost/other",
    );
    let server = format!("localhost/agent-runner-devserver:{}", checkout.version);
    lookalikes.image(&server, "a=server");
    let list = format!(
        "localhost/agent-runner-xtask-release:{}-old",
        checkout.version
    );
    lookalikes.image(&list, "a=list");
    for kind in ["volume", "network"] {
        lookalikes.engine(&[kind, "create", &ours]);
        lookalikes.note(kind, &ours);
    }
    lookalikes.is_whole();
    let counted = |kind: &str| lookalikes.before[kind].len();
    assert_eq!(
        (counted("container"), counted("image")),
        (CONTAINERS, IMAGES)
    );

    for line in [
        &["run-local"][..],
        &["stop"],
        &["logs", "--no-follow"],
        &["shell", "--", "true"],
        &["up"],
    ] {
        let refused = lookalikes.passes_through(line);
        assert_eq!(refused.code, 1, "{line:?}: {}", refused.stderr);
        let why = format!("is not ours: it runs `{repository}:dev-e2e");
        assert!(
            refused.stderr.contains(&why),
            "{line:?}: {}",
            refused.stderr
        );
    }
    let down = lookalikes.passes_through(&["down"]);
    assert_eq!(down.code, 0, "{}", down.stderr);
    let smoke = lookalikes.passes_through(&["smoke"]);
    assert_eq!(smoke.code, 1, "{}", smoke.stderr);
    let why = format!("`{server}` exists already, and xtask did not build it");
    assert!(smoke.stderr.contains(&why), "{}", smoke.stderr);
    let status = lookalikes.passes_through(&["status"]);
    assert!(
        status.stdout.contains("not ours") || status.code != 0,
        "{status:?}"
    );

    // A build takes no name away.
    let taken = lookalikes.passes_through(&["build-image", "--version", "dev-taken"]);
    assert_eq!(taken.code, 1, "{}", taken.stderr);
    let why = format!("`{repository}:dev-taken` exists already, and xtask did not build it");
    assert!(taken.stderr.contains(&why), "{}", taken.stderr);
    let tested = lookalikes.passes_through(&["test-image"]);
    assert_eq!(tested.code, 0, "{}{}", tested.stdout, tested.stderr);

    // The image is in use, so it stays; the containers live on.
    for line in [&["clean", "--yes"][..], &["clean", "--all", "--yes"]] {
        if line.len() == 3 {
            // Cache mounts of its own: those of the others would be cold.
            let ids = format!("ARG CACHE_ID={ours}");
            edit(
                &checkout.src().join("Dockerfile"),
                "ARG CACHE_ID=agent-runner",
                &ids,
            );
        }
        let cleaned = lookalikes.passes_through(line);
        assert_eq!(cleaned.code, 0, "{}", cleaned.stderr);
        let stays = "stays: it is not ours";
        assert!(cleaned.stderr.contains(stays), "{}", cleaned.stderr);
    }
    // A person's files outlive all of it.
    let file = checkout.workspace().join("theirs");
    checkout.make_folder(&checkout.workspace());
    fs::write(&file, "kept").unwrap();
    lookalikes.passes_through(&["clean", "--all", "--yes"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}
