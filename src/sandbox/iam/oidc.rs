//! Calls about OpenID Connect providers.

use super::super::clock::iso8601;
use super::super::quotas;
use super::super::state::State;
use super::super::wire::{Fault, Reply, Request};
use super::request::{at_most, invalid, list_tags, new_tags, no_such, over, required, tag, untag, wire_tags};
use super::{Iam, Oidc};
use serde_json::{Value, json};

pub fn call(state: &mut State, req: &Request) -> Reply {
    if req.operation == "CreateOpenIDConnectProvider" {
        return create_oidc(state, req);
    }
    let iam = &mut state.account(&req.account).iam;
    match req.operation.as_str() {
        "GetOpenIDConnectProvider" => {
            let Oidc { url, clients, thumbprints, created, tags } = iam.oidc(req)?;
            Ok(json!({
                "Url": url, "ClientIDList": clients, "ThumbprintList": thumbprints, "CreateDate": created,
                "Tags": wire_tags(tags),
            }))
        }
        "ListOpenIDConnectProviders" => {
            let arns = iam.oidc.keys().map(|arn| json!({"Arn": arn}));
            Ok(json!({"OpenIDConnectProviderList": arns.collect::<Value>()}))
        }
        // As on AWS, the deletion of a missing provider succeeds.
        "DeleteOpenIDConnectProvider" => {
            iam.oidc.remove(&required(req, "OpenIDConnectProviderArn")?);
            Ok(json!({}))
        }
        "TagOpenIDConnectProvider" => tag(&mut iam.oidc(req)?.tags, req, "OpenIdConnectProvider"),
        "UntagOpenIDConnectProvider" => untag(&mut iam.oidc(req)?.tags, req),
        "ListOpenIDConnectProviderTags" => list_tags(&iam.oidc(req)?.tags, req),
        "AddClientIDToOpenIDConnectProvider" => {
            let client = required(req, "ClientID")?;
            let clients = &mut iam.oidc(req)?.clients;
            if !clients.contains(&client) {
                at_most(clients.len() + 1, 100, "ClientIdsPerOpenIdConnectProvider")?;
                clients.push(client);
            }
            Ok(json!({}))
        }
        "RemoveClientIDFromOpenIDConnectProvider" => {
            let client = required(req, "ClientID")?;
            iam.oidc(req)?.clients.retain(|one| *one != client);
            Ok(json!({}))
        }
        "UpdateOpenIDConnectProviderThumbprint" => {
            let thumbprints = thumbprints(req)?;
            iam.oidc(req)?.thumbprints = thumbprints;
            Ok(json!({}))
        }
        _ => Err(req.unknown_operation()),
    }
}

impl Iam {
    fn oidc(&mut self, req: &Request) -> Result<&mut Oidc, Fault> {
        let arn = required(req, "OpenIDConnectProviderArn")?;
        let found = self.oidc.get_mut(&arn);
        found.ok_or_else(|| no_such(format!("OpenIDConnect Provider not found for arn {arn}")))
    }
}

fn create_oidc(state: &mut State, req: &Request) -> Reply {
    let url = required(req, "Url")?;
    let tags = new_tags(req)?;
    let Some(host) = url.strip_prefix("https://").filter(|rest| !rest.is_empty() && !rest.contains(['?', '#'])) else {
        return Err(Fault::new(400, "ValidationError", "Invalid Open ID Connect Provider URL"));
    };
    let clients = req.texts("ClientIDList");
    at_most(clients.len(), 100, "ClientIdsPerOpenIdConnectProvider")?;
    let mut thumbprints = thumbprints(req)?;
    if thumbprints.is_empty() {
        // AWS computes it from the provider's certificate. This is the thumbprint of the CA of EKS's issuers.
        thumbprints.push("9e99a48a9960b14926bb7f3b02e22da2b0ab7280".to_owned());
    }
    let arn = format!("arn:{}:iam::{}:oidc-provider/{host}", req.partition(), req.account);
    let limit = quotas::limit(&state.quotas, "L-858F3967");
    let providers = &mut state.account(&req.account).iam.oidc;
    if providers.contains_key(&arn) {
        return Err(Fault::new(409, "EntityAlreadyExists", format!("Provider with url {url} already exists.")));
    }
    if providers.len() as f64 >= limit {
        return Err(over("OpenIdConnectProvidersPerAccount", limit));
    }
    let reply = json!({"OpenIDConnectProviderArn": arn, "Tags": wire_tags(&tags)});
    providers.insert(arn, Oidc { url: host.to_owned(), clients, thumbprints, created: iso8601(req.now), tags });
    Ok(reply)
}

fn thumbprints(req: &Request) -> Result<Vec<String>, Fault> {
    let thumbprints = req.texts("ThumbprintList");
    at_most(thumbprints.len(), 5, "ThumbprintsPerOpenIdConnectProvider")?;
    match thumbprints.iter().find(|one| one.len() != 40 || !one.bytes().all(|b| b.is_ascii_hexdigit())) {
        Some(bad) => Err(invalid(bad, "thumbprintList", "Member must have length equal to 40")),
        None => Ok(thumbprints),
    }
}
