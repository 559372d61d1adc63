//! Compares what a plan creates with Service Quotas and with current usage.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{join_all, try_join_all};
use serde_json::Value;

use crate::aws::Aws;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::Found;
use crate::engine::packed::Packed;
use crate::engine::plan::{Action, Plan};
use crate::engine::value::references;
use crate::kinds;
use crate::kinds::aws::eks_cluster;
use crate::kinds::aws::quotas::{self, Counts, Per, Quota};
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

    /// How much a resource of this kind and state counts.
    fn weight(&self, kind: &str, state: &Packed) -> usize {
        self.kinds.iter().filter(|(name, _)| *name == kind).map(|(_, counts)| (counts.weight)(state)).sum()
    }
}

/// How a plan changes one count.
#[derive(Clone, Debug, Default)]
struct Moves {
    /// How much is added, and by which resources.
    made: usize,
    makers: Vec<String>,
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
        .filter(|(_, moves)| moves.values().any(|m| !m.makers.is_empty()))
        .collect();
    let mut services: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (known, _) in &concerned {
        services.entry(known.counts.service).or_default().insert(known.counts.code);
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
    let counts = counts.map(|(known, moves, quota)| async move {
        (known, moves, quota, used(session, look, known, plan, moves).await)
    });
    for (known, moves, quota, used) in join_all(counts).await {
        match used {
            Ok(used) => moves.iter().for_each(|(place, moves)| {
                let used = used.get(place).copied().unwrap_or_default() + known.counts.own;
                compare(&mut findings, known, place, moves, quota, used);
            }),
            Err(error) => findings.notes.push(format!("{}: the current usage can't be read: {error}", quota.name)),
        }
    }
    match free_addresses(session, look, plan).await {
        Ok(short) => findings.short.extend(short),
        Err(error) => findings.notes.push(format!("the number of free addresses in subnets can't be read: {error}")),
    }
    findings
}

fn compare(findings: &mut Findings, known: &Known, place: &str, moves: &Moves, quota: &Quota, used: usize) {
    let (made, value) = (moves.made, quota.value);
    let peak = used + made;
    if made == 0 || peak as f64 <= value {
        return;
    }
    let Counts { service, code, per, unit, .. } = known.counts;
    let (name, makers) = (&quota.name, some(&moves.makers));
    let ask = Some((service, code, peak));
    let at = match per {
        Per::Resource => {
            let what = format!("{name} ({code}): the quota is {value}, but {makers} has {peak} {unit}");
            return findings.short.push(Short { what, ask });
        }
        Per::Tenancy => {
            let what = format!("{name} ({code}): the quota is {value} {unit}, but this tenancy needs {peak}: {makers}");
            return findings.short.push(Short { what, ask });
        }
        Per::Account(_) => String::new(),
        Per::Zone => format!(" in {place}"),
        Per::Cluster(_) | Per::Vpc => format!(" of {place}"),
    };
    let what = format!("{name} ({code}){at}: {used} of {value} in use");
    if peak.saturating_sub(moves.gone) as f64 > value {
        let what = format!("{what}, {made} to be created: {makers}");
        findings.short.push(Short { what, ask });
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
    let per = known.counts.per;
    let mut all: BTreeMap<String, Moves> = BTreeMap::new();
    if let Per::Resource | Per::Tenancy = per {
        for (address, weight) in weights(known, plan) {
            let place = if let Per::Resource = per { address.clone() } else { String::new() };
            let moves = all.entry(place).or_default();
            moves.made += weight;
            moves.makers.push(address);
        }
        return all;
    }
    for step in &plan.steps {
        let (state, made) = match (step.action, &step.state, &step.found) {
            (Action::Create, Some(state), _) => (state, true),
            (Action::Delete, _, Some(found)) => (&found.state, false),
            _ => continue,
        };
        let weight = known.weight(step.kind, state);
        if weight == 0 {
            continue;
        }
        let moves = all.entry(place(per, look, state)).or_default();
        match made {
            true => {
                moves.made += weight;
                moves.makers.push(step.address.to_string());
            }
            false => moves.gone += weight,
        }
    }
    all
}

/// How much each resource that `plan` writes counts at most. A plan may change a resource twice.
fn weights(known: &Known, plan: &Plan) -> BTreeMap<String, usize> {
    let mut all: BTreeMap<String, usize> = BTreeMap::new();
    for step in plan.steps.iter().filter(|step| step.action != Action::Delete) {
        let weight = step.state.as_ref().map_or(0, |state| known.weight(step.kind, state));
        if weight > 0 {
            let most = all.entry(step.address.to_string()).or_default();
            *most = weight.max(*most);
        }
    }
    all
}

/// The place of the count: a cluster, a VPC, a zone, or the account.
fn place(per: Per, look: &Look, state: &Packed) -> String {
    let named = |field: &str| {
        // A resource that doesn't exist yet is counted under its address.
        let to = references(&state[field]).into_iter().next().map(|(address, _)| address.to_string());
        to.unwrap_or_else(|| state[field].as_str().unwrap_or_default().to_owned())
    };
    match per {
        Per::Account(_) | Per::Resource | Per::Tenancy => String::new(),
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
    plan: &Plan,
    moves: &BTreeMap<String, Moves>,
) -> Result<BTreeMap<String, usize>> {
    let aws = &session.aws;
    Ok(match known.counts.per {
        Per::Account(what) => BTreeMap::from([(String::new(), quotas::used(aws, what).await?)]),
        Per::Zone => quotas::nat_gateways(aws).await?,
        Per::Cluster(what) => {
            let exist = moves.keys().filter(|cluster| is_there(look, cluster));
            let counts =
                exist.map(|name| async move { Ok::<_, Error>((name.clone(), quotas::used(aws, what(name)).await?)) });
            try_join_all(counts).await?.into_iter().collect()
        }
        Per::Resource => BTreeMap::new(),
        Per::Vpc => {
            let mut all = BTreeMap::new();
            for (kind, one) in there(look) {
                match known.weight(kind, &one.state) {
                    0 => {}
                    weight => *all.entry(place(known.counts.per, look, &one.state)).or_default() += weight,
                }
            }
            all
        }
        // Without the resources that the plan changes, whose weight afterwards is in `moves`.
        Per::Tenancy => {
            let touched: BTreeSet<&str> =
                plan.steps.iter().filter_map(|s| Some(s.found.as_ref()?.id.as_str())).collect();
            let stay = there(look).filter(|(_, one)| !touched.contains(one.id.as_str()));
            BTreeMap::from([(String::new(), stay.map(|(kind, one)| known.weight(kind, &one.state)).sum())])
        }
    })
}

/// Every resource that exists, with its kind.
fn there(look: &Look) -> impl Iterator<Item = (&'static str, &Found)> {
    let kinds = &look.observed.kinds;
    look.observed
        .found
        .iter()
        .flat_map(|(a, all)| kinds.get(a).into_iter().flat_map(|kind| all.iter().map(|f| (*kind, f))))
}

/// True if a cluster with this name exists.
fn is_there(look: &Look, name: &str) -> bool {
    there(look).any(|(kind, f)| kind == eks_cluster::NAME && f.outputs.get("name").is_some_and(|n| n == name))
}

/// Existing subnets with fewer free addresses than the new resources in them need.
async fn free_addresses(session: &Session, look: &Look, plan: &Plan) -> Result<Vec<Short>> {
    let kinds: BTreeMap<&str, _> = kinds::all().into_iter().map(|kind| (kind.name(), kind)).collect();
    let mut wanted: BTreeMap<&str, (usize, Vec<String>)> = BTreeMap::new();
    for step in plan.steps.iter().filter(|s| s.action == Action::Create) {
        let (Some(state), Some(kind)) = (&step.state, kinds.get(step.kind)) else { continue };
        let each = kind.addresses(state);
        if each == 0 {
            continue;
        }
        let subnets: Vec<&str> = match &state["subnets"] {
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            _ => state["subnet"].as_str().into_iter().collect(),
        };
        for subnet in subnets.into_iter().filter(|id| id.starts_with("subnet-")) {
            let (sum, who) = wanted.entry(subnet).or_default();
            *sum += each;
            who.push(step.address.to_string());
        }
    }
    let ids: Vec<&str> = wanted.keys().copied().collect();
    let free = quotas::subnets(&session.aws, &ids).await?;
    let short = wanted.into_iter().filter_map(|(id, (sum, who))| {
        let free = free.get(id).map(|s| s.free).filter(|free| usize::try_from(*free).is_ok_and(|free| free < sum))?;
        let address = look.observed.found.iter().find(|(_, all)| all.iter().any(|f| f.id == id)).map(|(a, _)| a);
        let name = address.map_or_else(|| id.to_owned(), |a| format!("{a} ({id})"));
        Some(Short {
            what: format!("{name} has {free} free addresses, but {sum} are needed for {}", some(&who)),
            ask: None,
        })
    });
    Ok(short.collect())
}
