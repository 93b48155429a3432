//! What docs/engines.md says that each engine can do, held against the engine itself: without xtask,
//! by the command that needs it.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::engines::{
    Checkout, CommandOutput, DOCKER, DOCKER_20, DOCKER_20_CLIENT, DOCKER_26, DOCKER_26_CONTAINERD,
    DOCKER_CONTAINERD, PODMAN, PODMAN_5, PODMAN_ROOTLESS, RealEngine, command_output, var,
};

/// The head of the engine's column.
fn column(name: &str) -> &'static str {
    match name {
        DOCKER_20 | DOCKER_20_CLIENT => "Docker 20.10",
        DOCKER_26 => "Docker 26.1",
        DOCKER_26_CONTAINERD => "26.1, containerd",
        DOCKER => "Docker 28.5",
        DOCKER_CONTAINERD => "28.5, containerd",
        PODMAN | PODMAN_ROOTLESS => "Podman 4.3",
        PODMAN_5 => "Podman 5.4",
        other => panic!("no column for {other}"),
    }
}

/// The column, each cell with the head of its row.
fn claims(name: &str) -> Vec<(String, bool)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/engines.md")).unwrap();
    let table = page
        .split_once("<!-- table: capabilities -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- /table -->"))
        .unwrap()
        .0;
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = table.lines();
    let head = cells(lines.next().unwrap());
    let place = head.iter().position(|cell| cell == column(name)).unwrap();
    lines
        .skip(1)
        .map(cells)
        .map(|row| {
            let said = match row[place].as_str() {
                "yes" => true,
                "no" => false,
                other => panic!("{other}: {row:?}"),
            };
            (row[0].clone(), said)
        })
        .collect()
}

pub fn of_the_table(checkout: &Checkout) {
    let engine = checkout.engine;
    for (what, said) in claims(engine.name) {
        if let Some(found) = Trial::new(engine).of(&what) {
            assert_eq!(found, said, "{}: {what}", engine.name);
        }
    }
}

/// An image of one file: engines do otherwise with one that has no layer.
const SMALL: &str = "FROM scratch\nCOPY Dockerfile /\n";

/// A folder to build in, which is the engine's user's.
struct Trial<'a> {
    engine: &'a RealEngine,
    folder: TempDir,
}

impl<'a> Trial<'a> {
    fn new(engine: &'a RealEngine) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("xtask-e2e-can-")
            .tempdir()
            .unwrap();
        engine.hand_over(folder.path());
        Self { engine, folder }
    }

    fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// A name for what is built, in one engine's store.
    fn tag(&self) -> String {
        format!("localhost/xtask-e2e-can:{}", self.engine.name)
    }

    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> CommandOutput {
        let program = Path::new(self.engine.program);
        let mut command = self.engine.command_of(program, args, env);
        // What an engine does not understand as another kind of output it takes for a folder's name.
        command_output(&command.current_dir(self.path()).output().unwrap())
    }

    fn build(&self, dockerfile: &str, args: &[&str], env: &[(&str, &str)]) -> CommandOutput {
        fs::write(self.folder.path().join("Dockerfile"), dockerfile).unwrap();
        self.engine.hand_over(self.folder.path());
        let file = format!("{}/Dockerfile", self.path());
        let engine = if self.engine.program == "docker" {
            // The client of before 23 has another builder behind `docker build`.
            &["buildx", "build", "--builder=default"][..]
        } else {
            &["build"]
        };
        self.run(
            &[engine, &["--file", &file], args, &[self.path()]].concat(),
            env,
        )
    }

    /// Whether something has the name; nothing has it afterwards.
    fn there(&self) -> bool {
        let there = self.run(&["image", "inspect", &self.tag()], &[]).code == 0;
        // Podman's `image rm` takes only the name of a list and leaves the rest of it, which keeps the
        // engine from listing its images once those of the list are gone.
        for kind in ["manifest", "image"] {
            self.run(&[kind, "rm", &self.tag()], &[]);
        }
        there
    }

    /// Whether the engine can do what a row is about; none where this machine cannot tell.
    fn of(&self, what: &str) -> Option<bool> {
        let docker = self.engine.program == "docker";
        let rootless = self.engine.name == PODMAN_ROOTLESS;
        Some(if what.contains("cacheonly") {
            let tag = self.tag();
            let built = self.build(SMALL, &["--output=type=cacheonly", "--tag", &tag], &[]);
            built.code == 0 && !self.there()
        } else if what.starts_with("Cache mounts") {
            return self.cache_mounts();
        } else if what.contains("keep-id") {
            if !docker && !rootless {
                return None;
            }
            self.starts(&["--userns=keep-id:uid=1000,gid=1000"])
        } else if what.contains("slirp4netns") {
            if !docker && !rootless {
                return None;
            }
            self.starts(&["--network=slirp4netns:allow_host_loopback=true"])
        } else if what.contains("Several platforms") {
            let tag = self.tag();
            // As xtask does it.
            let name = if docker { "--tag" } else { "--manifest" };
            let both = ["--platform=linux/amd64,linux/arm64", name, &tag];
            let built = self.build(SMALL, &both, &[]);
            // Podman's lists are no images to every `image inspect`.
            let list = docker || self.run(&["manifest", "exists", &tag], &[]).code == 0;
            (self.there() || !docker) && list && built.code == 0
        } else if what.contains("buildx create") {
            let name = format!("xtask-e2e-can-{}", self.engine.name);
            let made = self.run(&["buildx", "create", "--name", &name], &[]);
            self.run(&["buildx", "rm", &name], &[]);
            made.code == 0
        } else if what.contains("--provenance") {
            let tried = self.build(SMALL, &["--provenance=mode=min"], &[]);
            !tried.stderr.contains("unknown flag: --provenance")
        } else {
            panic!("nobody tries `{what}`")
        })
    }

    /// Where Buildah keeps them: a folder for each user or for all. Docker's are in its daemon.
    fn cache_mounts(&self) -> Option<bool> {
        if self.engine.program == "docker" {
            return Some(true);
        }
        let base = var("XTASK_BUILD_BASE_IMAGE")?;
        let caches = self.folder.path().join("caches");
        fs::create_dir(&caches).unwrap();
        self.engine.hand_over(&caches);
        let tag = self.tag();
        let built = self.build(
            &format!("FROM {base}\nRUN --mount=type=cache,target=/cache true\n"),
            &["--network=host", "--no-cache", "--tag", &tag],
            &[("TMPDIR", caches.to_str().unwrap())],
        );
        assert_eq!(built.code, 0, "{}", built.stderr);
        assert!(self.there());
        let shared = caches.join("buildah-cache").exists();
        let own = fs::read_dir(&caches).unwrap().any(|entry| {
            let name = entry.unwrap().file_name();
            name.to_string_lossy().starts_with("buildah-cache-")
        });
        assert_ne!(shared, own, "one or the other");
        Some(own)
    }

    /// Whether a container can be made in this way. It needs no program: that it has none is said
    /// only after the options were read.
    fn starts(&self, options: &[&str]) -> bool {
        let tag = self.tag();
        let built = self.build(SMALL, &["--tag", &tag], &[]);
        assert_eq!(built.code, 0, "{}", built.stderr);
        let name = format!("xtask-e2e-can-{}", self.engine.name);
        let head = ["create", "--pull=never", "--name", &name];
        let made = self.run(&[&head, options, &[&tag, "/none"]].concat(), &[]);
        self.run(&["rm", "--force", &name], &[]);
        self.there();
        made.code == 0
    }
}
