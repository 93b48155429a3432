//! Signing without a key: a job proves who it is to Fulcio, which certifies a key of a few minutes, and the
//! signature is noted in Rekor's log with a timestamp. All of these are real servers on this machine; only the
//! issuer of the job's identity is the test's.
//! <https://docs.sigstore.dev/about/overview/>

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    engines::{CommandOutput, command_output},
    ports::free_port,
    proxy::read_head,
    publication::{Image, Publication},
    remote::{Remote, needed},
    tokens::{base64, openssl, url_safe},
};

const IDENTITY: &str = "release@example.com";
/// Since when the services count as trusted.
const SINCE: &str = "start-time=2024-01-01T00:00:00Z";

/// The services of Sigstore. They end with the value.
struct Sigstore {
    folder: TempDir,
    cosign: String,
    issuer: String,
    children: Vec<Child>,
}

/// The addresses of the services.
struct Addresses {
    fulcio: String,
    rekor: String,
    timestamps: String,
}

impl Sigstore {
    /// Starts the services, and describes them for cosign; none if a program is missing.
    fn start() -> Option<Self> {
        let [cosign, fulcio, rekor, timestamps] = needed([
            "XTASK_E2E_COSIGN3",
            "XTASK_E2E_FULCIO",
            "XTASK_E2E_REKOR",
            "XTASK_E2E_TIMESTAMP_SERVER",
        ])?;
        let folder = TempDir::new().unwrap();
        openssl(
            &["genrsa", "-out", "issuer.pem", "2048"],
            b"",
            folder.path(),
        );
        let mut sigstore = Self {
            issuer: serve_identities(folder.path()),
            folder,
            cosign,
            children: Vec::new(),
        };
        let addresses = Addresses {
            fulcio: sigstore.start_fulcio(&fulcio),
            rekor: sigstore.start_rekor(&rekor),
            timestamps: sigstore.start_timestamps(&timestamps),
        };
        sigstore.describe(&addresses);
        Some(sigstore)
    }

    fn start_fulcio(&mut self, program: &str) -> String {
        let issuer = &self.issuer;
        let config = format!(
            "oidc-issuers:\n  {issuer}: {{issuer-url: \"{issuer}\", client-id: sigstore, type: email}}\n"
        );
        fs::write(self.file("fulcio.yaml"), config).unwrap();
        let port = free_port();
        let options = format!(
            "--ca=ephemeralca --ct-log-url= --config-path=fulcio.yaml --host=127.0.0.1 --port={port} \
             --grpc-host=127.0.0.1 --grpc-port={} --metrics-port={} --legacy-unix-domain-socket=@fulcio-{port}",
            free_port(),
            free_port()
        );
        self.start_service(program, &options, port)
    }

    fn start_rekor(&mut self, program: &str) -> String {
        let folder = self.folder.path();
        let key = ["genpkey", "-algorithm", "ed25519", "-out", "rekor.pem"];
        openssl(&key, b"", folder);
        let public = ["pkey", "-in", "rekor.pem", "-pubout", "-out", "rekor.pub"];
        openssl(&public, b"", folder);
        fs::create_dir(folder.join("tiles")).unwrap();
        let port = free_port();
        let options = format!(
            "--storage-dir=tiles --signer-filepath=rekor.pem --hostname=127.0.0.1 --checkpoint-interval=1s \
             --http-port={port} --grpc-port={} --http-metrics-port={}",
            free_port(),
            free_port()
        );
        self.start_service(program, &options, port)
    }

    fn start_timestamps(&mut self, program: &str) -> String {
        let port = free_port();
        let options = format!(
            "--host=127.0.0.1 --port={port} --timestamp-signer=memory --disable-ntp-monitoring"
        );
        self.start_service(program, &options, port) + "/api/v1/timestamp"
    }

    /// Starts a service, waits until it listens, and returns its address.
    fn start_service(&mut self, program: &str, options: &str, port: u16) -> String {
        let log = self.file(&format!("{port}.log"));
        let output = fs::File::create(&log).unwrap();
        let child = Command::new(program)
            .arg("serve")
            .args(options.split_whitespace())
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .unwrap();
        self.children.push(child);
        let begin = Instant::now();
        while TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
            let log = fs::read_to_string(&log).unwrap();
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{program}: {log}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        format!("http://127.0.0.1:{port}")
    }

    /// Writes the files by which cosign knows the services, and whom it trusts.
    fn describe(&self, addresses: &Addresses) {
        let Addresses {
            fulcio,
            rekor,
            timestamps,
        } = addresses;
        let bundle: Value =
            serde_json::from_str(&get(&format!("{fulcio}/api/v2/trustBundle"))).unwrap();
        let chain = bundle["chains"][0]["certificates"].as_array().unwrap();
        let chain: String = chain.iter().map(|one| one.as_str().unwrap()).collect();
        fs::write(self.file("fulcio.pem"), chain).unwrap();
        let chain = get(&format!("{timestamps}/certchain"));
        fs::write(self.file("timestamps.pem"), chain).unwrap();
        self.cosign(&[
            "trusted-root",
            "create",
            "--out=root.json",
            &format!("--fulcio=url={fulcio},certificate-chain=fulcio.pem"),
            &format!("--rekor=url={rekor},public-key=rekor.pub,{SINCE},origin=127.0.0.1"),
            &format!("--tsa=url={timestamps},certificate-chain=timestamps.pem"),
        ]);
        let service =
            |url: &str, api: u32| format!("url={url},api-version={api},{SINCE},operator=test");
        self.cosign(&[
            "signing-config",
            "create",
            "--out=signing.json",
            &format!("--fulcio={}", service(fulcio, 1)),
            &format!("--rekor={}", service(rekor, 2)),
            "--rekor-config=ANY",
            &format!("--oidc-provider={}", service(&self.issuer, 1)),
            &format!("--tsa={}", service(timestamps, 1)),
            "--tsa-config=ANY",
        ]);
    }

    fn cosign(&self, args: &[&str]) {
        let mut command = Command::new(&self.cosign);
        let output = command
            .args(args)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An xtask command with this cosign, these services, and the identity of a job.
    fn command(&self, publication: &Publication, args: &[&str]) -> Command {
        let programs = self.file("bin");
        if !programs.exists() {
            fs::create_dir(&programs).unwrap();
            std::os::unix::fs::symlink(&self.cosign, programs.join("cosign")).unwrap();
        }
        let path = std::env::var("PATH").unwrap();
        let mut command = publication.command(args);
        command
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("SIGSTORE_ID_TOKEN", get(&format!("{}/token", self.issuer)))
            .env("COSIGN_SIGNING_CONFIG", self.file("signing.json"))
            .env("COSIGN_TRUSTED_ROOT", self.file("root.json"))
            .env("COSIGN_USE_SIGNED_TIMESTAMPS", "true")
            // This Fulcio writes to no log of certificates.
            .env("COSIGN_INSECURE_IGNORE_SCT", "true")
            .env("XTASK_SIGN_ISSUER", &self.issuer)
            .env("XTASK_SIGN_IDENTITY", IDENTITY);
        command
    }

    fn run(&self, publication: &Publication, args: &[&str]) -> CommandOutput {
        command_output(&self.command(publication, args).output().unwrap())
    }
}

impl Drop for Sigstore {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn get(url: &str) -> String {
    let output = Command::new("curl").args(["-sSf", url]).output().unwrap();
    assert!(output.status.success(), "{url}");
    String::from_utf8(output.stdout).unwrap()
}

/// An issuer of identities: what `OpenID` Connect asks for, and `/token`.
/// <https://openid.net/specs/openid-connect-discovery-1_0.html>
fn serve_identities(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let (folder, this) = (folder.to_owned(), issuer.clone());
    let modulus = openssl(
        &["rsa", "-in", "issuer.pem", "-noout", "-modulus"],
        b"",
        &folder,
    );
    let modulus = String::from_utf8(modulus).unwrap();
    let hex = modulus.trim().split('=').next_back().unwrap();
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    let modulus = url_safe(&base64(&bytes, &folder));
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let head = read_head(&mut client).unwrap_or_default();
            let head = String::from_utf8_lossy(&head).into_owned();
            let body = match head.split(' ').nth(1).unwrap_or_default() {
                "/token" => token(&this, &folder),
                "/keys" => json!({ "keys": [{
                    "kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": modulus, "e": "AQAB",
                }] })
                .to_string(),
                _ => json!({
                    "issuer": this, "jwks_uri": format!("{this}/keys"),
                    "authorization_endpoint": this, "token_endpoint": this,
                    "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                })
                .to_string(),
            };
            let _ = write!(
                client,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            // Until the client has read it.
            let _ = client.read(&mut [0]);
        }
    });
    issuer
}

/// The identity of a job, for ten minutes.
fn token(issuer: &str, folder: &Path) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let header = json!({ "alg": "RS256", "kid": "1", "typ": "JWT" });
    let claims = json!({
        "iss": issuer, "aud": "sigstore", "sub": "1", "email": IDENTITY, "email_verified": true,
        "iat": now, "nbf": now - 5, "exp": now + 600,
    });
    let part = |value: &Value| url_safe(&base64(value.to_string().as_bytes(), folder));
    let signed = format!("{}.{}", part(&header), part(&claims));
    let sign = ["dgst", "-sha256", "-sign", "issuer.pem"];
    let signature = openssl(&sign, signed.as_bytes(), folder);
    format!("{signed}.{}", url_safe(&base64(&signature, folder)))
}

/// A release is signed and attested with the identity of its job, and verified with that identity alone. No
/// tag moves if the job is another one.
#[test]
fn a_release_is_signed_as_its_job() {
    let (Some(sigstore), Some(remote)) = (Sigstore::start(), Remote::open("keyless")) else {
        return;
    };
    let channel = "[[channel]]\nname = 'release'\nmatch = ['semver:release']\n\
        tags = ['{version}', 'latest']\nsign = 'keyless'\nprovenance = true\nsbom = true\n";
    let image = Image {
        project: channel,
        ..Image::default()
    };
    let publication = Publication::new(&remote.repository(), image);
    let archive = publication.archive.to_str().unwrap();
    let push = ["push-archive", "--version", "1.2.3", archive];

    let mut other = sigstore.command(&publication, &push);
    other.env("XTASK_SIGN_IDENTITY", "somebody@example.com");
    let refused = command_output(&other.output().unwrap());
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert_eq!(remote.digest("1.2.3"), None, "no tag moves");
    assert_eq!(remote.digest("latest"), None, "no tag moves");

    let published = sigstore.run(&publication, &push);
    assert_eq!(published.code, 0, "{}", published.stderr);
    assert_eq!(remote.digest("1.2.3").as_ref(), Some(&publication.digest));

    let verify = ["verify-image", "--version", "1.2.3"];
    let verified = sigstore.run(&publication, &verify);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    let mut other = sigstore.command(&publication, &verify);
    other.env("XTASK_SIGN_IDENTITY", "somebody@example.com");
    assert_eq!(command_output(&other.output().unwrap()).code, 1);

    // Anybody can verify it with cosign alone, without xtask.
    sigstore.assert_signed(&format!("{}@{}", remote.repository(), publication.digest));

    // The image was signed by the refused run, and not again. A mirror takes the signatures along. Nobody signs there:
    // the job's identity is not at hand.
    let Some([registry]) = needed(["XTASK_E2E_CRANE_REGISTRY"]) else {
        return;
    };
    let mirror = Remote::at(&registry, "keyless-mirror");
    let repository = mirror.repository();
    let push = [&push[..], &["--repository", &repository]].concat();
    let mut command = sigstore.command(&publication, &push);
    command.env_remove("SIGSTORE_ID_TOKEN");
    let mirrored = command_output(&command.output().unwrap());
    assert_eq!(mirrored.code, 0, "{}", mirrored.stderr);
    assert!(
        mirrored
            .stderr
            .contains("Copied 4 signatures and attestations"),
        "{}",
        mirrored.stderr
    );
    sigstore.assert_signed(&format!("{}@{}", mirror.repository(), publication.digest));
}

impl Sigstore {
    /// Verifies with cosign that an image is signed and attested.
    fn assert_signed(&self, reference: &str) {
        for kind in [
            &["verify"][..],
            &["verify-attestation", "--type=slsaprovenance1"],
            &["verify-attestation", "--type=spdxjson"],
        ] {
            let with_issuer = format!("--certificate-oidc-issuer={}", self.issuer);
            let with_identity = format!("--certificate-identity={IDENTITY}");
            let options = [
                "--trusted-root=root.json",
                "--use-signed-timestamps",
                "--insecure-ignore-sct",
                "--allow-http-registry",
                &with_issuer,
                &with_identity,
                reference,
            ];
            self.cosign(&[kind, &options[..]].concat());
        }
    }
}
