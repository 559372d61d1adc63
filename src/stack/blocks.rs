//! The CIDR blocks of VPCs.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use super::addresses;
use super::facts::Facts;
use crate::engine::address::Address;
use crate::engine::desired::Refusal;
use crate::engine::error::{Error, Result};
use crate::kinds::aws::vpc;
use crate::spec::Spec;

/// The CIDR block of every VPC. Existing VPCs keep theirs. New ones get the lowest free block of the supernet, in the
/// order of addresses.
pub(super) fn blocks(spec: &Spec, facts: &Facts) -> Result<BTreeMap<Address, Ipv4Net>> {
    let wanted: BTreeSet<Address> = spec.clusters().map(|c| addresses::vpc(c.owner)).collect();
    let mut taken: Vec<Ipv4Net> = facts.vpcs.values().copied().collect();
    let mut blocks = BTreeMap::new();
    for address in wanted {
        let block = match facts.vpcs.get(&address) {
            Some(block) => *block,
            None => lowest_free(spec.network.supernet, spec.network.vpc_prefix, &taken).ok_or_else(|| {
                Error::input(format!(
                    "the supernet {} has no free /{} block for {address}",
                    spec.network.supernet, spec.network.vpc_prefix
                ))
                .help("enlarge network.supernet to a block that contains the present one; existing VPCs keep their blocks")
            })?,
        };
        taken.push(block);
        blocks.insert(address, block);
    }
    Ok(blocks)
}

/// Notes about new VPCs that overlap other VPCs of the account.
pub(super) fn overlaps(facts: &Facts, blocks: &BTreeMap<Address, Ipv4Net>) -> BTreeSet<String> {
    let new = blocks.iter().filter(|(address, _)| !facts.vpcs.contains_key(*address));
    let mut notes = BTreeSet::new();
    for (address, block) in new {
        let overlap = |other: &&Ipv4Net| other.contains(block) || block.contains(*other);
        for (id, other) in facts.other_vpcs.iter().filter_map(|(id, all)| Some((id, all.iter().find(overlap)?))) {
            notes.insert(format!(
                "{address}: the VPC's block {block} overlaps {other} of {id} in this account: these two VPCs can't be peered, and can't reach each other through a transit gateway"
            ));
        }
    }
    notes
}

/// Refusals for VPCs whose blocks aren't in the supernet: a VPC can't get another block.
pub(super) fn refusals(spec: &Spec, facts: &Facts) -> Vec<Refusal> {
    let supernet = spec.network.supernet;
    let existing = spec.clusters().filter_map(|c| facts.vpcs.get_key_value(&addresses::vpc(c.owner)));
    let outside = existing.filter(|(_, block)| !supernet.contains(*block));
    let refusal = |(address, block): (&Address, &Ipv4Net)| Refusal {
        address: address.clone(),
        kind: vpc::NAME,
        path: "cidr",
        is: block.to_string(),
        asked: format!("a block of {supernet}"),
        reason: format!("a VPC can't change its block, and {block} isn't within network.supernet {supernet}"),
        help: format!(
            "set network.supernet to a block that contains {block}; to get a VPC in another block, add a pool or tenant with another name"
        ),
        pending: false,
    };
    outside.map(refusal).collect()
}

/// Notes about VPCs whose size differs from that of new ones.
pub(super) fn other_sizes(spec: &Spec, facts: &Facts) -> BTreeSet<String> {
    let prefix = spec.network.vpc_prefix;
    let existing = spec.clusters().filter_map(|c| facts.vpcs.get_key_value(&addresses::vpc(c.owner)));
    let others = existing.filter(|(_, block)| block.prefix_len() != prefix);
    others
        .map(|(address, block)| {
            format!("{address}: the VPC keeps its block {block}; network.vpcPrefix {prefix} applies only to new VPCs")
        })
        .collect()
}

/// The lowest block of this length in `within` that overlaps none of `taken`.
pub(super) fn lowest_free(within: Ipv4Net, prefix: u8, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let overlaps = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
    within.subnets(prefix).ok()?.find(|block| !taken.iter().any(|t| overlaps(t, block)))
}
