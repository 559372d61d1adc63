use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_eks::operation::update_cluster_config::builders::UpdateClusterConfigFluentBuilder;
use aws_sdk_eks::types::{
    AuthenticationMode, Cluster, ClusterStatus, CreateAccessConfigRequest, EncryptionConfig,
    KubernetesNetworkConfigRequest, LogSetup, LogType, Logging, Provider, SupportType, UpdateAccessConfigRequest,
    UpgradePolicyRequest, VpcConfigRequest,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::costs::{Cost, Unit};
use super::eks::{cluster, clusters, gather, issues, optional, retag, tag_map, tags_of, update};
use super::foreign::{TagStyle, claim, foreign};
use super::held::holders;
use super::permission::{self, On, When};
use super::quotas::{Counted, Counts, Per};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Hosting, Kind, Made, New, Observation, Pace, Repair, Round, Rule, Scope, Status,
    Verb, Wanted,
};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::kinds::{Clients, ResourceKind};
use crate::version::KubernetesVersion;

pub const NAME: &str = "aws.eks-cluster";

/// The time limit for one update of a cluster. A version upgrade can take an hour.
const UPDATE_LIMIT: Duration = Duration::from_secs(3600);

/// Every generation has the same name, because a cluster can't exist beside the one that it replaces. Outputs:
/// `name`, `arn`, `endpoint`, `certificate_authority` (base64 PEM), `issuer` (`https://…`), `security_group` (the
/// group that EKS creates), `version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub name: String,
    /// ARN.
    pub role: String,
    /// Such as `1.36`.
    pub version: String,
    pub subnets: Vec<String>,
    /// Security groups of the control plane's interfaces, in addition to the group that EKS creates.
    pub security_groups: Vec<String>,
    pub endpoint_public: bool,
    pub endpoint_private: bool,
    /// Empty if the public endpoint is off.
    pub public_cidrs: Vec<String>,
    pub service_cidr: String,
    /// `api`, `audit`, `authenticator`, `controllerManager`, `scheduler`.
    pub log_types: Vec<String>,
    /// ARN of the key that encrypts Kubernetes API data.
    pub key: Option<String>,
    /// `API`.
    pub authentication_mode: String,
    /// `STANDARD` or `EXTENDED`.
    pub support_type: String,
    pub deletion_protection: bool,
    pub tags: BTreeMap<String, String>,
}

pub struct EksCluster;

pub struct EksClusterHandlers {
    aws: Arc<Aws>,
}

impl EksClusterHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    /// `error` with the names of resources that are left in the cluster. Our own resources in it are deleted before
    /// the cluster.
    async fn held(&self, name: &str, error: Error) -> Result<Error> {
        let groups = self.aws.eks.list_nodegroups().cluster_name(name).send();
        let profiles = self.aws.eks.list_fargate_profiles().cluster_name(name).send();
        let (groups, profiles) = tokio::join!(groups, profiles);
        let groups = optional(groups.map_err(failed("eks:ListNodegroups")))?.and_then(|o| o.nodegroups);
        let profiles = optional(profiles.map_err(failed("eks:ListFargateProfiles")))?;
        let profiles = profiles.and_then(|o| o.fargate_profile_names);
        let groups = groups.into_iter().flatten().map(|name| format!("node group `{name}`"));
        let profiles = profiles.into_iter().flatten().map(|name| format!("Fargate profile `{name}`"));
        let held: Vec<String> = groups.chain(profiles).collect();
        // An update of the cluster ends by itself.
        let class = if held.is_empty() { Class::Conflict } else { Class::Held };
        Ok(Error { class, ..holders(error, held) })
    }

    fn found(&self, cluster: &Cluster) -> Result<Option<Found>> {
        let Some((address, generation)) = self.aws.owned(&tags_of(cluster.tags())) else {
            return Ok(None);
        };
        let status = match cluster.status() {
            Some(ClusterStatus::Active) => Status::Ready,
            Some(ClusterStatus::Deleting) => Status::Deleting,
            Some(ClusterStatus::Failed) => Status::Failed { why: health(cluster), repair: Repair::Replace },
            Some(other) => Status::Pending(other.as_str().to_owned()),
            None => Status::Pending("no status".to_owned()),
        };
        let state = observed(&self.aws, cluster);
        Ok(Some(Found {
            address,
            generation,
            id: state.name.clone(),
            outputs: self.outputs(cluster),
            refs: vec![format!("/aws/eks/{}/cluster", state.name)],
            state: Packed::of(&state)?,
            status,
        }))
    }

    fn outputs(&self, cluster: &Cluster) -> Outputs {
        let vpc = cluster.resources_vpc_config();
        let issuer = cluster.identity().and_then(|i| i.oidc()).and_then(|o| o.issuer());
        [
            ("name", cluster.name()),
            ("arn", cluster.arn()),
            ("endpoint", cluster.endpoint()),
            ("certificate_authority", cluster.certificate_authority().and_then(|c| c.data())),
            ("issuer", issuer),
            ("security_group", vpc.and_then(|v| v.cluster_security_group_id())),
            ("version", cluster.version()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
        .collect()
    }

    /// One configuration update, from its start to its end.
    async fn configure(&self, name: &str, call: UpdateClusterConfigFluentBuilder) -> Result<()> {
        update(&self.aws, name, None, UPDATE_LIMIT, || {
            let call = call.clone();
            async move { call.send().await.map(|o| o.update).map_err(failed("eks:UpdateClusterConfig")) }
        })
        .await
    }

    /// Upgrades by one minor version at a time, which EKS requires.
    async fn upgrade(&self, name: &str, from: &str, to: &str) -> Result<()> {
        let versions = (KubernetesVersion::parse(from), KubernetesVersion::parse(to));
        let (Some(runs), Some(wanted)) = versions else {
            return Err(Error::new(Class::Invalid, format!("`{from}` or `{to}` isn't a Kubernetes version")));
        };
        if wanted.major != runs.major || wanted < runs {
            return Err(Error::new(
                Class::Invalid,
                format!("cluster `{name}` runs Kubernetes {from}; EKS can't downgrade it to {to}"),
            )
            .help(format!("set kubernetesVersion to \"{from}\" or a later version")));
        }
        for minor in runs.minor + 1..=wanted.minor {
            let call = self
                .aws
                .eks
                .update_cluster_version()
                .name(name)
                .version(KubernetesVersion { minor, ..runs }.to_string());
            update(&self.aws, name, None, UPDATE_LIMIT, || {
                let call = call.clone();
                async move { call.send().await.map(|o| o.update).map_err(failed("eks:UpdateClusterVersion")) }
            })
            .await?;
        }
        Ok(())
    }

    /// Adds an encryption key for API data. EKS can't change or remove such a key.
    async fn encrypt(&self, name: &str, from: Option<&str>, to: Option<&str>) -> Result<()> {
        let (None, Some(key)) = (from, to) else {
            return Err(Error::new(
                Class::Invalid,
                format!("the encryption key of cluster `{name}` can't be changed or removed"),
            )
            .help("EKS can only add a key to a cluster without one; another key needs a new cluster"));
        };
        let call = self.aws.eks.associate_encryption_config().cluster_name(name).encryption_config(encryption(key));
        update(&self.aws, name, None, UPDATE_LIMIT, || {
            let call = call.clone();
            async move { call.send().await.map(|o| o.update).map_err(failed("eks:AssociateEncryptionConfig")) }
        })
        .await
    }
}

fn arn(scope: &Scope, name: &str) -> String {
    format!("arn:{}:eks:{}:{}:cluster/{name}", scope.partition, scope.region, scope.account)
}

impl Kind for EksCluster {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hosts(&self) -> Option<Hosting> {
        Some(Hosting { name: "name", serves_by: "version" })
    }

    fn known_as(&self) -> &'static [&'static str] {
        &["name", "arn"]
    }

    fn is_foundation(&self) -> bool {
        true
    }

    fn loses(&self, found: &Found, _replaced: bool) -> Option<String> {
        let name = found.state.typed::<State>().map(|s| s.name).unwrap_or_default();
        Some(format!(
            "all workloads of cluster {name} and all Kubernetes objects in it, including Secrets and PersistentVolumeClaims; volumes and load balancers that its workloads created stay in the account without a manager"
        ))
    }

    fn before_delete(&self, found: &Found) -> Option<Packed> {
        // Only active clusters can be protected from deletion, and only active clusters can be updated (EKS User
        // Guide, "Protect EKS clusters from accidental deletion").
        if matches!(found.status, Status::Failed { .. }) {
            return None;
        }
        let protected = found.state.get("deletion_protection") == Some(&Value::Bool(true));
        protected.then(|| found.state.edited(|state| state["deletion_protection"] = Value::Bool(false)))
    }

    fn moves(&self, changes: &[Change]) -> &'static [&'static str] {
        if changes.iter().any(|c| c.path == "version") { &["version"] } else { &[] }
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("name", Rule::Replace),
            ("role", Rule::Replace),
            ("service_cidr", Rule::Replace),
            ("key", Rule::AddOnly),
            ("subnets", Rule::Unordered),
            ("security_groups", Rule::Unordered),
            ("public_cidrs", Rule::Unordered),
            ("log_types", Rule::Unordered),
        ]
    }

    fn lane(&self, state: &Packed) -> Option<String> {
        state.typed::<State>().ok().map(|s| format!("eks:{}", s.name))
    }

    fn predict(&self, new: &New, scope: &Scope) -> Outputs {
        let Ok(State { name, version, .. }) = new.state.typed() else {
            return Outputs::new();
        };
        [("arn", arn(scope, &name)), ("name", name), ("version", version)]
            .map(|(output, value)| (output.to_owned(), value))
            .into()
    }

    fn summary(&self, state: &Packed) -> String {
        state
            .typed::<State>()
            .map(|s| {
                let endpoint = match (s.endpoint_public, s.public_cidrs.len()) {
                    (false, _) => "private endpoint".to_owned(),
                    (true, n) => format!("public endpoint for {n} CIDR {}", if n == 1 { "block" } else { "blocks" }),
                };
                format!("Kubernetes {}, {endpoint}", s.version)
            })
            .unwrap_or_default()
    }

    fn pace(&self, verb: Verb) -> Pace {
        match verb {
            // Users report seven to twelve minutes.
            Verb::Create => Pace::secs(560, 1800),
            // Several updates may run one after the other.
            Verb::Update => Pace::secs(300, 4 * 3600),
            Verb::Delete => Pace::secs(240, 1800),
        }
    }

    /// A cluster whose creation failed can't be repaired. It must be created again.
    fn finds_one_by_one(&self) -> bool {
        true
    }
}

impl ResourceKind for EksCluster {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(EksClusterHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![
            Counts::all("eks", "L-1194D53C", Per::Account(Counted::Clusters)),
            // EKS creates a security group for each cluster.
            Counts::all("vpc", "L-E79EC296", Per::Account(Counted::SecurityGroups)),
        ]
    }

    /// EKS User Guide, "View Amazon EKS networking requirements for VPC and subnets".
    fn addresses(&self, _state: &Packed) -> usize {
        6
    }

    fn costs(&self, state: &Packed) -> Vec<Cost> {
        vec![Cost::fixed(Unit::ClusterHour { extended: state["support_type"] == "EXTENDED" }, 1)]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["eks:DescribeCluster", "eks:ListClusters", "eks:ListFargateProfiles", "eks:ListNodegroups"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::Clusters, When::Made, &["eks:CreateCluster", "eks:TagResource"]),
            // EKS uses the cluster's key with the caller's permissions (EKS User Guide, "Encrypt Kubernetes secrets
            // with KMS on existing clusters" and "Security considerations for Kubernetes"). CreateCluster doesn't
            // support `kms:GrantIsForAWSResource`, so the condition is the key's tags (KMS Developer Guide, "ABAC for
            // AWS KMS").
            (On::Grants, When::Made, &["kms:CreateGrant"]),
            (On::Clusters, When::Gone, &["eks:DeleteCluster"]),
            (On::Clusters, When::Tagged, &["eks:TagResource"]),
            (
                On::Clusters,
                When::Perhaps,
                &[
                    "eks:AssociateEncryptionConfig",
                    "eks:UntagResource",
                    "eks:UpdateClusterConfig",
                    "eks:UpdateClusterVersion",
                    // EKS creates entries for node roles. They are deleted with the roles.
                    "eks:DeleteAccessEntry",
                ],
            ),
        ]
    }

    fn passes_roles_to(&self) -> &'static [&'static str] {
        &["eks.amazonaws.com"]
    }
}

#[async_trait]
impl Handlers for EksClusterHandlers {
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let all = clusters(&self.aws, round).await?;
        let mut seen = Observation::default();
        for cluster in all.iter() {
            let Some(found) = self.found(cluster)? else {
                continue;
            };
            if found.status == Status::Ready && cluster.health().is_some_and(|h| !h.issues().is_empty()) {
                seen.notes.push(format!("{}: cluster `{}` has issues: {}", found.address, found.id, health(cluster)));
            }
            seen.found.push(found);
        }
        for Wanted { address, state } in wanted {
            let name = state.typed::<State>()?.name;
            if let Some(cluster) = all.iter().find(|c| c.name() == Some(&name))
                && let has = tags_of(cluster.tags())
                && self.aws.owned(&has).is_none()
            {
                let command = format!("aws eks tag-resource --resource-arn {}", arn(&self.aws.scope, &name));
                let what = format!("the EKS cluster `{name}`");
                seen.foreign.push(foreign(&self.aws, address, &name, &what, &has, &command, TagStyle::Map));
            }
        }
        Ok(seen)
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        gather(handles, |handle| async move {
            let name = handle.state.typed::<State>()?.name;
            let found = cluster(&self.aws, &name).await?.map(|c| self.found(&c)).transpose()?.flatten();
            Ok(found.filter(|f| f.address == handle.address && f.generation == handle.generation))
        })
        .await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let name = state.name.as_str();
        let call = self
            .aws
            .eks
            .create_cluster()
            .name(name)
            .role_arn(&state.role)
            .version(&state.version)
            .resources_vpc_config(
                endpoint(&state)
                    .set_subnet_ids(Some(state.subnets.clone()))
                    .set_security_group_ids(Some(state.security_groups.clone()))
                    .build(),
            )
            .kubernetes_network_config(
                KubernetesNetworkConfigRequest::builder().service_ipv4_cidr(&state.service_cidr).build(),
            )
            .logging(logging(&state.log_types, &[]))
            .set_encryption_config(state.key.as_deref().map(|key| vec![encryption(key)]))
            .access_config(
                CreateAccessConfigRequest::builder()
                    .authentication_mode(AuthenticationMode::from(state.authentication_mode.as_str()))
                    .bootstrap_cluster_creator_admin_permissions(false)
                    .build(),
            )
            .bootstrap_self_managed_addons(false)
            .upgrade_policy(upgrade_policy(&state))
            .deletion_protection(state.deletion_protection)
            .client_request_token(&new.token)
            .set_tags(Some(tag_map(&tags::with_generation(&state.tags, new.generation))));
        match call.send().await.map_err(failed("eks:CreateCluster")) {
            Err(error) if error.class == Class::Conflict => {
                let has = cluster(&self.aws, name)
                    .await?
                    .filter(|c| c.status() != Some(&ClusterStatus::Deleting))
                    .map(|c| tags_of(c.tags()));
                claim(&self.aws, new, has.as_ref(), error)?;
            }
            // Tags of KMS keys "might take up to five minutes" to count for access (KMS Developer Guide, "ABAC for
            // AWS KMS"). The printed policy depends on them.
            Err(error) if error.class == Class::Denied && error.message.contains("kms:") => {
                return Err(error.help(
                    "the tags of a new key may take five minutes to become effective in IAM: run the same command again; \
                     `ringfence iam-policy` prints the permissions that this spec needs",
                ));
            }
            other => drop(other?),
        }
        Ok(Made { id: name.to_owned(), outputs: EksCluster.predict(new, &self.aws.scope), ready: false })
    }

    /// Reads the cluster first to find what differs. After an interrupted update the rest is updated, and EKS refuses
    /// an update without changes. The order of the updates is terraform's.
    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let to: State = to.state.typed()?;
        let name = from.id.as_str();
        let gone = || Error::new(Class::NotFound, format!("cluster `{name}` no longer exists"));
        let now = observed(&self.aws, &cluster(&self.aws, name).await?.ok_or_else(gone)?);
        let config = || self.aws.eks.update_cluster_config().name(name);

        retag(&self.aws, &arn(&self.aws.scope, name), &now.tags, &to.tags).await?;
        if now.version != to.version {
            self.upgrade(name, &now.version, &to.version).await?;
        }
        if now.authentication_mode != to.authentication_mode {
            let mode = AuthenticationMode::from(to.authentication_mode.as_str());
            let access = UpdateAccessConfigRequest::builder().authentication_mode(mode).build();
            self.configure(name, config().access_config(access)).await?;
        }
        if now.key != to.key {
            self.encrypt(name, now.key.as_deref(), to.key.as_deref()).await?;
        }
        if now.log_types != sorted(&to.log_types) {
            let off: Vec<String> = now.log_types.iter().filter(|t| !to.log_types.contains(t)).cloned().collect();
            self.configure(name, config().logging(logging(&to.log_types, &off))).await?;
        }
        if now.support_type != to.support_type {
            self.configure(name, config().upgrade_policy(upgrade_policy(&to))).await?;
        }
        if (now.endpoint_public, now.endpoint_private, &now.public_cidrs)
            != (to.endpoint_public, to.endpoint_private, &sorted(&to.public_cidrs))
        {
            self.configure(name, config().resources_vpc_config(endpoint(&to).build())).await?;
        }
        if now.subnets != sorted(&to.subnets) {
            let vpc = VpcConfigRequest::builder().set_subnet_ids(Some(to.subnets.clone())).build();
            self.configure(name, config().resources_vpc_config(vpc)).await?;
        }
        if now.security_groups != sorted(&to.security_groups) {
            let vpc = VpcConfigRequest::builder().set_security_group_ids(Some(to.security_groups.clone())).build();
            self.configure(name, config().resources_vpc_config(vpc)).await?;
        }
        if now.deletion_protection != to.deletion_protection {
            self.configure(name, config().deletion_protection(to.deletion_protection)).await?;
        }
        let cluster = cluster(&self.aws, name).await?.ok_or_else(gone)?;
        Ok(Made {
            id: name.to_owned(),
            outputs: self.outputs(&cluster),
            ready: cluster.status() == Some(&ClusterStatus::Active),
        })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        if state.deletion_protection && !matches!(found.status, Status::Failed { .. }) {
            return Err(Error::new(Class::Invalid, format!("cluster `{}` is protected against deletion", state.name))
                .operation("eks:DeleteCluster")
                .help("remove the protection first, which is a separate step in the plan"));
        }
        let answer = self.aws.eks.delete_cluster().name(&state.name).send().await;
        match optional(answer.map_err(failed("eks:DeleteCluster"))) {
            Err(error) if error.class == Class::Conflict => Err(self.held(&state.name, error).await?),
            other => Ok(other?.is_none()),
        }
    }
}

fn observed(aws: &Aws, cluster: &Cluster) -> State {
    let vpc = cluster.resources_vpc_config();
    let public = vpc.is_some_and(|v| v.endpoint_public_access());
    let cidrs = vpc.map(|v| v.public_access_cidrs()).filter(|_| public).unwrap_or_default();
    let logs = cluster.logging().map(|l| l.cluster_logging()).unwrap_or_default().iter();
    let types: Vec<String> = logs
        .filter(|l| l.enabled() == Some(true))
        .flat_map(|l| l.types().iter().map(|t| t.as_str().to_owned()))
        .collect();
    let encrypted = cluster.encryption_config().iter();
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    State {
        name: text(cluster.name()),
        role: text(cluster.role_arn()),
        version: text(cluster.version()),
        subnets: sorted(vpc.map(|v| v.subnet_ids()).unwrap_or_default()),
        security_groups: sorted(vpc.map(|v| v.security_group_ids()).unwrap_or_default()),
        endpoint_public: public,
        endpoint_private: vpc.is_some_and(|v| v.endpoint_private_access()),
        public_cidrs: sorted(cidrs),
        service_cidr: text(cluster.kubernetes_network_config().and_then(|n| n.service_ipv4_cidr())),
        log_types: sorted(&types),
        key: encrypted.filter_map(|e| e.provider()?.key_arn()).next().map(str::to_owned),
        authentication_mode: text(cluster.access_config().and_then(|a| a.authentication_mode()).map(|m| m.as_str())),
        support_type: text(cluster.upgrade_policy().and_then(|u| u.support_type()).map(|s| s.as_str())),
        deletion_protection: cluster.deletion_protection().unwrap_or_default(),
        tags: aws.observed(&tags_of(cluster.tags())),
    }
}

fn health(cluster: &Cluster) -> String {
    let all = cluster.health().map(|h| h.issues()).unwrap_or_default().iter();
    issues(all.map(|i| (i.code().map(|c| c.as_str()), i.message(), i.resource_ids())))
}

fn sorted(items: &[String]) -> Vec<String> {
    let mut items = items.to_vec();
    items.sort();
    items
}

fn endpoint(state: &State) -> aws_sdk_eks::types::builders::VpcConfigRequestBuilder {
    VpcConfigRequest::builder()
        .endpoint_public_access(state.endpoint_public)
        .endpoint_private_access(state.endpoint_private)
        .set_public_access_cidrs(state.endpoint_public.then(|| state.public_cidrs.clone()))
}

fn logging(on: &[String], off: &[String]) -> Logging {
    let setup = |types: &[String], enabled| {
        let types = types.iter().map(|t| LogType::from(t.as_str())).collect();
        LogSetup::builder().set_types(Some(types)).enabled(enabled).build()
    };
    let setups = [(on, true), (off, false)].into_iter().filter(|(types, _)| !types.is_empty());
    Logging::builder().set_cluster_logging(Some(setups.map(|(types, on)| setup(types, on)).collect())).build()
}

/// EKS no longer uses `resources`, but older endpoints require it.
#[allow(deprecated)]
fn encryption(key: &str) -> EncryptionConfig {
    EncryptionConfig::builder().resources("secrets").provider(Provider::builder().key_arn(key).build()).build()
}

fn upgrade_policy(state: &State) -> UpgradePolicyRequest {
    UpgradePolicyRequest::builder().support_type(SupportType::from(state.support_type.as_str())).build()
}
