//! Ordinary objects, as tenants would write them. They must be admitted, and
//! their Pods must be made.

use serde_json::{Value, json};

use super::baseline::{Baseline, OLDER, POOL, SILO};
use crate::support::kubernetes::{Api, labels, path, yaml};

/// Objects that every tier allows.
pub const COMMON: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: harmless}
data: {greeting: hello}
---
apiVersion: v1
kind: Secret
metadata: {name: harmless}
stringData: {password: secret}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers:
        - name: prepare
          image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/tools:2
          command: [cp, -r, /assets, /cache]
          volumeMounts: [{name: cache, mountPath: /cache}]
      containers:
        - name: web
          image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/shop/web@sha256:0123456789012345678901234567890123456789012345678901234567890123
          ports: [{containerPort: 8080}]
          envFrom: [{configMapRef: {name: harmless}}, {secretRef: {name: harmless}}]
          readinessProbe: {httpGet: {path: /ready, port: 8080}}
          lifecycle: {preStop: {exec: {command: [sleep, "5"]}}}
          volumeMounts: [{name: cache, mountPath: /cache}, {name: settings, mountPath: /etc/shop}]
        - name: proxy
          image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/proxy:1
          securityContext: {readOnlyRootFilesystem: true}
      volumes:
        - {name: cache, emptyDir: {}}
        - name: settings
          projected:
            sources: [{configMap: {name: harmless}}, {secret: {name: harmless}}]
      topologySpreadConstraints:
        - {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - {weight: 1, podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 4
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: import}
spec:
  template:
    metadata: {labels: {app: import}}
    spec:
      restartPolicy: Never
      containers: [{name: import, image: "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/import:3"}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: report}
spec:
  schedule: "*/5 * * * *"
  jobTemplate:
    spec:
      template:
        metadata: {labels: {app: report}}
        spec:
          restartPolicy: OnFailure
          containers: [{name: report, image: "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/report:3"}]
---
apiVersion: v1
kind: Pod
metadata: {name: once, labels: {app: once}}
spec:
  restartPolicy: Never
  containers: [{name: once, image: "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/once:1"}]
"#;

/// Objects with a volume and a low port.
pub const ON_NODES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
        - name: db
          image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/db:17
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {storageClassName: gp3, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: low-port}
spec:
  selector: {matchLabels: {app: low-port}}
  template:
    metadata: {labels: {app: low-port}}
    spec:
      containers:
        - name: server
          image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/server:1
          ports: [{containerPort: 80}]
          securityContext: {capabilities: {add: [NET_BIND_SERVICE]}}
"#;

/// Objects for tiers with load balancers.
pub const EXPOSED: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 443, targetPort: 8443}]
"#;

/// A tenant, and the expectations for its Pods.
struct Home<'a> {
    baseline: &'a Baseline,
    id: &'a str,
    isolation: &'a str,
    class: &'a str,
}

const RED: (&str, &str, &str) = ("red", "pool", "ringfence-standard-10000");
const GREEN: (&str, &str, &str) = ("green", "pool", "ringfence-workshop-10000");
const SKY: (&str, &str, &str) = ("sky", "fargate", "ringfence-serverless-1000");
const GOLD: (&str, &str, &str) = ("gold", "silo", "ringfence-premium-100000");

fn home<'a>(baseline: &'a Baseline, (id, isolation, class): (&'a str, &'a str, &'a str)) -> Home<'a> {
    Home { baseline, id, isolation, class }
}

impl Home<'_> {
    fn namespace(&self) -> String {
        format!("t-{}", self.id)
    }

    fn person(&self) -> Api<'_> {
        self.baseline.plane.tenant(self.id)
    }

    fn objects(&self, text: &str) -> Vec<Value> {
        let mut objects = yaml(text);
        for object in &mut objects {
            object["metadata"]["namespace"] = self.namespace().into();
        }
        objects
    }

    fn first_uid(&self) -> u64 {
        let namespace = self.baseline.plane.admin().get(&format!("/api/v1/namespaces/{}", self.namespace())).ok();
        namespace["metadata"]["annotations"]["ringfence.dev/first-uid"].as_str().unwrap().parse().unwrap()
    }

    /// Makes the objects, waits for the Pods of `apps`, checks each of them,
    /// and deletes everything.
    fn runs(&self, objects: &[Value], apps: &[&str]) {
        let person = self.person();
        for object in objects {
            let answer = person.create(object);
            assert!(answer.is_ok(), "{}: {} {}: {}", self.id, object["kind"], path(object), answer.message());
            assert_eq!(
                labels(&answer.body).get("ringfence.dev/tenant").map(String::as_str),
                Some(self.id),
                "{}",
                path(object)
            );
        }
        for app in apps {
            self.baseline.plane.until(&format!("Pods of {app} of {}", self.id), |_| !self.pods(app).is_empty());
            self.pods(app).iter().for_each(|pod| self.looks_right(pod));
        }
        for object in objects {
            person.delete(&path(object));
        }
    }

    fn pods(&self, app: &str) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/{}/pods?labelSelector=app%3D{app}", self.namespace());
        self.person().get(&path).ok()["items"].as_array().cloned().unwrap()
    }

    #[track_caller]
    fn looks_right(&self, pod: &Value) {
        let (spec, uid) = (&pod["spec"], self.first_uid());
        assert_eq!(labels(pod).get("ringfence.dev/tenant").map(String::as_str), Some(self.id));
        let context = json!({"runAsNonRoot": true, "runAsUser": uid, "runAsGroup": uid, "fsGroup": uid, "seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(spec["securityContext"], context, "{spec:#}");
        for kind in ["containers", "initContainers"] {
            for container in spec[kind].as_array().into_iter().flatten() {
                assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false, "{container:#}");
                assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]), "{container:#}");
                let pull = if self.isolation == "silo" { "IfNotPresent" } else { "Always" };
                assert_eq!(container["imagePullPolicy"], pull, "{container:#}");
                let mounts = container["volumeMounts"].to_string();
                assert!(!mounts.contains("serviceaccount"), "no token: {mounts}");
            }
        }
        let own = json!({"key": "tenantID", "operator": "Equal", "value": self.id});
        let tolerates = spec["tolerations"].as_array().unwrap().iter().filter(|t| **t == own).count();
        let made = !pod["metadata"]["ownerReferences"].is_null();
        if self.isolation == "fargate" {
            assert_eq!((&spec["nodeSelector"], tolerates), (&Value::Null, 0));
            assert_eq!(spec["schedulerName"], "fargate-scheduler");
            assert_eq!(spec["priorityClassName"], "system-node-critical");
        } else {
            assert_eq!((&spec["nodeSelector"], tolerates), (&json!({"tenantID": self.id}), 1), "{spec:#}");
            assert_eq!(spec["priorityClassName"], if made { self.class.into() } else { Value::Null });
        }
        assert_eq!(spec["automountServiceAccountToken"], if made { false.into() } else { Value::Null });
    }
}

#[test]
fn harmless_objects_run() {
    for home in [home(&POOL, RED), home(&POOL, GREEN), home(&SILO, GOLD)] {
        home.runs(&home.objects(COMMON), &["web", "import", "once"]);
        home.runs(&home.objects(ON_NODES), &["db", "low-port"]);
    }
}

/// A Service of type LoadBalancer without annotations becomes an internal load
/// balancer without node ports.
#[test]
fn a_load_balancer_is_internal() {
    for (home, node_ports) in [(home(&SILO, GOLD), false), (home(&POOL, GREEN), true)] {
        let object = home.objects(EXPOSED).remove(0);
        let made = home.person().create(&object).ok();
        let annotations = &made["metadata"]["annotations"];
        assert_eq!(made["spec"]["loadBalancerClass"], "service.k8s.aws/nlb");
        assert_eq!(made["spec"]["allocateLoadBalancerNodePorts"], node_ports);
        assert_eq!(!made["spec"]["ports"][0]["nodePort"].is_null(), node_ports);
        assert_eq!(annotations["service.beta.kubernetes.io/aws-load-balancer-scheme"], "internal");
        let target = if node_ports { Value::Null } else { "ip".into() };
        assert_eq!(annotations["service.beta.kubernetes.io/aws-load-balancer-nlb-target-type"], target);
        // The same object is written again.
        home.person().put(&path(&object), &object).ok();
        home.person().patch(&path(&object), &json!({"spec": {"type": "ClusterIP"}})).ok();
        home.person().delete(&path(&object));
    }
}

/// EKS changes Pods that a Fargate profile matches. Here a policy of the test
/// does that.
#[test]
fn harmless_objects_run_on_fargate() {
    let sky = home(&POOL, SKY);
    let admin = POOL.plane.admin();
    for object in yaml(EKS) {
        admin.create(&object).ok();
    }
    let mut objects = sky.objects(COMMON);
    for object in &mut objects {
        for at in ["/metadata", "/spec/template/metadata", "/spec/jobTemplate/spec/template/metadata"] {
            if let Some(metadata) = object.pointer_mut(at) {
                metadata["labels"]["harmless"] = "fargate".into();
            }
        }
    }
    POOL.plane.until("EKS changes Pods", |_| {
        objects.iter().filter(|o| o["kind"] == "Pod").all(|pod| sky.person().try_unjudged(pod).is_ok())
    });
    sky.runs(&objects, &["web", "import", "once"]);
}

const EKS: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: eks-fargate}
spec:
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: t-sky}}
    objectSelector: {matchLabels: {harmless: fargate}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  mutations:
    - patchType: JSONPatch
      jsonPatch:
        expression: >-
          [JSONPatch{op: 'add', path: '/metadata/labels/eks.amazonaws.com~1fargate-profile', value: 't-sky'},
          JSONPatch{op: 'add', path: '/spec/schedulerName', value: 'fargate-scheduler'},
          JSONPatch{op: 'add', path: '/spec/priorityClassName', value: 'system-node-critical'},
          JSONPatch{op: 'add', path: '/spec/priority', value: 2000001000}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: eks-fargate}
spec: {policyName: eks-fargate}
"#;

/// A Kubernetes version without mutating policies fills in nothing. So all
/// fields must be written, and a refusal names the missing one.
#[test]
fn older_versions_ask_for_the_fields() {
    let red = home(&OLDER, RED);
    let uid = red.first_uid();
    let template = |object: &Value| match object["kind"].as_str() {
        Some("Deployment" | "StatefulSet" | "Job") => Some("/spec/template"),
        Some("CronJob") => Some("/spec/jobTemplate/spec/template"),
        Some("Pod") => Some(""),
        _ => None,
    };
    let mut objects = red.objects(&format!("{COMMON}---{ON_NODES}"));
    for object in &mut objects {
        object["metadata"]["labels"]["ringfence.dev/tenant"] = "red".into();
        let Some(template) = template(object).map(|at| object.pointer_mut(at).unwrap()) else { continue };
        template["metadata"]["labels"]["ringfence.dev/tenant"] = "red".into();
        let spec = &mut template["spec"];
        spec["securityContext"] = json!({"runAsNonRoot": true, "runAsUser": uid, "runAsGroup": uid, "fsGroup": uid,
            "seccompProfile": {"type": "RuntimeDefault"}});
        spec["nodeSelector"] = json!({"tenantID": "red"});
        spec["tolerations"] = json!([{"key": "tenantID", "operator": "Equal", "value": "red"}]);
        for kind in ["containers", "initContainers"] {
            for container in spec[kind].as_array_mut().into_iter().flatten() {
                container["imagePullPolicy"] = "Always".into();
                container["securityContext"]["allowPrivilegeEscalation"] = false.into();
                container["securityContext"]["capabilities"]["drop"] = json!(["ALL"]);
            }
        }
    }
    let person = red.person();
    for object in &objects {
        assert!(person.create(object).is_ok(), "{}: {}", path(object), person.create(object).message());
    }
    for app in ["web", "import", "once", "db", "low-port"] {
        OLDER.plane.until(&format!("Pods of {app}"), |_| !red.pods(app).is_empty());
        for pod in red.pods(app) {
            let volumes = pod["spec"]["volumes"].to_string();
            assert!(!volumes.contains("serviceAccountToken"), "no token: {volumes}");
        }
    }
    for object in &objects {
        person.delete(&path(object));
    }
    let missing = [
        ("/metadata/labels/ringfence.dev~1tenant", "NS-2: ", "set the label ringfence.dev/tenant to red"),
        ("/spec/nodeSelector", "NODE-2: ", "set tenantID in nodeSelector to red"),
        ("/spec/tolerations", "NODE-1: ", "add to tolerations {key: tenantID, operator: Equal, value: red}"),
        ("/spec/securityContext/runAsNonRoot", "POD-3: ", "set securityContext.runAsNonRoot to true"),
        ("/spec/securityContext/runAsUser", "POD-3: ", "set securityContext.runAsUser to one of"),
        ("/spec/securityContext/runAsGroup", "POD-3: ", "set its securityContext.runAsGroup"),
        ("/spec/securityContext/fsGroup", "POD-3: ", "set its securityContext.fsGroup to"),
        ("/spec/securityContext/seccompProfile", "POD-6: ", "seccompProfile to {type: RuntimeDefault}"),
        ("/spec/containers/0/securityContext/allowPrivilegeEscalation", "POD-1: ", "allowPrivilegeEscalation to false"),
        ("/spec/containers/0/securityContext/capabilities", "POD-2: ", "capabilities.drop to [ALL]"),
        ("/spec/containers/0/imagePullPolicy", "ADM-3: ", "set imagePullPolicy"),
    ];
    for object in objects.iter().filter(|o| template(o).is_some()) {
        for (field, control, help) in missing {
            let mut without = object.clone();
            without["metadata"]["name"] = "without".into();
            let at = format!("{}{field}", template(object).unwrap());
            let (parent, name) = at.rsplit_once('/').unwrap();
            let name = name.replace("~1", "/");
            without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(&name).unwrap();
            let answer = person.try_create(&without);
            // For Pods themselves, Pod Security refuses first.
            let beside = object["kind"] == "Pod" && answer.message().contains("violates PodSecurity");
            let asked = answer.message().contains(control) && answer.message().contains(help);
            assert!(!answer.is_ok() && (beside || asked), "{} without {field}: {}", object["kind"], answer.message());
        }
    }
}

/// Tolerations that Kubernetes itself writes, for DaemonSets and for devices.
#[test]
fn what_kubernetes_adds_is_admitted() {
    let pod = |tolerations: Value, requests: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "added", "namespace": "t-red"},
            "spec": {"tolerations": tolerations, "containers": [{"name": "c",
                "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/c", "resources": {"limits": requests}}]}})
    };
    let condition = |name: &str, effect: &str| json!({"key": format!("node.kubernetes.io/{name}"), "operator": "Exists", "effect": effect});
    let agent = pod(
        json!([
            condition("not-ready", "NoExecute"),
            condition("unreachable", "NoExecute"),
            condition("disk-pressure", "NoSchedule"),
            condition("memory-pressure", "NoSchedule"),
            condition("pid-pressure", "NoSchedule"),
            condition("unschedulable", "NoSchedule"),
        ]),
        json!({}),
    );
    let plane = &POOL.plane;
    let controller = "system:serviceaccount:kube-system:daemon-set-controller";
    plane.user(controller, &["system:serviceaccounts", "system:serviceaccounts:kube-system"]).try_create(&agent).ok();
    let refused = plane.tenant("red").try_create(&agent);
    assert!(refused.message().contains("NODE-1: "), "{}", refused.message());

    let device = json!([{"key": "nvidia.com/gpu", "operator": "Exists"}]);
    plane.tenant("red").try_create(&pod(device.clone(), json!({"nvidia.com/gpu": "1"}))).ok();
    let refused = plane.tenant("red").try_create(&pod(device, json!({})));
    assert!(refused.message().contains("NODE-1: "), "{}", refused.message());
}

/// A Deployment finds its ReplicaSet by comparing templates. If a policy
/// changed only one of the two, the Deployment would make new ReplicaSets
/// without end.
#[test]
fn existing_workloads_are_scaled_without_a_rollout() {
    let admin = POOL.plane.admin();
    let mut namespace = admin.get("/api/v1/namespaces/t-red").ok();
    let (labels, annotations) = (namespace["metadata"]["labels"].take(), namespace["metadata"]["annotations"].take());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "before"}});
    admin.create(&namespace).ok();
    let mut web = yaml(ON_NODES).into_iter().find(|o| o["kind"] == "Deployment").unwrap();
    web["metadata"]["namespace"] = "before".into();
    admin.create(&web).ok();
    let sets = || {
        let list = admin.get("/apis/apps/v1/namespaces/before/replicasets").ok();
        list["items"].as_array().cloned().unwrap()
    };
    POOL.plane.until("a ReplicaSet", |_| sets().len() == 1);
    let marks = |map: &Value, also: &str| -> Value {
        let map = map.as_object().unwrap().iter();
        map.filter(|(k, _)| k.starts_with("ringfence.dev/") && *k != also)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    let metadata = json!({"labels": marks(&labels, "ringfence.dev/tenancy"), "annotations": marks(&annotations, "ringfence.dev/address")});
    admin.patch("/api/v1/namespaces/before", &json!({"metadata": metadata})).ok();
    let account = "/api/v1/namespaces/before/serviceaccounts/default";
    // A controller makes the ReplicaSet.
    let patch = json!({"automountServiceAccountToken": false});
    POOL.plane.until("the default ServiceAccount", |admin| admin.patch(account, &patch).is_ok());
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "before"}});
    POOL.plane.until("the namespace is the tenant's", |admin| {
        crate::support::kubernetes::labels(&admin.try_create(&map).body).contains_key("ringfence.dev/tenant")
    });
    // An autoscaler writes the scale subresource, and not the Deployment
    // itself.
    admin.patch(&format!("{}/scale", path(&web)), &json!({"spec": {"replicas": 3}})).ok();
    POOL.plane.until("three Pods", |admin| {
        let pods = admin.get("/api/v1/namespaces/before/pods").ok();
        pods["items"].as_array().is_some_and(|p| p.len() == 3)
    });
    // A person writes the Deployment.
    admin.patch(&path(&web), &json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 2}})).ok();
    POOL.plane.until("the Deployment is seen", |admin| {
        let web = admin.get(&path(&web)).body;
        web["status"]["observedGeneration"] == web["metadata"]["generation"] && web["status"]["replicas"] == 2
    });
    let made = sets();
    assert_eq!(made.len(), 1, "{made:#?}");
    admin.delete("/api/v1/namespaces/before");
}

/// Kubernetes limits the cost of a policy's expressions. Many containers must
/// stay below the limit.
#[test]
fn many_containers_are_within_the_policies_budget() {
    let red = home(&POOL, RED);
    let container = |n: usize| {
        let mounts: Vec<_> = (0..20).map(|v| json!({"name": format!("v{v}"), "mountPath": format!("/v{v}")})).collect();
        json!({"name": format!("c{n}"), "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/web:1", "volumeMounts": mounts,
            "ports": [{"containerPort": 8000 + n}], "livenessProbe": {"httpGet": {"path": "/", "port": 8000 + n}}})
    };
    let containers: Vec<_> = (0..20).map(container).collect();
    let volumes: Vec<_> = (0..20).map(|v| json!({"name": format!("v{v}"), "emptyDir": {}})).collect();
    let tolerations: Vec<_> = (0..20)
        .map(|n| {
            json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists",
        "effect": "NoExecute", "tolerationSeconds": n})
        })
        .collect();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "large", "namespace": "t-red"},
        "spec": {"containers": containers, "volumes": volumes, "tolerations": tolerations}});
    let mut answer = red.person().try_create(&pod);
    // So many containers exceed the quota. That is no failure here, because the
    // quota is checked after all policies.
    if answer.message().contains("exceeded quota") {
        answer.status = 200;
    }
    assert!(answer.is_ok(), "{}", answer.message());
}
