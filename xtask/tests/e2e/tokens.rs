//! A registry with token authentication, like the large public ones: Debian's docker-registry, and a token
//! server whose tokens expire after less than two seconds.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    engines::{CommandOutput, DOCKER, RealEngine, command_output, var},
    faults::PublishFixture,
    ports::free_port,
    proxy::{Fault, header, read_head},
    remote::Remote,
};

const SERVICE: &str = "e2e";
/// How many seconds the registry accepts a token after its expiry.
/// <https://github.com/distribution/distribution/blob/v2.8.2/registry/auth/token/token.go#L25>
const LEEWAY: u64 = 60;

/// Two registries with the same storage. `strict` requires tokens. `twin` requires none, so tests can inspect
/// the storage.
struct Registries {
    strict: String,
    twin: String,
    given: Given,
    children: Vec<Child>,
    _folder: TempDir,
}

/// The grants of all requested tokens: `anonymous`, `password`, `refresh_token`, `refused`.
type Given = Arc<Mutex<Vec<&'static str>>>;

impl Registries {
    /// Starts the registries; none if docker-registry is not installed.
    fn start() -> Option<Self> {
        if Command::new("docker-registry")
            .arg("--version")
            .output()
            .is_err()
        {
            assert!(
                var("XTASK_E2E_REQUIRE").is_none(),
                "required: docker-registry"
            );
            let _ = writeln!(std::io::stderr(), "skipped: no docker-registry");
            return None;
        }
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj"])
            .args(["/CN=e2e", "-days", "2", "-keyout"])
            .arg(at("key.pem"))
            .arg("-out")
            .arg(at("cert.pem"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let given = Given::default();
        let realm = serve_tokens(folder.path(), &given);
        let auth = format!(
            "auth: {{token: {{realm: \"http://{realm}/token\", service: {SERVICE}, issuer: {SERVICE}, rootcertbundle: {}}}}}\n",
            at("cert.pem").display()
        );
        let mut children = Vec::new();
        let mut start = |name: &str, auth: &str| {
            let address = format!("127.0.0.1:{}", free_port());
            let config = at(&format!("{name}.yml"));
            let store = at("store");
            fs::write(
                &config,
                format!("version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: \"{address}\"}}\n{auth}", store.display()),
            )
            .unwrap();
            let child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            children.push(child);
            wait_for_server(&address);
            address
        };
        let (strict, twin) = (start("strict", &auth), start("twin", ""));
        Some(Self {
            strict,
            twin,
            given,
            children,
            _folder: folder,
        })
    }

    /// A checkout that publishes to the strict registry, through a proxy.
    fn fixture(&self, purpose: &str) -> PublishFixture {
        PublishFixture::at(Remote::at(&self.twin, purpose), &self.strict)
    }

    fn count(&self, what: &str) -> usize {
        let given = self.given.lock().unwrap();
        given.iter().filter(|one| **one == what).count()
    }
}

impl Drop for Registries {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_for_server(address: &str) {
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{address}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Issues tokens to user `e2e` with the password `marked-password`, together with an identity token on
/// request, and to clients that present the identity token.
/// <https://distribution.github.io/distribution/spec/auth/token/>
fn serve_tokens(folder: &Path, given: &Given) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (folder, given) = (folder.to_owned(), Arc::clone(given));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // Errors of disconnected clients are ignored.
            drop(answer(client, &folder, &given));
        }
    });
    address
}

fn answer(mut client: TcpStream, folder: &Path, given: &Given) -> std::io::Result<()> {
    let head = String::from_utf8_lossy(&read_head(&mut client)?).into_owned();
    let header = |name: &str| header(&head, name);
    let length = header("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body)?;
    let target = head.split(' ').nth(1).unwrap_or_default();
    let mut fields = form(target.split_once('?').map_or("", |(_, query)| query));
    fields.extend(form(&String::from_utf8_lossy(&body)));
    let field = |name: &str| fields.get(name).map_or("", String::as_str);

    let right = format!("Basic {}", base64(b"e2e:marked-password", folder));
    let who = match (field("grant_type"), header("authorization")) {
        ("refresh_token", _) if field("refresh_token") == "marked+identity/token=" => {
            "refresh_token"
        }
        ("", Some(shown)) if shown == right => "password",
        ("", None) => "anonymous",
        _ => "refused",
    };
    given.lock().unwrap().push(who);
    let (status, answer) = if who == "refused" {
        (
            "401 Unauthorized",
            json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "authentication required" }] }),
        )
    } else {
        let token = token(folder, field("scope"), who != "anonymous");
        let mut answer = json!({ "token": token, "access_token": token });
        if who == "password" && field("offline_token") == "true" {
            answer["refresh_token"] = "marked+identity/token=".into();
        }
        ("200 OK", answer)
    };
    let answer = answer.to_string();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    )
}

fn form(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), percent_decoded(value)))
        .collect()
}

fn percent_decoded(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap()
}

/// A signed token that expires in one to two seconds, because expiry times are whole seconds.
fn token(folder: &Path, scope: &str, may: bool) -> String {
    let cert = fs::read_to_string(folder.join("cert.pem")).unwrap();
    let der: String = cert
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let access: Vec<Value> = match scope.split(':').collect::<Vec<_>>()[..] {
        [kind, name, actions] if may => {
            let actions: Vec<_> = actions.split(',').collect();
            vec![json!({ "type": kind, "name": name, "actions": actions })]
        }
        _ => Vec::new(),
    };
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let claims = json!({
        "iss": SERVICE, "aud": SERVICE, "sub": "e2e", "jti": "1", "access": access,
        "iat": now, "nbf": now - 10, "exp": now - LEEWAY + 2,
    });
    let part = |value: &Value| url_safe(&base64(value.to_string().as_bytes(), folder));
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = openssl(
        &["dgst", "-sha256", "-sign", "key.pem"],
        signed.as_bytes(),
        folder,
    );
    format!("{signed}.{}", url_safe(&base64(&signature, folder)))
}

pub fn url_safe(text: &str) -> String {
    text.replace('+', "-")
        .replace('/', "_")
        .trim_end_matches('=')
        .to_owned()
}

pub fn base64(bytes: &[u8], folder: &Path) -> String {
    String::from_utf8(openssl(&["base64", "-A"], bytes, folder)).unwrap()
}

pub fn openssl(args: &[&str], input: &[u8], folder: &Path) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap().stdout
}

/// xtask renews a token that expires while a blob is uploaded, before a tag is written, or while the image is
/// verified.
#[test]
fn an_expired_token_is_renewed() {
    let Some(registries) = Registries::start() else {
        return;
    };
    let fixture = registries.fixture("ends");
    let late = || Fault::Late(Duration::from_millis(2100));
    fixture.proxy.fail("PUT", "/blobs/uploads/", late(), 1);
    fixture.proxy.fail("GET", "/blobs/sha256:", late(), 1);
    fixture.proxy.fail("PUT", "/manifests/1.2.3", late(), 1);
    let password = [
        ("REGISTRY_TOKEN", "marked-password"),
        ("XTASK_REGISTRY_USER", "e2e"),
    ];
    let done = fixture.assert_publishes_with(&password);
    assert!(registries.count("password") >= 4, "{}", done.stderr);
    assert!(
        !(done.stderr + &done.stdout).contains("marked"),
        "no secret is shown"
    );
}

/// If a registry redirects an upload to another host, xtask does not send credentials there, even if the host
/// asks for them.
#[test]
fn credentials_are_not_sent_to_another_host() {
    let Some(registries) = Registries::start() else {
        return;
    };
    let fixture = registries.fixture("elsewhere");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = listener.local_addr().unwrap().to_string();
    let (sender, heads) = mpsc::channel();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let head = read_head(&mut client).unwrap_or_default();
            let head = String::from_utf8_lossy(&head).into_owned();
            let length = header(&head, "content-length").and_then(|length| length.parse().ok());
            let _ = client.read_exact(&mut vec![0; length.unwrap_or(0)]);
            let _ = sender.send(head);
            let _ = write!(
                client,
                "HTTP/1.1 401 x\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
    });
    let fault = Fault::Elsewhere(elsewhere);
    fixture.proxy.fail("POST", "/blobs/uploads/", fault, 9);
    let refused = fixture.publish_with(&[
        ("REGISTRY_TOKEN", "marked-password"),
        ("XTASK_REGISTRY_USER", "e2e"),
    ]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        registries.count("password") > 0,
        "no token was requested with the password"
    );
    let heads: Vec<_> = heads.try_iter().collect();
    assert!(
        heads
            .iter()
            .any(|head| head.starts_with("PUT /upload?digest="))
    );
    for head in heads {
        assert!(!head.to_lowercase().contains("authorization"), "{head}");
    }
    assert!(fixture.remote.tags().is_empty());
}

/// `docker login` stores an identity token for such a registry. xtask does not send it as a password.
#[test]
fn an_identity_token_can_publish() {
    let (Some(docker), Some(registries)) = (RealEngine::find(DOCKER), Registries::start()) else {
        return;
    };
    let fixture = registries.fixture("identity");
    let kept = TempDir::new().unwrap();
    let config = [("DOCKER_CONFIG", kept.path().to_str().unwrap())];
    let login = |host: &str| -> CommandOutput {
        let args = ["login", "--username", "e2e", "--password-stdin", host];
        let mut child = docker
            .command_of(Path::new(docker.program), &args, &config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"marked-password").unwrap();
        drop(input);
        command_output(&child.wait_with_output().unwrap())
    };
    let signed_in = login(&fixture.proxy.address);
    assert_eq!(signed_in.code, 0, "{}", signed_in.stderr);
    let file = kept.path().join("config.json");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"identitytoken\""), "{text}");

    let done = fixture.assert_publishes_with(&config);
    assert!(registries.count("refresh_token") > 0, "{}", done.stderr);
    assert_eq!(registries.count("refused"), 0);

    // An identity token that is no longer valid.
    let fixture = registries.fixture("stale");
    let stale = text
        .replace("marked+identity", "marked+stale")
        .replace(&registry_in(&text), &fixture.proxy.address);
    fs::write(&file, stale).unwrap();
    let refused = fixture.publish_with(&config);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    let why = format!(
        "{} rejects the credentials from {}",
        fixture.proxy.address,
        file.display()
    );
    assert!(refused.stderr.contains(&why), "{}", refused.stderr);
    assert!(refused.stderr.contains("`cargo xtask docker-login`"));
    assert!(!(refused.stderr + &refused.stdout).contains("marked"));
    assert!(fixture.remote.tags().is_empty());
}

/// The only registry in a configuration of Docker.
fn registry_in(config: &str) -> String {
    let config: Value = serde_json::from_str(config).unwrap();
    let auths = config["auths"].as_object().unwrap();
    auths.keys().next().unwrap().clone()
}
