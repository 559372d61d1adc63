use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{
    Filter, IpPermission, IpRange, Ipv6Range, PrefixListId, ResourceType, SecurityGroup as Group, UserIdGroupPair,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use super::permission::{self, On, When};
use super::quotas::{Counted, Counts, Per};
use super::{ec2, held, inside, logical, physical};
use crate::aws::error::failed;
use crate::aws::{Aws, tags};
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Pace, Round, Rule, Status, Verb, Wanted,
};
use crate::engine::packed::Packed;
use crate::engine::value::is_reserved;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.security-group";

/// The error code for a rule that the group doesn't have.
const UNKNOWN: &str = "InvalidPermission.NotFound";

/// The peer for the group itself.
const SELF: &str = "self";

/// A security group with its rules.
/// Outputs: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub vpc: String,
    /// The name without generation. It is unique in the VPC.
    pub name: String,
    pub description: String,
    pub ingress: Vec<Permission>,
    pub egress: Vec<Permission>,
    /// Ingress rules that load balancer controllers wrote, recognized by their descriptions. Desired: none, and rules
    /// with such a description are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancers: Option<Vec<Permission>>,
    /// Tags by which controllers find the group. Never desired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_tags: Option<BTreeMap<String, String>>,
    pub tags: BTreeMap<String, String>,
}

/// The prefixes of descriptions that load balancer controllers give to their rules in the groups of nodes and pods,
/// and by which they find the rules again: the AWS Load Balancer Controller
/// (`pkg/targetgroupbinding/networking_manager.go`) and the cloud provider in Kubernetes ("Network Load Balancer
/// support on AWS").
const LOAD_BALANCERS: [&str; 4] = [
    "elbv2.k8s.aws/targetGroupBinding=shared",
    "kubernetes.io/rule/nlb/client=",
    "kubernetes.io/rule/nlb/health=",
    "kubernetes.io/rule/nlb/mtu",
];

/// One rule, with exactly one peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Permission {
    /// `tcp`, `udp`, `icmp`, a number, or `-1` for all (ports 0 then).
    pub protocol: String,
    pub from: i32,
    pub to: i32,
    /// A CIDR block, a group id, a prefix list id, or `self`.
    pub peer: String,
    pub description: String,
}

impl Permission {
    /// The identity of a rule. Two rules of a group can't differ in the description only.
    fn key(&self) -> (&str, i32, i32, &str) {
        (&self.protocol, self.from, self.to, &self.peer)
    }

    /// True if the description says that a load balancer controller wrote the rule.
    fn is_marked(&self) -> bool {
        LOAD_BALANCERS.iter().any(|mark| self.description.starts_with(mark))
    }

    /// `tcp 8080 from 10.40.64.0/18`.
    fn words(&self) -> String {
        let ports = match (self.from, self.to) {
            _ if self.protocol == "-1" => "everything".to_owned(),
            (from, to) if from == to => format!("{} {from}", self.protocol),
            (from, to) => format!("{} {from}-{to}", self.protocol),
        };
        format!("{ports} from {}", self.peer)
    }

    /// The rule in AWS's format, for the group `own`.
    fn sdk(&self, own: &str) -> IpPermission {
        let described = Some(&self.description).filter(|d| !d.is_empty()).cloned();
        let ports = (self.protocol != "-1").then_some((self.from, self.to));
        let rule = IpPermission::builder()
            .ip_protocol(&self.protocol)
            .set_from_port(ports.map(|p| p.0))
            .set_to_port(ports.map(|p| p.1));
        match self.peer.as_str() {
            peer if peer == SELF || peer.starts_with("sg-") => {
                let group = if peer == SELF { own } else { peer };
                rule.user_id_group_pairs(UserIdGroupPair::builder().group_id(group).set_description(described).build())
            }
            peer if peer.starts_with("pl-") => {
                rule.prefix_list_ids(PrefixListId::builder().prefix_list_id(peer).set_description(described).build())
            }
            peer if peer.contains(':') => {
                rule.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(peer).set_description(described).build())
            }
            peer => rule.ip_ranges(IpRange::builder().cidr_ip(peer).set_description(described).build()),
        }
        .build()
    }
}

impl State {
    fn all_ingress(&self) -> Vec<Permission> {
        self.ingress.iter().chain(self.load_balancers.iter().flatten()).cloned().collect()
    }

    fn all_tags(&self) -> BTreeMap<String, String> {
        let theirs = self.controller_tags.iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
        theirs.chain(self.tags.clone()).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

/// The rules of `group`, sorted.
pub(super) fn permissions(group: &Group, direction: Direction) -> Vec<Permission> {
    let own = group.group_id().unwrap_or_default();
    let rules = match direction {
        Direction::Ingress => group.ip_permissions(),
        Direction::Egress => group.ip_permissions_egress(),
    };
    let mut all: Vec<Permission> = rules.iter().flat_map(|rule| split(rule, own)).collect();
    all.sort();
    all
}

/// AWS returns the peers of one protocol and port range together.
fn split(rule: &IpPermission, own: &str) -> Vec<Permission> {
    let groups = rule.user_id_group_pairs().iter().map(|g| (g.group_id(), g.description()));
    let v4 = rule.ip_ranges().iter().map(|r| (r.cidr_ip(), r.description()));
    let v6 = rule.ipv6_ranges().iter().map(|r| (r.cidr_ipv6(), r.description()));
    let lists = rule.prefix_list_ids().iter().map(|l| (l.prefix_list_id(), l.description()));
    groups
        .chain(v4)
        .chain(v6)
        .chain(lists)
        .filter_map(|(peer, description)| {
            let peer = peer?;
            Some(Permission {
                protocol: rule.ip_protocol().unwrap_or_default().to_owned(),
                from: rule.from_port().unwrap_or(0),
                to: rule.to_port().unwrap_or(0),
                peer: if peer == own { SELF } else { peer }.to_owned(),
                description: description.unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

/// Changes the rules of `group` from `from` to `to`. Missing rules are added before superfluous ones are removed. If
/// `from` is stale, the group is read again.
pub(super) async fn set_rules(
    aws: &Aws,
    group: &str,
    direction: Direction,
    from: Vec<Permission>,
    to: &[Permission],
) -> Result<()> {
    match change_rules(aws, group, direction, &from, to).await {
        Err(error) if matches!(error.code.as_deref(), Some("InvalidPermission.Duplicate" | UNKNOWN)) => {
            let now = read(aws, vec![ec2::filter("group-id", [group])]).await?;
            let mut now = now.first().map(|g| permissions(g, direction)).unwrap_or_default();
            // A controller's rule isn't part of `from`, except if it must go, or if one of our rules differs from it
            // only in the description.
            now.retain(|p| !p.is_marked() || from.contains(p) || to.iter().any(|ours| ours.key() == p.key()));
            change_rules(aws, group, direction, &now, to).await
        }
        result => result,
    }
}

async fn change_rules(
    aws: &Aws,
    group: &str,
    direction: Direction,
    from: &[Permission],
    to: &[Permission],
) -> Result<()> {
    let sdk = |rules: Vec<&Permission>| {
        let rules: Vec<IpPermission> = rules.into_iter().map(|p| p.sdk(group)).collect();
        Some(rules).filter(|rules| !rules.is_empty())
    };
    let lacks = |these: &[Permission], rule: &Permission| these.iter().all(|p| p.key() != rule.key());
    let add = sdk(to.iter().filter(|p| lacks(from, p)).collect());
    let remove = sdk(from.iter().filter(|p| lacks(to, p)).collect());
    let describe = sdk(to.iter().filter(|p| !lacks(from, p) && !from.contains(p)).collect());
    let ec2 = &aws.ec2;
    match direction {
        Direction::Ingress => {
            if describe.is_some() {
                let call = ec2.update_security_group_rule_descriptions_ingress().group_id(group);
                let call = call.set_ip_permissions(describe).send().await;
                call.map_err(failed("ec2:UpdateSecurityGroupRuleDescriptionsIngress"))?;
            }
            if add.is_some() {
                let call = ec2.authorize_security_group_ingress().group_id(group).set_ip_permissions(add).send().await;
                call.map_err(ec2::making("ec2:AuthorizeSecurityGroupIngress"))?;
            }
            if remove.is_some() {
                const CALL: &str = "ec2:RevokeSecurityGroupIngress";
                let call = ec2.revoke_security_group_ingress().group_id(group).set_ip_permissions(remove).send().await;
                all_known(CALL, call.map_err(failed(CALL))?.unknown_ip_permissions())?;
            }
        }
        Direction::Egress => {
            if describe.is_some() {
                let call = ec2.update_security_group_rule_descriptions_egress().group_id(group);
                let call = call.set_ip_permissions(describe).send().await;
                call.map_err(failed("ec2:UpdateSecurityGroupRuleDescriptionsEgress"))?;
            }
            if add.is_some() {
                let call = ec2.authorize_security_group_egress().group_id(group).set_ip_permissions(add).send().await;
                call.map_err(ec2::making("ec2:AuthorizeSecurityGroupEgress"))?;
            }
            if remove.is_some() {
                const CALL: &str = "ec2:RevokeSecurityGroupEgress";
                let call = ec2.revoke_security_group_egress().group_id(group).set_ip_permissions(remove).send().await;
                all_known(CALL, call.map_err(failed(CALL))?.unknown_ip_permissions())?;
            }
        }
    }
    Ok(())
}

/// A call that removes rules may succeed and return those that the group doesn't have (EC2 API,
/// RevokeSecurityGroupIngress, `unknownIpPermissionSet`).
fn all_known(operation: &'static str, unknown: &[IpPermission]) -> Result<()> {
    if unknown.is_empty() {
        return Ok(());
    }
    let message = format!("the group doesn't have {} of the rules to remove", unknown.len());
    let error = Error::new(Class::NotFound, message).operation(operation);
    Err(Error { code: Some(UNKNOWN.to_owned()), ..error })
}

async fn read(aws: &Aws, filters: Vec<Filter>) -> Result<Vec<Group>> {
    aws.ec2
        .describe_security_groups()
        .set_filters(Some(filters))
        .max_results(1000)
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .map_err(failed("ec2:DescribeSecurityGroups"))
}

pub struct SecurityGroup;

pub struct SecurityGroupHandlers {
    aws: Arc<Aws>,
    /// VPCs in which a new group's default egress rule is for IPv4 only.
    without_ipv6: Mutex<BTreeSet<String>>,
}

impl SecurityGroupHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws, without_ipv6: Mutex::default() }
    }

    async fn read(&self, filters: Vec<Filter>) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for group in read(&self.aws, filters).await? {
            let tags = ec2::tags(group.tags());
            let (Some(id), Some((address, generation))) = (group.group_id(), self.aws.owned(&tags)) else {
                continue;
            };
            let (marked, ingress): (Vec<_>, Vec<_>) =
                permissions(&group, Direction::Ingress).into_iter().partition(Permission::is_marked);
            let theirs: BTreeMap<_, _> =
                tags.clone().into_iter().filter(|(key, _)| tags::is_controllers(key)).collect();
            found.push(Found {
                address,
                generation,
                id: id.to_owned(),
                outputs: ec2::outputs([("id", id)]),
                state: Packed::of(&State {
                    load_balancers: Some(marked),
                    controller_tags: Some(theirs).filter(|all| !all.is_empty()),
                    vpc: group.vpc_id().unwrap_or_default().to_owned(),
                    name: logical(group.group_name().unwrap_or_default(), generation),
                    description: group.description().unwrap_or_default().to_owned(),
                    ingress,
                    egress: permissions(&group, Direction::Egress),
                    tags: self.aws.observed(&tags),
                })?,
                status: Status::Ready,
                refs: vec![],
            });
        }
        Ok(found)
    }

    /// Groups of others with a wanted name in the wanted VPC.
    async fn foreign(&self, wanted: &[Wanted]) -> Result<Observation> {
        let mut observation = Observation::default();
        let wanted: Vec<(&Wanted, State)> = wanted
            .iter()
            .filter_map(|w| Some((w, w.state.typed::<State>().ok()?)))
            .filter(|(_, state)| !state.vpc.contains(is_reserved))
            .collect();
        for some in wanted.chunks(100) {
            let filters = vec![
                ec2::filter("vpc-id", some.iter().map(|(_, s)| &s.vpc)),
                ec2::filter("group-name", some.iter().map(|(_, s)| &s.name)),
            ];
            for group in read(&self.aws, filters).await? {
                let is = |s: &State| group.vpc_id() == Some(&s.vpc) && group.group_name() == Some(&s.name);
                let (claim, tags) = (some.iter().find(|(_, s)| is(s)), ec2::tags(group.tags()));
                if let (Some((wanted, state)), None) = (claim, self.aws.owned(&tags)) {
                    let what = format!("security group `{}` in {}", state.name, state.vpc);
                    let id = group.group_id().unwrap_or_default();
                    observation.foreign.push(ec2::foreign(&self.aws, wanted, id, &what, &tags));
                }
            }
        }
        Ok(observation)
    }

    /// Rules that stay although the spec doesn't have them, named in the plan: everyone who may write rules could use
    /// such a description.
    fn notes(&self, found: &[Found], wanted: &[Wanted]) -> Vec<String> {
        const SHOWN: usize = 4;
        let stays = |found: &&Found| {
            let wanted = wanted.iter().find(|w| w.address == found.address);
            wanted.is_some_and(|w| w.state.get("load_balancers").is_none())
        };
        let notes = found.iter().filter(stays).filter_map(|one| {
            let rules = one.state.typed::<State>().ok()?.load_balancers.filter(|all| !all.is_empty())?;
            let more = rules.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let rules: Vec<String> = rules.iter().take(SHOWN).map(Permission::words).collect();
            Some(format!(
                "{}: rules with the description of a load balancer controller are kept: {}{more}",
                one.address,
                rules.join(", ")
            ))
        });
        notes.collect()
    }

    /// The default egress rules of a new group. AWS adds one for all IPv4 destinations and, if the VPC has an IPv6
    /// block, one for all IPv6 destinations (getmoto/moto#2647, hashicorp/terraform-provider-aws#47192).
    async fn born_with(&self, id: &str, vpc: &str) -> Result<Vec<Permission>> {
        let everywhere = Permission {
            protocol: "-1".to_owned(),
            from: 0,
            to: 0,
            peer: "0.0.0.0/0".to_owned(),
            description: String::new(),
        };
        if self.without_ipv6.lock().await.contains(vpc) {
            return Ok(vec![everywhere]);
        }
        let groups = read(&self.aws, vec![ec2::filter("group-id", [id])]).await?;
        let Some(group) = groups.first() else {
            let message = format!("the new security group {id} isn't visible yet");
            return Err(Error::new(Class::NotYet, message).operation("ec2:DescribeSecurityGroups"));
        };
        let mut all = permissions(group, Direction::Egress);
        if all == [everywhere.clone()] {
            self.without_ipv6.lock().await.insert(vpc.to_owned());
        } else if !all.contains(&everywhere) {
            // The rules may become visible later than the group.
            all.push(everywhere);
        }
        Ok(all)
    }

    /// Other groups with rules that refer to the group `id`.
    async fn referrers(&self, id: &str) -> Result<Vec<String>> {
        let (ingress, egress) = futures::try_join!(
            read(&self.aws, vec![ec2::filter("ip-permission.group-id", [id])]),
            read(&self.aws, vec![ec2::filter("egress.ip-permission.group-id", [id])])
        )?;
        let mut names: Vec<String> = ingress
            .iter()
            .chain(&egress)
            .filter(|group| group.group_id() != Some(id))
            .map(|g| {
                let (id, name) = (g.group_id().unwrap_or_default(), g.group_name().unwrap_or_default());
                format!("a rule of security group {id} ({name})")
            })
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }
}

impl Kind for SecurityGroup {
    fn name(&self) -> &'static str {
        NAME
    }

    /// The pods of a Fargate profile have their tenant's group, and so do nodes.
    fn deleted_after(&self) -> &'static [&'static str] {
        &[super::fargate_profile::NAME, super::node_group::NAME]
    }

    fn lets_in(&self) -> &'static [&'static str] {
        &["ingress", "egress"]
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[
            ("vpc", Rule::Replace),
            ("name", Rule::Replace),
            ("description", Rule::Replace),
            ("ingress", Rule::Unordered),
            ("egress", Rule::Unordered),
            ("load_balancers", Rule::ServerDefault),
            ("load_balancers", Rule::Unordered),
            ("controller_tags", Rule::ServerDefault),
        ]
    }

    fn create_before_destroy(&self) -> bool {
        true
    }

    /// Without its rules and the tags on the group, a load balancer would lose its targets until its controller
    /// reconciles again.
    fn carry(&self, found: &Found, state: Packed) -> Packed {
        state.edited(|state| {
            for field in ["load_balancers", "controller_tags"] {
                let (from, to) = (found.state.get("vpc"), state.get("vpc"));
                let theirs = found.state.get(field).filter(|all| **all != Value::Array(vec![]));
                if let (true, None, Some(theirs)) = (from == to, state.get(field), theirs) {
                    state[field] = theirs.clone();
                }
            }
        })
    }

    fn summary(&self, state: &Packed) -> String {
        ec2::summary(state, |s: &State| format!("{} ({} in, {} out)", s.name, s.ingress.len(), s.egress.len()))
    }

    fn pace(&self, verb: Verb) -> Pace {
        ec2::held_pace(verb)
    }
}

impl ResourceKind for SecurityGroup {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(SecurityGroupHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        // "Inbound or outbound rules per security group": the quota holds for each direction.
        let rules = |state: &Packed| {
            let count = |field: &str| state[field].as_array().map_or(0, Vec::len);
            count("ingress").max(count("egress"))
        };
        vec![
            Counts::all("vpc", "L-E79EC296", Per::Account(Counted::SecurityGroups)),
            Counts { weight: rules, unit: "rules", ..Counts::all("vpc", "L-0EA8095F", Per::Resource) },
        ]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeSecurityGroups"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::New, When::Made, &["ec2:CreateSecurityGroup"]),
            (On::Ours, When::Made, &["ec2:CreateSecurityGroup"]),
            (On::Ours, When::Gone, &["ec2:DeleteSecurityGroup"]),
        ]
    }
}

#[async_trait]
impl Handlers for SecurityGroupHandlers {
    async fn observe(&self, _round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let (found, foreign) = futures::try_join!(self.read(vec![ec2::ours(&self.aws)]), self.foreign(wanted))?;
        Ok(Observation { notes: self.notes(&found, wanted), found, ..foreign })
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        ec2::find(&self.aws, handles, |filters| self.read(filters)).await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let answer = self
            .aws
            .ec2
            .create_security_group()
            .group_name(physical(&state.name, new.generation))
            .description(&state.description)
            .vpc_id(&state.vpc)
            .tag_specifications(ec2::specification(ResourceType::SecurityGroup, &state.all_tags(), new.generation))
            .customize()
            .config_override(ec2::once())
            .send()
            .await
            .map_err(ec2::making("ec2:CreateSecurityGroup"))?;
        let id = answer.group_id().unwrap_or_default();
        let complete = async {
            let born_with = ec2::completing(&self.aws, || self.born_with(id, &state.vpc)).await?;
            for (direction, from, to) in [
                (Direction::Egress, born_with, state.egress.clone()),
                (Direction::Ingress, vec![], state.all_ingress()),
            ] {
                ec2::completing(&self.aws, || set_rules(&self.aws, id, direction, from.clone(), &to)).await?;
            }
            Ok(())
        };
        complete.await.map_err(ec2::incomplete(id))?;
        Ok(Made { id: id.to_owned(), outputs: ec2::outputs([("id", id)]), ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (old, new): (State, State) = (from.state.typed()?, to.state.typed()?);
        // If the state doesn't say what controllers may write, their rules are kept.
        let (before, after) = match &new.load_balancers {
            Some(_) => (old.all_ingress(), new.all_ingress()),
            None => (old.ingress.clone(), new.ingress.clone()),
        };
        set_rules(&self.aws, &from.id, Direction::Ingress, before, &after).await?;
        set_rules(&self.aws, &from.id, Direction::Egress, old.egress, &new.egress).await?;
        ec2::retag(&self.aws, &from.id, &old.tags, &new.tags).await?;
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let call = || async {
            let call = self.aws.ec2.delete_security_group().group_id(&found.id).send().await;
            call.map_err(failed("ec2:DeleteSecurityGroup"))
        };
        let mut deleted = held::delete_held(&self.aws, "group-id", &found.id, call).await;
        // Two groups that refer to each other can't be deleted while their rules exist. But users of a group lose the
        // network as soon as the rules are removed.
        let is_held = |error: &Error| error.code.as_deref() == Some(held::HELD);
        if deleted.as_ref().is_err_and(is_held)
            && inside::interfaces(&self.aws, "group-id", &found.id).await?.is_empty()
        {
            let state: State = found.state.typed()?;
            ec2::absent(set_rules(&self.aws, &found.id, Direction::Ingress, state.all_ingress(), &[]).await)?;
            ec2::absent(set_rules(&self.aws, &found.id, Direction::Egress, state.egress, &[]).await)?;
            deleted = held::delete_held(&self.aws, "group-id", &found.id, call).await;
        }
        match deleted {
            Err(error) if error.class == Class::Held => Err(held::holders(error, self.referrers(&found.id).await?)),
            result => result.map(|()| true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a default VPC, AWS answers like this instead of failing (EC2 API, RevokeSecurityGroupIngress).
    #[test]
    fn rules_that_were_not_taken_away() {
        let is = |unknown: &[IpPermission]| all_known("ec2:RevokeSecurityGroupIngress", unknown);
        assert!(is(&[]).is_ok());
        let error = is(&[IpPermission::builder().ip_protocol("tcp").build()]).err();
        assert_eq!(error.and_then(|e| e.code).as_deref(), Some(UNKNOWN));
    }
}
