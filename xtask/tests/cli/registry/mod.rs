//! Publishing to registries with oddities that real ones have, each as one switch of a fake registry. What a
//! real registry can do is tested with real ones, in tests/e2e.

pub mod fake;
mod promotion;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use fake::{Auth, Busy, FakeRegistry, Location, Oddities, Pages};

use crate::{
    ports::free_port,
    publication::{Compression, Image, Publication, Types},
    sandbox::{CommandOutput, command_output, skipped},
};

const TAGS: [&str; 4] = ["1", "1.2", "1.2.3", "latest"];

/// A checkout that publishes to a fake registry.
struct Fixture {
    registry: FakeRegistry,
    publication: Publication,
}

impl Fixture {
    fn new(oddities: Oddities) -> Self {
        Self::of(oddities, Image::default())
    }

    fn of(oddities: Oddities, image: Image) -> Self {
        let registry = FakeRegistry::start(oddities);
        let repository = format!("{}/team/agent-runner", registry.address);
        Self {
            publication: Publication::new(&repository, image),
            registry,
        }
    }

    /// A registry at `ghcr.io`, which is reached through a proxy.
    fn at_ghcr(oddities: Oddities) -> Self {
        let registry = FakeRegistry::start(oddities);
        let publication = Publication::new("ghcr.io/team/agent-runner", Image::default());
        std::fs::write(
            publication.path().join("target/ca.pem"),
            registry.authority(),
        )
        .unwrap();
        Self {
            registry,
            publication,
        }
    }

    fn command(&self) -> Command {
        self.publication.push_archive()
    }

    /// As [`Self::command`], for a registry at `ghcr.io`.
    fn command_through_proxy(&self) -> Command {
        let mut command = self.command();
        command
            .env("HTTPS_PROXY", format!("http://{}", self.registry.address))
            .env(
                "SSL_CERT_FILE",
                self.publication.path().join("target/ca.pem"),
            );
        command
    }

    fn publish(&self) -> CommandOutput {
        self.publish_with(&[])
    }

    fn publish_with(&self, options: &[&str]) -> CommandOutput {
        command_output(&self.command().args(options).output().unwrap())
    }

    #[track_caller]
    fn assert_published(&self, output: &CommandOutput) {
        assert_eq!(output.code, 0, "{}", output.stderr);
        let tags = self.registry.tags();
        for tag in TAGS {
            assert_eq!(tags.get(tag), Some(&self.publication.digest), "{tag}");
        }
    }

    #[track_caller]
    fn assert_publishes(&self) -> CommandOutput {
        let output = self.publish();
        self.assert_published(&output);
        output
    }

    /// Checks that publishing fails with this message and moves no tag.
    #[track_caller]
    fn assert_fails(&self, message: &str) -> CommandOutput {
        let before = self.registry.tags();
        let output = self.publish();
        assert_eq!(output.code, 1, "{}", output.stderr);
        let text = output.stderr.replace(&self.registry.address, "REGISTRY");
        assert!(text.contains(message), "{text}");
        assert_eq!(self.registry.tags(), before, "no tag moves");
        output
    }
}

/// Gives a command the login that the registry accepts.
fn sign_in(command: &mut Command) {
    command
        .env("REGISTRY_TOKEN", "marked-password")
        .env("XTASK_REGISTRY_USER", "me");
}

#[test]
fn a_strict_registry_gets_an_image_over_few_connections() {
    let fixture = Fixture::new(Oddities::default());
    fixture.assert_publishes();
    // One that asks for TLS first, and at most four for the blobs.
    let connections = fixture.registry.connections();
    assert!(connections <= 6, "{connections} connections");
    assert_eq!(
        fixture.registry.count("GET /v2/team/agent-runner/blobs/"),
        2,
        "the configurations"
    );
    // The second run uploads and downloads nothing.
    fixture.registry.forget_requests();
    fixture.assert_publishes();
    assert_eq!(
        fixture.registry.count("PUT /v2/team/agent-runner/blobs/"),
        0
    );
    assert_eq!(
        fixture.registry.count("GET /v2/team/agent-runner/blobs/"),
        3,
        "one configuration in the preflight, and both when they are verified"
    );
}

#[test]
fn a_deep_verification_downloads_the_layers() {
    let fixture = Fixture::new(Oddities::default());
    fixture.assert_published(&fixture.publish_with(&["--verify", "deep"]));
    assert_eq!(
        fixture.registry.count("GET /v2/team/agent-runner/blobs/"),
        4
    );
}

/// A log shows which large downloads take time, as it does for uploads.
#[test]
fn the_download_of_a_large_layer_has_a_line() {
    for (size, is_large) in [(1_100_000, true), (200_000, false)] {
        let image = Image {
            size,
            ..Image::default()
        };
        let fixture = Fixture::of(Oddities::default(), image);
        let output = fixture.publish_with(&["--verify", "deep"]);
        fixture.assert_published(&output);
        let lines = output.stderr.lines();
        let count = lines
            .filter(|line| line.starts_with("        Read "))
            .count();
        assert_eq!(count, if is_large { 2 } else { 0 }, "{}", output.stderr);
    }
}

/// As in the commands that a dry run of `push-image` prints.
#[test]
fn an_input_with_the_name_of_an_unfinished_file_is_kept() {
    let fixture = Fixture::new(Oddities::default());
    let publication = &fixture.publication;
    let input = publication.path().join("target/dist/a.oci.tar.42.partial");
    std::fs::create_dir_all(input.parent().unwrap()).unwrap();
    std::fs::copy(&publication.archive, &input).unwrap();
    let path = input.to_str().unwrap();
    for args in [
        ["pack-archive", path, "--output", "target/b.oci.tar"],
        ["push-archive", "--version", "1.2.3", path],
    ] {
        let output = command_output(&publication.command(&args).output().unwrap());
        assert_eq!(output.code, 0, "{}", output.stderr);
        assert!(input.exists(), "{args:?}");
    }
}

/// A command needs the same memory for an image of any size: it sends layers, and reads them back, in parts.
#[cfg(target_os = "linux")] // the only system that tells the memory of another process in a file
#[test]
fn layers_are_not_held_in_memory() {
    let image = Image {
        size: 64_000_000,
        ..Image::default()
    };
    let fixture = Fixture::of(Oddities::default(), image);
    let mut command = fixture.command();
    command.args(["--verify", "deep"]);
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(300), "it hangs");
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        // Until the new process has loaded xtask, this is the memory of the test program, and the name is this thread's.
        let is_xtask = status.starts_with("Name:\txtask\n");
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        if let Some(kilobytes) = kilobytes.filter(|_| is_xtask) {
            peak = peak.max(kilobytes.parse::<u64>().unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    fixture.assert_published(&command_output(&child.wait_with_output().unwrap()));
    assert!((5_000..40_000).contains(&peak), "{peak} kB");
}

/// The storages of S3, Google and Azure are at other hosts. They get no credentials.
#[test]
fn blobs_may_be_in_a_storage_elsewhere() {
    for storage_refuses_head in [false, true] {
        let fixture = Fixture::new(Oddities {
            redirects_blobs: true,
            storage_refuses_head,
            auth: Auth::Bearer,
            ..Oddities::default()
        });
        for depth in ["shallow", "deep"] {
            let mut command = fixture.command();
            command.args(["--verify", depth]);
            sign_in(&mut command);
            fixture.assert_published(&command_output(&command.output().unwrap()));
        }
        let requests = fixture.registry.requests();
        let mut to_storage = requests.iter().filter(|line| line.contains("/storage/"));
        assert!(to_storage.clone().count() >= 4);
        assert!(
            to_storage.all(|line| !line.ends_with("auth")),
            "{requests:?}"
        );
    }
}

#[test]
fn the_location_of_an_upload_has_many_forms() {
    for location in [Location::Path, Location::Relative, Location::OtherHost] {
        let fixture = Fixture::new(Oddities {
            location,
            ..Oddities::default()
        });
        fixture.assert_publishes();
    }
    // Artifactory's are not below `/v2/`, and need the login too.
    for auth in [Auth::Basic, Auth::Bearer] {
        let fixture = Fixture::new(Oddities {
            location: Location::OtherPath,
            auth,
            ..Oddities::default()
        });
        let mut command = fixture.command();
        sign_in(&mut command);
        fixture.assert_published(&command_output(&command.output().unwrap()));
    }
    for location in [Location::DefaultPort, Location::WithoutTls] {
        let fixture = Fixture::at_ghcr(Oddities {
            location,
            auth: Auth::Basic,
            ..Oddities::default()
        });
        let mut command = fixture.command_through_proxy();
        sign_in(&mut command);
        fixture.assert_published(&command_output(&command.output().unwrap()));
    }
}

#[test]
fn a_blob_is_sent_in_two_requests_where_one_is_refused() {
    let fixture = Fixture::new(Oddities {
        no_single_put: true,
        ..Oddities::default()
    });
    fixture.assert_publishes();
    assert_eq!(fixture.registry.count("PATCH "), 4);
}

/// Harbor and ECR can forbid that tags change.
#[test]
fn immutable_tags_are_not_written_again() {
    let immutable = |status| Oddities {
        immutable_tags: Some(status),
        refuses_same_tag: true,
        ..Oddities::default()
    };
    let fixture = Fixture::new(immutable(409));
    fixture.assert_publishes();
    fixture.assert_publishes();
    for status in [400, 403, 409, 412] {
        let fixture = Fixture::new(immutable(status));
        fixture.registry.add_tags(&["1.2"]);
        let output = fixture.publish();
        assert_eq!(output.code, 1);
        let message = "/team/agent-runner:1.2 names another image, sha256:";
        assert!(output.stderr.contains(message), "{}", output.stderr);
        assert!(output.stderr.contains("does not let this tag move"));
    }
}

#[test]
fn what_was_written_may_be_visible_only_later() {
    let fixture = Fixture::new(Oddities {
        lag: Duration::from_millis(1500),
        ..Oddities::default()
    });
    fixture.assert_publishes();
}

/// A registry with several replicas returns the old and the new image in turns for a while.
#[test]
fn a_tag_may_name_its_old_image_again() {
    let fixture = Fixture::new(Oddities {
        replica_lag: Duration::from_secs(3),
        ..Oddities::default()
    });
    fixture.registry.add_tags(&["1.2", "1", "latest"]);
    fixture.assert_publishes();
}

/// Harbor's answer for a repository without images has another code than the specification's.
#[test]
fn a_repository_may_be_created_by_the_first_push() {
    for code in ["NAME_UNKNOWN", "NOT_FOUND"] {
        let fixture = Fixture::new(Oddities {
            code_of_missing: Some(code),
            ..Oddities::default()
        });
        // Git does not have all releases, as in a job that checks out a tag.
        let head = fixture.publication.git(&["rev-parse", "HEAD"]);
        std::fs::write(fixture.publication.path().join(".git/shallow"), head).unwrap();
        let output = fixture.assert_publishes();
        assert!(!output.stderr.contains("warning"), "{}", output.stderr);
    }
}

/// `latest` never moves back because the list of tags is in an unusual form, or cannot be read.
#[test]
fn a_list_of_tags_is_read_to_its_end() {
    for form in [
        "<{}>; rel=\"next\"",
        "<{}>;rel=next",
        "<{}>; REL='Next'",
        "</v2/x>; rel=\"prev\", <{}>; rel=\"next\"",
        "</v2/x>; rel=\"first\"|<{}>; rel=\"next\"",
        "<?{query}>; rel=\"next\"",
    ] {
        let fixture = Fixture::new(Oddities {
            pages: Pages::Linked(form),
            ..Oddities::default()
        });
        fixture
            .registry
            .add_tags(&["1.0.0", "1.9.0", "2", "2.0.0", "latest"]);
        let before = fixture.registry.tags()["latest"].clone();
        let output = fixture.publish();
        assert_eq!(output.code, 0, "{form}: {}", output.stderr);
        assert_eq!(fixture.registry.tags()["latest"], before, "{form}");
    }
    let fixture = Fixture::new(Oddities {
        max_page: Some(100),
        ..Oddities::default()
    });
    fixture.registry.add_tags(&["2.0.0", "latest"]);
    let before = fixture.registry.tags()["latest"].clone();
    assert_eq!(fixture.publish().code, 0);
    assert_eq!(fixture.registry.tags()["latest"], before);
}

/// The registry of go-containerregistry does so.
#[test]
fn a_list_of_tags_may_be_cut_without_a_link() {
    let fixture = Fixture::new(Oddities {
        pages: Pages::Cut,
        ..Oddities::default()
    });
    let older: Vec<_> = (0..1000).map(|patch| format!("1.1.{patch}")).collect();
    let mut tags: Vec<_> = older.iter().map(String::as_str).collect();
    tags.extend(["2.0.0", "latest"]);
    fixture.registry.add_tags(&tags);
    let before = fixture.registry.tags()["latest"].clone();
    let output = fixture.publish();
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(fixture.registry.tags()["latest"], before);
}

#[test]
fn a_list_of_tags_without_an_end_is_not_used() {
    let of_pages = |pages| Oddities {
        pages,
        ..Oddities::default()
    };
    let unclear = [
        "{}; rel=\"next\"",
        "\u{2039}{}\u{203a}; rel=\"next\"",
        "<{}>",
        "<{}; rel=\"next\"",
    ];
    let mut all = vec![Pages::Endless, Pages::Broken, Pages::Missing];
    all.extend(unclear.map(Pages::Linked));
    let mut all: Vec<_> = all.into_iter().map(of_pages).collect();
    all.push(Oddities {
        list_refusal: Some((200, r#"{"errors":[{"code":"UNAVAILABLE"}]}"#)),
        ..Oddities::default()
    });
    for oddities in all {
        let fixture = Fixture::new(oddities);
        fixture
            .registry
            .add_tags(&["1.0.0", "2.0.0", "2", "latest"]);
        let before = fixture.registry.tags()["latest"].clone();
        // Git's tags alone could lack a release, and the image that has the tag names no version.
        fixture.publication.git(&["tag", "v2.0.0"]);
        let output = fixture.publish();
        assert_eq!(output.code, 1, "{}", output.stderr);
        let why = "cannot find out which versions are released";
        assert!(output.stderr.contains(why), "{}", output.stderr);
        assert_eq!(fixture.registry.tags()["latest"], before);
    }
}

#[test]
fn a_mirror_takes_the_layers_over_from_its_repository() {
    let fixture = Fixture::new(Oddities {
        auth: Auth::Bearer,
        ..Oddities::default()
    });
    let publish = |more: &[&str]| {
        let mut command = fixture.command();
        command.args(more);
        sign_in(&mut command);
        fixture.assert_published(&command_output(&command.output().unwrap()));
    };
    publish(&[]);
    fixture.registry.forget_requests();
    let mirror = format!("{}/mirror/agent-runner", fixture.registry.address);
    publish(&["--no-preflight", "--repository", &mirror]);
    let requests = fixture.registry.requests();
    assert_eq!(
        fixture
            .registry
            .count("POST /v2/mirror/agent-runner/blobs/uploads/ 201"),
        4
    );
    assert!(
        !requests
            .iter()
            .any(|line| line.starts_with("PUT /v2/mirror/agent-runner/blobs/"))
    );
}

/// A registry may not have the related repository, or not let us read it.
#[test]
fn a_layer_that_cannot_be_taken_over_is_uploaded() {
    for (mount_refusal, refuses_second_scope) in [
        (Some(401), false),
        (Some(403), false),
        (Some(404), false),
        (None, true),
    ] {
        let fixture = Fixture::new(Oddities {
            auth: Auth::Bearer,
            mount_refusal,
            refuses_second_scope,
            ..Oddities::default()
        });
        let mirror = format!("{}/mirror/agent-runner", fixture.registry.address);
        let mut command = fixture.command();
        command.args(["--no-preflight", "--repository", &mirror]);
        sign_in(&mut command);
        fixture.assert_published(&command_output(&command.output().unwrap()));
        let uploads = fixture
            .registry
            .count("PUT /v2/mirror/agent-runner/blobs/uploads/");
        assert_eq!(uploads, 4);
    }
}

/// A garbage collection that was interrupted leaves such notes.
#[test]
fn a_blob_that_the_storage_lost_is_uploaded_again() {
    let fixture = Fixture::new(Oddities {
        redirects_blobs: true,
        redirects_missing_blobs: true,
        ..Oddities::default()
    });
    fixture.assert_publishes();
}

#[test]
fn a_refusal_of_the_storage_is_shown() {
    let fixture = Fixture::new(Oddities {
        redirects_blobs: true,
        storage_refusal: Some((
            403,
            "<?xml version=\"1.0\"?><Error><Code>RequestTimeTooSkewed</Code><Message>The clock \
             differs.</Message></Error>",
        )),
        ..Oddities::default()
    });
    let output = fixture.publish();
    assert_eq!(output.code, 1);
    let port = fixture.registry.address.rsplit(':').next().unwrap();
    let why = format!("status 403 from localhost:{port}, RequestTimeTooSkewed: The clock differs.");
    assert!(output.stderr.contains(&why), "{}", output.stderr);
}

#[test]
fn a_server_may_refuse_to_be_asked_first() {
    let image = Image {
        size: 1_500_000,
        ..Image::default()
    };
    let oddities = Oddities {
        refuses_expect: true,
        ..Oddities::default()
    };
    Fixture::of(oddities, image).assert_publishes();
}

/// In CI, a registry is often started a moment before it is used.
#[test]
fn a_registry_may_start_late() {
    let address = format!("127.0.0.1:{}", free_port());
    let repository = format!("{address}/team/agent-runner");
    let publication = Publication::new(&repository, Image::default());
    let child = publication.push_archive().spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let listener = std::net::TcpListener::bind(address).unwrap();
    let oddities = Oddities {
        is_plain: true,
        ..Oddities::default()
    };
    let registry = FakeRegistry::listen(listener, oddities);
    let output = command_output(&child.wait_with_output().unwrap());
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stderr.contains("trying again"), "{}", output.stderr);
    assert_eq!(registry.tags()["latest"], publication.digest);
}

#[test]
fn a_proxy_that_fails_for_a_moment_is_asked_again() {
    let fixture = Fixture::at_ghcr(Oddities {
        refused_tunnels: 2,
        ..Oddities::default()
    });
    let output = command_output(&fixture.command_through_proxy().output().unwrap());
    fixture.assert_published(&output);
    let why = "it answers with status 503; trying again in ";
    assert!(output.stderr.contains(why), "{}", output.stderr);
}

/// cosign 3 stores what refers to an image as referrers, cosign 2 under tags.
#[test]
fn a_mirror_takes_over_what_refers_to_the_image() {
    for has_referrers in [false, true] {
        let oddities = Oddities {
            has_referrers,
            ..Oddities::default()
        };
        // The source keeps its list of referrers in the other way.
        let fixture = Fixture::new(Oddities {
            has_referrers: !has_referrers,
            ..Oddities::default()
        });
        fixture.assert_publishes();
        let (source, digest) = (&fixture.registry, &fixture.publication.digest);
        let repository = "team/agent-runner";
        let list = digest.replace(':', "-");
        let artifact = |content| source.add_artifact(repository, Some(digest), None, content);
        let referrers = ["signature", "attestation"].map(artifact);
        if has_referrers {
            source.add_index(&list, &referrers);
        }
        let tags = ["sig", "att", "sbom"].map(|ending| format!("{list}.{ending}"));
        for tag in &tags {
            source.add_artifact(repository, None, Some(tag), tag);
        }

        // The mirror has one already.
        let mirror = FakeRegistry::start(oddities);
        let own = mirror.add_artifact("mirror", Some(digest), None, "own");
        if !has_referrers {
            mirror.add_index(&list, std::slice::from_ref(&own));
        }
        let to = format!("{}/mirror", mirror.address);
        // The second run changes nothing.
        for _ in 0..2 {
            let output = fixture.command().args(["--repository", &to]).output();
            let output = command_output(&output.unwrap());
            assert_eq!(output.code, 0, "{}", output.stderr);
            let copied = "Copied 5 signatures and attestations\n";
            assert!(output.stderr.contains(copied), "{}", output.stderr);
            for tag in &tags {
                assert_eq!(mirror.tags()[tag], source.tags()[tag]);
            }
            let all = [&own].into_iter().chain(&referrers);
            let mut all: Vec<_> = all.map(|one| one["digest"].as_str().unwrap()).collect();
            all.sort_unstable();
            let mut listed = if has_referrers {
                mirror.referrers(digest)
            } else {
                mirror.index(&list)
            };
            listed.sort();
            assert_eq!(listed, all);
            let has_tag = mirror.tags().contains_key(&list);
            assert_eq!(has_tag, !has_referrers, "only one of them is the list");
        }
    }
}

#[test]
fn a_busy_registry_says_until_when() {
    for busy in [Busy::Date, Busy::Epoch] {
        let fixture = Fixture::new(Oddities {
            busy,
            ..Oddities::default()
        });
        let begin = Instant::now();
        fixture.assert_publishes();
        assert!(begin.elapsed() > Duration::from_millis(900));
        assert!(begin.elapsed() < Duration::from_secs(15));
    }
}

#[test]
fn a_manifest_is_sent_again_after_another_push_of_its_blobs() {
    Fixture::new(Oddities {
        doubts_first_manifest: true,
        ..Oddities::default()
    })
    .assert_publishes();
}

#[test]
fn an_attestation_is_sent_after_its_image() {
    let oddities = Oddities {
        needs_subject: true,
        ..Oddities::default()
    };
    let image = Image {
        types: Types::Oci,
        is_attested: true,
        ..Image::default()
    };
    Fixture::of(oddities, image).assert_publishes();
}

#[test]
fn refusals_say_what_to_do() {
    let oddities = Oddities {
        max_upload: Some(1_000_000),
        ..Oddities::default()
    };
    let image = Image {
        size: 1_500_000,
        ..Image::default()
    };
    let fixture = Fixture::of(oddities, image);
    let output = fixture.assert_fails(
        "REGISTRY does not accept an upload of 1.5 MB: status 413, 413 Request Entity Too Large\n",
    );
    // A busy machine may miss the early answer once, and try again for that reason.
    let mut lines = output.stderr.lines();
    assert!(
        !lines.any(|line| line.contains("413") && line.contains("trying again")),
        "{}",
        output.stderr
    );
    assert!(
        output.stderr.contains("`client_max_body_size "),
        "{}",
        output.stderr
    );

    let fixture = Fixture::new(Oddities {
        only_oci: true,
        ..Oddities::default()
    });
    let output = fixture.assert_fails(
        "REGISTRY does not accept manifests of the type `application/vnd.docker.distribution.",
    );
    assert!(
        output.stderr.contains("\"compat\": [\"docker2s2\"]"),
        "{}",
        output.stderr
    );
    let image = Image {
        types: Types::Oci,
        ..Image::default()
    };
    Fixture::of(
        Oddities {
            only_oci: true,
            ..Oddities::default()
        },
        image,
    )
    .assert_publishes();

    let fixture = Fixture::new(Oddities {
        needs_repository: true,
        ..Oddities::default()
    });
    fixture.assert_fails("REGISTRY has no repository `team/agent-runner`");

    let fixture = Fixture::new(Oddities {
        auth: Auth::Bearer,
        forbids_anonymous: true,
        ..Oddities::default()
    });
    fixture.assert_fails("not signed in to REGISTRY, which is needed to ");

    // Artifact Registry gives a token to everybody.
    let fixture = Fixture::new(Oddities {
        auth: Auth::Bearer,
        forbids_weak_token: true,
        ..Oddities::default()
    });
    let output = fixture.assert_fails(
        "not signed in to REGISTRY, which is needed to push to REGISTRY/team/agent-runner (status 403, denied: unauthenticated request)",
    );
    assert!(output.stderr.contains("sign in: `"), "{}", output.stderr);
}

/// As those of some base images.
#[test]
fn layers_compressed_with_zstd_are_published_as_they_are() {
    if which::which("zstd").is_err() {
        return skipped("zstd");
    }
    let image = Image {
        types: Types::Oci,
        compression: Compression::Zstd,
        ..Image::default()
    };
    let fixture = Fixture::of(Oddities::default(), image);
    fixture.assert_published(&fixture.publish_with(&["--verify", "deep"]));
}

#[test]
fn a_registry_that_refuses_every_token_is_not_asked_for_ever() {
    let fixture = Fixture::new(Oddities {
        auth: Auth::NewTokens,
        ..Oddities::default()
    });
    fixture.assert_fails("not signed in to REGISTRY, which is needed to push to ");
    assert!(fixture.registry.count("POST ") <= 4);
}

#[test]
fn an_archive_that_gets_shorter_ends_the_push() {
    let image = Image {
        size: 20_000_000,
        ..Image::default()
    };
    let fixture = Fixture::of(Oddities::default(), image);
    let archive = std::fs::OpenOptions::new()
        .write(true)
        .open(&fixture.publication.archive)
        .unwrap();
    let child = fixture.command().spawn().unwrap();
    while fixture.registry.count("POST ") == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    archive.set_len(10_000).unwrap();
    let output = command_output(&child.wait_with_output().unwrap());
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(fixture.registry.tags().is_empty());
}

/// Another run in the same checkout writes its archive under the same name.
#[test]
fn an_archive_that_is_replaced_is_pushed_to_its_end() {
    let fixture = Fixture::new(Oddities {
        busy: Busy::Date,
        ..Oddities::default()
    });
    let archive = &fixture.publication.archive;
    let child = fixture.command().spawn().unwrap();
    while fixture.registry.count("PUT ") == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let other = archive.with_extension("other");
    let repository = format!("{}/team/agent-runner", fixture.registry.address);
    let image = Image {
        content: 2,
        size: 100,
        ..Image::default()
    };
    fixture
        .publication
        .write_archive(&other, &repository, image);
    std::fs::rename(other, archive).unwrap();
    fixture.assert_published(&command_output(&child.wait_with_output().unwrap()));
}

#[test]
fn a_download_goes_on_after_the_connection_was_lost() {
    for ignores_range in [false, true] {
        let fixture = Fixture::new(Oddities {
            drops_downloads: 2,
            ignores_range,
            ..Oddities::default()
        });
        let output = fixture.publish_with(&["--verify", "deep"]);
        fixture.assert_published(&output);
        assert!(
            output.stderr.contains("the download goes on"),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn a_signal_ends_a_request_that_has_no_answer() {
    let fixture = Fixture::new(Oddities {
        hangs: true,
        ..Oddities::default()
    });
    let child = fixture.command().spawn().unwrap();
    while fixture.registry.count("hangs") == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let begin = Instant::now();
    let mut kill = Command::new("kill");
    kill.args(["-TERM", &child.id().to_string()]);
    assert!(kill.status().unwrap().success());
    let output = command_output(&child.wait_with_output().unwrap());
    assert_eq!(output.code, 143, "{}", output.stderr);
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(!output.stderr.contains("trying again"), "{}", output.stderr);
}

#[test]
fn the_reason_for_a_refused_download_is_shown() {
    let fixture = Fixture::new(Oddities {
        blob_refusal: Some((403, "the quota of downloads is used up")),
        ..Oddities::default()
    });
    let output = fixture.publish();
    assert_eq!(output.code, 1);
    let reason = "status 403, denied: the quota of downloads is used up";
    assert!(output.stderr.contains(reason), "{}", output.stderr);
    assert!(fixture.registry.tags().is_empty());
}

#[test]
fn a_reading_command_asks_for_no_more_than_reading() {
    let fixture = Fixture::new(Oddities {
        auth: Auth::Bearer,
        ..Oddities::default()
    });
    let mut command = fixture.command();
    sign_in(&mut command);
    let output = command_output(&command.output().unwrap());
    fixture.assert_published(&output);
    assert!(!format!("{output:?}").contains("marked"));
    let mut verify = fixture
        .publication
        .command(&["verify-image", "--version", "1.2.3"]);
    let output = command_output(&verify.output().unwrap());
    assert_eq!(output.code, 0, "{}", output.stderr);
}

#[test]
fn a_version_is_verified_by_its_own_tag() {
    let project = "[[channel]]\nname = 'release'\ntags = ['latest', '{version}']\n";
    let image = Image {
        project,
        ..Image::default()
    };
    let fixture = Fixture::of(Oddities::default(), image);
    assert_eq!(fixture.publish().code, 0);
    let newer = fixture.publication.path().join("target/b.oci.tar");
    let repository = format!("{}/team/agent-runner", fixture.registry.address);
    let image = Image {
        version: "1.2.4",
        content: 2,
        ..image
    };
    let digest = fixture
        .publication
        .write_archive(&newer, &repository, image);
    fixture.publication.git(&["tag", "v1.2.4"]);
    let newer = newer.to_str().unwrap();
    let run = |args: &[&str]| {
        let output = command_output(&fixture.publication.command(args).output().unwrap());
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.stdout
    };
    run(&["push-archive", "--version", "1.2.4", newer]);
    assert_eq!(fixture.registry.tags()["latest"], digest);
    let verified = run(&["verify-image", "--version", "1.2.3"]);
    assert!(
        verified.starts_with(&fixture.publication.digest),
        "{verified}"
    );
    let dry = run(&["verify-image", "--version", "1.2.3", "--dry-run"]);
    assert_eq!(dry, format!("# read {repository}:1.2.3\n"));
}

/// A registry without TLS that is not on this machine must be configured as insecure.
#[test]
fn an_insecure_registry_is_used_only_by_configuration() {
    let registry = FakeRegistry::start(Oddities::default());
    let port = registry.address.rsplit(':').next().unwrap();
    // The name leads to this machine, but is not `localhost`.
    let host = format!("r.localhost:{port}");
    let resolves = std::net::ToSocketAddrs::to_socket_addrs(&host).is_ok();
    let host = if resolves {
        host
    } else {
        format!("0.0.0.0:{port}")
    };
    let publication = Publication::new(&format!("{host}/team/agent-runner"), Image::default());
    let output = command_output(&publication.push_archive().output().unwrap());
    assert_eq!(output.code, 1);
    let message = format!("set `registry.insecure = [\"{host}\"]` in xtask.local.toml");
    assert!(
        output.stderr.contains(&message) || output.stderr.contains("certificate"),
        "{}",
        output.stderr
    );
    assert!(registry.tags().is_empty());
    let mut command = publication.push_archive();
    command.env("XTASK_REGISTRY_INSECURE", &host);
    let output = command_output(&command.output().unwrap());
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(registry.tags()["latest"], publication.digest);
}

#[test]
fn a_certificate_is_trusted_by_its_authority_alone() {
    let fixture = Fixture::at_ghcr(Oddities::default());
    let mut command = fixture.command_through_proxy();
    command.env_remove("SSL_CERT_FILE");
    let output = command_output(&command.output().unwrap());
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(
        output
            .stderr
            .contains("ghcr.io cannot be reached: its certificate is refused: "),
        "{}",
        output.stderr
    );
    // The folder that Podman reads.
    let folder = fixture
        .publication
        .path()
        .join("home/.config/containers/certs.d/ghcr.io");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("ca.crt"), fixture.registry.authority()).unwrap();
    fixture.assert_published(&command_output(&command.output().unwrap()));
    let requests = fixture.registry.requests();
    assert!(
        requests[0].starts_with("CONNECT ghcr.io:443 "),
        "{requests:?}"
    );
}

/// Docker's documentation suggests `openssl req -x509` for a registry of one's own. That certificate is an
/// authority's and a server's at once, which Go accepts.
#[test]
fn a_self_signed_certificate_can_be_trusted() {
    let fixture = Fixture::at_ghcr(Oddities {
        is_self_signed: true,
        ..Oddities::default()
    });
    let mut command = fixture.command_through_proxy();
    command.env_remove("SSL_CERT_FILE");
    let output = command_output(&command.output().unwrap());
    assert_eq!(output.code, 1, "{}", output.stderr);
    let folder = fixture
        .publication
        .path()
        .join("home/.config/docker/certs.d/ghcr.io");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("ca.crt"), fixture.registry.authority()).unwrap();
    fixture.assert_published(&command_output(&command.output().unwrap()));
}

#[test]
fn a_client_certificate_is_shown_to_its_registry() {
    let fixture = Fixture::at_ghcr(Oddities {
        wants_client_certificate: true,
        ..Oddities::default()
    });
    let output = command_output(&fixture.command_through_proxy().output().unwrap());
    assert_eq!(output.code, 1, "{}", output.stderr);
    let folder = fixture
        .publication
        .path()
        .join("home/.config/containers/certs.d/ghcr.io");
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = fixture.registry.client_certificate();
    std::fs::write(folder.join("me.cert"), certificate).unwrap();
    std::fs::write(folder.join("me.key"), key).unwrap();
    let output = command_output(&fixture.command_through_proxy().output().unwrap());
    fixture.assert_published(&output);
}

#[test]
fn a_proxy_that_does_not_answer_is_named() {
    let fixture = Fixture::at_ghcr(Oddities::default());
    let mut command = fixture.command_through_proxy();
    command.env("HTTPS_PROXY", "http://me:marked@127.0.0.1:1");
    let output = command_output(&command.output().unwrap());
    assert_eq!(output.code, 1);
    let message = "ghcr.io cannot be reached through the proxy http://127.0.0.1:1: ";
    assert!(output.stderr.contains(message), "{}", output.stderr);
    assert!(!output.stderr.contains("marked"), "{}", output.stderr);
    // A registry on this machine is reached without it.
    let fixture = Fixture::new(Oddities::default());
    let mut command = fixture.command();
    command.env("HTTP_PROXY", "http://127.0.0.1:1");
    command.env("HTTPS_PROXY", "http://127.0.0.1:1");
    fixture.assert_published(&command_output(&command.output().unwrap()));
}
