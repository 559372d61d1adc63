//! Compares the sandbox with moto, call by call. docs/sandbox-differences.md lists each difference with its reason.

use std::process::{Command, Output};

use ringfence::engine::clock::Clock;
use ringfence::sandbox::{Options, Script, Server};
use serde_json::Value;

use crate::support::{self, moto};

async fn check(url: &str, args: &'static [&'static str]) -> Output {
    let url = url.to_owned();
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command.args(["sandbox", "--check", &url]).args(args).env_clear().output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn every_difference_from_moto_is_explained_and_every_explanation_needed() {
    let output = check(moto::url(), &["--format", "json"]).await;
    let err = String::from_utf8_lossy(&output.stderr);
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {err}"));
    let differences = outcome["differences"].as_array().unwrap();
    let unexplained: Vec<_> = differences.iter().filter(|d| d["known"].is_null()).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    assert_eq!(list(&outcome["unseen"]), [""; 0], "no longer so: take them from docs/sandbox-differences.md");
    assert_eq!(list(&outcome["left"]), [""; 0], "left behind");
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(outcome["calls"].as_u64() > Some(150), "{}", outcome["calls"]);
    nothing_is_left(moto::url()).await;
}

/// The calls leave no resource in EC2.
async fn nothing_is_left(url: &str) {
    let aws = support::connect(url, Clock::real()).await;
    let vpcs = aws.ec2.describe_vpcs().send().await.unwrap();
    let left: Vec<_> = vpcs.vpcs().iter().filter(|vpc| !vpc.is_default().unwrap_or_default()).collect();
    let left: Vec<_> = left.iter().filter_map(|vpc| vpc.cidr_block()).filter(|cidr| cidr.starts_with("10.9")).collect();
    assert_eq!(left, [""; 0]);
    assert_eq!(
        aws.eks.list_clusters().send().await.unwrap().clusters().iter().filter(|c| c.contains("check")).count(),
        0
    );
}

fn sandbox(faults: &str) -> (Server, String) {
    let faults = Script::parse(faults).unwrap();
    let server = Server::start(Options { speed: 3000.0, faults, ..Options::default() }, ([127, 0, 0, 1], 0).into());
    let server = server.unwrap();
    let url = format!("http://{}", server.addr());
    (server, url)
}

#[tokio::test]
async fn a_sandbox_is_like_another() {
    let (_server, url) = sandbox("{}");
    let output = check(&url, &[]).await;
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}");
    assert!(out.contains("0 differences are known, 0 aren't explained"), "{out}");
    nothing_is_left(&url).await;
}

/// Resources are deleted again even if calls fail on the way.
#[tokio::test]
async fn created_resources_are_deleted_after_failures() {
    let script = "faults: [{call: '*:Delete*', first: true, before: internal}, {call: 'ec2:CreateRoute', after: drop},
        {call: 'eks:CreateCluster', after: busy},
        {call: 'eks:CreateNodegroup', after: cut}]";
    let (_server, url) = sandbox(script);
    let output = check(&url, &["--format", "json"]).await;
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(list(&outcome["left"]), [""; 0]);
    nothing_is_left(&url).await;
}

#[tokio::test]
async fn an_invalid_endpoint_is_refused() {
    let (server, gone) = sandbox("{}");
    server.shutdown().await.unwrap();
    let gone = check(&gone, &[]).await;
    let err = String::from_utf8_lossy(&gone.stderr);
    assert!(gone.status.code() == Some(1) && err.contains("doesn't say who asks"), "{err}");
    let strange = check("ftp://x", &[]).await;
    let err = String::from_utf8_lossy(&strange.stderr);
    assert!(strange.status.code() == Some(64) && err.contains("not a URL"), "{err}");
}
