//! Which requests a policy is for: its resource rules and selectors.

use super::module::{block, rule};
use super::rego::text;
use crate::guard::matching::{MatchPolicy, Operator, Requirement, Resources, Rule, Scope};
use crate::guard::policy::Policy;

/// The label that every Namespace has with its own name.
const NAME: &str = "kubernetes.io/metadata.name";

/// The rules `matches`, and the refusals of requests that can't be compared.
pub fn rules(policy: &Policy) -> Result<Vec<String>, String> {
    let Resources { match_policy, namespace_selector, object_selector, resource_rules, exclude_resource_rules } =
        &policy.resources;
    if !object_selector.is_empty() {
        return Err("its objectSelector isn't empty".to_owned());
    }
    let own = |resources: &Resources| {
        !resources.namespace_selector.is_empty()
            || !resources.object_selector.is_empty()
            || !resources.resource_rules.is_empty()
            || !resources.exclude_resource_rules.is_empty()
    };
    if policy.bindings.iter().any(|binding| own(&binding.resources)) {
        return Err("its binding has matchResources".to_owned());
    }
    let mut made = vec!["matches if {\n\tasked\n\tnot excluded\n\tselected\n}".to_owned()];
    let mut of_versions = Vec::new();
    for resource_rule in resource_rules {
        let (body, versions) = literals(resource_rule)?;
        if let Some(versions) = versions {
            made.push(rule("asked", &[body.as_slice(), &[versions]].concat()));
            of_versions.push(body);
        } else {
            made.push(rule("asked", &body));
        }
    }
    for exclude in exclude_resource_rules {
        let (body, versions) = literals(exclude)?;
        made.push(rule("excluded", &body.into_iter().chain(versions).collect::<Vec<_>>()));
    }
    if exclude_resource_rules.is_empty() {
        made.push("excluded := false".to_owned());
    }
    made.extend(selected(namespace_selector.requirements()));
    if *match_policy == MatchPolicy::Equivalent && !of_versions.is_empty() {
        made.extend(of_versions.iter().map(|body| rule("asked_in_some_version", body)));
        let body = ["asked_in_some_version", "not asked", "not excluded", "selected"].map(str::to_owned);
        let message = "sprintf(\"%s of the version %s can't be compared with this policy; use the version of %s that the \
                       policy names\", [input.request.resource.resource, input.request.resource.version, \
                       input.request.resource.group])";
        made.push(format!("refusals[0] := {message} if {}", block(&body)));
    }
    Ok(made)
}

/// What a resource rule asks for, without versions, and the versions.
fn literals(rule: &Rule) -> Result<(Vec<String>, Option<String>), String> {
    if !rule.resource_names.is_empty() {
        return Err("a rule has resourceNames".to_owned());
    }
    let among = |what: &str, list: &[String]| {
        let all = list.iter().any(|one| one == "*");
        (!all).then(|| format!("{what} in {}", set(list)))
    };
    let mut body = Vec::new();
    body.extend(among("input.request.resource.group", &rule.api_groups));
    body.extend(among("input.request.operation", &rule.operations));
    match rule.resources.as_slice() {
        [all] if all == "*/*" => {}
        [all] if all == "*" => body.push("not contains(resource, \"/\")".to_owned()),
        list if list.iter().any(|one| one.contains('*')) => {
            return Err(format!("the resources {} have a pattern", list.join(", ")));
        }
        list => body.push(format!("resource in {}", set(list))),
    }
    match rule.scope {
        Scope::All => {}
        Scope::Namespaced => body.push("namespaced".to_owned()),
        Scope::Cluster => body.push("not namespaced".to_owned()),
    }
    Ok((body, among("input.request.resource.version", &rule.api_versions)))
}

fn set(list: &[String]) -> String {
    let list: Vec<String> = list.iter().map(|one| text(one)).collect();
    format!("{{{}}}", list.join(", "))
}

/// The namespace selector. An object in no namespace that isn't a namespace itself always fits. If a Namespace isn't
/// known, its name still is. So where the name decides, a request isn't refused, and system namespaces stay free.
fn selected(requirements: Vec<Requirement>) -> Vec<String> {
    if requirements.is_empty() {
        return vec!["selected := true".to_owned()];
    }
    let of_name = requirements.iter().filter(|requirement| requirement.key == NAME);
    let mut by_name: Vec<String> = of_name.map(|one| literal(one, "input.request.namespace")).collect();
    let others = requirements.iter().filter(|requirement| requirement.key != NAME);
    let by_label = others.map(|one| literal(one, &format!("labels[{}]", text(&one.key))));
    let body: Vec<String> = ["labels".to_owned()].into_iter().chain(by_name.clone()).chain(by_label).collect();
    by_name.extend(["namespaced".to_owned(), "not namespace_object".to_owned()]);
    by_name.extend(["asked".to_owned(), "not excluded".to_owned()]);
    vec![
        "selected if {\n\tnot namespaced\n\tnot of_namespace\n}".to_owned(),
        rule("selected", &body),
        rule("unknown_namespace", &by_name),
    ]
}

fn literal(requirement: &Requirement, value: &str) -> String {
    match requirement.operator {
        Operator::In => format!("{value} in {}", set(&requirement.values)),
        Operator::NotIn => format!("not {value} in {}", set(&requirement.values)),
        Operator::Exists => format!("is_string({value})"),
        Operator::DoesNotExist => format!("not is_string({value})"),
    }
}
