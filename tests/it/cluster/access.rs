//! Permissions (rows NS-1 and NET-4). The test asks the API server's
//! authorizers about every verb on every resource, and compares the answers
//! with the tables in `tests/kubernetes/access`. `RINGFENCE_UPDATE_GOLDEN=1`
//! rewrites the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::baseline::{Baseline, OLDER, POOL, SILO};
use crate::support::kubernetes::Api;

const VERBS: [&str; 17] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    // Verbs that only the API server's code knows; discovery doesn't list them.
    "approve",
    "attest",
    "bind",
    "escalate",
    "impersonate",
    "proxy",
    "sign",
    "use",
    // Only a rule with a wildcard allows this verb.
    "*",
];
/// Resources that authorizers know although discovery doesn't list them: group,
/// name, whether namespaced.
const HIDDEN: [(&str, &str, bool); 20] = [
    ("", "users", false),
    ("", "groups", false),
    ("authentication.k8s.io", "uids", false),
    ("authentication.k8s.io", "userextras", false),
    ("authentication.k8s.io", "userextras/scopes", false),
    ("authentication.k8s.io", "users", false),
    ("authentication.k8s.io", "groups", false),
    ("authentication.k8s.io", "nodes", false),
    ("authentication.k8s.io", "serviceaccounts", true),
    ("certificates.k8s.io", "signers", false),
    ("", "nodes/configz", false),
    ("", "nodes/healthz", false),
    ("", "nodes/log", false),
    ("", "nodes/metrics", false),
    ("", "nodes/pods", false),
    ("", "nodes/spec", false),
    ("", "nodes/stats", false),
    ("policy", "podsecuritypolicies", false),
    ("", "*", true),
    ("*", "*", true),
];
/// Number of threads: the API server answers many requests at once.
const WORKERS: usize = 12;

/// Subresources of Pods that a tier with sessions opens.
const SESSIONS: [&str; 3] = ["pods/exec", "pods/portforward", "pods/ephemeralcontainers"];

const OWN: &str = "own";
const FOREIGN: &str = "foreign";
const EVERYWHERE: &str = "*";

/// A user's name and groups.
type Who<'a> = (&'a str, &'a [&'a str]);

/// A resource, as authorizers name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Resource {
    group: String,
    /// The name, with the subresource.
    name: String,
    namespaced: bool,
}

impl Resource {
    /// As kubectl writes it: `deployments.apps/scale`.
    fn label(&self) -> String {
        match (self.group.as_str(), self.name.split_once('/')) {
            ("", _) => self.name.clone(),
            (group, None) => format!("{}.{group}", self.name),
            (group, Some((name, sub))) => format!("{name}.{group}/{sub}"),
        }
    }
}

/// The allowed verbs, by place and resource.
type Table = BTreeMap<(&'static str, String), BTreeSet<&'static str>>;

/// Every resource of the server, including the hidden ones.
fn resources(admin: &Api<'_>) -> BTreeSet<Resource> {
    let mut versions = vec![(String::new(), "/api/v1".to_owned())];
    for group in admin.get("/apis").ok()["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let path = format!("/apis/{}", version["groupVersion"].as_str().unwrap());
            versions.push((group["name"].as_str().unwrap().to_owned(), path));
        }
    }
    let mut all: BTreeSet<_> = HIDDEN
        .iter()
        .map(|&(group, name, namespaced)| Resource { group: group.into(), name: name.into(), namespaced })
        .collect();
    for (group, path) in versions {
        for resource in admin.get(&path).ok()["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap().to_owned();
            // A Namespace object counts as namespaced, in itself.
            let namespaced = resource["namespaced"] == true || name.split('/').next() == Some("namespaces");
            all.insert(Resource { group: group.clone(), name, namespaced });
        }
    }
    all
}

/// Paths that aren't resources.
fn paths(admin: &Api<'_>) -> Vec<String> {
    let listed = admin.get("/").ok();
    let listed = listed["paths"].as_array().unwrap().iter().map(|p| p.as_str().unwrap().to_owned());
    listed.chain(["/", "*", "/debug/pprof/heap", "/logs/", "/statusz", "/flagz"].map(str::to_owned)).collect()
}

struct Question<'a> {
    place: &'static str,
    label: String,
    verb: &'static str,
    spec: Value,
    who: Who<'a>,
}

/// All questions about `who`, whose own namespace is `own`.
fn questions<'a>(admin: &Api<'_>, who: Who<'a>, own: &str, foreign: &str) -> Vec<Question<'a>> {
    let places = [(OWN, own), (FOREIGN, foreign), ("kube-system", "kube-system"), (EVERYWHERE, "")];
    let mut all = Vec::new();
    for resource in resources(admin) {
        let (name, subresource) = resource.name.split_once('/').unwrap_or((&resource.name, ""));
        for (place, namespace) in places {
            if !resource.namespaced && place != EVERYWHERE {
                continue;
            }
            for verb in VERBS {
                let attributes = json!({
                    "group": resource.group, "resource": name, "subresource": subresource,
                    "namespace": namespace, "verb": verb,
                });
                let spec = json!({"resourceAttributes": attributes});
                all.push(Question { place, label: resource.label(), verb, spec, who });
            }
        }
    }
    for path in paths(admin) {
        for verb in ["get", "post", "put", "delete"] {
            let spec = json!({"nonResourceAttributes": {"path": path, "verb": verb}});
            // All discovery paths share one line.
            let label = if path.starts_with("/apis/") { "/apis/...".to_owned() } else { path.clone() };
            all.push(Question { place: EVERYWHERE, label, verb, spec, who });
        }
    }
    all
}

/// The questions that the server answers with "allowed".
fn allowed(admin: &Api<'_>, questions: &[Question<'_>]) -> Table {
    let ask = |question: &Question<'_>| {
        let mut spec = question.spec.clone();
        spec["user"] = json!(question.who.0);
        spec["groups"] = json!(question.who.1);
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let answer = admin.create(&review).ok();
        assert_eq!(answer["status"].get("evaluationError"), None, "{answer}");
        answer["status"]["allowed"] == true
    };
    let some = |some: &[Question<'_>]| {
        let yes = some.iter().filter(|q| ask(q));
        yes.map(|q| (q.place, q.label.clone(), q.verb)).collect::<Vec<_>>()
    };
    let mut table = Table::new();
    std::thread::scope(|scope| {
        let parts: Vec<_> =
            questions.chunks(questions.len().div_ceil(WORKERS)).map(|part| scope.spawn(move || some(part))).collect();
        for (place, label, verb) in parts.into_iter().flat_map(|part| part.join().unwrap()) {
            table.entry((place, label)).or_default().insert(verb);
        }
    });
    table
}

fn text(table: &Table) -> String {
    table.iter().fold(String::new(), |mut text, ((place, resource), verbs)| {
        let verbs: Vec<_> = verbs.iter().copied().collect();
        let _ = writeln!(text, "{place} {resource} {}", verbs.join(","));
        text
    })
}

fn tables() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/access")
}

#[track_caller]
fn compare(file: &str, now: &str) {
    let path = tables().join(file);
    if std::env::var_os("RINGFENCE_UPDATE_GOLDEN").is_some() {
        fs::write(&path, now).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let (now, written): (BTreeSet<_>, BTreeSet<_>) = (now.lines().collect(), written.lines().collect());
    let more: Vec<_> = now.difference(&written).collect();
    let less: Vec<_> = written.difference(&now).collect();
    assert!(more.is_empty() && less.is_empty(), "{file}: allowed but not written down {more:#?}, or gone {less:#?}");
}

/// The reason why no member of a tenant may ever have this permission, even if
/// the tables had it. `None`: it may.
fn never(place: &str, resource: &str, verb: &str) -> Option<&'static str> {
    let (name, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let (name, group) = name.split_once('.').unwrap_or((name, ""));
    let reads = ["get", "list", "watch"].contains(&verb);
    Some(match (group, name, sub) {
        _ if resource.starts_with('/') => return None,
        _ if verb == "*" || resource.contains('*') => "a wildcard takes in what comes later",
        _ if ["approve", "attest", "sign"].contains(&verb) => "a certificate makes it anybody",
        _ if verb == "bind" => "it could give itself any role",
        _ if verb == "escalate" => "it could write any role",
        _ if verb == "impersonate" => "it could act as somebody else",
        _ if verb == "deletecollection" => "the answer is a list of what is deleted",
        (_, _, "status") if !reads => "a forged status moves other tenants' traffic",
        ("", "nodes", "proxy") => "the kubelet's API runs commands in every Pod of the node",
        (_, _, "proxy") | (_, _, "attach" | "exec" | "portforward") => "a way into Pods past network policies",
        ("", "serviceaccounts", "token") => "it could make itself a service account's token",
        (_, _, "approval" | "binding" | "ephemeralcontainers" | "eviction" | "finalize" | "resize") => {
            "a way around the scheduler or admission"
        }
        ("", "bindings", _) => "a way around the scheduler",
        ("", "secrets", _) if ["list", "watch"].contains(&verb) => "a list of Secrets has what is in them",
        ("", "serviceaccounts", _) if !reads => "roles in AWS are bound to service accounts by name",
        ("", "endpoints", _) | ("discovery.k8s.io", _, _) if !reads => "it could send traffic to other tenants' Pods",
        ("networking.k8s.io" | "networking.k8s.aws" | "vpcresources.k8s.aws", _, _) if !reads => {
            "policies add up: one more opens the namespace"
        }
        ("", "limitranges" | "resourcequotas", _) if !reads => "its share is not its own to set",
        ("rbac.authorization.k8s.io" | "admissionregistration.k8s.io" | "apiextensions.k8s.io", _, _) => {
            "who may do what is not its own to know or set"
        }
        // Reviews that everybody may make about themselves.
        ("authorization.k8s.io", "selfsubjectaccessreviews" | "selfsubjectrulesreviews", "") if verb == "create" => {
            return None;
        }
        ("authentication.k8s.io", "selfsubjectreviews", "") if verb == "create" => return None,
        _ if place != OWN => "it isn't in its own namespace",
        _ => return None,
    })
}

/// All permissions in `table` that no tenant may have.
fn leaks(table: &Table) -> Vec<String> {
    let pairs = table.iter().flat_map(|(at, verbs)| verbs.iter().map(move |verb| (at, verb)));
    pairs
        .filter_map(|((place, resource), verb)| {
            never(place, resource, verb).map(|why| format!("{place} {resource} {verb}: {why}"))
        })
        .collect()
}

fn table(baseline: &Baseline, who: Who<'_>, own: &str) -> Table {
    let admin = baseline.plane.admin();
    allowed(&admin, &questions(&admin, who, own, "t-blue"))
}

#[track_caller]
fn of_a_tenant(baseline: &Baseline, who: Who<'_>, own: &str, file: &str) {
    let table = table(baseline, who, own);
    let leaks = leaks(&table);
    assert!(leaks.is_empty(), "{} must never: {leaks:#?}", who.0);
    compare(file, &text(&table));
}

/// A service account's name and groups.
fn service_account(namespace: &str, name: &str) -> (String, [String; 3]) {
    let groups = ["system:authenticated", "system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
    (format!("system:serviceaccount:{namespace}:{name}"), groups.map(str::to_owned))
}

const PERSON: Who<'static> = ("somebody@red", &["tenant:red", "system:authenticated"]);

#[test]
fn people_of_a_tenant() {
    of_a_tenant(&POOL, PERSON, "t-red", "tenant.txt");
}

#[test]
fn people_of_a_tenant_on_an_older_version() {
    of_a_tenant(&OLDER, PERSON, "t-red", "tenant.txt");
}

/// A tier with sessions opens them in the tenant's own namespace, and gives no other permission.
#[test]
fn people_of_a_tenant_with_sessions() {
    let who: Who<'_> = ("somebody@green", &["tenant:green", "system:authenticated"]);
    for baseline in [&POOL, &OLDER] {
        let table = table(baseline, who, "t-green");
        compare("tenant-with-sessions.txt", &text(&table));
        let sessions = [
            ("attach", "create,get"),
            ("ephemeralcontainers", "get,patch,update"),
            ("exec", "create,get"),
            ("portforward", "create,get"),
        ];
        let mut others = table;
        for (name, verbs) in sessions {
            let own = others.remove(&(OWN, format!("pods/{name}"))).unwrap_or_default();
            assert_eq!(own.into_iter().collect::<Vec<_>>().join(","), verbs, "{name}");
        }
        let without = fs::read_to_string(tables().join("tenant.txt")).unwrap();
        assert_eq!(text(&others), without);
        assert!(leaks(&others).is_empty());
    }
}

#[test]
fn service_accounts_of_tenants() {
    let (user, groups) = service_account("t-red", "default");
    let groups = groups.each_ref().map(String::as_str);
    of_a_tenant(&POOL, (&user, &groups), "t-red", "service-account.txt");
    let by_default = rules(&POOL.plane.user(&user, &groups), "t-red");
    for (namespace, name) in [("t-green", "builder"), ("t-sky", "courier")] {
        let (user, groups) = service_account(namespace, name);
        let api = POOL.plane.user(&user, &groups.each_ref().map(String::as_str));
        for namespace in [namespace, "t-red", "kube-system"] {
            assert_eq!(rules(&api, namespace), by_default, "{user} in {namespace}");
        }
    }
}

#[test]
fn nodes_and_strangers() {
    let node: Who<'_> = ("system:node:ip-10-0-0-1", &["system:nodes", "system:authenticated"]);
    compare("node.txt", &text(&table(&POOL, node, "t-red")));
    let somebody: Who<'_> = ("somebody", &["system:authenticated"]);
    compare("authenticated.txt", &text(&table(&POOL, somebody, "t-red")));
    // ringfence has its permissions from its EKS access entry, which names no
    // group. Through RBAC it only has what every user has.
    let tool: Who<'_> = ("arn:aws:sts::123456789012:assumed-role/ringfence/ci", &["system:authenticated"]);
    compare("authenticated.txt", &text(&table(&POOL, tool, "t-red")));
    // The gateway's permissions to act as tenants name the tenants.
    let gateway: Who<'_> = ("the gateway", &["ringfence:gateway", "system:authenticated"]);
    compare("authenticated.txt", &text(&table(&POOL, gateway, "t-red")));
    let anonymous: Who<'_> = ("system:anonymous", &["system:unauthenticated"]);
    compare("anonymous.txt", &text(&table(&POOL, anonymous, "t-red")));
}

/// The rules that apply to a user in a namespace, sorted.
pub(super) fn rules(api: &Api<'_>, namespace: &str) -> BTreeSet<String> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace},
    });
    let status = api.create(&review).ok()["status"].clone();
    let lists = ["resourceRules", "nonResourceRules"].map(|name| status[name].as_array().cloned().unwrap_or_default());
    lists.into_iter().flatten().map(|rule| rule.to_string()).collect()
}

#[test]
fn tenants_have_the_same_rules_and_only_at_home() {
    let ids = ["red", "blue", "green", "sky"];
    let everybody = rules(&POOL.plane.user("somebody", &[]), "default");
    let at_home = rules(&POOL.plane.tenant("red"), "t-red");
    assert!(at_home.len() > everybody.len());
    for id in ids {
        let tenant = POOL.plane.tenant(id);
        for namespace in ids.map(|id| format!("t-{id}")).iter().map(String::as_str).chain(["kube-system", "default"]) {
            let expected = if namespace == format!("t-{id}") { &at_home } else { &everybody };
            let mut found = rules(&tenant, namespace);
            // GREEN's tier opens sessions.
            if id == "green" && namespace == "t-green" {
                found.retain(|rule| !SESSIONS.iter().any(|name| rule.contains(name)));
            }
            assert_eq!(&found, expected, "{id} in {namespace}");
        }
    }
    assert_eq!(rules(&SILO.plane.tenant("gold"), "t-gold"), at_home);
}

/// Bindings for tenants or for everybody, one line each.
fn bindings(admin: &Api<'_>) -> String {
    let mut lines = BTreeSet::new();
    for kind in ["rolebindings", "clusterrolebindings"] {
        let list = admin.get(&format!("/apis/rbac.authorization.k8s.io/v1/{kind}")).ok();
        for binding in list["items"].as_array().unwrap() {
            let text = |pointer: &str| binding.pointer(pointer).and_then(Value::as_str).unwrap_or("*");
            let role = format!("{}/{}", text("/roleRef/kind"), text("/roleRef/name"));
            for subject in binding["subjects"].as_array().into_iter().flatten() {
                let name = subject["name"].as_str().unwrap();
                let home = subject["namespace"].as_str().unwrap_or_default();
                let concerns = match subject["kind"].as_str().unwrap() {
                    "ServiceAccount" => name == "default" || home == "ringfence-gateway" || home.starts_with("t-"),
                    "Group" => {
                        name.starts_with("tenant:")
                            || name.starts_with("ringfence:")
                            || name.starts_with("system:serviceaccounts")
                            || ["system:authenticated", "system:unauthenticated"].contains(&name)
                    }
                    _ => !name.starts_with("system:kube-") || name.starts_with("system:serviceaccount:t-"),
                };
                if concerns {
                    let (at, by) = (text("/metadata/namespace"), text("/metadata/name"));
                    let subject = format!("{} {name}", subject["kind"].as_str().unwrap());
                    lines.insert(format!("{at} {by} {role} {subject} {home}").trim_end().to_owned());
                }
            }
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

#[test]
fn nothing_else_is_bound_to_tenants_or_to_everybody() {
    let bound = bindings(&POOL.plane.admin());
    for line in bound.lines().filter(|line| line.contains("tenant:")) {
        let (namespace, rest) = line.split_once(' ').unwrap();
        let id = namespace.strip_prefix("t-").unwrap_or_else(|| panic!("outside of a tenant's namespace: {line}"));
        assert_eq!(rest, format!("tenant Role/tenant Group tenant:{id}"));
    }
    compare("bindings.txt", &bound);
}

/// Shows that the checks above can fail.
#[test]
fn a_role_that_gives_too_much_is_noticed() {
    let baseline = &SILO;
    let admin = baseline.plane.admin();
    let rbac = "rbac.authorization.k8s.io";
    let grants = [
        ("", "pods/status", "patch"),
        ("", "users", "impersonate"),
        (rbac, "clusterroles", "escalate"),
        (rbac, "clusterroles", "bind"),
        ("", "nodes/proxy", "get"),
        ("", "serviceaccounts/token", "create"),
        ("", "configmaps", "get"),
        ("", "*", "get"),
    ];
    let rules: Vec<_> = grants
        .iter()
        .map(|(group, resource, verb)| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]}))
        .collect();
    let api = format!("{rbac}/v1");
    let metadata = json!({"name": "planted"});
    admin.create(&json!({"apiVersion": api, "kind": "ClusterRole", "metadata": metadata, "rules": rules})).ok();
    let role = json!({"apiGroup": rbac, "kind": "ClusterRole", "name": "planted"});
    let subjects = json!([{"apiGroup": rbac, "kind": "Group", "name": "tenant:planted"}]);
    let binding = json!({
        "apiVersion": api, "kind": "ClusterRoleBinding", "metadata": metadata, "roleRef": role, "subjects": subjects,
    });
    admin.create(&binding).ok();
    assert!(bindings(&admin).contains("* planted ClusterRole/planted Group tenant:planted"));
    let who: Who<'_> = ("somebody@planted", &["tenant:planted", "system:authenticated"]);
    let label =
        |group: &str, name: &str| Resource { group: group.into(), name: name.into(), namespaced: false }.label();
    let planted: BTreeSet<_> = grants.iter().map(|(group, resource, _)| label(group, resource)).collect();
    let mut asked = questions(&admin, who, "t-gold", "default");
    asked.retain(|q| planted.contains(&q.label));
    baseline.plane.until("the binding counts", |admin| !allowed(admin, &asked).is_empty());
    let leaks = leaks(&allowed(&admin, &asked));
    for (group, resource, verb) in grants {
        let line = format!("* {} {verb}: ", label(group, resource));
        assert!(leaks.iter().any(|l| l.starts_with(&line)), "{line} {leaks:#?}");
    }
}

/// A Secret is another way to get a token, for users who may make Secrets.
#[test]
fn a_secret_that_becomes_a_token() {
    let secret = |kind: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": {
                "name": "token", "namespace": "t-red", "labels": {"ringfence.dev/tenant": "red"},
                "annotations": {"kubernetes.io/service-account.name": "default"},
            },
        })
    };
    for baseline in [&POOL, &OLDER] {
        let token = secret("kubernetes.io/service-account-token");
        baseline.plane.until("the policy is in force", |admin| !admin.try_create(&token).is_ok());
        for somebody in [baseline.plane.tenant("red"), baseline.plane.admin()] {
            let answer = somebody.try_create(&token);
            assert_eq!(answer.status, 422, "{}", answer.message());
            assert!(answer.message().contains("API-1: "), "{}", answer.message());
            somebody.try_create(&secret("Opaque")).ok();
        }
    }
}
