//! Which expressions have optional values. In Rego, such a value is an array, so it has to be known beforehand.

use crate::guard::cel::{Does, Expr, Function, Variables};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any other value. Those of the request are all plain.
    Plain,
    Optional,
    /// A list of optional values.
    Optionals,
}

impl Kind {
    pub fn of_items(self) -> Self {
        match self {
            Self::Optionals => Self::Optional,
            _ => Self::Plain,
        }
    }
}

/// `locals`: what the names stand for that the loops around the expression give.
pub fn kind(expression: &Expr, locals: &[Kind], variables: &Variables) -> Result<Kind, String> {
    let of = |inner: &Expr| kind(inner, locals, variables);
    match expression {
        Expr::Field { optional: true, .. } | Expr::Index { optional: true, .. } => Ok(Kind::Optional),
        Expr::Field { of: inner, .. } | Expr::Index { of: inner, .. } => match of(inner)? {
            Kind::Optionals => Err("an index of a list of optional values isn't known in Rego".to_owned()),
            kind => Ok(kind),
        },
        Expr::List(entries) => {
            let kinds = entries.iter().map(|entry| of(&entry.is)).collect::<Result<Vec<_>, _>>()?;
            match kinds.first() {
                None => Ok(Kind::Plain),
                Some(first) if kinds.iter().any(|kind| kind != first) => Err(mixed()),
                Some(Kind::Plain) => Ok(Kind::Plain),
                Some(Kind::Optional) => Ok(Kind::Optionals),
                Some(Kind::Optionals) => Err("a list of lists of optional values isn't known in Rego".to_owned()),
            }
        }
        Expr::If(_, then, otherwise) => match (of(then)?, of(otherwise)?) {
            (one, two) if one == two => Ok(one),
            _ => Err(mixed()),
        },
        Expr::Loop(round) if round.does == Does::Filter => of(&round.over),
        Expr::Loop(round) if round.does == Does::Map => {
            let inner = [locals, &[of(&round.over)?.of_items()]].concat();
            match kind(&round.body, &inner, variables)? {
                Kind::Plain => Ok(Kind::Plain),
                _ => Err("a map to optional values isn't known in Rego".to_owned()),
            }
        }
        Expr::Variable(slot) => variables.get(*slot).map_or(Ok(Kind::Plain), |inner| kind(inner, &[], variables)),
        Expr::Local(at) => Ok(locals.get(*at).copied().unwrap_or(Kind::Plain)),
        Expr::Call(Function::Or | Function::OptionalOf | Function::OptionalNone, _) => Ok(Kind::Optional),
        Expr::Call(Function::Dyn, inner) => inner.first().map_or(Ok(Kind::Plain), of),
        _ => Ok(Kind::Plain),
    }
}

fn mixed() -> String {
    "optional and other values in one place aren't known in Rego".to_owned()
}
