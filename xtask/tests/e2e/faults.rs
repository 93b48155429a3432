//! Failures between xtask and a registry at every step of a release, simulated by a proxy before a real
//! registry. Publishing an archive needs no engine.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::{
    engines::{CommandOutput, command_output},
    proxy::{Fault, Proxy},
    remote::Remote,
};

const TAGS: [&str; 4] = ["1", "1.2", "1.2.3", "latest"];

/// A checkout with a valid archive, and a registry behind a proxy.
pub struct PublishFixture {
    folder: TempDir,
    pub remote: Remote,
    pub proxy: Proxy,
    archive: PathBuf,
    digest: String,
}

impl PublishFixture {
    fn new(purpose: &str) -> Option<Self> {
        let remote = Remote::open(purpose)?;
        let host = remote.host.clone();
        Some(Self::at(remote, &host))
    }

    /// Publishes through a proxy to `registry`. The tests check the published images at `remote`.
    pub fn at(remote: Remote, registry: &str) -> Self {
        let proxy = Proxy::before(registry);
        let folder = TempDir::new().unwrap();
        let project = format!(
            "schema = 1\n[image]\nrepository = '{}/{}'\n",
            proxy.address, remote.path
        );
        fs::write(folder.path().join("xtask.toml"), project).unwrap();
        fs::write(folder.path().join(".gitignore"), "/target/\n").unwrap();
        let mut fixture = Self {
            archive: folder.path().join("target/a.oci.tar"),
            folder,
            remote,
            proxy,
            digest: String::new(),
        };
        fixture.git(&["init", "-q"]);
        fixture.git(&["add", "-A"]);
        fixture.git(&["commit", "-q", "-m", "x"]);
        fixture.git(&["tag", "v1.2.3"]);
        fixture.digest = fixture.write_archive();
        fixture
    }

    fn git(&self, args: &[&str]) -> String {
        let who = ["-c", "user.name=x", "-c", "user.email=x@example.com"];
        let output = Command::new("git")
            .args(who)
            .args(args)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes an archive with both platforms. Each has its own program.
    fn write_archive(&self) -> String {
        let revision = self.git(&["rev-parse", "HEAD"]).trim().to_owned();
        fs::create_dir_all(self.archive.parent().unwrap()).unwrap();
        let mut archive = Blobs(tar::Builder::new(fs::File::create(&self.archive).unwrap()));
        let images: Vec<_> = [("amd64", 62), ("arm64", 183)]
            .map(|(arch, machine)| {
                let config = json!({
                    "architecture": arch, "os": "linux",
                    "config": {
                        "User": "stigmer",
                        "Healthcheck": { "Test": ["CMD", "probe"] },
                        "Labels": {
                            "org.opencontainers.image.version": "1.2.3",
                            "org.opencontainers.image.revision": revision,
                            "ai.stigmer.xtask.image": format!("{}/{}", self.proxy.address, self.remote.path),
                        },
                    },
                });
                let config = archive.add("application/vnd.docker.container.image.v1+json", config.to_string().as_bytes());
                let layer = archive.add("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer(machine));
                let manifest = json!({
                    "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                    "config": config, "layers": [layer],
                });
                let mut manifest = archive.add("application/vnd.docker.distribution.manifest.v2+json", manifest.to_string().as_bytes());
                manifest["platform"] = json!({ "architecture": arch, "os": "linux" });
                manifest
            })
            .into();
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
            "manifests": images,
        });
        let root = archive.add(
            "application/vnd.docker.distribution.manifest.list.v2+json",
            index.to_string().as_bytes(),
        );
        let top = json!({ "schemaVersion": 2, "manifests": [root] });
        archive.file("index.json", top.to_string().as_bytes());
        archive.0.into_inner().unwrap();
        root["digest"].as_str().unwrap().to_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(["push-archive", "--version", "1.2.3"])
            .arg(&self.archive)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn publish(&self) -> CommandOutput {
        self.publish_with(&[])
    }

    pub fn publish_with(&self, env: &[(&str, &str)]) -> CommandOutput {
        command_output(&self.command().envs(env.iter().copied()).output().unwrap())
    }

    /// Checks that the image is published and that all tags refer to it.
    fn assert_published(&self) {
        assert_eq!(self.remote.tags(), TAGS);
        for tag in TAGS {
            assert_eq!(
                self.remote.digest(tag).as_ref(),
                Some(&self.digest),
                "{tag}"
            );
        }
    }

    fn assert_publishes(&self) -> CommandOutput {
        self.assert_publishes_with(&[])
    }

    pub fn assert_publishes_with(&self, env: &[(&str, &str)]) -> CommandOutput {
        let done = self.publish_with(env);
        assert_eq!(done.code, 0, "{}", done.stderr);
        self.assert_published();
        done
    }

    /// Checks that publishing fails for this reason and moves no tag.
    fn fails(&self, why: &str) -> CommandOutput {
        let failed = self.publish();
        assert_eq!(failed.code, 1, "{}", failed.stderr);
        assert!(failed.stderr.contains(why), "{}", failed.stderr);
        assert!(self.remote.tags().is_empty(), "no tag moves");
        failed
    }
}

struct Blobs(tar::Builder<fs::File>);

impl Blobs {
    fn file(&mut self, name: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        self.0.append_data(&mut header, name, content).unwrap();
    }

    fn add(&mut self, media_type: &str, content: &[u8]) -> Value {
        let hex: String = Sha256::digest(content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.file(&format!("blobs/sha256/{hex}"), content);
        json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": content.len() })
    }
}

/// A compressed layer with a program for an architecture. Sending it takes some time.
fn layer(machine: u8) -> Vec<u8> {
    let mut program = vec![
        0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, machine, 0,
    ];
    // Data that cannot be compressed, different for each architecture.
    let mut state = u32::from(machine) + std::process::id();
    program.extend((0..200_000).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/program", &program[..])
        .unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("layer");
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    let gzip = Command::new("gzip")
        .args(["-nc"])
        .arg(&path)
        .output()
        .unwrap();
    gzip.stdout
}

#[test]
fn failed_requests_are_retried() {
    let Some(fixture) = PublishFixture::new("moment") else {
        return;
    };
    let proxy = &fixture.proxy;
    proxy.fail("POST", "/blobs/uploads/", Fault::Status(503, ""), 2);
    proxy.fail("HEAD", "/blobs/", Fault::Drop, 1);
    proxy.fail("PUT", "/blobs/uploads/", Fault::Drop, 1);
    proxy.fail("PUT", "/blobs/uploads/", Fault::LoseAnswer, 1);
    proxy.fail("PUT", "/manifests/sha256:", Fault::TooMany(1), 1);
    proxy.fail("GET", "/blobs/sha256:", Fault::Drop, 1);
    proxy.fail("PUT", "/manifests/1.2", Fault::Status(500, ""), 1);
    proxy.fail("PUT", "/manifests/latest", Fault::LoseAnswer, 1);
    let done = fixture.assert_publishes();
    let again = done.stderr.matches("; trying again in ").count();
    assert_eq!(again, 9, "the number of retries: {}", done.stderr);
    assert!(
        done.stderr
            .contains("status 503; trying again in 0.5 s (1 of 4)"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr
            .contains("status 503; trying again in 1.0 s (2 of 4)"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_refused_request_is_not_retried() {
    let Some(fixture) = PublishFixture::new("refusal") else {
        return;
    };
    let denied = r#"{"errors":[{"code":"DENIED","message":"permission_denied: write_package"}]}"#;
    fixture
        .proxy
        .fail("POST", "/blobs/uploads/", Fault::Status(403, denied), 1);
    let failed = fixture.fails("you may not push ");
    assert!(
        failed
            .stderr
            .contains("status 403, denied: permission_denied: write_package\nhint: "),
        "{}",
        failed.stderr
    );
    assert_eq!(fixture.proxy.count("POST", ""), 1);
    assert_eq!(fixture.proxy.count("PUT", ""), 0, "nothing was pushed");
    fixture.assert_publishes();
}

#[test]
fn a_failed_push_moves_no_tag_and_can_be_resumed() {
    let Some(fixture) = PublishFixture::new("for-good") else {
        return;
    };
    fixture
        .proxy
        .fail("PUT", "/manifests/sha256:", Fault::Status(502, ""), 5);
    let failed = fixture.fails("the push failed; no tag was moved: ");
    assert!(
        failed.stderr.contains("xtask uploads only what is missing"),
        "{}",
        failed.stderr
    );
    assert_eq!(
        fixture.proxy.count("PUT", "/manifests/"),
        5,
        "the number of attempts"
    );
    let pushed = fixture.proxy.count("PUT", "/blobs/uploads/");
    fixture.assert_publishes();
    let more = fixture.proxy.count("PUT", "/blobs/uploads/") - pushed;
    assert_eq!(
        more, 2,
        "only what was missing: the other platform's two blobs"
    );
}

#[test]
fn an_interrupted_promotion_is_completed_by_the_next_run() {
    let Some(fixture) = PublishFixture::new("promotion") else {
        return;
    };
    let proxy = &fixture.proxy;
    proxy.fail("PUT", "/manifests/1 ", Fault::Status(500, ""), 5);
    let failed = fixture.publish();
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    // Immutable tags are written first, and `latest` last.
    assert_eq!(fixture.remote.tags(), ["1.2", "1.2.3"]);
    let pushed = proxy.count("PUT", "/blobs/uploads/");
    let done = fixture.assert_publishes();
    assert!(
        done.stderr
            .contains("this commit's image is in the registry already"),
        "{}",
        done.stderr
    );
    assert_eq!(
        proxy.count("PUT", "/blobs/uploads/"),
        pushed,
        "nothing is pushed again"
    );
}

#[test]
fn a_corrupted_blob_gets_no_tag() {
    let Some(fixture) = PublishFixture::new("spoiled") else {
        return;
    };
    fixture
        .proxy
        .fail("GET", "/blobs/sha256:", Fault::Spoil, 100);
    let failed = fixture.fails("is not what it should be");
    assert!(
        failed.stderr.contains("no tag was moved"),
        "{}",
        failed.stderr
    );
}

#[test]
fn a_corrupted_manifest_gets_no_tag() {
    let Some(fixture) = PublishFixture::new("spoiled-manifest") else {
        return;
    };
    fixture
        .proxy
        .fail("GET", "/manifests/sha256:", Fault::Spoil, 100);
    fixture.fails("does not match its digest");
}

#[test]
fn git_tags_replace_an_unreadable_tag_list() {
    let Some(fixture) = PublishFixture::new("no-list") else {
        return;
    };
    fixture.git(&["tag", "v1.3.0"]);
    fixture
        .proxy
        .fail("GET", "/tags/list", Fault::Status(403, ""), 100);
    let done = fixture.publish();
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(
        done.stderr
            .contains("the git tags are used as the list of released versions"),
        "{}",
        done.stderr
    );
    assert_eq!(
        fixture.remote.tags(),
        ["1.2", "1.2.3"],
        "the other tags belong to 1.3.0"
    );
}

#[test]
fn a_shallow_clone_cannot_replace_the_tag_list() {
    let Some(fixture) = PublishFixture::new("shallow") else {
        return;
    };
    fixture.git(&["commit", "-q", "--allow-empty", "-m", "y"]);
    fixture.git(&["tag", "-f", "v1.2.3"]);
    let clone = fixture.folder.path().join("target/clone");
    let from = format!("file://{}", fixture.folder.path().display());
    fixture.git(&[
        "clone",
        "-q",
        "--depth",
        "1",
        "--branch",
        "v1.2.3",
        &from,
        clone.to_str().unwrap(),
    ]);
    let shallow = PublishFixture {
        archive: clone.join("target/a.oci.tar"),
        ..fixture
    };
    let archive = shallow.write_archive();
    assert!(!archive.is_empty());
    shallow
        .proxy
        .fail("GET", "/tags/list", Fault::Status(403, ""), 100);
    let failed = command_output(&shallow.command().current_dir(&clone).output().unwrap());
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    assert!(
        failed
            .stderr
            .contains("this clone has not all tags: it is shallow"),
        "{}",
        failed.stderr
    );
    assert!(
        failed.stderr.contains("`git fetch --tags --unshallow`"),
        "{}",
        failed.stderr
    );
    assert!(shallow.remote.tags().is_empty());
}

/// The disk is full while blobs are downloaded: the error is reported, no tag moves, and the temporary files
/// are removed.
#[test]
fn a_full_disk_moves_no_tag() {
    let Some(fixture) = PublishFixture::new("full") else {
        return;
    };
    let scratch = fixture.folder.path().join("target/dist");
    fs::create_dir_all(&scratch).unwrap();
    let words: String = ["push-archive", "--version", "1.2.3", "target/a.oci.tar"]
        .map(|word| format!(" {word}"))
        .concat();
    // A small disk in a mount namespace of its own.
    let line = format!(
        "mount -t tmpfs -o size=64k tmpfs target/dist || exit 99; {}{words}; code=$?; ls target/dist | grep -v json; exit $code",
        env!("CARGO_BIN_EXE_xtask")
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", &line]);
    let failed = command_output(&unshare.current_dir(fixture.folder.path()).output().unwrap());
    if failed.code == 99 || failed.stderr.starts_with("unshare: ") {
        assert!(
            crate::engines::var("XTASK_E2E_REQUIRE").is_none(),
            "{failed:?}"
        );
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"skipped: no right to mount a disk\n",
        );
        return;
    }
    assert_eq!(failed.code, 1, "{failed:?}");
    let why = "No space left on device";
    assert!(failed.stderr.contains(why), "{}", failed.stderr);
    assert!(failed.stderr.contains("hint: "), "{}", failed.stderr);
    assert_eq!(failed.stdout, "", "files are left on the disk");
    assert!(fixture.remote.tags().is_empty());
    fixture.assert_publishes();
}

/// A mirror, for example behind an air gap, gets the same digests.
#[test]
fn an_archive_can_be_pushed_to_a_mirror() {
    let (Some(fixture), Some(mirror)) = (PublishFixture::new("mirrored"), Remote::open("mirror"))
    else {
        return;
    };
    fixture.assert_publishes();
    let receipt = fixture.folder.path().join("target/dist/1.2.3.json");
    let before = fs::read_to_string(&receipt).unwrap();
    let place = mirror.repository();
    let run = |command: &str, more: &[&str]| {
        let mut line = Command::new(env!("CARGO_BIN_EXE_xtask"));
        line.args([command, "--version", "1.2.3"]).args(more);
        command_output(&line.current_dir(fixture.folder.path()).output().unwrap())
    };
    let archive = fixture.archive.to_str().unwrap();

    // Without `--repository`, the archive is for another repository.
    let env = [("XTASK_IMAGE_REPOSITORY", place.as_str())];
    let refused = fixture.publish_with(&env);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    let hint = format!("push-archive --version 1.2.3 --repository {place} ");
    assert!(refused.stderr.contains(&hint), "{}", refused.stderr);
    assert!(mirror.tags().is_empty());

    let done = run("push-archive", &["--repository", &place, archive]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(done.stdout, format!("{place}@{}\n", fixture.digest));
    assert_eq!(mirror.tags(), TAGS);
    assert_eq!(mirror.digest("latest").as_ref(), Some(&fixture.digest));
    let verified = run("verify-image", &["--repository", &place]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    assert!(verified.stdout.starts_with(&fixture.digest));
    // The mirror does not replace the receipt of the release.
    assert_eq!(fs::read_to_string(&receipt).unwrap(), before);
    assert_eq!(fixture.remote.tags(), TAGS);
}

/// `--force` overwrites a released tag only if a person types the tag.
#[test]
fn overwriting_a_released_tag_requires_typing_it() {
    let Some(mut fixture) = PublishFixture::new("typed") else {
        return;
    };
    fixture.assert_publishes();
    let before = fixture.digest.clone();
    fixture.git(&["commit", "-q", "--allow-empty", "-m", "y"]);
    fixture.git(&["tag", "-f", "v1.2.3"]);
    fixture.digest = fixture.write_archive();
    assert_ne!(fixture.digest, before);

    let type_it = |typed: &str| {
        let line = format!(
            "{} push-archive --version 1.2.3 --force {}",
            env!("CARGO_BIN_EXE_xtask"),
            fixture.archive.display()
        );
        let mut child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(fixture.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), typed.as_bytes()).unwrap();
        command_output(&child.wait_with_output().unwrap())
    };
    let refused = type_it("latest\n");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused
            .stdout
            .contains("nothing was overwritten: you did not type the tag"),
        "{refused:?}"
    );
    assert_eq!(fixture.remote.digest("1.2.3"), Some(before));

    let done = type_it("1.2.3\n");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stdout
            .contains("Everyone who uses it will get another image"),
        "{done:?}"
    );
    fixture.assert_published();
}

/// The push is killed at twenty moments, from the first request to the last. No tag ever refers to an
/// unverified image, and the next run completes the push.
#[test]
fn a_killed_push_leaves_no_wrong_tag() {
    let Some(fixture) = PublishFixture::new("killed-whole") else {
        return;
    };
    fixture.assert_publishes();
    let all = fixture.proxy.count("", "");
    let (mut before, mut between, mut after) = (0, 0, 0);
    for moment in 0..20 {
        let fixture = PublishFixture::new(&format!("killed-{moment}")).unwrap();
        let mut child = fixture.command().spawn().unwrap();
        let wanted = 1 + moment * (all - 1) / 19;
        while fixture.proxy.count("", "") < wanted && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        // Vary the moment between two requests.
        thread::sleep(Duration::from_millis(moment as u64 * 7 % 11));
        child.kill().unwrap();
        child.wait().unwrap();
        // The registry may still process the last request.
        thread::sleep(Duration::from_millis(100));
        let tags = fixture.remote.tags();
        match tags.len() {
            0 => before += 1,
            4 => after += 1,
            _ => between += 1,
        }
        for tag in &tags {
            assert_eq!(
                fixture.remote.digest(tag).as_ref(),
                Some(&fixture.digest),
                "{tag} at {moment}"
            );
        }
        if !tags.is_empty() {
            // The image was verified before the first tag.
            assert!(tags.contains(&"1.2.3".to_owned()), "{tags:?} at {moment}");
            assert!(
                fixture.proxy.count("GET", "/blobs/sha256:") >= 4,
                "at {moment}"
            );
        }
        fixture.assert_publishes();
    }
    let counts = format!("{before} before, {between} between, {after} after promotion");
    assert!(before > 5 && between > 0, "{counts}");
}
