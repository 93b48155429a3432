//! Checks the table of docs/engines.md with real engines. The checks run the engine's own commands, without
//! xtask.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::engines::{
    Checkout, CommandOutput, DOCKER, DOCKER_20, DOCKER_20_CLIENT, DOCKER_26, DOCKER_26_CONTAINERD,
    DOCKER_29, DOCKER_CONTAINERD, DOCKER_ROOTLESS, PODMAN, PODMAN_5, PODMAN_6, PODMAN_ROOTLESS,
    RealEngine, command_output, var,
};

/// The heading of the engine's column.
fn column(name: &str) -> &'static str {
    match name {
        DOCKER_20 | DOCKER_20_CLIENT => "Docker 20.10",
        DOCKER_26 => "Docker 26.1",
        DOCKER_26_CONTAINERD => "26.1, containerd",
        DOCKER | DOCKER_ROOTLESS => "Docker 28.5",
        DOCKER_CONTAINERD => "28.5, containerd",
        DOCKER_29 => "Docker 29",
        PODMAN | PODMAN_ROOTLESS => "Podman 4.3",
        PODMAN_5 => "Podman 5.4",
        PODMAN_6 => "Podman 6.1",
        other => panic!("no column for {other}"),
    }
}

/// The cells of the column, each with the first cell of its row.
fn expected_capabilities(name: &str) -> Vec<(String, bool)> {
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
            let claimed = match row[place].as_str() {
                "yes" => true,
                "no" => false,
                other => panic!("{other}: {row:?}"),
            };
            (row[0].clone(), claimed)
        })
        .collect()
}

pub fn match_the_table(checkout: &Checkout) {
    let engine = checkout.engine;
    for (what, claimed) in expected_capabilities(engine.name) {
        if let Some(found) = Trial::new(engine).has_capability(&what) {
            assert_eq!(found, claimed, "{}: {what}", engine.name);
        }
    }
}

/// An image of one file. Engines handle an image without layers differently.
const SMALL: &str = "FROM scratch\nCOPY Dockerfile /\n";

/// A build folder that belongs to the engine's user.
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

    /// The name of the built image, which is unique for each engine.
    fn tag(&self) -> String {
        format!("localhost/xtask-e2e-can:{}", self.engine.name)
    }

    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> CommandOutput {
        let program = Path::new(self.engine.program);
        let mut command = self.engine.command_of(program, args, env);
        // An engine that does not support a kind of output writes to a folder of that name.
        command_output(&command.current_dir(self.path()).output().unwrap())
    }

    fn build(&self, dockerfile: &str, args: &[&str], env: &[(&str, &str)]) -> CommandOutput {
        fs::write(self.folder.path().join("Dockerfile"), dockerfile).unwrap();
        self.engine.hand_over(self.folder.path());
        let file = format!("{}/Dockerfile", self.path());
        let engine = if self.engine.program == "docker" {
            // Before Docker 23, `docker build` uses the legacy builder.
            &["buildx", "build", "--builder=default"][..]
        } else {
            &["build"]
        };
        self.run(
            &[engine, &["--file", &file], args, &[self.path()]].concat(),
            env,
        )
    }

    /// Whether an image has the name. Afterwards the name is free.
    fn exists_then_remove(&self) -> bool {
        let there = self.run(&["image", "inspect", &self.tag()], &[]).code == 0;
        // Podman's `image rm` removes only the name of a manifest list. The remaining list would make `image
        // ls` fail after its images are removed.
        for kind in ["manifest", "image"] {
            self.run(&[kind, "rm", &self.tag()], &[]);
        }
        there
    }

    /// Whether the engine has a row's capability; none if this machine cannot check it.
    fn has_capability(&self, what: &str) -> Option<bool> {
        let docker = self.engine.program == "docker";
        let rootless = self.engine.name == PODMAN_ROOTLESS;
        Some(if what.contains("cacheonly") {
            let tag = self.tag();
            let built = self.build(SMALL, &["--output=type=cacheonly", "--tag", &tag], &[]);
            built.code == 0 && !self.exists_then_remove()
        } else if what.starts_with("A stage taken") {
            let tag = self.tag();
            assert_eq!(self.build(SMALL, &["--tag", &tag], &[]).code, 0);
            let stage = format!("--build-context=part=container-image://{tag}");
            // Without the context, the stage would fail.
            let dockerfile =
                "FROM scratch AS part\nCOPY missing /\nFROM part\nCOPY Dockerfile /copy\n";
            let built = self.build(
                dockerfile,
                &[&stage, "--tag", &format!("{tag}-of-part")],
                &[],
            );
            self.run(&["image", "rm", &format!("{tag}-of-part")], &[]);
            self.exists_then_remove() && built.code == 0
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
            // xtask uses the same options.
            let name = if docker { "--tag" } else { "--manifest" };
            let both = ["--platform=linux/amd64,linux/arm64", name, &tag];
            let built = self.build(SMALL, &both, &[]);
            // In some versions, `image inspect` does not find Podman's manifest lists.
            let list = docker || self.run(&["manifest", "exists", &tag], &[]).code == 0;
            (self.exists_then_remove() || !docker) && list && built.code == 0
        } else if what.contains("buildx create") {
            let name = format!("xtask-e2e-can-{}", self.engine.name);
            let made = self.run(&["buildx", "create", "--name", &name], &[]);
            self.run(&["buildx", "rm", &name], &[]);
            made.code == 0
        } else {
            panic!("no check for `{what}`")
        })
    }

    /// Whether each user has a folder for cache mounts. Buildah keeps them in a folder, Docker in its daemon.
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
        assert!(self.exists_then_remove());
        let shared = caches.join("buildah-cache").exists();
        let own = fs::read_dir(&caches).unwrap().any(|entry| {
            let name = entry.unwrap().file_name();
            name.to_string_lossy().starts_with("buildah-cache-")
        });
        assert_ne!(shared, own, "one or the other");
        Some(own)
    }

    /// Whether a container can be created with these options. The image contains no program, but the engine
    /// checks the options first.
    fn starts(&self, options: &[&str]) -> bool {
        let tag = self.tag();
        let built = self.build(SMALL, &["--tag", &tag], &[]);
        assert_eq!(built.code, 0, "{}", built.stderr);
        let name = format!("xtask-e2e-can-{}", self.engine.name);
        let head = ["create", "--pull=never", "--name", &name];
        let made = self.run(&[&head, options, &[&tag, "/none"]].concat(), &[]);
        self.run(&["rm", "--force", &name], &[]);
        self.exists_then_remove();
        made.code == 0
    }
}
