//! The file that `ringfence gateway --admission --config` reads.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::engine::error::{Error, Result};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Address and port for the API server.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Address and port for `/livez`, `/readyz` and `/metrics`, over HTTP without authentication.
    #[serde(default = "default_status")]
    pub status: SocketAddr,
    /// The cluster's admission policies and bindings, in YAML or JSON.
    pub policies: PathBuf,
    /// Whether to fill in templates of Pods, too: before Kubernetes 1.36, the cluster's own policies demand it.
    #[serde(default)]
    pub templates: bool,
    /// The names under which API servers reach the webhook, such as `admission.ringfence-admission.svc`.
    pub names: Vec<String>,
    /// The Secret with the authority of the webhook's certificates.
    pub secret: Place,
    /// The name of the MutatingWebhookConfiguration and of the ValidatingWebhookConfiguration.
    pub configuration: String,
    /// The API server's URL.
    #[serde(default = "default_server")]
    pub server: String,
    /// The authority of its certificate, a file in PEM.
    #[serde(default = "default_authority")]
    pub certificate_authority: PathBuf,
    /// The file with the service account's token.
    #[serde(default = "default_token")]
    pub token_file: PathBuf,
    /// Seconds between the readiness probe's failure and the end of the listener.
    #[serde(default = "default_drain")]
    pub drain_seconds: u64,
}

/// An object in a namespace.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub namespace: String,
    pub name: String,
}

fn default_listen() -> SocketAddr {
    ([0, 0, 0, 0], 9443).into()
}

fn default_status() -> SocketAddr {
    ([0, 0, 0, 0], 9090).into()
}

fn default_server() -> String {
    "https://kubernetes.default.svc".to_owned()
}

/// Where the kubelet puts the files of a service account ("Managing Service Accounts" of the Kubernetes documentation).
fn account(file: &str) -> PathBuf {
    Path::new("/var/run/secrets/kubernetes.io/serviceaccount").join(file)
}

fn default_authority() -> PathBuf {
    account("ca.crt")
}

fn default_token() -> PathBuf {
    account("token")
}

fn default_drain() -> u64 {
    5
}

impl Config {
    /// Reads the file. Relative paths in it begin at its directory.
    ///
    /// # Errors
    /// The file can't be read, or has other fields.
    pub fn load(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .map_err(|e| Error::input(format!("the webhook's configuration {} can't be read: {e}", file.display())))?;
        let help = "docs/webhook.md lists the fields";
        let mut config: Self = serde_yaml::from_str(&text).map_err(|e| {
            let line = e.location().map_or(0, |at| at.line());
            Error::input(format!("{}:{line}: {}", file.display(), e.without_snippet())).help(help)
        })?;
        if config.names.is_empty() {
            return Err(Error::input(format!(
                "{}: `names` is empty, so no API server could check the webhook's certificate",
                file.display()
            ))
            .help(help));
        }
        let base = file.parent().unwrap_or(Path::new("."));
        for path in [&mut config.policies, &mut config.certificate_authority, &mut config.token_file] {
            *path = base.join(&*path);
        }
        Ok(config)
    }
}
