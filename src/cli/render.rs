use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use clap::Args;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Global, exit, host};
use crate::engine::error::{Error, Result};
use crate::engine::value;
use crate::engines::psp;
use crate::files;
use crate::kinds::k8s::manifest;
use crate::run::{Failure, unwritten};
use crate::stack::{self, Facts};
use crate::template::{self, Templates};
use crate::ui::Ui;

#[derive(Debug, Args)]
pub struct Render {
    /// The directory for the files. It gets one subdirectory for each cluster.
    #[arg(long, value_name = "DIR", default_value = "rendered")]
    out: PathBuf,

    /// Write the rules for Pods as PodSecurityPolicies instead of admission policies, for clusters below 1.25 that
    /// aren't on EKS. docs/psp.md tells how to use them.
    #[arg(long, value_name = "ENGINE")]
    policy_engine: Option<OtherEngine>,
}

/// An engine of clusters that ringfence doesn't apply to.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OtherEngine {
    Psp,
}

/// File names, relative to the directory, with the SHA-256 digests of their content, as `sha256sum` lists them. After
/// an interrupted run a file may have two digests: either content may be on disk.
type Written = BTreeSet<(String, String)>;

impl Render {
    /// Works offline. A reference to an id that AWS assigns is rendered as `<address.output>`.
    pub async fn run(self, global: &Global, ui: &Ui) -> std::result::Result<u8, Failure> {
        let spec = host::load(global, ui)?;
        let templates = Templates::load(global.templates.as_deref())?;
        let desired = stack::build(&spec, &Facts::assumed(&spec), &templates)?;
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        let mut clusters: BTreeMap<String, (Option<String>, Vec<Value>)> = BTreeMap::new();
        for resource in desired.iter().filter(|r| r.kind == manifest::NAME) {
            let object = resource.state.read(|state| value::shown(state.get("object").unwrap_or(&Value::Null)));
            let owner = resource.address.owner().to_string().replace('/', "-");
            if matches!(self.policy_engine, Some(OtherEngine::Psp)) {
                let cluster =
                    resource.state.read(|state| state.get("cluster").map(Value::to_string).unwrap_or_default());
                let (home, objects) = clusters.entry(cluster).or_default();
                objects.push(object.clone());
                if object["apiVersion"] == "admissionregistration.k8s.io/v1" {
                    home.get_or_insert(owner);
                    continue;
                }
            }
            // All files are in one directory, for `kubectl apply -f`, so each address needs a file name of its own.
            let file = resource.address.local().replace('_', "=5f").replace('/', "_");
            let file = format!("{owner}/{file}.yaml");
            texts.insert(file, template::yaml(&object)?);
        }
        for (home, objects) in clusters.into_values() {
            for object in psp::render(&objects, &templates)? {
                let part = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                let name = [part("/kind"), part("/metadata/namespace"), part("/metadata/name")];
                let name: Vec<String> =
                    name.iter().filter(|n| !n.is_empty()).map(|n| n.to_lowercase().replace(':', "=3a")).collect();
                let home = home.as_deref().unwrap_or_default();
                texts.insert(format!("{home}/psp_{}.yaml", name.join("_")), template::yaml(&object)?);
            }
        }
        let list = self.out.join(format!(".ringfence-{}.sha256", spec.name));
        let former = read(&list)?;
        let now: Written = texts.iter().map(|(file, text)| (file.clone(), digest(text.as_bytes()))).collect();
        // The list is written before the files. After an interruption, the next run knows each file that this run has
        // written.
        write(&list, &listed(&former.union(&now).cloned().collect()))?;
        for (file, text) in &texts {
            write(&self.out.join(file), text)?;
        }
        let gone = |(file, _): &&(String, String)| !texts.contains_key(file);
        let unwanted: BTreeSet<&String> = former.iter().filter(gone).map(|(file, _)| file).collect();
        let mut removed = 0;
        for file in unwanted {
            let path = self.out.join(file);
            match remove(&self.out, file, &former) {
                Ok(true) => removed += 1,
                Ok(false) => ui.note(&format!(
                    "{} is no longer rendered, but was edited since it was rendered, so it was kept; delete it yourself if you don't need it",
                    path.display()
                )),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Error::input(format!(
                        "{} is no longer rendered and can't be deleted: {error}",
                        path.display()
                    ))
                    .help("delete the file yourself, then run the same command")
                    .into());
                }
            }
        }
        write(&list, &listed(&now))?;
        let removed = match removed {
            0 => String::new(),
            n => format!("; {n} files that are no longer rendered were deleted"),
        };
        ui.note(&format!("{} objects written to {}{removed}", texts.len(), self.out.display()));
        Ok(exit::DONE)
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    let folder = file.parent().map_or(Ok(()), fs::create_dir_all);
    let written = folder.and_then(|()| files::write(file, text.as_bytes(), 0o666));
    written.map_err(|e| unwritten(&file.display().to_string(), &e))
}

/// Deletes `file` if an earlier run wrote its content, and then its directory if that is empty.
fn remove(out: &Path, file: &str, former: &Written) -> io::Result<bool> {
    let path = out.join(file);
    let ours = |text: &[u8]| former.contains(&(file.to_owned(), digest(text)));
    let elsewhere = fs::symlink_metadata(&path)?.is_symlink() || files::within(out, &path).is_err();
    if elsewhere || !ours(&fs::read(&path)?) {
        return Ok(false);
    }
    fs::remove_file(&path)?;
    // Fails if the directory has other files.
    let _ = path.parent().map(fs::remove_dir);
    Ok(true)
}

fn read(list: &Path) -> Result<Written> {
    let wrong = |why: String| {
        Error::input(format!("{} {why}; nothing was written", list.display()))
            .help("restore this list of rendered files from the repository; if you delete it, files that are no longer rendered stay on disk")
    };
    let text = match fs::read_to_string(list) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Written::new()),
        Err(error) => return Err(wrong(format!("can't be read: {error}"))),
    };
    let entry = |line: &str| {
        let (digest, file) = line.split_once("  ")?;
        let below = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        (below && !file.is_empty()).then(|| (file.to_owned(), digest.to_owned()))
    };
    let lines = text.lines().enumerate();
    lines.map(|(i, line)| entry(line).ok_or_else(|| wrong(format!("is damaged: line {}", i + 1)))).collect()
}

fn listed(written: &Written) -> String {
    written.iter().map(|(file, digest)| format!("{digest}  {file}\n")).collect()
}

fn digest(text: &[u8]) -> String {
    hex::encode(Sha256::digest(text))
}
