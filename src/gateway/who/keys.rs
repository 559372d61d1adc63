//! The public keys of an issuer: a JSON Web Key Set (RFC 7517, RFC 7518 section 6).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// RFC 7518, 3.3: "A key of size 2048 bits or larger MUST be used with these algorithms."
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// How a token may be signed. All algorithms have a public key: a shared secret (`HS256`) can be stolen from the
/// verifier, and is confused with a public key in attacks (RFC 8725, 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// The names and the types of algorithms. The list is the only way from a token's text to an algorithm.
const ALGORITHMS: [(&str, Algorithm, jsonwebtoken::Algorithm); 9] = [
    ("RS256", Algorithm::Rs256, jsonwebtoken::Algorithm::RS256),
    ("RS384", Algorithm::Rs384, jsonwebtoken::Algorithm::RS384),
    ("RS512", Algorithm::Rs512, jsonwebtoken::Algorithm::RS512),
    ("PS256", Algorithm::Ps256, jsonwebtoken::Algorithm::PS256),
    ("PS384", Algorithm::Ps384, jsonwebtoken::Algorithm::PS384),
    ("PS512", Algorithm::Ps512, jsonwebtoken::Algorithm::PS512),
    ("ES256", Algorithm::Es256, jsonwebtoken::Algorithm::ES256),
    ("ES384", Algorithm::Es384, jsonwebtoken::Algorithm::ES384),
    ("EdDSA", Algorithm::EdDsa, jsonwebtoken::Algorithm::EdDSA),
];

impl Algorithm {
    /// The algorithm of a name of RFC 7518. `None` for `none`, `HS256` and any other text.
    pub(super) fn named(name: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|(n, ..)| *n == name).map(|(_, algorithm, _)| *algorithm)
    }
}

/// The outcome of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Verified,
    /// The key doesn't fit the signature.
    Wrong,
    /// There is no key with that id and for that algorithm.
    NoKey,
}

/// The usable keys of one issuer.
#[derive(Default)]
pub(super) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    fits: Vec<Algorithm>,
    public: DecodingKey,
}

/// Fields of a JSON Web Key. The fields of private and of shared keys are known in order to refuse them.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<Value>,
    k: Option<Value>,
}

impl KeySet {
    /// The keys of a JWKS document. `None` if `document` is no such document. Keys that can't be used are left out: an
    /// issuer may publish keys of other kinds beside. An empty set is a statement, too: no token is valid any more.
    pub(super) fn read(document: &[u8]) -> Option<Self> {
        let document: Map<String, Value> = serde_json::from_slice(document).ok()?;
        let Some(Value::Array(keys)) = document.get("keys") else { return None };
        let jwks = keys.iter().filter_map(|key| Jwk::deserialize(key).ok());
        Some(Self(jwks.filter_map(|jwk| jwk.usable()).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Verifies `signature`, which is base64url, of `message`. Without a key id, the set must have exactly one key for
    /// the algorithm: with several, somebody could choose among them.
    pub(super) fn verify(&self, id: Option<&str>, algorithm: Algorithm, message: &[u8], signature: &str) -> Outcome {
        let fits = |key: &&Key| key.fits.contains(&algorithm) && (id.is_none() || key.id.as_deref() == id);
        let keys: Vec<_> = self.0.iter().filter(fits).collect();
        if keys.is_empty() || (id.is_none() && keys.len() > 1) {
            return Outcome::NoKey;
        }
        let Some((.., native)) = ALGORITHMS.iter().find(|(_, a, _)| *a == algorithm) else { return Outcome::NoKey };
        let verified = |key: &&Key| {
            jsonwebtoken::crypto::verify(signature, message, &key.public, *native).is_ok_and(|verified| verified)
        };
        if keys.iter().any(verified) { Outcome::Verified } else { Outcome::Wrong }
    }
}

impl Jwk {
    fn usable(self) -> Option<Key> {
        // Anybody can sign with a private or a shared key that is published.
        if self.d.is_some() || self.k.is_some() {
            return None;
        }
        if self.usage.is_some_and(|u| u != "sig") || self.key_ops.is_some_and(|o| !o.iter().any(|o| o == "verify")) {
            return None;
        }
        let curve = self.crv.as_deref();
        let (mut fits, public) = match (self.kty.as_str(), curve) {
            ("RSA", _) => {
                let (n, e) = (number(&self.n?)?, number(&self.e?)?);
                let bits = (n.len() * 8).checked_sub(n.first()?.leading_zeros() as usize)?;
                let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
                // RFC 8017, 3.1: the exponent is between 3 and n - 1. Longer than 4 bytes, it only costs time.
                if !RSA_BITS.contains(&bits) || !odd(&n) || !odd(&e) || e == [1] || e.len() > 4 {
                    return None;
                }
                let fits = &[
                    Algorithm::Rs256,
                    Algorithm::Rs384,
                    Algorithm::Rs512,
                    Algorithm::Ps256,
                    Algorithm::Ps384,
                    Algorithm::Ps512,
                ][..];
                (fits.to_vec(), DecodingKey::from_rsa_raw_components(&n, &e))
            }
            ("EC", Some("P-256")) => (vec![Algorithm::Es256], point(&self.x?, &self.y?, 32)?),
            ("EC", Some("P-384")) => (vec![Algorithm::Es384], point(&self.x?, &self.y?, 48)?),
            ("OKP", Some("Ed25519")) => {
                let x = self.x.filter(|x| URL_SAFE_NO_PAD.decode(x).is_ok_and(|x| x.len() == 32))?;
                (vec![Algorithm::EdDsa], DecodingKey::from_ed_components(&x).ok()?)
            }
            _ => return None,
        };
        // RFC 8725, 3.1: "Each key MUST be used with exactly one algorithm."
        if let Some(alg) = self.alg {
            fits.retain(|algorithm| Algorithm::named(&alg) == Some(*algorithm));
        }
        if fits.is_empty() { None } else { Some(Key { id: self.kid, fits, public }) }
    }
}

/// A number without its leading zeros.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let first = bytes.iter().position(|b| *b != 0)?;
    Some(bytes.get(first..)?.to_vec())
}

/// RFC 7518, 6.2.1.2: a coordinate has the full length of the curve.
fn point(x: &str, y: &str, length: usize) -> Option<DecodingKey> {
    let full = |text: &str| URL_SAFE_NO_PAD.decode(text).is_ok_and(|c| c.len() == length);
    if full(x) && full(y) { DecodingKey::from_ec_components(x, y).ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::gateway::who::testing::{Signer, keys_of, rsa};

    fn with(mut jwk: Value, name: &str, value: Value) -> Value {
        jwk[name] = value;
        jwk
    }

    fn usable(jwk: Value) -> usize {
        KeySet::read(&serde_json::to_vec(&json!({"keys": [jwk]})).unwrap()).unwrap().0.len()
    }

    #[test]
    fn names_of_algorithms_are_exact() {
        assert_eq!(Algorithm::named("ES256"), Some(Algorithm::Es256));
        for name in
            ["none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "es256", "ES256 ", "", "RSA-OAEP", "ES512"]
        {
            assert_eq!(Algorithm::named(name), None, "{name}");
            assert!(serde_json::from_value::<Algorithm>(name.into()).is_err(), "{name}");
        }
        for (name, algorithm, _) in ALGORITHMS {
            assert_eq!(serde_json::from_value::<Algorithm>(name.into()).unwrap(), algorithm, "{name}");
        }
    }

    #[test]
    fn keys_that_are_not_for_signatures_of_strong_algorithms_are_ignored() {
        let (ec, strong) = (Signer::ec("a").jwk, rsa("a").jwk);
        let weak = |bytes: usize| with(strong.clone(), "n", URL_SAFE_NO_PAD.encode(vec![0xff; bytes]).into());
        let cases = [
            (ec.clone(), 1),
            (strong.clone(), 1),
            (with(ec.clone(), "use", "sig".into()), 1),
            (with(ec.clone(), "use", "enc".into()), 0),
            (with(ec.clone(), "key_ops", json!(["verify"])), 1),
            (with(ec.clone(), "key_ops", json!(["encrypt", "wrapKey"])), 0),
            (with(ec.clone(), "alg", "ES256".into()), 1),
            (with(ec.clone(), "alg", "ES384".into()), 0),
            (with(ec.clone(), "alg", "HS256".into()), 0),
            (with(strong.clone(), "alg", "RSA-OAEP".into()), 0),
            (with(ec.clone(), "crv", "P-384".into()), 0),
            (with(ec.clone(), "crv", "secp256k1".into()), 0),
            (with(ec.clone(), "kty", "oct".into()), 0),
            (with(ec.clone(), "d", "AQAB".into()), 0),
            (with(ec.clone(), "k", "AQAB".into()), 0),
            (with(ec.clone(), "x", "AQAB".into()), 0),
            (with(ec.clone(), "kid", 7.into()), 0),
            (json!({"kty": "oct", "kid": "a", "k": "c2VjcmV0", "alg": "HS256"}), 0),
            (weak(64), 0),
            (weak(128), 0),
            (weak(255), 0),
            (weak(256), 1),
            (weak(512), 1),
            (weak(513), 0),
            // 2048 bits by the text's length, 1024 by value.
            (with(strong.clone(), "n", URL_SAFE_NO_PAD.encode([[0; 128], [0xff; 128]].concat()).into()), 0),
            (with(strong.clone(), "e", "AQ".into()), 0),
            (with(strong.clone(), "e", "AA".into()), 0),
            (with(strong.clone(), "e", "Ag".into()), 0),
            (with(strong.clone(), "e", "".into()), 0),
            (with(strong, "e", "////".into()), 0),
            (json!("a"), 0),
            (json!({}), 0),
        ];
        for (jwk, count) in cases {
            assert_eq!(usable(jwk.clone()), count, "{jwk}");
        }
    }

    #[test]
    fn one_bad_key_does_not_hide_the_others() {
        let signer = Signer::ec("good");
        let document = json!({"keys": [{"kty": 1}, {"kty": "oct", "k": "AA"}, signer.jwk, null]});
        let keys = KeySet::read(&serde_json::to_vec(&document).unwrap()).unwrap();
        let signature = signer.signature(b"message");
        assert_eq!(keys.verify(Some("good"), Algorithm::Es256, b"message", &signature), Outcome::Verified);
    }

    #[test]
    fn a_document_of_another_kind_is_none() {
        for text in ["", "[]", "{}", "{\"keys\":{}}", "<html>", "{\"keys\":[]"] {
            assert!(KeySet::read(text.as_bytes()).is_none(), "{text}");
        }
        assert!(KeySet::read(b"{\"keys\":[]}").unwrap().is_empty());
    }

    #[test]
    fn an_id_selects_by_exact_match_and_the_algorithm_must_fit() {
        let (a, b, r) = (Signer::ec("a"), Signer::ec("b"), rsa("r"));
        let keys = keys_of(&[&a, &b, &r]);
        let signature = a.signature(b"message");
        let cases = [
            (Some("a"), Algorithm::Es256, Outcome::Verified),
            (Some("b"), Algorithm::Es256, Outcome::Wrong),
            (Some("A"), Algorithm::Es256, Outcome::NoKey),
            (Some("a "), Algorithm::Es256, Outcome::NoKey),
            (Some(""), Algorithm::Es256, Outcome::NoKey),
            (Some("../../a"), Algorithm::Es256, Outcome::NoKey),
            (Some("a"), Algorithm::Es384, Outcome::NoKey),
            (Some("a"), Algorithm::Rs256, Outcome::NoKey),
            (Some("r"), Algorithm::Es256, Outcome::NoKey),
            (Some("r"), Algorithm::Ps256, Outcome::Wrong),
            (None, Algorithm::Es256, Outcome::NoKey),
        ];
        for (id, algorithm, outcome) in cases {
            assert_eq!(keys.verify(id, algorithm, b"message", &signature), outcome, "{id:?} {algorithm:?}");
        }
        let signature = r.signature(b"message");
        assert_eq!(keys.verify(None, Algorithm::Rs256, b"message", &signature), Outcome::Verified);
        assert_eq!(keys.verify(None, Algorithm::Rs384, b"message", &signature), Outcome::Wrong);
        for signature in ["", "AAAA", &format!("{signature}="), &format!(" {signature}"), &signature[1..]] {
            assert_eq!(keys.verify(Some("r"), Algorithm::Rs256, b"message", signature), Outcome::Wrong);
        }
    }

    #[test]
    fn two_keys_of_one_id_are_both_tried() {
        let (old, new) = (Signer::ec("a"), Signer::ec("a"));
        let keys = keys_of(&[&old, &new]);
        for signer in [old, new] {
            let signature = signer.signature(b"m");
            assert_eq!(keys.verify(Some("a"), Algorithm::Es256, b"m", &signature), Outcome::Verified);
        }
    }

    /// Signatures that nothing here has made: RFC 7515, A.3, and RFC 8037, A.4.
    #[test]
    fn the_examples_of_the_standards_verify() {
        let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        let examples = [
            (
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}),
                Algorithm::Es256,
                "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
                Algorithm::EdDsa,
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ];
        for (jwk, algorithm, message, signature) in examples {
            let keys = KeySet::read(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
            let verify = |message: &str| keys.verify(None, algorithm, message.as_bytes(), signature);
            assert_eq!(verify(message), Outcome::Verified, "{algorithm:?}");
            assert_eq!(verify(&message[1..]), Outcome::Wrong, "{algorithm:?}");
        }
    }
}
