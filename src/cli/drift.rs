use clap::Args;

use super::{Global, Selection, exit, host};
use crate::engine::drift;
use crate::run::{Failure, Session};
use crate::ui::{Subject, Ui};

#[derive(Debug, Args)]
pub struct Drift {
    #[command(flatten)]
    selection: Selection,
}

impl Drift {
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let session = host::open(global, ui).await?;
        session.during(async |session| self.show(session, ui).await).await
    }

    async fn show(self, session: &Session, ui: &Ui) -> Result<u8, Failure> {
        session.reading(ui);
        let policy = self.selection.policy(false);
        let (look, plan) = session.plan(&policy, false).await?;
        let plan = drift::of(plan, &look.desired, &look.observed, &session.kinds);
        let subject = Subject { drift: true, ..host::subject(session, &policy) };
        ui.plan(&plan, &subject, &session.kinds, &session.calls())?;
        let missing = plan.drift.as_ref().is_some_and(|d| !d.missing.is_empty());
        let drifted =
            missing || !plan.steps.is_empty() || plan.blocked.iter().any(|b| !b.why.is_pending() && !b.why.is_unmet());
        Ok(match (drifted, plan.blocked.iter().any(|b| b.why.is_unmet()), plan.is_empty()) {
            (true, _, _) => exit::CHANGES,
            (_, true, _) => exit::ERROR,
            (_, _, false) => exit::BLOCKED,
            _ => exit::DONE,
        })
    }
}
