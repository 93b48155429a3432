//! The image version: what it may look like, what kind it is, and the tags a channel makes of it.

use std::fmt;

/// A version that can be an image's tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    text: String,
    kind: Kind,
}

/// What the form of a version says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A `SemVer` release, `1.2.3`.
    Release(semver::Version),
    /// A `SemVer` pre-release, `1.2.3-rc.1`.
    Prerelease(semver::Version),
    /// Anything else: `dev-me`, `pr-17`, `nightly`.
    Other,
}

/// The longest tag a registry takes.
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests>
const TAG_MAX: usize = 128;

impl Version {
    /// Reads a version as a person or a git tag writes it: a leading `v` before a digit goes,
    /// and `SemVer`'s build metadata `+x` becomes `-x`, for a tag has no `+`.
    ///
    /// # Errors
    /// The reason why it cannot be a tag, as a sentence without a subject.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let bare = match typed.strip_prefix('v') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
            _ => typed,
        };
        let kind = match semver::Version::parse(bare) {
            Ok(version) if version.pre.is_empty() => Kind::Release(version),
            Ok(version) => Kind::Prerelease(version),
            Err(_) => Kind::Other,
        };
        let text = if kind == Kind::Other {
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
            Kind::Release(version) | Kind::Prerelease(version) => Some(version),
            Kind::Other => None,
        }
    }

    /// Whether it is a stable release.
    pub fn is_release(&self) -> bool {
        matches!(self.kind, Kind::Release(_))
    }

    /// Whether a channel's pattern takes this version: `semver:release`, `semver:prerelease`,
    /// or a glob in which `*` stands for any text.
    pub fn matches(&self, pattern: &str) -> bool {
        match pattern {
            "semver:release" => matches!(self.kind, Kind::Release(_)),
            "semver:prerelease" => matches!(self.kind, Kind::Prerelease(_)),
            glob => glob_matches(glob, &self.text),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether the text can be a tag.
///
/// # Errors
/// The reason why not.
pub fn check_tag(tag: &str) -> Result<(), String> {
    if tag.is_empty() {
        return Err("is empty".to_owned());
    }
    if let Some(bad) = tag
        .chars()
        .find(|&c| !(c.is_ascii_alphanumeric() || "_.-".contains(c)))
    {
        return Err(format!(
            "has {bad:?}, a tag only letters, digits, `_`, `.` and `-`"
        ));
    }
    if tag.len() > TAG_MAX {
        return Err(format!(
            "has {} characters, a tag at most {TAG_MAX}",
            tag.len()
        ));
    }
    if tag.starts_with(['.', '-']) {
        return Err("begins with `.` or `-`, a tag with a letter, a digit or `_`".to_owned());
    }
    Ok(())
}

/// `*` stands for any text, everything else for itself. The first place that fits is taken for each
/// part, so many stars take no longer.
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

/// What a template's `{names}` stand for.
#[derive(Clone, Debug, Default)]
pub struct TemplateValues<'a> {
    pub version: Option<&'a Version>,
    pub channel: &'a str,
    /// The full commit id, if there is a repository.
    pub git_sha: Option<&'a str>,
    pub git_branch: Option<&'a str>,
}

/// The names a template may use.
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
/// A name that is unknown, or that has no value here: the whole sentence.
pub fn fill_template(template: &str, values: &TemplateValues) -> Result<String, String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let Some(close) = rest[open..].find('}').map(|at| open + at) else {
            return Err(format!("template `{template}` has a `{{` without its `}}`"));
        };
        out.push_str(&template_value(&rest[open + 1..close], template, values)?);
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn template_value(name: &str, template: &str, values: &TemplateValues) -> Result<String, String> {
    let semver = values.version.and_then(Version::semver);
    let number =
        |part: fn(&semver::Version) -> u64| semver.map(|version| part(version).to_string());
    let (value, missing) = match name {
        "version" => (
            values.version.map(|v| v.as_str().to_owned()),
            "there is no version",
        ),
        "major" => (number(|v| v.major), "the version is no SemVer"),
        "minor" => (number(|v| v.minor), "the version is no SemVer"),
        "patch" => (number(|v| v.patch), "the version is no SemVer"),
        "pre" => (
            semver.map(|v| v.pre.to_string()),
            "the version is no SemVer",
        ),
        "channel" => (Some(values.channel.to_owned()), ""),
        "git.sha" => (
            values.git_sha.map(str::to_owned),
            "this is no git work tree",
        ),
        "git.short" => (
            values.git_sha.map(|sha| sha.chars().take(12).collect()),
            "this is no git work tree",
        ),
        // A branch may have slashes, a tag may not.
        "git.branch" => (
            values.git_branch.map(|branch| branch.replace('/', "-")),
            "HEAD is on no branch",
        ),
        _ => {
            let known = TEMPLATE_NAMES.join("}`, `{");
            return Err(format!(
                "template `{template}` uses `{{{name}}}`, which is not one of `{{{known}}}`"
            ));
        }
    };
    value.ok_or_else(|| format!("template `{template}` uses `{{{name}}}`, but {missing}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn the_form_decides_the_kind() {
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
    fn a_leading_v_goes_before_a_digit_only() {
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
    fn what_cannot_be_a_tag_is_refused_with_the_reason() {
        let reason = |text: &str| Version::parse(text).unwrap_err();
        assert_eq!(reason(""), "is empty");
        assert_eq!(
            reason("-x"),
            "begins with `.` or `-`, a tag with a letter, a digit or `_`"
        );
        assert_eq!(
            reason("a/b"),
            "has '/', a tag only letters, digits, `_`, `.` and `-`"
        );
        assert_eq!(
            reason("dev+x"),
            "has '+', a tag only letters, digits, `_`, `.` and `-`"
        );
        assert_eq!(
            reason("ä"),
            "has 'ä', a tag only letters, digits, `_`, `.` and `-`"
        );
        assert_eq!(
            reason(&"a".repeat(129)),
            "has 129 characters, a tag at most 128"
        );
        assert!(Version::parse(&"a".repeat(128)).is_ok());
    }

    #[test]
    fn templates_fill_or_say_why_not() {
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
                .starts_with("template `{sha}` uses `{sha}`, which is")
        );
        assert!(fill("{version").unwrap_err().contains("without its"));

        let dev = ok("dev-me");
        let values = TemplateValues {
            version: Some(&dev),
            ..TemplateValues::default()
        };
        assert_eq!(
            fill_template("{major}", &values).unwrap_err(),
            "template `{major}` uses `{major}`, but the version is no SemVer"
        );
    }
}
