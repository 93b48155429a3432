//! Which tags a release takes, and which a newer version keeps. Pure.

use serde::Serialize;

use crate::{
    base::version::{TemplateValues, Version, fill_template},
    settings::{Channel, GitValues},
};

/// Which of the version's tags move to its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPlan {
    /// The tags that move, in the order in which they are set: the version's own tag first.
    pub moves: Vec<String>,
    /// The tags that stay where they are.
    pub kept: Vec<KeptTag>,
}

/// A tag that a newer version keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptTag {
    pub tag: String,
    /// The newer version that has the tag.
    #[serde(rename = "with")]
    pub version: String,
}

/// Decides for each tag. `latest`, `1` and `1.2` only move forward: a tag stays if a newer stable
/// version that takes the same tag is released already.
pub fn plan(
    channel: &Channel,
    version: &Version,
    tags: &[String],
    released: &[String],
    git: &GitValues,
) -> TagPlan {
    let mut plan = TagPlan {
        moves: Vec::new(),
        kept: Vec::new(),
    };
    for tag in tags {
        match newer_owner(channel, version, tag, released, git) {
            Some(newer) => plan.kept.push(KeptTag {
                tag: tag.clone(),
                version: newer,
            }),
            None => plan.moves.push(tag.clone()),
        }
    }
    // The other tags keep the templates' order.
    plan.moves.sort_by_key(|tag| tag != version.as_str());
    plan
}

/// The newest released version above ours for which the channel makes the same tag.
fn newer_owner(
    channel: &Channel,
    version: &Version,
    tag: &str,
    released: &[String],
    git: &GitValues,
) -> Option<String> {
    let ours = version.semver()?;
    let takes = |other: &Version| {
        channel.tags.iter().any(|template| {
            let values = TemplateValues {
                version: Some(other),
                channel: &channel.name,
                git_sha: git.sha.as_deref(),
                git_branch: git.branch.as_deref(),
            };
            fill_template(template, &values).is_ok_and(|made| made == tag)
        })
    };
    released
        .iter()
        .filter_map(|text| Version::parse(text).ok())
        .filter(Version::is_release)
        .filter_map(|other| Some((other.semver()?.clone(), other)))
        .filter(|(number, other)| number.cmp_precedence(ours).is_gt() && takes(other))
        .max_by(|(a, _), (b, _)| a.cmp(b))
        .map(|(_, other)| other.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::env::Env,
        config::files::Files,
        settings::{Settings, resolve::Arguments},
    };

    fn plan(version: &str, released: &[&str]) -> (Vec<String>, Vec<String>) {
        let arguments = Arguments {
            version: Some(version.to_owned()),
            ..Arguments::default()
        };
        let files = Files {
            root: "/src".into(),
            project: "schema = 1\n".to_owned(),
            local: None,
        };
        let settings = Settings::resolve(&arguments, &Env::fake(&[]), &files).unwrap();
        let git = GitValues::default();
        let released: Vec<_> = released.iter().map(|one| (*one).to_owned()).collect();
        let tags = settings.tags(&git).unwrap();
        let plan = super::plan(
            &settings.channel,
            &settings.version.value,
            &tags,
            &released,
            &git,
        );
        let stays = plan
            .kept
            .iter()
            .map(|kept| format!("{} with {}", kept.tag, kept.version))
            .collect();
        (plan.moves, stays)
    }

    #[test]
    fn the_first_release_gets_all_tags() {
        let (moves, stays) = plan("1.2.3", &[]);
        assert_eq!(moves, ["1.2.3", "1.2", "1", "latest"]);
        assert!(stays.is_empty());
    }

    #[test]
    fn an_older_patch_does_not_move_the_tags_of_newer_versions() {
        let (moves, stays) = plan("1.9.5", &["1.9.4", "2.0.0", "latest", "2", "dev-me"]);
        assert_eq!(moves, ["1.9.5", "1.9", "1"]);
        assert_eq!(stays, ["latest with 2.0.0"]);
        let (moves, stays) = plan("1.2.9", &["v1.10.0", "1.2.10"]);
        assert_eq!(moves, ["1.2.9"]);
        assert_eq!(
            stays,
            ["1.2 with 1.2.10", "1 with 1.10.0", "latest with 1.10.0"]
        );
    }

    #[test]
    fn prereleases_do_not_affect_stable_tags() {
        assert_eq!(plan("2.0.0-rc.1", &["1.0.0"]).0, ["2.0.0-rc.1"]);
        let (moves, _) = plan("1.9.5", &["2.0.0-rc.1"]);
        assert_eq!(moves, ["1.9.5", "1.9", "1", "latest"]);
    }

    #[test]
    fn releasing_the_same_version_again_moves_its_tags() {
        let (moves, stays) = plan("1.2.3", &["1.2.3", "1.2.2"]);
        assert_eq!(moves, ["1.2.3", "1.2", "1", "latest"]);
        assert!(stays.is_empty());
    }
}
