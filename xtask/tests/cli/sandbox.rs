//! A sandbox: a checkout, a home folder, and a PATH that has only fake programs and a few real tools.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};
use tempfile::TempDir;

pub const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

pub struct Sandbox {
    folder: TempDir,
    env: Vec<(String, String)>,
}

/// The exit code and the complete output of a finished command.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    /// A checkout with this xtask.toml, and no engine.
    pub fn new(project: &str) -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["bin", "home", "src/deep/er"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("src/xtask.toml"), project).unwrap();
        let sandbox = Self {
            folder,
            env: Vec::new(),
        };
        for tool in ["sh", "mkdir", "chown", "id", "sleep"] {
            let real = which::which(tool).unwrap();
            symlink(real, sandbox.path("bin").join(tool)).unwrap();
        }
        sandbox
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds a fake engine to PATH, with its answers.
    pub fn engine(self, name: &str, answers: &[Value]) -> Self {
        symlink(fake_engine(), self.path("bin").join(name)).unwrap();
        fs::write(
            self.path("bin").join(format!("{name}.json")),
            json!(answers).to_string(),
        )
        .unwrap();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets a proxy answer under the name of every registry, with certificates of an authority in PEM.
    pub fn proxy(self, address: &str, authority: &str) -> Self {
        let file = self.path("ca.pem");
        fs::write(&file, authority).unwrap();
        self.env("HTTPS_PROXY", &format!("http://{address}"))
            .env("SSL_CERT_FILE", file.to_str().unwrap())
    }

    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(XTASK), args)
    }

    /// A command with another binary of xtask.
    pub fn command_of(&self, xtask: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(xtask);
        command
            .args(args)
            .current_dir(self.path("src/deep/er"))
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.path("home"))
            // No test sends requests to a registry of the internet.
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            // Podman's logins would otherwise be those of the user who runs the tests.
            .env("XDG_RUNTIME_DIR", self.path("run"))
            // Cargo sets it for `cargo xtask`.
            .env("CARGO_PKG_NAME", "xtask")
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str]) -> CommandOutput {
        self.command_output(&self.command(args).output().unwrap())
    }

    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    pub fn command_output(&self, output: &Output) -> CommandOutput {
        // Remove the random name of the temporary folder.
        let root = self.folder.path().to_string_lossy().into_owned();
        let output = command_output(output);
        CommandOutput {
            stdout: output.stdout.replace(&root, ""),
            stderr: output.stderr.replace(&root, ""),
            ..output
        }
    }

    /// The calls of fake programs, one a line.
    pub fn calls(&self) -> Vec<String> {
        let root = self.folder.path().to_string_lossy().into_owned();
        fs::read_to_string(self.path("bin/calls"))
            .unwrap_or_default()
            .lines()
            .map(|line| line.replace(&root, ""))
            .collect()
    }
}

pub fn command_output(output: &Output) -> CommandOutput {
    use std::os::unix::process::ExitStatusExt;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    CommandOutput {
        code: output
            .status
            .code()
            .unwrap_or_else(|| 1000 + output.status.signal().unwrap_or(0)),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// The program of the fake engines. It is an example, and `cargo test --test cli` does not build examples,
/// so this builds it. That takes a tenth of a second if it is up to date.
fn fake_engine() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&["xtask", "--example", "fake-engine"]).join("examples/fake-engine"))
}

/// Builds a package, or the part of it that the options name, beside xtask. Returns the folder of its programs.
pub fn build(package: &[&str]) -> PathBuf {
    let folder = Path::new(XTASK).parent().unwrap();
    let profile = match folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        // `cargo test` sets these. Cargo would compile crates again whose build scripts read them.
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    let built = command
        .args(["build", "--quiet", "--locked", "--profile", profile])
        .arg("--target-dir")
        .arg(folder.parent().unwrap())
        .arg("--package")
        .args(package)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "cannot build {package:?}");
    folder.to_owned()
}

/// Reports that a test is skipped because something is missing. In CI, where `XTASK_E2E_REQUIRE` is set, the
/// test fails instead. The test harness would capture the output of `eprintln!`.
pub fn skipped(what: &str) {
    assert!(
        std::env::var_os("XTASK_E2E_REQUIRE").is_none(),
        "required: {what}"
    );
    let _ = writeln!(std::io::stderr(), "skipped: no {what}");
}

/// An xtask.toml with the container name `box`.
pub const PROJECT: &str = "schema = 1\n\
    [image]\nrepository = 'ghcr.io/x/y'\n\
    [run]\ncontainer = 'box'\nworkspace = '~/work'\n";

pub const INSPECT_BOX: &str = "container inspect box";

pub fn answer(args: &str, code: i32, stdout: &str, stderr: &str) -> Value {
    json!({ "args": args, "code": code, "stdout": stdout, "stderr": stderr })
}

/// No answer for longer than any test waits.
pub fn hung(args: &str) -> Value {
    json!({ "args": args, "sleep_ms": 20_000 })
}

/// Docker 28.5.2's answer to `version`.
pub fn docker_version() -> Value {
    answer(
        "version",
        0,
        r#"{"Client":{"Version":"28.2.2","ApiVersion":"1.50","Os":"linux","Arch":"amd64","Context":"default"},"Server":{"Platform":{"Name":""},"Version":"28.5.2","ApiVersion":"1.51","Os":"linux","Arch":"amd64","Components":[{"Name":"Engine","Version":"28.5.2"}]}}"#,
        "",
    )
}

/// The answer of Docker's client if the daemon is not running.
pub fn docker_down(args: &str) -> Value {
    let stdout = if args == "version" {
        r#"{"Client":{"Version":"28.2.2","ApiVersion":"1.50","Context":"default"},"Server":null}"#
    } else {
        ""
    };
    answer(
        args,
        1,
        stdout,
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n",
    )
}

/// Podman 4.3.1's answer to `version`.
pub fn podman_version() -> Value {
    answer(
        "version",
        0,
        r#"{"Client":{"APIVersion":"4.3.1","Version":"4.3.1","GoVersion":"go1.19.8","GitCommit":"","BuiltTime":"Thu Jan  1 00:00:00 1970","Built":0,"OsArch":"linux/amd64","Os":"linux"}}"#,
        "",
    )
}

pub fn no_container(engine: &str) -> Value {
    match engine {
        "podman" => answer(
            INSPECT_BOX,
            125,
            "[]\n",
            "Error: inspecting object: no such container box\n",
        ),
        _ => answer(
            INSPECT_BOX,
            1,
            "[]\n",
            "Error response from daemon: No such container: box\n",
        ),
    }
}

/// The container is missing only in the first answer.
pub fn no_container_at_first() -> Value {
    let mut answer = no_container("docker");
    answer["times"] = 1.into();
    answer
}

/// Docker's description of the container `box`. xtask started it if `ours` is true.
pub fn container(status: &str, ours: bool) -> Value {
    let labels = if ours {
        json!({ "ai.stigmer.xtask.container": "run", "ai.stigmer.xtask.version": "dev-me" })
    } else {
        json!({ "com.docker.compose.project": "shop" })
    };
    let found = json!([{
        "Id": "0123456789abcdef", "Created": "2026-01-02T03:04:05.678Z", "Name": "/box",
        "State": { "Status": status, "Running": status == "running", "ExitCode": 3, "StartedAt": "2026-01-02T03:04:05.678Z" },
        "Config": { "Image": "ghcr.io/x/y:dev-me", "Labels": labels },
    }]);
    answer(INSPECT_BOX, 0, &found.to_string(), "")
}

/// Podman's description of our container `box`.
pub fn podman_container(status: &str) -> Value {
    let found = json!([{
        "Id": "fedcba9876543210", "Created": "2026-01-02T03:04:05.678+00:00", "Name": "box",
        "State": { "Status": status, "Running": status == "running", "Paused": status == "paused", "ExitCode": 0, "StartedAt": "2026-01-02T03:04:05.678+00:00" },
        "ImageName": "ghcr.io/x/y:dev-me",
        "Config": { "Image": "ghcr.io/x/y:dev-me", "Labels": { "ai.stigmer.xtask.container": "run", "ai.stigmer.xtask.version": "dev-me" } },
    }]);
    answer(INSPECT_BOX, 0, &found.to_string(), "")
}

/// Docker's description of an image with a health check.
pub fn image() -> Value {
    let found = json!([{
        "Id": "sha256:0123456789abcdef", "Os": "linux", "Architecture": "amd64",
        "RepoTags": ["ghcr.io/x/y:dev-me"],
        "Config": {
            "User": "stigmer", "Healthcheck": { "Test": ["CMD", "probe"] },
            "Labels": { "ai.stigmer.xtask.image": "ghcr.io/x/y" },
        },
    }]);
    answer("image inspect", 0, &found.to_string(), "")
}

/// An image of xtask with this version and these tags, as one element of what `image inspect` prints.
pub fn image_of(version: &str, tags: &[&str]) -> Value {
    json!({
        "Id": "sha256:0123456789abcdef", "Os": "linux", "Architecture": "amd64",
        "RepoTags": tags.iter().map(|tag| format!("ghcr.io/x/y:{tag}")).collect::<Vec<_>>(),
        "Config": { "Labels": {
            "ai.stigmer.xtask.image": "ghcr.io/x/y", "org.opencontainers.image.version": version,
        } },
    })
}

pub fn no_image() -> Value {
    answer(
        "image inspect",
        1,
        "[]\n",
        "Error response from daemon: No such image: ghcr.io/x/y:dev-me\n",
    )
}
