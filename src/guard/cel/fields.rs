//! Which fields of the object an expression reads, so that a refusal can name them.

use std::collections::BTreeSet;

use super::compile::{Does, Expr, Function, Operator, Root, Variables};

/// The fields of `object` that decide about an expression, such as `spec.containers[].securityContext.privileged`. A path
/// without its beginning stands for a part of the object that the policy puts together itself.
pub fn fields(expression: &Expr, variables: &Variables) -> Vec<String> {
    let mut reader = Reader { variables, found: BTreeSet::new() };
    reader.visit(expression, &mut Vec::new());
    // Policies that put maps together call the part that is checked `is`. Names only say where something is.
    let named = |path: &str| matches!(path.rsplit('.').next(), Some("name" | "is" | "of" | "at"));
    let paths = reader.found.iter().map(|path| path.strip_prefix("is.").unwrap_or(path));
    let without_names: BTreeSet<String> = paths.filter(|path| !named(path)).map(str::to_owned).collect();
    // A field that is read on the way to another one says no more than the other one.
    let inner = |path: &String| {
        without_names
            .iter()
            .any(|other| other.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with(['.', '['])))
    };
    without_names.iter().filter(|path| !inner(path)).cloned().collect()
}

/// The place of a value: a path in the object, or elsewhere.
#[derive(Clone, PartialEq, Eq)]
enum Place {
    In(String),
    /// In the request, the namespace, the old object.
    Elsewhere,
    Unknown,
}

struct Reader<'r> {
    variables: &'r Variables,
    found: BTreeSet<String>,
}

impl Reader<'_> {
    fn visit(&mut self, expression: &Expr, locals: &mut Vec<Place>) {
        match expression {
            Expr::Field { of, .. } | Expr::Has { of, .. } | Expr::Index { of, .. } => {
                if let Place::In(path) = self.place(expression, locals)
                    && !path.is_empty()
                {
                    self.found.insert(path);
                }
                self.visit_base(of, locals);
            }
            Expr::Variable(slot) => {
                if let Some(inner) = self.variables.get(*slot) {
                    self.visit(inner, &mut Vec::new());
                }
            }
            Expr::List(entries) => entries.iter().for_each(|entry| self.visit(&entry.is, locals)),
            Expr::Map(entries) => entries.iter().for_each(|(_, entry)| self.visit(&entry.is, locals)),
            Expr::Patch(fields) => fields.iter().for_each(|(_, value)| self.visit(value, locals)),
            Expr::Not(of) | Expr::Matches(of, _) => self.visit(of, locals),
            // Lists that are put together, and alternatives, say where something is. What is read there decides.
            Expr::Binary(Operator::Add, one, two) => {
                self.visit_unless_chain(one, locals);
                self.visit_unless_chain(two, locals);
            }
            Expr::If(when, then, otherwise) => {
                self.visit(when, locals);
                self.visit_unless_chain(then, locals);
                self.visit_unless_chain(otherwise, locals);
            }
            Expr::Both(one, two) | Expr::Either(one, two) | Expr::Binary(_, one, two) => {
                self.visit(one, locals);
                self.visit(two, locals);
            }
            Expr::Loop(round) => {
                self.visit(&round.over, locals);
                let items = self.items(&round.over, locals);
                let depth = locals.len();
                locals.extend(std::iter::repeat_n(Place::Elsewhere, round.names - 1));
                locals.push(items);
                round.only.iter().for_each(|only| self.visit(only, locals));
                self.visit(&round.body, locals);
                locals.truncate(depth);
            }
            Expr::Within { of, body, .. } => {
                self.visit(of, locals);
                let place = self.place(of, locals);
                locals.push(place);
                self.visit(body, locals);
                locals.pop();
            }
            Expr::Call(_, arguments) => arguments.iter().for_each(|argument| self.visit(argument, locals)),
            Expr::Null
            | Expr::Bool(_)
            | Expr::Int(_)
            | Expr::Uint(_)
            | Expr::Double(_)
            | Expr::Text(_)
            | Expr::Root(_)
            | Expr::Local(_) => {}
        }
    }

    fn visit_unless_chain(&mut self, expression: &Expr, locals: &mut Vec<Place>) {
        let is_chain = match expression {
            Expr::Call(Function::OrValue, of) => matches!(of.first(), Some(Expr::Field { .. })),
            Expr::Field { .. } => true,
            _ => false,
        };
        if !is_chain {
            self.visit(expression, locals);
        }
    }

    /// What a chain of fields begins with, if that reads fields of its own.
    fn visit_base(&mut self, of: &Expr, locals: &mut Vec<Place>) {
        match of {
            Expr::Field { of, .. } | Expr::Index { of, .. } => self.visit_base(of, locals),
            Expr::Variable(_) | Expr::Local(_) | Expr::Root(_) => {}
            other => self.visit(other, locals),
        }
    }

    fn place(&self, expression: &Expr, locals: &[Place]) -> Place {
        let below = |of: &Expr, name: &str| match self.place(of, locals) {
            Place::In(path) if path.is_empty() => Place::In(name.to_owned()),
            Place::In(path) => Place::In(format!("{path}.{name}")),
            Place::Unknown if matches!(of, Expr::Local(_) | Expr::Index { .. }) => Place::In(name.to_owned()),
            other => other,
        };
        match expression {
            Expr::Root(Root::Object) => Place::In(String::new()),
            Expr::Root(_) => Place::Elsewhere,
            Expr::Field { of, name, .. } | Expr::Has { of, name } => below(of, name),
            Expr::Index { of, at, .. } => match &**at {
                Expr::Text(name) => below(of, name),
                _ => self.place(of, locals),
            },
            Expr::Variable(slot) => match self.variables.get(*slot) {
                Some(inner) => self.place(inner, &[]),
                None => Place::Unknown,
            },
            Expr::Local(at) => locals.get(*at).cloned().unwrap_or(Place::Unknown),
            Expr::Call(Function::OrValue | Function::Or | Function::Dyn | Function::Int | Function::String, of) => {
                of.first().map_or(Place::Unknown, |of| self.place(of, locals))
            }
            Expr::Binary(Operator::Add, one, two) | Expr::If(_, one, two) => match self.place(one, locals) {
                Place::In(path) => Place::In(path),
                _ => self.place(two, locals),
            },
            Expr::Loop(round) if round.does == Does::Filter => self.place(&round.over, locals),
            _ => Place::Unknown,
        }
    }

    /// The place of a list's items.
    fn items(&self, over: &Expr, locals: &[Place]) -> Place {
        match self.place(over, locals) {
            Place::In(path) => Place::In(format!("{path}[]")),
            other => other,
        }
    }
}
