//! One run at a time: a lease for each tenancy and region, kept in SSM
//! parameters `/ringfence/TENANCY/REGION/lock/GENERATION`.
//!
//! A parameter is created without overwriting. If two runs create the same
//! generation, one of them fails. That is the compare-and-set, and the
//! generation is the fencing token. The holder overwrites its own generation as
//! a heartbeat, and nobody else ever writes to it. A run that takes over
//! creates the next generation and deletes the old ones. The former holder's
//! next heartbeat then fails, because a PutParameter that overwrites names no
//! type and so can't create a parameter.
//!
//! The clocks of two computers are never compared. A waiter takes over after it
//! has seen the same heartbeat for a whole lease. A lease starts when the last
//! successful heartbeat was sent. The holder begins no write when less than a
//! quarter of its lease is left, and gives up a write that takes longer than
//! the rest of the lease: the [fence](super::fence) asks before each attempt. A
//! request that was sent before and is delayed in the network can't be called
//! back.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_ssm::types::{ParameterTier, ParameterType, Tag};
use aws_smithy_types::timeout::TimeoutConfig;
use gethostname::gethostname;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Aws;
use super::error::failed;
use super::tags::{self, Tags};
use crate::engine::address::Address;
use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};
use crate::engine::execute::Guard;

/// The longest time between two heartbeats of a live holder.
pub const LEASE: Duration = Duration::from_secs(60);

/// The value of a generation's parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Identifies the run: no other run has the same id.
    id: String,
    command: String,
    host: String,
    process: u32,
    caller: String,
    since: Timestamp,
    lease_seconds: f64,
    heartbeat: u64,
    released: bool,
}

impl Record {
    fn new(command: &str, caller: &str, lease: Duration) -> Self {
        let id = RandomState::new().build_hasher().finish();
        Self {
            id: format!("{id:016x}"),
            command: command.to_owned(),
            host: host(),
            process: std::process::id(),
            caller: caller.to_owned(),
            since: Clock::timestamp(),
            lease_seconds: lease.as_secs_f64(),
            heartbeat: 0,
            released: false,
        }
    }
}

fn host() -> String {
    match gethostname().to_string_lossy().trim() {
        "" => "an unnamed host".to_owned(),
        name => name.to_owned(),
    }
}

/// One generation, as read from SSM.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    generation: u64,
    name: String,
    /// SSM's own version number: it grows with each write.
    version: i64,
    /// `None`: the value isn't a record of ringfence.
    record: Option<Record>,
}

impl Seen {
    pub fn released(&self) -> bool {
        self.record.as_ref().is_some_and(|r| r.released)
    }

    fn lease(&self) -> Duration {
        let seconds = self.record.as_ref().map(|r| r.lease_seconds);
        seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or(LEASE)
    }

    fn is(&self, record: &Record) -> bool {
        self.record.as_ref().is_some_and(|r| r.id == record.id)
    }

    /// For people: who, where and since when.
    pub fn holder(&self) -> String {
        match &self.record {
            Some(r) => {
                format!("`{}` on {}, process {}, as {}, since {:.0}", r.command, r.host, r.process, r.caller, r.since)
            }
            None => format!("somebody whose record in {} can't be read", self.name),
        }
    }
}

/// What a waiter concludes about the newest generation.
#[derive(Debug, PartialEq)]
enum Sight {
    /// Its heartbeat has changed since the last look, or the holder is another
    /// one.
    Alive,
    /// There was no heartbeat for this long.
    Silent(Duration),
    /// There was no heartbeat for a whole lease.
    Dead,
}

/// What a waiter has seen so far.
#[derive(Default)]
struct Vigil {
    /// The first reading with the present heartbeat, and its time.
    seen: Option<(Seen, Duration)>,
}

impl Vigil {
    /// `asked` and `answered` are the begin and end of the reading, by the
    /// waiter's own clock.
    fn look(&mut self, holder: &Seen, asked: Duration, answered: Duration) -> Sight {
        match &self.seen {
            Some((seen, since)) if seen == holder => match asked.saturating_sub(*since) {
                silent if silent >= holder.lease() => Sight::Dead,
                silent => Sight::Silent(silent),
            },
            before => {
                let first = before.is_none();
                self.seen = Some((holder.clone(), answered));
                if first { Sight::Silent(Duration::ZERO) } else { Sight::Alive }
            }
        }
    }
}

/// A moment by both clocks. The monotonic clock stops while the computer
/// sleeps, and the wall clock may be set.
#[derive(Clone, Copy, Debug)]
struct Moment {
    run: Duration,
    wall: Timestamp,
}

impl Moment {
    fn now(clock: &Clock) -> Self {
        Self { run: clock.elapsed(), wall: Clock::timestamp() }
    }

    /// The longer of the two durations.
    fn since(self, earlier: Self) -> Duration {
        let wall = Duration::try_from(self.wall.duration_since(earlier.wall)).unwrap_or_default();
        self.run.saturating_sub(earlier.run).max(wall)
    }
}

/// The lease, as its holder measures it.
#[derive(Debug)]
struct Lease {
    length: Duration,
    /// When the last successful heartbeat was sent.
    renewed: Moment,
    /// Why the last heartbeat failed, if it did.
    trouble: Option<Error>,
    /// Why the run may not write any more. It is never reset.
    lost: Option<Error>,
    /// True after this run has released the lock.
    over: bool,
}

impl Lease {
    fn new(length: Duration, renewed: Moment) -> Self {
        Self { length, renewed, trouble: None, lost: None, over: false }
    }

    fn left(&self, now: Moment) -> Duration {
        self.length.saturating_sub(now.since(self.renewed))
    }

    /// True if less than a quarter of the lease is left. A write might not end
    /// in that time.
    fn stale(&self, now: Moment) -> bool {
        self.left(now) < self.length.div_f64(4.0)
    }

    fn renew(&mut self, begun: Moment) {
        self.renewed = begun;
        self.trouble = None;
    }

    fn lose(&mut self, why: Error) {
        self.lost.get_or_insert(why);
    }

    /// How long a write that begins now may take.
    fn allows(&mut self, now: Moment) -> Result<Duration> {
        if self.over {
            return Err(Error::new(Class::Lost, "the lock was released; nothing is written any more"));
        }
        if self.lost.is_none() && self.stale(now) {
            let age = now.since(self.renewed).as_secs();
            let why = self.trouble.take().map(|e| format!(" ({e})")).unwrap_or_default();
            self.lose(
                Error::new(
                    Class::Lost,
                    format!("the lock couldn't be renewed for {age} s{why}, so another run may have taken it"),
                )
                .help("nothing new was started; run the same command again, which reads what exists and continues from there"),
            );
        }
        match &self.lost {
            Some(why) => Err(why.clone()),
            None => Ok(self.left(now)),
        }
    }
}

/// The lock of a tenancy, for all its operations.
#[derive(Clone, Debug)]
pub struct Store {
    client: aws_sdk_ssm::Client,
    clock: Clock,
    caller: String,
    tenancy: String,
    region: String,
    tags: Tags,
}

impl Store {
    /// `tags` are the spec's own. The lease is measured on `clock`.
    pub fn new(aws: &Aws, tags: &Tags, clock: Clock) -> Self {
        let config = aws_sdk_ssm::config::Builder::from(&aws.config)
            .interceptor(aws.calls.clone())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(3))
                    .operation_attempt_timeout(Duration::from_secs(5))
                    .build(),
            )
            .build();
        let mut all = tags.clone();
        all.extend(tags::ownership(&aws.tenancy, &aws.scope.region, &Address::new("tenancy/lock")));
        Self {
            client: aws_sdk_ssm::Client::from_conf(config),
            clock,
            caller: aws.caller.clone(),
            tenancy: aws.tenancy.clone(),
            region: aws.scope.region.clone(),
            tags: all,
        }
    }

    fn path(&self) -> String {
        format!("/ringfence/{}/{}/lock", self.tenancy, self.region)
    }

    fn name(&self, generation: u64) -> String {
        format!("{}/{generation}", self.path())
    }

    /// All generations, in ascending order.
    pub async fn list(&self) -> Result<Vec<Seen>> {
        let mut all = Vec::new();
        let mut token = None;
        loop {
            let call = self.client.get_parameters_by_path().path(self.path()).set_next_token(token);
            let page = call.send().await.map_err(failed("ssm:GetParametersByPath")).map_err(denied)?;
            for parameter in page.parameters() {
                let name = parameter.name().unwrap_or_default();
                let Some(generation) = name.rsplit('/').next().and_then(|g| g.parse().ok()) else { continue };
                all.push(Seen {
                    generation,
                    name: name.to_owned(),
                    version: parameter.version(),
                    record: parameter.value().and_then(|v| serde_json::from_str(v).ok()),
                });
            }
            token = page.next_token().map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        all.sort_by_key(|s| s.generation);
        Ok(all)
    }

    async fn create(&self, generation: u64, record: &Record) -> Result<()> {
        let tags = tags::with_generation(&self.tags, u32::try_from(generation).unwrap_or(u32::MAX));
        let tags = tags.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        let call = self
            .client
            .put_parameter()
            .name(self.name(generation))
            .value(json(record)?)
            .r#type(ParameterType::String)
            .tier(ParameterTier::Standard)
            .description("Who may change this tenancy: one run of ringfence at a time.")
            .set_tags(Some(tags.collect::<std::result::Result<_, _>>().map_err(|e| Error::bug(e.to_string()))?));
        call.send().await.map_err(failed("ssm:PutParameter")).map_err(denied)?;
        Ok(())
    }

    /// Fails if the parameter is gone: without a type, PutParameter can't
    /// create one.
    async fn overwrite(&self, generation: u64, record: &Record) -> Result<()> {
        let call = self.client.put_parameter().name(self.name(generation)).value(json(record)?).overwrite(true);
        call.send().await.map_err(failed("ssm:PutParameter"))?;
        Ok(())
    }

    async fn delete(&self, old: &[Seen]) -> Result<()> {
        for names in old.chunks(10) {
            let names = names.iter().map(|s| s.name.clone()).collect();
            let call = self.client.delete_parameters().set_names(Some(names));
            call.send().await.map_err(failed("ssm:DeleteParameters")).map_err(denied)?;
        }
        Ok(())
    }

    /// Creates the next generation after `before`. `None`: another run was
    /// first.
    async fn claim(&self, before: &[Seen], record: &Record) -> Result<Option<u64>> {
        let generation = before.last().map_or(0, |s| s.generation) + 1;
        match self.create(generation, record).await {
            Ok(()) => {}
            // The SDK may have sent the request twice, or the answer was lost.
            // The list below says who created the generation.
            Err(e) if matches!(e.class, Class::Exists | Class::Unclear) => {}
            Err(e) => return Err(e),
        }
        // A process that was paused between the reading and the creation may
        // have created a generation that other runs used and deleted long ago.
        let known: BTreeSet<u64> = before.iter().map(|s| s.generation).collect();
        // SSM reads are eventually consistent: they may not show the new
        // parameter yet.
        let quarter = Duration::try_from_secs_f64(record.lease_seconds / 4.0).unwrap_or(LEASE / 4);
        let until = self.clock.elapsed() + quarter;
        let now = loop {
            let now = self.list().await?;
            if now.iter().any(|s| s.generation >= generation) || self.clock.elapsed() >= until {
                break now;
            }
            self.clock.sleep(quarter.div_f64(5.0)).await;
        };
        let ours = now.iter().any(|s| s.generation == generation && s.is(record));
        let rival = now.iter().any(|s| s.generation != generation && !known.contains(&s.generation) && !s.released());
        if ours && rival {
            self.overwrite(generation, &Record { released: true, ..record.clone() }).await?;
        }
        if !ours || rival {
            return Ok(None);
        }
        // If this fails, the next run deletes the old generations.
        let _ = self.delete(before).await;
        Ok(Some(generation))
    }

    /// Takes the lock for `command`. Watches a silent holder for its lease and
    /// then takes over. After `patience`, the first heartbeat of a live holder
    /// makes it give up. `say` gets sentences about the wait.
    pub async fn take(
        &self,
        command: &str,
        lease: Duration,
        patience: Duration,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<Lock> {
        let begun = self.clock.elapsed();
        let record = Record::new(command, &self.caller, lease);
        let mut vigil = Vigil::default();
        let (mut alive, mut said) = (false, String::new());
        loop {
            let asked = self.clock.elapsed();
            let all = self.list().await?;
            let answered = self.clock.elapsed();
            let text = match all.last() {
                Some(holder) if !holder.released() => match vigil.look(holder, asked, answered) {
                    Sight::Dead => None,
                    sight => {
                        alive |= sight == Sight::Alive;
                        if alive && answered.saturating_sub(begun) >= patience {
                            return Err(self.held(holder));
                        }
                        Some(waiting(holder, sight, alive))
                    }
                },
                _ => None,
            };
            match text {
                Some(text) if text == said => {}
                Some(text) => {
                    say(&text);
                    said = text;
                }
                None => {
                    let renewed = Moment::now(&self.clock);
                    if let Some(generation) = self.claim(&all, &record).await? {
                        return Ok(Lock::new(self.clone(), generation, record, Lease::new(lease, renewed)));
                    }
                }
            }
            let pause = all.last().map_or(lease, Seen::lease).div_f64(20.0);
            self.clock.sleep(pause).await;
        }
    }

    fn held(&self, holder: &Seen) -> Error {
        Error::new(
            Class::Conflict,
            format!(
                "the lock of {} in {} is held by {}; nothing was changed",
                self.tenancy,
                self.region,
                holder.holder()
            ),
        )
        .help("wait until that run ends, or give --lock-timeout 10m to wait for it; if it can't go on, `ringfence unlock` releases the lock")
    }

    /// Releases the lock of another run, `holder`. That run notices it before
    /// its next write.
    pub async fn free(&self, holder: &Seen) -> Result<()> {
        let all = self.list().await?;
        let record = Record { released: true, ..Record::new("unlock", &self.caller, LEASE) };
        let same = all.last().is_some_and(|s| s.generation == holder.generation);
        if !same || self.claim(&all, &record).await?.is_none() {
            return Err(Error::new(
                Class::Conflict,
                "the lock was taken or released in the meantime; nothing was changed",
            )
            .help("run `ringfence unlock` again to see who holds it now"));
        }
        Ok(())
    }

    /// The error that names who replaced `generation`. `None` if nobody did.
    async fn successor(&self, generation: u64, record: &Record) -> Result<Option<Error>> {
        let all = self.list().await?;
        let there = all.iter().any(|s| s.generation == generation && s.is(record));
        let by = match all.last() {
            Some(newest) if newest.generation > generation => match newest.released() {
                true => format!("was released by {}", newest.holder()),
                false => format!("was taken by {}", newest.holder()),
            },
            _ if there => return Ok(None),
            _ => format!("is gone: {} was deleted", self.name(generation)),
        };
        Ok(Some(Error::new(Class::Lost, format!("the lock {by}; nothing new was started")).help(
            "when no other run is under way, run the same command again: it reads what exists and continues from there",
        )))
    }
}

fn json(record: &Record) -> Result<String> {
    serde_json::to_string(record).map_err(|e| Error::bug(format!("the lock can't be written as JSON: {e}")))
}

/// Adds to a "denied" that no run is possible without the lock.
fn denied(error: Error) -> Error {
    match error.class {
        Class::Denied => {
            let message = format!("the lock can't be taken, so nothing was changed: {}", error.message);
            Error { message, ..error }.help(
                "allow ssm:GetParametersByPath, ssm:PutParameter, ssm:AddTagsToResource and ssm:DeleteParameters on parameter/ringfence/*, as the policy that `ringfence iam-policy` prints does",
            )
        }
        _ => error,
    }
}

/// The duration is rounded to quarters of the lease, because without a terminal
/// each new text is a line.
fn waiting(holder: &Seen, sight: Sight, alive: bool) -> String {
    match sight {
        Sight::Silent(silent) if !alive => {
            let lease = holder.lease();
            let quarter = lease.div_f64(4.0);
            let quarters = (silent.as_secs_f64() / quarter.as_secs_f64()).floor();
            format!(
                "Waiting for the lock's lease to end: its holder, {}, hasn't been heard of for {:.0}s of {:.0}s",
                holder.holder(),
                quarter.as_secs_f64() * quarters,
                lease.as_secs_f64()
            )
        }
        _ => format!("Waiting for the lock, which is held by {}", holder.holder()),
    }
}

/// A lock that this run holds until it releases it.
pub struct Lock {
    held: Arc<Held>,
    beating: Mutex<Option<(watch::Sender<()>, JoinHandle<()>)>>,
}

#[derive(Debug)]
struct Held {
    store: Store,
    generation: u64,
    record: Record,
    lease: Mutex<Lease>,
}

impl Lock {
    fn new(store: Store, generation: u64, record: Record, lease: Lease) -> Self {
        let held = Arc::new(Held { store, generation, record, lease: Mutex::new(lease) });
        let (stop, stopped) = watch::channel(());
        let task = tokio::spawn(held.clone().beat(stopped));
        Self { held, beating: Mutex::new(Some((stop, task))) }
    }

    /// The guard for the fence and the executor.
    pub fn guard(&self) -> Arc<dyn Guard> {
        self.held.clone()
    }

    /// Why the run may not write any more. `None`: it may write.
    pub fn lost(&self) -> Option<Error> {
        self.held.lease().lost.clone()
    }

    /// Stops the heartbeat. A heartbeat that is in progress is finished first.
    async fn still(&self) {
        let beating = self.beating.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, task)) = beating {
            drop(stop);
            // The task ends by itself and has no result.
            let _ = task.await;
        }
    }

    /// How long the lock would stay if the run ended now without releasing it.
    pub fn left(&self) -> Duration {
        self.held.lease().left(Moment::now(&self.held.store.clock))
    }

    /// Marks the lock as released. This run writes nothing any more, even if
    /// the marking fails.
    pub async fn release(&self) -> Result<()> {
        self.held.lease().over = true;
        self.still().await;
        let Held { store, generation, record, .. } = &*self.held;
        let released = store.overwrite(*generation, &Record { released: true, ..record.clone() }).await;
        // A lost lock needs no release.
        if self.lost().is_some() { Ok(()) } else { released }
    }

    /// Releases the lock and deletes its parameters.
    pub async fn remove(&self) -> Result<()> {
        self.release().await?;
        let Held { store, generation, .. } = &*self.held;
        let all = store.list().await?;
        let ours: Vec<Seen> = all.into_iter().filter(|s| s.generation <= *generation).collect();
        store.delete(&ours).await
    }
}

impl Held {
    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn beat(self: Arc<Self>, mut stopped: watch::Receiver<()>) {
        let clock = &self.store.clock;
        let length = self.lease().length;
        let mut record = self.record.clone();
        let mut pause = length.div_f64(4.0);
        loop {
            tokio::select! {
                () = clock.sleep(pause) => {}
                _ = stopped.changed() => return,
            }
            record.heartbeat += 1;
            let begun = Moment::now(clock);
            let late = self.lease().stale(begun);
            let beaten = self.store.overwrite(self.generation, &record).await;
            // A heartbeat that succeeds after the end of the lease doesn't
            // renew it: another run may have taken over before.
            let refused = beaten
                .as_ref()
                .is_err_and(|e| !matches!(e.class, Class::Throttled | Class::Unclear | Class::Unreachable));
            let successor = match late || refused {
                true => self.store.successor(self.generation, &record).await,
                false => Ok(None),
            };
            let mut lease = self.lease();
            match (beaten, successor) {
                (_, Ok(Some(why))) => return lease.lose(why),
                (Ok(()), Ok(None)) => {
                    lease.renew(begun);
                    pause = length.div_f64(4.0);
                }
                (Err(error), _) | (_, Err(error)) => {
                    lease.trouble = Some(error);
                    pause = length.div_f64(12.0);
                }
            }
        }
    }
}

impl Guard for Held {
    fn allows(&self) -> Result<Duration> {
        let now = Moment::now(&self.store.clock);
        // The clock may be a sandbox's, which runs faster. Time limits of calls
        // are in real time.
        Ok(self.lease().allows(now)?.div_f64(self.store.clock.speed()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn moment(run: u64, wall: i64) -> Moment {
        Moment { run: at(run), wall: Timestamp::from_second(wall).unwrap() }
    }

    fn seen(generation: u64, version: i64) -> Seen {
        let record = Record { since: Timestamp::UNIX_EPOCH, id: "1".into(), ..Record::new("apply", "arn", LEASE) };
        Seen { generation, name: format!("/lock/{generation}"), version, record: Some(record) }
    }

    #[test]
    fn a_holder_is_dead_after_a_whole_lease_of_silence() {
        let mut vigil = Vigil::default();
        let holder = seen(1, 7);
        assert_eq!(vigil.look(&holder, at(0), at(10)), Sight::Silent(at(0)));
        // The silence is measured from the end of the first reading to the
        // beginning of this one.
        assert_eq!(vigil.look(&holder, at(69), at(90)), Sight::Silent(at(59)));
        assert_eq!(vigil.look(&holder, at(70), at(71)), Sight::Dead);
    }

    #[test]
    fn a_heartbeat_begins_the_lease_anew() {
        let mut vigil = Vigil::default();
        vigil.look(&seen(1, 7), at(0), at(0));
        assert_eq!(vigil.look(&seen(1, 8), at(59), at(59)), Sight::Alive);
        assert_eq!(vigil.look(&seen(1, 8), at(100), at(100)), Sight::Silent(at(41)));
        // Another holder is alive too.
        assert_eq!(vigil.look(&seen(2, 8), at(118), at(118)), Sight::Alive);
        assert_eq!(vigil.look(&seen(2, 8), at(119), at(119)), Sight::Silent(at(1)));
    }

    #[test]
    fn the_holder_s_own_lease_counts() {
        let mut holder = seen(1, 1);
        holder.record.as_mut().unwrap().lease_seconds = 2.0;
        let mut vigil = Vigil::default();
        vigil.look(&holder, at(0), at(0));
        assert_eq!(vigil.look(&holder, at(2), at(2)), Sight::Dead);
    }

    #[test]
    fn what_cannot_be_read_is_held_by_somebody() {
        let holder = Seen { generation: 3, name: "/lock/3".to_owned(), version: 1, record: None };
        assert!(!holder.released());
        assert!(holder.holder().contains("/lock/3"));
        let mut vigil = Vigil::default();
        vigil.look(&holder, at(0), at(0));
        assert_eq!(vigil.look(&holder, at(60), at(60)), Sight::Dead);
    }

    #[test]
    fn the_holder_stops_before_a_waiter_may_take_over() {
        let mut lease = Lease::new(LEASE, moment(100, 1000));
        assert_eq!(lease.allows(moment(100, 1000)).unwrap(), at(60));
        assert_eq!(lease.allows(moment(145, 1045)).unwrap(), at(15));
        lease.renew(moment(140, 1040));
        assert!(lease.allows(moment(185, 1085)).is_ok());
        lease.trouble = Some(Error::new(Class::Denied, "the credentials have expired"));
        let why = lease.allows(moment(186, 1086)).unwrap_err();
        assert!(why.message.contains("the credentials have expired"), "{why}");
        assert_eq!(why.class, Class::Lost);
        // A heartbeat after the end of the lease changes nothing.
        lease.renew(moment(187, 1087));
        assert!(lease.allows(moment(188, 1088)).is_err());
    }

    #[test]
    fn who_has_released_it_writes_nothing() {
        let mut lease = Lease::new(LEASE, moment(100, 1000));
        lease.over = true;
        assert_eq!(lease.allows(moment(101, 1001)).unwrap_err().class, Class::Lost);
    }

    #[test]
    fn a_computer_that_slept_does_not_go_on() {
        let mut lease = Lease::new(LEASE, moment(100, 1000));
        assert!(lease.allows(moment(101, 1046)).is_err());
        // Setting the wall clock back doesn't make the lease longer.
        let mut lease = Lease::new(LEASE, moment(100, 1000));
        assert!(lease.allows(moment(146, 500)).is_err());
    }
}
