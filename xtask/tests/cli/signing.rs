//! Signing what is published, with fake cosigns of both majors. `.ci/run` signs with real ones.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{
    publication::{Image, Publication},
    registry::fake::{Auth, FakeRegistry, Oddities},
    sandbox::{CommandOutput, Sandbox, answer, command_output},
};

/// What both majors print, and one more option that cosign 3 demands without a transparency log.
const V2: (&str, &str) = ("v2.5.3", "");
const V3: (&str, &str) = ("v3.0.4", "--use-signing-config=false ");

/// A checkout whose releases are signed with a key, a registry, and a cosign.
struct Signing {
    registry: FakeRegistry,
    publication: Publication,
    programs: Sandbox,
}

/// A cosign that notes its calls, and what it finds in `DOCKER_CONFIG` and in the file of authorities.
const NOTING_COSIGN: &str = r#"#!/bin/sh
bin=${0%/*}
echo "cosign $*" >> "$bin/calls"
[ "$1" != version ] || { echo 'GitVersion: v3.0.4'; exit; }
if [ -n "$DOCKER_CONFIG" ]; then
    cp "$DOCKER_CONFIG/config.json" "$bin/config.json"
    stat -c %a "$DOCKER_CONFIG" "$DOCKER_CONFIG/config.json" > "$bin/modes"
    echo "${DOCKER_AUTH_CONFIG-unset}" > "$bin/variable"
fi
while [ $# -gt 0 ]; do
    [ "$1" != --registry-cacert ] || cp "$2" "$bin/authorities.pem"
    shift
done
[ ! -e "$bin/fails" ]
"#;

/// The configuration of a channel that signs.
fn channel(sign: &str) -> String {
    attesting(sign).replace("= true", "= false")
}

/// As [`channel`], with attestations.
fn attesting(sign: &str) -> String {
    format!(
        "{sign}transparency-log = false\n\
         [[channel]]\nname = 'release'\nsign = 'key'\nprovenance = true\nsbom = true\n"
    )
}

impl Signing {
    fn new(config: &str, cosign: &[serde_json::Value]) -> Self {
        let programs = Sandbox::new("").engine("cosign", cosign);
        Self::with(Oddities::default(), config, programs)
    }

    /// With a cosign that notes what it gets.
    fn noting(oddities: Oddities, config: &str) -> Self {
        let programs = Sandbox::new("");
        let cosign = programs.path("bin/cosign");
        fs::write(&cosign, NOTING_COSIGN).unwrap();
        fs::set_permissions(cosign, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(programs.path("tmp")).unwrap();
        Self::with(oddities, config, programs)
    }

    fn with(oddities: Oddities, config: &str, programs: Sandbox) -> Self {
        let registry = FakeRegistry::start(oddities);
        let repository = format!("{}/team/agent-runner", registry.address);
        let publication = Publication::new(&repository, Image::default());
        let local = format!("schema = 1\n[sign]\n{config}");
        fs::write(publication.path().join("xtask.local.toml"), local).unwrap();
        for name in ["a.key", "a.pub"] {
            fs::write(publication.path().join("target").join(name), "").unwrap();
        }
        Self {
            registry,
            publication,
            programs,
        }
    }

    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> CommandOutput {
        let path = format!(
            "{}:{}",
            self.programs.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        let mut command = self.publication.command(args);
        if self.programs.path("tmp").exists() {
            command.env("TMPDIR", self.programs.path("tmp"));
        }
        let output = command
            .env("PATH", path)
            .env("COSIGN_PASSWORD", "marked-password")
            .env_remove("COSIGN_PRIVATE_KEY")
            .env_remove("DOCKER_AUTH_CONFIG")
            .envs(env.iter().copied())
            .output()
            .unwrap();
        let output = command_output(&output);
        assert!(!format!("{output:?}").contains("marked-"), "{output:?}");
        output
    }

    fn publish(&self, env: &[(&str, &str)]) -> CommandOutput {
        let archive = self.publication.archive.to_str().unwrap();
        self.run(&["push-archive", "--version", "1.2.3", archive], env)
    }

    /// Replaces the answers of cosign.
    fn answer(&self, cosign: &[serde_json::Value]) {
        let answers = serde_json::json!(cosign).to_string();
        fs::write(self.programs.path("bin/cosign.json"), answers).unwrap();
    }

    /// cosign finds the SBOMs of the first platforms of the published image, and all else.
    fn find_sboms(&self, count: usize) {
        let index = self.registry.manifest(&self.publication.digest);
        let platforms = index["manifests"].as_array().unwrap();
        let envelope = |platform: &serde_json::Value| {
            let statement = serde_json::json!({
                "subject": [{ "digest": { "sha256": self.publication.digest.replace("sha256:", "") } }],
                "predicate": { "packages": [{ "versionInfo": platform["digest"] }] },
            });
            let payload = BASE64_STANDARD.encode(statement.to_string());
            serde_json::json!({ "payload": payload }).to_string() + "\n"
        };
        let printed: String = platforms[..count].iter().map(envelope).collect();
        let mut answers = vec![answer(
            "verify-attestation --type spdxjson",
            0,
            &printed,
            "",
        )];
        answers.extend(willing(V3.0));
        self.answer(&answers);
    }

    /// The calls of cosign but those for its version, with `ID` for the id of a process.
    fn calls(&self) -> Vec<String> {
        let mut calls = self.programs.calls();
        calls.retain(|call| call != "cosign version");
        for call in &mut calls {
            if let Some((begin, rest)) = call.split_once(".attestations.") {
                let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                *call = format!("{begin}.attestations.ID{rest}");
            }
        }
        calls
    }

    fn reference(&self) -> String {
        format!(
            "{}/team/agent-runner@{}",
            self.registry.address, self.publication.digest
        )
    }
}

fn version(version: &str) -> serde_json::Value {
    answer("version", 0, &format!("GitVersion:    {version}\n"), "")
}

#[test]
fn both_majors_sign_without_a_transparency_log() {
    for (number, option) in [V2, V3] {
        let signing = Signing::new(
            &channel("key = 'target/a.key'\n"),
            &[
                version(number),
                answer("sign", 0, "", ""),
                answer("verify", 0, "", ""),
            ],
        );
        let output = signing.publish(&[]);
        assert_eq!(output.code, 0, "{}", output.stderr);
        let reference = signing.reference();
        assert_eq!(
            signing.calls(),
            [
                format!(
                    "cosign sign --yes --key target/a.key {option}--tlog-upload=false --allow-insecure-registry {reference}"
                ),
                format!(
                    "cosign verify --key target/a.pub --insecure-ignore-tlog=true --allow-insecure-registry {reference}"
                ),
            ]
        );
        assert!(signing.registry.tags().contains_key("1.2.3"));
    }
}

#[test]
fn no_tag_moves_if_signing_or_verifying_fails() {
    let error = "Error: no key\n";
    for (sign, verify, failed) in [(1, 0, "cosign sign"), (0, 1, "cosign verify")] {
        let signing = Signing::new(
            &channel("key = 'target/a.key'\n"),
            &[
                version(V3.0),
                answer("sign", sign, "", error),
                answer("verify", verify, "", error),
            ],
        );
        let output = signing.publish(&[]);
        assert_eq!(output.code, 1, "{}", output.stderr);
        assert!(
            output.stderr.contains("no tag was moved"),
            "{}",
            output.stderr
        );
        assert!(output.stderr.contains(failed), "{}", output.stderr);
        assert_eq!(signing.registry.tags().len(), 0);
    }
}

#[test]
fn every_flavour_is_signed_before_the_first_tag_moves() {
    let config = attesting("key = 'target/a.key'\n")
        + "flavours = ['tools']\n[flavour.tools]\ntarget = 'x'\n";
    for second_sign in [0, 1] {
        let mut first = answer("sign", 0, "", "");
        first["times"] = 1.into();
        let signing = Signing::new(
            &config,
            &[
                version(V3.0),
                first,
                answer("sign", second_sign, "", "Error: no key\n"),
                answer("attest", 0, "", ""),
                answer("verify", 0, "", ""),
                answer("verify-attestation", 0, "", ""),
            ],
        );
        let repository = format!("{}/team/agent-runner", signing.registry.address);
        let tools = signing.publication.path().join("target/b.oci.tar");
        let image = Image {
            flavour: Some("tools"),
            content: 2,
            ..Image::default()
        };
        let (publication, registry) = (&signing.publication, &signing.registry);
        publication.write_archive(&tools, &repository, image);
        let args = ["push-multiarch", "--version", "1.2.3", "--merge", "target"];
        let output = signing.run(&args, &[]);
        assert_eq!(output.code, second_sign, "{}", output.stderr);
        let calls = signing.calls();
        let signs = |call: &&String| call.starts_with("cosign sign ");
        assert_eq!(calls.iter().filter(signs).count(), 2, "{calls:#?}");
        if second_sign == 1 {
            assert!(
                output.stderr.contains("no tag was moved"),
                "{}",
                output.stderr
            );
            assert!(registry.tags().is_empty());
            continue;
        }
        let tags = registry.tags();
        for (tag, provenance) in [
            ("1.2.3", "/1.2.3.provenance.json"),
            ("1.2.3-tools", "/1.2.3-tools.provenance.json"),
        ] {
            let reference = format!("{repository}@{}", tags[tag]);
            let attested = calls.iter().any(|call| {
                call.starts_with("cosign attest ")
                    && call.contains(provenance)
                    && call.ends_with(&reference)
            });
            assert!(attested, "{tag}: {calls:#?}");
        }
    }
}

/// cosign would take the private key for the public one.
#[test]
fn a_key_in_a_variable_needs_a_public_key_before_anything_is_pushed() {
    let key = "key = 'env://COSIGN_PRIVATE_KEY'\n";
    let cosign = [
        version(V2.0),
        answer("sign", 0, "", ""),
        answer("verify", 0, "", ""),
    ];
    let signing = Signing::new(&channel(key), &cosign);
    let set = [("COSIGN_PRIVATE_KEY", "marked-key")];
    let message =
        "`sign.public-key` is not set, and the public key of `env://COSIGN_PRIVATE_KEY` is unknown";
    for args in [&["ci-check", "--version", "1.2.3"][..], &[]] {
        let output = if args.is_empty() {
            signing.publish(&set)
        } else {
            signing.run(args, &set)
        };
        assert_ne!(output.code, 0);
        let text = output.stdout + &output.stderr;
        assert!(text.contains(message), "{text}");
        assert!(
            text.contains("cosign public-key --key env://COSIGN_PRIVATE_KEY"),
            "{text}"
        );
    }
    assert_eq!(signing.registry.count("PUT "), 0, "nothing was pushed");

    let public = format!("{key}public-key = 'target/a.pub'\n");
    let signing = Signing::new(&channel(&public), &cosign);
    let output = signing.publish(&set);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let verify = format!(
        "cosign verify --key target/a.pub --insecure-ignore-tlog=true --allow-insecure-registry {}",
        signing.reference()
    );
    assert_eq!(signing.calls().last(), Some(&verify));

    // The variable, the public key's file and the password are looked for before anything is pushed.
    for (config, env, message) in [
        (
            &public,
            &[][..],
            "the variable COSIGN_PRIVATE_KEY is not set",
        ),
        (
            &format!("{key}public-key = 'target/b.pub'\n"),
            &set,
            "there is no file `target/b.pub` with the public key",
        ),
    ] {
        let signing = Signing::new(&channel(config), &cosign);
        let output = signing.publish(env);
        assert_eq!(output.code, 1);
        assert!(output.stderr.contains(message), "{}", output.stderr);
        assert_eq!(signing.registry.count("PUT "), 0);
    }
}

/// All that a run asks cosign to do, after what it reads from the project.
const KEY: &str = "key = 'target/a.key'\n";

fn willing(number: &str) -> [serde_json::Value; 5] {
    [
        version(number),
        answer("sign", 0, "", ""),
        answer("verify", 0, "", ""),
        answer("attest", 0, "", ""),
        answer("verify-attestation", 0, "", ""),
    ]
}

#[test]
fn attestations_are_made_before_the_push_and_stored_after_the_signature() {
    let signing = Signing::new(&attesting(KEY), &willing(V3.0));
    let output = signing.publish(&[]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let dist = signing.publication.path().join("target/dist");
    let names = [
        "1.2.3.provenance.json",
        "1.2.3.linux-amd64.spdx.json",
        "1.2.3.linux-arm64.spdx.json",
    ];
    let reference = signing.reference();
    let private = "--key target/a.key --use-signing-config=false --tlog-upload=false --allow-insecure-registry";
    let public = "--key target/a.pub --insecure-ignore-tlog=true --allow-insecure-registry";
    let attest = |kind: &str, name: &str| {
        let folder = dist.canonicalize().unwrap();
        let folder = folder.display();
        format!(
            "cosign attest --yes {private} --type {kind} --predicate {folder}/1.2.3.attestations.ID.parts/{name} {reference}"
        )
    };
    assert_eq!(
        signing.calls(),
        [
            format!("cosign sign --yes {private} {reference}"),
            attest("slsaprovenance1", names[0]),
            attest("spdxjson", names[1]),
            attest("spdxjson", names[2]),
            format!("cosign verify {public} {reference}"),
            format!("cosign verify-attestation --type slsaprovenance1 {public} {reference}"),
            format!("cosign verify-attestation --type spdxjson {public} {reference}"),
        ]
    );
    // The index has no attestations, so its digest does not depend on them.
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(dist.join(name)).unwrap()).unwrap()
    };
    let receipt = read("1.2.3.json");
    assert_eq!(receipt["digest"], signing.publication.digest);
    assert_eq!(receipt["attestations"], 3);
    let image = &read(names[1])["packages"][0];
    assert_eq!(image["versionInfo"], receipt["platforms"][0]["digest"]);
    let definition = &read(names[0])["buildDefinition"];
    assert_eq!(definition["externalParameters"]["version"], "1.2.3");

    // A second run finds the signature and the attestations, and makes none.
    signing.find_sboms(2);
    let before = signing.calls().len();
    let again = signing.publish(&[]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    let calls = signing.calls();
    assert!(
        calls[before..]
            .iter()
            .all(|call| call.starts_with("cosign verify")),
        "{calls:?}"
    );
    assert_eq!(calls.len() - before, 3);
    assert_eq!(read("1.2.3.json")["attestations"], 3);
}

#[test]
fn no_tag_moves_if_an_attestation_is_missing() {
    for bad in ["attest", "verify-attestation"] {
        let mut cosign = vec![answer(bad, 1, "", "Error: no\n")];
        cosign.extend(willing(V2.0));
        let signing = Signing::new(&attesting(KEY), &cosign);
        let output = signing.publish(&[]);
        assert_eq!(output.code, 1, "{}", output.stderr);
        assert_eq!(signing.registry.tags().len(), 0);
    }
}

/// A run that was killed between the signature and the first tag leaves this state.
#[test]
fn an_image_that_is_signed_and_has_no_tag_is_not_signed_again() {
    let signing = Signing::new(&attesting(KEY), &willing(V3.0));
    assert_eq!(signing.publish(&[]).code, 0);
    signing
        .registry
        .remove_tags(&["1", "1.2", "1.2.3", "latest"]);
    for (sboms, signs) in [(2, false), (1, true)] {
        signing.find_sboms(sboms);
        let before = signing.calls().len();
        let output = signing.publish(&[]);
        assert_eq!(output.code, 0, "{}", output.stderr);
        let calls = signing.calls();
        let has_signed = calls[before..]
            .iter()
            .any(|call| call.starts_with("cosign sign ") || call.starts_with("cosign attest "));
        assert_eq!(has_signed, signs, "{:?}", &calls[before..]);
        assert!(signing.registry.tags().contains_key("1.2.3"));
    }
}

/// An interrupted run leaves no files of attestations, and the release on GitHub needs them.
#[test]
fn a_run_that_has_only_to_write_files_writes_all_of_them() {
    let signing = Signing::new(&attesting(KEY), &willing(V3.0));
    assert_eq!(signing.publish(&[]).code, 0);
    signing.find_sboms(2);
    let files = [
        "1.2.3.provenance.json",
        "1.2.3.linux-amd64.spdx.json",
        "1.2.3.linux-arm64.spdx.json",
    ];
    let files = files.map(|name| signing.publication.path().join("target/dist").join(name));
    let texts = || files.each_ref().map(|file| fs::read_to_string(file).ok());
    let before = texts();
    assert!(before.iter().all(Option::is_some), "{before:?}");
    fs::remove_file(&files[1]).unwrap();
    let calls = signing.calls().len();
    let output = signing.publish(&[]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(texts()[1..], before[1..], "the SBOMs are the same");
    let signed = signing.calls()[calls..]
        .iter()
        .any(|call| call.starts_with("cosign sign "));
    assert!(!signed);
}

#[test]
fn an_image_without_the_sbom_of_a_platform_is_not_verified() {
    let signing = Signing::new(&attesting(KEY), &willing(V3.0));
    assert_eq!(signing.publish(&[]).code, 0);
    signing.find_sboms(1);
    let output = signing.run(&["verify-image", "--version", "1.2.3"], &[]);
    assert_eq!(output.code, 1, "{}", output.stderr);
    let expected = format!(
        "error: {} is not signed as the channel `release` requires: it has no attestation `spdxjson` for linux/arm64\n\
         hint: sign it again: run the command that published it once more\n\
         hint: look at the image without its signature: `cargo xtask verify-image --version 1.2.3 --no-signature`\n",
        signing.reference()
    );
    assert!(output.stderr.ends_with(&expected), "{}", output.stderr);
}

/// Another run can publish the version after the preflight.
#[test]
fn another_image_of_a_released_version_is_not_signed() {
    let signing = Signing::new(&attesting(KEY), &willing(V3.0));
    assert_eq!(signing.publish(&[]).code, 0);
    let before = (signing.calls().len(), signing.registry.tags());
    let other = signing.publication.path().join("target/b.oci.tar");
    let repository = format!("{}/team/agent-runner", signing.registry.address);
    let image = Image {
        content: 2,
        ..Image::default()
    };
    let digest = signing
        .publication
        .write_archive(&other, &repository, image);
    let push = ["push-archive", "--version", "1.2.3", "target/b.oci.tar"];
    for more in [&[][..], &["--no-preflight"]] {
        let output = signing.run(&[&push, more].concat(), &[]);
        assert_eq!(output.code, 1, "{}", output.stderr);
        let ours = &signing.publication.digest;
        for part in [
            format!(":1.2.3 is released already, as {ours} from commit "),
            format!(", which is not {digest}\n"),
        ] {
            assert!(output.stderr.contains(&part), "{}", output.stderr);
        }
        assert_eq!((signing.calls().len(), signing.registry.tags()), before);
    }
}

#[test]
fn nothing_is_signed_if_the_released_versions_are_unknown() {
    let oddities = Oddities {
        list_refusal: Some((403, "")),
        ..Oddities::default()
    };
    let programs = Sandbox::new("").engine("cosign", &willing(V3.0));
    let signing = Signing::with(oddities, &attesting(KEY), programs);
    // This image names no version.
    signing.registry.add_tags(&["latest"]);
    let archive = signing.publication.archive.to_str().unwrap();
    let push = ["push-archive", "--version", "1.2.3", archive];
    for more in [&[][..], &["--no-preflight"]] {
        let output = signing.run(&[&push, more].concat(), &[]);
        assert_eq!(output.code, 1, "{}", output.stderr);
        let why = "error: cannot find out which versions are released: the registry's list of tags cannot be read (";
        assert!(output.stderr.contains(why), "{}", output.stderr);
        assert_eq!(signing.calls(), [""; 0]);
        assert_eq!(signing.registry.tags().len(), 1);
    }
}

/// The image of an earlier version of the configuration was published unsigned.
#[test]
fn an_image_that_was_published_unsigned_is_signed_by_the_next_run() {
    let signing = Signing::new(&attesting(KEY), &willing(V3.0));
    let unsigned = "schema = 1\n[[channel]]\nname = 'release'\nsign = 'no'\n";
    let local = signing.publication.path().join("xtask.local.toml");
    let signed = fs::read_to_string(&local).unwrap();
    fs::write(&local, unsigned).unwrap();
    let output = signing.publish(&[]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let dist = signing.publication.path().join("target/dist");
    let sbom = dist.join("1.2.3.linux-amd64.spdx.json");
    assert!(sbom.is_file(), "the files are written in any case");
    assert_eq!(signing.calls(), [""; 0]);

    fs::write(&local, signed).unwrap();
    fs::remove_file(&sbom).unwrap();
    let mut unsigned = answer("verify", 1, "", "Error: no signatures found\n");
    unsigned["times"] = 1.into();
    let mut cosign = vec![unsigned];
    cosign.extend(willing(V3.0));
    let signing = Signing {
        programs: Sandbox::new("").engine("cosign", &cosign),
        ..signing
    };
    let output = signing.publish(&[]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let calls = signing.calls();
    assert!(calls[1].starts_with("cosign sign "), "{calls:?}");
    assert!(sbom.is_file(), "read from the registry");
}

#[test]
fn an_image_is_verified_with_its_signature_and_attestations() {
    let signing = Signing::new(&attesting(KEY), &willing(V3.0));
    assert_eq!(signing.publish(&[]).code, 0);
    let before = signing.calls().len();
    let verify = ["verify-image", "--version", "1.2.3"];
    signing.find_sboms(2);
    let output = signing.run(&verify, &[]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.starts_with(&signing.publication.digest));
    let reference = signing.reference();
    let public = "--key target/a.pub --insecure-ignore-tlog=true --allow-insecure-registry";
    let command = format!("cosign verify {public} {reference}");
    let hint = format!("hint: verify it without xtask: `{command}`\n");
    assert!(output.stderr.ends_with(&hint), "{}", output.stderr);
    assert_eq!(
        signing.calls()[before..],
        [
            command.clone(),
            format!("cosign verify-attestation --type slsaprovenance1 {public} {reference}"),
            format!("cosign verify-attestation --type spdxjson {public} {reference}"),
        ]
    );
    let json = signing
        .run(&[&verify[..], &["--json"]].concat(), &[])
        .stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["signature"],
        serde_json::json!({ "attestations": ["slsaprovenance1", "spdxjson"], "command": command })
    );
    // The receipt has the command too.
    let receipt = signing.publication.path().join("target/dist/1.2.3.json");
    let receipt: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(receipt).unwrap()).unwrap();
    assert_eq!(receipt["verify"], command.as_str());

    // Cosign 2 warns about a server that it does not need.
    let warning = "WARNING: Could not fetch trusted_root.json from the TUF repository: dial tcp: lookup tuf-repo-cdn.sigstore.dev: no such host\n";
    for (bad, error) in [
        ("verify", "no signatures found"),
        (
            "verify",
            "no matching signatures: none of the expected identities matched what was in the certificate",
        ),
        (
            "verify-attestation",
            "no matching attestations: accepted signatures do not match threshold",
        ),
        (
            "verify-attestation",
            "none of the attestations matched the predicate type: spdxjson",
        ),
    ] {
        let stderr = format!("{warning}Error: {error}\n");
        let mut cosign = vec![answer(bad, 1, "", &stderr)];
        cosign.extend(willing(V2.0));
        signing.answer(&cosign);
        let failed = signing.run(&verify, &[]);
        assert_eq!(failed.code, 1, "{}", failed.stderr);
        let expected = format!(
            "{stderr}error: {reference} is not signed as the channel `release` requires: `cosign {bad}` failed with exit code 1\n\
             hint: compare the key or the job with those of the release (`sign.public-key`, `sign.issuer`, `sign.identity`), and use cosign 3\n\
             hint: see `cargo xtask explain signature-missing`\n\
             hint: look at the image without its signature: `cargo xtask verify-image --version 1.2.3 --no-signature`\n"
        );
        assert!(failed.stderr.ends_with(&expected), "{}", failed.stderr);
    }
    let unsigned = signing.run(&[&verify[..], &["--no-signature"]].concat(), &[]);
    assert_eq!(unsigned.code, 0, "{}", unsigned.stderr);
}

/// Whoever copies an image to a mirror is not the job that built it. The signature of that job is verified there too.
#[test]
fn a_mirror_is_signed_only_with_a_key_and_verified_in_any_case() {
    let keyless = "issuer = 'https://x'\nidentity = 'https://x/{version}'\n";
    let keyless = attesting(keyless).replace("sign = 'key'", "sign = 'keyless'");
    for (config, signs, trust) in [
        (
            keyless,
            false,
            "--certificate-oidc-issuer https://x --certificate-identity https://x/1.2.3",
        ),
        (attesting(KEY), true, "--key target/a.pub"),
    ] {
        let signing = Signing::new(&config, &willing(V3.0));
        let mirror = format!("{}/mirror", signing.registry.address);
        let archive = signing.publication.archive.to_str().unwrap();
        let to = ["--version", "1.2.3", "--repository", &mirror];
        let push = [&["push-archive"], &to[..], &[archive]].concat();
        let output = signing.run(&push, &[]);
        assert_eq!(output.code, 0, "{}", output.stderr);
        // The fake registry has no signature that could be copied.
        let source = format!("{}/team/agent-runner", signing.registry.address);
        let digest = &signing.publication.digest;
        let warning = format!(
            "warning: {source} has no signatures of {digest}, so `verify-image` will refuse the image of {mirror}\n"
        );
        assert_eq!(
            output.stderr.contains(&warning),
            !signs,
            "{}",
            output.stderr
        );
        assert_eq!(signing.calls().is_empty(), !signs, "{:?}", signing.calls());
        let dry = signing
            .run(&[&push[..], &["--dry-run"]].concat(), &[])
            .stdout;
        assert_eq!(dry.contains("cosign sign "), signs, "{dry}");

        signing.find_sboms(2);
        let before = signing.calls().len();
        let verify = [&["verify-image"], &to[..]].concat();
        let verified = signing.run(&verify, &[]);
        assert_eq!(verified.code, 0, "{}", verified.stderr);
        let command = format!(
            "cosign verify {trust} --insecure-ignore-tlog=true --allow-insecure-registry {mirror}@{digest}"
        );
        assert_eq!(signing.calls()[before], command);
        let dry = signing
            .run(&[&verify[..], &["--dry-run"]].concat(), &[])
            .stdout;
        assert!(dry.contains(&format!("cosign verify {trust} ")), "{dry}");
    }
}

#[test]
fn a_mirror_without_signatures_is_refused_with_the_way_to_copy_them() {
    let signing = Signing::new(&channel(KEY), &willing(V3.0));
    let cosign = [
        version(V3.0),
        answer("verify", 1, "", "Error: no signatures found\n"),
    ];
    let answers = serde_json::json!(cosign).to_string();
    fs::write(signing.programs.path("bin/cosign.json"), answers).unwrap();
    let (address, digest) = (&signing.registry.address, &signing.publication.digest);
    let to = ["verify-image", "--version", "1.2.3", "--repository"];
    let mirror = format!("{address}/mirror");
    let archive = signing.publication.archive.to_str().unwrap();
    let unsigned = signing.publication.path().join("xtask.local.toml");
    let signed = fs::read_to_string(&unsigned).unwrap();
    fs::write(&unsigned, signed.replace("'key'", "'no'")).unwrap();
    let push = [
        "push-archive",
        "--version",
        "1.2.3",
        "--repository",
        &mirror,
        archive,
    ];
    let pushed = signing.run(&push, &[]);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    fs::write(&unsigned, signed).unwrap();
    let output = signing.run(&[&to[..], &[&mirror]].concat(), &[]);
    assert_eq!(output.code, 1);
    let expected = format!(
        "Error: no signatures found\n\
         error: {mirror}@{digest} has no signatures: those of {address}/team/agent-runner were not copied there\n\
         hint: copy them: `cargo xtask push-archive --version 1.2.3 --repository {mirror} target/dist/agent-runner-1.2.3.oci.tar`, where {address}/team/agent-runner can be read\n\
         hint: verify the image of the release: `cargo xtask verify-image --version 1.2.3`\n\
         hint: look at the image without its signature: `cargo xtask verify-image --version 1.2.3 --repository {mirror} --no-signature`\n"
    );
    assert!(output.stderr.ends_with(&expected), "{}", output.stderr);
    // A signature that is there, and is not the right one.
    signing.registry.add_artifact(
        "mirror",
        None,
        Some(&format!("{}.sig", digest.replace(':', "-"))),
        "x",
    );
    let output = signing.run(&[&to[..], &[&mirror]].concat(), &[]);
    let wrong =
        format!("error: {mirror}@{digest} is not signed as the channel `release` requires: ");
    assert!(output.stderr.contains(&wrong), "{}", output.stderr);
}

#[test]
fn a_word_for_the_attestations_of_buildkit_is_refused() {
    for (key, word) in [("provenance", "max"), ("sbom", "on")] {
        let project = format!("schema = 1\n[[channel]]\nname = 'release'\n{key} = '{word}'\n");
        let output = Sandbox::new(&project).run(&["config"]);
        assert_eq!(output.code, 2);
        for text in [
            format!("`{key}` must be true or false, but is "),
            format!("help: write `{key} = true` or `{key} = false`"),
        ] {
            assert!(output.stderr.contains(&text), "{}", output.stderr);
        }
    }
}

/// The registry demands a login that cosign could not find by itself.
#[test]
fn cosign_gets_the_login_that_was_found() {
    let demanding = || Oddities {
        auth: Auth::Basic,
        ..Oddities::default()
    };
    // The password is `marked-password`.
    let encoded = "bWU6bWFya2VkLXBhc3N3b3Jk";
    let token = [
        ("REGISTRY_TOKEN", "marked-password"),
        ("XTASK_REGISTRY_USER", "me"),
    ];
    for fails in [false, true] {
        let signing = Signing::noting(demanding(), &channel(KEY));
        let address = &signing.registry.address;
        if fails {
            fs::write(signing.programs.path("bin/fails"), "").unwrap();
        }
        // What the user's own file has for other registries stays.
        let own = serde_json::json!({
            "auths": { address: { "auth": "b2xkOm9sZA==" }, "q.io": { "auth": "cTpx" } },
            "credsStore": "none",
        });
        let home = signing.publication.path().join("home/.docker");
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("config.json"), own.to_string()).unwrap();
        let output = signing.publish(&token);
        assert_eq!(output.code, i32::from(fails), "{}", output.stderr);
        let read = |name: &str| fs::read_to_string(signing.programs.path(name)).unwrap();
        let config: serde_json::Value = serde_json::from_str(&read("bin/config.json")).unwrap();
        let repository = format!("{address}/team/agent-runner");
        for name in [address, &repository] {
            assert_eq!(config["auths"][name]["auth"], encoded, "{config}");
            assert_eq!(config["credHelpers"][name], "", "{config}");
        }
        assert_eq!(config["auths"]["q.io"]["auth"], "cTpx");
        assert_eq!(config["credsStore"], "none");
        assert_eq!(read("bin/modes"), "700\n600\n");
        assert_eq!(read("bin/variable"), "unset\n");
        assert!(signing.calls().iter().all(|call| !call.contains(encoded)));
        let left = fs::read_dir(signing.programs.path("tmp")).unwrap().count();
        assert_eq!(left, 0, "the folder is removed");
        assert_eq!(signing.registry.tags().is_empty(), fails);
    }

    // cosign 3 prefers the variable to the file.
    let signing = Signing::noting(demanding(), &channel(KEY));
    let address = &signing.registry.address;
    let logins = serde_json::json!({ "auths": { address: { "auth": encoded } } }).to_string();
    let variable = [("DOCKER_AUTH_CONFIG", logins.as_str())];
    let output = signing.publish(&variable);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let noted = fs::read_to_string(signing.programs.path("bin/variable")).unwrap();
    assert_eq!(noted, "\n", "it is empty");

    // The dry run says what cosign gets.
    let verify = ["verify-image", "--version", "1.2.3", "--dry-run"];
    let output = signing.run(&verify, &variable);
    let text = output.stdout;
    let tmp = signing.programs.path("tmp");
    let folder = text.split(&format!("{}/", tmp.display())).nth(1).unwrap();
    let folder = tmp.join(folder.split('/').next().unwrap());
    let folder = folder.display();
    let expected = format!(
        "# read {address}/team/agent-runner:1.2.3\n\
         # write the login from DOCKER_AUTH_CONFIG to {folder}/config.json\n\
         DOCKER_CONFIG={folder} DOCKER_AUTH_CONFIG='' cosign verify --key target/a.pub --insecure-ignore-tlog=true \
         --allow-insecure-registry {address}/team/agent-runner:1.2.3\n\
         # remove {folder}\n"
    );
    assert_eq!(text, expected);
}

/// A cosign that keeps what it attests, named after the image's digest. The first signature waits for the file `go`.
const WAITING_COSIGN: &str = r#"#!/bin/sh
bin=${0%/*}
for reference; do :; done
case $1 in
version) echo 'GitVersion: v3.0.4' ;;
sign)
    if mkdir "$bin/first" 2> /dev/null; then
        while [ ! -e "$bin/go" ]; do sleep 0.1; done
    fi
    ;;
attest)
    while [ "$1" != --predicate ]; do shift; done
    cp "$2" "$bin/${reference##*:}.${2##*/}"
    ;;
esac
"#;

#[test]
fn two_publications_in_one_checkout_attest_their_own_images() {
    let signing = Signing::noting(Oddities::default(), &attesting(KEY));
    let bin = |name: &str| signing.programs.path("bin").join(name);
    fs::write(bin("cosign"), WAITING_COSIGN).unwrap();
    let other = signing.publication.path().join("target/b.oci.tar");
    let repository = format!("{}/team/agent-runner", signing.registry.address);
    let image = Image {
        content: 2,
        ..Image::default()
    };
    let second = signing
        .publication
        .write_archive(&other, &repository, image);
    let read = |path: &Path| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let sbom = "1.2.3.linux-amd64.spdx.json";
    let attested = |digest: &str| {
        let (_, hex) = digest.split_once(':').unwrap();
        let sbom = read(&bin(&format!("{hex}.{sbom}")));
        sbom["packages"][0]["versionInfo"].clone()
    };
    let dist = signing.publication.path().join("target/dist");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| signing.publish(&[]));
        while !bin("first").exists() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let other = other.to_str().unwrap();
        let output = signing.run(&["push-archive", "--version", "1.2.3", other], &[]);
        assert_eq!(output.code, 0, "{}", output.stderr);
        fs::write(bin("go"), "").unwrap();
        // It finds that the other run has released the version.
        assert_eq!(first.join().unwrap().code, 1);
    });
    let platform = read(&dist.join("1.2.3.json"))["platforms"][0]["digest"].clone();
    assert_eq!(attested(&second), platform);
    assert_ne!(attested(&signing.publication.digest), platform);
    let kept = read(&dist.join(sbom))["packages"][0]["versionInfo"].clone();
    assert_eq!(kept, platform, "the files are those of the release");
    let mut names = fs::read_dir(&dist).unwrap();
    assert!(names.all(|entry| entry.unwrap().path().is_file()));
}

#[test]
fn cosign_trusts_the_certificates_that_xtask_trusts() {
    let signing = Signing::noting(Oddities::default(), &channel(KEY));
    // The registry is at `ghcr.io`, which is reached through a proxy.
    let publication = Publication::new("ghcr.io/team/agent-runner", Image::default());
    for name in ["xtask.local.toml", "target/a.key", "target/a.pub"] {
        fs::copy(
            signing.publication.path().join(name),
            publication.path().join(name),
        )
        .unwrap();
    }
    let signing = Signing {
        publication,
        ..signing
    };
    let folder = signing
        .publication
        .path()
        .join("home/.config/containers/certs.d/ghcr.io");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("ca.crt"), signing.registry.authority()).unwrap();
    let (certificate, key) = signing.registry.client_certificate();
    fs::write(folder.join("me.cert"), certificate).unwrap();
    fs::write(folder.join("me.key"), key).unwrap();
    let proxy = format!("http://{}", signing.registry.address);
    let output = signing.publish(&[("HTTPS_PROXY", &proxy)]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let trusted = fs::read_to_string(signing.programs.path("bin/authorities.pem")).unwrap();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (ours, trusted) = (lines(&signing.registry.authority()), lines(&trusted));
    assert!(trusted.starts_with(&ours), "{trusted:?}");
    let client = format!(
        "--registry-client-cert {0}/me.cert --registry-client-key {0}/me.key ghcr.io/team/agent-runner@",
        folder.canonicalize().unwrap().display()
    );
    for call in signing.calls() {
        assert!(call.contains(&client), "{call}");
    }
    // Others have the authority elsewhere.
    let receipt = signing.publication.path().join("target/dist/1.2.3.json");
    let receipt: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(receipt).unwrap()).unwrap();
    let digest = &signing.publication.digest;
    assert_eq!(
        receipt["verify"],
        format!(
            "cosign verify --key target/a.pub --insecure-ignore-tlog=true ghcr.io/team/agent-runner@{digest}"
        )
    );
}
