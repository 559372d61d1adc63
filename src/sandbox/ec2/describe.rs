//! Describe operations over one table: ids, filters, pages.

use super::super::wire::{items, text};
use super::{Call, Doc, Ec2, Fault, Reply, Request, fault, get, invalid, list, values};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A Describe operation over stored resources.
pub(super) struct Listing {
    operation: &'static str,
    prefix: &'static str,
    /// The parameter that names ids.
    ids: &'static str,
    /// The list in the reply.
    set: &'static str,
    /// Bounds of `MaxResults`. `None`: the operation isn't paged.
    pages: Option<(usize, usize)>,
    /// Filter names and the paths that they compare. `tag:KEY` and `tag-key` work for every operation.
    filters: &'static [(&'static str, &'static str)],
}

macro_rules! listings {
    ($($operation:literal $prefix:literal $ids:literal $set:literal $pages:expr => [$($filter:literal $path:literal)*])*) => {
        &[$(Listing { operation: $operation, prefix: $prefix, ids: $ids, set: $set, pages: $pages, filters: &[$(($filter, $path)),*] }),*]
    };
}

const PAGES: Option<(usize, usize)> = Some((5, 1000));

#[rustfmt::skip]
const LISTINGS: &[Listing] = listings! {
    "DescribeVpcs" "vpc" "VpcId" "vpcSet" PAGES => [
        "vpc-id" "vpcId" "cidr" "cidrBlock" "cidr-block-association.cidr-block" "cidrBlockAssociationSet.cidrBlock"
        "cidr-block-association.association-id" "cidrBlockAssociationSet.associationId"
        "cidr-block-association.state" "cidrBlockAssociationSet.cidrBlockState.state"
        "dhcp-options-id" "dhcpOptionsId" "is-default" "isDefault" "isDefault" "isDefault" "owner-id" "ownerId" "state" "state"]
    "DescribeSubnets" "subnet" "SubnetId" "subnetSet" PAGES => [
        "subnet-id" "subnetId" "vpc-id" "vpcId" "cidr-block" "cidrBlock" "cidr" "cidrBlock" "cidrBlock" "cidrBlock"
        "availability-zone" "availabilityZone" "availabilityZone" "availabilityZone" "availability-zone-id" "availabilityZoneId"
        "available-ip-address-count" "availableIpAddressCount" "default-for-az" "defaultForAz" "map-public-ip-on-launch" "mapPublicIpOnLaunch"
        "owner-id" "ownerId" "state" "state" "subnet-arn" "subnetArn"]
    "DescribeInternetGateways" "igw" "InternetGatewayId" "internetGatewaySet" PAGES => [
        "internet-gateway-id" "internetGatewayId" "attachment.vpc-id" "attachmentSet.vpcId" "attachment.state" "attachmentSet.state" "owner-id" "ownerId"]
    "DescribeAddresses" "eipalloc" "AllocationId" "addressesSet" None => [
        "allocation-id" "allocationId" "association-id" "associationId" "public-ip" "publicIp" "domain" "domain" "instance-id" "instanceId"
        "network-border-group" "networkBorderGroup" "network-interface-id" "networkInterfaceId"
        "network-interface-owner-id" "networkInterfaceOwnerId" "private-ip-address" "privateIpAddress"]
    "DescribeNatGateways" "nat" "NatGatewayId" "natGatewaySet" PAGES => [
        "nat-gateway-id" "natGatewayId" "state" "state" "subnet-id" "subnetId" "vpc-id" "vpcId"]
    "DescribeRouteTables" "rtb" "RouteTableId" "routeTableSet" Some((5, 100)) => [
        "route-table-id" "routeTableId" "vpc-id" "vpcId" "owner-id" "ownerId" "association.main" "associationSet.main"
        "association.route-table-association-id" "associationSet.routeTableAssociationId" "association.route-table-id" "associationSet.routeTableId"
        "association.subnet-id" "associationSet.subnetId" "association.gateway-id" "associationSet.gatewayId"
        "route.destination-cidr-block" "routeSet.destinationCidrBlock" "route.destination-ipv6-cidr-block" "routeSet.destinationIpv6CidrBlock"
        "route.destination-prefix-list-id" "routeSet.destinationPrefixListId" "route.gateway-id" "routeSet.gatewayId"
        "route.nat-gateway-id" "routeSet.natGatewayId" "route.instance-id" "routeSet.instanceId" "route.origin" "routeSet.origin" "route.state" "routeSet.state"]
    "DescribeVpcEndpoints" "vpce" "VpcEndpointId" "vpcEndpointSet" Some((1, 1000)) => [
        "vpc-endpoint-id" "vpcEndpointId" "vpc-id" "vpcId" "service-name" "serviceName" "vpc-endpoint-state" "state" "vpc-endpoint-type" "vpcEndpointType"
        "ip-address-type" "ipAddressType" "service-region" "serviceRegion"]
    "DescribeSecurityGroups" "sg" "GroupId" "securityGroupInfo" PAGES => [
        "group-id" "groupId" "group-name" "groupName" "description" "groupDescription" "vpc-id" "vpcId" "owner-id" "ownerId"
        "ip-permission.cidr" "ipPermissions.ipRanges.cidrIp" "ip-permission.ipv6-cidr" "ipPermissions.ipv6Ranges.cidrIpv6"
        "ip-permission.from-port" "ipPermissions.fromPort" "ip-permission.to-port" "ipPermissions.toPort" "ip-permission.protocol" "ipPermissions.ipProtocol"
        "ip-permission.group-id" "ipPermissions.groups.groupId" "ip-permission.prefix-list-id" "ipPermissions.prefixListIds.prefixListId"
        "ip-permission.user-id" "ipPermissions.groups.userId"
        "egress.ip-permission.cidr" "ipPermissionsEgress.ipRanges.cidrIp" "egress.ip-permission.ipv6-cidr" "ipPermissionsEgress.ipv6Ranges.cidrIpv6"
        "egress.ip-permission.from-port" "ipPermissionsEgress.fromPort" "egress.ip-permission.to-port" "ipPermissionsEgress.toPort"
        "egress.ip-permission.protocol" "ipPermissionsEgress.ipProtocol" "egress.ip-permission.group-id" "ipPermissionsEgress.groups.groupId"
        "egress.ip-permission.prefix-list-id" "ipPermissionsEgress.prefixListIds.prefixListId" "egress.ip-permission.user-id" "ipPermissionsEgress.groups.userId"]
    "DescribeSecurityGroupRules" "sgr" "SecurityGroupRuleId" "securityGroupRuleSet" PAGES => [
        "group-id" "groupId" "security-group-rule-id" "securityGroupRuleId"]
    "DescribeNetworkInterfaces" "eni" "NetworkInterfaceId" "networkInterfaceSet" PAGES => [
        "network-interface-id" "networkInterfaceId" "vpc-id" "vpcId" "subnet-id" "subnetId" "group-id" "groupSet.groupId" "group-name" "groupSet.groupName"
        "status" "status" "description" "description" "interface-type" "interfaceType" "requester-id" "requesterId" "requester-managed" "requesterManaged"
        "owner-id" "ownerId" "availability-zone" "availabilityZone" "availability-zone-id" "availabilityZoneId" "mac-address" "macAddress"
        "private-ip-address" "privateIpAddress" "addresses.private-ip-address" "privateIpAddressesSet.privateIpAddress" "private-dns-name" "privateDnsName"
        "association.public-ip" "association.publicIp" "association.allocation-id" "association.allocationId" "association.association-id" "association.associationId"
        "attachment.attachment-id" "attachment.attachmentId" "attachment.status" "attachment.status" "attachment.instance-id" "attachment.instanceId"
        "attachment.instance-owner-id" "attachment.instanceOwnerId" "source-dest-check" "sourceDestCheck"]
    "DescribeNetworkAcls" "acl" "NetworkAclId" "networkAclSet" PAGES => [
        "network-acl-id" "networkAclId" "vpc-id" "vpcId" "default" "default" "owner-id" "ownerId" "association.subnet-id" "associationSet.subnetId"
        "association.network-acl-id" "associationSet.networkAclId" "entry.cidr" "entrySet.cidrBlock" "entry.egress" "entrySet.egress"
        "entry.rule-action" "entrySet.ruleAction" "entry.rule-number" "entrySet.ruleNumber" "entry.protocol" "entrySet.protocol"]
    "DescribeDhcpOptions" "dopt" "DhcpOptionsId" "dhcpOptionsSet" PAGES => [
        "dhcp-options-id" "dhcpOptionsId" "key" "dhcpConfigurationSet.key" "value" "dhcpConfigurationSet.valueSet.value" "owner-id" "ownerId"]
    "DescribeFlowLogs" "fl" "FlowLogId" "flowLogSet" Some((1, 1000)) => [
        "flow-log-id" "flowLogId" "resource-id" "resourceId" "log-group-name" "logGroupName" "log-destination-type" "logDestinationType"
        "traffic-type" "trafficType" "deliver-log-status" "deliverLogsStatus"]
    "DescribeVolumes" "vol" "VolumeId" "volumeSet" PAGES => [
        "volume-id" "volumeId" "status" "status" "attachment.instance-id" "attachmentSet.instanceId"]
    "DescribeLaunchTemplates" "lt" "LaunchTemplateId" "launchTemplates" Some((1, 200)) => [
        "launch-template-name" "launchTemplateName" "create-time" "createTime"]
};

pub(super) fn listing(operation: &str) -> Option<&'static Listing> {
    LISTINGS.iter().find(|listing| listing.operation == operation)
}

/// Filters of a request. One of a filter's values must match; all filters must match.
pub(super) struct Filters(Vec<(Test, Vec<String>)>);

enum Test {
    Path(&'static str),
    TagKey,
    Tag(String),
}

impl Filters {
    pub(super) fn of(req: &Request, known: &[(&str, &'static str)]) -> Result<Self, Fault> {
        let test = |filter: &Value| {
            let name = text(filter, "Name").unwrap_or_default();
            let test = match (name.as_str(), name.strip_prefix("tag:")) {
                (_, Some(key)) => Test::Tag(key.to_owned()),
                ("tag-key", _) => Test::TagKey,
                (name, _) => match known.iter().find(|(known, _)| *known == name) {
                    Some((_, path)) => Test::Path(path),
                    None => return Err(invalid(format!("The filter '{name}' is invalid"))),
                },
            };
            let values: Vec<String> =
                items(filter, "Value").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            if values.len() > 200 {
                return Err(fault(
                    "FilterLimitExceeded",
                    "The maximum number of filter values specified on a single call is 200",
                ));
            }
            Ok((test, values))
        };
        req.items("Filter").iter().map(test).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn pass(&self, doc: &Doc) -> bool {
        self.0.iter().all(|(test, patterns)| test.any(doc, patterns))
    }

    /// Whether a document may match once its computed members are added. A filter on a path without a value isn't
    /// applied yet.
    fn may_pass(&self, doc: &Doc) -> bool {
        self.0.iter().all(|(test, patterns)| {
            matches!(test, Test::Path(path) if !super::walk(doc, path, &mut |_| true)) || test.any(doc, patterns)
        })
    }
}

impl Test {
    /// Whether any value of the document matches any of the patterns.
    fn any(&self, doc: &Doc, patterns: &[String]) -> bool {
        let likes = |value: &str| patterns.iter().any(|pattern| like(pattern, value));
        let mut tags = list(doc, "tagSet").iter().chain(list(doc, "_tagSet"));
        let member = |tag: &Value, name: &str| tag.get(name).and_then(Value::as_str).is_some_and(likes);
        match self {
            Self::Path(path) => values(doc, path).iter().any(|value| likes(value)),
            Self::TagKey => tags.any(|tag| member(tag, "key")),
            Self::Tag(key) => tags.any(|tag| tag.get("key") == Some(&key.as_str().into()) && member(tag, "value")),
        }
    }
}

/// `*` stands for any characters, `?` for one; a backslash takes the next literally.
fn like(pattern: &str, value: &str) -> bool {
    let mut rest: Vec<char> = value.chars().collect();
    let mut chars = pattern.chars();
    // Pieces between stars, each a list of wanted characters (`None` takes any).
    let mut pieces: Vec<Vec<Option<char>>> = vec![Vec::new()];
    while let Some(c) = chars.next() {
        match (c, pieces.last_mut()) {
            ('*', _) | (_, None) => pieces.push(Vec::new()),
            ('?', Some(piece)) => piece.push(None),
            ('\\', Some(piece)) => piece.push(Some(chars.next().unwrap_or('\\'))),
            (c, Some(piece)) => piece.push(Some(c)),
        }
    }
    let fits = |piece: &[Option<char>], text: &[char]| {
        piece.len() == text.len() && piece.iter().zip(text).all(|(wanted, c)| wanted.is_none_or(|wanted| wanted == *c))
    };
    let last = pieces.pop().unwrap_or_default();
    let Some((first, middle)) = pieces.split_first() else { return fits(&last, &rest) };
    if rest.len() < first.len() + last.len() {
        return false;
    }
    let end = rest.split_off(rest.len() - last.len());
    let tail = rest.split_off(first.len());
    // Between the first and the last piece, the leftmost match of each piece is enough.
    let mut left = tail.as_slice();
    fits(first, &rest)
        && fits(&last, &end)
        && middle.iter().all(|piece| {
            let place =
                (0..=left.len()).find(|at| left.get(*at..at + piece.len()).is_some_and(|text| fits(piece, text)));
            place.and_then(|at| left.get(at + piece.len()..)).is_some_and(|after| {
                left = after;
                true
            })
        })
}

impl Call<'_> {
    pub(super) fn describe(&self, listing: &Listing) -> Reply {
        let Listing { operation, prefix, ids, set, pages, filters } = listing;
        let filters = Filters::of(self.req, filters)?;
        let mut ids = self.req.texts(ids);
        if *operation == "DescribeNetworkInterfaces" && !ids.is_empty() && self.req.text("MaxResults").is_some() {
            let message = "The parameter MaxResults cannot be used with the parameter NetworkInterfaceId";
            return Err(fault("InvalidParameterCombination", message));
        }
        let known_by = |prefix: &str, member: &str, value: &str| {
            self.ec2.with(prefix, member, value).map(|(id, _)| id.clone()).next()
        };
        for name in self.req.texts("LaunchTemplateName") {
            let id = known_by("lt", "launchTemplateName", &name).ok_or_else(|| super::template::no_such_name(&name))?;
            ids.push(id);
        }
        for address in self.req.texts("PublicIp") {
            let id = known_by("eipalloc", "publicIp", &address)
                .ok_or_else(|| fault("InvalidAddress.NotFound", format!("Address '{address}' not found.")))?;
            ids.push(id);
        }
        for id in &ids {
            self.ec2.find(prefix, id)?;
        }
        let rules = self.ec2.rules_by_group(*prefix == "sg");
        let found: Vec<(String, Value)> = self
            .ec2
            .of_kind(prefix)
            .filter(|(id, doc)| (ids.is_empty() || ids.contains(id)) && filters.may_pass(doc))
            .map(|(id, doc)| {
                let mut doc = self.ec2.presented(id, doc);
                if let Some(rules) = rules.get(id.as_str()) {
                    super::group::add_permissions(&mut doc, rules);
                }
                (id, doc)
            })
            .filter(|(_, doc)| filters.pass(doc))
            .map(|(id, doc)| (id.clone(), Value::Object(doc)))
            .collect();
        match pages {
            Some((least, most)) => self.page(set, *least, *most, found),
            None => Ok(json!({*set: found.into_iter().map(|(_, doc)| doc).collect::<Value>()})),
        }
    }

    /// One page of the results, ordered by key. The token is the last key of the previous page.
    pub(super) fn page(&self, set: &str, least: usize, most: usize, mut found: Vec<(String, Value)>) -> Reply {
        let size = match self.req.text("MaxResults") {
            None => most,
            Some(given) => match given.parse::<usize>() {
                Ok(size) if (least..=most).contains(&size) => size,
                Ok(size) => {
                    let (bound, limit) = if size < least { ("greater", least) } else { ("less", most) };
                    return Err(invalid(format!(
                        "Value ( {size} ) for parameter maxResults is invalid. Expecting a value {bound} than or equal to {limit}."
                    )));
                }
                Err(_) => return Err(invalid(format!("Value ( {given} ) for parameter maxResults is invalid."))),
            },
        };
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(token) = self.req.text("NextToken") {
            let after = BASE64.decode(&token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let after = after.ok_or_else(|| fault("InvalidNextToken", format!("The token '{token}' is invalid")))?;
            found.retain(|(key, _)| *key > after);
        }
        let more = found.len() > size;
        found.truncate(size);
        let next = found.last().filter(|_| more).map(|(key, _)| BASE64.encode(key));
        Ok(json!({set: found.into_iter().map(|(_, doc)| doc).collect::<Value>(), "nextToken": next}))
    }
}

impl Ec2 {
    /// A resource with its computed members.
    pub(super) fn presented(&self, id: &str, doc: &Doc) -> Doc {
        let mut doc = doc.clone();
        match id.split_once('-').map(|(prefix, _)| prefix) {
            Some("rtb") => self.present_routes(&mut doc),
            Some("acl") => {
                let subnets = self.with("subnet", "vpcId", get(&doc, "vpcId"));
                let associations: Vec<Value> = subnets
                    .map(|(subnet, _)| {
                        let association = subnet.replacen("subnet", "aclassoc", 1);
                        json!({"networkAclAssociationId": association, "networkAclId": id, "subnetId": subnet})
                    })
                    .collect();
                doc.insert("associationSet".to_owned(), associations.into());
            }
            _ => {}
        }
        doc
    }

    /// Rules of every group. Empty if `wanted` is false.
    fn rules_by_group(&self, wanted: bool) -> BTreeMap<&str, Vec<&Doc>> {
        let mut rules: BTreeMap<&str, Vec<&Doc>> = BTreeMap::new();
        for (id, _) in self.of_kind("sg").filter(|_| wanted) {
            rules.insert(id, Vec::new());
        }
        for (_, rule) in self.of_kind("sgr").filter(|_| wanted) {
            rules.entry(get(rule, "groupId")).or_default().push(rule);
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn filter_wildcards() {
        assert!(like("aws-K8S-*", "aws-K8S-i-0123"));
        assert!(like("a?c", "abc") && !like("a?c", "ac"));
        assert!(like(r"a\*", "a*") && !like(r"a\*", "ab"));
        assert!(!like("abc", "abcd") && like("*", "") && !like("", "a"));
        assert!(like("*a*a*a*b", &"a".repeat(200)) == like("*b", "a") && like("*-*-c", "a-b-c"));
    }
}
