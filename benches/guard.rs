//! Verdicts of the guard for each second of one core, on a Deployment of three containers, and the memory that they
//! take: `cargo bench --bench guard`. Prints one line of JSON. Fails if there are fewer than 5,000 verdicts a second, or
//! if the memory grows.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a benchmark prints what it measures with the real clock"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use jiff::civil::date;
use ringfence::run::check::{Document, Judge};
use ringfence::spec::{self, LoadOptions};
use ringfence::template::Templates;
use serde_json::{Value, json};

const AT_LEAST: f64 = 5_000.0;
const ROUNDS: u32 = 20_000;
/// Growth of memory that isn't noise, in kilobytes.
const GROWTH: u64 = 1_024;

fn deployment(refused: bool) -> Value {
    let container = |name: &str, port: u16| {
        json!({
            "name": name, "image": format!("123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/{name}:1"),
            "ports": [{"containerPort": port}], "env": [{"name": "MODE", "value": "production"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "livenessProbe": {"httpGet": {"path": "/live", "port": port}},
            "volumeMounts": [{"name": "work", "mountPath": "/work"}],
            "securityContext": {"allowPrivilegeEscalation": false, "privileged": refused, "capabilities": {"drop": ["ALL"]}},
        })
    };
    let labels = json!({"app": "web"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": labels},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container("web", 8080), container("proxy", 8081), container("agent", 8082)],
            "volumes": [{"name": "work", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "web"}}],
        }}},
    })
}

/// Resident memory in kilobytes, or 0 where the system doesn't tell.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn main() -> ExitCode {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/three-tiers/tenancy.yaml");
    match measure(&path) {
        Ok((admitted, refused, grown)) => {
            println!(
                "{}",
                json!({"admitted per second": admitted.round(), "refused per second": refused.round(), "memory grown by KB": grown})
            );
            ExitCode::from(u8::from(admitted.min(refused) < AT_LEAST || grown > GROWTH))
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Verdicts a second that admit and that refuse, and how much the memory grew.
fn measure(path: &PathBuf) -> Result<(f64, f64, u64), Box<dyn std::error::Error>> {
    let options = LoadOptions { profiles_dir: None, today: date(2026, 11, 23) };
    let spec = spec::load(path, &fs::read_to_string(path)?, &options).map_err(|errors| errors.to_string())?;
    let judge = Judge::of(&spec, &Templates::built_in()?, "23456", false)?;
    let mut rates = [0.0; 2];
    let mut grown = 0;
    for (i, refused) in [false, true].into_iter().enumerate() {
        let document = Document { file: "web.yaml".to_owned(), line: 1, object: deployment(refused) };
        let checked = judge.check(&document);
        if checked.refusals.is_empty() == refused {
            return Err(format!("the wrong verdict: {:?}", checked.refusals).into());
        }
        for _ in 0..ROUNDS / 10 {
            judge.check(&document);
        }
        let (before, start) = (memory(), Instant::now());
        for _ in 0..ROUNDS {
            judge.check(&document);
        }
        rates[i] = f64::from(ROUNDS) / start.elapsed().as_secs_f64();
        grown = grown.max(memory().saturating_sub(before));
    }
    Ok((rates[0], rates[1], grown))
}
