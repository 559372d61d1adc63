use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::locked::Locked;
use super::preflight::Findings;
use super::saved::Saved;
use super::{Failure, Host, Session, Stage, preflight, saved};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error};
use crate::engine::execute::{Chance, Executor, Stop};
use crate::engine::kind::Registry;
use crate::engine::plan::{Action, Loss, Plan, Policy, Step};
use crate::engine::report::{Differs, Outcome, Report, Unconfirmed};
use crate::spec::{KubernetesVersion, SpecErrors};

/// How long an observation counts as current. After a longer pause, such as an unanswered question, the plan is made
/// again.
const FRESH: Duration = Duration::from_secs(60);

/// What a run shall do.
#[derive(Debug, Default)]
pub struct Request {
    pub policy: Policy,
    /// Update add-ons to newer versions and nodes to newer images.
    pub upgrade: bool,
    /// Carry out exactly this saved plan, or nothing. Then `policy` and `upgrade` are those of the saved plan.
    pub saved: Option<Saved>,
    /// Deletions that this run allows in addition to the policy.
    pub allow_destroy: BTreeSet<Address>,
}

/// How a run works.
#[derive(Clone, Debug)]
pub struct Manner {
    /// The command's name, as the lock shows it to other runs.
    pub command: &'static str,
    /// Don't ask the host for confirmation.
    pub approved: bool,
    /// All losses of the plan are confirmed.
    pub losses_approved: bool,
    /// How many steps of one kind may make calls at the same time.
    pub parallelism: usize,
    /// Check quotas, offers, permissions and principals before the first write.
    pub preflight: bool,
    /// How long to wait for the lock of another run that is alive.
    pub lock_timeout: Duration,
    /// How long the lock's holder may miss its heartbeat. `None` means the default.
    pub lock_lease: Option<Duration>,
    /// The seed for the jitter of retries.
    pub chance: Chance,
}

#[derive(Debug)]
pub enum Ended {
    /// The run was stopped before it changed anything.
    Stopped,
    Ran(Box<Ran>),
}

/// The result of a run.
#[derive(Debug)]
pub struct Ran {
    pub plan: Plan,
    pub report: Report,
    /// The addresses of `allow_destroy` that are deleted completely. A later run would refuse them as unknown.
    pub gone: Vec<Address>,
    /// Why the lock was lost during the run.
    pub lost: Option<Error>,
    /// Why the host couldn't show the run.
    pub unshown: Option<Failure>,
}

/// The result of a run, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// A step failed, a control is unmet, or a resource that was written differs from the spec.
    Failed,
    /// The rest of the work waits for a cluster's API server or for another run.
    Waits,
    /// The result could not be verified, because something can't be read.
    Unconfirmed,
    Interrupted,
}

impl Ran {
    /// True if everything was done and shown.
    fn is_whole(&self) -> bool {
        self.lost.is_none() && self.unshown.is_none() && self.verdict() == Verdict::Done
    }

    pub fn verdict(&self) -> Verdict {
        let Self { plan, report, .. } = self;
        if report.interrupted {
            return Verdict::Interrupted;
        }
        if report.failed().chain(report.unmet()).next().is_some() || !report.differs.is_empty() {
            return Verdict::Failed;
        }
        let clear = plan.blocked.is_empty() && plan.unread_hosts.is_empty();
        match plan.blocked.iter().all(|b| b.why.is_pending()) {
            false => Verdict::Failed,
            true if !report.unconfirmed.is_empty() => Verdict::Unconfirmed,
            true if !clear || report.blocked().next().is_some() => Verdict::Waits,
            true => Verdict::Done,
        }
    }
}

/// Plans `request`, executes the plan under the tenancy's lock, and verifies what was written.
///
/// # Errors An error means that nothing was changed. Failures after the first write are part of the report.
pub async fn apply(
    session: &Session,
    request: &Request,
    manner: &Manner,
    host: &dyn Host,
    stop: watch::Receiver<Stop>,
) -> Result<Ended, Failure> {
    let Some(locked) = session.take_lock(manner, host, stop).await? else { return Ok(Ended::Stopped) };
    let run = Run { session, request, manner, host, locked: &locked };
    let result = tokio::select! {
        result = run.planned() => result,
        () = locked.left() => Ok(Ended::Stopped),
    };
    let whole = request.policy.destroy && request.policy.tenants.is_empty();
    let last = matches!(&result, Ok(Ended::Ran(ran)) if whole && ran.is_whole());
    session.give_back(host, &locked, last).await;
    result
}

/// A run that holds the lock.
struct Run<'a> {
    session: &'a Session,
    request: &'a Request,
    manner: &'a Manner,
    host: &'a dyn Host,
    locked: &'a Locked,
}

impl Run<'_> {
    async fn planned(&self) -> Result<Ended, Failure> {
        let Self { session, request, manner, host, locked: _ } = self;
        session.reading(*host);
        let (look, plan) = session.plan(&request.policy, request.upgrade).await?;
        look.know(&Policy { allow_destroy: request.allow_destroy.clone(), ..Policy::default() })?;
        if let Some(saved) = &request.saved {
            saved.check(&plan)?;
            deletes(&plan, &request.allow_destroy)?;
        }
        let Findings { wrong, notes } = match manner.preflight {
            true => preflight::offers(session, &look, &plan).await,
            false => Findings::default(),
        };
        host.plan(session, &plan, &request.policy, notes)?;
        if plan.steps.is_empty() {
            return Ok(Ended::ran(plan, Report::default()));
        }
        if manner.preflight {
            preflight::check(session, *host, &look, &plan, SpecErrors(wrong)).await?;
        }
        let versions = look.versions.clone();
        drop(look);
        self.agreed(&plan).await?;
        self.carried_out(plan, &versions).await
    }

    /// Returns an error unless the plan is confirmed, and what exists still gives the same plan.
    async fn agreed(&self, plan: &Plan) -> Result<(), Failure> {
        let Self { session, request, host, .. } = self;
        let asked = session.aws.clock.elapsed();
        if !self.confirmed(plan).await? {
            return Err(Error::input("not confirmed; nothing was changed").into());
        }
        if session.aws.clock.elapsed().saturating_sub(asked) > FRESH {
            host.stage(&Stage::ReadingAgain);
            let (_, now) = session.plan(&request.policy, request.upgrade).await?;
            if saved::steps(&now)? != saved::steps(plan)? {
                return Err(Error::input(
                    "existing resources aren't the same as when the plan was shown; nothing was changed",
                )
                .help("run the same command to see the new plan")
                .into());
            }
        }
        Ok(())
    }

    /// Asks for confirmation, except of losses that were allowed by address.
    async fn confirmed(&self, plan: &Plan) -> Result<bool, Failure> {
        let Self { request, manner, host, .. } = self;
        let allowed = [&request.policy.allow_destroy, &request.policy.allow_replace, &request.allow_destroy];
        let named = |loss: &&Loss| manner.losses_approved || allowed.iter().any(|all| all.contains(&loss.address));
        let left: Vec<&Loss> = plan.confirm.iter().filter(|loss| !named(loss)).collect();
        if !manner.approved {
            return host.confirm(&left.into_iter().map(|loss| loss.address.clone()).collect()).await;
        }
        if left.is_empty() {
            return Ok(true);
        }
        let losses = left.iter().map(|loss| format!("{} (lost: {})", loss.address, loss.lost.join("; ")));
        let flags = left.iter().map(|loss| format!("--allow-destroy {}", loss.address)).collect::<Vec<_>>().join(" ");
        Err(Error::input(format!("this plan deletes {}; nothing was changed", losses.collect::<Vec<_>>().join(", ")))
            .help(format!("to confirm the deletion, add {flags}"))
            .into())
    }

    async fn carried_out(
        &self,
        mut plan: Plan,
        versions: &BTreeMap<Address, KubernetesVersion>,
    ) -> Result<Ended, Failure> {
        let Self { session, request, manner, host, locked } = self;
        let Some(stop) = locked.begin() else { return Ok(Ended::Stopped) };
        let (events, listener) = mpsc::unbounded_channel();
        let executor = Executor {
            kinds: session.kinds.clone(),
            tenancy: session.spec.name.clone(),
            clock: session.aws.clock.clone(),
            parallelism: manner.parallelism,
            events,
            stop,
            guard: locked.lock.guard(),
            chance: manner.chance,
        };
        let run = async {
            let report = executor.execute(&plan).await;
            // The display ends when the channel closes. The executor holds the channel's only sender.
            drop(executor);
            report
        };
        let (mut report, shown) = tokio::join!(run, host.follow(listener, &session.aws.clock));
        // Everything is read again next, which needs memory.
        plan.steps.iter_mut().for_each(|step| step.state = None);
        let lost = locked.lock.lost();
        if lost.is_none() {
            self.verify(versions, &plan, &mut report).await;
        }
        let gone = gone(&report, &request.policy);
        Ok(Ended::Ran(Box::new(Ran { plan, report, gone, lost, unshown: shown.err() })))
    }

    /// Reads in bulk what the run wrote, and reports each difference. The reads are retried, because AWS's reads are
    /// eventually consistent. Resources that can't be read are unconfirmed.
    async fn verify(&self, versions: &BTreeMap<Address, KubernetesVersion>, plan: &Plan, report: &mut Report) {
        let Self { session, request, host, .. } = self;
        let addresses = |done: bool| -> BTreeSet<Address> {
            let lines = report.lines.iter().filter(|l| matches!(l.outcome, Outcome::Done) == done);
            lines.map(|l| l.address.clone()).collect()
        };
        let undone = addresses(false);
        let done: BTreeSet<Address> = addresses(true).difference(&undone).cloned().collect();
        if done.is_empty() || report.interrupted {
            return;
        }
        host.stage(&Stage::Verifying);
        for pause in [1.0, 4.0, 0.0] {
            let left = match session.left(&request.policy, request.upgrade, versions.clone()).await {
                Ok(left) => left,
                // The clients have already retried.
                Err(error) => {
                    report.unconfirmed = vec![Unconfirmed { addresses: done, error }];
                    return;
                }
            };
            report.differs = differences(&left, plan, &done);
            report.unconfirmed = unread(&left, plan, &done, &session.kinds);
            if report.differs.is_empty() && report.unconfirmed.is_empty() {
                return;
            }
            if pause > 0.0 {
                session.aws.clock.sleep(Duration::from_secs_f64(pause)).await;
            }
        }
    }
}

impl Ended {
    fn ran(plan: Plan, report: Report) -> Self {
        Self::Ran(Box::new(Ran { plan, report, gone: Vec::new(), lost: None, unshown: None }))
    }
}

/// Returns an error if `named` has an address that the saved plan doesn't delete. The losses of a saved plan are
/// fixed when it is made.
fn deletes(plan: &Plan, named: &BTreeSet<Address>) -> Result<(), Error> {
    let known = |address: &&Address| plan.confirm.iter().any(|loss| loss.address == **address);
    match named.iter().find(|address| !known(address)) {
        None => Ok(()),
        Some(address) => {
            Err(Error::input(format!("the saved plan doesn't delete {address} (--allow-destroy); nothing was changed"))
                .help(format!("make a new plan: `ringfence plan --allow-destroy {address} --out FILE`")))
        }
    }
}

fn gone(report: &Report, policy: &Policy) -> Vec<Address> {
    let whole = |address: &&Address| {
        let mut lines = report.lines.iter().filter(|l| l.address.is_within(address)).peekable();
        lines.peek().is_some() && lines.all(|l| l.action == Action::Delete && matches!(l.outcome, Outcome::Done))
    };
    policy.allow_destroy.iter().filter(whole).cloned().collect()
}

/// Resources of `done` that a new plan would change again, or that are blocked now although `plan` could change them.
fn differences(left: &Plan, plan: &Plan, done: &BTreeSet<Address>) -> Vec<(Address, Differs)> {
    let steps = left.steps.iter().map(|s| {
        let fields: Vec<String> = s.changes.iter().map(|c| c.path.clone()).collect();
        (&s.address, if fields.is_empty() { Differs::Action(s.action) } else { Differs::Fields(fields) })
    });
    let known: BTreeSet<&Address> = plan.blocked.iter().map(|b| &b.address).collect();
    let blocked = left.blocked.iter().filter(|b| b.why.unread().is_none() && !known.contains(&b.address));
    let blocked = blocked.map(|b| (&b.address, Differs::Blocked(b.why.clone())));
    steps
        .chain(blocked)
        .filter(|(address, _)| done.contains(address))
        .map(|(address, what)| (address.clone(), what))
        .collect()
}

/// Resources of `done` in clusters that can't be read now, including objects that `plan` deleted.
fn unread(left: &Plan, plan: &Plan, done: &BTreeSet<Address>, kinds: &Registry) -> Vec<Unconfirmed> {
    let inside = |step: &Step| {
        let kind = kinds.get(step.kind).ok().filter(|kind| kind.is_hosted())?;
        kind.host(&step.found.as_ref()?.state)
    };
    let clusters = left.unread_hosts.iter().map(|cluster| {
        let wanted = left.blocked.iter().filter(|b| b.why.unread() == Some(cluster.host.as_str())).map(|b| &b.address);
        let within =
            |step: &&Step| step.action == Action::Delete && inside(step).is_some_and(|host| host == cluster.host);
        let deleted = plan.steps.iter().filter(within).map(|s| &s.address);
        let message = format!("the objects in cluster {} can't be read: {}", cluster.host, cluster.reason);
        let mut error = Error::new(Class::Unreachable, message);
        error.help = cluster.help.clone();
        Unconfirmed { addresses: wanted.chain(deleted).filter(|a| done.contains(a)).cloned().collect(), error }
    });
    clusters.filter(|one| !one.addresses.is_empty()).collect()
}
