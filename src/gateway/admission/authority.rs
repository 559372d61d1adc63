//! The webhook's certificates.
//!
//! One Secret holds the authorities with their keys. All replicas read it. Each makes its own certificate for TLS, and
//! keeps the key in memory. API servers trust all authorities of the Secret, by `caBundle`.
//!
//! A new authority joins after two thirds of the last one's life. It signs only after [`HEAD_START`], when all API servers
//! know it. The old one leaves at its end. So no certificate is used that an API server doesn't know yet.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// The life of an authority.
const LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);
/// The life of a certificate. A replica makes a new one after half of it.
const CERTIFICATE_LIFE: SignedDuration = SignedDuration::from_hours(24 * 14);
/// From the moment at which an authority is published to its first signature.
const HEAD_START: SignedDuration = DAY;
/// Clocks may differ by this much.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// The Secret's keys. The certificates and the keys have the same order.
const CERTIFICATES: &str = "ca.crt";
const KEYS: &str = "ca.key";

/// The authorities, from the oldest to the newest.
#[derive(Debug, Default)]
pub struct Authorities(Vec<Authority>);

#[derive(Debug)]
struct Authority {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    from: Timestamp,
    until: Timestamp,
}

/// A certificate for TLS.
pub struct Certificate {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// The authority that signed it.
    signer: CertificateDer<'static>,
    renew: Timestamp,
}

type Result<T> = std::result::Result<T, String>;

impl Authorities {
    /// The authorities of a Secret. Empty if it has none yet.
    ///
    /// # Errors
    /// The Secret has something else.
    pub fn read(secret: &Value) -> Result<Self> {
        let field = |name: &str| -> Result<Vec<u8>> {
            let text = secret.pointer(&format!("/data/{name}")).and_then(Value::as_str).unwrap_or_default();
            STANDARD.decode(text).map_err(|e| format!("{name} isn't base64: {e}"))
        };
        let (certificates, keys) = (field(CERTIFICATES)?, field(KEYS)?);
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificates)
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| format!("{CERTIFICATES}: {e}"))?;
        let keys: Vec<PrivatePkcs8KeyDer<'static>> = PrivatePkcs8KeyDer::pem_slice_iter(&keys)
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| format!("{KEYS}: {e}"))?;
        if certificates.len() != keys.len() {
            return Err(format!("it has {} certificates and {} keys", certificates.len(), keys.len()));
        }
        let pairs = certificates.into_iter().zip(keys).map(|(certificate, key)| Authority::new(certificate, key));
        let mut all = pairs.collect::<Result<Vec<_>>>()?;
        all.sort_by_key(|authority| authority.from);
        Ok(Self(all))
    }

    /// Drops authorities at their end, and adds one in time. Returns whether something changed.
    ///
    /// # Errors
    /// A key can't be made.
    pub fn renew(&mut self, now: Timestamp) -> Result<bool> {
        let before = self.0.len();
        self.0.retain(|authority| now < authority.until);
        let is_due = self.0.last().is_none_or(|newest| {
            let life = newest.until.duration_since(newest.from);
            now.duration_since(newest.from) >= life * 2 / 3
        });
        if is_due {
            self.0.push(Authority::make(now)?);
        }
        Ok(is_due || self.0.len() != before)
    }

    /// The `data` of the Secret.
    pub fn data(&self) -> Value {
        let keys: String =
            self.0.iter().map(|authority| pem("PRIVATE KEY", authority.key.secret_pkcs8_der())).collect();
        json!({CERTIFICATES: self.bundle(), KEYS: STANDARD.encode(keys)})
    }

    /// The `caBundle` of a webhook: certificates in PEM, in base64.
    pub fn bundle(&self) -> String {
        let all: String = self.0.iter().map(|authority| pem("CERTIFICATE", &authority.certificate)).collect();
        STANDARD.encode(all)
    }

    /// The newest authority that API servers know. The first one has nobody before it.
    fn signer(&self, now: Timestamp) -> Option<&Authority> {
        let known = self.0.iter().rev().find(|authority| now.duration_since(authority.from) >= SKEW + HEAD_START);
        known.or_else(|| self.0.first())
    }

    /// A new certificate, if `last` is none that can go on.
    ///
    /// # Errors
    /// There is no authority, or a name can't be in a certificate.
    pub fn certificate(
        &self,
        names: &[String],
        last: Option<&Certificate>,
        now: Timestamp,
    ) -> Result<Option<Certificate>> {
        let signer = self.signer(now).ok_or("there is no authority")?;
        if last.is_some_and(|last| last.signer == signer.certificate && now < last.renew) {
            return Ok(None);
        }
        signer.sign(names, now).map(Some)
    }
}

impl Authority {
    fn new(certificate: CertificateDer<'static>, key: PrivatePkcs8KeyDer<'static>) -> Result<Self> {
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|e| format!("{CERTIFICATES}: {e}"))?;
        let moment = |seconds: i64| Timestamp::from_second(seconds).map_err(|e| e.to_string());
        let validity = parsed.validity();
        let (from, until) = (moment(validity.not_before.timestamp())?, moment(validity.not_after.timestamp())?);
        Ok(Self { certificate, key, from, until })
    }

    fn make(now: Timestamp) -> Result<Self> {
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let mut params = params(now, now + LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(|e| e.to_string())?;
        Self::new(certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()))
    }

    fn sign(&self, names: &[String], now: Timestamp) -> Result<Certificate> {
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let until = self.until.min(now + CERTIFICATE_LIFE);
        let mut params = params(now, until)?;
        let alternatives = CertificateParams::new(names).map_err(|e| e.to_string())?.subject_alt_names;
        params.subject_alt_names = alternatives;
        params.distinguished_name.push(DnType::CommonName, "ringfence admission webhook");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let own = KeyPair::try_from(&self.key).map_err(|e| format!("{KEYS}: {e}"))?;
        let issuer = Issuer::new(self::params(self.from, self.until)?, own);
        let certificate = params.signed_by(&key, &issuer).map_err(|e| e.to_string())?;
        Ok(Certificate {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            signer: self.certificate.clone(),
            renew: now + until.duration_since(now) / 2,
        })
    }
}

fn params(from: Timestamp, until: Timestamp) -> Result<CertificateParams> {
    let moment = |at: Timestamp| -> Result<_> {
        let seconds = u64::try_from(at.as_second()).map_err(|e| e.to_string())?;
        Ok(date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds))
    };
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "ringfence admission authority");
    params.distinguished_name = name;
    params.not_before = moment(from - SKEW)?;
    params.not_after = moment(until)?;
    Ok(params)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).filter_map(|at| text.get(at..text.len().min(at + 64))).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn start() -> Timestamp {
        "2026-12-01T00:00:00Z".parse().unwrap()
    }

    fn names() -> Vec<String> {
        vec!["webhook.ringfence-admission.svc".to_owned()]
    }

    /// The certificates of a bundle.
    fn count(authorities: &Authorities) -> usize {
        let text = String::from_utf8(STANDARD.decode(authorities.bundle()).unwrap()).unwrap();
        text.matches("BEGIN CERTIFICATE").count()
    }

    /// As another replica reads them.
    fn read(authorities: &Authorities) -> Authorities {
        Authorities::read(&json!({"data": authorities.data()})).unwrap()
    }

    /// Three years, looked at every six hours by a replica that reads the Secret each time. Whatever was trusted six
    /// hours ago has signed the certificate, and is still trusted.
    #[test]
    fn a_certificate_is_always_from_an_authority_that_was_known_before() {
        let mut secret = json!({});
        let (mut served, mut trusted, mut made) = (None::<Certificate>, Vec::new(), 0);
        for quarter in 0..(3 * 365 * 4) {
            let now = start() + SignedDuration::from_hours(6 * quarter);
            let mut authorities = Authorities::read(&secret).unwrap();
            if authorities.renew(now).unwrap() {
                secret = json!({"data": authorities.data()});
            }
            assert!((1..=2).contains(&count(&authorities)), "{now}");
            if let Some(next) = authorities.certificate(&names(), served.as_ref(), now).unwrap() {
                made += 1;
                served = Some(next);
            }
            let signer = &served.as_ref().unwrap().signer;
            let now_trusted: Vec<_> = authorities.0.iter().map(|authority| authority.certificate.clone()).collect();
            assert!(now_trusted.contains(signer), "{now}: the signer isn't trusted any more");
            assert!(quarter == 0 || trusted.contains(signer), "{now}: the signer wasn't trusted before");
            let (_, leaf) = X509Certificate::from_der(&served.as_ref().unwrap().chain[0]).unwrap();
            let seconds = now.as_second();
            assert!(
                leaf.validity().not_before.timestamp() <= seconds && seconds < leaf.validity().not_after.timestamp()
            );
            trusted = now_trusted;
        }
        assert!((150..170).contains(&made), "{made} certificates in three years");
    }

    #[test]
    fn a_certificate_is_for_the_webhooks_name() {
        let mut authorities = Authorities::default();
        assert!(authorities.certificate(&names(), None, start()).is_err());
        assert!(authorities.renew(start()).unwrap());
        assert!(!authorities.renew(start()).unwrap());
        let made = read(&authorities).certificate(&names(), None, start()).unwrap().unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authorities.0[0].certificate.clone()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let verify = |name: &str, at: Timestamp| {
            use rustls::client::danger::ServerCertVerifier;
            let time = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(
                u64::try_from(at.as_second()).unwrap(),
            ));
            verifier.verify_server_cert(&made.chain[0], &[], &name.try_into().unwrap(), &[], time).is_ok()
        };
        assert!(verify("webhook.ringfence-admission.svc", start()));
        assert!(!verify("other.ringfence-admission.svc", start()));
        assert!(!verify("webhook.ringfence-admission.svc", start() + CERTIFICATE_LIFE + DAY));
    }

    #[test]
    fn a_secret_with_something_else_is_an_error() {
        for data in [
            json!({"ca.crt": "%"}),
            json!({"ca.crt": STANDARD.encode("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}),
        ] {
            assert!(Authorities::read(&json!({"data": data})).is_err(), "{data}");
        }
        let mut one = Authorities::default();
        one.renew(start()).unwrap();
        let mut data = one.data();
        data["ca.key"] = Value::Null;
        assert!(Authorities::read(&json!({"data": data})).is_err());
        assert!(Authorities::read(&json!({"data": {}})).unwrap().0.is_empty());
    }
}
