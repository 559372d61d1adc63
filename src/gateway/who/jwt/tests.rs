#![allow(clippy::unwrap_used)]

use jsonwebtoken::EncodingKey;
use serde_json::json;

use super::*;
use crate::engine::clock::Hand;
use crate::gateway::who::Access;
use crate::gateway::who::testing::{Provider, RSA_PUBLIC, Signer, at, pass, rsa, start};

const AUDIENCE: &str = "ringfence";

/// Two issuers. `ours` has an EC key and an RSA key, `other` has an EC key.
struct Case {
    hand: Hand,
    ours: Provider,
    other: Provider,
    ec: Signer,
    rsa: Signer,
    foreign: Signer,
    issuers: Issuers,
}

fn config(provider: &Provider) -> IssuerConfig {
    serde_json::from_value(json!({"issuer": provider.issuer(), "audiences": [AUDIENCE, "second"]})).unwrap()
}

async fn case() -> Case {
    let (hand, ec, rsa, foreign) = (Hand::default(), Signer::ec("ec"), rsa("rsa"), Signer::ec("foreign"));
    let ours = Provider::start(&[&ec, &rsa]).await;
    let other = Provider::start(&[&foreign]).await;
    let issuers = Issuers::new(vec![config(&ours), config(&other)], &at(&hand)).unwrap();
    Case { hand, ours, other, ec, rsa, foreign, issuers }
}

fn seconds() -> i64 {
    start().as_second()
}

impl Case {
    fn claims(&self) -> Value {
        let now = seconds();
        json!({
            "iss": self.ours.issuer(), "aud": AUDIENCE, "sub": "u-1", "exp": now + 600, "nbf": now, "iat": now,
            "https://acme.com/tenant": "blue",
        })
    }

    fn claims_with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        claims[name] = value;
        claims
    }

    fn token(&self, claims: &Value) -> String {
        self.ec.token(r#"{"alg":"ES256","kid":"ec","typ":"JWT"}"#, &claims.to_string())
    }

    async fn refusal(&self, token: &str) -> Option<Refused> {
        self.issuers.verify(token).await.err()
    }
}

#[tokio::test]
async fn a_good_token_is_an_identity() {
    let case = case().await;
    let identity = case.issuers.verify(&case.token(&case.claims())).await.unwrap();
    assert_eq!(identity.name, format!("{}#u-1", case.ours.issuer()));
    assert_eq!(identity.expires, Some(start() + SignedDuration::from_secs(600)));
    let Value::Object(claims) = case.claims() else { unreachable!() };
    assert_eq!(identity.proof, Proof::Token { issuer: case.ours.issuer(), claims });

    let by_rsa = case.rsa.token(r#"{"alg":"RS256","kid":"rsa"}"#, &case.claims().to_string());
    assert_eq!(case.refusal(&by_rsa).await, None);
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "application/JWT"] {
        let header = json!({"alg": "ES256", "kid": "ec", "typ": typ, "x5t": "hash", "vendor": [1]}).to_string();
        assert_eq!(case.refusal(&case.ec.token(&header, &case.claims().to_string())).await, None, "{typ}");
    }
    // A key id may be missing if only one key fits.
    let nameless = case.ec.token(r#"{"alg":"ES256"}"#, &case.claims().to_string());
    assert_eq!(case.refusal(&nameless).await, None);
}

#[tokio::test]
async fn headers_that_attack_are_refused() {
    let case = case().await;
    let own = case.ec.jwk.to_string();
    let headers = [
        (r#"{"alg":"none"}"#.to_owned(), Refused::Algorithm),
        (r#"{"alg":"None","kid":"ec"}"#.to_owned(), Refused::Algorithm),
        (r#"{"alg":"","kid":"ec"}"#.to_owned(), Refused::Algorithm),
        (r#"{"kid":"ec"}"#.to_owned(), Refused::Algorithm),
        (r#"{"alg":["ES256"],"kid":"ec"}"#.to_owned(), Refused::Algorithm),
        (r#"{"alg":"HS256","kid":"ec"}"#.to_owned(), Refused::Algorithm),
        (r#"{"alg":"ES512","kid":"ec"}"#.to_owned(), Refused::Algorithm),
        // Known algorithms that this issuer's list doesn't have.
        (r#"{"alg":"ES384","kid":"ec"}"#.to_owned(), Refused::Algorithm),
        (r#"{"alg":"PS256","kid":"rsa"}"#.to_owned(), Refused::Algorithm),
        (r#"{"alg":"EdDSA","kid":"ec"}"#.to_owned(), Refused::Algorithm),
        // In the list, but not of the key's type.
        (r#"{"alg":"RS256","kid":"ec"}"#.to_owned(), Refused::UnknownKey),
        (r#"{"alg":"ES256","kid":"rsa"}"#.to_owned(), Refused::UnknownKey),
        (r#"{"alg":"ES256","kid":"unknown"}"#.to_owned(), Refused::UnknownKey),
        (r#"{"alg":"ES256","kid":"EC"}"#.to_owned(), Refused::UnknownKey),
        (r#"{"alg":"ES256","kid":"foreign"}"#.to_owned(), Refused::UnknownKey),
        (r#"{"alg":"ES256","kid":"../../../dev/null"}"#.to_owned(), Refused::UnknownKey),
        (r#"{"alg":"ES256","kid":"ec' OR '1'='1"}"#.to_owned(), Refused::UnknownKey),
        (r#"{"alg":"ES256","kid":"ec\u0000"}"#.to_owned(), Refused::UnknownKey),
        (r#"{"alg":"ES256","kid":""}"#.to_owned(), Refused::KeyId),
        (r#"{"alg":"ES256","kid":null}"#.to_owned(), Refused::KeyId),
        (r#"{"alg":"ES256","kid":7}"#.to_owned(), Refused::KeyId),
        (r#"{"alg":"ES256","kid":["ec"]}"#.to_owned(), Refused::KeyId),
        (format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "a".repeat(NAME + 1)), Refused::KeyId),
        (format!(r#"{{"alg":"ES256","jwk":{own}}}"#), Refused::HeaderParameter),
        (r#"{"alg":"ES256","kid":"ec","jku":"https://evil.example.com/keys"}"#.to_owned(), Refused::HeaderParameter),
        (r#"{"alg":"ES256","kid":"ec","x5u":"https://evil.example.com/c"}"#.to_owned(), Refused::HeaderParameter),
        (r#"{"alg":"ES256","kid":"ec","x5c":["MII"]}"#.to_owned(), Refused::HeaderParameter),
        (r#"{"alg":"ES256","kid":"ec","crit":["exp"],"exp":1}"#.to_owned(), Refused::HeaderParameter),
        (r#"{"alg":"ES256","kid":"ec","crit":[]}"#.to_owned(), Refused::HeaderParameter),
        (r#"{"alg":"ES256","kid":"ec","b64":false}"#.to_owned(), Refused::HeaderParameter),
        (r#"{"alg":"ES256","kid":"ec","zip":"DEF"}"#.to_owned(), Refused::HeaderParameter),
        (r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#.to_owned(), Refused::HeaderParameter),
        (r#"{"alg":"ES256","kid":"ec","cty":"JWT"}"#.to_owned(), Refused::HeaderParameter),
        (r#"{"alg":"ES256","kid":"ec","typ":"logout+jwt"}"#.to_owned(), Refused::Type),
        (r#"{"alg":"ES256","kid":"ec","typ":"dpop+jwt"}"#.to_owned(), Refused::Type),
        (r#"{"alg":"ES256","kid":"ec","typ":""}"#.to_owned(), Refused::Type),
        (r#"{"alg":"ES256","kid":"ec","typ":null}"#.to_owned(), Refused::Type),
        (r#"{"alg":"none","alg":"ES256","kid":"ec"}"#.to_owned(), Refused::Json),
        (r#"{"alg":"ES256","kid":"foreign","kid":"ec"}"#.to_owned(), Refused::Json),
        (r#"{"alg":"ES256","\u0061lg":"none","kid":"ec"}"#.to_owned(), Refused::Json),
        (r#"["ES256"]"#.to_owned(), Refused::Json),
        (String::new(), Refused::Json),
    ];
    for (header, refused) in headers {
        let token = case.ec.token(&header, &case.claims().to_string());
        assert_eq!(case.refusal(&token).await, Some(refused), "{header}");
    }
    assert_eq!(case.ours.fetches(), 1, "unknown key ids don't make the gateway ask again and again");
}

#[tokio::test]
async fn claims_that_attack_are_refused() {
    let case = case().await;
    let now = seconds();
    let with = |name, value| case.claims_with(name, value).to_string();
    let without = |name: &str| {
        let mut claims = case.claims();
        claims.as_object_mut().unwrap().remove(name);
        claims.to_string()
    };
    let ours = case.ours.issuer();
    let twice = |name: &str, value: &str| {
        let claims = case.claims().to_string();
        format!("{},\"{name}\":{value}}}", claims.strip_suffix('}').unwrap())
    };
    let claims = [
        (without("iss"), Refused::Issuer),
        (with("iss", Value::Null), Refused::Issuer),
        (with("iss", json!([ours])), Refused::Issuer),
        (with("iss", format!("{ours}/").into()), Refused::Issuer),
        (with("iss", ours.to_uppercase().into()), Refused::Issuer),
        (with("iss", "https://evil.example.com".into()), Refused::Issuer),
        // Another issuer's name over our key: only that issuer's keys are asked.
        (with("iss", case.other.issuer().into()), Refused::UnknownKey),
        (without("aud"), Refused::Audience),
        (with("aud", "kubernetes".into()), Refused::Audience),
        (with("aud", "".into()), Refused::Audience),
        (with("aud", "RINGFENCE".into()), Refused::Audience),
        (with("aud", "ringfence ".into()), Refused::Audience),
        (with("aud", json!([])), Refused::Audience),
        (with("aud", json!(["kubernetes"])), Refused::Audience),
        (with("aud", json!([[AUDIENCE]])), Refused::Audience),
        (with("aud", json!([AUDIENCE, 1])), Refused::Audience),
        (with("aud", json!({AUDIENCE: true})), Refused::Audience),
        (without("exp"), Refused::Dates),
        (with("exp", Value::Null), Refused::Dates),
        (with("exp", (now + 600).to_string().into()), Refused::Dates),
        (with("exp", json!([now + 600])), Refused::Dates),
        (with("exp", true.into()), Refused::Dates),
        (with("exp", 1e300.into()), Refused::Dates),
        (with("exp", u64::MAX.into()), Refused::Dates),
        (with("exp", (-1).into()), Refused::Dates),
        (with("exp", 0.into()), Refused::Expired),
        (with("exp", (now - 60).into()), Refused::Expired),
        (with("exp", (now as f64 - 60.5).into()), Refused::Expired),
        (with("nbf", "never".into()), Refused::Dates),
        (with("nbf", Value::Null), Refused::Dates),
        (with("nbf", (now + 61).into()), Refused::NotYetValid),
        (with("iat", "now".into()), Refused::Dates),
        (with("iat", (now + 61).into()), Refused::IssuedInFuture),
        (without("sub"), Refused::Subject),
        (with("sub", "".into()), Refused::Subject),
        (with("sub", 1.into()), Refused::Subject),
        (with("sub", json!(["u-1"])), Refused::Subject),
        (with("sub", "u-1\nuser=admin".into()), Refused::Username),
        (with("sub", "u\u{9b}1".into()), Refused::Username),
        (with("sub", "u".repeat(NAME + 1).into()), Refused::Username),
        (twice("sub", "\"admin\""), Refused::Json),
        (twice("s\\u0075b", "\"admin\""), Refused::Json),
        (twice("https://acme.com/tenant", "\"green\""), Refused::Json),
        (twice("nested", "{\"a\":1,\"a\":2}"), Refused::Json),
        (twice("deep", &format!("{}{}", "[".repeat(100), "]".repeat(100))), Refused::Json),
        ("\"claims\"".to_owned(), Refused::Json),
        (String::new(), Refused::Json),
    ];
    for (claims, refused) in claims {
        let token = case.ec.token(r#"{"alg":"ES256","kid":"ec"}"#, &claims);
        assert_eq!(case.refusal(&token).await, Some(refused), "{claims:.300}");
    }
    let good = [
        with("aud", json!(["kubernetes", "second"])),
        with("exp", (now - 59).into()),
        with("exp", (now as f64 + 0.5).into()),
        with("nbf", (now + 60).into()),
        with("iat", (now + 60).into()),
        without("nbf"),
        without("iat"),
    ];
    for claims in good {
        let token = case.ec.token(r#"{"alg":"ES256","kid":"ec"}"#, &claims);
        assert_eq!(case.refusal(&token).await, None, "{claims}");
    }
}

#[tokio::test]
async fn a_public_key_is_not_a_shared_secret() {
    let case = case().await;
    let jwk = case.rsa.jwk.to_string();
    for secret in [RSA_PUBLIC, RSA_PUBLIC.trim_end(), &jwk, ""] {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"rsa"}"#);
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(case.claims().to_string()));
        let key = EncodingKey::from_secret(secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
        assert_eq!(case.refusal(&format!("{message}.{signature}")).await, Some(Refused::Algorithm));
    }
}

#[tokio::test]
async fn texts_that_are_not_exactly_three_parts_are_refused() {
    let case = case().await;
    let token = case.token(&case.claims());
    let parts: Vec<_> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { unreachable!() };
    let texts = [
        (String::new(), Refused::NotJwt),
        (".".to_owned(), Refused::NotJwt),
        ("..".to_owned(), Refused::Json),
        ("abc".to_owned(), Refused::NotJwt),
        (format!("{header}.{claims}"), Refused::NotJwt),
        (format!("{token}.{signature}"), Refused::NotJwt),
        (format!("{token}.a.b"), Refused::NotJwt),
        (format!("{header}=.{claims}.{signature}"), Refused::NotJwt),
        (format!("{header}.{claims}\n.{signature}"), Refused::NotJwt),
        // Unused bits of the last character are another spelling of the same bytes.
        (format!("e30.e31.{signature}"), Refused::Algorithm),
        (format!("e31.{claims}.{signature}"), Refused::NotJwt),
        (format!("{header}.{claims}."), Refused::Signature),
        (format!("{header}.{claims}.{}", &signature[..40]), Refused::Signature),
        (format!("{header}.{claims}.{signature}AA"), Refused::Signature),
        (format!("{header}.{claims}.{signature}=="), Refused::Signature),
        (format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([0; 64])), Refused::Signature),
    ];
    for (text, refused) in texts {
        assert_eq!(case.refusal(&text).await, Some(refused), "{text:.80}");
    }
    // The signature of other claims.
    let changed = case.token(&case.claims_with("sub", "admin".into()));
    let (message, _) = changed.rsplit_once('.').unwrap();
    assert_eq!(case.refusal(&format!("{message}.{signature}")).await, Some(Refused::Signature));
}

#[tokio::test]
async fn an_issuer_can_speak_only_for_itself() {
    let case = case().await;
    // The other issuer signs claims of ours, under each key id.
    for header in [r#"{"alg":"ES256","kid":"foreign"}"#, r#"{"alg":"ES256","kid":"ec"}"#, r#"{"alg":"ES256"}"#] {
        let token = case.foreign.token(header, &case.claims().to_string());
        let refused = case.refusal(&token).await;
        assert!(matches!(refused, Some(Refused::UnknownKey | Refused::Signature)), "{header}: {refused:?}");
    }
    // The same claims in its own name are another identity, and of no tenant of ours.
    let claims = case.claims_with("iss", case.other.issuer().into());
    let token = case.foreign.token(r#"{"alg":"ES256","kid":"foreign"}"#, &claims.to_string());
    let identity = case.issuers.verify(&token).await.unwrap();
    let of = |issuer: String| Access::Claim {
        issuer,
        claim: "https://acme.com/tenant".to_owned(),
        value: "blue".to_owned(),
    };
    assert!(!of(case.ours.issuer()).matches(&identity));
    assert!(of(case.other.issuer()).matches(&identity));
    assert_eq!(identity.name, format!("{}#u-1", case.other.issuer()));
}

#[tokio::test]
async fn a_rotated_key_is_found_and_an_old_one_is_forgotten() {
    let case = case().await;
    let old = case.token(&case.claims());
    assert_eq!(case.refusal(&old).await, None);
    let new = Signer::ec("new");
    let token = new.token(r#"{"alg":"ES256","kid":"new"}"#, &case.claims().to_string());
    assert_eq!(case.refusal(&token).await, Some(Refused::UnknownKey));
    case.ours.publish(&[&new]);
    pass(&case.hand, 10);
    assert_eq!(case.refusal(&token).await, None);
    assert_eq!(case.refusal(&old).await, Some(Refused::UnknownKey));
    // An issuer without key ids: the signature tells that the key isn't the known one.
    let (first, second) = (Signer::ec(""), Signer::ec(""));
    let nameless = |signer: &Signer| {
        let mut jwk = signer.jwk.clone();
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    };
    let provider = Provider::start(&[]).await;
    let publish = |signer: &Signer| {
        let mut copy = Signer::ec("");
        copy.jwk = nameless(signer);
        provider.publish(&[&copy]);
    };
    publish(&first);
    let issuers = Issuers::new(vec![config(&provider)], &at(&case.hand)).unwrap();
    let token = |signer: &Signer| {
        let mut claims = case.claims_with("iss", provider.issuer().into());
        claims["exp"] = (seconds() + 6000).into();
        signer.token(r#"{"alg":"ES256"}"#, &claims.to_string())
    };
    assert!(issuers.verify(&token(&first)).await.is_ok());
    publish(&second);
    assert_eq!(issuers.verify(&token(&second)).await.err(), Some(Refused::Signature));
    pass(&case.hand, 10);
    assert!(issuers.verify(&token(&second)).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_is_down_refuses_and_is_named() {
    let case = case().await;
    case.ours.fail(true);
    let refused = case.refusal(&case.token(&case.claims())).await.unwrap();
    assert_eq!(refused, Refused::KeysUnavailable);
    assert!(refused.is_temporary());
    let name = case.ours.issuer();
    assert_eq!(case.issuers.failures(), [(name.as_str(), "the server answers with another status than 200")]);
    // The other issuer isn't concerned.
    let claims = case.claims_with("iss", case.other.issuer().into());
    let token = case.foreign.token(r#"{"alg":"ES256","kid":"foreign"}"#, &claims.to_string());
    assert_eq!(case.refusal(&token).await, None);
}

#[tokio::test]
async fn a_name_may_be_another_claim() {
    let case = case().await;
    let mut config = config(&case.ours);
    config.username_claim = "email".to_owned();
    let issuers = Issuers::new(vec![config], &at(&case.hand)).unwrap();
    assert_eq!(issuers.verify(&case.token(&case.claims())).await.err(), Some(Refused::Username));
    let token = case.token(&case.claims_with("email", "ann@acme.com".into()));
    assert_eq!(issuers.verify(&token).await.unwrap().name, format!("{}#ann@acme.com", case.ours.issuer()));
    let token = case.token(&case.claims_with("email", json!(["ann@acme.com"])));
    assert_eq!(issuers.verify(&token).await.err(), Some(Refused::Username));
}

#[test]
fn configurations_that_would_be_unsafe_are_named() {
    let hand = Hand::default();
    let message = |config: Value| {
        let config: IssuerConfig = match serde_json::from_value(config) {
            Ok(config) => config,
            Err(e) => return e.to_string(),
        };
        Issuers::new(vec![config], &at(&hand)).err().map(|e| e.message).unwrap_or_default()
    };
    let url = "it isn't an https URL without user, query and fragment";
    let cases = [
        (json!({"issuer": "https://a.example.com"}), "missing field `audiences`"),
        (json!({"issuer": "https://a.example.com", "audiences": []}), "it has no audience"),
        (json!({"issuer": "https://a.example.com", "audiences": [""]}), "it has no audience"),
        (json!({"issuer": "https://a.example.com", "audiences": ["a"], "algorithms": []}), "it has no algorithm"),
        (json!({"issuer": "https://a.example.com", "audiences": ["a"], "algorithms": ["HS256"]}), "unknown variant"),
        (json!({"issuer": "https://a.example.com", "audiences": ["a"], "algorithms": ["none"]}), "unknown variant"),
        (json!({"issuer": "https://a.example.com", "audiences": ["a"], "skipAudience": true}), "unknown field"),
        (json!({"issuer": "https://a.example.com", "audiences": ["a"], "usernameClaim": ""}), "its claim for names"),
        (json!({"issuer": "", "audiences": ["a"]}), "it is empty"),
        (json!({"issuer": "acme", "audiences": ["a"]}), url),
        (json!({"issuer": "http://a.example.com", "audiences": ["a"]}), url),
        (json!({"issuer": "https://u:p@a.example.com", "audiences": ["a"]}), url),
        (json!({"issuer": "https://a.example.com?x=1", "audiences": ["a"]}), url),
        (json!({"issuer": "https://a.example.com#x", "audiences": ["a"]}), url),
        (json!({"issuer": "acme", "audiences": ["a"], "keysFile": "/nowhere"}), "can't be read from `/nowhere`"),
    ];
    for (config, expected) in cases {
        let message = message(config.clone());
        assert!(message.contains(expected), "{config}: {message}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let with_file = json!({"issuer": "acme", "audiences": ["a"], "keysFile": file.path()});
    std::fs::write(file.path(), r#"{"keys":[{"kty":"oct","k":"AA"}]}"#).unwrap();
    assert!(message(with_file.clone()).contains("its file has no usable key"));
    std::fs::write(file.path(), Signer::ec("a").set()).unwrap();
    assert_eq!(message(with_file.clone()), "");
    let twice: IssuerConfig = serde_json::from_value(with_file).unwrap();
    let error = Issuers::new(vec![twice.clone(), twice], &at(&hand)).err().unwrap();
    assert!(error.message.contains("configured twice"), "{error}");
}

#[tokio::test]
async fn the_keys_of_a_file_verify() {
    let (hand, signer) = (Hand::default(), Signer::ec("a"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), signer.set()).unwrap();
    let config = json!({"issuer": "acme", "audiences": ["a"], "keysFile": file.path()});
    let issuers = Issuers::new(vec![serde_json::from_value(config).unwrap()], &at(&hand)).unwrap();
    let claims = json!({"iss": "acme", "aud": "a", "sub": "u", "exp": seconds() + 60}).to_string();
    let token = signer.token(r#"{"alg":"ES256","kid":"a"}"#, &claims);
    assert_eq!(issuers.verify(&token).await.unwrap().name, "acme#u");
    pass(&hand, 121);
    assert_eq!(issuers.verify(&token).await.err(), Some(Refused::Expired));
}
