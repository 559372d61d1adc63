//! Tests the sandbox with boto3: `tests/sandbox/walk_*.py` call its operations, also with invalid requests, and compare
//! the answers with AWS's.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use ringfence::sandbox::{Options, Server};

use crate::support::moto;

/// 2026-11-18 in Unix seconds. The date is fixed, because the support status of Kubernetes versions depends on it.
const NOW: f64 = 1_795_000_000.0;

/// Runs a walk against a sandbox with a manual clock. The walk moves the clock.
fn walk(script: &str, options: Options) {
    let options = Options { manual_clock: Some(NOW), ..options };
    let server = Server::start(options, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a sandbox");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox").join(script);
    let mut child = Command::new(moto::python())
        .arg(script)
        .arg(format!("http://{}", server.addr()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python");
    let mut answers = child.stdin.take().expect("stdin");
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("stdout")).lines() {
        let line = line.expect("text");
        let Some(command) = line.strip_prefix("> ") else {
            said.push(line);
            continue;
        };
        let answer = match command.split_once(' ') {
            Some(("advance", seconds)) => {
                server.advance(seconds.parse().expect("seconds"));
                "ok".to_owned()
            }
            _ => server.dump().to_string(),
        };
        writeln!(answers, "{answer}").expect("the walk listens");
    }
    let status = child.wait().expect("an end");
    assert!(status.success(), "{}", said.join("\n"));
    println!("{}", said.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ec2_and_sts_answer_as_aws_does() {
    let principals = ["arn:aws:iam::123456789012:role/PlatformAdmin", "arn:aws:iam::210987654321:role/Cross"];
    let options = Options {
        principals: principals.map(str::to_owned).to_vec(),
        quotas: [("L-A4707A72".to_owned(), 6.0)].into(),
        ..Options::default()
    };
    tokio::task::spawn_blocking(|| walk("walk_ec2.py", options)).await.expect("the walk");
}

#[tokio::test(flavor = "multi_thread")]
async fn iam_kms_logs_ssm_quotas_eks_and_kubernetes_answer_as_aws_does() {
    tokio::task::spawn_blocking(|| walk("walk_eks.py", Options::default())).await.expect("the walk");
}
