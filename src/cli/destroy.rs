use clap::Args;

use super::apply::carry_out;
use super::{Global, Running, Selection, host};
use crate::run::{Failure, Manner, Request};
use crate::ui::Ui;

#[derive(Debug, Args)]
pub struct Destroy {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    running: Running,
}

impl Destroy {
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let session = host::open(global, ui).await?;
        let policy = self.selection.policy(true);
        let manner = self.running.manner("destroy");
        // `destroy` of the whole tenancy names the loss by itself. With --tenant, each loss is confirmed by its
        // address, because a tenant's id is easily mistyped.
        let manner = Manner { losses_approved: manner.approved && policy.tenants.is_empty(), ..manner };
        let allow_destroy = policy.allow_destroy.clone();
        let request = Request { policy, upgrade: false, saved: None, allow_destroy };
        session.during(async |session| carry_out(session, &request, &manner, ui).await).await
    }
}
