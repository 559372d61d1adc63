use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use super::{Global, Selection, exit, host};
use crate::run::preflight::Findings;
use crate::run::{Failure, Session, preflight, saved};
use crate::ui::{Subject, Ui};

#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    selection: Selection,
    /// Save the plan to FILE, for `apply FILE`. The file holds no secrets.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Exit with code 2 if there are changes.
    #[arg(long)]
    detailed_exitcode: bool,
    /// Plan the deletion of all resources, as `destroy` would.
    #[arg(long)]
    destroy: bool,
    /// Update add-ons to newer versions and nodes to newer images.
    #[arg(long)]
    upgrade: bool,
}

impl Plan {
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let session = host::open(global, ui).await?;
        session.during(async |session| self.show(global, session, ui).await).await
    }

    async fn show(self, global: &Global, session: &Session, ui: &Ui) -> Result<u8, Failure> {
        session.reading(ui);
        let policy = self.selection.policy(self.destroy);
        let (look, plan) = session.plan(&policy, self.upgrade).await?;
        if let Some(file) = &self.out {
            saved::write(file, session, &policy, self.upgrade, &plan)?;
        }
        let Findings { wrong, notes } = preflight::offers(session, &look, &plan).await;
        let impossible = !wrong.is_empty();
        let subject = Subject { wrong, notes, ..host::subject(session, &policy) };
        ui.plan(&plan, &subject, &session.kinds, &session.calls())?;
        if let Some(file) = &self.out {
            let allowed: BTreeSet<_> = policy.allow_destroy.union(&policy.allow_replace).collect();
            let mut args = vec!["apply".to_owned(), file.display().to_string()];
            for loss in plan.confirm.iter().filter(|loss| !allowed.contains(&loss.address)) {
                args.extend(["--allow-destroy".to_owned(), loss.address.to_string()]);
            }
            let command = global.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
            ui.note(&format!("The plan is saved. To apply exactly this plan: {command}"));
        }
        for error in preflight::account(session, ui, &look, &plan).await {
            let help = error.help.as_deref().unwrap_or_default();
            ui.note(&format!("`apply` would stop before its first write: {error}\n{help}"));
        }
        let changes = !plan.is_empty();
        let wrong = impossible || plan.blocked.iter().any(|b| !b.why.is_pending());
        Ok(match (changes, wrong) {
            (_, true) => exit::ERROR,
            (true, _) if self.detailed_exitcode => exit::CHANGES,
            _ => exit::DONE,
        })
    }
}
