//! Resources that somebody deleted by hand are drift, and are named first.

use std::io::{Read, Write};

use super::*;

/// Deletes an object of a cluster, as kubectl would.
fn delete_object(server: &Server, path: &str) {
    let mut stream = std::net::TcpStream::connect(server.addr()).unwrap();
    write!(stream, "DELETE /k8s{path} HTTP/1.1\r\nHost: k8s\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn drift(estate: &Estate, code: i32) -> (Value, String) {
    let document = estate.run(&["drift", "--format", "json"]).exits(code).json();
    let shown = estate.run(&["drift"]).exits(code).out;
    for format in ["markdown", "html"] {
        let run = estate.run(&["drift", "--format", format]).exits(code);
        assert!(run.out.contains(shown.trim_end().lines().last().unwrap()), "{format}: {}", run.out);
    }
    (document, shown)
}

fn missing(document: &Value) -> Vec<&str> {
    list(&document["drift"]["missing"]).iter().map(|m| text(&m["address"])).collect()
}

#[test]
fn deleted_controls_are_named_first() {
    let estate = Estate::applied(&THREE_TIERS);
    let (clean, shown) = drift(&estate, 0);
    assert_eq!(missing(&clean), [] as [&str; 0]);
    assert!(shown.contains("\nNo changes. All "), "{shown}");
    let policies =
        "/123456789012/us-east-1/acme-p-shared-1/apis/networking.k8s.io/v1/namespaces/t-23456/networkpolicies";
    estate.sandbox(async |aws, server| {
        delete_object(server, &format!("{policies}/default-deny"));
        let logs = aws.ec2.describe_flow_logs().send().await.unwrap();
        let of_pool =
            logs.flow_logs().iter().find(|l| l.tags().iter().any(|t| t.value() == Some("pool/shared-1/flow-log")));
        aws.ec2.delete_flow_logs().flow_log_ids(of_pool.unwrap().flow_log_id().unwrap()).send().await.unwrap();
        let groups = aws.logs.describe_log_groups().send().await.unwrap();
        let ours = groups.log_groups().iter().filter_map(|g| g.log_group_name()).find(|n| n.ends_with("/flow-logs"));
        aws.logs.put_retention_policy().log_group_name(ours.unwrap()).retention_in_days(1).send().await.unwrap();
    });
    let (document, shown) = drift(&estate, 2);
    // Resources that carry a control are named first.
    let all = ["tenant/23456/pool/shared-1/k8s/networkpolicy/default-deny", "pool/shared-1/flow-log"];
    assert_eq!(missing(&document), all, "{document:#}");
    let controls = list(&document["drift"]["missing"][0]["controls"]);
    assert!(!controls.is_empty(), "{document:#}");
    assert_eq!(list(&document["steps"]).len(), 1, "{document:#}");
    assert_eq!(shown.trim_end().lines().last(), Some("Drift: 2 missing, 1 changed."));
    let at = |what: &str| shown.find(what).unwrap_or_else(|| panic!("{what}: {shown}"));
    let first_change = at("log-group/flow-logs");
    assert!(all.iter().all(|address| at(address) < first_change), "what is missing comes first: {shown}");
    for control in controls {
        at(text(control));
    }
    // With `--tenant`, only that tenant's drift.
    let run = estate.run(&["drift", "--tenant", "23456", "--format", "json"]).exits(2).json();
    assert_eq!(missing(&run), [all[0]]);
    estate.run(&["drift", "--tenant", "34567"]).exits(0);

    estate.run(&["apply", "--auto-approve"]).exits(0);
    drift(&estate, 0);
}

#[test]
fn resources_in_a_missing_container_are_counted_with_it() {
    let estate = Estate::applied(&THREE_TIERS);
    estate.sandbox(async |_, server| {
        delete_object(server, "/123456789012/us-east-1/acme-p-shared-1/api/v1/namespaces/t-34567");
    });
    let (document, shown) = drift(&estate, 2);
    let [namespace] = list(&document["drift"]["missing"]) else { panic!("{document:#}") };
    assert_eq!(namespace["address"], "tenant/34567/fargate/shared-1/k8s/namespace/t-34567");
    assert!(namespace["within"].as_u64().unwrap() > 5, "{namespace:#}");
    assert!(list(&namespace["controls"]).len() > 3, "the controls of all that was in it: {namespace:#}");
    assert!(shown.contains("resources in it"), "{shown}");
}

#[test]
fn a_placement_that_was_never_created_is_noted() {
    let estate = Estate::applied(&THREE_TIERS);
    estate.edit(
        "    - id: \"34567\"",
        "    - {id: \"45678\", name: hooli, tier: standard, pool: shared-1}\n    - id: \"34567\"",
    );
    let (document, shown) = drift(&estate, 0);
    assert_eq!(missing(&document), [] as [&str; 0]);
    let absent = document["drift"]["absent"].as_object().unwrap();
    assert_eq!(absent.keys().collect::<Vec<_>>(), ["tenant/45678/pool/shared-1"]);
    assert!(!shown.contains("No changes") && shown.contains("tenant/45678/pool/shared-1 doesn't exist"), "{shown}");

    // An estate that doesn't exist at all isn't drift either.
    let nothing = Estate::new(&SINGLE_SILO);
    let (document, shown) = drift(&nothing, 0);
    let absent = document["drift"]["absent"].as_object().unwrap();
    assert_eq!(absent.keys().collect::<Vec<_>>(), ["tenancy", "tenant/globex/silo"]);
    assert!(!shown.contains("No changes"), "{shown}");
}

/// An apply that died after the VPC was made. The cluster is missing; the
/// objects in it aren't named one by one.
#[test]
fn an_apply_that_stopped_halfway() {
    let estate = Estate::planted(&SINGLE_SILO);
    let script = "faults: [{call: 'eks:CreateCluster', before: {error: {code: InvalidParameterException, message: no, status: 400}}}]";
    let served = Served::start(&estate, None);
    served.server.set_faults(Script::parse(script).unwrap());
    against(&served.url(), &mut estate.bare(&["apply", "--auto-approve", "--no-preflight"])).exits(1);
    served.server.set_faults(Script::default());
    let run = against(&served.url(), &mut estate.bare(&["drift", "--format", "json"])).exits(2);
    let document = run.json();
    let all = missing(&document);
    assert!(all.contains(&"tenant/globex/silo/cluster"), "{all:#?}");
    assert!(!all.iter().any(|a| a.contains("/k8s/") || a.contains("/addon/")), "{all:#?}");
}

#[test]
fn resources_that_left_the_spec_are_noted() {
    let estate = Estate::applied(&THREE_TIERS);
    let text = fs::read_to_string(estate.spec()).unwrap();
    estate.write(&text[..text.find("    - id: \"34567\"").unwrap()]);
    let (document, shown) = drift(&estate, 0);
    assert!(document["drift"]["left"].as_u64().unwrap() > 5 && list(&document["steps"]).is_empty(), "{document:#}");
    assert!(!shown.contains("No changes") && shown.contains("resources that left the spec still exist"), "{shown}");
}
