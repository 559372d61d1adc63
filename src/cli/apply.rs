use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::PathBuf;

use clap::Args;

use super::{Global, Running, Selection, exit, host, stop};
use crate::engine::error::Error;
use crate::engine::execute::Chance;
use crate::run::{self, Ended, Failure, Manner, Ran, Request, Session, Verdict, saved};
use crate::ui::{Ending, Format, Ui};

#[derive(Debug, Args)]
pub struct Apply {
    /// A plan saved by `plan --out`. Apply carries out exactly this plan, or refuses it and changes nothing.
    #[arg(value_name = "PLANFILE", conflicts_with_all = ["tenant", "with_deps", "allow_replace", "delete_logs", "upgrade"])]
    plan: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    running: Running,
    /// Update add-ons to newer versions and nodes to newer images.
    #[arg(long)]
    upgrade: bool,
}

impl Apply {
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let again = |file: &PathBuf| global.command(&["plan", "--out", &file.display().to_string()]);
        let sandbox = global.sandbox.as_deref();
        let saved = self.plan.as_ref().map(|file| saved::read(file, sandbox, again(file))).transpose()?;
        let session = host::open(global, ui).await?;
        session
            .during(async |session| {
                let flags = self.selection.policy(false);
                let allow_destroy = flags.allow_destroy.clone();
                let mut manner = self.running.manner("apply");
                let request = match saved {
                    Some(saved) => {
                        saved.fits(session)?;
                        manner.approved = true;
                        let (policy, upgrade) = (saved.policy().clone(), saved.upgrade());
                        Request { policy, upgrade, saved: Some(saved), allow_destroy }
                    }
                    None => Request { policy: flags, upgrade: self.upgrade, saved: None, allow_destroy },
                };
                carry_out(session, &request, &manner, ui).await
            })
            .await
    }
}

impl Running {
    pub fn manner(&self, command: &'static str) -> Manner {
        Manner {
            command,
            approved: self.auto_approve,
            losses_approved: false,
            parallelism: usize::from(self.parallelism),
            preflight: !self.no_preflight,
            lock_timeout: self.lock_timeout,
            lock_lease: self.lock_lease,
            chance: Chance(RandomState::new().hash_one(())),
        }
    }
}

/// Shows the plan, asks for confirmation, executes the plan, verifies what was written, and reports.
pub async fn carry_out(session: &Session, request: &Request, manner: &Manner, ui: &Ui) -> Result<u8, Failure> {
    if ui.format() == Format::Html {
        return Err(Error::usage("the HTML format can show a plan, but not a run; nothing was changed")
            .help("use --format human, json or markdown with this command; `plan` supports --format html")
            .into());
    }
    let (_watcher, stop) = stop::watch();
    let Ended::Ran(ran) = run::apply(session, request, manner, ui, stop).await? else { return Ok(exit::INTERRUPTED) };
    let verdict = ran.verdict();
    let Ran { plan, report, gone, lost, unshown } = *ran;
    let note = host::note(session);
    let ending = Ending { destroy: request.policy.destroy, note: note.as_deref(), next: None, gone: &gone };
    ui.report(&report, &plan, &ending, &session.calls())?;
    if let Some(failure) = unshown.or(lost.map(Failure::Run)) {
        return Err(failure);
    }
    Ok(match verdict {
        Verdict::Done => exit::DONE,
        Verdict::Failed => exit::ERROR,
        Verdict::Waits => exit::BLOCKED,
        Verdict::Unconfirmed => exit::UNKNOWN,
        Verdict::Interrupted => exit::INTERRUPTED,
    })
}
