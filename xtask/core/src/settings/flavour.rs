//! Flavours: variants of the image, each built from a stage of its own. The tags of a flavour are those of the
//! plain image with the flavour's suffix.

use super::{Flavour, Settings};
use crate::{
    base::{error::Failure, version::Version},
    config::{
        layer::{Layer, Origin, Sourced},
        schema::{CHANNEL, closest_match},
    },
};

/// Refuses channels with flavours that do not exist.
///
/// # Errors
/// The first such flavour, with its origin.
pub fn refuse_unknown(layer: &Layer, flavours: &[Flavour]) -> Result<(), Failure> {
    for channel in layer.channels() {
        let path = format!("{CHANNEL}.{channel}.flavours");
        let list = layer.get(&path);
        for (name, origin) in list.into_iter().flat_map(Sourced::items) {
            if !flavours.iter().any(|one| one.name == name) {
                return Err(Failure::usage(format!(
                    "`{path}` (from {origin}) has the flavour `{name}`, which does not exist"
                ))
                .hint(format!(
                    "add `[flavour.{name}]`, or remove the name from the list"
                )));
            }
        }
    }
    Ok(())
}

/// Refuses a version that is the tag of a flavour, such as `1.2.3-tools`.
///
/// # Errors
/// When it is one. The hint has the version and the flavour.
pub fn refuse_tag(version: &Sourced<Version>, flavours: &[Flavour]) -> Result<(), Failure> {
    let text = version.value.argument();
    let Some((bare, flavour)) = split(&text, flavours) else {
        return Ok(());
    };
    let name = &flavour.name;
    let failure = Failure::usage(format!(
        "`{text}` (from {}) is the tag of the flavour `{name}`, not a version",
        version.origin
    ));
    Err(match &version.origin {
        Origin::Flag(_) => failure.hint(format!(
            "name both: `--version {bare} --flavour {name}`"
        )),
        _ => failure.hint(format!(
            "set the version to `{bare}`, and name the flavour: `--flavour {name}`; `push-multiarch` publishes all flavours of a version"
        )),
    })
}

/// What is before the suffix of a flavour, and that flavour. Of several suffixes the longest one counts.
fn split<'a, 'b>(tag: &'a str, flavours: &'b [Flavour]) -> Option<(&'a str, &'b Flavour)> {
    let found = flavours.iter().filter_map(|flavour| {
        let bare = tag.strip_suffix(flavour.suffix.as_str())?;
        (!bare.is_empty()).then_some((bare, flavour))
    });
    found.min_by_key(|(bare, _)| bare.len())
}

impl Settings {
    /// The settings of a flavour of this configuration.
    ///
    /// # Errors
    /// When there is no flavour of that name.
    pub fn with_flavour(mut self, name: &str) -> Result<Self, Failure> {
        let Some(flavour) = self.flavours.iter().find(|one| one.name == name).cloned() else {
            let known: Vec<_> = self.flavours.iter().map(|one| one.name.as_str()).collect();
            if known.is_empty() {
                return Err(Failure::usage(format!(
                    "there is no flavour `{name}`: the configuration has none"
                ))
                .hint(format!(
                    "add `[flavour.{name}]` to xtask.toml, or leave out `--flavour`"
                )));
            }
            let meant = closest_match(name, known.iter().copied()).unwrap_or(known[0]);
            return Err(Failure::usage(format!(
                "there is no flavour `{name}`: the configuration has `{}`",
                known.join("`, `")
            ))
            .hint(format!(
                "name one of them, such as `--flavour {meant}`, or leave out `--flavour`"
            )));
        };
        let target = self.layer.get("build.target");
        let is_typed = target.is_some_and(|target| matches!(target.origin, Origin::Flag(_)));
        if !is_typed {
            self.build.target.clone_from(&flavour.target);
        }
        self.budget = flavour.budget;
        self.flavour = Some(flavour);
        Ok(self)
    }

    /// The settings of the images that are published together: the plain one, and the channel's flavours.
    ///
    /// # Errors
    /// As [`Self::with_flavour`].
    pub fn released_together(&self) -> Result<Vec<Self>, Failure> {
        let plain = std::iter::once(Ok(self.clone()));
        let names = self.channel.flavours.iter();
        let flavours = names.map(|name| self.clone().with_flavour(name));
        plain.chain(flavours).collect()
    }

    /// The settings of the plain image and of each flavour.
    ///
    /// # Errors
    /// As [`Self::with_flavour`].
    pub fn all_flavours(&self) -> Result<Vec<Self>, Failure> {
        let plain = std::iter::once(Ok(self.clone()));
        let flavours = self.flavours.iter();
        let flavours = flavours.map(|flavour| self.clone().with_flavour(&flavour.name));
        plain.chain(flavours).collect()
    }

    /// What follows the tags of the flavour; empty without one.
    fn suffix(&self) -> &str {
        self.flavour.as_ref().map_or("", |one| &one.suffix)
    }

    /// A tag of the plain image as one of this flavour.
    pub fn flavoured(&self, tag: &str) -> String {
        format!("{tag}{}", self.suffix())
    }

    /// The version's own tag, such as `1.2.3` or `1.2.3-tools`.
    pub fn own_tag(&self) -> String {
        self.flavoured(self.version.value.as_str())
    }

    /// What the tag of this flavour would be for the plain image. None for a tag of another flavour: although
    /// `1.2.3-tools` reads as a pre-release, it is no version.
    pub fn unflavoured<'a>(&self, tag: &'a str) -> Option<&'a str> {
        match (split(tag, &self.flavours), &self.flavour) {
            (Some((bare, found)), Some(ours)) => (found == ours).then_some(bare),
            (None, None) => Some(tag),
            (Some(_), None) | (None, Some(_)) => None,
        }
    }

    /// The options that name the version and the flavour: `--version 1.2.3 --flavour tools`.
    pub fn version_options(&self) -> String {
        let version = format!("--version {}", self.version.value.argument());
        match &self.flavour {
            Some(flavour) => format!("{version} --flavour {}", flavour.name),
            None => version,
        }
    }

    /// The same options with a space before them, if the user named a version or a flavour; else empty.
    pub fn given_version_options(&self) -> String {
        let is_given = matches!(self.version.origin, Origin::Flag(_)) || self.flavour.is_some();
        if is_given {
            format!(" {}", self.version_options())
        } else {
            String::new()
        }
    }

    /// `--version` with a space before it, for a command without flavours; empty if the user named no version.
    pub fn given_version_option(&self) -> String {
        if matches!(self.version.origin, Origin::Flag(_)) {
            format!(" --version {}", self.version.value.argument())
        } else {
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::env::Env,
        config::files::Files,
        settings::{GitValues, resolve::Arguments},
    };

    const TWO: &str = "[flavour.tools]\ntarget = 'runtime-tools'\nbudget = { unpacked = '1GB' }\n\
        [flavour.big]\ntarget = 'all'\nsuffix = '-big-tools'\n";

    fn resolve(project: &str, version: &str, flavour: Option<&str>) -> Result<Settings, Failure> {
        let arguments = Arguments {
            version: Some(version.to_owned()),
            flavour: flavour.map(str::to_owned),
            ..Arguments::default()
        };
        let files = Files {
            root: "/src".into(),
            project: format!("schema = 1\n[build]\ntarget = 'runtime'\n{project}"),
            local: Some("schema = 1\n[budget]\nunpacked = '95MB'\n".to_owned()),
        };
        Settings::resolve(&arguments, &Env::fake(&[]), &files)
    }

    #[test]
    fn a_flavour_has_its_own_stage_budget_and_tags() {
        let plain = resolve(TWO, "1.2.3", None).unwrap();
        let tools = resolve(TWO, "1.2.3", Some("tools")).unwrap();
        let tags = |settings: &Settings| settings.tags(&GitValues::default()).unwrap();
        assert_eq!(plain.build.target, "runtime");
        assert_eq!(plain.budget.unpacked, Some(95_000_000));
        assert_eq!(tags(&plain), ["1.2.3", "1.2", "1", "latest"]);
        assert_eq!(tools.build.target, "runtime-tools");
        assert_eq!(tools.budget.unpacked, Some(1_000_000_000));
        assert_eq!(tools.budget.compressed, None);
        assert_eq!(
            tags(&tools),
            ["1.2.3-tools", "1.2-tools", "1-tools", "latest-tools"]
        );
        assert_eq!(tools.own_tag(), "1.2.3-tools");
        assert_eq!(plain.version_options(), "--version 1.2.3");
        assert_eq!(tools.version_options(), "--version 1.2.3 --flavour tools");
        let all = plain.all_flavours().unwrap();
        let all: Vec<_> = all.iter().map(Settings::own_tag).collect();
        assert_eq!(all, ["1.2.3", "1.2.3-big-tools", "1.2.3-tools"]);
    }

    #[test]
    fn a_tag_belongs_to_one_flavour() {
        let of = |flavour: Option<&str>, tag: &'static str| {
            let settings = resolve(TWO, "1.2.3", flavour).unwrap();
            settings.unflavoured(tag)
        };
        for (tag, plain, tools, big) in [
            ("1.2.3", Some("1.2.3"), None, None),
            ("1.2.3-rc.1", Some("1.2.3-rc.1"), None, None),
            ("1.2.3-tools", None, Some("1.2.3"), None),
            ("1.2.3-rc.1-tools", None, Some("1.2.3-rc.1"), None),
            ("1.2.3-big-tools", None, None, Some("1.2.3")),
            ("-tools", Some("-tools"), None, None),
        ] {
            assert_eq!(of(None, tag), plain, "{tag}");
            assert_eq!(of(Some("tools"), tag), tools, "{tag}");
            assert_eq!(of(Some("big"), tag), big, "{tag}");
        }
    }

    fn refusal(project: &str, version: &str, flavour: Option<&str>) -> String {
        let failure = resolve(project, version, flavour).unwrap_err();
        format!("{failure}\n{}", failure.hint_lines().join("\n"))
    }

    #[test]
    fn the_tag_of_a_flavour_is_no_version() {
        assert_eq!(
            refusal(TWO, "v1.2.3-tools", None),
            "`1.2.3-tools` (from flag --version) is the tag of the flavour `tools`, not a version\n\
             name both: `--version 1.2.3 --flavour tools`"
        );
        assert!(
            refusal(TWO, "dev-tools", Some("tools")).contains("`--version dev --flavour tools`")
        );
        assert!(
            resolve("", "1.2.3-tools", None).is_ok(),
            "there is no such flavour"
        );
    }

    #[test]
    fn an_unknown_flavour_is_refused_with_those_that_exist() {
        assert_eq!(
            refusal(TWO, "1.2.3", Some("tool")),
            "there is no flavour `tool`: the configuration has `big`, `tools`\n\
             name one of them, such as `--flavour tools`, or leave out `--flavour`"
        );
        assert!(refusal("", "1.2.3", Some("x")).contains("the configuration has none"));
    }

    #[test]
    fn flavours_must_differ() {
        let same = format!("{TWO}[flavour.more]\ntarget = 'x'\nsuffix = '-tools'\n");
        assert_eq!(
            refusal(&same, "1.2.3", None),
            "the flavours `more` and `tools` have the same suffix `-tools`, so their images would have the same tags\n\
             set another suffix: `flavour.tools.suffix`"
        );
        let none = "[flavour.x]\nsuffix = '-x'\n";
        assert!(refusal(none, "1.2.3", None).contains("the flavour `x` has no `target`"));
    }

    #[test]
    fn a_channel_says_which_flavours_are_published_together() {
        let with =
            |names: &str| format!("{TWO}[[channel]]\nname = 'release'\nflavours = {names}\n");
        let settings = resolve(&with("['tools']"), "1.2.3", None).unwrap();
        let together = settings.released_together().unwrap();
        let tags: Vec<_> = together.iter().map(Settings::own_tag).collect();
        assert_eq!(tags, ["1.2.3", "1.2.3-tools"]);
        assert_eq!(
            refusal(&with("['tool']"), "dev-me", None),
            "`channel.release.flavours` (from xtask.toml:12) has the flavour `tool`, which does not exist\n\
             add `[flavour.tool]`, or remove the name from the list"
        );
    }
}
