use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_eks::types::{AccessEntry as Entry, AccessScope, AccessScopeType};
use aws_sdk_iam::types::RoleDetail;
use aws_smithy_types::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::eks::{adopted, gather, host, in_each, listed, named, optional, retag, tag_map, tags_of};
use super::fargate_profile::FargateProfileHandlers;
use super::foreign::claim;
use super::iam_role::{self, roles};
use super::node_entry::{STANDARD, entry, is_of_nodes, is_stale};
use super::node_group;
use super::permission::{self, On, When};
use crate::arn::{Arn, name_in, role_of};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags;
use crate::engine::address::Address;
use crate::engine::error::{Class, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Round, Rule, Status, Verb, Wanted,
};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.access-entry";

/// A cluster's access entry of type STANDARD with its access policies.
///
/// EKS creates entries of other types for nodes and keeps them after the nodes. An interrupted run may leave such an
/// entry, which is deleted.
///
/// An entry that someone added to our cluster outside of ringfence is drift: it is found without our tags, at
/// [`entry_address`]. An observed state has two more fields. `username` is a Kubernetes user name that someone set.
/// `stale` is true if the role was created again after its entry: the entry then doesn't work (EKS User Guide, "Grant
/// IAM users access to Kubernetes with EKS access entries").
///
/// Outputs: `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Name of the cluster.
    pub cluster: String,
    /// ARN of a role or a user. The ARN of a role includes its path.
    pub principal: String,
    pub groups: Vec<String>,
    pub policies: Vec<AccessPolicy>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccessPolicy {
    pub arn: String,
    /// The namespaces of the policy. If empty, the policy applies to the whole cluster.
    pub namespaces: Vec<String>,
}

/// The address of `principal`'s entry in the cluster at `cluster`. The address is readable, and doesn't depend on the
/// caller.
pub fn entry_address(cluster: &Address, principal: &str) -> Address {
    let principal = role_of(principal);
    let name = name_in(&principal).to_ascii_lowercase();
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    let hash: String = hex::encode(Sha256::digest(&principal)).chars().take(6).collect();
    cluster.join(format!("access-entry/{name}-{hash}"))
}

/// How many characters of `TENANCY-REGION-` the shortened name of a role keeps at least.
const KEPT: usize = 24;

/// True if `principal`, a role's ARN, has a name that may belong to a role of this tenancy.
pub fn is_named_ours(tenancy: &str, region: &str, principal: &str) -> bool {
    let prefix: String = format!("{tenancy}-{region}-").chars().take(KEPT).collect();
    name_in(principal).starts_with(&prefix)
}

pub struct AccessEntry;

pub struct AccessEntryHandlers {
    aws: Arc<Aws>,
}

impl AccessEntryHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn principals(&self, cluster: &str) -> Result<Vec<String>> {
        let mut pages = self.aws.eks.list_access_entries().cluster_name(cluster).into_paginator().items().send();
        let mut principals = Vec::new();
        while let Some(principal) = pages.next().await {
            principals.push(principal.map_err(failed("eks:ListAccessEntries"))?);
        }
        Ok(principals)
    }

    async fn policies(&self, cluster: &str, principal: &str) -> Result<Vec<AccessPolicy>> {
        let mut pages = self
            .aws
            .eks
            .list_associated_access_policies()
            .cluster_name(cluster)
            .principal_arn(principal)
            .into_paginator()
            .items()
            .send();
        let mut policies = Vec::new();
        while let Some(policy) = pages.next().await {
            let policy = policy.map_err(failed("eks:ListAssociatedAccessPolicies"))?;
            let scope = policy.access_scope();
            let mut namespaces = scope.map(|s| s.namespaces().to_vec()).unwrap_or_default();
            namespaces.sort();
            policies.push(AccessPolicy { arn: policy.policy_arn().unwrap_or_default().to_owned(), namespaces });
        }
        policies.sort();
        Ok(policies)
    }

    /// An entry of type STANDARD. `address` and `generation` apply if its tags don't name an owner. `made` is the
    /// creation time of its role.
    async fn read(
        &self,
        entry: Entry,
        (cluster, principal): (&str, &str),
        (address, generation): (&Address, u32),
        made: Option<&DateTime>,
        left_over: bool,
    ) -> Result<Option<Found>> {
        if entry.r#type() != Some(STANDARD) && !(left_over && entry.r#type().is_some_and(is_of_nodes)) {
            return Ok(None);
        }
        let all = tags_of(entry.tags());
        let (address, generation) = self.aws.owned(&all).unwrap_or_else(|| (address.clone(), generation));
        let mut groups = entry.kubernetes_groups().to_vec();
        groups.sort();
        let state = State {
            cluster: cluster.to_owned(),
            principal: principal.to_owned(),
            groups,
            policies: self.policies(cluster, principal).await?,
            tags: self.aws.observed(&all),
        };
        let user = entry.username().filter(|user| *user != user_of(principal));
        let stale = made.is_some_and(|made| is_stale(&entry, made)).then_some(true);
        let state = Packed::of(&state)?.with([("username", user.map(Value::from)), ("stale", stale.map(Value::from))]);
        let arn = entry.access_entry_arn().unwrap_or_default().to_owned();
        Ok(Some(Found {
            address,
            generation,
            outputs: outputs(&arn),
            id: arn,
            state,
            status: Status::Ready,
            refs: Vec::new(),
        }))
    }

    /// Changes the policies of an entry from one set to another. Associating a policy again replaces its scope.
    async fn associate(&self, to: &State, from: &[AccessPolicy]) -> Result<()> {
        let eks = &self.aws.eks;
        for policy in to.policies.iter().filter(|p| !from.contains(p)) {
            let scope = AccessScope::builder();
            let scope = if policy.namespaces.is_empty() {
                scope.r#type(AccessScopeType::Cluster)
            } else {
                scope.r#type(AccessScopeType::Namespace).set_namespaces(Some(policy.namespaces.clone()))
            };
            eks.associate_access_policy()
                .cluster_name(&to.cluster)
                .principal_arn(&to.principal)
                .policy_arn(&policy.arn)
                .access_scope(scope.build())
                .send()
                .await
                .map_err(failed("eks:AssociateAccessPolicy"))?;
        }
        let kept: BTreeSet<&String> = to.policies.iter().map(|p| &p.arn).collect();
        for policy in from.iter().filter(|p| !kept.contains(&p.arn)) {
            let call = eks
                .disassociate_access_policy()
                .cluster_name(&to.cluster)
                .principal_arn(&to.principal)
                .policy_arn(&policy.arn);
            optional(call.send().await.map_err(failed("eks:DisassociateAccessPolicy")))?;
        }
        Ok(())
    }

    /// The clusters, each with a role of its nodes.
    async fn roles_of_nodes(&self, round: &Round) -> Result<BTreeSet<(String, String)>> {
        let profiles = FargateProfileHandlers::new(self.aws.clone());
        let (groups, profiles) = futures::try_join!(node_group::all(&self.aws, round), profiles.all(round))?;
        let groups = groups.iter().map(|(_, group)| (group.cluster_name(), group.node_role()));
        let profiles = profiles.iter().map(|profile| (profile.cluster_name(), profile.pod_execution_role_arn()));
        Ok(groups.chain(profiles).filter_map(|(cluster, role)| Some((cluster?.to_owned(), role?.to_owned()))).collect())
    }

    /// True for a role of this tenancy. If the role is deleted, its name decides.
    fn is_ours(&self, principal: &str, role: Option<&RoleDetail>) -> bool {
        match role {
            Some(role) => self.aws.owned(&iam_role::tags_of(role.tags())).is_some(),
            None => is_named_ours(&self.aws.tenancy, &self.aws.scope.region, principal),
        }
    }

    /// The entry is neither the caller's, who would lose the access to the cluster, nor an AWS service's: EKS creates
    /// the latter, and nobody can change them (terraform-provider-aws 36447).
    fn is_left_alone(&self, principal: &str) -> bool {
        principal.contains(":role/aws-service-role/") || same_principal(principal, &self.aws.caller)
    }
}

impl Kind for AccessEntry {
    fn name(&self) -> &'static str {
        NAME
    }

    fn host(&self, state: &Packed) -> Option<String> {
        host(state)
    }

    fn deleted_after(&self) -> &'static [&'static str] {
        // The entry of an administrator is deleted late, so that people can inspect a deletion that failed halfway.
        &["k8s.manifest", super::node_group::NAME, super::fargate_profile::NAME, super::eks_addon::NAME]
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("cluster", Rule::Replace),
            ("principal", Rule::Replace),
            ("stale", Rule::Replace),
            ("groups", Rule::Unordered),
            ("policies", Rule::Unordered),
            ("policies.*.namespaces", Rule::Unordered),
        ]
    }

    fn summary(&self, state: &Packed) -> String {
        state.typed::<State>().map(|s| s.principal).unwrap_or_default()
    }

    fn pace(&self, _verb: Verb) -> Pace {
        Pace::secs(3, 180)
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }
}

impl ResourceKind for AccessEntry {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(AccessEntryHandlers::new(clients.aws.clone()))
    }

    fn reads(&self) -> &'static [&'static str] {
        &["eks:DescribeAccessEntry", "eks:ListAccessEntries", "eks:ListAssociatedAccessPolicies", "iam:GetRole"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::Clusters, When::Made, &["eks:CreateAccessEntry", "eks:TagResource"]),
            (On::Clusters, When::Gone, &["eks:DeleteAccessEntry"]),
            (
                On::Clusters,
                When::Perhaps,
                &["eks:AssociateAccessPolicy", "eks:DisassociateAccessPolicy", "eks:UpdateAccessEntry"],
            ),
        ]
    }
}

#[async_trait]
impl Handlers for AccessEntryHandlers {
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let named = named(wanted, |state: State| (state.cluster, state.principal))?;
        let entries = in_each(&self.aws, round, |cluster| async move { self.principals(&cluster).await }).await?;
        let entries = entries.into_iter().filter_map(|(cluster, principal)| {
            let key = (cluster.name, principal);
            match named.get(&key) {
                Some(address) => Some((key, (*address).clone())),
                None if self.is_left_alone(&key.1) => None,
                None => {
                    let address = entry_address(&cluster.address, &key.1);
                    Some((key, address))
                }
            }
        });
        let roles = roles(&self.aws, round).await?;
        let roles: BTreeMap<_, _> = roles.iter().filter_map(|r| Some((r.arn()?, r))).collect();
        let nodes = self.roles_of_nodes(round).await?;
        let entries = entries.map(|(key, address)| {
            let role = roles.get(key.1.as_str()).copied();
            let left_over = !nodes.contains(&key) && self.is_ours(&key.1, role);
            (role.and_then(|r| r.create_date()), left_over, key, address)
        });
        let found = gather(entries, |(made, left_over, (cluster, principal), address)| async move {
            let entry = entry(&self.aws, &cluster, &principal).await?;
            let entry = listed(entry, "eks:DescribeAccessEntry", &principal)?;
            self.read(entry, (&cluster, &principal), (&address, 1), made, left_over).await
        });
        Ok(Observation { found: found.await?.into_iter().flatten().collect(), ..Observation::default() })
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        gather(handles, |handle| async move {
            let state: State = handle.state.typed()?;
            let whose = (&handle.address, handle.generation);
            let Some(entry) = entry(&self.aws, &state.cluster, &state.principal).await? else { return Ok(None) };
            let found = self.read(entry, (&state.cluster, &state.principal), whose, None, false).await?;
            Ok(found.filter(|f| f.address == handle.address))
        })
        .await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let call = self
            .aws
            .eks
            .create_access_entry()
            .cluster_name(&state.cluster)
            .principal_arn(&state.principal)
            .set_kubernetes_groups(Some(state.groups.clone()))
            .r#type(STANDARD)
            .client_request_token(&new.token)
            .set_tags(Some(tag_map(&tags::with_generation(&state.tags, new.generation))));
        let arn = match call.send().await.map_err(failed("eks:CreateAccessEntry")) {
            Ok(answer) => answer.access_entry.and_then(|e| e.access_entry_arn),
            Err(error) if error.class == Class::Conflict => {
                let entry = entry(&self.aws, &state.cluster, &state.principal).await?;
                claim(&self.aws, new, entry.as_ref().map(|e| tags_of(e.tags())).as_ref(), error)?;
                entry.and_then(|e| e.access_entry_arn)
            }
            Err(error) if error.class == Class::NotYet => {
                return Err(error.help("the principal must exist; the ARN of a role includes its path"));
            }
            Err(error) => return Err(error),
        };
        // EKS may not find a new entry for a moment. Then the association is repeated (terraform-provider-aws,
        // `internal/service/eks/access_policy_association.go`).
        self.associate(&state, &[]).await?;
        let arn = arn.unwrap_or_default();
        Ok(Made { outputs: outputs(&arn), id: arn, ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (before, after): (State, State) = (from.state.typed()?, to.state.typed()?);
        let renamed = from.state.get("username").is_some();
        if renamed || before.groups != after.groups {
            self.aws
                .eks
                .update_access_entry()
                .cluster_name(&after.cluster)
                .principal_arn(&after.principal)
                .set_kubernetes_groups(Some(after.groups.clone()))
                .set_username(renamed.then(|| user_of(&after.principal)))
                .send()
                .await
                .map_err(failed("eks:UpdateAccessEntry"))?;
        }
        self.associate(&after, &before.policies).await?;
        let tags = adopted(&self.aws, &before.tags, &after.tags, from.generation);
        retag(&self.aws, &from.id, &before.tags, &tags).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        let call = self.aws.eks.delete_access_entry().cluster_name(&state.cluster).principal_arn(&state.principal);
        optional(call.send().await.map_err(failed("eks:DeleteAccessEntry")))?;
        Ok(true)
    }
}

/// The default Kubernetes user name that EKS assigns to a principal (EKS User Guide, "Create access entries").
fn user_of(principal: &str) -> String {
    match Arn::parse(principal) {
        Some(arn) if arn.service == "iam" && arn.typed().0 == "role" => {
            let session = format!("assumed-role/{}/{{{{SessionName}}}}", name_in(principal));
            Arn { service: "sts", resource: &session, ..arn }.to_string()
        }
        _ => principal.to_owned(),
    }
}

/// True if both ARNs are of one principal. The ARN of an assumed role has no path, so roles are compared by account
/// and name.
fn same_principal(a: &str, b: &str) -> bool {
    let role = |arn: &str| {
        let arn = role_of(arn);
        let role = Arn::parse(&arn).filter(|role| role.typed().0 == "role")?;
        Some([role.partition, role.account, name_in(&arn)].map(str::to_owned))
    };
    a == b || role(a).is_some_and(|a| Some(a) == role(b))
}

fn outputs(arn: &str) -> Outputs {
    Outputs::from([("arn".to_owned(), arn.to_owned())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_readable_and_one_for_each_principal() {
        let cluster = Address::new("tenant/12345/silo/cluster");
        let address = entry_address(&cluster, "arn:aws:iam::123456789012:role/ops/PlatformAdmin");
        assert!(address.as_str().starts_with("tenant/12345/silo/cluster/access-entry/platformadmin-"), "{address}");
        assert_ne!(address, entry_address(&cluster, "arn:aws:iam::123456789012:role/PlatformAdmin"));
        let session = "arn:aws:sts::123456789012:assumed-role/PlatformAdmin/me";
        assert_eq!(
            entry_address(&cluster, session),
            entry_address(&cluster, "arn:aws:iam::123456789012:role/PlatformAdmin"),
        );
    }

    #[test]
    fn principals_are_compared_without_the_path_of_a_role() {
        let caller = "arn:aws:iam::123456789012:role/Deploy";
        assert!(same_principal("arn:aws:iam::123456789012:role/ci/Deploy", caller));
        assert!(!same_principal("arn:aws:iam::210987654321:role/ci/Deploy", caller));
        assert!(!same_principal("arn:aws:iam::123456789012:user/Deploy", caller));
        assert!(same_principal("arn:aws:iam::123456789012:user/me", "arn:aws:iam::123456789012:user/me"));
    }

    #[test]
    fn default_user_names() {
        assert_eq!(
            user_of("arn:aws-cn:iam::123456789012:role/a/b/Admin"),
            "arn:aws-cn:sts::123456789012:assumed-role/Admin/{{SessionName}}"
        );
        assert_eq!(user_of("arn:aws:iam::123456789012:user/me"), "arn:aws:iam::123456789012:user/me");
    }
}
