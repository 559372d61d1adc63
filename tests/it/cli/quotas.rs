//! Exceeded service quotas are named before the first write.

use super::*;

/// Codes of the quotas that the example `three-tiers` uses.
const CODES: [&str; 15] = [
    "L-1216C47A",
    "L-F678F1CE",
    "L-A4707A72",
    "L-E79EC296",
    "L-0263D0A3",
    "L-FE5A380F",
    "L-407747CB",
    "L-589F43AA",
    "L-29B6F2EB",
    "L-1B52E74A",
    "L-1194D53C",
    "L-6D54EA21",
    "L-23414FF3",
    "L-FE177D64",
    "L-0EA8095F",
];

fn served(estate: &Estate, quotas: &[(&str, usize)]) -> Served {
    let quotas = quotas.iter().map(|(code, value)| ((*code).to_owned(), *value as f64)).collect();
    Served::with(estate, None, quotas)
}

/// Calls that changed anything other than the lock.
fn changes(served: &Served) -> Vec<String> {
    let read = |operation: &str| ["Describe", "Get", "List", "Simulate"].iter().any(|verb| operation.starts_with(verb));
    let all = served.server.counts().into_keys();
    all.filter(|(service, operation)| service != "ssm" && !read(operation)).map(|(_, o)| o).collect()
}

/// The value that the refusal says to ask for (`--desired-value`).
fn needs(said: &str, code: &str) -> usize {
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let command = said.split_once(&format!("--quota-code {code} --desired-value ")).expect("what to ask for").1;
    command.split_whitespace().next().unwrap().parse().unwrap()
}

/// A quota that is too low by one is refused before anything is made. The number that the message asks for is
/// sufficient.
#[test]
fn every_quota_is_compared_with_the_plan() {
    let estate = Estate::planted(&THREE_TIERS);
    // The first plan makes the sandbox create the principals that the spec names.
    estate.run(&["plan"]).exits(0);
    let apply = ["apply", "--auto-approve"];
    let none = served(&estate, &CODES.map(|code| (code, 0)));
    let run = against(&none.url(), &mut estate.bare(&apply));
    let run = run.refuses(&["quota exceeded", "nothing was changed", "--no-preflight", "request-service-quota"]);
    assert_eq!(changes(&none), [] as [&str; 0]);
    drop(none);
    let enough: BTreeMap<&str, usize> = CODES.into_iter().map(|code| (code, needs(&run.err, code))).collect();
    for code in CODES {
        let served = served(&estate, &[(code, enough[code] - 1)]);
        against(&served.url(), &mut estate.bare(&apply)).refuses(&["quota exceeded", code]);
        assert_eq!(changes(&served), [] as [&str; 0], "{code}");
    }
    // The sandbox enforces most of the quotas, as AWS does.
    let all: Vec<(&str, usize)> = enough.into_iter().collect();
    let served = served(&estate, &all);
    against(&served.url(), &mut estate.bare(&["apply", "--auto-approve"])).exits(0);
    let plan = against(&served.url(), &mut estate.bare(&["plan", "--detailed-exitcode"])).exits(0);
    assert!(!plan.err.contains("quota"), "{}", plan.err);
}

#[test]
fn a_plan_names_exceeded_quotas_and_apply_can_skip_the_check() {
    let estate = Estate::new(&THREE_TIERS);
    // The first plan makes the sandbox create the principals that the spec names.
    estate.run(&["plan"]).exits(0);
    let served = served(&estate, &[("L-F678F1CE", 1), ("L-0263D0A3", 0)]);
    let plan = against(&served.url(), &mut estate.bare(&["plan"])).exits(0);
    let said = plan.err.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in [
        "would stop before its first write",
        "VPCs per Region",
        "EC2-VPC Elastic IPs",
        "0 of 1 in use, 2 to be created",
    ] {
        assert!(said.contains(text), "{text}: {}", plan.err);
    }
    let run = against(&served.url(), &mut estate.bare(&["apply", "--auto-approve", "--no-preflight"]));
    run.refuses(&["VpcLimitExceeded"]);
    assert!(changes(&served).contains(&"CreateVpc".to_owned()));
}

#[test]
fn unreadable_quotas_block_nothing() {
    let estate = Estate::new(&SINGLE_SILO);
    let served = served(&estate, &[]);
    let denied = r#"{"__type":"AccessDeniedException","message":"No"}"#;
    let refusal = bad_days::response("400 Bad Request", "Content-Type: application/x-amz-json-1.1\r\n", denied);
    let (url, refused) = bad_days::in_front(served.server.addr(), "ListServiceQuotas", refusal);
    let run = against(&url, &mut estate.bare(&["plan"])).exits(0);
    assert!(refused.load(std::sync::atomic::Ordering::Relaxed));
    assert!(run.err.contains("quotas can't be read") && run.err.contains("ListServiceQuotas"), "{}", run.err);
}

/// An endpoint in a VPC whose subnets are full.
#[test]
fn full_subnets_are_named() {
    let estate = Estate::applied(&THREE_TIERS);
    let mut state: Value = serde_json::from_slice(&fs::read(estate.state()).unwrap()).unwrap();
    let resources = &mut state["accounts"]["123456789012"]["regions"]["us-east-1"]["ec2"]["resources"];
    let resources = resources.as_object_mut().expect("resources");
    let subnets = resources.iter_mut().filter(|(id, _)| id.starts_with("subnet-"));
    subnets.for_each(|(_, subnet)| subnet["availableIpAddressCount"] = 0.into());
    fs::write(estate.state(), state.to_string()).unwrap();
    estate.edit("eks-auth, logs]", "eks-auth, logs, ssm]");
    let run = estate.run(&["apply", "--auto-approve"]);
    run.refuses(&["0 free addresses, but 1 are needed for", "endpoint/ssm", "nothing was changed"]);
}
