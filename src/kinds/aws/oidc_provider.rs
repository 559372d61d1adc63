use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_iam::operation::get_open_id_connect_provider::GetOpenIdConnectProviderOutput;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::eks::{gather, listed, optional};
use super::foreign::{TagStyle, claim, foreign};
use super::iam_role::{sdk_tags, tags_of};
use super::permission::{self, On, When};
use super::quotas::{Counted, Counts, Per};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags;
use crate::engine::error::{Class, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Round, Rule, Scope, Status, Wanted,
};
use crate::engine::packed::Packed;
use crate::engine::value::{Outputs, has_references};
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.oidc-provider";

/// An IAM OpenID Connect provider for a cluster's issuer (IRSA). Outputs: `arn`, `issuer` (host and path, without
/// `https://`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `https://oidc.eks.…`
    pub url: String,
    pub clients: Vec<String>,
    pub tags: BTreeMap<String, String>,
}

pub struct OidcProvider;

pub struct OidcProviderHandlers {
    aws: Arc<Aws>,
}

impl OidcProviderHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    /// The region's providers for EKS clusters. An account has at most a hundred of them, and no bulk call returns
    /// their tags.
    async fn candidates(&self) -> Result<Vec<(String, GetOpenIdConnectProviderOutput)>> {
        let answer = self
            .aws
            .iam
            .list_open_id_connect_providers()
            .send()
            .await
            .map_err(failed("iam:ListOpenIDConnectProviders"))?;
        let host = format!(":oidc-provider/oidc.eks.{}.", self.aws.scope.region);
        let arns: Vec<String> = answer
            .open_id_connect_provider_list()
            .iter()
            .filter_map(|p| p.arn().filter(|a| a.contains(&host)).map(str::to_owned))
            .collect();
        let read = gather(arns, |arn| async move {
            let provider = listed(self.get(&arn).await?, "iam:GetOpenIDConnectProvider", &arn)?;
            Ok((arn, provider))
        });
        read.await
    }

    async fn get(&self, arn: &str) -> Result<Option<GetOpenIdConnectProviderOutput>> {
        let call = self.aws.iam.get_open_id_connect_provider().open_id_connect_provider_arn(arn);
        optional(call.send().await.map_err(failed("iam:GetOpenIDConnectProvider")))
    }

    fn found(&self, arn: &str, provider: &GetOpenIdConnectProviderOutput) -> Result<Option<Found>> {
        let all = tags_of(provider.tags());
        let Some((address, generation)) = self.aws.owned(&all) else {
            return Ok(None);
        };
        let url = format!("https://{}", bare(provider.url().unwrap_or_default()));
        let outputs = outputs(arn, &url);
        let mut clients = provider.client_id_list().to_vec();
        clients.sort();
        let state = Packed::of(&State { url, clients, tags: self.aws.observed(&all) })?;
        let (id, refs) = (arn.to_owned(), Vec::new());
        Ok(Some(Found { address, generation, id, outputs, state, status: Status::Ready, refs }))
    }

    async fn sync(&self, arn: &str, from: &State, to: &State) -> Result<()> {
        let iam = &self.aws.iam;
        for client in to.clients.iter().filter(|c| !from.clients.contains(c)) {
            iam.add_client_id_to_open_id_connect_provider()
                .open_id_connect_provider_arn(arn)
                .client_id(client)
                .send()
                .await
                .map_err(failed("iam:AddClientIDToOpenIDConnectProvider"))?;
        }
        for client in from.clients.iter().filter(|c| !to.clients.contains(c)) {
            iam.remove_client_id_from_open_id_connect_provider()
                .open_id_connect_provider_arn(arn)
                .client_id(client)
                .send()
                .await
                .map_err(failed("iam:RemoveClientIDFromOpenIDConnectProvider"))?;
        }
        let (write, remove) = tags::difference(&from.tags, &to.tags);
        if !write.is_empty() {
            iam.tag_open_id_connect_provider()
                .open_id_connect_provider_arn(arn)
                .set_tags(Some(sdk_tags(&write)?))
                .send()
                .await
                .map_err(failed("iam:TagOpenIDConnectProvider"))?;
        }
        if !remove.is_empty() {
            iam.untag_open_id_connect_provider()
                .open_id_connect_provider_arn(arn)
                .set_tag_keys(Some(remove))
                .send()
                .await
                .map_err(failed("iam:UntagOpenIDConnectProvider"))?;
        }
        Ok(())
    }
}

/// IAM identifies a provider by its URL.
fn arn(scope: &Scope, url: &str) -> String {
    format!("arn:{}:iam::{}:oidc-provider/{}", scope.partition, scope.account, bare(url))
}

impl Kind for OidcProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[("url", Rule::Replace), ("clients", Rule::Unordered)]
    }

    fn predict(&self, new: &New, scope: &Scope) -> Outputs {
        match new.state.typed::<State>() {
            Ok(state) if !has_references(&Value::String(state.url.clone())) => {
                outputs(&arn(scope, &state.url), &state.url)
            }
            _ => Outputs::new(),
        }
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }
}

impl ResourceKind for OidcProvider {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(OidcProviderHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![Counts::all("iam", "L-858F3967", Per::Account(Counted::OidcProviders))]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["iam:GetOpenIDConnectProvider", "iam:ListOpenIDConnectProviders"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::Issuers, When::Made, &["iam:CreateOpenIDConnectProvider", "iam:TagOpenIDConnectProvider"]),
            (On::Issuers, When::Gone, &["iam:DeleteOpenIDConnectProvider"]),
            (On::Issuers, When::Tagged, &["iam:TagOpenIDConnectProvider"]),
            (
                On::Issuers,
                When::Perhaps,
                &[
                    "iam:AddClientIDToOpenIDConnectProvider",
                    "iam:RemoveClientIDFromOpenIDConnectProvider",
                    "iam:UntagOpenIDConnectProvider",
                ],
            ),
        ]
    }
}

#[async_trait]
impl Handlers for OidcProviderHandlers {
    async fn observe(&self, _round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let candidates = self.candidates().await?;
        let mut seen = Observation::default();
        for (arn, provider) in &candidates {
            seen.found.extend(self.found(arn, provider)?);
        }
        for Wanted { address, state } in wanted {
            let arn = arn(&self.aws.scope, &state.typed::<State>()?.url);
            if let Some((_, provider)) = candidates.iter().find(|(a, _)| *a == arn)
                && let has = tags_of(provider.tags())
                && self.aws.owned(&has).is_none()
            {
                let command = format!("aws iam tag-open-id-connect-provider --open-id-connect-provider-arn {arn}");
                let what = format!("the OpenID Connect provider `{arn}`");
                seen.foreign.push(foreign(&self.aws, address, &arn, &what, &has, &command, TagStyle::Key));
            }
        }
        Ok(seen)
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        gather(handles, |handle| async move {
            let arn = arn(&self.aws.scope, &handle.state.typed::<State>()?.url);
            let found = self.get(&arn).await?.map(|p| self.found(&arn, &p)).transpose()?.flatten();
            Ok(found.filter(|f| f.address == handle.address))
        })
        .await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let arn = arn(&self.aws.scope, &state.url);
        // Without thumbprints IAM reads them from the issuer (IAM API, CreateOpenIDConnectProvider,
        // "ThumbprintList").
        let call = self
            .aws
            .iam
            .create_open_id_connect_provider()
            .url(&state.url)
            .set_client_id_list(Some(state.clients.clone()))
            .set_tags(Some(sdk_tags(&tags::with_generation(&state.tags, new.generation))?));
        match call.send().await.map_err(failed("iam:CreateOpenIDConnectProvider")) {
            Err(error) if error.class == Class::Exists => {
                let has = self.get(&arn).await?.map(|p| tags_of(p.tags()));
                claim(&self.aws, new, has.as_ref(), error)?;
            }
            other => drop(other?),
        }
        Ok(Made { outputs: outputs(&arn, &state.url), id: arn, ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (before, after): (State, State) = (from.state.typed()?, to.state.typed()?);
        self.sync(&from.id, &before, &after).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let call = self.aws.iam.delete_open_id_connect_provider().open_id_connect_provider_arn(&found.id);
        optional(call.send().await.map_err(failed("iam:DeleteOpenIDConnectProvider")))?;
        Ok(true)
    }
}

fn bare(url: &str) -> &str {
    url.strip_prefix("https://").unwrap_or(url).trim_end_matches('/')
}

fn outputs(arn: &str, url: &str) -> Outputs {
    Outputs::from([("arn".to_owned(), arn.to_owned()), ("issuer".to_owned(), bare(url).to_owned())])
}
