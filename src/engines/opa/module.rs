//! The Rego module of one validating policy.

use super::super::LeftOut;
use super::matching;
use super::rego::{Rules, text};
use crate::guard::cel::{Expr, Function, Root, Variables};
use crate::guard::policy::{Does, Policy, Validation};

const LIBRARY: &str = include_str!("library.rego");

pub struct Module;

impl Module {
    /// The text of the module. None if the whole policy is left to the native one.
    pub fn of(policy: &Policy, variables: &Variables, left: &mut Vec<LeftOut>) -> Result<Option<String>, String> {
        let Does::Validate(validations) = &policy.does else { return Ok(None) };
        if !policy.fails {
            return Err("failurePolicy is Ignore".to_owned());
        }
        let mut leave = |part: Option<String>| {
            let reason = "it asks the API server's authorizer, which OPA doesn't have".to_owned();
            left.push(LeftOut { policy: policy.name.clone(), part, reason });
        };
        if policy.conditions.iter().any(|condition| asks(&condition.expression, variables)) {
            leave(None);
            return Ok(None);
        }
        let mut rules = Rules::new(variables, &policy.names);
        let mut head = matching::rules(policy)?;
        head.extend(conditions(policy, &mut rules)?);
        for (i, validation) in validations.iter().enumerate() {
            if asks(&validation.expression, variables) {
                leave(Some(validation.message.clone().unwrap_or_else(|| validation.text.clone())));
                continue;
            }
            head.extend(refusal(i + 1, validation, variables, &mut rules)?);
        }
        let Policy { name, .. } = policy;
        let title = format!("# Made by ringfence from the ValidatingAdmissionPolicy {name}.");
        let package = format!("package ringfence.policies[{}]", text(name));
        let parts = [title + "\n" + &package, "import rego.v1".to_owned()];
        let all: Vec<String> = parts.into_iter().chain(head).chain(rules.finish()).collect();
        Ok(Some(format!("{}\n{LIBRARY}", all.join("\n\n"))))
    }
}

/// Match conditions: one that is false ends the matter. Else, one without a value refuses.
fn conditions(policy: &Policy, rules: &mut Rules<'_>) -> Result<Vec<String>, String> {
    let mut made = vec![
        "applies if {\n\tmatches\n\tmet\n}".to_owned(),
        refused(0, &["matches", "not met", "not unmet"], &text("a match condition has no value for this object")),
    ];
    let mut met = Vec::new();
    for condition in &policy.conditions {
        rules.holds(&condition.expression, true, &mut met)?;
        let mut unmet = Vec::new();
        rules.holds(&condition.expression, false, &mut unmet)?;
        made.push(rule("unmet", &unmet));
    }
    match policy.conditions.is_empty() {
        true => Ok(vec!["applies if matches".to_owned()]),
        false => {
            made.push(rule("met", &met));
            Ok(made)
        }
    }
}

fn refusal(
    i: usize,
    validation: &Validation,
    variables: &Variables,
    rules: &mut Rules<'_>,
) -> Result<Vec<String>, String> {
    let mut valid = Vec::new();
    rules.holds(&validation.expression, true, &mut valid)?;
    let fixed = validation.message.clone().filter(|message| !message.is_empty());
    let fixed = text(&fixed.unwrap_or_else(|| format!("failed expression: {}", validation.text)));
    let mut made = vec![rule(&format!("valid_{i}"), &valid)];
    let not_valid = format!("not valid_{i}");
    let expression = validation.message_expression.as_ref().filter(|expression| !asks(expression, variables));
    match expression {
        None => made.push(refused(i, &["applies", &not_valid], &fixed)),
        Some(expression) => {
            let mut body = Vec::new();
            let value = rules.value(expression, &mut body)?;
            body.push(format!("line := one_line({value})"));
            made.push(format!("message_{i} := line if {} else := {fixed}", block(&body)));
            made.push(refused(i, &["applies", &not_valid], &format!("message_{i}")));
        }
    }
    Ok(made)
}

fn refused(i: usize, when: &[&str], message: &str) -> String {
    let when: Vec<String> = when.iter().map(|literal| (*literal).to_owned()).collect();
    format!("refusals[{i}] := {message} if {}", block(&when))
}

/// A rule that is true if all literals are.
pub fn rule(name: &str, body: &[String]) -> String {
    match body.is_empty() {
        true => format!("{name} := true"),
        false => format!("{name} if {}", block(body)),
    }
}

/// A body of literals.
pub fn block(body: &[String]) -> String {
    format!("{{\n\t{}\n}}", body.join("\n\t"))
}

/// Whether an expression asks the authorizer.
fn asks(expression: &Expr, variables: &Variables) -> bool {
    match expression {
        Expr::Root(Root::Authorizer) | Expr::Call(Function::Allowed, _) => true,
        Expr::Variable(slot) => variables.get(*slot).is_some_and(|inner| asks(inner, variables)),
        other => other.parts().into_iter().any(|part| asks(part, variables)),
    }
}
