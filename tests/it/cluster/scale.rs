//! Many tenants on one cluster: requests and time.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::kubernetes::{ControlPlane, Options};

/// The measured program: the build that `RINGFENCE_BENCH_BIN` names, or else
/// the tests' own.
fn program() -> String {
    std::env::var("RINGFENCE_BENCH_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ringfence").to_owned())
}

/// The sandbox runs in a process of its own, so that it isn't measured.
struct Aws(Child, String);

impl Aws {
    fn start() -> Self {
        let mut child = Command::new(program())
            .args(["sandbox", "--listen=127.0.0.1:0", "--speed=100000"])
            // The quota of node groups in a cluster is raised. The quotas of
            // roles and launch templates are sufficient.
            .args(["--quota=L-6D54EA21=300"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Self(child, url)
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spec(tenants: usize, quota: &str) -> String {
    let mut text =
        "apiVersion: ringfence.dev/v1alpha1\nkind: Tenancy\nmetadata: {name: bench}\nspec:\n  region: us-east-1\n  \
        kubernetesVersion: \"1.36\"\n  network: {supernet: 10.64.0.0/12, vpcPrefix: 16, zones: 3, natGateways: single, \
        endpoints: [s3, ecr.api, ecr.dkr], flowLogs: true}\n  access: {endpoint: private, admins: []}\n  \
        pools: [{name: shared}]\n  tenants:\n"
            .to_owned();
    for n in 0..tenants {
        let quota = if n == 0 { quota } else { "50" };
        let _ = writeln!(
            text,
            "    - {{id: t{n:03}, name: tenant-{n}, tier: standard, pool: shared, \
             overrides: {{namespace: {{quota: {{pods: \"{quota}\"}}}}}}}}"
        );
    }
    text
}

#[test]
fn requests_grow_with_what_changes() {
    measure(12);
}

#[test]
#[ignore = "takes minutes; benches/report.py runs it"]
fn two_hundred_tenants_on_one_cluster() {
    let figures = measure(200);
    // benches/report.py reads this file.
    if let Some(file) = std::env::var_os("RINGFENCE_BENCH_OUT") {
        fs::write(file, json!(figures).to_string()).unwrap();
    }
}

fn measure(tenants: usize) -> Vec<Value> {
    let plane = ControlPlane::start(Options::default());
    crate::cluster::baseline::install_crds(&plane);
    let aws = Aws::start();
    let home = tempfile::tempdir().unwrap();
    let mut figures = Vec::new();
    let phases =
        [("apply", "apply", "50"), ("plan", "plan", "50"), ("change", "apply", "40"), ("repair", "apply", "40")];
    for (phase, command, quota) in phases {
        fs::write(home.path().join("tenancy.yaml"), spec(tenants, quota)).unwrap();
        if phase == "repair" {
            let weaker = json!({"spec": {"hard": {"pods": "9999"}}});
            for n in 0..tenants {
                plane.admin().patch(&format!("/api/v1/namespaces/t-t{n:03}/resourcequotas/tenant"), &weaker).ok();
            }
        }
        // `time` measures only the program.
        let output = Command::new("/usr/bin/env")
            .args(["bash", "-c", r#"TIMEFORMAT='cpu %U %S wall %R'; time "$@""#, "bash"])
            .arg(program())
            .args([command, "--format", "json", "-v"])
            .args(if command == "apply" { &["--auto-approve"][..] } else { &[] })
            .arg("--kubeconfig")
            .arg(format!("shared={}", plane.kubeconfig().display()))
            .current_dir(home.path())
            .env("AWS_ENDPOINT_URL", &aws.1)
            .env("AWS_ACCESS_KEY_ID", "123456789012")
            .env("AWS_SECRET_ACCESS_KEY", "x")
            .env("HOME", home.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let last: Value =
            serde_json::from_slice(output.stdout.split(|b| *b == b'\n').rfind(|l| !l.is_empty()).unwrap())
                .unwrap_or_else(|e| panic!("{phase}: {e}: {errors}"));
        assert!(output.status.success(), "{phase}: {last:#}\n{errors}");
        let time = errors.lines().rfind(|l| l.starts_with("cpu ")).unwrap().split(' ').collect::<Vec<_>>();
        let seconds = |at: usize| time[at].parse::<f64>().unwrap();
        let requests: serde_json::Map<String, Value> = last["calls"]
            .as_object()
            .unwrap()
            .iter()
            .filter_map(|(action, n)| Some((action.strip_prefix("k8s:")?.to_owned(), n.clone())))
            .collect();
        let of = |action: &str| requests.get(action).and_then(Value::as_u64).unwrap_or_default();
        let all: u64 = requests.values().filter_map(Value::as_u64).sum();
        // Reads before and after the changes. Their number is always the same.
        let reads = of("list") + of("discover");
        let written = of("apply");
        assert!(reads < 300, "{phase}: {reads} reads: {requests:?}");
        match phase {
            "plan" => assert_eq!(all, reads, "nothing but lists: {requests:?}"),
            "change" => assert_eq!(written, 1, "{requests:?}"),
            "repair" => assert_eq!(written, tenants as u64, "{requests:?}"),
            _ => assert!(written > 10 * tenants as u64, "{requests:?}"),
        }
        assert!(all - reads <= 2 * written, "{phase}: more than two requests a changed object: {requests:?}");
        figures.push(json!({"phase": phase, "requests": requests, "objects": written,
            "cpu": seconds(1) + seconds(2), "wall": seconds(4)}));
    }
    figures
}
