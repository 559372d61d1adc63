//! Taking the lock, and releasing the lock of another run.

use std::time::Duration;

use super::held::Lock;
use super::lease::{Lease, Moment};
use super::record::{LEASE, Record, Seen};
use super::store::Store;
use super::vigil::{Sight, Vigil};
use crate::engine::error::{Class, Error, Result};

impl Store {
    /// Takes the lock for `command`. If the holder sends no heartbeat for a
    /// whole lease, takes the lock over. Fails after `patience` if the holder
    /// is alive. `say` receives sentences about the wait.
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
        .help("wait until that run ends, or give --lock-timeout 10m to wait for it; if that run is dead, `ringfence unlock` releases the lock")
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
            .help("run `ringfence unlock` again to see the present holder"));
        }
        Ok(())
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
                "Waiting for the lock: its holder, {}, sends no heartbeat, and {:.0} of its lease's {:.0} s have passed",
                holder.holder(),
                quarter.as_secs_f64() * quarters,
                lease.as_secs_f64()
            )
        }
        _ => format!("Waiting for the lock, which is held by {}", holder.holder()),
    }
}
