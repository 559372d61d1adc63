//! Looks for problems that would make an apply fail. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use jiff::{SignedDuration, ToSpan};
use serde_json::Value;

use super::{Global, exit, host};
use crate::aws::error::is_not_found;
use crate::aws::{Access, simulate, skew};
use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};
use crate::engine::plan::{Plan, Policy};
use crate::kinds::aws::versions::{self, ClusterVersion};
use crate::kinds::aws::{eks_addon, quotas, service_linked_role};
use crate::run::{Failure, Look, Session, preflight};
use crate::spec::Spec;
use crate::stack::{self, Facts, permissions};
use crate::template::Templates;
use crate::ui::{Check, Format, Ui, Verdict};
use crate::version;

/// AWS refuses requests whose signature differs from its clock by five minutes or more.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Warn this many days before a Kubernetes version leaves support.
const SOON: i64 = 60;

pub async fn run(global: &Global, ui: &Ui) -> std::result::Result<u8, Failure> {
    if ui.format() == Format::Html {
        return Err(Error::input("`doctor` has no HTML page").help("use --format human, json or markdown").into());
    }
    let spec = host::load(global, ui)?;
    let mut found = Doctor { global, checks: Vec::new() };
    let next = found.examine(ui, &spec).await?;
    let worst = found.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Good);
    ui.doctor(&found.checks, &next)?;
    Ok(match worst {
        Verdict::Good | Verdict::Attention => exit::DONE,
        Verdict::Unknown => exit::UNKNOWN,
        Verdict::Wrong => exit::ERROR,
    })
}

struct Doctor<'a> {
    global: &'a Global,
    checks: Vec<Check>,
}

impl Doctor<'_> {
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

    /// Runs all checks. Returns the next command.
    async fn examine(&mut self, ui: &Ui, spec: &Spec) -> std::result::Result<String, Failure> {
        self.add("spec", Verdict::Good, format!("{} is valid", spec.source.display()));
        if self.global.sandbox.is_none() {
            self.clock(spec).await;
        }
        let session = match host::open_on(self.global, spec.clone()).await {
            Ok(session) => session,
            Err(error) => {
                self.fail("credentials", &error);
                return Ok("aws sts get-caller-identity; when that shows the account that you mean, ".to_owned()
                    + &self.global.command(&["doctor"]));
            }
        };
        let scope = &session.aws.scope;
        let text = format!(
            "{}, account {}, region {}, partition {}",
            session.aws.caller, scope.account, scope.region, scope.partition
        );
        self.add("credentials", Verdict::Good, text);
        session.during(async |session| Ok(self.account(ui, session).await)).await
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

    /// Checks permissions, endpoints, versions, resources, quotas and offers of the account. Returns the next
    /// command.
    async fn account(&mut self, ui: &Ui, session: &Session) -> String {
        session.reading(ui);
        let policy = Policy::default();
        let (looked, permissions, services, offered) = tokio::join!(
            session.plan(&policy, false),
            lacking(self.global, session),
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
        let command = |words: &[&str]| self.global.command(words);
        let again = format!("; then {}", command(&["doctor"]));
        let (look, plan) = match looked {
            Ok(read) => read,
            Err(error) => {
                let denied = error.class == Class::Denied;
                self.fail("reading", &error);
                let words: &[&str] = if denied { &["iam-policy", "--for", "plan"] } else { &["plan"] };
                return command(words) + &again;
            }
        };
        self.estate(&look, &plan);
        let short = preflight::account(session, ui, &look, &plan).await;
        if short.is_empty() {
            self.add("quotas", Verdict::Good, "the account's quotas are sufficient for the plan");
        }
        short.iter().for_each(|error| self.fail("quotas", error));
        for wrong in preflight::offers(session, &look, &plan).await.wrong {
            let text = format!("{} ({})", wrong.message, wrong.at);
            self.checks.push(Check { name: "offers", verdict: Verdict::Wrong, text, help: wrong.help });
        }
        if self.is_wrong("permissions") {
            return command(&["iam-policy"]) + " (give that policy to the role)" + &again;
        }
        if self.checks.iter().any(|check| check.verdict == Verdict::Wrong) {
            return format!("repair the problems above{again}");
        }
        match plan.is_empty() {
            true => command(&["drift"]),
            false => command(&["plan"]),
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
        for cluster in &plan.blocked_clusters {
            self.checks.push(Check {
                name: "clusters",
                verdict: Verdict::Unknown,
                text: format!("the objects in cluster {} can't be read: {}", cluster.cluster, cluster.reason),
                help: cluster.help.clone(),
            });
        }
        if plan.blocked_clusters.is_empty() {
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
async fn lacking(global: &Global, session: &Session) -> Result<Option<BTreeSet<String>>> {
    let Some(principal) = simulate::principal(&session.aws).await? else { return Ok(None) };
    let spec = Spec { account_id: Some(session.aws.scope.account.clone()), ..session.spec.clone() };
    let templates = Templates::load(global.templates.as_deref())?;
    let desired = stack::build(&spec, &Facts::assumed(&spec), &templates)?;
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
