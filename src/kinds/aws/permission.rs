//! The permissions of a kind's calls. Each kind lists them in its own file, and `ringfence iam-policy` collects them.

/// The resources on which actions are allowed. Each variant becomes a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    Anything,
    /// Resources with this tenancy's tags.
    Ours,
    /// Resources that GuardDuty creates in our VPCs.
    GuardDuty,
    /// Main route tables, which AWS creates with a VPC and without tags. The ids of our VPCs (`ec2:Vpc`) aren't known
    /// yet, so this is every route table without a tenancy tag.
    MainTables,
    /// New resources that get this tenancy's tags.
    New,
    /// Tags, but only in a call that creates a resource with our tags.
    TaggedWhenMade,
    Clusters,
    Logs,
    Keys,
    /// This tenancy's keys, for which EKS gets grants.
    Grants,
    Aliases,
    Roles,
    /// Roles with the spec's permissions boundary, if it has one.
    Bounded,
    /// [`Self::Roles`] with the condition that the policies are those that the spec attaches to roles.
    Attached,
    Issuers,
    Lock,
}

/// When a step requires an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The step creates a resource of this kind.
    Made,
    /// The step deletes a resource of this kind.
    Gone,
    /// The step writes tags of this kind, or of a kind of the same service that lists no tag actions itself.
    Tagged,
    /// The action is called only in some cases.
    Perhaps,
}

/// On which resources, when, and which actions.
pub type Permission = (On, When, &'static [&'static str]);
