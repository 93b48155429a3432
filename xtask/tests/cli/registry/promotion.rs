//! How an image gets its tags while others have or take them.

use std::process::Command;

use super::*;

const MOVING: [&str; 3] = ["1", "1.2", "latest"];

/// A registry, and checkouts of several versions that are published to it.
struct Releases {
    registry: FakeRegistry,
}

impl Releases {
    fn new(oddities: Oddities) -> Self {
        Self {
            registry: FakeRegistry::start(oddities),
        }
    }

    fn repository(&self) -> String {
        format!("{}/team/agent-runner", self.registry.address)
    }

    fn checkout(&self, version: &str) -> Publication {
        let image = Image {
            version,
            ..Image::default()
        };
        Publication::new(&self.repository(), image)
    }

    fn run(&self, mut command: Command) -> CommandOutput {
        let output = command_output(&command.output().unwrap());
        CommandOutput {
            stderr: output.stderr.replace(&self.registry.address, "REGISTRY"),
            ..output
        }
    }

    #[track_caller]
    fn publish(&self, publication: &Publication) -> String {
        let output = self.run(publication.push_archive());
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.stderr
    }

    #[track_caller]
    fn assert_moving_tags_name(&self, digest: &String) {
        let tags = self.registry.tags();
        for tag in MOVING {
            assert_eq!(tags.get(tag), Some(digest), "{tag}");
        }
    }
}

/// 1.2.4 was killed after it had written `latest` over 1.2.5, or 1.2.5 was killed before it had written `latest`.
#[test]
fn the_next_run_gives_the_moving_tags_to_the_newest_version() {
    let releases = Releases::new(Oddities::default());
    let [first, older, newer] = ["1.2.3", "1.2.4", "1.2.5"].map(|one| releases.checkout(one));
    for one in [&first, &older, &newer] {
        releases.publish(one);
    }
    releases.assert_moving_tags_name(&newer.digest);
    for named in [&older, &first] {
        releases.registry.set_tags(&MOVING, &named.digest);
        let stderr = releases.publish(&older);
        releases.assert_moving_tags_name(&newer.digest);
        for line in [
            "as REGISTRY/team/agent-runner:latest\n",
            "Kept REGISTRY/team/agent-runner:latest at 1.2.5, which is newer\n",
        ] {
            assert!(stderr.contains(line), "{stderr}");
        }
    }
    let receipt = older.path().join("target/dist/1.2.4.json");
    let receipt: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(receipt).unwrap()).unwrap();
    assert_eq!(receipt["tags"], serde_json::json!(["1.2.4"]));
    assert_eq!(
        receipt["kept"][2],
        serde_json::json!({ "tag": "latest", "with": "1.2.5" })
    );
}

#[test]
fn the_list_of_tags_may_show_a_version_late() {
    let releases = Releases::new(Oddities {
        list_lag: Duration::from_secs(1),
        ..Oddities::default()
    });
    let [older, newer] = ["1.2.4", "1.2.5"].map(|one| releases.checkout(one));
    releases.publish(&newer);
    releases.publish(&older);
    releases.assert_moving_tags_name(&newer.digest);
}

#[test]
fn a_version_that_the_list_of_tags_lacks_keeps_latest() {
    let releases = Releases::new(Oddities::default());
    let [older, newer] = ["1.2.4", "1.2.5"].map(|one| releases.checkout(one));
    releases.publish(&newer);
    for hidden in [&["1.2.5"][..], &["1.2.4", "1.2.5"]] {
        releases.registry.hide_from_list(hidden);
        let stderr = releases.publish(&older);
        releases.assert_moving_tags_name(&newer.digest);
        let warning = "warning: the registry's list of tags lacks `1.2.4` after 10 s: other new versions may be missing in it too\n";
        assert_eq!(
            stderr.matches(warning).count(),
            hidden.len() - 1,
            "{stderr}"
        );
    }
}

/// If the registry's list cannot be read, git's tags tell which versions there are.
#[test]
fn a_tag_that_is_left_for_an_unpublished_version_is_reported() {
    let releases = Releases::new(Oddities {
        list_refusal: Some((403, "")),
        ..Oddities::default()
    });
    let older = releases.checkout("1.2.4");
    older.git(&["tag", "v1.2.5"]);
    let stderr = releases.publish(&older);
    assert_eq!(releases.registry.tags().len(), 1);
    let warning = "warning: REGISTRY/team/agent-runner:latest still names no image: it was left for 1.2.5, which is newer, but REGISTRY/team/agent-runner:1.2.5 names no image\n\
                   hint: publish 1.2.5 from its commit: `cargo xtask push-multiarch --version 1.2.5`\n";
    assert!(stderr.contains(warning), "{stderr}");
    assert!(!stderr.contains(" Kept "), "{stderr}");
}

#[test]
fn a_run_that_finds_another_image_under_its_version_moves_no_tag() {
    let releases = Releases::new(Oddities {
        rival: Some("1.2.3"),
        ..Oddities::default()
    });
    let publication = releases.checkout("1.2.3");
    let output = releases.run(publication.push_archive());
    assert_eq!(output.code, 1, "{}", output.stderr);
    let tags = releases.registry.tags();
    let other = &tags["1.2.3"];
    assert_eq!(tags.len(), 1, "{tags:?}");
    assert_ne!(*other, publication.digest);
    let error = format!(
        "error: REGISTRY/team/agent-runner:1.2.3 names {other}, not {}: another run publishes this version\n\
         hint: find out what the other run built; no tag names the image of this run\n\
         hint: publish this run's image under a new version, if you need it\n",
        publication.digest
    );
    assert!(output.stderr.ends_with(&error), "{}", output.stderr);
}

#[test]
fn a_run_gives_up_if_another_one_takes_latest_again_and_again() {
    let releases = Releases::new(Oddities {
        rival: Some("latest"),
        ..Oddities::default()
    });
    let publication = releases.checkout("1.2.3");
    let output = releases.run(publication.push_archive());
    assert_eq!(output.code, 1, "{}", output.stderr);
    let error = "error: other releases keep moving the tags of REGISTRY/team/agent-runner\n\
                 hint: wait until the other releases have ended, then run the same command again\n";
    assert!(output.stderr.ends_with(error), "{}", output.stderr);
    assert_eq!(releases.registry.tags()["1.2.3"], publication.digest);
}
