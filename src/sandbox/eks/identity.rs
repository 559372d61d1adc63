//! Pod identity associations.

use super::super::wire::{Fault, Reply, Request};
use super::{Cluster, Item, World, fault, invalid, new_tags, paged, required};
use serde_json::{Value, json};

pub(super) fn call(w: &mut World<'_>, req: &Request) -> Reply {
    let name = required(req, "clusterName")?;
    w.cluster(&name)?.running()?;
    match req.operation.as_str() {
        "CreatePodIdentityAssociation" => {
            let (namespace, account) = (required(req, "namespace")?, required(req, "serviceAccount")?);
            let body = associate(w, &name, &namespace, &account, &required(req, "roleArn")?, None, new_tags(req)?)?;
            let changed = change(body, req)?;
            let reply = json!({"association": changed});
            insert(w, &name, changed)?;
            Ok(reply)
        }
        "ListPodIdentityAssociations" => {
            let wanted = |body: &Value, member: &str| req.text(member).is_none_or(|one| body[member] == one.as_str());
            let all = w.cluster(&name)?.associations.iter();
            let all = all.filter(|(_, item)| wanted(&item.body, "namespace") && wanted(&item.body, "serviceAccount"));
            let summary = |body: &Value| {
                let mut summary = json!({});
                for member in
                    ["clusterName", "namespace", "serviceAccount", "associationArn", "associationId", "ownerArn"]
                {
                    if let Some(value) = body.get(member) {
                        summary[member] = value.clone();
                    }
                }
                summary
            };
            paged(req, "associations", all.map(|(id, item)| (id.clone(), summary(&item.body))).collect())
        }
        "DescribePodIdentityAssociation" => Ok(json!({"association": find(w.cluster(&name)?, req)?.body})),
        "UpdatePodIdentityAssociation" => {
            if let Some(role) = req.text("roleArn") {
                check_role(w, &role)?;
            }
            let now = w.now;
            let item = find(w.cluster(&name)?, req)?;
            let mut body = change(item.body.clone(), req)?;
            if let Some(role) = req.text("roleArn") {
                body["roleArn"] = role.into();
            }
            body["modifiedAt"] = now.into();
            item.body = body;
            Ok(json!({"association": item.body}))
        }
        "DeletePodIdentityAssociation" => {
            let cluster = w.cluster(&name)?;
            let body = find(cluster, req)?.body.clone();
            if body["ownerArn"].is_string() {
                let message = format!("The association is owned by the add-on {}: change it there", body["ownerArn"]);
                return Err(fault("InvalidRequestException", message));
            }
            cluster.associations.remove(body["associationId"].as_str().unwrap_or_default());
            Ok(json!({"association": body}))
        }
        _ => Err(req.unknown_operation()),
    }
}

/// Checks and makes a new association. `owner` is the add-on that asked for it, if one did.
pub(super) fn associate(
    w: &mut World<'_>,
    cluster: &str,
    namespace: &str,
    service_account: &str,
    role: &str,
    owner: Option<&str>,
    tags: Value,
) -> Reply {
    check_role(w, role)?;
    let at = w.cluster(cluster)?.associations.values();
    let mut same =
        at.filter(|item| item.body["namespace"] == namespace && item.body["serviceAccount"] == service_account);
    if let Some(other) = same.next() {
        let message =
            format!("Association already exists: {}", other.body["associationId"].as_str().unwrap_or_default());
        return Err(fault("ResourceInUseException", message).with("clusterName", cluster));
    }
    let id = format!("a-{}", w.ids.hex(17).to_lowercase());
    let mut body = json!({
        "clusterName": cluster, "namespace": namespace, "serviceAccount": service_account, "roleArn": role,
        "associationArn": w.arn(&format!("podidentityassociation/{cluster}/{id}")), "associationId": id, "tags": tags,
        "createdAt": w.now, "modifiedAt": w.now, "disableSessionTags": false,
    });
    if let Some(owner) = owner {
        body["ownerArn"] = owner.into();
    }
    Ok(body)
}

pub(super) fn insert(w: &mut World<'_>, cluster: &str, body: Value) -> Result<(), Fault> {
    let id = body["associationId"].as_str().unwrap_or_default().to_owned();
    w.cluster(cluster)?.associations.insert(id, Item::new(body));
    Ok(())
}

pub(super) fn check_role(w: &World<'_>, arn: &str) -> Result<(), Fault> {
    let role = w.role(arn).ok_or_else(|| invalid("Role provided in the request does not exist."))?;
    if role.trusts("pods.eks.amazonaws.com") {
        return Ok(());
    }
    let message =
        "Trust policy of the role provided is invalid. Follow the official documentation to resolve the issue.";
    Err(invalid(message))
}

fn find<'c>(cluster: &'c mut Cluster, req: &Request) -> Result<&'c mut Item, Fault> {
    let id = required(req, "associationId")?;
    let missing =
        fault("ResourceNotFoundException", format!("Association not found: {id}")).with("clusterName", cluster.name());
    cluster.associations.get_mut(&id).ok_or(missing)
}

/// The members that creation and update share.
fn change(mut body: Value, req: &Request) -> Reply {
    for member in ["disableSessionTags", "targetRoleArn", "policy"] {
        if let Some(value) = req.params.get(member) {
            body[member] = value.clone();
        }
    }
    Ok(body)
}
