//! Checks of address blocks: syntax, size and overlaps.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::error::{Code, SpecError};
use super::findings::Findings;
use super::tree::Node;
use super::words::quote;

/// Services that nodes and pods must reach. Without a NAT gateway, each needs a VPC endpoint (EKS User Guide, "Deploy
/// private clusters with limited internet access").
pub const WITHOUT_NAT: &[&str] = &["ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "logs", "s3", "sts"];

/// A block with a shorter prefix than this counts as open to everyone.
pub const OPEN_PREFIX: u8 = 8;

/// The smallest VPC (CreateVpc) and the smallest subnet (CreateSubnet).
const SMALLEST_VPC: u8 = 28;
const SMALLEST_SUBNET: u8 = 28;

/// Private addresses (RFC 1918) and shared address space (RFC 6598). A VPC may have both.
const PRIVATE: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
];

/// Reserved addresses: never the source of a packet on the internet.
const RESERVED: &[(Ipv4Addr, u8)] =
    &[(Ipv4Addr::new(127, 0, 0, 0), 8), (Ipv4Addr::new(169, 254, 0, 0), 16), (Ipv4Addr::new(224, 0, 0, 0), 3)];

/// The default block of Docker's bridge. EKS advises against it for VPCs.
const DOCKER: (Ipv4Addr, u8) = (Ipv4Addr::new(172, 17, 0, 0), 16);

/// The longest prefix of a VPC that has room for a public and a private subnet in each zone.
pub fn longest_vpc_prefix(zones: u8) -> u8 {
    let blocks = u32::from(zones).next_power_of_two().saturating_mul(2);
    SMALLEST_SUBNET.saturating_sub(u8::try_from(blocks.trailing_zeros()).unwrap_or(SMALLEST_SUBNET))
}

/// Checks the tenancy's `network`. `vpcs` is the number of VPCs that it must hold.
pub fn check(node: &Node, vpcs: usize, findings: &mut Findings) {
    let zones = node.get("zones").and_then(Node::int).and_then(|z| u8::try_from(z).ok()).unwrap_or(3);
    let prefix_node = node.get("vpcPrefix");
    let prefix = prefix_node.map_or(Some(16), |n| n.int().and_then(|p| u8::try_from(p).ok()));
    if let Some((at, prefix)) = prefix_node.zip(prefix) {
        let longest = longest_vpc_prefix(zones);
        if prefix > longest {
            let message =
                format!("a /{prefix} is too small for a public and a private subnet in each of {zones} zones");
            let error = SpecError::new(Code::Network, "spec.network.vpcPrefix", &at.mark, message);
            findings.error(error.help(format!("set `vpcPrefix` to {longest} or less, or use fewer zones")));
        }
    }
    let services = match node.get("serviceCidr") {
        Some(at) => service_cidr(at, findings),
        None => "172.20.0.0/16".parse().ok(),
    };
    let Some(at) = node.get("supernet") else { return };
    let Some(supernet) = private(at, "spec.network.supernet", findings) else { return };
    let mut overlap = |what: &str, with: Ipv4Net, help: &str| {
        if overlaps(supernet, with) {
            let message = format!("{supernet} overlaps {with}, {what}");
            findings.error(SpecError::new(Code::Network, "spec.network.supernet", &at.mark, message).help(help));
        }
    };
    if let Some(docker) = net(DOCKER) {
        overlap("the default network of Docker on many machines", docker, "choose another block, such as 10.64.0.0/12");
    }
    if let Some(services) = services {
        overlap(
            "the addresses of Kubernetes services",
            services,
            "choose another supernet, or another `serviceCidr`, such as 10.100.0.0/16",
        );
    }
    let Some(prefix) = prefix else { return };
    capacity(supernet, prefix, vpcs, at, prefix_node, findings);
}

fn capacity(
    supernet: Ipv4Net,
    prefix: u8,
    vpcs: usize,
    at: &Node,
    prefix_node: Option<&Node>,
    findings: &mut Findings,
) {
    let Some(bits) = prefix.checked_sub(supernet.prefix_len()) else {
        let (mark, path) =
            prefix_node.map_or((&at.mark, "spec.network.supernet"), |n| (&n.mark, "spec.network.vpcPrefix"));
        let message = format!("a VPC of /{prefix} doesn't fit into {supernet}");
        let least = supernet.prefix_len().max(16);
        let help = match least > SMALLEST_VPC {
            true => format!("choose a supernet of /{prefix} or larger: the smallest VPC is a /{SMALLEST_VPC}"),
            false => format!("set `vpcPrefix` to {least} or more, or choose a larger supernet"),
        };
        findings.error(SpecError::new(Code::Network, path, mark, message).help(help));
        return;
    };
    let room = 1usize.checked_shl(u32::from(bits)).unwrap_or(usize::MAX);
    if vpcs > room {
        let needed = u8::try_from(vpcs.next_power_of_two().trailing_zeros()).unwrap_or(u8::MAX);
        let message = format!("{supernet} has room for {room} VPCs of /{prefix}, but the tenancy has {vpcs}");
        let help = match prefix.checked_sub(needed) {
            Some(larger) => {
                format!("choose a supernet of /{larger} or larger, or a larger `vpcPrefix`, which makes VPCs smaller")
            }
            None => "choose a larger `vpcPrefix`, which makes VPCs smaller".to_owned(),
        };
        findings.error(SpecError::new(Code::Network, "spec.network.supernet", &at.mark, message).help(help));
    }
}

/// EKS accepts private blocks from /12 to /24 for services (CreateCluster, serviceIpv4Cidr).
fn service_cidr(node: &Node, findings: &mut Findings) -> Option<Ipv4Net> {
    let path = "spec.network.serviceCidr";
    let cidr = cidr(node, path, findings)?;
    let private = PRIVATE.iter().take(3).filter_map(|p| net(*p)).any(|p| p.contains(&cidr));
    if private && (12..=24).contains(&cidr.prefix_len()) {
        return Some(cidr);
    }
    let message = format!("EKS doesn't accept {cidr} for the addresses of services");
    let help = "choose a block of /12 to /24 within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16, such as 172.20.0.0/16";
    findings.error(SpecError::new(Code::Network, path, &node.mark, message).help(help));
    None
}

/// A block for VPCs: private or shared addresses. `None`, after an error, for any other.
fn private(node: &Node, path: &str, findings: &mut Findings) -> Option<Ipv4Net> {
    let cidr = cidr(node, path, findings)?;
    if PRIVATE.iter().filter_map(|p| net(*p)).any(|p| p.contains(&cidr)) {
        return Some(cidr);
    }
    let message = format!("{cidr} is not a block of private addresses");
    let help = "choose a block within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10";
    findings.error(SpecError::new(Code::Network, path, &node.mark, message).help(help));
    None
}

/// A block of public addresses. EKS refuses private and reserved sources for the public endpoint.
pub fn public(node: &Node, path: &str, findings: &mut Findings) -> Option<Ipv4Net> {
    let cidr = cidr(node, path, findings)?;
    let inside = |block: &(Ipv4Addr, u8)| net(*block).is_some_and(|block| block.contains(&cidr));
    if !PRIVATE.iter().chain(RESERVED).any(inside) {
        return Some(cidr);
    }
    let message =
        format!("{cidr} is not a block of public addresses, but the public endpoint is reached over the internet");
    let help = "write your network's public address; private networks use the private endpoint";
    findings.error(SpecError::new(Code::Network, path, &node.mark, message).help(help));
    None
}

/// Parses `ADDRESS/PREFIX`. Bits beyond the prefix must be zero.
pub fn cidr(node: &Node, path: &str, findings: &mut Findings) -> Option<Ipv4Net> {
    let text = node.text()?;
    let (message, help) = match text.parse::<Ipv4Net>() {
        Ok(cidr) if cidr == cidr.trunc() => return Some(cidr),
        Ok(cidr) => (format!("{} has bits set beyond its prefix", quote(text)), format!("write {}", cidr.trunc())),
        Err(_) => match text.parse::<Ipv4Addr>() {
            Ok(address) => {
                (format!("{} has no prefix length", quote(text)), format!("write {address}/32 for a single address"))
            }
            Err(_) if text.contains(':') => {
                (format!("{} is not an IPv4 block", quote(text)), "ringfence supports IPv4 only".to_owned())
            }
            Err(_) => (
                format!("{} is not an address block", quote(text)),
                "write ADDRESS/PREFIX, such as 10.64.0.0/12".to_owned(),
            ),
        },
    };
    findings.error(SpecError::new(Code::Network, path, &node.mark, message).help(help));
    None
}

fn net((address, prefix): (Ipv4Addr, u8)) -> Option<Ipv4Net> {
    Ipv4Net::new(address, prefix).ok()
}

fn overlaps(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}
