//! `ringfence::guard` and the API server on the same generated objects: the same verdict, the same message, the same
//! object afterwards.
//!
//! Good objects are changed field by field. Each field has values of every sort: right ones, hostile ones, empty ones,
//! values of another type, and none. (All other tests of this module compare the two, too: see `support::judge`.)

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

use ringfence::guard::User;
use serde_json::{Value, json};

use super::hostile::{GOLD, GREEN, Home, OLD_RED, RED, SKY, WORKLOADS, workload};
use crate::fuzz::Dice;
use crate::support::judge::{Judge, difference};
use crate::support::kubernetes::{Answer, yaml};

fn pick<'v, T>(dice: &mut Dice, values: &'v [T]) -> &'v T {
    &values[dice.below(values.len())]
}

/// Values of fields: a JSON pointer into an object, and the values. `null` removes the field.
pub type Fields = Vec<(String, Vec<Value>)>;

/// The tables of fields in `tests/kubernetes/generated.yaml`, with this tenant's values.
pub fn fields(home: &Home) -> BTreeMap<String, Fields> {
    let text = home.filled("generated.yaml");
    let table = yaml(&text).remove(0);
    let list = |fields: &Value| -> Fields {
        let fields = fields.as_object().unwrap().iter();
        fields.map(|(at, values)| (at.clone(), values.as_array().unwrap().clone())).collect()
    };
    table.as_object().unwrap().iter().map(|(name, table)| (name.clone(), list(table))).collect()
}

fn set(object: &mut Value, at: &str, value: &Value) {
    let (parent, name) = at.rsplit_once('/').unwrap();
    let mut inner = object;
    for part in parent.split('/').skip(1) {
        let index = part.parse::<usize>().ok();
        inner = match index {
            Some(index) if inner.is_array() => match inner.get_mut(index) {
                Some(inner) => inner,
                None => return,
            },
            _ if inner.is_object() || inner.is_null() => &mut inner[part],
            _ => return,
        };
    }
    let name = name.replace("~1", "/");
    match inner {
        Value::Null if !value.is_null() => *inner = json!({name: value}),
        Value::Object(fields) if value.is_null() => drop(fields.remove(&name)),
        Value::Object(fields) => drop(fields.insert(name, value.clone())),
        _ => {}
    }
}

/// A good object with a few changed fields. `plain`: without the fields that mutating policies fill in.
pub fn object(home: &Home, tables: &BTreeMap<String, Fields>, dice: &mut Dice, plain: bool) -> Value {
    let changes = 1 + dice.below(2);
    if dice.below(4) == 0 {
        let others: Vec<&String> = tables.keys().filter(|name| !name.starts_with(char::is_lowercase)).collect();
        let kind = *pick(dice, &others);
        let mut object = json!({"metadata": {"name": "generated", "namespace": home.twin()}});
        let fields = &tables[kind];
        for (at, values) in fields.iter().take_while(|(_, values)| values.len() == 1) {
            set(&mut object, at, &values[0]);
        }
        for _ in 0..changes {
            let (at, values) = pick(dice, fields);
            set(&mut object, at, pick(dice, values));
        }
        return object;
    }
    let spec = if plain { home.plain() } else { home.complete() };
    let mut pod = home.pod(&home.twin(), spec);
    pod["metadata"]["name"] = "generated".into();
    for _ in 0..changes {
        let (at, values) = pick(dice, &tables["pod"]);
        set(&mut pod, at, pick(dice, values));
    }
    let containers = ["/spec/containers/0", "/spec/initContainers/0", "/spec/containers/1"];
    for place in containers.iter().skip(dice.below(3)) {
        if place != &containers[0] {
            let mut more = pod["spec"]["containers"][0].clone();
            match place.split('/').nth(2) {
                Some("initContainers") => {
                    more["name"] = "first".into();
                    // Only init containers that keep running may have probes and hooks.
                    more["restartPolicy"] = "Always".into();
                    pod["spec"]["initContainers"] = json!([more]);
                }
                _ => {
                    more["name"] = "more".into();
                    pod["spec"]["containers"].as_array_mut().into_iter().for_each(|list| list.push(more.clone()));
                }
            }
        }
        for _ in 0..dice.below(3) {
            let (at, values) = pick(dice, &tables["container"]);
            set(&mut pod, &format!("{place}{at}"), pick(dice, values));
        }
    }
    match dice.below(2) {
        0 => pod,
        _ => {
            let (api, kind, _) = pick(dice, &WORKLOADS);
            let mut workload = workload(api, kind, &pod);
            workload["metadata"]["name"] = "generated".into();
            workload
        }
    }
}

/// Without what is different for every request, and with lists that have no order in one order.
fn comparable(object: &Value) -> Value {
    // The volume of a token has a name that the server makes.
    let named = regex::Regex::new("kube-api-access-[a-z0-9]{5}").unwrap();
    let text = object.to_string();
    let mut object: Value = serde_json::from_str(&named.replace_all(&text, "kube-api-access")).unwrap();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for name in ["creationTimestamp", "managedFields", "namespace", "uid", "resourceVersion"] {
            metadata.remove(name);
        }
    }
    if let Some(data) = object.pointer_mut("/spec").and_then(Value::as_object_mut) {
        // Addresses and ports that the server chooses.
        for name in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
            data.remove(name);
        }
        for port in data.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            port.as_object_mut().map(|port| port.remove("nodePort"));
        }
    }
    if object["kind"] == "Job" {
        for at in ["/spec/selector", "/spec/template/metadata/labels"] {
            set(&mut object, at, &Value::Null);
        }
        // The server adds the Job's own id to its labels.
        if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
            labels.retain(|name, _| !name.contains("controller-uid"));
        }
    }
    for at in ["/spec", "/spec/template/spec", "/spec/jobTemplate/spec/template/spec"] {
        let list = object.pointer_mut(&format!("{at}/tolerations")).and_then(Value::as_array_mut);
        list.into_iter().for_each(|list| list.sort_by_key(Value::to_string));
    }
    object
}

/// Results by what decided, and differences.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

fn decided(answer: &Answer) -> String {
    let policy = answer.message().split_once("AdmissionPolicy '").and_then(|(_, rest)| rest.split_once('\''));
    match policy {
        Some((policy, _)) => policy.to_owned(),
        None if answer.is_ok() => "admitted".to_owned(),
        None => "the server itself".to_owned(),
    }
}

/// Makes the twin, in which Pods mount no token, and a namespace in which no policy is in force: it shows what the server
/// does to a decorated object. Returns the name of the latter.
fn prepare(home: &Home) -> String {
    home.prepare();
    let admin = home.admin();
    let plain = format!("plain-{}", home.id);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": plain}});
    assert!(matches!(admin.create(&namespace).status, 201 | 409));
    for (namespace, names) in [
        (plain.clone(), vec!["default", "builder", "courier", "ghost"]),
        (home.twin(), vec!["default", "builder", "courier"]),
    ] {
        for name in names {
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": false,
                "metadata": {"name": name, "namespace": namespace, "labels": {"ringfence.dev/tenant": home.id}}});
            let at = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}");
            if admin.create(&account).status == 409 {
                let metadata = json!({"labels": {"ringfence.dev/tenant": home.id}});
                admin.patch(&at, &json!({"automountServiceAccountToken": false, "metadata": metadata})).ok();
            }
        }
    }
    plain
}

/// Compares the verdicts on `count` objects.
fn compare(home: &'static Home, count: usize, seed: u64) -> Tally {
    let plain = prepare(home);
    let tables = fields(home);
    let judge = home.judge();
    let user = User {
        username: format!("somebody@{}", home.id),
        groups: vec!["system:authenticated".to_owned(), format!("tenant:{}", home.id)],
    };
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for part in 0..4_u64 {
            let (tables, user, tally, plain, admin) = (&tables, &user, &tally, &plain, home.admin());
            let judge = &judge;
            scope.spawn(move || {
                let mut dice = Dice(seed * 4 + part);
                for _ in 0..count / 4 {
                    let object = object(home, tables, &mut dice, home.mutates && part % 2 == 0);
                    let answer = home.person().try_unjudged(&object);
                    let verdict = judge.verdict(&admin, user, &object);
                    let mut wrong = difference(&verdict, &Value::Null, &answer);
                    if let (None, true, Some(decorated)) = (&wrong, answer.is_ok(), &verdict.object) {
                        let mut decorated = decorated.clone();
                        decorated["metadata"]["namespace"] = plain.as_str().into();
                        let again = admin.try_unjudged(&decorated);
                        if comparable(&again.body) != comparable(&answer.body) {
                            let diff =
                                format!("{}\n  instead of {}", comparable(&again.body), comparable(&answer.body));
                            wrong = Some(format!("decorated, it becomes {diff}"));
                        }
                    }
                    let mut tally = tally.lock().unwrap();
                    *tally.counts.entry(decided(&answer)).or_default() += 1;
                    if let Some(wrong) = wrong {
                        let message = format!("{} {}", answer.status, answer.message());
                        tally
                            .wrong
                            .push(format!("{wrong}\n  server: {message}\n  guard: {:?}\n  {object}", verdict.refusals));
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// On a version of Kubernetes without mutating policies, the guard fills in what the API server asks for. What the guard
/// admits is then admitted by the server, and what it refuses is refused.
#[test]
fn where_the_server_fills_in_nothing_the_guard_does() {
    let home = &OLD_RED;
    prepare(home);
    let (admin, tables) = (home.admin(), fields(home));
    let judge = Judge::decorating(&admin, home.mutating_policies());
    let user = User {
        username: format!("somebody@{}", home.id),
        groups: vec!["system:authenticated".to_owned(), format!("tenant:{}", home.id)],
    };
    let mut dice = Dice(99);
    let (mut tally, mut decorated) = (Tally::default(), 0);
    for _ in 0..2000 {
        let object = object(home, &tables, &mut dice, true);
        let verdict = judge.verdict(&admin, &user, &object);
        let Some(filled) = &verdict.object else {
            let refused = home.person().try_unjudged(&object);
            tally.wrong.extend(refused.is_ok().then(|| format!("it decorates nothing: {object}")));
            continue;
        };
        let answer = home.person().try_unjudged(filled);
        decorated += usize::from(answer.is_ok() && !home.person().try_unjudged(&object).is_ok());
        *tally.counts.entry(decided(&answer)).or_default() += 1;
        if let Some(wrong) = difference(&verdict, &Value::Null, &answer) {
            let message = format!("{} {}", answer.status, answer.message());
            tally.wrong.push(format!("{wrong}\n  server: {message}\n  guard: {:?}\n  {object}", verdict.refusals));
        }
    }
    println!("{:?}, {decorated} admitted only with what the guard filled in", tally.counts);
    assert!(tally.wrong.is_empty(), "{} differences:\n{}", tally.wrong.len(), tally.wrong.join("\n"));
    assert!(decorated > 300, "{decorated}");
}

#[test]
fn generated_objects_get_the_servers_verdict() {
    let homes: [(&Home, usize); 5] = [(&RED, 4000), (&GREEN, 2000), (&SKY, 1000), (&GOLD, 1000), (&OLD_RED, 2000)];
    let mut report = String::new();
    let mut all = Tally::default();
    for (i, (home, count)) in homes.into_iter().enumerate() {
        let tally = compare(home, count, i as u64 + 1);
        writeln!(report, "{} {}: {:?}", home.id, if home.mutates { "" } else { "1.35" }, tally.counts).unwrap();
        for (what, count) in tally.counts {
            *all.counts.entry(what).or_default() += count;
        }
        all.wrong.extend(tally.wrong);
    }
    println!("{report}");
    let shown: Vec<&str> = all.wrong.iter().take(20).map(String::as_str).collect();
    assert!(all.wrong.is_empty(), "{} differences:\n{}", all.wrong.len(), shown.join("\n"));
    for policy in [
        "ringfence-pod-security",
        "ringfence-pod-volumes",
        "ringfence-pod-placement",
        "ringfence-pod-images",
        "ringfence-labels",
        "ringfence-services",
        "ringfence-ingresses",
        "ringfence-volume-claims",
        "ringfence-service-accounts",
        "ringfence-token-secrets",
        "admitted",
    ] {
        assert!(all.counts.get(policy).is_some_and(|count| *count >= 10), "{policy} decided too little: {report}");
    }
}
