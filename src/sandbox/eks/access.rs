//! Access entries and their access policies.

use super::super::wire::{Fault, Reply, Request, texts};
use super::versions::ACCESS_POLICIES;
use super::{Cluster, Item, World, fault, invalid, list, new_tags, paged, partition, required};
use serde_json::{Value, json};

/// Entry types for nodes. EKS sets their user name and groups.
const NODES: &[(&str, &str)] = &[
    ("EC2_LINUX", "system:node:{{EC2PrivateDNSName}}"),
    ("EC2_WINDOWS", "system:node:{{EC2PrivateDNSName}}"),
    ("FARGATE_LINUX", "system:node:{{SessionName}}"),
    ("HYBRID_LINUX", "system:node:{{SessionName}}"),
    ("EC2", "system:node:{{EC2PrivateDNSName}}"),
    ("HYPERPOD_LINUX", "system:node:{{SessionName}}"),
];

const RESERVED: [&str; 5] = ["system:", "eks:", "aws:", "amazon:", "iam:"];

/// Rank of an authentication mode. A cluster can only change to the mode of the next rank.
pub(super) fn mode_rank(mode: &str) -> Option<i8> {
    match mode {
        "CONFIG_MAP" => Some(0),
        "API_AND_CONFIG_MAP" => Some(1),
        "API" => Some(2),
        _ => None,
    }
}

pub(super) fn policies(req: &Request) -> Reply {
    let policy = |name: &str| (name.to_owned(), json!({"name": name, "arn": policy_arn(&req.region, name)}));
    paged(req, "accessPolicies", ACCESS_POLICIES.split(' ').map(policy).collect())
}

pub(super) fn call(w: &mut World<'_>, req: &Request) -> Reply {
    let name = required(req, "clusterName")?;
    let now = w.now;
    let cluster = w.cluster(&name)?;
    cluster.running()?;
    if cluster.body["accessConfig"]["authenticationMode"] == "CONFIG_MAP" {
        let message = "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to perform this operation.";
        return Err(fault("InvalidRequestException", message).with("clusterName", name));
    }
    if req.operation == "ListAccessEntries" {
        let policy = req.text("associatedPolicyArn");
        let has = |principal: &&String| {
            policy
                .as_ref()
                .is_none_or(|policy| cluster.policies.get(*principal).is_some_and(|all| all.contains_key(policy)))
        };
        return list(req, "accessEntries", cluster.entries.keys().filter(has));
    }
    if req.operation == "CreateAccessEntry" {
        return create(w, req, &name);
    }
    let principal = required(req, "principalArn")?;
    let Cluster { entries, policies, .. } = cluster;
    let entry = entries.get_mut(&principal).ok_or_else(|| {
        let message = "The specified principalArn could not be found. You can view your available access entries with 'list-access-entries'.";
        fault("ResourceNotFoundException", message).with("clusterName", name.as_str())
    })?;
    let policies = policies.entry(principal.clone()).or_default();
    match req.operation.as_str() {
        "DescribeAccessEntry" => Ok(json!({"accessEntry": entry.body})),
        "UpdateAccessEntry" => {
            if entry.body["type"] != "STANDARD" {
                let message = format!("Access entries of type {} can't be updated", entry.body["type"]);
                return Err(fault("InvalidRequestException", message));
            }
            if let Some(groups) = groups(req)? {
                entry.body["kubernetesGroups"] = groups;
            }
            if let Some(username) = username(req)? {
                entry.body["username"] = username.into();
            }
            entry.body["modifiedAt"] = now.into();
            Ok(json!({"accessEntry": entry.body}))
        }
        "DeleteAccessEntry" => {
            cluster.entries.remove(&principal);
            cluster.policies.remove(&principal);
            cluster.bound.remove(&principal);
            Ok(json!({}))
        }
        "ListAssociatedAccessPolicies" => {
            let all = policies.iter().map(|(arn, policy)| (arn.clone(), policy.clone())).collect();
            let mut reply = paged(req, "associatedAccessPolicies", all)?;
            reply["clusterName"] = name.into();
            reply["principalArn"] = principal.into();
            Ok(reply)
        }
        "AssociateAccessPolicy" => {
            let arn = required(req, "policyArn")?;
            if !ACCESS_POLICIES.split(' ').any(|name| policy_arn(&req.region, name) == arn) {
                return Err(invalid("The policyArn parameter format is not valid"));
            }
            if entry.body["type"] != "STANDARD" {
                let message =
                    format!("Access policies can't be associated with an access entry of type {}", entry.body["type"]);
                return Err(fault("InvalidRequestException", message));
            }
            let scope = scope(&req.params["accessScope"])?;
            let since = policies.get(&arn).map_or(json!(now), |policy| policy["associatedAt"].clone());
            let policy = json!({"policyArn": arn, "accessScope": scope, "associatedAt": since, "modifiedAt": now});
            policies.insert(arn, policy.clone());
            Ok(json!({"clusterName": name, "principalArn": principal, "associatedAccessPolicy": policy}))
        }
        "DisassociateAccessPolicy" => {
            let missing =
                || fault("ResourceNotFoundException", "The specified policyArn could not be found on the access entry");
            policies.remove(&required(req, "policyArn")?).map(|_| json!({})).ok_or_else(missing)
        }
        _ => Err(req.unknown_operation()),
    }
}

/// Adds the access entry of the principal that created the cluster, with administrator access.
pub(super) fn add_creator(w: &mut World<'_>, cluster: &mut Cluster, caller: &str) {
    let session = caller.split_once(":assumed-role/").and_then(|(_, rest)| rest.split('/').next());
    let role = session.and_then(|name| w.iam.role_by_name(name)).map(|role| role.arn.clone());
    let principal = role.unwrap_or_else(|| caller.to_owned());
    let body = entry(w, cluster.name(), &principal, "STANDARD", None, json!([]), json!({}));
    let policy = policy_arn(w.region, "AmazonEKSClusterAdminPolicy");
    let associated = json!({
        "policyArn": policy, "accessScope": {"type": "cluster", "namespaces": []}, "associatedAt": w.now, "modifiedAt": w.now,
    });
    cluster.entries.insert(principal.clone(), Item::new(body));
    cluster.policies.entry(principal).or_default().insert(policy, associated);
}

/// Adds the access entry for the role of a node group or Fargate profile, if it is missing. EKS never deletes such an
/// entry (aws/containers-roadmap issues 2441 and 2631).
pub(super) fn add_for_nodes(w: &mut World<'_>, cluster: &mut Cluster, role: &str, kind: &str) {
    if cluster.body["accessConfig"]["authenticationMode"] != "CONFIG_MAP" && !cluster.entries.contains_key(role) {
        let body = entry(w, cluster.name(), role, kind, None, json!([]), json!({}));
        cluster.entries.insert(role.to_owned(), Item::new(body));
        cluster.bound.extend(w.role(role).map(|known| (role.to_owned(), known.id)));
    }
}

fn create(w: &mut World<'_>, req: &Request, name: &str) -> Reply {
    let principal = required(req, "principalArn")?;
    let kind = req.text("type").unwrap_or_else(|| "STANDARD".to_owned());
    let (groups, username, tags) = (groups(req)?, username(req)?, new_tags(req)?);
    let node = NODES.iter().any(|(one, _)| *one == kind);
    if !node && kind != "STANDARD" {
        return Err(invalid(format!("The access entry type {kind} is not valid")));
    }
    if node && (groups.is_some() || username.is_some()) {
        return Err(invalid(format!("An access entry of type {kind} can't have a username or groups of its own")));
    }
    if principal.contains(":role/aws-service-role/") {
        let message =
            "The caller is not allowed to modify access entries with a principalArn value of a Service Linked Role";
        return Err(invalid(message));
    }
    let own = principal.split(':').nth(4) == Some(w.account);
    let exists = if own { w.iam.principal(&principal) } else { principal.contains(":iam::") && !node };
    if !exists {
        return Err(invalid("The specified principalArn is invalid: invalid principal."));
    }
    if w.cluster(name)?.entries.contains_key(&principal) {
        let message = "The specified access entry resource is already in use on this cluster.";
        return Err(fault("ResourceInUseException", message).with("clusterName", name));
    }
    let body = entry(w, name, &principal, &kind, username, groups.unwrap_or_else(|| json!([])), tags);
    let reply = json!({"accessEntry": body});
    let id = w.role(&principal).map(|role| role.id);
    let cluster = w.cluster(name)?;
    cluster.bound.extend(id.map(|id| (principal.clone(), id)));
    cluster.entries.insert(principal, Item::new(body));
    Ok(reply)
}

fn entry(
    w: &mut World<'_>,
    cluster: &str,
    principal: &str,
    kind: &str,
    username: Option<String>,
    groups: Value,
    tags: Value,
) -> Value {
    let resource = principal.splitn(6, ':').nth(5).unwrap_or_default();
    let (of, account) =
        (resource.split('/').next().unwrap_or_default(), principal.split(':').nth(4).unwrap_or_default());
    let last = resource.rsplit('/').next().unwrap_or_default();
    let session = format!("arn:{}:sts::{account}:assumed-role/{last}/{{{{SessionName}}}}", partition(w.region));
    let node = NODES.iter().find(|(one, _)| *one == kind);
    let default = if of == "role" { session } else { principal.to_owned() };
    let username = username.or(node.map(|(_, name)| (*name).to_owned())).unwrap_or(default);
    let id = w.ids.uuid();
    json!({
        "clusterName": cluster, "principalArn": principal,
        "kubernetesGroups": if node.is_some() { json!(["system:nodes"]) } else { groups },
        "accessEntryArn": w.arn(&format!("access-entry/{cluster}/{of}/{account}/{last}/{id}")), "createdAt": w.now,
        "modifiedAt": w.now, "tags": tags, "username": username, "type": kind,
    })
}

fn groups(req: &Request) -> Result<Option<Value>, Fault> {
    if req.params.get("kubernetesGroups").is_none_or(Value::is_null) {
        return Ok(None);
    }
    let groups = req.texts("kubernetesGroups");
    match groups.iter().find(|group| group.starts_with("system:")) {
        Some(group) => {
            Err(invalid(format!("The kubernetes group name {group} is invalid, it cannot start with system:")))
        }
        None => Ok(Some(json!(groups))),
    }
}

fn username(req: &Request) -> Result<Option<String>, Fault> {
    let Some(name) = req.text("username") else { return Ok(None) };
    if let Some(prefix) = RESERVED.iter().find(|prefix| name.starts_with(**prefix)) {
        return Err(invalid(format!("The username must not begin with {prefix}")));
    }
    match name.split_once("{{SessionName}}") {
        Some((before, _)) if !before.contains(':') => {
            Err(invalid("The username must have a colon before {{SessionName}}"))
        }
        _ => Ok(Some(name)),
    }
}

fn scope(scope: &Value) -> Reply {
    let namespaces = texts(scope, "namespaces");
    match scope["type"].as_str() {
        Some("cluster") if namespaces.is_empty() => Ok(json!({"type": "cluster", "namespaces": []})),
        Some("cluster") => Err(invalid("An access scope of type cluster can't name namespaces")),
        Some("namespace") if !namespaces.is_empty() => Ok(json!({"type": "namespace", "namespaces": namespaces})),
        Some("namespace") => Err(invalid("An access scope of type namespace must name namespaces")),
        _ => Err(invalid("The access scope's type must be cluster or namespace")),
    }
}

fn policy_arn(region: &str, name: &str) -> String {
    format!("arn:{}:eks::aws:cluster-access-policy/{name}", partition(region))
}
