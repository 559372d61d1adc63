//! IAM roles, and access to clusters.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::site::Site;
use super::{Stack, Terms};
use crate::engine::address::Address;
use crate::engine::error::{Error, Result};
use crate::engine::value::reference;
use crate::kinds::aws::access_entry::{self, entry_address};
use crate::kinds::aws::{iam_role, oidc_provider, pod_identity, service_linked_role};
use crate::spec::arn::is_account;
use crate::spec::catalog::eks_registry;
use crate::spec::{ACCOUNT_ECR, Control, Isolation, Principal, Tenant};

/// The audience of tokens that pods exchange for credentials. It is the same in all partitions, including China (eksctl
/// issue 1910).
const AUDIENCE: &str = "sts.amazonaws.com";

/// Service-linked roles. ringfence makes missing ones. Otherwise their first use would make them, which fails if that
/// caller has no permission to.
#[derive(Clone, Copy)]
pub(super) enum ServiceLinked {
    Eks,
    NodeGroup,
    Fargate,
    Autoscaling,
}

impl ServiceLinked {
    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Eks => ("eks", "eks.amazonaws.com"),
            Self::NodeGroup => ("eks-nodegroup", "eks-nodegroup.amazonaws.com"),
            Self::Fargate => ("eks-fargate", "eks-fargate.amazonaws.com"),
            Self::Autoscaling => ("autoscaling", "autoscaling.amazonaws.com"),
        }
    }
}

/// The permissions of a role.
pub(super) struct Grants {
    /// ARNs of managed policies.
    pub attached: Vec<String>,
    pub inline: BTreeMap<String, Value>,
}

impl Grants {
    pub fn none() -> Self {
        Self { attached: Vec::new(), inline: BTreeMap::new() }
    }

    pub fn attached(attached: Vec<String>) -> Self {
        Self { attached, ..Self::none() }
    }

    pub fn and(mut self, name: &str, document: Value) -> Self {
        self.inline.insert(name.to_owned(), document);
        self
    }
}

impl Stack<'_> {
    pub(super) fn role(&mut self, address: Address, name: String, trust: Value, grants: Grants) -> Result<()> {
        let Grants { mut attached, inline } = grants;
        attached.sort();
        attached.dedup();
        let state = iam_role::State {
            path: self.spec.iam.path.clone(),
            trust,
            attached,
            inline,
            boundary: self.spec.iam.permissions_boundary.clone(),
            tags: self.tags(&address, &name),
            name,
        };
        self.put(address, iam_role::NAME, &state, Terms::default())
    }

    /// The address of a service-linked role. The first call for a role adds it.
    pub(super) fn service_linked(&mut self, role: ServiceLinked) -> Result<Address> {
        let (name, service) = role.parts();
        let address = Address::new(format!("tenancy/service-linked-role/{name}"));
        if !self.desired.contains(&address) {
            let state = service_linked_role::State { service: service.to_owned() };
            self.put(address.clone(), service_linked_role::NAME, &state, Terms::default())?;
        }
        Ok(address)
    }

    /// Adds the role of nodes. An attacker who steals a node's credentials has this role's permissions. `registries`
    /// are the sources of its pods' images.
    pub(super) fn node_role(&mut self, address: &Address, name: String, registries: &[String]) -> Result<()> {
        // In China, EC2's principal has the partition's suffix (Amazon Web
        // Services in China, "IAM"; bottlerocket-update-operator issue 316).
        let ec2 = if self.facts.partition == "aws-cn" { "ec2.amazonaws.com.cn" } else { "ec2.amazonaws.com" };
        let trust = self.document("iam/node-trust.json", address, json!({"ec2Service": ec2}))?;
        // This replaces AmazonEC2ContainerRegistryPullOnly, which allows every repository of the account. EKS accepts a
        // custom policy in its place (EKS User Guide, "Amazon EKS node IAM role").
        let images = self.images_policy(address, registries)?;
        let grants = Grants::attached(vec![self.managed_policy("AmazonEKSWorkerNodePolicy")]).and("images", images);
        self.role(address.clone(), name, trust, grants)
    }

    /// The policy for pulling images: from the private ECR registries among `registries`, and the images of EKS's own
    /// pods.
    pub(super) fn images_policy(&self, role: &Address, registries: &[String]) -> Result<Value> {
        let partition = &self.facts.partition;
        let arn = |region: &str, account: &str, what: &str| format!("arn:{partition}:ecr:{region}:{account}:{what}");
        let mut repositories = BTreeSet::new();
        for registry in registries {
            if registry == "*" {
                repositories.insert(arn("*", "*", "repository/*"));
            } else if let Some(Ecr { account, region, path }) = Ecr::parse(registry) {
                // A path is a repository, or a prefix of several. With a slash at its end it is only a prefix.
                if !path.is_empty() && !path.ends_with('/') {
                    repositories.insert(arn(region, account, &format!("repository/{path}")));
                }
                let below = if path.is_empty() { "*".to_owned() } else { format!("{}/*", path.trim_end_matches('/')) };
                repositories.insert(arn(region, account, &format!("repository/{below}")));
            }
        }
        let values = json!({
            "repositories": repositories,
            "eksRegistry": eks_registry(&self.spec.region).unwrap_or("*"),
        });
        self.document("iam/images-policy.json", role, values)
    }

    /// The registries of a tenant's images. `account-ecr` is replaced by its two parts: the tenant's own repositories
    /// and the shared ones.
    pub(super) fn registries(&self, tenant: &Tenant) -> Vec<String> {
        let images = &self.spec.images;
        let own = [images.of(&tenant.id), images.shared.clone()];
        let all = tenant.profile.pods.allowed_registries.iter().flat_map(|registry| match registry.as_str() {
            ACCOUNT_ECR => self.ecr(&own),
            _ => vec![registry.clone()],
        });
        all.collect()
    }

    /// Whether any tenant in this cluster may run images of registry `host`.
    pub(super) fn pulls_from(&self, site: &Site<'_>, host: &str) -> bool {
        let of = |entry: &String| entry == "*" || entry.split('/').next() == Some(host);
        self.tenants_of(site).iter().any(|tenant| tenant.profile.pods.allowed_registries.iter().any(of))
    }

    /// Paths in the account's own ECR, with each of its host names (Amazon ECR User Guide, "Amazon ECR endpoints"):
    /// standard, FIPS, and dual-stack (IPv6).
    pub(super) fn ecr(&self, paths: &[String]) -> Vec<String> {
        let (account, region, suffix) = (&self.facts.account, &self.spec.region, self.dns_suffix());
        let mut hosts = vec![format!("{account}.dkr.ecr.{region}.{suffix}")];
        match self.facts.partition.as_str() {
            "aws" | "aws-us-gov" => hosts.extend([
                format!("{account}.dkr.ecr-fips.{region}.{suffix}"),
                format!("{account}.dkr-ecr.{region}.on.aws"),
                format!("{account}.dkr-ecr-fips.{region}.on.aws"),
            ]),
            "aws-cn" => hosts.push(format!("{account}.dkr-ecr.{region}.on.amazonwebservices.com.cn")),
            _ => {}
        }
        hosts.iter().flat_map(|host| paths.iter().map(move |path| format!("{host}/{path}/"))).collect()
    }

    /// A trust policy for one service account of one cluster, by Pod Identity.
    pub(super) fn pod_identity_trust(
        &self,
        site: &Site<'_>,
        role: &Address,
        namespace: &str,
        service_account: &str,
    ) -> Result<Value> {
        let values = json!({
            "clusterArn": self.arn("eks", format!("cluster/{}", site.name)),
            "namespace": namespace,
            "serviceAccount": service_account,
        });
        self.document("iam/pod-identity-trust.json", role, values)
    }

    /// Adds access entries for all principals that the spec names, and for no others. Changes of objects inside of the
    /// cluster come after these entries.
    pub(super) fn access_entries(&mut self, site: &Site<'_>) -> Result<()> {
        let spec = self.spec;
        let principals: BTreeSet<String> = spec
            .access
            .admins
            .iter()
            .chain(&spec.access.operators)
            .map(|p| self.principal(p))
            .collect::<Result<_>>()?;
        for principal in principals {
            let address = entry_address(&site.at("cluster"), &principal);
            // ARNs of access policies have the partition of the cluster (terraform-aws-eks, `main.tf`).
            let policy =
                format!("arn:{}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy", self.facts.partition);
            let state = access_entry::State {
                cluster: site.output("cluster", "name"),
                groups: Vec::new(),
                policies: vec![access_entry::AccessPolicy { arn: policy, namespaces: Vec::new() }],
                tags: self.tags(&address, &site.name),
                principal,
            };
            self.put(address, access_entry::NAME, &state, Terms::default().controls(&[Control::ApiAccess]))?;
        }
        Ok(())
    }

    /// The ARN for an access entry. A role's ARN needs the path, which a session's ARN doesn't have.
    fn principal(&self, principal: &Principal) -> Result<String> {
        match (principal.session, self.facts.roles.get(&principal.arn)) {
            (false, _) => Ok(principal.arn.clone()),
            (true, Some(role)) => Ok(role.clone()),
            (true, None) => Err(Error::input(format!("no role is named {} in this account", principal.name()))
                .help("write the role's own ARN (arn:…:iam::…:role/…) in spec.access, as `aws iam get-role` shows it")),
        }
    }

    /// Adds the cluster's OIDC identity provider, for pods that can't use Pod Identity.
    pub(super) fn oidc_provider(&mut self, site: &Site<'_>) -> Result<()> {
        let address = site.at("oidc-provider");
        let state = oidc_provider::State {
            url: site.output("cluster", "issuer"),
            clients: vec![AUDIENCE.to_owned()],
            tags: self.tags(&address, &site.name),
        };
        self.put(address, oidc_provider::NAME, &state, Terms::default())
    }

    /// Adds the roles of a tenant's service accounts. They use Pod Identity, or on Fargate, where its agent can't run,
    /// the cluster's identity provider.
    pub(super) fn workload_roles(&mut self, site: &Site<'_>, tenant: &Tenant, home: &Address) -> Result<()> {
        let namespace = tenant.namespace();
        for account in &tenant.service_accounts {
            let role = workload_role(home, &account.name);
            let fargate = matches!(tenant.isolation, Isolation::Fargate { .. });
            let trust = if fargate {
                let values = json!({
                    "providerArn": site.output("oidc-provider", "arn"),
                    "issuer": site.output("oidc-provider", "issuer"),
                    "namespace": namespace,
                    "serviceAccount": account.name,
                });
                self.document("iam/irsa-trust.json", &role, values)?
            } else {
                self.pod_identity_trust(site, &role, &namespace, &account.name)?
            };
            let name = self.names.workload_role(tenant, &account.name);
            self.role(role.clone(), name, trust, Grants::attached(account.policies.clone()))?;
            if !fargate {
                let address = home.join(format!("pod-identity/{}", account.name));
                let state = pod_identity::State {
                    cluster: site.output("cluster", "name"),
                    namespace: namespace.clone(),
                    service_account: account.name.clone(),
                    role: reference(&role, "arn"),
                    tags: self.tags(&address, &account.name),
                };
                self.put(address, pod_identity::NAME, &state, Terms::default())?;
            }
        }
        Ok(())
    }
}

/// A private ECR registry, and a path in it.
struct Ecr<'a> {
    account: &'a str,
    region: &'a str,
    path: &'a str,
}

impl<'a> Ecr<'a> {
    fn parse(registry: &'a str) -> Option<Self> {
        let (host, path) = registry.split_once('/').unwrap_or((registry, ""));
        let (account, rest) = host.split_once('.').filter(|(account, _)| is_account(account))?;
        let names = ["dkr.ecr.", "dkr.ecr-fips.", "dkr-ecr.", "dkr-ecr-fips."];
        let (region, _) = names.iter().find_map(|name| rest.strip_prefix(name))?.split_once('.')?;
        Some(Self { account, region, path })
    }
}

/// The common prefix of the addresses of a cluster's access entries.
pub(super) fn access_entries(site: &Site<'_>) -> Address {
    site.at("cluster/access-entry/")
}

/// The role of a tenant's service account.
pub(super) fn workload_role(home: &Address, service_account: &str) -> Address {
    home.join(format!("role/sa-{service_account}"))
}
