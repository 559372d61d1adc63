use clap::{Args, ValueEnum};

use super::{Global, exit, host};
use crate::run::Failure;
use crate::stack::{self, Facts, permissions};
use crate::template::Templates;
use crate::ui::Ui;

/// Print the IAM policy that the role ringfence runs as needs for this spec, as JSON. Works offline.
///
/// The policy fits into a role's inline policy, whose limit is 10,240 characters without white space: `aws iam
/// put-role-policy --policy-document` accepts the policy unchanged. The policy of `apply` may be longer than a
/// managed policy, whose limit is 6,144 characters. Then put the statements before `New` into one managed policy, and
/// `New` and the statements after it into another.
///
/// The policy allows changes of those resource kinds that the spec uses. If a change of the spec removes a kind, or
/// changes `spec.iam.path`, apply that change with the policy of the former spec. If the spec has no
/// `spec.accountId`, the policy names resources of any account.
#[derive(Debug, Args)]
pub struct IamPolicy {
    /// Which commands the role may run. `plan`: plan, drift and output, with reads only. `apply`: every command.
    #[arg(long = "for", value_name = "COMMAND", value_enum, default_value_t = Purpose::Apply)]
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Purpose {
    Plan,
    Apply,
}

impl IamPolicy {
    /// Works offline: the policy doesn't depend on zones or versions.
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
