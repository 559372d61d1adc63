//! The kind `k8s.manifest` against an API server: reading, differences, writes, foreign objects, and the number of
//! requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_eks::types::{ClusterStatus, VpcConfigRequest};
use http::Method;
use ringfence::aws::Aws;
use ringfence::engine::address::Address;
use ringfence::engine::clock::Clock;
use ringfence::engine::diff;
use ringfence::engine::error::Class;
use ringfence::engine::kind::{Change, Found, Handle, Handlers, Kind, New, Observation, Round, Status, Unread, Wanted};
use ringfence::engine::packed::Packed;
use ringfence::engine::value::reference;
use ringfence::k8s::client::Call;
use ringfence::k8s::{Clusters, Target};
use ringfence::kinds::k8s::manifest::{Manifest, ManifestHandlers, State, own};
use ringfence::sandbox::{Options, Server};
use serde_json::{Value, json};

use crate::support;

/// A cluster, and a namespace that no other test uses.
pub struct Ground {
    pub aws: Arc<Aws>,
    pub clusters: Arc<Clusters>,
    pub kind: ManifestHandlers,
    pub cluster: String,
    pub endpoint: String,
    pub tenant: String,
}

impl Ground {
    pub fn new(aws: Arc<Aws>, clusters: Clusters, cluster: &str, endpoint: &str) -> Self {
        static TENANTS: AtomicUsize = AtomicUsize::new(1);
        let clusters = Arc::new(clusters);
        Self {
            kind: ManifestHandlers::new(aws.clone(), clusters.clone()),
            aws,
            clusters,
            cluster: cluster.to_owned(),
            endpoint: endpoint.to_owned(),
            tenant: format!("{}{}", std::process::id(), TENANTS.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn namespace(&self) -> String {
        format!("t-{}", self.tenant)
    }

    fn target(&self) -> Target<'_> {
        Target { cluster: &self.cluster, endpoint: &self.endpoint, certificate_authority: "" }
    }

    fn address(&self, part: &str) -> Address {
        Address::new(format!("tenant/{}/pool/k8s/{part}", self.tenant))
    }

    /// An object in the form of the stack's desired state.
    fn wanted(&self, part: &str, mut object: Value) -> Wanted {
        let address = self.address(part);
        own(&mut object, &self.aws.tenancy, &address);
        let state = State {
            cluster: self.cluster.clone(),
            endpoint: self.endpoint.clone(),
            certificate_authority: String::new(),
            requires: None,
            object,
        };
        Wanted { address, state: Packed::of(&state).unwrap() }
    }

    fn the_namespace(&self) -> Wanted {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        self.wanted(
            "namespace",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace(), "labels": labels}}),
        )
    }

    fn config(&self, name: &str, data: Value) -> Wanted {
        let metadata = json!({"name": name, "namespace": self.namespace()});
        self.wanted(
            &format!("configmap-{name}"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}),
        )
    }

    fn policy(&self, port: Value) -> Wanted {
        let metadata = json!({"name": "dns", "namespace": self.namespace()});
        self.wanted(
            "networkpolicy-dns",
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": {
                "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [],
                "egress": [{"to": [{"ipBlock": {"cidr": "10.64.0.0/16", "except": ["10.64.3.0/24"]}}], "ports": [port]}],
            }}),
        )
    }

    /// Reads the objects of this test.
    async fn observe(&self, wanted: &[&Wanted]) -> Observation {
        let wanted: Vec<Wanted> = wanted.iter().map(|w| (*w).clone()).collect();
        let seen = self.kind.observe(&Round::default(), &wanted).await;
        let mut seen = seen.unwrap_or_else(|e| panic!("observe: {e}"));
        seen.found.retain(|f| f.address.as_str().starts_with(self.address("").as_str()));
        seen
    }

    /// The paths at which `wanted` differs. Panics if the object wasn't found.
    async fn drift(&self, wanted: &Wanted) -> (Found, Vec<Change>) {
        let seen = self.observe(&[&self.the_namespace(), wanted]).await;
        let found = seen.found.into_iter().find(|f| f.address == wanted.address);
        let found = found.unwrap_or_else(|| panic!("{} isn't found", wanted.address));
        let changes = diff::changes(&wanted.state, &found.state, Manifest.rules());
        (found, changes)
    }

    async fn settled(&self, wanted: &Wanted) -> Found {
        let (found, changes) = self.drift(wanted).await;
        assert_eq!(changes, [], "{}", wanted.address);
        found
    }

    async fn make(&self, wanted: &Wanted) {
        let made = self.kind.create(&new(wanted, 1)).await.unwrap_or_else(|e| panic!("{}: {e}", wanted.address));
        assert!(made.ready);
    }

    async fn repair(&self, wanted: &Wanted, found: &Found, changes: &[Change]) {
        let new = new(wanted, found.generation);
        self.kind.update(found, &new, changes).await.unwrap_or_else(|e| panic!("{}: {e}", wanted.address));
    }

    /// A change that a person makes with kubectl.
    async fn by_hand(&self, path: &str, object: &Value) {
        let call = Call {
            action: "by-hand",
            method: Method::PATCH,
            path: format!("{path}?fieldManager=somebody&force=true"),
            accept: "application/json",
            body: Some(("application/apply-patch+yaml", object.to_string().into_bytes())),
        };
        let cluster = self.clusters.get(self.target()).await.unwrap();
        cluster.call(&call).await.unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    fn path(&self, plural: &str, name: &str) -> String {
        let root = if plural == "networkpolicies" { "/apis/networking.k8s.io/v1" } else { "/api/v1" };
        format!("{root}/namespaces/{}/{plural}/{name}", self.namespace())
    }

    fn count(&self, action: &str) -> u64 {
        self.clusters.counts().get(action).copied().unwrap_or_default()
    }

    async fn gone(&self, found: &Found) {
        let handle = Handle {
            address: found.address.clone(),
            generation: found.generation,
            id: found.id.clone(),
            state: found.state.clone(),
        };
        while let Some(left) = self.kind.find(std::slice::from_ref(&handle)).await.unwrap().remove(0) {
            assert_eq!(left.status, Status::Deleting);
            self.aws.clock.sleep(Duration::from_millis(200)).await;
        }
    }
}

fn new(wanted: &Wanted, generation: u32) -> New {
    New { address: wanted.address.clone(), generation, state: wanted.state.clone(), token: "0".repeat(64) }
}

fn paths(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|c| c.path.as_str()).collect()
}

pub async fn objects_are_made_read_changed_and_deleted(ground: &Ground) {
    let namespace = ground.the_namespace();
    let config = ground.config("settings", json!({"a": "1", "b": "2"}));
    let policy = ground.policy(json!({"port": 53, "protocol": "UDP"}));
    let absent = ground.observe(&[&namespace, &config, &policy]).await;
    assert!(absent.found.is_empty() && absent.foreign.is_empty(), "{absent:?}");

    for wanted in [&namespace, &config, &policy] {
        ground.make(wanted).await;
    }
    let dry = ground.count("k8s:dry-run");
    let seen = ground.observe(&[&namespace, &config, &policy]).await;
    assert_eq!(seen.found.len(), 3, "{:?}", seen.found);
    for found in &seen.found {
        let wanted = [&namespace, &config, &policy].into_iter().find(|w| w.address == found.address).unwrap();
        assert_eq!(diff::changes(&wanted.state, &found.state, Manifest.rules()), []);
        assert_eq!((found.generation, &found.status), (1, &Status::Ready));
    }
    assert_eq!(ground.count("k8s:dry-run"), dry, "what is as it was applied is known from the lists");

    // One value changed, one key removed, one added.
    let changed = ground.config("settings", json!({"a": "9", "c": "3"}));
    let (found, changes) = ground.drift(&changed).await;
    assert_eq!(paths(&changes), ["object.data.a", "object.data.b", "object.data.c"]);
    assert!(changes.iter().all(|c| c.secret));
    ground.repair(&changed, &found, &changes).await;
    let found = ground.settled(&changed).await;

    assert!(ground.kind.delete(&found).await.unwrap());
    assert!(ground.kind.delete(&found).await.unwrap(), "what is gone is deleted");
    ground.gone(&found).await;
    let namespace = ground.settled(&namespace).await;
    ground.kind.delete(&namespace).await.unwrap();
}

pub async fn what_is_done_by_hand_is_shown_and_put_back(ground: &Ground) {
    let namespace = ground.the_namespace();
    let config = ground.config("settings", json!({"a": "1"}));
    let policy = ground.policy(json!({"port": 53, "protocol": "UDP"}));
    for wanted in [&namespace, &config, &policy] {
        ground.make(wanted).await;
    }
    let metadata = |name: &str| json!({"name": name, "namespace": ground.namespace()});

    // Somebody changes a value of ours.
    let edit = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("settings"), "data": {"a": "2"}});
    ground.by_hand(&ground.path("configmaps", "settings"), &edit).await;
    let dry = ground.count("k8s:dry-run");
    let (found, changes) = ground.drift(&config).await;
    assert_eq!(paths(&changes), ["object.data.a"]);
    assert_eq!(ground.count("k8s:dry-run"), dry + 1, "one dry run for what may have changed");
    let applies = ground.count("k8s:apply");
    ground.repair(&config, &found, &changes).await;
    assert_eq!(ground.count("k8s:apply"), applies + 1);
    ground.settled(&config).await;

    // Somebody adds a rule to a network policy.
    let hole = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata("dns"), "spec": {
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}],
        "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}});
    ground.by_hand(&ground.path("networkpolicies", "dns"), &hole).await;
    let (found, changes) = ground.drift(&policy).await;
    let both = |field: &str| paths(&changes).iter().any(|p| p.starts_with(field));
    assert!(both("object.spec.egress") && both("object.spec.ingress"), "{changes:?}");
    ground.repair(&policy, &found, &changes).await;
    ground.settled(&policy).await;

    // Somebody lowers the Pod Security level of a namespace.
    let open = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ground.namespace(),
        "labels": {"pod-security.kubernetes.io/enforce": "privileged", "theirs": "too"}}});
    ground.by_hand(&format!("/api/v1/namespaces/{}", ground.namespace()), &open).await;
    let (found, changes) = ground.drift(&namespace).await;
    assert_eq!(paths(&changes), [r#"object.metadata.labels["pod-security.kubernetes.io/enforce"]"#]);
    assert_eq!(changes[0].before, json!("privileged"));
    ground.repair(&namespace, &found, &changes).await;
    let found = ground.settled(&namespace).await;
    ground.kind.delete(&found).await.unwrap();
}

pub async fn what_has_left_the_spec_is_found_by_its_label(ground: &Ground) {
    let namespace = ground.the_namespace();
    let (config, other) = (ground.config("kept", json!({"a": "1"})), ground.config("gone", json!({"a": "1"})));
    for wanted in [&namespace, &config, &other] {
        ground.make(wanted).await;
    }
    let seen = ground.observe(&[&namespace, &config]).await;
    let left: Vec<&Found> = seen.found.iter().filter(|f| f.address == other.address).collect();
    assert_eq!(left.len(), 1, "{:?}", seen.found);
    assert!(left[0].id.ends_with(&format!("|v1|ConfigMap|{}|gone", ground.namespace())), "{}", left[0].id);
    assert!(ground.kind.delete(left[0]).await.unwrap());
    assert_eq!(ground.observe(&[&namespace, &config]).await.found.len(), 2);

    // A copy that somebody made has our labels, but isn't ours.
    let mut copy = config.state["object"].clone();
    copy["metadata"]["name"] = json!("copy");
    ground.by_hand(&ground.path("configmaps", "copy"), &copy).await;
    let seen = ground.observe(&[&namespace, &config]).await;
    assert_eq!(seen.found.len(), 2, "{:?}", seen.found);
    assert!(seen.notes.iter().any(|n| n.contains("wrote it, so ringfence doesn't delete it")), "{:?}", seen.notes);

    // A tenant leaves: one deletion removes the namespace and the objects in
    // it.
    let role = ground.wanted(
        "role",
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": format!("p-{}", ground.tenant)}, "value": 100}),
    );
    ground.make(&role).await;
    let elsewhere = Wanted { address: Address::new("pool/x/k8s/none"), state: ground.config("none", json!({})).state };
    let seen = ground.observe(&[&elsewhere]).await;
    let mut left: Vec<_> = seen.found.iter().map(|f| f.address.clone()).collect();
    left.sort();
    assert_eq!(left, [namespace.address.clone(), role.address.clone()]);
    let found = |address: &Address| seen.found.iter().find(|f| f.address == *address).unwrap();
    assert_eq!(
        found(&namespace.address).refs,
        [found(&role.address).id.clone()],
        "what applies to the namespace from outside goes after it"
    );
    for one in &seen.found {
        ground.kind.delete(one).await.unwrap();
    }
}

#[expect(clippy::cognitive_complexity, reason = "assertions count as branches")]
pub async fn what_isnt_ours_is_left_alone(ground: &Ground) {
    let namespace = ground.the_namespace();
    ground.make(&namespace).await;
    let config = ground.config("theirs", json!({"a": "1"}));
    let metadata = json!({"name": "theirs", "namespace": ground.namespace()});
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"x": "y"}});
    ground.by_hand(&ground.path("configmaps", "theirs"), &theirs).await;
    let seen = ground.observe(&[&namespace, &config]).await;
    assert_eq!(seen.found.len(), 1);
    assert_eq!(seen.foreign.len(), 1);
    let message = &seen.foreign[0].message;
    let adopt = format!(
        "kubectl label configmaps/theirs -n {} ringfence.dev/tenancy={} ringfence.dev/tenant={}",
        ground.namespace(),
        ground.aws.tenancy,
        ground.tenant
    );
    assert!(message.contains("lacks the label ringfence.dev/tenancy") && message.contains(&adopt), "{message}");
    assert_eq!(ground.kind.create(&new(&config, 1)).await.unwrap_err().class, Class::Exists);
    let handle =
        Handle { address: config.address.clone(), generation: 1, id: String::new(), state: config.state.clone() };
    assert_eq!(ground.kind.find(&[handle]).await.unwrap(), [None]);

    // Objects that Kubernetes puts into every namespace are ours in our
    // namespaces.
    let account = |namespace: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}});
    for namespace in [ground.namespace().as_str(), "default"] {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        ground.by_hand(&path, &account(namespace)).await;
    }
    let mut given = account(&ground.namespace());
    given["automountServiceAccountToken"] = json!(false);
    let given = ground.wanted("serviceaccount-default", given);
    assert!(ground.observe(&[&namespace, &given]).await.foreign.is_empty());
    ground.make(&given).await;
    ground.settled(&given).await;
    let theirs_too = ground.wanted("serviceaccount-default-default", account("default"));
    assert_eq!(ground.observe(&[&namespace, &theirs_too]).await.foreign.len(), 1);
    assert_eq!(ground.kind.create(&new(&theirs_too, 1)).await.unwrap_err().class, Class::Exists);

    // After adoption it is ours, and gets the desired state.
    let mut labelled = theirs.clone();
    own(&mut labelled, &ground.aws.tenancy, &config.address);
    ground.by_hand(&ground.path("configmaps", "theirs"), &labelled).await;
    let (found, changes) = ground.drift(&config).await;
    assert_eq!(paths(&changes), ["object.data.a"], "their own key stays");
    ground.repair(&config, &found, &changes).await;
    ground.settled(&config).await;

    // Without our labels it isn't deleted.
    let found = ground.settled(&config).await;
    let mut other = theirs.clone();
    other["metadata"]["labels"] = json!({"ringfence.dev/tenancy": "other"});
    ground.by_hand(&ground.path("configmaps", "theirs"), &other).await;
    assert_eq!(ground.kind.delete(&found).await.unwrap_err().class, Class::Invalid);
    let namespace = ground.settled(&namespace).await;
    ground.kind.delete(&namespace).await.unwrap();
}

pub async fn apis_that_arent_there(ground: &Ground) {
    let namespace = ground.the_namespace();
    let metadata = json!({"name": "x", "namespace": ground.namespace()});
    let object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": metadata});
    let widget = ground.wanted("widget", object);
    // The kind only reports it: the planner knows whether an upgrade brings the
    // API.
    let seen = ground.observe(&[&namespace, &widget]).await;
    let (address, error) = seen.unserved.first().unwrap();
    assert_eq!((address, error.class, seen.unserved.len()), (&widget.address, Class::Invalid, 1));
    assert!(error.message.contains("doesn't serve example.com/v1 Widget"), "{error}");
    assert!(error.message.starts_with(widget.address.as_str()), "{error}");

    let widget = Wanted { state: widget.state.with([("requires", Some(json!("example.com/v1")))]), ..widget };
    let seen = ground.observe(&[&namespace, &widget]).await;
    assert!(seen.found.iter().all(|f| f.address != widget.address));
    let (address, error) = seen.unserved.first().unwrap();
    assert_eq!((address, seen.unserved.len()), (&widget.address, 1));
    assert!(error.message.contains("doesn't serve example.com/v1, which Widget"), "{error}");
    assert_eq!(ground.kind.create(&new(&widget, 1)).await.unwrap_err().class, Class::Unserved);

    // It isn't reported if a CustomResourceDefinition among the wanted objects
    // brings the API.
    let definition = ground.wanted(
        "definition",
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com"}}),
    );
    assert!(ground.observe(&[&namespace, &definition, &widget]).await.unserved.is_empty());

    let nowhere = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let error = ground.kind.create(&new(&ground.wanted("nowhere", nowhere), 1)).await.unwrap_err();
    assert!(error.message.contains("has no namespace"), "{error}");
}

pub async fn what_cant_be_changed_is_replaced(ground: &Ground) {
    let namespace = ground.the_namespace();
    let binding = |role: &str| {
        let metadata = json!({"name": "tenant", "namespace": ground.namespace()});
        let group = "rbac.authorization.k8s.io";
        let subject = json!({"apiGroup": group, "kind": "Group", "name": "tenant:1"});
        ground.wanted(
            "rolebinding",
            json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": role}, "subjects": [subject]}),
        )
    };
    ground.make(&namespace).await;
    ground.make(&binding("one")).await;
    let (found, changes) = ground.drift(&binding("two")).await;
    assert_eq!(paths(&changes), ["object.roleRef.name"]);
    assert!(changes[0].replaces);
    ground.kind.delete(&found).await.unwrap();
    ground.gone(&found).await;
    ground.make(&binding("two")).await;
    ground.settled(&binding("two")).await;

    let renamed = ground.wanted("configmap-c", ground.config("other", json!({"a": "1"})).state["object"].clone());
    ground.make(&ground.config("c", json!({"a": "1"}))).await;
    let (found, changes) = ground.drift(&renamed).await;
    assert!(found.id.ends_with("|c"), "the old one, until it is replaced: {}", found.id);
    assert!(changes.iter().any(|c| c.path == "object.metadata.name" && c.replaces), "{changes:?}");
    ground.make(&renamed).await;
    ground.kind.delete(&found).await.unwrap();
    ground.settled(&renamed).await;
    let namespace = ground.settled(&namespace).await;
    ground.kind.delete(&namespace).await.unwrap();
}

pub async fn what_isnt_known_yet_is_compared_as_far_as_it_is(ground: &Ground) {
    let namespace = ground.the_namespace();
    ground.make(&namespace).await;
    ground.make(&ground.config("c", json!({"group": "sg-1", "same": "x"}))).await;
    let group = reference(&Address::new("tenant/1/pool/security-group"), "id");
    let unknown = ground.config("c", json!({"group": group, "same": "x"}));
    let dry = ground.count("k8s:dry-run");
    let (_, changes) = ground.drift(&unknown).await;
    assert_eq!(paths(&changes), ["object.data.group"]);
    assert_eq!(ground.count("k8s:dry-run"), dry, "nothing that isn't known is sent");

    let coming = json!(reference(&Address::new("pool/p/cluster"), "endpoint"));
    let elsewhere = Wanted { state: namespace.state.with([("endpoint", Some(coming))]), ..namespace.clone() };
    assert!(ground.observe(&[&elsewhere]).await.found.is_empty(), "a cluster that is to be made");
    let namespace = ground.settled(&namespace).await;
    ground.kind.delete(&namespace).await.unwrap();
}

/// Makes a test from each function, in the sandbox.
macro_rules! in_the_sandbox {
    ($($name:ident),* $(,)?) => {
        mod in_the_sandbox {
            $(
                #[tokio::test]
                async fn $name() {
                    let (ground, _server) = super::sandbox().await;
                    super::$name(&ground).await;
                }
            )*
        }
    };
}
in_the_sandbox!(
    objects_are_made_read_changed_and_deleted,
    what_is_done_by_hand_is_shown_and_put_back,
    what_has_left_the_spec_is_found_by_its_label,
    what_isnt_ours_is_left_alone,
    apis_that_arent_there,
    what_cant_be_changed_is_replaced,
    what_isnt_known_yet_is_compared_as_far_as_it_is,
);

/// A cluster in a sandbox of its own. It exists as long as the server.
async fn sandbox() -> (Ground, Server) {
    let options = Options { speed: 100_000.0, record: support::record(), ..Options::default() };
    let server = Server::start(options, ([127, 0, 0, 1], 0).into()).unwrap();
    let aws = support::connect(&format!("http://{}", server.addr()), Clock::real()).await;
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"Service": "eks.amazonaws.com"}}]});
    let role = aws.iam.create_role().role_name("cluster").assume_role_policy_document(trust.to_string());
    let role = role.send().await.unwrap().role.unwrap().arn;
    let policy = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy";
    aws.iam.attach_role_policy().role_name("cluster").policy_arn(policy).send().await.unwrap();
    let vpc = aws.ec2.create_vpc().cidr_block("10.64.0.0/16").send().await.unwrap().vpc.unwrap().vpc_id.unwrap();
    let mut network = VpcConfigRequest::builder().endpoint_private_access(true);
    for (zone, cidr) in [("a", "10.64.0.0/24"), ("b", "10.64.1.0/24")] {
        let subnet = aws.ec2.create_subnet().vpc_id(&vpc).cidr_block(cidr);
        let subnet = subnet.availability_zone(format!("{}{zone}", support::REGION)).send().await.unwrap();
        network = network.subnet_ids(subnet.subnet.unwrap().subnet_id.unwrap());
    }
    let name = "acme-p-shared-1";
    let made = aws.eks.create_cluster().name(name).role_arn(role).resources_vpc_config(network.build());
    made.send().await.unwrap();
    let endpoint = loop {
        let cluster = aws.eks.describe_cluster().name(name).send().await.unwrap().cluster.unwrap();
        match (cluster.status, cluster.endpoint) {
            (Some(ClusterStatus::Active), Some(endpoint)) => break endpoint,
            _ => aws.clock.sleep(Duration::from_millis(10)).await,
        }
    };
    let clusters = Clusters::new(aws.clone(), BTreeMap::new());
    (Ground::new(aws, clusters, name, &endpoint), server)
}

/// An API server on a port on which nothing listens.
#[tokio::test]
async fn a_server_that_cant_be_reached() {
    let (Ground { aws, .. }, _server) = sandbox().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let ground = Ground::new(aws.clone(), Clusters::new(aws, BTreeMap::new()), "acme-p-shared-1", &endpoint);
    let wanted = [ground.the_namespace()];
    let seen = ground.kind.observe(&Round::default(), &wanted).await.unwrap();
    let Unread { host: cluster, error, wanted: hidden } = seen.unread.into_iter().next().unwrap();
    assert_eq!((cluster.as_str(), hidden), ("acme-p-shared-1", [wanted[0].address.clone()].into()));
    assert_eq!(error.class, Class::Unreachable);
    assert!(error.message.contains("the API server of cluster acme-p-shared-1 can't be reached"), "{error}");
    let help = error.help.unwrap();
    for way in ["in the cluster's VPC", "--kubeconfig acme-p-shared-1=FILE", "`ringfence render`"] {
        assert!(help.contains(way), "{help}");
    }
}
