//! Saved plans: what was shown is what is done, or nothing is.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::session::Session;
use super::unwritten;
use crate::engine::error::{Error, Result};
use crate::engine::plan::{Plan, Policy};
use crate::spec;

const SCHEMA: &str = "ringfence.dev/saved-plan/v1";

#[derive(Serialize, Deserialize)]
struct File {
    schema: String,
    /// The version of ringfence that wrote it.
    version: String,
    tenancy: String,
    account: String,
    region: String,
    /// SHA-256 of the resolved spec.
    spec: String,
    policy: Policy,
    upgrade: bool,
    /// SHA-256 of the steps: what was shown.
    steps: String,
    /// SHA-256 of all of the above: a cut or edited file is noticed.
    digest: String,
}

/// Writes `plan` to `path`, whole or not at all.
pub fn write(path: &Path, session: &Session, policy: &Policy, upgrade: bool, plan: &Plan) -> Result<()> {
    let mut file = File {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tenancy: session.spec.name.clone(),
        account: session.aws.scope.account.clone(),
        region: session.aws.scope.region.clone(),
        spec: spec::digest(&session.spec),
        policy: policy.clone(),
        upgrade,
        steps: steps(plan)?,
        digest: String::new(),
    };
    file.digest = digest(&file)?;
    let text = json(&file)?;
    let next = path.with_added_extension("new");
    let written = std::fs::File::create(&next).and_then(|mut f| {
        f.write_all(&text)?;
        f.sync_all()?;
        std::fs::rename(&next, path)
    });
    written.map_err(|e| {
        // Nothing half-written is left; that it can't be removed either says
        // nothing new.
        let _ = std::fs::remove_file(&next);
        unwritten(&format!("the plan {}", path.display()), &e)
    })
}

/// What a saved plan was made with: to be planned again before it is applied.
pub struct Saved {
    pub policy: Policy,
    pub upgrade: bool,
    steps: String,
}

/// Reads a saved plan and refuses it if it isn't whole, isn't ours, or was
/// made for another spec, account or version.
pub fn read(path: &Path, session: &Session) -> Result<Saved> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|e| Error::input(format!("the saved plan {shown} can't be read: {e}")))?;
    let again = format!("make it again: ringfence plan --out {shown}");
    let file: File = serde_json::from_slice(&bytes)
        .map_err(|e| Error::input(format!("{shown} is no saved plan, or is cut short: {e}")).help(again.clone()))?;
    let stale = |what: String| {
        Err(Error::input(format!("the saved plan {shown} {what}; nothing was changed")).help(again.clone()))
    };
    if file.schema != SCHEMA || file.version != env!("CARGO_PKG_VERSION") {
        return stale(format!("was written by ringfence {} and this is {}", file.version, env!("CARGO_PKG_VERSION")));
    }
    if file.digest != digest(&file)? {
        return stale("was edited or damaged".to_owned());
    }
    if (file.account.as_str(), file.region.as_str())
        != (session.aws.scope.account.as_str(), session.aws.scope.region.as_str())
    {
        return stale(format!("is for {} in {}", file.account, file.region));
    }
    if file.tenancy != session.spec.name || file.spec != spec::digest(&session.spec) {
        return stale("was made for another version of the spec".to_owned());
    }
    Ok(Saved { policy: file.policy, upgrade: file.upgrade, steps: file.steps })
}

impl Saved {
    /// An error unless `plan` is byte for byte what was shown.
    pub fn check(&self, path: &Path, plan: &Plan) -> Result<()> {
        if steps(plan)? == self.steps {
            return Ok(());
        }
        Err(Error::input(format!(
            "the saved plan {} is stale: what exists has changed since; nothing was changed",
            path.display()
        ))
        .help(format!("look at the new plan: ringfence plan --out {}", path.display())))
    }
}

/// The same for two plans that do the same.
pub fn steps(plan: &Plan) -> Result<String> {
    Ok(hash(&json(plan)?))
}

fn digest(file: &File) -> Result<String> {
    let File { schema, version, tenancy, account, region, spec, policy, upgrade, steps, digest: _ } = file;
    Ok(hash(&json(&(schema, version, tenancy, account, region, spec, policy, upgrade, steps))?))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|e| Error::bug(format!("a plan can't be written as JSON: {e}")))
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
