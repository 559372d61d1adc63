//! Compares what a plan creates with what EC2 and EKS offer in the region and in its zones. Resources that exist
//! aren't checked.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::address::{Address, Owner as Of};
use crate::engine::error::Result;
use crate::engine::packed::Packed;
use crate::engine::plan::{Action, Plan, Step};
use crate::kinds::aws::offers::{self, Details};
use crate::kinds::aws::{eks_addon, fargate_profile, node_group, versions, vpc_endpoint};
use crate::run::{Look, Session};
use crate::spec::{
    AmiFamily, Architecture, CapacityType, KubernetesVersion, Nodes, Owner, Related, Spec, SpecError, in_order, list,
    nearest, quote,
};
use crate::stack::{self, EndpointService};

/// The result of the check.
#[derive(Debug, Default)]
pub struct Findings {
    /// Errors in the spec, each with its place.
    pub wrong: Vec<SpecError>,
    pub notes: Vec<String>,
}

/// Compares `plan` with the offers.
pub async fn find(session: &Session, look: &Look, plan: &Plan) -> Findings {
    let mut findings = Findings::default();
    let made = |kind| plan.steps.iter().filter(move |s| s.kind == kind && s.action != Action::Delete);
    let groups: Vec<Group<'_>> =
        made(node_group::NAME).filter_map(|step| Group::of(step, look, &session.spec)).collect();
    if let Err(error) = instance_types(session, &groups, &mut findings).await {
        findings.notes.push(format!(
            "the instance types could not be checked, so a wrong one fails only when nodes are created: {error}"
        ));
    }
    made(eks_addon::NAME).for_each(|step| addon(&session.spec, look, step, &mut findings));
    made(vpc_endpoint::NAME).for_each(|step| endpoint(&session.spec, look, step, &mut findings));
    made(fargate_profile::NAME).for_each(|step| fargate(&session.spec, look, step, &mut findings));
    findings.wrong = in_order(once_for_a_tier(findings.wrong));
    findings
}

/// A node group that the plan creates.
struct Group<'s> {
    address: &'s Address,
    owner: Owner<'s>,
    /// `nodes` or `systemNodes`.
    section: &'static str,
    nodes: &'s Nodes,
    zones: BTreeSet<&'s str>,
}

impl<'s> Group<'s> {
    fn of(step: &'s Step, look: &'s Look, spec: &'s Spec) -> Option<Self> {
        let state = step.state.as_ref().filter(|_| step.action == Action::Create)?;
        let owner = owner(&step.address, spec)?;
        let profile = match owner {
            Owner::Tenant(id) => &spec.tenant(id)?.profile,
            Owner::Pool(name) => &spec.pool(name)?.profile,
        };
        let (section, nodes) = match step.address.as_str().ends_with("/node-group/system") {
            true => ("systemNodes", &profile.system_nodes),
            false => ("nodes", &profile.nodes),
        };
        Some(Self { address: &step.address, owner, section, nodes, zones: zones(look, state) })
    }

    fn against(&self, spec: &Spec, name: &str, message: String, help: String) -> SpecError {
        spec.objection(self.owner, &[self.section, "instanceTypes", name], message, help)
    }
}

async fn instance_types(session: &Session, groups: &[Group<'_>], findings: &mut Findings) -> Result<()> {
    if groups.is_empty() {
        return Ok(());
    }
    let Session { spec, aws, .. } = session;
    let wanted: BTreeSet<String> = groups.iter().flat_map(|g| &g.nodes.instance_types).cloned().collect();
    let offered = offers::zones_of_types(aws, &wanted).await?;
    let unknown = wanted.iter().any(|name| !offered.contains_key(name));
    let all = if unknown { offers::types(aws).await? } else { BTreeSet::new() };
    let details = match offered.is_empty() {
        true => BTreeMap::new(),
        false => offers::details(aws, &offered.keys().collect::<Vec<_>>()).await?,
    };
    for group in groups {
        for name in &group.nodes.instance_types {
            if !offered.contains_key(name) {
                let message = format!("EC2 offers no instance type {} in {}", quote(name), spec.region);
                let help = match nearest(name, all.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        "`aws ec2 describe-instance-type-offerings` lists the instance types of the region".to_owned()
                    }
                };
                findings.wrong.push(group.against(spec, name, message, help));
            } else if let Some((message, help)) = details.get(name).and_then(|of| misfit(name, of, group.nodes)) {
                findings.wrong.push(group.against(spec, name, message, help));
            }
        }
        by_zone(spec, group, &offered, findings);
    }
    Ok(())
}

/// EKS refuses a node group if one of its zones offers none of its types. If a zone offers some of them, nodes there
/// use those.
fn by_zone(spec: &Spec, group: &Group<'_>, offered: &BTreeMap<String, BTreeSet<String>>, findings: &mut Findings) {
    let known: Vec<(&String, &BTreeSet<String>)> =
        group.nodes.instance_types.iter().filter_map(|name| Some((name, offered.get(name)?))).collect();
    let Some((first, _)) = known.first() else { return };
    let lacks = |zones: &BTreeSet<String>, zone: &str| !zones.contains(zone);
    let empty: Vec<&str> =
        group.zones.iter().copied().filter(|zone| known.iter().all(|(_, zones)| lacks(zones, zone))).collect();
    if !empty.is_empty() {
        let names = list(known.iter().map(|(name, _)| name.as_str()));
        let message =
            format!("EC2 offers no {names} in {}, where {} has a subnet", list(empty.iter().copied()), group.address);
        let all = list(group.zones.iter().copied());
        let help = format!("choose an instance type that {all} offer, or add a type that the missing zones offer");
        findings.wrong.push(group.against(spec, first, message, help));
        return;
    }
    for (name, offered) in known {
        let without: Vec<&str> = group.zones.iter().copied().filter(|zone| lacks(offered, zone)).collect();
        if !without.is_empty() {
            findings.notes.push(format!(
                "{}: EC2 offers no {name} in {}; nodes there use the other instance types",
                group.address,
                without.join(", ")
            ));
        }
    }
}

/// Why the nodes' image can't run on an instance type, or can't use its devices. Returns the message and the help.
fn misfit(name: &str, of: &Details, nodes: &Nodes) -> Option<(String, String)> {
    let wanted = match nodes.architecture {
        Architecture::X86_64 => "x86_64",
        Architecture::Arm64 => "arm64",
    };
    let name = quote(name);
    if !of.architectures.is_empty() && !of.architectures.iter().any(|a| a == wanted) {
        let its = of.architectures.join(" and ");
        let message = format!("{name} has the architecture {its}, but the nodes' image is for {wanted}");
        return Some((message, format!("use an instance type for {wanted}")));
    }
    let image = match nodes.ami_family {
        AmiFamily::Bottlerocket => "Bottlerocket",
        AmiFamily::Al2023 => "Amazon Linux 2023",
        // The contents of a custom image are unknown, so its drivers aren't checked.
        AmiFamily::Custom => return spot(&name, of, nodes),
    };
    let without = "use an instance type without accelerators, or `amiFamily: custom` with an image that has the driver";
    if let Some(gpu) = &of.gpu {
        let message = format!("{name} has a GPU ({gpu}), but the standard image of {image} has no driver for it");
        return Some((message, without.to_owned()));
    }
    // Bottlerocket's Kubernetes images load the Neuron driver if the instance has a Neuron device
    // (bottlerocket-kernel-kit).
    if of.neuron && nodes.ami_family == AmiFamily::Al2023 {
        let message = format!("{name} has a Neuron device, but the standard image of {image} has no driver for it");
        return Some((message, format!("use `amiFamily: bottlerocket`, or {without}")));
    }
    spot(&name, of, nodes)
}

fn spot(name: &str, of: &Details, nodes: &Nodes) -> Option<(String, String)> {
    (nodes.capacity_type == CapacityType::Spot && !of.spot).then(|| {
        (
            format!("EC2 has no Spot Instances of {name}"),
            "use `capacityType: on-demand`, or another instance type".to_owned(),
        )
    })
}

/// EKS must offer a pinned version for the cluster's Kubernetes version. Without a pin, the version is selected from
/// the offered ones.
fn addon(spec: &Spec, look: &Look, step: &Step, findings: &mut Findings) {
    let written = step.action == Action::Create || step.changes.iter().any(|change| change.path == "version");
    let Some(state) = step.state.as_ref().filter(|_| written) else { return };
    let (Some(name), Some(version), Some(owner)) =
        (state["name"].as_str(), state["version"].as_str(), owner(&step.address, spec))
    else {
        return;
    };
    let cluster = step.address.as_str().split_once("/addon/").map(|(prefix, _)| Address::new(prefix).join("cluster"));
    let cluster = cluster.and_then(|address| look.desired.iter().find(|r| r.address == address));
    let Some(kubernetes) = cluster.and_then(|r| KubernetesVersion::parse(r.state["version"].as_str()?)) else { return };
    let offer = look.facts.offered.get(&kubernetes).and_then(|all| all.get(name)).cloned().unwrap_or_default();
    if offer.versions.iter().any(|one| one == version) {
        return;
    }
    let message = format!("EKS offers no version {} of {name} for Kubernetes {kubernetes}", quote(version));
    let help = match (nearest(version, offer.versions.iter().map(String::as_str)), &offer.default) {
        (_, None) if offer.versions.is_empty() => {
            format!("EKS offers no version of {name} for it; choose another kubernetesVersion")
        }
        (Some(near), Some(default)) => format!("did you mean `{near}`? EKS recommends `{default}`"),
        (Some(near), None) => format!("did you mean `{near}`?"),
        (None, Some(default)) => format!("EKS recommends `{default}`"),
        (None, None) => format!("use one of {}", list(offer.versions.iter().map(String::as_str))),
    };
    findings.wrong.push(spec.objection(owner, &["addons", name, "version"], message, help));
}

/// An interface endpoint needs at least one zone that has its service. It gets an interface in each such zone.
fn endpoint(spec: &Spec, look: &Look, step: &Step, findings: &mut Findings) {
    let Some((state, owner)) = step.state.as_ref().zip(owner(&step.address, spec)) else { return };
    let service = state["service"].as_str().unwrap_or_default();
    let Some(EndpointService { zones: has, .. }) =
        look.facts.services.get(service).filter(|_| state["type"] == "Interface")
    else {
        return;
    };
    let short = step.address.as_str().split_once("/endpoint/").map(|(_, short)| short).unwrap_or(service);
    let setting = ["network", "endpoints", short];
    let here = vpc_zones(look, &stack::vpc(owner));
    let (with, without): (Vec<&str>, Vec<&str>) = here.into_iter().partition(|zone| has.contains(*zone));
    let help = format!("remove {}; its traffic then goes through NAT gateways", quote(short));
    if has.is_empty() {
        let message = format!("{} has no endpoint service {}", spec.region, quote(short));
        findings.wrong.push(spec.objection(owner, &setting, message, help));
    } else if with.is_empty() {
        let has = list(has.iter().map(String::as_str));
        let message = format!(
            "the endpoint service {} exists in {has}, but the VPC has subnets in {} only",
            quote(short),
            list(without.iter().copied())
        );
        let help = format!("{help}; or raise `network.zones`, which may add a zone that has the service");
        findings.wrong.push(spec.objection(owner, &setting, message, help));
    } else if !without.is_empty() {
        let (with, without) = (with.join(", "), without.join(", "));
        findings.notes.push(format!(
            "{}: the service doesn't exist in {without}; the endpoint gets an interface in {with}, which {without} uses, too",
            step.address
        ));
    }
}

fn fargate(spec: &Spec, look: &Look, step: &Step, findings: &mut Findings) {
    if step.action != Action::Create {
        return;
    }
    let Some((state, owner)) = step.state.as_ref().zip(owner(&step.address, spec)) else { return };
    let ids: BTreeMap<&str, &str> = look.facts.zones.iter().map(|z| (z.name.as_str(), z.id.as_str())).collect();
    let lacks = |zone: &&str| ids.get(*zone).is_some_and(|id| !versions::has_fargate(id));
    let shown = |zone: &str| format!("{zone} ({})", ids.get(zone).copied().unwrap_or_default());
    let without: Vec<&str> = zones(look, state).into_iter().filter(lacks).collect();
    if !without.is_empty() {
        let shown: Vec<String> = without.into_iter().map(shown).collect();
        let message = format!("Fargate doesn't run in any zone of the pool's VPC: {}", shown.join(", "));
        let help = "choose a tier with its own nodes, or raise `network.zones`".to_owned();
        findings.wrong.push(spec.objection(owner, &[], message, help));
    } else {
        let pool = match owner {
            Owner::Tenant(id) => spec.tenant(id).and_then(|tenant| tenant.pool()),
            Owner::Pool(name) => Some(name),
        };
        let zones = pool.map(|name| vpc_zones(look, &stack::vpc(Owner::Pool(name)))).unwrap_or_default();
        let without: Vec<String> = zones.into_iter().filter(lacks).map(shown).collect();
        if !without.is_empty() {
            let (address, without) = (&step.address, without.join(", "));
            findings.notes.push(format!("{address}: Fargate doesn't run in {without}; pods run in the other zones"));
        }
    }
}

/// If many tenants use one profile, an error of the profile itself is reported once.
fn once_for_a_tier(wrong: Vec<SpecError>) -> Vec<SpecError> {
    let mut told: Vec<(String, Option<Related>, usize)> = Vec::new();
    let mut all: Vec<SpecError> = Vec::new();
    for error in wrong {
        let same = |(message, related, _): &&mut (String, Option<Related>, usize)| {
            related.is_some() && *related == error.related && *message == error.message
        };
        match told.iter_mut().find(same) {
            Some((.., more)) => *more += 1,
            None => {
                told.push((error.message.clone(), error.related.clone(), 0));
                all.push(error);
            }
        }
    }
    for (error, (_, _, more)) in all.iter_mut().zip(told).filter(|(_, (.., more))| *more > 0) {
        let help = error.help.take().unwrap_or_default();
        error.help = Some(format!("{help} ({more} more of the same profile have it)"));
    }
    all
}

/// The owner of a resource, as the spec names it.
fn owner<'s>(address: &Address, spec: &'s Spec) -> Option<Owner<'s>> {
    match address.owner() {
        Of::Tenant(id) => spec.tenant(&id).map(|tenant| Owner::Tenant(&tenant.id)),
        Of::Pool(name) => spec.pool(&name).map(|pool| Owner::Pool(&pool.name)),
        Of::Tenancy => None,
    }
}

/// The zones of a resource's subnets.
fn zones<'l>(look: &'l Look, state: &Packed) -> BTreeSet<&'l str> {
    let subnets = state["subnets"].as_array().into_iter().flatten();
    subnets.filter_map(|subnet| super::zone_of(look, subnet)).collect()
}

/// The zones of the private subnets of a VPC, by its address.
fn vpc_zones<'l>(look: &'l Look, vpc: &Address) -> BTreeSet<&'l str> {
    let within = format!("{}/subnet/private-", vpc.as_str().trim_end_matches("/vpc"));
    let subnets = look.desired.iter().filter(|r| r.address.as_str().starts_with(&within));
    subnets.filter_map(|r| r.state["zone"].as_str()).collect()
}
