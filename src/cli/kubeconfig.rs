use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use super::{Global, exit, host};
use crate::engine::address::Address;
use crate::engine::error::{Error, Result};
use crate::engine::kind::{Found, Round};
use crate::kinds::aws::eks_cluster;
use crate::run::{Failure, Session, unwritten, written};
use crate::spec::Spec;
use crate::ui::Ui;
use crate::{files, stack, template};

#[derive(Debug, Args)]
pub struct Kubeconfig {
    /// The clusters: a pool by its name, a silo tenant by its id. Without any, all clusters that exist.
    #[arg(value_name = "CLUSTER")]
    clusters: Vec<String>,
    /// For the people of this tenant: access through the gateway (`spec.gateway.url`). Works offline. The file has no
    /// credential: see --aws-name and --exec.
    #[arg(long, value_name = "ID", conflicts_with_all = ["clusters", "role_arn"])]
    tenant: Option<String>,
    /// With --tenant: the gateway's certificate authority, a file in PEM. Without it, clients trust the authorities of
    /// their computer.
    #[arg(long, value_name = "FILE", requires = "tenant")]
    gateway_authority: Option<PathBuf>,
    /// With --tenant: log in with AWS credentials, by `aws eks get-token`. NAME is `aws.name` of the gateway's
    /// configuration.
    #[arg(long, value_name = "NAME", requires = "tenant", conflicts_with = "exec")]
    aws_name: Option<String>,
    /// With --tenant: log in with the credential that this command prints, such as `kubectl oidc-login get-token
    /// --oidc-issuer-url=… --oidc-client-id=…`.
    #[arg(long, value_name = "COMMAND", requires = "tenant")]
    exec: Option<String>,
    /// The kubeconfig to change, instead of the first file of $KUBECONFIG or ~/.kube/config. Other entries of the
    /// file stay. Comments in the file are lost.
    #[arg(long, value_name = "FILE", conflicts_with = "print")]
    kubeconfig_file: Option<PathBuf>,
    /// The name of the context. The default is the cluster's ARN, with the prefix `sandbox/` for a cluster of a
    /// sandbox. Needs exactly one CLUSTER.
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// The IAM role to authenticate as.
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
    /// Make the new context the current context. Needs exactly one CLUSTER.
    #[arg(long = "use")]
    current: bool,
    /// Print a kubeconfig with these clusters only. No file is written.
    #[arg(long)]
    print: bool,
}

/// The prefix of entries for a sandbox's clusters. A sandbox's cluster has the same ARN as the real one.
const SANDBOX: &str = "sandbox/";

/// The entries of one cluster in a kubeconfig.
struct Entry {
    /// The name of the cluster entry and of the user entry.
    name: String,
    context: String,
    /// The default namespace of the context. None: the user's own setting stays.
    namespace: Option<String>,
    cluster: Value,
    user: Value,
}

impl Kubeconfig {
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let one_only = (self.current || self.alias.is_some()) && self.tenant.is_none();
        if one_only && self.clusters.len() != 1 {
            return Err(Error::usage("--alias and --use need exactly one CLUSTER")
                .help("name it: the pool's name or the silo tenant's id")
                .into());
        }
        let entries = match &self.tenant {
            Some(tenant) => vec![self.of_tenant(&host::load(global, ui)?, tenant)?],
            None => {
                let session = host::open(global, ui).await?;
                session.during(async |session| Ok(self.entries(session, ui).await?)).await?
            }
        };
        if self.print {
            let mut config = empty();
            entries.iter().try_for_each(|e| merge(&mut config, e, self.current))?;
            ui.print(&template::yaml(&config)?)?;
            return Ok(exit::DONE);
        }
        let file = target(self.kubeconfig_file.clone())?;
        let mut config = read(&file)?;
        for entry in &entries {
            merge(&mut config, entry, self.current).map_err(|e| Error {
                message: format!("{}: {}; the file was not changed", file.display(), e.message),
                ..e
            })?;
        }
        write(&file, &template::yaml(&config)?).map_err(|e| unwritten(&file.display().to_string(), &e))?;
        for entry in &entries {
            ui.note(&format!("Context {} is in {}", entry.context, file.display()));
        }
        if entries.iter().any(|e| e.name.starts_with(SANDBOX)) {
            ui.note("These are clusters of a sandbox. They answer only while `ringfence sandbox` runs, and don't need the token of `ringfence token`.");
        }
        Ok(exit::DONE)
    }

    /// The gateway, as a tenant's people reach it.
    fn of_tenant(&self, spec: &Spec, id: &str) -> Result<Entry> {
        let tenant = spec.tenant(id).ok_or_else(|| {
            let known: Vec<&str> = spec.tenants.iter().map(|tenant| tenant.id.as_str()).take(10).collect();
            Error::input(format!("the spec has no tenant {id}"))
                .help(format!("tenants of the spec: {}", known.join(", ")))
        })?;
        let Some(gateway) = &spec.gateway else {
            return Err(Error::input("the spec has no gateway, and tenants reach no API server without one")
                .help("set spec.gateway.url, and run `ringfence gateway`"));
        };
        let mut cluster = json!({"server": format!("{}/tenants/{id}", gateway.url)});
        if let Some(file) = &self.gateway_authority {
            let pem = fs::read(file).map_err(|e| Error::input(format!("{} can't be read: {e}", file.display())))?;
            if CertificateDer::pem_slice_iter(&pem).next().is_none_or(|first| first.is_err()) {
                return Err(Error::input(format!("{} has no certificate in PEM", file.display())));
            }
            cluster["certificate-authority-data"] = STANDARD.encode(pem).into();
        }
        let words = match (&self.aws_name, &self.exec) {
            (Some(name), _) => {
                ["aws", "eks", "get-token", "--output", "json", "--cluster-name", name, "--region", &spec.region]
                    .map(str::to_owned)
                    .to_vec()
            }
            (None, Some(command)) => shlex::split(command)
                .filter(|words| !words.is_empty())
                .ok_or_else(|| Error::usage(format!("--exec is no command: `{command}`")).help("close its quotes"))?,
            (None, None) => Vec::new(),
        };
        let user = match words.split_first() {
            Some((command, args)) => json!({"exec": {
                "apiVersion": "client.authentication.k8s.io/v1beta1", "command": command, "args": args,
                "interactiveMode": "IfAvailable", "provideClusterInfo": false,
            }}),
            None => json!({}),
        };
        let name = format!("{}/{id}", spec.name);
        Ok(Entry {
            context: self.alias.clone().unwrap_or_else(|| name.clone()),
            name,
            namespace: Some(tenant.namespace()),
            cluster,
            user,
        })
    }

    /// The clusters that were named on the command line and that have our ownership tag.
    async fn entries(&self, session: &Session, ui: &Ui) -> Result<Vec<Entry>> {
        let known: Vec<(String, Address)> =
            session.spec.clusters().map(|c| (written(c.owner).to_owned(), stack::prefix(c.owner))).collect();
        for name in &self.clusters {
            if !known.iter().any(|(n, _)| n == name) {
                let names = known.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
                return Err(Error::input(format!("no cluster is called `{name}`"))
                    .help(format!("the spec's clusters are {names}")));
            }
        }
        let clusters = session.kinds.handlers(eks_cluster::NAME, &session.aws.scope)?;
        let found = clusters.observe(&Round::default(), &[]).await?.found;
        let mut entries = Vec::new();
        let mut missing = Vec::new();
        for (name, prefix) in known {
            if !self.clusters.is_empty() && !self.clusters.contains(&name) {
                continue;
            }
            let address = prefix.join("cluster");
            let newest = found.iter().filter(|f| f.address == address).max_by_key(|f| f.generation);
            match newest.and_then(|f| self.entry(f, &session.aws.scope.region)) {
                Some(entry) => entries.push(entry),
                None => missing.push(name),
            }
        }
        let what = format!("not applied yet, or not ready: {}", missing.join(", "));
        if !missing.is_empty() && (!self.clusters.is_empty() || entries.is_empty()) {
            return Err(Error::input(what).help("nothing was written; `ringfence apply` creates these clusters"));
        }
        if !missing.is_empty() {
            ui.note(&format!("Not added to the kubeconfig: {what}"));
        }
        Ok(entries)
    }

    /// `None` while the cluster has no endpoint.
    fn entry(&self, found: &Found, region: &str) -> Option<Entry> {
        let output = |name: &str| found.outputs.get(name).filter(|v| !v.is_empty());
        let (name, arn, endpoint) = (output("name")?, output("arn")?, output("endpoint")?);
        let mut cluster = Map::from_iter([("server".to_owned(), json!(endpoint))]);
        if let Some(authority) = output("certificate_authority") {
            cluster.insert("certificate-authority-data".to_owned(), json!(authority));
        }
        let mut args = vec!["token", "--cluster", name, "--region", region];
        if let Some(role) = &self.role_arn {
            args.extend(["--role-arn", role]);
        }
        let mut exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "ringfence",
            "args": args,
            "interactiveMode": "IfAvailable",
            "provideClusterInfo": false,
        });
        // The ARN is the same on AWS and in a sandbox. Only the address of the API server tells them apart.
        let sandbox = if is_local(endpoint) { SANDBOX } else { "" };
        let name = format!("{sandbox}{arn}");
        let profile = std::env::var("AWS_PROFILE").ok().filter(|p| !p.is_empty());
        if let (Some(profile), Some(exec)) = (profile, exec.as_object_mut()) {
            exec.insert("env".to_owned(), json!([{"name": "AWS_PROFILE", "value": profile}]));
        }
        Some(Entry {
            context: self.alias.clone().unwrap_or_else(|| name.clone()),
            name,
            namespace: None,
            cluster: Value::Object(cluster),
            user: json!({"exec": exec}),
        })
    }
}

/// True if the API server is on this computer, as a sandbox's API servers are.
fn is_local(endpoint: &str) -> bool {
    let host = endpoint.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn empty() -> Value {
    json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "current-context": "", "users": []})
}

/// Adds a cluster to a kubeconfig. Entries of the same name are replaced in their place.
fn merge(config: &mut Value, entry: &Entry, current: bool) -> Result<()> {
    let Entry { name, context, namespace, cluster, user } = entry;
    let whole = config.as_object_mut().ok_or_else(|| Error::input("it isn't a kubeconfig"))?;
    if name.starts_with(SANDBOX) {
        let leads_to = named(whole, "contexts", context, "context")?.get("cluster").and_then(Value::as_str);
        if let Some(other) = leads_to.filter(|cluster| !cluster.starts_with(SANDBOX)) {
            return Err(Error::input(format!(
                "the context {context} refers to the cluster {other}; a cluster of a sandbox must not replace it"
            ))
            .help("choose another name with --alias"));
        }
    }
    // The user's other settings stay, such as a proxy or a namespace. Other credentials and trust settings must not
    // stay: kubectl could use them instead of ours.
    let old = named(whole, "clusters", name, "cluster")?;
    for other in ["certificate-authority", "insecure-skip-tls-verify"] {
        old.shift_remove(other);
    }
    old.extend(cluster.as_object().cloned().unwrap_or_default());
    let old = named(whole, "contexts", context, "context")?;
    old.insert("cluster".to_owned(), json!(name));
    old.insert("user".to_owned(), json!(name));
    if let Some(namespace) = namespace {
        old.insert("namespace".to_owned(), json!(namespace));
    }
    let credentials = user.as_object().cloned().unwrap_or_default();
    let old = named(whole, "users", name, "user")?;
    // A tenant's own login stays if none is given.
    if !credentials.is_empty() {
        *old = credentials;
    }
    let unset = whole.get("current-context").and_then(Value::as_str).unwrap_or_default().is_empty();
    if current || unset {
        whole.insert("current-context".to_owned(), json!(context));
    }
    Ok(())
}

/// The `content` of the item of `list` with this name. Creates a missing item.
fn named<'a>(
    config: &'a mut Map<String, Value>,
    list: &str,
    name: &str,
    content: &str,
) -> Result<&'a mut Map<String, Value>> {
    let broken = |what: &str| Error::input(format!("`{list}` isn't a list of {what}"));
    let items = config.entry(list).or_insert(Value::Null);
    if items.is_null() {
        *items = json!([]);
    }
    let items = items.as_array_mut().ok_or_else(|| broken("anything"))?;
    if items.iter().any(|i| !i.is_object()) {
        return Err(broken("named entries"));
    }
    let place = items.iter().position(|i| i.get("name").and_then(Value::as_str) == Some(name));
    let place = place.unwrap_or_else(|| {
        items.push(json!({"name": name}));
        items.len() - 1
    });
    let item = items.get_mut(place).and_then(Value::as_object_mut).ok_or_else(|| broken("named entries"))?;
    let inner = item.entry(content).or_insert(Value::Null);
    if inner.is_null() {
        *inner = json!({});
    }
    inner.as_object_mut().ok_or_else(|| broken(&format!("entries with a `{content}` each")))
}

/// The file to write: --kubeconfig-file, else the first file of $KUBECONFIG, else ~/.kube/config.
fn target(asked: Option<PathBuf>) -> Result<PathBuf> {
    let first = || {
        let all = std::env::var_os("KUBECONFIG")?;
        std::env::split_paths(&all).find(|p| !p.as_os_str().is_empty())
    };
    let home = || std::env::home_dir().map(|h| h.join(".kube/config"));
    asked.or_else(first).or_else(home).ok_or_else(|| {
        Error::input("the kubeconfig has no path: neither KUBECONFIG nor a home directory is set")
            .help("name a file with --kubeconfig-file")
    })
}

/// The kubeconfig in the file. A path that isn't a regular file, such as a pipe, counts as empty: reading it would
/// block.
fn read(file: &Path) -> Result<Value> {
    if fs::metadata(file).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return Ok(empty());
    }
    let wrong = |why: String| {
        Error::input(format!("the kubeconfig {} {why}; the file was not changed", file.display()))
            .help("repair the file, or name another one with --kubeconfig-file, or print the kubeconfig with --print")
    };
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(empty()),
        Err(e) => return Err(wrong(format!("can't be read: {e}"))),
    };
    // The parser's own message would quote the file, which holds secrets.
    let documents: Vec<Value> = serde_yaml::from_multiple(&text).map_err(|e| {
        let line = e.location().map_or(0, |l| l.line());
        wrong(format!("isn't YAML: line {line}"))
    })?;
    match documents.as_slice() {
        [] | [Value::Null] => Ok(empty()),
        [whole @ Value::Object(_)] => Ok(whole.clone()),
        _ => Err(wrong("isn't one kubeconfig".to_owned())),
    }
}

/// A new file and a new directory are readable by their owner only, because a kubeconfig may hold secrets.
fn write(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    files::write(file, text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use crate::engine::kind::Status;

    #[test]
    fn a_cluster_on_aws_has_its_arn_for_a_name_and_one_of_a_sandbox_another() {
        let arn = "arn:aws:eks:us-east-1:123456789012:cluster/acme-p-main";
        let command = Kubeconfig {
            clusters: vec![],
            tenant: None,
            gateway_authority: None,
            aws_name: None,
            exec: None,
            kubeconfig_file: None,
            alias: None,
            role_arn: None,
            current: false,
            print: false,
        };
        for (endpoint, name) in [
            ("https://ABC.gr7.us-east-1.eks.amazonaws.com", arn.to_owned()),
            ("http://127.0.0.1:4599/k8s/123456789012/us-east-1/acme-p-main", format!("sandbox/{arn}")),
            ("http://[::1]:4599/k8s", format!("sandbox/{arn}")),
            ("http://localhost:4599", format!("sandbox/{arn}")),
        ] {
            let outputs = [("name", "acme-p-main"), ("arn", arn), ("endpoint", endpoint)];
            let found = Found {
                address: Address::new("pool/main/cluster"),
                generation: 1,
                id: "acme-p-main".to_owned(),
                outputs: outputs.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                state: crate::engine::packed::Packed::default(),
                status: Status::Ready,
                refs: vec![],
            };
            let entry = command.entry(&found, "us-east-1").unwrap();
            assert_eq!((&entry.name, &entry.context), (&name, &name), "{endpoint}");
        }
    }
}
