//! The messages and fields of Kubernetes' kinds. `tests/kubernetes/protobuf-schema` writes `schema.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

static BUILT_IN: LazyLock<Result<Table, String>> = LazyLock::new(|| Table::parse(include_str!("schema.txt")));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    RawExtension,
    FieldsV1,
    /// An index of [`Table::messages`].
    Message(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// The presence of such a field has a meaning of its own, whatever its value is.
    Pointer,
    Repeated,
    /// The keys are strings.
    Map,
}

#[derive(Debug)]
pub(super) struct Field {
    /// The JSON name. `None` for an inline message.
    pub(super) name: Option<&'static str>,
    pub(super) omitempty: bool,
    pub(super) form: Form,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Message {
    Fields(HashMap<u64, Field>),
    /// A message whose field 1 is repeated, and which is an array in JSON.
    List(Kind),
}

#[derive(Debug)]
pub(super) struct Table {
    kinds: HashMap<(&'static str, &'static str), usize>,
    pub(super) messages: Vec<Message>,
    pub(super) names: HashMap<&'static str, usize>,
}

impl Table {
    pub(super) fn built_in() -> Result<&'static Table, String> {
        BUILT_IN.as_ref().map_err(Clone::clone)
    }

    pub(super) fn parse(text: &'static str) -> Result<Table, String> {
        let lines: Vec<(usize, Vec<&str>)> = text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line.split_whitespace().collect::<Vec<_>>()))
            .filter(|(_, words)| words.first().is_some_and(|word| !word.starts_with('#')))
            .collect();
        let mut table = Table { kinds: HashMap::new(), messages: Vec::new(), names: HashMap::new() };
        // Fields name messages that come later.
        let declared = lines.iter().filter(|(_, words)| matches!(words[0], "message" | "list"));
        for (index, name) in declared.filter_map(|(_, words)| words.get(1)).enumerate() {
            table.names.insert(name, index);
        }
        for (at, words) in &lines {
            table.line(words).ok_or_else(|| format!("line {at} of the table of protobuf messages can't be read"))?;
        }
        if table.names.len() != table.messages.len() {
            return Err("the table of protobuf messages has two messages of one name".to_owned());
        }
        Ok(table)
    }

    fn line(&mut self, words: &[&'static str]) -> Option<()> {
        match *words {
            ["kind", version, kind, message] => {
                self.kinds.insert((version, kind), *self.names.get(message)?);
            }
            ["message", _] => self.messages.push(Message::Fields(HashMap::new())),
            ["list", _, element] => {
                let kind = self.kind(element).filter(|kind| !kind.is_varint())?;
                self.messages.push(Message::List(kind));
            }
            [number, name, form] => {
                let field = self.field(name, form)?;
                let Some(Message::Fields(fields)) = self.messages.last_mut() else { return None };
                if fields.insert(number.parse().ok()?, field).is_some() {
                    return None;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn field(&self, name: &'static str, form: &str) -> Option<Field> {
        let (name, omitempty) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
        let (form, kind) = if let Some(kind) = form.strip_prefix('*') {
            (Form::Pointer, kind)
        } else if let Some(kind) = form.strip_prefix("[]") {
            (Form::Repeated, kind)
        } else if let Some(kind) = form.strip_prefix("map[string]") {
            (Form::Map, kind)
        } else {
            (Form::Plain, form)
        };
        let (name, kind) = ((name != ".").then_some(name), self.kind(kind)?);
        let readable = match name {
            Some(_) => form != Form::Map || !kind.is_varint(),
            None => form == Form::Plain && matches!(kind, Kind::Message(_)),
        };
        readable.then_some(Field { name, omitempty, form, kind })
    }

    fn kind(&self, name: &str) -> Option<Kind> {
        Some(match name {
            "string" => Kind::String,
            "bytes" => Kind::Bytes,
            "bool" => Kind::Bool,
            "int32" => Kind::Int32,
            "int64" => Kind::Int64,
            "Time" => Kind::Time,
            "MicroTime" => Kind::MicroTime,
            "Quantity" => Kind::Quantity,
            "IntOrString" => Kind::IntOrString,
            "RawExtension" => Kind::RawExtension,
            "FieldsV1" => Kind::FieldsV1,
            _ => Kind::Message(*self.names.get(name)?),
        })
    }

    /// The message of a kind. `None` for a kind that the table doesn't have.
    pub(super) fn root(&self, version: &str, kind: &str) -> Option<usize> {
        self.kinds.get(&(version, kind)).or_else(|| self.kinds.get(&("*", kind))).copied()
    }
}

impl Kind {
    pub(super) fn is_varint(self) -> bool {
        matches!(self, Kind::Bool | Kind::Int32 | Kind::Int64)
    }
}
