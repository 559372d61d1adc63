use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{
    AttributeBooleanValue, Filter, ResourceType, RouteTable, SecurityGroup, Subnet, Vpc as SdkVpc, VpcAttributeName,
    VpcCidrBlockState, VpcCidrBlockStateCode, VpcState,
};
use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::permission::{self, On, When};
use super::quotas::{Counted, Counts, Per};
use super::route_table::{self, Route};
use super::security_group::{Direction, Permission, permissions, set_rules};
use super::{ec2, held, inside};
use crate::aws::error::failed;
use crate::aws::{Aws, tags};
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Round, Rule, Status, Stuck, Verb, Wanted,
};
use crate::engine::packed::Packed;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.vpc";

/// A VPC with its DNS attributes, and the resources that are ours by descent: its default security group and its main
/// route table. Outputs: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cidr: String,
    /// Blocks associated in addition to `cidr`, including IPv6. Desired: none.
    pub secondary_cidrs: Vec<String>,
    pub dns_support: bool,
    pub dns_hostnames: bool,
    /// Permissions of the default security group. Desired: none.
    pub default_group_ingress: Vec<Permission>,
    pub default_group_egress: Vec<Permission>,
    /// Routes of the main route table, which subnets without a table use. Desired: none. If someone made one of our
    /// tables the main table, that table's state shows it.
    pub main_routes: Vec<Route>,
    /// Routes of other owners in the main table, like a route table's. Never desired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_others: Option<Vec<Route>>,
    pub tags: BTreeMap<String, String>,
}

pub struct Vpc;

pub struct VpcHandlers {
    aws: Arc<Aws>,
}

/// The region's VPCs that aren't ours, by id, with their blocks.
pub async fn others(aws: &Aws) -> Result<BTreeMap<String, Vec<String>>> {
    let all = aws.ec2.describe_vpcs().max_results(1000).into_paginator().items().send().try_collect().await;
    let all: Vec<SdkVpc> = all.map_err(failed("ec2:DescribeVpcs"))?;
    let theirs = all.iter().filter(|vpc| aws.owned(&ec2::tags(vpc.tags())).is_none());
    let blocks = |vpc: &SdkVpc| {
        let live = vpc.cidr_block_association_set().iter().filter(|a| is_associated(a.cidr_block_state()));
        live.filter_map(|a| a.cidr_block().map(str::to_owned)).collect()
    };
    Ok(theirs.filter_map(|vpc| Some((vpc.vpc_id()?.to_owned(), blocks(vpc)))).collect())
}

impl VpcHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn read(&self, filters: Vec<Filter>) -> Result<Vec<Found>> {
        let all = self
            .aws
            .ec2
            .describe_vpcs()
            .set_filters(Some(filters))
            .max_results(1000)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ec2:DescribeVpcs"))?;
        let ours: Vec<_> = all
            .iter()
            .filter_map(|vpc| {
                let tags = ec2::tags(vpc.tags());
                let (address, generation) = self.aws.owned(&tags)?;
                Some((vpc, vpc.vpc_id()?, tags, address, generation))
            })
            .collect();
        let ids: Vec<&str> = ours.iter().map(|(_, id, ..)| *id).collect();
        let (groups, dns, mains) =
            futures::try_join!(self.default_groups(&ids), self.dns(&ids), self.main_tables(&ids))?;
        let mut found = Vec::new();
        for (vpc, id, tags, address, generation) in ours {
            // A missing group isn't an empty group: every VPC has one.
            let group = groups.get(id).ok_or_else(|| no_default_group(id))?;
            let (dns_support, dns_hostnames) = dns.get(id).copied().unwrap_or_default();
            let (others, routes) = mains.get(id).map(|table| self.main_routes(table)).unwrap_or_default();
            found.push(Found {
                address,
                generation,
                id: id.to_owned(),
                outputs: ec2::outputs([("id", id)]),
                state: Packed::of(&State {
                    cidr: vpc.cidr_block().unwrap_or_default().to_owned(),
                    secondary_cidrs: self.secondary_cidrs(vpc).into_keys().collect(),
                    dns_support,
                    dns_hostnames,
                    default_group_ingress: permissions(group, Direction::Ingress),
                    default_group_egress: permissions(group, Direction::Egress),
                    main_routes: routes,
                    main_others: Some(others).filter(|o| !o.is_empty()),
                    tags: self.aws.observed(&tags),
                })?,
                status: match vpc.state() {
                    Some(VpcState::Pending) => Status::Pending("pending".to_owned()),
                    _ => Status::Ready,
                },
                refs: vec![],
            });
        }
        Ok(found)
    }

    /// `enableDnsSupport` and `enableDnsHostnames` of each VPC. AWS has no bulk read for them.
    async fn dns(&self, ids: &[&str]) -> Result<BTreeMap<String, (bool, bool)>> {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let reads = ids.into_iter().map(|id| async move {
            let (support, hostnames) = futures::try_join!(
                self.attribute(&id, VpcAttributeName::EnableDnsSupport),
                self.attribute(&id, VpcAttributeName::EnableDnsHostnames)
            )?;
            Ok((id, (support, hostnames)))
        });
        futures::stream::iter(reads).buffer_unordered(8).try_collect().await
    }

    async fn attribute(&self, id: &str, name: VpcAttributeName) -> Result<bool> {
        let answer = self
            .aws
            .ec2
            .describe_vpc_attribute()
            .vpc_id(id)
            .attribute(name)
            .send()
            .await
            .map_err(ec2::making("ec2:DescribeVpcAttribute"))?;
        let value = answer.enable_dns_support().or(answer.enable_dns_hostnames());
        Ok(value.and_then(AttributeBooleanValue::value).unwrap_or(false))
    }

    /// The default security groups by VPC.
    async fn default_groups(&self, vpcs: &[&str]) -> Result<BTreeMap<String, SecurityGroup>> {
        let mut groups = Vec::new();
        for some in vpcs.chunks(200) {
            let read = self
                .aws
                .ec2
                .describe_security_groups()
                .filters(ec2::filter("group-name", ["default"]))
                .filters(ec2::filter("vpc-id", some.iter().copied()))
                .max_results(1000)
                .into_paginator()
                .items()
                .send()
                .try_collect()
                .await
                .map_err(failed("ec2:DescribeSecurityGroups"))?;
            groups.extend(read);
        }
        Ok(ec2::by_key(groups, |g| g.vpc_id().map(str::to_owned)))
    }

    /// The main route tables by VPC.
    async fn main_tables(&self, vpcs: &[&str]) -> Result<BTreeMap<String, RouteTable>> {
        let mut tables = Vec::new();
        for some in vpcs.chunks(200) {
            let filters = vec![ec2::filter("association.main", ["true"]), ec2::filter("vpc-id", some.iter().copied())];
            tables.extend(route_table::tables(&self.aws, filters).await?);
        }
        Ok(ec2::by_key(tables, |t| t.vpc_id().map(str::to_owned)))
    }

    /// Routes of other owners that stay, and routes that must be deleted.
    fn main_routes(&self, table: &RouteTable) -> (Vec<Route>, Vec<Route>) {
        match self.aws.owned(&ec2::tags(table.tags())) {
            Some(_) => (vec![], vec![]),
            None => route_table::routes(&self.aws, table),
        }
    }

    /// Removes the blocks that aren't in `keep` from VPC `id`.
    async fn dissociate(&self, id: &str, keep: &[String]) -> Result<()> {
        let vpcs = self.aws.ec2.describe_vpcs().vpc_ids(id).send().await;
        for vpc in vpcs.map_err(failed("ec2:DescribeVpcs"))?.vpcs() {
            for (block, association) in self.secondary_cidrs(vpc).into_iter().filter(|(block, _)| !keep.contains(block))
            {
                let call = self.aws.ec2.disassociate_vpc_cidr_block().association_id(association).send().await;
                ec2::absent(call.map_err(failed("ec2:DisassociateVpcCidrBlock"))).map_err(|error| {
                    let message = format!("the block {block} can't be removed from {id}: {}", error.message);
                    let help = error.help.clone();
                    Error { message, ..error }
                        .help(help.unwrap_or("delete the subnets in that block, then run the same command".to_owned()))
                })?;
            }
        }
        Ok(())
    }

    /// Blocks that can't be removed because other owners' subnets use them (EC2 API, DisassociateVpcCidrBlock: the
    /// subnets must be deleted first).
    async fn stuck(&self, found: &[Found]) -> Result<Vec<Stuck>> {
        let mut with_more = Vec::new();
        for vpc in found {
            let state: State = vpc.state.typed()?;
            if !state.secondary_cidrs.is_empty() {
                with_more.push((vpc, state));
            }
        }
        let mut stuck = Vec::new();
        for some in with_more.chunks(ec2::FILTER_VALUES) {
            let within = ec2::filter("vpc-id", some.iter().map(|(vpc, _)| &vpc.id));
            let subnets = self.aws.ec2.describe_subnets().filters(within).max_results(1000).into_paginator();
            let subnets: Vec<Subnet> =
                subnets.items().send().try_collect().await.map_err(failed("ec2:DescribeSubnets"))?;
            for (vpc, state) in some {
                let mut held = BTreeMap::new();
                for block in &state.secondary_cidrs {
                    let lie_in = |s: &&Subnet| s.vpc_id() == Some(&vpc.id) && lies_in(s, block);
                    let subnets: Vec<&str> = subnets.iter().filter(lie_in).filter_map(|s| s.subnet_id()).collect();
                    if !subnets.is_empty() {
                        held.insert(block.clone(), subnets.join(", "));
                    }
                }
                if held.is_empty() {
                    continue;
                }
                let words: Vec<String> = held.iter().map(|(block, subnets)| format!("{block} by {subnets}")).collect();
                stuck.push(Stuck {
                    address: vpc.address.clone(),
                    field: "secondary_cidrs".to_owned(),
                    keep: held.keys().cloned().collect(),
                    reason: format!(
                        "{} has CIDR blocks that the spec doesn't have, and subnets that aren't ours use them: {}",
                        vpc.id,
                        words.join("; ")
                    ),
                    help: "delete these subnets, then run the same command, which removes the blocks".to_owned(),
                });
            }
        }
        Ok(stuck)
    }

    /// Sets the rules of the default group of VPC `id` to those of `state`.
    async fn set_default_group(&self, id: &str, state: &State) -> Result<()> {
        let group = self.default_groups(&[id]).await?.remove(id).ok_or_else(|| no_default_group(id))?;
        let group_id = group.group_id().unwrap_or_default();
        for (direction, to) in
            [(Direction::Ingress, &state.default_group_ingress), (Direction::Egress, &state.default_group_egress)]
        {
            set_rules(&self.aws, group_id, direction, permissions(&group, direction), to).await?;
        }
        Ok(())
    }

    /// Association ids by block. The primary block isn't included, because it can't be removed (EC2 API,
    /// DisassociateVpcCidrBlock), nor are blocks that the spec ignores.
    fn secondary_cidrs(&self, vpc: &SdkVpc) -> BTreeMap<String, String> {
        let four = vpc.cidr_block_association_set().iter();
        let four = four.map(|a| (a.cidr_block(), a.association_id(), a.cidr_block_state()));
        let six = vpc.ipv6_cidr_block_association_set().iter();
        let six = six.map(|a| (a.ipv6_cidr_block(), a.association_id(), a.ipv6_cidr_block_state()));
        four.chain(six)
            .filter(|(block, _, state)| *block != vpc.cidr_block() && is_associated(*state))
            .filter_map(|(block, id, _)| Some((block?.to_owned(), id?.to_owned())))
            .filter(|(block, _)| !self.aws.ignored.blocks.contains(block))
            .collect()
    }

    async fn set_dns(&self, id: &str, name: VpcAttributeName, on: bool) -> Result<()> {
        let value = AttributeBooleanValue::builder().value(on).build();
        let call = self.aws.ec2.modify_vpc_attribute().vpc_id(id);
        let call = match name {
            VpcAttributeName::EnableDnsSupport => call.enable_dns_support(value),
            _ => call.enable_dns_hostnames(value),
        };
        call.send().await.map_err(ec2::making("ec2:ModifyVpcAttribute"))?;
        Ok(())
    }
}

fn lies_in(subnet: &Subnet, block: &str) -> bool {
    let six = subnet.ipv6_cidr_block_association_set().iter().filter_map(|a| a.ipv6_cidr_block());
    let Ok(block) = block.parse::<IpNet>() else { return false };
    subnet.cidr_block().into_iter().chain(six).filter_map(|s| s.parse::<IpNet>().ok()).any(|s| block.contains(&s))
}

fn is_associated(state: Option<&VpcCidrBlockState>) -> bool {
    use VpcCidrBlockStateCode::{Associated, Associating};
    matches!(state.and_then(|s| s.state()), Some(Associated | Associating))
}

fn no_default_group(vpc: &str) -> Error {
    Error::new(Class::NotYet, format!("the default security group of {vpc} isn't visible yet"))
        .operation("ec2:DescribeSecurityGroups")
}

impl Kind for Vpc {
    fn name(&self) -> &'static str {
        NAME
    }

    fn creates_once(&self) -> bool {
        false
    }

    fn is_foundation(&self) -> bool {
        true
    }

    fn loses(&self, found: &Found, _replaced: bool) -> Option<String> {
        let cidr = found.state.typed::<State>().map(|s| s.cidr).unwrap_or_default();
        Some(format!("the network {cidr} and everything in it"))
    }

    fn holds_by(&self) -> Option<&'static str> {
        Some("vpc")
    }

    fn ownership(&self, state: &Packed) -> Vec<String> {
        tags::ownership_of(state)
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("cidr", Rule::Replace),
            ("secondary_cidrs", Rule::Unordered),
            ("default_group_ingress", Rule::Unordered),
            ("default_group_egress", Rule::Unordered),
            ("main_routes", Rule::Unordered),
            // A gateway of ours that is a route's target is deleted before the VPC.
            ("main_routes", Rule::Mentions),
            ("main_others", Rule::ServerDefault),
            ("main_others", Rule::Mentions),
        ]
    }

    fn summary(&self, state: &Packed) -> String {
        ec2::summary(state, |s: &State| s.cidr.clone())
    }

    fn pace(&self, verb: Verb) -> Pace {
        ec2::held_pace(verb)
    }
}

impl ResourceKind for Vpc {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(VpcHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![
            Counts::all("vpc", "L-F678F1CE", Per::Account(Counted::Vpcs)),
            // Each VPC has a default security group, which counts against the quota.
            Counts::all("vpc", "L-E79EC296", Per::Account(Counted::SecurityGroups)),
        ]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcAttribute", "ec2:DescribeVpcs"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::New, When::Made, &["ec2:CreateVpc"]),
            (On::TaggedWhenMade, When::Made, &["ec2:CreateTags"]),
            (On::Ours, When::Tagged, &["ec2:CreateTags"]),
            (On::Ours, When::Gone, &["ec2:DeleteVpc"]),
            (On::Ours, When::Perhaps, &["ec2:DeleteTags", "ec2:DisassociateVpcCidrBlock", "ec2:ModifyVpcAttribute"]),
            // The call that creates a VPC can't tag its default group, but the rules of that group must be removed,
            // too.
            (
                On::Anything,
                When::Perhaps,
                &[
                    "ec2:AuthorizeSecurityGroupEgress",
                    "ec2:AuthorizeSecurityGroupIngress",
                    "ec2:RevokeSecurityGroupEgress",
                    "ec2:RevokeSecurityGroupIngress",
                    "ec2:UpdateSecurityGroupRuleDescriptionsEgress",
                    "ec2:UpdateSecurityGroupRuleDescriptionsIngress",
                ],
            ),
            (On::GuardDuty, When::Perhaps, &["ec2:DeleteSecurityGroup", "ec2:DeleteVpcEndpoints"]),
        ]
    }
}

#[async_trait]
impl Handlers for VpcHandlers {
    async fn observe(&self, _round: &Round, _wanted: &[Wanted]) -> Result<Observation> {
        let found = self.read(vec![ec2::ours(&self.aws)]).await?;
        let stuck = self.stuck(&found).await?;
        let notes = found.iter().filter_map(|one| {
            let others = one.state.typed::<State>().ok()?.main_others?;
            let others = route_table::words(&others);
            Some(format!(
                "{}: routes that ringfence doesn't manage are kept in its main route table: {others}",
                one.address
            ))
        });
        Ok(Observation { notes: notes.collect(), found, stuck, ..Observation::default() })
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        ec2::find(&self.aws, handles, |filters| self.read(filters)).await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let answer = self
            .aws
            .ec2
            .create_vpc()
            .cidr_block(&state.cidr)
            .tag_specifications(ec2::specification(ResourceType::Vpc, &state.tags, new.generation))
            .customize()
            .config_override(ec2::once())
            .send()
            .await
            .map_err(failed("ec2:CreateVpc"))?;
        let id = answer.vpc().and_then(|v| v.vpc_id()).unwrap_or_default();
        let complete = async {
            // A new VPC has DNS support enabled and DNS hostnames disabled.
            if !state.dns_support {
                ec2::completing(&self.aws, || self.set_dns(id, VpcAttributeName::EnableDnsSupport, false)).await?;
            }
            if state.dns_hostnames {
                ec2::completing(&self.aws, || self.set_dns(id, VpcAttributeName::EnableDnsHostnames, true)).await?;
            }
            ec2::completing(&self.aws, || self.set_default_group(id, &state)).await
        };
        complete.await.map_err(ec2::incomplete(id))?;
        Ok(Made { id: id.to_owned(), outputs: ec2::outputs([("id", id)]), ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (old, new): (State, State) = (from.state.typed()?, to.state.typed()?);
        // DNS hostnames require DNS support, so DNS support is enabled first and disabled last.
        let mut dns = vec![];
        if old.dns_support != new.dns_support {
            dns.push((VpcAttributeName::EnableDnsSupport, new.dns_support));
        }
        if old.dns_hostnames != new.dns_hostnames {
            dns.push((VpcAttributeName::EnableDnsHostnames, new.dns_hostnames));
        }
        if !new.dns_support {
            dns.reverse();
        }
        for (name, on) in dns {
            self.set_dns(&from.id, name, on).await?;
        }
        if old.default_group_ingress != new.default_group_ingress
            || old.default_group_egress != new.default_group_egress
        {
            self.set_default_group(&from.id, &new).await?;
        }
        // Routes come first, because the target of one may be in a block.
        if old.main_routes != new.main_routes {
            route_table::clear_main(&self.aws, &from.id).await?;
        }
        ec2::retag(&self.aws, &from.id, &old.tags, &new.tags).await?;
        // Blocks come last, because other owners may use a block.
        if old.secondary_cidrs != new.secondary_cidrs {
            self.dissociate(&from.id, &new.secondary_cidrs).await?;
        }
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        if !state.main_routes.is_empty() {
            // Only the main table is deleted with the VPC.
            route_table::clear_main(&self.aws, &found.id).await?;
        }
        let deleted = held::delete_held(&self.aws, "vpc-id", &found.id, || async {
            self.aws.ec2.delete_vpc().vpc_id(&found.id).send().await.map_err(failed("ec2:DeleteVpc"))
        });
        match deleted.await {
            Err(error) if error.class == Class::Held => {
                let left = inside::left_in(&self.aws, &found.id).await?;
                Err(held::holders(error, left.into_values().collect()))
            }
            result => result.map(|()| true),
        }
    }
}
