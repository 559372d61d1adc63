use clap::Args;

use super::apply::{Approval, carry_out};
use super::session::{Locked, Session};
use super::{Global, Running, Selection};
use crate::ui::{Failure, Ui};

#[derive(Debug, Args)]
pub struct Destroy {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    running: Running,
}

impl Destroy {
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let session = Session::open(global, ui).await?;
        let policy = self.selection.policy(true);
        let running = &self.running;
        let work = async |session: &Session, locked: &Locked| {
            session.reading(ui);
            let (look, plan) = session.plan(&policy, false).await?;
            let mut allowed = Approval::allowed_by(&policy);
            // To take everything down is to say what is lost. A tenant's id
            // alone is soon mistyped.
            if running.auto_approve && policy.tenants.is_empty() {
                allowed.extend(plan.confirm.iter().map(|l| l.address.clone()));
            }
            let approval = Approval { auto: running.auto_approve, allowed };
            carry_out(session, locked, ui, &policy, false, (look, plan), approval, running).await
        };
        let whole = policy.tenants.is_empty();
        session.during(async |session| session.locked(ui, "destroy", running, whole, work).await).await
    }
}
