//! Deletion of resources that others may hold: interfaces that our clusters left behind are removed, and other holders
//! are named.

use std::future::Future;

use aws_sdk_ec2::types::{NetworkInterface, NetworkInterfaceStatus};

use super::ec2::absent;
use super::guardduty;
use super::inside::interfaces;
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::error::{Class, Error, Result};

/// The error code for a resource that can't be deleted because other resources depend on it.
pub(super) const HELD: &str = "DependencyViolation";

/// Deletes with `call`. If AWS reports a dependency, the network interfaces that our clusters left behind are
/// deleted, and the call is repeated once. Other dependencies are named: [`Class::Held`], except if AWS removes one
/// of them by itself. `by` is the filter that selects the interfaces: `vpc-id`, `subnet-id` or `group-id`.
pub(super) async fn delete_held<T, F>(aws: &Aws, by: &str, id: &str, call: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<T>>,
{
    let held = |error: &Error| error.code.as_deref() == Some(HELD);
    let error = match absent(call().await) {
        Err(error) if held(&error) => error,
        result => return result,
    };
    let error = match guardduty::leave(aws, by, id).await? {
        false => error,
        true => match absent(call().await) {
            Err(error) if held(&error) => error,
            result => return result,
        },
    };
    let interfaces = interfaces(aws, by, id).await?;
    let (left, holding): (Vec<_>, Vec<_>) = interfaces.into_iter().partition(is_left_over);
    for interface in &left {
        let deleted = aws
            .ec2
            .delete_network_interface()
            .network_interface_id(interface.network_interface_id().unwrap_or_default())
            .send()
            .await;
        absent(deleted.map_err(failed("ec2:DeleteNetworkInterface")))?;
    }
    let error = match left.is_empty() {
        true => error,
        false => match absent(call().await) {
            Err(error) if held(&error) => error,
            result => return result,
        },
    };
    Err(held_by(error, &holding))
}

/// `error` with the names of the dependencies, and whether AWS removes them by itself.
pub(super) fn held_by(error: Error, holding: &[NetworkInterface]) -> Error {
    let class = if holding.iter().any(is_passing) { Class::Conflict } else { Class::Held };
    Error { class, ..holders(error, holding.iter().map(named).collect()) }
}

/// `error` with the names of the dependencies.
pub(super) fn holders(error: Error, mut holders: Vec<String>) -> Error {
    const SHOWN: usize = 8;
    if holders.is_empty() {
        return error;
    }
    let more = holders.len().saturating_sub(SHOWN);
    holders.truncate(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Error { message: format!("{}; still used by {}{more}", error.message, holders.join(", ")), ..error }
        .help("delete or detach the resources that still use it, then run the same command")
}

/// Network interfaces of pods outlive a node that is deleted before the VPC CNI cleans up. They are ours by descent:
/// the resource that is deleted is in our VPC, and so is the cluster that created them.
fn is_left_over(interface: &NetworkInterface) -> bool {
    let description = interface.description().unwrap_or_default().to_lowercase();
    interface.status() == Some(&NetworkInterfaceStatus::Available)
        && (description.starts_with("aws-k8s-")
            || interface.tag_set().iter().any(|tag| tag.key() == Some("cluster.k8s.amazonaws.com/name")))
}

/// Interfaces of control planes, NAT gateways and endpoints, which AWS deletes minutes after their owner, and of
/// nodes that are being terminated.
fn is_passing(interface: &NetworkInterface) -> bool {
    let description = interface.description().unwrap_or_default();
    ["Amazon EKS ", "Interface for NAT Gateway", "VPC Endpoint Interface", "aws-K8S-"]
        .iter()
        .any(|of| description.starts_with(of))
}

/// `eni-1 (ELB app/shop, in-use, by amazon-elb)`.
fn named(interface: &NetworkInterface) -> String {
    let user = interface
        .attachment()
        .and_then(|a| a.instance_id().or(a.instance_owner_id()))
        .or(interface.requester_id())
        .map(|by| format!("by {by}"));
    let words = [interface.description().map(str::to_owned), interface.status().map(|status| status.to_string()), user];
    let words: Vec<String> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    format!("{} ({})", interface.network_interface_id().unwrap_or("an interface"), words.join(", "))
}
