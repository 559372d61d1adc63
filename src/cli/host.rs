//! The command line as the [`Host`] of runs.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedReceiver;

use super::Global;
use crate::engine::address::Address;
use crate::engine::clock::Clock;
use crate::engine::event::Event;
use crate::engine::plan::{Plan, Policy};
use crate::run::{Embedded, Failure, Host, Options, Session, Stage};
use crate::spec::{self, LoadOptions, Spec};
use crate::template::Templates;
use crate::ui::{Subject, Ui};

/// Reads and checks the spec. Works offline.
pub fn load(global: &Global, ui: &Ui) -> Result<Spec, Failure> {
    let options = LoadOptions { profiles_dir: global.profiles.clone(), today: Clock::today() };
    let text = spec::read(&global.file).map_err(Failure::from)?;
    let spec = spec::load(&global.file, &text, &options)?;
    ui.warnings(&spec.warnings);
    Ok(spec)
}

/// Opens a session with the spec.
pub async fn open(global: &Global, ui: &Ui) -> Result<Session, Failure> {
    let spec = load(global, ui)?;
    let templates = Templates::load(global.templates.as_deref())?;
    Ok(Session::open(spec, templates, &options(global)).await?)
}

/// How the command line asks to connect.
pub fn options(global: &Global) -> Options {
    let embedded = |dir: &std::path::PathBuf| Embedded {
        dir: dir.clone(),
        speed: global.sandbox_speed,
        record: global.sandbox_record.clone(),
    };
    Options {
        sandbox: global.sandbox.as_ref().map(embedded),
        kubeconfigs: global.kubeconfig.clone(),
        aws_only: global.aws_only,
    }
}

/// The note about the sandbox. `None` if `session` doesn't work on a sandbox.
pub fn note(session: &Session) -> Option<String> {
    let Embedded { dir, speed, .. } = session.embedded()?;
    Some(format!(
        "Sandbox in {}: none of these resources is on AWS. Time in the sandbox passes {speed} times faster. Clusters in the sandbox store objects and enforce no policy.",
        dir.display(),
    ))
}

/// The heading of a plan with this policy.
pub fn subject(session: &Session, policy: &Policy) -> Subject {
    let Session { spec, aws, .. } = session;
    Subject::new(spec, &aws.scope.account, &spec::digest(spec), &session.policy(policy), note(session).as_deref())
}

#[async_trait]
impl Host for Ui {
    fn stage(&self, stage: &Stage) {
        match stage {
            Stage::Reading { account, region } => {
                self.status(&format!("Reading the existing resources in {account}/{region}"))
            }
            Stage::Waiting(text) => self.status(text),
            Stage::ReadingAgain => self.status("Reading again, because the plan that was shown is older than a minute"),
            Stage::Verifying => self.status("Reading the written resources again, to verify them"),
        }
    }

    fn note(&self, text: &str) {
        Self::note(self, text);
    }

    fn detail(&self, text: &str) {
        if self.verbose() {
            Self::note(self, text);
        }
    }

    fn plan(&self, session: &Session, plan: &Plan, policy: &Policy, notes: Vec<String>) -> Result<(), Failure> {
        let subject = Subject { notes, ..subject(session, policy) };
        Ok(Self::plan(self, plan, &subject, &session.kinds, &BTreeMap::new())?)
    }

    async fn confirm(&self, losses: &BTreeSet<Address>) -> Result<bool, Failure> {
        Self::confirm(self, "Apply this plan?", losses).await
    }

    async fn follow(&self, events: UnboundedReceiver<Event>, clock: &Clock) -> Result<(), Failure> {
        Ok(self.run(events, clock, None).await?)
    }
}
