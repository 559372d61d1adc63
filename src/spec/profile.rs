//! Profiles of tiers: reads them, follows `extends`, and merges a tenant's `overrides` into its tier. All of this works
//! on trees, so that every value keeps its place in a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use crate::files;

use super::error::{Code, SpecError};
use super::findings::Findings;
use super::profile_schema;
use super::settings::{IsolationModel, Profile};
use super::structure;
use super::tree::{self, Entry, Mark, Node, Value};
use super::words::{join, list, nearest, one_of, quote};

const BUILT_IN: &[(&str, &str)] = &[
    ("baseline", include_str!("../../profiles/baseline.yaml")),
    ("premium", include_str!("../../profiles/premium.yaml")),
    ("regulated", include_str!("../../profiles/regulated.yaml")),
    ("serverless", include_str!("../../profiles/serverless.yaml")),
    ("shared", include_str!("../../profiles/shared.yaml")),
    ("standard", include_str!("../../profiles/standard.yaml")),
];

/// Keys of a profile file that aren't settings.
const HEAD: &[&str] = &["description", "extends", "overridable"];

/// All profiles, by name.
#[derive(Debug)]
pub struct Profiles(BTreeMap<String, Loaded>);

/// A profile, merged with the profiles that it extends.
#[derive(Debug)]
pub struct Loaded {
    pub name: String,
    /// The settings, without the keys of `HEAD`.
    pub settings: Arc<Node>,
    pub overridable: Vec<String>,
    /// `None` for a profile without `isolation`, which is only a base for others, and for a profile with mistakes.
    pub profile: Option<Arc<Profile>>,
    /// True if mistakes were reported in it or in a profile that it extends.
    pub broken: bool,
}

/// A profile file as written.
struct Written {
    root: Node,
    broken: bool,
}

impl Profiles {
    /// Loads the built-in profiles and those of `dir`, which may replace built-in ones.
    pub fn load(dir: Option<&Path>, findings: &mut Findings) -> Self {
        let mut built_in = BTreeMap::new();
        for (name, text) in BUILT_IN {
            let file = PathBuf::from(format!("(built in) profiles/{name}.yaml"));
            if let Some(written) = read(&file, text, findings) {
                built_in.insert((*name).to_owned(), written);
            }
        }
        let own = dir.map(|dir| read_dir(dir, findings)).unwrap_or_default();
        let sources = Sources { built_in, own };
        let mut loaded = BTreeMap::new();
        for name in sources.built_in.keys().chain(sources.own.keys()) {
            if !loaded.contains_key(name)
                && let Some(profile) = sources.resolve(name, findings)
            {
                loaded.insert(name.clone(), profile);
            }
        }
        Self(loaded)
    }

    pub fn get(&self, name: &str) -> Option<&Loaded> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Loaded> {
        self.0.values()
    }

    /// The names of the profiles that a tenant may have as a tier, or a pool as its profile.
    pub fn names(&self, for_pools: bool) -> Vec<&str> {
        let fits =
            |p: &&Loaded| p.profile.as_ref().is_some_and(|p| (p.isolation == IsolationModel::Shared) == for_pools);
        self.0.values().filter(fits).map(|p| p.name.as_str()).collect()
    }
}

struct Sources {
    built_in: BTreeMap<String, Written>,
    own: BTreeMap<String, Written>,
}

impl Sources {
    fn resolve(&self, name: &str, findings: &mut Findings) -> Option<Loaded> {
        let mut chain: Vec<&Written> = Vec::new();
        let mut from_own = self.own.contains_key(name);
        let mut seen: Vec<(String, bool)> = Vec::new();
        let mut next = Some(name.to_owned());
        let mut broken = false;
        while let Some(current) = next.take() {
            let written = if from_own { self.own.get(&current) } else { self.built_in.get(&current) }?;
            seen.push((current.clone(), from_own));
            chain.push(written);
            broken |= written.broken;
            let Some(extends) = written.root.get("extends") else { break };
            let Some(base) = extends.text() else { break };
            // A file with the name of a built-in profile extends that built-in profile.
            from_own = self.own.contains_key(base) && !(from_own && base == current);
            let exists = if from_own { self.own.contains_key(base) } else { self.built_in.contains_key(base) };
            if !exists {
                let names: Vec<&str> = self.own.keys().chain(self.built_in.keys()).map(String::as_str).collect();
                let message = format!("there is no profile {}", quote(base));
                let help = one_of(base, &names);
                findings.error(SpecError::new(Code::UnknownName, "extends", &extends.mark, message).help(help));
                broken = true;
            } else if seen.iter().any(|(n, own)| n == base && *own == from_own) {
                let message = format!("the profile {} extends itself, directly or through other profiles", quote(name));
                let help = "break the circle: let the last profile of the chain extend `baseline`";
                findings.error(SpecError::new(Code::BadValue, "extends", &extends.mark, message).help(help));
                broken = true;
            } else {
                next = Some(base.to_owned());
            }
        }
        self.finish(name, &chain, broken, findings)
    }

    fn finish(&self, name: &str, chain: &[&Written], mut broken: bool, findings: &mut Findings) -> Option<Loaded> {
        let mark = chain.first()?.root.mark.clone();
        let mut settings = Node { value: Value::Map(Vec::new()), mark };
        for written in chain.iter().rev() {
            merge(&mut settings, &written.root);
        }
        if let Value::Map(entries) = &mut settings.value {
            entries.retain(|e| !HEAD.contains(&e.key.as_str()));
        }
        let overridable = chain.iter().find_map(|w| w.root.get("overridable"));
        let overridable = overridable.map(|n| n.items().iter().filter_map(|i| i.text().map(str::to_owned)).collect());
        let mut profile = None;
        if settings.get("isolation").is_some() && !broken {
            let before = findings.errors.len();
            structure::check(&profile_schema::PROFILE, &mut settings, "", findings);
            profile = typed(&settings, "", findings.errors.len() > before, findings);
            broken = profile.is_none();
        }
        if let (Some(profile), Some(written)) = (&profile, chain.first()) {
            useless(profile.isolation, written, findings);
        }
        let overridable = overridable.unwrap_or_default();
        let profile = profile.map(Arc::new);
        Some(Loaded { name: name.to_owned(), settings: Arc::new(settings), overridable, profile, broken })
    }
}

/// Reports a profile file's own settings that have no effect for its isolation model.
fn useless(isolation: IsolationModel, written: &Written, findings: &mut Findings) {
    for entry in written.root.entries() {
        if HEAD.contains(&entry.key.as_str()) || uses(isolation, &entry.key) {
            continue;
        }
        let message = format!("`{}` has no effect on {}", entry.key, subject(isolation));
        let help = format!("remove it; it belongs {}", home(&entry.key, isolation));
        findings.error(SpecError::new(Code::BadValue, entry.key.clone(), &entry.key_mark, message).help(help));
    }
}

/// True if a section has an effect in profiles of this isolation model.
pub fn uses(isolation: IsolationModel, section: &str) -> bool {
    let cluster = is_of_cluster(section);
    match (isolation, section) {
        (_, "isolation") | (IsolationModel::Silo, _) => true,
        (IsolationModel::Pool, "nodes" | "imds") | (IsolationModel::Shared, "imds") => true,
        (IsolationModel::Fargate, "nodes" | "imds") => false,
        (IsolationModel::Pool | IsolationModel::Fargate, _) => !cluster,
        (IsolationModel::Shared, _) => cluster,
    }
}

/// True for sections about a cluster. The other sections are about a tenant.
fn is_of_cluster(section: &str) -> bool {
    matches!(
        section,
        "systemNodes" | "cluster" | "network" | "addons" | "networkPolicy" | "networkPolicyMode" | "policyEngine"
    )
}

/// The owner of a profile of this isolation model, for messages.
pub fn subject(isolation: IsolationModel) -> &'static str {
    match isolation {
        IsolationModel::Silo => "a silo",
        IsolationModel::Pool => "a tenant in a pool",
        IsolationModel::Fargate => "a Fargate tenant",
        IsolationModel::Shared => "a pool's cluster",
    }
}

/// The right place for a section that has no effect here, for messages.
pub fn home(section: &str, isolation: IsolationModel) -> &'static str {
    match isolation {
        IsolationModel::Shared => "in the tenants' tiers",
        _ if is_of_cluster(section) => "in the profile of the pool",
        _ => "in a tier whose tenants have nodes of their own",
    }
}

fn read_dir(dir: &Path, findings: &mut Findings) -> BTreeMap<String, Written> {
    let mut found = BTreeMap::new();
    let unreadable = |what: &Path, error: &std::io::Error| {
        tree::whole_file(
            what,
            format!("can't be read: {error}"),
            "--profiles needs a directory with readable .yaml files",
        )
    };
    let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
        Err(error) => {
            findings.error(unreadable(dir, &error));
            return found;
        }
    };
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    files.sort();
    for file in files {
        if let Err(error) = files::within(dir, &file) {
            findings.error(unreadable(&file, &error));
            continue;
        }
        let Some(name) = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()) else { continue };
        match super::read(&file) {
            Ok(text) => {
                if let Some(written) = read(&file, &text, findings) {
                    found.insert(name, written);
                }
            }
            Err(errors) => findings.errors.extend(errors.0),
        }
    }
    found
}

fn read(file: &Path, text: &str, findings: &mut Findings) -> Option<Written> {
    let tree = match tree::parse(file, text, "a profile") {
        Ok(tree) => tree,
        Err(error) => {
            findings.error(*error);
            return None;
        }
    };
    let before = findings.errors.len();
    findings.errors.extend(tree.duplicates);
    let mut root = tree.root;
    structure::check(&profile_schema::PROFILE_FILE, &mut root, "", findings);
    for (i, path) in root.get("overridable").map(Node::items).unwrap_or_default().iter().enumerate() {
        if let Some(text) = path.text() {
            overridable_path(&profile_schema::PROFILE_FILE, text, &path.mark, i, findings);
        }
    }
    Some(Written { root, broken: findings.errors.len() > before })
}

/// Checks that an entry of `overridable` is the path of a setting.
fn overridable_path(schema: &Json, path: &str, mark: &Mark, index: usize, findings: &mut Findings) {
    let mut at = schema;
    let mut known = String::new();
    for step in path.split('.') {
        let properties = at.get("properties").and_then(Json::as_object);
        let next = properties.and_then(|p| p.get(step)).filter(|_| !(known.is_empty() && HEAD.contains(&step)));
        let Some(next) = next else {
            let keys: Vec<&str> = properties.into_iter().flat_map(|p| p.keys()).map(String::as_str).collect();
            let message = format!("there is no setting {}", quote(path));
            let help = match nearest(step, keys.iter().copied()) {
                Some(near) => format!("did you mean `{}`?", join(&known, near)),
                None => format!("the settings are {}", list(keys)),
            };
            let at = format!("overridable[{index}]");
            findings.error(SpecError::new(Code::UnknownName, at, mark, message).help(help));
            return;
        };
        known = join(&known, step);
        at = next;
    }
}

/// A complete tree as a [`Profile`]. If this fails although no mistake was reported (`told`), the structural check has
/// a gap.
pub fn typed(settings: &Node, path: &str, told: bool, findings: &mut Findings) -> Option<Profile> {
    match serde_json::from_value(settings.to_json()) {
        Ok(profile) => Some(profile),
        Err(error) => {
            if !told {
                let message = format!("the profile can't be read: {error}");
                findings.error(SpecError::new(Code::BadValue, path, &settings.mark, message));
            }
            None
        }
    }
}

/// Applies a merge patch (RFC 7396): mappings are merged, `null` removes a value, and any other value replaces the old
/// one.
pub fn merge(base: &mut Node, patch: &Node) {
    let (Value::Map(entries), Value::Map(changes)) = (&mut base.value, &patch.value) else {
        if !matches!(patch.value, Value::Invalid) {
            *base = patch.clone();
        }
        return;
    };
    for change in changes {
        let position = entries.iter().position(|e| e.key == change.key);
        match (position, &change.value.value) {
            (_, Value::Invalid) => {}
            (Some(i), Value::Null) => {
                entries.remove(i);
            }
            (None, Value::Null) => {}
            (Some(i), _) => {
                if let Some(entry) = entries.get_mut(i) {
                    merge(&mut entry.value, &change.value);
                    entry.key_mark = change.key_mark.clone();
                }
            }
            (None, _) => {
                let mut value = Node { value: Value::Map(Vec::new()), mark: change.value.mark.clone() };
                merge(&mut value, &change.value);
                entries.push(Entry { key: change.key.clone(), key_mark: change.key_mark.clone(), value });
            }
        }
    }
}
