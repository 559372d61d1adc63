//! The output for people and for programs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, Cursor, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use super::*;
use crate::engine::clock::{Clock, Hand};
use crate::engine::error::Class;
use crate::engine::event::Event;
use crate::engine::kind::*;
use crate::engine::plan::{Action, Blocked, Kept, Loss, Step};
use crate::engine::report::{Differs, Line, Outcome};
use crate::engine::value::reference;
use crate::engine::why::{WhyDone, WhyKept, WhyNot};
use crate::spec::SpecErrors;
use crate::spec::error::{Code, Excerpt, Related};

/// A writer whose content a test can read.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A writer that fails.
struct Broken(io::ErrorKind);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Face {
    ui: Ui,
    out: Sink,
    err: Sink,
}

fn face(format: Format, verbose: bool, terminal: Terminal, input: &str) -> Face {
    let (out, err) = (Sink::default(), Sink::default());
    let streams = Streams {
        input: Box::new(Cursor::new(input.as_bytes().to_vec())),
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
    };
    let options = Options { format, color: Color::Never, verbose };
    Face { ui: Ui::new(options, streams, terminal), out, err }
}

fn screen() -> Terminal {
    Terminal { input: true, out: true, err: true, width: 100, ..Terminal::none() }
}

struct Keys;

impl Kind for Keys {
    fn name(&self) -> &'static str {
        "aws.secretive"
    }
    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[("password", Rule::Secret)]
    }
}

/// Objects in clusters.
struct Objects;

impl Kind for Objects {
    fn name(&self) -> &'static str {
        "k8s.manifest"
    }

    fn is_hosted(&self) -> bool {
        true
    }
}

fn kinds() -> Registry {
    let mut kinds = Registry::default();
    kinds.add(Arc::new(Keys));
    kinds.add(Arc::new(Objects));
    kinds
}

fn subject() -> Subject {
    let tenant = |id: &str, name: &str, tier: &str| (id.to_owned(), Tenant { name: name.into(), tier: tier.into() });
    Subject {
        tenancy: "acme".into(),
        account: "123456789012".into(),
        region: "us-east-1".into(),
        file: "tenancy.yaml".into(),
        spec_hash: "sha256:c0ffee".into(),
        tenants: [
            tenant("12345", "globex", "premium"),
            tenant("23456", "initech", "standard"),
            tenant("34567", "umbrella", "serverless"),
        ]
        .into(),
        pools: ["shared-1".to_owned()].into(),
        ..Subject::default()
    }
}

fn step(address: &str, kind: &'static str, action: Action, summary: &str, controls: &[&'static str]) -> Step {
    Step {
        address: Address::new(address),
        kind,
        scope: Arc::default(),
        action,
        replaces: false,
        generation: 1,
        why: None,
        summary: summary.into(),
        controls: controls.to_vec(),
        changes: vec![],
        state: (action != Action::Delete).then(|| json!({}).into()),
        found: None,
        needs: BTreeSet::new(),
    }
}

fn found(address: &str, generation: u32, id: &str) -> Option<Found> {
    Some(Found {
        address: Address::new(address),
        generation,
        id: id.into(),
        outputs: BTreeMap::new(),
        state: json!({}).into(),
        status: Status::Ready,
        refs: vec![],
    })
}

fn change(path: &str, before: Value, after: Value) -> Change {
    Change { path: path.into(), before, after, replaces: false, secret: false }
}

/// The network of a silo's or a pool's cluster.
fn cluster(at: &str, cidr: &str) -> Vec<Step> {
    let create = |local: &str, kind, summary: &str, controls: &[&'static str]| {
        step(&format!("{at}/{local}"), kind, Action::Create, summary, controls)
    };
    let mut steps = vec![
        create("vpc", "aws.vpc", cidr, &["SILO-2"]),
        create("internet-gateway", "aws.internet-gateway", "", &[]),
        create("log-group/cluster", "aws.log-group", "90 days", &[]),
        create("log-group/flow", "aws.log-group", "365 days", &[]),
        create("flow-log", "aws.flow-log", "", &[]),
        create("key", "aws.kms-key", "rotated", &[]),
        create("role/cluster", "aws.iam-role", "", &[]),
        create("role/node", "aws.iam-role", "", &[]),
        create("role/cni", "aws.iam-role", "", &[]),
        create("cluster", "aws.eks-cluster", "1.36, private endpoint", &["SILO-1", "API-1"]),
        create("node-group/system", "aws.node-group", "m7g.large 2–4", &["HOST-1"]),
        create("launch-template/system", "aws.launch-template", "IMDSv2, hop limit 1", &["NET-2"]),
        create("access/admin-platformadmin", "aws.access-entry", "", &["API-1"]),
    ];
    for addon in ["vpc-cni", "kube-proxy", "coredns", "eks-pod-identity-agent", "metrics-server"] {
        steps.push(create(&format!("addon/{addon}"), "aws.eks-addon", "", &[]));
    }
    for endpoint in ["s3", "ecr.api", "ecr.dkr", "sts", "ec2", "eks", "eks-auth", "logs"] {
        steps.push(create(&format!("endpoint/{endpoint}"), "aws.vpc-endpoint", "", &["SILO-2"]));
    }
    for (i, zone) in ["a", "b", "c"].iter().enumerate() {
        let net = cidr.trim_end_matches("0.0/16");
        steps.push(create(&format!("subnet/private-{zone}"), "aws.subnet", &format!("{net}{}.0/18", i * 64), &[]));
        steps.push(create(&format!("subnet/public-{zone}"), "aws.subnet", &format!("{net}{}.0/24", 240 + i), &[]));
        steps.push(create(&format!("elastic-ip/{zone}"), "aws.elastic-ip", "", &[]));
        steps.push(create(&format!("nat/{zone}"), "aws.nat-gateway", "", &[]));
        steps.push(create(&format!("route-table/private-{zone}"), "aws.route-table", "", &[]));
    }
    steps
}

fn pool_tenant(id: &str, summary: &str) -> Vec<Step> {
    let create = |local: &str, kind, summary: &str, controls: &[&'static str]| {
        step(&format!("tenant/{id}/{local}"), kind, Action::Create, summary, controls)
    };
    vec![
        create("pool/role/node", "aws.iam-role", "", &[]),
        create("pool/security-group", "aws.security-group", "", &["SILO-2"]),
        create("pool/launch-template", "aws.launch-template", "IMDSv2, hop limit 1", &["NET-2"]),
        create("pool/node-group", "aws.node-group", summary, &["NODE-1", "HOST-1"]),
        create("k8s/namespace", "k8s.manifest", &format!("t-{id}"), &["NS-1"]),
        create("k8s/network-policy/default-deny", "k8s.manifest", "", &["NET-1"]),
        create("k8s/network-policy/allow-dns", "k8s.manifest", "", &["NET-1"]),
        create("k8s/network-policy/allow-same-namespace", "k8s.manifest", "", &["NET-1"]),
        create("k8s/quota", "k8s.manifest", "", &["QUOTA-1"]),
        create("k8s/limit-range", "k8s.manifest", "", &["QUOTA-1"]),
    ]
}

fn three_tiers() -> Plan {
    let mut steps = vec![
        step("tenancy/service-linked-role/eks", "aws.service-linked-role", Action::Create, "", &[]),
        step("tenancy/service-linked-role/eks-nodegroup", "aws.service-linked-role", Action::Create, "", &[]),
        step("tenancy/service-linked-role/eks-fargate", "aws.service-linked-role", Action::Create, "", &[]),
    ];
    steps.extend(cluster("pool/shared-1", "10.64.0.0/16"));
    steps.extend(cluster("tenant/12345/silo", "10.65.0.0/16"));
    steps.extend(pool_tenant("23456", "m7g.large 1–5"));
    steps.push(step("tenant/34567/fargate/role/execution", "aws.iam-role", Action::Create, "", &[]));
    steps.push(step(
        "tenant/34567/fargate/profile",
        "aws.fargate-profile",
        Action::Create,
        "t-34567",
        &["NODE-3", "HOST-2"],
    ));
    Plan { steps, notes: ["no admission runs in the sandbox's clusters".to_owned().into()].into(), ..Plan::default() }
}

fn shown(plan: &Plan, subject: &Subject, format: Format, verbose: bool) -> String {
    let face = face(format, verbose, screen(), "");
    face.ui.plan(plan, subject, &kinds(), &BTreeMap::new()).unwrap();
    assert_eq!(face.err.text(), "");
    face.out.text()
}

#[test]
fn three_tiers_fit_a_screen() {
    let text = shown(&three_tiers(), &subject(), Format::Human, false);
    insta::assert_snapshot!(text, @r#"
    Plan for acme: account 123456789012, us-east-1, tenancy.yaml

    tenancy
      + service-linked-role/{eks,eks-fargate,eks-nodegroup}

    pool/shared-1
      + access/admin-platformadmin  API-1
      + addon/{coredns,eks-pod-identity-agent,kube-proxy,metrics-server,vpc-cni}
      + cluster                     1.36, private endpoint  SILO-1 API-1
      + elastic-ip/{a,b,c}
      + endpoint/{ec2,ecr.api,ecr.dkr,eks,eks-auth,logs,s3,sts}  SILO-2
      + {flow-log,internet-gateway}
      + key                         rotated
      + launch-template/system      IMDSv2, hop limit 1  NET-2
      + log-group/{cluster,flow}    90 days, 365 days
      + nat/{a,b,c}
      + node-group/system           m7g.large 2–4  HOST-1
      + role/{cluster,cni,node}
      + route-table/private-{a,b,c}
      + subnet/private-{a,b,c}      10.64.0.0/18, 10.64.64.0/18, 10.64.128.0/18
      + subnet/public-{a,b,c}       10.64.240.0/24, 10.64.241.0/24, 10.64.242.0/24
      + vpc                         10.64.0.0/16  SILO-2

    tenant/12345 globex (premium)
      + silo/access/admin-platformadmin  API-1
      + silo/addon/{coredns,eks-pod-identity-agent,kube-proxy,metrics-server,vpc-cni}
      + silo/cluster                     1.36, private endpoint  SILO-1 API-1
      + silo/elastic-ip/{a,b,c}
      + silo/endpoint/{ec2,ecr.api,ecr.dkr,eks,eks-auth,logs,s3,sts}  SILO-2
      + silo/{flow-log,internet-gateway}
      + silo/key                         rotated
      + silo/launch-template/system      IMDSv2, hop limit 1  NET-2
      + silo/log-group/{cluster,flow}    90 days, 365 days
      + silo/nat/{a,b,c}
      + silo/node-group/system           m7g.large 2–4  HOST-1
      + silo/role/{cluster,cni,node}
      + silo/route-table/private-{a,b,c}
      + silo/subnet/private-{a,b,c}      10.65.0.0/18, 10.65.64.0/18, 10.65.128.0/18
      + silo/subnet/public-{a,b,c}       10.65.240.0/24, 10.65.241.0/24, 10.65.242.0/24
      + silo/vpc                         10.65.0.0/16  SILO-2

    tenant/23456 initech (standard)
      + k8s/{limit-range,quota}  QUOTA-1
      + k8s/namespace            t-23456  NS-1
      + k8s/network-policy/{allow-dns,allow-same-namespace,default-deny}  NET-1
      + pool/launch-template     IMDSv2, hop limit 1  NET-2
      + pool/node-group          m7g.large 1–5  NODE-1 HOST-1
      + pool/role/node
      + pool/security-group      SILO-2

    tenant/34567 umbrella (serverless)
      + fargate/profile  t-34567  NODE-3 HOST-2
      + fargate/role/execution

    Note: no admission runs in the sandbox's clusters

    Plan: 97 to add, 0 to change, 0 to replace, 0 to destroy.
    "#);
    assert!(text.lines().all(|l| text::width(l) <= 100), "no line is wider than the terminal");
}

#[test]
fn narrow_terminals_cut_what_matters_least() {
    let face = face(Format::Human, false, Terminal { width: 60, ..screen() }, "");
    let plan = Plan { steps: cluster("pool/shared-1", "10.64.0.0/16"), ..Plan::default() };
    face.ui.plan(&plan, &subject(), &kinds(), &BTreeMap::new()).unwrap();
    insta::assert_snapshot!(face.out.text(), @r#"
    Plan for acme: account 123456789012, us-east-1, tenancy.yaml

    pool/shared-1
      + access/admin-platformadmin  API-1
      + addon/{coredns,… 4 more}
      + cluster                   1.36, private e…  SILO-1 API-1
      + elastic-ip/{a,b,c}
      + endpoint/{ec2,ecr.api,… 6 more}  SILO-2
      + {flow-log,internet-gateway}
      + key                       rotated
      + launch-template/system    IMDSv2, hop limit 1  NET-2
      + log-group/{cluster,flow}  90 days, 365 days
      + nat/{a,b,c}
      + node-group/system         m7g.large 2–4  HOST-1
      + role/{cluster,cni,node}
      + route-table/private-{a,b,c}
      + subnet/private-{a,b,c}    10.64.0.0/18, 10.64.64.0/18, …
      + subnet/public-{a,b,c}
      + vpc                       10.64.0.0/16  SILO-2

    Plan: 41 to add, 0 to change, 0 to replace, 0 to destroy.
    "#);
}

/// An update, a replacement, a deletion, waiting, blocked things, left-overs.
#[expect(clippy::too_many_lines, reason = "one plan with everything that a plan can hold")]
fn changes() -> Plan {
    let at = "tenant/12345/silo";
    let vpc = reference(&Address::new(format!("{at}/vpc")), "id");
    let mut scaled =
        step(&format!("{at}/node-group/main"), "aws.node-group", Action::Update, "m7g.large 2–5", &["HOST-1"]);
    scaled.found = found(&format!("{at}/node-group/main"), 1, "main");
    scaled.changes = vec![
        change("max", json!(3), json!(5)),
        change("labels[\"team/owner\"]", json!(null), json!("a")),
        change("subnets", json!(["subnet-1", "subnet-2"]), json!(["subnet-2", "subnet-3"])),
        change(
            "template_version",
            json!("4"),
            json!(reference(&Address::new(format!("{at}/launch-template/main")), "version")),
        ),
        Change { secret: true, ..change("password", json!("(secret)"), json!("(secret)")) },
        change("tags[\"a\"]", json!("1"), json!("2")),
        change("tags[\"b\"]", json!("1"), json!("2")),
    ];
    let forced = Change { replaces: true, ..change("zone", json!("us-east-1a"), json!("us-east-1b")) };
    let address = format!("{at}/subnet/private-a");
    let old = Step {
        replaces: true,
        why: Some(WhyDone::Fixed { fields: vec!["zone".into()] }),
        found: found(&address, 1, "subnet-1"),
        ..step(&address, "aws.subnet", Action::Delete, "10.65.0.0/18", &[])
    };
    let new = Step {
        replaces: true,
        generation: 2,
        changes: vec![forced],
        state: Some(json!({"vpc": vpc, "cidr": "10.65.0.0/18", "zone": "us-east-1b"}).into()),
        needs: [0].into(),
        ..step(&address, "aws.subnet", Action::Create, "10.65.0.0/18", &[])
    };
    let address = "tenant/99/silo/cluster";
    let unlock = Step {
        why: Some(WhyDone::BeforeDeletion),
        changes: vec![change("deletion_protection", json!(true), json!(false))],
        found: found(address, 1, "acme-99"),
        ..step(address, "aws.eks-cluster", Action::Update, "1.35", &[])
    };
    let delete = Step {
        found: found(address, 1, "acme-99"),
        needs: [3].into(),
        ..step(address, "aws.eks-cluster", Action::Delete, "1.35", &[])
    };
    let address = format!("{at}/nat/a");
    let wait = Step {
        why: Some(WhyDone::Pending { state: "pending".into() }),
        found: found(&address, 1, "nat-1"),
        ..step(&address, "aws.nat-gateway", Action::Wait, "", &[])
    };
    let address = format!("{at}/launch-template/main");
    let leftover = Step {
        replaces: true,
        why: Some(WhyDone::LeftOver),
        found: found(&address, 1, "lt-1"),
        ..step(&address, "aws.launch-template", Action::Delete, "", &[])
    };
    let blocked = |address: &str, kind: &str, pending, reason: &str, help: &str| Blocked {
        address: Address::new(address),
        kind: kind.into(),
        why: WhyNot::Refused { reason: reason.into(), help: help.into(), pending },
        controls: vec![],
        changes: vec![],
    };
    let away = "the API server of shared-1 can't be reached: connection to 10.64.3.7:443 timed out after 5 s";
    let help = "run ringfence where the VPC can be reached, or give it a way in with --kubeconfig shared-1=FILE";
    let mut blocks = vec![Blocked {
        changes: vec![Change { replaces: true, ..change("cidr", json!("10.65.0.0/16"), json!("10.66.0.0/16")) }],
        ..blocked(
            &format!("{at}/vpc"),
            "aws.vpc",
            false,
            "a change of cidr needs a replacement, and everything in it with it",
            "if this is intended, add --allow-replace tenant/12345/silo/vpc",
        )
    }];
    for object in ["namespace", "quota", "limit-range", "role/edit", "role-binding/edit", "network-policy/default-deny"]
    {
        blocks.push(blocked(&format!("tenant/23456/k8s/{object}"), "k8s.manifest", true, away, help));
    }
    Plan {
        steps: vec![old, new, scaled, unlock, delete, wait, leftover],
        blocked: blocks,
        kept: ["cluster", "flow"]
            .map(|name| Kept {
                address: Address::new(format!("tenant/99/silo/log-group/{name}")),
                kind: "aws.log-group",
                id: format!("/acme/99/{name}"),
                why: WhyKept::AuditLogs,
            })
            .to_vec(),
        notes: ["the newest version of coredns is v1.12; --upgrade installs it".to_owned().into()].into(),
        confirm: vec![Loss {
            address: Address::new("tenant/99/silo"),
            lost: vec!["all that runs in cluster acme-99".to_owned(), "all that is encrypted with key 99".to_owned()],
            kept: ["cluster", "flow"].map(|name| Address::new(format!("tenant/99/silo/log-group/{name}"))).into(),
        }],
        unchanged: 40,
        ..Plan::default()
    }
}

#[test]
fn changes_are_shown_with_their_reasons() {
    insta::assert_snapshot!(shown(&changes(), &subject(), Format::Human, false), @r#"
    Plan for acme: account 123456789012, us-east-1, tenancy.yaml

    tenant/12345 globex (premium)
      - silo/launch-template/main
            rest of an interrupted replacement
      … silo/nat/a
            it is pending
      ~ silo/node-group/main   m7g.large 2–5  HOST-1
            max: 3 → 5
            labels["team/owner"]: (none) → "a"
            subnets: - "subnet-1", + "subnet-3"
            template_version: "4" → (known after apply)
            password: changed (secret)
            … 2 more (-v)
    -/+ silo/subnet/private-a  10.65.0.0/18
            zone: "us-east-1a" → "us-east-1b" (forces replacement)
      ! silo/vpc
            a change of cidr needs a replacement, and everything in it with it
            cidr: "10.65.0.0/16" → "10.66.0.0/16" (forces replacement)
            help: if this is intended, add --allow-replace tenant/12345/silo/vpc

    tenant/23456 initech (standard)
      ! 6 in-cluster objects
            k8s/limit-range, k8s/namespace, k8s/network-policy/default-deny, k8s/quota, k8s/role-bindin…
            the API server of shared-1 can't be reached: connection to 10.64.3.7:443 timed out after 5 s
            help: run ringfence where the VPC can be reached, or give it a way in with --kubeconfig
            shared-1=FILE

    tenant/99 (not in the spec)
      - silo/cluster  1.35
            first: deletion_protection: true → false

    Stays
        tenant/99/silo/log-group/cluster, tenant/99/silo/log-group/flow
            audit logs are kept; --delete-logs deletes them

    These deletions lose work or data and must be confirmed
        tenant/99/silo (1 resource)
            - all that runs in cluster acme-99
            - all that is encrypted with key 99
            kept: tenant/99/silo/log-group/cluster, tenant/99/silo/log-group/flow
        On a terminal, apply asks for each deletion. Without a terminal, add --allow-destroy ADDRESS for
        each of them.

    Note: the newest version of coredns is v1.12; --upgrade installs it

    Plan: 0 to add, 2 to change, 1 to replace, 1 to destroy.
    "#);
}

#[test]
fn verbose_shows_everything() {
    insta::assert_snapshot!(shown(&changes(), &subject(), Format::Human, true), @r#"
    Plan for acme: account 123456789012, us-east-1, tenancy.yaml

    tenant/12345 globex (premium)
      - silo/launch-template/main
            rest of an interrupted replacement
            id: lt-1
      … silo/nat/a
            it is pending
            id: nat-1
      ~ silo/node-group/main   m7g.large 2–5  HOST-1
            id: main
            max: 3 → 5
            labels["team/owner"]: (none) → "a"
            subnets:
              - "subnet-1"
                "subnet-2"
              + "subnet-3"
            template_version: "4" → (known after apply)
            password: changed (secret)
            tags["a"]: "1" → "2"
            tags["b"]: "1" → "2"
    -/+ silo/subnet/private-a  10.65.0.0/18
            id: subnet-1
            zone: "us-east-1a" → "us-east-1b" (forces replacement)
            vpc: (known after apply)
            cidr: "10.65.0.0/18"
            zone: "us-east-1b"
      ! silo/vpc
            a change of cidr needs a replacement, and everything in it with it
            cidr: "10.65.0.0/16" → "10.66.0.0/16" (forces replacement)
            help: if this is intended, add --allow-replace tenant/12345/silo/vpc

    tenant/23456 initech (standard)
      ! k8s/limit-range
            the API server of shared-1 can't be reached: connection to 10.64.3.7:443 timed out after 5 s
            help: run ringfence where the VPC can be reached, or give it a way in with --kubeconfig shared-1=FILE
      ! k8s/namespace
            the API server of shared-1 can't be reached: connection to 10.64.3.7:443 timed out after 5 s
            help: run ringfence where the VPC can be reached, or give it a way in with --kubeconfig shared-1=FILE
      ! k8s/network-policy/default-deny
            the API server of shared-1 can't be reached: connection to 10.64.3.7:443 timed out after 5 s
            help: run ringfence where the VPC can be reached, or give it a way in with --kubeconfig shared-1=FILE
      ! k8s/quota
            the API server of shared-1 can't be reached: connection to 10.64.3.7:443 timed out after 5 s
            help: run ringfence where the VPC can be reached, or give it a way in with --kubeconfig shared-1=FILE
      ! k8s/role-binding/edit
            the API server of shared-1 can't be reached: connection to 10.64.3.7:443 timed out after 5 s
            help: run ringfence where the VPC can be reached, or give it a way in with --kubeconfig shared-1=FILE
      ! k8s/role/edit
            the API server of shared-1 can't be reached: connection to 10.64.3.7:443 timed out after 5 s
            help: run ringfence where the VPC can be reached, or give it a way in with --kubeconfig shared-1=FILE

    tenant/99 (not in the spec)
      - silo/cluster  1.35
            first: deletion_protection: true → false
            id: acme-99

    Stays
        tenant/99/silo/log-group/cluster (/acme/99/cluster),
        tenant/99/silo/log-group/flow (/acme/99/flow)
            audit logs are kept; --delete-logs deletes them

    These deletions lose work or data and must be confirmed
        tenant/99/silo (1 resource)
            - all that runs in cluster acme-99
            - all that is encrypted with key 99
            kept: tenant/99/silo/log-group/cluster, tenant/99/silo/log-group/flow
        On a terminal, apply asks for each deletion. Without a terminal, add --allow-destroy ADDRESS for
        each of them.

    Note: the newest version of coredns is v1.12; --upgrade installs it

    Plan: 0 to add, 2 to change, 1 to replace, 1 to destroy.
    "#);
}

#[test]
fn counts_of_groups_add_up() {
    for plan in [three_tiers(), changes()] {
        let depth = view::Depth { all: true, width: 100 };
        let mut sum = crate::engine::plan::Summary::default();
        for group in view::groups(&plan, &subject(), &kinds(), depth) {
            sum.add += group.counts.add;
            sum.change += group.counts.change;
            sum.replace += group.counts.replace;
            sum.destroy += group.counts.destroy;
        }
        assert_eq!(sum, plan.summary());
    }
}

#[test]
fn nothing_to_do() {
    let plan = Plan { unchanged: 121, ..Plan::default() };
    insta::assert_snapshot!(shown(&plan, &subject(), Format::Human, false), @r#"
    Plan for acme: account 123456789012, us-east-1, tenancy.yaml

    No changes. All 121 resources match the spec.
    "#);
    let destroy = Subject { policy: Policy { destroy: true, ..Policy::default() }, ..subject() };
    insta::assert_snapshot!(shown(&Plan::default(), &destroy, Format::Human, false), @r#"
    Plan to destroy acme: account 123456789012, us-east-1, tenancy.yaml

    No changes. There is nothing to destroy.
    "#);
}

#[test]
fn many_tenants_stay_readable() {
    let mut subject = subject();
    let mut plan = Plan::default();
    for i in 1001..1201 {
        let id = i.to_string();
        subject.tenants.insert(id.clone(), Tenant { name: format!("name-{i}"), tier: "standard".into() });
        // One of them gets other machines.
        plan.steps.extend(pool_tenant(&id, if i == 1100 { "c7g.large 1–5" } else { "m7g.large 1–5" }));
    }
    let text = shown(&plan, &subject, Format::Human, false);
    insta::assert_snapshot!(text, @r#"
    Plan for acme: account 123456789012, us-east-1, tenancy.yaml

    tenant/1001 name-1001 (standard)
      + k8s/{limit-range,quota}  QUOTA-1
      + k8s/namespace            t-1001  NS-1
      + k8s/network-policy/{allow-dns,allow-same-namespace,default-deny}  NET-1
      + pool/launch-template     IMDSv2, hop limit 1  NET-2
      + pool/node-group          m7g.large 1–5  NODE-1 HOST-1
      + pool/role/node
      + pool/security-group      SILO-2

    198 tenants like tenant/1001, 10 to add each (-v shows all)
        1002 name-1002, 1003 name-1003, 1004 name-1004, 1005 name-1005, 1006 name-1006, 1007 name-1007,
        1008 name-1008, 1009 name-1009, 1010 name-1010, 1011 name-1011, 1012 name-1012, 1013 name-1013,
        1014 name-1014, 1015 name-1015, 1016 name-1016, 1017 name-1017, 1018 name-1018, 1019 name-1019,
        1020 name-1020, 1021 name-1021, 1022 name-1022, 1023 name-1023, 1024 name-1024, 1025 name-1025,
        … 174 more

    tenant/1100 name-1100 (standard)
      + k8s/{limit-range,quota}  QUOTA-1
      + k8s/namespace            t-1100  NS-1
      + k8s/network-policy/{allow-dns,allow-same-namespace,default-deny}  NET-1
      + pool/launch-template     IMDSv2, hop limit 1  NET-2
      + pool/node-group          c7g.large 1–5  NODE-1 HOST-1
      + pool/role/node
      + pool/security-group      SILO-2

    Plan: 2000 to add, 0 to change, 0 to replace, 0 to destroy.
    "#);
    assert!(shown(&plan, &subject, Format::Human, true).lines().count() > 2000);
}

#[test]
fn a_change_of_everything_is_one_line_a_group() {
    let mut plan = Plan { steps: cluster("pool/shared-1", "10.64.0.0/16"), ..Plan::default() };
    for step in &mut plan.steps {
        step.action = Action::Update;
        step.changes = vec![change("tags[\"cost-center\"]", json!("saas"), json!("platform"))];
    }
    insta::assert_snapshot!(shown(&plan, &subject(), Format::Human, false), @r#"
    Plan for acme: account 123456789012, us-east-1, tenancy.yaml

    pool/shared-1
      ~ 41 resources
            access/admin-platformadmin, addon/coredns, addon/eks-pod-identity-agent, addon/kube-proxy, …
            tags["cost-center"]: "saas" → "platform"

    Plan: 0 to add, 41 to change, 0 to replace, 0 to destroy.
    "#);
}

#[test]
fn secrets_are_masked_everywhere() {
    let mut secret = step("tenancy/secret", "aws.secretive", Action::Create, "", &[]);
    secret.state = Some(json!({"name": "n", "password": "hunter2"}).into());
    let plan = Plan { steps: vec![secret], ..Plan::default() };
    for format in [Format::Human, Format::Json, Format::Markdown, Format::Html] {
        let text = shown(&plan, &subject(), format, true);
        assert!(!text.contains("hunter2") && text.contains("secret"), "{text}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "the snapshot of a whole document")]
fn the_json_plan_is_one_line_with_everything() {
    let mut plan = changes();
    plan.steps.truncate(2);
    plan.blocked.truncate(1);
    plan.kept.truncate(1);
    let text = shown(&plan, &subject(), Format::Json, false);
    assert_eq!(text.lines().count(), 1);
    let document: Value = serde_json::from_str(&text).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap(), @r#"
    {
      "schema": "ringfence.dev/plan/v1",
      "type": "plan",
      "tenancy": "acme",
      "account": "123456789012",
      "region": "us-east-1",
      "spec": {
        "file": "tenancy.yaml",
        "hash": "sha256:c0ffee"
      },
      "selection": {
        "tenants": [],
        "with_deps": false,
        "destroy": false,
        "allow_replace": [],
        "allow_destroy": [],
        "delete_logs": false,
        "aws_only": false
      },
      "summary": {
        "add": 0,
        "change": 0,
        "replace": 1,
        "destroy": 0
      },
      "unchanged": 40,
      "steps": [
        {
          "address": "tenant/12345/silo/subnet/private-a",
          "owner": "tenant/12345",
          "kind": "aws.subnet",
          "action": "delete",
          "replaces": true,
          "generation": 1,
          "id": "subnet-1",
          "reason": "zone can't be changed in place",
          "reason_code": "fixed",
          "summary": "10.65.0.0/18",
          "controls": [],
          "changes": [],
          "state": null,
          "needs": []
        },
        {
          "address": "tenant/12345/silo/subnet/private-a",
          "owner": "tenant/12345",
          "kind": "aws.subnet",
          "action": "create",
          "replaces": true,
          "generation": 2,
          "id": null,
          "reason": null,
          "reason_code": null,
          "summary": "10.65.0.0/18",
          "controls": [],
          "changes": [
            {
              "path": "zone",
              "before": "us-east-1a",
              "after": "us-east-1b",
              "after_unknown": false,
              "replaces": true,
              "secret": false
            }
          ],
          "state": {
            "cidr": "10.65.0.0/18",
            "vpc": "${tenant/12345/silo/vpc.id}",
            "zone": "us-east-1b"
          },
          "needs": [
            {
              "address": "tenant/12345/silo/subnet/private-a",
              "action": "delete"
            }
          ]
        }
      ],
      "blocked": [
        {
          "address": "tenant/12345/silo/vpc",
          "owner": "tenant/12345",
          "kind": "aws.vpc",
          "reason": "a change of cidr needs a replacement, and everything in it with it",
          "reason_code": "refused",
          "help": "if this is intended, add --allow-replace tenant/12345/silo/vpc",
          "pending": false,
          "cluster": null,
          "unmet": false,
          "controls": [],
          "changes": [
            {
              "path": "cidr",
              "before": "10.65.0.0/16",
              "after": "10.66.0.0/16",
              "after_unknown": false,
              "replaces": true,
              "secret": false
            }
          ]
        }
      ],
      "blocked_clusters": [],
      "kept": [
        {
          "address": "tenant/99/silo/log-group/cluster",
          "owner": "tenant/99",
          "kind": "aws.log-group",
          "id": "/acme/99/cluster",
          "reason": "audit logs are kept; --delete-logs deletes them",
          "reason_code": "audit-logs"
        }
      ],
      "confirm": [
        {
          "address": "tenant/99/silo",
          "lost": [
            "all that runs in cluster acme-99",
            "all that is encrypted with key 99"
          ],
          "kept": [
            "tenant/99/silo/log-group/cluster",
            "tenant/99/silo/log-group/flow"
          ]
        }
      ],
      "notes": [
        "the newest version of coredns is v1.12; --upgrade installs it"
      ],
      "warnings": []
    }
    "#);
    assert_eq!(text, shown(&plan, &subject(), Format::Json, false));
    let face = face(Format::Json, true, screen(), "");
    face.ui.plan(&changes(), &subject(), &kinds(), &[("ec2:DescribeVpcs".to_owned(), 2)].into()).unwrap();
    let document: Value = serde_json::from_str(&face.out.text()).unwrap();
    assert_eq!(document["calls"], json!({"ec2:DescribeVpcs": 2}));
}

fn hostile() -> (Plan, Subject) {
    let name = "a|b`c`<img src=x onerror=alert(1)>\n## @team [x](y) \u{1b}[31m\u{202e}";
    let mut subject = subject();
    subject.tenants.insert("66".into(), Tenant { name: name.into(), tier: "standard".into() });
    let mut update = step("tenant/66/pool/node-group", "aws.node-group", Action::Update, "x ```` y", &["NODE-1"]);
    update.changes = vec![change("tags[\"k\"]", json!("</details></pre>```"), json!(name))];
    (Plan { steps: vec![update], notes: [format!("note {name}").into()].into(), ..Plan::default() }, subject)
}

#[test]
fn hostile_names_stay_text() {
    let (plan, subject) = hostile();
    insta::assert_snapshot!(shown(&plan, &subject, Format::Markdown, false), @r#"
    ## Plan for acme: account 123456789012, us-east-1, tenancy.yaml

    **Plan: 0 to add, 1 to change, 0 to replace, 0 to destroy.**

    | | add | change | replace | destroy | blocked |
    |---|--:|--:|--:|--:|--:|
    | <code>tenant/66 a&#124;b&#96;c&#96;&#60;img src=x onerror=alert(1)&#62;&#92;n&#35;&#35; &#64;team &#91;x&#93;(y) &#92;u{1b}&#91;31m&#92;u{202e} (standard)</code> | 0 | 1 | 0 | 0 | 0 |

    <details><summary><code>tenant/66 a&#124;b&#96;c&#96;&#60;img src=x onerror=alert(1)&#62;&#92;n&#35;&#35; &#64;team &#91;x&#93;(y) &#92;u{1b}&#91;31m&#92;u{202e} (standard)</code>: 1 to change</summary>

    `````diff
    ! ~ pool/node-group  x ```` y  NODE-1
          tags["k"]: 3 lines changed (-v shows all)
    `````

    </details>

    - note a&#124;b&#96;c&#96;&#60;img src=x onerror=alert(1)&#62; &#35;&#35; &#64;team &#91;x&#93;(y) &#92;u{1b}&#91;31m&#92;u{202e}
    "#);
    let page = shown(&plan, &subject, Format::Html, false);
    assert!(
        !page.contains("<img") && !page.contains("</pre>`") && !page.contains('\u{202e}') && !page.contains('\u{1b}')
    );
    let text = shown(&plan, &subject, Format::Human, true);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
}

#[test]
fn markdown_for_a_pull_request() {
    insta::assert_snapshot!(shown(&changes(), &subject(), Format::Markdown, false), @r#"
    ## Plan for acme: account 123456789012, us-east-1, tenancy.yaml

    **Plan: 0 to add, 2 to change, 1 to replace, 1 to destroy.**

    | | add | change | replace | destroy | blocked |
    |---|--:|--:|--:|--:|--:|
    | <code>tenant/12345 globex (premium)</code> | 0 | 2 | 1 | 0 | 1 |
    | <code>tenant/23456 initech (standard)</code> | 0 | 0 | 0 | 0 | 6 |
    | <code>tenant/99 (not in the spec)</code> | 0 | 0 | 0 | 1 | 0 |

    > [!CAUTION]
    > These deletions lose work or data and must be confirmed:
    > - <code>tenant/99/silo</code>: all that runs in cluster acme-99; all that is encrypted with key 99. Kept: tenant/99/silo/log-group/cluster, tenant/99/silo/log-group/flow
    >
    > On a terminal, apply asks for each deletion. Without a terminal, add --allow-destroy ADDRESS for each of them.

    <details><summary><code>tenant/12345 globex (premium)</code>: 2 to change, 1 to replace, 1 blocked</summary>

    ```diff
    - silo/launch-template/main
          rest of an interrupted replacement
    ! … silo/nat/a
          it is pending
    ! ~ silo/node-group/main       m7g.large 2–5  HOST-1
          max: 3 → 5
          labels["team/owner"]: (none) → "a"
          subnets: - "subnet-1", + "subnet-3"
          template_version: "4" → (known after apply)
          password: changed (secret)
          … 2 more (-v)
    - -/+ silo/subnet/private-a    10.65.0.0/18
    !     zone: "us-east-1a" → "us-east-1b" (forces replacement)
    ! ! silo/vpc
    !     a change of cidr needs a replacement, and everything in it with it
    !     cidr: "10.65.0.0/16" → "10.66.0.0/16" (forces replacement)
          help: if this is intended, add --allow-replace tenant/12345/silo/vpc
    ```

    </details>

    <details><summary><code>tenant/23456 initech (standard)</code>: 6 blocked</summary>

    ```diff
    ! ! 6 in-cluster objects
          k8s/limit-range, k8s/namespace, k8s/network-policy/default-deny, k8s/quota, k8s/role-binding/edit, k8…
          the API server of shared-1 can't be reached: connection to 10.64.3.7:443 timed out after 5 s
          help: run ringfence where the VPC can be reached, or give it a way in with --kubeconfig shared-1=FILE
    ```

    </details>

    <details><summary><code>tenant/99 (not in the spec)</code>: 1 to destroy</summary>

    ```diff
    - silo/cluster    1.35
          first: deletion_protection: true → false
    ```

    </details>

    **Stays**: <code>tenant/99/silo/log-group/cluster</code> (audit logs are kept; --delete-logs deletes them), <code>tenant/99/silo/log-group/flow</code> (audit logs are kept; --delete-logs deletes them)

    - the newest version of coredns is v1.12; --upgrade installs it
    "#);
}

#[test]
fn markdown_fits_a_comment() {
    let mut subject = subject();
    let mut plan = Plan::default();
    for i in 0..200 {
        let id = format!("x{i}");
        subject.tenants.insert(id.clone(), Tenant { name: id.clone(), tier: "standard".into() });
        for n in 0..20 {
            let address = format!("tenant/{id}/pool/thing-{n}/{}", i * 31 % 97);
            plan.steps.push(step(&address, "aws.vpc", Action::Create, &"s".repeat(i), &[]));
        }
    }
    let text = shown(&plan, &subject, Format::Markdown, false);
    assert!(text.len() < 65_536, "{}", text.len());
    assert!(text.contains("not shown"));
}

#[test]
fn the_page_needs_nothing_else() {
    let page = shown(&changes(), &subject(), Format::Html, false);
    assert!(
        !page.contains("http://") && !page.contains("https://") && !page.contains("<script") && !page.contains("src=")
    );
    for tag in ["details", "summary", "table", "pre", "div", "ul", "span", "p", "code"] {
        let open = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    assert!(page.contains("Plan: 0 to add, 2 to change, 1 to replace, 1 to destroy."));
}

fn ended() -> (Report, Plan) {
    let line = |address: &str, action, replaces, outcome| Line {
        address: Address::new(address),
        kind: "aws.any",
        action,
        replaces,
        controls: vec![],
        outcome,
    };
    let error = Error {
        class: Class::Failed,
        message: "the cluster is FAILED: Cannot create cluster, the targeted availability zone is full".into(),
        code: Some("UnsupportedAvailabilityZoneException".into()),
        operation: Some("eks:CreateCluster".into()),
        help: Some("choose other zones for this tenant".into()),
    };
    let cluster = Address::new("tenant/12345/silo/cluster");
    let role = Address::new("tenant/12345/silo/addon/vpc-cni");
    let mut lines = vec![
        line("tenant/12345/silo/vpc", Action::Create, false, Outcome::Done),
        line("tenant/12345/silo/subnet/private-a", Action::Delete, true, Outcome::Done),
        line("tenant/12345/silo/subnet/private-a", Action::Create, true, Outcome::Done),
        line("tenant/23456/pool/node-group", Action::Update, false, Outcome::Done),
        line(cluster.as_str(), Action::Create, false, Outcome::Failed { error: error.clone() }),
        line(role.as_str(), Action::Create, false, Outcome::Skipped { because: cluster }),
        line(
            "tenant/9/silo/vpc",
            Action::Delete,
            false,
            Outcome::Failed { error: Error::new(Class::Quota, "too much") },
        ),
    ];
    for i in 0..12 {
        let because = role.clone();
        lines.push(line(&format!("tenant/12345/silo/object-{i}"), Action::Create, false, Outcome::Skipped { because }));
    }
    let differs = vec![(Address::new("tenant/12345/silo/vpc"), Differs::Fields(vec!["dns_support".to_owned()]))];
    let report = Report { lines, took: Duration::from_secs(552), interrupted: false, differs, unconfirmed: vec![] };
    (report, Plan { blocked: changes().blocked.split_off(1), ..Plan::default() })
}

#[test]
fn the_end_of_a_run_that_failed() {
    let (report, plan) = ended();
    let shown = face(Format::Human, true, screen(), "");
    let calls =
        [("ec2:DescribeVpcs".to_owned(), 2), ("ec2:CreateTags".to_owned(), 2), ("eks:CreateCluster".to_owned(), 31)];
    shown.ui.report(&report, &plan, &Ending::default(), &calls.into()).unwrap();
    insta::assert_snapshot!(shown.out.text(), @r#"
    Failed
      ✗ tenant/12345/silo/cluster: not created
          eks:CreateCluster: the cluster is FAILED: Cannot create cluster, the targeted availability
          zone is full (UnsupportedAvailabilityZoneException)
          the resource exists in a failed state; the next run repairs or replaces it
          help: choose other zones for this tenant
      ✗ tenant/9/silo/vpc: not destroyed
          too much
          the resource still exists
          help: request a quota increase in Service Quotas, or delete unused resources, then run the
                same command

    Skipped because of tenant/12345/silo/cluster: 13 resources
        tenant/12345/silo/addon/vpc-cni, tenant/12345/silo/object-0, tenant/12345/silo/object-1,
        tenant/12345/silo/object-2, tenant/12345/silo/object-3, tenant/12345/silo/object-4,
        tenant/12345/silo/object-5, tenant/12345/silo/object-6, tenant/12345/silo/object-7,
        tenant/12345/silo/object-8, tenant/12345/silo/object-9, tenant/12345/silo/object-10,
        tenant/12345/silo/object-11

    Waiting: 6 resources
        tenant/23456/k8s/limit-range, tenant/23456/k8s/namespace,
        tenant/23456/k8s/network-policy/default-deny, tenant/23456/k8s/quota,
        tenant/23456/k8s/role-binding/edit, tenant/23456/k8s/role/edit
          the API server of shared-1 can't be reached: connection to 10.64.3.7:443 timed out after 5 s
          help: run ringfence where the VPC can be reached, or give it a way in with --kubeconfig
                shared-1=FILE

    Different from the spec although the run changed them
      tenant/12345/silo/vpc: dns_support
        Either another program changes these resources at the same time, or this is a bug in ringfence.
        Please report it if nothing else changes them.

    Apply incomplete: 1 added, 1 changed, 1 replaced, 0 destroyed in 9m 12s.
    Next: run the same command again; it reads what exists and continues from there
    "#);
    insta::assert_snapshot!(shown.err.text(), @r#"

    Calls by action
         31  eks:CreateCluster
          2  ec2:CreateTags
          2  ec2:DescribeVpcs
         35  in total
    "#);
    let markdown = face(Format::Markdown, false, screen(), "");
    markdown.ui.report(&report, &plan, &Ending::default(), &BTreeMap::new()).unwrap();
    assert!(markdown.out.text().starts_with("```text\nFailed\n"));
    // The next run would refuse the address of a deleted resource.
    let again = face(Format::Human, false, screen(), "");
    let gone = [Address::new("tenant/23456/pool/shared-1")];
    again.ui.report(&report, &plan, &Ending { gone: &gone, ..Ending::default() }, &BTreeMap::new()).unwrap();
    let text = again.out.text().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.ends_with(", without --allow-destroy tenant/23456/pool/shared-1, because that deletion is done"),
        "{text}"
    );
}

#[test]
fn the_end_of_a_run_that_succeeded() {
    let line = Line {
        address: Address::new("tenancy/a"),
        kind: "aws.any",
        action: Action::Create,
        replaces: false,
        controls: vec![],
        outcome: Outcome::Done,
    };
    let report = Report { lines: vec![line; 121], took: Duration::from_secs(552), ..Report::default() };
    let shown = face(Format::Human, false, screen(), "");
    let ending = Ending { note: Some("Times are the sandbox's."), next: Some("ringfence prove"), ..Ending::default() };
    shown.ui.report(&report, &Plan::default(), &ending, &BTreeMap::new()).unwrap();
    insta::assert_snapshot!(shown.out.text(), @r#"
    Apply complete: 121 added, 0 changed, 0 replaced, 0 destroyed in 9m 12s.
    Times are the sandbox's.
    Next: ringfence prove
    "#);
}

#[test]
fn the_json_report_is_the_last_line() {
    let (mut report, plan) = ended();
    report.lines.truncate(7);
    let shown = face(Format::Json, false, screen(), "");
    shown.ui.report(&report, &plan, &Ending::default(), &BTreeMap::new()).unwrap();
    assert_eq!(shown.out.text().lines().count(), 1);
    let document: Value = serde_json::from_str(&shown.out.text()).unwrap();
    assert_eq!(document["type"], "report");
    assert_eq!(document["summary"], json!({"add": 1, "change": 1, "replace": 1, "destroy": 0}));
    assert_eq!(document["lines"][4]["error"]["class"], "failed");
    assert_eq!(document["lines"][5]["because"], "tenant/12345/silo/cluster");
    assert_eq!(document["took_seconds"], 552.0);
}

fn spec_errors() -> SpecErrors {
    let at = |line, column, length, text: &str| Excerpt {
        file: "tenancy.yaml".into(),
        line,
        column,
        length,
        text: text.into(),
        text_column: column,
    };
    let error = |code, path: &str, at, message: &str, help: Option<&str>| SpecError {
        code,
        path: path.into(),
        at,
        message: message.into(),
        help: help.map(str::to_owned),
        related: None,
    };
    SpecErrors(vec![
        error(
            Code::UnknownField,
            "spec.tenents",
            at(12, 3, 7, "  tenents:"),
            "`tenents` isn't a field of spec",
            Some("did you mean `tenants`?"),
        ),
        SpecError {
            related: Some(Related { at: at(8, 9, 7, "  - id: \"12345\""), label: "first here".into() }),
            ..error(
                Code::Duplicate,
                "spec.tenants[3].id",
                at(131, 9, 7, "  - id: \"12345\" \u{1b}[2J"),
                "two tenants have the id 12345",
                None,
            )
        },
        error(
            Code::Network,
            "spec.network.supernet",
            at(9, 13, 5, "\tsupernet: \u{7}10.64"),
            "10.64 isn't a CIDR block",
            Some("write it as 10.64.0.0/12"),
        ),
        error(Code::Syntax, "", at(0, 0, 1, ""), "the file is empty", None),
    ])
}

#[test]
fn several_spec_errors_at_once() {
    let shown = face(Format::Human, false, screen(), "");
    shown.ui.failure(&spec_errors().into());
    assert_eq!(shown.out.text(), "");
    insta::assert_snapshot!(shown.err.text(), @r#"
    error: `tenents` isn't a field of spec
      --> tenancy.yaml:12:3
       |
    12 |   tenents:
       |   ^^^^^^^
       = at spec.tenents
       = help: did you mean `tenants`?

    error: two tenants have the id 12345
       --> tenancy.yaml:131:9
        |
    131 |   - id: "12345" \u{1b}[2J
        |         ^^^^^^^
       ::: tenancy.yaml:8:9
        |
      8 |   - id: "12345"
        |         ^^^^^^^ first here
        = at spec.tenants[3].id

    error: 10.64 isn't a CIDR block
     --> tenancy.yaml:9:13
      |
    9 |     supernet: \u{7}10.64
      |                    ^^^^^
      = at spec.network.supernet
      = help: write it as 10.64.0.0/12

    error: the file is empty
     --> tenancy.yaml

    error: 4 errors in the spec
    "#);
}

#[test]
fn marks_are_aligned_under_wide_characters() {
    let SpecErrors(mut errors) = spec_errors();
    errors.truncate(1);
    if let [error] = errors.as_mut_slice() {
        let text = "  {name: 株式会社🚀, tier: 標準}";
        error.at = Excerpt { text: text.into(), text_column: 23, length: 2, ..error.at.clone() };
    }
    let shown = face(Format::Human, false, screen(), "");
    shown.ui.failure(&SpecErrors(errors).into());
    insta::assert_snapshot!(shown.err.text(), @"
    error: `tenents` isn't a field of spec
      --> tenancy.yaml:12:3
       |
    12 |   {name: 株式会社🚀, tier: 標準}
       |                            ^^^^
       = at spec.tenents
       = help: did you mean `tenants`?

    error: 1 error in the spec
    ");
}

#[test]
fn warnings_are_for_people() {
    let shown = face(Format::Human, false, screen(), "");
    shown.ui.warnings(&spec_errors().0[..1]);
    assert!(shown.err.text().starts_with("warning: `tenents`"));
    let shown = face(Format::Json, false, screen(), "");
    shown.ui.warnings(&spec_errors().0);
    assert_eq!(shown.out.text() + &shown.err.text(), "");
}

#[test]
fn failures_of_a_run() {
    let denied = Error::new(Class::Denied, "you may not list the clusters of 123456789012 in us-east-1: User: arn:aws:iam::123456789012:user/ci is not authorized to perform: eks:ListClusters")
        .operation("eks:ListClusters");
    let shown = face(Format::Human, false, screen(), "");
    shown.ui.failure(&Error { code: Some("AccessDeniedException".into()), ..denied.clone() }.into());
    shown.ui.failure(&Error::input("tenancy.yaml doesn't exist").help("name it with --file").into());
    shown.ui.failure(&io::Error::from(io::ErrorKind::StorageFull).into());
    insta::assert_snapshot!(shown.err.text(), @r#"
    access denied: you may not list the clusters of 123456789012 in us-east-1: User:
                   arn:aws:iam::123456789012:user/ci is not authorized to perform: eks:ListClusters
      call: eks:ListClusters answered AccessDeniedException
      help: check which credentials are used, whether they have expired, and which permissions they have
    error: tenancy.yaml doesn't exist
      help: name it with --file
    error: the output can't be written: no storage space
      help: free some space, then run the same command
    "#);
    let shown = face(Format::Json, false, screen(), "");
    shown.ui.failure(&denied.into());
    shown.ui.failure(&SpecErrors(spec_errors().0.split_off(3)).into());
    assert_eq!(shown.err.text(), "");
    insta::assert_snapshot!(shown.out.text(), @r#"
    {"schema":"ringfence.dev/error/v1","type":"error","errors":[{"class":"denied","message":"you may not list the clusters of 123456789012 in us-east-1: User: arn:aws:iam::123456789012:user/ci is not authorized to perform: eks:ListClusters","code":null,"operation":"eks:ListClusters","help":"check which credentials are used, whether they have expired, and which permissions they have"}]}
    {"schema":"ringfence.dev/error/v1","type":"error","errors":[{"class":"spec","code":"syntax","message":"the file is empty","path":"","help":null,"at":{"file":"tenancy.yaml","line":0,"column":0,"length":1,"text":""},"related":null}]}
    "#);
}

fn events() -> Vec<Event> {
    let address = |local: &str| Address::new(format!("tenant/12345/silo/{local}"));
    let start = |step, local: &str, expected| Event::Start {
        step,
        address: address(local),
        kind: "aws.any",
        action: Action::Create,
        expected: Duration::from_secs(expected),
    };
    let done = |step, local: &str, took| Event::Done {
        step,
        address: address(local),
        action: Action::Create,
        id: "id".into(),
        took: Duration::from_secs(took),
    };
    let progress = |detail: &str| Event::Progress { step: 1, address: address("cluster"), detail: detail.into() };
    vec![
        Event::Begin { steps: 4, expected: Duration::from_secs(530) },
        start(0, "vpc", 2),
        done(0, "vpc", 2),
        start(1, "cluster", 500),
        progress("CREATING"),
        progress("waiting for its endpoint"),
        progress("waiting for its endpoint"),
        start(2, "role/node", 2),
        Event::Retry {
            step: 2,
            address: address("role/node"),
            error: Error::new(Class::Throttled, "slow down"),
            after: Duration::from_secs(1),
        },
        Event::Failed {
            step: 2,
            address: address("role/node"),
            action: Action::Create,
            error: Error::new(Class::Denied, "you may not make roles\u{1b}[31m").operation("iam:CreateRole"),
            took: Duration::from_millis(300),
        },
        Event::Skipped {
            step: 3,
            address: address("node-group/main"),
            action: Action::Create,
            because: address("role/node"),
        },
        done(1, "cluster", 512),
        Event::Stopping { running: 0 },
        Event::End { took: Duration::from_secs(515) },
    ]
}

async fn ran(face: &Face, events: Vec<Event>) -> io::Result<()> {
    let (send, receive) = unbounded_channel();
    for event in events {
        send.send(event).unwrap();
    }
    drop(send);
    face.ui.run(receive, &Clock::real(), Some("Times are the sandbox's.")).await
}

#[tokio::test]
async fn plain_progress() {
    let face = face(Format::Human, false, Terminal::none(), "");
    face.ui.status("Reading the existing resources in 123456789012/us-east-1");
    ran(&face, events()).await.unwrap();
    assert_eq!(face.out.text(), "");
    insta::assert_snapshot!(face.err.text(), @r#"
    Reading the existing resources in 123456789012/us-east-1…
    Times are the sandbox's.
    4 steps to do, about 9m
    [1/4] tenant/12345/silo/vpc created (2s)
    tenant/12345/silo/cluster: creating, takes about 9m
    tenant/12345/silo/cluster: waiting for its endpoint
    [2/4] tenant/12345/silo/role/node not created (<1s): iam:CreateRole: you may not make roles\u{1b}[31m
    [4/4] tenant/12345/silo/cluster created (8m 32s)
    Stopping: no new step starts, 0 steps still running; press Ctrl-C again to leave at once
    "#);
}

#[tokio::test]
async fn json_progress() {
    let face = face(Format::Json, false, Terminal { err: true, out: true, ..Terminal::none() }, "");
    ran(&face, events()).await.unwrap();
    insta::assert_snapshot!(face.out.text(), @r#"
    {"type":"begin","schema":"ringfence.dev/apply/v1","steps":4,"expected_seconds":530.0}
    {"type":"start","step":0,"address":"tenant/12345/silo/vpc","kind":"aws.any","action":"create","expected_seconds":2.0}
    {"type":"done","step":0,"address":"tenant/12345/silo/vpc","action":"create","id":"id","took_seconds":2.0}
    {"type":"start","step":1,"address":"tenant/12345/silo/cluster","kind":"aws.any","action":"create","expected_seconds":500.0}
    {"type":"progress","step":1,"address":"tenant/12345/silo/cluster","detail":"CREATING"}
    {"type":"progress","step":1,"address":"tenant/12345/silo/cluster","detail":"waiting for its endpoint"}
    {"type":"progress","step":1,"address":"tenant/12345/silo/cluster","detail":"waiting for its endpoint"}
    {"type":"start","step":2,"address":"tenant/12345/silo/role/node","kind":"aws.any","action":"create","expected_seconds":2.0}
    {"type":"retry","step":2,"address":"tenant/12345/silo/role/node","error":{"class":"throttled","message":"slow down","code":null,"operation":null,"help":"wait a minute, then run the same command; a lower --parallelism makes fewer calls at the same time"},"after_seconds":1.0}
    {"type":"failed","step":2,"address":"tenant/12345/silo/role/node","action":"create","error":{"class":"denied","message":"you may not make roles\u001b[31m","code":null,"operation":"iam:CreateRole","help":"check which credentials are used, whether they have expired, and which permissions they have"},"took_seconds":0.3}
    {"type":"skipped","step":3,"address":"tenant/12345/silo/node-group/main","action":"create","because":"tenant/12345/silo/role/node"}
    {"type":"done","step":1,"address":"tenant/12345/silo/cluster","action":"create","id":"id","took_seconds":512.0}
    {"type":"stopping","running":0}
    {"type":"end","took_seconds":515.0}
    "#);
    assert_eq!(face.err.text(), "Times are the sandbox's.\n");
}

/// A log gets a new line at least once a minute.
#[test]
fn without_a_terminal_a_line_is_written_each_minute() {
    let face = face(Format::Human, false, Terminal::none(), "");
    let (hand, (send, receive)) = (Hand::default(), unbounded_channel());
    let clock = hand.clock();
    let run = async {
        let mut all = events().into_iter();
        // The cluster is being made, and the role's call is tried again.
        all.by_ref().take(9).for_each(|event| send.send(event).unwrap());
        clock.sleep(Duration::from_secs(150)).await;
        all.by_ref().take(2).for_each(|event| send.send(event).unwrap());
        clock.sleep(Duration::from_secs(100)).await;
        all.for_each(|event| send.send(event).unwrap());
        drop(send);
    };
    hand.run(async { tokio::join!(face.ui.run(receive, &clock, None), run) }).unwrap().0.unwrap();
    insta::assert_snapshot!(face.err.text(), @r#"
    4 steps to do, about 9m
    [1/4] tenant/12345/silo/vpc created (2s)
    tenant/12345/silo/cluster: creating, takes about 9m
    tenant/12345/silo/cluster: waiting for its endpoint
    [1/4] 1m of about 9m: still creating tenant/12345/silo/cluster (1m of about 9m), waiting for its endpoint; 1 more running
    [1/4] 2m of about 9m: still creating tenant/12345/silo/cluster (2m of about 9m), waiting for its endpoint; 1 more running
    [2/4] tenant/12345/silo/role/node not created (<1s): iam:CreateRole: you may not make roles\u{1b}[31m
    [3/4] 3m 30s of about 9m: still creating tenant/12345/silo/cluster (3m 30s of about 9m), waiting for its endpoint
    [4/4] tenant/12345/silo/cluster created (8m 32s)
    Stopping: no new step starts, 0 steps still running; press Ctrl-C again to leave at once
    "#);
}

#[test]
fn the_bar_and_what_is_under_way() {
    let mut board = Board::default();
    let paint = Paint(false);
    let mut above = Vec::new();
    for (i, event) in events().iter().take(10).enumerate() {
        above.extend(board.take(event, Duration::from_secs(i as u64 * 10), false, paint));
    }
    for step in 10..30 {
        let address = Address::new(format!("pool/a/thing-{step}"));
        let event = Event::Start { step, address, kind: "aws.any", action: Action::Delete, expected: Duration::ZERO };
        board.take(&event, Duration::from_secs(80), false, paint);
    }
    let lines = board.lines(Duration::from_secs(90), 80, 10, paint);
    insta::assert_snapshot!(format!("{}\n\n{}", above.join("\n"), lines.join("\n")), @r#"
    ✓ tenant/12345/silo/vpc created (2s)
    ✗ tenant/12345/silo/role/node not created (<1s): iam:CreateRole: you may not make roles\u{1b}[31m

    [===========>            ] 2/4  1m 30s of about 9m  1 failed
      tenant/12345/silo/cluster  creating  1m of about 9m  waiting for its endpoint
      pool/a/thing-10            destroying  10s
      pool/a/thing-11            destroying  10s
      pool/a/thing-12            destroying  10s
      pool/a/thing-13            destroying  10s
      pool/a/thing-14            destroying  10s
      and 15 more
    "#);
}

#[tokio::test]
async fn progress_on_a_terminal() {
    let face = face(Format::Human, false, screen(), "");
    face.ui.status("Reading");
    ran(&face, events()).await.unwrap();
    let text = face.err.text();
    assert!(text.contains("Reading…") && text.contains("✓ tenant/12345/silo/vpc created (2s)"), "{text}");
    assert!(text.contains("✗ tenant/12345/silo/role/node not created"), "{text}");
    assert_eq!(face.out.text(), "");
}

#[tokio::test]
async fn a_closed_pipe_is_not_an_error_and_a_full_disk_is() {
    let broken = |kind| {
        let streams =
            Streams { input: Box::new(Cursor::new(vec![])), out: Box::new(Broken(kind)), err: Box::new(Broken(kind)) };
        Ui::new(Options { format: Format::Json, ..Options::default() }, streams, Terminal::none())
    };
    broken(io::ErrorKind::BrokenPipe).print("x").unwrap();
    let full = broken(io::ErrorKind::StorageFull);
    assert_eq!(full.print("x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    full.status("x");
    full.failure(&Error::bug("x").into());
    let (send, receive) = unbounded_channel();
    for event in events() {
        send.send(event).unwrap();
    }
    drop(send);
    assert_eq!(full.run(receive, &Clock::real(), None).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[tokio::test]
async fn a_yes_and_the_address_of_what_is_deleted_as_a_whole() {
    let whole = BTreeSet::from([Address::new("tenant/99/silo")]);
    let ask = async |input: &str, terminal, whole: &BTreeSet<Address>| {
        let face = face(Format::Human, false, terminal, input);
        let answer = face.ui.confirm("Apply this plan?", whole).await;
        assert_eq!(face.out.text(), "");
        (answer.map_err(|f| f.to_string() + &format!("{f:?}")), face.err.text())
    };
    let nothing = BTreeSet::new();
    assert_eq!(ask("yes\n", screen(), &nothing).await.0, Ok(true));
    assert_eq!(ask("y\n", screen(), &nothing).await.0, Ok(false));
    assert_eq!(ask("", screen(), &nothing).await.0, Ok(false));
    assert_eq!(ask("yes\nyes\n", screen(), &whole).await.0, Ok(false));
    let (answer, text) = ask("yes\ntenant/99/silo\n", screen(), &whole).await;
    assert_eq!(answer, Ok(true));
    insta::assert_snapshot!(text, @r#"

    Apply this plan? Type `yes` to continue: 
    This deletes tenant/99/silo with the work and data that the plan names. Type its address to continue:
    "#);
    let refusal = ask("yes\n", Terminal::none(), &whole).await.0.unwrap_err();
    assert!(
        refusal.contains("--auto-approve; `apply` and `destroy --tenant` also need --allow-destroy tenant/99/silo"),
        "{refusal}"
    );
}
