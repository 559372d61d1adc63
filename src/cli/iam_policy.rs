use clap::{Args, ValueEnum};

use super::{Global, exit, host};
use crate::run::Failure;
use crate::stack::{self, Facts, permissions};
use crate::template::Templates;
use crate::ui::Ui;

/// The document fits in a role's inline policy (10,240 characters, white space
/// not counted): `aws iam put-role-policy --policy-document` takes it as it is.
/// For a managed policy (6,144) that of `apply` may be too long: put the
/// statements before `New` into one, and `New` and the rest into another.
///
/// It allows the changes of the kinds that the spec has. Where kinds leave the
/// spec, or `spec.iam.path` changes, apply that with the policy of the spec
/// before. Without `spec.accountId` it names any account.
#[derive(Debug, Args)]
pub struct IamPolicy {
    /// What the role may do: `plan` is for plan, drift and output, and allows
    /// reads only; `apply` is for every command.
    #[arg(long = "for", value_name = "COMMAND", value_enum, default_value_t = Purpose::Apply)]
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Purpose {
    Plan,
    Apply,
}

impl IamPolicy {
    /// Offline: what the zones and versions are doesn't matter.
    pub fn run(&self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let spec = host::load(global, ui)?;
        let policy = match self.purpose {
            Purpose::Plan => permissions::reads(),
            Purpose::Apply => {
                let templates = Templates::load(global.templates.as_deref())?;
                let desired = stack::build(&spec, &Facts::assumed(&spec), &templates)?;
                permissions::changes(&spec, &desired)
            }
        };
        ui.print(&format!("{policy:#}"))?;
        Ok(exit::DONE)
    }
}
