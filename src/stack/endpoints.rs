//! VPC endpoints.

use std::collections::BTreeSet;

use serde_json::json;

use super::addresses;
use super::builder::{Builder, Terms};
use super::facts::{Endpoint, Facts};
use super::security_groups::{Rules, from_subnets};
use super::site::{Network, Site};
use crate::engine::address::Address;
use crate::engine::error::Result;
use crate::engine::value::reference;
use crate::kinds::aws::vpc_endpoint;
use crate::spec::{Spec, is_gateway_endpoint};

/// Full names of the endpoint services about which EC2 must be asked: services of interface endpoints that don't exist
/// yet, that aren't in every zone of their VPC, or whose policy allows everything.
pub fn services_to_ask(spec: &Spec, facts: &Facts) -> BTreeSet<String> {
    let mut services = BTreeSet::new();
    for cluster in spec.clusters() {
        let prefix = addresses::prefix(cluster.owner);
        let within = prefix.join("subnet/private-");
        let subnets = facts.subnets.iter().filter(|(address, _)| address.as_str().starts_with(within.as_str()));
        let zones: BTreeSet<&String> = subnets.map(|(_, subnet)| &subnet.zone).collect();
        let known = |there: &Endpoint| {
            let whole = zones.len() >= usize::from(spec.network.zones);
            whole && !there.open && zones.iter().all(|zone| there.zones.contains(*zone))
        };
        for service in cluster.network.endpoints.iter().filter(|service| !is_gateway_endpoint(service)) {
            let names = endpoint_services(&spec.region, service);
            if names.len() > 1 || !facts.endpoints.get(&prefix.join(format!("endpoint/{service}"))).is_some_and(known) {
                services.extend(names);
            }
        }
    }
    services
}

impl Builder<'_> {
    pub(super) fn endpoints(&mut self, site: &Site<'_>, network: &Network) -> Result<Vec<Address>> {
        let services = &site.cluster.network.endpoints;
        if services.iter().any(|s| !is_gateway_endpoint(s)) {
            let ingress = from_subnets(network, "tcp", 443, "AWS APIs from private subnets");
            let group = (site.at("security-group/endpoints"), "endpoints");
            self.security_group(site, group, site.cluster.owner, "Interface endpoints", Rules::only(ingress), &[])?;
        }
        let mut addresses = Vec::new();
        for service in services {
            let gateway = is_gateway_endpoint(service);
            let address = site.at(&format!("endpoint/{service}"));
            let mut names = endpoint_services(&self.spec.region, service).into_iter();
            let has = |name: &String| self.facts.services.get(name).is_some_and(|offered| !offered.zones.is_empty());
            let name = names.clone().find(has).or(names.next()).unwrap_or_default();
            let offered = self.facts.services.get(&name);
            let policy = match offered.is_some_and(|service| !service.policies) {
                true => serde_json::Value::Null,
                false => {
                    let community = self.pulls_from(site, "registry.k8s.io");
                    let values = json!({"service": service, "gateway": gateway, "communityImages": community});
                    self.document("iam/endpoint-policy.json", &address, values)?
                }
            };
            let state = vpc_endpoint::State {
                vpc: site.output("vpc", "id"),
                service: name,
                kind: if gateway { "Gateway" } else { "Interface" }.to_owned(),
                policy,
                route_tables: if gateway {
                    network.ways.iter().map(|t| reference(t, "id")).collect()
                } else {
                    Vec::new()
                },
                subnets: if gateway {
                    Vec::new()
                } else {
                    network.node_ids_in(|zone| offered.is_none_or(|service| service.zones.contains(zone)))
                },
                security_groups: if gateway { Vec::new() } else { vec![site.output("security-group/endpoints", "id")] },
                private_dns: !gateway,
                tags: self.tags(&address, format!("{}-{service}", site.name)),
            };
            self.put(address.clone(), vpc_endpoint::NAME, &state, Terms::default())?;
            addresses.push(address);
        }
        Ok(addresses)
    }
}

/// Services whose endpoint names have the reversed form outside of the `aws` partition, by region (EC2,
/// DescribeVpcEndpointServices).
const REVERSED: &[(&str, &str, &[&str])] = &[
    (
        "cn-",
        "cn.com.amazonaws",
        &[
            "application-autoscaling",
            "athena",
            "autoscaling",
            "backup",
            "cloudformation",
            "ebs",
            "ec2",
            "ecr.api",
            "ecr.dkr",
            "eks",
            "elasticache",
            "elasticfilesystem",
            "execute-api",
            "fsx",
            "kinesis-streams",
            "lambda",
            "monitoring",
            "rds",
            "redshift",
            "redshift-data",
            "sagemaker.api",
            "sagemaker.runtime",
            "securityhub",
            "servicecatalog",
            "sqs",
            "states",
            "sts",
            "sync-states",
            "synthetics",
            "transfer",
            "xray",
        ],
    ),
    ("eusc-", "eu.amazonaws", &["ecr.api", "ecr.dkr", "execute-api", "securityhub"]),
    (
        "us-iso-",
        "gov.ic.c2s",
        &["autoscaling", "ebs", "ec2", "ecr.api", "ecr.dkr", "elasticfilesystem", "execute-api", "sns", "sqs"],
    ),
    (
        "us-isob-",
        "gov.sgov.sc2s",
        &["autoscaling", "ebs", "ec2", "ecr.api", "ecr.dkr", "elasticfilesystem", "execute-api", "sns", "sqs"],
    ),
    ("us-isof-", "gov.ic.hci.csp", &["ebs", "ecr.api", "ecr.dkr", "execute-api"]),
    ("eu-isoe-", "uk.adc-e.cloud", &["ebs", "ecr.api", "ecr.dkr", "execute-api"]),
];

/// The possible full endpoint names of a service, the likely one first. In China new services appear that the list
/// doesn't have (`eks-auth`, `config`). Their names may have either form.
pub(super) fn endpoint_services(region: &str, service: &str) -> Vec<String> {
    const USUAL: &str = "com.amazonaws";
    let here = REVERSED.iter().find(|(prefix, ..)| region.starts_with(prefix));
    let domains = match here {
        Some((_, reversed, services)) if services.contains(&service) => vec![*reversed, USUAL],
        Some((_, reversed, _)) => vec![USUAL, *reversed],
        None => vec![USUAL],
    };
    let unsure = if region.starts_with("cn-") { domains.len() } else { 1 };
    domains.iter().take(unsure).map(|domain| format!("{domain}.{region}.{service}")).collect()
}
