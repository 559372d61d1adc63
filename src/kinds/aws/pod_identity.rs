use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_eks::types::{PodIdentityAssociation, PodIdentityAssociationSummary};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::eks::{adopted, gather, host, in_each, listed, named, optional, retag, tag_map, tags_of};
use super::foreign::claim;
use super::permission::{self, On, When};
use super::policy;
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

pub const NAME: &str = "aws.pod-identity";

/// A Pod Identity association.
///
/// An association that someone added to our cluster outside of ringfence is drift: it is found without our tags, at
/// [`association_address`]. Associations of an add-on belong to the add-on. An observed state has the fields
/// `target_role`, `session_tags` and `policy` if someone set them; to remove them, the association is replaced.
///
/// Outputs: `id`, `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: String,
    pub namespace: String,
    pub service_account: String,
    /// ARN.
    pub role: String,
    pub tags: BTreeMap<String, String>,
}

/// The address of a service account's association in the cluster at `cluster`.
pub fn association_address(cluster: &Address, namespace: &str, service_account: &str) -> Address {
    cluster.join(format!("pod-identity/{namespace}.{service_account}"))
}

pub struct PodIdentity;

pub struct PodIdentityHandlers {
    aws: Arc<Aws>,
}

impl PodIdentityHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    /// A cluster's associations except those of add-ons: all of them, or those of one service account.
    async fn list(&self, cluster: &str, of: Option<(&str, &str)>) -> Result<Vec<PodIdentityAssociationSummary>> {
        let mut pages = self
            .aws
            .eks
            .list_pod_identity_associations()
            .cluster_name(cluster)
            .set_namespace(of.map(|(namespace, _)| namespace.to_owned()))
            .set_service_account(of.map(|(_, account)| account.to_owned()))
            .into_paginator()
            .items()
            .send();
        let mut all = Vec::new();
        while let Some(one) = pages.next().await {
            all.push(one.map_err(failed("eks:ListPodIdentityAssociations"))?);
        }
        all.retain(|a| a.owner_arn().is_none());
        Ok(all)
    }

    /// `address` and `generation` apply if the tags don't name an owner.
    fn found(&self, it: &PodIdentityAssociation, address: &Address, generation: u32) -> Result<Found> {
        let all = tags_of(it.tags());
        let (address, generation) = self.aws.owned(&all).unwrap_or_else(|| (address.clone(), generation));
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let state = State {
            cluster: text(it.cluster_name()),
            namespace: text(it.namespace()),
            service_account: text(it.service_account()),
            role: text(it.role_arn()),
            tags: self.aws.observed(&all),
        };
        let state = Packed::of(&state)?.with([
            ("target_role", it.target_role_arn().map(Value::from)),
            ("session_tags", it.disable_session_tags().filter(|off| *off).map(|_| "disabled".into())),
            ("policy", it.policy().map(policy::parse)),
        ]);
        let (id, arn) = (text(it.association_id()), text(it.association_arn()));
        let (outputs, refs) = (outputs(&id, &arn), Vec::new());
        Ok(Found { address, generation, id, outputs, state, status: Status::Ready, refs })
    }

    async fn by_account(&self, state: &State) -> Result<Option<PodIdentityAssociation>> {
        let of = (state.namespace.as_str(), state.service_account.as_str());
        let all = optional(self.list(&state.cluster, Some(of)).await)?.unwrap_or_default();
        // AWS emulators ignore the filters.
        let one = all.iter().find(|a| (a.namespace(), a.service_account()) == (Some(of.0), Some(of.1)));
        match one.and_then(|a| a.association_id()) {
            Some(id) => describe(&self.aws, &state.cluster, id).await,
            None => Ok(None),
        }
    }
}

impl Kind for PodIdentity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn host(&self, state: &Packed) -> Option<String> {
        host(state)
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("cluster", Rule::Replace),
            ("namespace", Rule::Replace),
            ("service_account", Rule::Replace),
            ("target_role", Rule::Replace),
            ("session_tags", Rule::Replace),
            ("policy", Rule::Replace),
        ]
    }

    fn summary(&self, state: &Packed) -> String {
        state.typed::<State>().map(|s| format!("{}/{}", s.namespace, s.service_account)).unwrap_or_default()
    }

    fn pace(&self, _verb: Verb) -> Pace {
        Pace::secs(3, 180)
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }
}

impl ResourceKind for PodIdentity {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(PodIdentityHandlers::new(clients.aws.clone()))
    }

    fn reads(&self) -> &'static [&'static str] {
        &["eks:DescribePodIdentityAssociation", "eks:ListPodIdentityAssociations"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::Clusters, When::Made, &["eks:CreatePodIdentityAssociation", "eks:TagResource"]),
            (On::Clusters, When::Gone, &["eks:DeletePodIdentityAssociation"]),
            (On::Clusters, When::Perhaps, &["eks:UpdatePodIdentityAssociation"]),
        ]
    }

    fn passes_roles_to(&self) -> &'static [&'static str] {
        &["pods.eks.amazonaws.com"]
    }
}

#[async_trait]
impl Handlers for PodIdentityHandlers {
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let named = named(wanted, |state: State| (state.cluster, state.namespace, state.service_account))?;
        let all = in_each(&self.aws, round, |cluster| async move { self.list(&cluster, None).await }).await?;
        let all = all.into_iter().map(|(cluster, one)| {
            let (namespace, account) = (one.namespace.unwrap_or_default(), one.service_account.unwrap_or_default());
            let derived = association_address(&cluster.address, &namespace, &account);
            let address = named.get(&(cluster.name.clone(), namespace, account)).map_or(derived, |a| (*a).clone());
            (cluster.name, one.association_id.unwrap_or_default(), address)
        });
        let found = gather(all, |(cluster, id, address)| async move {
            let one = describe(&self.aws, &cluster, &id).await?;
            self.found(&listed(one, "eks:DescribePodIdentityAssociation", &id)?, &address, 1)
        });
        Ok(Observation { found: found.await?, ..Observation::default() })
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        gather(handles, |handle| async move {
            let state: State = handle.state.typed()?;
            let one = self.by_account(&state).await?;
            let found = one.map(|one| self.found(&one, &handle.address, handle.generation)).transpose()?;
            Ok(found.filter(|f| f.address == handle.address))
        })
        .await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let call = self
            .aws
            .eks
            .create_pod_identity_association()
            .cluster_name(&state.cluster)
            .namespace(&state.namespace)
            .service_account(&state.service_account)
            .role_arn(&state.role)
            .client_request_token(&new.token)
            .set_tags(Some(tag_map(&tags::with_generation(&state.tags, new.generation))));
        // EKS may not find a new role yet: the call is retried after "Role provided in the request does not exist"
        // (terraform-provider-aws 34711).
        let made = match call.send().await.map_err(failed("eks:CreatePodIdentityAssociation")) {
            Ok(answer) => answer.association,
            Err(error) if error.class == Class::Conflict => {
                let made = self.by_account(&state).await?;
                claim(&self.aws, new, made.as_ref().map(|m| tags_of(m.tags())).as_ref(), error)?;
                made
            }
            Err(error) => return Err(error),
        };
        let (id, arn) = made.map(|m| (m.association_id, m.association_arn)).unwrap_or_default();
        let (id, arn) = (id.unwrap_or_default(), arn.unwrap_or_default());
        Ok(Made { outputs: outputs(&id, &arn), id, ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (before, after): (State, State) = (from.state.typed()?, to.state.typed()?);
        if before.role != after.role {
            self.aws
                .eks
                .update_pod_identity_association()
                .cluster_name(&after.cluster)
                .association_id(&from.id)
                .role_arn(&after.role)
                .send()
                .await
                .map_err(failed("eks:UpdatePodIdentityAssociation"))?;
        }
        let arn = from.outputs.get("arn").map(String::as_str).unwrap_or_default();
        let tags = adopted(&self.aws, &before.tags, &after.tags, from.generation);
        retag(&self.aws, arn, &before.tags, &tags).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        let call =
            self.aws.eks.delete_pod_identity_association().cluster_name(&state.cluster).association_id(&found.id);
        optional(call.send().await.map_err(failed("eks:DeletePodIdentityAssociation")))?;
        Ok(true)
    }
}

/// One association. It may belong to an add-on.
pub(super) async fn describe(aws: &Aws, cluster: &str, id: &str) -> Result<Option<PodIdentityAssociation>> {
    let call = aws.eks.describe_pod_identity_association().cluster_name(cluster).association_id(id);
    let answer = optional(call.send().await.map_err(failed("eks:DescribePodIdentityAssociation")))?;
    Ok(answer.and_then(|o| o.association))
}

fn outputs(id: &str, arn: &str) -> Outputs {
    Outputs::from([("id".to_owned(), id.to_owned()), ("arn".to_owned(), arn.to_owned())])
}
