//! Saved plans. A saved plan is executed exactly as it was shown, or not at all.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Session, unwritten};
use crate::aws::{self, Scope};
use crate::engine::address::Address;
use crate::engine::error::{Error, Result};
use crate::engine::kind::Change;
use crate::engine::packed::Packed;
use crate::engine::plan::{Action, Plan, Policy, Step};
use crate::{files, spec};

const SCHEMA: &str = "ringfence.dev/saved-plan/v2";

#[derive(Debug, Serialize, Deserialize)]
struct File {
    schema: String,
    /// The ringfence version that wrote the plan.
    version: String,
    tenancy: String,
    target: Target,
    /// SHA-256 of the resolved spec.
    spec: String,
    policy: Policy,
    upgrade: bool,
    /// SHA-256 of the steps that were shown.
    steps: String,
    /// SHA-256 of the fields above, so that a truncated or edited file is detected.
    digest: String,
}

/// The account and region that a plan is for. The plan is refused anywhere else.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Target {
    partition: String,
    account: String,
    region: String,
    reached: Reached,
}

/// The endpoint of a run's calls.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Reached {
    Aws,
    /// The endpoints that AWS_ENDPOINT_URL and the like set.
    Endpoints(BTreeSet<String>),
    /// The directory of the embedded sandbox.
    Sandbox(PathBuf),
}

impl Reached {
    fn sandbox(dir: &Path) -> Self {
        Self::Sandbox(std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()))
    }

    fn of(session: &Session) -> Self {
        let endpoints = aws::endpoints(&session.aws.config);
        match session.embedded() {
            Some(embedded) => Self::sandbox(&embedded.dir),
            None if endpoints.is_empty() => Self::Aws,
            None => Self::Endpoints(endpoints),
        }
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aws => f.write_str("AWS"),
            Self::Endpoints(all) => write!(f, "AWS at {}", all.iter().cloned().collect::<Vec<_>>().join(", ")),
            Self::Sandbox(dir) => write!(f, "the sandbox in {}", dir.display()),
        }
    }
}

impl Target {
    fn of(session: &Session) -> Self {
        let Scope { account, region, partition } = Scope::clone(&session.aws.scope);
        Self { partition, account, region, reached: Reached::of(session) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, account, region, reached } = self;
        write!(f, "{reached}, account {account}, region {region}, partition {partition}")
    }
}

/// Writes `plan` to `path` atomically.
///
/// # Errors The file can't be written.
pub fn write(path: &Path, session: &Session, policy: &Policy, upgrade: bool, plan: &Plan) -> Result<()> {
    let mut file = File {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tenancy: session.spec.name.clone(),
        target: Target::of(session),
        spec: spec::digest(&session.spec),
        policy: session.policy(policy),
        upgrade,
        steps: steps(plan)?,
        digest: String::new(),
    };
    file.digest = digest(&file)?;
    let text = json(&file)?;
    files::write(path, &text, 0o666).map_err(|e| unwritten(&format!("the plan {}", path.display()), &e))
}

/// A saved plan. Before it is applied, its steps are compared with those of a new plan.
#[derive(Debug)]
pub struct Saved {
    file: File,
    /// The file's name, as the user gave it.
    shown: String,
    /// The command that makes the plan again.
    again: String,
}

/// Reads a saved plan without any call. `sandbox`: the directory of the embedded sandbox, if this run uses one.
/// `again`: the command that makes the plan again.
///
/// # Errors The file is truncated, edited, not a saved plan, or from another version, or it is for AWS and this run
/// is for a sandbox, or the reverse.
pub fn read(path: &Path, sandbox: Option<&Path>, again: String) -> Result<Saved> {
    let shown = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Error::input(format!("the saved plan {shown} can't be read: {e}")))?;
    let file: File = serde_json::from_slice(&bytes).map_err(|e| {
        Error::input(format!("{shown} is not a saved plan, or the file is truncated: {e}"))
            .help(format!("make it again: {again}"))
    })?;
    let saved = Saved { file, shown, again };
    let file = &saved.file;
    if file.schema != SCHEMA || file.version != env!("CARGO_PKG_VERSION") {
        let this = env!("CARGO_PKG_VERSION");
        return Err(saved.refused(format!("was written by ringfence {}, but this is ringfence {this}", file.version)));
    }
    if file.digest != digest(file)? {
        return Err(saved.refused("was edited or damaged".to_owned()));
    }
    let (then, now) = (&file.target.reached, sandbox.map(Reached::sandbox));
    match (then, &now) {
        (Reached::Sandbox(_), None) => {
            Err(saved.elsewhere("AWS").help(format!("to apply the plan there, add --sandbox={}", then.directory())))
        }
        (Reached::Aws | Reached::Endpoints(_), Some(now)) => {
            Err(saved.elsewhere(now).help("to apply the plan there, run without --sandbox"))
        }
        (Reached::Sandbox(_), Some(now)) if then != now => {
            Err(saved.elsewhere(now).help(format!("to apply the plan there, use --sandbox={}", then.directory())))
        }
        _ => Ok(saved),
    }
}

impl Reached {
    fn directory(&self) -> String {
        match self {
            Self::Sandbox(dir) => dir.display().to_string(),
            Self::Aws | Self::Endpoints(_) => String::new(),
        }
    }
}

impl Saved {
    pub fn policy(&self) -> &Policy {
        &self.file.policy
    }

    pub fn upgrade(&self) -> bool {
        self.file.upgrade
    }

    /// Returns an error unless the plan was made for the session's account, region, endpoint and spec.
    pub fn fits(&self, session: &Session) -> Result<()> {
        let File { target, tenancy, spec, policy, .. } = &self.file;
        let now = Target::of(session);
        if *target != now {
            return Err(self.elsewhere(&now).help(format!(
                "to apply the plan there, use the credentials, the region and the AWS_ENDPOINT_URL with which it was made; \
                 to plan here: {}",
                self.again
            )));
        }
        if *tenancy != session.spec.name || *spec != spec::digest(&session.spec) {
            return Err(self.refused("was made for another version of the spec".to_owned()));
        }
        if policy.aws_only != session.policy(policy).aws_only {
            let made = if policy.aws_only { "with" } else { "without" };
            return Err(self.refused(format!("was made {made} --aws-only, unlike this run")));
        }
        Ok(())
    }

    /// Returns an error unless the steps of `plan` are byte for byte the steps that were shown.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        if steps(plan)? == self.file.steps {
            return Ok(());
        }
        let Self { shown, again, .. } = self;
        Err(Error::input(format!(
            "the saved plan {shown} is stale: existing resources or templates have changed since it was made; nothing was changed"
        ))
        .help(format!("make and review a new plan: {again}")))
    }

    fn refused(&self, what: String) -> Error {
        let Self { shown, again, .. } = self;
        Error::input(format!("the saved plan {shown} {what}; nothing was changed"))
            .help(format!("make it again: {again}"))
    }

    fn elsewhere(&self, now: impl fmt::Display) -> Error {
        let Self { shown, file, .. } = self;
        Error::input(format!(
            "the saved plan {shown} is for {}, and this run is for {now}; nothing was changed",
            file.target
        ))
    }
}

/// A digest of what the plan does. It is independent of notes and reasons.
pub fn steps(plan: &Plan) -> Result<String> {
    let bound: Vec<Bound<'_>> = plan.steps.iter().map(Bound::of).collect();
    Ok(hash(&json(&bound)?))
}

/// The effect of a step.
#[derive(Serialize)]
struct Bound<'a> {
    address: &'a Address,
    kind: &'a str,
    action: Action,
    replaces: bool,
    generation: u32,
    changes: &'a [Change],
    state: Option<&'a Packed>,
    /// The id of the resource that is changed or deleted.
    id: Option<&'a str>,
    needs: &'a BTreeSet<usize>,
}

impl<'a> Bound<'a> {
    fn of(step: &'a Step) -> Self {
        let Step { address, kind, action, replaces, generation, changes, state, found, needs, .. } = step;
        // A plan is for one scope as yet, which `target` names.
        let Step { scope: _, why: _, summary: _, controls: _, .. } = step;
        let (state, id) = (state.as_ref(), found.as_ref().map(|found| found.id.as_str()));
        Self { address, kind, action: *action, replaces: *replaces, generation: *generation, changes, state, id, needs }
    }
}

fn digest(file: &File) -> Result<String> {
    let File { schema, version, tenancy, target, spec, policy, upgrade, steps, digest: _ } = file;
    Ok(hash(&json(&(schema, version, tenancy, target, spec, policy, upgrade, steps))?))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|e| Error::bug(format!("a plan can't be written as JSON: {e}")))
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
