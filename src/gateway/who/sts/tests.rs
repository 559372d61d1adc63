#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::engine::clock::Hand;
use crate::gateway::who::testing::{Stub, answer, at, pass, start};

const HOST: &str = "sts.eu-central-1.amazonaws.com";
const ACCOUNT: &str = "123456789012";

/// The parameters that AWS clients write, in their order.
fn parameters() -> Vec<(String, String)> {
    [
        ("Action", "GetCallerIdentity"),
        ("Version", "2011-06-15"),
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", "ASIAEXAMPLEEXAMPLE00%2F20261123%2Feu-central-1%2Fsts%2Faws4_request"),
        ("X-Amz-Date", "20261123T060000Z"),
        ("X-Amz-Expires", "60"),
        ("X-Amz-SignedHeaders", "host%3Bx-k8s-aws-id"),
        ("X-Amz-Security-Token", "IQoJ%2Fb3%2BJp%3DZA%3D%3D"),
        ("X-Amz-Signature", "1605399e99b59a8d2374fe2a0858bbe6fb9d02735edf3191172c3b98b69af1b9"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn query(parameters: &[(String, String)]) -> String {
    parameters.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn token(url: &str) -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(url))
}

fn good() -> String {
    token(&format!("https://{HOST}/?{}", query(&parameters())))
}

/// A token with another value of one parameter. Without a value, the parameter is missing.
fn with(name: &str, value: Option<&str>) -> String {
    let mut all = parameters();
    match value {
        Some(value) => all.iter_mut().find(|(n, _)| n == name).unwrap().1 = value.to_owned(),
        None => all.retain(|(n, _)| n != name),
    }
    token(&format!("https://{HOST}/?{}", query(&all)))
}

/// One of many good tokens.
fn numbered(number: usize) -> String {
    with("X-Amz-Signature", Some(&format!("{number:064x}")))
}

fn caller(arn: &str, account: &str, user_id: &str) -> String {
    let result = json!({"Arn": arn, "Account": account, "UserId": user_id});
    json!({"GetCallerIdentityResponse": {"GetCallerIdentityResult": result, "ResponseMetadata": {"RequestId": "r"}}})
        .to_string()
}

fn role() -> String {
    caller(&format!("arn:aws:sts::{ACCOUNT}:assumed-role/Blue/ann@acme.com"), ACCOUNT, "AROAEXAMPLE:ann@acme.com")
}

fn config(endpoint: &str) -> AwsConfig {
    let config = json!({
        "name": "acme-gateway", "regions": ["eu-central-1", "cn-north-1"], "accounts": [ACCOUNT], "endpoint": endpoint,
    });
    serde_json::from_value(config).unwrap()
}

struct Case {
    hand: Hand,
    stub: Stub,
    sts: Sts,
    answer: Arc<Mutex<(u16, String)>>,
}

async fn case() -> Case {
    let answers = Arc::new(Mutex::new((200, role())));
    let shared = answers.clone();
    let stub = Stub::start(move |_| {
        let (status, body) = shared.lock().unwrap().clone();
        answer(status, body)
    })
    .await;
    let hand = Hand::default();
    let sts = Sts::new(config(&stub.base()), at(&hand)).unwrap();
    Case { hand, stub, sts, answer: answers }
}

impl Case {
    fn answers(&self, status: u16, body: impl Into<String>) {
        *self.answer.lock().unwrap() = (status, body.into());
    }

    async fn refusal(&self, token: &str) -> Option<Refused> {
        self.sts.verify(token).await.err()
    }

    fn asked(&self) -> usize {
        self.stub.seen().len()
    }
}

#[tokio::test]
async fn a_good_token_is_the_role_of_its_session() {
    let case = case().await;
    let identity = case.sts.verify(&good()).await.unwrap();
    let proof =
        Proof::Aws { arn: format!("arn:aws:iam::{ACCOUNT}:role/Blue"), session: Some("ann@acme.com".to_owned()) };
    assert_eq!(identity.proof, proof);
    assert_eq!(identity.name, format!("arn:aws:sts::{ACCOUNT}:assumed-role/Blue/ann@acme.com"));
    assert_eq!(identity.expires, Some(start() + SignedDuration::from_mins(15)));
}

#[tokio::test]
async fn sts_gets_the_request_as_it_was_signed_and_no_header_of_the_client() {
    let case = case().await;
    case.sts.verify(&good()).await.unwrap();
    let [seen] = &case.stub.seen()[..] else { unreachable!() };
    assert_eq!(seen.method, "GET");
    let mut sent: Vec<_> = seen.path.strip_prefix("/?").unwrap().split('&').map(str::to_owned).collect();
    let mut signed: Vec<_> = parameters().iter().map(|(name, value)| format!("{name}={value}")).collect();
    sent.sort();
    signed.sort();
    assert_eq!(sent, signed);
    let headers: Vec<_> = seen.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("host", HOST), ("accept", "application/json"), ("x-k8s-aws-id", "acme-gateway")]);
}

#[tokio::test]
async fn tricks_with_urls_are_refused_before_sts_is_asked() {
    let case = case().await;
    let query = query(&parameters());
    let host = |text: &str| text.replace("HOST", HOST).replace("QUERY", &query);
    let urls = [
        "http://HOST/?QUERY",
        "HTTPS://HOST/?QUERY",
        "https:/HOST/?QUERY",
        "//HOST/?QUERY",
        " https://HOST/?QUERY",
        "https://user@HOST/?QUERY",
        "https://user:password@HOST/?QUERY",
        "https://HOST@evil.example.com/?QUERY",
        "https://HOST:443/?QUERY",
        "https://HOST:8443/?QUERY",
        "https://HOST./?QUERY",
        "https://HOST.evil.example.com/?QUERY",
        "https://evil.example.com/?QUERY",
        "https://evil.example.com/?HOST/?QUERY",
        "https://evil.example.com\\@HOST/?QUERY",
        "https://evil.example.com#HOST/?QUERY",
        "https://127.0.0.1/?QUERY",
        "https://169.254.169.254/?QUERY",
        "https://STS.EU-CENTRAL-1.AMAZONAWS.COM/?QUERY",
        "https://sts.us-east-1.amazonaws.com/?QUERY",
        "https://sts.amazonaws.com/?QUERY",
        "https://sts.eu-central-1.amazonaws.com.cn/?QUERY",
        "https://sts.eu-central-1.amazonaws.com%00/?QUERY",
        "https://s3.eu-central-1.amazonaws.com/?QUERY",
        "https://HOST?QUERY",
        "https://HOST",
        "https://HOST//?QUERY",
        "https://HOST/x/?QUERY",
        "https://HOST/../?QUERY",
        "https://HOST/;a/?QUERY",
        "https://HOST/#/?QUERY",
        "",
    ];
    for url in urls {
        assert_eq!(case.refusal(&token(&host(url))).await, Some(Refused::AwsHost), "{url}");
    }
    for url in
        ["https://HOST/?QUERY#x", "https://HOST/?QUERY ", "https://HOST/?QUERY\r\nx-evil: 1", "https://HOST/?QUERY&"]
    {
        let refused = case.refusal(&token(&host(url))).await.unwrap();
        assert!(matches!(refused, Refused::AwsQuery | Refused::AwsAlgorithm), "{url}: {refused:?}");
    }
    assert_eq!(case.asked(), 0);
}

#[tokio::test]
async fn encodings_other_than_base64url_are_refused() {
    let case = case().await;
    let good = good();
    let text = good.strip_prefix(PREFIX).unwrap();
    let texts = [
        format!("{PREFIX}{text}="),
        format!("{PREFIX}{text}=="),
        format!("{PREFIX}{text}\n"),
        format!("{PREFIX}+{text}"),
        format!("{PREFIX}{}", &text[..text.len() - 1]),
        format!("{PREFIX}{PREFIX}{text}"),
        format!("k8s-aws-v2.{text}"),
        format!("K8S-AWS-V1.{text}"),
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(b"https://\xff")),
    ];
    for text in texts {
        let refused = case.refusal(&text).await.unwrap();
        assert!(matches!(refused, Refused::AwsEncoding | Refused::AwsQuery | Refused::AwsAlgorithm), "{refused:?}");
    }
    assert_eq!(case.refusal(PREFIX).await, Some(Refused::AwsHost));
    let long = with("X-Amz-Security-Token", Some(&"A".repeat(4096)));
    assert_eq!(case.refusal(&long).await, Some(Refused::TooLong));
    assert_eq!(case.asked(), 0);
}

#[tokio::test]
async fn queries_that_ask_for_something_else_are_refused_before_sts_is_asked() {
    let case = case().await;
    let key = "ASIAEXAMPLEEXAMPLE00";
    let scope = |text: &str| with("X-Amz-Credential", Some(&text.replace("KEY", key)));
    let base = query(&parameters());
    let more = |text: &str| token(&format!("https://{HOST}/?{base}{text}"));
    let date = |text: &str| with("X-Amz-Date", Some(text));
    let tokens = [
        (with("Action", Some("AssumeRole")), Refused::AwsAction),
        (with("Action", Some("getcalleridentity")), Refused::AwsAction),
        (with("Action", Some("GetCallerIdentity%00")), Refused::AwsQuery),
        (with("Action", Some("GetCallerIdentity%20")), Refused::AwsQuery),
        (with("Action", Some("GetCallerIdentity%26Action%3DAssumeRole")), Refused::AwsAction),
        (with("Version", Some("2011-06-16")), Refused::AwsAction),
        (more("&RoleArn=arn"), Refused::AwsParameter),
        (more("&X-Amz-User-Agent=x"), Refused::AwsParameter),
        (more("&%41ction=AssumeRole"), Refused::AwsParameter),
        (more("&=x"), Refused::AwsParameter),
        (more("&Action"), Refused::AwsQuery),
        (more("&&"), Refused::AwsQuery),
        (more("&Action=GetCallerIdentity"), Refused::AwsTwice),
        (more("&action=AssumeRole"), Refused::AwsTwice),
        (more("&ACTION=AssumeRole"), Refused::AwsTwice),
        (more("&x-amz-expires=60"), Refused::AwsTwice),
        (more(";Action=AssumeRole"), Refused::AwsQuery),
        (with("X-Amz-Security-Token", Some("a+b")), Refused::AwsQuery),
        (with("X-Amz-Security-Token", Some("a%2")), Refused::AwsQuery),
        (with("X-Amz-Security-Token", Some("a%zz")), Refused::AwsQuery),
        (with("X-Amz-Security-Token", Some("a%ff")), Refused::AwsQuery),
        (with("X-Amz-Security-Token", Some("a%0d%0ax-evil:1")), Refused::AwsQuery),
        (with("X-Amz-Security-Token", Some("")), Refused::AwsMissing),
        (with("Action", None), Refused::AwsMissing),
        (with("Version", None), Refused::AwsMissing),
        (with("X-Amz-Algorithm", None), Refused::AwsMissing),
        (with("X-Amz-Credential", None), Refused::AwsMissing),
        (with("X-Amz-Date", None), Refused::AwsMissing),
        (with("X-Amz-Expires", None), Refused::AwsMissing),
        (with("X-Amz-Signature", None), Refused::AwsMissing),
        (with("X-Amz-SignedHeaders", None), Refused::AwsMissing),
        (with("X-Amz-SignedHeaders", Some("host")), Refused::AwsSignedHeaders),
        (with("X-Amz-SignedHeaders", Some("x-k8s-aws-id")), Refused::AwsSignedHeaders),
        (with("X-Amz-SignedHeaders", Some("host%3Bx-k8s-aws-id%3Bx-other")), Refused::AwsSignedHeaders),
        (with("X-Amz-SignedHeaders", Some("host%3Bx-k8s-aws-id%3B")), Refused::AwsSignedHeaders),
        (with("X-Amz-SignedHeaders", Some("host%3Bhost%3Bx-k8s-aws-id")), Refused::AwsSignedHeaders),
        (with("X-Amz-SignedHeaders", Some("host%3Bx-k8s-aws-id-2")), Refused::AwsSignedHeaders),
        (with("X-Amz-SignedHeaders", Some("host;x-k8s-aws-id")), Refused::AwsQuery),
        (with("X-Amz-Algorithm", Some("AWS4-ECDSA-P256-SHA256")), Refused::AwsAlgorithm),
        (with("X-Amz-Signature", Some("00")), Refused::AwsAlgorithm),
        (with("X-Amz-Signature", Some(&"g".repeat(64))), Refused::AwsAlgorithm),
        (with("X-Amz-Expires", Some("901")), Refused::AwsExpires),
        (with("X-Amz-Expires", Some("-1")), Refused::AwsExpires),
        (with("X-Amz-Expires", Some("%2B60")), Refused::AwsExpires),
        (with("X-Amz-Expires", Some("60.0")), Refused::AwsExpires),
        (with("X-Amz-Expires", Some("0900")), Refused::AwsExpires),
        (with("X-Amz-Expires", Some("99999999999999999999")), Refused::AwsExpires),
        (scope("KEY/20261123/us-east-1/sts/aws4_request"), Refused::AwsScope),
        (scope("KEY/20261122/eu-central-1/sts/aws4_request"), Refused::AwsScope),
        (scope("KEY/20261123/eu-central-1/iam/aws4_request"), Refused::AwsScope),
        (scope("KEY/20261123/eu-central-1/sts/aws4"), Refused::AwsScope),
        (scope("KEY/20261123/eu-central-1/sts/aws4_request/x"), Refused::AwsScope),
        (scope("AKIA/20261123/eu-central-1/sts/aws4_request"), Refused::AwsScope),
        (scope("/20261123/eu-central-1/sts/aws4_request"), Refused::AwsScope),
        (date("2026-11-23T06:00:00Z"), Refused::AwsDate),
        (date("20261123T060000"), Refused::AwsDate),
        (date("20261123T060000z"), Refused::AwsDate),
        (date("20261323T060000Z"), Refused::AwsDate),
        (date("20261123T240000Z"), Refused::AwsDate),
        (date("20261123T0600000Z"), Refused::AwsDate),
        (date("%2B0261123T06000Z"), Refused::AwsDate),
        (date("20261123T054500Z"), Refused::Expired),
        (date("20261123T060501Z"), Refused::NotYetValid),
    ];
    for (token, refused) in tokens {
        let url = URL_SAFE_NO_PAD.decode(&token[PREFIX.len()..]).unwrap();
        assert_eq!(case.refusal(&token).await, Some(refused), "{}", String::from_utf8_lossy(&url));
    }
    assert_eq!(case.asked(), 0);
    let fine = [
        date("20261123T054501Z"),
        date("20261123T060500Z"),
        with("X-Amz-Expires", Some("0")),
        with("X-Amz-Expires", Some("900")),
    ];
    for token in fine {
        assert_eq!(case.refusal(&token).await, None);
    }
    // Names are compared without regard to case, and sent as they were signed.
    let lower = token(&format!("https://{HOST}/?{}", base.replace("X-Amz-Date", "x-amz-date")));
    assert_eq!(case.refusal(&lower).await, None);
    assert!(case.stub.paths().last().unwrap().contains("&x-amz-date=20261123T060000Z&"));
}

#[tokio::test]
async fn only_roles_and_users_of_allowed_accounts_are_identities() {
    let case = case().await;
    let sts = |resource: &str| format!("arn:aws:sts::{ACCOUNT}:{resource}");
    let iam = |resource: &str| format!("arn:aws:iam::{ACCOUNT}:{resource}");
    let other = "210987654321";
    let answers = [
        (caller(&iam("root"), ACCOUNT, ACCOUNT), Refused::AwsPrincipal),
        (caller(&sts("federated-user/ann"), ACCOUNT, "123456789012:ann"), Refused::AwsPrincipal),
        (caller(&format!("arn:aws:iam::{other}:user/ann"), other, "AIDA"), Refused::AwsAccount),
        (caller(&format!("arn:aws:sts::{other}:assumed-role/Blue/ann"), other, "AROA:ann"), Refused::AwsAccount),
        // Answers that STS doesn't give.
        (caller(&iam("user/ann"), other, "AIDA"), Refused::AwsAnswer),
        (caller(&format!("arn:aws-cn:iam::{ACCOUNT}:user/ann"), ACCOUNT, "AIDA"), Refused::AwsAnswer),
        (caller(&sts("assumed-role/Blue/ann"), ACCOUNT, "AROA:bob"), Refused::AwsAnswer),
        (caller(&sts("assumed-role/Blue/ann"), ACCOUNT, "AROA"), Refused::AwsAnswer),
        (caller(&sts("assumed-role/team/Blue/ann"), ACCOUNT, "AROA:ann"), Refused::AwsAnswer),
        (caller(&sts("assumed-role/Blue"), ACCOUNT, "AROA"), Refused::AwsAnswer),
        (caller(&sts("assumed-role//ann"), ACCOUNT, "AROA:ann"), Refused::AwsAnswer),
        (caller(&sts("assumed-role/Bl\nue/ann"), ACCOUNT, "AROA:ann"), Refused::AwsAnswer),
        (caller(&iam("user/"), ACCOUNT, "AIDA"), Refused::AwsAnswer),
        (caller(&iam("role/Blue"), ACCOUNT, "AROA"), Refused::AwsAnswer),
        (caller(&iam("group/blue"), ACCOUNT, "AGPA"), Refused::AwsAnswer),
        (caller("arn:aws:iam:eu-central-1:123456789012:user/ann", ACCOUNT, "AIDA"), Refused::AwsAnswer),
        (caller("arn:aws:s3:::bucket", ACCOUNT, "AIDA"), Refused::AwsAnswer),
        (caller("", ACCOUNT, "AIDA"), Refused::AwsAnswer),
        ("{}".to_owned(), Refused::AwsAnswer),
        ("<GetCallerIdentityResponse/>".to_owned(), Refused::AwsAnswer),
        (String::new(), Refused::AwsAnswer),
    ];
    for (number, (body, refused)) in answers.into_iter().enumerate() {
        case.answers(200, body.clone());
        assert_eq!(case.refusal(&numbered(number)).await, Some(refused), "{body}");
    }
    case.answers(200, caller(&iam("user/team/ann"), ACCOUNT, "AIDAEXAMPLE"));
    let identity = case.sts.verify(&good()).await.unwrap();
    assert_eq!(identity.proof, Proof::Aws { arn: iam("user/team/ann"), session: None });
}

#[tokio::test]
async fn a_region_of_china_has_its_own_suffix_and_partition() {
    let case = case().await;
    let url = format!(
        "https://sts.cn-north-1.amazonaws.com.cn/?{}",
        query(&parameters()).replace("eu-central-1", "cn-north-1")
    );
    case.answers(200, caller(&format!("arn:aws-cn:sts::{ACCOUNT}:assumed-role/Blue/ann"), ACCOUNT, "AROA:ann"));
    let identity = case.sts.verify(&token(&url)).await.unwrap();
    let arn = format!("arn:aws-cn:iam::{ACCOUNT}:role/Blue");
    assert_eq!(identity.proof, Proof::Aws { arn, session: Some("ann".to_owned()) });
    assert_eq!(case.stub.seen()[0].headers["host"], "sts.cn-north-1.amazonaws.com.cn");
}

#[tokio::test]
async fn an_accepted_token_is_not_asked_about_again_until_it_expires() {
    let case = case().await;
    for _ in 0..3 {
        assert_eq!(case.refusal(&good()).await, None);
        pass(&case.hand, 299);
    }
    assert_eq!(case.asked(), 1);
    pass(&case.hand, 3);
    assert_eq!(case.refusal(&good()).await, Some(Refused::Expired));
    assert_eq!(case.asked(), 1);
}

#[tokio::test]
async fn a_refusal_is_remembered_briefly() {
    let case = case().await;
    case.answers(403, r#"{"Error":{"Code":"SignatureDoesNotMatch"}}"#);
    for _ in 0..3 {
        assert_eq!(case.refusal(&good()).await, Some(Refused::AwsRefused));
    }
    assert_eq!(case.asked(), 1);
    case.answers(200, role());
    pass(&case.hand, 30);
    assert_eq!(case.refusal(&good()).await, None);
    assert_eq!(case.asked(), 2);
}

#[tokio::test]
async fn a_failure_of_sts_is_temporary_and_is_not_remembered() {
    let case = case().await;
    let failures = [
        (500, String::new()),
        (503, String::new()),
        (429, String::new()),
        (400, r#"{"Error":{"Code":"Throttling","Message":"Rate exceeded"}}"#.to_owned()),
        (302, String::new()),
        (200, " ".repeat(SIZE + 1)),
    ];
    for (status, body) in failures {
        case.answers(status, body);
        assert_eq!(case.refusal(&good()).await, Some(Refused::AwsUnavailable), "{status}");
    }
    assert_eq!(case.asked(), 6);
    case.answers(200, role());
    assert_eq!(case.refusal(&good()).await, None);
}

#[tokio::test]
async fn a_redirect_of_sts_is_not_followed() {
    let (target, hand) = (Stub::start(|_| answer(200, role())).await, Hand::default());
    let to = target.base();
    let stub =
        Stub::start(move |_| Response::builder().status(307).header("location", &to).body(String::new()).unwrap())
            .await;
    let sts = Sts::new(config(&stub.base()), at(&hand)).unwrap();
    assert_eq!(sts.verify(&good()).await.err(), Some(Refused::AwsUnavailable));
    assert!(target.seen().is_empty());
}

/// A stand-in whose answers wait.
async fn gate(hand: &Hand) -> (Arc<Notify>, Arc<Stub>, Arc<Sts>) {
    let open = Arc::new(Notify::new());
    let shared = open.clone();
    let stub = Stub::slow(move |_| {
        let open = shared.clone();
        Box::pin(async move {
            open.notified().await;
            answer(200, role())
        })
    })
    .await;
    let sts = Sts::new(config(&stub.base()), at(hand)).unwrap();
    (open, Arc::new(stub), Arc::new(sts))
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_with_one_token_ask_once_even_if_the_first_hangs_up() {
    let hand = Hand::default();
    let (open, stub, sts) = gate(&hand).await;
    let ask = || {
        tokio::spawn({
            let sts = sts.clone();
            async move { sts.verify(&good()).await }
        })
    };
    let first = ask();
    until(|| stub.seen().len() == 1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let others: Vec<_> = (0..20).map(|_| ask()).collect();
    until(|| stub.seen().len() == 2).await;
    open.notify_one();
    open.notify_one();
    for other in others {
        open.notify_one();
        assert!(other.await.unwrap().is_ok());
    }
    assert_eq!(stub.seen().len(), 2);
    assert_eq!(sts.verdicts.flights(), 0);
}

#[tokio::test]
async fn sts_is_asked_about_a_limited_number_of_tokens_at_one_time() {
    let hand = Hand::default();
    let (_open, stub, sts) = gate(&hand).await;
    let tasks: Vec<_> = (0..REQUESTS + 10)
        .map(|number| {
            tokio::spawn({
                let sts = sts.clone();
                async move { sts.verify(&numbered(number)).await }
            })
        })
        .collect();
    until(|| stub.seen().len() == REQUESTS).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stub.seen().len(), REQUESTS);
    // Both the requests to STS and the wait for their turn have a limit.
    pass(&hand, 6);
    for task in &tasks {
        until(|| {
            pass(&hand, 6);
            task.is_finished()
        })
        .await;
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().err(), Some(Refused::AwsUnavailable));
    }
    assert_eq!(sts.verdicts.flights(), 0);
}

#[test]
fn principals_are_compared_without_a_roles_path() {
    let proven = "arn:aws:iam::123456789012:role/Blue";
    let cases = [
        ("arn:aws:iam::123456789012:role/Blue", proven, true),
        ("arn:aws:iam::123456789012:role/team/a/Blue", proven, true),
        ("arn:aws:iam::123456789012:role/blue", proven, false),
        ("arn:aws:iam::123456789012:role/Blue/Green", proven, false),
        ("arn:aws:iam::123456789012:role/Blue/", proven, false),
        ("arn:aws:iam::123456789012:role/", proven, false),
        ("arn:aws:iam::123456789012:role/*", proven, false),
        ("arn:aws:iam::*:role/Blue", proven, false),
        ("arn:aws:iam::210987654321:role/Blue", proven, false),
        ("arn:aws-cn:iam::123456789012:role/Blue", proven, false),
        ("arn:aws:sts::123456789012:assumed-role/Blue/ann", proven, false),
        ("arn:aws:iam::123456789012:user/Blue", proven, false),
        ("arn:aws:iam::123456789012:root", proven, false),
        ("123456789012", proven, false),
        ("Blue", proven, false),
        ("", proven, false),
        ("arn:aws:iam::123456789012:user/a/ann", "arn:aws:iam::123456789012:user/a/ann", true),
        ("arn:aws:iam::123456789012:user/ann", "arn:aws:iam::123456789012:user/a/ann", false),
        ("arn:aws:iam::123456789012:role/ann", "arn:aws:iam::123456789012:user/ann", false),
        ("arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:root", false),
    ];
    for (arn, proven, expected) in cases {
        assert_eq!(is_same_principal(arn, proven), expected, "{arn} {proven}");
    }
}

#[test]
fn configurations_that_would_be_unsafe_are_named() {
    let hand = Hand::default();
    let cases: [(&str, Value, &str); 16] = [
        ("name", json!(""), "the gateway's name"),
        ("name", json!("a b"), "the gateway's name"),
        ("name", json!("a\r\nx: 1"), "the gateway's name"),
        ("regions", json!([]), "`regions`"),
        ("regions", json!(["eu-central-1.evil.example.com/"]), "`regions`"),
        ("regions", json!(["evil.example.com#-"]), "`regions`"),
        ("regions", json!([""]), "`regions`"),
        ("accounts", json!([]), "`accounts`"),
        ("accounts", json!(["*"]), "`accounts`"),
        ("accounts", json!(["12345678901"]), "`accounts`"),
        ("endpoint", json!("https://evil.example.com"), "`endpoint`"),
        ("endpoint", json!("http://localhost:1"), "`endpoint`"),
        ("endpoint", json!("http://127.0.0.1@evil.example.com"), "`endpoint`"),
        ("endpoint", json!("http://127.0.0.1:1/path"), "`endpoint`"),
        ("endpoint", json!("http://127.0.0.1:1/?x"), "`endpoint`"),
        ("other", json!(1), "unknown field"),
    ];
    for (field, value, expected) in cases {
        let mut config = serde_json::to_value(config("http://127.0.0.1:1")).unwrap();
        config[field] = value.clone();
        let message = match serde_json::from_value::<AwsConfig>(config) {
            Ok(config) => Sts::new(config, at(&hand)).err().map(|e| e.message).unwrap_or_default(),
            Err(e) => e.to_string(),
        };
        assert!(message.contains(expected), "{field} {value}: {message}");
    }
}

#[test]
fn regions_have_the_host_names_of_their_partitions() {
    let cases = [
        ("eu-central-1", "aws", "amazonaws.com"),
        ("us-gov-west-1", "aws-us-gov", "amazonaws.com"),
        ("cn-north-1", "aws-cn", "amazonaws.com.cn"),
        ("us-iso-east-1", "aws-iso", "c2s.ic.gov"),
        ("us-isob-east-1", "aws-iso-b", "sc2s.sgov.gov"),
        ("us-isof-south-1", "aws-iso-f", "csp.hci.ic.gov"),
        ("eu-isoe-west-1", "aws-iso-e", "cloud.adc-e.uk"),
        ("eusc-de-east-1", "aws-eusc", "amazonaws.eu"),
    ];
    for (region, name, suffix) in cases {
        assert_eq!(partition(region), (name, suffix), "{region}");
    }
}
