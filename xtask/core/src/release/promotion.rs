//! Decides, request by request, how an image gets its tags while other releases may do the same. Pure: the
//! caller sends the requests.
//!
//! Registries have no compare-and-swap for tags. So every tag is read before and after it is written, in an
//! order that is right whatever another run does in between: the version's own tag first, then the moving
//! tags, then the list of released versions again. Of two releases, the one that writes `latest` last finds
//! both versions in that list, and gives the tag to the newer one. Of two runs of the same version, the one
//! that writes the version's tag last keeps all tags, and the other one fails. One gap remains: if the other
//! run does all of its work after this one has read the version's tag and before it writes that tag, both
//! runs succeed.
//!
//! A run can be killed between any two requests. So it does not matter who wrote a tag: the run gives every
//! moving tag of its version to the newest released version that takes it, be that its own or a newer one.
//!
//! Some registries show a new tag in their list late. So before a tag is written over, the version of the image
//! that it names counts as released too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    base::{error::Failure, version::Version},
    release::tags::{self, KeptTag, TagPlan},
    settings::{GitValues, Settings},
};

/// How often the moving tags are corrected before the run gives up.
const ROUNDS: u32 = 5;

/// The image, and the tags that it shall get.
#[derive(Clone, Copy)]
pub struct Goal<'a> {
    pub settings: &'a Settings,
    pub git: &'a GitValues,
    /// The image's digest.
    pub digest: &'a str,
    /// The digest of the released image that the user agreed to replace.
    pub replaces: Option<&'a str>,
}

/// A request to the registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Which versions are released?
    List,
    /// Which digest does the tag name?
    Read(String),
    /// Of which version is the image with this digest?
    Version(String),
    Write {
        tag: String,
        digest: String,
    },
}

/// The registry's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Listed(Vec<String>),
    Names(Option<String>),
    /// None if the image names no version.
    IsVersion(Option<String>),
    Written,
}

/// How it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Send(Request),
    /// All tags name what they should, but for the unsettled ones: no image has the tag of the newer version for
    /// which they were left alone.
    Done {
        plan: TagPlan,
        unsettled: Vec<UnsettledTag>,
    },
    /// The version's own tag names another image, which is not ours to replace.
    Lost(Option<String>),
    /// Other releases moved the tags in every round.
    Busy,
}

/// A tag that was left alone for a newer version that has no image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsettledTag {
    pub kept: KeptTag,
    /// The digest that the tag names.
    pub names: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The version's own tag is read.
    Before,
    /// The version's own tag is written, and read again.
    Own,
    /// The moving tags are read, and written.
    Moving,
}

/// What is known so far, and the requests that come next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Promotion {
    stage: Stage,
    requests: VecDeque<Request>,
    listed: Vec<String>,
    /// What each tag named when it was last read.
    digests: BTreeMap<String, Option<String>>,
    /// The version that each image names, by digest.
    versions: BTreeMap<String, Option<String>>,
    /// The moving tags that this run wrote, so it must leave them right.
    wrote: BTreeSet<String>,
    round: u32,
}

impl Promotion {
    pub fn new(goal: Goal) -> Self {
        let own = goal.settings.own_tag();
        Self {
            stage: Stage::Before,
            requests: [Request::Read(own)].into(),
            listed: Vec::new(),
            digests: BTreeMap::new(),
            versions: BTreeMap::new(),
            wrote: BTreeSet::new(),
            round: 0,
        }
    }

    /// The round of corrections; 0 until a moving tag was written.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// The request to send, or the end.
    ///
    /// # Errors
    /// As [`tags::plan`].
    pub fn next(&mut self, goal: Goal) -> Result<Next, Failure> {
        loop {
            if let Some(request) = self.requests.front() {
                return Ok(Next::Send(request.clone()));
            }
            if let Some(end) = self.decide(goal)? {
                return Ok(end);
            }
        }
    }

    /// Notes the answer to the request that `next` returned.
    pub fn answered(&mut self, answer: Answer) {
        match (self.requests.pop_front(), answer) {
            (Some(Request::Read(tag)), Answer::Names(digest)) => {
                self.digests.insert(tag, digest);
            }
            (Some(Request::List), Answer::Listed(tags)) => self.listed = tags,
            (Some(Request::Version(digest)), Answer::IsVersion(version)) => {
                self.versions.insert(digest, version);
            }
            _ => {}
        }
    }

    fn names(&self, tag: &str) -> Option<&str> {
        self.digests.get(tag)?.as_deref()
    }

    /// All answers are here: adds further requests, or returns the end.
    fn decide(&mut self, goal: Goal) -> Result<Option<Next>, Failure> {
        let version = &goal.settings.version.value;
        let own = &goal.settings.own_tag();
        let tags = goal.settings.tags(goal.git)?;
        let has_own = tags.contains(own);
        match self.stage {
            Stage::Before if has_own && self.names(own) != Some(goal.digest) => {
                let found = self.names(own);
                // A version that is not SemVer names another image each time.
                let replaceable =
                    found.is_none() || found == goal.replaces || version.semver().is_none();
                if !replaceable {
                    return Ok(Some(Next::Lost(found.map(str::to_owned))));
                }
                self.write(own, goal.digest);
                self.requests.push_back(Request::Read(own.to_owned()));
                self.stage = Stage::Own;
            }
            Stage::Before | Stage::Own => {
                if has_own && self.names(own) != Some(goal.digest) {
                    return Ok(Some(Next::Lost(self.names(own).map(str::to_owned))));
                }
                self.stage = Stage::Moving;
                self.look(own, &tags);
            }
            Stage::Moving => return self.correct(goal, &tags, has_own),
        }
        Ok(None)
    }

    /// Decides what the moving tags should name.
    fn correct(
        &mut self,
        goal: Goal,
        tags: &[String],
        has_own: bool,
    ) -> Result<Option<Next>, Failure> {
        let own = &goal.settings.own_tag();
        let released = self.released(goal);
        let plan = tags::plan(goal.settings, &released, goal.git)?;
        // Another run of the same version has overwritten the version's tag. Its image then gets the tags that this
        // run wrote; the other run sets the rest itself.
        let lost = has_own && self.names(own) != Some(goal.digest);
        let ours = if has_own {
            self.names(own).map(str::to_owned)
        } else {
            Some(goal.digest.to_owned())
        };
        if lost && ours.is_none() {
            return Ok(Some(Next::Lost(None)));
        }
        let mut wanted = Vec::new();
        for tag in plan.moves.iter().filter(|tag| *tag != own) {
            if !lost || self.wrote.contains(tag) {
                wanted.push((tag.clone(), ours.clone()));
            }
        }
        // Without tags of their own, the images of other versions are not known.
        let kept_tags = if has_own { plan.kept.as_slice() } else { &[] };
        for kept in kept_tags {
            let has_written = self.wrote.contains(&kept.tag);
            let Some(owner) = &kept.owner else {
                // The newer version does not take this tag, so the tag stays with this run's image.
                if has_written {
                    wanted.push((kept.tag.clone(), ours.clone()));
                }
                continue;
            };
            let owner = goal.settings.flavoured(owner);
            if !self.digests.contains_key(&owner) {
                ask(&mut self.requests, Request::Read(owner.clone()));
            }
            let owner = self.names(&owner).map(str::to_owned);
            if has_written || (!lost && kept.is_taken() && owner.is_some()) {
                wanted.push((kept.tag.clone(), owner));
            }
        }
        let is_wrong = |(tag, digest): &(String, Option<String>)| {
            digest.is_none() || self.names(tag) != digest.as_deref()
        };
        wanted.retain(is_wrong);
        self.ask_for_versions(goal, &wanted);
        if !self.requests.is_empty() {
            return Ok(None);
        }
        let has_no_image = |(_, digest): &(String, Option<String>)| digest.is_none();
        if wanted.is_empty() || (self.round == ROUNDS && wanted.iter().all(has_no_image)) {
            return Ok(Some(if lost {
                Next::Lost(ours)
            } else {
                self.done(goal, plan, has_own)
            }));
        }
        if self.round == ROUNDS {
            return Ok(Some(Next::Busy));
        }
        self.round += 1;
        for (tag, digest) in wanted {
            // A newer version without a readable tag is asked for once more in the next round.
            if let Some(digest) = digest {
                self.write(&tag, &digest);
                self.wrote.insert(tag);
            }
        }
        self.look(own, tags);
        Ok(None)
    }

    /// The versions of the list, and the newer ones of the images that moving tags name. Of these, only one whose
    /// own tag exists counts: the others were withdrawn. Asks for the tags that were not read yet.
    fn released(&mut self, goal: Goal) -> Vec<String> {
        let mut released = self.listed.clone();
        for text in self.versions.values().flatten() {
            let newer = Version::parse(text)
                .ok()
                .filter(|version| version.is_newer_than(&goal.settings.version.value));
            let Some(version) = newer else {
                continue;
            };
            let tag = goal.settings.flavoured(version.as_str());
            match self.digests.get(&tag) {
                Some(Some(_)) => released.push(text.clone()),
                Some(None) => {}
                None => ask(&mut self.requests, Request::Read(tag)),
            }
        }
        released
    }

    /// Asks for the versions of the images that these tags name, before they are written over.
    fn ask_for_versions(&mut self, goal: Goal, wanted: &[(String, Option<String>)]) {
        if goal.settings.version.value.semver().is_none() {
            return;
        }
        for (tag, _) in wanted {
            let Some(digest) = self.names(tag).filter(|digest| *digest != goal.digest) else {
                continue;
            };
            if !self.versions.contains_key(digest) {
                let request = Request::Version(digest.to_owned());
                ask(&mut self.requests, request);
            }
        }
    }

    /// Every tag names what it should, or was left alone.
    fn done(&self, goal: Goal, mut plan: TagPlan, has_own: bool) -> Next {
        let has_image = |kept: &KeptTag| {
            let owner = goal.settings.flavoured(&kept.version);
            !has_own || !kept.is_taken() || self.names(&owner).is_some()
        };
        // A newer version that appeared meanwhile does not take these.
        let is_ours = |kept: &KeptTag| self.wrote.contains(&kept.tag) && kept.owner.is_none();
        let (ours, kept): (Vec<_>, Vec<_>) = plan.kept.into_iter().partition(is_ours);
        plan.moves.extend(ours.into_iter().map(|kept| kept.tag));
        let (kept, without): (Vec<_>, Vec<_>) = kept.into_iter().partition(has_image);
        plan.kept = kept;
        let unsettled = without.into_iter().map(|kept| UnsettledTag {
            names: self.names(&kept.tag).map(str::to_owned),
            kept,
        });
        Next::Done {
            plan,
            unsettled: unsettled.collect(),
        }
    }

    fn write(&mut self, tag: &str, digest: &str) {
        self.requests.push_back(Request::Write {
            tag: tag.to_owned(),
            digest: digest.to_owned(),
        });
    }

    /// Forgets what is known, and asks for all of it again.
    fn look(&mut self, own: &str, tags: &[String]) {
        self.digests.clear();
        let others: Vec<_> = tags.iter().filter(|tag| *tag != own).cloned().collect();
        if !others.is_empty() {
            self.requests.push_back(Request::List);
        }
        self.requests.push_back(Request::Read(own.to_owned()));
        self.requests.extend(others.into_iter().map(Request::Read));
    }
}

/// Adds a question that is not there yet.
fn ask(requests: &mut VecDeque<Request>, question: Request) {
    if !requests.contains(&question) {
        requests.push_back(question);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::env::Env, config::files::Files, settings::resolve::Arguments};

    /// A registry: the tags, each with its digest.
    type Registry = BTreeMap<String, String>;

    fn registry(tags: &[(&str, &str)]) -> Registry {
        tags.iter()
            .map(|(tag, digest)| ((*tag).to_owned(), (*digest).to_owned()))
            .collect()
    }

    /// The settings of a version in a project in which pre-releases take `next`.
    fn settings(version: &str) -> Settings {
        let arguments = Arguments {
            version: Some(version.to_owned()),
            ..Arguments::default()
        };
        let files = Files {
            root: "/src".into(),
            project: "schema = 1\n[flavour.tools]\ntarget = 'x'\n[[channel]]\nname = 'prerelease'\nmatch = ['semver:prerelease']\ntags = ['{version}', 'next']\n".to_owned(),
            local: None,
        };
        Settings::resolve(&arguments, &Env::fake(&[]), &files).unwrap()
    }

    /// A run that publishes an image, and how it ended.
    struct Run {
        settings: Settings,
        digest: &'static str,
    }

    fn run(version: &str, digest: &'static str) -> Run {
        Run {
            settings: settings(version),
            digest,
        }
    }

    /// What [`crate::release::preflight::released_versions`] reads from the registry's list of tags.
    fn listed(settings: &Settings, registry: &Registry) -> Answer {
        let versions = registry.keys().filter_map(|tag| settings.unflavoured(tag));
        Answer::Listed(versions.map(str::to_owned).collect())
    }

    /// The version of an image: that of the tag that was its own when it was published.
    fn version_of(registry: &Registry, digest: &str) -> Option<String> {
        let named = registry.iter().filter(|(_, named)| *named == digest);
        let versions = named.filter_map(|(tag, _)| Version::parse(tag).ok());
        let mut versions = versions.filter(|version| version.semver().is_some());
        Some(versions.next()?.to_string())
    }

    const GIT: GitValues = GitValues {
        sha: None,
        branch: None,
    };

    /// Answers a request. The list of tags is that of `list`.
    fn answer(
        settings: &Settings,
        request: Request,
        registry: &mut Registry,
        list: &Registry,
    ) -> Answer {
        match request {
            Request::List => listed(settings, list),
            Request::Read(tag) => Answer::Names(registry.get(&tag).cloned()),
            Request::Version(digest) => Answer::IsVersion(version_of(registry, &digest)),
            Request::Write { tag, digest } => {
                registry.insert(tag, digest);
                Answer::Written
            }
        }
    }

    impl Run {
        fn goal(&self) -> Goal<'_> {
            Goal {
                settings: &self.settings,
                git: &GIT,
                digest: self.digest,
                replaces: None,
            }
        }

        /// Sends one request. False if the run has ended.
        fn step(&self, promotion: &mut Promotion, registry: &mut Registry) -> bool {
            let Next::Send(request) = promotion.next(self.goal()).unwrap() else {
                return false;
            };
            let list = registry.clone();
            promotion.answered(answer(&self.settings, request, registry, &list));
            true
        }

        fn end(&self, promotion: &mut Promotion) -> Next {
            promotion.next(self.goal()).unwrap()
        }
    }

    /// How often runs are stopped, and then run again.
    #[derive(Clone, Copy)]
    enum Stops {
        Never,
        /// Each run at most once, after any request. A run that has ended runs again too.
        Once,
    }

    /// Tries all orders in which two runs can send their requests, and checks the registry and the ends of
    /// both after each. Returns how many different registries they leave.
    fn all_orders(
        runs: &[Run; 2],
        before: &Registry,
        stops: Stops,
        check: impl Fn(&Registry, [Next; 2]),
    ) -> usize {
        let start = [0, 1].map(|one: usize| Promotion::new(runs[one].goal()));
        let may_stop = match stops {
            Stops::Never => [false; 2],
            Stops::Once => [true; 2],
        };
        let mut open = vec![(start, may_stop, before.clone())];
        let mut known = BTreeSet::new();
        let mut ends = BTreeSet::new();
        while let Some((promotions, may_stop, registry)) = open.pop() {
            if !known.insert((promotions.clone(), may_stop, registry.clone())) {
                continue;
            }
            let mut has_ended = true;
            for one in [0, 1] {
                if may_stop[one] {
                    let (mut promotions, mut may_stop) = (promotions.clone(), may_stop);
                    promotions[one] = Promotion::new(runs[one].goal());
                    may_stop[one] = false;
                    open.push((promotions, may_stop, registry.clone()));
                }
                let (mut promotions, mut registry) = (promotions.clone(), registry.clone());
                if runs[one].step(&mut promotions[one], &mut registry) {
                    has_ended = false;
                    open.push((promotions, may_stop, registry));
                }
            }
            if has_ended {
                let [mut first, mut second] = promotions;
                check(
                    &registry,
                    [runs[0].end(&mut first), runs[1].end(&mut second)],
                );
                ends.insert(registry);
            }
        }
        assert!(known.len() > 500, "few states: {}", known.len());
        ends.len()
    }

    fn is_done(end: &Next) -> bool {
        matches!(end, Next::Done { unsettled, .. } if unsettled.is_empty())
    }

    #[test]
    fn of_two_versions_the_newer_one_has_the_moving_tags() {
        let before = registry(&[("1.2.3", "c"), ("1.2", "c"), ("1", "c"), ("latest", "c")]);
        let runs = [run("1.2.4", "d"), run("1.2.5", "e")];
        let ends = all_orders(&runs, &before, Stops::Never, |registry, ends| {
            for tag in ["1.2.5", "1.2", "1", "latest"] {
                assert_eq!(registry[tag], "e", "{tag}: {registry:?}");
            }
            assert_eq!(registry["1.2.4"], "d");
            assert!(ends.iter().all(is_done), "{ends:?}");
        });
        assert_eq!(ends, 1);
        // Two lines share only `latest` and `1`.
        let runs = [run("1.3.0", "d"), run("1.2.4", "e")];
        all_orders(&runs, &before, Stops::Never, |registry, ends| {
            for (tag, digest) in [("latest", "d"), ("1", "d"), ("1.3", "d"), ("1.2", "e")] {
                assert_eq!(registry[tag], digest, "{tag}: {registry:?}");
            }
            assert!(ends.iter().all(is_done));
        });
        let runs = [run("1.9.0-rc.1", "d"), run("2.0.0-rc.1", "e")];
        all_orders(&runs, &before, Stops::Never, |registry, _| {
            assert_eq!(registry["next"], "e");
        });
    }

    #[test]
    fn the_tags_of_flavours_do_not_depend_on_one_another() {
        let tools = |version: &str, digest| Run {
            settings: settings(version).with_flavour("tools").unwrap(),
            digest,
        };
        let before = registry(&[("1.2.3", "c"), ("latest", "c"), ("latest-tools", "t")]);
        // Of two versions of a flavour, the newer one has its moving tags.
        let runs = [tools("1.2.4", "d"), tools("1.2.5", "e")];
        let ends = all_orders(&runs, &before, Stops::Never, |registry, ends| {
            for tag in ["1.2.5-tools", "1.2-tools", "1-tools", "latest-tools"] {
                assert_eq!(registry[tag], "e", "{tag}: {registry:?}");
            }
            assert_eq!(registry["1.2.4-tools"], "d");
            assert_eq!(registry["latest"], "c", "the plain image's tag");
            assert!(ends.iter().all(is_done));
        });
        assert_eq!(ends, 1);
        // An older version of the plain image does not wait for the flavour of a newer one.
        let mut tags = registry(&[("1.2.5-tools", "t"), ("latest-tools", "t")]);
        let (writes, _) = alone(run("1.2.4", "d").goal(), &mut tags);
        assert_eq!(writes, ["1.2.4", "1.2", "1", "latest"]);
        let (writes, _) = alone(tools("1.2.4", "e").goal(), &mut tags);
        // The newer version lacked two of its tags.
        assert_eq!(writes, ["1.2.4-tools", "1.2-tools", "1-tools"]);
        assert_eq!(tags["1-tools"], "t");
    }

    #[test]
    fn of_two_runs_of_a_version_all_tags_name_the_image_of_one() {
        let runs = [run("1.2.3", "d"), run("1.2.3", "e")];
        let before = registry(&[("latest", "b"), ("1.2.2", "b")]);
        let ends = all_orders(&runs, &before, Stops::Never, |registry, ends| {
            let winner = &registry["1.2.3"];
            for tag in ["1.2", "1", "latest"] {
                assert_eq!(&registry[tag], winner, "{tag}: {registry:?}");
            }
            for (end, run) in ends.iter().zip(&runs) {
                match end {
                    // The other run can be done before this one writes the version's own tag.
                    Next::Done { .. } => {}
                    Next::Lost(found) => {
                        assert_ne!(run.digest, winner);
                        assert_eq!(found.as_ref(), Some(winner));
                    }
                    end => panic!("{end:?}"),
                }
            }
        });
        assert_eq!(ends, 2, "either can win");
    }

    #[test]
    fn two_runs_of_one_image_both_succeed() {
        let runs = [run("1.2.3", "d"), run("1.2.3", "d")];
        all_orders(&runs, &Registry::new(), Stops::Never, |registry, ends| {
            assert_eq!(registry["latest"], "d");
            assert!(ends.iter().all(is_done));
        });
    }

    /// Runs alone. Returns the requests that write, and the end.
    fn alone(goal: Goal, registry: &mut Registry) -> (Vec<String>, Next) {
        alone_without(goal, registry, &[])
    }

    /// As [`alone`], with a list that lacks these tags.
    fn alone_without(
        goal: Goal,
        registry: &mut Registry,
        unlisted: &[&str],
    ) -> (Vec<String>, Next) {
        let mut promotion = Promotion::new(goal);
        let mut writes = Vec::new();
        loop {
            match promotion.next(goal).unwrap() {
                Next::Send(request) => {
                    if let Request::Write { tag, .. } = &request {
                        writes.push(tag.clone());
                    }
                    let mut list = registry.clone();
                    list.retain(|tag, _| !unlisted.contains(&tag.as_str()));
                    promotion.answered(answer(goal.settings, request, registry, &list));
                }
                end => return (writes, end),
            }
        }
    }

    /// A run can be killed after any request, or stop because of a failure. Then the same command is run again.
    #[test]
    fn a_run_that_was_stopped_is_completed_by_the_next_one() {
        // These have one moving tag, so there are not too many orders.
        let before = registry(&[("2.0.0-rc.1", "c"), ("next", "c")]);
        let runs = [run("2.0.0-rc.2", "d"), run("2.0.0-rc.3", "e")];
        let ends = all_orders(&runs, &before, Stops::Once, |registry, ends| {
            assert_eq!(registry["2.0.0-rc.2"], "d");
            assert_eq!(registry["2.0.0-rc.3"], "e");
            assert_eq!(registry["next"], "e", "{registry:?}");
            assert!(ends.iter().all(is_done), "{ends:?}");
        });
        assert_eq!(ends, 1);
        // Of two runs of one version, the run that has the version's tag completes its tags.
        let runs = [run("2.0.0-rc.2", "d"), run("2.0.0-rc.2", "e")];
        all_orders(&runs, &before, Stops::Once, |registry, _| {
            let winner = &registry["2.0.0-rc.2"];
            let run = runs.iter().find(|run| run.digest == *winner).unwrap();
            let mut after = registry.clone();
            assert!(is_done(&alone(run.goal(), &mut after).1));
            assert_eq!(after["next"], *winner, "{registry:?}");
        });
    }

    /// The run of the newer version was killed after it had set the version's own tag.
    #[test]
    fn an_older_version_gives_the_moving_tags_to_a_newer_one_that_lacks_them() {
        let run = run("1.2.4", "d");
        for named in ["c", "d"] {
            let mut tags = registry(&[("1.2.3", "c"), ("1.2.5", "e"), ("latest", named)]);
            let (writes, end) = alone(run.goal(), &mut tags);
            assert_eq!(writes, ["1.2.4", "1.2", "1", "latest"]);
            for tag in ["1.2", "1", "latest"] {
                assert_eq!(tags[tag], "e", "{tag}");
            }
            assert!(is_done(&end), "{end:?}");
        }
    }

    #[test]
    fn a_tag_that_waits_for_a_version_without_an_image_is_reported() {
        let run = run("1.2.4", "d");
        let mut promotion = Promotion::new(run.goal());
        let mut tags = registry(&[("1.2.3", "c"), ("latest", "c")]);
        // As git's tags tell it.
        let list = registry(&[("1.2.4", "d"), ("1.2.5", "e")]);
        while let Next::Send(request) = promotion.next(run.goal()).unwrap() {
            promotion.answered(answer(&run.settings, request, &mut tags, &list));
        }
        let Next::Done { plan, unsettled } = run.end(&mut promotion) else {
            panic!("{promotion:?}");
        };
        assert!(plan.kept.is_empty());
        let latest = unsettled
            .iter()
            .find(|one| one.kept.tag == "latest")
            .unwrap();
        assert_eq!(latest.kept.version, "1.2.5");
        assert_eq!(latest.names.as_deref(), Some("c"));
        assert_eq!(tags["latest"], "c");
    }

    #[test]
    fn a_stable_version_does_not_get_a_tag_that_it_does_not_take() {
        let run = run("1.9.0-rc.1", "d");
        let mut tags = registry(&[("2.0.0-rc.1", "b"), ("2.0.0", "c"), ("next", "b")]);
        let (writes, end) = alone(run.goal(), &mut tags);
        assert_eq!(writes, ["1.9.0-rc.1"]);
        assert!(is_done(&end), "{end:?}");
        assert_eq!(tags["next"], "b");
    }

    /// A stable version is released after the pre-release has written `next`.
    #[test]
    fn a_stable_version_that_is_released_meanwhile_does_not_get_next() {
        let before = registry(&[("1.8.0-rc.1", "b"), ("next", "b")]);
        let meanwhile = |released: &[(&str, &str)]| {
            let run = run("1.9.0-rc.1", "d");
            let mut tags = before.clone();
            let mut promotion = Promotion::new(run.goal());
            let mut is_released = false;
            while run.step(&mut promotion, &mut tags) {
                if !is_released && tags["next"] == "d" {
                    tags.extend(registry(released));
                    is_released = true;
                }
            }
            (run.end(&mut promotion), tags["next"].clone())
        };
        let (end, next) = meanwhile(&[("2.0.0", "c")]);
        assert!(matches!(end, Next::Done { plan, .. } if plan.moves.contains(&"next".to_owned())));
        assert_eq!(next, "d");
        // It stays with a newer pre-release.
        let (end, next) = meanwhile(&[("2.0.0-rc.1", "e"), ("next", "e"), ("2.0.0", "c")]);
        assert!(matches!(end, Next::Done { plan, .. } if plan.kept.len() == 1));
        assert_eq!(next, "e");

        let runs = [run("1.9.0-rc.1", "d"), run("2.0.0", "c")];
        all_orders(&runs, &before, Stops::Never, |registry, ends| {
            assert!(["b", "d"].contains(&&*registry["next"]), "{registry:?}");
            assert!(ends.iter().all(is_done), "{ends:?}");
        });
    }

    /// Both have written `next` when the stable version appears.
    #[test]
    fn of_two_prereleases_before_a_stable_version_the_newer_one_has_next() {
        let runs = [run("1.9.0-rc.1", "d"), run("1.9.0-rc.2", "e")];
        for order in [[0, 1], [1, 0]] {
            let mut tags = registry(&[("1.8.0-rc.1", "b"), ("next", "b")]);
            let mut promotions = runs.each_ref().map(|run| Promotion::new(run.goal()));
            for (one, digest) in [(0, "d"), (1, "e")] {
                while tags["next"] != digest {
                    assert!(runs[one].step(&mut promotions[one], &mut tags));
                }
            }
            tags.insert("2.0.0".to_owned(), "c".to_owned());
            for one in order {
                while runs[one].step(&mut promotions[one], &mut tags) {}
                assert!(is_done(&runs[one].end(&mut promotions[one])));
            }
            assert_eq!(tags["next"], "e");
        }
    }

    #[test]
    fn a_version_that_the_list_does_not_show_yet_keeps_its_tags() {
        let run = run("1.2.4", "d");
        let before = [
            ("1.2.3", "c"),
            ("1.2.5", "e"),
            ("1.2", "e"),
            ("1", "e"),
            ("latest", "e"),
        ];
        let mut tags = registry(&before);
        let (writes, end) = alone_without(run.goal(), &mut tags, &["1.2.5"]);
        assert_eq!(writes, ["1.2.4"]);
        assert!(is_done(&end), "{end:?}");
        assert_eq!(tags["latest"], "e");
        // The list shows an older one of two newer versions.
        tags.insert("1.2.6".to_owned(), "f".to_owned());
        tags.insert("latest".to_owned(), "f".to_owned());
        let (writes, _) = alone_without(run.goal(), &mut tags, &["1.2.6"]);
        assert_eq!(writes, ["1.2", "1"], "as 1.2.6 has `latest`");
        assert_eq!(tags["latest"], "f");
        // Withdrawn: its own tag was removed.
        let mut tags = registry(&[("latest", "e"), ("1.2.3", "c")]);
        let mut promotion = Promotion::new(run.goal());
        while let Next::Send(request) = promotion.next(run.goal()).unwrap() {
            let answer = match request {
                Request::Version(_) => Answer::IsVersion(Some("1.2.5".to_owned())),
                request => {
                    let list = tags.clone();
                    answer(&run.settings, request, &mut tags, &list)
                }
            };
            promotion.answered(answer);
        }
        assert_eq!(tags["latest"], "d");
    }

    #[test]
    fn a_tag_that_names_the_image_already_is_not_written_again() {
        let run = run("1.2.3", "d");
        let mut tags = registry(&[
            ("1.2.3", "d"),
            ("1.2", "d"),
            ("latest", "b"),
            ("1.2.2", "b"),
        ]);
        let (writes, end) = alone(run.goal(), &mut tags);
        assert_eq!(writes, ["1", "latest"]);
        assert!(matches!(end, Next::Done { plan, .. } if plan.moves.len() == 4));
        assert!(alone(run.goal(), &mut tags).0.is_empty());
    }

    #[test]
    fn a_released_version_is_replaced_only_if_the_user_agreed_to_that_image() {
        let run = run("1.2.3", "d");
        for (found, agreed, writes) in [("b", None, 0), ("b", Some("b"), 4), ("c", Some("b"), 0)] {
            let mut tags = registry(&[("1.2.3", found)]);
            let goal = Goal {
                replaces: agreed,
                ..run.goal()
            };
            let (written, end) = alone(goal, &mut tags);
            assert_eq!(written.len(), writes, "{found} {agreed:?}");
            if writes == 0 {
                assert_eq!(end, Next::Lost(Some(found.to_owned())));
            }
        }
        // Other versions than SemVer's name another image each time.
        let mut tags = registry(&[("dev-me", "b")]);
        let (written, _) = alone(super::tests::run("dev-me", "d").goal(), &mut tags);
        assert_eq!(written, ["dev-me"]);
    }

    #[test]
    fn a_run_gives_up_if_others_move_the_tags_all_the_time() {
        let run = run("1.2.3", "d");
        let mut promotion = Promotion::new(run.goal());
        let mut tags = Registry::new();
        let mut count = 0;
        while run.step(&mut promotion, &mut tags) {
            tags.insert("latest".to_owned(), "x".to_owned());
            count += 1;
        }
        assert_eq!(run.end(&mut promotion), Next::Busy);
        assert!(count < 100);
    }
}
