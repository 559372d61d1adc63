//! One run at a time: a lease for each tenancy and region, kept in SSM
//! parameters `/ringfence/TENANCY/REGION/lock/GENERATION`.
//!
//! A parameter is created without overwriting, so of two that create the same
//! generation one fails: that is the compare-and-set, and the generation is the
//! fencing token. The holder overwrites its own generation as a heartbeat and
//! nobody else ever writes to it. Whoever takes over creates the next one and
//! deletes the old ones, which the former holder's next heartbeat notices,
//! because overwriting names no type and so can't create.
//!
//! No computer's clock is compared with another's. A waiter takes over after
//! it has seen the same heartbeat for a whole lease. The holder begins no write
//! when less than a quarter of its lease is left since its last good heartbeat
//! began, and gives up a write that takes longer than what is left: the
//! [fence](super::fence) asks before each attempt. What was sent by then and
//! waits somewhere on its way can't be called back.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_ssm::types::{ParameterTier, ParameterType, Tag};
use aws_smithy_types::timeout::TimeoutConfig;
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

/// How long a holder may be silent.
pub const LEASE: Duration = Duration::from_secs(60);

/// What a generation's parameter holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Tells this run's record from every other's.
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
    let file = |path| std::fs::read_to_string(path).ok();
    let variable = |name| std::env::var(name).ok();
    [file("/proc/sys/kernel/hostname"), file("/etc/hostname"), variable("HOSTNAME"), variable("COMPUTERNAME")]
        .into_iter()
        .flatten()
        .map(|name| name.trim().to_owned())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "an unnamed host".to_owned())
}

/// One generation as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    generation: u64,
    name: String,
    /// SSM's own count of writes.
    version: i64,
    /// None if somebody else wrote it.
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

/// What a waiter makes of the newest generation.
#[derive(Debug, PartialEq)]
enum Sight {
    /// Its heartbeat moved, or it is another holder than before.
    Alive,
    /// No heartbeat for so long.
    Silent(Duration),
    /// None for a whole lease.
    Dead,
}

/// What a waiter has seen so far.
#[derive(Default)]
struct Vigil {
    /// The generation as it was read first with this heartbeat, and when.
    seen: Option<(Seen, Duration)>,
}

impl Vigil {
    /// `asked` and `answered` are when the reading began and ended, by the
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

/// A moment by both clocks: the monotonic one stands still while a computer
/// sleeps, and the wall's may be set.
#[derive(Clone, Copy, Debug)]
struct Moment {
    run: Duration,
    wall: Timestamp,
}

impl Moment {
    fn now(clock: &Clock) -> Self {
        Self { run: clock.elapsed(), wall: Clock::timestamp() }
    }

    /// The longer of both.
    fn since(self, earlier: Self) -> Duration {
        let wall = Duration::try_from(self.wall.duration_since(earlier.wall)).unwrap_or_default();
        self.run.saturating_sub(earlier.run).max(wall)
    }
}

/// The holder's view of its lease.
#[derive(Debug)]
struct Lease {
    length: Duration,
    /// When the last good heartbeat began.
    renewed: Moment,
    /// Why the last heartbeat failed, if it did.
    trouble: Option<Error>,
    /// Why it may not write any more. Stays.
    lost: Option<Error>,
    /// This run has given it back.
    over: bool,
}

impl Lease {
    fn new(length: Duration, renewed: Moment) -> Self {
        Self { length, renewed, trouble: None, lost: None, over: false }
    }

    fn left(&self, now: Moment) -> Duration {
        self.length.saturating_sub(now.since(self.renewed))
    }

    /// Less than a quarter is left: too little for a write to end in.
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
                .help("nothing new was started; run the same command again, which goes on from what it finds"),
            );
        }
        match &self.lost {
            Some(why) => Err(why.clone()),
            None => Ok(self.left(now)),
        }
    }
}

/// A tenancy's lock, held or not.
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

    /// All generations, the newest last.
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

    /// Fails if it is gone: without a type it can't be created.
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

    /// Creates the next generation after `before`. False if somebody else was
    /// first.
    async fn claim(&self, before: &[Seen], record: &Record) -> Result<Option<u64>> {
        let generation = before.last().map_or(0, |s| s.generation) + 1;
        match self.create(generation, record).await {
            Ok(()) => {}
            // The SDK may have sent it twice, or its answer was lost: what is
            // there now tells.
            Err(e) if matches!(e.class, Class::Exists | Class::Unclear) => {}
            Err(e) => return Err(e),
        }
        // Whoever stood still between reading and creating may have created a
        // generation that others were done with long ago.
        let known: BTreeSet<u64> = before.iter().map(|s| s.generation).collect();
        // A read may not show yet what is there, by whomever it was written.
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
        // What is left over is deleted by the next run.
        let _ = self.delete(before).await;
        Ok(Some(generation))
    }

    /// Takes the lock for `command`. Watches a silent holder for its lease and
    /// then takes over; gives up at a holder's first sign of life after
    /// `patience`. `say` gets what is waited for, in words.
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

    /// Releases the lock that `holder` has, which notices it before its next
    /// write.
    pub async fn free(&self, holder: &Seen) -> Result<()> {
        let all = self.list().await?;
        let record = Record { released: true, ..Record::new("unlock", &self.caller, LEASE) };
        let same = all.last().is_some_and(|s| s.generation == holder.generation);
        if !same || self.claim(&all, &record).await?.is_none() {
            return Err(Error::new(Class::Conflict, "the lock has changed hands meanwhile; nothing was changed")
                .help("run `ringfence unlock` again to see who holds it now"));
        }
        Ok(())
    }

    /// Says who took the place of `generation`, if somebody did.
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
        Ok(Some(
            Error::new(Class::Lost, format!("the lock {by}; nothing new was started"))
                .help("when no other run is under way, run the same command again: it goes on from what it finds"),
        ))
    }
}

fn json(record: &Record) -> Result<String> {
    serde_json::to_string(record).map_err(|e| Error::bug(format!("the lock can't be written as JSON: {e}")))
}

/// Without the lock there is no run.
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

/// In quarters of the lease: each text is a line where there is no terminal.
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

/// A lock that this run holds, and keeps until it is released.
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

    /// For the executor.
    pub fn guard(&self) -> Arc<dyn Guard> {
        self.held.clone()
    }

    /// Why the run may not write any more, if it may not.
    pub fn lost(&self) -> Option<Error> {
        self.held.lease().lost.clone()
    }

    /// Ends the heartbeat, after the one that is under way.
    async fn still(&self) {
        let beating = self.beating.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, task)) = beating {
            drop(stop);
            // It ends by itself, and has nothing to tell.
            let _ = task.await;
        }
    }

    /// How long it stays after a run that ends now without releasing it.
    pub fn left(&self) -> Duration {
        self.held.lease().left(Moment::now(&self.held.store.clock))
    }

    /// Marks it as released. Whatever comes of that, this run writes nothing
    /// any more.
    pub async fn release(&self) -> Result<()> {
        self.held.lease().over = true;
        self.still().await;
        let Held { store, generation, record, .. } = &*self.held;
        let released = store.overwrite(*generation, &Record { released: true, ..record.clone() }).await;
        // Who lost it has nothing to release.
        if self.lost().is_some() { Ok(()) } else { released }
    }

    /// Releases it and leaves nothing behind.
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
            // A heartbeat that comes late says nothing: it may have been taken
            // over before.
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
        // The clock may be a sandbox's; calls take their time on the wall.
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
        // From the end of the first reading to the beginning of this one.
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
        // A heartbeat that gets through later changes nothing.
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
        // A wall clock that is set back doesn't make the lease longer.
        let mut lease = Lease::new(LEASE, moment(100, 1000));
        assert!(lease.allows(moment(146, 500)).is_err());
    }
}
