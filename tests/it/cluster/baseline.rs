//! A control plane with a tenancy applied to it by the real program.
//!
//! The AWS part is the embedded sandbox's; `--kubeconfig` leads the program to
//! a control plane of [`kubernetes`]. One control plane is shared by all tests
//! of a kind: each test makes objects of its own names, mostly by dry run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::kubernetes::{ControlPlane, Options, path, yaml};

/// A control plane with a tenancy applied to it.
pub struct Baseline {
    pub plane: ControlPlane,
    cluster: &'static str,
    dir: TempDir,
}

/// A shared cluster with the tenants `red` and `blue` (tier standard), `green`
/// (tier workshop, which opens what can be opened) and `sky` (on Fargate).
pub static POOL: LazyLock<Baseline> = LazyLock::new(|| Baseline::applied("pool.yaml", "shared", Options::default()));
/// The same on a version that has no mutating policies.
pub static OLDER: LazyLock<Baseline> =
    LazyLock::new(|| Baseline::applied("pool.yaml", "shared", Options { emulates: Some("1.35"), nodes: false }));
/// The cluster of the tenant `gold`.
pub static SILO: LazyLock<Baseline> = LazyLock::new(|| Baseline::applied("silo.yaml", "gold", Options::default()));

impl Baseline {
    pub fn applied(spec: &str, cluster: &'static str, options: Options) -> Self {
        let baseline = Self::prepared(spec, cluster, options);
        baseline.run(&["apply", "--auto-approve"]);
        baseline
    }

    /// A control plane with what EKS and its add-ons bring, and a spec that
    /// isn't applied yet.
    pub fn prepared(spec: &str, cluster: &'static str, options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(inputs().join(spec)).unwrap();
        let version = options.emulates.unwrap_or("1.36");
        let text = text.replace("kubernetesVersion: \"1.36\"", &format!("kubernetesVersion: \"{version}\""));
        let text = text.replace("SOON", &soon());
        fs::write(dir.path().join("tenancy.yaml"), text).unwrap();
        fs::create_dir(dir.path().join("sandbox")).unwrap();
        let plane = ControlPlane::start(options);
        install_crds(&plane);
        Self { plane, cluster, dir }
    }

    pub fn spec(&self) -> PathBuf {
        self.dir.path().join("tenancy.yaml")
    }

    /// The program, about to run on this tenancy.
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

    /// What it prints; panics unless it ends well.
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

/// The APIs that EKS and its add-ons bring.
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

/// A date that waivers may hold until.
fn soon() -> String {
    #[expect(clippy::disallowed_methods, reason = "the program reckons from today, too")]
    let now = jiff::Timestamp::now();
    (now + jiff::SignedDuration::from_hours(24 * 30)).strftime("%F").to_string()
}

fn inputs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes")
}
