//! `doctor` finds the reasons for which an apply would fail, before the apply.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

fn doctor(url: &str, estate: &Estate, env: &[(&str, String)]) -> Run {
    let mut command = estate.bare(&["doctor", "--format", "json"]);
    for (name, value) in env {
        command.env(name, value);
    }
    command.env("AWS_ENDPOINT_URL", url);
    Run::of(&mut command)
}

/// The results of the check with this name, as `verdict: text`.
fn check(found: &Value, name: &str) -> Vec<String> {
    let checks = list(&found["checks"]).iter().filter(|check| check["name"] == name);
    checks.map(|check| format!("{}: {}", text(&check["verdict"]), text(&check["text"]))).collect()
}

#[test]
fn a_ready_account_gets_the_next_command() {
    let estate = Estate::new(&SINGLE_SILO);
    let said = estate.run(&["doctor"]).exits(0);
    assert!(said.out.contains("Next: ringfence plan --sandbox=sandbox"), "{}", said.out);
    let estate = Estate::applied(&SINGLE_SILO);
    let said = estate.run(&["doctor"]).exits(0);
    assert!(said.out.contains("Next: ringfence drift --sandbox=sandbox"), "{}", said.out);
    assert!(said.out.contains("the service-linked roles exist"), "{}", said.out);
}

/// A role that has the printed policy, and one that lacks a statement of it.
#[test]
fn missing_permissions_of_the_caller_are_named() {
    let estate = Estate::planted(&THREE_TIERS);
    let policy = Run::of(&mut estate.bare(&["iam-policy"])).exits(0).json();
    let served = Served::start(&estate, None);
    let aws = served.aws();
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"}]}"#;
    let keys = |role: &str, policy: &Value| {
        served.runtime.block_on(async {
            aws.iam.create_role().role_name(role).assume_role_policy_document(trust).send().await.unwrap();
            let put = aws.iam.put_role_policy().role_name(role).policy_name("all").policy_document(policy.to_string());
            put.send().await.unwrap();
            let arn = format!("arn:aws:iam::123456789012:role/{role}");
            let session = aws.sts.assume_role().role_arn(arn).role_session_name("test").send().await.unwrap();
            let keys = session.credentials.unwrap();
            [
                ("AWS_ACCESS_KEY_ID", keys.access_key_id),
                ("AWS_SECRET_ACCESS_KEY", keys.secret_access_key),
                ("AWS_SESSION_TOKEN", keys.session_token),
            ]
        })
    };
    let whole = doctor(&served.url(), &estate, &keys("whole", &policy)).json();
    assert_eq!(check(&whole, "permissions").len(), 1);
    assert!(check(&whole, "permissions")[0].starts_with("good: "), "{whole:#}");
    let mut less = policy.clone();
    less["Statement"].as_array_mut().unwrap().retain(|statement| statement["Sid"] != "Logs");
    let run = doctor(&served.url(), &estate, &keys("less", &less)).exits(1);
    let lacks = &check(&run.json(), "permissions")[0];
    assert!(lacks.starts_with("wrong: the caller lacks ") && lacks.contains("logs:CreateLogGroup"), "{lacks}");
    assert!(!lacks.contains("ec2:"), "{lacks}");
    assert!(text(&run.json()["next"]).starts_with("ringfence iam-policy"), "{}", run.out);
    // `doctor` changes nothing.
    assert!(!served.server.counts().keys().any(|(service, call)| service == "ec2" && call.starts_with("Create")));
}

#[test]
fn missing_credentials_are_named_with_a_help() {
    let estate = Estate::new(&SINGLE_SILO);
    let mut command = estate.bare(&["doctor"]);
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    let said = Run::of(&mut command);
    assert!(matches!(said.code, Some(1 | 4)), "{said:?}");
    assert!(said.out.contains("credentials") && said.out.contains("aws sts get-caller-identity"), "{}", said.out);
}

/// An endpoint whose clock is an hour behind this computer's. It refuses, and its answer has a date.
#[test]
fn a_wrong_clock_is_known_though_the_credentials_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 8192];
            let _ = stream.read(&mut request);
            let body = "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>Signature not yet current</Message></Error></ErrorResponse>";
            let head = "HTTP/1.1 403 Forbidden\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nconnection: close\r\ncontent-type: text/xml";
            let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    let estate = Estate::new(&SINGLE_SILO);
    let keys = [("AWS_ACCESS_KEY_ID", "123456789012".to_owned()), ("AWS_SECRET_ACCESS_KEY", "x".to_owned())];
    let run = doctor(&url, &estate, &keys).exits(1);
    let clock = &check(&run.json(), "clock")[0];
    assert!(clock.starts_with("wrong: this computer's clock is ") && clock.ends_with("ahead of AWS's"), "{clock}");
    assert!(check(&run.json(), "credentials")[0].starts_with("wrong: "), "{}", run.out);
}

/// The sandbox's 1.32 left standard support in March 2026.
#[test]
fn versions_near_their_end_of_support_are_named() {
    let estate = Estate::new(&SINGLE_SILO);
    let text = fs::read_to_string(estate.spec()).unwrap();
    let version = text.lines().find(|line| line.contains("kubernetesVersion")).unwrap();
    estate.edit(version, "  kubernetesVersion: \"1.33\"");
    let run = estate.run(&["doctor", "--format", "json"]);
    let found = check(&run.json(), "kubernetes");
    assert!(found[0].starts_with("attention: 1.33 leaves standard support on 2026-07-29"), "{found:?}");
}

/// Nodes with an image that is older than the oldest safe one, and nodes with one that is safe but not the newest.
#[test]
fn old_images_of_nodes_are_named() {
    let estate = Estate::applied(&SINGLE_SILO);
    let state = fs::read_to_string(estate.state()).unwrap();
    let with = |release: &str| {
        let newest = "\"releaseVersion\":\"1.66.0-2d3f4b6c\"";
        assert!(state.contains(newest));
        fs::write(estate.state(), state.replace(newest, &format!("\"releaseVersion\":\"{release}\""))).unwrap();
        let found = estate.run(&["doctor", "--format", "json"]).exits(0).json();
        [check(&found, "floors").join("\n"), check(&found, "images").join("\n")]
    };
    let [floors, images] = with("1.61.0-0a1b2c3d");
    assert!(
        floors.starts_with("attention: ") && floors.contains("1.61.0-0a1b2c3d, which is older than 1.62.1"),
        "{floors}"
    );
    assert_eq!(images, "", "apply raises them");
    let [floors, images] = with("1.63.0-7bb1c0d2");
    assert!(floors.starts_with("good: "), "{floors}");
    assert!(images.starts_with("attention: ") && images.contains("1.63.0-7bb1c0d2"), "{images}");
}
