//! Route tables, routes and associations.

use super::{Call, Doc, Ec2, Fault, Reply, cidr, done, edit, fault, get, holds, invalid, list, missing, values, vpc};
use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

const TABLES_QUOTA: &str = "L-589F43AA";
const ROUTES_QUOTA: &str = "L-93826ACB";

/// Targets of a route: parameter, id prefix, code and text for an unknown id.
const TARGETS: &[(&str, &str, &str, &str)] = &[
    ("GatewayId", "igw", "InvalidGatewayID.NotFound", "The gateway ID '{}' does not exist"),
    ("NatGatewayId", "nat", "InvalidNatGatewayID.NotFound", "The natGateway ID '{}' does not exist"),
    ("NetworkInterfaceId", "eni", "InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '{}' does not exist"),
];

/// Destinations of a route: parameter and wire member.
const DESTINATIONS: &[(&str, &str)] = &[
    ("DestinationCidrBlock", "destinationCidrBlock"),
    ("DestinationIpv6CidrBlock", "destinationIpv6CidrBlock"),
    ("DestinationPrefixListId", "destinationPrefixListId"),
];

impl Ec2 {
    /// Whether a subnet has a default route out of its VPC.
    pub fn has_way_out(&self, subnet_id: &str) -> bool {
        let vpc_id = self.resources.get(subnet_id).map(|subnet| get(subnet, "vpcId")).unwrap_or_default();
        let main = || self.with("rtb", "vpcId", vpc_id).find(|(_, table)| holds(table, "associationSet.main", "true"));
        let table = self.with("rtb", "associationSet.subnetId", subnet_id).next().or_else(main);
        table.is_some_and(|(_, table)| holds(table, "routeSet.destinationCidrBlock", "0.0.0.0/0"))
    }
}

impl Call<'_> {
    pub(super) fn create_route_table(&mut self) -> Reply {
        let id = self.once(|call| {
            let vpc_id = call.existing("vpc", "VpcId")?;
            let have = call.ec2.with("rtb", "vpcId", &vpc_id).count();
            call.within(TABLES_QUOTA, have, "RouteTableLimitExceeded", "route tables")?;
            call.create("rtb", "routeTableId", call.table(&vpc_id)?)
        })?;
        Ok(json!({"routeTable": self.shown(&id), "clientToken": self.req.text("ClientToken")}))
    }

    fn table(&self, vpc_id: &str) -> Reply {
        let vpc = self.ec2.find("vpc", vpc_id)?;
        let routes = |path: &str, member: &str| -> Vec<Value> {
            values(vpc, path).iter().map(|block| local(member, block)).collect()
        };
        let mut all = routes("cidrBlockAssociationSet.cidrBlock", "destinationCidrBlock");
        all.extend(routes("ipv6CidrBlockAssociationSet.ipv6CidrBlock", "destinationIpv6CidrBlock"));
        Ok(json!({
            "vpcId": vpc_id, "ownerId": self.req.account, "associationSet": [], "propagatingVgwSet": [],
            "routeSet": all,
        }))
    }

    pub(super) fn add_main_route_table(&mut self, vpc_id: &str) -> Result<(), Fault> {
        let id = self.ids.id("rtb");
        let mut table = super::doc(self.table(vpc_id)?);
        table.insert("routeTableId".to_owned(), id.as_str().into());
        table.insert("tagSet".to_owned(), json!([]));
        table.insert("associationSet".to_owned(), json!([association(self.ids.id("rtbassoc"), &id, None)]));
        self.ec2.resources.insert(id, table);
        Ok(())
    }

    pub(super) fn delete_route_table(&mut self) -> Reply {
        let id = self.existing("rtb", "RouteTableId")?;
        if !list(self.ec2.find("rtb", &id)?, "associationSet").is_empty() {
            return Err(vpc::depends("routeTable", &id));
        }
        self.ec2.resources.remove(&id);
        for (_, endpoint) in self.ec2.resources.iter_mut().filter(|(id, _)| id.starts_with("vpce-")) {
            edit(endpoint, "routeTableIdSet", |tables| tables.retain(|table| *table != id.as_str()));
        }
        done()
    }

    /// The wire member and the canonical value of the route's destination.
    fn destination(&self) -> Result<(&'static str, String), Fault> {
        let mut given = DESTINATIONS.iter().filter_map(|(param, member)| Some((*member, self.req.text(param)?)));
        let (member, text) = given.next().ok_or_else(|| missing("DestinationCidrBlock"))?;
        if given.next().is_some() {
            let message = "The parameters destinationCidrBlock, destinationIpv6CidrBlock and destinationPrefixListId cannot be used together";
            return Err(fault("InvalidParameterCombination", message));
        }
        match member {
            "destinationCidrBlock" => Ok((member, cidr(&text, member)?.to_string())),
            "destinationIpv6CidrBlock" => match text.parse::<Ipv6Net>() {
                Ok(net) => Ok((member, net.trunc().to_string())),
                Err(_) => Err(invalid(format!(
                    "Value ({text}) for parameter {member} is invalid. This is not a valid CIDR block."
                ))),
            },
            _ => Ok((member, text)),
        }
    }

    /// The wire member and the value of the route's target. The target must belong to the table's VPC and be usable.
    fn target(&self, table_id: &str) -> Result<(String, String), Fault> {
        let mut given = TARGETS.iter().filter_map(|row| Some((row, self.req.text(row.0)?)));
        let ((param, kind, code, text), id) = given.next().ok_or_else(|| missing("GatewayId"))?;
        if given.next().is_some() {
            return Err(fault("InvalidParameterCombination", "Exactly one route target must be given"));
        }
        let vpc_id = get(self.ec2.find("rtb", table_id)?, "vpcId");
        let unknown = || fault(code, text.replace("{}", &id));
        let target = self.ec2.find(kind, &id).map_err(|_| unknown())?;
        // AWS may not yet know a gateway that is `pending` (boto3 issue 779). Here a gateway is unknown until it is
        // `available`.
        if *kind == "nat" && get(target, "state") != "available" {
            return Err(unknown());
        }
        let path = if *kind == "igw" { "attachmentSet.vpcId" } else { "vpcId" };
        if !holds(target, path, vpc_id) {
            return Err(invalid(format!(
                "route table {table_id} and network gateway {id} belong to different networks"
            )));
        }
        Ok((param.replacen(|c: char| c.is_ascii_uppercase(), &param[..1].to_ascii_lowercase(), 1), id))
    }

    pub(super) fn create_route(&mut self) -> Reply {
        let table_id = self.existing("rtb", "RouteTableId")?;
        let (member, to) = self.destination()?;
        let (target, by) = self.target(&table_id)?;
        let table = self.ec2.find("rtb", &table_id)?;
        if holds(table, &format!("routeSet.{member}"), &to) {
            return Err(fault("RouteAlreadyExists", format!("The route identified by {to} already exists.")));
        }
        self.outside_vpc(table, &to)?;
        self.within(ROUTES_QUOTA, list(table, "routeSet").len(), "RouteLimitExceeded", "routes")?;
        let route = json!({member: to, target: by, "origin": "CreateRoute", "state": "active"});
        edit(self.ec2.find_mut("rtb", &table_id)?, "routeSet", |routes| routes.push(route));
        done()
    }

    fn outside_vpc(&self, table: &Doc, to: &str) -> Result<(), Fault> {
        let local = list(table, "routeSet").iter().filter(|route| route.get("gatewayId") == Some(&"local".into()));
        let blocks = local.filter_map(|route| route.get("destinationCidrBlock")?.as_str()?.parse::<Ipv4Net>().ok());
        if to.parse::<Ipv4Net>().is_ok_and(|to| blocks.into_iter().any(|block| block.contains(&to))) {
            return Err(invalid(format!(
                "The destination CIDR block {to} is equal to or more specific than one of this VPC's CIDR blocks. This route can target only an interface or an instance."
            )));
        }
        Ok(())
    }

    pub(super) fn replace_route(&mut self) -> Reply {
        let table_id = self.existing("rtb", "RouteTableId")?;
        let (member, to) = self.destination()?;
        let (target, by) = self.target(&table_id)?;
        let table = self.ec2.find_mut("rtb", &table_id)?;
        let found = edit(table, "routeSet", |routes| {
            let route =
                routes.iter_mut().find(|route| owned(route) && route.get(member) == Some(&to.as_str().into()))?;
            *route = json!({member: to, target: by, "origin": "CreateRoute", "state": "active"});
            Some(())
        });
        match found {
            Some(()) => done(),
            None => Err(invalid(format!(
                "There is no route defined for '{to}' in the route table. Use CreateRoute instead."
            ))),
        }
    }

    pub(super) fn delete_route(&mut self) -> Reply {
        let table_id = self.existing("rtb", "RouteTableId")?;
        let (member, to) = self.destination()?;
        let table = self.ec2.find("rtb", &table_id)?;
        let route = list(table, "routeSet").iter().find(|route| route.get(member) == Some(&to.as_str().into()));
        match route {
            None => {
                let message = format!("no route with destination-cidr-block {to} in route table {table_id}");
                Err(fault("InvalidRoute.NotFound", message))
            }
            Some(route) if !owned(route) => {
                let what = if member == "destinationPrefixListId" { "VPC endpoint" } else { "local" };
                Err(invalid(format!("cannot remove {what} route {to} in route table {table_id}")))
            }
            Some(_) => {
                edit(self.ec2.find_mut("rtb", &table_id)?, "routeSet", |routes| {
                    routes.retain(|route| route.get(member) != Some(&to.as_str().into()));
                });
                done()
            }
        }
    }

    pub(super) fn associate_route_table(&mut self) -> Reply {
        let table_id = self.existing("rtb", "RouteTableId")?;
        let subnet_id = self.existing("subnet", "SubnetId")?;
        let vpc_of = |doc: Result<&Doc, Fault>| doc.map(|doc| get(doc, "vpcId").to_owned());
        if vpc_of(self.ec2.find("rtb", &table_id))? != vpc_of(self.ec2.find("subnet", &subnet_id))? {
            return Err(invalid(format!("route table {table_id} and subnet {subnet_id} belong to different networks")));
        }
        if let Some((other, table)) = self.ec2.with("rtb", "associationSet.subnetId", &subnet_id).next() {
            // The same association again is no error. The answer is the existing one.
            let same = list(table, "associationSet")
                .iter()
                .find(|one| one.get("subnetId") == Some(&subnet_id.as_str().into()));
            if let (true, Some(same)) = (*other == table_id, same) {
                let id = same.get("routeTableAssociationId");
                return Ok(json!({"associationId": id, "associationState": {"state": "associated"}}));
            }
            let message =
                format!("the specified association for route table {table_id} conflicts with an existing association");
            return Err(fault("Resource.AlreadyAssociated", message));
        }
        let id = self.associate(&table_id, Some(&subnet_id))?;
        Ok(json!({"associationId": id, "associationState": {"state": "associated"}}))
    }

    fn associate(&mut self, table_id: &str, subnet_id: Option<&str>) -> Result<String, Fault> {
        let id = self.ids.id("rtbassoc");
        let item = association(id.clone(), table_id, subnet_id);
        edit(self.ec2.find_mut("rtb", table_id)?, "associationSet", |all| all.push(item));
        Ok(id)
    }

    /// The route table of an association, and the association.
    fn association(&self) -> Result<(String, Value), Fault> {
        let id = self.require("AssociationId")?;
        let found = self.ec2.of_kind("rtb").find_map(|(table_id, table)| {
            let all = list(table, "associationSet").iter();
            let one = all.clone().find(|one| one.get("routeTableAssociationId") == Some(&id.as_str().into()))?;
            Some((table_id.clone(), one.clone()))
        });
        found.ok_or_else(|| fault("InvalidAssociationID.NotFound", format!("The association ID '{id}' does not exist")))
    }

    pub(super) fn disassociate_route_table(&mut self) -> Reply {
        let (table_id, item) = self.association()?;
        if item.get("main") == Some(&true.into()) {
            let id = self.require("AssociationId")?;
            return Err(invalid(format!("cannot disassociate the main route table association {id}")));
        }
        edit(self.ec2.find_mut("rtb", &table_id)?, "associationSet", |all| all.retain(|one| *one != item));
        done()
    }

    pub(super) fn replace_route_table_association(&mut self) -> Reply {
        let (old, item) = self.association()?;
        let new = self.existing("rtb", "RouteTableId")?;
        if get(self.ec2.find("rtb", &old)?, "vpcId") != get(self.ec2.find("rtb", &new)?, "vpcId") {
            return Err(invalid(format!("route tables {old} and {new} belong to different networks")));
        }
        edit(self.ec2.find_mut("rtb", &old)?, "associationSet", |all| all.retain(|one| *one != item));
        let id = self.associate(&new, item.get("subnetId").and_then(Value::as_str))?;
        Ok(json!({"newAssociationId": id, "associationState": {"state": "associated"}}))
    }
}

impl Ec2 {
    /// Marks routes whose target is gone as `blackhole`.
    pub(super) fn present_routes(&self, table: &mut Doc) {
        let vpc_id = get(table, "vpcId").to_owned();
        edit(table, "routeSet", |routes| {
            for route in routes.iter_mut().filter_map(Value::as_object_mut) {
                let target = ["gatewayId", "natGatewayId", "networkInterfaceId"]
                    .iter()
                    .find_map(|member| route.get(*member)?.as_str());
                let alive = match target {
                    None | Some("local" | LATTICE) => true,
                    Some(id) => self.resources.get(id).is_some_and(|target| match id.split_once('-') {
                        Some(("igw", _)) => holds(target, "attachmentSet.vpcId", &vpc_id),
                        Some(("nat", _)) => get(target, "state") == "available",
                        _ => true,
                    }),
                };
                route.insert("state".to_owned(), if alive { "active" } else { "blackhole" }.into());
            }
        });
    }
}

/// The local route that AWS writes for each block of the VPC.
pub(super) fn local(member: &str, block: &str) -> Value {
    json!({member: block, "gatewayId": "local", "origin": "CreateRouteTable", "state": "active"})
}

/// Whether CreateRoute made the route, so that a customer may change it. Gateway endpoints and VPC Lattice write their
/// routes themselves (terraform-provider-aws, issue 30515). A customer makes a route to a firewall's endpoint.
fn owned(route: &Value) -> bool {
    let to = route.get("gatewayId").and_then(Value::as_str).unwrap_or_default();
    let aws_own = to == LATTICE || to.starts_with("vpce-") && route.get("destinationPrefixListId").is_some();
    route.get("origin") == Some(&"CreateRoute".into()) && !aws_own
}

/// The target of routes that VPC Lattice writes.
const LATTICE: &str = "VpcLattice";

fn association(id: String, table_id: &str, subnet_id: Option<&str>) -> Value {
    json!({
        "routeTableAssociationId": id, "routeTableId": table_id, "main": subnet_id.is_none(), "subnetId": subnet_id,
        "associationState": {"state": "associated"},
    })
}
