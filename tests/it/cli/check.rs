//! `check`: a tenant's manifests, as its cluster would judge them.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Estate, REGULATED, Run, SINGLE_SILO, THREE_TIERS, TWO_POOLS, root};

const APP: &str = r#"# Source: app/web.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/web:1"}]
---
# Source: app/agent.yaml
apiVersion: v1
kind: Pod
metadata: {name: "<agent>"}
spec:
  hostNetwork: true
  containers: [{name: agent, image: nginx, securityContext: {privileged: true}}]
---

---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {a: b}}
  - {apiVersion: v1, kind: Secret, metadata: {name: token}, type: kubernetes.io/service-account-token}
"#;

fn estate() -> Estate {
    let estate = Estate::new(&THREE_TIERS);
    fs::write(estate.path().join("app.yaml"), APP).unwrap();
    estate
}

fn check(estate: &Estate, args: &[&str]) -> Run {
    Run::of(&mut estate.bare(&[&["check"], args].concat()))
}

#[test]
fn each_refusal_names_object_line_control_and_remedy() {
    let run = check(&estate(), &["app.yaml", "--tenant", "23456"]).exits(1);
    let expected = "\
app.yaml:13: Pod <agent>: refused
  ADM-3   container \"agent\" has the image \"nginx\", which isn't from a registry that is allowed here:
          123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/23456/,
          123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/
  POD-1   container \"agent\" is privileged, which gives it root access to the node; remove securityContext.privileged
  POD-5   the Pod would be in the node's network; remove hostNetwork
  POD-1   container \"agent\" may gain privileges; set securityContext.allowPrivilegeEscalation to false
app.yaml:22: Secret token: refused
  API-1   a Secret of type kubernetes.io/service-account-token is a credential of the cluster's API that never expires;
          let Pods mount a projected token, or store other data in a Secret of type Opaque

4 objects for tenant 23456: 2 admitted, 2 refused.
";
    assert_eq!(run.out, expected);
}

#[test]
fn the_decorated_object_is_what_the_cluster_would_store() {
    let estate = estate();
    let run = check(&estate, &["app.yaml", "--tenant", "23456", "--decorated"]).exits(1);
    let objects: Vec<Value> = serde_yaml::from_multiple(&run.out).unwrap();
    let kinds: Vec<&Value> = objects.iter().map(|object| &object["kind"]).collect();
    assert_eq!(kinds, ["Deployment", "ConfigMap"], "only what is admitted");
    for object in &objects {
        assert_eq!(object["metadata"]["namespace"], "t-23456");
        assert_eq!(object["metadata"]["labels"]["ringfence.dev/tenant"], "23456");
    }
    assert_eq!(objects[0]["spec"]["template"]["spec"]["automountServiceAccountToken"], false);
    assert!(run.err.contains("4 objects for tenant 23456: 2 admitted, 2 refused."));
    // The cluster would store it like this again.
    fs::write(estate.path().join("again.yaml"), &run.out).unwrap();
    let again = check(&estate, &["again.yaml", "--tenant", "23456", "--decorated"]).exits(0);
    assert_eq!(again.out, run.out);
}

#[test]
fn programs_get_json_sarif_and_junit() {
    let estate = estate();
    let run = check(&estate, &["app.yaml", "--tenant", "23456", "--format", "json", "--decorated"]).exits(1);
    let document: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&document["schema"], &document["tenant"]), (&json!("ringfence.dev/check/v1"), &json!("23456")));
    let objects = document["objects"].as_array().unwrap();
    assert_eq!(objects.len(), 4);
    assert_eq!((&objects[0]["admitted"], &objects[0]["decorated"]["kind"]), (&json!(true), &json!("Deployment")));
    let refusal = &objects[1]["refusals"][1];
    assert_eq!((&refusal["control"], &refusal["policy"]), (&json!("POD-1"), &json!("ringfence-pod-security")));
    assert_eq!(refusal["fields"], json!(["spec.containers[].securityContext.privileged"]));
    assert!(objects[1]["decorated"].is_null());
    let refusals = objects.iter().flat_map(|object| object["refusals"].as_array().unwrap());
    assert!(refusals.clone().count() == 5 && refusals.clone().all(|one| one["fields"][0].is_string()));

    let run = check(&estate, &["app.yaml", "--tenant", "23456", "--format", "sarif"]).exits(1);
    let sarif: Value = serde_json::from_str(&run.out).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert_eq!((sarif["version"].as_str(), results.len()), (Some("2.1.0"), 5));
    let location = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(
        (&location["artifactLocation"]["uri"], &location["region"]["startLine"]),
        (&json!("app.yaml"), &json!(13))
    );
    let rules = sarif["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    assert!(results.iter().all(|result| rules.iter().any(|rule| rule["id"] == result["ruleId"])));

    let run = check(&estate, &["app.yaml", "--tenant", "23456", "--format", "junit"]).exits(1);
    let xml = roxmltree::Document::parse(&run.out).unwrap();
    let cases: Vec<_> = xml.descendants().filter(|node| node.has_tag_name("testcase")).collect();
    assert_eq!((cases.len(), cases[1].attribute("name")), (4, Some("Pod <agent>")));
    let failures = cases.iter().filter(|case| case.children().any(|child| child.has_tag_name("failure")));
    assert_eq!(failures.count(), 2);
    assert_eq!(xml.root_element().attribute("failures"), Some("2"));

    check(&estate, &["app.yaml", "--tenant", "23456", "--format", "html"]).exits(1);
    let run = Run::of(&mut estate.bare(&["validate", "--format", "sarif"])).exits(64);
    assert!(run.err.contains("only `check` has results in the formats sarif and junit"));
}

#[test]
fn the_same_object_is_judged_by_the_tenants_tier() {
    let estate = estate();
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/c}]}}";
    fs::write(estate.path().join("pod.yaml"), pod).unwrap();
    let spec = |tenant: &str| {
        let run = check(&estate, &["pod.yaml", "--tenant", tenant, "--decorated", "--format", "json"]).exits(0);
        serde_json::from_str::<Value>(&run.out).unwrap()["objects"][0]["decorated"]["spec"].take()
    };
    let (silo, pool, fargate) = (spec("12345"), spec("23456"), spec("34567"));
    assert_eq!(pool["nodeSelector"], json!({"tenantID": "23456"}));
    assert_eq!(pool["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(silo["nodeSelector"], json!({"tenantID": "12345"}));
    assert!(fargate["schedulerName"].is_null(), "EKS writes this field itself");
    assert!(fargate["nodeSelector"].is_null());
    assert_ne!(pool["securityContext"]["runAsUser"], silo["securityContext"]["runAsUser"]);
}

#[test]
fn what_tenants_may_not_create_is_refused() {
    let estate = estate();
    let objects = [
        (
            "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: x}}",
            "tenants may not create clusterroles",
        ),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: x}}", "tenants may not create namespaces"),
        (
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x}}",
            "tenants may not create networkpolicies of networking.k8s.io",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: kube-system}}",
            "the object is for the namespace kube-system, but the tenant's is t-23456",
        ),
        ("{apiVersion: v1, kind: Endpoints, metadata: {name: x}}", "tenants may not create endpoints"),
        (
            "{apiVersion: apps/v1beta1, kind: Deployment, metadata: {name: x}}",
            "use the version of apps that the policy names",
        ),
    ];
    for (object, why) in objects {
        fs::write(estate.path().join("one.yaml"), object).unwrap();
        let run = check(&estate, &["one.yaml", "--tenant", "23456", "--format", "json"]).exits(1);
        assert!(run.out.contains(why), "{object}: {}", run.out);
    }
}

#[test]
fn directories_and_the_standard_input_are_read() {
    let estate = estate();
    let dir = estate.path().join("out/deep");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("b.json"), r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}"#).unwrap();
    fs::write(dir.join("values.yaml"), "replicas: 3\n").unwrap();
    fs::write(dir.join("notes.txt"), "no YAML: [").unwrap();
    let kustomization = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";
    fs::write(estate.path().join("out/kustomization.yml"), kustomization).unwrap();
    let run = check(&estate, &["out", "--tenant", "23456", "-v"]).exits(0);
    assert!(run.out.contains("out/deep/b.json:1: ConfigMap b: admitted\n\n1 object for tenant 23456"), "{}", run.out);
    assert!(
        run.err.contains("out/deep/values.yaml:1 was left out") && run.err.contains("kustomization.yml:1 was left out")
    );

    let mut child = estate
        .bare(&["check", "-", "--tenant", "23456"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(APP.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("<stdin>:13: Pod <agent>: refused"));
}

#[test]
fn mistakes_are_errors_that_name_the_place() {
    let estate = estate();
    let broken = [
        ("a: 1\n", "one.yaml:1 is no Kubernetes object: it needs apiVersion and kind"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: {{ .Release.Name }}}\n", "one.yaml:3 is no valid YAML"),
        ("apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: Pod\nkind: Secret\n", "one.yaml:6 is no valid YAML"),
        ("# nothing\n", "there is no Kubernetes object in these files"),
    ];
    for (text, message) in broken {
        fs::write(estate.path().join("one.yaml"), text).unwrap();
        let run = check(&estate, &["one.yaml", "--tenant", "23456"]).exits(1);
        assert!(run.err.contains(message) && run.err.contains("help: "), "{}", run.err);
    }
    let run = check(&estate, &["app.yaml", "--tenant", "nobody"]).exits(1);
    assert!(run.err.contains("the spec has no tenant nobody") && run.err.contains("12345, 23456, 34567"));
    let run = check(&estate, &["missing.yaml", "--tenant", "23456"]).exits(1);
    assert!(run.err.contains("missing.yaml can't be read"));
    check(&estate, &["app.yaml"]).exits(64);

    // Without the account, the registries of the tenant aren't known.
    estate.edit("  accountId: \"123456789012\"        # optional; credentials of any other account are refused\n", "");
    let run = check(&estate, &["app.yaml", "--tenant", "23456"]).exits(1);
    assert!(run.err.contains("set spec.accountId"), "{}", run.err);
}

/// The policies of every example can be evaluated, for every tenant.
#[test]
fn every_example_has_a_guard() {
    for (example, tenant) in [(&SINGLE_SILO, "globex"), (&REGULATED, "treasury"), (&TWO_POOLS, "salt")] {
        let estate = Estate::new(example);
        let text = example.text();
        if !text.contains("accountId:") {
            estate.write(&text.replacen("\nspec:\n", &format!("\nspec:\n  accountId: \"{}\"\n", example.account), 1));
        }
        fs::write(estate.path().join("map.yaml"), "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}}").unwrap();
        let run = check(&estate, &["map.yaml", "--tenant", tenant]);
        assert!(run.out.contains("1 object for tenant"), "{}{}", run.out, run.err);
    }
}

/// The workflows in `examples/ci` call a command that exists.
#[test]
fn workflows_call_the_command_as_it_is() {
    for file in ["check.github.yaml", "check.gitlab.yaml"] {
        let text = fs::read_to_string(root().join("examples/ci").join(file)).unwrap();
        let line = text.lines().find(|line| line.contains("ringfence check ")).unwrap();
        let (_, command) = line.split_once("ringfence ").unwrap();
        let (command, _) = command.split_once(" > ").unwrap();
        let command =
            command.replace("\"$TENANT\"", "23456").replace("/platform/", "").replace("rendered.yaml", "app.yaml");
        let words: Vec<&str> = command.split(' ').collect();
        let run = Run::of(&mut estate().bare(&words)).exits(1);
        assert!(run.err.is_empty(), "{file}: {}", run.err);
    }
}
