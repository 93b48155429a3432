//! Failures between xtask and a registry at every step of a release, simulated by a proxy before a real
//! registry. Publishing an archive needs no engine.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::{
    engines::{CommandOutput, command_output},
    proxy::{Fault, Proxy},
    publication::{Image, Publication},
    registries::{kill_when, registries, say},
    remote::Remote,
};

const TAGS: [&str; 4] = ["1", "1.2", "1.2.3", "latest"];

/// A checkout with a valid archive, and a registry behind a proxy.
pub struct PublishFixture {
    pub publication: Publication,
    pub remote: Remote,
    pub proxy: Proxy,
}

impl PublishFixture {
    fn new(purpose: &str) -> Option<Self> {
        let remote = Remote::open(purpose)?;
        let host = remote.host.clone();
        Some(Self::at(remote, &host))
    }

    /// Publishes through a proxy to `registry`. The tests check the published images at `remote`.
    pub fn at(remote: Remote, registry: &str) -> Self {
        Self::of(remote, registry, Image::default())
    }

    pub fn of(remote: Remote, registry: &str, image: Image) -> Self {
        let proxy = Proxy::before(registry);
        let repository = format!("{}/{}", proxy.address, remote.path);
        Self {
            publication: Publication::new(&repository, image),
            remote,
            proxy,
        }
    }

    pub fn command(&self) -> Command {
        self.publication.push_archive()
    }

    /// Downloads the image, and compares it with its digests.
    pub fn verify(&self) -> CommandOutput {
        let args = ["verify-image", "--version", &self.publication.version];
        command_output(&self.publication.command(&args).output().unwrap())
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
            let digest = self.remote.digest(tag);
            assert_eq!(digest.as_ref(), Some(&self.publication.digest), "{tag}");
        }
    }

    pub fn assert_publishes(&self) -> CommandOutput {
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
        self.assert_failed(self.publish(), why)
    }

    /// As [`Self::fails`], with more arguments.
    fn fails_with(&self, more: &[&str], why: &str) -> CommandOutput {
        let failed = self.command().args(more).output().unwrap();
        self.assert_failed(command_output(&failed), why)
    }

    /// As [`Self::fails`], with more variables.
    fn fails_with_env(&self, env: &[(&str, &str)], why: &str) -> CommandOutput {
        self.assert_failed(self.publish_with(env), why)
    }

    fn assert_failed(&self, failed: CommandOutput, why: &str) -> CommandOutput {
        assert_eq!(failed.code, 1, "{}", failed.stderr);
        assert!(failed.stderr.contains(why), "{}", failed.stderr);
        assert!(self.remote.tags().is_empty(), "no tag moves");
        failed
    }
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
    let login = [("REGISTRY_TOKEN", "marked"), ("XTASK_REGISTRY_USER", "me")];
    for (number, (env, what)) in [
        (&[][..], "not signed in to "),
        (&login[..], "you may not push to "),
    ]
    .into_iter()
    .enumerate()
    {
        fixture
            .proxy
            .fail("POST", "/blobs/uploads/", Fault::Status(403, denied), 1);
        let failed = fixture.fails_with_env(env, what);
        assert!(
            failed
                .stderr
                .contains("status 403, denied: permission_denied: write_package"),
            "{}",
            failed.stderr
        );
        assert_eq!(fixture.proxy.count("POST", ""), number + 1);
        assert_eq!(fixture.proxy.count("PUT", ""), 0, "nothing was pushed");
    }
    fixture.assert_publishes();
}

#[test]
fn a_failed_push_moves_no_tag_and_can_be_resumed() {
    let Some(fixture) = PublishFixture::new("for-good") else {
        return;
    };
    let proxy = &fixture.proxy;
    proxy.fail("PUT", "/manifests/sha256:", Fault::Status(502, ""), 100);
    let failed = fixture.fails("the push failed; no tag was moved: ");
    assert!(
        failed.stderr.contains("xtask uploads only what is missing"),
        "{}",
        failed.stderr
    );
    // The manifests of both platforms are pushed at the same time.
    let attempts = proxy.count("PUT", "/manifests/");
    assert!((5..=10).contains(&attempts), "{attempts} attempts");
    let pushed = proxy.count("PUT", "/blobs/uploads/");
    assert_eq!(pushed, 4);
    proxy.recover();
    fixture.assert_publishes();
    assert_eq!(
        proxy.count("PUT", "/blobs/uploads/"),
        pushed,
        "the blobs are not uploaded again"
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

/// The layers that xtask has just pushed are downloaded again only on request.
#[test]
fn a_corrupted_layer_is_found_by_a_deep_verification() {
    let Some(fixture) = PublishFixture::new("spoiled-layer") else {
        return;
    };
    let proxy = &fixture.proxy;
    for layer in layers(&fixture.publication) {
        proxy.fail("GET", &layer, Fault::Spoil, 100);
    }
    let why = "the content does not match the digest and size in the manifest";
    let failed = fixture.fails_with(&["--verify", "deep"], why);
    assert!(
        failed.stderr.contains("no tag was moved"),
        "{}",
        failed.stderr
    );
    fixture.assert_publishes();
    let verified = fixture.verify();
    assert_eq!(verified.code, 1, "{}", verified.stderr);
    assert!(verified.stderr.contains(why), "{}", verified.stderr);
    proxy.recover();
    let verified = fixture.verify();
    assert_eq!(verified.code, 0, "{}", verified.stderr);
}

/// The digests of the layers in an archive, which are its largest blobs.
pub fn layers(publication: &Publication) -> Vec<String> {
    let mut archive = tar::Archive::new(fs::File::open(&publication.archive).unwrap());
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let layers = entries.filter(|entry| entry.size() > 10_000);
    layers
        .map(|entry| {
            let path = entry.path().unwrap().into_owned();
            format!("sha256:{}", path.file_name().unwrap().to_str().unwrap())
        })
        .collect()
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
    fixture.publication.git(&["tag", "v1.3.0"]);
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
    let publication = &fixture.publication;
    publication.git(&["commit", "-q", "--allow-empty", "-m", "y"]);
    publication.git(&["tag", "-f", "v1.2.3"]);
    let clone = publication.path().join("target/clone");
    let from = format!("file://{}", publication.path().display());
    publication.git(&[
        "clone",
        "-q",
        "--depth",
        "1",
        "--branch",
        "v1.2.3",
        &from,
        clone.to_str().unwrap(),
    ]);
    let proxy = &fixture.proxy;
    proxy.fail("GET", "/tags/list", Fault::Status(403, ""), 100);
    let failed = command_output(&fixture.command().current_dir(&clone).output().unwrap());
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
    assert!(fixture.remote.tags().is_empty());
}

/// Publishing needs no space on the disk, also when it downloads blobs. Only the receipt does: if it cannot be
/// written, the error says so, no half of it has its name, and the next run writes it.
#[test]
fn a_full_disk_costs_only_the_receipt() {
    let Some(fixture) = PublishFixture::new("full") else {
        return;
    };
    let folder = fixture.publication.path();
    fs::create_dir_all(folder.join("target/dist")).unwrap();
    // The channel's documents would be written before the push.
    let local = "schema = 1\n[[channel]]\nname = 'release'\nprovenance = false\nsbom = false\n";
    fs::write(folder.join("xtask.local.toml"), local).unwrap();
    // A small full disk in a mount namespace of its own.
    let line = format!(
        "mount -t tmpfs -o size=4k tmpfs target/dist || exit 99; head -c 4096 /dev/zero >target/dist/full; \
        {} push-archive --version 1.2.3 --verify deep target/a.oci.tar; code=$?; ls target/dist; exit $code",
        env!("CARGO_BIN_EXE_xtask")
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", &line]);
    let failed = command_output(&unshare.current_dir(folder).output().unwrap());
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
    let parts = [
        " is published, and the files about it cannot be written: ",
        "No space left on device",
        "hint: ",
    ];
    for part in parts {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    assert_eq!(failed.stdout, "full\n", "nothing is left behind");
    fixture.assert_published();
    fixture.assert_publishes();
    assert!(folder.join("target/dist/1.2.3.json").is_file());
}

/// A mirror, for example behind an air gap, gets the same digests.
#[test]
fn an_archive_can_be_pushed_to_a_mirror() {
    let (Some(fixture), Some(mirror)) = (PublishFixture::new("mirrored"), Remote::open("mirror"))
    else {
        return;
    };
    fixture.assert_publishes();
    let receipt = fixture.publication.path().join("target/dist/1.2.3.json");
    let before = fs::read_to_string(&receipt).unwrap();
    let place = mirror.repository();
    let run = |command: &str, more: &[&str]| {
        let mut line = Command::new(env!("CARGO_BIN_EXE_xtask"));
        line.args([command, "--version", "1.2.3"]).args(more);
        command_output(
            &line
                .current_dir(fixture.publication.path())
                .output()
                .unwrap(),
        )
    };
    let archive = fixture.publication.archive.to_str().unwrap();

    // Without `--repository`, the archive is for another repository.
    let env = [("XTASK_IMAGE_REPOSITORY", place.as_str())];
    let refused = fixture.publish_with(&env);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    let hint = format!("push-archive --version 1.2.3 --repository {place} ");
    assert!(refused.stderr.contains(&hint), "{}", refused.stderr);
    assert!(mirror.tags().is_empty());

    let done = run("push-archive", &["--repository", &place, archive]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(
        done.stdout,
        format!("{place}@{}\n", fixture.publication.digest)
    );
    assert_eq!(mirror.tags(), TAGS);
    assert_eq!(
        mirror.digest("latest").as_ref(),
        Some(&fixture.publication.digest)
    );
    let verified = run("verify-image", &["--repository", &place]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    assert!(verified.stdout.starts_with(&fixture.publication.digest));
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
    let before = fixture.publication.digest.clone();
    let repository = format!("{}/{}", fixture.proxy.address, fixture.remote.path);
    let image = Image {
        content: 2,
        ..Image::default()
    };
    fixture.publication = Publication::new(&repository, image);
    assert_ne!(fixture.publication.digest, before);

    let type_it = |typed: &str| {
        let line = format!(
            "{} push-archive --version 1.2.3 --force {}",
            env!("CARGO_BIN_EXE_xtask"),
            fixture.publication.archive.display()
        );
        let mut child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(fixture.publication.path())
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
    // How often the kill came before, between and after the tags.
    let (mut before, mut between, mut after) = (0, 0, 0);
    for (registry, host) in registries() {
        let new = |moment: usize| {
            let remote = Remote::at(&host, &format!("killed-{moment}"));
            PublishFixture::at(remote, &host)
        };
        let whole = new(0);
        whole.assert_publishes();
        let all = whole.proxy.count("", "");
        for moment in 0..20 {
            let fixture = new(moment);
            let wanted = 1 + moment * (all - 1) / 19;
            kill_when(fixture.command(), || {
                let is_now = fixture.proxy.count("", "") >= wanted;
                // Vary the moment between two requests.
                if is_now {
                    thread::sleep(Duration::from_millis(moment as u64 * 7 % 11));
                }
                is_now
            });
            let tags = fixture.remote.tags();
            match tags.len() {
                0 => before += 1,
                4 => after += 1,
                _ => between += 1,
            }
            for tag in &tags {
                let digest = fixture.remote.digest(tag);
                let expected = Some(&fixture.publication.digest);
                assert_eq!(digest.as_ref(), expected, "{registry}: {tag} at {moment}");
            }
            if !tags.is_empty() {
                // The image was verified before the first tag.
                assert!(tags.contains(&"1.2.3".to_owned()), "{tags:?} at {moment}");
                let configurations = fixture.proxy.count("GET", "/blobs/sha256:");
                assert!(configurations >= 2, "{registry}: at {moment}");
            }
            fixture.assert_publishes();
        }
    }
    if before + between + after > 0 {
        let counts = format!("{before} before, {between} between, {after} after the tags");
        say(&format!("killed: {counts}"));
        assert!(before > 5 && between > 0, "{counts}");
    }
}
