#![allow(clippy::unwrap_used)]

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType, date_time_ymd};
use serde_json::json;

use super::testing::{Provider, Signer, Stub, answer, at, start};
use super::*;
use crate::engine::clock::Hand;

const URI: &str = "spiffe://acme.com/tenant/blue";

fn certificate() -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(URI.try_into().unwrap())];
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn nobody() -> Authenticators {
    Authenticators::new(Config::default(), at(&Hand::default())).unwrap()
}

#[tokio::test]
async fn there_is_no_anonymous_identity() {
    assert_eq!(nobody().authenticate(&[], None).await, Err(Refused::NoCredential));
}

#[tokio::test]
async fn headers_that_are_not_one_bearer_token_are_refused() {
    let huge = format!("Bearer {}", "a".repeat(TOKEN + 1));
    let cases: [(&[&[u8]], Refused); 27] = [
        (&[b""], Refused::NotBearer),
        (&[b"Basic YTpi"], Refused::NotBearer),
        (&[b"Negotiate abc"], Refused::NotBearer),
        (&[b" Bearer a.b.c"], Refused::NotBearer),
        (&[b"Bearer\ta.b.c"], Refused::NotBearer),
        (&[b"Bearera.b.c"], Refused::NotBearer),
        (&[b"a.b.c"], Refused::NotBearer),
        (&[b"Bearer"], Refused::EmptyToken),
        (&[b"bearer"], Refused::EmptyToken),
        (&[b"Bearer "], Refused::EmptyToken),
        (&[b"Bearer  "], Refused::MalformedHeader),
        (&[b"Bearer  a.b.c"], Refused::MalformedHeader),
        (&[b"Bearer a.b.c "], Refused::MalformedHeader),
        (&[b"Bearer \ta.b.c"], Refused::MalformedHeader),
        (&[b"Bearer a.b.c d.e.f"], Refused::MalformedHeader),
        (&[b"Bearer a.b.c, Bearer d.e.f"], Refused::MalformedHeader),
        (&[b"Bearer a.b.c,d.e.f"], Refused::MalformedHeader),
        (&[b"Bearer \"a.b.c\""], Refused::MalformedHeader),
        (&[b"Bearer a.b.c\n"], Refused::MalformedHeader),
        (&[b"Bearer a.b.c\0"], Refused::MalformedHeader),
        (&[b"Bearer \xff"], Refused::MalformedHeader),
        (&[b"Bearer \xc2\xa0a.b.c"], Refused::MalformedHeader),
        (&[b"Bearer a.b.c", b"Bearer a.b.c"], Refused::SeveralHeaders),
        (&[b"", b"Bearer a.b.c"], Refused::SeveralHeaders),
        (&[b"Bearer a.b.c", b""], Refused::SeveralHeaders),
        (&[huge.as_bytes()], Refused::TooLong),
        (&[b"Bearer abc"], Refused::NotJwt),
    ];
    let (nobody, certificate) = (nobody(), certificate());
    for (headers, refused) in cases {
        let shown: Vec<_> = headers.iter().map(|h| String::from_utf8_lossy(&h[..h.len().min(40)])).collect();
        assert_eq!(nobody.authenticate(headers, None).await, Err(refused), "{shown:?}");
        // A certificate beside doesn't help.
        assert_eq!(nobody.authenticate(headers, Some(&certificate)).await, Err(refused), "{shown:?}");
    }
}

#[tokio::test]
async fn a_token_decides_if_there_is_one() {
    let (hand, signer) = (Hand::default(), Signer::ec("a"));
    let provider = Provider::start(&[&signer]).await;
    let config = json!({"issuers": [{"issuer": provider.issuer(), "audiences": ["ringfence"]}]});
    let gateway = Authenticators::new(serde_json::from_value(config).unwrap(), at(&hand)).unwrap();
    gateway.warm().await;
    assert_eq!((provider.fetches(), gateway.failures()), (1, vec![]));
    let certificate = certificate();
    let by_certificate = gateway.authenticate(&[], Some(&certificate)).await.unwrap();
    assert_eq!(by_certificate.name, URI);
    let exp = start().as_second() + 60;
    let claims = json!({"iss": provider.issuer(), "aud": "ringfence", "sub": "u", "exp": exp}).to_string();
    let token = signer.token(r#"{"alg":"ES256","kid":"a"}"#, &claims);
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let header = format!("{scheme} {token}");
        let identity = gateway.authenticate(&[header.as_bytes()], Some(&certificate)).await.unwrap();
        assert_eq!(identity.name, format!("{}#u", provider.issuer()), "{scheme}");
    }
    let aws = format!("Bearer {}aHR0cHM6Ly8", sts::PREFIX);
    assert_eq!(gateway.authenticate(&[aws.as_bytes()], Some(&certificate)).await, Err(Refused::AwsNotAccepted));
}

#[tokio::test]
async fn a_token_of_aws_goes_to_sts() {
    let stub = Stub::start(|_| answer(403, "")).await;
    let aws = json!({
        "name": "acme-gateway", "regions": ["eu-central-1"], "accounts": ["123456789012"], "endpoint": stub.base(),
    });
    let config = serde_json::from_value(json!({ "aws": aws })).unwrap();
    let gateway = Authenticators::new(config, at(&Hand::default())).unwrap();
    let header = format!("Bearer {}aHR0cHM6Ly8", sts::PREFIX);
    assert_eq!(gateway.authenticate(&[header.as_bytes()], None).await, Err(Refused::AwsHost));
}

#[test]
fn unknown_settings_are_refused() {
    for config in [json!({"anonymous": true}), json!({"issuers": [], "tokens": []}), json!({"aws": {"name": "a"}})] {
        assert!(serde_json::from_value::<Config>(config.clone()).is_err(), "{config}");
    }
}

#[test]
fn claims_match_exactly() {
    let claims = json!({
        "https://acme.com/tenant": "blue",
        "groups": ["tenant-blue", "staff", 7, ["tenant-green"], {"a": "tenant-green"}],
        "a": {"b": "blue"},
        "number": 7,
        "empty": "",
        "email": "ann@acme.com",
    });
    let of = |claims: &Value| {
        let Value::Object(claims) = claims.clone() else { unreachable!() };
        let proof = Proof::Token { issuer: "https://id.acme.com".to_owned(), claims };
        Identity { name: "n".to_owned(), proof, expires: None }
    };
    let matches = |claims: &Value, issuer: &str, claim: &str, value: &str| {
        let access = Access::Claim { issuer: issuer.to_owned(), claim: claim.to_owned(), value: value.to_owned() };
        access.matches(&of(claims))
    };
    let cases = [
        ("https://acme.com/tenant", "blue", true),
        ("https://acme.com/tenant", "Blue", false),
        ("https://acme.com/tenant", "blu", false),
        ("https://acme.com/tenant", "blue ", false),
        ("https://acme.com/tenant", "*", false),
        ("https://acme.com/tenant", "", false),
        ("groups", "tenant-blue", true),
        ("groups", "tenant-green", false),
        ("groups", "tenant-blue,staff", false),
        ("groups", "7", false),
        ("a.b", "blue", false),
        ("a", "blue", false),
        ("number", "7", false),
        ("empty", "", false),
        ("missing", "blue", false),
        // An address that nobody has verified is whatever its owner wrote.
        ("email", "ann@acme.com", false),
    ];
    for (claim, value, expected) in cases {
        assert_eq!(matches(&claims, "https://id.acme.com", claim, value), expected, "{claim} {value}");
        assert!(!matches(&claims, "https://id.acme.com/", claim, value), "{claim} {value}");
    }
    for (verified, expected) in [(json!(true), true), (json!(false), false), (json!("true"), false), (json!(1), false)]
    {
        let mut claims = claims.clone();
        claims["email_verified"] = verified.clone();
        assert_eq!(matches(&claims, "https://id.acme.com", "email", "ann@acme.com"), expected, "{verified}");
    }
}

#[test]
fn one_kind_of_proof_never_matches_another() {
    let arn = "arn:aws:iam::123456789012:role/Blue";
    let mut claims = Map::new();
    claims.insert("arn".to_owned(), arn.into());
    claims.insert("uri".to_owned(), URI.into());
    let proofs = [
        Proof::Token { issuer: "i".to_owned(), claims },
        Proof::Aws { arn: arn.to_owned(), session: Some(URI.to_owned()) },
        Proof::Certificate { common_name: Some(arn.to_owned()), uris: vec![URI.to_owned()] },
    ];
    let accesses = [
        Access::Claim { issuer: "i".to_owned(), claim: "arn".to_owned(), value: arn.to_owned() },
        Access::Role { arn: arn.to_owned() },
        Access::Certificate { uri: URI.to_owned() },
    ];
    for (p, proof) in proofs.into_iter().enumerate() {
        let identity = Identity { name: arn.to_owned(), proof, expires: None };
        for (a, access) in accesses.iter().enumerate() {
            assert_eq!(access.matches(&identity), a == p, "{access:?} {identity:?}");
        }
    }
    let certificate = |uris: &[&str]| Identity {
        name: URI.to_owned(),
        proof: Proof::Certificate {
            common_name: Some(URI.to_owned()),
            uris: uris.iter().map(|u| (*u).to_owned()).collect(),
        },
        expires: None,
    };
    let access = Access::Certificate { uri: URI.to_owned() };
    assert!(access.matches(&certificate(&["https://acme.com/", URI])));
    for uris in [
        &[][..],
        &["spiffe://acme.com/tenant/blue/"],
        &["spiffe://acme.com/tenant/blue2"],
        &["SPIFFE://acme.com/tenant/blue"],
    ] {
        assert!(!access.matches(&certificate(uris)), "{uris:?}");
    }
    assert!(!Access::Certificate { uri: String::new() }.matches(&certificate(&[""])));
}
