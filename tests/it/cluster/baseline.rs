//! A Kubernetes control plane to which the real program has applied a tenancy.
//!
//! AWS is the embedded sandbox. `--kubeconfig` makes the program use a control
//! plane of [`kubernetes`]. All tests of a kind share one control plane: each
//! test uses names of its own, and mostly dry runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::kubernetes::{ControlPlane, Options, path, yaml};

/// A control plane to which a tenancy was applied.
pub struct Baseline {
    pub plane: ControlPlane,
    cluster: &'static str,
    dir: TempDir,
}

/// A shared cluster with the tenants `red` and `blue` (tier standard), `green`
/// (tier workshop, which allows everything that a tier can allow) and `sky` (on
/// Fargate).
pub static POOL: LazyLock<Baseline> = LazyLock::new(|| Baseline::applied("pool.yaml", "shared", Options::default()));
/// The same on a Kubernetes version without mutating policies.
pub static OLDER: LazyLock<Baseline> = LazyLock::new(|| {
    Baseline::applied("pool.yaml", "shared", Options { emulates: Some("1.35"), ..Options::default() })
});
/// The silo cluster of the tenant `gold`.
pub static SILO: LazyLock<Baseline> = LazyLock::new(|| Baseline::applied("silo.yaml", "gold", Options::default()));

impl Baseline {
    pub fn applied(spec: &str, cluster: &'static str, options: Options) -> Self {
        let baseline = Self::prepared(spec, cluster, options);
        baseline.run(&["apply", "--auto-approve"]);
        baseline.until_in_force();
        baseline.plane.judge();
        baseline
    }

    /// A policy takes effect a moment after it is written. Waits until each
    /// policy for objects of tenants refuses a test object.
    fn until_in_force(&self) {
        let tenants = self.plane.admin().get("/api/v1/namespaces?labelSelector=ringfence.dev/tenant").ok();
        let metadata = &tenants["items"][0]["metadata"];
        let tenant = &metadata["labels"]["ringfence.dev/tenant"];
        let uid: u64 = metadata["annotations"]["ringfence.dev/first-uid"].as_str().unwrap().parse().unwrap();
        let named =
            json!({"name": "canary", "namespace": metadata["name"], "labels": {"ringfence.dev/tenant": tenant}});
        // A complete pod, so that only the rule in question can refuse it.
        let sound = json!({
            "nodeSelector": {"tenantID": tenant},
            "tolerations": [{"key": "tenantID", "operator": "Equal", "value": tenant}],
            "securityContext": {"runAsNonRoot": true, "runAsUser": uid, "runAsGroup": uid, "fsGroup": uid,
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/c", "imagePullPolicy": "Always",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        });
        let with = |pointer: &str, value: Value| {
            let mut pod = sound.clone();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[field] = value;
            let template =
                json!({"metadata": {"labels": {"app": "canary", "ringfence.dev/tenant": tenant}}, "spec": pod});
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named,
                "spec": {"selector": {"matchLabels": {"app": "canary"}}, "template": template}})
        };
        let mut ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": named,
            "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 1}}}}});
        ingress["metadata"]["annotations"] = json!({"nginx.ingress.kubernetes.io/server-snippet": "x"});
        let refused = [
            ("ADM-3: ", with("/containers/0/image", "c".into())),
            ("NODE-2: ", with("/nodeName", "n".into())),
            ("POD-4: ", with("/volumes", json!([{"name": "v", "hostPath": {"path": "/"}}]))),
            ("POD-5: ", with("/hostNetwork", true.into())),
            ("NET-3: ", ingress),
            (
                "NET-3: ",
                json!({"apiVersion": "v1", "kind": "Service", "metadata": named,
                "spec": {"type": "ExternalName", "externalName": "example.com"}}),
            ),
            (
                "POD-4: ",
                json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": named,
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}}),
            ),
        ];
        for (control, object) in refused {
            self.plane.until(&format!("{control}{}", object["kind"]), |admin| {
                admin.try_create(&object).message().contains(control)
            });
        }
        let map = |labels: Value| {
            json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "canary", "namespace": metadata["name"], "labels": labels}})
        };
        self.plane.until("tenants' labels are stamped or asked for", |admin| {
            let answer = admin.try_create(&map(json!({})));
            answer.message().contains("NS-2: ") || answer.body["metadata"]["labels"]["ringfence.dev/tenant"] == *tenant
        });
        if self.plane.admin().try_create(&map(json!({}))).is_ok() {
            let mut plain = with("/hostname", "c".into());
            plain["spec"]["template"]["spec"] =
                json!({"containers": [{"name": "c", "image": sound["containers"][0]["image"]}]});
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": plain["spec"]["template"]["spec"]});
            self.plane.until("templates and Pods are stamped", |admin| {
                let template = admin.try_create(&plain).body["spec"]["template"]["spec"].take();
                template["automountServiceAccountToken"] == false && admin.try_create(&pod).is_ok()
            });
        }
    }

    /// A control plane with the APIs of EKS and its add-ons, and a spec that
    /// isn't applied yet.
    pub fn prepared(spec: &str, cluster: &'static str, options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(inputs().join(spec)).unwrap();
        let version = options.emulates.unwrap_or("1.36");
        fs::write(dir.path().join("tenancy.yaml"), filled(&text, version)).unwrap();
        fs::create_dir(dir.path().join("sandbox")).unwrap();
        let plane = ControlPlane::start(options);
        install_crds(&plane);
        Self { plane, cluster, dir }
    }

    pub fn spec(&self) -> PathBuf {
        self.dir.path().join("tenancy.yaml")
    }

    /// A command of the program for this tenancy.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command
            .args(args)
            .args(["--sandbox=sandbox", "--sandbox-speed", "300", "--profiles"])
            .arg(inputs().join("profiles"))
            .arg("--kubeconfig")
            .arg(format!("{}={}", self.cluster, self.plane.kubeconfig().display()))
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program and returns its output. Panics if it fails.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Output { status, stdout, stderr } = output;
        assert!(status.success(), "{args:?} ends with {status}\n{}\n{}", text(&stdout), text(&stderr));
        text(&stdout)
    }

    /// The plan as a JSON document.
    pub fn plan(&self) -> Value {
        serde_json::from_str(&self.run(&["plan", "--format", "json"])).unwrap()
    }
}

/// Installs the APIs of EKS and its add-ons.
pub fn install_crds(plane: &ControlPlane) {
    let mut files: Vec<_> = fs::read_dir(inputs().join("crds")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for file in files {
        for object in yaml(&fs::read_to_string(file).unwrap()) {
            plane.admin().create(&object).ok();
            plane.until("the API is served", |admin| {
                let live = admin.get(&path(&object)).body;
                let conditions = live["status"]["conditions"].as_array().cloned().unwrap_or_default();
                conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
            });
        }
    }
}

/// The text of a spec, with a version of Kubernetes and a date.
pub fn filled(text: &str, version: &str) -> String {
    let text = text.replace("kubernetesVersion: \"1.36\"", &format!("kubernetesVersion: \"{version}\""));
    text.replace("SOON", &soon())
}

/// A date within the longest time of a waiver.
fn soon() -> String {
    #[expect(clippy::disallowed_methods, reason = "the program reckons from today, too")]
    let now = jiff::Timestamp::now();
    (now + jiff::SignedDuration::from_hours(24 * 30)).strftime("%F").to_string()
}

fn inputs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes")
}
