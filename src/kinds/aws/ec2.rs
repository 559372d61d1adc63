//! Common code of the EC2 kinds: tags and filters, search by id or address, and idempotent creation.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use aws_sdk_ec2::config::Builder;
use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification, UnsuccessfulItem};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
use aws_smithy_types::retry::RetryConfig;
use serde::de::DeserializeOwned;

use super::foreign::TagStyle;
use crate::aws::Aws;
use crate::aws::error::{failed, is_not_found};
use crate::aws::tags::{self, Tags};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{Foreign, Found, Handle, Made, Pace, Status, Verb, Wanted};
use crate::engine::packed::Packed;
use crate::engine::pause::Patience;
use crate::engine::plan::next_token;
use crate::engine::value::Outputs;

/// The maximum number of values in one filter (EC2 API, "Filtering": 200).
pub const FILTER_VALUES: usize = 200;

pub fn tags(tags: &[Tag]) -> Tags {
    tags.iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()))).collect()
}

pub fn sdk_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// The ownership tags, as part of the create call.
pub fn specification(resource: ResourceType, tags: &Tags, generation: u32) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(resource)
        .set_tags(Some(sdk_tags(&tags::with_generation(tags, generation))))
        .build()
}

/// Changes the tags of `id` from the observed ones to the desired ones.
pub async fn retag(aws: &Aws, id: &str, from: &Tags, to: &Tags) -> Result<()> {
    let (write, remove) = tags::difference(from, to);
    if !write.is_empty() {
        aws.ec2
            .create_tags()
            .resources(id)
            .set_tags(Some(sdk_tags(&write)))
            .send()
            .await
            .map_err(failed("ec2:CreateTags"))?;
    }
    if !remove.is_empty() {
        aws.ec2
            .delete_tags()
            .resources(id)
            .set_tags(Some(remove.iter().map(|key| Tag::builder().key(key).build()).collect()))
            .send()
            .await
            .map_err(failed("ec2:DeleteTags"))?;
    }
    Ok(())
}

pub fn filter<V: Into<String>>(name: &str, values: impl IntoIterator<Item = V>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.into_iter().map(Into::into).collect())).build()
}

/// The filter for resources of the tenancy.
pub fn ours(aws: &Aws) -> Filter {
    filter(&format!("tag:{}", tags::TENANCY), [&aws.tenancy])
}

/// The resource of each handle. `read` makes one call with its filters.
pub async fn find<F>(aws: &Aws, handles: &[Handle], read: impl Fn(Vec<Filter>) -> F) -> Result<Vec<Option<Found>>>
where
    F: Future<Output = Result<Vec<Found>>>,
{
    let mut found = Vec::new();
    for filters in selections(aws, handles) {
        found.extend(read(filters).await?);
    }
    Ok(matched(handles, &found))
}

/// The filters of each call. Together the calls select `handles`, by address. Some APIs have no filter for ids, and a
/// call with explicit ids fails if one of them is deleted.
fn selections(aws: &Aws, handles: &[Handle]) -> Vec<Vec<Filter>> {
    let name = format!("tag:{}", tags::ADDRESS);
    handles
        .chunks(FILTER_VALUES)
        .map(|some| vec![ours(aws), filter(&name, some.iter().map(|h| h.address.as_str()))])
        .collect()
}

/// The resource found for each handle: by id, or by address and generation if the id isn't known. A resource that is
/// being deleted counts only if there is no other one.
fn matched(handles: &[Handle], found: &[Found]) -> Vec<Option<Found>> {
    let mut by_id: BTreeMap<&str, &Found> = BTreeMap::new();
    let mut by_address: BTreeMap<(&Address, u32), &Found> = BTreeMap::new();
    // The last insertion wins. It must be the first resource that isn't being deleted.
    let (leaving, staying): (Vec<_>, Vec<_>) = found.iter().rev().partition(|f| f.status == Status::Deleting);
    for one in leaving.into_iter().chain(staying) {
        by_id.insert(&one.id, one);
        by_address.insert((&one.address, one.generation), one);
    }
    let of = |handle: &Handle| match handle.id.as_str() {
        "" => by_address.get(&(&handle.address, handle.generation)).copied(),
        id => by_id.get(id).copied(),
    };
    handles.iter().map(|handle| of(handle).cloned()).collect()
}

pub fn outputs<const N: usize>(outputs: [(&str, &str); N]) -> Outputs {
    outputs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A short text about a state, for [`Kind::summary`](crate::engine::kind::Kind::summary).
pub fn summary<S: DeserializeOwned>(state: &Packed, words: impl FnOnce(&S) -> String) -> String {
    state.typed().map(|state| words(&state)).unwrap_or_default()
}

/// A time limit for dependencies that AWS removes minutes after their owner: network interfaces of control planes,
/// NAT gateways and endpoints (hashicorp/terraform#3758).
pub fn held_pace(verb: Verb) -> Pace {
    match verb {
        Verb::Delete => Pace::secs(2, 1800),
        _ => Pace::secs(2, 120),
    }
}

/// For create calls without a client token. An unclear result must not be retried blindly, because that could create
/// a second resource.
pub fn once() -> Builder {
    aws_sdk_ec2::config::Config::builder().retry_config(RetryConfig::disabled())
}

/// [`failed`] for calls about a resource that was just created. EC2 may not find it yet (EC2 API, "Eventual
/// consistency").
pub fn making<E>(operation: &'static str) -> impl FnOnce(SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    move |error| not_yet(failed(operation)(error))
}

/// A resource that isn't found may not be visible yet.
pub fn not_yet(error: Error) -> Error {
    if is_not_found(&error) { Error { class: Class::NotYet, ..error } } else { error }
}

/// The first failed item of a bulk call. The call itself succeeds although items failed.
pub fn all_done(operation: &'static str, unsuccessful: &[UnsuccessfulItem]) -> Result<()> {
    let Some(error) = unsuccessful.first().and_then(|item| item.error()) else {
        return Ok(());
    };
    let error = ErrorMetadata::builder()
        .code(error.code().unwrap_or("Unknown"))
        .message(error.message().unwrap_or("no message"))
        .build();
    let ok = HttpResponse::new(StatusCode::from(http::StatusCode::OK), SdkBody::empty());
    Err(failed(operation)(SdkError::service_error(error, ok)))
}

/// Repeats a call that completes a new resource until EC2 finds the resource, for at most half a minute.
pub async fn completing<T, F: Future<Output = Result<T>>>(aws: &Aws, call: impl Fn() -> F) -> Result<T> {
    let mut patience = Patience::new(&aws.clock, Duration::from_secs(30));
    loop {
        match call().await {
            Err(error) if error.class == Class::NotYet && patience.wait().await => {}
            result => return result,
        }
    }
}

/// Creates a resource with a client token. `make` also returns whether the resource exists. A token returns the
/// resource that it created, even if someone has deleted that resource since (EC2 Developer Guide, "Ensuring
/// idempotency in Amazon EC2 API requests"). The next token is derived from the deleted resource, so that a run after
/// a crash uses the same token.
pub async fn alive<F: Future<Output = Result<(Made, bool)>>>(token: &str, make: impl Fn(String) -> F) -> Result<Made> {
    let (mut token, mut dead) = (token.to_owned(), String::new());
    loop {
        let (made, alive) = make(token.clone()).await?;
        if alive || made.id == dead {
            return Ok(made);
        }
        token = next_token(&token, &made.id);
        dead = made.id;
    }
}

/// For a failure after the create call. The next attempt must look for the created resource before it creates another
/// one.
pub fn incomplete(id: &str) -> impl FnOnce(Error) -> Error {
    move |error| Error {
        class: Class::Unclear,
        message: format!("{id} was created but isn't complete: {}", error.message),
        ..error
    }
}

/// A resource that doesn't exist counts as deleted.
pub fn absent<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

/// A resource with the tags `has` that has a name that the spec wants.
pub fn foreign(aws: &Aws, wanted: &Wanted, id: &str, what: &str, has: &Tags) -> Foreign {
    let command = format!("aws ec2 create-tags --region {} --resources {id}", aws.scope.region);
    let what = format!("{what} ({id})");
    super::foreign::foreign(aws, &wanted.address, id, &what, has, &command, TagStyle::Key)
}

/// Items by a key. Items without the key are skipped.
pub fn by_key<T, K: Ord>(items: Vec<T>, key: impl Fn(&T) -> Option<K>) -> BTreeMap<K, T> {
    items.into_iter().filter_map(|item| Some((key(&item)?, item))).collect()
}
