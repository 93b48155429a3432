//! Requests to a repository of a real registry. They use curl, so that the tests do not rely on xtask's own
//! client.

use std::{
    io::Write as _,
    process::{self, Command, Stdio},
    time::SystemTime,
};

use serde_json::Value;

use crate::engines::{CommandOutput, command_output, var};

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A repository that no other test uses.
pub struct Remote {
    /// The host for the requests of the tests.
    pub host: String,
    pub path: String,
    /// `user:password`, if the registry requires it.
    pub auth: Option<String>,
}

/// The values of environment variables. If one is not set, the test is skipped; in CI it fails.
pub fn needed<const N: usize>(names: [&str; N]) -> Option<[String; N]> {
    let found = names.map(var);
    if found.iter().all(Option::is_some) {
        return Some(found.map(Option::unwrap));
    }
    let names = names.join(", ");
    assert!(
        var("XTASK_E2E_REQUIRE").is_none(),
        "required and not set: {names}"
    );
    let _ = writeln!(std::io::stderr(), "skipped: {names} is not set");
    None
}

impl Remote {
    /// A repository in the registry without a password.
    pub fn open(purpose: &str) -> Option<Self> {
        let [host] = needed(["XTASK_E2E_REGISTRY"])?;
        Some(Self::new(host, purpose, None))
    }

    /// A repository in the registry with a password.
    pub fn with_password(purpose: &str) -> Option<Self> {
        let [host, user, password] = needed([
            "XTASK_E2E_AUTH_REGISTRY",
            "XTASK_E2E_AUTH_USER",
            "XTASK_E2E_AUTH_PASSWORD",
        ])?;
        Some(Self::new(host, purpose, Some(format!("{user}:{password}"))))
    }

    /// A repository in another registry, without a password.
    pub fn at(host: &str, purpose: &str) -> Self {
        Self::new(host.to_owned(), purpose, None)
    }

    fn new(host: String, purpose: &str, auth: Option<String>) -> Self {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        Self {
            host,
            path: format!(
                "e2e/{purpose}-{}-{}/agent-runner",
                process::id(),
                now.as_nanos()
            ),
            auth,
        }
    }

    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    fn get(&self, what: &str, more: &[&str]) -> CommandOutput {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-f", "-L", "-H", &format!("Accept: {MANIFESTS}")]);
        curl.args(more);
        curl.arg(format!("http://{}/v2/{}/{what}", self.host, self.path));
        // The password is not an argument: a parallel test searches all command lines for it.
        curl.args(["--config", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = curl.spawn().unwrap();
        let mut config = child.stdin.take().unwrap();
        if let Some(auth) = &self.auth {
            writeln!(config, "user = \"{auth}\"").unwrap();
        }
        drop(config);
        command_output(&child.wait_with_output().unwrap())
    }

    pub fn tags(&self) -> Vec<String> {
        let list: Value =
            serde_json::from_str(&self.get("tags/list", &[]).stdout).unwrap_or_default();
        let mut tags: Vec<String> = list["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|tag| tag.as_str().unwrap().to_owned())
            .collect();
        tags.sort();
        tags
    }

    /// The digest of a tag, from the registry's header.
    pub fn digest(&self, tag: &str) -> Option<String> {
        let head = self.get(&format!("manifests/{tag}"), &["-I"]);
        head.stdout.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("docker-content-digest")
                .then(|| value.trim().to_owned())
        })
    }

    /// Whether the registry redirects requests for a blob to its storage.
    pub fn redirects(&self, digest: &str) -> bool {
        let count = ["-o", "/dev/null", "-w", "%{num_redirects}"];
        let got = self.get(&format!("blobs/{digest}"), &count);
        assert_eq!(got.code, 0, "{}", got.stderr);
        got.stdout != "0"
    }

    /// Gives an image more tags. `pattern` may have ranges, as `1.0.[1-9]`.
    pub fn add_tags(&self, reference: &str, pattern: &str) {
        let content = self.get(&format!("manifests/{reference}"), &[]).stdout;
        let manifest: Value = serde_json::from_str(&content).unwrap();
        let media_type = manifest["mediaType"].as_str().unwrap();
        let media_type = format!("Content-Type: {media_type}");
        let put = [
            "-Z",
            "-X",
            "PUT",
            "-H",
            &media_type,
            "--data-binary",
            &content,
        ];
        let done = self.get(&format!("manifests/{pattern}"), &put);
        assert_eq!(done.code, 0, "{}", done.stderr);
    }

    pub fn manifest(&self, reference: &str) -> Value {
        let got = self.get(&format!("manifests/{reference}"), &[]);
        serde_json::from_str(&got.stdout).unwrap_or_else(|_| panic!("{reference}: {got:?}"))
    }

    pub fn blob(&self, digest: &str) -> Value {
        let got = self.get(&format!("blobs/{digest}"), &[]);
        serde_json::from_str(&got.stdout).unwrap_or_else(|_| panic!("{digest}: {got:?}"))
    }

    /// The images of an index with their platforms, without attestations.
    pub fn images(&self, reference: &str) -> Vec<(String, String)> {
        let index = self.manifest(reference);
        let images = index["manifests"].as_array().cloned().unwrap_or_default();
        images
            .iter()
            .filter(|one| one["platform"]["os"] != "unknown")
            .map(|one| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let platform = &one["platform"];
                (
                    format!(
                        "{}/{}",
                        text(&platform["os"]),
                        text(&platform["architecture"])
                    ),
                    text(&one["digest"]),
                )
            })
            .collect()
    }

    /// The image configuration of one platform.
    pub fn config(&self, reference: &str, platform: &str) -> Value {
        let manifest = self.manifest_for(reference, platform);
        self.blob(manifest["config"]["digest"].as_str().unwrap())
    }

    /// The digests of the layers of one platform.
    pub fn layers(&self, reference: &str, platform: &str) -> Vec<String> {
        let manifest = self.manifest_for(reference, platform);
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers
            .map(|layer| layer["digest"].as_str().unwrap().to_owned())
            .collect()
    }

    fn manifest_for(&self, reference: &str, platform: &str) -> Value {
        let images = self.images(reference);
        let (_, digest) = images.iter().find(|(found, _)| found == platform).unwrap();
        self.manifest(digest)
    }
}
