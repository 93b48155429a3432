//! Image versions, and the templates from which a channel makes tags.

use std::fmt;

/// An image version, which is a valid tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    text: String,
    kind: VersionKind,
}

/// The kind of a version, which its form determines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionKind {
    /// A `SemVer` release, `1.2.3`.
    Release(semver::Version),
    /// A `SemVer` pre-release, `1.2.3-rc.1`.
    Prerelease(semver::Version),
    /// Anything else: `dev-me`, `pr-17`, `nightly`.
    Other,
}

/// The maximum length of a tag.
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests>
const TAG_MAX: usize = 128;

impl Version {
    /// Reads a version from an argument or a git tag. It removes a leading `v` before a digit, and replaces
    /// the `+` before `SemVer` build metadata with `-`, because a tag cannot have a `+`.
    ///
    /// # Errors
    /// The reason why it cannot be a tag, as a predicate.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let bare = match typed.strip_prefix('v') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
            _ => typed,
        };
        let kind = match semver::Version::parse(bare) {
            Ok(version) if version.pre.is_empty() => VersionKind::Release(version),
            Ok(version) => VersionKind::Prerelease(version),
            Err(_) => VersionKind::Other,
        };
        let text = if kind == VersionKind::Other {
            bare.to_owned()
        } else {
            bare.replace('+', "-")
        };
        check_tag(&text)?;
        Ok(Self { text, kind })
    }

    /// The version as a tag.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn semver(&self) -> Option<&semver::Version> {
        match &self.kind {
            VersionKind::Release(version) | VersionKind::Prerelease(version) => Some(version),
            VersionKind::Other => None,
        }
    }

    /// Whether it has `SemVer` build metadata, as `1.2.3+b1` has. Its tag `1.2.3-b1` does not show that.
    pub fn has_build_metadata(&self) -> bool {
        self.semver()
            .is_some_and(|version| !version.build.is_empty())
    }

    /// Whether it is newer than another version. A version that is not `SemVer` has no order, and build
    /// metadata does not count: <https://semver.org/#spec-item-11>.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let numbers = self.semver().zip(other.semver());
        numbers.is_some_and(|(ours, other)| ours.cmp_precedence(other).is_gt())
    }

    /// The release after which `git describe` gave the version to a later commit (`1.2.3-4-g0a1b2c3`), or to
    /// uncommitted changes (`1.2.3-dirty`). `SemVer` takes both for pre-releases, which come before the release.
    pub fn described_release(&self) -> Option<String> {
        let VersionKind::Prerelease(version) = &self.kind else {
            return None;
        };
        let suffix = version.pre.as_str();
        let clean = match suffix {
            "dirty" => Some(""),
            _ => suffix.strip_suffix("-dirty"),
        };
        let rest = clean.unwrap_or(suffix);
        let (before, commit) = rest.rsplit_once("-g").unwrap_or(("", rest));
        let (tag, count) = before.rsplit_once('-').unwrap_or(("", before));
        let is_hex = |text: &str| text.len() >= 4 && text.bytes().all(|c| c.is_ascii_hexdigit());
        let is_count = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let tag = if is_count(count) && is_hex(commit) {
            tag
        } else {
            clean?
        };
        let dash = if tag.is_empty() { "" } else { "-" };
        let semver::Version {
            major,
            minor,
            patch,
            ..
        } = version;
        Some(format!("{major}.{minor}.{patch}{dash}{tag}"))
    }

    /// The `SemVer` version that somebody probably meant who typed this one, such as `2026.1.5` for
    /// `2026.01.05`, which is not `SemVer`; none if it does not look like a release.
    pub fn meant_release(&self) -> Option<Self> {
        if self.kind != VersionKind::Other {
            return None;
        }
        let bare = self.text.strip_prefix(['v', 'V']).unwrap_or(&self.text);
        let (numbers, rest) = bare.split_at(bare.find(['-', '+']).unwrap_or(bare.len()));
        let number = |text: &str| text.parse::<u64>().map(|number| number.to_string());
        let numbers: Vec<_> = numbers
            .split('.')
            .map(number)
            .collect::<Result<_, _>>()
            .ok()?;
        Self::parse(&format!("{}{rest}", numbers.join(".")))
            .ok()
            .filter(|version| version.semver().is_some())
    }

    /// The version as an argument of `--version`. Unlike the image's tag it can have a `+`.
    pub fn argument(&self) -> String {
        self.semver()
            .map_or_else(|| self.text.clone(), ToString::to_string)
    }

    /// The git tag of the version, such as `v1.2.3`.
    pub fn git_tag(&self) -> String {
        let v = if self.semver().is_some() { "v" } else { "" };
        format!("{v}{}", self.argument())
    }

    /// Whether it is a stable release.
    pub fn is_release(&self) -> bool {
        matches!(self.kind, VersionKind::Release(_))
    }

    /// Whether the version matches a channel's pattern: `semver:release`, `semver:prerelease`, or a glob in
    /// which `*` matches any text.
    pub fn matches(&self, pattern: &str) -> bool {
        match pattern {
            "semver:release" => matches!(self.kind, VersionKind::Release(_)),
            "semver:prerelease" => matches!(self.kind, VersionKind::Prerelease(_)),
            glob => glob_matches(glob, &self.text),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks whether a text is a valid tag.
///
/// # Errors
/// The reason why it is not, as a predicate.
pub fn check_tag(tag: &str) -> Result<(), String> {
    if tag.is_empty() {
        return Err("is empty".to_owned());
    }
    if let Some(bad) = tag
        .chars()
        .find(|&c| !(c.is_ascii_alphanumeric() || "_.-".contains(c)))
    {
        return Err(format!(
            "contains {bad:?}; a tag can contain only letters, digits, `_`, `.` and `-`"
        ));
    }
    if tag.len() > TAG_MAX {
        return Err(format!(
            "has {} characters; a tag can have at most {TAG_MAX}",
            tag.len()
        ));
    }
    if tag.starts_with(['.', '-']) {
        return Err(
            "begins with `.` or `-`; a tag must begin with a letter, a digit or `_`".to_owned(),
        );
    }
    Ok(())
}

/// Matches a glob in which `*` matches any text. The parts between the stars are searched from left to right
/// without backtracking, so a glob with many stars is not slower.
fn glob_matches(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else {
        return glob == text;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(text) = text
        .strip_prefix(first)
        .and_then(|text| text.strip_suffix(last))
    else {
        return false;
    };
    let mut parts = middle.split('*');
    let left = parts.try_fold(text, |text, part| {
        text.split_once(part).map(|(_, after)| after)
    });
    left.is_some()
}

/// The values of a template's placeholders.
#[derive(Clone, Debug, Default)]
pub struct TemplateValues<'a> {
    pub version: Option<&'a Version>,
    pub channel: &'a str,
    /// The full commit id; none outside of a git work tree.
    pub git_sha: Option<&'a str>,
    pub git_branch: Option<&'a str>,
}

/// The placeholders of templates.
pub const TEMPLATE_NAMES: &[&str] = &[
    "version",
    "major",
    "minor",
    "patch",
    "pre",
    "channel",
    "git.sha",
    "git.short",
    "git.branch",
];

/// Fills a template such as `{major}.{minor}`.
///
/// # Errors
/// When a placeholder is unknown or has no value.
pub fn fill_template(template: &str, values: &TemplateValues) -> Result<String, String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let Some(close) = rest[open..].find('}').map(|at| open + at) else {
            return Err(format!(
                "the template `{template}` has a `{{` without a `}}`"
            ));
        };
        out.push_str(&template_value(&rest[open + 1..close], template, values)?);
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a template makes no tag of a version: `{major}` of `0.2.1`. The tag `0` would promise that all
/// versions before 1.0 are compatible: <https://semver.org/#spec-item-4>.
pub fn is_left_out(template: &str, version: &Version) -> bool {
    let narrower = ["{version}", "{minor}", "{git.sha}", "{git.short}"];
    version.semver().is_some_and(|version| version.major == 0)
        && template.contains("{major}")
        && !narrower.iter().any(|name| template.contains(name))
}

const NO_SEMVER: &str = "the version is not a SemVer version";
const NO_GIT: &str = "this is not a git work tree";

fn template_value(name: &str, template: &str, values: &TemplateValues) -> Result<String, String> {
    let semver = values.version.and_then(Version::semver);
    let number =
        |part: fn(&semver::Version) -> u64| semver.map(|version| part(version).to_string());
    let (value, missing) = match name {
        "version" => (
            values.version.map(|v| v.as_str().to_owned()),
            "there is no version",
        ),
        "major" => (number(|v| v.major), NO_SEMVER),
        "minor" => (number(|v| v.minor), NO_SEMVER),
        "patch" => (number(|v| v.patch), NO_SEMVER),
        "pre" => (semver.map(|v| v.pre.to_string()), NO_SEMVER),
        "channel" => (Some(values.channel.to_owned()), ""),
        "git.sha" => (values.git_sha.map(str::to_owned), NO_GIT),
        "git.short" => (
            values.git_sha.map(|sha| sha.chars().take(12).collect()),
            NO_GIT,
        ),
        // A branch's name can have slashes, a tag cannot.
        "git.branch" => (
            values.git_branch.map(|branch| branch.replace('/', "-")),
            "no branch is checked out",
        ),
        _ => {
            let known = TEMPLATE_NAMES.join("}`, `{");
            return Err(format!(
                "the template `{template}` uses `{{{name}}}`, which is not one of `{{{known}}}`"
            ));
        }
    };
    value.ok_or_else(|| format!("the template `{template}` uses `{{{name}}}`, but {missing}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn versions_match_patterns() {
        assert!(ok("1.2.3").matches("semver:release"));
        assert!(!ok("1.2.3").matches("semver:prerelease"));
        assert!(ok("1.2.3-rc.1").matches("semver:prerelease"));
        assert!(!ok("1.2").matches("semver:release"));
        assert!(!ok("dev-me").matches("semver:release"));
        assert!(ok("dev-me").matches("dev-*"));
        assert!(!ok("dev").matches("dev-*"));
        assert!(ok("a-b-c").matches("a*b*c"));
        assert!(ok("anything").matches("*"));
    }

    #[test]
    fn a_leading_v_is_removed_only_before_a_digit() {
        assert_eq!(ok("v1.2.3").as_str(), "1.2.3");
        assert_eq!(ok("vendor").as_str(), "vendor");
    }

    #[test]
    fn build_metadata_becomes_a_dash() {
        let version = ok("1.2.3+build.5");
        assert_eq!(version.as_str(), "1.2.3-build.5");
        assert!(version.matches("semver:release"));
    }

    #[test]
    fn build_metadata_tells_a_release_from_a_prerelease_with_the_same_tag() {
        let (build, pre) = (ok("2.0.0+1"), ok("2.0.0-1"));
        assert_eq!(build.as_str(), pre.as_str());
        assert_ne!(build, pre);
        assert_eq!(
            (build.git_tag(), pre.git_tag()),
            ("v2.0.0+1".into(), "v2.0.0-1".into())
        );
        assert!(build.has_build_metadata() && !pre.has_build_metadata());
        assert_eq!(ok("dev-me").git_tag(), "dev-me");
    }

    #[test]
    fn versions_have_the_order_of_semver() {
        let order = [
            "1.9.0-rc.1",
            "1.9.0",
            "1.10.0-rc.2",
            "1.10.0-rc.10",
            "1.10.0",
            "2.0.0-rc.1",
        ];
        for pair in order.windows(2) {
            assert!(ok(pair[1]).is_newer_than(&ok(pair[0])), "{pair:?}");
            assert!(!ok(pair[0]).is_newer_than(&ok(pair[1])), "{pair:?}");
        }
        assert!(!ok("1.0.0+2").is_newer_than(&ok("1.0.0+1")));
        assert!(!ok("dev-me").is_newer_than(&ok("1.0.0")));
    }

    #[test]
    fn versions_of_git_describe_are_recognised() {
        let release = |text: &str| ok(text).described_release();
        for text in [
            "v1.2.3-4-g0a1b2c3",
            "1.2.3-4-g0a1b2c3-dirty",
            "v1.2.3-dirty",
        ] {
            assert_eq!(release(text).as_deref(), Some("1.2.3"), "{text}");
        }
        for text in ["1.2.3-rc.1-4-g0a1b2c3", "1.2.3-rc.1-dirty"] {
            assert_eq!(release(text).as_deref(), Some("1.2.3-rc.1"), "{text}");
        }
        for text in [
            "1.2.3",
            "1.2.3-rc.1",
            "1.2.3-4",
            "1.2.3-beta-gold",
            "1.2.3-notdirty",
            "1.2.3-g0a1b2c3",
            "0a1b2c3",
        ] {
            assert_eq!(release(text), None, "{text}");
        }
    }

    #[test]
    fn a_version_that_only_looks_like_a_release_is_recognised() {
        let meant = |text: &str| ok(text).meant_release().map(|version| version.to_string());
        assert_eq!(meant("2026.01.05").as_deref(), Some("2026.1.5"));
        assert_eq!(meant("V1.2.3").as_deref(), Some("1.2.3"));
        assert_eq!(meant("v1.02.3-rc.1").as_deref(), Some("1.2.3-rc.1"));
        for text in ["1.2.3", "1.2", "20260105", "dev-me", "pr-17", "0a1b2c3"] {
            assert_eq!(meant(text), None, "{text}");
        }
    }

    #[test]
    fn the_major_tag_is_left_out_before_1_0() {
        for template in ["{major}", "v{major}", "{major}-slim"] {
            assert!(is_left_out(template, &ok("0.2.1")), "{template}");
            assert!(is_left_out(template, &ok("0.2.1-rc.1")), "{template}");
            assert!(!is_left_out(template, &ok("1.2.1")), "{template}");
            assert!(!is_left_out(template, &ok("dev-me")), "{template}");
        }
        for template in [
            "{major}.{minor}",
            "{version}",
            "{major}-{git.short}",
            "latest",
        ] {
            assert!(!is_left_out(template, &ok("0.2.1")), "{template}");
        }
    }

    #[test]
    fn an_invalid_tag_is_rejected_with_the_reason() {
        let reason = |text: &str| Version::parse(text).unwrap_err();
        assert_eq!(reason(""), "is empty");
        assert_eq!(
            reason("-x"),
            "begins with `.` or `-`; a tag must begin with a letter, a digit or `_`"
        );
        assert_eq!(
            reason("a/b"),
            "contains '/'; a tag can contain only letters, digits, `_`, `.` and `-`"
        );
        assert_eq!(
            reason("dev+x"),
            "contains '+'; a tag can contain only letters, digits, `_`, `.` and `-`"
        );
        assert_eq!(
            reason("ä"),
            "contains 'ä'; a tag can contain only letters, digits, `_`, `.` and `-`"
        );
        assert_eq!(
            reason(&"a".repeat(129)),
            "has 129 characters; a tag can have at most 128"
        );
        assert!(Version::parse(&"a".repeat(128)).is_ok());
    }

    #[test]
    fn templates_are_filled_or_rejected_with_the_reason() {
        let version = ok("1.2.3-rc.1");
        let values = TemplateValues {
            version: Some(&version),
            channel: "prerelease",
            git_sha: Some("0123456789abcdef"),
            git_branch: Some("feature/x"),
        };
        let fill = |template| fill_template(template, &values);
        assert_eq!(fill("{version}").unwrap(), "1.2.3-rc.1");
        assert_eq!(fill("{major}.{minor}.{patch}_{pre}").unwrap(), "1.2.3_rc.1");
        assert_eq!(
            fill("x-{git.short}-{git.branch}").unwrap(),
            "x-0123456789ab-feature-x"
        );
        assert!(
            fill("{sha}")
                .unwrap_err()
                .starts_with("the template `{sha}` uses `{sha}`, which is")
        );
        assert!(fill("{version").unwrap_err().contains("without a"));

        let dev = ok("dev-me");
        let values = TemplateValues {
            version: Some(&dev),
            ..TemplateValues::default()
        };
        assert_eq!(
            fill_template("{major}", &values).unwrap_err(),
            "the template `{major}` uses `{major}`, but the version is not a SemVer version"
        );
    }
}
