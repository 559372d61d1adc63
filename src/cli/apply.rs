use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;

use super::preflight::Findings;
use super::session::{Locked, Look, Session};
use super::{Global, Running, Selection, exit, preflight, saved};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error};
use crate::engine::execute::{Chance, Executor};
use crate::engine::plan::{Action, Loss, Plan, Policy, Step};
use crate::engine::report::{Outcome, Report, Unconfirmed};
use crate::spec::{KubernetesVersion, SpecErrors};
use crate::ui::{Ending, Failure, Format, Subject, Ui};

#[derive(Debug, Args)]
pub struct Apply {
    /// A plan saved by `plan --out`: done exactly as shown, or refused.
    #[arg(value_name = "PLANFILE", conflicts_with_all = ["tenant", "with_deps", "allow_replace", "delete_logs", "upgrade"])]
    plan: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    running: Running,
    /// Take newer versions of add-ons and newer images of nodes.
    #[arg(long)]
    upgrade: bool,
}

impl Apply {
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let saved = self.plan.as_deref().map(|file| saved::read(file, global)).transpose()?;
        let session = Session::open(global, ui).await?;
        session.during(async |session| self.carry_out(global, ui, session, saved).await).await
    }

    async fn carry_out(
        self,
        global: &Global,
        ui: &Ui,
        session: &Session,
        saved: Option<saved::Saved>,
    ) -> Result<u8, Failure> {
        if let Some(saved) = &saved {
            saved.fits(global, session)?;
        }
        let (policy, upgrade) = match &saved {
            Some(saved) => (saved.policy().clone(), saved.upgrade()),
            None => (self.selection.policy(false), self.upgrade),
        };
        let flags = self.selection.policy(false);
        let mut allowed = Approval::allowed_by(&policy);
        allowed.extend(flags.allow_destroy.iter().cloned());
        let approval = Approval { auto: self.running.auto_approve || saved.is_some(), allowed };
        let running = &self.running;
        let work = async |session: &Session, locked: &Locked| {
            session.reading(ui);
            let (look, plan) = session.plan(&policy, upgrade).await?;
            look.know(&flags)?;
            if let Some(saved) = &saved {
                saved.check(&plan)?;
                deletes(&plan, &flags)?;
            }
            carry_out(session, locked, ui, &policy, upgrade, (look, plan), approval, running).await
        };
        session.locked(ui, "apply", running, false, work).await
    }
}

/// For how long what was read is taken to be still so.
const FRESH: Duration = Duration::from_secs(60);

/// What was agreed to beforehand.
pub struct Approval {
    pub auto: bool,
    /// What holds a tenant's work or data and may go.
    pub allowed: BTreeSet<Address>,
}

impl Approval {
    pub fn allowed_by(policy: &Policy) -> BTreeSet<Address> {
        policy.allow_destroy.union(&policy.allow_replace).cloned().collect()
    }
}

/// Shows the plan, asks, carries it out, reads again what was written, and
/// reports.
#[allow(clippy::too_many_arguments)]
pub async fn carry_out(
    session: &Session,
    locked: &Locked,
    ui: &Ui,
    policy: &Policy,
    upgrade: bool,
    (look, plan): (Look, Plan),
    approval: Approval,
    running: &Running,
) -> Result<u8, Failure> {
    if ui.format() == Format::Html {
        return Err(Error::usage("HTML shows one thing: a plan, not a run; nothing was changed")
            .help("use --format html with `plan`, and human, json or markdown here")
            .into());
    }
    let Findings { wrong, notes } = match running.no_preflight {
        true => Findings::default(),
        false => preflight::offers(session, &look, &plan).await,
    };
    let subject = Subject { notes, ..session.subject(policy) };
    ui.plan(&plan, &subject, &session.kinds, &BTreeMap::new())?;
    let ending = Ending { destroy: policy.destroy, note: session.note.as_deref(), next: None, gone: &[] };
    if plan.steps.is_empty() {
        ui.report(&Report::default(), &plan, &ending, &session.calls())?;
        return Ok(blocked_code(&plan));
    }
    if !running.no_preflight {
        preflight::check(session, ui, &look, &plan, SpecErrors(wrong)).await?;
    }
    let versions = look.versions.clone();
    drop(look);
    let asked = session.aws.clock.elapsed();
    if !agree(ui, &plan, &approval)? {
        return Err(Error::input("not confirmed; nothing was changed").into());
    }
    if session.aws.clock.elapsed().saturating_sub(asked) > FRESH {
        ui.status("Reading again: the answer took a while");
        let (_, now) = session.plan(policy, upgrade).await?;
        if saved::steps(&now)? != saved::steps(&plan)? {
            return Err(Error::input("what exists has changed since the plan was shown; nothing was changed")
                .help("run the same command to see the new plan")
                .into());
        }
    }
    let Some(stop) = locked.begin() else { return Ok(exit::INTERRUPTED) };
    let (events, listener) = mpsc::unbounded_channel();
    let executor = Executor {
        kinds: session.kinds.clone(),
        tenancy: session.spec.name.clone(),
        clock: session.aws.clock.clone(),
        parallelism: usize::from(running.parallelism),
        events,
        stop,
        guard: locked.lock.guard(),
        chance: Chance(RandomState::new().hash_one(())),
    };
    let run = async move {
        let report = executor.execute(&plan).await;
        // Dropping the executor closes the channel, which ends the display.
        drop(executor);
        (plan, report)
    };
    let ((plan, mut report), shown) = tokio::join!(run, ui.run(listener, &session.aws.clock, None));
    let lost = locked.lock.lost();
    if lost.is_none() {
        verify(session, ui, policy, upgrade, &versions, &plan, &mut report).await;
    }
    let ending = Ending { gone: &gone(&report, policy), ..ending };
    ui.report(&report, &plan, &ending, &session.calls())?;
    shown?;
    match lost {
        Some(why) => Err(why.into()),
        None => Ok(code(&plan, &report)),
    }
}

/// Asks for what wasn't agreed to beforehand.
fn agree(ui: &Ui, plan: &Plan, approval: &Approval) -> Result<bool, Failure> {
    let unconfirmed: Vec<&Loss> = plan.confirm.iter().filter(|l| !approval.allowed.contains(&l.address)).collect();
    if approval.auto {
        if unconfirmed.is_empty() {
            return Ok(true);
        }
        let losses = unconfirmed.iter().map(|l| format!("{} (lost: {})", l.address, l.lost.join("; ")));
        let flags = unconfirmed.iter().map(|l| format!("--allow-destroy {}", l.address)).collect::<Vec<_>>().join(" ");
        return Err(Error::input(format!(
            "this deletes {}; nothing was changed",
            losses.collect::<Vec<_>>().join(", ")
        ))
        .help(format!("if that is meant, add {flags}"))
        .into());
    }
    ui.confirm("Do these things?", &unconfirmed.into_iter().map(|l| l.address.clone()).collect())
}

/// An error if something is named that a saved plan doesn't delete: that was
/// decided when it was made.
fn deletes(plan: &Plan, flags: &Policy) -> Result<(), Error> {
    let known = |address: &&Address| plan.confirm.iter().any(|loss| loss.address == **address);
    match flags.allow_destroy.iter().find(|address| !known(address)) {
        None => Ok(()),
        Some(address) => {
            Err(Error::input(format!("the saved plan doesn't delete {address} (--allow-destroy); nothing was changed"))
                .help(format!("make another one: `ringfence plan --allow-destroy {address} --out FILE`")))
        }
    }
}

/// What was named for deletion and is gone whole: named again, it would be an
/// error.
fn gone(report: &Report, policy: &Policy) -> Vec<Address> {
    let whole = |address: &&Address| {
        let mut lines = report.lines.iter().filter(|l| l.address.is_within(address)).peekable();
        lines.peek().is_some() && lines.all(|l| l.action == Action::Delete && matches!(l.outcome, Outcome::Done))
    };
    policy.allow_destroy.iter().filter(whole).cloned().collect()
}

/// What the run wrote is read again, in bulk, and must show no difference.
/// AWS's reads may lag behind its writes for a moment. What can't be read is
/// unconfirmed.
async fn verify(
    session: &Session,
    ui: &Ui,
    policy: &Policy,
    upgrade: bool,
    versions: &BTreeMap<Address, KubernetesVersion>,
    plan: &Plan,
    report: &mut Report,
) {
    let addresses = |done: bool| -> BTreeSet<Address> {
        let lines = report.lines.iter().filter(|l| matches!(l.outcome, Outcome::Done) == done);
        lines.map(|l| l.address.clone()).collect()
    };
    let undone = addresses(false);
    let done: BTreeSet<Address> = addresses(true).difference(&undone).cloned().collect();
    if done.is_empty() || report.interrupted {
        return;
    }
    ui.status("Reading what was written");
    for pause in [1.0, 4.0, 0.0] {
        let left = match session.left(policy, upgrade, versions.clone()).await {
            Ok(left) => left,
            // The clients have tried it again already.
            Err(error) => {
                report.unconfirmed = vec![Unconfirmed { addresses: done, error }];
                return;
            }
        };
        report.differs = differences(&left, plan, &done);
        report.unconfirmed = unread(&left, plan, &done);
        if report.differs.is_empty() && report.unconfirmed.is_empty() {
            return;
        }
        if pause > 0.0 {
            session.aws.clock.sleep(Duration::from_secs_f64(pause)).await;
        }
    }
}

/// What of `done` would be done again, or can't be any more though `plan`
/// could.
fn differences(left: &Plan, plan: &Plan, done: &BTreeSet<Address>) -> Vec<(Address, String)> {
    let steps = left.steps.iter().map(|s| {
        let fields = s.changes.iter().map(|c| c.path.as_str()).collect::<Vec<_>>().join(", ");
        (&s.address, if fields.is_empty() { format!("{:?}", s.action).to_lowercase() } else { fields })
    });
    let known: BTreeSet<&Address> = plan.blocked.iter().map(|b| &b.address).collect();
    let blocked = left.blocked.iter().filter(|b| b.cluster.is_none() && !known.contains(&b.address));
    let blocked = blocked.map(|b| (&b.address, b.reason.clone()));
    steps
        .chain(blocked)
        .filter(|(address, _)| done.contains(address))
        .map(|(address, what)| (address.clone(), what))
        .collect()
}

/// What of `done` stands in clusters that can't be read now, or stood there
/// until `plan` deleted it.
fn unread(left: &Plan, plan: &Plan, done: &BTreeSet<Address>) -> Vec<Unconfirmed> {
    let clusters = left.blocked_clusters.iter().map(|cluster| {
        let wanted = left.blocked.iter().filter(|b| b.cluster.as_ref() == Some(&cluster.cluster)).map(|b| &b.address);
        let within = |step: &&Step| {
            let state = step.found.as_ref().map(|f| &f.state);
            let named = state.and_then(|s| s.get("cluster")).and_then(serde_json::Value::as_str);
            step.action == Action::Delete && step.kind.starts_with("k8s.") && named == Some(cluster.cluster.as_str())
        };
        let deleted = plan.steps.iter().filter(within).map(|s| &s.address);
        let message = format!("the inside of cluster {} can't be read: {}", cluster.cluster, cluster.reason);
        let mut error = Error::new(Class::Unreachable, message);
        error.help = cluster.help.clone();
        Unconfirmed { addresses: wanted.chain(deleted).filter(|a| done.contains(a)).cloned().collect(), error }
    });
    clusters.filter(|one| !one.addresses.is_empty()).collect()
}

fn blocked_code(plan: &Plan) -> u8 {
    match (plan.blocked.is_empty() && plan.blocked_clusters.is_empty(), plan.blocked.iter().all(|b| b.pending)) {
        (true, _) => exit::DONE,
        (_, true) => exit::BLOCKED,
        _ => exit::ERROR,
    }
}

/// 0 done, 1 something failed or a control is unmet, 3 the rest waits, for a
/// cluster's API server or for another run, 4 it couldn't be read again whether it is so, 130 the
/// user stopped it.
fn code(plan: &Plan, report: &Report) -> u8 {
    if report.interrupted {
        return exit::INTERRUPTED;
    }
    if report.failed().chain(report.unmet()).next().is_some() || !report.differs.is_empty() {
        return exit::ERROR;
    }
    match blocked_code(plan) {
        exit::DONE | exit::BLOCKED if !report.unconfirmed.is_empty() => exit::UNKNOWN,
        exit::DONE if report.blocked().next().is_some() => exit::BLOCKED,
        code => code,
    }
}
