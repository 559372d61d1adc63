//! Loads a [`Spec`] from a file's text, and computes the digest of a [`Spec`] for a saved plan.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;
use jiff::civil::Date;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::arn::{self, Principal};
use super::checks::{self, Checked, Member};
use super::document::*;
use super::error::{Code, SpecError, SpecErrors};
use super::findings::Findings;
use super::places::Places;
use super::profile::Profiles;
use super::resolved::*;
use super::schema;
use super::settings::*;
use super::structure;
use super::tree;
use super::uid::uid_range;
use crate::version::KubernetesVersion;

/// Inputs of [`load`] apart from the file.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// A directory of profiles. They are added to the built-in ones, or replace those of the same name.
    pub profiles_dir: Option<PathBuf>,
    /// The date on which waivers and versions must be valid.
    pub today: Date,
}

/// Parses, checks and resolves a tenancy. `file` is only a name for errors: no file is read except the profiles of
/// `options`. Returns all errors that can be found offline, in the order of the file.
pub fn load(file: &Path, text: &str, options: &LoadOptions) -> Result<Spec, SpecErrors> {
    let mut findings = Findings::default();
    let profiles = Profiles::load(options.profiles_dir.as_deref(), &mut findings);
    let mut root = match tree::parse(file, text, "a tenancy") {
        Ok(tree) => {
            findings.errors.extend(tree.duplicates);
            tree.root
        }
        Err(error) => {
            findings.error(*error);
            tree::Node::nothing(file)
        }
    };
    structure::check(&schema::TENANCY, &mut root, "", &mut findings);
    let checked = checks::check(&root, &profiles, options.today, &mut findings);
    let places = checked.places(&root);
    let Checked { pools, tenants } = checked;
    let document = if findings.errors.is_empty() { document(&root, &mut findings) } else { None };
    let spec = document.and_then(|document| resolve(file, document, pools, tenants));
    let warnings = findings.finish()?;
    match spec {
        Some(spec) => Ok(Spec { warnings, places, ..spec }),
        None => Err(unusable(file, "the spec passed every check, but can't be resolved")),
    }
}

/// The spec in a canonical form. The order of tenants, the formatting, and settings that only repeat a default don't
/// change it.
pub fn canonical(spec: &Spec) -> String {
    let mut json = serde_json::to_value(spec).unwrap_or_default();
    sort_keys(&mut json);
    json.to_string()
}

/// SHA-256 of [`canonical`], in hexadecimal. A saved plan holds it to identify its spec.
pub fn digest(spec: &Spec) -> String {
    hex::encode(Sha256::digest(canonical(spec)))
}

fn sort_keys(json: &mut Json) {
    match json {
        Json::Array(items) => items.iter_mut().for_each(sort_keys),
        Json::Object(map) => {
            map.sort_keys();
            map.values_mut().for_each(sort_keys);
        }
        _ => {}
    }
}

/// The typed document. The structure was checked before, so a failure here is a bug in the checks.
fn document(root: &tree::Node, findings: &mut Findings) -> Option<Document> {
    match serde_json::from_value(root.to_json()) {
        Ok(document) => Some(document),
        Err(error) => {
            findings.error(SpecError::new(Code::BadValue, "", &root.mark, format!("the spec can't be read: {error}")));
            None
        }
    }
}

fn unusable(file: &Path, what: &str) -> SpecErrors {
    SpecErrors(vec![tree::whole_file(
        file,
        what.to_owned(),
        "this is a bug in ringfence; please report it with the file",
    )])
}

/// Everything was checked before, so `None` means a bug in the checks.
fn resolve(file: &Path, document: Document, pools: Vec<Member>, tenants: Vec<Member>) -> Option<Spec> {
    let Document { api_version: ApiVersion::V1Alpha1, kind: Kind::Tenancy, metadata, spec } = document;
    let TenancySpec {
        region,
        account_id,
        kubernetes_version,
        network,
        access,
        gateway,
        iam,
        images,
        tags,
        ignore_tags,
        pools: pool_specs,
        tenants: tenant_specs,
    } = spec;
    let kubernetes_version = KubernetesVersion::parse(&kubernetes_version)?;
    let mut normal = Normal::default();
    let mut pools = pool_specs
        .into_iter()
        .zip(pools)
        .map(|(spec, member)| pool(spec, member.profile?, &network, kubernetes_version, &mut normal))
        .collect::<Option<Vec<Pool>>>()?;
    let mut tenants = tenant_specs
        .into_iter()
        .zip(tenants)
        .map(|(spec, member)| tenant(spec, member.profile?, &network, kubernetes_version, &mut normal))
        .collect::<Option<Vec<Tenant>>>()?;
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    tenants.sort_by(|a, b| a.id.cmp(&b.id));
    let principals = |arns: Vec<String>| {
        let found: Option<Vec<Principal>> = arns.iter().map(|a| arn::principal(a, Some(&region)).ok()).collect();
        found.map(sorted)
    };
    let allowed_cidrs: Option<Vec<Ipv4Net>> = access.allowed_cidrs.iter().map(|c| c.parse().ok()).collect();
    let access = Access {
        endpoint: access.endpoint,
        allowed_cidrs: sorted(allowed_cidrs?),
        private_sources: sorted(access.private_sources),
        admins: principals(access.admins)?,
        operators: principals(access.operators)?,
    };
    let name = metadata.name;
    Some(Spec {
        images: Images {
            shared: images.shared.unwrap_or_else(|| format!("{name}/shared")),
            tenants: images.tenants.unwrap_or_else(|| name.clone()),
            ringfence: images.ringfence,
        },
        name,
        account_id,
        kubernetes_version,
        network: Network {
            supernet: network.supernet.parse().ok()?,
            vpc_prefix: network.vpc_prefix,
            zones: network.zones,
            service_cidr: network.service_cidr.parse().ok()?,
            ignore: network.ignore,
        },
        access,
        gateway: gateway.map(|GatewaySpec { url, role }| Gateway { url, role }),
        iam: Iam {
            path: iam.path.unwrap_or_else(|| "/ringfence/".to_owned()),
            permissions_boundary: iam.permissions_boundary,
        },
        tags,
        ignore_tags,
        pools,
        tenants,
        region,
        source: file.to_owned(),
        warnings: Vec::new(),
        places: Places::default(),
    })
}

fn pool(
    spec: PoolSpec,
    profile: Arc<Profile>,
    network: &NetworkSpec,
    default: KubernetesVersion,
    normal: &mut Normal,
) -> Option<Pool> {
    let PoolSpec { name, profile: profile_name, kubernetes_version, network: own, gateway, waivers } = spec;
    let own = ProfileNetwork {
        nat_gateways: own.nat_gateways.or(profile.network.nat_gateways),
        endpoints: own.endpoints.or_else(|| profile.network.endpoints.clone()),
        flow_logs: own.flow_logs.or(profile.network.flow_logs),
        ..profile.network.clone()
    };
    let version = kubernetes_version.as_ref().or(profile.cluster.kubernetes_version.as_ref());
    Some(Pool {
        name,
        kubernetes_version: version.map_or(Some(default), |v| KubernetesVersion::parse(v))?,
        network: cluster_network(&own, network),
        gateway: gateway.map(|written| {
            let PoolGatewaySpec { image, replicas, load_balancer, config_map, certificate_secret } = written;
            GatewayPods { image, replicas, load_balancer, config_map, certificate_secret }
        }),
        profile_name: profile_name.unwrap_or_else(|| "shared".to_owned()),
        profile: normal.of(profile),
        waivers: by_control(waivers),
    })
}

fn tenant(
    spec: TenantSpec,
    profile: Arc<Profile>,
    network: &NetworkSpec,
    default: KubernetesVersion,
    normal: &mut Normal,
) -> Option<Tenant> {
    let TenantSpec { id, name, tier, pool, access, service_accounts, overrides: _, waivers } = spec;
    let isolation = match profile.isolation {
        IsolationModel::Silo => Isolation::Silo,
        IsolationModel::Pool => Isolation::Pool { pool: pool? },
        IsolationModel::Fargate => Isolation::Fargate { pool: pool? },
        IsolationModel::Shared => return None,
    };
    let version = profile.cluster.kubernetes_version.as_ref();
    let kubernetes_version = version.map_or(Some(default), |v| KubernetesVersion::parse(v))?;
    let silo = (isolation == Isolation::Silo)
        .then(|| Silo { kubernetes_version, network: cluster_network(&profile.network, network) });
    let mut service_accounts: Vec<ServiceAccount> = service_accounts
        .into_iter()
        .map(|account| ServiceAccount { policies: sorted(account.policies), ..account })
        .collect();
    service_accounts.sort_by(|a, b| a.name.cmp(&b.name));
    Some(Tenant {
        uid_range: uid_range(&id),
        id,
        name,
        tier,
        isolation,
        profile: normal.of(profile),
        silo,
        access: sorted(access.into_iter().map(identity).collect::<Option<_>>()?),
        service_accounts,
        waivers: by_control(waivers),
    })
}

fn identity(written: TenantAccessSpec) -> Option<TenantAccess> {
    let TenantAccessSpec { issuer, claim, value, role, certificate } = written;
    match (issuer, role, certificate) {
        (Some(issuer), None, None) => Some(TenantAccess::Claim { issuer, claim: claim?, value: value? }),
        (None, Some(arn), None) => Some(TenantAccess::Role { arn }),
        (None, None, Some(uri)) => Some(TenantAccess::Certificate { uri }),
        _ => None,
    }
}

fn cluster_network(own: &ProfileNetwork, tenancy: &NetworkSpec) -> ClusterNetwork {
    let ProfileNetwork { nat_gateways, endpoints, flow_logs, flow_log_retention_days } = own;
    ClusterNetwork {
        nat_gateways: nat_gateways.unwrap_or(tenancy.nat_gateways),
        endpoints: sorted(endpoints.clone().unwrap_or_else(|| tenancy.endpoints.clone())),
        flow_logs: flow_logs.unwrap_or(tenancy.flow_logs),
        flow_log_retention_days: *flow_log_retention_days,
    }
}

/// Normalized profiles. Tenants that share a profile share its normalized form.
#[derive(Default)]
struct Normal(BTreeMap<*const Profile, (Arc<Profile>, Arc<Profile>)>);

impl Normal {
    fn of(&mut self, profile: Arc<Profile>) -> Arc<Profile> {
        let made = || (profile.clone(), Arc::new(normalized(Profile::clone(&profile))));
        // The key is an address in memory. Keeping the original ensures that no other profile gets the same address.
        self.0.entry(Arc::as_ptr(&profile)).or_insert_with(made).1.clone()
    }
}

/// Sorts lists whose order has no meaning. Removes a slash at the end of a registry, because both spellings mean the
/// same.
fn normalized(mut profile: Profile) -> Profile {
    profile.cluster.log_types = sorted(profile.cluster.log_types);
    profile.network.endpoints = profile.network.endpoints.map(sorted);
    let pods = &mut profile.pods;
    pods.allowed_capabilities = sorted(std::mem::take(&mut pods.allowed_capabilities));
    pods.seccomp_profiles = sorted(std::mem::take(&mut pods.seccomp_profiles));
    pods.host_paths = sorted(std::mem::take(&mut pods.host_paths));
    let registries = std::mem::take(&mut pods.allowed_registries);
    pods.allowed_registries = sorted(registries.iter().map(|r| r.trim_end_matches('/').to_owned()).collect());
    profile
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items.dedup();
    items
}

fn by_control(mut waivers: Vec<Waiver>) -> Vec<Waiver> {
    waivers.sort_by_key(|w| w.control);
    waivers
}
