//! PodDisruptionBudgets that prevent the eviction of pods.

use serde_json::Value;

use crate::aws::Aws;
use crate::engine::error::Result;
use crate::k8s::client::Call;
use crate::k8s::{Clusters, Target};
use crate::kinds::aws::eks;

/// Help for pods whose eviction a PodDisruptionBudget prevents. If the cluster can be read, the help names the
/// budgets that allow no eviction.
pub(super) async fn budgets(aws: &Aws, clusters: &Clusters, cluster: &str) -> String {
    let after = "allow a disruption or add pods, then run the same command, which continues with the remaining nodes; ringfence never forces an eviction";
    match tight_budgets(aws, clusters, cluster).await.as_deref() {
        Ok([]) | Err(_) => format!(
            "a PodDisruptionBudget keeps pods on a node: `kubectl get pdb --all-namespaces` shows the budgets with 0 allowed disruptions; {after}"
        ),
        Ok(names) => format!("these PodDisruptionBudgets allow no eviction now: {}; {after}", names.join(", ")),
    }
}

/// `namespace/name` of each budget that allows no disruption.
async fn tight_budgets(aws: &Aws, clusters: &Clusters, name: &str) -> Result<Vec<String>> {
    let cluster = eks::cluster(aws, name).await?;
    let authority = cluster.as_ref().and_then(|c| c.certificate_authority()).and_then(|a| a.data());
    let target = Target {
        cluster: name,
        endpoint: cluster.as_ref().and_then(|c| c.endpoint()).unwrap_or_default(),
        certificate_authority: authority.unwrap_or_default(),
    };
    let cluster = clusters.get(target).await?;
    let all = cluster.call(&Call::get("list", "/apis/policy/v1/poddisruptionbudgets")).await?;
    let tight = |one: &&Value| one["status"]["disruptionsAllowed"] == 0 && one["status"]["expectedPods"] != 0;
    let text = |one: &Value, field: &str| one["metadata"][field].as_str().unwrap_or_default().to_owned();
    let all = all["items"].as_array().into_iter().flatten().filter(tight);
    Ok(all.map(|one| format!("{}/{}", text(one, "namespace"), text(one, "name"))).collect())
}
