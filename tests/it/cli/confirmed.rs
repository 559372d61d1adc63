//! Every change is read again after it was made. A change that can't be read
//! isn't reported as done.

use std::sync::atomic::{AtomicBool, Ordering};

use super::bad_days::{response, serve};
use super::*;

/// A proxy in front of `upstream`. After the first request that contains
/// `change`, requests that contain `then` get `refusal`.
fn shut_after(upstream: std::net::SocketAddr, change: &'static str, then: &'static str, refusal: Vec<u8>) -> String {
    let changed = AtomicBool::new(false);
    serve(move |asked| {
        if changed.load(Ordering::SeqCst) && asked.contains(then) {
            return refusal.clone();
        }
        if asked.contains(change) {
            changed.store(true, Ordering::SeqCst);
        }
        asked.forwarded(upstream)
    })
}

/// An estate with one changed log group.
fn drifted() -> Estate {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.sandbox(async |aws, _| {
        let groups = aws.logs.describe_log_groups().send().await.unwrap();
        let ours = groups.log_groups().iter().filter_map(|g| g.log_group_name()).find(|n| n.ends_with("/flow-logs"));
        aws.logs.put_retention_policy().log_group_name(ours.unwrap()).retention_in_days(1).send().await.unwrap();
    });
    estate
}

/// Credentials that expire during a run, as those of a session do
/// (`ExpiredTokenException`: CloudWatch Logs API reference, "Common errors").
#[test]
fn credentials_expire_before_the_verification() {
    for format in ["human", "json", "markdown"] {
        let estate = drifted();
        let served = Served::start(&estate, None);
        let expired =
            r#"{"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}"#;
        let expired = response("403 Forbidden", "Content-Type: application/x-amz-json-1.1\r\n", expired);
        let url = shut_after(served.server.addr(), ".PutRetentionPolicy", ".DescribeLogGroups", expired);
        let run = against(&url, &mut estate.bare(&["apply", "--auto-approve", "--format", format])).exits(4);
        if format == "json" {
            let lines = run.lines();
            let report = lines.last().unwrap();
            assert_eq!(report["complete"], false);
            assert_eq!(list(&report["differs"]), [] as [Value; 0]);
            let [one] = list(&report["unconfirmed"]) else { panic!("{report:#}") };
            assert_eq!(one["addresses"], serde_json::json!(["tenant/globex/silo/log-group/flow-logs"]));
            assert_eq!(
                (text(&one["error"]["class"]), text(&one["error"]["code"])),
                ("denied", "ExpiredTokenException")
            );
        } else {
            let said = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
            for what in [
                "Done, but not confirmed: 1 resource",
                "tenant/globex/silo/log-group/flow-logs",
                "The security token included in the request is expired",
                "Apply done but not confirmed: 0 added, 1 changed",
                "Next: run the same command again",
            ] {
                assert!(said.contains(what), "{what}: {}", run.out);
            }
        }
        // The change was made.
        against(&served.url(), &mut estate.bare(&["plan", "--detailed-exitcode"])).exits(0);
    }
}

#[test]
fn a_cluster_becomes_unreachable_before_the_verification() {
    let estate = Estate::applied(&SINGLE_SILO);
    fs::create_dir_all(estate.path().join("templates/manifests/tenant")).unwrap();
    let note = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note, namespace: {{ tenant.namespace | json }}}\n";
    fs::write(estate.path().join("templates/manifests/tenant/note.yaml"), note).unwrap();
    let served = Served::start(&estate, None);
    let body = r#"{"kind":"Status","status":"Failure","reason":"Unauthorized","message":"Unauthorized","code":401}"#;
    let shut = response("401 Unauthorized", "Content-Type: application/json\r\n", body);
    let way = |change| {
        let url = shut_after(served.server.addr(), change, " /k8s/", shut.clone());
        let server = format!("{url}/k8s/123456789012/eu-central-1/solo-t-globex");
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        });
        fs::write(estate.path().join("way"), config.to_string()).unwrap();
    };
    let apply = ["apply", "--auto-approve", "--format", "json", "--kubeconfig", "globex=way"];
    // First an object is created, then it is deleted. Neither can be confirmed.
    for (change, templates) in [("fieldManager=", &["--templates", "templates"][..]), ("DELETE ", &[])] {
        way(change);
        let mut command = estate.bare(&[&apply, templates].concat());
        let run = against(&served.url(), &mut command);
        let lines = run.exits(4).lines();
        let report = lines.last().unwrap();
        assert_eq!(report["complete"], false);
        let [one] = list(&report["unconfirmed"]) else { panic!("{change}: {report:#}") };
        assert_eq!(one["addresses"], serde_json::json!(["tenant/globex/silo/k8s/configmap/note"]), "{change}");
        assert!(text(&one["error"]["message"]).contains("the objects in cluster solo-t-globex can't be read"), "{one}");
    }
}

/// An unreadable resource isn't treated as absent: its outputs aren't left out
/// silently, and its tenant isn't reported as unknown.
#[test]
fn unreadable_resources_do_not_count_as_absent() {
    let estate = Estate::applied(&SINGLE_SILO);
    let served = Served::start(&estate, None);
    let denied = r#"{"__type":"AccessDeniedException","message":"not allowed"}"#;
    let denied = response("400 Bad Request", "Content-Type: application/x-amz-json-1.1\r\n", denied);
    let url = shut_after(served.server.addr(), "", ".DescribeLogGroups", denied);
    for args in [
        &["output"][..],
        &["output", "tenant/globex/silo/log-group/flow-logs"],
        &["plan"],
        &["plan", "--destroy", "--tenant", "left-the-spec"],
        &["drift"],
    ] {
        // After the first request, the others are refused.
        let run = against(&url, &mut estate.bare(args));
        run.refuses(&["resources of the kind aws.log-group can't be read, so no plan is possible", "not allowed"]);
    }
}
