//! Access to clusters: kubeconfigs, tokens, unreachable API servers, APIs that a cluster doesn't serve.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use ringfence::template::yaml;
use serde_json::json;

use super::*;

/// An address on which nothing listens.
const CLOSED: &str = "http://127.0.0.1:9";
/// The name of a sandbox's cluster in a kubeconfig.
const SHARED: &str = "sandbox/arn:aws:eks:us-east-1:123456789012:cluster/acme-p-shared-1";
const SILO: &str = "sandbox/arn:aws:eks:us-east-1:123456789012:cluster/acme-t-12345";

impl Estate {
    /// Writes a kubeconfig for `server` into the estate's directory.
    fn kubeconfig(&self, name: &str, server: &str, proxy: Option<&str>) {
        let cluster = json!({"server": server, "proxy-url": proxy.unwrap_or_default()});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        });
        fs::write(self.path().join(name), yaml(&config).unwrap()).unwrap();
    }

    fn template(&self, name: &str, text: &str) {
        let file = self.path().join("templates/manifests").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn read_yaml(&self, name: &str) -> Value {
        serde_yaml_of(&fs::read_to_string(self.path().join(name)).unwrap())
    }
}

fn serde_yaml_of(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

fn addresses(items: &Value) -> BTreeSet<String> {
    list(items).iter().map(|i| text(&i["address"]).to_owned()).collect()
}

/// Runs `plan` in each format. Each names the blocked cluster once.
#[track_caller]
fn names_once(estate: &Estate, args: &[&str], cluster: &str) {
    for (format, name) in [("human", format!("cluster {cluster} (")), ("markdown", format!("<code>{cluster}</code> ("))]
    {
        let run = estate.run(&[&["plan", "--format", format], args].concat()).exits(0);
        assert_eq!(run.out.matches(&name).count(), 1, "{format}: {}", run.out);
        assert_eq!(run.out.matches("ringfence render").count(), 1, "{format}: {}", run.out);
        assert!(!run.out.contains("No changes"), "{format}: {}", run.out);
    }
}

#[test]
fn one_of_two_clusters_cannot_be_reached() {
    let estate = Estate::planted(&THREE_TIERS);
    estate.kubeconfig("closed", CLOSED, None);
    let closed = ["--kubeconfig", "12345=closed"];

    // A cluster that the same run creates.
    let run = estate.run(&[&["apply", "--auto-approve", "--format", "json"], &closed[..]].concat()).exits(3);
    let lines = run.lines();
    let report = lines.last().unwrap();
    let of = |outcome: &str| -> BTreeSet<String> {
        let lines = list(&report["lines"]).iter().filter(|l| text(&l["outcome"]) == outcome);
        lines.map(|l| text(&l["address"]).to_owned()).collect()
    };
    let silo = "tenant/12345/silo/";
    let (blocked, skipped, done) = (of("blocked"), of("skipped"), of("done"));
    assert!(!blocked.is_empty() && blocked.iter().all(|a| a.starts_with(&format!("{silo}k8s/"))), "{blocked:?}");
    let addons = ["coredns", "metrics-server"].map(|a| format!("{silo}addon/{a}"));
    assert!(addons.iter().all(|a| skipped.contains(a)), "{skipped:?}");
    let inside = |a: &&String| !a.starts_with(&format!("{silo}k8s/")) && !addons.contains(a);
    assert_eq!(skipped.iter().find(inside), None, "what isn't in the cluster goes on");
    let seconds = lines.iter().filter(|l| l["type"] == "blocked").map(|l| l["took_seconds"].as_f64().unwrap());
    assert_eq!(seconds.filter(|s| *s > 0.0).count(), 1, "one step tries for all");
    assert!(of("failed").is_empty() && of("not-started").is_empty() && of("unmet").is_empty());
    assert!(done.contains(&format!("{silo}node-group")) && done.contains("pool/shared-1/addon/coredns"), "{done:?}");
    assert!(done.contains("tenant/23456/pool/shared-1/k8s/namespace/t-23456"));
    assert_eq!(done.len() + blocked.len() + skipped.len(), list(&report["lines"]).len());

    // A cluster that exists.
    let plan = estate.plan(&closed);
    assert_eq!(steps(&plan), [] as [&str; 0], "nothing is derived from what couldn't be read");
    let clusters = list(&plan["blocked_clusters"]);
    assert_eq!(clusters.len(), 1);
    assert_eq!(clusters[0]["cluster"], "acme-t-12345");
    assert_eq!(clusters[0]["objects"], addresses(&plan["blocked"]).len() - addons.len());
    assert!(list(&plan["blocked"]).iter().all(|b| b["pending"] == true));
    names_once(&estate, &closed, "acme-t-12345");
    let drift = estate.run(&[&["drift"], &closed[..]].concat()).exits(3);
    assert!(!drift.out.contains("No changes"), "{}", drift.out);

    // The objects in the other cluster are applied.
    estate.edit("pods: \"40\"", "pods: \"41\"");
    assert_eq!(steps(&estate.plan(&closed)), ["update tenant/34567/fargate/shared-1/k8s/resourcequota/tenant"]);
    let run = estate.run(&[&["apply", "--auto-approve"], &closed[..]].concat()).exits(3);
    let said = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for what in ["0 added, 1 changed", "VPN for closed is running", "ringfence render", "Waiting: objects in cluster"] {
        assert!(said.contains(what), "{what}: {}", run.out);
    }
    // Clusters of other tenants aren't mentioned.
    let other = estate.plan(&[&["--tenant", "34567"], &closed[..]].concat());
    assert_eq!((list(&other["blocked_clusters"]), list(&other["blocked"])), (&[] as &[_], &[] as &[_]));

    // Now the API server can be reached.
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
}

/// A server that refuses the login: the access entry doesn't exist yet.
#[test]
fn a_cluster_that_denies_access() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let body =
            r#"{"kind":"Status","status":"Failure","reason":"Unauthorized","message":"Unauthorized","code":401}"#;
        for mut stream in listener.incoming().flatten() {
            let _asked = stream.read(&mut [0; 4096]);
            let length = body.len();
            let head = format!("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            let _gone = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat());
        }
    });
    let estate = Estate::planted(&SINGLE_SILO);
    estate.kubeconfig("shut", &url, None);
    let shut = ["--kubeconfig", "globex=shut"];
    let run = estate.run(&[&["apply", "--auto-approve"], &shut[..]].concat()).exits(3);
    assert!(run.out.contains("doesn't accept the credentials"), "{}", run.out);
    let run = estate.run(&[&["plan"], &shut[..]].concat()).exits(0);
    let said = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for what in ["Waiting: objects in cluster solo-t-globex", "doesn't accept the credentials", "needs cluster-admin"] {
        assert!(said.contains(what), "{what}: {}", run.out);
    }
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
}

/// The API of a deleted add-on disappears between discovery and the next request.
#[test]
fn a_cluster_that_changes_while_it_is_read_blocks_nothing_else() {
    let estate = Estate::applied(&THREE_TIERS);
    // The change makes the plan send dry runs.
    estate.edit("pods: \"40\"", "pods: \"50\"");
    let served = Served::start(&estate, None);
    let trouble = [
        (
            "GET */acme-p-shared-1/*/networkpolicies",
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        ("PATCH */acme-p-shared-1/*/resourcequotas/*", 404, "NotFound", "namespaces \"t-34567\" not found"),
        ("PATCH */acme-p-shared-1/*/resourcequotas/*", 409, "Conflict", "the object has been modified"),
    ];
    for (call, status, code, message) in trouble {
        let error = json!({"code": code, "message": message, "status": status});
        let script = json!({"faults": [{"call": format!("k8s:{call}"), "before": {"error": error}}]});
        served.server.set_faults(Script::parse(&script.to_string()).unwrap());
        let run = against(&served.url(), &mut estate.bare(&["plan", "--format", "json"])).exits(0);
        let plan = run.json();
        assert_eq!(steps(&plan), [] as [&str; 0], "{call}");
        let closed = list(&plan["blocked_clusters"]);
        assert_eq!(closed.len(), 1, "{plan}");
        assert_eq!(closed[0]["cluster"], "acme-p-shared-1");
        let reason = text(&closed[0]["reason"]);
        assert!(reason.starts_with("the cluster changed while it was read") && reason.contains(message), "{reason}");
    }
    served.server.set_faults(Script::default());
    let run = against(&served.url(), &mut estate.bare(&["plan", "--format", "json"])).exits(0);
    assert_eq!(steps(&run.json()), ["update tenant/34567/fargate/shared-1/k8s/resourcequota/tenant"]);
}

#[test]
fn resources_that_left_the_spec_may_be_in_an_unreachable_cluster() {
    let estate = Estate::applied(&THREE_TIERS);
    estate.kubeconfig("closed", CLOSED, None);
    let closed = ["--kubeconfig", "shared-1=closed"];
    let sure = ["--auto-approve", "--allow-destroy", "tenant/23456/pool/shared-1"];
    let destroy = [&["destroy", "--tenant", "23456", "--format", "json"], &sure[..], &closed[..]].concat();
    let run = estate.run(&destroy).exits(3);
    let lines = run.lines();
    assert_eq!(lines[0]["blocked_clusters"][0]["cluster"], "acme-p-shared-1");
    assert!(addresses(&lines[0]["steps"]).contains("tenant/23456/pool/shared-1/node-group"));
    // A plan that can reach the cluster finds the remaining objects.
    let rest = steps(&estate.plan(&["--destroy", "--tenant", "23456"]));
    assert!(rest.contains(&"delete tenant/23456/pool/shared-1/k8s/namespace/t-23456".to_owned()), "{rest:?}");
    assert!(rest.iter().all(|s| s.starts_with("delete tenant/23456/pool/shared-1/k8s/")), "{rest:?}");
    names_once(&estate, &[&["--destroy", "--tenant", "23456"], &closed[..]].concat(), "acme-p-shared-1");
    // If the cluster is deleted, its objects are gone too, so it needn't be reached.
    estate.run(&[&["destroy", "--auto-approve"], &closed[..]].concat()).exits(0);
}

#[test]
fn a_cluster_behind_a_proxy() {
    let estate = Estate::applied(&THREE_TIERS);
    let served = Served::start(&estate, None);
    let (proxy, asked) = proxy(served.server.addr());
    // A host name that only the proxy can resolve.
    let server = "http://api.invalid:8080/k8s/123456789012/us-east-1/acme-p-shared-1";
    let args = ["plan", "--detailed-exitcode", "--kubeconfig", "shared-1=far"];
    estate.kubeconfig("far", server, Some(&format!("socks5://{proxy}")));
    against(&served.url(), &mut estate.bare(&args)).exits(0);
    let all_asked = |of: &str| {
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert!(!asked.is_empty() && asked.iter().all(|host| host == of), "{asked:?}");
    };
    all_asked("api.invalid");
    estate.kubeconfig("far", server, Some(&format!("http://{proxy}")));
    against(&served.url(), &mut estate.bare(&args)).exits(0);
    all_asked("CONNECT api.invalid:8080");
    estate.kubeconfig("far", server, None);
    for (variable, value) in [("HTTPS_PROXY", format!("http://{proxy}")), ("ALL_PROXY", format!("socks5h://{proxy}"))] {
        let mut command = estate.bare(&args);
        against(&served.url(), command.env(variable, value).env("NO_PROXY", "127.0.0.1")).exits(0);
        all_asked(if variable == "HTTPS_PROXY" { "CONNECT api.invalid:8080" } else { "api.invalid" });
    }
    estate.kubeconfig("far", server, Some("socks5://127.0.0.1:9"));
    let run = against(&served.url(), &mut estate.bare(&args)).exits(2);
    assert!(run.out.contains("Waiting: objects in cluster acme-p-shared-1"), "{}", run.out);
}

/// A SOCKS5 and CONNECT proxy that sends everything to `upstream`, and the targets that it was asked for.
fn proxy(upstream: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    fn exactly(stream: &mut TcpStream, n: u8) -> Option<Vec<u8>> {
        let mut bytes = vec![0; n.into()];
        stream.read_exact(&mut bytes).ok().map(|()| bytes)
    }
    fn host(stream: &mut TcpStream) -> Option<String> {
        if exactly(stream, 1)? == b"C" {
            let mut head = b"C".to_vec();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend(exactly(stream, 1)?);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
            return Some(String::from_utf8_lossy(&head).split(" HTTP/").next()?.to_owned());
        }
        let methods = exactly(stream, 1)?[0];
        exactly(stream, methods)?;
        stream.write_all(&[5, 0]).ok()?;
        let by_name = exactly(stream, 4)?[3] == 3;
        let length = if by_name { exactly(stream, 1)?[0] } else { 4 };
        let host = String::from_utf8_lossy(&exactly(stream, length)?).into_owned();
        exactly(stream, 2)?;
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
        Some(host)
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    std::thread::spawn(move || {
        for mut near in listener.incoming().flatten() {
            let seen = seen.clone();
            std::thread::spawn(move || {
                let Some(host) = host(&mut near) else { return };
                seen.lock().unwrap().push(host);
                let mut far = TcpStream::connect(upstream).unwrap();
                let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _gone = std::io::copy(&mut from, &mut to);
                    let _gone = to.shutdown(std::net::Shutdown::Write);
                });
                let _gone = std::io::copy(&mut far, &mut near);
            });
        }
    });
    (address, asked)
}

const WIDGET: &str =
    "apiVersion: example.com/v1\nkind: Widget\nmetadata:\n  name: w\n  namespace: {{ tenant.namespace | json }}\n";
const DEFINITION: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.example.com}\n\
    spec:\n  group: example.com\n  scope: Namespaced\n  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}\n  \
    versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]\n";

#[test]
fn an_api_without_a_provider_leaves_its_control_unmet() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.template("tenant/widget.yaml", &format!("requires: example.com/v1\ncontrols: [NET-1]\n{WIDGET}"));
    let with = ["--templates", "templates"];
    let widget = "tenant/globex/silo/k8s/widget.example.com/w";

    let run = estate.run(&[&["plan", "--format", "json"], &with[..]].concat()).exits(1);
    let plan = run.json();
    assert_eq!(steps(&plan), [] as [&str; 0]);
    assert_eq!(addresses(&plan["blocked"]), [widget.to_owned()].into());
    let blocked = &plan["blocked"][0];
    assert_eq!((&blocked["unmet"], &blocked["controls"]), (&json!(true), &json!(["NET-1"])));
    let reason = text(&blocked["reason"]);
    for what in ["doesn't serve example.com/v1", "control NET-1 is unmet"] {
        assert!(reason.contains(what), "{reason}");
    }
    let run = estate.run(&[&["apply", "--auto-approve"], &with[..]].concat()).exits(1);
    assert!(run.out.contains("control NET-1 is unmet"), "{}", run.out);
    estate.run(&[&["drift"], &with[..]].concat()).exits(1);

    // A later add-on in the plan might bring the API.
    estate.sandbox(async |aws, server| {
        aws.eks.delete_addon().cluster_name("solo-t-globex").addon_name("vpc-cni").send().await.unwrap();
        server.advance(600.0);
    });
    let plan = estate.plan(&with);
    let ahead = format!("create {}", "tenant/globex/silo/addon/vpc-cni");
    assert!(steps(&plan).contains(&ahead) && steps(&plan).contains(&format!("create {widget}")), "{:?}", steps(&plan));
    let run = estate.run(&[&["apply", "--auto-approve", "--format", "json"], &with[..]].concat()).exits(1);
    let report = run.lines().pop().unwrap();
    for line in list(&report["lines"]) {
        let outcome = if line["address"] == widget { "unmet" } else { "done" };
        assert_eq!(line["outcome"], outcome, "{line}");
    }

    // A template brings the API.
    estate.template("cluster/definition.yaml", DEFINITION);
    let plan = estate.plan(&with);
    assert_eq!(addresses(&plan["steps"]).len(), 2, "{:?}", steps(&plan));
    estate.run(&[&["apply", "--auto-approve"], &with[..]].concat()).exits(0);
    assert_eq!(steps(&estate.plan(&with)), [] as [&str; 0]);
}

#[test]
fn an_api_that_no_template_declares_is_an_error_before_anything_is_written() {
    let estate = Estate::planted(&SINGLE_SILO);
    estate.template("tenant/widget.yaml", WIDGET);
    let with = ["--templates", "templates"];
    let said =
        ["tenant/globex/silo/k8s/widget.example.com/w: cluster", "doesn't serve example.com/v1 Widget", "`requires:`"];
    let run = estate.run(&[&["apply", "--auto-approve"], &with[..]].concat()).exits(1);
    let out = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for what in said {
        assert!(out.contains(what), "{what}: {}", run.out);
    }
    let inside = &estate.holds()["123456789012"]["regions"]["eu-central-1"]["k8s"]["servers"]["solo-t-globex"];
    assert!(inside.to_string().contains("kube-system"), "{inside}");
    assert!(!inside.to_string().contains("ringfence"), "nothing was written to the cluster: {inside}");
    estate.run(&[&["plan"], &with[..]].concat()).refuses(&said);
}

#[test]
fn tokens() {
    let estate = Estate::new(&THREE_TIERS);
    let keys = |command: &mut Command| {
        command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "not-for-any-output");
    };
    let args = ["token", "--cluster", "acme-p-shared-1", "--region", "us-east-1"];
    let info = |version: &str| json!({"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": true}});
    let (v1, v1beta1) = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1");
    for (asked, answered) in [(None, v1), (Some(v1), v1), (Some(v1beta1), v1beta1)] {
        let mut command = estate.bare(&args);
        keys(&mut command);
        if let Some(asked) = asked {
            command.env("KUBERNETES_EXEC_INFO", info(asked).to_string());
        }
        let before = Clock::timestamp();
        let run = Run::of(&mut command).exits(0);
        let credential = run.json();
        assert_eq!((&credential["kind"], &credential["apiVersion"]), (&json!("ExecCredential"), &json!(answered)));
        let expires: Timestamp = text(&credential["status"]["expirationTimestamp"]).parse().unwrap();
        let left = expires.duration_since(before);
        assert!((SignedDuration::from_mins(13)..SignedDuration::from_mins(15)).contains(&left), "{left}");
        let token = text(&credential["status"]["token"]).strip_prefix("k8s-aws-v1.").unwrap();
        let url = String::from_utf8(URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
        assert!(url.starts_with("https://sts.us-east-1.amazonaws.com/?Action=GetCallerIdentity&"), "{url}");
        assert!(url.contains("X-Amz-SignedHeaders=host%3Bx-k8s-aws-id") && url.contains("AKIDEXAMPLE"), "{url}");
        assert_eq!(run.err, "");
    }
    let mut command = estate.bare(&args);
    keys(&mut command);
    command.env("KUBERNETES_EXEC_INFO", info("client.authentication.k8s.io/v1alpha1").to_string());
    let run = Run::of(&mut command).refuses(&["v1alpha1", v1beta1]);
    assert_eq!(run.out, "");
    let run = Run::of(estate.bare(&args).env("AWS_EC2_METADATA_DISABLED", "true"))
        .refuses(&["no AWS credentials", "AWS_PROFILE"]);
    assert_eq!(run.out, "");
}

#[test]
fn tokens_of_an_assumed_role() {
    let estate = Estate::new(&THREE_TIERS);
    let role = "arn:aws:iam::123456789012:role/kubectl";
    estate.sandbox(async |aws, _| {
        let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"sts:AssumeRole"}]}"#;
        aws.iam.create_role().role_name("kubectl").assume_role_policy_document(trust).send().await.unwrap();
    });
    let served = Served::start(&estate, None);
    let args = ["token", "--cluster", "c", "--region", "us-east-1", "--role-arn"];
    let run = against(&served.url(), &mut estate.bare(&[&args[..], &[role]].concat())).exits(0);
    let credential = run.json();
    let token = text(&credential["status"]["token"]).strip_prefix("k8s-aws-v1.").unwrap();
    let url = String::from_utf8(URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
    assert!(url.contains("X-Amz-Credential=ASIA") && url.contains("X-Amz-Security-Token="), "{url}");
    let nobody = against(&served.url(), &mut estate.bare(&[&args[..], &[&role.replace("kubectl", "nobody")]].concat()));
    nobody.refuses(&["sts:AssumeRole"]);
}

const MINE: &str = "\
# mine
current-context: home
apiVersion: v1
kind: Config
preferences: {colors: true}
users:
- name: me
  user: {token: \"0123\"}
contexts:
- name: home
  context: {cluster: home, user: me}
clusters:
- name: home
  cluster: {server: 'https://home:6443', extensions: [{name: x, extension: {on: \"yes\"}}]}
mystery: 1.50
";

#[test]
#[expect(clippy::cognitive_complexity, reason = "assertions count as branches")]
fn kubeconfigs_are_merged() {
    let estate = Estate::applied(&THREE_TIERS);
    let served = Served::start(&estate, None);
    let run = |args: &[&str]| against(&served.url(), estate.bare(args).env("AWS_PROFILE", "default"));
    // The profile must exist.
    fs::create_dir(estate.path().join(".aws")).unwrap();
    fs::write(estate.path().join(".aws/config"), "[default]\nregion = us-east-1\n").unwrap();
    let server = |cluster: &str| format!("{}/k8s/123456789012/us-east-1/{cluster}", served.url());
    let names = |config: &Value, list_of: &str| -> Vec<String> {
        list(&config[list_of]).iter().map(|c| text(&c["name"]).to_owned()).collect()
    };

    // A new kubeconfig is readable for its owner only.
    run(&["kubeconfig"]).exits(0);
    let file = estate.path().join(".kube/config");
    let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    let config = estate.read_yaml(".kube/config");
    for what in ["clusters", "contexts", "users"] {
        assert_eq!(names(&config, what), [SHARED, SILO], "{what}");
    }
    assert_eq!(config["current-context"], SHARED);
    assert_eq!(config["clusters"][1]["cluster"]["server"], server("acme-t-12345"));
    assert!(!text(&config["clusters"][1]["cluster"]["certificate-authority-data"]).is_empty());
    assert_eq!(config["contexts"][1]["context"], json!({"cluster": SILO, "user": SILO}));
    assert_eq!(
        config["users"][1]["user"],
        json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "ringfence",
            "args": ["token", "--cluster", "acme-t-12345", "--region", "us-east-1"],
            "interactiveMode": "IfAvailable", "provideClusterInfo": false,
            "env": [{"name": "AWS_PROFILE", "value": "default"}],
        }})
    );
    let text_before = fs::read_to_string(&file).unwrap();
    run(&["kubeconfig"]).exits(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), text_before, "the second time changes nothing");

    // The clusters are merged into an existing kubeconfig, through a link.
    let mine = estate.path().join("mine");
    fs::write(&mine, MINE).unwrap();
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&mine, estate.path().join("link")).unwrap();
    let to = |args: &[&str]| {
        let mut command = estate.bare(&[&["kubeconfig"], args].concat());
        against(&served.url(), command.env("KUBECONFIG", "link:other"))
    };
    to(&["12345", "--alias", "globex"]).exits(0);
    assert!(fs::symlink_metadata(estate.path().join("link")).unwrap().is_symlink());
    assert_eq!(mode(&mine), 0o640);
    let config = estate.read_yaml("mine");
    let keys: Vec<&String> = config.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["current-context", "apiVersion", "kind", "preferences", "users", "contexts", "clusters", "mystery"]
    );
    let old = serde_yaml_of(MINE);
    for what in ["current-context", "preferences", "mystery"] {
        assert_eq!(config[what], old[what]);
    }
    for what in ["users", "contexts", "clusters"] {
        assert_eq!(config[what][0], old[what][0], "{what}");
        assert_eq!(list(&config[what]).len(), 2);
    }
    assert_eq!(names(&config, "contexts"), ["home", "globex"]);

    // Members that users added to our entries stay. Another login in our entries is replaced.
    let mut edited = config.clone();
    edited["clusters"][1]["cluster"]["proxy-url"] = json!("socks5://127.0.0.1:1080");
    edited["clusters"][1]["cluster"]["server"] = json!("https://old");
    edited["contexts"][1]["context"]["namespace"] = json!("t-12345");
    edited["users"][1]["user"] = json!({"token": "old"});
    fs::write(&mine, yaml(&edited).unwrap()).unwrap();
    to(&["12345", "--alias", "globex", "--use", "--role-arn", "arn:aws:iam::123456789012:role/r"]).exits(0);
    let config = estate.read_yaml("mine");
    assert_eq!(config["current-context"], "globex");
    assert_eq!(config["clusters"][1]["cluster"]["proxy-url"], "socks5://127.0.0.1:1080");
    assert_eq!(config["clusters"][1]["cluster"]["server"], server("acme-t-12345"));
    assert_eq!(config["contexts"][1]["context"]["namespace"], "t-12345");
    assert!(config["users"][1]["user"].get("token").is_none());
    let args = &config["users"][1]["user"]["exec"]["args"];
    assert_eq!(list(args)[5..], [json!("--role-arn"), json!("arn:aws:iam::123456789012:role/r")]);

    // With `--print`, nothing is written, and entries of others aren't shown.
    let before = fs::read_to_string(&mine).unwrap();
    let printed = serde_yaml_of(&to(&["shared-1", "--print"]).exits(0).out);
    assert_eq!(names(&printed, "clusters"), [SHARED]);
    assert_eq!(fs::read_to_string(&mine).unwrap(), before);

    // A broken file is an error and isn't changed.
    for broken in ["clusters: [\n", "- a\n", "clusters: {a: 1}\n", "users: [1]\n", "a: 1\n---\nb: 2\n"] {
        fs::write(&mine, broken).unwrap();
        to(&[]).refuses(&["the file was not changed"]);
        assert_eq!(fs::read_to_string(&mine).unwrap(), broken);
    }
    let left: Vec<String> =
        fs::read_dir(estate.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|n| n.ends_with(".new")), "{left:?}");
}

/// A sandbox's ARNs are the same as the real account's. Entries for the real clusters aren't changed.
#[test]
fn entries_of_a_sandbox_replace_no_real_cluster() {
    let estate = Estate::applied(&THREE_TIERS);
    let real = SHARED.strip_prefix("sandbox/").unwrap();
    let server = "https://ABC.gr7.us-east-1.eks.amazonaws.com";
    let mine = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: prod\nclusters: [{{name: {real}, cluster: {{server: {server}}}}}]\n\
         contexts: [{{name: {real}, context: {{cluster: {real}, user: {real}}}}}, {{name: prod, context: {{cluster: {real}, user: {real}}}}}]\n\
         users: [{{name: {real}, user: {{token: t}}}}]\n"
    );
    fs::write(estate.path().join("k"), &mine).unwrap();
    let before = serde_yaml_of(&mine);
    let kubeconfig = |args: &[&str]| estate.run(&[&["kubeconfig", "--kubeconfig-file", "k"], args].concat());
    let said = kubeconfig(&[]).exits(0).err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("clusters of a sandbox. They answer only while"), "{said}");
    let config = estate.read_yaml("k");
    assert_eq!(config["current-context"], "prod");
    for what in ["clusters", "contexts", "users"] {
        let (old, new) = (list(&before[what]), list(&config[what]));
        assert_eq!((&new[..old.len()], new.len()), (old, old.len() + 2), "{what}");
    }
    assert_eq!(list(&config["clusters"]).iter().map(|c| text(&c["name"])).collect::<Vec<_>>(), [real, SHARED, SILO]);
    // The same for clusters with another name in the kubeconfig.
    for name in ["prod", real] {
        kubeconfig(&["shared-1", "--alias", name]).refuses(&["a cluster of a sandbox must not replace it", "--alias"]);
        assert_eq!(estate.read_yaml("k"), config);
    }
    kubeconfig(&["shared-1", "--alias", "toy", "--use"]).exits(0);
    kubeconfig(&["shared-1", "--alias", "toy"]).exits(0);
    assert_eq!(estate.read_yaml("k")["current-context"], "toy");
}

#[test]
fn kubeconfigs_of_clusters_that_arent_there() {
    let estate = Estate::new(&THREE_TIERS);
    let file = estate.path().join(".kube/config");
    estate.run(&["kubeconfig"]).refuses(&["not applied yet", "12345", "shared-1", "ringfence apply"]);
    estate.run(&["kubeconfig", "12345"]).refuses(&["not applied yet", "12345"]);
    estate.run(&["kubeconfig", "nobody"]).refuses(&["no cluster is called `nobody`", "shared-1, 12345"]);
    let run = estate.run(&["kubeconfig", "--use"]).exits(64);
    assert!(run.err.contains("need exactly one CLUSTER"), "{}", run.err);
    assert!(!file.exists());
}

/// A tenant's people get the gateway's address and no credential.
#[test]
fn a_tenants_kubeconfig_leads_to_the_gateway() {
    let estate = Estate::new(&GATEWAY);
    let run = |args: &[&str]| estate.run(&[&["kubeconfig", "--tenant", "globex", "--print"], args].concat());
    let text = run(&["--aws-name", "acme-gateway"]).exits(0).out;
    for expected in [
        "server: https://gateway.acme.example/tenants/globex",
        "namespace: t-globex",
        "command: aws",
        "- acme-gateway",
        "- get-token",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let text =
        run(&["--exec", "kubectl oidc-login get-token '--oidc-issuer-url=https://login.example.com'"]).exits(0).out;
    assert!(
        text.contains("command: kubectl") && text.contains("--oidc-issuer-url=https://login.example.com"),
        "{text}"
    );
    assert!(!run(&[]).exits(0).out.contains("exec"));
    fs::write(estate.dir.path().join("ca.pem"), "nonsense").unwrap();
    assert!(run(&["--gateway-authority", "ca.pem"]).exits(1).err.contains("no certificate in PEM"));
    let refused = estate.run(&["kubeconfig", "--tenant", "nobody", "--print"]).exits(1);
    assert!(refused.err.contains("the spec has no tenant nobody"), "{}", refused.err);
    let refused = Estate::new(&THREE_TIERS).run(&["kubeconfig", "--tenant", "12345", "--print"]).exits(1);
    assert!(refused.err.contains("spec.gateway.url"), "{}", refused.err);
}
