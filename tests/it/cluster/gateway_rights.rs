//! The gateway's permissions on real API servers (row API-1): it acts as the spec's tenants, and as nobody else.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::access::rules;
use super::baseline::{Baseline, OLDER, POOL, SILO};
use crate::support::kubernetes::Api;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
/// Kubernetes documentation, "User Impersonation": characters of an extra field's name that a header can't have are
/// percent-encoded.
const IDENTITY: &str = "impersonate-extra-ringfence.dev%2Fidentity";
const WHO: &str = "https://login.example.com anna";

/// The clusters, each with its tenants.
fn clusters() -> [(&'static Baseline, &'static [&'static str]); 3] {
    [(&POOL, &["red", "blue", "green", "sky"]), (&OLDER, &["red", "blue", "green", "sky"]), (&SILO, &["gold"])]
}

/// The gateway, acting as a tenant.
fn acting<'a>(baseline: &'a Baseline, id: &str) -> Api<'a> {
    let tenant = format!("tenant:{id}");
    baseline.plane.gateway().with_headers(&[(USER, &tenant), (GROUP, &tenant), (IDENTITY, WHO)])
}

/// A request that every authenticated user may make. Only impersonation can be refused.
fn whoami(api: &Api<'_>) -> (u16, Value) {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review);
    (answer.status, answer.body["status"]["userInfo"].clone())
}

#[test]
fn the_gateway_acts_as_each_tenant() {
    for (baseline, ids) in clusters() {
        for id in ids {
            let api = acting(baseline, id);
            let (status, user) = whoami(&api);
            let tenant = format!("tenant:{id}");
            assert_eq!((status, &user["username"]), (201, &json!(tenant)), "{user}");
            assert_eq!(user["groups"], json!([tenant, "system:authenticated"]));
            assert_eq!(user["extra"], json!({"ringfence.dev/identity": [WHO]}));
            assert_eq!(api.get(&format!("/api/v1/namespaces/t-{id}/pods")).status, 200);
            assert_eq!(api.get(&format!("/api/v1/namespaces/t-{id}")).status, 200, "its own Namespace");
            let watched = format!("/api/v1/watch/namespaces/t-{id}?timeoutSeconds=1");
            assert_eq!(api.get(&watched).status, 200, "its own Namespace, watched");
            for other in ids.iter().filter(|other| other != &id).copied().chain(["nobody"]) {
                assert_eq!(api.get(&format!("/api/v1/namespaces/t-{other}/pods")).status, 403, "{id} at {other}");
                assert_eq!(api.get(&format!("/api/v1/namespaces/t-{other}")).status, 403, "{id} at {other}");
            }
            assert_eq!(api.get("/api/v1/namespaces").status, 403);
        }
    }
}

/// Headers that would make the gateway somebody else than a tenant.
fn others() -> Vec<Vec<(&'static str, &'static str)>> {
    let users = [
        "system:admin",
        "admin",
        "system:anonymous",
        "system:apiserver",
        "system:kube-controller-manager",
        "system:node:ip-10-0-0-1",
        "system:serviceaccount:t-red:default",
        "system:serviceaccount:kube-system:default",
        "eks:addon-manager",
        "tenant:nobody",
        "tenant:",
        "tenant:*",
        "TENANT:red",
        "*",
        "somebody@red",
    ];
    let groups = [
        "system:masters",
        "system:nodes",
        "system:authenticated",
        "system:unauthenticated",
        "system:serviceaccounts",
        "system:monitoring",
        "ringfence:gateway",
        "tenant:nobody",
        "*",
    ];
    let mut all: Vec<Vec<_>> = users.into_iter().map(|user| vec![(USER, user)]).collect();
    let red = (USER, "tenant:red");
    for group in groups {
        all.push(vec![red, (GROUP, group)]);
        all.push(vec![red, (GROUP, "tenant:red"), (GROUP, group)]);
    }
    for extra in [
        ("impersonate-uid", "1"),
        ("impersonate-extra-scopes", "all"),
        ("impersonate-extra-ringfence.dev%2Fidentity2", "anna"),
        ("impersonate-extra-ringfence.dev", "anna"),
        ("impersonate-extra-authentication.kubernetes.io%2Fnode-name", "ip-10-0-0-1"),
        ("impersonate-extra-authentication.kubernetes.io%2Fpod-name", "x"),
    ] {
        all.push(vec![red, (GROUP, "tenant:red"), extra]);
    }
    // Without a user.
    all.push(vec![(GROUP, "tenant:red")]);
    all.push(vec![(IDENTITY, "anna")]);
    all
}

#[test]
fn the_gateway_acts_as_nobody_else() {
    for baseline in [&POOL, &OLDER] {
        let gateway = baseline.plane.gateway();
        assert_eq!(whoami(&acting(baseline, "red")).0, 201, "the other requests differ from this one in a header");
        for headers in others() {
            let (status, user) = whoami(&gateway.with_headers(&headers));
            let has_user = headers.iter().any(|(name, _)| *name == USER);
            assert!(
                if has_user { status == 403 } else { (400..600).contains(&status) },
                "{headers:?}: {status} {user}"
            );
        }
    }
}

#[test]
fn the_gateway_itself_has_the_rights_of_everybody() {
    for (baseline, ids) in clusters() {
        let gateway = baseline.plane.gateway();
        let (_, user) = whoami(&gateway);
        assert_eq!(user["groups"], json!(["ringfence:gateway", "system:authenticated"]));
        for namespace in ids.iter().map(|id| format!("t-{id}")).chain(["kube-system", "default"].map(str::to_owned)) {
            let everybody = rules(&baseline.plane.user("somebody", &[]), &namespace);
            let own: BTreeSet<String> = rules(&gateway, &namespace).difference(&everybody).cloned().collect();
            let mut expected = BTreeSet::new();
            for id in ids {
                let tenant = format!("tenant:{id}");
                for resource in ["groups", "users"] {
                    let rule = json!({"verbs": ["impersonate"], "apiGroups": [""], "resources": [resource],
                        "resourceNames": [tenant]});
                    expected.insert(rule.to_string());
                }
            }
            let extra = json!({"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"],
                "resources": ["userextras/ringfence.dev/identity"]});
            expected.insert(extra.to_string());
            assert_eq!(own, expected, "{namespace}");
            for path in ["pods", "secrets", "configmaps"] {
                let answer = gateway.get(&format!("/api/v1/namespaces/{namespace}/{path}"));
                assert_eq!(answer.status, 403, "{namespace} {path}");
            }
        }
        for path in ["/api/v1/namespaces", "/api/v1/nodes", "/apis/rbac.authorization.k8s.io/v1/clusterroles"] {
            assert_eq!(gateway.get(path).status, 403, "{path}");
        }
    }
}

/// A gateway inside of the cluster has the same permissions. Pod Security admits its Pods.
#[test]
fn the_gateway_in_the_cluster() {
    for baseline in [&POOL, &OLDER] {
        let (name, home) = ("system:serviceaccount:ringfence-gateway:gateway", "ringfence-gateway");
        let groups = ["system:serviceaccounts", "system:serviceaccounts:ringfence-gateway"];
        let account = rules(&baseline.plane.user(name, &groups), home);
        let another = rules(&baseline.plane.user("system:serviceaccount:default:another", &groups[..1]), home);
        let everybody = rules(&baseline.plane.user("somebody", &[]), home);
        let outside: BTreeSet<String> =
            rules(&baseline.plane.gateway(), home).difference(&everybody).cloned().collect();
        assert_eq!(account.difference(&another).cloned().collect::<BTreeSet<_>>(), outside);

        baseline.plane.until("the Pods of the gateway are there", |admin| {
            let pods = admin.get(&format!("/api/v1/namespaces/{home}/pods")).body;
            pods["items"].as_array().is_some_and(|pods| pods.len() == 2)
        });
        let pods = baseline.plane.admin().get(&format!("/api/v1/namespaces/{home}/pods")).ok();
        let pod = &pods["items"][0];
        assert_eq!(pod["metadata"]["labels"].get("ringfence.dev/tenant"), None, "no policy for tenants applies");
        let mounts: Vec<&str> =
            pod["spec"]["volumes"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
        assert_eq!(mounts, ["config", "certificate", "token"], "the account's token is mounted once");
    }
}

/// A person of a tenant, with credentials of an API server, which no person has.
#[test]
fn a_tenant_acts_as_nobody() {
    for baseline in [&POOL, &OLDER] {
        let person = baseline.plane.person();
        assert_eq!(whoami(&person).0, 201);
        let tenants = [
            vec![(USER, "tenant:red")],
            vec![(USER, "tenant:blue"), (GROUP, "tenant:blue")],
            vec![(USER, "somebody@red"), (GROUP, "tenant:red")],
        ];
        for headers in others().into_iter().chain(tenants) {
            let (status, user) = whoami(&person.with_headers(&headers));
            assert!((400..600).contains(&status), "{headers:?}: {status} {user}");
        }
    }
}
