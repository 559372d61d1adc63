//! Client certificates. rustls has verified the chain and the possession of the key. This module reads the names
//! (RFC 5280).

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::refused::Refused;
use super::{Identity, Proof};

/// The identity of a verified certificate, at the time `now`: rustls checks the dates only once, and a connection may
/// outlive the certificate.
pub(super) fn identity(der: &CertificateDer, now: Timestamp) -> Result<Identity, Refused> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Refused::CertificateMalformed)?;
    if !rest.is_empty() {
        return Err(Refused::CertificateMalformed);
    }
    let date = |seconds: i64| Timestamp::from_second(seconds).map_err(|_| Refused::CertificateMalformed);
    let validity = certificate.validity();
    let (begins, expires) = (date(validity.not_before.timestamp())?, date(validity.not_after.timestamp())?);
    if now < begins {
        return Err(Refused::NotYetValid);
    }
    if now > expires {
        return Err(Refused::Expired);
    }
    if !is_for_clients(&certificate)? {
        return Err(Refused::CertificateUsage);
    }
    let (common_name, uris) = (common_name(&certificate)?, uris(&certificate)?);
    let name = uris.first().or(common_name.as_ref()).ok_or(Refused::CertificateName)?.clone();
    Ok(Identity { name, proof: Proof::Certificate { common_name, uris }, expires: Some(expires) })
}

/// The usage must be named. rustls accepts a certificate without any, and certificates of servers often have none.
fn is_for_clients(certificate: &X509Certificate) -> Result<bool, Refused> {
    let malformed = |_| Refused::CertificateMalformed;
    let signs = certificate.key_usage().map_err(malformed)?.is_none_or(|usage| usage.value.digital_signature());
    let for_clients = certificate.extended_key_usage().map_err(malformed)?.is_some_and(|usage| usage.value.client_auth);
    let mut is_authority = false;
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => is_authority |= constraints.ca,
            ParsedExtension::ParseError { .. } => return Err(Refused::CertificateMalformed),
            _ => {}
        }
    }
    Ok(signs && for_clients && !is_authority)
}

/// With several common names, programs differ about the one that counts.
fn common_name(certificate: &X509Certificate) -> Result<Option<String>, Refused> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (None, _) => Ok(None),
        (Some(name), None) => text(name.as_str().map_err(|_| Refused::CertificateName)?).map(Some),
        _ => Err(Refused::CertificateName),
    }
}

fn uris(certificate: &X509Certificate) -> Result<Vec<String>, Refused> {
    let names = certificate.subject_alternative_name().map_err(|_| Refused::CertificateMalformed)?;
    let names = names.map(|extension| &extension.value.general_names[..]).unwrap_or_default();
    let mut uris = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(text(uri)?),
            GeneralName::Invalid(..) => return Err(Refused::CertificateMalformed),
            _ => {}
        }
    }
    // SPIFFE X.509-SVID, 2: "An X.509 SVID MUST contain exactly one URI SAN".
    let spiffe = uris.iter().filter(|u| u.get(..9).is_some_and(|s| s.eq_ignore_ascii_case("spiffe://"))).count();
    if spiffe > 1 || spiffe == 1 && uris.len() > 1 { Err(Refused::CertificateName) } else { Ok(uris) }
}

/// A name that is safe in a log, and that ends where it seems to end.
fn text(name: &str) -> Result<String, Refused> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(Refused::CertificateName);
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        KeyUsagePurpose, SanType, date_time_ymd,
    };

    use super::*;

    const URI: &str = "spiffe://acme.com/tenant/blue";

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "blue-ci");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(URI.try_into().unwrap())];
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 2, 1);
        params
    }

    fn ask(params: CertificateParams, now: &str) -> Result<Identity, Refused> {
        let key = KeyPair::generate().unwrap();
        identity(params.self_signed(&key).unwrap().der(), now.parse().unwrap())
    }

    fn with(change: impl FnOnce(&mut CertificateParams)) -> Result<Identity, Refused> {
        let mut params = params();
        change(&mut params);
        ask(params, "2026-01-15T00:00:00Z")
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn names_are_the_common_name_and_the_uris() {
        let identity =
            with(|p| p.subject_alt_names.push(SanType::DnsName("blue.acme.com".try_into().unwrap()))).unwrap();
        assert_eq!(identity.name, URI);
        assert_eq!(identity.expires, Some("2026-02-01T00:00:00Z".parse().unwrap()));
        let proof = Proof::Certificate { common_name: Some("blue-ci".to_owned()), uris: vec![URI.to_owned()] };
        assert_eq!(identity.proof, proof);
        assert_eq!(with(|p| p.subject_alt_names.clear()).unwrap().name, "blue-ci");
        let two = with(|p| p.subject_alt_names = vec![uri("https://acme.com/a"), uri("https://acme.com/b")]).unwrap();
        assert_eq!(two.name, "https://acme.com/a");
    }

    #[test]
    fn a_usage_other_than_client_authentication_is_refused() {
        let refused = Err(Refused::CertificateUsage);
        assert_eq!(with(|p| p.extended_key_usages.clear()), refused);
        assert_eq!(with(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]), refused);
        assert_eq!(with(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]), refused);
        assert_eq!(with(|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]), refused);
        assert_eq!(with(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), refused);
        let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        assert!(with(|p| p.extended_key_usages = both).is_ok());
        assert!(with(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]).is_ok());
    }

    #[test]
    fn dates_are_checked_on_each_request() {
        let cases = [
            ("2025-12-31T23:59:59Z", Some(Refused::NotYetValid)),
            ("2026-01-01T00:00:00Z", None),
            ("2026-02-01T00:00:00Z", None),
            ("2026-02-01T00:00:01Z", Some(Refused::Expired)),
        ];
        for (now, refused) in cases {
            assert_eq!(ask(params(), now).err(), refused, "{now}");
        }
    }

    #[test]
    fn ambiguous_and_unsafe_names_are_refused() {
        let refused = Err(Refused::CertificateName);
        // `DistinguishedName` keeps one value for each type, so the second name has its type by number.
        let twice = |p: &mut CertificateParams| {
            p.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "green-ci");
            p.distinguished_name.push(DnType::CommonName, "blue-ci");
        };
        assert_eq!(with(twice), refused);
        assert_eq!(with(|p| p.distinguished_name.push(DnType::CommonName, "blue\nuser=admin")), refused);
        assert_eq!(with(|p| p.distinguished_name.push(DnType::CommonName, "blue\0.green")), refused);
        assert_eq!(with(|p| p.distinguished_name.push(DnType::CommonName, "")), refused);
        assert_eq!(with(|p| p.subject_alt_names.push(uri("spiffe://acme.com/tenant/green"))), refused);
        assert_eq!(with(|p| p.subject_alt_names.push(uri("https://acme.com/"))), refused);
        assert_eq!(with(|p| p.subject_alt_names.push(uri(""))), refused);
        assert_eq!(with(|p| p.subject_alt_names.push(uri("https://a\n"))), refused);
        let nameless = |p: &mut CertificateParams| {
            p.distinguished_name = DistinguishedName::new();
            p.subject_alt_names.clear();
        };
        assert_eq!(with(nameless), refused);
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        let key = KeyPair::generate().unwrap();
        let der = params().self_signed(&key).unwrap().der().to_vec();
        let now = "2026-01-15T00:00:00Z".parse().unwrap();
        let texts = [vec![], b"certificate".to_vec(), der[..der.len() - 1].to_vec(), [&der[..], &[0]].concat()];
        for text in texts {
            assert_eq!(identity(&CertificateDer::from(text), now), Err(Refused::CertificateMalformed));
        }
    }
}
