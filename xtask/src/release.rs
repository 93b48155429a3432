//! Which tags a release takes, and which stay with a newer one. Pure.

use crate::{
    settings::{Channel, GitValues},
    version::{TemplateValues, Version, fill_template},
};

/// A tag, and whether it is to name this release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPlan {
    /// In the order in which they are given: what never changes again comes first.
    pub moves: Vec<String>,
    pub stays: Vec<Staying>,
}

/// A tag that a higher version keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staying {
    pub tag: String,
    pub with: String,
}

/// Decides for all tags. `latest`, `1` and `1.2` only move forward: one stays where a higher
/// stable version that would take it as well is released already.
pub fn plan_tags(
    channel: &Channel,
    version: &Version,
    tags: &[String],
    released: &[String],
    git: &GitValues,
) -> TagPlan {
    let mut plan = TagPlan {
        moves: Vec::new(),
        stays: Vec::new(),
    };
    for tag in tags {
        match newer_owner(channel, version, tag, released, git) {
            Some(with) => plan.stays.push(Staying {
                tag: tag.clone(),
                with,
            }),
            None => plan.moves.push(tag.clone()),
        }
    }
    // The version itself first, then from what moves least: that is the templates' order.
    plan.moves.sort_by_key(|tag| tag != version.as_str());
    plan
}

/// The highest released version above ours for which the channel makes the same tag.
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
    use clap::Parser as _;

    use super::*;
    use crate::{cli::Cli, config::Files, env::Env, settings::Settings};

    fn plan(version: &str, released: &[&str]) -> (Vec<String>, Vec<String>) {
        let cli = Cli::try_parse_from(["xtask", "config", "--version", version]).unwrap();
        let files = Files {
            root: "/src".into(),
            project: "schema = 1\n".to_owned(),
            local: None,
        };
        let settings = Settings::resolve(&cli, &Env::fake(&[]), &files).unwrap();
        let git = GitValues::default();
        let released: Vec<_> = released.iter().map(|one| (*one).to_owned()).collect();
        let tags = settings.tags(&git).unwrap();
        let plan = plan_tags(
            &settings.channel,
            &settings.version.value,
            &tags,
            &released,
            &git,
        );
        let stays = plan
            .stays
            .iter()
            .map(|one| format!("{} with {}", one.tag, one.with))
            .collect();
        (plan.moves, stays)
    }

    #[test]
    fn the_first_release_takes_all() {
        let (moves, stays) = plan("1.2.3", &[]);
        assert_eq!(moves, ["1.2.3", "1.2", "1", "latest"]);
        assert!(stays.is_empty());
    }

    #[test]
    fn a_patch_of_an_older_line_leaves_what_is_newer() {
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
    fn prereleases_neither_take_nor_keep_anything() {
        assert_eq!(plan("2.0.0-rc.1", &["1.0.0"]).0, ["2.0.0-rc.1"]);
        let (moves, _) = plan("1.9.5", &["2.0.0-rc.1"]);
        assert_eq!(moves, ["1.9.5", "1.9", "1", "latest"]);
    }

    #[test]
    fn releasing_again_is_not_going_back() {
        let (moves, stays) = plan("1.2.3", &["1.2.3", "1.2.2"]);
        assert_eq!(moves, ["1.2.3", "1.2", "1", "latest"]);
        assert!(stays.is_empty());
    }
}
