//! Fargate profiles.

use super::super::quotas;
use super::super::state::State;
use super::super::wire::{Fault, Reply, Request, Service, items, texts};
use super::{Change, Cluster, During, Item, World, access, check_name, fault, invalid, list, new_tags, required};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Zones without Fargate, by id ("Supported Regions for Amazon ECS on AWS Fargate"). EKS's error text for a subnet
/// there: eksctl, pkg/fargate, written after its issue 5677.
const NO_FARGATE: [&str; 3] = ["apne1-az3", "usw1-az2", "cnn1-az4"];

const CREATE: f64 = 90.0;
const DELETE: f64 = 120.0;

/// The subnets of the request whose route table has a route to an internet gateway.
pub(super) fn public_subnets(state: &mut State, req: &Request) -> BTreeSet<String> {
    let region = state.region(&req.account, &req.region);
    let vpcs: Vec<(String, String)> = req
        .texts("subnets")
        .into_iter()
        .filter_map(|id| region.ec2.subnet(&id).map(|subnet| (id, subnet.vpc_id)))
        .collect();
    let mut tables = |name: &str, value: &str, main: bool| {
        let mut filters = vec![json!({"Name": name, "Value": [value]})];
        if main {
            filters.push(json!({"Name": "association.main", "Value": ["true"]}));
        }
        let operation = "DescribeRouteTables".to_owned();
        let ask = Request { service: Service::Ec2, operation, params: json!({"Filter": filters}), ..req.clone() };
        let reply = super::super::ec2::call(state, &ask).unwrap_or_default();
        items(&reply, "routeTableSet").to_vec()
    };
    let public = |table: &Value| {
        let gateway = |route: &Value| route["gatewayId"].as_str().is_some_and(|id| id.starts_with("igw-"));
        items(table, "routeSet").iter().any(gateway)
    };
    let mut found = BTreeSet::new();
    for (id, vpc) in vpcs {
        let mut of = tables("association.subnet-id", &id, false);
        if of.is_empty() {
            of = tables("vpc-id", &vpc, true);
        }
        if of.iter().any(public) {
            found.insert(id);
        }
    }
    found
}

pub(super) fn call(w: &mut World<'_>, req: &Request, public: &BTreeSet<String>) -> Reply {
    let cluster = required(req, "clusterName")?;
    match req.operation.as_str() {
        "CreateFargateProfile" => create(w, req, &cluster, public),
        "ListFargateProfiles" => list(req, "fargateProfileNames", w.cluster(&cluster)?.profiles.keys()),
        "DescribeFargateProfile" => {
            let name = required(req, "fargateProfileName")?;
            Ok(json!({"fargateProfile": find(w.cluster(&cluster)?, &name)?.body}))
        }
        "DeleteFargateProfile" => {
            let (now, name) = (w.now, required(req, "fargateProfileName")?);
            let of = w.cluster(&cluster)?;
            if find(of, &name)?.status() == "DELETING" {
                return Ok(json!({"fargateProfile": find(of, &name)?.body}));
            }
            one_at_a_time(of, "Delete", &name)?;
            let fate = w.fates.of("eks:fargate-profile", &name, During::Delete);
            let profile = find(w.cluster(&cluster)?, &name)?;
            profile.leave(Change::after(DELETE, now, None, &fate));
            Ok(json!({"fargateProfile": profile.body}))
        }
        _ => Err(req.unknown_operation()),
    }
}

pub(super) fn settle(w: &World<'_>, cluster: &mut Cluster) {
    cluster.profiles.retain(|_, profile| profile.due(w.now) != Some(false));
}

fn find<'c>(cluster: &'c mut Cluster, name: &str) -> Result<&'c mut Item, Fault> {
    let missing = fault("ResourceNotFoundException", format!("No Fargate Profile found with name: {name}."))
        .with("clusterName", cluster.name())
        .with("fargateProfileName", name);
    cluster.profiles.get_mut(name).ok_or(missing)
}

/// A cluster accepts one change of its profiles at a time (hashicorp/terraform-provider-aws, issues 13372 and 16272).
fn one_at_a_time(cluster: &Cluster, verb: &str, name: &str) -> Result<(), Fault> {
    let busy = cluster.profiles.iter().find(|(_, profile)| ["CREATING", "DELETING"].contains(&profile.status()));
    match busy {
        Some((other, profile)) => {
            let message = format!(
                "Cannot {verb} Fargate Profile {name} because cluster {} currently has Fargate profile {other} in status {}",
                cluster.name(),
                profile.status()
            );
            Err(fault("ResourceInUseException", message).with("clusterName", cluster.name()))
        }
        None => Ok(()),
    }
}

fn create(w: &mut World<'_>, req: &Request, cluster_name: &str, public: &BTreeSet<String>) -> Reply {
    let name = required(req, "fargateProfileName")?;
    check_name("Fargate profile name", &name, 100)?;
    // EKS user guide, "Simplify compute management with AWS Fargate": AWS GovCloud (US) has no Fargate. The error text
    // of EKS isn't public.
    if req.region.starts_with("us-gov-") {
        return Err(fault("InvalidRequestException", "Fargate is not supported in this region."));
    }
    let limit = quotas::limit(w.quotas, "L-23414FF3");
    let cluster = w.cluster(cluster_name)?;
    cluster.active()?;
    if cluster.profiles.contains_key(&name) {
        let message = "A Fargate Profile already exists with this name in this cluster.";
        return Err(fault("ResourceInUseException", message).with("clusterName", cluster_name));
    }
    one_at_a_time(cluster, "create", &name)?;
    if cluster.profiles.len() as f64 >= limit {
        let message = format!("Fargate Profile limit exceeded for cluster: {limit}");
        return Err(fault("ResourceLimitExceededException", message).with("clusterName", cluster_name));
    }
    let vpc = cluster.vpc().to_owned();
    let selectors = selectors(req.items("selectors"))?;
    let subnets = req.texts("subnets");
    if subnets.is_empty() {
        return Err(invalid("Subnets can't be empty"));
    }
    for id in &subnets {
        let subnet = w.here.ec2.subnet(id).filter(|subnet| subnet.vpc_id == vpc);
        subnet.ok_or_else(|| {
            invalid(format!("Subnet {id} provided in Fargate Profile does not exist in the cluster's VPC {vpc}"))
        })?;
        if let Some(subnet) = w.here.ec2.subnet(id).filter(|subnet| NO_FARGATE.contains(&subnet.zone_id.as_str())) {
            let zone = subnet.zone;
            return Err(invalid(format!(
                "Fargate Profile creation for the Availability Zone {zone} for Subnet {id} is not supported"
            )));
        }
        if public.contains(id) {
            return Err(invalid(format!("Subnet {id} provided in Fargate Profile is not a private subnet")));
        }
    }
    let role_arn = required(req, "podExecutionRoleArn")?;
    let role = w.role(&role_arn).ok_or_else(|| invalid(format!("PodExecutionRole {role_arn} does not exist")))?;
    if !role.trusts("eks-fargate-pods.amazonaws.com") {
        let message = "Misconfigured PodExecutionRole Trust Policy; Please add the eks-fargate-pods.amazonaws.com Service Principal";
        return Err(invalid(message));
    }
    let id = w.ids.uuid();
    let body = json!({
        "fargateProfileName": name, "fargateProfileArn": w.arn(&format!("fargateprofile/{cluster_name}/{name}/{id}")),
        "clusterName": cluster_name, "createdAt": w.now, "podExecutionRoleArn": role_arn, "subnets": subnets,
        "selectors": selectors, "status": "CREATING", "tags": new_tags(req)?, "health": {"issues": []},
    });
    let reply = json!({"fargateProfile": body});
    // Taken out of the map, so that it can be borrowed together with the rest of the region.
    let Some(mut cluster) = w.here.eks.clusters.remove(cluster_name) else { return Ok(reply) };
    let taken = cluster.entries.get(&role_arn).is_some_and(|entry| entry.body["type"] == "EC2_LINUX");
    let becomes = if taken {
        let message = "The pod execution role is in use as a node role: a Fargate profile needs a role of its own";
        json!({"status": "CREATE_FAILED", "health": {"issues": [
            {"code": "PodExecutionRoleAlreadyInUse", "message": message, "resourceIds": [role_arn]},
        ]}})
    } else {
        access::add_for_nodes(w, &mut cluster, &role_arn, "FARGATE_LINUX");
        json!({"status": "ACTIVE"})
    };
    let fate = w.fates.of("eks:fargate-profile", &name, During::Create);
    cluster.profiles.insert(name, Item::new(body).becoming(Change::after(CREATE, w.now, Some(becomes), &fate)));
    w.here.eks.clusters.insert(cluster_name.to_owned(), cluster);
    Ok(reply)
}

fn selectors(given: &[Value]) -> Reply {
    if !(1..=5).contains(&given.len()) {
        return Err(invalid("A Fargate profile must have 1 to 5 selectors"));
    }
    for selector in given {
        if texts(selector, "namespace").is_empty() {
            return Err(invalid("A selector must have a namespace"));
        }
        if selector["labels"].as_object().is_some_and(|labels| labels.len() > 5) {
            return Err(invalid("A selector can have 5 labels"));
        }
    }
    Ok(given.to_vec().into())
}
