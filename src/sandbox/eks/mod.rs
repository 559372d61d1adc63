//! EKS: clusters with their node groups, Fargate profiles, add-ons, access entries and pod identity associations.
//!
//! It is as strict as the EKS API reference and the errors that users of EKS have quoted: references are checked, one
//! update at a time runs on a cluster, and changes take time. Failures that a test can ask for:
//! - a node group of instance type `t3.broken` ends CREATE_FAILED with an AsgInstanceLaunchFailures issue;
//! - so does a node group whose volume key Auto Scaling may not use, and, 25 minutes after its creation, a node group
//!   whose nodes can't join: a node role without AWS's worker and registry policies, no vpc-cni add-on or one without
//!   permissions, an access entry made for an earlier role of the same name;
//! - an add-on with `ringfence-sandbox-degraded` in its configuration ends DEGRADED with a ConfigurationConflict issue;
//! - coredns and metrics-server are DEGRADED until there is an untainted node or a Fargate profile for their namespace.
//!
//! Auto Mode, Outposts, hybrid nodes and IPv6 don't exist here: a request for them gets an InvalidParameterException.

mod access;
mod addon;
mod cluster;
mod fargate;
mod identity;
mod nodegroup;
pub mod versions;

use super::fate::{During, Fate, Fates};
use super::iam::{self, Iam, Role};
use super::pages::{self, Pages};
use super::state::{Ids, Region, State, partition};
use super::tags::check_tag;
use super::wire::{Fault, Reply, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Eks {
    clusters: BTreeMap<String, Cluster>,
    /// Client tokens, by operation, cluster and token.
    tokens: BTreeMap<String, Token>,
}

/// A cluster and everything that is deleted with it. Bodies are in wire form.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Cluster {
    body: Value,
    change: Option<Change>,
    updates: Vec<Update>,
    nodegroups: BTreeMap<String, Item>,
    profiles: BTreeMap<String, Item>,
    addons: BTreeMap<String, Item>,
    /// By principal.
    entries: BTreeMap<String, Item>,
    /// The unique id of an entry's principal when the entry was made. A later role of the same name has another id, and
    /// the entry doesn't work for it.
    bound: BTreeMap<String, String>,
    /// Access policies by principal and policy.
    policies: BTreeMap<String, BTreeMap<String, Value>>,
    associations: BTreeMap<String, Item>,
    /// Whether EKS put self-managed add-ons, such as the VPC CNI, into the cluster at creation.
    self_managed: bool,
    /// Zones of the subnets at creation. Later subnets must lie in the same zones.
    zones: Vec<String>,
    security_group: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Item {
    body: Value,
    change: Option<Change>,
    /// The health issues that a fault script gave an add-on. They last until its next update.
    #[serde(default)]
    issues: Option<Value>,
}

/// The next state of a resource, and when it gets it (unix seconds).
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Change {
    at: f64,
    /// A merge patch of the body. `None`: the resource is gone.
    merge: Option<Value>,
    #[serde(default)]
    stuck: bool,
}

impl Change {
    /// The change happens after `seconds`, unless `fate` says otherwise.
    fn after(seconds: f64, now: f64, merge: Option<Value>, fate: &Fate) -> Self {
        Self { at: now + seconds * fate.slower, merge: fate.health().or(merge), stuck: fate.stuck }
    }

    fn is_due(&self, now: f64) -> bool {
        !self.stuck && self.at <= now
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Update {
    body: Value,
    of: Target,
    /// When the update ends, and the merge patch that it applies.
    at: f64,
    merge: Value,
    #[serde(default)]
    stuck: bool,
    /// The error, if the update fails.
    #[serde(default)]
    error: Option<Value>,
}

/// An update: its type and parameters, its duration, and the merge patch that it applies at its end.
struct Step<'k> {
    kind: &'k str,
    params: Value,
    seconds: f64,
    patch: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Target {
    Cluster,
    Nodegroup(String),
    Addon(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Token {
    /// Digest of the first request with this token.
    digest: String,
    /// The member of the answer, and the identity of the new resource: its ARN, or an update's id.
    member: String,
    id: String,
}

/// Method, path with labels named after the model input members, operation.
pub const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/access-policies", "ListAccessPolicies"),
    ("GET", "/addons/configuration-schemas", "DescribeAddonConfiguration"),
    ("GET", "/addons/supported-versions", "DescribeAddonVersions"),
    ("GET", "/cluster-versions", "DescribeClusterVersions"),
    ("GET", "/clusters", "ListClusters"),
    ("POST", "/clusters", "CreateCluster"),
    ("GET", "/clusters/{name}", "DescribeCluster"),
    ("DELETE", "/clusters/{name}", "DeleteCluster"),
    ("POST", "/clusters/{name}/update-config", "UpdateClusterConfig"),
    ("GET", "/clusters/{name}/updates", "ListUpdates"),
    ("POST", "/clusters/{name}/updates", "UpdateClusterVersion"),
    ("GET", "/clusters/{name}/updates/{updateId}", "DescribeUpdate"),
    ("POST", "/clusters/{clusterName}/encryption-config/associate", "AssociateEncryptionConfig"),
    ("GET", "/clusters/{clusterName}/access-entries", "ListAccessEntries"),
    ("POST", "/clusters/{clusterName}/access-entries", "CreateAccessEntry"),
    ("GET", "/clusters/{clusterName}/access-entries/{principalArn}", "DescribeAccessEntry"),
    ("POST", "/clusters/{clusterName}/access-entries/{principalArn}", "UpdateAccessEntry"),
    ("DELETE", "/clusters/{clusterName}/access-entries/{principalArn}", "DeleteAccessEntry"),
    ("GET", "/clusters/{clusterName}/access-entries/{principalArn}/access-policies", "ListAssociatedAccessPolicies"),
    ("POST", "/clusters/{clusterName}/access-entries/{principalArn}/access-policies", "AssociateAccessPolicy"),
    (
        "DELETE",
        "/clusters/{clusterName}/access-entries/{principalArn}/access-policies/{policyArn}",
        "DisassociateAccessPolicy",
    ),
    ("GET", "/clusters/{clusterName}/addons", "ListAddons"),
    ("POST", "/clusters/{clusterName}/addons", "CreateAddon"),
    ("GET", "/clusters/{clusterName}/addons/{addonName}", "DescribeAddon"),
    ("DELETE", "/clusters/{clusterName}/addons/{addonName}", "DeleteAddon"),
    ("POST", "/clusters/{clusterName}/addons/{addonName}/update", "UpdateAddon"),
    ("GET", "/clusters/{clusterName}/fargate-profiles", "ListFargateProfiles"),
    ("POST", "/clusters/{clusterName}/fargate-profiles", "CreateFargateProfile"),
    ("GET", "/clusters/{clusterName}/fargate-profiles/{fargateProfileName}", "DescribeFargateProfile"),
    ("DELETE", "/clusters/{clusterName}/fargate-profiles/{fargateProfileName}", "DeleteFargateProfile"),
    ("GET", "/clusters/{clusterName}/node-groups", "ListNodegroups"),
    ("POST", "/clusters/{clusterName}/node-groups", "CreateNodegroup"),
    ("GET", "/clusters/{clusterName}/node-groups/{nodegroupName}", "DescribeNodegroup"),
    ("DELETE", "/clusters/{clusterName}/node-groups/{nodegroupName}", "DeleteNodegroup"),
    ("POST", "/clusters/{clusterName}/node-groups/{nodegroupName}/update-config", "UpdateNodegroupConfig"),
    ("POST", "/clusters/{clusterName}/node-groups/{nodegroupName}/update-version", "UpdateNodegroupVersion"),
    ("GET", "/clusters/{clusterName}/pod-identity-associations", "ListPodIdentityAssociations"),
    ("POST", "/clusters/{clusterName}/pod-identity-associations", "CreatePodIdentityAssociation"),
    ("GET", "/clusters/{clusterName}/pod-identity-associations/{associationId}", "DescribePodIdentityAssociation"),
    ("POST", "/clusters/{clusterName}/pod-identity-associations/{associationId}", "UpdatePodIdentityAssociation"),
    ("DELETE", "/clusters/{clusterName}/pod-identity-associations/{associationId}", "DeletePodIdentityAssociation"),
    ("GET", "/tags/{resourceArn}", "ListTagsForResource"),
    ("POST", "/tags/{resourceArn}", "TagResource"),
    ("DELETE", "/tags/{resourceArn}", "UntagResource"),
];

/// The parts of the state that EKS works on, borrowed side by side.
struct World<'s> {
    account: &'s str,
    region: &'s str,
    now: f64,
    ids: &'s mut Ids,
    quotas: &'s BTreeMap<String, f64>,
    fates: &'s mut Fates,
    iam: &'s mut Iam,
    here: &'s mut Region,
}

impl<'s> World<'s> {
    fn open(state: &'s mut State, account: &'s str, region: &'s str, now: f64) -> Self {
        let State { accounts, ids, quotas, fates, .. } = state;
        let of = accounts.entry(account.to_owned()).or_default();
        let here = of.regions.entry(region.to_owned()).or_default();
        Self { account, region, now, ids, quotas, fates, iam: &mut of.iam, here }
    }

    fn arn(&self, resource: &str) -> String {
        format!("arn:{}:eks:{}:{}:{resource}", partition(self.region), self.region, self.account)
    }

    fn cluster(&mut self, name: &str) -> Result<&mut Cluster, Fault> {
        self.here.eks.cluster(name)
    }

    /// The role of an ARN. EKS accepts only roles of this account.
    fn role(&self, arn: &str) -> Option<Role> {
        self.iam.role_by_arn(arn).cloned()
    }
}

pub fn call(state: &mut State, req: &Request) -> Reply {
    let cluster = req.text("clusterName").or_else(|| req.text("name")).unwrap_or_default();
    let token = req.text("clientRequestToken").map(|token| format!("{} {cluster} {token}", req.operation));
    let digest = digest(&req.params);
    // The state holds the endpoint as a path, because a saved state can outlive the address that serves it.
    let with_url = |mut reply: Value| {
        if let Some(path) = reply["cluster"]["endpoint"].as_str() {
            reply["cluster"]["endpoint"] = format!("{}{path}", req.base_url).into();
        }
        reply
    };
    let eks = &mut state.region(&req.account, &req.region).eks;
    if let Some(used) = token.as_ref().and_then(|token| eks.tokens.get(token))
        && let Some(answer) = eks.answer(used)
    {
        let message = "The client request token was used before for a request with different parameters";
        return if used.digest == digest { Ok(with_url(answer)) } else { Err(invalid(message)) };
    }
    let reply = serve(state, req)?;
    let told = reply.as_object().and_then(|reply| reply.iter().next());
    if let (Some(token), Some((member, body))) = (token, told) {
        let token_of = Token { digest, member: member.clone(), id: identity(body).to_owned() };
        state.region(&req.account, &req.region).eks.tokens.insert(token, token_of);
    }
    Ok(with_url(reply))
}

fn serve(state: &mut State, req: &Request) -> Reply {
    let service_role = match req.operation.as_str() {
        "CreateCluster" => &["eks"][..],
        "CreateNodegroup" => &["eks-nodegroup", "autoscaling"],
        "CreateFargateProfile" => &["eks-fargate"],
        _ => &[],
    };
    let public = match req.operation.as_str() {
        "CreateFargateProfile" => fargate::public_subnets(state, req),
        _ => BTreeSet::new(),
    };
    let w = &mut World::open(state, &req.account, &req.region, req.now);
    let reply = match req.operation.as_str() {
        "CreateCluster" => cluster::create(w, req),
        "DescribeCluster" => Ok(json!({"cluster": w.cluster(&required(req, "name")?)?.body})),
        "ListClusters" => list(req, "clusters", w.here.eks.clusters.keys()),
        "UpdateClusterConfig" => cluster::update_config(w, req),
        "UpdateClusterVersion" => cluster::update_version(w, req),
        "AssociateEncryptionConfig" => cluster::associate_encryption(w, req),
        "DeleteCluster" => cluster::delete(w, req),
        "DescribeClusterVersions" => versions::describe(req),
        "DescribeUpdate" => w.cluster(&required(req, "name")?)?.describe_update(req),
        "ListUpdates" => {
            let (of, cluster) = (target(req), w.cluster(&required(req, "name")?)?);
            let ids = cluster.updates.iter().filter(|update| update.of == of);
            list(req, "updateIds", ids.map(|update| identity(&update.body)))
        }
        "TagResource" | "UntagResource" | "ListTagsForResource" => tags(&mut w.here.eks, req),
        "DescribeAddonVersions" => addon::versions(req),
        "DescribeAddonConfiguration" => addon::configuration(req),
        "ListAccessPolicies" => access::policies(req),
        operation if operation.contains("Access") => access::call(w, req),
        operation if operation.contains("Addon") => addon::call(w, req),
        operation if operation.contains("Nodegroup") => nodegroup::call(w, req),
        operation if operation.contains("FargateProfile") => fargate::call(w, req, &public),
        operation if operation.contains("PodIdentity") => identity::call(w, req),
        _ => Err(req.unknown_operation()),
    }?;
    for service in service_role {
        // EKS makes its service-linked role on first use. "Already exists" is no failure.
        let _made = iam::create_service_linked_role(
            state,
            &req.account,
            req.partition(),
            &format!("{service}.amazonaws.com"),
            req.now,
        );
    }
    Ok(reply)
}

/// Brings clusters, node groups … of a region up to `now`. It runs before every call to any service in the region.
pub fn settle(state: &mut State, account: &str, region: &str, now: f64) {
    let w = &mut World::open(state, account, region, now);
    let names: Vec<String> = w.here.eks.clusters.keys().cloned().collect();
    let mut something_went = false;
    for name in names {
        // Taken out of the map while it changes, so that it can be borrowed together with the rest of the region.
        let Some(mut cluster) = w.here.eks.clusters.remove(&name) else { continue };
        let before = cluster.size();
        if cluster::settle(w, &name, &mut cluster) {
            something_went |= cluster.size() < before;
            w.here.eks.clusters.insert(name, cluster);
        } else {
            something_went = true;
        }
    }
    if something_went {
        w.here.eks.forget_tokens();
    }
}

impl Eks {
    /// The properties of a cluster that its API server needs: the Kubernetes version, and whether it has the vpc-cni
    /// add-on. `None` if the API server doesn't answer.
    pub fn api_server(&self, name: &str) -> Option<(&'static versions::Version, bool)> {
        let cluster = self.clusters.get(name).filter(|cluster| cluster.body["endpoint"].is_string())?;
        let version = versions::find(cluster.body["version"].as_str()?)?;
        Some((version, cluster.self_managed || cluster.addons.contains_key("vpc-cni")))
    }

    /// ARN and tags of the resource that a request is about: a cluster, or a part of one. A request that creates or
    /// lists parts is about their cluster.
    pub fn named(&self, req: &Request) -> Option<(String, BTreeMap<String, String>)> {
        let cluster = self.clusters.get(&req.text("clusterName").or_else(|| req.text("name"))?)?;
        let parts = [
            ("nodegroupName", &cluster.nodegroups),
            ("fargateProfileName", &cluster.profiles),
            ("addonName", &cluster.addons),
            ("principalArn", &cluster.entries),
            ("associationId", &cluster.associations),
        ];
        let part = parts.iter().find_map(|(param, items)| Some((items, req.text(param)?)));
        let body = match part.filter(|_| !req.operation.starts_with("Create")) {
            Some((items, name)) => &items.get(&name)?.body,
            None => &cluster.body,
        };
        Some((identity(body).to_owned(), tags_of(body)))
    }

    /// The tags of a cluster or a part of one.
    pub fn by_arn(&self, arn: &str) -> Option<BTreeMap<String, String>> {
        self.clusters.values().flat_map(Cluster::bodies).find(|body| identity(body) == arn).map(tags_of)
    }

    fn cluster(&mut self, name: &str) -> Result<&mut Cluster, Fault> {
        self.clusters.get_mut(name).ok_or_else(|| {
            fault("ResourceNotFoundException", format!("No cluster found for name: {name}.")).with("clusterName", name)
        })
    }

    /// The answer to a request whose token was used before: the present body of the resource that the first request
    /// created. `None` if that resource is deleted.
    fn answer(&self, token: &Token) -> Option<Value> {
        let body = self.clusters.values().flat_map(Cluster::bodies).find(|body| identity(body) == token.id)?;
        let mut answer = Map::new();
        answer.insert(token.member.clone(), body.clone());
        Some(Value::Object(answer))
    }

    /// Lets stuck resources go on to their next state.
    pub fn release(&mut self) {
        for cluster in self.clusters.values_mut() {
            let Cluster { change, updates, nodegroups, profiles, addons, .. } = cluster;
            let items = [nodegroups, profiles, addons].into_iter().flat_map(BTreeMap::values_mut);
            let changes = items.filter_map(|item| item.change.as_mut()).chain(change.as_mut());
            changes.for_each(|change| change.stuck = false);
            updates.iter_mut().for_each(|update| update.stuck = false);
        }
    }

    fn forget_tokens(&mut self) {
        let tokens = std::mem::take(&mut self.tokens);
        self.tokens = tokens.into_iter().filter(|(_, token)| self.answer(token).is_some()).collect();
    }
}

impl Cluster {
    fn items(&self) -> [&BTreeMap<String, Item>; 5] {
        [&self.nodegroups, &self.profiles, &self.addons, &self.entries, &self.associations]
    }

    fn size(&self) -> usize {
        self.items().iter().map(|items| items.len()).sum()
    }

    fn bodies(&self) -> impl Iterator<Item = &Value> {
        let items = self.items().into_iter().flat_map(|items| items.values().map(|item| &item.body));
        std::iter::once(&self.body).chain(items).chain(self.updates.iter().map(|update| &update.body))
    }

    fn name(&self) -> &str {
        self.body["name"].as_str().unwrap_or_default()
    }

    fn status(&self) -> &str {
        status(&self.body)
    }

    fn vpc(&self) -> &str {
        self.body["resourcesVpcConfig"]["vpcId"].as_str().unwrap_or_default()
    }

    /// Refuses unless the cluster is ACTIVE and no update is in progress.
    fn active(&self) -> Result<(), Fault> {
        if self.status() == "ACTIVE" {
            return Ok(());
        }
        Err(fault("InvalidRequestException", format!("Cluster '{}' is not in ACTIVE status", self.name()))
            .with("clusterName", self.name()))
    }

    /// Refuses unless the cluster is usable. An update may be in progress.
    fn running(&self) -> Result<(), Fault> {
        if self.status() == "UPDATING" { Ok(()) } else { self.active() }
    }

    fn describe_update(&self, req: &Request) -> Reply {
        let (of, id) = (target(req), required(req, "updateId")?);
        let found = self.updates.iter().find(|update| update.of == of && identity(&update.body) == id);
        let missing = || fault("ResourceNotFoundException", format!("No update found for ID: {id}"));
        found.map(|update| json!({"update": update.body})).ok_or_else(missing)
    }

    /// Begins an update of a target, and returns the update.
    fn begin(&mut self, now: f64, id: String, of: Target, step: Step<'_>, fate: &Fate) -> Value {
        let Step { kind, params, seconds, patch } = step;
        let params = params.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let params = params.map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            json!({"type": name, "value": value})
        });
        let body = json!({
            "id": id, "status": "InProgress", "type": kind, "params": params.collect::<Value>(), "createdAt": now,
            "errors": [],
        });
        if let Some(target) = self.target(&of) {
            target["status"] = "UPDATING".into();
        }
        let reply = json!({"update": body});
        let degraded = fate.status() == Some("DEGRADED");
        let error = fate
            .reason()
            .filter(|_| !degraded)
            .map(|[code, message]| json!({"errorCode": code, "errorMessage": message, "resourceIds": []}));
        if let (Target::Addon(name), Some(health)) = (&of, fate.health().filter(|_| degraded))
            && let Some(addon) = self.addons.get_mut(name)
        {
            addon.issues = Some(health["health"]["issues"].clone());
        }
        let at = now + seconds * fate.slower;
        self.updates.push(Update { body, of, at, merge: patch, stuck: fate.stuck, error });
        reply
    }

    fn target(&mut self, of: &Target) -> Option<&mut Value> {
        match of {
            Target::Cluster => Some(&mut self.body),
            Target::Nodegroup(name) => self.nodegroups.get_mut(name).map(|item| &mut item.body),
            Target::Addon(name) => self.addons.get_mut(name).map(|item| &mut item.body),
        }
    }

    /// The id of the update that is in progress on a target.
    fn in_progress(&self, of: &Target) -> Option<&str> {
        let running = |update: &&Update| update.of == *of && update.body["status"] == "InProgress";
        self.updates.iter().find(running).map(|update| identity(&update.body))
    }
}

impl Item {
    fn new(body: Value) -> Self {
        Self { body, change: None, issues: None }
    }

    /// The same item with its next state scheduled.
    fn becoming(mut self, change: Change) -> Self {
        self.change = Some(change);
        self
    }

    fn status(&self) -> &str {
        status(&self.body)
    }

    /// The item is DELETING from now on, and is removed by `change`.
    fn leave(&mut self, change: Change) {
        self.body["status"] = "DELETING".into();
        self.change = Some(change);
    }

    /// Applies the scheduled change if it is due. `Some(true)`: it was applied. `Some(false)`: the item is gone.
    /// `None`: nothing was due.
    fn due(&mut self, now: f64) -> Option<bool> {
        let change = self.change.take_if(|change| change.is_due(now))?;
        if let Some(patch) = &change.merge {
            merge(&mut self.body, patch);
        }
        Some(change.merge.is_some())
    }
}

/// A JSON merge patch (RFC 7396).
pub fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    if let Value::Object(members) = value {
        for (key, patch) in patch {
            if patch.is_null() {
                members.shift_remove(key);
            } else {
                merge(members.entry(key.clone()).or_insert(Value::Null), patch);
            }
        }
    }
}

fn tags(eks: &mut Eks, req: &Request) -> Reply {
    let arn = required(req, "resourceArn")?;
    if !arn.starts_with("arn:") || !arn.contains(":eks:") {
        return Err(fault("BadRequestException", format!("The ARN {arn} is not an EKS resource's")));
    }
    let missing = || fault("NotFoundException", format!("No resource found for ARN: {arn}"));
    let clusters = eks.clusters.values_mut();
    let mut bodies = clusters.flat_map(|cluster| {
        let Cluster { body, nodegroups, profiles, addons, entries, associations, .. } = cluster;
        let items = [nodegroups, profiles, addons, entries, associations].into_iter();
        std::iter::once(body).chain(items.flat_map(|items| items.values_mut().map(|item| &mut item.body)))
    });
    let body = bodies.find(|body| identity(body) == arn).ok_or_else(missing)?;
    let mut tags = body["tags"].as_object().cloned().unwrap_or_default();
    match req.operation.as_str() {
        "TagResource" => {
            let bad = |fault_of: Fault| fault("BadRequestException", fault_of.message);
            for (key, value) in new_tags(req).map_err(bad)?.as_object().into_iter().flatten() {
                tags.insert(key.clone(), value.clone());
            }
            if tags.len() > 50 {
                return Err(fault("BadRequestException", "A resource can have 50 tags"));
            }
        }
        "UntagResource" => {
            for key in req.texts("tagKeys") {
                tags.shift_remove(&key);
            }
        }
        _ => return Ok(json!({"tags": tags})),
    }
    body["tags"] = Value::Object(tags);
    Ok(json!({}))
}

fn tags_of(body: &Value) -> BTreeMap<String, String> {
    let tags = body["tags"].as_object().into_iter().flatten();
    tags.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// Checks the request's tags and returns them.
fn new_tags(req: &Request) -> Reply {
    let Some(tags) = req.params.get("tags") else { return Ok(json!({})) };
    let tags = tags.as_object().ok_or_else(|| invalid("tags must be a map"))?;
    for (key, value) in tags {
        let value = value.as_str().ok_or_else(|| invalid(format!("Tag {key:?} must have a string")))?;
        check_tag(key, value).map_err(|(at, rule)| invalid(format!("Tag {key:?}: {at}: {rule}")))?;
    }
    if tags.len() > 50 {
        return Err(invalid("A resource can have 50 tags"));
    }
    Ok(Value::Object(tags.clone()))
}

/// A page of names.
fn list<'n, N: AsRef<str> + ?Sized + 'n>(req: &Request, member: &str, names: impl Iterator<Item = &'n N>) -> Reply {
    paged(req, member, names.map(|name| (name.as_ref().to_owned(), name.as_ref().into())).collect())
}

/// A page of values, ordered by key.
fn paged(req: &Request, member: &str, all: Vec<(String, Value)>) -> Reply {
    const PAGES: Pages = Pages { size: "maxResults", token: "nextToken", next: "nextToken", usual: 100, most: 100 };
    pages::paged(req, &PAGES, member, all.into_iter()).map_err(invalid)
}

fn target(req: &Request) -> Target {
    match (req.text("nodegroupName"), req.text("addonName")) {
        (Some(name), _) => Target::Nodegroup(name),
        (_, Some(name)) => Target::Addon(name),
        _ => Target::Cluster,
    }
}

/// The identity of a body: its ARN, or an update's id.
fn identity(body: &Value) -> &str {
    const MEMBERS: &[&str] =
        &["nodegroupArn", "fargateProfileArn", "addonArn", "accessEntryArn", "associationArn", "arn", "id"];
    MEMBERS.iter().find_map(|member| body[*member].as_str()).unwrap_or_default()
}

fn digest(params: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let sorted_members: BTreeMap<_, _> =
                    members.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
                sorted_members.into_iter().collect()
            }
            Value::Array(list) => list.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    STANDARD.encode(Sha256::digest(sorted(params).to_string()))
}

/// Letters, digits, `-` and `_`, the first a letter or digit.
fn check_name(what: &str, name: &str, longest: usize) -> Result<(), Fault> {
    let shaped = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if shaped && name.len() <= longest {
        return Ok(());
    }
    Err(invalid(format!(
        "{what} {name:?} must begin with a letter or digit and have at most {longest} letters, digits, - and _"
    )))
}

fn status(body: &Value) -> &str {
    body["status"].as_str().unwrap_or_default()
}

fn required(req: &Request, name: &str) -> Result<String, Fault> {
    req.text(name).ok_or_else(|| invalid(format!("{name} can't be empty")))
}

fn invalid(message: impl Into<String>) -> Fault {
    fault("InvalidParameterException", message)
}

fn fault(code: &str, message: impl Into<String>) -> Fault {
    let status = match code {
        "ResourceNotFoundException" | "NotFoundException" => 404,
        "ResourceInUseException" => 409,
        _ => 400,
    };
    Fault::new(status, code, message)
}
