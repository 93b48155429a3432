//! How an image gets its tags while others have or take them.

use std::process::Command;

use super::*;
use crate::terminal;

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

    /// The digest of the configuration of a publication's first image.
    fn config_of(&self, publication: &Publication) -> String {
        let index = self.registry.manifest(&publication.digest);
        let image = index["manifests"][0]["digest"].as_str().unwrap();
        let config = self.registry.manifest(image)["config"]["digest"].clone();
        config.as_str().unwrap().to_owned()
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

/// The list of tags lacks the newer version, so only the label of `latest`'s image names it.
#[test]
fn latest_is_kept_unless_its_image_is_broken() {
    let releases = Releases::new(Oddities::default());
    let [older, newer] = ["1.2.4", "1.2.5"].map(|one| releases.checkout(one));
    releases.publish(&newer);
    releases.registry.hide_from_list(&["1.2.5"]);
    let config = &releases.config_of(&newer);

    releases.registry.refuse_blob(config);
    let output = releases.run(older.push_archive());
    assert_eq!(output.code, 1, "{}", output.stderr);
    let why = format!("error: cannot read the version of {}: ", newer.digest);
    assert!(output.stderr.contains(&why), "{}", output.stderr);
    releases.assert_moving_tags_name(&newer.digest);

    releases.registry.lose_blob(config);
    let stderr = releases.publish(&older);
    let warning = format!("warning: cannot read the version of {}: ", newer.digest);
    assert!(stderr.contains(&warning), "{stderr}");
    releases.assert_moving_tags_name(&older.digest);
}

#[test]
fn a_release_that_lost_a_part_is_pushed_again_with_force() {
    let releases = Releases::new(Oddities::default());
    let publication = releases.checkout("1.2.3");
    releases.publish(&publication);
    let config = releases.config_of(&publication);
    releases.registry.lose_blob(&config);

    let output = releases.run(publication.push_archive());
    assert_eq!(output.code, 1, "{}", output.stderr);
    let error = format!("is not what it should be\nconfiguration {config} is missing\n");
    assert!(output.stderr.contains(&error), "{}", output.stderr);
    let hint = "hint: if a part is missing, push it again: pass `--force`";
    assert!(output.stderr.contains(hint), "{}", output.stderr);

    let mut again = publication.push_archive();
    again.arg("--force");
    let output = releases.run(again);
    assert_eq!(output.code, 0, "{}", output.stderr);
    releases.publish(&publication);
}

#[test]
fn a_version_whose_image_is_broken_is_not_overwritten_without_force() {
    let releases = Releases::new(Oddities::default());
    let released = releases.checkout("1.2.3");
    releases.publish(&released);
    let config = releases.config_of(&released);
    releases.registry.lose_blob(&config);
    let image = Image {
        version: "1.2.3",
        content: 2,
        ..Image::default()
    };
    let other = Publication::new(&releases.repository(), image);
    let output = releases.run(other.push_archive());
    assert_eq!(output.code, 1, "{}", output.stderr);
    let error = format!(
        "error: REGISTRY/team/agent-runner:1.2.3 is released already, as {} (broken: configuration {config} is missing), which is not {}\n",
        released.digest, other.digest
    );
    assert!(output.stderr.contains(&error), "{}", output.stderr);
    assert!(
        output.stderr.contains("pass `--force`"),
        "{}",
        output.stderr
    );
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

/// With uncommitted changes, the commit does not tell whether the image is the same.
#[test]
fn an_interrupted_release_of_uncommitted_changes_is_continued_with_its_archive() {
    let releases = Releases::new(Oddities::default());
    let publication = releases.checkout("1.2.3");
    std::fs::write(publication.path().join("new"), "").unwrap();
    let push = ["push-multiarch", "--version", "1.2.3", "--allow-dirty"];
    let push = [&push[..], &["--merge", "target/a.oci.tar"]].concat();
    let output = releases.run(publication.command(&push));
    assert_eq!(output.code, 0, "{}", output.stderr);
    let digest = releases.registry.tags()["1.2.3"].clone();
    releases.registry.remove_tags(&MOVING);
    let output = releases.run(publication.command(&push));
    assert_eq!(output.code, 1, "{}", output.stderr);
    let (_, hint) = output
        .stderr
        .split_once("hint: continue the run that built this image: `cargo xtask ")
        .unwrap_or_else(|| panic!("{}", output.stderr));
    let line = hint.split_once('`').unwrap().0;
    let archive = publication
        .path()
        .canonicalize()
        .unwrap()
        .join("target/dist/agent-runner-1.2.3.oci.tar");
    let archive = archive.to_str().unwrap();
    assert_eq!(
        line,
        format!("push-archive --version 1.2.3 --allow-dirty {archive}")
    );
    let line: Vec<_> = line.split(' ').collect();
    let output = releases.run(publication.command(&line));
    assert_eq!(output.code, 0, "{}", output.stderr);
    releases.assert_moving_tags_name(&digest);
}

/// `push-image` publishes one platform, as `push-archive --platform` does with its archive.
#[test]
fn all_platforms_replace_one_only_by_force() {
    let releases = Releases::new(Oddities::default());
    let publication = releases.checkout("1.2.3");
    let one = publication.path().join("target/one.oci.tar");
    let image = Image {
        architectures: &[("amd64", 62)],
        ..Image::default()
    };
    let one_digest = publication.write_archive(&one, &releases.repository(), image);
    let to = ["push-archive", "--version", "1.2.3", "--platform"];
    let push = [&to[..], &["linux/amd64", one.to_str().unwrap()]].concat();
    let output = releases.run(publication.command(&push));
    assert_eq!(output.code, 0, "{}", output.stderr);

    let merge = ["push-multiarch", "--version", "1.2.3", "--merge"];
    let merge = [&merge[..], &["target/a.oci.tar"]].concat();
    let output = releases.run(publication.command(&merge));
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(
        output.stderr.ends_with(
            "hint: release under a new version, or build the image again and overwrite the tag: pass `--force` (no tag was moved)\n"
        ),
        "{}",
        output.stderr
    );

    let force = [&merge[..], &["--force"]].concat();
    let output = releases.run(publication.command(&force));
    assert_eq!(output.code, 1, "{}", output.stderr);
    let revision = publication.git(&["rev-parse", "HEAD"]);
    let refusal = format!(
        "error: REGISTRY/team/agent-runner:1.2.3 is released already, as {one_digest} from commit {}\n\
         hint: release the change under a new version\n\
         hint: overwrite it for all its users: run the same command in a terminal, where `--force` asks you to type the tag; no option answers that question\n",
        revision.trim()
    );
    assert!(output.stderr.ends_with(&refusal), "{}", output.stderr);
    assert_eq!(releases.registry.tags()["latest"], one_digest);

    for (typed, platforms) in [(&b"1.2\n"[..], 1), (b"1.2.3\n", 2)] {
        let command = publication.command(&force);
        let question = "Type the tag to overwrite it:";
        let Some(output) = terminal::type_answer(&command, question, typed) else {
            return;
        };
        assert_eq!(output.code == 0, platforms == 2, "{output:?}");
        let digest = releases.registry.tags()["1.2.3"].clone();
        releases.assert_moving_tags_name(&digest);
        let index = releases.registry.manifest(&digest);
        assert_eq!(index["manifests"].as_array().unwrap().len(), platforms);
    }
}
