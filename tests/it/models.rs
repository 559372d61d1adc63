//! The program's requests are valid under AWS's published service models: members, types, patterns, lengths, ranges,
//! enums. `tests/models/check_requests.py` reads them from botocore.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use futures::future::join_all;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::permissions;
use crate::support::served::Served;
use crate::support::{moto, record_dir};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn check(records: &[PathBuf]) -> Output {
    let script = root().join("tests/models/check_requests.py");
    Command::new(moto::python()).arg(script).args(records).output().unwrap()
}

/// The spec with one more tag, which changes every resource that has tags.
pub fn changed(spec: &str) -> String {
    let tagged = match spec.split_once("\n  tags:\n") {
        Some((before, after)) => format!("{before}\n  tags:\n    stage: second\n{after}"),
        None => spec.replacen("\n  tenants:\n", "\n  tags: {stage: second}\n  tenants:\n", 1),
    };
    assert_ne!(tagged, spec);
    tagged
}

/// The records of an example's lifecycle.
pub struct Life {
    /// The policy that `ringfence iam-policy` printed for it. Its role had only this policy.
    pub policy: Value,
    /// The actions that it needed, and the refusals.
    pub permissions: (BTreeSet<String>, Vec<String>),
    /// The recorded calls, as lines of JSON.
    calls: String,
}

/// The lifecycles of all examples. They take long, so all tests share them.
pub async fn lives() -> &'static [Life] {
    static LIVES: OnceCell<Vec<Life>> = OnceCell::const_new();
    let live = async |spec: String| {
        let policy = permissions::printed(&spec, "apply");
        let served = Served::enforced(&spec, &policy.to_string()).await;
        live(&served, &spec).await;
        let calls = fs::read_to_string(served.calls()).unwrap();
        Life { policy, permissions: served.server.permissions(), calls }
    };
    LIVES.get_or_init(|| join_all(permissions::examples().into_iter().map(live))).await
}

/// Runs the whole lifecycle of an estate: plan, create, change, read, destroy.
async fn live(served: &Served, spec: &str) {
    served.run(&["plan", "--detailed-exitcode"], 2).await;
    served.run(&["apply", "--auto-approve"], 0).await;
    served.run(&["plan", "--detailed-exitcode"], 0).await;
    served.write(&changed(spec));
    served.run(&["apply", "--auto-approve"], 0).await;
    served.run(&["drift"], 0).await;
    served.run(&["output"], 0).await;
    served.run(&["destroy", "--auto-approve", "--delete-logs"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_every_example_fits() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Vec::new();
    for (n, life) in lives().await.iter().enumerate() {
        records.push(dir.path().join(n.to_string()));
        fs::write(&records[n], &life.calls).unwrap();
    }
    let output = check(&records);
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{out}{err}");
    println!("{out}");
}

/// One invalid request for each rule, and the expected message.
const BROKEN: &[(&str, &str)] = &[
    (r#"{"service":"eks","operation":"MakeCluster","params":{}}"#, "MakeCluster"),
    (r#"{"service":"eks","operation":"ListClusters","params":{"size":"1"}}"#, "size: unknown member"),
    (r#"{"service":"eks","operation":"ListAddons","params":{}}"#, "clusterName: required, but missing"),
    (r#"{"service":"eks","operation":"ListClusters","params":{"maxResults":"101"}}"#, "101, the most is 100"),
    (r#"{"service":"eks","operation":"DescribeCluster","params":{"name":7}}"#, "7 is no string"),
    (
        r#"{"service":"ec2","operation":"DescribeVpcs","params":{"Filter":[{"Values":["x"]}]}}"#,
        "Values: unknown member",
    ),
    (r#"{"service":"ec2","operation":"DescribeVpcs","params":{"MaxResults":"1"}}"#, "1, the least is 5"),
    (r#"{"service":"ec2","operation":"DescribeVpcs","params":{"DryRun":"yes"}}"#, "'yes' is no boolean"),
    (r#"{"service":"iam","operation":"GetRole","params":{"RoleName":"a b"}}"#, r"'a b' doesn't match [\w+=,.@-]+"),
    (r#"{"service":"iam","operation":"GetRole","params":{"RoleName":""}}"#, "0 characters in '', the least is 1"),
    (
        r#"{"service":"iam","operation":"TagRole","params":{"RoleName":"a","Tags":[{"Key":"!","Value":""}]}}"#,
        "TagRole.Tags[].Key: '!' doesn't match",
    ),
    (
        r#"{"service":"ssm","operation":"PutParameter","params":{"Name":"a","Value":"b","Type":"Text"}}"#,
        "'Text' is none of String, StringList, SecureString",
    ),
];

#[test]
fn requests_are_recorded_only_where_the_variable_says() {
    assert_eq!(record_dir(None), None);
    assert_eq!(record_dir(Some("".into())), None);
    assert_eq!(record_dir(Some("/requests".into())), Some("/requests".into()));
    for here in [".", "requests"] {
        assert!(std::panic::catch_unwind(|| record_dir(Some(here.into()))).is_err(), "{here}");
    }
}

#[test]
fn a_request_that_breaks_a_rule_is_named() {
    for (request, said) in BROKEN {
        let record = tempfile::NamedTempFile::new().unwrap();
        fs::write(&record, request).unwrap();
        let output = check(&[record.path().to_owned()]);
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{request}: {out}");
        assert!(out.contains(said), "{request}: {out}{}", String::from_utf8_lossy(&output.stderr));
    }
}
