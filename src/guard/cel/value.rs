//! Values of CEL expressions. Those of a request are borrowed from its JSON.

use std::cmp::Ordering;
use std::rc::Rc;

use serde_json::{Map, Number, Value};

use super::Fault;

/// A value of the request, or one that an expression made.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    /// Text of the request or of the policy.
    Str(&'a str),
    Text(Rc<str>),
    /// A list or a map of the request.
    Node(&'a Value),
    List(Rc<[Val<'a>]>),
    Map(Rc<[(Val<'a>, Val<'a>)]>),
    /// `JSONPatch{…}`: its fields.
    Patch(Rc<[(&'a str, Val<'a>)]>),
    Optional(Option<Rc<Val<'a>>>),
    Authorizer(Rc<Check>),
}

/// A question to the authorizer, as far as it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub verb: String,
}

impl<'a> Val<'a> {
    pub fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(number) => Self::number(number),
            Value::String(text) => Self::Str(text),
            Value::Array(_) | Value::Object(_) => Self::Node(value),
        }
    }

    fn number(number: &Number) -> Self {
        match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Self::Int(int),
            (None, double) => Self::Double(double.unwrap_or(f64::NAN)),
        }
    }

    pub fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(text.into())
    }

    pub fn list(items: Vec<Self>) -> Self {
        Self::List(items.into())
    }

    pub fn some(self) -> Self {
        Self::Optional(Some(Rc::new(self)))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The name of the type, for errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Str(_) | Self::Text(_) => "string",
            Self::Node(Value::Array(_)) | Self::List(_) => "list",
            Self::Node(_) | Self::Map(_) => "map",
            Self::Patch(_) => "JSONPatch",
            Self::Optional(_) => "optional",
            Self::Authorizer(_) => "authorizer",
        }
    }

    /// The member of a map. None if there is no such member.
    pub fn member(&self, key: &Self) -> Result<Option<Self>, Fault> {
        Ok(match self {
            Self::Node(Value::Object(fields)) => key.as_str().and_then(|key| fields.get(key)).map(Self::of),
            Self::Map(entries) => entries.iter().find(|(k, _)| k.equals(key)).map(|(_, value)| value.clone()),
            _ => return Err(Fault::kinds("a member", &[self, key])),
        })
    }

    pub fn field(&self, name: &str) -> Result<Option<Self>, Fault> {
        Ok(match self {
            Self::Node(Value::Object(fields)) => fields.get(name).map(Self::of),
            Self::Map(entries) => entries.iter().find(|(k, _)| k.as_str() == Some(name)).map(|(_, v)| v.clone()),
            Self::Patch(fields) => fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone()),
            _ => return Err(Fault::new(format!("a {} has no field {name}", self.kind()))),
        })
    }

    /// The item of a list, or the member of a map. None if there is none.
    pub fn at(&self, key: &Self) -> Result<Option<Self>, Fault> {
        let index = || match key {
            Self::Int(index) => Ok(usize::try_from(*index).ok()),
            Self::Uint(index) => Ok(usize::try_from(*index).ok()),
            _ => Err(Fault::kinds("an index", &[self, key])),
        };
        Ok(match self {
            Self::Node(Value::Array(items)) => index()?.and_then(|i| items.get(i)).map(Self::of),
            Self::List(items) => index()?.and_then(|i| items.get(i)).cloned(),
            _ => return self.member(key),
        })
    }

    /// The number of characters, items or members.
    pub fn size(&self) -> Result<usize, Fault> {
        Ok(match self {
            Self::Str(text) => text.chars().count(),
            Self::Text(text) => text.chars().count(),
            Self::Node(Value::Array(items)) => items.len(),
            Self::Node(Value::Object(fields)) => fields.len(),
            Self::List(items) => items.len(),
            Self::Map(entries) => entries.len(),
            _ => return Err(Fault::kinds("size", &[self])),
        })
    }

    /// The items of a list, or the keys of a map.
    pub fn items(&self) -> Result<Items<'_, 'a>, Fault> {
        Ok(match self {
            Self::Node(Value::Array(items)) => Items::Nodes(items.iter()),
            Self::Node(Value::Object(fields)) => Items::Names(fields.keys()),
            Self::List(items) => Items::Values(items.iter()),
            Self::Map(entries) => Items::Keys(entries.iter()),
            _ => return Err(Fault::new(format!("a {} can't be gone through", self.kind()))),
        })
    }

    /// True if the values are equal. Numbers of different types are equal if they are the same number.
    pub fn equals(&self, other: &Self) -> bool {
        if let (Some(one), Some(two)) = (self.as_str(), other.as_str()) {
            return one == two;
        }
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(two)) => one == two,
            (Self::Node(one), Self::Node(two)) if one == two => true,
            (Self::Optional(one), Self::Optional(two)) => match (one, two) {
                (Some(one), Some(two)) => one.equals(two),
                (one, two) => one.is_none() && two.is_none(),
            },
            (Self::Patch(one), Self::Patch(two)) => {
                one.len() == two.len() && one.iter().zip(two.iter()).all(|(a, b)| a.0 == b.0 && a.1.equals(&b.1))
            }
            (Self::Authorizer(one), Self::Authorizer(two)) => one == two,
            _ => match (self.kind(), other.kind()) {
                ("list", "list") => {
                    let (Ok(one), Ok(two)) = (self.items(), other.items()) else { return false };
                    self.size() == other.size() && one.zip(two).all(|(one, two)| one.equals(&two))
                }
                ("map", "map") => {
                    let Ok(mut keys) = self.items() else { return false };
                    self.size() == other.size()
                        && keys.all(|key| match (self.member(&key), other.member(&key)) {
                            (Ok(Some(one)), Ok(Some(two))) => one.equals(&two),
                            _ => false,
                        })
                }
                _ => self.compare_numbers(other) == Some(Ordering::Equal),
            },
        }
    }

    /// The order of two values of the same type, or of two numbers.
    pub fn compare(&self, other: &Self) -> Result<Option<Ordering>, Fault> {
        if let (Some(one), Some(two)) = (self.as_str(), other.as_str()) {
            return Ok(Some(one.cmp(two)));
        }
        match (self, other) {
            (Self::Bool(one), Self::Bool(two)) => Ok(Some(one.cmp(two))),
            (Self::Double(one), Self::Double(two)) => Ok(one.partial_cmp(two)),
            _ if self.is_number() && other.is_number() => Ok(self.compare_numbers(other)),
            _ => Err(Fault::kinds("a comparison", &[self, other])),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_))
    }

    fn compare_numbers(&self, other: &Self) -> Option<Ordering> {
        match (self.integer(), other.integer()) {
            (Some(one), Some(two)) => Some(one.cmp(&two)),
            _ => self.double()?.partial_cmp(&other.double()?),
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::Int(int) => Some((*int).into()),
            Self::Uint(uint) => Some((*uint).into()),
            _ => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "CEL compares an integer with a double as doubles")]
    fn double(&self) -> Option<f64> {
        match self {
            Self::Int(int) => Some(*int as f64),
            Self::Uint(uint) => Some(*uint as f64),
            Self::Double(double) => Some(*double),
            _ => None,
        }
    }

    /// The value as JSON, as it goes into a patch.
    pub fn json(&self) -> Result<Value, Fault> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(b) => (*b).into(),
            Self::Int(int) => (*int).into(),
            Self::Uint(uint) => (*uint).into(),
            Self::Double(double) => {
                Number::from_f64(*double).ok_or_else(|| Fault::new("a number isn't finite".to_owned()))?.into()
            }
            Self::Str(text) => (*text).into(),
            Self::Text(text) => (&**text).into(),
            Self::Node(node) => (*node).clone(),
            Self::List(items) => items.iter().map(Self::json).collect::<Result<_, _>>()?,
            Self::Map(entries) => {
                let mut fields = Map::new();
                for (key, value) in entries.iter() {
                    let key = key.as_str().ok_or_else(|| Fault::new("a key isn't a string".to_owned()))?;
                    fields.insert(key.to_owned(), value.json()?);
                }
                fields.into()
            }
            Self::Optional(Some(value)) => value.json()?,
            Self::Patch(_) | Self::Optional(None) | Self::Authorizer(_) => {
                return Err(Fault::new(format!("a {} can't be in an object", self.kind())));
            }
        })
    }
}

/// See [`Val::items`].
pub enum Items<'v, 'a> {
    Nodes(std::slice::Iter<'a, Value>),
    Names(serde_json::map::Keys<'a>),
    Values(std::slice::Iter<'v, Val<'a>>),
    Keys(std::slice::Iter<'v, (Val<'a>, Val<'a>)>),
}

impl<'a> Iterator for Items<'_, 'a> {
    type Item = Val<'a>;

    fn next(&mut self) -> Option<Val<'a>> {
        match self {
            Self::Nodes(nodes) => nodes.next().map(Val::of),
            Self::Names(names) => names.next().map(|name| Val::Str(name)),
            Self::Values(items) => items.next().cloned(),
            Self::Keys(entries) => entries.next().map(|(key, _)| key.clone()),
        }
    }
}
