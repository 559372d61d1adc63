//! Before the first write, roles that the spec gives access to and that don't exist are named.

use std::io::{BufRead, BufReader};

use super::*;

const ADMIN: &str = "arn:aws:iam::123456789012:role/PlatformAdmin";

#[test]
fn a_role_that_is_not_there_is_named_before_the_first_write() {
    let estate = Estate::new(&SINGLE_SILO);
    let served = Served::start(&estate, None);
    let apply = ["apply", "--auto-approve"];
    let written = || served.server.counts().keys().any(|(_, operation)| operation.starts_with("Create"));

    let plan = against(&served.url(), &mut estate.bare(&["plan"])).exits(0);
    let said = plan.err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("would stop before its first write") && said.contains("no role has this ARN"), "{said}");
    let run = against(&served.url(), &mut estate.bare(&apply));
    run.refuses(&[ADMIN, "no role has this ARN", "access-entry/platformadmin", "nothing was changed"]);
    assert!(!written());

    // EKS needs the ARN with the role's path.
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"}]}"#;
    let aws = served.aws();
    let made = aws.iam.create_role().role_name("PlatformAdmin").path("/people/").assume_role_policy_document(trust);
    served.runtime.block_on(made.send()).unwrap();
    let run = against(&served.url(), &mut estate.bare(&apply));
    run.refuses(&["the role with this name has the ARN arn:aws:iam::123456789012:role/people/PlatformAdmin"]);

    estate.edit("role/PlatformAdmin", "role/people/PlatformAdmin");
    against(&served.url(), &mut estate.bare(&apply)).exits(0);
}

/// The same for policies that roles are to have.
#[test]
fn a_policy_that_is_not_there_is_named_before_the_first_write() {
    let estate = Estate::new(&SINGLE_SILO);
    let accounts = "serviceAccounts: [{name: ledger, policies: [arn:aws:iam::123456789012:policy/ledgr]}]";
    estate.edit("tier: premium", &format!("tier: premium\n      {accounts}"));
    estate.edit("  access:", "  iam: {permissionsBoundary: arn:aws:iam::123456789012:policy/bounds}\n  access:");
    let served = Served::start(&estate, None);
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"}]}"#;
    let aws = served.aws();
    let made = aws.iam.create_role().role_name("PlatformAdmin").assume_role_policy_document(trust);
    served.runtime.block_on(made.send()).unwrap();
    let run = against(&served.url(), &mut estate.bare(&["apply", "--auto-approve"]));
    let said = "arn:aws:iam::123456789012:policy/ledgr: no policy has this ARN (tenant/globex/silo/role/sa-ledger)";
    run.refuses(&[said, "policy/bounds: no policy has this ARN", "nothing was changed"]);
    assert!(
        !served
            .server
            .counts()
            .keys()
            .any(|(_, operation)| operation.starts_with("Create") && operation != "CreateRole")
    );
}

/// `ringfence sandbox` creates the principals to which the spec in its directory refers.
#[test]
fn a_sandbox_creates_the_principals_of_its_spec() {
    let estate = Estate::new(&SINGLE_SILO);
    let serve = ["sandbox", "--listen", "127.0.0.1:0"];
    Run::of(&mut estate.bare(&[&serve[..], &["-f", "nowhere.yaml"]].concat())).refuses(&["nowhere.yaml"]);
    let mut serving = estate.bare(&serve).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let plan = against(url, &mut estate.bare(&["plan"]));
    serving.kill().unwrap();
    serving.wait().unwrap();
    let plan = plan.exits(0);
    assert!(!plan.err.contains("no role has this ARN"), "{}", plan.err);
}
