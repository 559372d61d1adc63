//! kubectl and helm through the gateway.

use serde_json::json;

use super::fixture::GATE;

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
    let everywhere = GATE.kubectl("red", &["get", "configmaps", "-A", "-o", "jsonpath={.items[*].metadata.namespace}"], "");
    assert!(everywhere.split_whitespace().all(|namespace| namespace == "t-red"), "{everywhere}");
    assert_eq!(GATE.kubectl("red", &["get", "cm", "kubectl", "-o", "jsonpath={.data.a}"], ""), "c");
    let label = GATE.kubectl("red", &["get", "cm", "kubectl", "-o", "jsonpath={.metadata.labels}"], "");
    assert!(label.contains("red"), "{label}");
    assert_eq!(GATE.kubectl("red", &["auth", "can-i", "create", "pods"], "").trim(), "yes");
    let whoami = GATE.kubectl("red", &["auth", "whoami", "-o", "json"], "");
    assert!(whoami.contains("tenant:red") && whoami.contains("dev@red"), "{whoami}");
    GATE.kubectl("red", &["delete", "cm", "kubectl"], "");
}

