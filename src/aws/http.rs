//! The one HTTPS client: proxies and certificate bundles from the environment.
//!
//! By default the SDK doesn't read proxy variables and doesn't know
//! `AWS_CA_BUNDLE`. Other AWS tools read both.

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::engine::error::{Error, Result};

/// `direct`: no proxy, even if the environment names one (for a sandbox on
/// loopback).
pub fn client(direct: bool) -> Result<SharedHttpClient> {
    let tls = tls()?;
    let proxy = proxy(direct);
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder().proxy_config(proxy.clone());
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(|c| c.sleep_impl()));
        if direct {
            // Requests to a sandbox use HTTP. Loading root certificates would take time for each client.
            return builder.build_http();
        }
        builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls.clone()).build()
    }))
}

/// The same connector, for requests without an SDK client.
pub fn connector(direct: bool) -> Result<Connector> {
    let builder = Connector::builder().proxy_config(proxy(direct));
    Ok(builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls()?).build())
}

fn proxy(direct: bool) -> ProxyConfig {
    if direct { ProxyConfig::disabled() } else { ProxyConfig::from_env() }
}

fn tls() -> Result<TlsContext> {
    let mut trust = TrustStore::default();
    if let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|p| !p.is_empty()) {
        let shown = path.to_string_lossy().into_owned();
        let pem = std::fs::read(&path).map_err(|e| {
            Error::input(format!("AWS_CA_BUNDLE names `{shown}`, which can't be read: {e}"))
                .help("point it at a PEM file, or unset it")
        })?;
        if CertificateDer::pem_slice_iter(&pem).next().is_none() {
            return Err(Error::input(format!("AWS_CA_BUNDLE names `{shown}`, which holds no PEM certificate"))
                .help("point it at a PEM file, or unset it"));
        }
        trust = trust.with_pem_certificate(pem);
    }
    TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|e| Error::input(format!("the TLS configuration can't be used: {e}")))
}
