//! Looks for problems that would make an apply fail. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use jiff::{SignedDuration, ToSpan};
use serde::Serialize;
use serde_json::Value;

use super::{Failure, Host, Look, Options, Session, preflight};
use crate::aws::error::is_not_found;
use crate::aws::{Access, simulate, skew};
use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};
use crate::engine::plan::{Plan, Policy};
use crate::kinds::aws::versions::{self, ClusterVersion};
use crate::kinds::aws::{eks_addon, quotas, service_linked_role};
use crate::spec::Spec;
use crate::stack::{self, Facts, permissions};
use crate::template::Templates;
use crate::version;

/// AWS refuses requests whose signature differs from its clock by five minutes or more.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Warn this many days before a Kubernetes version leaves support.
const SOON: i64 = 60;

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Such as `credentials`.
    pub name: &'static str,
    pub verdict: Verdict,
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// In the order of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Good,
    /// It works, and the user should know it.
    Attention,
    /// The check gave no result.
    Unknown,
    /// An apply would fail.
    Wrong,
}

/// What the user should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Get credentials for the right account, then check again.
    Credentials,
    /// Get the permissions to plan, then check again.
    AllowPlan,
    /// See why planning fails, then check again.
    SeePlan,
    /// Get the missing permissions, then check again.
    Allow,
    /// Repair what the checks name, then check again.
    Repair,
    /// Nothing is wrong, and nothing is to be done.
    Drift,
    /// Nothing is wrong.
    Plan,
}

/// The results of all checks.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    pub checks: Vec<Check>,
    pub next: Next,
}

/// Runs all checks.
///
/// # Errors The sandbox can't save its state. What the checks find is part of the result.
pub async fn examine(
    host: &dyn Host,
    spec: Spec,
    templates: Templates,
    options: &Options,
) -> std::result::Result<Diagnosis, Failure> {
    let mut doctor = Doctor::default();
    doctor.add("spec", Verdict::Good, format!("{} is valid", spec.source.display()));
    if options.sandbox.is_none() {
        doctor.clock(&spec).await;
    }
    let session = match Session::open(spec, templates, options).await {
        Ok(session) => session,
        Err(error) => {
            doctor.fail("credentials", &error);
            return Ok(Diagnosis { checks: doctor.checks, next: Next::Credentials });
        }
    };
    let scope = &session.aws.scope;
    let text = format!(
        "{}, account {}, region {}, partition {}",
        session.aws.caller, scope.account, scope.region, scope.partition
    );
    doctor.add("credentials", Verdict::Good, text);
    let next = session.during(async |session| Ok(doctor.account(host, session).await)).await?;
    Ok(Diagnosis { checks: doctor.checks, next })
}

#[derive(Default)]
struct Doctor {
    checks: Vec<Check>,
}

impl Doctor {
    fn add(&mut self, name: &'static str, verdict: Verdict, text: impl Into<String>) {
        self.checks.push(Check { name, verdict, text: text.into(), help: None });
    }

    /// A check that failed. A service that can't be reached gives "unknown", because nothing is known to be wrong.
    fn fail(&mut self, name: &'static str, error: &Error) {
        let verdict = match error.class {
            Class::Unreachable | Class::Throttled | Class::Timeout => Verdict::Unknown,
            _ => Verdict::Wrong,
        };
        self.checks.push(Check { name, verdict, text: error.to_string(), help: error.help.clone() });
    }

    fn is_wrong(&self, name: &str) -> bool {
        self.checks.iter().any(|check| check.name == name && check.verdict >= Verdict::Unknown)
    }

    async fn clock(&mut self, spec: &Spec) {
        let access = Access { region: spec.region.clone(), ..Access::default() };
        match skew::seconds(&access).await {
            Ok(Some(ahead)) if SignedDuration::from_secs(ahead).abs() >= SKEW => self.checks.push(Check {
                name: "clock",
                verdict: Verdict::Wrong,
                text: format!("this computer's clock is {} s {} AWS's", ahead.abs(), side(ahead)),
                help: Some("synchronize the clock with NTP: AWS refuses a request whose time differs from its own by five minutes".to_owned()),
            }),
            Ok(Some(ahead)) => {
                self.add("clock", Verdict::Good, format!("{} s {} AWS's", ahead.abs(), side(ahead)));
            }
            Ok(None) => self.add("clock", Verdict::Unknown, "the answer of STS has no date"),
            Err(error) => self.fail("clock", &error),
        }
    }

    /// Checks permissions, endpoints, versions, resources, quotas and offers of the account.
    async fn account(&mut self, host: &dyn Host, session: &Session) -> Next {
        session.reading(host);
        let policy = Policy::default();
        let (looked, permissions, services, offered) = tokio::join!(
            session.plan(&policy, false),
            lacking(session),
            services(session),
            versions::cluster_versions(&session.aws)
        );
        self.permissions(&permissions);
        for (service, error) in services {
            match error {
                None => self.add("endpoints", Verdict::Good, format!("{service} answers")),
                Some(error) => self.fail("endpoints", &error),
            }
        }
        match offered {
            Ok(offered) => self.kubernetes(session, &offered),
            Err(error) => self.fail("kubernetes", &error),
        }
        let (look, plan) = match looked {
            Ok(read) => read,
            Err(error) => {
                self.fail("reading", &error);
                return if error.class == Class::Denied { Next::AllowPlan } else { Next::SeePlan };
            }
        };
        self.estate(&look, &plan);
        let short = preflight::account(session, host, &look, &plan).await;
        if short.is_empty() {
            self.add("quotas", Verdict::Good, "the account's quotas are sufficient for the plan");
        }
        short.iter().for_each(|error| self.fail("quotas", error));
        for wrong in preflight::offers(session, &look, &plan).await.wrong {
            let text = format!("{} ({})", wrong.message, wrong.at);
            self.checks.push(Check { name: "offers", verdict: Verdict::Wrong, text, help: wrong.help });
        }
        match self.is_wrong("permissions") {
            true => Next::Allow,
            false if self.checks.iter().any(|check| check.verdict == Verdict::Wrong) => Next::Repair,
            false if plan.is_empty() => Next::Drift,
            false => Next::Plan,
        }
    }

    fn permissions(&mut self, lacking: &Result<Option<BTreeSet<String>>>) {
        match lacking {
            Ok(None) => self.add(
                "permissions",
                Verdict::Attention,
                "IAM can't simulate the caller's permissions: the caller is the account's root user, a federated user, or a user of an AWS stand-in",
            ),
            Ok(Some(none)) if none.is_empty() => self.add(
                "permissions",
                Verdict::Good,
                "the caller's policies allow all actions of the policy that `ringfence iam-policy` prints; service control policies aren't checked",
            ),
            Ok(Some(actions)) => self.checks.push(Check {
                name: "permissions",
                verdict: Verdict::Wrong,
                text: format!("the caller lacks {}", actions.iter().cloned().collect::<Vec<_>>().join(", ")),
                help: Some("`ringfence iam-policy` prints a policy that allows these actions".to_owned()),
            }),
            Err(error) => self.checks.push(Check {
                name: "permissions",
                verdict: Verdict::Unknown,
                text: format!("IAM can't simulate the caller's permissions: {error}"),
                help: Some("allow iam:SimulatePrincipalPolicy and iam:GetRole".to_owned()),
            }),
        }
    }

    /// Compares the spec's Kubernetes versions with those that EKS offers.
    fn kubernetes(&mut self, session: &Session, offered: &[ClusterVersion]) {
        let today = Clock::today();
        let soon = today.checked_add(SOON.days()).unwrap_or(today);
        let wanted: BTreeSet<String> = session.spec.clusters().map(|c| c.kubernetes_version.to_string()).collect();
        for version in wanted {
            let Some(offer) = offered.iter().find(|offer| offer.version == version) else {
                let newest = offered.first().map_or("none", |offer| offer.version.as_str());
                let text =
                    format!("EKS doesn't offer Kubernetes {version}; the newest version that EKS offers is {newest}");
                self.add("kubernetes", Verdict::Wrong, text);
                continue;
            };
            match (offer.standard_until, offer.extended_until) {
                (_, Some(end)) if end <= soon => self.add(
                    "kubernetes",
                    Verdict::Attention,
                    format!("{version} leaves extended support on {end}: after that date EKS upgrades its clusters automatically"),
                ),
                (Some(end), _) if end <= soon => self.add(
                    "kubernetes",
                    Verdict::Attention,
                    format!("{version} leaves standard support on {end}; after that date each cluster costs more"),
                ),
                (Some(end), _) => {
                    self.add("kubernetes", Verdict::Good, format!("{version} is in standard support until {end}"));
                }
                (None, _) => {
                    self.add("kubernetes", Verdict::Unknown, format!("EKS names no end of support for {version}"));
                }
            }
        }
    }

    /// Checks service-linked roles, add-ons and images that are older than the oldest safe version, and clusters that
    /// can't be reached.
    fn estate(&mut self, look: &Look, plan: &Plan) {
        let missing: Vec<&str> = look
            .desired
            .iter()
            .filter(|r| r.kind == service_linked_role::NAME && look.observed.current(&r.address).is_none())
            .filter_map(|r| r.state["service"].as_str())
            .collect();
        match missing.as_slice() {
            [] => self.add("linked roles", Verdict::Good, "the service-linked roles exist"),
            some => self.add(
                "linked roles",
                Verdict::Attention,
                format!("apply creates the service-linked roles of {}", some.join(", ")),
            ),
        }
        let mut below = Vec::new();
        for (address, all) in &look.observed.found {
            let addon = look.observed.kinds.get(address) == Some(&eks_addon::NAME);
            for found in all.iter().filter(|_| addon) {
                let (name, version) = (found.state["name"].as_str(), found.state["version"].as_str());
                if let (Some(floor), Some(version)) = (name.and_then(version::floor), version)
                    && !version::at_least(version, floor)
                {
                    below.push(format!("{address} has version {version}, which is older than {floor}"));
                }
            }
        }
        for (address, image) in &look.facts.images {
            if !version::is_safe_release(&image.ami_type, &image.release) {
                below.push(format!(
                    "{address} runs image release {}, which is older than {}",
                    image.release,
                    version::BOTTLEROCKET_FLOOR
                ));
            }
        }
        match below.is_empty() {
            true => self.add(
                "floors",
                Verdict::Good,
                "no add-on and no node image is older than the oldest version that isolates tenants safely",
            ),
            false => self.add("floors", Verdict::Attention, format!("{}; apply updates them", below.join("; "))),
        }
        for note in stack::old_images(&look.desired, &look.facts) {
            self.add("images", Verdict::Attention, note);
        }
        for cluster in &plan.unread_hosts {
            self.checks.push(Check {
                name: "clusters",
                verdict: Verdict::Unknown,
                text: format!("the objects in cluster {} can't be read: {}", cluster.host, cluster.reason),
                help: cluster.help.clone(),
            });
        }
        if plan.unread_hosts.is_empty() {
            let text = match plan.is_empty() {
                true => "nothing differs from the spec",
                false => "this computer can reach the API server of every cluster that exists",
            };
            self.add("clusters", Verdict::Good, text);
        }
    }
}

fn side(ahead: i64) -> &'static str {
    if ahead > 0 { "behind" } else { "ahead of" }
}

/// One read of each service that planning doesn't call.
async fn services(session: &Session) -> Vec<(&'static str, Option<Error>)> {
    let (ssm, quotas) = tokio::join!(async { session.lock().list().await.err() }, async {
        quotas::quotas(&session.aws, "vpc", &BTreeSet::new()).await.err()
    });
    vec![("SSM", ssm), ("Service Quotas", quotas)]
}

/// The actions of the printed policy that IAM denies the caller, each simulated under the conditions of its
/// statement. `None` if IAM has no policies of the caller to simulate.
async fn lacking(session: &Session) -> Result<Option<BTreeSet<String>>> {
    let Some(principal) = simulate::principal(&session.aws).await? else { return Ok(None) };
    let spec = Spec { account_id: Some(session.aws.scope.account.clone()), ..session.spec.clone() };
    let desired = stack::build(&spec, &Facts::assumed(&spec), &session.templates)?;
    let policy = permissions::changes(&spec, &desired);
    let statements = policy["Statement"].as_array().cloned().unwrap_or_default();
    let asked = statements.iter().filter(|s| s["Effect"] == "Allow").map(|statement| async {
        let (actions, resources, context) = (texts(&statement["Action"]), concrete(statement), context(statement));
        simulate::refused(&session.aws, &principal, actions, &resources, &context).await
    });
    let mut lacking = BTreeSet::new();
    for refused in join_all(asked).await {
        match refused {
            Ok(refused) => lacking.extend(refused),
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(lacking))
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

/// The statement's resources, with a name in place of each `*`.
fn concrete(statement: &Value) -> Vec<String> {
    let all = texts(&statement["Resource"]);
    all.into_iter().map(|arn| if arn == "*" { arn.to_owned() } else { arn.replace('*', "1") }).collect()
}

/// Condition keys, each with a value that satisfies the statement's conditions.
fn context(statement: &Value) -> Vec<(String, String)> {
    let mut keys: BTreeMap<String, String> = BTreeMap::new();
    for (operator, wanted) in statement["Condition"].as_object().into_iter().flatten() {
        // An absent key satisfies a negative condition.
        if operator.contains("Not") || operator == "Null" {
            continue;
        }
        for (key, value) in wanted.as_object().into_iter().flatten() {
            let value = match value {
                Value::Bool(flag) => Some(flag.to_string()),
                other => texts(other).first().map(|text| text.replace('*', "1")),
            };
            keys.extend(value.map(|value| (key.clone(), value)));
        }
    }
    keys.into_iter().collect()
}
