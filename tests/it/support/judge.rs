//! Compares the API server's verdicts with those of `ringfence::guard`, which evaluates the same policies without a
//! server.

use std::collections::BTreeMap;
use std::sync::Mutex;

use ringfence::guard::{Guard, Operation, Refusal, Request, User, Verdict, defaults};
use serde_json::Value;

use super::kubernetes::{Answer, Api, plural};

/// The guard of a control plane's policies.
pub struct Judge {
    guard: Guard,
    namespaces: Mutex<BTreeMap<String, Value>>,
}

impl Judge {
    /// The guard of the policies that the API server has now.
    pub fn of(admin: &Api<'_>) -> Self {
        Self::with(Guard::new(&policies(admin)).unwrap())
    }

    /// A guard that also decorates, with these mutating policies, in place of an API server that doesn't.
    pub fn decorating(admin: &Api<'_>, mutating: Vec<Value>) -> Self {
        Self::with(Guard::decorating(&[policies(admin), mutating].concat()).unwrap())
    }

    fn with(guard: Guard) -> Self {
        Self { guard, namespaces: Mutex::default() }
    }

    /// The guard's verdict on the creation of an object.
    pub fn verdict(&self, admin: &Api<'_>, user: &User, object: &Value) -> Verdict {
        let mut request = creation(user, object);
        let namespace = request.namespace.as_ref().map(|name| self.namespace(admin, name));
        // A policy of the tests, for objects with this label, does what EKS does.
        if object["kind"] == "Pod"
            && object["metadata"]["labels"]["harmless"] == "fargate"
            && let (Some(pod), Some(namespace)) = (&mut request.object, &namespace)
        {
            defaults::fargate(pod, namespace);
        }
        let is_admin = user.groups.iter().any(|group| group == "system:masters");
        self.guard.review(request, namespace.as_ref(), &|_| is_admin)
    }

    fn namespace(&self, admin: &Api<'_>, name: &str) -> Value {
        let mut known = self.namespaces.lock().unwrap();
        known.entry(name.to_owned()).or_insert_with(|| admin.get(&format!("/api/v1/namespaces/{name}")).body).clone()
    }

    /// Panics if the guard's verdict on a creation isn't the API server's.
    #[track_caller]
    pub fn compare(&self, admin: &Api<'_>, user: &User, object: &Value, answer: &Answer) {
        self.compare_verdict(&self.verdict(admin, user, object), user, object, &Value::Null, answer);
    }

    /// The same for an update. `path` is the object's, or that of a subresource.
    #[track_caller]
    pub fn compare_update(&self, admin: &Api<'_>, user: &User, path: &str, [old, new]: [&Value; 2], answer: &Answer) {
        let mut request = creation(user, new);
        request.operation = Operation::Update;
        request.old_object = Some(old.clone());
        let name = old["metadata"]["name"].as_str().unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        request.subresource = path.rsplit_once(&format!("/{name}/")).map(|(_, subresource)| subresource.to_owned());
        let namespace = request.namespace.as_ref().map(|name| self.namespace(admin, name));
        let is_admin = user.groups.iter().any(|group| group == "system:masters");
        let verdict = self.guard.review(request, namespace.as_ref(), &|_| is_admin);
        self.compare_verdict(&verdict, user, new, new, answer);
    }

    #[track_caller]
    fn compare_verdict(&self, verdict: &Verdict, user: &User, object: &Value, sent: &Value, answer: &Answer) {
        if let Some(wrong) = difference(verdict, sent, answer) {
            panic!(
                "the guard differs from the API server: {wrong}\nby {}: {object}\nserver: {} {}\nguard: {:#?}",
                user.username,
                answer.status,
                answer.message(),
                verdict.refusals
            );
        }
    }
}

/// The admission policies and bindings of an API server.
fn policies(admin: &Api<'_>) -> Vec<Value> {
    let kinds = ["ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"];
    let mut policies = Vec::new();
    for kind in kinds.iter().flat_map(|kind| [(*kind).to_owned(), format!("{kind}Binding")]) {
        let answer = admin.get(&format!("/apis/admissionregistration.k8s.io/v1/{}", plural(&kind)));
        for mut object in answer.body["items"].as_array().cloned().unwrap_or_default() {
            object["apiVersion"] = "admissionregistration.k8s.io/v1".into();
            object["kind"] = kind.as_str().into();
            policies.push(object);
        }
    }
    policies
}

pub fn creation(user: &User, object: &Value) -> Request {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let api = text("/apiVersion");
    let (group, version) = api.split_once('/').unwrap_or(("", &api));
    Request {
        operation: Operation::Create,
        group: group.to_owned(),
        version: version.to_owned(),
        kind: text("/kind"),
        resource: plural(&text("/kind")),
        subresource: None,
        namespace: Some(text("/metadata/namespace")).filter(|namespace| !namespace.is_empty()),
        name: text("/metadata/name"),
        user: user.clone(),
        object: Some(object.clone()),
        old_object: None,
        dry_run: true,
    }
}

/// Refusals of the guard where the API server admits, each with the reason. There is none in the other direction.
const LISTED: &[(&str, &str)] = &[(
    "remove dataSourceRef.namespace",
    "the API server drops this field unless a feature is on (CrossNamespaceVolumeDataSource), which the guard can't know",
)];

/// What differs, if anything. Of the decorated object, parts that are as in `sent` aren't compared: in an update, the
/// server may drop fields that the new object has no use for. Other refusals of the API server, such as those of RBAC, say nothing about policies.
pub fn difference(verdict: &Verdict, sent: &Value, answer: &Answer) -> Option<String> {
    let denied =
        answer.message().split_once("AdmissionPolicy '").and_then(|(_, rest)| rest.split_once("' with binding '"));
    if let Some((policy, rest)) = denied {
        let message = rest.split_once(" denied request: ").map_or(rest, |(_, message)| message);
        return match verdict.refusals.iter().find(|refusal| refusal.policy == policy) {
            None => Some(format!("it has no refusal of {policy}")),
            Some(_) if message.contains("resulted in error") => None,
            Some(refusal) if same(&refusal.message, message) => None,
            Some(refusal) => Some(format!("it says: {}", refusal.message)),
        };
    }
    if !answer.is_ok() {
        return None;
    }
    if !verdict.admits() {
        let listed = |refusal: &Refusal| LISTED.iter().any(|(message, _)| refusal.message.contains(message));
        return (!verdict.refusals.iter().all(listed)).then(|| "it refuses".to_owned());
    }
    let decorated = verdict.object.as_ref()?;
    first_missing(decorated, sent, &answer.body, String::new()).map(|field| format!("its {field} isn't the server's"))
}

/// Whether two messages are alike, apart from the order in a list of names.
fn same(one: &str, two: &str) -> bool {
    let words = |text: &str| {
        let mut words: Vec<String> = text.split([' ', ',']).map(str::to_owned).collect();
        words.sort();
        words
    };
    one == two || words(one) == words(two)
}

/// The first field that `whole` doesn't have with the same value.
fn first_missing(part: &Value, sent: &Value, whole: &Value, at: String) -> Option<String> {
    match (part, whole) {
        _ if part == sent => None,
        (Value::Object(part), Value::Object(whole)) => part.iter().find_map(|(name, inner)| {
            match name.as_str() {
                // The server writes quantities in its own way, and a Secret's text as its data.
                "resources" | "hard" | "status" | "limits" | "stringData" => return None,
                "generation" | "managedFields" | "resourceVersion" if at == "/metadata" => return None,
                // A plugin of the server adds tolerations before the policies do.
                "tolerations" => {
                    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
                    let there = whole.get(name).map(list).unwrap_or_default();
                    return list(inner).iter().any(|one| !there.contains(one)).then_some(at.clone() + "/tolerations");
                }
                _ => {}
            }
            let at = format!("{at}/{name}");
            match whole.get(name) {
                // An empty text is the default.
                Some(other) if *inner == "" && other.is_string() => None,
                Some(other) => first_missing(inner, &sent[name.as_str()], other, at),
                None if is_empty(inner) => None,
                None => Some(at),
            }
        }),
        (Value::Array(part), Value::Array(whole)) if part.len() <= whole.len() => {
            part.iter().zip(whole).enumerate().find_map(|(i, (part, whole))| {
                first_missing(part, sent.get(i).unwrap_or(&Value::Null), whole, format!("{at}/{i}"))
            })
        }
        _ if part == whole || is_empty(part) && is_empty(whole) => None,
        _ => Some(at),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Bool(b) => !b,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::Null => true,
    }
}
