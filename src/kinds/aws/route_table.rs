use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A route table with its routes and associations. The local route and those
/// that gateway endpoints write are AWS's own and don't stand here.
/// Outputs: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub vpc: String,
    pub routes: Vec<Route>,
    /// Ids of the subnets associated with it.
    pub subnets: Vec<String>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// IPv4 or IPv6 CIDR block, or a prefix list id.
    pub destination: String,
    /// Id of an internet gateway, NAT gateway, or anything else that a route
    /// can lead to (peering connection, transit gateway, interface).
    pub target: String,
}
