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

#[test]
fn probe() {
    let img = "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/web:1";
    for words in [
        format!("create configmap a --from-literal=a=b"),
        format!("create secret generic s --from-literal=a=b"),
        format!("create deployment d --image={img}"),
        format!("create job j --image={img}"),
        format!("create cronjob cj --image={img} --schedule=*/1_*_*_*_*"),
        format!("create pdb p --selector=app=d --min-available=1"),
        format!("create quota q"),
        format!("run r --image={img}"),
        format!("expose deployment d --port=80"),
        format!("set image deployment/d *={img}2"),
        format!("set env deployment/d A=b"),
        format!("scale deployment d --replicas=2"),
        format!("autoscale deployment d --max=3"),
        format!("rollout restart deployment/d"),
        format!("rollout status deployment/d --timeout=1s"),
        format!("rollout history deployment/d"),
        format!("rollout undo deployment/d"),
        format!("label cm a x=y"),
        format!("annotate cm a x=y"),
        format!("patch cm a -p {{\"data\":{{\"z\":\"1\"}}}}"),
        format!("get all"),
        format!("describe deployment d"),
        format!("describe ns t-red"),
        format!("get events"),
        format!("api-resources"),
        format!("explain pods.spec.containers"),
        format!("auth can-i --list"),
        format!("auth can-i create pods"),
        format!("auth whoami"),
        format!("get pods -A"),
        format!("get nodes"),
        format!("get pods -n kube-system"),
        format!("get pods -n nowhere"),
        format!("version"),
        format!("cluster-info"),
        format!("diff -f /dev/null"),
        format!("delete deployment d"),
        format!("delete cm a"),
        format!("delete job j"),
        format!("delete pods --all"),
        format!("wait --for=delete cm/a --timeout=2s"),
        format!("top pods"),
    ] {
        let args: Vec<String> = words.split(' ').map(|w| w.replace('_', " ")).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = GATE.client("kubectl", "red", &args, "");
        println!("{} {words}: {} {}", out.status.code().unwrap(), String::from_utf8_lossy(&out.stdout).chars().take(200).collect::<String>().replace('\n', "|"), String::from_utf8_lossy(&out.stderr).chars().take(600).collect::<String>());
    }
    panic!();
}
