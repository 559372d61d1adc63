//! `policyEngine: webhook`: ringfence's own webhook, asked by a real API server of a version that fills in nothing.
//!
//! The webhook's programs run beside the API server, with the token of their service account. Their addresses stand in an
//! EndpointSlice, which a controller would write for Pods.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fixture::serving;
use crate::cluster::baseline::Baseline;
use crate::cluster::hostile::{
    BLUE_IDS, Findings, Home, Isolation, Place, RED_IDS, home, made_hostile, name, workload,
};
use crate::support::kubernetes::{Api, Options, merged, until};

const NAMESPACE: &str = "ringfence-admission";
const SECRET: &str = "/api/v1/namespaces/ringfence-admission/secrets/authority";
const CONFIGURATIONS: [&str; 2] = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/ringfence-admission/endpointslices";

/// A cluster of 1.35 whose webhook runs.
static HOOKED: LazyLock<Baseline> = LazyLock::new(|| {
    let (baseline, replicas) = hooked(2);
    *REPLICAS.lock().unwrap() = replicas;
    baseline
});
static RED: Home = home(&HOOKED, true, RED_IDS, BLUE_IDS, Isolation::Pool);
/// The replicas of [`HOOKED`]. They end with the tests' process.
static REPLICAS: Mutex<Vec<Replica>> = Mutex::new(Vec::new());

fn configuration(kind: &str) -> String {
    format!("/apis/admissionregistration.k8s.io/v1/{kind}/ringfence")
}

fn prepared() -> Baseline {
    let options = Options { emulates: Some("1.35"), webhooks: true, ..Options::default() };
    Baseline::prepared("webhook.yaml", "shared", options)
}

/// A cluster with all objects but the configurations.
fn waiting() -> Baseline {
    let baseline = prepared();
    let output = baseline.command(&["apply", "--auto-approve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    baseline
}

/// A cluster with so many replicas, as after `apply`.
fn hooked(replicas: usize) -> (Baseline, Vec<Replica>) {
    let baseline = waiting();
    let replicas: Vec<Replica> = (0..replicas).map(|_| Replica::start(&baseline)).collect();
    serve(&baseline, &replicas.iter().collect::<Vec<_>>());
    baseline.run(&["apply", "--auto-approve"]);
    until_asked(&baseline);
    (baseline, replicas)
}

/// A program of the webhook.
struct Replica {
    dir: TempDir,
    address: SocketAddr,
    status: SocketAddr,
    process: Child,
}

impl Replica {
    /// Starts it with the configuration that ringfence wrote, and waits until it is ready.
    fn start(baseline: &Baseline) -> Self {
        let admin = baseline.plane.admin();
        let dir = tempfile::tempdir().unwrap();
        let map = admin.get(&format!("/api/v1/namespaces/{NAMESPACE}/configmaps/webhook")).ok();
        let request =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
        let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/webhook/token");
        let token = admin.post(&account, &request).ok()["status"]["token"].as_str().unwrap().to_owned();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("token", &token);
        write("policies.json", map["data"]["policies.json"].as_str().unwrap());
        let mut config: Value = serde_json::from_str(map["data"]["webhook.yaml"].as_str().unwrap()).unwrap();
        for (field, value) in [
            ("listen", "127.0.0.1:0".to_owned()),
            ("status", "127.0.0.1:0".to_owned()),
            ("server", baseline.plane.url()),
            ("certificateAuthority", baseline.plane.certificate().display().to_string()),
            ("tokenFile", "token".to_owned()),
        ] {
            config[field] = value.into();
        }
        config["drainSeconds"] = 1.into();
        write("webhook.yaml", &config.to_string());
        let config = dir.path().join("webhook.yaml");
        let args: [&OsStr; 4] = ["gateway".as_ref(), "--admission".as_ref(), "--config".as_ref(), config.as_ref()];
        let (process, [address, status]) = serving(&args, dir.path());
        let replica = Self { dir, address, status, process };
        until("the webhook is ready", || replica.is_ready().then_some(()));
        replica
    }

    fn status(&self, path: &str) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.status)?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        ask().unwrap_or_default()
    }

    fn is_ready(&self) -> bool {
        self.status("/readyz").contains(" 200 ")
    }

    /// Asks the program to stop, and waits for its end.
    fn stop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }

    fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        read("stdout") + &read("stderr")
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lets these replicas serve, and tells the cluster.
fn serve(baseline: &Baseline, replicas: &[&Replica]) {
    let addresses: Vec<SocketAddr> = replicas.iter().map(|replica| replica.address).collect();
    baseline.plane.webhooks.serve(&addresses);
    let admin = baseline.plane.admin();
    admin.delete(&format!("{SLICES}/webhook-test"));
    let endpoints =
        (1..=replicas.len()).map(|i| json!({"addresses": [format!("10.0.0.{i}")], "conditions": {"ready": true}}));
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "webhook-test", "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": "webhook"}},
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [{"name": "https", "port": 9443, "protocol": "TCP"}],
    });
    admin.create(&slice).ok();
}

/// Waits until the API server asks the webhook.
fn until_asked(baseline: &Baseline) {
    let bare = map("canary", "t-red");
    baseline.plane.until("the API server asks the webhook", |admin| {
        admin.try_unjudged(&bare).body["metadata"]["labels"]["ringfence.dev/tenant"] == "red"
    });
}

fn map(name: &str, namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}})
}

fn bundles(admin: &Api<'_>) -> Vec<String> {
    let bundle = |kind: &&str| {
        let found = admin.get(&configuration(kind));
        found.body["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned()
    };
    CONFIGURATIONS.iter().map(bundle).collect()
}

fn authority(admin: &Api<'_>) -> String {
    admin.get(SECRET).body["data"]["ca.crt"].as_str().unwrap_or_default().to_owned()
}

/// `apply` doesn't switch the webhook on before two replicas are ready, and says so. Later it does, and then nothing is
/// left to do. A foreign authority in a configuration is a difference.
#[test]
fn nobody_is_asked_before_two_replicas_are_ready() {
    let baseline = prepared();
    let admin = baseline.plane.admin();
    let refused = |replicas: &str| {
        let output = baseline.command(&["apply", "--auto-approve"]).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("would block tenants' requests") && said.contains(replicas), "{said}");
        assert!(CONFIGURATIONS.iter().all(|kind| admin.get(&configuration(kind)).status == 404), "{said}");
    };
    refused("haven't made their certificate");
    let first = Replica::start(&baseline);
    assert!(!authority(&admin).is_empty(), "{}", first.log());
    serve(&baseline, &[&first]);
    refused("1 of 2 Pods of the webhook are ready");
    let second = Replica::start(&baseline);
    serve(&baseline, &[&first, &second]);
    baseline.run(&["apply", "--auto-approve"]);
    until_asked(&baseline);
    let bundle = authority(&admin);
    assert_eq!(bundles(&admin), [bundle.clone(), bundle.clone()]);
    let plan = baseline.plan();
    assert_eq!(plan["steps"], json!([]), "{plan:#}");

    // The webhook's own rights end at its own objects.
    let account = baseline.plane.user(
        "system:serviceaccount:ringfence-admission:webhook",
        &["system:serviceaccounts", "system:serviceaccounts:ringfence-admission"],
    );
    for path in [
        "/api/v1/namespaces/t-red/secrets",
        "/api/v1/namespaces/ringfence-admission/secrets",
        "/api/v1/namespaces",
        "/api/v1/namespaces/kube-system/secrets/authority",
        "/api/v1/pods",
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/other",
    ] {
        assert_eq!(account.get(path).status, 403, "{path}");
    }

    drop((first, second));
    baseline.plane.webhooks.serve(&[]);
    let foreign = STANDARD.encode("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
    let patch = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": foreign}]);
    admin.json_patch(&configuration(CONFIGURATIONS[1]), &patch).ok();
    let plan = baseline.plan();
    let steps: Vec<&str> = plan["steps"].as_array().unwrap().iter().filter_map(|s| s["address"].as_str()).collect();
    assert_eq!(steps, ["pool/shared/k8s/validatingwebhookconfiguration/ringfence"], "{plan:#}");
    baseline.run(&["apply", "--auto-approve"]);
    assert_eq!(bundles(&admin), [bundle.clone(), bundle]);
}

/// On a version that fills in nothing, tenants write what they would write on 1.36.
#[test]
fn plain_objects_are_filled_in() {
    RED.prepare();
    let person = RED.person();
    let plain = RED.written(&RED.namespace(), RED.plain());
    let pod = person.try_unjudged(&plain).ok();
    assert_eq!(pod["metadata"]["labels"]["ringfence.dev/tenant"], "red");
    assert_eq!(pod["spec"]["nodeSelector"]["tenantID"], "red");
    assert_eq!(pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"], false);
    for (api, kind, template) in crate::cluster::hostile::WORKLOADS {
        let mut by = RED.person();
        let object = workload(api, kind, &plain);
        if by.try_unjudged(&object).message().contains("cannot create resource") {
            by = RED.admin();
        }
        let made = by.try_unjudged(&object).ok();
        let template = made.pointer(template).unwrap();
        assert_eq!(template["spec"]["securityContext"]["runAsNonRoot"], true, "{kind}: {made:#}");
        assert_eq!(template["metadata"]["labels"]["ringfence.dev/tenant"], "red", "{kind}");
    }
    // The webhook asks the API server who is an administrator.
    let mut ours = map("ours", "t-red");
    ours["metadata"]["annotations"] = json!({"ringfence.dev/address": "x"});
    RED.admin().try_unjudged(&ours).ok();
    assert!(person.try_unjudged(&ours).message().contains("NS-2: only ringfence"));
    // The Pods of a Deployment are made by a controller, and its ReplicaSet is found again.
    let mut web = workload("apps/v1", "Deployment", &plain);
    web["metadata"]["name"] = "web".into();
    web["spec"]["replicas"] = 2.into();
    person.create(&web).ok();
    HOOKED.plane.until("Pods are made", |admin| {
        let pods = admin.get("/api/v1/namespaces/t-red/pods?labelSelector=app%3Dharmless").body;
        pods["items"].as_array().is_some_and(|pods| pods.len() >= 2)
    });
    let sets = RED.admin().get("/apis/apps/v1/namespaces/t-red/replicasets").ok();
    let of_web =
        sets["items"].as_array().unwrap().iter().filter(|set| set["metadata"]["ownerReferences"][0]["name"] == "web");
    assert_eq!(of_web.count(), 1);
    // A change by patch is filled in, too.
    let path = "/apis/apps/v1/namespaces/t-red/deployments/web?dryRun=All";
    let more = json!({"spec": {"template": {"spec": {"containers": [{"name": "more", "image": plain["spec"]["containers"][0]["image"]}]}}}});
    let changed = person.patch(path, &more).ok();
    assert_eq!(
        changed["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["drop"],
        json!(["ALL"])
    );
}

/// The webhook alone refuses what the admission policies refuse: here, they only warn.
#[test]
fn hostile_objects_are_refused_by_the_webhook_alone() {
    let (baseline, _replicas) = hooked(2);
    let admin = baseline.plane.admin();
    let bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    let all = admin.get(bindings).ok();
    for binding in all["items"].as_array().unwrap() {
        let path = format!("{bindings}/{}", binding["metadata"]["name"].as_str().unwrap());
        let only = json!([{"op": "replace", "path": "/spec/validationActions", "value": ["Audit"]}]);
        admin.json_patch(&path, &only).ok();
    }
    let person = baseline.plane.tenant("red");
    let foreign = json!({"container": {"image": "registry.example/x:1"}});
    let base = RED.written("t-red", RED.plain());
    baseline.plane.until("the policies only warn", |_| {
        let answer = person.try_unjudged(&made_hostile(&base, &foreign, Place::Containers));
        answer.message().contains("admission webhook")
    });
    // The change of a binding takes effect a moment later.
    let send = |object: &Value| {
        until("the policies only warn", || {
            let answer = person.try_unjudged(object);
            (!answer.message().contains("ValidatingAdmissionPolicy")).then_some(answer)
        })
    };
    let mut findings = Findings::default();
    findings.admitted("harmless", &send(&base));
    let mut by_webhook = 0;
    let mut refused =
        |findings: &mut Findings, what: &str, control: &str, answer: &crate::support::kubernetes::Answer| {
            let ours = answer.message().contains("admission webhook")
                && control.split('|').any(|control| answer.message().contains(&format!("{control}: ")));
            // The API server's own plugins refuse some before they ask.
            let early = control == "server"
                || ["violates PodSecurity", " not found", " was found"]
                    .iter()
                    .any(|words| answer.message().contains(words))
                || answer.message().contains("cannot create resource");
            by_webhook += usize::from(ours);
            findings.expect(
                matches!(answer.status, 403 | 422) && (ours || early),
                what,
                &format!("refused by the webhook ({control})"),
                answer,
            );
        };
    for attack in RED.read("pods.yaml") {
        for place in Place::all(&attack) {
            let pod = made_hostile(&base, &attack, *place);
            for (object, template) in [(workload("apps/v1", "Deployment", &pod), "/spec/template/spec"), (pod, "/spec")]
            {
                let answer = send(&object);
                let found = answer.body.pointer(template).unwrap_or(&Value::Null);
                let found = if *place == Place::Pod { found } else { &found[place.field()][1] };
                let becomes = !attack["becomes"].is_null() && answer.is_ok();
                if becomes && (template != "/spec" || crate::cluster::hostile::has(found, &attack["becomes"])) {
                    continue;
                }
                let what = format!("{} in {template} {}", name(&attack), place.field());
                refused(&mut findings, &what, attack["control"].as_str().unwrap(), &answer);
            }
        }
    }
    for group in RED.read("objects.yaml").into_iter().filter(|group| group["by"] == "tenant") {
        let mut harmless = group["object"].clone();
        harmless["metadata"]["namespace"] = "t-red".into();
        findings.admitted(&format!("{}: harmless", harmless["kind"]), &send(&harmless));
        for attack in group["changes"].as_array().unwrap() {
            let answer = send(&merged(harmless.clone(), &attack["change"]));
            refused(&mut findings, name(attack), attack["control"].as_str().unwrap(), &answer);
        }
    }
    findings.none();
    assert!(by_webhook > 100, "{by_webhook}");
}

/// Without a replica, tenants' own requests fail, and everything else goes on: the cluster can mend itself.
#[test]
fn a_cluster_without_replicas_is_not_locked() {
    let (baseline, replicas) = hooked(2);
    let (admin, red) = (baseline.plane.admin(), baseline.plane.tenant("red"));
    let pod = RED.written("t-red", RED.plain());
    let mut web = workload("apps/v1", "Deployment", &pod);
    web["metadata"]["name"] = "web".into();
    red.create(&web).ok();
    baseline.plane.until("a Pod is made", |admin| pods_of(admin, "web").len() == 1);

    baseline.plane.webhooks.serve(&[]);
    drop(replicas);
    let refused = red.try_unjudged(&map("mine", "t-red"));
    assert_eq!(refused.status, 500, "{}", refused.message());
    assert!(refused.message().contains("failed calling webhook"), "{}", refused.message());
    for namespace in ["kube-system", "default", NAMESPACE] {
        admin.try_unjudged(&map("theirs", namespace)).ok();
    }
    admin.try_unjudged(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}})).ok();
    // Pods of tenants are made again.
    let name = pods_of(&admin, "web")[0].clone();
    admin.delete(&format!("/api/v1/namespaces/t-red/pods/{name}?gracePeriodSeconds=0")).ok();
    baseline.plane.until("the Pod is made again", |admin| {
        let pods = pods_of(admin, "web");
        pods.len() == 1 && pods[0] != name
    });
    // A new replica ends the outage.
    let again = Replica::start(&baseline);
    serve(&baseline, &[&again]);
    until_asked(&baseline);

    // The end of a tenant with running Pods, and the end of everything, need no replica.
    baseline.plane.webhooks.serve(&[]);
    drop(again);
    let leave = ["destroy", "--tenant", "red", "--auto-approve", "--allow-destroy", "tenant/red/pool/shared"];
    // Two seconds of the sandbox's time may be too few for the namespace of a real API server.
    until("the tenant is gone", || baseline.command(&leave).output().unwrap().status.success().then_some(()));
    assert_eq!(admin.get("/api/v1/namespaces/t-red").status, 404);
    baseline.run(&["destroy", "--auto-approve"]);
}

fn pods_of(admin: &Api<'_>, deployment: &str) -> Vec<String> {
    let pods = admin.get("/api/v1/namespaces/t-red/pods").ok();
    let names = pods["items"].as_array().unwrap().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let names = names.filter_map(|pod| pod["metadata"]["name"].as_str());
    names.filter(|name| name.starts_with(&format!("{deployment}-"))).map(str::to_owned).collect()
}

/// While all replicas are replaced one after the other, no request of a tenant fails.
#[test]
fn an_upgrade_of_the_webhook_refuses_nobody() {
    let (baseline, mut old) = hooked(2);
    let (end, tried) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let red = baseline.plane.tenant("red");
        let (end, tried) = (&end, &tried);
        let asking = scope.spawn(move || {
            while !end.load(Ordering::Relaxed) {
                red.try_unjudged(&map("mine", "t-red")).ok();
                tried.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut new: Vec<Replica> = Vec::new();
        for mut leaving in old.drain(..) {
            new.push(Replica::start(&baseline));
            let before = tried.load(Ordering::Relaxed);
            // The order of Kubernetes: out of the Service, then SIGTERM.
            baseline.plane.webhooks.serve(&new.iter().map(|replica| replica.address).collect::<Vec<_>>());
            leaving.stop();
            until("requests go on", || {
                (tried.load(Ordering::Relaxed) > before + 20 || asking.is_finished()).then_some(())
            });
        }
        end.store(true, Ordering::Relaxed);
        asking.join().unwrap();
    });
}

/// `policyEngine: native` again: the API server stops to ask before the replicas go.
#[test]
fn the_webhook_is_switched_off_before_it_goes() {
    let (baseline, _replicas) = hooked(2);
    let spec = fs::read_to_string(baseline.spec()).unwrap().replace(", profile: hooked", "");
    fs::write(baseline.spec(), spec).unwrap();
    let namespace = "pool/shared/k8s/namespace/ringfence-admission";
    let apply = ["apply", "--auto-approve", "--allow-destroy", namespace, "--format", "json"];
    let said = String::from_utf8(baseline.command(&apply).output().unwrap().stdout).unwrap();
    let events: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let at = |address: &str, event: &str| {
        let is = |e: &Value| e["type"] == event && e["address"] == format!("pool/shared/k8s/{address}");
        events.iter().position(is).unwrap_or_else(|| panic!("no {event} of {address} in {said}"))
    };
    let off = CONFIGURATIONS.map(|kind| at(&format!("{}/ringfence", kind.trim_end_matches('s')), "done"));
    let going = at("namespace/ringfence-admission", "start");
    assert!(off.iter().all(|off| *off < going), "{off:?} {going}");
    let answer = baseline.plane.tenant("red").try_unjudged(&map("mine", "t-red"));
    assert!(answer.message().contains("NS-2"), "{}", answer.message());
}

/// An authority that is old gets a successor, which API servers trust before it signs.
#[test]
fn authorities_are_renewed_while_requests_go_on() {
    let baseline = waiting();
    let admin = baseline.plane.admin();
    // An authority that was made 250 days ago.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "ringfence admission authority");
    let moment = |days: i64| {
        let seconds = super::fixture::now() + days * 86_400;
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(u64::try_from(seconds).unwrap())
    };
    (params.not_before, params.not_after) = (moment(-250), moment(115));
    let old = params.self_signed(&key).unwrap();
    let data = json!({"data": {"ca.crt": STANDARD.encode(old.pem()), "ca.key": STANDARD.encode(key.serialize_pem())}});
    admin.patch(SECRET, &data).ok();
    let replicas = [Replica::start(&baseline), Replica::start(&baseline)];
    let certificates = |bundle: &str| {
        let text = String::from_utf8(STANDARD.decode(bundle).unwrap()).unwrap();
        text.matches("BEGIN CERTIFICATE").count()
    };
    assert_eq!(certificates(&authority(&admin)), 2, "{}", replicas[0].log());
    serve(&baseline, &[&replicas[0], &replicas[1]]);
    baseline.run(&["apply", "--auto-approve"]);
    until_asked(&baseline);
    assert!(bundles(&admin).iter().all(|bundle| certificates(bundle) == 2));
    assert_eq!(baseline.plan()["steps"], json!([]));

    // Somebody empties the Secret: there is a new authority soon, and API servers get it.
    admin.patch(SECRET, &json!({"data": null})).ok();
    baseline.plane.until("a new authority", |admin| {
        let now = authority(admin);
        !now.is_empty() && certificates(&now) == 1 && bundles(admin).iter().all(|bundle| *bundle == now)
    });
    baseline
        .plane
        .until("requests go on", |_| baseline.plane.tenant("red").try_unjudged(&map("mine", "t-red")).is_ok());
}

/// Sends bytes over TLS, as an API server would connect, and reads the answer.
fn exchange(address: SocketAddr, bundle: &str, text: &str) -> String {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&STANDARD.decode(bundle).unwrap()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("webhook.ringfence-admission.svc").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    // The webhook may close without the last word of TLS.
    let _ended = stream.read_to_string(&mut answer);
    answer
}

/// What isn't a review is refused, and the program goes on.
#[test]
fn odd_requests_are_refused() {
    let authority = authority(&HOOKED.plane.admin());
    let replicas = REPLICAS.lock().unwrap();
    for (head, body, status) in [
        ("GET /mutate", "", " 405 "),
        ("POST /", "{}", " 404 "),
        ("POST /validate", "{}", " 400 "),
        ("POST /validate", "[[[[", " 400 "),
        (
            "POST /mutate",
            r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": "x"}"#,
            " 400 ",
        ),
        (
            "POST /mutate",
            r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "1"}}"#,
            " 400 ",
        ),
    ] {
        let text =
            format!("{head} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let answer = exchange(replicas[0].address, &authority, &text);
        assert!(answer.contains(status), "{head} {body}: {answer}");
    }
    assert!(replicas[0].is_ready());
    assert!(replicas[0].status("/metrics").contains("ringfence_admission_reviews_total"), "{}", replicas[0].log());
}
