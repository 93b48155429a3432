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
