//! Image registries: from which ones tenants may pull, and the policy for that.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::builder::Builder;
use super::site::Site;
use crate::engine::address::Address;
use crate::engine::error::Result;
use crate::spec::arn::is_account;
use crate::spec::catalog::eks_registry;
use crate::spec::{ACCOUNT_ECR, Tenant};

impl Builder<'_> {
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
