//! Reasons in words.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::Subject;
use crate::engine::address::Address;
use crate::engine::plan::{Action, Plan};
use crate::engine::report::Differs;
use crate::engine::why::{Note, Unmoved, WhyDone, WhyKept, WhyNot};

/// The name of a reason, for programs, such as `not-replaced`.
pub(super) fn code(why: &impl Serialize) -> Value {
    serde_json::to_value(why).ok().and_then(|why| why.get("why").cloned()).unwrap_or_default()
}

/// Why a resource isn't as the spec asks.
pub(super) fn not(why: &WhyNot) -> String {
    match why {
        WhyNot::Unread { host } => format!("cluster {host} can't be read"),
        WhyNot::Unserved { error, controls } => match controls.as_slice() {
            [] => error.message.clone(),
            [one] => format!("{}; control {one} is unmet", error.message),
            many => format!("{}; controls {} are unmet", error.message, many.join(", ")),
        },
        WhyNot::LostTags { id, user, .. } => {
            format!("{id}, which {user} is in, has lost its ownership tags")
        }
        WhyNot::Twice { ids } => format!("it exists more than once: {}", ids.join(", ")),
        WhyNot::Elsewhere { at, to } => format!("it exists in {at}, but the spec puts it into {to}"),
        WhyNot::Used { id, user, .. } => used(id, user),
        WhyNot::Later { id, user } => format!("{user} uses {id} until this run is done"),
        WhyNot::LetsIn { user } => {
            let user = user.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("this change removes access that {user} uses, and {user} is neither replaced nor deleted")
        }
        WhyNot::Broken { id, what } => format!("{id} failed: {what}"),
        WhyNot::BrokenAndKept { what, because } => format!("it failed: {what}; {}", not(because)),
        WhyNot::NeedsBlocked { need, .. } => format!("it needs {need}, which is blocked"),
        WhyNot::NeedsTwice { need } => format!("it needs {need}, which exists more than once"),
        WhyNot::NotReplaced { fields, because } => {
            format!("a change of {} needs a replacement, and {}", fields.join(", "), not(because))
        }
        WhyNot::Loses { lost, .. } => format!("a replacement loses {lost}"),
        WhyNot::Shared { blocked, .. } => {
            format!(
                "the tenant's former and new placement share it, and the new one can't be completed: {blocked} is blocked"
            )
        }
        WhyNot::Foreign { message } => message.clone(),
        WhyNot::Stuck { reason, .. } | WhyNot::Refused { reason, .. } => reason.clone(),
    }
}

fn used(id: &str, user: &Address) -> String {
    format!("{id} is used by {user}, which is neither replaced nor deleted")
}

/// What to do about it.
pub(super) fn help(why: &WhyNot) -> Option<String> {
    let help = match why {
        WhyNot::Unserved { error, .. } => error.help.clone()?,
        WhyNot::LostTags { tags, .. } => {
            format!("if no other owner uses it now, restore the tags: {}", tags.join(", "))
        }
        WhyNot::Twice { .. } => {
            "find out which one is in use, then delete the others by hand, or remove their ringfence.dev tags"
                .to_owned()
        }
        WhyNot::Elsewhere { at, .. } => format!("a resource can't move to another account or region: leave it in {at}"),
        WhyNot::Used { because, .. } => help(because.as_deref()?)?,
        WhyNot::Later { .. } => "run the same command again: the next run makes this change".to_owned(),
        WhyNot::Broken { .. } => "repair the cause that the message names, then run the same command".to_owned(),
        WhyNot::BrokenAndKept { because, .. } | WhyNot::NotReplaced { because, .. } => help(because)?,
        WhyNot::Loses { address, .. } => format!("if this is intended, add --allow-replace {address}"),
        WhyNot::Stuck { help, .. } | WhyNot::Refused { help, .. } => help.clone(),
        WhyNot::Unread { .. }
        | WhyNot::Foreign { .. }
        | WhyNot::LetsIn { .. }
        | WhyNot::NeedsBlocked { .. }
        | WhyNot::NeedsTwice { .. }
        | WhyNot::Shared { .. } => return None,
    };
    (!help.is_empty()).then_some(help)
}

/// Why something that left the spec stays.
pub(super) fn kept(why: &WhyKept) -> String {
    match why {
        WhyKept::AuditLogs => "audit logs are kept; --delete-logs deletes them".to_owned(),
        WhyKept::EncryptsLogs => "logs that are kept are encrypted with it".to_owned(),
        WhyKept::UsedByFormer => "a former placement that is kept uses it".to_owned(),
        WhyKept::HoldsFormer { place } => format!("{place}, which is kept, is in it"),
        WhyKept::Moved { tenants, new, but } => {
            let names = tenants.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let who = if tenants.len() == 1 { format!("tenant {names}") } else { format!("tenants {names}") };
            let new = super::human::names(new);
            match but {
                Unmoved::Blocked(address) => format!(
                    "{who}: the new placement, {new}, can't be completed, because {address} is blocked; so this one is kept"
                ),
                Unmoved::AwsOnly => format!(
                    "{who}: the new placement, {new}, isn't complete, because --aws-only changes no objects in its cluster; so this one is kept"
                ),
                Unmoved::Unconfirmed(place) => format!(
                    "{who} moved from it to {new}; it is kept, with its pods and data, until its deletion is confirmed: --allow-destroy {place}"
                ),
            }
        }
    }
}

/// The notes of a plan, in alphabetical order.
pub(super) fn notes(plan: &Plan, subject: &Subject) -> BTreeSet<String> {
    let fixed = plan.drift.iter().flat_map(|drift| &drift.fixed);
    let fixed = fixed.map(|blocked| format!("{}: {}", blocked.address, not(&blocked.why)));
    plan.notes.iter().map(note).chain(subject.notes.iter().cloned()).chain(fixed).collect()
}

fn note(note: &Note) -> String {
    match note {
        Note::Said { text } => text.clone(),
        Note::WaitsForApi { address, what } => {
            format!("{address}: {what}; the object is created after the add-on that provides the API")
        }
        Note::LostTags { address, id, user } => {
            format!("{address}: {id}, which {user} is in, has lost its ownership tags, so it isn't deleted")
        }
        Note::DeletedWithHost { objects } => format!("{objects} objects are deleted with their clusters"),
        Note::Disturbs { how, who } => {
            format!("{}: {how}", who.iter().map(Address::as_str).collect::<Vec<_>>().join(", "))
        }
        Note::BringsApis { host, apis } => {
            let apis = apis.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            format!(
                "{host}: this step adds APIs that the cluster doesn't serve yet ({apis}); objects that need them are created after it"
            )
        }
        Note::Absent { place, resources } => format!(
            "{place} doesn't exist: all its {resources} resources are missing. Either they weren't created yet, or all of them were deleted; `apply` creates them"
        ),
        Note::Left { resources } => {
            format!("{resources} resources that left the spec still exist: `plan` shows them")
        }
    }
}

/// Why a step is done.
pub(super) fn done(why: &WhyDone) -> String {
    match why {
        WhyDone::LeftOver => "rest of an interrupted replacement".to_owned(),
        WhyDone::Leaving => "it is being deleted".to_owned(),
        WhyDone::Failed { what } => format!("it failed: {what}"),
        WhyDone::Fixed { fields } => format!("{} can't be changed in place", fields.join(", ")),
        WhyDone::Pending { state } => format!("it is {}", state.to_lowercase()),
        WhyDone::BeforeDeletion => "so that it can be deleted".to_owned(),
        WhyDone::UsersGone => "the resources that need this access are deleted before".to_owned(),
    }
}

/// How a resource differs after a run.
pub(super) fn differs(how: &Differs) -> String {
    match how {
        Differs::Action(Action::Create) => "create".to_owned(),
        Differs::Action(Action::Update) => "update".to_owned(),
        Differs::Action(Action::Wait) => "wait".to_owned(),
        Differs::Action(Action::Delete) => "delete".to_owned(),
        Differs::Fields(fields) => fields.join(", "),
        Differs::Blocked(why) => not(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What helps the user of a resource helps the resource.
    #[test]
    fn the_help_is_that_of_the_first_cause() {
        let net = Address::new("tenant/a/silo/net");
        let fields = vec!["cidr".to_owned()];
        let loses = WhyNot::Loses { address: net.clone(), lost: "the net".to_owned() };
        let because = WhyNot::NotReplaced { fields: fields.clone(), because: Box::new(loses) };
        let used = WhyNot::Used { id: "key-1".to_owned(), user: net, because: Some(Box::new(because)) };
        let why = WhyNot::NotReplaced { fields, because: Box::new(used) };
        let text = "a change of cidr needs a replacement, and key-1 is used by tenant/a/silo/net, which is neither replaced nor deleted";
        assert_eq!(not(&why), text);
        assert_eq!(help(&why).as_deref(), Some("if this is intended, add --allow-replace tenant/a/silo/net"));
    }

    #[test]
    fn a_replacement_in_a_circle_names_the_user_and_the_next_run() {
        let later = WhyNot::Later { id: "subnet-1".to_owned(), user: Address::new("tenant/a/silo/nat") };
        let why = WhyNot::NotReplaced { fields: vec!["zone".to_owned()], because: Box::new(later) };
        let text = "a change of zone needs a replacement, and tenant/a/silo/nat uses subnet-1 until this run is done";
        assert_eq!(not(&why), text);
        assert_eq!(help(&why).as_deref(), Some("run the same command again: the next run makes this change"));
        assert!(why.is_pending());
    }
}
