use clap::Args;
use serde_json::{Value, json};

use super::exit;
use crate::aws::{self, Access, Scope};
use crate::engine::clock::Clock;
use crate::engine::error::{Error, Result};
use crate::k8s;
use crate::run::Failure;
use crate::spec::region::partition_of;
use crate::ui::Ui;

/// The supported versions of kubectl's exec credential API, the default first.
const VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
/// kubectl passes the requested version in this environment variable (client-go, `pkg/apis/clientauthentication`).
const EXEC_INFO: &str = "KUBERNETES_EXEC_INFO";

#[derive(Debug, Args)]
pub struct Token {
    /// The name of the EKS cluster.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The region of the cluster.
    #[arg(long, env = "AWS_REGION")]
    region: String,
    /// The IAM role to assume first.
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
}

impl Token {
    /// Needs no spec, because kubectl calls it from any directory.
    pub async fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let version = asked_version(std::env::var(EXEC_INFO).ok().as_deref())?;
        let mut config =
            aws::load(&Access { region: self.region.clone(), ..Access::default() }, &Clock::real()).await?;
        if let Some(role) = &self.role_arn {
            config = aws::assume(&config, role).await?;
        }
        let partition = partition_of(&self.region).to_owned();
        let scope = Scope { account: String::new(), region: self.region, partition };
        let token = k8s::token(&config, &scope, &self.cluster).await?;
        let credential = json!({
            "kind": "ExecCredential",
            "apiVersion": version,
            "spec": {},
            "status": {
                "expirationTimestamp": token.expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "token": token.token,
            },
        });
        ui.print(&credential.to_string())?;
        Ok(exit::DONE)
    }
}

fn asked_version(info: Option<&str>) -> Result<&'static str> {
    let Some(info) = info.filter(|i| !i.trim().is_empty()) else { return Ok(VERSIONS[0]) };
    let info: Value = serde_json::from_str(info).map_err(|e| Error::input(format!("{EXEC_INFO} isn't JSON: {e}")))?;
    let asked = info.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    VERSIONS.into_iter().find(|v| *v == asked).ok_or_else(|| {
        Error::input(format!("{EXEC_INFO} asks for the API version `{asked}`, which is not supported"))
            .help(format!("set apiVersion of the user's exec in the kubeconfig to {}", VERSIONS.join(" or ")))
    })
}
