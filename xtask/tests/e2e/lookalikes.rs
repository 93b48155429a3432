//! Containers, images, volumes and networks that are similar to those of xtask but do not belong to it. No
//! command may change them.

use std::{collections::BTreeMap, fs, io::Write as _, process::Stdio};

use serde_json::Value;

use crate::{
    engines::{Checkout, CommandOutput, command_output},
    publish::edit,
};

/// The numbers of containers and images. Each command inspects all of them.
const CONTAINERS: usize = 6;
const IMAGES: usize = 6;

struct Lookalikes<'a> {
    checkout: &'a Checkout<'a>,
    /// A repository that only this test uses, so that `clean --all` affects no other test.
    repository: String,
    names: BTreeMap<&'static str, Vec<String>>,
    /// The states before the commands, by kind.
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
        let cache = self.checkout.src().join("target/cache");
        let env = [
            ("XTASK_IMAGE_REPOSITORY", self.repository.as_str()),
            // A separate configuration, because another test uses the builder of xtask.
            ("BUILDX_CONFIG", config.to_str().unwrap()),
            // `clean --all` removes the compressed layers, which other tests use.
            ("XDG_CACHE_HOME", cache.to_str().unwrap()),
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

    /// A running container with these labels. It also inherits the labels of our image.
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

    /// An image with nothing but a label. The label makes its id unique.
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

    /// The properties that must not change, for all objects of a kind.
    fn state(&self, kind: &str) -> Vec<Value> {
        let names = self.names[kind].iter().map(String::as_str);
        let line: Vec<_> = [kind, "inspect"].into_iter().chain(names).collect();
        let output = self.checkout.engine.run(&line).stdout;
        let found: Vec<Value> = serde_json::from_str(&output).unwrap_or_default();
        let pick = |one: &Value| match kind {
            "container" => [one["Id"].clone(), one["State"]["Running"].clone()],
            "image" => [one["Id"].clone(), one["RepoTags"].clone()],
            // Podman's networks have lower-case names of fields.
            _ => [one["Name"].clone(), one["name"].clone()],
        };
        found.iter().map(|one| pick(one).into()).collect()
    }

    fn note(&mut self, kind: &'static str, name: &str) {
        self.names.entry(kind).or_default().push(name.to_owned());
    }

    /// Records the state that must not change from now on.
    fn record(&mut self) {
        for (kind, names) in &self.names {
            let state = self.state(kind);
            assert_eq!(state.len(), names.len(), "{kind}: {state:?}");
            self.before.insert(kind, state);
        }
    }

    fn assert_unchanged(&self, after: &[&str]) {
        for (kind, before) in &self.before {
            let now = self.state(kind);
            assert_eq!(
                &now, before,
                "{}: {kind} after {after:?}",
                self.checkout.engine.name
            );
        }
    }

    /// Runs a command, and checks that it has changed none of the objects.
    fn run_and_compare(&self, args: &[&str]) -> CommandOutput {
        let output = self.run(args);
        self.assert_unchanged(args);
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
                // Podman's `rm --force` would wait for each container to stop.
                all(&["kill"]);
            }
            all(&[kind, "rm", "--force"]);
        }
        let reference = self.reference(&self.checkout.version);
        self.checkout.engine.run(&["image", "rm", &reference]);
    }
}

/// No command changes foreign objects that have our name, our image or our labels.
pub fn foreign_objects(checkout: &Checkout) {
    let mut lookalikes = Lookalikes::new(checkout);
    let built = lookalikes.run(&["build-image"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let ours = checkout.container.clone();

    // Containers inherit the image's labels, so all of these have the label of our images.
    lookalikes.container(&ours, &["com.docker.compose.project=shop"]);
    for part in ["-server", "-temporal", "-test-1", "-smoke-1"] {
        lookalikes.container(&format!("{ours}{part}"), &[]);
    }
    // A container that xtask started in another checkout, under another name.
    let other = format!("{ours}-second");
    lookalikes.container(&other, &["ai.stigmer.xtask.container=run"]);

    // Images with another tag in our repository, with the tag of a version that is not built, in a repository
    // whose name begins with ours, with our label for another repository, and with the server's name.
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
    lookalikes.record();
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
        let refused = lookalikes.run_and_compare(line);
        assert_eq!(refused.code, 1, "{line:?}: {}", refused.stderr);
        let why = format!("is not ours: it runs `{repository}:dev-e2e");
        assert!(
            refused.stderr.contains(&why),
            "{line:?}: {}",
            refused.stderr
        );
    }
    let down = lookalikes.run_and_compare(&["down"]);
    assert_eq!(down.code, 0, "{}", down.stderr);
    let smoke = lookalikes.run_and_compare(&["smoke"]);
    assert_eq!(smoke.code, 1, "{}", smoke.stderr);
    let why = format!("`{server}` exists already, and xtask did not build it");
    assert!(smoke.stderr.contains(&why), "{}", smoke.stderr);
    let status = lookalikes.run_and_compare(&["status"]);
    assert!(
        status.stdout.contains("not ours") || status.code != 0,
        "{status:?}"
    );

    // A build does not move the tag of a foreign image.
    let taken = lookalikes.run_and_compare(&["build-image", "--version", "dev-taken"]);
    assert_eq!(taken.code, 1, "{}", taken.stderr);
    let why = format!("`{repository}:dev-taken` exists already, and xtask did not build it");
    assert!(taken.stderr.contains(&why), "{}", taken.stderr);
    let tested = lookalikes.run_and_compare(&["test-image"]);
    assert_eq!(tested.code, 0, "{}{}", tested.stdout, tested.stderr);

    // Our image is in use and is kept. The containers keep running.
    for line in [&["clean", "--yes"][..], &["clean", "--all", "--yes"]] {
        if line.len() == 3 {
            // Separate cache mounts. Otherwise this test would empty the caches of the others.
            let ids = format!("ARG CACHE_ID={ours}");
            edit(
                &checkout.src().join("Dockerfile"),
                "ARG CACHE_ID=agent-runner",
                &ids,
            );
        }
        let cleaned = lookalikes.run_and_compare(line);
        assert_eq!(cleaned.code, 0, "{}", cleaned.stderr);
        let stays = "stays: it is not ours";
        assert!(cleaned.stderr.contains(stays), "{}", cleaned.stderr);
    }
    // No command removes a person's files.
    let file = checkout.workspace().join("theirs");
    checkout.make_folder(&checkout.workspace());
    fs::write(&file, "kept").unwrap();
    lookalikes.run_and_compare(&["clean", "--all", "--yes"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}
