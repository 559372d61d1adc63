//! Compares what a plan creates with Service Quotas and with current usage.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{join_all, try_join_all};
use serde_json::Value;

use crate::aws::Aws;
use crate::engine::error::{Class, Error, Result};
use crate::engine::plan::{Action, Plan, Step, refers_to};
use crate::kinds;
use crate::kinds::aws::quotas::{self, Counts, Per, Quota};
use crate::kinds::aws::{eks_cluster, nat_gateway, node_group, security_group, vpc_endpoint};
use crate::run::{Look, Session};

/// A quota, and the kinds that count against it.
struct Known {
    counts: Counts,
    kinds: Vec<(&'static str, Counts)>,
}

impl Known {
    /// The quotas of all kinds, each once.
    fn all() -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for kind in kinds::all() {
            for counts in kind.quotas() {
                match all.iter_mut().find(|known| known.counts.code == counts.code) {
                    Some(known) => known.kinds.push((kind.name(), counts)),
                    None => all.push(Self { counts, kinds: vec![(kind.name(), counts)] }),
                }
            }
        }
        all
    }

    /// True if a resource of this kind and state counts.
    fn has(&self, kind: &str, state: &Value) -> bool {
        self.kinds.iter().any(|(name, counts)| *name == kind && (counts.which)(state))
    }
}

/// "Inbound or outbound rules per security group".
const RULES: (&str, &str) = ("vpc", "L-0EA8095F");

/// By capacity type: "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances" and "All Standard (…) Spot
/// Instance Requests". Both count vCPUs.
const VCPUS: [(&str, &str); 2] = [("ON_DEMAND", "L-1216C47A"), ("SPOT", "L-34B43A08")];

/// The free addresses that EKS requires in each subnet of a new cluster (EKS User Guide, "View Amazon EKS networking
/// requirements for VPC and subnets").
const FOR_A_CLUSTER: i32 = 6;

/// How a plan changes one count.
#[derive(Clone, Debug, Default)]
struct Moves {
    made: Vec<String>,
    gone: usize,
}

/// The result of the check.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The quotas that are too small.
    pub short: Vec<Short>,
    /// Quotas whose sufficiency is uncertain.
    pub notes: Vec<String>,
}

/// A quota that is too small.
#[derive(Clone, Debug)]
pub struct Short {
    what: String,
    /// The increase to request: service, code and value.
    ask: Option<(&'static str, &'static str, usize)>,
}

impl Findings {
    /// # Errors A quota is too small.
    pub fn result(&self, aws: &Aws) -> Result<()> {
        if self.short.is_empty() {
            return Ok(());
        }
        let lines: Vec<&str> = self.short.iter().map(|s| s.what.as_str()).collect();
        let mut most: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (service, code, value) in self.short.iter().filter_map(|s| s.ask) {
            let asked = most.entry((service, code)).or_default();
            *asked = value.max(*asked);
        }
        let asks: Vec<String> = most
            .into_iter()
            .map(|((service, code), value)| {
                let region = quotas::region(aws, service);
                format!(
                    "aws service-quotas request-service-quota-increase --region {region} --service-code {service} \
                     --quota-code {code} --desired-value {value}"
                )
            })
            .collect();
        let help = match asks.is_empty() {
            true => String::new(),
            false => format!("request an increase:\n{}\n", asks.join("\n")),
        };
        let message =
            format!("the account's quotas are too small for this plan; nothing was changed\n{}", lines.join("\n"));
        Err(Error::new(Class::Quota, message)
            .help(format!("{help}or delete unused resources; --no-preflight skips this check")))
    }
}

/// Compares the quotas that `plan` concerns with current usage.
pub async fn find(session: &Session, look: &Look, plan: &Plan) -> Findings {
    let mut findings = Findings::default();
    let concerned: Vec<(Known, BTreeMap<String, Moves>)> = Known::all()
        .into_iter()
        .map(|known| {
            let moves = moves(&known, look, plan);
            (known, moves)
        })
        .filter(|(_, moves)| moves.values().any(|m| !m.made.is_empty()))
        .collect();
    let rules = rules(plan);
    let vcpus = vcpus(look, plan);
    let mut services: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (known, _) in &concerned {
        services.entry(known.counts.service).or_default().insert(known.counts.code);
    }
    if !rules.is_empty() {
        services.entry(RULES.0).or_default().insert(RULES.1);
    }
    if !vcpus.is_empty() {
        services.entry("ec2").or_default().extend(vcpus.keys().copied());
    }
    let limits = join_all(
        services
            .into_iter()
            .map(|(service, codes)| async move { (service, quotas::quotas(&session.aws, service, &codes).await) }),
    );
    let limits: BTreeMap<&str, Result<BTreeMap<String, Quota>>> = limits.await.into_iter().collect();
    let unknown: BTreeSet<String> = limits.values().filter_map(|l| l.as_ref().err()).map(ToString::to_string).collect();
    for error in unknown {
        findings.notes.push(format!("the account's quotas can't be read, so the plan may exceed them: {error}"));
    }
    let limit = |service: &str, code: &str| limits.get(service)?.as_ref().ok()?.get(code);
    let counts = concerned
        .iter()
        .filter_map(|(known, moves)| Some((known, moves, limit(known.counts.service, known.counts.code)?)));
    let counts = counts
        .map(|(known, moves, quota)| async move { (known, moves, quota, used(session, look, known, moves).await) });
    for (known, moves, quota, used) in join_all(counts).await {
        match used {
            Ok(used) => moves.iter().for_each(|(place, moves)| {
                let used = used.get(place).copied().unwrap_or_default() + known.counts.own;
                compare(&mut findings, known, place, moves, quota, used);
            }),
            Err(error) => findings.notes.push(format!("{}: the current usage can't be read: {error}", quota.name)),
        }
    }
    if let Some(quota) = limit(RULES.0, RULES.1) {
        for (address, count) in rules.into_iter().filter(|(_, count)| *count as f64 > quota.value) {
            let what = format!("{} ({}): the quota is {}, but {address} has {count}", quota.name, RULES.1, quota.value);
            findings.short.push(Short { what, ask: Some((RULES.0, RULES.1, count)) });
        }
    }
    for (code, (count, who)) in vcpus {
        if let Some(quota) = limit("ec2", code).filter(|quota| count as f64 > quota.value) {
            let (name, value) = (&quota.name, quota.value);
            let what = format!(
                "{name} ({code}): the quota is {value} vCPUs, but this tenancy's nodes need {count}: {}",
                some(&who)
            );
            findings.short.push(Short { what, ask: Some(("ec2", code, count)) });
        }
    }
    match free_addresses(session, look, plan).await {
        Ok(short) => findings.short.extend(short),
        Err(error) => findings.notes.push(format!("the number of free addresses in subnets can't be read: {error}")),
    }
    findings
}

fn compare(findings: &mut Findings, known: &Known, place: &str, moves: &Moves, quota: &Quota, used: usize) {
    let (made, value) = (moves.made.len(), quota.value);
    let peak = used + made;
    if made == 0 || peak as f64 <= value {
        return;
    }
    let Counts { service, code, per, .. } = known.counts;
    let at = match per {
        Per::Account(_) => String::new(),
        Per::Zone => format!(" in {place}"),
        Per::Cluster(_) | Per::Vpc => format!(" of {place}"),
    };
    let what = format!("{} ({code}){at}: {used} of {value} in use", quota.name);
    let shown = some(&moves.made);
    if peak.saturating_sub(moves.gone) as f64 > value {
        let what = format!("{what}, {made} to be created: {shown}");
        findings.short.push(Short { what, ask: Some((service, code, peak)) });
    } else {
        let gone = moves.gone;
        findings.notes.push(format!(
            "{what}, {made} to be created and {gone} to be deleted: a creation before the deletions may fail, and then the next run continues"
        ));
    }
}

/// The first names of a list, and how many more there are.
fn some(all: &[String]) -> String {
    const SHOWN: usize = 6;
    let more = all.len().saturating_sub(SHOWN);
    let names = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{names} and {more} more") } else { names }
}

/// How `plan` changes each count of a quota, by the place of the count.
fn moves(known: &Known, look: &Look, plan: &Plan) -> BTreeMap<String, Moves> {
    let mut all: BTreeMap<String, Moves> = BTreeMap::new();
    for step in &plan.steps {
        let (state, made) = match (step.action, &step.state, &step.found) {
            (Action::Create, Some(state), _) => (state, true),
            (Action::Delete, _, Some(found)) => (&found.state, false),
            _ => continue,
        };
        if !known.has(step.kind, state) {
            continue;
        }
        let moves = all.entry(place(known.counts.per, look, state)).or_default();
        match made {
            true => moves.made.push(step.address.to_string()),
            false => moves.gone += 1,
        }
    }
    all
}

/// The place of the count: a cluster, a VPC, a zone, or the account.
fn place(per: Per, look: &Look, state: &Value) -> String {
    let named = |field: &str| {
        // A resource that doesn't exist yet is counted under its address.
        let to = refers_to(&state[field]).into_iter().next().map(|address| address.to_string());
        to.unwrap_or_else(|| state[field].as_str().unwrap_or_default().to_owned())
    };
    match per {
        Per::Account(_) => String::new(),
        Per::Cluster(_) => named("cluster"),
        Per::Vpc => named("vpc"),
        Per::Zone => super::zone_of(look, &state["subnet"]).unwrap_or("an unknown zone").to_owned(),
    }
}

/// The current usage, by the place of the count.
async fn used(
    session: &Session,
    look: &Look,
    known: &Known,
    moves: &BTreeMap<String, Moves>,
) -> Result<BTreeMap<String, usize>> {
    let aws = &session.aws;
    Ok(match known.counts.per {
        Per::Account(what) => BTreeMap::from([(String::new(), quotas::used(aws, what).await?)]),
        Per::Zone => quotas::nat_gateways(aws).await?,
        Per::Cluster(what) => {
            let there = moves.keys().filter(|cluster| is_there(look, cluster));
            let counts =
                there.map(|name| async move { Ok::<_, Error>((name.clone(), quotas::used(aws, what(name)).await?)) });
            try_join_all(counts).await?.into_iter().collect()
        }
        Per::Vpc => {
            let mut all = BTreeMap::new();
            for (address, found) in &look.observed.found {
                let Some(kind) = look.observed.kinds.get(address) else { continue };
                for one in found.iter().filter(|one| known.has(kind, &one.state)) {
                    *all.entry(place(known.counts.per, look, &one.state)).or_default() += 1;
                }
            }
            all
        }
    })
}

/// True if a cluster with this name exists.
fn is_there(look: &Look, name: &str) -> bool {
    let named = |(address, found): (&_, &Vec<crate::engine::kind::Found>)| {
        look.observed.kinds.get(address) == Some(&eks_cluster::NAME)
            && found.iter().any(|f| f.outputs.get("name").is_some_and(|n| n == name))
    };
    look.observed.found.iter().any(named)
}

/// The number of rules of each security group that the plan writes, in the direction with more rules.
fn rules(plan: &Plan) -> Vec<(String, usize)> {
    let written = |step: &&Step| step.kind == security_group::NAME && step.action != Action::Delete;
    let count = |state: &Value, field: &str| state[field].as_array().map_or(0, Vec::len);
    plan.steps
        .iter()
        .filter(written)
        .filter_map(|s| Some((s.address.to_string(), s.state.as_ref()?)))
        .map(|(address, state)| (address, count(state, "ingress").max(count(state, "egress"))))
        .collect()
}

/// The least number of vCPUs that the tenancy's nodes use of each quota, and the node groups that `plan` creates or
/// changes. Other instances of the account aren't counted: listing them may take many calls.
fn vcpus(look: &Look, plan: &Plan) -> BTreeMap<&'static str, (usize, Vec<String>)> {
    let of_groups = || plan.steps.iter().filter(|s| s.kind == node_group::NAME);
    let written = of_groups().filter_map(|s| Some((s.state.as_ref()?, Some(s.address.to_string()))));
    let touched: BTreeSet<&str> = of_groups().filter_map(|s| Some(s.found.as_ref()?.id.as_str())).collect();
    let there = look.observed.found.iter().filter(|(a, _)| look.observed.kinds.get(*a) == Some(&node_group::NAME));
    let there = there.flat_map(|(_, all)| all).filter(|found| !touched.contains(found.id.as_str()));
    let mut all: BTreeMap<&str, (usize, Vec<String>)> = BTreeMap::new();
    for (state, address) in written.chain(there.map(|found| (&found.state, None))) {
        let Some((_, code)) = VCPUS.iter().find(|(capacity, _)| state["capacity_type"] == *capacity) else { continue };
        let types = state["instance_types"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let each = types.map(quotas::vcpus).min().unwrap_or_default();
        let nodes = ["min", "desired"].map(|field| state[field].as_u64().unwrap_or_default());
        let nodes = usize::try_from(nodes.into_iter().max().unwrap_or_default()).unwrap_or(usize::MAX);
        let (sum, who) = all.entry(code).or_default();
        *sum = sum.saturating_add(nodes.saturating_mul(each));
        who.extend(address);
    }
    all.retain(|_, (_, who)| !who.is_empty());
    all
}

/// Existing subnets with fewer free addresses than the new resources in them need.
async fn free_addresses(session: &Session, look: &Look, plan: &Plan) -> Result<Vec<Short>> {
    let mut wanted: BTreeMap<&str, (i32, Vec<String>)> = BTreeMap::new();
    for step in plan.steps.iter().filter(|s| s.action == Action::Create) {
        let Some(state) = &step.state else { continue };
        let subnets: Vec<&str> = match &state["subnets"] {
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            _ => state["subnet"].as_str().into_iter().collect(),
        };
        let each = match step.kind {
            eks_cluster::NAME => FOR_A_CLUSTER,
            vpc_endpoint::NAME | nat_gateway::NAME => 1,
            // EKS spreads the nodes over the subnets.
            node_group::NAME => {
                let nodes = i32::try_from(state["min"].as_i64().unwrap_or_default()).unwrap_or(i32::MAX);
                nodes / i32::try_from(subnets.len().max(1)).unwrap_or(1)
            }
            _ => continue,
        };
        for subnet in subnets.into_iter().filter(|id| each > 0 && id.starts_with("subnet-")) {
            let (sum, who) = wanted.entry(subnet).or_default();
            *sum += each;
            who.push(step.address.to_string());
        }
    }
    let ids: Vec<&str> = wanted.keys().copied().collect();
    let free = quotas::subnets(&session.aws, &ids).await?;
    let short = wanted.into_iter().filter_map(|(id, (sum, who))| {
        let free = free.get(id).map(|s| s.free).filter(|free| *free < sum)?;
        let address = look.observed.found.iter().find(|(_, all)| all.iter().any(|f| f.id == id)).map(|(a, _)| a);
        let name = address.map_or_else(|| id.to_owned(), |a| format!("{a} ({id})"));
        Some(Short {
            what: format!("{name} has {free} free addresses, but {sum} are needed for {}", some(&who)),
            ask: None,
        })
    });
    Ok(short.collect())
}
