use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::session::{Session, written};
use super::{Global, exit, unwritten};
use crate::engine::address::Address;
use crate::engine::error::{Error, Result};
use crate::engine::kind::{Found, Round};
use crate::kinds::aws::eks_cluster;
use crate::ui::{Failure, Ui};
use crate::{stack, template};

#[derive(Debug, Args)]
pub struct Kubeconfig {
    /// Pools by name, silo tenants by id; none is all that exist.
    #[arg(value_name = "CLUSTER")]
    clusters: Vec<String>,
    /// The kubeconfig to add to, instead of the first of $KUBECONFIG or
    /// ~/.kube/config. What else is in it stays; comments don't.
    #[arg(long, value_name = "FILE", conflicts_with = "print")]
    kubeconfig_file: Option<PathBuf>,
    /// The context's name, instead of the cluster's ARN. With one CLUSTER.
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// A role to log in as.
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
    /// Make it the current context. With one CLUSTER.
    #[arg(long = "use")]
    current: bool,
    /// Print a kubeconfig of these clusters alone; write nothing.
    #[arg(long)]
    print: bool,
}

/// One cluster as a kubeconfig has it.
struct Entry {
    /// Of its cluster and user.
    arn: String,
    context: String,
    cluster: Value,
    user: Value,
}

impl Kubeconfig {
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let one_only = self.current || self.alias.is_some();
        if one_only && self.clusters.len() != 1 {
            return Err(Error::input("--alias and --use are for one cluster")
                .help("name it: the pool's name or the silo tenant's id")
                .into());
        }
        let session = Session::open(global, ui).await?;
        let entries = self.entries(&session, ui).await?;
        session.close().await?;
        if self.print {
            let mut config = empty();
            entries.iter().try_for_each(|e| merge(&mut config, e, self.current))?;
            ui.print(&template::yaml(&config)?)?;
            return Ok(exit::DONE);
        }
        let file = target(self.kubeconfig_file.clone())?;
        let mut config = read(&file)?;
        for entry in &entries {
            merge(&mut config, entry, self.current)
                .map_err(|e| Error { message: format!("{}: {}; it stays as it is", file.display(), e.message), ..e })?;
        }
        write(&file, &template::yaml(&config)?).map_err(|e| unwritten(&file.display().to_string(), &e))?;
        for entry in &entries {
            ui.note(&format!("Context {} is in {}", entry.context, file.display()));
        }
        Ok(exit::DONE)
    }

    /// The clusters that are asked for, and are ours.
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
        let kind = session.kinds.get(eks_cluster::NAME)?;
        let found = kind.observe(&Round::default(), &[]).await?.found;
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
            return Err(Error::input(what).help("`ringfence apply` makes them; nothing was written"));
        }
        if !missing.is_empty() {
            ui.note(&format!("Left out, because {what}"));
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
        let profile = std::env::var("AWS_PROFILE").ok().filter(|p| !p.is_empty());
        if let (Some(profile), Some(exec)) = (profile, exec.as_object_mut()) {
            exec.insert("env".to_owned(), json!([{"name": "AWS_PROFILE", "value": profile}]));
        }
        Some(Entry {
            arn: arn.clone(),
            context: self.alias.clone().unwrap_or_else(|| arn.clone()),
            cluster: Value::Object(cluster),
            user: json!({"exec": exec}),
        })
    }
}

fn empty() -> Value {
    json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "current-context": "", "users": []})
}

/// Puts a cluster into a kubeconfig: in the place of what has its name, else
/// at the end.
fn merge(config: &mut Value, entry: &Entry, current: bool) -> Result<()> {
    let Entry { arn, context, cluster, user } = entry;
    let whole = config.as_object_mut().ok_or_else(|| Error::input("it isn't a kubeconfig"))?;
    // What else people say about a cluster or a context stays, such as a proxy
    // or a namespace; of another way to log in nothing may be left.
    let old = named(whole, "clusters", arn, "cluster")?;
    for other in ["certificate-authority", "insecure-skip-tls-verify"] {
        old.shift_remove(other);
    }
    old.extend(cluster.as_object().cloned().unwrap_or_default());
    let old = named(whole, "contexts", context, "context")?;
    old.insert("cluster".to_owned(), json!(arn));
    old.insert("user".to_owned(), json!(arn));
    *named(whole, "users", arn, "user")? = user.as_object().cloned().unwrap_or_default();
    let unset = whole.get("current-context").and_then(Value::as_str).unwrap_or_default().is_empty();
    if current || unset {
        whole.insert("current-context".to_owned(), json!(context));
    }
    Ok(())
}

/// The content of the item of `list` with this name, made if it is missing.
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

/// The file to write: what is asked for, else the first of $KUBECONFIG, else
/// ~/.kube/config; where that is a link, what it leads to.
fn target(asked: Option<PathBuf>) -> Result<PathBuf> {
    let first = || {
        let all = std::env::var_os("KUBECONFIG")?;
        std::env::split_paths(&all).find(|p| !p.as_os_str().is_empty())
    };
    let home = || std::env::home_dir().map(|h| h.join(".kube/config"));
    let file = asked.or_else(first).or_else(home).ok_or_else(|| {
        Error::input("there is no home directory to keep a kubeconfig in").help("add --kubeconfig-file")
    })?;
    Ok(fs::canonicalize(&file).unwrap_or(file))
}

fn read(file: &Path) -> Result<Value> {
    let wrong = |why: String| {
        Error::input(format!("the kubeconfig {} {why}; it stays as it is", file.display()))
            .help("mend it, or name another file with --kubeconfig-file, or take `--print`")
    };
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(empty()),
        Err(e) => return Err(wrong(format!("can't be read: {e}"))),
    };
    // The text of the error would quote the file, which holds secrets.
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

/// Whole or not at all. A new file is for its owner only.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mode = fs::metadata(file).map_or(0o600, |m| m.permissions().mode() & 0o7777);
    let next = file.with_added_extension(format!("{}.new", std::process::id()));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next).and_then(|mut f| {
        f.write_all(text.as_bytes())?;
        f.set_permissions(fs::Permissions::from_mode(mode))?;
        f.sync_all()?;
        fs::rename(&next, file)
    });
    written.inspect_err(|e| {
        if e.kind() != io::ErrorKind::AlreadyExists {
            // That it can't be removed either says nothing new.
            let _ = fs::remove_file(&next);
        }
    })
}
