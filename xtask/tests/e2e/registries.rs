//! Publishing to several real registries. What they hold is compared with what other programs read there.
//! Most of it needs no engine.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    engines::{Checkout, CommandOutput, command_output, var},
    faults::{PublishFixture, layers},
    proxy::Fault,
    publication::{self, Compression, Image, Publication, Types},
    publish::Publisher,
    remote::Remote,
    small,
};

/// The registries, each with the environment variable that has its address.
const REGISTRIES: [(&str, &str); 4] = [
    ("distribution 2", "XTASK_E2E_REGISTRY"),
    ("distribution 3", "XTASK_E2E_DISTRIBUTION_REGISTRY"),
    ("distribution 3 with S3", "XTASK_E2E_S3_REGISTRY"),
    ("crane registry", "XTASK_E2E_CRANE_REGISTRY"),
];

/// The registries of this machine. A missing one is skipped; in CI that fails.
pub fn registries() -> impl Iterator<Item = (&'static str, String)> {
    REGISTRIES
        .into_iter()
        .filter_map(|(name, variable)| Some((name, present(name, var(variable))?)))
}

fn present<T>(name: &str, found: Option<T>) -> Option<T> {
    if found.is_none() {
        assert!(
            var("XTASK_E2E_REQUIRE").is_none(),
            "{name} is required and missing"
        );
        say(&format!("skipped: no {name}"));
    }
    found
}

/// The test harness would capture the output of `eprintln!`.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Another program that reads registries.
enum Reader {
    Crane(String),
    Regctl(String),
    Oras(String),
    Skopeo(String),
}

impl Reader {
    /// The readers of this machine. A missing one is skipped; in CI that fails.
    fn all() -> Vec<Self> {
        let skopeo = which::which("skopeo").ok();
        let skopeo = skopeo.map(|path| path.to_str().unwrap().to_owned());
        [
            present("crane", var("XTASK_E2E_CRANE").map(Self::Crane)),
            present("regctl", var("XTASK_E2E_REGCTL").map(Self::Regctl)),
            present("oras", var("XTASK_E2E_ORAS").map(Self::Oras)),
            present("skopeo", skopeo.map(Self::Skopeo)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The digest and the platforms of an image.
    fn read(&self, host: &str, reference: &str) -> (String, BTreeSet<String>) {
        let disabled = format!("reg={host},tls=disabled");
        let for_skopeo = format!("docker://{reference}");
        let run = |program: &str, args: &[&str]| {
            let done = command_output(&Command::new(program).args(args).output().unwrap());
            assert_eq!(done.code, 0, "{program} {args:?}: {}", done.stderr);
            done.stdout
        };
        let (digest, manifest) = match self {
            Self::Crane(crane) => (
                run(crane, &["digest", "--insecure", reference]),
                run(crane, &["manifest", "--insecure", reference]),
            ),
            Self::Regctl(regctl) => {
                let host = ["--host", &disabled];
                let head = [&["manifest", "head", reference][..], &host].concat();
                let get = ["manifest", "get", reference, "--format", "raw-body"];
                (run(regctl, &head), run(regctl, &[&get[..], &host].concat()))
            }
            Self::Oras(oras) => (
                run(oras, &["resolve", "--plain-http", reference]),
                run(oras, &["manifest", "fetch", "--plain-http", reference]),
            ),
            Self::Skopeo(skopeo) => {
                let inspect = ["inspect", "--tls-verify=false", &for_skopeo];
                let digest = [&inspect[..], &["--format", "{{.Digest}}"]].concat();
                (
                    run(skopeo, &digest),
                    run(skopeo, &[&inspect[..], &["--raw"]].concat()),
                )
            }
        };
        assert_eq!(publication::digest(manifest.as_bytes()), digest.trim());
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let images = manifest["manifests"].as_array().unwrap();
        let platforms = images.iter().map(|image| &image["platform"]);
        let platforms = platforms
            .filter(|platform| platform["os"] != "unknown")
            .map(|platform| {
                let part = |name: &str| platform[name].as_str().unwrap().to_owned();
                format!("{}/{}", part("os"), part("architecture"))
            });
        (digest.trim().to_owned(), platforms.collect())
    }
}

/// An image of the tests. Images with the same `content` share their layers.
fn image(version: &str, content: u32) -> Image<'_> {
    Image {
        version,
        content,
        ..Image::default()
    }
}

fn run(mut command: Command) -> CommandOutput {
    command_output(&command.output().unwrap())
}

/// Publishes an archive. Returns the number of blobs that were uploaded.
#[track_caller]
fn push(publication: &Publication) -> usize {
    let done = run(publication.push_archive());
    assert_eq!(done.code, 0, "{}", done.stderr);
    done.stderr.matches(" Pushed ").count()
}

/// The platforms that `verify-image` finds.
#[track_caller]
fn verify(publication: &Publication) -> BTreeSet<String> {
    let args = ["verify-image", "--version", &publication.version, "--json"];
    let done = run(publication.command(&args));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["digest"], publication.digest.as_str());
    platforms_in(&report)
}

/// The platforms in what `verify-image --json` prints.
fn platforms_in(report: &Value) -> BTreeSet<String> {
    let platforms = report["platforms"].as_array().unwrap();
    let platforms = platforms.iter().map(|one| one["platform"].as_str());
    platforms.map(|one| one.unwrap().to_owned()).collect()
}

/// Every reader finds under each of the tags what xtask has verified.
fn assert_readers_agree(
    readers: &[Reader],
    remote: &Remote,
    tags: &[&str],
    digest: &str,
    platforms: &BTreeSet<String>,
) {
    for tag in tags {
        let reference = format!("{}:{tag}", remote.repository());
        for reader in readers {
            let found = reader.read(&remote.host, &reference);
            assert_eq!(found, (digest.to_owned(), platforms.clone()), "{reference}");
        }
    }
}

/// A row of the table: what was done in one registry, and how it went.
struct Row {
    registry: &'static str,
    cells: Vec<(&'static str, String)>,
}

impl Row {
    fn add(&mut self, operation: &'static str, work: impl FnOnce() -> String) {
        let begin = Instant::now();
        let result = work();
        let seconds = begin.elapsed().as_secs_f64();
        let cell = format!("{result}, {seconds:.1} s");
        self.cells.push((operation, cell));
    }
}

fn table(rows: &[Row]) -> String {
    let Some(first) = rows.first() else {
        return String::new();
    };
    let mut text = format!("{:23}", "");
    for (operation, _) in &first.cells {
        text.push_str(&format!(" {operation:17}"));
    }
    for row in rows {
        text.push_str(&format!("\n{:23}", row.registry));
        for (_, cell) in &row.cells {
            text.push_str(&format!(" {cell:17}"));
        }
    }
    text
}

/// Tags of older versions: more than a registry lists at once. Those of newer versions come after them.
const OLDER: &str = "1.1.[1-1100]";

#[test]
fn every_registry_does_what_releases_need() {
    let readers = Reader::all();
    let rows: Vec<_> = registries()
        .map(|(registry, host)| releases(registry, &host, &readers))
        .collect();
    say(&table(&rows));
}

fn releases(registry: &'static str, host: &str, readers: &[Reader]) -> Row {
    let remote = Remote::at(host, "releases");
    // A number of its own, because some registries share blobs between their repositories.
    let content = host.rsplit(':').next().unwrap().parse().unwrap();
    let new = |image: Image| Publication::new(&remote.repository(), image);
    let mut row = Row {
        registry,
        cells: Vec::new(),
    };
    let first = new(image("1.2.3", content));
    row.add("first push", || {
        let count = push(&first);
        assert!((3..=4).contains(&count), "{registry}: {count} uploads");
        for tag in ["1", "1.2", "1.2.3", "latest"] {
            assert_eq!(remote.digest(tag).as_ref(), Some(&first.digest), "{tag}");
        }
        let (_, amd64) = &remote.images("1.2.3")[0];
        let layer = &remote.manifest(amd64)["layers"][0]["digest"];
        let redirects = remote.redirects(layer.as_str().unwrap());
        assert_eq!(redirects, registry.ends_with("S3"), "{registry}");
        format!("{count} uploads")
    });
    row.add("the same again", || {
        let count = push(&first);
        assert_eq!(count, 0, "{registry}");
        format!("{count} uploads")
    });
    let second = new(image("1.2.4", content));
    row.add("shared layers", || {
        let count = push(&second);
        assert_eq!(count, 2, "{registry}: the configurations");
        format!("{count} uploads")
    });
    let zstd = new(Image {
        types: Types::Oci,
        compression: match present("zstd", which::which("zstd").ok()) {
            Some(_) => Compression::Zstd,
            None => Compression::Gzip,
        },
        ..image("1.2.5", content)
    });
    row.add("OCI types, zstd", || format!("{} uploads", push(&zstd)));
    row.add("many tags", || {
        remote.add_tags("latest", OLDER);
        remote.add_tags("latest", "2.0.0");
        format!("{} tags", remote.tags().len())
    });
    let last = new(image("1.2.6", content));
    row.add("an older line", || {
        let count = push(&last);
        let latest = remote.digest("latest");
        assert_eq!(latest.as_ref(), Some(&zstd.digest), "{registry}");
        format!("{count} uploads")
    });
    row.add("killed, resumed", || killed_and_resumed(host, content + 1));
    row.add("read by others", || {
        for (publication, tags) in [
            (&first, &["1.2.3"][..]),
            (&second, &["1.2.4"]),
            (&zstd, &["1.2.5", "latest", "2.0.0", "1.1.1100"]),
            (&last, &["1.2.6", "1.2", "1"]),
        ] {
            let platforms = verify(publication);
            assert_readers_agree(readers, &remote, tags, &publication.digest, &platforms);
        }
        format!("{} agree", readers.len())
    });
    row
}

/// Kills a push after it has uploaded a part. The next run uploads only the rest.
fn killed_and_resumed(host: &str, content: u32) -> String {
    let remote = Remote::at(host, "resumed");
    let fixture = PublishFixture::of(remote, host, image("1.2.3", content));
    let uploads = |part: &str| fixture.proxy.count("PUT", part);
    // This layer gets lost at first.
    let layer = layers(&fixture.publication)[0].replace("sha256:", "");
    fixture.proxy.fail("PUT", &layer, Fault::Drop, 1);
    kill_when(fixture.command(), || {
        let is_lost = uploads(&layer) > 0;
        if is_lost {
            // The others arrive before the next attempt.
            thread::sleep(Duration::from_millis(300));
        }
        is_lost
    });
    assert!(fixture.remote.tags().is_empty());
    assert_eq!(uploads(&layer), 1);
    let before = uploads("/blobs/uploads/");
    fixture.assert_publishes();
    verify(&fixture.publication);
    assert_eq!(uploads(&layer), 2);
    let count = uploads("/blobs/uploads/") - before;
    assert!(count <= 3, "{count} uploads");
    format!("{count} uploads")
}

/// Starts a command, and kills it at a moment. If it ends before, nothing is killed.
pub fn kill_when(mut command: Command, is_now: impl Fn() -> bool) {
    let mut child = command.spawn().unwrap();
    while !is_now() && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The registry may still process the last request.
    thread::sleep(Duration::from_millis(100));
}

/// Two releases at the same time, from two checkouts. The newer one has the moving tags.
#[test]
fn of_two_racing_releases_the_newer_one_is_the_latest() {
    for (registry, host) in registries() {
        for race in 0..20_u64 {
            let remote = Remote::at(&host, "race");
            let racers = ["1.2.4", "1.2.5"]
                .map(|version| Publication::new(&remote.repository(), image(version, 1)));
            let mut order: Vec<_> = racers.iter().collect();
            if race % 2 == 1 {
                order.reverse();
            }
            let running: Vec<_> = order
                .into_iter()
                .map(|racer| {
                    let child = racer.push_archive().spawn().unwrap();
                    thread::sleep(Duration::from_millis(race * 5));
                    child
                })
                .collect();
            for child in running {
                let done = command_output(&child.wait_with_output().unwrap());
                assert_eq!(done.code, 0, "{registry}, {race}: {}", done.stderr);
            }
            let [older, newer] = racers.each_ref().map(|racer| Some(&racer.digest));
            for (tag, expected) in [
                ("1.2.4", older),
                ("1.2.5", newer),
                ("1.2", newer),
                ("1", newer),
                ("latest", newer),
            ] {
                let digest = remote.digest(tag);
                assert_eq!(digest.as_ref(), expected, "{registry}, {race}: {tag}");
            }
        }
    }
}

/// Two runs publish different images as the same version at the same time. All tags name the image of one run, and a
/// run that fails says which image that is.
#[test]
fn of_two_racing_images_of_a_version_one_has_all_tags() {
    for (registry, host) in registries() {
        for race in 0..20_u64 {
            let remote = Remote::at(&host, "same-version");
            let racers = [1, 2]
                .map(|content| Publication::new(&remote.repository(), image("1.2.4", content)));
            let running = racers.each_ref().map(|racer| {
                let child = racer.push_archive().spawn().unwrap();
                thread::sleep(Duration::from_millis(race * 5));
                child
            });
            let ended = running.map(|child| command_output(&child.wait_with_output().unwrap()));
            let winner = remote.digest("1.2.4").unwrap();
            for tag in ["1.2", "1", "latest"] {
                let digest = remote.digest(tag);
                assert_eq!(digest.as_ref(), Some(&winner), "{registry}, {race}: {tag}");
            }
            for (racer, done) in racers.iter().zip(&ended) {
                if done.code == 0 {
                    continue;
                }
                let stderr = &done.stderr;
                assert_ne!(racer.digest, winner, "{registry}, {race}: {stderr}");
                let refusals = [
                    format!("names {winner}, not {}: another run", racer.digest),
                    format!("is released already, as {winner} "),
                ];
                let is_named = refusals.iter().any(|refusal| stderr.contains(refusal));
                assert!(is_named, "{registry}, {race}: {stderr}");
            }
            let has_won = ended.iter().any(|done| done.code == 0);
            assert!(has_won, "{registry}, {race}");
        }
    }
}

/// Archives that an engine built, of two versions, which share all layers.
pub fn built_archives(checkout: &Checkout) {
    let readers = Reader::all();
    let all: Vec<_> = registries().collect();
    let Some((_, host)) = all.first() else {
        return;
    };
    // Some registries share blobs between repositories. No registry has this random data yet, and it is large enough that
    // its push is under way when xtask is killed.
    let mut data = vec![0; 16 << 20];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut data))
        .unwrap();
    small::project_with(checkout, &[("tree/data", &data)]);
    let publisher = Publisher::new(checkout, Remote::at(host, "built"));
    let [first, second] = ["1.2.3", "1.2.4"].map(|version| {
        assert_eq!(checkout.git(&["tag", &format!("v{version}")]).code, 0);
        let built = publisher.ok(&["build-multiarch", "--version", version]);
        let archive = built.stdout.trim().to_owned();
        ["push-archive", "--version", version, &archive].map(str::to_owned)
    });
    let rows: Vec<_> = all
        .into_iter()
        .map(|(registry, host)| {
            releases_of(&publisher, [&first, &second], registry, &host, &readers)
        })
        .collect();
    say(&format!("{}:\n{}", checkout.engine.name, table(&rows)));
}

/// Publishes archives with the given arguments.
fn releases_of<'a>(
    publisher: &Publisher,
    [first, second]: [&'a [String; 4]; 2],
    registry: &'static str,
    host: &str,
    readers: &[Reader],
) -> Row {
    let remote = Remote::at(host, "built");
    // The archives were built for another repository.
    let repository = remote.repository();
    let to = ["--repository", &repository];
    let push_line = |archive: &'a [String; 4]| {
        let line = archive.iter().map(String::as_str);
        line.chain(to).collect::<Vec<_>>()
    };
    let push = |archive| {
        publisher
            .ok(&push_line(archive))
            .stderr
            .matches(" Pushed ")
            .count()
    };
    let mut row = Row {
        registry,
        cells: Vec::new(),
    };
    row.add("killed, resumed", || {
        let mut child = publisher.command(&push_line(first), &[]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut before = Vec::new();
        let pushed = lines.by_ref().map(Result::unwrap).find(|line| {
            before.push(line.clone());
            line.contains(" Pushed ")
        });
        assert!(pushed.is_some(), "{registry}: {before:?}");
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(remote.tags().is_empty());
        let count = push(first);
        for tag in ["1", "1.2", "latest", "v1.2.3"] {
            assert_eq!(remote.digest(tag), remote.digest("1.2.3"), "{tag}");
        }
        format!("{count} uploads")
    });
    row.add("the same again", || {
        let count = push(first);
        assert_eq!(count, 0, "{registry}");
        format!("{count} uploads")
    });
    row.add("300 tags", || {
        remote.add_tags("latest", "1.1.[1-300]");
        format!("{} tags", remote.tags().len())
    });
    row.add("shared layers", || {
        let count = push(second);
        assert_eq!(count, 2, "{registry}: the configurations");
        format!("{count} uploads")
    });
    row.add("read by others", || {
        for (version, tags) in [
            ("1.2.3", &["1.2.3", "v1.2.3", "1.1.300"][..]),
            ("1.2.4", &["1.2.4", "v1.2.4", "1.2", "1", "latest"]),
        ] {
            let verify = ["verify-image", "--version", version, "--json"];
            let report = publisher.ok(&[&verify[..], &to].concat()).stdout;
            let report: Value = serde_json::from_str(&report).unwrap();
            let digest = report["digest"].as_str().unwrap();
            assert_readers_agree(readers, &remote, tags, digest, &platforms_in(&report));
        }
        format!("{} agree", readers.len())
    });
    row
}
