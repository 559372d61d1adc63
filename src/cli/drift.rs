use clap::Args;

use super::session::Session;
use super::{Global, Selection, exit};
use crate::engine::plan::Action;
use crate::ui::{Failure, Ui};

#[derive(Debug, Args)]
pub struct Drift {
    #[command(flatten)]
    selection: Selection,
}

impl Drift {
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let session = Session::open(global, ui).await?;
        session.reading(ui);
        let policy = self.selection.policy(false);
        let (_, mut plan) = session.plan(&policy, false).await?;
        // What was never made, and what left the spec, isn't drift.
        plan.steps.retain(|s| s.action == Action::Update || s.replaces);
        for step in &mut plan.steps {
            step.needs.clear();
        }
        ui.plan(&plan, &session.subject(&policy), &session.kinds, &session.calls())?;
        session.close().await?;
        let drifted = !plan.steps.is_empty() || plan.blocked.iter().any(|b| !b.pending && !b.unmet);
        Ok(match (drifted, plan.blocked.iter().any(|b| b.unmet), plan.is_empty()) {
            (true, _, _) => exit::CHANGES,
            (_, true, _) => exit::ERROR,
            (_, _, false) => exit::BLOCKED,
            _ => exit::DONE,
        })
    }
}
