//! The form of plans. A plan depends only on the spec and on what exists.

use super::*;

fn plan(example: &'static Example) {
    let estate = Estate::new(example);
    let shown = estate.run(&["plan"]).exits(0).out;
    // The line about the sandbox isn't part of the plan.
    let lines = shown.split_inclusive('\n').filter(|l| !l.starts_with("Sandbox in "));
    golden(&format!("{}.txt", example.name), &lines.collect::<String>());

    let plan = estate.plan(&[]);
    assert_eq!(plan["schema"], "ringfence.dev/plan/v1");
    assert_eq!((text(&plan["account"]), text(&plan["region"])), (example.account, example.region));
    let count = |what: &str| plan["summary"][what].as_u64().unwrap();
    assert_eq!(count("add"), list(&plan["steps"]).len() as u64);
    let last = format!(
        "Plan: {} to add, {} to change, {} to replace, {} to destroy.",
        count("add"),
        count("change"),
        count("replace"),
        count("destroy")
    );
    assert_eq!(shown.lines().last(), Some(last.as_str()));
}

#[test]
fn three_tiers() {
    plan(&THREE_TIERS);
}

#[test]
fn single_silo() {
    plan(&SINGLE_SILO);
}

#[test]
fn regulated() {
    plan(&REGULATED);
}

#[test]
fn two_pools() {
    plan(&TWO_POOLS);
}

#[test]
fn pool_of_twenty() {
    plan(&POOL_OF_TWENTY);
}

#[test]
fn gateway() {
    plan(&GATEWAY);
}

/// Every step comes after the steps on which it depends.
#[test]
fn steps_come_after_their_needs() {
    let plan = Estate::new(&THREE_TIERS).plan(&[]);
    let mut done = BTreeSet::new();
    for step in list(&plan["steps"]) {
        for need in list(&step["needs"]) {
            assert!(done.contains(text(&need["address"])), "{} needs {need}", step["address"]);
        }
        done.insert(text(&step["address"]).to_owned());
    }
}

#[test]
fn effects_of_an_update_on_nodes_are_noted() {
    let estate = Estate::applied(&THREE_TIERS);
    estate.edit("kubernetesVersion: \"1.36\"", "kubernetesVersion: \"1.37\"");
    let plan = estate.plan(&[]);
    let rolled: BTreeSet<&str> = list(&plan["steps"])
        .iter()
        .filter(|s| s["kind"] == "aws.node-group" && list(&s["changes"]).iter().any(|c| c["path"] == "version"))
        .map(|s| text(&s["address"]))
        .collect();
    assert!(rolled.len() > 1, "{rolled:?}");
    let notes: Vec<&str> = list(&plan["notes"]).iter().map(text).filter(|n| n.contains("replaces all nodes")).collect();
    let [note] = notes.as_slice() else { panic!("one note for all: {notes:#?}") };
    let (named, _) = note.split_once(": ").unwrap();
    assert_eq!(named.split(", ").collect::<BTreeSet<_>>(), rolled);
}

#[test]
fn updates_without_effect_on_nodes_have_no_note() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("max: 3", "max: 4");
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), ["update tenant/globex/silo/node-group"]);
    assert!(!plan["notes"].to_string().contains("replaces all nodes"), "{}", plan["notes"]);
}

#[test]
fn endpoints_that_a_profile_replaces_are_noted() {
    let estate = Estate::new(&REGULATED);
    let said = estate.run(&["validate"]).exits(0).err;
    assert!(!said.contains("spec.network"), "{said}");
    estate.edit("endpoints: [autoscaling, ec2,", "endpoints: [ssm, ec2,");
    for command in ["validate", "plan"] {
        let said = estate.run(&[command]).exits(0).err.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "tenant `treasury` gets the VPC endpoints of its profile, `autoscaling`,",
            "They replace those of `spec.network`",
            "`ssm`",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

/// The spec with the lists `pools` and `tenants` rotated by `by`.
fn turned(spec: &str, by: usize) -> String {
    let mut out = String::new();
    let mut items: Vec<String> = Vec::new();
    let flush = |items: &mut Vec<String>, out: &mut String| {
        if !items.is_empty() {
            let by = by % items.len();
            items.rotate_left(by);
            items.reverse();
        }
        out.push_str(&items.concat());
        items.clear();
    };
    let mut within = false;
    for line in spec.split_inclusive('\n') {
        match within {
            true if line.starts_with("    - ") => items.push(line.to_owned()),
            true if line.starts_with("     ") => items.last_mut().unwrap().push_str(line),
            _ => {
                flush(&mut items, &mut out);
                within = matches!(line.trim_end(), "  pools:" | "  tenants:");
                out.push_str(line);
            }
        }
    }
    flush(&mut items, &mut out);
    out
}

#[test]
fn the_order_in_the_file_makes_no_difference() {
    for example in [&TWO_POOLS, &POOL_OF_TWENTY] {
        let estate = Estate::new(example);
        let shown = estate.run(&["plan", "--format", "json"]).exits(0).out;
        for by in [0, 1, 3] {
            let spec = turned(&example.text(), by);
            assert_ne!(spec, example.text());
            estate.write(&spec);
            let again = estate.run(&["plan", "--format", "json"]).exits(0).out;
            assert!(shown == again, "{} turned by {by} plans otherwise", example.name);
        }
    }
}

#[test]
fn the_order_in_the_file_changes_nothing_that_exists() {
    let estate = Estate::applied(&TWO_POOLS);
    for by in [0, 1, 2] {
        estate.write(&turned(&TWO_POOLS.text(), by));
        assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    }
}

/// The European Sovereign Cloud is a separate partition with its own ARNs, host
/// names and names of ECR's endpoints (botocore, `partitions.json`; its service
/// model of EC2).
#[test]
fn the_european_sovereign_cloud() {
    static SOVEREIGN: Example = Example::new("single-silo", "eusc-de-east-1", "123456789012", &[]);
    let estate = Estate::new(&SOVEREIGN);
    estate.edit("eu-central-1", "eusc-de-east-1");
    estate.edit("arn:aws:iam", "arn:aws-eusc:iam");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    let outputs = estate.run(&["output"]).exits(0).out;
    assert!(outputs.contains("arn:aws-eusc:eks:eusc-de-east-1:") && !outputs.contains("arn:aws:"), "{outputs}");
    assert!(outputs.contains(".eusc-de-east-1.amazonaws.eu"), "{outputs}");
    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).exits(0);
}
