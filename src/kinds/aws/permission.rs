//! What a kind's calls must be allowed: each kind says it in its own file, and
//! `ringfence iam-policy` is made of it.

/// Where actions are allowed: each is a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    Anything,
    /// What carries this tenancy's tags.
    Ours,
    /// What GuardDuty put into VPCs of ours by itself.
    GuardDuty,
    /// Main route tables, which come with their VPCs and without tags. The ids of our VPCs (`ec2:Vpc`) aren't known yet, so
    /// these are all tables that carry no tenancy's tags.
    MainTables,
    /// What gets this tenancy's tags when it is made.
    New,
    /// Tags, only as a part of making something that gets ours.
    TaggedWhenMade,
    Clusters,
    Logs,
    Keys,
    /// This tenancy's keys, which EKS gets grants on.
    Grants,
    Aliases,
    Roles,
    /// Roles that have the spec's permissions boundary, where it has one.
    Bounded,
    /// The same, and the policies that the spec's roles get.
    Attached,
    Issuers,
    Lock,
}

/// When a step can't do without an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It makes something of this kind.
    Made,
    /// It deletes something of this kind.
    Gone,
    /// It writes tags: of this kind, and of kinds of the same service that have none of their own here.
    Tagged,
    /// Sometimes.
    Perhaps,
}

/// Where actions are allowed, when they are called, and which.
pub type Permission = (On, When, &'static [&'static str]);
