//! What the EC2 kinds share: tags and filters, looking for a resource by id or
//! address, creating without making it twice, and words for what holds one
//! that can't be deleted.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use aws_sdk_ec2::config::Builder;
use aws_sdk_ec2::types::{
    Filter, NetworkInterface, NetworkInterfaceStatus, ResourceType, Tag, TagSpecification, UnsuccessfulItem,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
use aws_smithy_types::retry::RetryConfig;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::foreign::TagStyle;
use super::route_table;
use crate::aws::Aws;
use crate::aws::error::{failed, is_not_found};
use crate::aws::tags::{self, Tags};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result, typed};
use crate::engine::kind::{Foreign, Found, Handle, Made, Pace, Status, Verb, Wanted};
use crate::engine::pause::Patience;
use crate::engine::plan::next_token;
use crate::engine::value::Outputs;

/// Values that one filter takes (EC2 API, "Filtering": 200).
pub const FILTER_VALUES: usize = 200;

pub fn tags(tags: &[Tag]) -> Tags {
    tags.iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()))).collect()
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

/// The code for something that can't be deleted because of what depends on it.
pub const HELD: &str = "DependencyViolation";

/// What belongs to the tenancy.
pub fn ours(aws: &Aws) -> Filter {
    filter(&format!("tag:{}", tags::TENANCY), [&aws.tenancy])
}

/// Each item is the filters of one call; together they select `handles`, by
/// address: not every API has a filter for ids, and where ids are asked for
/// outright, one that is gone fails the whole call.
pub fn selections(aws: &Aws, handles: &[Handle]) -> Vec<Vec<Filter>> {
    let name = format!("tag:{}", tags::ADDRESS);
    handles
        .chunks(FILTER_VALUES)
        .map(|some| vec![ours(aws), filter(&name, some.iter().map(|h| h.address.as_str()))])
        .collect()
}

/// What was found for each handle: by id, or by address and generation where the id isn't known. A resource that is being
/// deleted counts only if there is no other.
pub fn matched(handles: &[Handle], found: &[Found]) -> Vec<Option<Found>> {
    let mut by_id: BTreeMap<&str, &Found> = BTreeMap::new();
    let mut by_address: BTreeMap<(&Address, u32), &Found> = BTreeMap::new();
    // The last one that is inserted wins: the first that isn't being deleted.
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

/// A few words about a state, for [`Kind::summary`](crate::engine::kind::Kind::summary).
pub fn summary<S: DeserializeOwned>(state: &Value, words: impl FnOnce(&S) -> String) -> String {
    typed(state).map(|state| words(&state)).unwrap_or_default()
}

/// For what AWS still holds some minutes after its user is gone: interfaces of
/// control planes, NAT gateways and endpoints vanish late
/// (hashicorp/terraform#3758).
pub fn held_pace(verb: Verb) -> Pace {
    match verb {
        Verb::Delete => Pace::secs(2, 1800),
        _ => Pace::secs(2, 120),
    }
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
    move |error| not_yet(failed(operation)(error))
}

/// What isn't found is what isn't visible yet.
pub fn not_yet(error: Error) -> Error {
    if is_not_found(&error) { Error { class: Class::NotYet, ..error } } else { error }
}

/// The first failure among the items of a call in bulk, which succeeds as a
/// whole all the same.
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

/// Repeats a call that completes what was just made until EC2 knows it, for
/// half a minute.
pub async fn completing<T, F: Future<Output = Result<T>>>(aws: &Aws, call: impl Fn() -> F) -> Result<T> {
    let mut patience = Patience::new(&aws.clock, Duration::from_secs(30));
    loop {
        match call().await {
            Err(error) if error.class == Class::NotYet && patience.wait().await => {}
            result => return result,
        }
    }
}

/// Makes something with a client token; `make` says beside whether that is
/// there. A token gives back what was made with it, even where somebody has
/// deleted that since (EC2 Developer Guide, "Ensuring idempotency in Amazon EC2
/// API requests"). The next one follows from what is dead, so that a run after
/// a crash comes by the same.
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

/// A resource with tags `has` that stands under a name that we want.
pub fn foreign(aws: &Aws, wanted: &Wanted, id: &str, what: &str, has: &Tags) -> Foreign {
    let command = format!("aws ec2 create-tags --region {} --resources {id}", aws.scope.region);
    let what = format!("{what} ({id})");
    super::foreign::foreign(aws, &wanted.address, id, &what, has, &command, TagStyle::Key)
}

/// Deletes with `call`. Where AWS says that something depends on it,
/// interfaces that our clusters left behind are removed and it is tried once
/// more; what else holds it is named: [`Class::Held`], unless one of these goes
/// away by itself. `by` is the filter that selects the
/// interfaces: `vpc-id`, `subnet-id` or `group-id`.
pub async fn delete_held<T, F>(aws: &Aws, by: &str, id: &str, call: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<T>>,
{
    let held = |error: &Error| error.code.as_deref() == Some(HELD);
    let error = match absent(call().await) {
        Err(error) if held(&error) => error,
        result => return result,
    };
    let error = match super::guardduty::leave(aws, by, id).await? {
        false => error,
        true => match absent(call().await) {
            Err(error) if held(&error) => error,
            result => return result,
        },
    };
    let interfaces = interfaces(aws, by, id).await?;
    let (left, holding): (Vec<_>, Vec<_>) = interfaces.into_iter().partition(is_left_over);
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
    Err(held_by(error, &holding))
}

/// What else is in a VPC of which nothing of ours is left: words for it, by id.
pub async fn left_in(aws: &Aws, vpc: &str) -> Result<BTreeMap<String, String>> {
    let inside = || vec![filter("vpc-id", [vpc])];
    let subnets = aws.ec2.describe_subnets().set_filters(Some(inside())).into_paginator().items().send();
    let groups = aws.ec2.describe_security_groups().set_filters(Some(inside())).into_paginator().items().send();
    let endpoints = aws.ec2.describe_vpc_endpoints().set_filters(Some(inside())).into_paginator().items().send();
    let gateways = aws.ec2.describe_internet_gateways().filters(filter("attachment.vpc-id", [vpc]));
    let gateways = gateways.into_paginator().items().send();
    let mut left = BTreeMap::new();
    let mut add = |id: Option<String>, what: &str, name: &str| {
        left.extend(id.map(|id| (id.clone(), format!("{what} {id}{name}"))));
    };
    for one in subnets.try_collect().await.map_err(failed("ec2:DescribeSubnets"))? {
        add(one.subnet_id, "subnet", "");
    }
    for one in groups.try_collect().await.map_err(failed("ec2:DescribeSecurityGroups"))? {
        if let Some(name) = one.group_name.filter(|name| name != "default") {
            add(one.group_id, "security group", &format!(" ({name})"));
        }
    }
    for one in endpoints.try_collect().await.map_err(failed("ec2:DescribeVpcEndpoints"))? {
        add(one.vpc_endpoint_id, "VPC endpoint", "");
    }
    for one in gateways.try_collect().await.map_err(failed("ec2:DescribeInternetGateways"))? {
        add(one.internet_gateway_id, "internet gateway", "");
    }
    let tables = route_table::tables(aws, inside()).await?;
    route_table::left(&tables).into_iter().for_each(|id| add(Some(id), "route table", ""));
    Ok(left)
}

/// Interfaces in a VPC that are known by a public address.
pub async fn public(aws: &Aws, vpc: &str) -> Result<Vec<NetworkInterface>> {
    let all = interfaces(aws, "vpc-id", vpc).await?;
    Ok(all.into_iter().filter(|i| i.association().is_some_and(|a| a.public_ip().is_some())).collect())
}

/// `error` with what holds the resource, and whether that goes by itself.
pub fn held_by(error: Error, holding: &[NetworkInterface]) -> Error {
    let class = if holding.iter().any(is_passing) { Class::Conflict } else { Class::Held };
    Error { class, ..holders(error, holding.iter().map(named).collect()) }
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

pub(super) async fn interfaces(aws: &Aws, by: &str, id: &str) -> Result<Vec<NetworkInterface>> {
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

/// Of control planes, NAT gateways and endpoints, which AWS removes some
/// minutes after their owner, and of nodes that are going down.
fn is_passing(interface: &NetworkInterface) -> bool {
    let description = interface.description().unwrap_or_default();
    ["Amazon EKS ", "Interface for NAT Gateway", "VPC Endpoint Interface", "aws-K8S-"]
        .iter()
        .any(|of| description.starts_with(of))
}

/// `eni-1 (ELB app/shop, in-use, by amazon-elb)`.
fn named(interface: &NetworkInterface) -> String {
    let user = interface
        .attachment()
        .and_then(|a| a.instance_id().or(a.instance_owner_id()))
        .or(interface.requester_id())
        .map(|by| format!("by {by}"));
    let words = [interface.description().map(str::to_owned), interface.status().map(|status| status.to_string()), user];
    let words: Vec<String> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    format!("{} ({})", interface.network_interface_id().unwrap_or("an interface"), words.join(", "))
}

/// Items by a key of theirs; those without it are left out.
pub fn by_key<T, K: Ord>(items: Vec<T>, key: impl Fn(&T) -> Option<K>) -> BTreeMap<K, T> {
    items.into_iter().filter_map(|item| Some((key(&item)?, item))).collect()
}
