//! The hostile objects of `tests/kubernetes/hostile`, through the gateway: it refuses them itself, before the API
//! server does. That the API server refuses them, too, is shown by `cluster::hostile`, which sends them as the gateway
//! would: as the tenant, and without examination.

use serde_json::{Value, json};

use super::fixture::Gate;
use crate::cluster::baseline::{OLDER, POOL};
use crate::cluster::hostile::{Findings, Home, OLD_RED, Place, RED, SKY, has, made_hostile, name, workload};
use crate::support::kubernetes::{Answer, collection, path};

/// The gateway of one test, whose last audit line is that of the last request.
struct Trial {
    gate: Gate,
    home: &'static Home,
    findings: Findings,
}

impl Trial {
    fn create(&self, object: &Value) -> Answer {
        self.gate.dev("POST", self.home.id, &format!("{}?dryRun=All", collection(object)), Some(object))
    }

    fn last(&self) -> Value {
        self.gate.audit().pop().unwrap_or_default()
    }

    /// The gateway refuses, and not only the API server behind it.
    fn refused(&mut self, what: &str, control: &str, answer: &Answer) {
        let last = self.last();
        let by_us = control == "server" || last["verdict"] == "denied";
        let refused = matches!(answer.status, 403 | 422) && by_us;
        self.findings.expect(refused, what, &format!("refused by the gateway ({control}): {last}"), answer);
    }
}

fn pods(gate: Gate, home: &'static Home) {
    home.prepare();
    let mut trial = Trial { gate, home, findings: Findings::default() };
    let base = home.written(&home.namespace(), home.harmless());
    let answer = trial.create(&base);
    trial.findings.admitted("harmless", &answer);
    for attack in home.read("pods.yaml") {
        for place in Place::all(&attack) {
            let pod = made_hostile(&base, &attack, *place);
            for (object, template) in [(workload("apps/v1", "Deployment", &pod), "/spec/template/spec"), (pod, "/spec")]
            {
                let answer = trial.create(&object);
                let found = answer.body.pointer(template).unwrap_or(&Value::Null);
                let found = if *place == Place::Pod { found } else { &found[place.field()][1] };
                if answer.is_ok()
                    && !attack["becomes"].is_null()
                    && (template != "/spec" || has(found, &attack["becomes"]))
                {
                    continue;
                }
                let what = format!("{} in {template} {}", name(&attack), place.field());
                trial.refused(&what, attack["control"].as_str().unwrap(), &answer);
            }
        }
    }
    trial.findings.none();
}

#[test]
fn hostile_pods_are_refused_at_the_gateway() {
    pods(Gate::before(&POOL, json!({})), &RED);
}

#[test]
fn hostile_pods_are_refused_where_the_server_fills_in_nothing() {
    pods(Gate::before(&OLDER, json!({})), &OLD_RED);
}

#[test]
fn hostile_objects_and_requests_are_refused_at_the_gateway() {
    RED.prepare();
    let mut trial = Trial { gate: Gate::before(&POOL, json!({})), home: &RED, findings: Findings::default() };
    for group in RED.read("objects.yaml").into_iter().filter(|group| group["by"] == "tenant") {
        let mut harmless = group["object"].clone();
        harmless["metadata"]["namespace"] = RED.namespace().into();
        let answer = trial.create(&harmless);
        trial.findings.admitted(&format!("{}: harmless", harmless["kind"]), &answer);
        for attack in group["changes"].as_array().unwrap() {
            let object = crate::support::kubernetes::merged(harmless.clone(), &attack["change"]);
            let answer = trial.create(&object);
            trial.refused(name(attack), attack["control"].as_str().unwrap(), &answer);
        }
    }
    for attack in RED.read("forbidden.yaml") {
        let (verb, path) = attack["call"].as_str().unwrap().split_once(' ').unwrap();
        let body = Some(&attack["body"]).filter(|body| !body.is_null());
        let answer = trial.gate.dev(verb, "red", path, body);
        let last = trial.last();
        // The answer to a list over all namespaces has the tenant's own.
        let items = answer.body["items"].as_array();
        if items.is_some_and(|items| items.iter().all(|item| item.to_string().contains("t-red"))) {
            continue;
        }
        let refused = matches!(answer.status, 400 | 403 | 404)
            && matches!(last["verdict"].as_str(), Some("forbidden" | "malformed"));
        trial.findings.expect(refused, name(&attack), &format!("refused by the gateway: {last}"), &answer);
    }
    trial.findings.none();
}

/// What EKS adds to Pods on Fargate isn't written by the gateway.
#[test]
fn pods_on_fargate_pass_without_the_fields_of_eks() {
    let gate = Gate::before(&POOL, json!({}));
    let pod = SKY.written(&SKY.namespace(), SKY.plain());
    let answer = gate.dev("POST", "sky", &format!("{}?dryRun=All", collection(&pod)), Some(&pod));
    // This API server has no webhook of EKS, so its policies miss the fields that the webhook would have added. The
    // gateway has admitted the Pod.
    assert_eq!(gate.audit().pop().unwrap()["verdict"], "allowed", "{}", answer.message());
    assert!(!answer.is_ok(), "{}", path(&pod));
}
