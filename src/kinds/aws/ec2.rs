//! What the EC2 kinds share: tags and filters, looking for a resource by id or
//! address, creating without making it twice, and words for what holds one
//! that can't be deleted.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use aws_sdk_ec2::config::Builder;
use aws_sdk_ec2::types::{Filter, NetworkInterface, NetworkInterfaceStatus, ResourceType, Tag, TagSpecification};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
use aws_smithy_types::retry::RetryConfig;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::aws::Aws;
use crate::aws::error::{failed, is_not_found};
use crate::aws::tags::{self, Tags};
use crate::engine::error::{Class, Error, Result, typed};
use crate::engine::kind::{Foreign, Found, Handle, Status, Wanted};
use crate::engine::value::Outputs;

/// Values that one filter takes (EC2 API, "Filtering": 200).
const FILTER_VALUES: usize = 200;

pub fn tags(tags: &[Tag]) -> Tags {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}

pub fn sdk_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// Ownership, for the create call itself.
pub fn specification(resource: ResourceType, tags: &Tags, generation: u32) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(resource)
        .set_tags(Some(sdk_tags(&tags::with_generation(tags, generation))))
        .build()
}

/// Changes the tags of `id` from those observed to those desired.
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

/// What belongs to the tenancy.
pub fn ours(aws: &Aws) -> Filter {
    filter(&format!("tag:{}", tags::TENANCY), [&aws.tenancy])
}

/// Each item is the filters of one call; together they select `handles`: by
/// the filter `id` where the id is known, else by address.
pub fn selections(aws: &Aws, id: &str, handles: &[Handle]) -> Vec<Vec<Filter>> {
    let (unknown, known): (Vec<_>, Vec<_>) = handles.iter().partition(|h| h.id.is_empty());
    let by_id = known.chunks(FILTER_VALUES).map(|some| vec![filter(id, some.iter().map(|h| &h.id))]);
    by_id.chain(by_address(aws, &unknown)).collect()
}

/// As [`selections`], by address only.
pub fn by_address(aws: &Aws, handles: &[&Handle]) -> Vec<Vec<Filter>> {
    let name = format!("tag:{}", tags::ADDRESS);
    handles
        .chunks(FILTER_VALUES)
        .map(|some| vec![ours(aws), filter(&name, some.iter().map(|h| h.address.as_str()))])
        .collect()
}

/// What was found for each handle. By address, one on its way out is taken
/// only if there is no other.
pub fn matched(handles: &[Handle], found: &[Found]) -> Vec<Option<Found>> {
    handles
        .iter()
        .map(|handle| {
            let fits = |f: &&Found| match handle.id.as_str() {
                "" => f.address == handle.address && f.generation == handle.generation,
                id => f.id == id,
            };
            found.iter().filter(fits).min_by_key(|f| f.status == Status::Deleting).cloned()
        })
        .collect()
}

pub fn outputs<const N: usize>(outputs: [(&str, &str); N]) -> Outputs {
    outputs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A few words about a state, for [`Kind::summary`](crate::engine::kind::Kind::summary).
pub fn summary<S: DeserializeOwned>(state: &Value, words: impl FnOnce(&S) -> String) -> String {
    typed(state).map(|state| words(&state)).unwrap_or_default()
}

/// For create calls without a client token: they are never sent twice blindly.
pub fn once() -> Builder {
    aws_sdk_ec2::config::Config::builder().retry_config(RetryConfig::disabled())
}

/// As [`failed`], for calls that name what was made moments ago: EC2 may not
/// know it yet (EC2 API, "Eventual consistency").
pub fn making<E>(operation: &'static str) -> impl FnOnce(SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    move |error| {
        let error = failed(operation)(error);
        if is_not_found(&error) { Error { class: Class::NotYet, ..error } } else { error }
    }
}

/// The error of one item that a call in bulk reports with success.
pub fn refused(operation: &'static str, code: &str, message: &str) -> Error {
    let error = ErrorMetadata::builder().code(code).message(message).build();
    let response = HttpResponse::try_from(http::Response::new(aws_smithy_types::body::SdkBody::empty()));
    match response {
        Ok(response) => failed(operation)(SdkError::service_error(error, response)),
        Err(_) => Error::new(Class::Invalid, message).operation(operation),
    }
}

/// Repeats a call that completes what was just made until EC2 knows it, for
/// half a minute.
pub async fn completing<T, F: Future<Output = Result<T>>>(aws: &Aws, call: impl Fn() -> F) -> Result<T> {
    let mut pause = Duration::from_millis(500);
    loop {
        match call().await {
            Err(error) if error.class == Class::NotYet && pause < Duration::from_secs(15) => {
                aws.clock.sleep(pause).await;
                pause = pause.mul_f64(1.5);
            }
            result => return result,
        }
    }
}

/// For a failure after the create call itself: before anything is made again,
/// what was made has to be looked for.
pub fn incomplete(id: &str) -> impl FnOnce(Error) -> Error {
    move |error| Error {
        class: Class::Unclear,
        message: format!("{id} was made but isn't complete: {}", error.message),
        ..error
    }
}

/// Absent already is deleted.
pub fn absent<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

/// A resource that stands under a name that we want, without our tags.
pub fn foreign(aws: &Aws, wanted: &Wanted, id: &str, what: &str) -> Foreign {
    let ownership = tags::ownership(&aws.tenancy, &aws.scope.region, &wanted.address);
    let tags: Vec<String> = tags::with_generation(&ownership, 1)
        .iter()
        .map(|(key, value)| format!("'Key={key},Value={value}'"))
        .collect();
    Foreign {
        address: wanted.address.clone(),
        id: id.to_owned(),
        message: format!(
            "{what} exists as {id} without ringfence's tags, so it isn't touched; rename or remove it, or adopt it with \
             `aws ec2 create-tags --region {} --resources {id} --tags {}`",
            aws.scope.region,
            tags.join(" "),
        ),
    }
}

/// Deletes with `call`. Where AWS says that something depends on it,
/// interfaces that our clusters left behind are removed and it is tried once
/// more; what else holds it is named. `by` is the filter that selects the
/// interfaces: `vpc-id`, `subnet-id` or `group-id`.
pub async fn delete_held<T, F>(aws: &Aws, by: &str, id: &str, call: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<T>>,
{
    let held = |error: &Error| error.code.as_deref() == Some("DependencyViolation");
    let error = match absent(call().await) {
        Err(error) if held(&error) => error,
        result => return result,
    };
    let interfaces = interfaces(aws, by, id).await?;
    let (left, holding): (Vec<_>, Vec<_>) = interfaces.iter().partition(|i| is_left_over(i));
    for interface in &left {
        let deleted = aws
            .ec2
            .delete_network_interface()
            .network_interface_id(interface.network_interface_id().unwrap_or_default())
            .send()
            .await;
        absent(deleted.map_err(failed("ec2:DeleteNetworkInterface")))?;
    }
    let error = match left.is_empty() {
        true => error,
        false => match absent(call().await) {
            Err(error) if held(&error) => error,
            result => return result,
        },
    };
    Err(holders(error, holding.into_iter().map(named).collect()))
}

/// `error` with the names of what holds the resource.
pub fn holders(error: Error, mut holders: Vec<String>) -> Error {
    const SHOWN: usize = 8;
    if holders.is_empty() {
        return error;
    }
    let more = holders.len().saturating_sub(SHOWN);
    holders.truncate(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Error { message: format!("{}; held by {}{more}", error.message, holders.join(", ")), ..error }
        .help("remove what holds it, then run the same command")
}

async fn interfaces(aws: &Aws, by: &str, id: &str) -> Result<Vec<NetworkInterface>> {
    aws.ec2
        .describe_network_interfaces()
        .filters(filter(by, [id]))
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .map_err(failed("ec2:DescribeNetworkInterfaces"))
}

/// Pods' interfaces outlive their node when it goes away faster than the VPC
/// CNI can tidy up. They are ours by descent: what is asked about lies in our
/// VPC, and so does its cluster.
fn is_left_over(interface: &NetworkInterface) -> bool {
    let description = interface.description().unwrap_or_default().to_lowercase();
    interface.status() == Some(&NetworkInterfaceStatus::Available)
        && (description.starts_with("aws-k8s-")
            || interface.tag_set().iter().any(|tag| tag.key() == Some("cluster.k8s.amazonaws.com/name")))
}

/// `eni-1 (ELB app/shop, in-use, by amazon-elb)`.
fn named(interface: &NetworkInterface) -> String {
    let user = interface
        .attachment()
        .and_then(|a| a.instance_id().or(a.instance_owner_id()))
        .or(interface.requester_id())
        .map(|by| format!("by {by}"));
    let words = [
        interface.description().map(str::to_owned),
        interface.status().map(|status| status.to_string()),
        user,
    ];
    let words: Vec<String> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    format!("{} ({})", interface.network_interface_id().unwrap_or("an interface"), words.join(", "))
}

/// Items by a key of theirs; those without it are left out.
pub fn by_key<T, K: Ord>(items: Vec<T>, key: impl Fn(&T) -> Option<K>) -> BTreeMap<K, T> {
    items.into_iter().filter_map(|item| Some((key(&item)?, item))).collect()
}
