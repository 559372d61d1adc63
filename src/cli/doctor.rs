use super::{Global, exit, host};
use crate::engine::error::Error;
use crate::run::Failure;
use crate::run::doctor::{Next, Verdict, examine};
use crate::template::Templates;
use crate::ui::{Format, Ui};

pub async fn run(global: &Global, ui: &Ui) -> Result<u8, Failure> {
    if ui.format() == Format::Html {
        return Err(Error::input("`doctor` has no HTML page").help("use --format human, json or markdown").into());
    }
    let spec = host::load(global, ui)?;
    let templates = Templates::load(global.templates.as_deref())?;
    let found = examine(ui, spec, templates, &host::options(global)).await?;
    ui.doctor(&found.checks, &next(global, found.next))?;
    let worst = found.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Good);
    Ok(match worst {
        Verdict::Good | Verdict::Attention => exit::DONE,
        Verdict::Unknown => exit::UNKNOWN,
        Verdict::Wrong => exit::ERROR,
    })
}

/// The commands of the next step.
fn next(global: &Global, next: Next) -> String {
    let command = |words: &[&str]| global.command(words);
    let again = command(&["doctor"]);
    match next {
        Next::Credentials => {
            format!("aws sts get-caller-identity; when that shows the account that you mean, {again}")
        }
        Next::AllowPlan => format!("{}; then {again}", command(&["iam-policy", "--for", "plan"])),
        Next::SeePlan => format!("{}; then {again}", command(&["plan"])),
        Next::Allow => format!("{} (give that policy to the role); then {again}", command(&["iam-policy"])),
        Next::Repair => format!("repair the problems above; then {again}"),
        Next::Drift => command(&["drift"]),
        Next::Plan => command(&["plan"]),
    }
}
