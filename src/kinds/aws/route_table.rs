use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{Filter, ResourceType, Route as SdkRoute, RouteOrigin, RouteTable as Table};
use serde::{Deserialize, Serialize};

use super::ec2;
use super::permission::{self, On, When};
use super::quotas::{Counts, Per};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::aws::tags::{self, Tags};
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{Change, Found, Handle, Handlers, Kind, Made, New, Observation, Round, Rule, Status, Wanted};
use crate::engine::packed::Packed;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.route-table";

/// A route table with its routes and associations. The local route and the routes of gateway endpoints and VPC
/// Lattice are managed by AWS and aren't part of the state. Outputs: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub vpc: String,
    pub routes: Vec<Route>,
    /// Routes of other owners: routes that a gateway or a route server propagates, which can't be deleted, and routes
    /// that the spec ignores. Never desired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<Vec<Route>>,
    /// Ids of the associated subnets.
    pub subnets: Vec<String>,
    /// True if someone made the table the VPC's main table. Subnets without a table would then use our routes.
    pub main: bool,
    pub tags: BTreeMap<String, String>,
}

/// The target of routes that VPC Lattice writes into every table of a VPC that is associated with a service network
/// (hashicorp/terraform-provider-aws#30515).
const LATTICE: &str = "VpcLattice";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// IPv4 or IPv6 CIDR block, or a prefix list id.
    pub destination: String,
    /// Id of an internet gateway, a NAT gateway, or another route target (peering connection, transit gateway,
    /// interface).
    pub target: String,
}

/// Sets destination and target of a `CreateRoute` or `ReplaceRoute` call, which have the same parameters.
macro_rules! along {
    ($call:expr, $route:expr) => {{
        let (call, route) = ($call, $route);
        let destination = route.destination.as_str();
        let call = match destination {
            _ if destination.starts_with("pl-") => call.destination_prefix_list_id(destination),
            _ if destination.contains(':') => call.destination_ipv6_cidr_block(destination),
            _ => call.destination_cidr_block(destination),
        };
        let target = route.target.as_str();
        match target.split_once('-').map(|(kind, _)| kind) {
            Some("igw" | "vgw") => Ok(call.gateway_id(target)),
            Some("nat") => Ok(call.nat_gateway_id(target)),
            Some("tgw") => Ok(call.transit_gateway_id(target)),
            Some("pcx") => Ok(call.vpc_peering_connection_id(target)),
            Some("eni") => Ok(call.network_interface_id(target)),
            _ => Err(Error::bug(format!("a route to {destination} can't have the target `{target}`"))),
        }
    }};
}

pub struct RouteTable;

pub struct RouteTableHandlers {
    aws: Arc<Aws>,
}

impl RouteTableHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn read(&self, filters: Vec<Filter>) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for table in tables(&self.aws, filters).await? {
            let tags = ec2::tags(table.tags());
            let (Some(id), Some((address, generation))) = (table.route_table_id(), self.aws.owned(&tags)) else {
                continue;
            };
            let (others, routes) = routes(&self.aws, &table);
            found.push(Found {
                address,
                generation,
                id: id.to_owned(),
                outputs: ec2::outputs([("id", id)]),
                state: Packed::of(&State {
                    vpc: table.vpc_id().unwrap_or_default().to_owned(),
                    routes,
                    others: Some(others).filter(|o| !o.is_empty()),
                    subnets: associations(&table).into_keys().collect(),
                    main: main(&table).is_some(),
                    tags: self.aws.observed(&tags),
                })?,
                status: Status::Ready,
                refs: vec![],
            });
        }
        Ok(found)
    }

    /// Creates the route, or replaces the target of an existing one.
    async fn set_route(&self, id: &str, route: &Route) -> Result<()> {
        let call = along!(self.aws.ec2.create_route().route_table_id(id), route)?.send().await;
        match call.map_err(ec2::making("ec2:CreateRoute")) {
            Err(error) if error.code.as_deref() == Some("RouteAlreadyExists") => self.replace_route(id, route).await,
            result => result.map(drop),
        }
    }

    async fn replace_route(&self, id: &str, route: &Route) -> Result<()> {
        let call = along!(self.aws.ec2.replace_route().route_table_id(id), route)?.send().await;
        call.map(drop).map_err(ec2::making("ec2:ReplaceRoute"))
    }

    async fn associate(&self, id: &str, subnet: &str) -> Result<()> {
        let call = self.aws.ec2.associate_route_table().route_table_id(id).subnet_id(subnet).send().await;
        call.map(drop).map_err(ec2::making("ec2:AssociateRouteTable"))
    }

    /// Associates subnets of ours, even if they are associated with another table.
    async fn take(&self, id: &str, subnets: &[&String]) -> Result<()> {
        let tables = tables(&self.aws, vec![ec2::filter("association.subnet-id", subnets.iter().copied())]).await?;
        let current: BTreeMap<String, String> = tables.iter().flat_map(associations).collect();
        for subnet in subnets {
            match current.get(*subnet) {
                None => self.associate(id, subnet).await?,
                Some(association) => {
                    let call = self.aws.ec2.replace_route_table_association().route_table_id(id);
                    let call = call.association_id(association).send().await;
                    call.map_err(failed("ec2:ReplaceRouteTableAssociation"))?;
                }
            }
        }
        Ok(())
    }

    /// Removes the associations that aren't in `keep`.
    async fn dissociate(&self, id: &str, keep: &[String]) -> Result<()> {
        for table in tables(&self.aws, vec![ec2::filter("route-table-id", [id])]).await? {
            for (_, association) in associations(&table).into_iter().filter(|(subnet, _)| !keep.contains(subnet)) {
                let call = self.aws.ec2.disassociate_route_table().association_id(association).send().await;
                ec2::absent(call.map_err(failed("ec2:DisassociateRouteTable")))?;
            }
        }
        Ok(())
    }
}

/// All route tables that match `filters`.
pub(super) async fn tables(aws: &Aws, filters: Vec<Filter>) -> Result<Vec<Table>> {
    aws.ec2
        .describe_route_tables()
        .set_filters(Some(filters))
        .max_results(100)
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .map_err(failed("ec2:DescribeRouteTables"))
}

async fn remove_route(aws: &Aws, id: &str, route: &Route) -> Result<()> {
    let destination = route.destination.as_str();
    let call = aws.ec2.delete_route().route_table_id(id);
    let call = match destination {
        _ if destination.starts_with("pl-") => call.destination_prefix_list_id(destination),
        _ if destination.contains(':') => call.destination_ipv6_cidr_block(destination),
        _ => call.destination_cidr_block(destination),
    };
    ec2::absent(call.send().await.map_err(failed("ec2:DeleteRoute")))
}

/// Makes sure that the main table of `vpc` isn't one of ours and has no routes.
///
/// AWS doesn't tell which table it created with the VPC. Any table that isn't ours and has no routes and subnets can
/// take its place. If there is none, or the main table has routes that stay, the other routes of the main table are
/// deleted. If the main table is ours, a table is created like AWS's first one. That table gets tags only if the
/// caller's policy requires them: with an address it would be a table of the spec.
pub(super) async fn clear_main(aws: &Aws, vpc: &str) -> Result<()> {
    let all = tables(aws, vec![ec2::filter("vpc-id", [vpc])]).await?;
    let Some((table, association)) = all.iter().find_map(|t| Some((t, main(t)?))) else {
        return Ok(());
    };
    let ours = aws.owned(&ec2::tags(table.tags())).is_some();
    let (stay, go) = routes(aws, table);
    let own = all.iter().find(|t| main(t).is_none() && is_bare(aws, t)).and_then(Table::route_table_id);
    let own = match own.filter(|_| ours || stay.is_empty()) {
        Some(id) => id.to_owned(),
        None if ours => {
            let tags = Tags::from([
                (tags::TENANCY.to_owned(), aws.tenancy.clone()),
                (tags::REGION.to_owned(), aws.scope.region.clone()),
            ]);
            let call = aws.ec2.create_route_table().vpc_id(vpc);
            let made = call.tag_specifications(ec2::specification(ResourceType::RouteTable, &tags, 1)).send().await;
            let made = made.map_err(failed("ec2:CreateRouteTable"))?;
            made.route_table().and_then(Table::route_table_id).unwrap_or_default().to_owned()
        }
        None => {
            for route in go {
                remove_route(aws, table.route_table_id().unwrap_or_default(), &route).await?;
            }
            return Ok(());
        }
    };
    ec2::completing(aws, || async {
        let call = aws.ec2.replace_route_table_association().association_id(association).route_table_id(&own);
        call.send().await.map_err(ec2::making("ec2:ReplaceRouteTableAssociation"))
    })
    .await?;
    Ok(())
}

/// Tags that an organization's tagging tool wrote.
fn is_bare(aws: &Aws, table: &Table) -> bool {
    aws.owned(&ec2::tags(table.tags())).is_none() && table.associations().is_empty() && all_routes(table).is_empty()
}

/// The ids of the associations that aren't deleted with their VPC.
pub(super) fn left(tables: &[Table]) -> Vec<String> {
    let left = tables.iter().filter(|t| main(t).is_none());
    left.filter_map(|t| t.route_table_id().map(str::to_owned)).collect()
}

/// The id of the association that makes the table the main table.
fn main(table: &Table) -> Option<&str> {
    let main = table.associations().iter().find(|a| a.main() == Some(true))?;
    main.route_table_association_id()
}

/// Routes that aren't ours: those that stay (propagated, or ignored by the spec), and those that someone added.
pub(super) fn routes(aws: &Aws, table: &Table) -> (Vec<Route>, Vec<Route>) {
    let stays = |(route, made): &(Route, bool)| !made || aws.ignored.routes.contains(&route.destination);
    let (others, routes): (Vec<_>, Vec<_>) = all_routes(table).into_iter().partition(stays);
    let bare = |all: Vec<(Route, bool)>| all.into_iter().map(|(route, _)| route).collect();
    (bare(others), bare(routes))
}

/// `10.0.0.0/16 to tgw-1, …`.
pub(super) fn words(routes: &[Route]) -> String {
    let all: Vec<String> = routes.iter().map(|r| format!("{} to {}", r.destination, r.target)).collect();
    all.join(", ")
}

/// Each with true if someone created it, and false if it is propagated. A propagated route can't be deleted (EC2 API,
/// Route, `origin`; hashicorp/terraform-provider-aws, `flattenRoutes`).
fn all_routes(table: &Table) -> Vec<(Route, bool)> {
    let propagated =
        |r: &SdkRoute| matches!(r.origin(), Some(RouteOrigin::EnableVgwRoutePropagation | RouteOrigin::Advertisement));
    let mut routes: Vec<_> = table.routes().iter().filter_map(|r| Some((route(r)?, !propagated(r)))).collect();
    routes.sort();
    routes
}

fn route(route: &SdkRoute) -> Option<Route> {
    let destination =
        route.destination_cidr_block().or(route.destination_ipv6_cidr_block()).or(route.destination_prefix_list_id())?;
    let target = route
        .gateway_id()
        .or(route.nat_gateway_id())
        .or(route.transit_gateway_id())
        .or(route.vpc_peering_connection_id())
        .or(route.network_interface_id())
        .or(route.instance_id())
        .or(route.egress_only_internet_gateway_id())
        .or(route.local_gateway_id())
        .or(route.carrier_gateway_id())
        .or(route.core_network_arn())
        .or(route.odb_network_arn())
        .unwrap_or_default();
    // Only routes of gateway endpoints have a prefix list. A route to the endpoint of a firewall or a load balancer
    // is an ordinary route (hashicorp/terraform-provider-aws, vpc_route_table.go).
    let gateway_endpoint = target.starts_with("vpce-") && route.destination_prefix_list_id().is_some();
    let aws_own = target == "local" || target == LATTICE || gateway_endpoint;
    (!aws_own).then(|| Route { destination: destination.to_owned(), target: target.to_owned() })
}

/// Association ids by the associated subnet, or by a gateway that someone associated.
fn associations(table: &Table) -> BTreeMap<String, String> {
    table
        .associations()
        .iter()
        .filter(|a| {
            !matches!(
                a.association_state().and_then(|s| s.state()).map(|s| s.as_str()),
                Some("disassociating" | "disassociated")
            )
        })
        .filter_map(|a| {
            Some((a.subnet_id().or(a.gateway_id())?.to_owned(), a.route_table_association_id()?.to_owned()))
        })
        .collect()
}

impl Kind for RouteTable {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Nodes and pods need the network until they are drained.
    fn deleted_after(&self) -> &'static [&'static str] {
        &[super::node_group::NAME, super::fargate_profile::NAME]
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("vpc", Rule::Replace),
            ("routes", Rule::Unordered),
            ("others", Rule::ServerDefault),
            // The owner of the routes' targets is unknown here, and the targets may be deleted before the table.
            ("others", Rule::Mentions),
            ("subnets", Rule::Unordered),
        ]
    }

    fn summary(&self, state: &Packed) -> String {
        ec2::summary(state, |s: &State| {
            let routes: Vec<&str> = s.routes.iter().map(|r| r.destination.as_str()).collect();
            let routes =
                if routes.is_empty() { "no routes".to_owned() } else { format!("routes {}", routes.join(" ")) };
            format!("{routes}, {} subnet{}", s.subnets.len(), if s.subnets.len() == 1 { "" } else { "s" })
        })
    }
}

impl ResourceKind for RouteTable {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(RouteTableHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![
            // The main table counts against the quota.
            Counts { own: 1, ..Counts::all("vpc", "L-589F43AA", Per::Vpc) },
        ]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeRouteTables"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::New, When::Made, &["ec2:CreateRouteTable"]),
            (On::Ours, When::Made, &["ec2:CreateRouteTable"]),
            (On::Ours, When::Gone, &["ec2:DeleteRouteTable"]),
            (
                On::Ours,
                When::Perhaps,
                &[
                    "ec2:AssociateRouteTable",
                    "ec2:CreateRoute",
                    "ec2:DeleteRoute",
                    "ec2:DisassociateRouteTable",
                    "ec2:ReplaceRoute",
                    "ec2:ReplaceRouteTableAssociation",
                ],
            ),
            (On::MainTables, When::Perhaps, &["ec2:DeleteRoute", "ec2:ReplaceRouteTableAssociation"]),
        ]
    }
}

#[async_trait]
impl Handlers for RouteTableHandlers {
    async fn observe(&self, _round: &Round, _wanted: &[Wanted]) -> Result<Observation> {
        let found = self.read(vec![ec2::ours(&self.aws)]).await?;
        // The spec has no such routes, so the plan names them.
        let notes = found.iter().filter_map(|one| {
            let others = one.state.typed::<State>().ok()?.others?;
            Some(format!("{}: routes that ringfence doesn't manage are kept: {}", one.address, words(&others)))
        });
        Ok(Observation { notes: notes.collect(), found, ..Observation::default() })
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        ec2::find(&self.aws, handles, |filters| self.read(filters)).await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let make = async |token: String| {
            let answer = self
                .aws
                .ec2
                .create_route_table()
                .vpc_id(&state.vpc)
                .client_token(token)
                .tag_specifications(ec2::specification(ResourceType::RouteTable, &state.tags, new.generation))
                .send()
                .await
                .map_err(ec2::making("ec2:CreateRouteTable"))?;
            let id = answer.route_table().and_then(|t| t.route_table_id()).unwrap_or_default();
            let complete = async {
                for route in &state.routes {
                    ec2::completing(&self.aws, || self.set_route(id, route)).await?;
                }
                for subnet in &state.subnets {
                    ec2::completing(&self.aws, || self.associate(id, subnet)).await?;
                }
                Ok::<_, Error>(())
            };
            let made = Made { id: id.to_owned(), outputs: ec2::outputs([("id", id)]), ready: true };
            match complete.await {
                Ok(()) => Ok((made, true)),
                Err(error) => {
                    let known = tables(&self.aws, vec![ec2::filter("route-table-id", [id])]).await;
                    let dead = error.class == Class::NotYet && known.is_ok_and(|all| all.is_empty());
                    if dead { Ok((made, false)) } else { Err(ec2::incomplete(id)(error)) }
                }
            }
        };
        ec2::alive(&new.token, make).await
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (old, new): (State, State) = (from.state.typed()?, to.state.typed()?);
        let leads_somewhere = |routes: &[Route], destination: &str| routes.iter().any(|r| r.destination == destination);
        for route in new.routes.iter().filter(|r| !old.routes.contains(r)) {
            match leads_somewhere(&old.routes, &route.destination) {
                true => self.replace_route(&from.id, route).await?,
                false => self.set_route(&from.id, route).await?,
            }
        }
        let missing: Vec<&String> = new.subnets.iter().filter(|s| !old.subnets.contains(s)).collect();
        if !missing.is_empty() {
            self.take(&from.id, &missing).await?;
        }
        if old.subnets.iter().any(|s| !new.subnets.contains(s)) {
            self.dissociate(&from.id, &new.subnets).await?;
        }
        if old.main && !new.main {
            clear_main(&self.aws, &new.vpc).await?;
        }
        for route in old.routes.iter().filter(|r| !leads_somewhere(&new.routes, &r.destination)) {
            remove_route(&self.aws, &from.id, route).await?;
        }
        ec2::retag(&self.aws, &from.id, &old.tags, &new.tags).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        if state.main {
            clear_main(&self.aws, &state.vpc).await?;
        }
        self.dissociate(&found.id, &[]).await?;
        let call = self.aws.ec2.delete_route_table().route_table_id(&found.id).send().await;
        ec2::absent(call.map_err(failed("ec2:DeleteRouteTable")))?;
        Ok(true)
    }
}
