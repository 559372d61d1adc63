//! Access entries that EKS makes for the roles of nodes. EKS keeps an entry after the nodes are deleted. An entry works
//! only for the role that it was made for. ringfence deletes such entries, so that nodes with a new role of the same
//! name can join.

use aws_sdk_eks::types::AccessEntry as Entry;
use aws_smithy_types::DateTime;

use super::eks::optional;
use crate::arn::name_in;
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::{Class, Result};

/// The type of access entries for people and programs. Nodes have other types.
pub(super) const STANDARD: &str = "STANDARD";

/// Deletes the entry that EKS created for an earlier role with the same ARN. EKS keeps the entries of nodes, and an
/// entry works only for the role that it was created for. Nodes with the new role could never join the cluster
/// (terraform-aws-eks issue 3329). EKS creates a new entry with the node group or Fargate profile.
pub(super) async fn forget_stale(aws: &Aws, cluster: &str, role: &str) -> Result<()> {
    let entry = match entry(aws, cluster, role).await {
        Ok(Some(entry)) if entry.r#type() != Some(STANDARD) => entry,
        Ok(_) => return Ok(()),
        // If this read fails, the call that follows reports the error.
        Err(error) if error.class == Class::Unreachable => return Ok(()),
        Err(error) => return Err(error),
    };
    let answer = aws.iam.get_role().role_name(name_in(role)).send().await.map_err(failed("iam:GetRole"));
    let made = optional(answer)?.and_then(|o| o.role).map(|r| r.create_date);
    if made.is_some_and(|made| is_stale(&entry, &made)) {
        let call = aws.eks.delete_access_entry().cluster_name(cluster).principal_arn(role);
        optional(call.send().await.map_err(failed("eks:DeleteAccessEntry")))?;
    }
    Ok(())
}

pub(super) async fn entry(aws: &Aws, cluster: &str, principal: &str) -> Result<Option<Entry>> {
    let call = aws.eks.describe_access_entry().cluster_name(cluster).principal_arn(principal);
    let answer = optional(call.send().await.map_err(failed("eks:DescribeAccessEntry")))?;
    Ok(answer.and_then(|o| o.access_entry))
}

/// True if the role was created after its entry.
pub(super) fn is_stale(entry: &Entry, made: &DateTime) -> bool {
    entry.created_at().is_some_and(|created| made > created)
}

/// Deletes the access entry that EKS created for the nodes of `role`. EKS keeps the entry after the nodes are gone,
/// and the entry works only for the deleted role. Nodes with a new role of the same name could never join
/// (aws/containers-roadmap 2441). Only for roles that no nodes of the cluster use.
pub(super) async fn delete(aws: &Aws, cluster: &str, role: &str) -> Result<()> {
    let entry = entry(aws, cluster, role).await?;
    if !entry.as_ref().and_then(|e| e.r#type()).is_some_and(is_of_nodes) {
        return Ok(());
    }
    let call = aws.eks.delete_access_entry().cluster_name(cluster).principal_arn(role);
    optional(call.send().await.map_err(failed("eks:DeleteAccessEntry"))).map(drop)
}

/// True for the types of access entries that EKS creates for nodes.
pub(super) fn is_of_nodes(kind: &str) -> bool {
    matches!(kind, "EC2_LINUX" | "FARGATE_LINUX")
}
