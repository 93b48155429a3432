//! Kubernetes manifests: a Deployment, and the claims for its volumes.
//! <https://kubernetes.io/docs/reference/kubernetes-api/>

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use crate::{
    commands::{
        export::runner::{Runner, Warning, distinct_label, dns_label, tmpfs_parts},
        run_local::mounts::Mount,
    },
    engine::{image::Image, run::IMAGE_USER},
    settings::{Limits, Port, RequiredUser, RunUser, Settings},
};

/// The storage that a claim requests. Whoever needs more changes the claim.
const STORAGE: &str = "10Gi";
/// What the runner needs to start, and what the scheduler reserves if the limits are not smaller.
const REQUESTED_MEMORY: u64 = 256 << 20;
const REQUESTED_CPU: f64 = 0.1;
const STARTUP_PERIOD: Duration = Duration::from_secs(2);

/// A manifest.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Clone, Debug, Serialize)]
struct Metadata {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    labels: Labels,
}

type Labels = BTreeMap<&'static str, String>;

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Spec {
    Claim(ClaimSpec),
    Deployment(Box<DeploymentSpec>),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSpec {
    access_modes: [&'static str; 1],
    resources: Resources,
}

#[derive(Debug, Serialize)]
struct DeploymentSpec {
    replicas: u32,
    strategy: Strategy,
    selector: Selector,
    template: Template,
}

#[derive(Debug, Serialize)]
struct Strategy {
    r#type: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Selector {
    match_labels: Labels,
}

#[derive(Debug, Serialize)]
struct Template {
    metadata: Metadata,
    spec: PodSpec,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    automount_service_account_token: bool,
    enable_service_links: bool,
    share_process_namespace: bool,
    termination_grace_period_seconds: u64,
    security_context: PodSecurity,
    containers: Vec<Container>,
    volumes: Vec<Volume>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodSecurity {
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as_non_root: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as_user: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as_group: Option<u32>,
    fs_group: u32,
    fs_group_change_policy: &'static str,
    seccomp_profile: SeccompProfile,
}

#[derive(Debug, Serialize)]
struct SeccompProfile {
    r#type: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    image: String,
    image_pull_policy: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<ContainerPort>,
    env: Vec<Variable>,
    env_from: [EnvFrom; 1],
    resources: Resources,
    startup_probe: Probe,
    liveness_probe: Probe,
    readiness_probe: Probe,
    security_context: Security,
    volume_mounts: Vec<VolumeMount>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    container_port: u16,
}

#[derive(Debug, Serialize)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EnvFrom {
    secret_ref: SecretRef,
}

#[derive(Debug, Serialize)]
struct SecretRef {
    name: String,
    optional: bool,
}

#[derive(Debug, Serialize)]
struct Resources {
    requests: Quantities,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    limits: Quantities,
}

type Quantities = BTreeMap<&'static str, String>;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    exec: Exec,
    period_seconds: u64,
    timeout_seconds: u64,
    failure_threshold: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Exec {
    command: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Security {
    allow_privilege_escalation: bool,
    capabilities: Capabilities,
    read_only_root_filesystem: bool,
}

#[derive(Debug, Serialize)]
struct Capabilities {
    drop: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VolumeMount {
    name: String,
    mount_path: String,
    #[serde(skip_serializing_if = "is_false")]
    read_only: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    empty_dir: Option<EmptyDir>,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistent_volume_claim: Option<ClaimRef>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EmptyDir {
    medium: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_limit: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClaimRef {
    claim_name: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_false(value: &bool) -> bool {
    !*value
}

/// A volume of the pod.
struct Storage<'a> {
    name: String,
    source: Source<'a>,
}

/// Where the files of a volume are.
enum Source<'a> {
    /// In a claim. Holds the mounts of a volume, of which there is at least one.
    Claim(Vec<&'a Mount>),
    /// In memory. Holds an item of `run.hardening.tmpfs`.
    Memory(&'a str),
}

impl Storage<'_> {
    fn is_claim(&self) -> bool {
        matches!(self.source, Source::Claim(_))
    }

    fn volume(&self) -> Volume {
        let name = self.name.clone();
        match &self.source {
            Source::Claim(_) => Volume {
                name: name.clone(),
                empty_dir: None,
                persistent_volume_claim: Some(ClaimRef { claim_name: name }),
            },
            Source::Memory(item) => Volume {
                name,
                empty_dir: Some(EmptyDir {
                    medium: "Memory",
                    size_limit: tmpfs_parts(item)
                        .1
                        .find_map(|option| quantity(option.strip_prefix("size=")?)),
                }),
                persistent_volume_claim: None,
            },
        }
    }

    fn mounts(&self) -> Vec<VolumeMount> {
        let mount = |folder: &str, read_only| VolumeMount {
            name: self.name.clone(),
            mount_path: folder.to_owned(),
            read_only,
        };
        match &self.source {
            Source::Claim(mounts) => mounts
                .iter()
                .map(|it| mount(it.target(), it.is_read_only()))
                .collect(),
            Source::Memory(item) => vec![mount(tmpfs_parts(item).0, false)],
        }
    }
}

/// Makes the manifests of the runner. `check` is the command of its health check.
pub fn manifests(runner: &Runner, check: &[String]) -> Vec<Object> {
    let name = name(runner);
    let labels: Labels = [
        ("app.kubernetes.io/name", runner.program()),
        ("app.kubernetes.io/instance", name.clone()),
    ]
    .into();
    let metadata = |name: String| Metadata {
        name,
        labels: labels.clone(),
    };
    let storage = storage(runner);
    let claims = storage.iter().filter(|it| it.is_claim());
    let claims = claims.map(|claim| Object {
        api_version: "v1",
        kind: "PersistentVolumeClaim",
        metadata: metadata(claim.name.clone()),
        spec: Spec::Claim(ClaimSpec {
            access_modes: ["ReadWriteOnce"],
            resources: Resources {
                requests: [("storage", STORAGE.to_owned())].into(),
                limits: Quantities::new(),
            },
        }),
    });
    let deployment = Object {
        api_version: "apps/v1",
        kind: "Deployment",
        metadata: metadata(name),
        spec: Spec::Deployment(Box::new(DeploymentSpec {
            replicas: 1,
            // A rolling update would start the new pod beside the old one. On another node it could not mount
            // the claim.
            strategy: Strategy { r#type: "Recreate" },
            selector: Selector {
                match_labels: labels.clone(),
            },
            template: Template {
                metadata: metadata(String::new()),
                spec: pod(runner, check, &storage),
            },
        })),
    };
    claims.chain([deployment]).collect()
}

/// The name of the Deployment and of the Secret.
pub fn name(runner: &Runner) -> String {
    dns_label(&runner.settings.run.container)
}

fn pod(runner: &Runner, check: &[String], storage: &[Storage]) -> PodSpec {
    let settings = runner.settings;
    let run = &settings.run;
    let volume_mounts = storage.iter().flat_map(Storage::mounts).collect();
    PodSpec {
        automount_service_account_token: false,
        enable_service_links: false,
        // The pause container then is the first process, which collects ended processes, as `--init` does.
        share_process_namespace: run.hardening.init,
        termination_grace_period_seconds: run.stop_grace.as_secs(),
        security_context: pod_security(&run.user, settings.require.user),
        containers: vec![container(runner, check, volume_mounts)],
        volumes: storage.iter().map(Storage::volume).collect(),
    }
}

/// The pod's user. That of `image` is left to the image, which may need it.
fn pod_security(user: &RunUser, required: RequiredUser) -> PodSecurity {
    let image_may_be_root = matches!(required, RequiredUser::Any | RequiredUser::Uid(0));
    let (ids, non_root) = match user {
        RunUser::Auto => (Some((IMAGE_USER, IMAGE_USER)), Some(true)),
        RunUser::Image => (None, (!image_may_be_root).then_some(true)),
        RunUser::Ids(uid, gid) => (Some((*uid, *gid)), Some(*uid != 0)),
    };
    PodSecurity {
        run_as_non_root: non_root,
        run_as_user: ids.map(|(uid, _)| uid),
        run_as_group: ids.map(|(_, gid)| gid),
        // The group of the claims' files. Kubernetes adds it to the groups of any user.
        fs_group: ids.map_or(IMAGE_USER, |(_, gid)| gid),
        fs_group_change_policy: "OnRootMismatch",
        seccomp_profile: SeccompProfile {
            r#type: "RuntimeDefault",
        },
    }
}

/// The ports of the container, each once: the API tells the entries of the list apart by them.
fn container_ports(ports: &[Port]) -> Vec<ContainerPort> {
    let numbers: BTreeSet<_> = ports.iter().map(|port| port.container).collect();
    numbers
        .into_iter()
        .map(|container_port| ContainerPort { container_port })
        .collect()
}

fn container(runner: &Runner, check: &[String], volume_mounts: Vec<VolumeMount>) -> Container {
    let run = &runner.settings.run;
    let probe = |period: Duration, failures| Probe {
        exec: Exec {
            command: literals(check),
        },
        period_seconds: period.as_secs(),
        timeout_seconds: 10,
        failure_threshold: failures,
    };
    let budget = runner.settings.health.budget.as_secs();
    let shown = runner.variables.shown.iter();
    Container {
        name: runner.program(),
        image: runner.image.to_owned(),
        image_pull_policy: "IfNotPresent",
        args: literals(&run.command),
        ports: container_ports(&run.ports),
        env: shown
            .map(|(name, value)| Variable {
                name: name.clone(),
                value: literal(value),
            })
            .collect(),
        env_from: [EnvFrom {
            secret_ref: SecretRef {
                name: name(runner),
                optional: true,
            },
        }],
        resources: resources(&run.limits),
        startup_probe: probe(
            STARTUP_PERIOD,
            budget.div_ceil(STARTUP_PERIOD.as_secs()).max(1),
        ),
        liveness_probe: probe(Duration::from_secs(30), 3),
        readiness_probe: probe(Duration::from_secs(10), 1),
        security_context: Security {
            allow_privilege_escalation: !run.hardening.no_new_privileges,
            capabilities: Capabilities {
                drop: run.hardening.drop_capabilities.clone(),
            },
            read_only_root_filesystem: run.hardening.read_only,
        },
        volume_mounts,
    }
}

/// The limits, and requests that do not exceed them.
fn resources(limits: &Limits) -> Resources {
    let cpus = limits.cpus.parse::<f64>();
    let memory = limits.memory.unwrap_or(u64::MAX).min(REQUESTED_MEMORY);
    let cpu = cpus.unwrap_or(f64::MAX).min(REQUESTED_CPU);
    let mut quantities = Quantities::new();
    if let Some(memory) = limits.memory {
        quantities.insert("memory", memory.to_string());
    }
    if !limits.cpus.is_empty() {
        quantities.insert("cpu", limits.cpus.clone());
    }
    Resources {
        requests: [("memory", memory.to_string()), ("cpu", cpu.to_string())].into(),
        limits: quantities,
    }
}

/// Whether a mount has a claim: the workspace, and the volumes with a name. A cluster has no folders of this
/// machine.
fn has_claim(runner: &Runner, mount: &Mount) -> bool {
    mount.folder.is_none() || runner.settings.is_workspace(&mount.rest)
}

/// The volumes of the pod: one for each volume with a claim, however often it is mounted, and those in memory. The
/// API refuses two volumes of one name.
fn storage<'a>(runner: &Runner<'a>) -> Vec<Storage<'a>> {
    let tmpfs = runner.settings.run.hardening.tmpfs.iter().enumerate();
    // Podman 4.3 makes a volume of such a name, which other pods would share without the prefix.
    let name = name(runner);
    let in_memory = tmpfs.map(|(number, item)| {
        let source = Source::Memory(item.as_str());
        (format!("{name}-tmpfs-{number}"), source)
    });
    let claims = claims(runner).into_iter();
    let claims = claims.map(|mounts| (claim_title(runner, mounts[0]), Source::Claim(mounts)));
    claims
        .chain(in_memory)
        .map(|(title, source)| Storage {
            name: distinct_label(&title),
            source,
        })
        .collect()
}

/// The mounts with claims, by their volumes.
fn claims<'a>(runner: &Runner<'a>) -> Vec<Vec<&'a Mount>> {
    let mut claims: Vec<Vec<&Mount>> = Vec::new();
    for mount in runner.mounts.iter().filter(|it| has_claim(runner, it)) {
        match claims.iter_mut().find(|it| it[0].host == mount.host) {
            Some(claim) => claim.push(mount),
            None => claims.push(vec![mount]),
        }
    }
    claims
}

/// What a claim is named after. The workspace is the first mount of its volume.
fn claim_title(runner: &Runner, first: &Mount) -> String {
    let name = name(runner);
    if runner.settings.is_workspace(&first.rest) {
        format!("{name}-workspace")
    } else {
        format!("{name}-volume-{}", first.host)
    }
}

/// Warns of an image's user that Kubernetes cannot tell from root.
pub fn named_user(settings: &Settings, image: &Image) -> Option<Warning> {
    let security = pod_security(&settings.run.user, settings.require.user);
    let user = &image.config.user;
    let number = user.split(':').next().unwrap_or_default().parse::<u32>();
    let is_refused =
        security.run_as_non_root == Some(true) && security.run_as_user.is_none() && number.is_err();
    is_refused.then(|| {
        let what = match user.as_str() {
            "" => "the image has no user, so its user is root: Kubernetes does not start the pod".to_owned(),
            user => format!("the image's user `{user}` is no number: Kubernetes does not start the pod, because it could be root"),
        };
        Warning::new(
            what,
            "set `run.user = \"UID:GID\"`, or write a number after USER in the Dockerfile".to_owned(),
        )
    })
}

/// Warns of folders that are not in the manifests.
pub fn folders_left_out(runner: &Runner) -> Vec<Warning> {
    let left_out = runner.mounts.iter().filter(|it| !has_claim(runner, it));
    left_out
        .map(|mount| {
            let target = mount.target();
            Warning::new(
                format!(
                    "a cluster does not have the folder `{}`: nothing is mounted at `{target}`",
                    mount.host
                ),
                format!(
                    "name a volume, which becomes a claim: `run.volumes = [\"NAME:{target}\"]`"
                ),
            )
        })
        .collect()
}

/// Kubernetes replaces `$(NAME)`, and makes one `$` of two.
fn literal(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value.chars().peekable();
    while let Some(c) = rest.next() {
        out.push(c);
        if c == '$' && matches!(rest.peek(), Some('(' | '$')) {
            out.push('$');
        }
    }
    out
}

/// The words of a command. Kubernetes replaces variables in those of probes too.
fn literals(words: &[String]) -> Vec<String> {
    words.iter().map(|word| literal(word)).collect()
}

/// `64m` of a tmpfs as Kubernetes writes it. None for a share of the memory, such as `50%`.
fn quantity(size: &str) -> Option<String> {
    let (number, unit) = match size.chars().last()?.to_ascii_lowercase() {
        'k' => (&size[..size.len() - 1], "Ki"),
        'm' => (&size[..size.len() - 1], "Mi"),
        'g' => (&size[..size.len() - 1], "Gi"),
        _ => (size, ""),
    };
    let number: u64 = number.parse().ok()?;
    Some(format!("{number}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dollar_is_no_variable() {
        for (value, written) in [
            ("a$b", "a$b"),
            ("$(HOME)", "$$(HOME)"),
            ("a$$b", "a$$$b"),
            ("$$(A)", "$$$$(A)"),
            ("$", "$"),
        ] {
            assert_eq!(literal(value), written);
        }
    }

    #[test]
    fn sizes_are_written_as_quantities() {
        assert_eq!(quantity("64m").unwrap(), "64Mi");
        assert_eq!(quantity("1G").unwrap(), "1Gi");
        assert_eq!(quantity("4096").unwrap(), "4096");
        assert_eq!(quantity("50%"), None);
        assert_eq!(quantity(""), None);
    }

    #[test]
    fn requests_do_not_exceed_limits() {
        let of = |memory, cpus: &str| {
            let limits = Limits {
                memory,
                cpus: cpus.to_owned(),
                pids: None,
            };
            serde_json::to_value(resources(&limits)).unwrap()
        };
        assert_eq!(
            of(None, ""),
            serde_json::json!({"requests": {"memory": "268435456", "cpu": "0.1"}})
        );
        assert_eq!(
            of(Some(1000), "0.05"),
            serde_json::json!({
                "requests": {"memory": "1000", "cpu": "0.05"},
                "limits": {"memory": "1000", "cpu": "0.05"},
            })
        );
        let large = of(Some(1 << 40), "8");
        assert_eq!(large["requests"]["memory"], "268435456");
        assert_eq!(large["requests"]["cpu"], "0.1");
    }
}
