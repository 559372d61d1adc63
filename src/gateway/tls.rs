//! The gateway's certificate, and clients' certificates.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::config::Tls;
use crate::engine::error::{Error, Result};

/// TLS for clients, from the files.
///
/// # Errors
/// A file can't be read, or isn't PEM, or key and certificate don't belong together.
pub fn server(files: &Tls) -> Result<Arc<ServerConfig>> {
    let unusable = |file: &std::path::Path, what: String| {
        Error::input(format!("{} can't be used: {what}", file.display()))
            .help("certificates and keys are files in PEM; the gateway's own certificate comes first")
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|e| unusable(&files.certificate, e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| unusable(&files.key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::bug(e.to_string()))?;
    let builder = match &files.client_authority {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            let found = CertificateDer::pem_file_iter(file).map_err(|e| unusable(file, e.to_string()))?;
            for certificate in found {
                let certificate = certificate.map_err(|e| unusable(file, e.to_string()))?;
                roots.add(certificate).map_err(|e| unusable(file, e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| unusable(file, e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| unusable(&files.certificate, e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS with a certificate that was just made.
///
/// # Errors
/// Key and certificate don't belong together.
pub fn with_certificate(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<ServerConfig>> {
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::bug(e.to_string()))?;
    let mut config =
        builder.with_no_client_auth().with_single_cert(chain, key).map_err(|e| Error::bug(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
