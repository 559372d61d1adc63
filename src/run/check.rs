//! Checks files with Kubernetes objects as the cluster of a tenant would, offline.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use serde_yaml::granit_parser::{Event, Options, Parser};

use crate::engine::error::{Error, Result};
use crate::engine::value;
use crate::guard::{Guard, Operation, Refusal, Request, Rights, User, defaults};
use crate::kinds::k8s::manifest;
use crate::spec::Spec;
use crate::stack::{self, Facts};
use crate::template::Templates;

/// The file name of the standard input.
pub const STDIN: &str = "-";

/// API groups of files that tools read, and no cluster.
const OF_TOOLS: &[&str] = &["kustomize.config.k8s.io", "helm.sh"];

/// One object of a file.
#[derive(Clone, Debug)]
pub struct Document {
    pub file: String,
    /// The line where the object begins, counted from 1.
    pub line: usize,
    pub object: Value,
}

/// The files' objects, and what was left out.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    pub found: Vec<Document>,
    pub notes: Vec<String>,
}

/// The verdict on one object.
#[derive(Clone, Debug)]
pub struct Checked {
    pub file: String,
    pub line: usize,
    pub kind: String,
    pub name: String,
    pub refusals: Vec<Refusal>,
    /// The object as the cluster would store it, if it is admitted.
    pub decorated: Option<Value>,
}

/// What decides about a tenant's objects.
pub struct Judge {
    guard: Guard,
    rights: Rights,
    namespace: Value,
    name: String,
    user: User,
    mutates: bool,
}

impl Documents {
    /// Reads files, and all YAML and JSON files in directories. [`STDIN`] is the standard input.
    pub fn read(paths: &[PathBuf], input: &mut dyn Read) -> Result<Self> {
        let mut all = Self::default();
        for path in paths {
            if path.as_os_str() == STDIN {
                let mut text = String::new();
                input.read_to_string(&mut text).map_err(|e| unreadable(Path::new("the standard input"), &e))?;
                all.add("<stdin>", &text, true)?;
            } else if path.is_dir() {
                let mut files = Vec::new();
                below(path, &mut files)?;
                files.sort();
                for file in files {
                    all.add(&file.display().to_string(), &read(&file)?, false)?;
                }
            } else {
                all.add(&path.display().to_string(), &read(path)?, true)?;
            }
        }
        all.some()
    }

    /// The objects of one text. `file` names it in messages.
    pub fn of(file: &str, text: &str) -> Result<Self> {
        let mut all = Self::default();
        all.add(file, text, true)?;
        all.some()
    }

    fn some(self) -> Result<Self> {
        if self.found.is_empty() {
            return Err(Error::input("there is no Kubernetes object in these files")
                .help("name files or directories with rendered manifests, or pipe them: helm template . | ringfence check - --tenant ID"));
        }
        Ok(self)
    }

    /// `named`: whether the user named the file. Files of a directory may hold other things than objects.
    fn add(&mut self, file: &str, text: &str, named: bool) -> Result<()> {
        for (line, object) in parse(file, text)? {
            self.add_object(file, line, object, named)?;
        }
        Ok(())
    }

    fn add_object(&mut self, file: &str, line: usize, object: Value, named: bool) -> Result<()> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (api, kind) = (text("/apiVersion").to_owned(), text("/kind").to_owned());
        if OF_TOOLS.contains(&api.split('/').next().unwrap_or_default()) || api.is_empty() || kind.is_empty() {
            if named {
                return Err(Error::input(format!(
                    "{file}:{line} is no Kubernetes object: it needs apiVersion and kind"
                ))
                .help("render the files first, with `helm template` or `kustomize build`"));
            }
            self.notes.push(format!("{file}:{line} was left out, because it is no Kubernetes object"));
            return Ok(());
        }
        if let (true, Some(Value::Array(items))) = (kind.ends_with("List"), object.get("items")) {
            for item in items.clone() {
                self.add_object(file, line, item, named)?;
            }
            return Ok(());
        }
        self.found.push(Document { file: file.to_owned(), line, object });
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::input(format!("{} can't be read: {error}", path.display())).help("check the path, and that the file is text")
}

fn below(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).map_err(|e| unreadable(directory, &e))?;
    for entry in entries {
        let entry = entry.map_err(|e| unreadable(directory, &e))?;
        let path = entry.path();
        // A link could lead out of the directory, or around in a circle.
        let kind = entry.file_type().map_err(|e| unreadable(&path, &e))?;
        if kind.is_dir() {
            below(&path, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            files.push(path);
        }
    }
    Ok(())
}

/// The documents of a file, each with the line where it begins.
fn parse(file: &str, text: &str) -> Result<Vec<(usize, Value)>> {
    let broken = |line: usize, what: String| {
        Error::input(format!("{file}:{line} is no valid YAML: {what}"))
            .help("correct the file; templates must be rendered first, with `helm template` or `kustomize build`")
    };
    let mut options = Options::default();
    options.emit_comments = false;
    options.emit_unresolved_aliases = true;
    let mut starts = Vec::new();
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((Event::DocumentStart(..), span)) => starts.push(span.start.line()),
            Ok(_) => {}
            Err(error) => return Err(broken(error.marker().line(), error.info().to_string())),
        }
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut documents = Vec::new();
    for (i, start) in starts.iter().enumerate() {
        let end = starts.get(i + 1).map_or(lines.len(), |next| next.saturating_sub(1));
        let piece = lines.get(start.saturating_sub(1)..end).unwrap_or_default();
        let values: Vec<Value> = serde_yaml::from_multiple(&piece.concat()).map_err(|e| {
            let line = e.location().map_or(1, |at| usize::try_from(at.line()).unwrap_or(1));
            broken(start + line - 1, e.without_snippet().to_string())
        })?;
        // A reader looks for the object, not for the mark before it.
        let skipped = piece.iter().take_while(|l| l.starts_with("---") || l.starts_with('#') || l.trim().is_empty());
        let line = start + skipped.count();
        documents.extend(values.into_iter().filter(|value| !value.is_null()).map(|value| (line, value)));
    }
    Ok(documents)
}

impl Judge {
    /// The policies of the tenant's cluster, its namespace and its rights, as the spec gives them. Works offline.
    /// `decorate`: also fill in the fields that the cluster's version of Kubernetes doesn't fill in by itself.
    ///
    /// # Errors
    /// The spec has no such tenant, or doesn't say which account's registries the tenant may use.
    pub fn of(spec: &Spec, templates: &Templates, tenant: &str, decorate: bool) -> Result<Self> {
        let Some(found) = spec.tenants.iter().find(|t| t.id == tenant) else {
            let known: Vec<&str> = spec.tenants.iter().map(|t| t.id.as_str()).take(10).collect();
            return Err(Error::input(format!("the spec has no tenant {tenant}"))
                .help(format!("tenants of the spec: {}", known.join(", "))));
        };
        let name = found.namespace();
        let desired = stack::build(spec, &Facts::assumed(spec), templates)?;
        let states = desired.iter().filter(|r| r.kind == manifest::NAME).map(|r| r.state.value());
        let states: Vec<Value> = states.collect();
        let namespace = states.iter().find(|state| {
            state.pointer("/object/kind") == Some(&"Namespace".into())
                && state.pointer("/object/metadata/name") == Some(&name.as_str().into())
        });
        let Some(namespace) = namespace else {
            return Err(Error::bug(format!("the namespace {name} isn't among the tenant's objects")));
        };
        let mut objects: Vec<Value> = states
            .iter()
            .filter(|state| state["cluster"] == namespace["cluster"])
            .map(|state| value::shown(&state["object"]))
            .collect();
        let namespace = value::shown(&namespace["object"]);
        if spec.account_id.is_none() && registries(&namespace).contains(".dkr.ecr.") {
            return Err(Error::input("the spec doesn't name its account, so the tenant's registries aren't known")
                .help("set spec.accountId"));
        }
        let groups = vec!["system:authenticated".to_owned(), format!("tenant:{tenant}")];
        let user = User { username: "check".to_owned(), groups };
        let rights = Rights::of(&objects, &name, &user);
        let mutates = objects.iter().any(|object| object["kind"] == "MutatingAdmissionPolicy");
        let guard = match decorate && !mutates {
            true => {
                objects.extend(stack::mutating_policies(spec, &Facts::assumed(spec), templates, tenant)?);
                Guard::decorating(&objects)?
            }
            false => Guard::new(&objects)?,
        };
        Ok(Self { guard, rights, namespace, name, user, mutates })
    }

    /// Whether the cluster itself fills in fields.
    pub fn cluster_decorates(&self) -> bool {
        self.mutates
    }

    /// The verdict on one object.
    pub fn check(&self, document: &Document) -> Checked {
        let text = |pointer: &str| document.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (api, kind) = (text("/apiVersion"), text("/kind"));
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)).plural;
        let mut refusals = Vec::new();
        let mut refuse = |control: &str, message: String| {
            refusals.push(Refusal {
                policy: "ringfence-check".to_owned(),
                binding: String::new(),
                control: Some(control.to_owned()),
                fields: Vec::new(),
                message: format!("{control}: {message}"),
            });
        };
        let elsewhere = text("/metadata/namespace");
        if !elsewhere.is_empty() && elsewhere != self.name {
            refuse(
                "NS-1",
                format!(
                    "the object is for the namespace {elsewhere}, but the tenant's is {}; remove metadata.namespace",
                    self.name
                ),
            );
        }
        if !self.rights.allow("create", group, &resource, None) {
            let of = if group.is_empty() { String::new() } else { format!(" of {group}") };
            refuse(
                "NS-1",
                format!(
                    "tenants may not create {resource}{of}; remove the object, or ask the platform's team to create it"
                ),
            );
        }
        let mut object = document.object.clone();
        if let Value::Object(fields) = &mut object {
            let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
            if metadata.is_object() {
                metadata["namespace"] = self.name.as_str().into();
            }
        }
        let written = object.clone();
        let is_pod = group.is_empty() && resource == "pods";
        if is_pod {
            defaults::fargate(&mut object, &self.namespace);
        }
        let request = Request {
            operation: Operation::Create,
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            resource,
            subresource: None,
            namespace: Some(self.name.clone()),
            name: text("/metadata/name").to_owned(),
            user: self.user.clone(),
            object: Some(object),
            old_object: None,
            dry_run: false,
        };
        // What tenants may not create, no policy needs to judge.
        let mut decorated = None;
        if refusals.is_empty() {
            let verdict = self.guard.review(request, Some(&self.namespace), &|_| false);
            decorated = verdict.object.filter(|_| verdict.refusals.is_empty());
            if let (Some(pod), true) = (&mut decorated, is_pod) {
                defaults::without_fargate(pod, &written);
            }
            refusals = verdict.refusals;
        }
        let name = match text("/metadata/name") {
            "" => format!("{}*", text("/metadata/generateName")),
            name => name.to_owned(),
        };
        Checked { file: document.file.clone(), line: document.line, kind: kind.to_owned(), name, refusals, decorated }
    }
}

pub(super) fn registries(namespace: &Value) -> &str {
    let at = "/metadata/annotations/ringfence.dev~1allowed-registries";
    namespace.pointer(at).and_then(Value::as_str).unwrap_or_default()
}
