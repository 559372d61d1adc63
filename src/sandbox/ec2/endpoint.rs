//! VPC endpoints and the services behind them.

use super::super::clock::iso8601;
use super::super::fate::During;
use super::super::state::dns_suffix;
use super::interface::{NewInterface, group_ids};
use super::{Call, Doc, Ec2, Fault, Reply, done, edit, fault, get, list};
use serde_json::{Value, json};

const INTERFACES_QUOTA: &str = "L-29B6F2EB";
const GATEWAYS_QUOTA: &str = "L-1B52E74A";
const CREATE_SECONDS: f64 = 90.0;
const DELETE_SECONDS: f64 = 60.0;

/// Services that have gateway endpoints as well as interface endpoints.
const GATEWAYS: &[&str] = &["dynamodb", "s3"];
const SERVICES: &[&str] = &[
    "acm-pca",
    "application-autoscaling",
    "athena",
    "autoscaling",
    "backup",
    "bedrock",
    "bedrock-runtime",
    "cloudformation",
    "cloudtrail",
    "codeartifact.api",
    "codeartifact.repositories",
    "cognito-idp",
    "config",
    "dynamodb",
    "ebs",
    "ec2",
    "ec2messages",
    "ecr.api",
    "ecr.dkr",
    "ecs",
    "eks",
    "eks-auth",
    "elasticache",
    "elasticfilesystem",
    "elasticloadbalancing",
    "email-smtp",
    "events",
    "execute-api",
    "fis",
    "fsx",
    "glue",
    "guardduty-data",
    "guardduty-data-fips",
    "inspector2",
    "kafka",
    "kinesis-firehose",
    "kinesis-streams",
    "kms",
    "lambda",
    "logs",
    "monitoring",
    "mq",
    "rds",
    "rds-data",
    "redshift",
    "redshift-data",
    "s3",
    "sagemaker.api",
    "sagemaker.runtime",
    "secretsmanager",
    "securityhub",
    "servicecatalog",
    "servicediscovery",
    "sns",
    "sqs",
    "ssm",
    "ssmmessages",
    "states",
    "sts",
    "sync-states",
    "synthetics",
    "tagging",
    "textract",
    "transfer",
    "xray",
];

/// Services without endpoints in some zones, by zone id (SES developer guide, "Setting up VPC endpoints with Amazon
/// SES").
const LACKING: &[(&str, &[&str])] = &[(
    "email-smtp",
    &["use1-az2", "use1-az3", "use1-az5", "usw1-az2", "usw2-az4", "apne2-az4", "cac1-az3", "cac1-az4"],
)];

/// The zones that have this service, by name.
fn zones_of(region: &str, service: &str) -> Vec<String> {
    let lacks = |id: &str| LACKING.iter().any(|(name, zones)| *name == service && zones.contains(&id));
    super::zones(region).into_iter().filter(|(_, id)| !lacks(id)).map(|(zone, _)| zone).collect()
}

/// Services whose endpoints accept no endpoint policy.
const FULL_ACCESS: &[&str] = &["email-smtp"];

const GATEWAY_POLICY: &str =
    r#"{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}"#;
const INTERFACE_POLICY: &str = r#"{"Statement":[{"Action":"*","Effect":"Allow","Principal":"*","Resource":"*"}]}"#;

/// `com.amazonaws.us-east-1.ec2`. In China the names of most interface endpoints begin with `cn.`. In the European
/// Sovereign Cloud the names of ECR's endpoints begin with the partition's own domain.
fn service_name(region: &str, service: &str) -> String {
    let domain = match super::super::state::partition(region) {
        "aws-cn" if !["s3", "dynamodb", "logs"].contains(&service) => "cn.com.amazonaws",
        "aws-eusc" if ["ecr.api", "ecr.dkr"].contains(&service) => "eu.amazonaws",
        _ => "com.amazonaws",
    };
    format!("{domain}.{region}.{service}")
}

fn private_name(region: &str, service: &str) -> String {
    match service {
        "ecr.api" => format!("api.ecr.{region}.{}", dns_suffix(region)),
        "ecr.dkr" => format!("*.dkr.ecr.{region}.{}", dns_suffix(region)),
        "eks-auth" => format!("eks-auth.{region}.api.aws"),
        service => format!("{service}.{region}.{}", dns_suffix(region)),
    }
}

/// The id of a prefix list never changes. The id of S3's list in us-east-1 is the real one.
fn prefix_list(region: &str, service: &str) -> String {
    match (region, service) {
        ("us-east-1", "s3") => "pl-63a5400a".to_owned(),
        ("us-east-1", "dynamodb") => "pl-02cd2c6b".to_owned(),
        // FNV-1a. Any stable digest would do.
        _ => format!(
            "pl-{:08x}",
            service
                .bytes()
                .chain(region.bytes())
                .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
        ),
    }
}

/// The sandbox has only AWS-managed prefix lists. Customer-managed ones can't be made.
pub(super) fn known_prefix_list(region: &str, id: &str) -> Result<(), Fault> {
    if GATEWAYS.iter().any(|service| prefix_list(region, service) == id) {
        return Ok(());
    }
    Err(fault("InvalidPrefixListId.NotFound", format!("The prefix list ID '{id}' does not exist")))
}

fn parameter(message: impl Into<String>) -> Fault {
    fault("InvalidParameter", message)
}

fn policy(text: &str) -> Result<(), Fault> {
    match serde_json::from_str::<Value>(text) {
        Ok(policy) if policy.get("Statement").is_some() => Ok(()),
        _ => Err(fault(
            "InvalidPolicyDocument",
            "The policy document is malformed: it must be a JSON object with a Statement",
        )),
    }
}

impl Call<'_> {
    pub(super) fn create_vpc_endpoint(&mut self) -> Reply {
        let id = self.once(Self::new_vpc_endpoint)?;
        Ok(json!({"vpcEndpoint": self.shown(&id), "clientToken": self.req.text("ClientToken")}))
    }

    fn new_vpc_endpoint(&mut self) -> Result<String, Fault> {
        let req = self.req;
        let vpc_id = self.existing("vpc", "VpcId")?;
        let name = self.require("ServiceName")?;
        let service = SERVICES.iter().find(|service| service_name(&req.region, service) == name);
        let service = service
            .ok_or_else(|| fault("InvalidServiceName", format!("The Vpc Endpoint Service '{name}' does not exist")))?;
        let kind = req.text("VpcEndpointType").unwrap_or_else(|| "Gateway".to_owned());
        let gateway = kind == "Gateway";
        if (gateway && !GATEWAYS.contains(service)) || !["Gateway", "Interface"].contains(&kind.as_str()) {
            let available = if GATEWAYS.contains(service) { "Interface, Gateway" } else { "Interface" };
            return Err(parameter(format!(
                "Endpoint type ({kind}) does not match available service types ([{available}])."
            )));
        }
        let (tables, subnets, mut groups) =
            (req.texts("RouteTableId"), req.texts("SubnetId"), req.texts("SecurityGroupId"));
        if gateway && !(subnets.is_empty() && groups.is_empty()) {
            return Err(parameter("Subnets and security groups are only supported for Interface endpoints."));
        }
        if !gateway && !tables.is_empty() {
            return Err(parameter("Route table IDs are only supported for Gateway type VPC Endpoint."));
        }
        let mine = |(_, endpoint): &(&String, &Doc)| {
            get(endpoint, "vpcEndpointType") == kind && (gateway || get(endpoint, "vpcId") == vpc_id)
        };
        let quota = if gateway { GATEWAYS_QUOTA } else { INTERFACES_QUOTA };
        self.within(quota, self.ec2.of_kind("vpce").filter(mine).count(), "VpcEndpointLimitExceeded", "VPC endpoints")?;
        let document = req.text("PolicyDocument");
        document.as_deref().map_or(Ok(()), policy)?;
        // EC2's error text: awslabs/landing-zone-accelerator-on-aws#224.
        if document.is_some() && FULL_ACCESS.contains(service) {
            return Err(parameter(format!("Service {name} only supports the full-access endpoint policy.")));
        }
        let private_dns = !gateway && self.flag("PrivateDnsEnabled").unwrap_or(true);
        if private_dns {
            self.private_dns_possible(&vpc_id, &name, &private_name(&req.region, service))?;
        }
        self.can_route(&vpc_id, service, &tables)?;
        self.one_for_each_zone(&vpc_id, &subnets, &[])?;
        self.in_these_zones(service, &name, &subnets)?;
        if groups.is_empty() && !gateway {
            groups.extend(self.ec2.default_group(&vpc_id));
        }
        let group_set = self.ec2.group_refs(&vpc_id, &groups)?;
        let default = if gateway { GATEWAY_POLICY } else { INTERFACE_POLICY };
        let ip_type = req.text("IpAddressType").unwrap_or_else(|| "ipv4".to_owned());
        let id = self.create(
            "vpce",
            "vpcEndpointId",
            json!({
                "vpcEndpointType": kind, "vpcId": vpc_id, "serviceName": name, "serviceRegion": req.region, "ownerId": req.account,
                "state": if gateway { "available" } else { "pending" }, "policyDocument": document.as_deref().unwrap_or(default),
                "routeTableIdSet": [], "subnetIdSet": [], "groupSet": group_set, "networkInterfaceIdSet": [],
                "ipAddressType": ip_type, "dnsOptions": {"dnsRecordIpType": if gateway { "service-defined" } else { "ipv4" }},
                "privateDnsEnabled": private_dns, "requesterManaged": false, "creationTimestamp": iso8601(req.now), "_service": service,
            }),
        )?;
        if !gateway {
            self.becomes("ec2:vpc-endpoint", &id, During::Create, CREATE_SECONDS);
        }
        self.route_to(&id, service, &tables)?;
        let placed = subnets.iter().try_for_each(|subnet| self.place(&id, subnet));
        if let Err(fault) = placed.and_then(|()| self.name(&id)) {
            self.ec2.remove_interfaces(&id);
            self.ec2.resources.remove(&id);
            self.ec2.due.remove(&id);
            self.ec2.stuck.remove(&id);
            return Err(fault);
        }
        Ok(id)
    }

    fn private_dns_possible(&self, vpc_id: &str, service_name: &str, domain: &str) -> Result<(), Fault> {
        if !self.ec2.vpc(vpc_id).is_some_and(|vpc| vpc.dns_support && vpc.dns_hostnames) {
            return Err(parameter(format!(
                "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to true for {vpc_id}"
            )));
        }
        let taken = |(_, other): (&String, &Doc)| {
            get(other, "serviceName") == service_name && super::holds(other, "privateDnsEnabled", "true")
        };
        if self.ec2.with("vpce", "vpcId", vpc_id).any(taken) {
            return Err(parameter(format!(
                "private-dns-enabled cannot be set because there is already a conflicting DNS domain for {domain} in the VPC {vpc_id}"
            )));
        }
        Ok(())
    }

    /// The route tables of a gateway endpoint must belong to its VPC and have no route to the service.
    fn can_route(&self, vpc_id: &str, service: &str, tables: &[String]) -> Result<(), Fault> {
        let prefix_list = prefix_list(&self.req.region, service);
        for id in tables {
            let table = self.ec2.find("rtb", id)?;
            if get(table, "vpcId") != vpc_id {
                return Err(parameter(format!("Route table {id} does not belong to VPC {vpc_id}")));
            }
            if super::holds(table, "routeSet.destinationPrefixListId", &prefix_list) {
                let message =
                    format!("route table {id} already has a route with destination-prefix-list-id {prefix_list}");
                return Err(fault("RouteAlreadyExists", message));
            }
        }
        Ok(())
    }

    fn route_to(&mut self, id: &str, service: &str, tables: &[String]) -> Result<(), Fault> {
        let prefix_list = prefix_list(&self.req.region, service);
        for table_id in tables {
            let route = json!({"destinationPrefixListId": prefix_list, "gatewayId": id, "origin": "CreateRoute", "state": "active"});
            edit(self.ec2.find_mut("rtb", table_id)?, "routeSet", |routes| routes.push(route));
            edit(self.ec2.find_mut("vpce", id)?, "routeTableIdSet", |all| all.push(table_id.as_str().into()));
        }
        Ok(())
    }

    /// The subnets of an interface endpoint must belong to its VPC, at most one in each zone.
    fn one_for_each_zone(&self, vpc_id: &str, subnets: &[String], present: &[String]) -> Result<(), Fault> {
        let mut zones = Vec::new();
        for id in present.iter().chain(subnets) {
            let subnet = self.ec2.find("subnet", id)?;
            if get(subnet, "vpcId") != vpc_id {
                return Err(parameter(format!("Subnet {id} does not belong to VPC {vpc_id}")));
            }
            let zone = get(subnet, "availabilityZone");
            if zones.contains(&zone) {
                let message = format!("Found another VPC endpoint subnet in the availability zone of {id}");
                return Err(fault("DuplicateSubnetsInSameZone", message));
            }
            zones.push(zone);
        }
        Ok(())
    }

    /// EC2's error text: terraform-aws-vpc #785.
    fn in_these_zones(&self, service: &str, service_name: &str, subnets: &[String]) -> Result<(), Fault> {
        let zones = zones_of(&self.req.region, service);
        let lacks = |id: &&String| self.ec2.subnet(id).is_some_and(|subnet| !zones.contains(&subnet.zone));
        match subnets.iter().find(lacks) {
            None => Ok(()),
            Some(subnet) => Err(parameter(format!(
                "The VPC endpoint service {service_name} does not support the availability zone of the subnet: {subnet}."
            ))),
        }
    }

    /// Puts the endpoint's interface into a subnet.
    fn place(&mut self, id: &str, subnet_id: &str) -> Result<(), Fault> {
        let endpoint = self.ec2.find("vpce", id)?;
        let new = NewInterface {
            account: &self.req.account,
            region: &self.req.region,
            subnet_id,
            groups: &group_ids(endpoint),
            description: &format!("VPC Endpoint Interface {id}"),
            kind: "vpc_endpoint",
            owner: id,
            ..NewInterface::default()
        };
        let interface = self.ec2.add_interface(self.ids, &new)?;
        let endpoint = self.ec2.find_mut("vpce", id)?;
        edit(endpoint, "subnetIdSet", |all| all.push(subnet_id.into()));
        edit(endpoint, "networkInterfaceIdSet", |all| all.push(interface.into()));
        Ok(())
    }

    /// Writes the endpoint's DNS names anew.
    fn name(&mut self, id: &str) -> Result<(), Fault> {
        let region = &self.req.region;
        let endpoint = self.ec2.find("vpce", id)?;
        if get(endpoint, "vpcEndpointType") == "Gateway" {
            return Ok(());
        }
        let service = get(endpoint, "_service");
        let stem = format!("{id}-{}", id.chars().skip(8).take(8).collect::<String>());
        let mut names = vec![format!("{stem}.{service}.{region}.vpce.{}", dns_suffix(region))];
        for subnet in list(endpoint, "subnetIdSet").iter().filter_map(Value::as_str) {
            let zone = self.ec2.subnet(subnet).map(|subnet| subnet.zone).unwrap_or_default();
            names.push(format!("{stem}-{zone}.{service}.{region}.vpce.{}", dns_suffix(region)));
        }
        if super::holds(endpoint, "privateDnsEnabled", "true") {
            names.push(private_name(region, service));
        }
        let entries: Value =
            names.into_iter().map(|name| json!({"dnsName": name, "hostedZoneId": "Z7HUB22UULQXV"})).collect();
        self.ec2.find_mut("vpce", id)?.insert("dnsEntrySet".to_owned(), entries);
        Ok(())
    }

    pub(super) fn modify_vpc_endpoint(&mut self) -> Reply {
        let req = self.req;
        let id = self.existing("vpce", "VpcEndpointId")?;
        let endpoint = self.ec2.find("vpce", &id)?.clone();
        let (vpc_id, service) = (get(&endpoint, "vpcId"), get(&endpoint, "_service"));
        let gateway = get(&endpoint, "vpcEndpointType") == "Gateway";
        let (add_tables, remove_tables) = (req.texts("AddRouteTableId"), req.texts("RemoveRouteTableId"));
        let (add_subnets, remove_subnets) = (req.texts("AddSubnetId"), req.texts("RemoveSubnetId"));
        let (add_groups, remove_groups) = (req.texts("AddSecurityGroupId"), req.texts("RemoveSecurityGroupId"));
        if gateway
            && !(add_subnets.is_empty()
                && remove_subnets.is_empty()
                && add_groups.is_empty()
                && remove_groups.is_empty())
        {
            return Err(parameter("Subnets and security groups are only supported for Interface endpoints."));
        }
        if !(gateway || add_tables.is_empty() && remove_tables.is_empty()) {
            return Err(parameter("Route table IDs are only supported for Gateway type VPC Endpoint."));
        }
        let members =
            |name: &str| list(&endpoint, name).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
        for (wanted, present) in [
            (&remove_tables, members("routeTableIdSet")),
            (&remove_subnets, members("subnetIdSet")),
            (&remove_groups, group_ids(&endpoint)),
        ] {
            if let Some(stranger) = wanted.iter().find(|one| !present.contains(one)) {
                return Err(parameter(format!("{stranger} is not associated with the VPC endpoint {id}")));
            }
        }
        let document = req.text("PolicyDocument");
        document.as_deref().map_or(Ok(()), policy)?;
        self.can_route(vpc_id, service, &add_tables)?;
        let mut subnets = members("subnetIdSet");
        subnets.retain(|subnet| !remove_subnets.contains(subnet));
        self.one_for_each_zone(vpc_id, &add_subnets, &subnets)?;
        self.in_these_zones(service, get(&endpoint, "serviceName"), &add_subnets)?;
        let mut groups = group_ids(&endpoint);
        groups.retain(|group| !remove_groups.contains(group));
        groups.extend(add_groups.iter().filter(|group| !group_ids(&endpoint).contains(group)).cloned());
        if !gateway && groups.is_empty() {
            return Err(parameter("An interface endpoint must have at least one security group"));
        }
        let groups = self.ec2.group_refs(vpc_id, &groups)?;
        let private_dns = self.flag("PrivateDnsEnabled");
        if private_dns == Some(true) && !super::holds(&endpoint, "privateDnsEnabled", "true") {
            self.private_dns_possible(vpc_id, get(&endpoint, "serviceName"), &private_name(&req.region, service))?;
        }

        self.ec2.forget_routes(&id, Some(&remove_tables));
        self.route_to(&id, service, &add_tables)?;
        for eni in self.ec2.interfaces(&id) {
            let Some(interface) = self.ec2.resources.get_mut(&eni) else { continue };
            interface.insert("groupSet".to_owned(), groups.clone().into());
            let subnet = get(interface, "subnetId").to_owned();
            if remove_subnets.contains(&subnet) {
                // The interface stays for a while, as after the deletion of an endpoint.
                interface.insert("_owner".to_owned(), Value::Null);
                self.ec2.due.insert(eni.clone(), req.now + DELETE_SECONDS);
                let endpoint = self.ec2.find_mut("vpce", &id)?;
                edit(endpoint, "subnetIdSet", |all| all.retain(|one| *one != subnet.as_str()));
                edit(endpoint, "networkInterfaceIdSet", |all| all.retain(|one| *one != eni.as_str()));
            }
        }
        let endpoint = self.ec2.find_mut("vpce", &id)?;
        endpoint.insert("groupSet".to_owned(), groups.into());
        let reset = (self.req.text("ResetPolicy").as_deref() == Some("true"))
            .then(|| if gateway { GATEWAY_POLICY } else { INTERFACE_POLICY }.to_owned());
        if let Some(policy) = document.or(reset) {
            endpoint.insert("policyDocument".to_owned(), policy.into());
        }
        if let Some(enabled) = private_dns {
            endpoint.insert("privateDnsEnabled".to_owned(), enabled.into());
        }
        for subnet in &add_subnets {
            self.place(&id, subnet)?;
        }
        self.name(&id)?;
        done()
    }

    pub(super) fn delete_vpc_endpoints(&mut self) -> Reply {
        let mut unsuccessful = Vec::new();
        for id in self.req.texts("VpcEndpointId") {
            match self.ec2.find_mut("vpce", &id) {
                Ok(endpoint) if get(endpoint, "vpcEndpointType") == "Gateway" => {
                    self.ec2.forget_routes(&id, None);
                    self.ec2.resources.remove(&id);
                }
                Ok(endpoint) if get(endpoint, "state") == "deleting" => {}
                Ok(endpoint) => {
                    endpoint.insert("state".to_owned(), "deleting".into());
                    endpoint.insert("privateDnsEnabled".to_owned(), false.into());
                    self.becomes("ec2:vpc-endpoint", &id, During::Delete, DELETE_SECONDS);
                }
                Err(fault) => unsuccessful
                    .push(json!({"resourceId": id, "error": {"code": fault.code, "message": fault.message}})),
            }
        }
        Ok(json!({"unsuccessful": unsuccessful}))
    }

    pub(super) fn describe_vpc_endpoint_services(&mut self) -> Reply {
        const FILTERS: &[(&str, &str)] = &[
            ("service-name", "serviceName"),
            ("service-type", "serviceType.serviceType"),
            ("owner", "owner"),
            ("service-region", "serviceRegion"),
            ("supported-ip-address-types", "supportedIpAddressTypeSet"),
        ];
        let filters = super::describe::Filters::of(self.req, FILTERS)?;
        let (region, wanted) = (&self.req.region, self.req.texts("ServiceName"));
        let mut found = Vec::new();
        for service in SERVICES {
            let name = service_name(region, service);
            for kind in ["Gateway", "Interface"] {
                if kind == "Gateway" && !GATEWAYS.contains(service) || !(wanted.is_empty() || wanted.contains(&name)) {
                    continue;
                }
                let domain = private_name(region, service);
                let detail = super::doc(json!({
                    "serviceName": name, "serviceId": format!("vpce-svc-{}", &prefix_list(region, service)[3..]), "serviceRegion": region,
                    "serviceType": [{"serviceType": kind}], "availabilityZoneSet": zones_of(region, service), "owner": "amazon", "acceptanceRequired": false,
                    "managesVpcEndpoints": false, "vpcEndpointPolicySupported": !FULL_ACCESS.contains(service), "supportedIpAddressTypeSet": ["ipv4"],
                    "baseEndpointDnsNameSet": [format!("{service}.{region}.vpce.{}", dns_suffix(region))], "tagSet": [],
                    "privateDnsName": (kind == "Interface").then_some(&domain),
                    "privateDnsNameSet": if kind == "Interface" { json!([{"privateDnsName": domain}]) } else { json!([]) },
                }));
                if filters.pass(&detail) {
                    found.push((format!("{name}/{kind}"), Value::Object(detail)));
                }
            }
        }
        if let Some(unknown) =
            wanted.iter().find(|name| !SERVICES.iter().any(|service| service_name(region, service) == **name))
        {
            return Err(fault("InvalidServiceName", format!("The Vpc Endpoint Service '{unknown}' does not exist")));
        }
        let mut page = self.page("serviceDetailSet", 1, 1000, found)?;
        let mut names: Vec<String> = super::values(&super::doc(page.clone()), "serviceDetailSet.serviceName");
        names.dedup();
        if let Value::Object(page) = &mut page {
            page.insert("serviceNameSet".to_owned(), names.into());
        }
        Ok(page)
    }

    pub(super) fn describe_prefix_lists(&mut self) -> Reply {
        const FILTERS: &[(&str, &str)] = &[("prefix-list-id", "prefixListId"), ("prefix-list-name", "prefixListName")];
        let filters = super::describe::Filters::of(self.req, FILTERS)?;
        let (region, ids) = (&self.req.region, self.req.texts("PrefixListId"));
        let blocks = [("dynamodb", "52.94.0.0/22"), ("s3", "52.216.0.0/15")];
        ids.iter().try_for_each(|id| known_prefix_list(region, id))?;
        let found = blocks.iter().filter_map(|(service, block)| {
            let id = prefix_list(region, service);
            let name = service_name(region, service);
            let list = super::doc(json!({"prefixListId": id, "prefixListName": name, "cidrSet": [block]}));
            ((ids.is_empty() || ids.contains(&id)) && filters.pass(&list)).then_some((id, Value::Object(list)))
        });
        self.page("prefixListSet", 1, 1000, found.collect())
    }
}

impl Ec2 {
    /// The next state of an interface endpoint.
    pub(super) fn mature_vpc_endpoint(&mut self, id: &str) {
        let Some(endpoint) = self.resources.get_mut(id) else { return };
        if get(endpoint, "state") == "pending" {
            let failure = endpoint.remove("_failure");
            endpoint.insert("state".to_owned(), if failure.is_some() { "failed" } else { "available" }.into());
            if let Some(failure) = failure {
                endpoint.insert("lastError".to_owned(), json!({"code": failure[0], "message": failure[1]}));
            }
        } else {
            self.remove_interfaces(id);
            self.resources.remove(id);
        }
    }

    /// Removes the routes to a gateway endpoint from these tables, or from all.
    fn forget_routes(&mut self, id: &str, tables: Option<&[String]>) {
        let listed = |table: &str| tables.is_none_or(|tables| tables.iter().any(|one| one == table));
        for (_, table) in self.resources.iter_mut().filter(|(key, _)| key.starts_with("rtb-") && listed(key)) {
            edit(table, "routeSet", |routes| routes.retain(|route| route.get("gatewayId") != Some(&id.into())));
        }
        if let Some(endpoint) = self.resources.get_mut(id) {
            edit(endpoint, "routeTableIdSet", |all| all.retain(|table| !table.as_str().is_some_and(listed)));
        }
    }
}
