//! Plans and runs as JSON. `docs/plan-format.md` describes the format. An incompatible change needs a new version in
//! `schema`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::failure::{error_json, finding};
use super::human::complete;
use super::{Ending, Subject, why};
use crate::engine::diff;
use crate::engine::event::Event;
use crate::engine::kind::{Change, Registry};
use crate::engine::plan::{Plan, Step, UnreadHost};
use crate::engine::report::{Line, Outcome, Report};
use crate::engine::value::{has_references, resolve};

const PLAN: &str = "ringfence.dev/plan/v1";
const APPLY: &str = "ringfence.dev/apply/v1";

/// The plan as one document.
pub(super) fn plan(plan: &Plan, subject: &Subject, kinds: &Registry, calls: Option<&BTreeMap<String, u64>>) -> Value {
    let policy = &subject.policy;
    let mut document = json!({
        "schema": PLAN,
        "type": "plan",
        "tenancy": subject.tenancy,
        "account": subject.account,
        "region": subject.region,
        "spec": {"file": subject.file.display().to_string(), "hash": subject.spec_hash},
        "selection": {
            "tenants": policy.tenants,
            "with_deps": policy.with_deps,
            "destroy": policy.destroy,
            "allow_replace": policy.allow_replace,
            "allow_destroy": policy.allow_destroy,
            "delete_logs": policy.delete_logs,
            "aws_only": policy.aws_only,
        },
        "summary": plan.summary(),
        "unchanged": plan.unchanged,
        "steps": plan.steps.iter().map(|s| step(s, plan, kinds)).collect::<Vec<_>>(),
        "blocked": plan.blocked.iter().map(|b| json!({
            "address": b.address,
            "owner": b.address.owner().to_string(),
            "kind": b.kind,
            "reason": why::not(&b.why),
            "reason_code": why::code(&b.why),
            "help": why::help(&b.why),
            "pending": b.why.is_pending(),
            "cluster": b.why.unread(),
            "unmet": b.why.is_unmet(),
            "controls": b.controls,
            "changes": b.changes.iter().map(change).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "blocked_clusters": clusters(plan),
        "kept": plan.kept.iter().map(|k| json!({
            "address": k.address,
            "owner": k.address.owner().to_string(),
            "kind": k.kind,
            "id": k.id,
            "reason": why::kept(&k.why),
            "reason_code": why::code(&k.why),
        })).collect::<Vec<_>>(),
        "confirm": plan.confirm,
        "notes": why::notes(plan, subject),
        "warnings": subject.warnings.iter().map(finding).collect::<Vec<_>>(),
    });
    if let (Value::Object(fields), Some(drift)) = (&mut document, &plan.drift) {
        let missing = drift.missing.iter().map(|m| {
            json!({
                "address": m.address,
                "owner": m.address.owner().to_string(),
                "kind": m.kind,
                "summary": m.summary,
                "controls": m.controls,
                "within": m.within,
            })
        });
        let drift = json!({"missing": missing.collect::<Vec<_>>(), "absent": drift.absent, "left": drift.left});
        fields.insert("drift".to_owned(), drift);
    }
    if let (Value::Object(fields), false) = (&mut document, subject.wrong.is_empty()) {
        fields.insert("errors".to_owned(), subject.wrong.iter().map(finding).collect());
    }
    with_calls(&mut document, calls);
    document
}

fn clusters(plan: &Plan) -> Vec<Value> {
    let one = |c: &UnreadHost| json!({"cluster": c.host, "reason": c.reason, "help": c.help, "objects": c.objects});
    plan.unread_hosts.iter().map(one).collect()
}

fn with_calls(document: &mut Value, calls: Option<&BTreeMap<String, u64>>) {
    if let (Value::Object(fields), Some(calls)) = (document, calls) {
        fields.insert("calls".to_owned(), json!(calls));
    }
}

fn step(step: &Step, plan: &Plan, kinds: &Registry) -> Value {
    let rules = kinds.get(step.kind).map(|k| k.rules()).unwrap_or_default();
    let needs: Vec<Value> = step
        .needs
        .iter()
        .filter_map(|i| plan.steps.get(*i))
        .map(|s| json!({"address": s.address, "action": s.action}))
        .collect();
    json!({
        "address": step.address,
        "owner": step.address.owner().to_string(),
        "kind": step.kind,
        "action": step.action,
        "replaces": step.replaces,
        "generation": step.generation,
        "id": step.found.as_ref().map(|f| &f.id),
        "reason": step.why.as_ref().map(why::done),
        "reason_code": step.why.as_ref().map(why::code),
        "summary": step.summary,
        "controls": step.controls,
        "changes": step.changes.iter().map(change).collect::<Vec<_>>(),
        "state": step.state.as_ref().map(|s| s.read(|s| stable(&diff::masked(s, rules)))),
        "needs": needs,
    })
}

fn change(change: &Change) -> Value {
    json!({
        "path": change.path,
        "before": stable(&change.before),
        "after": stable(&change.after),
        "after_unknown": has_references(&change.after),
        "replaces": change.replaces,
        "secret": change.secret,
    })
}

/// A state with references as `${address.output}` and with sorted keys.
fn stable(value: &Value) -> Value {
    sorted(&resolve(value, &|address, output| Some(format!("${{{address}.{output}}}"))))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, Value> = fields.iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(fields.into_iter().map(|(k, v)| (k.clone(), v)).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// One event of a run.
pub(super) fn event(event: &Event) -> Value {
    match event {
        Event::Begin { steps, expected } => {
            json!({"type": "begin", "schema": APPLY, "steps": steps, "expected_seconds": seconds(expected)})
        }
        Event::Start { step, address, kind, action, expected } => json!({
            "type": "start", "step": step, "address": address, "kind": kind, "action": action,
            "expected_seconds": seconds(expected),
        }),
        Event::Progress { step, address, detail } => {
            json!({"type": "progress", "step": step, "address": address, "detail": detail})
        }
        Event::Retry { step, address, error, after } => json!({
            "type": "retry", "step": step, "address": address, "error": error_json(error),
            "after_seconds": seconds(after),
        }),
        Event::Done { step, address, action, id, took } => json!({
            "type": "done", "step": step, "address": address, "action": action, "id": id,
            "took_seconds": seconds(took),
        }),
        Event::Failed { step, address, action, error, took } => json!({
            "type": "failed", "step": step, "address": address, "action": action,
            "error": error_json(error), "took_seconds": seconds(took),
        }),
        Event::Blocked { step, address, action, error, took } => json!({
            "type": "blocked", "step": step, "address": address, "action": action,
            "error": error_json(error), "took_seconds": seconds(took),
        }),
        Event::Skipped { step, address, action, because } => {
            json!({"type": "skipped", "step": step, "address": address, "action": action, "because": because})
        }
        Event::Stopping { running } => json!({"type": "stopping", "running": running}),
        Event::End { took } => json!({"type": "end", "took_seconds": seconds(took)}),
    }
}

/// Seconds with milliseconds.
fn seconds(duration: &Duration) -> f64 {
    Duration::from_millis(duration.as_millis().try_into().unwrap_or(u64::MAX)).as_secs_f64()
}

/// The last line of a run's output.
pub(super) fn report(
    report: &Report,
    plan: &Plan,
    ending: &Ending<'_>,
    calls: Option<&BTreeMap<String, u64>>,
) -> Value {
    let mut document = json!({
        "type": "report",
        "schema": APPLY,
        "complete": complete(report, plan),
        "interrupted": report.interrupted,
        "destroy": ending.destroy,
        "summary": report.done(),
        "took_seconds": seconds(&report.took),
        "lines": report.lines.iter().map(line).collect::<Vec<_>>(),
        "blocked": plan.blocked.iter().map(|b| json!({
            "address": b.address, "kind": b.kind, "reason": why::not(&b.why), "reason_code": why::code(&b.why),
            "help": why::help(&b.why),
            "pending": b.why.is_pending(), "cluster": b.why.unread(), "unmet": b.why.is_unmet(), "controls": b.controls,
        })).collect::<Vec<_>>(),
        "blocked_clusters": clusters(plan),
        "unconfirmed": report.unconfirmed.iter().map(|one| json!({
            "addresses": one.addresses, "error": error_json(&one.error),
        })).collect::<Vec<_>>(),
        "differs": report.differs.iter().map(|(address, how)| json!({"address": address, "what": why::differs(how)})).collect::<Vec<_>>(),
    });
    with_calls(&mut document, calls);
    document
}

fn line(line: &Line) -> Value {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("address", json!(line.address));
    put("kind", json!(line.kind));
    put("action", json!(line.action));
    put("replaces", json!(line.replaces));
    put("controls", json!(line.controls));
    match &line.outcome {
        Outcome::Done => put("outcome", json!("done")),
        Outcome::Failed { error } => {
            put("outcome", json!("failed"));
            put("error", error_json(error))
        }
        Outcome::Blocked { error } => {
            put("outcome", json!("blocked"));
            put("error", error_json(error))
        }
        Outcome::Unmet { error } => {
            put("outcome", json!("unmet"));
            put("error", error_json(error))
        }
        Outcome::Skipped { because } => {
            put("outcome", json!("skipped"));
            put("because", json!(because))
        }
        Outcome::NotStarted => put("outcome", json!("not-started")),
        Outcome::Abandoned => put("outcome", json!("abandoned")),
    };
    Value::Object(fields)
}
