//! The file that `ringfence gateway --config` reads. Who a tenant's identities are stands in the spec, not here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::who::{self, AwsConfig, IssuerConfig};
use crate::engine::error::{Error, Result};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Address and port for tenants.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Address and port for `/livez`, `/readyz` and `/metrics`, over HTTP without authentication.
    #[serde(default = "default_status")]
    pub status: SocketAddr,
    pub tls: Tls,
    /// API servers, by the name of the pool or the id of the silo tenant.
    pub clusters: BTreeMap<String, ClusterConfig>,
    /// Identity providers, whose tokens are accepted.
    #[serde(default)]
    pub issuers: Vec<IssuerConfig>,
    /// Accept AWS identities.
    #[serde(default)]
    pub aws: Option<AwsConfig>,
    #[serde(default)]
    pub limits: Limits,
    /// The file to which audit lines are appended. The default is the standard output.
    #[serde(default)]
    pub audit: Option<PathBuf>,
    /// Where traces go. The variables `OTEL_*` say the rest. Read at the start only.
    #[serde(default)]
    pub traces: TracesConfig,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracesConfig {
    /// The URL of the collector, such as `https://collector.example:4318/v1/traces`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The authority of its certificate, a file in PEM. The default are the operating system's.
    #[serde(default)]
    pub certificate_authority: Option<PathBuf>,
    /// The share of requests that are recorded, from 0 to 1.
    #[serde(default)]
    pub ratio: Option<f64>,
}

/// Files in PEM. They are read again when they change.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// The gateway's certificate, followed by its chain.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authority of clients' certificates. Without it, no client can log in by certificate.
    #[serde(default)]
    pub client_authority: Option<PathBuf>,
}

/// An API server, and how the gateway logs in.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterConfig {
    /// The URL, such as `https://ABC.gr7.us-east-1.eks.amazonaws.com`.
    pub server: String,
    /// The authority of its certificate, a file in PEM.
    #[serde(default)]
    pub certificate_authority: Option<PathBuf>,
    /// A file with a bearer token, such as that of a service account. It is read again when it changes.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The name of the EKS cluster. The gateway logs in with tokens of its own AWS credentials.
    #[serde(default)]
    pub eks: Option<String>,
}

/// What one tenant may use at a time. Every tenant has the same limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    pub requests_per_second: u32,
    /// Requests above the rate that may come at once.
    pub burst: u32,
    /// Requests that run at the same time, without streams.
    pub concurrent: u32,
    /// Watches, followed logs and sessions in Pods.
    pub streams: u32,
    /// Bytes of a request's body. API servers take 3 MiB.
    pub body_bytes: usize,
    /// Seconds until a request's headers are there.
    pub header_seconds: u64,
    /// Seconds until a request's body is there.
    pub body_seconds: u64,
    /// Seconds until the API server's answer begins.
    pub answer_seconds: u64,
    /// Seconds after which a stream ends.
    pub stream_seconds: u64,
    /// Connections of all tenants.
    pub connections: usize,
    /// Seconds between the readiness probe's failure and the end of the listener, so that load balancers see it.
    pub drain_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_second: 100,
            burst: 200,
            concurrent: 100,
            streams: 200,
            body_bytes: 3 << 20,
            header_seconds: 10,
            body_seconds: 20,
            answer_seconds: 65,
            stream_seconds: 3600,
            connections: 20_000,
            drain_seconds: 5,
        }
    }
}

fn default_listen() -> SocketAddr {
    ([0, 0, 0, 0], 8443).into()
}

fn default_status() -> SocketAddr {
    ([127, 0, 0, 1], 9090).into()
}

impl Config {
    /// Reads the file. Relative paths in it begin at its directory.
    pub fn load(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .map_err(|e| Error::input(format!("the gateway's configuration {} can't be read: {e}", file.display())))?;
        let mut config: Self = serde_yaml::from_str(&text).map_err(|e| {
            let line = e.location().map_or(0, |at| at.line());
            Error::input(format!("{}:{line}: {}", file.display(), e.without_snippet()))
                .help("docs/gateway.md lists the fields")
        })?;
        config.check().map_err(|what| {
            Error::input(format!("{}: {what}", file.display())).help("docs/gateway.md lists the fields")
        })?;
        let base = file.parent().unwrap_or(Path::new("."));
        config.paths().into_iter().for_each(|path| *path = base.join(&*path));
        Ok(config)
    }

    /// The credentials that are accepted.
    pub fn who(&self) -> who::Config {
        who::Config { issuers: self.issuers.clone(), aws: self.aws.clone() }
    }

    /// All files but the audit log and tokens.
    pub fn files(&self) -> Vec<&PathBuf> {
        let Self { tls, clusters, issuers, .. } = self;
        let mut files = vec![&tls.certificate, &tls.key];
        files.extend(&tls.client_authority);
        files.extend(clusters.values().filter_map(|cluster| cluster.certificate_authority.as_ref()));
        for issuer in issuers {
            files.extend(issuer.keys_file.iter().chain(&issuer.certificate_authority));
        }
        files
    }

    /// All paths that the file names.
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let Self { tls, clusters, issuers, audit, traces, .. } = self;
        let mut paths = vec![&mut tls.certificate, &mut tls.key];
        paths.extend(tls.client_authority.as_mut());
        paths.extend(audit.as_mut());
        paths.extend(traces.certificate_authority.as_mut());
        for cluster in clusters.values_mut() {
            paths.extend(cluster.certificate_authority.as_mut());
            paths.extend(cluster.token_file.as_mut());
        }
        for issuer in issuers {
            paths.extend(issuer.keys_file.as_mut());
            paths.extend(issuer.certificate_authority.as_mut());
        }
        paths
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.clusters.is_empty() {
            return Err("`clusters` is empty".to_owned());
        }
        if self.issuers.is_empty() && self.aws.is_none() && self.tls.client_authority.is_none() {
            return Err("nobody could log in: set `issuers`, `aws` or `tls.clientAuthority`".to_owned());
        }
        for (name, cluster) in &self.clusters {
            if cluster.token_file.is_some() == cluster.eks.is_some() {
                return Err(format!("the cluster `{name}` needs exactly one of `tokenFile` and `eks`"));
            }
        }
        let Limits { requests_per_second, burst, concurrent, streams, body_bytes, connections, .. } = &self.limits;
        if [*requests_per_second, *burst, *concurrent, *streams].contains(&0) || *body_bytes == 0 || *connections == 0 {
            return Err("a limit of 0 would refuse everything".to_owned());
        }
        Ok(())
    }
}
