//! The difference between this computer's clock and AWS's. AWS refuses requests that were
//! signed more than five minutes before or after its own time (AWS General
//! Reference, "Signature Version 4: Elements of a request").

use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::retry::RetryConfig;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::{Access, load};
use crate::engine::clock::Clock;
use crate::engine::error::Result;

/// The seconds by which STS's clock is ahead of this computer's; negative if it is behind. `None`: no answer had a
/// date. It works with refused credentials too, because a refusal also has a date. Makes one call.
pub async fn seconds(access: &Access) -> Result<Option<i64>> {
    let config = load(access, &Clock::real()).await?;
    let seen = Seen::default();
    let client = aws_sdk_sts::Client::from_conf(
        aws_sdk_sts::config::Builder::from(&config)
            .interceptor(seen.clone())
            .retry_config(RetryConfig::disabled())
            .build(),
    );
    // Only the date of the answer is needed here. Another check reports a refusal.
    let _ = client.get_caller_identity().send().await;
    let date = *seen.0.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(date.map(|date| date.as_second() - Clock::timestamp().as_second()))
}

/// The date of the last answer.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Option<Timestamp>>>);

impl Intercept for Seen {
    fn name(&self) -> &'static str {
        "Seen"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(|text| rfc2822::parse(text).ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date.map(|date| date.timestamp());
        Ok(())
    }
}
