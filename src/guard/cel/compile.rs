//! From text to an expression that can be evaluated.

use std::collections::{BTreeMap, HashMap};

use ::cel::Env;
use ::cel::common::ast::{self, EntryExpr, IdedExpr, LiteralValue, operators};
use regex::Regex;

/// An expression. Slots of variables are numbers, see [`Variables`].
#[derive(Clone, Debug)]
pub enum Expr {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
    Root(Root),
    Variable(usize),
    /// A name that a loop gives to an item: its place on the stack of such names.
    Local(usize),
    Field {
        of: Box<Self>,
        name: Box<str>,
        optional: bool,
    },
    Has {
        of: Box<Self>,
        name: Box<str>,
    },
    Index {
        of: Box<Self>,
        at: Box<Self>,
        optional: bool,
    },
    List(Vec<Entry>),
    Map(Vec<(Self, Entry)>),
    Patch(Vec<(Box<str>, Self)>),
    Not(Box<Self>),
    Both(Box<Self>, Box<Self>),
    Either(Box<Self>, Box<Self>),
    If(Box<Self>, Box<Self>, Box<Self>),
    Binary(Operator, Box<Self>, Box<Self>),
    Matches(Box<Self>, Box<Regex>),
    Loop(Box<Loop>),
    /// `optMap` and `optFlatMap`: the value gets a name.
    Within {
        of: Box<Self>,
        body: Box<Self>,
        flat: bool,
    },
    Call(Function, Vec<Self>),
}

impl Expr {
    /// The expressions that this one is made of.
    pub fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Uint(_)
            | Self::Double(_)
            | Self::Text(_)
            | Self::Root(_)
            | Self::Variable(_)
            | Self::Local(_) => Vec::new(),
            Self::Field { of, .. } | Self::Has { of, .. } | Self::Not(of) | Self::Matches(of, _) => vec![of],
            Self::Index { of, at, .. } => vec![of, at],
            Self::List(entries) => entries.iter().map(|entry| &entry.is).collect(),
            Self::Map(entries) => entries.iter().flat_map(|(key, entry)| [key, &entry.is]).collect(),
            Self::Patch(fields) => fields.iter().map(|(_, value)| value).collect(),
            Self::Both(one, two) | Self::Either(one, two) | Self::Binary(_, one, two) => vec![one, two],
            Self::If(when, then, otherwise) => vec![when, then, otherwise],
            Self::Loop(round) => [&round.over, &round.body].into_iter().chain(&round.only).collect(),
            Self::Within { of, body, .. } => vec![of, body],
            Self::Call(_, arguments) => arguments.iter().collect(),
        }
    }
}

/// An item of a list, or a value of a map. An optional one is left out if it has no value.
#[derive(Clone, Debug)]
pub struct Entry {
    pub is: Expr,
    pub optional: bool,
}

/// The names that every expression knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    Object,
    OldObject,
    Request,
    Namespace,
    Authorizer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

#[derive(Clone, Debug)]
pub struct Loop {
    pub over: Expr,
    /// With two names, the first is the index or the key, and the second the item or the value.
    pub names: usize,
    pub does: Does,
    pub only: Option<Expr>,
    pub body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

macro_rules! functions {
    ($($function:ident $name:literal $target:literal $arguments:expr;)*) => {
        /// A function. The target of a call is the first argument.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Function { $($function,)* }

        /// The function of a name. `target`: whether it is called on a value. `arguments`: their number without the
        /// target.
        fn function(name: &str, target: bool, arguments: usize) -> Option<Function> {
            match name {
                $($name if target == $target && $arguments.contains(&arguments) => Some(Function::$function),)*
                _ => None,
            }
        }
    };
}

// The CEL specification's standard definitions; Kubernetes' strings and lists libraries; the optional and the
// authorizer library ("Common Expression Language in Kubernetes"); `jsonpatch` ("Mutating Admission Policy").
functions! {
    Size "size" true 0..=0;
    SizeOf "size" false 1..=1;
    StartsWith "startsWith" true 1..=1;
    EndsWith "endsWith" true 1..=1;
    Contains "contains" true 1..=1;
    Split "split" true 1..=2;
    Join "join" true 0..=1;
    Replace "replace" true 2..=3;
    Substring "substring" true 1..=2;
    LowerAscii "lowerAscii" true 0..=0;
    UpperAscii "upperAscii" true 0..=0;
    Trim "trim" true 0..=0;
    IndexOf "indexOf" true 1..=1;
    LastIndexOf "lastIndexOf" true 1..=1;
    CharAt "charAt" true 1..=1;
    IsSorted "isSorted" true 0..=0;
    Min "min" true 0..=0;
    Max "max" true 0..=0;
    Sum "sum" true 0..=0;
    OrValue "orValue" true 1..=1;
    Or "or" true 1..=1;
    HasValue "hasValue" true 0..=0;
    Value "value" true 0..=0;
    OptionalOf "optional.of" false 1..=1;
    OptionalOfNonZero "optional.ofNonZeroValue" false 1..=1;
    OptionalNone "optional.none" false 0..=0;
    EscapeKey "jsonpatch.escapeKey" false 1..=1;
    Int "int" false 1..=1;
    Uint "uint" false 1..=1;
    Double "double" false 1..=1;
    String "string" false 1..=1;
    Bool "bool" false 1..=1;
    Dyn "dyn" false 1..=1;
    Negate "-_" false 1..=1;
    Group "group" true 1..=1;
    Resource "resource" true 1..=1;
    Subresource "subresource" true 1..=1;
    Namespace "namespace" true 1..=1;
    Name "name" true 1..=1;
    Check "check" true 1..=1;
    Allowed "allowed" true 0..=0;
}

/// The variables of all policies of a set. Those that mean the same have the same slot, so that they are evaluated once
/// for a request.
#[derive(Debug, Default)]
pub struct Variables {
    all: Vec<Expr>,
    slots: HashMap<String, usize>,
}

/// The names of a policy's variables.
pub type Names = BTreeMap<String, usize>;

impl Variables {
    /// Adds a variable of a policy, whose earlier variables are `names`.
    pub fn add(&mut self, name: &str, text: &str, names: &mut Names) -> Result<(), String> {
        let expression = compile(text, names)?;
        // With slots for names, two expressions that are written alike are alike.
        let key = format!("{expression:?}");
        let slot = *self.slots.entry(key).or_insert_with(|| {
            self.all.push(expression);
            self.all.len() - 1
        });
        names.insert(name.to_owned(), slot);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn get(&self, slot: usize) -> Option<&Expr> {
        self.all.get(slot)
    }
}

/// Translates an expression. The error says which part of it isn't known.
pub fn compile(text: &str, variables: &Names) -> Result<Expr, String> {
    // This environment has no macros, so they stay calls, which `call` translates.
    let parser = Env::default().parser().enable_ident_escape_syntax(true);
    let parsed = parser.parse(text).map_err(|e| e.to_string())?;
    Compiler { variables, locals: Vec::new() }.expression(&parsed)
}

struct Compiler<'c> {
    variables: &'c Names,
    /// The names that the loops around an expression give.
    locals: Vec<String>,
}

impl Compiler<'_> {
    fn expression(&mut self, from: &IdedExpr) -> Result<Expr, String> {
        match &from.expr {
            ast::Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(b) => Expr::Bool(*b.inner()),
                LiteralValue::Int(int) => Expr::Int(*int.inner()),
                LiteralValue::UInt(uint) => Expr::Uint(*uint.inner()),
                LiteralValue::Double(double) => Expr::Double(*double.inner()),
                LiteralValue::String(text) => Expr::Text(text.inner().into()),
                LiteralValue::Null => Expr::Null,
                LiteralValue::Bytes(_) => return Err("bytes aren't known here".to_owned()),
            }),
            ast::Expr::Ident(name) => self.name(name),
            ast::Expr::Select(select) => self.field(&select.operand, &select.field, false),
            ast::Expr::Call(call) => self.call(call),
            ast::Expr::List(list) => {
                let optional = |i| list.optional_indices.contains(&i);
                let entries = list.elements.iter().enumerate();
                let entries = entries.map(|(i, e)| Ok(Entry { is: self.expression(e)?, optional: optional(i) }));
                entries.collect::<Result<_, String>>().map(Expr::List)
            }
            ast::Expr::Map(map) => {
                let mut entries = Vec::new();
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err("a map has a field".to_owned());
                    };
                    let key = self.expression(&entry.key)?;
                    entries.push((key, Entry { is: self.expression(&entry.value)?, optional: entry.optional }));
                }
                Ok(Expr::Map(entries))
            }
            ast::Expr::Struct(of) if of.type_name == "JSONPatch" => {
                let mut fields = Vec::new();
                for entry in &of.entries {
                    match &entry.expr {
                        EntryExpr::StructField(field)
                            if !field.optional && ["op", "path", "from", "value"].contains(&field.field.as_str()) =>
                        {
                            fields.push((field.field.as_str().into(), self.expression(&field.value)?));
                        }
                        _ => return Err("a JSONPatch has op, path, from and value".to_owned()),
                    }
                }
                Ok(Expr::Patch(fields))
            }
            ast::Expr::Struct(of) => Err(format!("the type {} isn't known here", of.type_name)),
            ast::Expr::Comprehension(_) | ast::Expr::Unspecified => Err("it can't be read".to_owned()),
        }
    }

    fn name(&self, name: &str) -> Result<Expr, String> {
        // The innermost loop's name hides others.
        if let Some(place) = self.locals.iter().rposition(|local| local == name) {
            return Ok(Expr::Local(place));
        }
        Ok(Expr::Root(match name {
            "object" => Root::Object,
            "oldObject" => Root::OldObject,
            "request" => Root::Request,
            "namespaceObject" => Root::Namespace,
            "authorizer" => Root::Authorizer,
            _ => return Err(format!("the name {name} isn't known")),
        }))
    }

    fn field(&mut self, of: &IdedExpr, name: &str, optional: bool) -> Result<Expr, String> {
        if self.is_free(of, "variables") && !optional {
            let slot = self.variables.get(name).ok_or_else(|| format!("there is no earlier variable {name}"))?;
            return Ok(Expr::Variable(*slot));
        }
        Ok(Expr::Field { of: self.boxed(of)?, name: name.into(), optional })
    }

    /// True if `of` is this name, and no loop uses it for its items.
    fn is_free(&self, of: &IdedExpr, name: &str) -> bool {
        matches!(&of.expr, ast::Expr::Ident(ident) if ident == name) && !self.locals.iter().any(|local| local == name)
    }

    fn boxed(&mut self, from: &IdedExpr) -> Result<Box<Expr>, String> {
        self.expression(from).map(Box::new)
    }

    fn call(&mut self, call: &ast::CallExpr) -> Result<Expr, String> {
        let name = call.func_name.as_str();
        if let Some(target) = &call.target {
            return self.method(target, name, &call.args);
        }
        let expression = match (name, call.args.as_slice()) {
            (operators::LOGICAL_AND, [one, two]) => Expr::Both(self.boxed(one)?, self.boxed(two)?),
            (operators::LOGICAL_OR, [one, two]) => Expr::Either(self.boxed(one)?, self.boxed(two)?),
            (operators::LOGICAL_NOT, [one]) => Expr::Not(self.boxed(one)?),
            (operators::CONDITIONAL, [when, then, otherwise]) => {
                Expr::If(self.boxed(when)?, self.boxed(then)?, self.boxed(otherwise)?)
            }
            (operators::INDEX | operators::OPT_INDEX, [of, at]) => {
                let optional = name == operators::OPT_INDEX;
                Expr::Index { of: self.boxed(of)?, at: self.boxed(at)?, optional }
            }
            (operators::OPT_SELECT, [of, field]) => match &field.expr {
                ast::Expr::Literal(LiteralValue::String(field)) => self.field(of, field.inner(), true)?,
                _ => return Err("an optional field has no name".to_owned()),
            },
            (operators::HAS, [field]) => match &field.expr {
                ast::Expr::Select(select) => {
                    Expr::Has { of: self.boxed(&select.operand)?, name: select.field.as_str().into() }
                }
                _ => return Err("has() needs a field".to_owned()),
            },
            (_, [one, two]) if operator(name).is_some() => {
                let operator = operator(name).unwrap_or(Operator::Equal);
                Expr::Binary(operator, self.boxed(one)?, self.boxed(two)?)
            }
            (_, arguments) => self.function(name, None, arguments)?,
        };
        Ok(expression)
    }

    /// A call on a value, or of a function whose name has a dot.
    fn method(&mut self, target: &IdedExpr, name: &str, arguments: &[IdedExpr]) -> Result<Expr, String> {
        for library in ["optional", "jsonpatch"] {
            if self.is_free(target, library) {
                return self.function(&format!("{library}.{name}"), None, arguments);
            }
        }
        // The macros of the CEL specification, and those of "CEL extended macros" for lists with two names.
        let looped = match (name, arguments) {
            ("all", [item, body]) => Some((Does::All, vec![item], None, body)),
            ("exists", [item, body]) => Some((Does::Exists, vec![item], None, body)),
            ("exists_one" | "existsOne", [item, body]) => Some((Does::ExistsOne, vec![item], None, body)),
            ("filter", [item, body]) => Some((Does::Filter, vec![item], None, body)),
            ("map", [item, body]) => Some((Does::Map, vec![item], None, body)),
            ("map", [item, only, body]) => Some((Does::Map, vec![item], Some(only), body)),
            ("all", [key, item, body]) => Some((Does::All, vec![key, item], None, body)),
            ("exists", [key, item, body]) => Some((Does::Exists, vec![key, item], None, body)),
            ("existsOne", [key, item, body]) => Some((Does::ExistsOne, vec![key, item], None, body)),
            ("transformList", [key, item, body]) => Some((Does::Map, vec![key, item], None, body)),
            ("transformList", [key, item, only, body]) => Some((Does::Map, vec![key, item], Some(only), body)),
            _ => None,
        };
        if let Some((does, names, only, body)) = looped {
            let over = self.expression(target)?;
            let count = names.len();
            let inner = self.locals.len();
            for name in names {
                self.locals.push(ident(name)?);
            }
            let only = only.map(|only| self.expression(only)).transpose();
            let body = self.expression(body);
            self.locals.truncate(inner);
            return Ok(Expr::Loop(Box::new(Loop { over, names: count, does, only: only?, body: body? })));
        }
        match (name, arguments) {
            ("optMap" | "optFlatMap", [item, body]) => {
                let of = self.boxed(target)?;
                self.locals.push(ident(item)?);
                let body = self.boxed(body);
                self.locals.pop();
                Ok(Expr::Within { of, body: body?, flat: name == "optFlatMap" })
            }
            ("matches", [pattern]) => match &pattern.expr {
                ast::Expr::Literal(LiteralValue::String(pattern)) => {
                    let regex = Regex::new(pattern.inner()).map_err(|e| format!("a pattern can't be read: {e}"))?;
                    Ok(Expr::Matches(self.boxed(target)?, Box::new(regex)))
                }
                _ => Err("a pattern that isn't a literal can't be checked beforehand".to_owned()),
            },
            _ => self.function(name, Some(target), arguments),
        }
    }

    fn function(&mut self, name: &str, target: Option<&IdedExpr>, arguments: &[IdedExpr]) -> Result<Expr, String> {
        let function = function(name, target.is_some(), arguments.len())
            .ok_or_else(|| format!("the function {name} with {} arguments isn't known here", arguments.len()))?;
        let all = target.into_iter().chain(arguments);
        all.map(|argument| self.expression(argument)).collect::<Result<_, _>>().map(|all| Expr::Call(function, all))
    }
}

/// The name that a loop gives.
fn ident(from: &IdedExpr) -> Result<String, String> {
    match &from.expr {
        ast::Expr::Ident(name) => Ok(name.clone()),
        _ => Err("a loop's item has no name".to_owned()),
    }
}

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        operators::ADD => Operator::Add,
        operators::SUBSTRACT => Operator::Subtract,
        operators::MULTIPLY => Operator::Multiply,
        operators::DIVIDE => Operator::Divide,
        operators::MODULO => Operator::Modulo,
        operators::EQUALS => Operator::Equal,
        operators::NOT_EQUALS => Operator::NotEqual,
        operators::LESS => Operator::Less,
        operators::LESS_EQUALS => Operator::LessOrEqual,
        operators::GREATER => Operator::Greater,
        operators::GREATER_EQUALS => Operator::GreaterOrEqual,
        operators::IN => Operator::In,
        _ => return None,
    })
}
