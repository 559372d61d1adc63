//! Security groups and their rules. A rule is a resource of its own (`sgr-…`). The permissions of a group are computed
//! from its rules.

use super::super::state::Ids;
use super::super::wire::{items, text};
use super::{Call, Doc, Ec2, Fault, Reply, done, fault, get, holds, invalid, missing, tag};
use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Map, Value, json};

const GROUPS_QUOTA: &str = "L-E79EC296";
const RULES_QUOTA: &str = "L-0EA8095F";

/// Punctuation that names and descriptions of groups in a VPC may have (API reference, CreateSecurityGroup).
const PUNCTUATION: &str = " ._-:/()#,@[]+=&;{}!$*";

/// Two rules with the same values of these members are duplicates. The description doesn't count.
const IDENTITY: &[&str] =
    &["ipProtocol", "fromPort", "toPort", "cidrIpv4", "cidrIpv6", "prefixListId", "referencedGroupInfo"];

/// Members of RevokedSecurityGroupRule.
const REVOKED: &[&str] = &[
    "securityGroupRuleId",
    "groupId",
    "isEgress",
    "ipProtocol",
    "fromPort",
    "toPort",
    "cidrIpv4",
    "cidrIpv6",
    "prefixListId",
    "referencedGroupId",
    "description",
];

impl Ec2 {
    /// Makes a group with the egress rule that allows everything, as AWS does.
    #[expect(clippy::too_many_arguments, reason = "a group is all of these")]
    pub fn add_group(
        &mut self,
        ids: &mut Ids,
        account: &str,
        region: &str,
        vpc_id: &str,
        name: &str,
        description: &str,
        tags: &[(String, String)],
    ) -> String {
        let id = ids.id("sg");
        let partition = super::super::state::partition(region);
        let mut group = super::doc(json!({
            "groupId": id, "groupName": name, "groupDescription": description, "vpcId": vpc_id, "ownerId": account,
            "securityGroupArn": format!("arn:{partition}:ec2:{region}:{account}:security-group/{id}"), "tagSet": [],
        }));
        for (key, value) in tags {
            tag::set(&mut group, key, value);
        }
        self.resources.insert(id.clone(), group);
        self.add_rule(ids, account, &id, true, everything(json!({"cidrIpv4": "0.0.0.0/0"})));
        // If the VPC has an IPv6 block, AWS adds an egress rule for IPv6 (moto, issue 2647; terraform-provider-aws,
        // pull request 47192).
        if self.resources.get(vpc_id).is_some_and(|vpc| !super::list(vpc, "ipv6CidrBlockAssociationSet").is_empty()) {
            self.add_rule(ids, account, &id, true, everything(json!({"cidrIpv6": "::/0"})));
        }
        id
    }

    /// Adds the ingress rule that allows everything from members of the same group.
    pub fn allow_from_self(&mut self, ids: &mut Ids, account: &str, group_id: &str) {
        let myself = json!({"referencedGroupInfo": {"groupId": group_id, "userId": account}});
        self.add_rule(ids, account, group_id, false, everything(myself));
    }

    /// Removes a group (or another resource) with its rules. Doesn't check what depends on it.
    pub fn remove_group(&mut self, id: &str) {
        self.resources.remove(id);
        self.resources.retain(|rule, doc| !rule.starts_with("sgr-") || get(doc, "groupId") != id);
    }

    pub(super) fn default_group(&self, vpc_id: &str) -> Option<String> {
        self.with("sg", "vpcId", vpc_id)
            .find(|(_, group)| get(group, "groupName") == "default")
            .map(|(id, _)| id.clone())
    }

    fn add_rule(&mut self, ids: &mut Ids, account: &str, group_id: &str, egress: bool, mut rule: Doc) -> String {
        let id = ids.id("sgr");
        let arn = self.resources.get(group_id).and_then(|group| get(group, "securityGroupArn").rsplit_once(':'));
        if let Some((root, _)) = arn {
            rule.insert("securityGroupRuleArn".to_owned(), format!("{root}:security-group-rule/{id}").into());
        }
        for (member, value) in [
            ("securityGroupRuleId", id.as_str().into()),
            ("groupId", group_id.into()),
            ("groupOwnerId", account.into()),
            ("isEgress", egress.into()),
        ] {
            rule.insert(member.to_owned(), value);
        }
        rule.entry("tagSet").or_insert_with(|| json!([]));
        self.resources.insert(id.clone(), rule);
        id
    }

    fn rules<'e>(&'e self, group_id: &'e str, egress: bool) -> impl Iterator<Item = (&'e String, &'e Doc)> {
        self.with("sgr", "groupId", group_id).filter(move |(_, rule)| rule.get("isEgress") == Some(&egress.into()))
    }
}

fn everything(source: Value) -> Doc {
    let mut rule = super::doc(json!({"ipProtocol": "-1", "fromPort": -1, "toPort": -1}));
    rule.extend(super::doc(source));
    rule
}

impl Call<'_> {
    pub(super) fn create_security_group(&mut self) -> Reply {
        let name = self.require("GroupName")?;
        let description = self.require("GroupDescription")?;
        for (param, text) in [("GroupName", &name), ("GroupDescription", &description)] {
            if text.chars().count() > 255 || !plain(text) {
                return Err(invalid(format!(
                    "Value ({text}) for parameter {param} is invalid. Up to 255 characters of a-z, A-Z, 0-9, spaces, and {PUNCTUATION} are valid."
                )));
            }
        }
        if name.starts_with("sg-") {
            return Err(invalid(format!(
                "Value ({name}) for parameter GroupName is invalid. Group names cannot start with sg-."
            )));
        }
        if self.req.text("VpcId").is_none() {
            return Err(fault("VPCIdNotSpecified", "No default VPC for this user"));
        }
        let vpc_id = self.existing("vpc", "VpcId")?;
        if self.ec2.with("sg", "vpcId", &vpc_id).any(|(_, group)| get(group, "groupName") == name) {
            let message = format!("The security group '{name}' already exists for VPC '{vpc_id}'");
            return Err(fault("InvalidGroup.Duplicate", message));
        }
        self.within(GROUPS_QUOTA, self.ec2.of_kind("sg").count(), "SecurityGroupLimitExceeded", "security groups")?;
        let tags = tag::specified(self.req, "security-group")?;
        let (account, region) = (&self.req.account, &self.req.region);
        let id = self.ec2.add_group(self.ids, account, region, &vpc_id, &name, &description, &[]);
        let group = self.ec2.find_mut("sg", &id)?;
        group.insert("tagSet".to_owned(), tags.into());
        Ok(json!({
            "return": true, "groupId": id, "tagSet": group.get("tagSet"), "securityGroupArn": group.get("securityGroupArn"),
        }))
    }

    pub(super) fn delete_security_group(&mut self) -> Reply {
        let id = self.existing("sg", "GroupId")?;
        if get(self.ec2.find("sg", &id)?, "groupName") == "default" {
            let message = format!("the specified group: \"{id}\" name: \"default\" cannot be deleted by a user");
            return Err(fault("CannotDelete", message));
        }
        let named = |(_, rule): (&String, &Doc)| get(rule, "groupId") != id;
        if self.ec2.with("eni", "groupSet.groupId", &id).next().is_some()
            || self.ec2.with("sgr", "referencedGroupInfo.groupId", &id).any(named)
        {
            return Err(fault("DependencyViolation", format!("resource {id} has a dependent object")));
        }
        self.ec2.remove_group(&id);
        Ok(json!({"return": true, "groupId": id}))
    }

    pub(super) fn authorize(&mut self, egress: bool) -> Reply {
        let group_id = self.existing("sg", "GroupId")?;
        let rules = self.given_rules(&group_id)?;
        let tags = tag::specified(self.req, "security-group-rule")?;
        for (n, rule) in rules.iter().enumerate() {
            if rules.iter().take(n).any(|other| same(other, rule)) {
                return Err(invalid("The same permission must not appear multiple times"));
            }
            if self.ec2.rules(&group_id, egress).any(|(_, other)| same(other, rule)) {
                let message = format!("the specified rule \"{}\" already exists", readable(rule));
                return Err(fault("InvalidPermission.Duplicate", message));
            }
        }
        // The quota counts IPv4 and IPv6 rules separately. A rule without a CIDR block counts for both.
        for other in ["cidrIpv6", "cidrIpv4"] {
            let counted = |rule: &&Doc| !rule.contains_key(other);
            let have = self.ec2.rules(&group_id, egress).map(|(_, rule)| rule).filter(counted).count();
            let more = rules.iter().filter(counted).count();
            let code = "RulesPerSecurityGroupLimitExceeded";
            self.within(RULES_QUOTA, (have + more).saturating_sub(1), code, "rules per security group")?;
        }
        let mut made = Vec::new();
        for mut rule in rules {
            rule.insert("tagSet".to_owned(), tags.clone().into());
            let id = self.ec2.add_rule(self.ids, &self.req.account, &group_id, egress, rule);
            made.push(self.shown(&id));
        }
        Ok(json!({"return": true, "securityGroupRuleSet": made}))
    }

    pub(super) fn revoke(&mut self, egress: bool) -> Reply {
        let group_id = self.existing("sg", "GroupId")?;
        let ids = self.req.texts("SecurityGroupRuleId");
        let mut found = Vec::new();
        for id in &ids {
            self.ec2.find("sgr", id)?;
            if !self.ec2.rules(&group_id, egress).any(|(rule, _)| rule == id) {
                let message = format!("The security group rule ID '{id}' does not exist");
                return Err(fault("InvalidSecurityGroupRuleId.NotFound", message));
            }
            found.push(id.clone());
        }
        if ids.is_empty() {
            for rule in self.given_rules(&group_id)? {
                found.push(self.rule_like(&group_id, egress, &rule)?);
            }
        }
        let gone = found.iter().filter_map(|id| self.ec2.resources.remove(id)).map(|mut rule| {
            let other = super::values(&rule, "referencedGroupInfo.groupId").pop();
            rule.insert("referencedGroupId".to_owned(), other.into());
            rule.retain(|name, _| REVOKED.contains(&name.as_str()));
            Value::Object(rule)
        });
        let gone: Vec<Value> = gone.collect();
        Ok(json!({"return": true, "revokedSecurityGroupRuleSet": gone}))
    }

    /// `UpdateSecurityGroupRuleDescriptionsIngress` and `…Egress`.
    pub(super) fn describe_rules_anew(&mut self, egress: bool) -> Reply {
        let group_id = self.existing("sg", "GroupId")?;
        let mut changes = Vec::new();
        for change in self.req.items("SecurityGroupRuleDescription") {
            let id = text(change, "SecurityGroupRuleId").ok_or_else(|| missing("SecurityGroupRuleId"))?;
            self.ec2.find("sgr", &id)?;
            changes.push((id, description(change)?));
        }
        if changes.is_empty() {
            for mut rule in self.given_rules(&group_id)? {
                changes.push((self.rule_like(&group_id, egress, &rule)?, rule.remove("description")));
            }
        }
        for (id, description) in changes {
            let rule = self.ec2.find_mut("sgr", &id)?;
            rule.remove("description");
            rule.extend(description.map(|text| ("description".to_owned(), text)));
        }
        done()
    }

    fn rule_like(&self, group_id: &str, egress: bool, rule: &Doc) -> Result<String, Fault> {
        let found = self.ec2.rules(group_id, egress).find(|(_, other)| same(other, rule)).map(|(id, _)| id.clone());
        found.ok_or_else(|| {
            fault("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
        })
    }

    /// `IpPermissions`, one rule for each source.
    fn given_rules(&self, group_id: &str) -> Result<Vec<Doc>, Fault> {
        let permissions = self.req.items("IpPermissions");
        if permissions.is_empty() {
            return Err(missing("IpPermissions"));
        }
        let mut rules = Vec::new();
        for permission in permissions {
            let ports = ports(permission)?;
            let before = rules.len();
            let mut add = |source: Value, item: &Value| {
                let mut rule = ports.clone();
                rule.extend(super::doc(source));
                rule.extend(description(item)?.map(|text| ("description".to_owned(), text)));
                rules.push(rule);
                Ok::<(), Fault>(())
            };
            for range in items(permission, "IpRanges") {
                add(
                    json!({"cidrIpv4": block::<Ipv4Net>(&text(range, "CidrIp").unwrap_or_default(), Ipv4Net::trunc)?}),
                    range,
                )?;
            }
            for range in items(permission, "Ipv6Ranges") {
                add(
                    json!({"cidrIpv6": block::<Ipv6Net>(&text(range, "CidrIpv6").unwrap_or_default(), Ipv6Net::trunc)?}),
                    range,
                )?;
            }
            for range in items(permission, "PrefixListIds") {
                let id = text(range, "PrefixListId").unwrap_or_default();
                super::endpoint::known_prefix_list(&self.req.region, &id)?;
                add(json!({"prefixListId": id}), range)?;
            }
            for pair in items(permission, "Groups") {
                let other = text(pair, "GroupId").ok_or_else(|| missing("GroupId"))?;
                let vpc_id = get(self.ec2.find("sg", group_id)?, "vpcId");
                self.ec2.group_refs(vpc_id, std::slice::from_ref(&other))?;
                add(json!({"referencedGroupInfo": {"groupId": other, "userId": self.req.account}}), pair)?;
            }
            if rules.len() == before {
                return Err(missing("CidrIp"));
            }
        }
        Ok(rules)
    }
}

/// A CIDR block. Rules accept no host bits.
fn block<N: std::str::FromStr + PartialEq + ToString>(text: &str, trunc: fn(&N) -> N) -> Result<String, Fault> {
    match text.parse::<N>() {
        Ok(net) if trunc(&net) == net => Ok(net.to_string()),
        _ => Err(invalid(format!("CIDR block {text} is malformed"))),
    }
}

/// Protocol and ports of a permission.
fn ports(permission: &Value) -> Result<Doc, Fault> {
    let given = text(permission, "IpProtocol").ok_or_else(|| missing("IpProtocol"))?.to_ascii_lowercase();
    let protocol = match given.as_str() {
        "6" => "tcp",
        "17" => "udp",
        "1" => "icmp",
        "58" => "icmpv6",
        "all" => "-1",
        other => other,
    };
    let numbered = protocol.parse::<u8>().is_ok();
    let port = |name: &str| {
        text(permission, name)
            .map(|port| port.parse::<i64>().map_err(|_| invalid(format!("Invalid value '{port}' for port"))))
            .transpose()
    };
    let (from, to) = (port("FromPort")?, port("ToPort")?);
    let (from, to) = match protocol {
        "tcp" | "udp" => {
            let (Some(from), Some(to)) = (from, to) else {
                return Err(invalid(format!(
                    "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange of {protocol}."
                )));
            };
            for port in [from, to] {
                if !(0..=65535).contains(&port) {
                    return Err(invalid(format!(
                        "Invalid value '{port}' for port. Must be between 0 and 65535 (both inclusive)"
                    )));
                }
            }
            if from > to {
                return Err(invalid(format!(
                    "Invalid {} port range: from port {from} to port {to}",
                    protocol.to_uppercase()
                )));
            }
            (from, to)
        }
        "icmp" | "icmpv6" => (from.unwrap_or(-1), to.unwrap_or(-1)),
        // Other protocols have no ports. Ports in the request are ignored: the rule is for all.
        protocol if protocol == "-1" || numbered => (-1, -1),
        _ => return Err(invalid(format!("Invalid value '{given}' for IP protocol. Unknown protocol."))),
    };
    Ok(super::doc(json!({"ipProtocol": protocol, "fromPort": from, "toPort": to})))
}

fn description(item: &Value) -> Result<Option<Value>, Fault> {
    match text(item, "Description") {
        Some(text) if text.chars().count() > 255 || !plain(&text) => Err(invalid(format!(
            "Invalid rule description. Valid descriptions are strings less than 256 characters from the following set: a-zA-Z0-9{PUNCTUATION}"
        ))),
        text => Ok(text.map(Value::from)),
    }
}

fn plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c))
}

fn same(a: &Doc, b: &Doc) -> bool {
    IDENTITY.iter().all(|member| a.get(*member) == b.get(*member))
}

fn readable(rule: &Doc) -> String {
    let peer =
        ["cidrIpv4", "cidrIpv6", "prefixListId"].iter().map(|member| get(rule, member)).find(|peer| !peer.is_empty());
    let group = super::values(rule, "referencedGroupInfo.groupId");
    let peer = peer.or(group.first().map(String::as_str)).unwrap_or_default();
    match get(rule, "ipProtocol") {
        "-1" => format!("peer: {peer}, ALL, ALLOW"),
        protocol => {
            let port = |member: &str| rule.get(member).and_then(Value::as_i64).unwrap_or(-1);
            format!(
                "peer: {peer}, {}, from port: {}, to port: {}, ALLOW",
                protocol.to_uppercase(),
                port("fromPort"),
                port("toPort")
            )
        }
    }
}

/// `ipPermissions` and `ipPermissionsEgress` of a group, from its rules.
pub(super) fn add_permissions(group: &mut Doc, rules: &[&Doc]) {
    for (member, egress) in [("ipPermissions", "false"), ("ipPermissionsEgress", "true")] {
        let mut permissions: Vec<Doc> = Vec::new();
        for rule in rules.iter().filter(|rule| holds(rule, "isEgress", egress)) {
            let key = ["ipProtocol", "fromPort", "toPort"];
            let all = get(rule, "ipProtocol") == "-1";
            let mut ports: Map<String, Value> =
                key.iter().filter_map(|name| Some(((*name).to_owned(), rule.get(*name)?.clone()))).collect();
            if all {
                ports.retain(|name, _| name == "ipProtocol");
            }
            let place = permissions.iter().position(|one| key.iter().all(|name| one.get(*name) == ports.get(*name)));
            let mut permission = place.map_or_else(
                || {
                    ports.extend(
                        ["groups", "ipRanges", "ipv6Ranges", "prefixListIds"].map(|name| (name.to_owned(), json!([]))),
                    );
                    ports
                },
                |place| permissions.swap_remove(place),
            );
            let (list, mut source) = if let Some(info) = rule.get("referencedGroupInfo") {
                ("groups", super::doc(info.clone()))
            } else if let Some(block) = rule.get("cidrIpv4") {
                ("ipRanges", super::doc(json!({"cidrIp": block})))
            } else if let Some(block) = rule.get("cidrIpv6") {
                ("ipv6Ranges", super::doc(json!({"cidrIpv6": block})))
            } else {
                ("prefixListIds", super::doc(json!({"prefixListId": rule.get("prefixListId")})))
            };
            source.extend(rule.get("description").map(|text| ("description".to_owned(), text.clone())));
            super::edit(&mut permission, list, |sources| sources.push(source.into()));
            permissions.push(permission);
        }
        group.insert(member.to_owned(), permissions.into_iter().map(Value::Object).collect());
    }
}
