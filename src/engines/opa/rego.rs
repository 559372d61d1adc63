//! CEL expressions in Rego.
//!
//! A CEL expression is true, false, or an error. In Rego, an error is undefined. So each boolean expression is translated
//! twice: into literals that hold only if it is true, and into literals that hold only if it is false. With an error,
//! neither holds, and the rule refuses. Rego's `not` is never used for CEL's `!`, because it is also true for what is
//! undefined.
//!
//! A body of literals has at most one solution. Alternatives, and searches in lists, become rules of their own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::kind::{Kind, kind};
use crate::guard::cel::{Does, Expr, Function, Loop, Names, Operator, Root, Variables};

type Result<T> = std::result::Result<T, String>;

/// Literals, which hold together.
type Body = Vec<String>;

/// The rules that a module's expressions need.
pub struct Rules<'g> {
    variables: &'g Variables,
    /// By slot.
    names: BTreeMap<usize, String>,
    made: Vec<String>,
    /// The variables that are made.
    done: BTreeSet<usize>,
    /// Calls of the rules that were made for expressions.
    known: HashMap<String, String>,
    /// What the names that loops give stand for, from the outermost.
    locals: Vec<Kind>,
    count: usize,
}

/// A text as a term.
pub fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl<'g> Rules<'g> {
    pub fn new(variables: &'g Variables, names: &Names) -> Self {
        let names = names.iter().map(|(name, slot)| (*slot, name.clone())).collect();
        let (made, done, known, locals) = (Vec::new(), BTreeSet::new(), HashMap::new(), Vec::new());
        Self { variables, names, made, done, known, locals, count: 0 }
    }

    pub fn finish(self) -> Vec<String> {
        self.made
    }

    /// Adds literals that hold if and only if the expression has this value.
    pub fn holds(&mut self, expression: &Expr, want: bool, body: &mut Body) -> Result<()> {
        match expression {
            Expr::Bool(is) => {
                if *is != want {
                    body.push("false".to_owned());
                }
            }
            Expr::Not(of) => self.holds(of, !want, body)?,
            Expr::Both(one, two) if want => self.all([(one, want), (two, want)], body)?,
            Expr::Either(one, two) if !want => self.all([(one, want), (two, want)], body)?,
            Expr::Both(one, two) | Expr::Either(one, two) => {
                let ways: [&[(&Expr, bool)]; 2] = [&[(one, want)], &[(two, want)]];
                let call = self.one_of(expression, want, &ways)?;
                body.push(call);
            }
            Expr::If(when, then, otherwise) => {
                let ways: [&[(&Expr, bool)]; 2] = [&[(when, true), (then, want)], &[(when, false), (otherwise, want)]];
                let call = self.one_of(expression, want, &ways)?;
                body.push(call);
            }
            Expr::Loop(round) if round.does == Does::All || round.does == Does::Exists => {
                match (round.does == Does::All) == want {
                    true => self.every(round, want, body)?,
                    false => {
                        let call = self.some(expression, round, want)?;
                        body.push(call);
                    }
                }
            }
            Expr::Binary(operator, one, two) if sign(*operator).is_some() => {
                let operator = if want { *operator } else { opposite(*operator) };
                let term = self.binary(operator, one, two, body)?;
                body.push(term);
            }
            _ => {
                let value = self.value(expression, body)?;
                body.push(format!("{value} == {want}"));
            }
        }
        Ok(())
    }

    fn all<const N: usize>(&mut self, parts: [(&Expr, bool); N], body: &mut Body) -> Result<()> {
        parts.into_iter().try_for_each(|(part, want)| self.holds(part, want, body))
    }

    /// A rule that holds in any of these ways.
    fn one_of(&mut self, expression: &Expr, want: bool, ways: &[&[(&Expr, bool)]]) -> Result<String> {
        let key = format!("{want} {expression:?} {:?}", self.locals);
        if let Some(call) = self.known.get(&key) {
            return Ok(call.clone());
        }
        let call = self.head("is", &[], expression);
        let mut rules = Vec::new();
        for way in ways {
            let mut body = Body::new();
            for (part, want) in *way {
                self.holds(part, *want, &mut body)?;
            }
            rules.push(format!("{call} if {}", block(&body)));
        }
        self.made.push(rules.join("\n\n"));
        self.known.insert(key, call.clone());
        Ok(call)
    }

    fn every(&mut self, round: &Loop, want: bool, body: &mut Body) -> Result<()> {
        let items = self.items(round, body)?;
        let (item, mut inner) = self.within(round, |rules, body| rules.holds(&round.body, want, body))?;
        if !uses(&round.body, self.locals.len()) {
            // OPA refuses a name that isn't used.
            inner.push(format!("_ = {item}"));
        }
        body.push(format!("every {item} in {items} {{ {} }}", inner.join("; ")));
        Ok(())
    }

    /// A rule that holds if an item has this value.
    fn some(&mut self, expression: &Expr, round: &Loop, want: bool) -> Result<String> {
        let key = format!("{want} {expression:?} {:?}", self.locals);
        if let Some(call) = self.known.get(&key) {
            return Ok(call.clone());
        }
        let call = self.head("is", &[], expression);
        let mut body = Body::new();
        let items = self.items(round, &mut body)?;
        let (item, inner) = self.within(round, |rules, body| rules.holds(&round.body, want, body))?;
        body.push(format!("{item} := {items}[_]"));
        body.extend(inner);
        self.made.push(format!("{call} if {}", block(&body)));
        self.known.insert(key, call.clone());
        Ok(call)
    }

    /// The term for what a loop goes through.
    fn items(&mut self, round: &Loop, body: &mut Body) -> Result<String> {
        if round.names != 1 || round.only.is_some() {
            return Err("a loop with two names or a condition isn't known in Rego".to_owned());
        }
        let over = self.value(&round.over, body)?;
        Ok(self.bound(&format!("items({over})"), body))
    }

    /// What `add` adds inside of a loop, and the name of the item.
    fn within(&mut self, round: &Loop, add: impl FnOnce(&mut Self, &mut Body) -> Result<()>) -> Result<(String, Body)> {
        let kind = self.kind(&round.over)?.of_items();
        let item = format!("x{}", self.locals.len());
        let mut body = Body::new();
        self.locals.push(kind);
        let added = add(self, &mut body);
        self.locals.pop();
        added.map(|()| (item, body))
    }

    /// The term for the value of an expression, with literals that it needs. Without a value, they don't hold, or the term
    /// is undefined.
    pub fn value(&mut self, expression: &Expr, body: &mut Body) -> Result<String> {
        Ok(match expression {
            Expr::Null => "null".to_owned(),
            Expr::Bool(is) => is.to_string(),
            // A line that begins with a minus would go on with the line before.
            Expr::Int(int) if *int < 0 => self.bound(&int.to_string(), body),
            Expr::Int(int) => int.to_string(),
            Expr::Text(is) => text(is),
            Expr::Root(Root::Object) => "input.request.object".to_owned(),
            Expr::Root(Root::OldObject) => "input.request.oldObject".to_owned(),
            Expr::Root(Root::Request) => "input.request".to_owned(),
            Expr::Root(Root::Namespace) => "namespace_object".to_owned(),
            Expr::Variable(slot) => self.variable(*slot)?,
            Expr::Local(at) => format!("x{at}"),
            Expr::Field { of, name, optional } => return self.member(of, &text(name), *optional, body),
            Expr::Index { of, at, optional } => {
                let at = self.value(at, body)?;
                return self.member(of, &at, *optional, body);
            }
            Expr::Has { of, name } => {
                let has = if self.kind(of)? == Kind::Optional { "has_inner" } else { "has" };
                let of = self.value(of, body)?;
                self.bound(&format!("{has}({of}, {})", text(name)), body)
            }
            Expr::List(entries) => {
                let mut items = Vec::new();
                for entry in entries {
                    items.push(self.entry(entry.optional, &entry.is, body)?);
                }
                self.kind(expression)?;
                self.bound(&format!("[{}]", items.join(", ")), body)
            }
            Expr::Map(entries) => {
                let mut members = Vec::new();
                for (key, entry) in entries {
                    self.plain(&[&entry.is])?;
                    let key = self.value(key, body)?;
                    members.push(format!("{key}: {}", self.entry(entry.optional, &entry.is, body)?));
                }
                self.bound(&format!("{{{}}}", members.join(", ")), body)
            }
            Expr::Matches(of, pattern) => {
                let of = self.value(of, body)?;
                self.bound(&format!("regex.match({}, {of})", text(pattern.as_str())), body)
            }
            Expr::Binary(operator, one, two) => {
                let term = self.binary(*operator, one, two, body)?;
                self.bound(&term, body)
            }
            Expr::Not(_) | Expr::Both(..) | Expr::Either(..) | Expr::If(..) => return self.by_rule(expression, body),
            Expr::Loop(round) => match round.does {
                Does::All | Does::Exists => return self.by_rule(expression, body),
                Does::Filter | Does::Map => return self.listed(round, body),
                Does::ExistsOne => return Err("exists_one isn't known in Rego".to_owned()),
            },
            Expr::Call(function, arguments) => return self.call(*function, arguments, body),
            Expr::Root(Root::Authorizer) | Expr::Uint(_) | Expr::Double(_) | Expr::Patch(_) | Expr::Within { .. } => {
                return Err(format!("{expression:?} isn't known in Rego"));
            }
        })
    }

    fn entry(&mut self, optional: bool, is: &Expr, body: &mut Body) -> Result<String> {
        match optional {
            true => Err("an optional entry isn't known in Rego".to_owned()),
            false => self.value(is, body),
        }
    }

    /// A member of a map, or an item of a list.
    fn member(&mut self, of: &Expr, at: &str, optional: bool, body: &mut Body) -> Result<String> {
        if !matches!(of, Expr::Root(_) | Expr::Variable(_) | Expr::Local(_)) && of.parts().is_empty() {
            return Err("a member of a literal isn't known in Rego".to_owned());
        }
        let kind = self.kind(of)?;
        let of = self.value(of, body)?;
        Ok(match (kind, optional) {
            (Kind::Optional, _) => self.bound(&format!("further({of}, {at})"), body),
            (_, true) => self.bound(&format!("maybe({of}, {at})"), body),
            _ => format!("{of}[{at}]"),
        })
    }

    /// The term of an operator.
    fn binary(&mut self, operator: Operator, one: &Expr, two: &Expr, body: &mut Body) -> Result<String> {
        let kinds = [self.kind(one)?, self.kind(two)?];
        let is_equality = matches!(operator, Operator::Equal | Operator::NotEqual);
        if kinds[0] != kinds[1] || kinds[0] != Kind::Plain && !is_equality {
            return Err(format!("{operator:?} of optional values isn't known in Rego"));
        }
        let one = self.value(one, body)?;
        let two = self.value(two, body)?;
        let function = match operator {
            Operator::In => "member",
            Operator::Add => "added",
            _ => {
                let sign = sign(operator).ok_or_else(|| format!("{operator:?} isn't known in Rego"))?;
                // Rego has an order of values of different types, and CEL doesn't.
                if !is_equality {
                    body.push(format!("comparable({one}, {two})"));
                }
                return Ok(format!("{one} {sign} {two}"));
            }
        };
        Ok(format!("{function}({one}, {two})"))
    }

    /// `filter` and `map`. A comprehension leaves out what is undefined. So if an item has no value, the list has none.
    fn listed(&mut self, round: &Loop, body: &mut Body) -> Result<String> {
        let items = self.items(round, body)?;
        let mut value = String::new();
        let (item, mut inner) = self.within(round, |rules, body| {
            value = rules.value(&round.body, body)?;
            Ok(())
        })?;
        inner.insert(0, format!("{item} := {items}[_]"));
        let values = self.bound(&format!("[{value} | {}]", inner.join("; ")), body);
        body.push(format!("count({values}) == count({items})"));
        if round.does == Does::Map {
            return Ok(values);
        }
        body.push(format!("every kept in {values} {{ is_boolean(kept) }}"));
        Ok(self.bound(&format!("[{item} | {item} := {items}[i]; {values}[i]]"), body))
    }

    fn call(&mut self, function: Function, arguments: &[Expr], body: &mut Body) -> Result<String> {
        let term = match (function, arguments) {
            (Function::OrValue | Function::Or, [of, other]) => return self.or(function, of, other, body),
            (Function::HasValue, [of]) => format!("count({}) == 1", self.optional(of, body)?),
            (Function::Value, [of]) => return Ok(format!("{}[0]", self.optional(of, body)?)),
            (Function::Dyn, [of]) => return self.value(of, body),
            (_, arguments) => {
                self.plain(&arguments.iter().collect::<Vec<_>>())?;
                let mut terms = Vec::new();
                for argument in arguments {
                    terms.push(self.value(argument, body)?);
                }
                match (function, terms.as_slice()) {
                    (Function::Size | Function::SizeOf, [of]) => format!("count({of})"),
                    (Function::StartsWith, [of, with]) => format!("startswith({of}, {with})"),
                    (Function::EndsWith, [of, with]) => format!("endswith({of}, {with})"),
                    (Function::Contains, [of, with]) => format!("contains({of}, {with})"),
                    (Function::Split, [of, at]) => format!("split({of}, {at})"),
                    (Function::Join, [of, separator]) => format!("concat({separator}, {of})"),
                    (Function::Replace, [of, from, to]) => format!("replace({of}, {from}, {to})"),
                    (Function::Substring, [of, from]) => format!("part({of}, {from})"),
                    (Function::Int, [of]) => format!("whole({of})"),
                    (Function::String, [of]) => format!("text({of})"),
                    _ => return Err(format!("the function {function:?} isn't known in Rego")),
                }
            }
        };
        Ok(self.bound(&term, body))
    }

    /// `orValue` and `or`. The second value isn't needed if there is a first one.
    fn or(&mut self, function: Function, of: &Expr, other: &Expr, body: &mut Body) -> Result<String> {
        let kind = if function == Function::Or { Kind::Optional } else { Kind::Plain };
        if self.kind(other)? != kind {
            return Err(format!("{function:?} of another kind of value isn't known in Rego"));
        }
        let value = self.optional(of, body)?;
        if function == Function::OrValue && is_constant(other) {
            let other = self.value(other, body)?;
            return Ok(self.bound(&format!("or_value({value}, {other})"), body));
        }
        let head = self.head("value", &["optional"], other);
        let first = if function == Function::Or { "optional" } else { "optional[0]" };
        let mut second = Body::new();
        let term = self.value(other, &mut second)?;
        self.made
            .push(format!("{head} := {first} if {{\n\tcount(optional) == 1\n}} else := {term}{}", condition(&second)));
        let call = head.replacen("(optional", &format!("({value}"), 1);
        Ok(self.bound(&call, body))
    }

    fn optional(&mut self, of: &Expr, body: &mut Body) -> Result<String> {
        match self.kind(of)? {
            Kind::Optional => self.value(of, body),
            _ => Err("orValue and hasValue are for optional values".to_owned()),
        }
    }

    /// A rule for the value of an expression that has two ways.
    fn by_rule(&mut self, expression: &Expr, body: &mut Body) -> Result<String> {
        let key = format!("value {expression:?} {:?}", self.locals);
        let call = match self.known.get(&key) {
            Some(call) => call.clone(),
            None => {
                let head = self.head("value", &[], expression);
                self.define(&head, expression)?;
                self.known.insert(key, head.clone());
                head
            }
        };
        Ok(self.bound(&call, body))
    }

    fn variable(&mut self, slot: usize) -> Result<String> {
        let name = self.names.get(&slot).map_or_else(|| format!("unnamed_{slot}"), Clone::clone);
        let name = format!("variables.{name}");
        if self.done.insert(slot) {
            let variables = self.variables;
            let expression = variables.get(slot).ok_or("there is no such variable")?;
            let locals = std::mem::take(&mut self.locals);
            let defined = self.define(&name, expression);
            self.locals = locals;
            defined?;
        }
        Ok(name)
    }

    /// Makes the rule whose value is the expression's.
    fn define(&mut self, head: &str, expression: &Expr) -> Result<()> {
        let (mut one, mut two) = (Body::new(), Body::new());
        let rule = match expression {
            Expr::Not(_) | Expr::Both(..) | Expr::Either(..) => self.truth(head, expression)?,
            Expr::Loop(round) if matches!(round.does, Does::All | Does::Exists) => self.truth(head, expression)?,
            Expr::If(when, then, otherwise) => {
                self.holds(when, true, &mut one)?;
                let then = self.value(then, &mut one)?;
                self.holds(when, false, &mut two)?;
                let otherwise = self.value(otherwise, &mut two)?;
                format!("{head} := {then}{} else := {otherwise}{}", condition(&one), condition(&two))
            }
            _ => {
                let value = self.value(expression, &mut one)?;
                format!("{head} := {value}{}", condition(&one))
            }
        };
        self.made.push(rule);
        Ok(())
    }

    fn truth(&mut self, head: &str, expression: &Expr) -> Result<String> {
        let (mut yes, mut no) = (Body::new(), Body::new());
        self.holds(expression, true, &mut yes)?;
        self.holds(expression, false, &mut no)?;
        Ok(format!("{head} := true{} else := false{}", condition(&yes), condition(&no)))
    }

    /// The head of a new rule, which takes `more` and the names of loops that the expression uses.
    fn head(&mut self, what: &str, more: &[&str], expression: &Expr) -> String {
        let mut locals = BTreeSet::new();
        free(expression, self.locals.len(), &mut locals);
        let more = more.iter().map(|name| (*name).to_owned());
        let arguments: Vec<String> = more.chain(locals.iter().map(|at| format!("x{at}"))).collect();
        self.count += 1;
        match arguments.is_empty() {
            true => format!("{what}_{}", self.count),
            false => format!("{what}_{}({})", self.count, arguments.join(", ")),
        }
    }

    /// Gives a term a name, so that it is evaluated once.
    fn bound(&mut self, term: &str, body: &mut Body) -> String {
        self.count += 1;
        let name = format!("t{}", self.count);
        body.push(format!("{name} := {term}"));
        name
    }

    /// An error if one of the values is optional.
    fn plain(&self, all: &[&Expr]) -> Result<()> {
        all.iter().try_for_each(|one| match self.kind(one)? {
            Kind::Plain => Ok(()),
            _ => Err("an optional value isn't known here in Rego".to_owned()),
        })
    }

    fn kind(&self, expression: &Expr) -> Result<Kind> {
        kind(expression, &self.locals, self.variables)
    }
}

/// The sign of a comparison.
fn sign(operator: Operator) -> Option<&'static str> {
    Some(match operator {
        Operator::Equal => "==",
        Operator::NotEqual => "!=",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::Greater => ">",
        Operator::GreaterOrEqual => ">=",
        _ => return None,
    })
}

/// The comparison that is true where this one is false.
fn opposite(operator: Operator) -> Operator {
    match operator {
        Operator::Equal => Operator::NotEqual,
        Operator::NotEqual => Operator::Equal,
        Operator::Less => Operator::GreaterOrEqual,
        Operator::LessOrEqual => Operator::Greater,
        Operator::Greater => Operator::LessOrEqual,
        Operator::GreaterOrEqual => Operator::Less,
        other => other,
    }
}

/// The names of loops around an expression that it uses.
fn free(expression: &Expr, outer: usize, found: &mut BTreeSet<usize>) {
    if let Expr::Local(at) = expression
        && *at < outer
    {
        found.insert(*at);
    }
    expression.parts().into_iter().for_each(|part| free(part, outer, found));
}

fn uses(expression: &Expr, local: usize) -> bool {
    matches!(expression, Expr::Local(at) if *at == local)
        || expression.parts().into_iter().any(|part| uses(part, local))
}

fn is_constant(expression: &Expr) -> bool {
    match expression {
        Expr::Null | Expr::Bool(_) | Expr::Int(_) | Expr::Text(_) => true,
        Expr::List(_) | Expr::Map(_) => expression.parts().into_iter().all(is_constant),
        _ => false,
    }
}

fn block(body: &[String]) -> String {
    match body.is_empty() {
        true => "{\n\ttrue\n}".to_owned(),
        false => format!("{{\n\t{}\n}}", body.join("\n\t")),
    }
}

/// A body, if there is one, of a rule with a value.
fn condition(body: &[String]) -> String {
    match body.is_empty() {
        true => " if true".to_owned(),
        false => format!(" if {}", block(body)),
    }
}
