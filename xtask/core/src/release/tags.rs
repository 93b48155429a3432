//! Which tags a release takes, and which a newer version keeps. Pure.

use serde::Serialize;

use crate::{
    base::{
        error::Failure,
        version::{TemplateValues, Version, fill_template, is_left_out},
    },
    settings::{Channel, GitValues, Settings},
};

/// Which of the version's tags move to its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPlan {
    /// The tags that move, in the order in which they are set: the version's own tag first.
    pub moves: Vec<String>,
    /// The tags that stay where they are.
    pub kept: Vec<KeptTag>,
}

/// A tag that stays, because of a newer version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptTag {
    pub tag: String,
    /// The newer version.
    #[serde(rename = "with")]
    pub version: String,
    /// The newest version that takes the tag, of those newer than ours. A stable version keeps pre-releases from tags
    /// that it does not take itself.
    #[serde(skip)]
    pub owner: Option<String>,
}

impl KeptTag {
    /// Whether the newer version takes the tag.
    pub fn is_taken(&self) -> bool {
        self.owner.as_ref() == Some(&self.version)
    }
}

/// Decides for each tag of the settings' version and flavour. `released` are versions that are released in this
/// flavour. A tag such as `latest`, `1` or `next` only moves forward:
/// it stays if a newer released version takes the same tag. A pre-release also leaves it to a newer stable
/// version of its line that does not take it, so that `next` is never older than the newest release.
///
/// # Errors
/// When a template needs a value that is missing.
pub fn plan(settings: &Settings, released: &[String], git: &GitValues) -> Result<TagPlan, Failure> {
    let ours = &settings.version.value;
    let own = settings.own_tag();
    let mut newer = Vec::new();
    for version in released.iter().filter_map(|text| Version::parse(text).ok()) {
        // A version that no channel takes has no tag.
        if version.is_newer_than(ours)
            && let Ok(channel) = settings.channel_of(&version)
        {
            newer.push((version, channel));
        }
    }
    // The newest first.
    newer.sort_by(|(a, _), (b, _)| b.semver().cmp(&a.semver()));
    let mut plan = TagPlan {
        moves: Vec::new(),
        kept: Vec::new(),
    };
    for tag in settings.tags(git)? {
        let takes =
            |(other, channel): &&(Version, Channel)| makes(settings, channel, other, &tag, git);
        let keeps = |one: &&(Version, Channel)| {
            let (other, _) = one;
            takes(one)
                || (other.is_release()
                    && !ours.is_release()
                    && makes(settings, &settings.channel, other, &tag, git))
        };
        match newer.iter().find(keeps) {
            Some((version, _)) => plan.kept.push(KeptTag {
                version: version.to_string(),
                owner: newer.iter().find(takes).map(|(owner, _)| owner.to_string()),
                tag,
            }),
            None => plan.moves.push(tag),
        }
    }
    // The other tags keep the templates' order.
    plan.moves.sort_by_key(|tag| *tag != own);
    Ok(plan)
}

/// Whether a channel gives the tag to a version, in the settings' flavour.
fn makes(
    settings: &Settings,
    channel: &Channel,
    version: &Version,
    tag: &str,
    git: &GitValues,
) -> bool {
    let values = TemplateValues {
        version: Some(version),
        channel: &channel.name,
        git_sha: git.sha.as_deref(),
        git_branch: git.branch.as_deref(),
    };
    channel.tags.iter().any(|template| {
        !is_left_out(template, version)
            && fill_template(template, &values).is_ok_and(|made| settings.flavoured(&made) == tag)
    })
}

/// The last tag of the channel that other versions take too, such as `latest`; none if each tag belongs to one
/// version.
pub fn moving_tag(channel: &Channel, version: &Version) -> Option<String> {
    let number = version.semver()?;
    let mut next = number.clone();
    next.patch += 1;
    next.build = semver::BuildMetadata::EMPTY;
    let next = Version::parse(&next.to_string()).ok()?;
    let fill = |template: &String, version, git_sha| {
        let values = TemplateValues {
            version: Some(version),
            channel: &channel.name,
            git_sha: Some(git_sha),
            git_branch: Some("main"),
        };
        fill_template(template, &values).ok()
    };
    let templates = channel.tags.iter();
    templates
        .filter(|template| !is_left_out(template, version))
        .filter_map(|template| {
            let tag = fill(template, version, "1111111111111111")?;
            (fill(template, &next, "2222222222222222")? == tag).then_some(tag)
        })
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::env::Env, config::files::Files, settings::resolve::Arguments};

    fn settings(project: &str, version: &str) -> Settings {
        let arguments = Arguments {
            version: Some(version.to_owned()),
            ..Arguments::default()
        };
        let files = Files {
            root: "/src".into(),
            project: format!("schema = 1\n{project}"),
            local: None,
        };
        Settings::resolve(&arguments, &Env::fake(&[]), &files).unwrap()
    }

    fn plan_of(project: &str, version: &str, released: &[&str]) -> (Vec<String>, Vec<String>) {
        let released: Vec<_> = released.iter().map(|one| (*one).to_owned()).collect();
        let settings = settings(project, version);
        let plan = super::plan(&settings, &released, &GitValues::default()).unwrap();
        let stays = plan
            .kept
            .iter()
            .map(|kept| format!("{} with {}", kept.tag, kept.version))
            .collect();
        (plan.moves, stays)
    }

    fn plan(version: &str, released: &[&str]) -> (Vec<String>, Vec<String>) {
        plan_of("", version, released)
    }

    /// Pre-releases also take `next`.
    const NEXT: &str = "[[channel]]\nname = 'prerelease'\nmatch = ['semver:prerelease']\ntags = ['{version}', 'next']\n";

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

    #[test]
    fn next_only_moves_forward() {
        let next = |version: &str, released: &[&str]| {
            let (moves, stays) = plan_of(NEXT, version, released);
            assert_eq!(moves[0], version);
            (moves.len() == 2, stays)
        };
        let moves = (true, Vec::new());
        let stays = |with: &str| (false, vec![format!("next with {with}")]);
        // Another line of pre-releases.
        assert_eq!(
            next("1.9.0-rc.1", &["2.0.0-rc.1", "1.8.0"]),
            stays("2.0.0-rc.1")
        );
        assert_eq!(next("2.0.0-rc.10", &["2.0.0-rc.9"]), moves);
        assert_eq!(next("2.0.0-rc.9", &["2.0.0-rc.10"]), stays("2.0.0-rc.10"));
        // A stable version does not take `next`, and `next` does not fall behind it.
        assert_eq!(next("2.1.0-rc.1", &["2.0.0", "2.0.0-rc.1"]), moves);
        assert_eq!(next("1.9.0-rc.1", &["2.0.0"]), stays("2.0.0"));
        assert_eq!(next("2.0.0-rc.2", &["2.0.0"]), stays("2.0.0"));
        // A stable version leaves it alone.
        let (moves, kept) = plan_of(NEXT, "2.0.0", &["2.0.0-rc.1", "2.1.0-rc.1"]);
        assert_eq!((moves.len(), kept.len()), (4, 0), "{moves:?}");
        assert!(!moves.contains(&"next".to_owned()));
    }

    #[test]
    fn a_stable_version_takes_next_if_its_channel_says_so() {
        let both = format!(
            "{NEXT}[[channel]]\nname = 'release'\nmatch = ['semver:release']\ntags = ['{{version}}', 'next']\n"
        );
        let moves =
            |version: &str, released: &[&str]| plan_of(&both, version, released).0.len() == 2;
        assert!(moves("2.0.0", &["2.0.0-rc.1"]));
        assert!(!moves("2.0.0", &["2.1.0-rc.1"]));
        assert!(!moves("2.0.0-rc.2", &["2.0.0"]));
    }

    #[test]
    fn the_tag_of_an_older_line_does_not_wait_for_newer_ones() {
        let lts = "[[channel]]\nname = 'lts'\nmatch = ['1.*']\ntags = ['{version}', 'lts']\n";
        assert_eq!(plan_of(lts, "1.9.5", &["2.0.0"]).0, ["1.9.5", "lts"]);
        assert_eq!(plan_of(lts, "1.9.5", &["1.10.0"]).1, ["lts with 1.10.0"]);
    }

    #[test]
    fn a_version_that_no_channel_takes_has_no_tag() {
        let only = "[[channel]]\nname = 'prerelease'\nmatch = ['*-rc.*']\n[[channel]]\nname = 'dev'\nmatch = ['dev-*']\n";
        let (moves, stays) = plan_of(only, "1.2.3", &["2.0.0-beta.1", "1.2.4"]);
        assert_eq!(moves, ["1.2.3"]);
        assert_eq!(stays.len(), 3, "{stays:?}");
    }

    #[test]
    fn the_tags_of_a_flavour_move_by_its_own_versions() {
        let flavour = "[flavour.tools]\ntarget = 'x'\n";
        let arguments = Arguments {
            version: Some("1.9.5".to_owned()),
            flavour: Some("tools".to_owned()),
            ..Arguments::default()
        };
        let files = Files {
            root: "/src".into(),
            project: format!("schema = 1\n{flavour}"),
            local: None,
        };
        let tools = Settings::resolve(&arguments, &Env::fake(&[]), &files).unwrap();
        let plan = |released: &[&str]| {
            let released = released.iter().filter_map(|tag| tools.unflavoured(tag));
            let released: Vec<_> = released.map(str::to_owned).collect();
            super::plan(&tools, &released, &GitValues::default()).unwrap()
        };
        // The plain image of 2.0.0 has no such flavour.
        let all = ["1.9.5-tools", "1.9-tools", "1-tools", "latest-tools"];
        assert_eq!(plan(&["2.0.0", "latest", "1.9.4-tools"]).moves, all);
        let kept = plan(&["2.0.0", "2.0.0-tools"]);
        assert_eq!(kept.moves, all[..3]);
        assert_eq!(kept.kept[0].tag, "latest-tools");
        assert_eq!(kept.kept[0].version, "2.0.0");
    }

    #[test]
    fn before_1_0_there_is_no_major_tag() {
        assert_eq!(plan("0.2.1", &[]).0, ["0.2.1", "0.2", "latest"]);
    }

    #[test]
    fn a_tag_of_several_versions_is_a_moving_one() {
        let of = |project: &str, version: &str| {
            let settings = settings(project, version);
            moving_tag(&settings.channel, &settings.version.value)
        };
        assert_eq!(of("", "1.2.3+b1").as_deref(), Some("latest"));
        assert_eq!(of("", "1.2.3-rc.1"), None);
        assert_eq!(of(NEXT, "1.2.3-rc.1").as_deref(), Some("next"));
        let own = "[[channel]]\nname = 'release'\nmatch = ['semver:release']\ntags = ['{version}', 'v{version}', '{git.short}', '{major}.{minor}.{patch}']\n";
        assert_eq!(of(own, "1.2.3"), None);
    }
}
