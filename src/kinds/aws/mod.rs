//! AWS resource kinds, one file each, or a folder where a kind has several subjects.

pub mod access_entry;
pub mod costs;
pub mod ec2;
mod eks;
pub mod eks_addon;
pub mod eks_cluster;
pub mod elastic_ip;
pub mod fargate_profile;
pub mod flow_log;
mod foreign;
mod guardduty;
mod held;
pub mod iam_role;
mod inside;
pub mod internet_gateway;
pub mod kms_key;
pub mod launch_template;
pub mod log_group;
pub mod nat_gateway;
mod node_entry;
pub mod node_group;
pub mod offers;
pub mod oidc_provider;
pub mod permission;
pub mod pod_identity;
pub mod policy;
pub mod quotas;
pub mod route_table;
pub mod security_group;
pub mod service_linked_role;
pub mod subnet;
pub mod versions;
pub mod vpc;
pub mod vpc_endpoint;

/// The name in AWS of generation `generation` of `name`. A replacement exists beside the resource that it replaces,
/// so it needs another name.
pub fn physical(name: &str, generation: u32) -> String {
    if generation <= 1 { name.to_owned() } else { format!("{name}-g{generation}") }
}

/// The name in the state: the reverse of [`physical`].
pub fn logical(physical: &str, generation: u32) -> String {
    match generation {
        0 | 1 => physical,
        _ => physical.strip_suffix(&format!("-g{generation}")).unwrap_or(physical),
    }
    .to_owned()
}
