//! Evaluates the policies of an assumed role, for calls and for SimulatePrincipalPolicy.
//!
//! The evaluation reads the role's inline policies, its attached policies, and its permissions boundary. Some of AWS's
//! own policies have a document here ([`managed`]); the others grant nothing. The evaluation ignores key policies,
//! session policies, service control policies and policy variables such as `${aws:PrincipalTag/team}`.
//!
//! Rules: IAM user guide, "Policy evaluation logic" and "IAM JSON policy elements: Condition operators". Texts of
//! refusals: "Troubleshoot access denied error messages", and what users of the services have quoted.

use super::super::state::State;
use super::super::wire::{Fault, Reply, Request, Service, items, text, texts};
use super::document::{like, matches, statements};
use super::needs::{self, Context, Need};
use super::request::{list, no_such, required};
use super::{Iam, Role, managed};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A record of the evaluations for assumed roles.
#[derive(Debug, Default)]
pub struct Checks {
    /// Actions such as `ec2:CreateVpc`, including the dependent actions that AWS checks for the same call.
    pub needed: BTreeSet<String>,
    /// Messages of the refusals.
    pub refused: Vec<String>,
}

/// Refuses a call that the policies of the caller's role don't allow. A caller without a role is the account's
/// administrator.
pub fn check(state: &State, req: &Request, checks: &mut Checks) -> Result<(), Fault> {
    let Some(name) = req.caller.arn.split_once(":assumed-role/").and_then(|(_, rest)| rest.split('/').next()) else {
        return Ok(());
    };
    let iam = state.accounts.get(&req.account).map(|account| &account.iam);
    let policies = iam.map(|iam| Policies::of(iam, iam.roles.get(name))).unwrap_or_default();
    for need in needs::of(state, req) {
        checks.needed.insert(need.action.clone());
        if let Err(why) = policies.allow(&need) {
            let fault = refusal(req, &need, why);
            checks.refused.push(fault.message.clone());
            return Err(fault);
        }
    }
    Ok(())
}

/// Whether a role's policies allow an action. Condition keys are in lower case. The permissions boundary isn't
/// evaluated: the sandbox makes up the boundary policies that a spec refers to, and doesn't know their real documents.
pub fn may(iam: &Iam, role: &Role, action: &str, resource: &str, context: &[(&str, &str)]) -> bool {
    let context = context.iter().map(|(key, value)| ((*key).to_owned(), vec![(*value).to_owned()])).collect();
    let need = Need { action: action.to_owned(), resource: resource.to_owned(), context };
    Policies { boundary: None, ..Policies::of(iam, Some(role)) }.allow(&need).is_ok()
}

/// The operation SimulatePrincipalPolicy.
pub fn simulate(iam: &Iam, req: &Request) -> Reply {
    let source = required(req, "PolicySourceArn")?;
    if !source.starts_with("arn:") || !source.contains(":iam::") {
        return Err(Fault::new(400, "InvalidInput", format!("Invalid Entity Arn: {source}")));
    }
    if !iam.principal(&source) {
        return Err(no_such(format!("The principal {source} cannot be found.")));
    }
    let policies = Policies::of(iam, iam.role_by_arn(&source));
    let mut resources = req.texts("ResourceArns");
    if resources.is_empty() {
        resources.push("*".to_owned());
    }
    let given =
        |entry: &Value| Some((text(entry, "ContextKeyName")?.to_ascii_lowercase(), texts(entry, "ContextKeyValues")));
    let context: Context = items(&req.params, "ContextEntries").iter().filter_map(given).collect();
    let results = req.texts("ActionNames").into_iter().enumerate().map(|(n, action)| {
        let missing: BTreeSet<&str> = policies.keys(&action).filter(|key| !context.contains_key(&key.to_ascii_lowercase())).collect();
        let decide = |resource: &String| {
            let need = Need { action: action.clone(), resource: resource.clone(), context: context.clone() };
            match policies.allow(&need) {
                Ok(()) => "allowed",
                Err(Why::Denied) => "explicitDeny",
                Err(_) => "implicitDeny",
            }
        };
        let each: Vec<(&String, &str)> = resources.iter().map(|resource| (resource, decide(resource))).collect();
        let overall = ["explicitDeny", "implicitDeny"].into_iter().find(|no| each.iter().any(|(_, said)| said == no));
        let specific = each.iter().map(|(resource, decision)| {
            json!({
                "EvalResourceName": resource, "EvalResourceDecision": decision, "MatchedStatements": [],
                "MissingContextValues": missing,
            })
        });
        let result = json!({
            "EvalActionName": action, "EvalResourceName": resources.first(), "EvalDecision": overall.unwrap_or("allowed"),
            "MatchedStatements": [], "MissingContextValues": missing, "ResourceSpecificResults": specific.collect::<Value>(),
        });
        (format!("{n:06}"), result)
    });
    list(req, "EvaluationResults", results)
}

/// Why an action isn't allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// A Deny statement applies.
    Denied,
    /// No Allow statement applies.
    Nobody,
    /// The permissions boundary doesn't allow it.
    Boundary,
}

#[derive(Debug, Default)]
struct Policies {
    identity: Vec<Value>,
    boundary: Option<Value>,
}

impl Policies {
    fn of(iam: &Iam, role: Option<&Role>) -> Self {
        let Some(role) = role else { return Self::default() };
        let parsed = |text: &String| serde_json::from_str(text).unwrap_or_default();
        let managed = |arn: &String| match iam.policies.get(arn) {
            Some(policy) => parsed(&policy.document),
            None => managed::document(super::last_segment(arn)),
        };
        Self {
            identity: role.inline.values().map(parsed).chain(role.attached.iter().map(managed)).collect(),
            boundary: role.boundary.as_ref().map(managed),
        }
    }

    fn allow(&self, need: &Need) -> Result<(), Why> {
        let says = |policies: &[Value], effect: &str| {
            policies
                .iter()
                .flat_map(statements)
                .any(|one| one["Effect"] == effect && applies(one, need, effect == "Deny"))
        };
        let boundary = self.boundary.as_slice();
        match () {
            () if says(&self.identity, "Deny") || says(boundary, "Deny") => Err(Why::Denied),
            () if !says(&self.identity, "Allow") => Err(Why::Nobody),
            () if !boundary.is_empty() && !says(boundary, "Allow") => Err(Why::Boundary),
            () => Ok(()),
        }
    }

    /// The condition keys in statements that are about an action.
    fn keys<'p>(&'p self, action: &str) -> impl Iterator<Item = &'p str> {
        let policies = self.identity.iter().chain(&self.boundary);
        let about =
            policies.flat_map(statements).filter(move |one| covers(one, "Action", |pattern| matches(pattern, action)));
        let operators = about.filter_map(|one| one["Condition"].as_object()).flat_map(|operators| operators.values());
        operators.filter_map(Value::as_object).flat_map(|keys| keys.keys().map(String::as_str))
    }
}

/// Whether a statement applies to a call. `unsure` is returned if its condition can't be evaluated.
fn applies(statement: &Value, need: &Need, unsure: bool) -> bool {
    covers(statement, "Action", |pattern| matches(pattern, &need.action))
        && covers(statement, "Resource", |pattern| like(pattern, &need.resource))
        && holds(&statement["Condition"], &need.context).unwrap_or(unsure)
}

/// Whether `Action` or `Resource` of a statement matches, or `NotAction` or `NotResource` doesn't match.
fn covers(statement: &Value, member: &str, fits: impl Fn(&str) -> bool) -> bool {
    let not = texts(statement, &format!("Not{member}"));
    if not.is_empty() { texts(statement, member).iter().any(|one| fits(one)) } else { !not.iter().any(|one| fits(one)) }
}

/// Whether all parts of a condition are true. `None`: an operator isn't known here.
fn holds(condition: &Value, context: &Context) -> Option<bool> {
    for (operator, keys) in condition.as_object().into_iter().flatten() {
        for key in keys.as_object()?.keys() {
            if !compare(operator, context.get(&key.to_ascii_lowercase()), &texts(keys, key))? {
                return Some(false);
            }
        }
    }
    Some(true)
}

fn compare(operator: &str, values: Option<&Vec<String>>, wanted: &[String]) -> Option<bool> {
    let (set, operator) = match operator.split_once(':') {
        Some((set, operator)) => (Some(set), operator),
        None => (None, operator),
    };
    if operator == "Null" {
        return Some(wanted.iter().any(|one| one == if values.is_none() { "true" } else { "false" }));
    }
    let (operator, if_exists) =
        operator.strip_suffix("IfExists").map_or((operator, false), |operator| (operator, true));
    let (fits, negated): (fn(&str, &str) -> bool, bool) = match operator {
        "StringEquals" => (|wanted, value| wanted == value, false),
        "StringNotEquals" => (|wanted, value| wanted == value, true),
        "StringEqualsIgnoreCase" | "Bool" => (str::eq_ignore_ascii_case, false),
        "StringNotEqualsIgnoreCase" => (str::eq_ignore_ascii_case, true),
        "StringLike" | "ArnLike" | "ArnEquals" => (like, false),
        "StringNotLike" | "ArnNotLike" | "ArnNotEquals" => (like, true),
        _ => return None,
    };
    let one = |value: &String| wanted.iter().any(|wanted| fits(wanted, value)) != negated;
    let Some(values) = values else {
        return Some(if_exists || set == Some("ForAllValues") || (negated && set.is_none()));
    };
    match set {
        Some("ForAllValues") => Some(values.iter().all(one)),
        Some("ForAnyValue") | None => {
            Some(if negated && set.is_none() { values.iter().all(one) } else { values.iter().any(one) })
        }
        Some(_) => None,
    }
}

/// The refusal, with the error text of the called service.
fn refusal(req: &Request, need: &Need, why: Why) -> Fault {
    let Need { action, resource, .. } = need;
    let because = match why {
        Why::Denied => "with an explicit deny in an identity-based policy".to_owned(),
        Why::Nobody => format!("because no identity-based policy allows the {action} action"),
        Why::Boundary => format!("because no permissions boundary allows the {action} action"),
    };
    let user = &req.caller.arn;
    let message = format!("User: {user} is not authorized to perform: {action} on resource: {resource} {because}");
    match req.service {
        Service::Ec2 => Fault::new(
            403,
            "UnauthorizedOperation",
            format!("You are not authorized to perform this operation. {message}"),
        ),
        Service::Iam | Service::Sts => Fault::new(403, "AccessDenied", message),
        // EKS calls EC2 and passes on EC2's encoded message (terraform-aws-eks-code, issue 13).
        Service::Eks if action == "ec2:RunInstances" => {
            let message = format!("You are not authorized to launch instances with this launch template. {message}");
            Fault::new(400, "InvalidRequestException", message)
        }
        Service::Eks => Fault::new(403, "AccessDeniedException", message),
        Service::Kms | Service::Logs | Service::Ssm | Service::Quotas => {
            Fault::new(400, "AccessDeniedException", message)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    type Keys<'k> = &'k [(&'k str, &'k [&'k str])];

    fn need(action: &str, resource: &str, context: Keys) -> Need {
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let context = context.iter().map(|(key, all)| (key.to_ascii_lowercase(), values(all))).collect();
        Need { action: action.to_owned(), resource: resource.to_owned(), context }
    }

    fn policies(statements: Value) -> Policies {
        Policies { identity: vec![json!({"Statement": statements})], boundary: None }
    }

    const VPC: &str = "arn:aws:ec2:us-east-1:1:vpc/vpc-1";

    #[test]
    fn an_explicit_deny_wins_and_silence_refuses() {
        let policies = policies(json!([
            {"Effect": "Allow", "Action": ["ec2:*Vpc", "EC2:describe*"], "Resource": "arn:aws:ec2:*:*:vpc/*"},
            {"Effect": "Deny", "NotAction": "ec2:D*", "Resource": "*"},
        ]));
        assert_eq!(policies.allow(&need("ec2:DeleteVpc", VPC, &[])), Ok(()));
        assert_eq!(policies.allow(&need("ec2:CreateVpc", VPC, &[])), Err(Why::Denied));
        assert_eq!(policies.allow(&need("ec2:DeleteSubnet", VPC, &[])), Err(Why::Nobody));
        assert_eq!(policies.allow(&need("ec2:DeleteVpc", "arn:aws:ec2:us-east-1:1:subnet/s", &[])), Err(Why::Nobody));
    }

    #[test]
    fn a_boundary_takes_away_and_gives_nothing() {
        let allow = |action: &str| json!({"Statement": [{"Effect": "Allow", "Action": action, "NotResource": "x"}]});
        let policies = Policies { identity: vec![allow("ec2:*")], boundary: Some(allow("*:Delete*")) };
        assert_eq!(policies.allow(&need("ec2:DeleteVpc", VPC, &[])), Ok(()));
        assert_eq!(policies.allow(&need("ec2:CreateVpc", VPC, &[])), Err(Why::Boundary));
        assert_eq!(policies.allow(&need("iam:DeleteRole", VPC, &[])), Err(Why::Nobody));
    }

    #[test]
    fn conditions_hold_as_iam_says() {
        let cases: &[(Value, Keys, bool)] = &[
            (json!({"StringEquals": {"aws:ResourceTag/a": ["x", "y"]}}), &[("aws:resourcetag/A", &["y"])], true),
            (json!({"StringEquals": {"aws:ResourceTag/a": "x"}}), &[], false),
            (json!({"StringEqualsIfExists": {"aws:ResourceTag/a": "x"}}), &[], true),
            (json!({"StringEqualsIfExists": {"aws:ResourceTag/a": "x"}}), &[("aws:ResourceTag/a", &["z"])], false),
            (
                json!({"StringNotEquals": {"aws:RequestedRegion": ["a", "b"]}}),
                &[("aws:RequestedRegion", &["b"])],
                false,
            ),
            (json!({"StringNotEquals": {"aws:RequestedRegion": ["a", "b"]}}), &[], true),
            (json!({"StringLike": {"ec2:CreateAction": "*"}}), &[], false),
            (json!({"StringLike": {"ec2:CreateAction": "Create?pc"}}), &[("ec2:CreateAction", &["CreateVpc"])], true),
            (json!({"StringNotLike": {"ec2:CreateAction": "C*"}}), &[("ec2:CreateAction", &["CreateVpc"])], false),
            (
                json!({"ArnLike": {"iam:PolicyARN": "arn:*:policy/a*"}}),
                &[("iam:PolicyARN", &["arn:x:policy/ab"])],
                true,
            ),
            (json!({"Bool": {"kms:GrantIsForAWSResource": true}}), &[("kms:GrantIsForAWSResource", &["true"])], true),
            (json!({"Null": {"aws:RequestTag/a": "true"}}), &[], true),
            (json!({"Null": {"aws:RequestTag/a": "true"}}), &[("aws:RequestTag/a", &["x"])], false),
            (json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}), &[("aws:TagKeys", &["b", "a"])], true),
            (json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}), &[("aws:TagKeys", &["b", "c"])], false),
            (json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}), &[], true),
            (json!({"ForAnyValue:StringLike": {"aws:TagKeys": ["a*"]}}), &[("aws:TagKeys", &["b", "ac"])], true),
            (json!({"ForAnyValue:StringLike": {"aws:TagKeys": ["a*"]}}), &[], false),
            // Both operators must match. An unknown operator never matches an Allow.
            (json!({"StringEquals": {"a": "1"}, "Bool": {"b": "true"}}), &[("a", &["1"]), ("b", &["false"])], false),
            (json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}), &[("aws:SourceIp", &["10.0.0.1"])], false),
        ];
        for (condition, context, allowed) in cases {
            let policies = policies(json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}));
            assert_eq!(policies.allow(&need("a:B", "*", context)).is_ok(), *allowed, "{condition} {context:?}");
        }
        let unknown =
            json!({"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"DateLessThan": {"a": "b"}}});
        assert_eq!(policies(unknown).allow(&need("a:B", "*", &[])), Err(Why::Denied));
    }
}
