use crate::{
    base::{
        image::{Platform, Repository},
        version::{TemplateValues, Version, check_tag, fill_template},
    },
    properties::{assert_reason, text},
};

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`:
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests>
pub(super) fn is_tag(text: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    match text.as_bytes() {
        [first, rest @ ..] => {
            word(*first) && rest.len() < 128 && rest.iter().all(|&c| word(c) || b".-".contains(&c))
        }
        [] => false,
    }
}

/// A version is a valid tag and prints as itself. An invalid one is rejected with a correct reason.
pub fn version(input: &[u8]) {
    let text = text(input);
    assert_eq!(check_tag(&text).is_ok(), is_tag(&text), "{text:?}");
    match Version::parse(&text) {
        Ok(version) => {
            assert!(is_tag(version.as_str()), "{version}");
            let again = Version::parse(version.as_str()).unwrap();
            assert_eq!(again.as_str(), version.as_str());
            if !text.contains('+') {
                assert_eq!(again, version);
            }
            if let Some(semver) = version.semver() {
                assert_eq!(semver.to_string().replace('+', "-"), version.as_str());
            }
            assert!(!version.is_release() || version.matches("semver:release"));
            assert_eq!(Version::parse(&version.git_tag()).as_ref(), Ok(&version));
            let release = version.described_release();
            assert!(release.is_none_or(|release| Version::parse(&release).is_ok()));
            let meant = version.meant_release();
            assert!(meant.is_none_or(|meant| meant != version && meant.semver().is_some()));
            assert!(version.matches("*") && version.matches(version.as_str()));
        }
        Err(why) => {
            assert_reason(&why);
            let count = why.strip_prefix("has ").and_then(|rest| {
                let (number, _) = rest.split_once(" characters; a tag can have at most 128")?;
                number.parse::<usize>().ok()
            });
            assert!(count.is_none_or(|count| count > 128), "{why}");
        }
    }
}

/// A filled template has no open placeholders, or the error names the template. If a template can be filled
/// for one SemVer version, it can be filled for all.
pub fn template(input: &[u8]) {
    let template = text(input);
    let fill = |text: &str| {
        let version = Version::parse(text).unwrap();
        let values = TemplateValues {
            version: Some(&version),
            channel: "dev",
            git_sha: Some("0123456789abcdef0123456789abcdef01234567"),
            git_branch: Some("feature/x"),
        };
        fill_template(&template, &values)
    };
    match fill("1.2.3-rc.1") {
        Ok(filled) => {
            assert!(!filled.contains('{'), "{filled}");
            assert!(fill("4.5.6-alpha").is_ok() && fill("7.8.9").is_ok());
            if !template.contains('{') {
                assert_eq!(filled, template);
            }
        }
        Err(why) => {
            assert!(
                why.starts_with(&format!("the template `{template}` ")),
                "{why}"
            );
            assert!(fill("dev-me").is_err());
        }
    }
    let nothing = fill_template(&template, &TemplateValues::default());
    assert!(nothing.is_ok() || nothing.unwrap_err().contains(template.as_ref()));
}

/// Matching a pattern takes a short time, and `*` matches any text.
pub fn pattern(input: &[u8]) {
    let pattern = text(input);
    let version = Version::parse(&"ab".repeat(64)).unwrap();
    let literal = pattern.split('*').collect::<String>();
    if version.matches(&pattern) && !pattern.starts_with("semver:") {
        assert!(literal.len() <= 128);
        assert!(version.matches(&format!("*{pattern}*")));
        assert!(version.matches(&pattern.replace('*', "**")));
    }
    // If all stars match the empty text, the rest of the pattern matches itself.
    if let Ok(version) = Version::parse(&literal)
        && version.as_str() == literal
    {
        assert!(pattern.starts_with("semver:") || version.matches(&pattern));
    }
}

/// A repository is a valid host and name, so engines and registries accept it, and it cannot be an option of
/// a command.
pub fn repository(input: &[u8]) {
    let text = text(input);
    match Repository::parse(&text) {
        Ok(repository) => {
            assert_eq!(repository.as_str(), text);
            let (host, path) = (repository.registry(), repository.path());
            assert_eq!(format!("{host}/{path}"), text);
            assert!(is_host(host), "{host:?}");
            assert!(path.split('/').all(is_component), "{path:?}");
            let tagged = repository.tagged("1.2.3");
            assert_eq!(tagged.rsplit_once(':'), Some((text.as_ref(), "1.2.3")));
        }
        Err(why) => assert_reason(&why),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(word)
        && text.ends_with(word)
        && text.split(word).all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.bytes().all(|c| c == b'-')
        })
}

/// A domain name, an IPv4 or a bracketed IPv6 address, and a port:
/// <https://github.com/distribution/reference/blob/main/regexp.go>
fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    let label = |label: &str| {
        let word = |c: char| c.is_ascii_alphanumeric();
        label.starts_with(word)
            && label.ends_with(word)
            && label.chars().all(|c| word(c) || c == '-')
    };
    let ipv6 = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let port_ok = |port: &str| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
    port.is_none_or(port_ok)
        && match ipv6 {
            Some(ipv6) => ipv6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => name.split('.').all(label),
        }
}

/// A platform prints as itself or shorter, and its name is read as the same platform.
pub fn platform(input: &[u8]) {
    let text = text(input);
    match text.parse::<Platform>() {
        Ok(platform) => {
            let name = platform.to_string();
            assert!(name.len() <= text.len(), "{name}");
            assert_eq!(name.parse(), Ok(platform));
        }
        Err(why) => assert_reason(&why),
    }
}
