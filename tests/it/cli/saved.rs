//! Saved plans: either exactly the shown steps are done, or nothing.

use super::*;

/// An applied estate with one change in its spec, and the saved plan of that
/// change in the file `p`.
fn saved() -> Estate {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("max: 3", "max: 4");
    let said = estate.run(&["plan", "--out", "p"]).exits(0);
    assert!(said.err.contains("ringfence apply p"), "{}", said.err);
    estate
}

/// Asserts that `apply p` is refused with `what`, and changes nothing.
#[track_caller]
fn refused(estate: &Estate, what: &[&str]) {
    let before = estate.holds();
    estate.run(&["apply", "p"]).refuses(what);
    assert_eq!(estate.holds(), before);
}

#[test]
fn it_is_done_without_asking() {
    let estate = saved();
    let file = fs::read_to_string(estate.path().join("p")).unwrap();
    assert!(!file.contains("AWS_") && !file.contains("ecret"), "{file}");
    estate.run(&["apply", "p"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    // A plan that was applied is stale.
    refused(&estate, &["stale", "ringfence plan --out p"]);
}

#[test]
fn it_is_refused_when_what_exists_has_changed() {
    let estate = saved();
    estate.sandbox(async |aws, _| {
        let groups = aws.logs.describe_log_groups().send().await.unwrap();
        let ours = groups.log_groups().iter().filter_map(|g| g.log_group_name()).find(|n| n.ends_with("/flow-logs"));
        aws.logs.put_retention_policy().log_group_name(ours.unwrap()).retention_in_days(1).send().await.unwrap();
    });
    refused(&estate, &["stale", "nothing was changed", "ringfence plan --out p"]);
}

#[test]
fn it_is_refused_when_it_was_edited() {
    let estate = saved();
    let file = estate.path().join("p");
    let text = fs::read_to_string(&file).unwrap();
    let edited = text.replace("\"delete_logs\": false", "\"delete_logs\": true");
    assert_ne!(edited, text);
    fs::write(&file, edited).unwrap();
    refused(&estate, &["edited or damaged", "nothing was changed"]);
}

#[test]
fn it_is_refused_when_it_is_cut_short() {
    let estate = saved();
    let file = estate.path().join("p");
    let text = fs::read(&file).unwrap();
    for length in [0, 1, text.len() / 2, text.len() - 3] {
        fs::write(&file, &text[..length]).unwrap();
        refused(&estate, &["truncated", "ringfence plan --out p"]);
    }
}

#[test]
fn it_is_refused_for_another_spec() {
    let estate = saved();
    estate.edit("max: 4", "max: 5");
    refused(&estate, &["another version of the spec", "nothing was changed"]);
}

#[test]
fn it_is_refused_for_another_version() {
    let estate = saved();
    let file = estate.path().join("p");
    let text = fs::read_to_string(&file).unwrap();
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(text.matches(&version).count(), 1, "{text}");
    fs::write(&file, text.replace(&version, "\"version\": \"99.0.0\"")).unwrap();
    refused(&estate, &["was written by ringfence 99.0.0", "ringfence plan --out p"]);
}

#[test]
fn it_is_refused_when_it_is_missing() {
    let estate = Estate::new(&SINGLE_SILO);
    estate.run(&["apply", "p"]).refuses(&["p can't be read"]);
}

#[test]
fn a_refusal_makes_no_changing_call() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("max: 3", "max: 4");
    let served = Served::start(&estate, None);
    against(&served.url(), &mut estate.bare(&["plan", "--out", "p"])).exits(0);
    estate.edit("max: 4", "max: 5");
    against(&served.url(), &mut estate.bare(&["apply", "p"])).refuses(&["another version of the spec"]);
    for (service, operation) in served.server.counts().keys() {
        let reads = ["Describe", "Get", "List"].iter().any(|verb| operation.starts_with(verb));
        assert!(reads, "{service} {operation}");
    }
}

/// A plan made in a sandbox is refused elsewhere, even with the same account
/// and region.
#[test]
fn a_sandboxs_plan_is_done_in_that_sandbox_only() {
    let estate = saved();
    let before = estate.holds();
    // The refusal needs no credentials.
    Run::of(&mut estate.bare(&["apply", "p"])).refuses(&["is for the sandbox in", "this run is for AWS", "--sandbox="]);
    let mut elsewhere = estate.bare(&["apply", "p", "--sandbox=other"]);
    Run::of(&mut elsewhere).refuses(&["this run is for the sandbox in", "other; nothing was changed"]);
    assert!(!estate.path().join("other").exists());
    let served = Served::start(&estate, None);
    against(&served.url(), &mut estate.bare(&["apply", "p"])).refuses(&["is for the sandbox in"]);
    assert_eq!(served.server.counts().len(), 0);
    drop(served);
    assert_eq!(estate.holds(), before);
}

#[test]
fn an_endpoints_plan_is_done_at_that_endpoint_only() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("max: 3", "max: 4");
    let copy = Estate::applied(&SINGLE_SILO);
    let (here, there) = (Served::start(&estate, None), Served::start(&copy, None));
    against(&here.url(), &mut estate.bare(&["plan", "--out", "p"])).exits(0);
    let refused = against(&there.url(), &mut estate.bare(&["apply", "p"]));
    refused.refuses(&["is for AWS at", here.url().as_str(), there.url().as_str(), "AWS_ENDPOINT_URL"]);
    Run::of(&mut estate.command(&["apply", "p"])).refuses(&["this run is for the sandbox", "run without --sandbox"]);
    // A different endpoint of a single service is refused, too.
    let mut some = estate.bare(&["apply", "p"]);
    some.env("AWS_ENDPOINT_URL_EKS", there.url());
    against(&here.url(), &mut some).refuses(&["is for AWS at"]);
    against(&here.url(), &mut estate.bare(&["apply", "p"])).exits(0);
}

/// The printed command works in a shell.
#[test]
fn the_printed_command_is_whole() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("max: 3", "max: 4");
    fs::create_dir(estate.path().join("my profiles")).unwrap();
    fs::rename(estate.spec(), estate.path().join("it's.yaml")).unwrap();
    let said = estate
        .run(&["plan", "--out", "my plan", "-f", "it's.yaml", "--profiles", "my profiles", "--aws-only"])
        .exits(0);
    let printed = |said: &Run| {
        let text = said.err.split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, command) = text.split_once("To apply exactly this plan: ringfence ").expect("the command is printed");
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {} {command}", env!("CARGO_BIN_EXE_ringfence"))]);
        Run::of(shell.current_dir(estate.path()).env_clear().env("HOME", estate.path())).exits(0);
        command.to_owned()
    };
    printed(&said);
    // A plan that was made with `--aws-only` isn't applied without it.
    estate.edit_in("it's.yaml", "max: 4", "max: 5");
    estate.run(&["plan", "--out", "p", "-f", "it's.yaml", "--aws-only"]).exits(0);
    estate.run(&["apply", "p", "-f", "it's.yaml"]).refuses(&["made with --aws-only", "nothing was changed"]);
    // The plan names what it deletes. `--allow-destroy` for anything else is an
    // error.
    let silo = "tenant/globex/silo";
    let args = ["apply", "p", "-f", "it's.yaml", "--aws-only", "--allow-destroy", silo];
    estate.run(&args).refuses(&["the saved plan doesn't delete tenant/globex/silo", "ringfence plan --allow-destroy"]);
    let said = estate.run(&["plan", "--destroy", "--out", "p", "-f", "it's.yaml"]).exits(0);
    assert!(printed(&said).contains(&format!("--allow-destroy {silo} ")), "{}", said.err);
}

/// Notes of a plan may change without making it stale, such as a cluster's
/// health.
#[test]
fn changed_notes_keep_it_valid() {
    fn trouble(state: &mut Value) {
        match state {
            Value::Object(fields) if fields.contains_key("resourcesVpcConfig") => {
                let issue =
                    serde_json::json!({"code": "Ec2SubnetNotFound", "message": "one is gone", "resourceIds": []});
                fields.insert("health".to_owned(), serde_json::json!({"issues": [issue]}));
            }
            Value::Object(fields) => fields.values_mut().for_each(trouble),
            Value::Array(all) => all.iter_mut().for_each(trouble),
            _ => {}
        }
    }
    let estate = saved();
    let before = estate.plan(&[])["notes"].clone();
    let mut state: Value = serde_json::from_slice(&fs::read(estate.state()).unwrap()).unwrap();
    trouble(&mut state);
    fs::write(estate.state(), state.to_string()).unwrap();
    assert_ne!(estate.plan(&[])["notes"], before);
    estate.run(&["apply", "p"]).exits(0);
}

/// A damaged plan file is refused in every case, and nothing is changed.
#[test]
fn it_is_refused_however_it_is_damaged() {
    let estate = saved();
    let file = estate.path().join("p");
    let text = fs::read(&file).unwrap();
    let whole: Value = serde_json::from_slice(&text).unwrap();
    let before = estate.holds();
    let mut dice: u64 = 0x2545_f491_4f6c_dd1d;
    let mut draw = |below: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(dice >> 33).unwrap() % below
    };
    let tokens: [&[u8]; 12] =
        [b"\"", b"}", b"]", b",", b"0", b"null", b"[[[[", b"\\u0000", b"\xff", b"-1e999", b"{\"schema\":1}", b"\n\n"];
    let mut tried = 0;
    while tried < 40 {
        let mut damaged = text.clone();
        for _ in 0..=draw(3) {
            let (at, token) = (draw(damaged.len()), tokens[draw(tokens.len())]);
            let until = (at + draw(40)).min(damaged.len());
            damaged.splice(at..until, token.iter().copied());
        }
        if serde_json::from_slice::<Value>(&damaged).is_ok_and(|value| value == whole) {
            continue;
        }
        tried += 1;
        fs::write(&file, &damaged).unwrap();
        estate.run(&["apply", "p"]).refuses(&["ringfence plan --out p"]);
    }
    assert_eq!(estate.holds(), before);
}

#[test]
fn it_is_refused_for_another_template_or_profile() {
    let estate = Estate::applied(&SINGLE_SILO);
    fs::create_dir_all(estate.path().join("templates/manifests/tenant")).unwrap();
    let template = estate.path().join("templates/manifests/tenant/note.yaml");
    let object = |text: &str| {
        let note =
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note, namespace: {{ tenant.namespace | json }}}\n";
        fs::write(&template, format!("{note}data: {{text: {text}}}\n")).unwrap();
    };
    object("one");
    let with = ["--templates", "templates"];
    estate.run(&[&["plan", "--out", "p"], &with[..]].concat()).exits(0);
    object("two");
    let before = estate.holds();
    estate.run(&[&["apply", "p"], &with[..]].concat()).refuses(&["stale", "nothing was changed"]);
    estate.run(&["apply", "p"]).refuses(&["stale", "nothing was changed"]);
    assert_eq!(estate.holds(), before);
    object("one");
    estate.run(&[&["apply", "p"], &with[..]].concat()).exits(0);
}

/// A size that the autoscaler sets doesn't make a plan stale.
#[test]
fn the_autoscaler_keeps_it_valid() {
    let estate = saved();
    estate.sandbox(async |aws, server| {
        let clusters = aws.eks.list_clusters().send().await.unwrap();
        let cluster = clusters.clusters()[0].clone();
        let groups = aws.eks.list_nodegroups().cluster_name(&cluster).send().await.unwrap();
        for group in groups.nodegroups() {
            let scaling = aws_sdk_eks::types::NodegroupScalingConfig::builder().desired_size(3).build();
            let call = aws.eks.update_nodegroup_config().cluster_name(&cluster).nodegroup_name(group);
            call.scaling_config(scaling).send().await.unwrap();
            server.advance(600.0);
        }
    });
    estate.run(&["apply", "p"]).exits(0);
}

/// If a confirmation takes long, the plan is made again and compared before it
/// is applied.
#[test]
fn after_a_late_answer_the_plan_is_made_again() {
    for (group, code, said) in [
        ("/ringfence/solo-t-globex/flow-logs", 1, "aren't the same as when the plan was shown"),
        ("", 0, "Apply complete"),
    ] {
        let estate = Estate::applied(&SINGLE_SILO);
        estate.edit("max: 3", "max: 4");
        let args = ["apply", "--sandbox=sandbox", "--sandbox-speed", SPEED];
        let run = Run::of(&mut estate.asked("later", group, &args)).exits(code);
        let text = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("Reading again") && text.contains(said), "{}", run.out);
    }
}
