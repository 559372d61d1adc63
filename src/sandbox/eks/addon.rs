//! Add-ons: the catalogue with its versions and configuration schemas, and the add-ons of a cluster.

use super::super::wire::{Fault, Reply, Request, items, texts};
use super::versions::{self, VERSIONS};
use super::{
    Change, Cluster, During, Item, Step, Target, World, fault, identity, invalid, list, new_tags, paged, partition,
    required,
};
use serde_json::{Map, Value, json};

const CHANGE: f64 = 40.0;

/// An add-on with this key in its configuration ends DEGRADED.
const DEGRADED: &str = "ringfence-sandbox-degraded";

struct Addon {
    name: &'static str,
    kind: &'static str,
    namespace: &'static str,
    /// True for a Deployment, which needs an untainted node. False for a DaemonSet.
    deployment: bool,
    /// The service account that needs AWS permissions, and AWS's managed policy for it.
    identity: Option<(&'static str, &'static str)>,
    /// Versions, newest first: version, lowest and highest Kubernetes minor version, and whether it is the default.
    versions: &'static [(&'static str, u32, u32, bool)],
    /// The JSON schema of its configuration, without the members that all add-ons of the same sort have.
    schema: &'static str,
}

const ANY: &str = r#"{"type":"object","additionalProperties":true}"#;

const ADDONS: &[Addon] = &[
    Addon {
        name: "amazon-cloudwatch-observability",
        kind: "observability",
        namespace: "amazon-cloudwatch",
        deployment: true,
        identity: Some(("cloudwatch-agent", "CloudWatchAgentServerPolicy")),
        versions: &[("v4.10.2-eksbuild.1", 32, 37, true), ("v4.6.0-eksbuild.1", 32, 36, false)],
        schema: ANY,
    },
    Addon {
        name: "aws-ebs-csi-driver",
        kind: "storage",
        namespace: "kube-system",
        deployment: true,
        identity: Some(("ebs-csi-controller-sa", "service-role/AmazonEBSCSIDriverPolicy")),
        versions: &[("v1.60.0-eksbuild.1", 32, 37, true), ("v1.56.0-eksbuild.1", 32, 36, false)],
        schema: ANY,
    },
    Addon {
        name: "aws-efs-csi-driver",
        kind: "storage",
        namespace: "kube-system",
        deployment: true,
        identity: Some(("efs-csi-controller-sa", "service-role/AmazonEFSCSIDriverPolicy")),
        versions: &[("v3.2.0-eksbuild.1", 32, 37, true)],
        schema: ANY,
    },
    Addon {
        name: "coredns",
        kind: "networking",
        namespace: "kube-system",
        deployment: true,
        identity: None,
        versions: &[
            ("v1.14.2-eksbuild.3", 36, 37, false),
            ("v1.13.2-eksbuild.4", 34, 37, true),
            ("v1.12.4-eksbuild.6", 32, 36, false),
            ("v1.11.4-eksbuild.28", 32, 33, true),
        ],
        schema: r#"{"type":"object","additionalProperties":false,"properties":{"affinity":{"type":["object","null"]},"autoScaling":{"type":"object","additionalProperties":false,"properties":{"enabled":{"type":"boolean"},"minReplicas":{"type":"integer"},"maxReplicas":{"type":"integer"}}},"computeType":{"type":"string","enum":["ec2","fargate","Fargate"]},"corefile":{"type":"string"},"nodeSelector":{"type":"object"},"podAnnotations":{"type":"object"},"podDisruptionBudget":{"type":"object"},"podLabels":{"type":"object"},"replicaCount":{"type":"integer"},"resources":{"type":"object"},"tolerations":{"type":"array"},"topologySpreadConstraints":{"type":"array"}}}"#,
    },
    Addon {
        name: "eks-node-monitoring-agent",
        kind: "observability",
        namespace: "kube-system",
        deployment: false,
        identity: None,
        versions: &[("v1.6.0-eksbuild.1", 32, 37, true)],
        schema: ANY,
    },
    Addon {
        name: "eks-pod-identity-agent",
        kind: "security",
        namespace: "kube-system",
        deployment: false,
        identity: None,
        versions: &[
            ("v1.3.10-eksbuild.2", 32, 37, true),
            ("v1.3.10-eksbuild.1", 32, 37, false),
            ("v1.3.8-eksbuild.2", 32, 35, false),
        ],
        schema: r#"{"type":"object","additionalProperties":false,"properties":{"affinity":{"type":["object","null"]},"agent":{"type":"object"},"daemonsets":{"type":"object"},"podAnnotations":{"type":"object"},"podLabels":{"type":"object"},"priorityClassName":{"type":"string"},"resources":{"type":"object"},"tolerations":{"type":"array"},"updateStrategy":{"type":"object"}}}"#,
    },
    Addon {
        name: "kube-proxy",
        kind: "networking",
        namespace: "kube-system",
        deployment: false,
        identity: None,
        versions: &[
            ("v1.37.1-eksbuild.2", 37, 37, true),
            ("v1.36.3-eksbuild.2", 36, 36, true),
            ("v1.36.0-eksbuild.7", 36, 36, false),
            ("v1.35.6-eksbuild.2", 35, 35, true),
            ("v1.35.0-eksbuild.2", 35, 35, false),
            ("v1.34.9-eksbuild.2", 34, 34, true),
            ("v1.34.1-eksbuild.2", 34, 34, false),
            ("v1.33.12-eksbuild.2", 33, 33, true),
            ("v1.32.13-eksbuild.2", 32, 32, true),
        ],
        schema: r#"{"type":"object","additionalProperties":false,"properties":{"ipvs":{"type":"object"},"mode":{"type":"string","enum":["iptables","ipvs","nftables"]},"podAnnotations":{"type":"object"},"podLabels":{"type":"object"},"resources":{"type":"object"}}}"#,
    },
    Addon {
        name: "metrics-server",
        kind: "observability",
        namespace: "kube-system",
        deployment: true,
        identity: None,
        versions: &[("v0.8.1-eksbuild.6", 32, 37, true), ("v0.8.0-eksbuild.5", 32, 36, false)],
        schema: r#"{"type":"object","additionalProperties":false,"properties":{"addonResizer":{"type":"object"},"affinity":{"type":["object","null"]},"containerSecurityContext":{"type":"object"},"nodeSelector":{"type":"object"},"podAnnotations":{"type":"object"},"podDisruptionBudget":{"type":"object"},"podLabels":{"type":"object"},"replicas":{"type":"integer"},"resources":{"type":"object"},"tolerations":{"type":"array"},"topologySpreadConstraints":{"type":"array"},"updateStrategy":{"type":"object"}}}"#,
    },
    Addon {
        name: "snapshot-controller",
        kind: "storage",
        namespace: "kube-system",
        deployment: true,
        identity: None,
        versions: &[("v8.5.0-eksbuild.1", 32, 37, true)],
        schema: ANY,
    },
    Addon {
        name: "vpc-cni",
        kind: "networking",
        namespace: "kube-system",
        deployment: false,
        identity: Some(("aws-node", "AmazonEKS_CNI_Policy")),
        versions: &[
            ("v1.23.1-eksbuild.1", 32, 37, false),
            ("v1.23.0-eksbuild.1", 32, 37, false),
            ("v1.22.4-eksbuild.1", 32, 37, true),
            ("v1.21.1-eksbuild.7", 32, 36, false),
            ("v1.20.4-eksbuild.2", 32, 35, false),
            ("v1.19.0-eksbuild.1", 32, 35, false),
        ],
        schema: r#"{"type":"object","additionalProperties":false,"properties":{"affinity":{"type":["object","null"]},"enableNetworkPolicy":{"type":"string","enum":["true","false"]},"enableWindowsIpam":{"type":"string","enum":["true","false"]},"enableWindowsPrefixDelegation":{"type":"string","enum":["true","false"]},"eniConfig":{"type":"object"},"env":{"type":"object","additionalProperties":{"type":"string"}},"init":{"type":"object","additionalProperties":false,"properties":{"env":{"type":"object","additionalProperties":{"type":"string"}},"resources":{"type":"object"}}},"livenessProbeTimeoutSeconds":{"type":"integer"},"nodeAgent":{"type":"object","additionalProperties":false,"properties":{"conntrackCacheCleanupPeriod":{"type":"string"},"enableCloudWatchLogs":{"type":"string","enum":["true","false"]},"enablePolicyEventLogs":{"type":"string","enum":["true","false"]},"healthProbeBindAddr":{"type":"string"},"metricsBindAddr":{"type":"string"},"networkPolicyAgentLogLevel":{"type":"string"},"resources":{"type":"object"}}},"nodeSelector":{"type":"object"},"podAnnotations":{"type":"object"},"podLabels":{"type":"object"},"readinessProbeTimeoutSeconds":{"type":"integer"},"resources":{"type":"object"},"tolerations":{"type":"array"},"updateStrategy":{"type":"object"}}}"#,
    },
];

impl Addon {
    fn find(name: &str) -> Option<&'static Self> {
        ADDONS.iter().find(|addon| addon.name == name)
    }

    fn supports(&self, version: &str, minor: u32) -> bool {
        self.versions.iter().any(|(one, from, to, _)| *one == version && (*from..=*to).contains(&minor))
    }

    /// The default version for a Kubernetes minor version.
    fn default(&self, minor: u32) -> Option<&'static str> {
        let fits = |(_, from, to, _): &&(&str, u32, u32, bool)| (*from..=*to).contains(&minor);
        let mut fitting = self.versions.iter().filter(fits);
        let marked = fitting.clone().find(|(.., default)| *default);
        marked.or_else(|| fitting.next()).map(|(version, ..)| *version)
    }
}

pub(super) fn versions(req: &Request) -> Reply {
    let (kubernetes, name) = (req.text("kubernetesVersion"), req.text("addonName"));
    let (types, owners, publishers) = (req.texts("types"), req.texts("owners"), req.texts("publishers"));
    let kubernetes = match &kubernetes {
        Some(name) => {
            Some(versions::find(name).ok_or_else(|| invalid(format!("unsupported Kubernetes version {name}")))?)
        }
        None => None,
    };
    let wanted = ADDONS.iter().filter(|addon| {
        name.as_ref().is_none_or(|name| addon.name == name)
            && (types.is_empty() || types.iter().any(|kind| kind == addon.kind))
            && (owners.is_empty() || owners.iter().any(|owner| owner == "aws"))
            && (publishers.is_empty() || publishers.iter().any(|publisher| publisher == "eks"))
    });
    let infos = wanted.map(|addon| {
        let infos = addon.versions.iter().filter_map(|(version, from, to, _)| {
            let clusters = VERSIONS.iter().filter(|one| (*from..=*to).contains(&one.minor));
            let clusters: Vec<_> =
                clusters.filter(|one| kubernetes.is_none_or(|only| only.minor == one.minor)).collect();
            let compatible = |one: &&versions::Version| {
                let default = addon.default(one.minor) == Some(*version);
                json!({"clusterVersion": one.name, "platformVersions": ["*"], "defaultVersion": default})
            };
            (!clusters.is_empty()).then(|| {
                json!({
                    "addonVersion": version, "architecture": ["amd64", "arm64"],
                    "computeTypes": if addon.deployment { json!(["ec2", "fargate"]) } else { json!(["ec2"]) },
                    "compatibilities": clusters.iter().rev().map(compatible).collect::<Value>(),
                    "requiresConfiguration": false, "requiresIamPermissions": addon.identity.is_some(),
                })
            })
        });
        let infos: Value = infos.collect();
        let wire = json!({
            "addonName": addon.name, "type": addon.kind, "addonVersions": infos, "publisher": "eks", "owner": "aws",
            "defaultNamespace": addon.namespace,
        });
        (addon.name.to_owned(), wire)
    });
    paged(req, "addons", infos.filter(|(_, addon)| !items(addon, "addonVersions").is_empty()).collect())
}

pub(super) fn configuration(req: &Request) -> Reply {
    let (name, version) = (required(req, "addonName")?, required(req, "addonVersion")?);
    let addon = Addon::find(&name).ok_or_else(|| missing_addon(&name))?;
    if !addon.versions.iter().any(|(one, ..)| *one == version) {
        return Err(invalid("Addon version specified is not supported"));
    }
    let partition = partition(&req.region);
    let identity = addon.identity.map(|(account, policy)| {
        json!({"serviceAccount": account, "recommendedManagedPolicies": [format!("arn:{partition}:iam::aws:policy/{policy}")]})
    });
    Ok(json!({
        "addonName": name, "addonVersion": version, "configurationSchema": addon.schema,
        "podIdentityConfiguration": identity.into_iter().collect::<Value>(),
    }))
}

pub(super) fn call(w: &mut World<'_>, req: &Request) -> Reply {
    let cluster = required(req, "clusterName")?;
    match req.operation.as_str() {
        "CreateAddon" => create(w, req, &cluster),
        "ListAddons" => list(req, "addons", w.cluster(&cluster)?.addons.keys()),
        "DescribeAddon" => Ok(json!({"addon": find(w.cluster(&cluster)?, req)?.body})),
        "UpdateAddon" => update(w, req, &cluster),
        "DeleteAddon" => {
            let (now, name) = (w.now, required(req, "addonName")?);
            let of = w.cluster(&cluster)?;
            if find(of, req)?.status() != "DELETING" {
                idle(of, &name)?;
                let fate = w.fates.of("eks:addon", &name, During::Delete);
                find(w.cluster(&cluster)?, req)?.leave(Change::after(CHANGE, now, None, &fate));
            }
            Ok(json!({"addon": find(w.cluster(&cluster)?, req)?.body}))
        }
        _ => Err(req.unknown_operation()),
    }
}

pub(super) fn settle(w: &World<'_>, cluster: &mut Cluster) {
    let names: Vec<String> = cluster.addons.keys().cloned().collect();
    for name in names {
        let Some(addon) = cluster.addons.get_mut(&name) else { continue };
        match addon.due(w.now) {
            Some(false) => {
                let arn = identity(&addon.body).to_owned();
                cluster.addons.remove(&name);
                cluster.associations.retain(|_, item| item.body["ownerArn"] != arn.as_str());
                continue;
            }
            Some(true) if addon.status().ends_with("FAILED") => continue,
            Some(true) => {}
            None if ["ACTIVE", "DEGRADED"].contains(&addon.status()) => {}
            None => continue,
        }
        let room = Addon::find(&name).is_none_or(|known| !known.deployment || has_room(cluster, known.namespace));
        let Some(addon) = cluster.addons.get_mut(&name) else { continue };
        let broken = addon.body["configurationValues"].as_str().is_some_and(|values| values.contains(DEGRADED));
        let issue = if let Some(issues) = &addon.issues {
            issues.clone()
        } else if broken {
            json!([{"code": "ConfigurationConflict", "message": "Conflicts found when trying to apply", "resourceIds": []}])
        } else if !room {
            let message = "The add-on is unhealthy because it doesn't have the desired number of replicas.";
            json!([{"code": "InsufficientNumberOfReplicas", "message": message, "resourceIds": []}])
        } else {
            json!([])
        };
        addon.body["status"] = if issue == json!([]) { "ACTIVE" } else { "DEGRADED" }.into();
        addon.body["health"] = json!({"issues": issue});
    }
}

/// Whether pods without tolerations can run in this namespace: on an untainted node or on Fargate.
fn has_room(cluster: &Cluster, namespace: &str) -> bool {
    let works = |item: &&Item| ["ACTIVE", "UPDATING", "DEGRADED"].contains(&item.status());
    let open = |item: &Item| {
        item.body["scalingConfig"]["desiredSize"] != 0
            && items(&item.body, "taints").iter().all(|taint| taint["effect"] == "PREFER_NO_SCHEDULE")
    };
    let takes = |item: &Item| items(&item.body, "selectors").iter().any(|selector| selector["namespace"] == namespace);
    cluster.nodegroups.values().filter(works).any(open) || cluster.profiles.values().filter(works).any(takes)
}

fn create(w: &mut World<'_>, req: &Request, cluster_name: &str) -> Reply {
    let name = required(req, "addonName")?;
    let cluster = w.cluster(cluster_name)?;
    cluster.running()?;
    let kubernetes = cluster.body["version"].as_str().and_then(versions::find);
    let minor = kubernetes.map_or(0, |version| version.minor);
    let addon = Addon::find(&name).filter(|addon| addon.default(minor).is_some());
    let addon = addon.ok_or_else(|| {
        let version = kubernetes.map_or("", |version| version.name);
        invalid(format!("Addon {name} specified is not supported in {version} kubernetes version"))
            .with("clusterName", cluster_name)
            .with("addonName", name.as_str())
    })?;
    if cluster.addons.contains_key(&name) {
        let fault = fault("ResourceInUseException", "Addon already exists.");
        return Err(fault.with("clusterName", cluster_name).with("addonName", name));
    }
    let version = req.text("addonVersion").or(addon.default(minor).map(str::to_owned)).unwrap_or_default();
    if !addon.supports(&version, minor) {
        return Err(invalid("Addon version specified is not supported").with("addonName", name));
    }
    let (settings, tags) = (settings(w, req, addon)?, new_tags(req)?);
    let id = w.ids.uuid();
    let arn = w.arn(&format!("addon/{cluster_name}/{name}/{id}"));
    let mut body = json!({
        "addonName": name, "clusterName": cluster_name, "status": "CREATING", "addonVersion": version,
        "health": {"issues": []}, "addonArn": arn, "createdAt": w.now, "modifiedAt": w.now, "tags": tags,
        "publisher": "eks", "owner": "aws", "namespaceConfig": {"namespace": addon.namespace},
    });
    super::merge(&mut body, &Value::Object(settings));
    if let Some(arns) = associate(w, req, cluster_name, &arn)? {
        body["podIdentityAssociations"] = arns;
    }
    let reply = json!({"addon": body});
    let active = json!({"status": "ACTIVE"});
    let fate = w.fates.of("eks:addon", &name, During::Create);
    let mut item = Item::new(body).becoming(Change::after(CHANGE, w.now, Some(active), &fate));
    // An active add-on's health is computed at every settling.
    item.issues =
        fate.health().filter(|_| fate.status() == Some("DEGRADED")).map(|health| health["health"]["issues"].clone());
    w.cluster(cluster_name)?.addons.insert(name, item);
    Ok(reply)
}

fn update(w: &mut World<'_>, req: &Request, cluster_name: &str) -> Reply {
    let name = required(req, "addonName")?;
    let (now, id) = (w.now, w.ids.uuid());
    let cluster = w.cluster(cluster_name)?;
    let minor = cluster.body["version"].as_str().and_then(versions::find).map_or(0, |version| version.minor);
    let body = find(cluster, req)?.body.clone();
    idle(cluster, &name)?;
    if !["ACTIVE", "DEGRADED", "UPDATE_FAILED", "CREATE_FAILED"].contains(&super::status(&body)) {
        let message = format!("Addon {name} cannot be updated as it is currently in {} status", super::status(&body));
        return Err(fault("ResourceInUseException", message).with("clusterName", cluster_name).with("addonName", name));
    }
    let addon = Addon::find(&name).ok_or_else(|| missing_addon(&name))?;
    let mut patch = Value::Object(settings(w, req, addon)?);
    if let Some(version) = req.text("addonVersion") {
        if !addon.supports(&version, minor) {
            return Err(invalid("Addon version specified is not supported").with("addonName", name));
        }
        patch["addonVersion"] = version.into();
    }
    if let Some(arns) = associate(w, req, cluster_name, identity(&body))? {
        patch["podIdentityAssociations"] = arns;
    }
    let params = json!({
        "AddonVersion": patch["addonVersion"], "ServiceAccountRoleArn": patch["serviceAccountRoleArn"],
        "ConfigurationValues": patch["configurationValues"],
        "PodIdentityAssociations": req.params.get("podIdentityAssociations").cloned().unwrap_or_default(),
        "ResolveConflicts": req.text("resolveConflicts"),
    });
    patch["modifiedAt"] = now.into();
    let step = Step { kind: "AddonUpdate", params, seconds: CHANGE, patch };
    let fate = w.fates.of("eks:addon", &name, During::Update);
    let cluster = w.cluster(cluster_name)?;
    if let Some(addon) = cluster.addons.get_mut(&name) {
        addon.issues = None;
    }
    Ok(cluster.begin(now, id, Target::Addon(name), step, &fate))
}

/// Checks the members that CreateAddon and UpdateAddon share, and returns them.
fn settings(w: &World<'_>, req: &Request, addon: &Addon) -> Result<Map<String, Value>, Fault> {
    let mut settings = Map::new();
    if let Some(how) = req.text("resolveConflicts")
        && !["OVERWRITE", "NONE", "PRESERVE"].contains(&how.as_str())
    {
        return Err(invalid(format!("Unsupported resolveConflicts {how}")));
    }
    if let Some(arn) = req.text("serviceAccountRoleArn") {
        if w.role(&arn).is_none() {
            return Err(invalid(format!("The role {arn} does not exist")).with("addonName", addon.name));
        }
        settings.insert("serviceAccountRoleArn".to_owned(), arn.into());
    }
    if let Some(text) = req.text("configurationValues") {
        let unsupported = |why: String| {
            let message = format!(
                "ConfigurationValue provided in request is not supported: Json schema validation failed with error: [{why}]"
            );
            invalid(message).with("addonName", addon.name)
        };
        let values: Value = serde_yaml::from_str(&text).map_err(|why| unsupported(why.to_string()))?;
        let schema = serde_json::from_str(addon.schema).unwrap_or_default();
        let without_hook = without_hook(values);
        check("$", &without_hook, &schema).map_err(unsupported)?;
        settings.insert("configurationValues".to_owned(), text.into());
    }
    Ok(settings)
}

/// The value without the member that asks for DEGRADED, because no schema has it.
fn without_hook(mut values: Value) -> Value {
    if let Some(members) = values.as_object_mut() {
        members.remove(DEGRADED);
    }
    values
}

/// The part of JSON Schema that the schemas above use.
fn check(path: &str, value: &Value, schema: &Value) -> Result<(), String> {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = texts(schema, "type");
    if !kinds.is_empty() && !kinds.iter().any(|one| one == kind) {
        return Err(format!("{path}: {kind} found, {} expected", kinds.join(" or ")));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return Err(format!("{path}: does not have a value in the enumeration {}", schema["enum"]));
    }
    for (key, member) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        match (&schema["properties"][key.as_str()], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => {
                return Err(format!(
                    "{path}: is not defined in the schema and the schema does not allow additional properties"
                ));
            }
            (Value::Null, others @ Value::Object(_)) => check(&path, member, others)?,
            (Value::Null, _) => {}
            (schema, _) => check(&path, member, schema)?,
        }
    }
    Ok(())
}

/// Replaces the add-on's pod identity associations by those of the request, and returns their ARNs. `None`: the request
/// doesn't mention them.
fn associate(w: &mut World<'_>, req: &Request, cluster: &str, arn: &str) -> Result<Option<Value>, Fault> {
    let Some(wanted) = req.params.get("podIdentityAssociations").and_then(Value::as_array) else { return Ok(None) };
    let name = required(req, "addonName")?;
    let addon = Addon::find(&name).ok_or_else(|| missing_addon(&name))?;
    // Error text: aws/containers-roadmap issue 2712 and terraform-aws-eks issue 3520. Whether AWS refuses an empty list
    // too isn't known; the sandbox does.
    if addon.identity.is_none() {
        let version = req.text("addonVersion").unwrap_or_default();
        return Err(invalid(format!("Pod Identity feature is not supported for addon version: {version}")));
    }
    for one in wanted {
        let account = one["serviceAccount"].as_str().unwrap_or_default();
        if addon.identity.is_none_or(|(known, _)| known != account) {
            return Err(
                invalid(format!("Service account {account} is not one of the add-on {name}")).with("addonName", name)
            );
        }
        super::identity::check_role(w, one["roleArn"].as_str().unwrap_or_default())?;
    }
    w.cluster(cluster)?.associations.retain(|_, item| item.body["ownerArn"] != arn);
    let mut arns = Vec::new();
    for one in wanted {
        let (account, role) =
            (one["serviceAccount"].as_str().unwrap_or_default(), one["roleArn"].as_str().unwrap_or_default());
        let body = super::identity::associate(w, cluster, addon.namespace, account, role, Some(arn), json!({}))?;
        arns.push(body["associationArn"].clone());
        super::identity::insert(w, cluster, body)?;
    }
    Ok(Some(arns.into()))
}

fn find<'c>(cluster: &'c mut Cluster, req: &Request) -> Result<&'c mut Item, Fault> {
    let name = required(req, "addonName")?;
    let missing = fault("ResourceNotFoundException", format!("No addon: {name} found in cluster: {}", cluster.name()))
        .with("clusterName", cluster.name())
        .with("addonName", name.as_str());
    cluster.addons.get_mut(&name).ok_or(missing)
}

/// Refuses a change while an update is in progress.
fn idle(cluster: &Cluster, name: &str) -> Result<(), Fault> {
    match cluster.in_progress(&Target::Addon(name.to_owned())) {
        Some(id) => {
            let message = format!("Addon {name} currently has update {id} in progress");
            Err(fault("ResourceInUseException", message).with("clusterName", cluster.name()).with("addonName", name))
        }
        None => Ok(()),
    }
}

fn missing_addon(name: &str) -> Fault {
    fault("ResourceNotFoundException", format!("No addon found for name: {name}")).with("addonName", name)
}
