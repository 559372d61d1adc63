//! The lock's parameters in SSM.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_ssm::types::{ParameterTier, ParameterType, Tag};
use aws_smithy_types::timeout::TimeoutConfig;

use super::record::{LEASE, Record, Seen};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags::{self, Tags};
use crate::engine::address::Address;
use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};

/// The lock of a tenancy, for all its operations.
#[derive(Clone, Debug)]
pub struct Store {
    client: aws_sdk_ssm::Client,
    pub(super) clock: Clock,
    pub(super) caller: String,
    pub(super) tenancy: String,
    pub(super) region: String,
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

    /// Fails if the parameter doesn't exist: without a type, PutParameter can't
    /// create one.
    pub(super) async fn overwrite(&self, generation: u64, record: &Record) -> Result<()> {
        let call = self.client.put_parameter().name(self.name(generation)).value(json(record)?).overwrite(true);
        call.send().await.map_err(failed("ssm:PutParameter"))?;
        Ok(())
    }

    pub(super) async fn delete(&self, old: &[Seen]) -> Result<()> {
        for names in old.chunks(10) {
            let names = names.iter().map(|s| s.name.clone()).collect();
            let call = self.client.delete_parameters().set_names(Some(names));
            call.send().await.map_err(failed("ssm:DeleteParameters")).map_err(denied)?;
        }
        Ok(())
    }

    /// Creates the next generation after `before`. `None`: another run was
    /// first.
    pub(super) async fn claim(&self, before: &[Seen], record: &Record) -> Result<Option<u64>> {
        let generation = before.last().map_or(0, |s| s.generation) + 1;
        match self.create(generation, record).await {
            Ok(()) => {}
            // The SDK may have sent the request twice, or the answer was lost.
            // The list below shows which run created the generation.
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

    /// The error that names the run that replaced `generation`. `None` if no run did.
    pub(super) async fn successor(&self, generation: u64, record: &Record) -> Result<Option<Error>> {
        let all = self.list().await?;
        let there = all.iter().any(|s| s.generation == generation && s.is(record));
        let by = match all.last() {
            Some(newest) if newest.generation > generation => match newest.released() {
                true => format!("was released by {}", newest.holder()),
                false => format!("was taken by {}", newest.holder()),
            },
            _ if there => return Ok(None),
            _ => format!("no longer exists: {} was deleted", self.name(generation)),
        };
        Ok(Some(Error::new(Class::Lost, format!("the lock {by}; no new step was started")).help(
            "when no other run is active, run the same command again; it reads what exists and continues from there",
        )))
    }
}

fn json(record: &Record) -> Result<String> {
    serde_json::to_string(record).map_err(|e| Error::bug(format!("the lock can't be written as JSON: {e}")))
}

/// Adds to a "denied" error that no run is possible without the lock.
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
