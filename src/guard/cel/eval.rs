//! The evaluation of expressions on a request.

use std::cell::{Cell, OnceCell};
use std::cmp::Ordering;
use std::rc::Rc;

use serde_json::Value;

use super::Fault;
use super::compile::{Does, Entry, Expr, Function, Loop, Operator, Root, Variables};
use super::value::{Check, Val};

type Result<T> = std::result::Result<T, Fault>;

/// How many steps the expressions of one policy may take. An object of 300 containers takes about a hundredth.
/// Kubernetes limits the cost of a policy, too ("Resource constraints" in "Common Expression Language in Kubernetes").
const STEPS: u64 = 2_000_000;

/// Answers whether the requester may do something.
pub type Ask<'a> = &'a dyn Fn(&Check) -> bool;

/// The values of names, for one request.
pub struct Scene<'a> {
    pub object: &'a Value,
    pub old_object: &'a Value,
    pub request: &'a Value,
    /// Null for an object that is in no namespace.
    pub namespace: &'a Value,
    authorizer: Ask<'a>,
    variables: &'a Variables,
    /// Kubernetes, too, evaluates a variable when it is first used, and at most once.
    known: Vec<OnceCell<Result<Val<'a>>>>,
    steps: Cell<u64>,
}

/// The names that loops give, from the outermost.
type Locals<'a> = Vec<Val<'a>>;

impl<'a> Scene<'a> {
    pub fn new(
        [object, old_object, request, namespace]: [&'a Value; 4],
        authorizer: Ask<'a>,
        variables: &'a Variables,
    ) -> Self {
        let known = std::iter::repeat_with(OnceCell::new).take(variables.len()).collect();
        Self { object, old_object, request, namespace, authorizer, variables, known, steps: Cell::new(0) }
    }

    /// Gives the next policy its own steps.
    pub fn rest(&self) {
        self.steps.set(0);
    }

    pub fn value(&self, expression: &'a Expr) -> Result<Val<'a>> {
        self.eval(expression, &mut Vec::new())
    }

    pub fn bool(&self, expression: &'a Expr) -> Result<bool> {
        truth(&self.value(expression)?)
    }

    fn step(&self, count: usize) -> Result<()> {
        let steps = self.steps.get().saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.steps.set(steps);
        match steps > STEPS {
            true => Err(Fault::new("the object is too large to be checked".to_owned())),
            false => Ok(()),
        }
    }

    fn eval(&self, expression: &'a Expr, locals: &mut Locals<'a>) -> Result<Val<'a>> {
        self.step(1)?;
        Ok(match expression {
            Expr::Null => Val::Null,
            Expr::Bool(b) => Val::Bool(*b),
            Expr::Int(int) => Val::Int(*int),
            Expr::Uint(uint) => Val::Uint(*uint),
            Expr::Double(double) => Val::Double(*double),
            Expr::Text(text) => Val::Str(text),
            Expr::Root(root) => self.root(*root),
            Expr::Variable(slot) => return self.variable(*slot),
            Expr::Local(place) => locals.get(*place).cloned().unwrap_or(Val::Null),
            Expr::Field { of, name, optional } => return field(self.eval(of, locals)?, name, *optional),
            Expr::Has { of, name } => return has(&self.eval(of, locals)?, name),
            Expr::Index { of, at, optional } => {
                let of = self.eval(of, locals)?;
                return index(of, &self.eval(at, locals)?, *optional);
            }
            Expr::List(entries) => {
                let mut items = Vec::with_capacity(entries.len());
                for entry in entries {
                    items.extend(self.entry(entry, locals)?);
                }
                Val::list(items)
            }
            Expr::Map(entries) => {
                let mut map = Vec::with_capacity(entries.len());
                for (key, entry) in entries {
                    let key = self.eval(key, locals)?;
                    map.extend(self.entry(entry, locals)?.map(|value| (key, value)));
                }
                Val::Map(map.into())
            }
            Expr::Patch(fields) => {
                let fields = fields.iter().map(|(name, value)| Ok((&**name, self.eval(value, locals)?)));
                Val::Patch(fields.collect::<Result<_>>()?)
            }
            Expr::Not(of) => Val::Bool(!truth(&self.eval(of, locals)?)?),
            Expr::Both(one, two) => return self.decided(false, [one, two], locals),
            Expr::Either(one, two) => return self.decided(true, [one, two], locals),
            Expr::If(when, then, otherwise) => match truth(&self.eval(when, locals)?)? {
                true => return self.eval(then, locals),
                false => return self.eval(otherwise, locals),
            },
            Expr::Binary(operator, one, two) => {
                let one = self.eval(one, locals)?;
                let two = self.eval(two, locals)?;
                return self.binary(*operator, &one, &two);
            }
            Expr::Matches(of, pattern) => Val::Bool(pattern.is_match(text(&self.eval(of, locals)?)?)),
            Expr::Loop(round) => return self.round(round, locals),
            Expr::Within { of, body, flat } => return self.within(of, body, *flat, locals),
            Expr::Call(function, arguments) => return self.call(*function, arguments, locals),
        })
    }

    fn root(&self, root: Root) -> Val<'a> {
        match root {
            Root::Object => Val::of(self.object),
            Root::OldObject => Val::of(self.old_object),
            Root::Request => Val::of(self.request),
            Root::Namespace => Val::of(self.namespace),
            Root::Authorizer => Val::Authorizer(Rc::default()),
        }
    }

    /// `optMap` and `optFlatMap`.
    fn within(&self, of: &'a Expr, body: &'a Expr, flat: bool, locals: &mut Locals<'a>) -> Result<Val<'a>> {
        let inner = match self.eval(of, locals)? {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => inner,
            of => return Err(Fault::kinds("optMap", &[&of])),
        };
        locals.push(Val::clone(&inner));
        let result = self.eval(body, locals);
        locals.pop();
        match (result?, flat) {
            (result @ Val::Optional(_), true) => Ok(result),
            (result, true) => Err(Fault::kinds("optFlatMap", &[&result])),
            (result, false) => Ok(result.some()),
        }
    }

    fn entry(&self, entry: &'a Entry, locals: &mut Locals<'a>) -> Result<Option<Val<'a>>> {
        match (self.eval(&entry.is, locals)?, entry.optional) {
            (value, false) => Ok(Some(value)),
            (Val::Optional(inner), true) => Ok(inner.map(|inner| Val::clone(&inner))),
            (value, true) => Err(Fault::kinds("an optional entry", &[&value])),
        }
    }

    fn variable(&self, slot: usize) -> Result<Val<'a>> {
        let (Some(known), Some(expression)) = (self.known.get(slot), self.variables.get(slot)) else {
            return Err(Fault::new("there is no such variable".to_owned()));
        };
        known.get_or_init(|| self.value(expression)).clone()
    }

    /// `&&` and `||`: an operand that decides makes the other one's error unimportant (CEL language definition,
    /// "Logical operators").
    fn decided(&self, by: bool, operands: [&'a Expr; 2], locals: &mut Locals<'a>) -> Result<Val<'a>> {
        let mut error = None;
        for operand in operands {
            match self.eval(operand, locals).and_then(|value| truth(&value)) {
                Ok(value) if value == by => return Ok(Val::Bool(by)),
                Ok(_) => {}
                Err(fault) => error = error.or(Some(fault)),
            }
        }
        error.map_or(Ok(Val::Bool(!by)), Err)
    }

    fn round(&self, round: &'a Loop, locals: &mut Locals<'a>) -> Result<Val<'a>> {
        let over = self.eval(&round.over, locals)?;
        let inner = locals.len();
        let result = self.rounds(round, &over, locals);
        locals.truncate(inner);
        result
    }

    fn rounds(&self, round: &'a Loop, over: &Val<'a>, locals: &mut Locals<'a>) -> Result<Val<'a>> {
        let inner = locals.len();
        let is_map = over.kind() == "map";
        let mut made = Vec::new();
        let (mut fits, mut error) = (0_usize, None);
        for (i, item) in over.items()?.enumerate() {
            self.step(1)?;
            locals.truncate(inner);
            if round.names == 2 {
                let (key, value) = match is_map {
                    true => (item.clone(), over.member(&item)?.unwrap_or(Val::Null)),
                    false => (Val::Int(i64::try_from(i).unwrap_or(i64::MAX)), item.clone()),
                };
                locals.extend([key, value]);
            } else {
                locals.push(item.clone());
            }
            if let Some(only) = &round.only
                && !truth(&self.eval(only, locals)?)?
            {
                continue;
            }
            let body = self.eval(&round.body, locals);
            match round.does {
                Does::Map => made.push(body?),
                Does::Filter => {
                    if truth(&body?)? {
                        made.push(item);
                    }
                }
                Does::ExistsOne => fits += usize::from(truth(&body?)?),
                // An item that decides makes errors of others unimportant (CEL language definition, "Macros").
                Does::All | Does::Exists => match body.and_then(|body| truth(&body)) {
                    Ok(fits) if fits == (round.does == Does::Exists) => return Ok(Val::Bool(fits)),
                    Ok(_) => {}
                    Err(fault) => error = error.or(Some(fault)),
                },
            }
        }
        match (round.does, error) {
            (_, Some(fault)) => Err(fault),
            (Does::Map | Does::Filter, None) => Ok(Val::list(made)),
            (Does::ExistsOne, None) => Ok(Val::Bool(fits == 1)),
            (Does::All, None) => Ok(Val::Bool(true)),
            (Does::Exists, None) => Ok(Val::Bool(false)),
        }
    }

    fn binary(&self, operator: Operator, one: &Val<'a>, two: &Val<'a>) -> Result<Val<'a>> {
        let ordered = |fits: fn(Ordering) -> bool| Ok(Val::Bool(one.compare(two)?.is_some_and(fits)));
        match operator {
            Operator::Equal => Ok(Val::Bool(one.equals(two))),
            Operator::NotEqual => Ok(Val::Bool(!one.equals(two))),
            Operator::Less => ordered(Ordering::is_lt),
            Operator::LessOrEqual => ordered(Ordering::is_le),
            Operator::Greater => ordered(Ordering::is_gt),
            Operator::GreaterOrEqual => ordered(Ordering::is_ge),
            Operator::In => match two.kind() {
                "map" => Ok(Val::Bool(two.member(one)?.is_some())),
                "list" => {
                    self.step(two.size()?)?;
                    Ok(Val::Bool(two.items()?.any(|item| item.equals(one))))
                }
                _ => Err(Fault::kinds("in", &[one, two])),
            },
            Operator::Add => self.sum(one, two),
            _ => arithmetic(operator, one, two),
        }
    }

    fn sum(&self, one: &Val<'a>, two: &Val<'a>) -> Result<Val<'a>> {
        if let (Some(one), Some(two)) = (one.as_str(), two.as_str()) {
            self.step((one.len() + two.len()) / 10)?;
            return Ok(Val::text([one, two].concat()));
        }
        if one.kind() == "list" && two.kind() == "list" {
            self.step(one.size()? + two.size()?)?;
            return match (one.size()?, two.size()?) {
                (_, 0) => Ok(one.clone()),
                (0, _) => Ok(two.clone()),
                _ => Ok(Val::list(one.items()?.chain(two.items()?).collect())),
            };
        }
        arithmetic(Operator::Add, one, two)
    }

    fn call(&self, function: Function, arguments: &'a [Expr], locals: &mut Locals<'a>) -> Result<Val<'a>> {
        // The second argument isn't needed if the first one has a value.
        if let (Function::OrValue | Function::Or, [of, other]) = (function, arguments) {
            return match (self.eval(of, locals)?, function) {
                (Val::Optional(None), _) => self.eval(other, locals),
                (Val::Optional(Some(inner)), Function::OrValue) => Ok(Val::clone(&inner)),
                (of @ Val::Optional(_), _) => Ok(of),
                (of, _) => Err(Fault::kinds("orValue", &[&of])),
            };
        }
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(self.eval(argument, locals)?);
        }
        match values.as_slice() {
            [Val::Authorizer(check), rest @ ..] => self.authorizer(function, check, rest),
            [] => Ok(Val::Optional(None)),
            [one] => self.unary(function, one),
            [one, rest @ ..] => self.with_text(function, one, rest),
        }
    }

    /// The authorizer library ("Common Expression Language in Kubernetes").
    fn authorizer(&self, function: Function, check: &Rc<Check>, rest: &[Val<'a>]) -> Result<Val<'a>> {
        if function == Function::Allowed {
            return Ok(Val::Bool((self.authorizer)(check)));
        }
        let [value] = rest else { return Err(Fault::kinds("the authorizer", &[])) };
        let mut check = Check::clone(check);
        let place = match function {
            Function::Group => &mut check.group,
            Function::Resource => &mut check.resource,
            Function::Subresource => &mut check.subresource,
            Function::Namespace => &mut check.namespace,
            Function::Name => &mut check.name,
            Function::Check => &mut check.verb,
            _ => return Err(Fault::kinds("the authorizer", &[value])),
        };
        text(value)?.clone_into(place);
        Ok(Val::Authorizer(check.into()))
    }

    fn unary(&self, function: Function, one: &Val<'a>) -> Result<Val<'a>> {
        Ok(match function {
            Function::Dyn => one.clone(),
            Function::Size | Function::SizeOf => Val::Int(i64::try_from(one.size()?).unwrap_or(i64::MAX)),
            Function::HasValue => match one {
                Val::Optional(inner) => Val::Bool(inner.is_some()),
                _ => return Err(Fault::kinds("hasValue", &[one])),
            },
            Function::Value => match one {
                Val::Optional(Some(inner)) => Val::clone(inner),
                Val::Optional(None) => return Err(Fault::new("an optional has no value".to_owned())),
                _ => return Err(Fault::kinds("value", &[one])),
            },
            Function::OptionalOf => one.clone().some(),
            Function::OptionalOfNonZero => match one {
                Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) => Val::Optional(None),
                _ if one.size() == Ok(0) => Val::Optional(None),
                _ => one.clone().some(),
            },
            Function::Negate => match one {
                Val::Int(int) => Val::Int(int.checked_neg().ok_or_else(overflow)?),
                Val::Double(double) => Val::Double(-double),
                _ => return Err(Fault::kinds("-", &[one])),
            },
            Function::Int | Function::Uint | Function::Double | Function::String | Function::Bool => {
                return convert(function, one);
            }
            Function::LowerAscii => Val::text(text(one)?.to_ascii_lowercase()),
            Function::UpperAscii => Val::text(text(one)?.to_ascii_uppercase()),
            Function::Trim => Val::text(text(one)?.trim()),
            Function::EscapeKey => Val::text(text(one)?.replace('~', "~0").replace('/', "~1")),
            Function::Join => return self.join(one, ""),
            Function::IsSorted | Function::Min | Function::Max | Function::Sum => return self.over(function, one),
            _ => return Err(Fault::kinds("this function", &[one])),
        })
    }

    /// Functions of strings, and `indexOf` of lists, with arguments.
    fn with_text(&self, function: Function, one: &Val<'a>, rest: &[Val<'a>]) -> Result<Val<'a>> {
        if let (Function::IndexOf | Function::LastIndexOf, "list", [value]) = (function, one.kind(), rest) {
            self.step(one.size()?)?;
            let places = one.items()?.enumerate().filter(|(_, item)| item.equals(value)).map(|(i, _)| i);
            let place = if function == Function::IndexOf { places.min() } else { places.max() };
            return Ok(Val::Int(place.and_then(|i| i64::try_from(i).ok()).unwrap_or(-1)));
        }
        if let (Function::Join, [separator]) = (function, rest) {
            return self.join(one, text(separator)?);
        }
        let of = text(one)?;
        self.step(of.len() / 10)?;
        Ok(match (function, rest) {
            (Function::StartsWith, [with]) => Val::Bool(of.starts_with(text(with)?)),
            (Function::EndsWith, [with]) => Val::Bool(of.ends_with(text(with)?)),
            (Function::Contains, [with]) => Val::Bool(of.contains(text(with)?)),
            (Function::Split, [at]) => split(of, text(at)?, None),
            (Function::Split, [at, limit]) => split(of, text(at)?, Some(int(limit)?)),
            (Function::Replace, [from, to]) => Val::text(of.replace(text(from)?, text(to)?)),
            (Function::Replace, [from, to, limit]) => {
                let limit = usize::try_from(int(limit)?).unwrap_or(usize::MAX);
                Val::text(of.replacen(text(from)?, text(to)?, limit))
            }
            (Function::Substring, [from]) => substring(of, int(from)?, None)?,
            (Function::Substring, [from, to]) => substring(of, int(from)?, Some(int(to)?))?,
            (Function::CharAt, [at]) => substring(of, int(at)?, Some(int(at)?.saturating_add(1)))?,
            (Function::IndexOf, [what]) => place(of, of.find(text(what)?)),
            (Function::LastIndexOf, [what]) => place(of, of.rfind(text(what)?)),
            _ => return Err(Fault::kinds("this function", &[one])),
        })
    }

    fn join(&self, list: &Val<'a>, separator: &str) -> Result<Val<'a>> {
        only_list("join", list)?;
        let mut joined = String::new();
        for (i, item) in list.items()?.enumerate() {
            if i > 0 {
                joined.push_str(separator);
            }
            joined.push_str(text(&item)?);
        }
        self.step(joined.len() / 10)?;
        Ok(Val::text(joined))
    }

    /// The list library of Kubernetes ("Kubernetes list library").
    fn over(&self, function: Function, list: &Val<'a>) -> Result<Val<'a>> {
        only_list("a function of lists", list)?;
        self.step(list.size()?)?;
        let mut items = list.items()?;
        let Some(mut kept) = items.next() else {
            return match function {
                Function::IsSorted => Ok(Val::Bool(true)),
                Function::Sum => Ok(Val::Int(0)),
                _ => Err(Fault::new("an empty list has neither a smallest nor a largest item".to_owned())),
            };
        };
        for item in items {
            match function {
                Function::Sum => kept = arithmetic(Operator::Add, &kept, &item)?,
                Function::IsSorted if kept.compare(&item)?.is_none_or(Ordering::is_gt) => return Ok(Val::Bool(false)),
                Function::Min if item.compare(&kept)?.is_some_and(Ordering::is_lt) => kept = item,
                Function::Max if item.compare(&kept)?.is_some_and(Ordering::is_gt) => kept = item,
                Function::IsSorted => kept = item,
                _ => {}
            }
        }
        Ok(if function == Function::IsSorted { Val::Bool(true) } else { kept })
    }
}

fn truth(value: &Val<'_>) -> Result<bool> {
    match value {
        Val::Bool(b) => Ok(*b),
        _ => Err(Fault::kinds("a condition", &[value])),
    }
}

/// Loops go through maps, too. Functions of lists don't.
fn only_list(what: &str, value: &Val<'_>) -> Result<()> {
    if value.kind() == "list" { Ok(()) } else { Err(Fault::kinds(what, &[value])) }
}

fn text<'v>(value: &'v Val<'_>) -> Result<&'v str> {
    value.as_str().ok_or_else(|| Fault::kinds("a function of strings", &[value]))
}

fn int(value: &Val<'_>) -> Result<i64> {
    match value {
        Val::Int(int) => Ok(*int),
        _ => Err(Fault::kinds("a position", &[value])),
    }
}

fn overflow() -> Fault {
    Fault::new("a number is too large".to_owned())
}

fn has<'a>(of: &Val<'a>, name: &str) -> Result<Val<'a>> {
    Ok(Val::Bool(match of {
        Val::Optional(None) => false,
        Val::Optional(Some(inner)) => inner.field(name)?.is_some(),
        of => of.field(name)?.is_some(),
    }))
}

/// `of.name`, and `of.?name`. On an optional, both give an optional ("Optional field selection" of cel-go's optional
/// types).
fn field<'a>(of: Val<'a>, name: &str, optional: bool) -> Result<Val<'a>> {
    match of {
        Val::Optional(None) => Ok(Val::Optional(None)),
        Val::Optional(Some(inner)) => Ok(inner.field(name)?.map_or(Val::Optional(None), Val::some)),
        of if optional => Ok(of.field(name)?.map_or(Val::Optional(None), Val::some)),
        of => of.field(name)?.ok_or_else(|| Fault::new(format!("no such key: {name}"))),
    }
}

/// `of[at]`, and `of[?at]`.
fn index<'a>(of: Val<'a>, at: &Val<'a>, optional: bool) -> Result<Val<'a>> {
    match of {
        Val::Optional(None) => Ok(Val::Optional(None)),
        Val::Optional(Some(inner)) => Ok(inner.at(at)?.map_or(Val::Optional(None), Val::some)),
        of if optional => Ok(of.at(at)?.map_or(Val::Optional(None), Val::some)),
        of => of.at(at)?.ok_or_else(|| Fault::new(format!("no such key: {}", at.as_str().unwrap_or("index")))),
    }
}

fn arithmetic<'a>(operator: Operator, one: &Val<'a>, two: &Val<'a>) -> Result<Val<'a>> {
    let result = match (one, two) {
        (Val::Int(one), Val::Int(two)) => match operator {
            Operator::Add => one.checked_add(*two),
            Operator::Subtract => one.checked_sub(*two),
            Operator::Multiply => one.checked_mul(*two),
            Operator::Divide => one.checked_div(*two),
            _ => one.checked_rem(*two),
        }
        .map(Val::Int),
        (Val::Uint(one), Val::Uint(two)) => match operator {
            Operator::Add => one.checked_add(*two),
            Operator::Subtract => one.checked_sub(*two),
            Operator::Multiply => one.checked_mul(*two),
            Operator::Divide => one.checked_div(*two),
            _ => one.checked_rem(*two),
        }
        .map(Val::Uint),
        (Val::Double(one), Val::Double(two)) => match operator {
            Operator::Add => Some(one + two),
            Operator::Subtract => Some(one - two),
            Operator::Multiply => Some(one * two),
            Operator::Divide => Some(one / two),
            _ => return Err(Fault::new("there is no remainder of doubles".to_owned())),
        }
        .map(Val::Double),
        _ => return Err(Fault::kinds("arithmetic", &[one, two])),
    };
    result.ok_or_else(overflow)
}

/// Conversions between types (CEL language definition, "Standard definitions").
fn convert<'a>(to: Function, value: &Val<'a>) -> Result<Val<'a>> {
    let no = || Fault::kinds("a conversion", &[value]);
    let parsed = value.as_str();
    Ok(match (to, value) {
        (Function::Int, Val::Int(_))
        | (Function::Uint, Val::Uint(_))
        | (Function::Double, Val::Double(_))
        | (Function::Bool, Val::Bool(_))
        | (Function::String, Val::Str(_) | Val::Text(_)) => value.clone(),
        (Function::Int, Val::Uint(uint)) => Val::Int(i64::try_from(*uint).map_err(|_| overflow())?),
        (Function::Uint, Val::Int(int)) => Val::Uint(u64::try_from(*int).map_err(|_| overflow())?),
        (Function::Int, Val::Double(double)) => whole(*double).map(Val::Int)?,
        (Function::Double, Val::Int(_) | Val::Uint(_)) => Val::Double(value.json()?.as_f64().ok_or_else(overflow)?),
        (Function::String, Val::Int(int)) => Val::text(int.to_string()),
        (Function::String, Val::Uint(uint)) => Val::text(uint.to_string()),
        (Function::String, Val::Double(double)) => Val::text(double.to_string()),
        (Function::String, Val::Bool(b)) => Val::text(b.to_string()),
        (Function::Int, _) => Val::Int(parsed.and_then(|text| text.parse().ok()).ok_or_else(no)?),
        (Function::Uint, _) => Val::Uint(parsed.and_then(|text| text.parse().ok()).ok_or_else(no)?),
        (Function::Double, _) => Val::Double(parsed.and_then(|text| text.parse().ok()).ok_or_else(no)?),
        (Function::Bool, _) => match parsed {
            Some("true" | "True" | "TRUE" | "t" | "1") => Val::Bool(true),
            Some("false" | "False" | "FALSE" | "f" | "0") => Val::Bool(false),
            _ => return Err(no()),
        },
        _ => return Err(no()),
    })
}

/// The integer part of a double.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
fn whole(double: f64) -> Result<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    match double > -LIMIT && double < LIMIT {
        true => Ok(double.trunc() as i64),
        false => Err(overflow()),
    }
}

fn split<'a>(of: &str, at: &str, limit: Option<i64>) -> Val<'a> {
    let limit = match limit {
        Some(0) => return Val::list(Vec::new()),
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    if at.is_empty() {
        let mut parts: Vec<String> = of.chars().take(limit - 1).map(String::from).collect();
        let rest: String = of.chars().skip(limit - 1).collect();
        parts.extend((!rest.is_empty()).then_some(rest));
        return Val::list(parts.into_iter().map(Val::text).collect());
    }
    Val::list(of.splitn(limit, at).map(Val::text).collect())
}

/// Positions count characters.
fn substring<'a>(of: &str, from: i64, to: Option<i64>) -> Result<Val<'a>> {
    let length = of.chars().count();
    let outside = || Fault::new("a position is outside of the string".to_owned());
    let from = usize::try_from(from).ok().filter(|from| *from <= length).ok_or_else(outside)?;
    let to = match to {
        None => length,
        // `charAt` at the end is an empty string.
        Some(to) if to == i64::try_from(length).unwrap_or(i64::MAX).saturating_add(1) && from == length => length,
        Some(to) => usize::try_from(to).ok().filter(|to| *to <= length && *to >= from).ok_or_else(outside)?,
    };
    Ok(Val::text(of.chars().skip(from).take(to - from).collect::<String>()))
}

fn place<'a>(of: &str, found: Option<usize>) -> Val<'a> {
    let characters = found.and_then(|bytes| of.get(..bytes)).map(|before| before.chars().count());
    Val::Int(characters.and_then(|place| i64::try_from(place).ok()).unwrap_or(-1))
}
