//! kubectl and helm through the gateway.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{GATE, Gate, OLDER_GATE};
use crate::cluster::harmless::COMMON;

#[test]
fn kubectl_works_in_the_tenants_namespace() {
    let namespaces = GATE.kubectl("red", &["get", "namespaces", "-o", "name"], "");
    assert_eq!(namespaces.trim(), "namespace/t-red");
    let table = GATE.kubectl("red", &["get", "ns"], "");
    assert!(table.contains("t-red") && !table.contains("kube-system"), "{table}");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubectl"}, "data": {"a": "b"}});
    GATE.kubectl("red", &["apply", "-f", "-"], &map.to_string());
    let changed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubectl"}, "data": {"a": "c"}});
    GATE.kubectl("red", &["apply", "-f", "-"], &changed.to_string());
    let everywhere =
        GATE.kubectl("red", &["get", "configmaps", "-A", "-o", "jsonpath={.items[*].metadata.namespace}"], "");
    assert!(everywhere.split_whitespace().all(|namespace| namespace == "t-red"), "{everywhere}");
    assert_eq!(GATE.kubectl("red", &["get", "cm", "kubectl", "-o", "jsonpath={.data.a}"], ""), "c");
    let label = GATE.kubectl("red", &["get", "cm", "kubectl", "-o", "jsonpath={.metadata.labels}"], "");
    assert!(label.contains("red"), "{label}");
    assert_eq!(GATE.kubectl("red", &["auth", "can-i", "create", "pods"], "").trim(), "yes");
    let whoami = GATE.kubectl("red", &["auth", "whoami", "-o", "json"], "");
    assert!(whoami.contains("tenant:red") && whoami.contains("dev@red"), "{whoami}");
    GATE.kubectl("red", &["delete", "cm", "kubectl"], "");
}

/// Everything that a harmless manifest has, as kubectl applies it: on the client, and on the server. Where the API
/// server fills in nothing, the gateway does.
#[test]
fn manifests_are_applied_and_decorated() {
    for gate in [&*GATE, &*OLDER_GATE] {
        for (tenant, how) in [("red", vec!["apply", "-f", "-"]), ("blue", vec!["apply", "--server-side", "-f", "-"])] {
            gate.kubectl(tenant, &how, COMMON);
            let again = gate.kubectl(tenant, &how, &COMMON.replace("replicas: 2", "replicas: 3"));
            assert!(again.contains("deployment.apps/web"), "{again}");
            let live: Value =
                serde_json::from_str(&gate.kubectl(tenant, &["get", "deployment", "web", "-o", "json"], "")).unwrap();
            assert_eq!(live["spec"]["replicas"], 3, "{tenant}");
            assert_eq!(live["metadata"]["labels"]["ringfence.dev/tenant"], tenant, "{tenant}");
            let pod = &live["spec"]["template"]["spec"];
            assert_eq!(pod["automountServiceAccountToken"], false, "{tenant}: {pod}");
            // Where the API server fills in Pods, their templates may stay as they are.
            if std::ptr::eq(gate, &*OLDER_GATE) {
                assert_eq!(pod["nodeSelector"]["tenantID"], tenant, "{tenant}: {pod}");
                assert_eq!(
                    pod["containers"][1]["securityContext"]["capabilities"]["drop"][0], "ALL",
                    "{tenant}: {pod}"
                );
            }
            gate.kubectl(tenant, &["delete", "-f", "-"], COMMON);
        }
    }
}

/// Commands that write and read in other ways: typed clients, subresources, watches.
#[test]
fn other_commands_of_kubectl_work() {
    let image = "--image=123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/web:1";
    for gate in [&*GATE, &*OLDER_GATE] {
        let run = |args: &[&str]| gate.kubectl("green", args, "");
        run(&["create", "configmap", "typed", "--from-literal=a=b"]);
        run(&["create", "secret", "generic", "typed", "--from-literal=a=b"]);
        run(&["create", "deployment", "typed", image]);
        run(&["create", "cronjob", "typed", image, "--schedule=* * * * *"]);
        run(&["create", "poddisruptionbudget", "typed", "--selector=app=typed", "--min-available=1"]);
        run(&["run", "typed", image]);
        run(&["expose", "deployment", "typed", "--port=80"]);
        run(&["set", "env", "deployment/typed", "A=b"]);
        run(&["scale", "deployment", "typed", "--replicas=0"]);
        run(&["autoscale", "deployment", "typed", "--max=3"]);
        run(&["rollout", "restart", "deployment/typed"]);
        run(&["rollout", "status", "deployment/typed", "--timeout=60s"]);
        run(&["rollout", "history", "deployment/typed"]);
        run(&["rollout", "undo", "deployment/typed"]);
        run(&["label", "configmap", "typed", "x=y"]);
        run(&["annotate", "configmap", "typed", "x=y"]);
        run(&["describe", "deployment", "typed"]);
        run(&["explain", "pods.spec.containers"]);
        run(&["get", "events", "-A"]);
        assert_eq!(run(&["auth", "can-i", "create", "pods"]).trim(), "yes");
        assert!(run(&["auth", "can-i", "--list"]).contains("deployments.apps"));
        run(&["get", "namespace", "--watch", "--request-timeout=1s"]);
        run(&["get", "pods", "-A", "--watch", "--request-timeout=1s"]);
        for kind in ["deployment", "cronjob", "poddisruptionbudget", "pod", "service", "hpa", "configmap", "secret"] {
            run(&["delete", kind, "typed", "--wait=false"]);
        }
        let refused = gate.client("kubectl", "green", &["get", "nodes"], "");
        assert!(!refused.status.success());
    }
}

/// Helm keeps its releases in ConfigMaps, because a tenant can't list Secrets.
fn helm(gate: &Gate, args: &[&str]) -> String {
    let output = gate.client("helm", "red", args, "");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn helm_installs_upgrades_and_rolls_back() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n");
    write("values.yaml", "replicas: 0\n");
    write(
        "templates/shop.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: {{ .Release.Name }}}\nspec:\n  replicas: {{ .Values.replicas }}\n  \
         selector: {matchLabels: {app: shop}}\n  template:\n    metadata: {labels: {app: shop}}\n    spec:\n      containers:\n      \
         - {name: shop, image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/shop:1}\n---\napiVersion: v1\nkind: Service\n\
         metadata: {name: {{ .Release.Name }}}\nspec: {selector: {app: shop}, ports: [{port: 80}]}\n",
    );
    let chart = dir.path().display().to_string();
    for gate in [&*GATE, &*OLDER_GATE] {
        let replicas = || gate.kubectl("red", &["get", "deployment", "demo", "-o", "jsonpath={.spec.replicas}"], "");
        helm(gate, &["install", "demo", &chart]);
        helm(gate, &["upgrade", "demo", &chart, "--set", "replicas=1"]);
        assert_eq!(replicas(), "1");
        helm(gate, &["rollback", "demo", "1"]);
        assert_eq!(replicas(), "0");
        assert!(helm(gate, &["list"]).contains("demo"));
        helm(gate, &["uninstall", "demo"]);
        write("values.yaml", "replicas: 0\nevil: true\n");
    }
    let hostile = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {hostNetwork: true, containers: [{name: x, image: x}]}\n";
    write("templates/hostile.yaml", hostile);
    let refused = GATE.client("helm", "red", &["install", "hostile", &chart], "");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("denied request: ADM-3"), "{text}");
}
