//! Saved plans: what was shown is what is done, or nothing is.

use super::*;

/// An applied estate, one change in its spec, and the plan of that in `p`.
fn saved() -> Estate {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("max: 3", "max: 4");
    let said = estate.run(&["plan", "--out", "p"]).exits(0);
    assert!(said.err.contains("ringfence apply p"), "{}", said.err);
    estate
}

/// `apply p` is refused with `what`, and changes nothing.
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
    // What was done is stale.
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
        refused(&estate, &["cut short", "ringfence plan --out p"]);
    }
}

#[test]
fn it_is_refused_for_another_spec() {
    let estate = saved();
    estate.edit("max: 4", "max: 5");
    refused(&estate, &["another version of the spec", "nothing was changed"]);
}

#[test]
fn it_is_refused_when_it_is_missing() {
    let estate = Estate::new(&SINGLE_SILO);
    estate.run(&["apply", "p"]).refuses(&["p can't be read"]);
}

#[test]
fn a_refusal_makes_no_changing_call() {
    let estate = saved();
    estate.edit("max: 4", "max: 5");
    let served = Served::start(&estate, None);
    against(&served.url(), &mut estate.bare(&["apply", "p"])).refuses(&["another version of the spec"]);
    for (service, operation) in served.server.counts().keys() {
        let reads = ["Describe", "Get", "List"].iter().any(|verb| operation.starts_with(verb));
        assert!(reads, "{service} {operation}");
    }
}
