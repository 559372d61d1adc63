//! Kubernetes' protobuf as JSON: `application/vnd.kubernetes.protobuf`, as client-go's typed clients send it.
//!
//! The result is the JSON that Go's `encoding/json` writes for the same typed object, up to fields that are zero. The
//! gateway must judge the object that is stored. So the decoder refuses unknown fields, fields that occur twice, and
//! numbers that Go would cut. It refuses a new field of a newer Kubernetes, too, until the table has the field.

mod special;
mod table;
#[cfg(test)]
mod tests;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use table::{Field, Form, Kind, Message, Table};
use wire::{Fault, MAX_DEPTH, Part, Reader, Wire, parts, twice, unknown, utf8, wrong_wire};

/// The first bytes of every body, by apimachinery's `runtime/serializer/protobuf`.
const MAGIC: &[u8] = b"k8s\0";
const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Decodes the body of a request to the JSON of the object, with its `apiVersion` and `kind`.
///
/// Send this JSON to the API server in place of the body. The body can hold a pointer to the zero time, which the JSON
/// doesn't show: an API server reads the JSON as nil.
///
/// # Errors
///
/// The body isn't Kubernetes' protobuf, its kind or a field of it is unknown, or Go could read it in another way.
pub fn decode(body: &[u8]) -> Result<Value, String> {
    decode_by(Table::built_in()?, body)
}

fn decode_by(table: &Table, body: &[u8]) -> Result<Value, String> {
    object(table, body)
        .map_err(|fault| format!("the gateway can't decode the protobuf body: {fault}. Instead, send JSON"))
}

fn object(table: &Table, body: &[u8]) -> Result<Value, Fault> {
    let envelope = body.strip_prefix(MAGIC).ok_or_else(|| Fault::new("the body doesn't begin with \"k8s\\0\""))?;
    // The fields of `runtime.Unknown`.
    let [type_meta, raw, encoding, content_type] = parts(envelope, [Wire::Bytes; 4])?;
    if !encoding.bytes().is_empty() {
        return Err(Fault::new("the envelope has a content encoding"));
    }
    if !["", CONTENT_TYPE].contains(&content_type.text()?) {
        return Err(Fault::new("the envelope has a content type other than protobuf"));
    }
    // Go's encoder writes the object even if it is empty. A body without one is cut off.
    if raw.is_absent() {
        return Err(Fault::new("the envelope has no object"));
    }
    let [version, kind] = parts(type_meta.bytes(), [Wire::Bytes; 2])?;
    let (version, kind) = (version.text()?, kind.text()?);
    let root = table.root(version, kind).ok_or_else(|| unknown_kind(version, kind))?;
    let mut map = Map::new();
    map.insert("apiVersion".to_owned(), Value::from(version));
    map.insert("kind".to_owned(), Value::from(kind));
    Decoder { table, depth: 1 }.fields(root, raw.bytes(), &mut map)?;
    Ok(Value::Object(map))
}

fn unknown_kind(version: &str, kind: &str) -> Fault {
    // The client chooses the length of both.
    let short = |text: &str| text.chars().take(80).collect::<String>();
    Fault::new(format!("the gateway doesn't know the kind {:?} of {:?}", short(kind), short(version)))
}

#[derive(Clone, Copy)]
struct Decoder<'t> {
    table: &'t Table,
    depth: usize,
}

impl Decoder<'_> {
    /// Decodes the fields of a message into `map`, which is the JSON object of the message.
    fn fields(self, message: usize, bytes: &[u8], map: &mut Map<String, Value>) -> Result<(), Fault> {
        let Some(Message::Fields(fields)) = self.table.messages.get(message) else {
            return Err(Fault::new("the table has no fields of this message"));
        };
        let mut reader = Reader::new(bytes);
        // Each number of a singular field is here once at most, so the table bounds the length.
        let mut seen = Vec::new();
        while let Some((number, wire)) = reader.key()? {
            let field = fields.get(&number).ok_or_else(|| unknown(number))?;
            let singular = matches!(field.form, Form::Plain | Form::Pointer);
            // Protobuf takes the last of two values, and merges two messages.
            if singular && seen.contains(&number) {
                return Err(twice(number));
            }
            if singular {
                seen.push(number);
            }
            let part = match wire {
                Wire::Varint => Part::Varint(reader.varint()?),
                Wire::Bytes => Part::Bytes(reader.bytes()?),
                Wire::Other => return Err(wrong_wire(number)),
            };
            match field.name {
                Some(name) => self.field(number, field, name, part, map).map_err(|fault| fault.within(name))?,
                None => self.inline(number, field, part, map)?,
            }
        }
        Ok(())
    }

    fn inline(self, number: u64, field: &Field, part: Part, map: &mut Map<String, Value>) -> Result<(), Fault> {
        match (field.kind, part) {
            (Kind::Message(message), Part::Bytes(bytes)) => self.deeper()?.fields(message, bytes, map),
            _ => Err(wrong_wire(number)),
        }
    }

    fn field(
        self,
        number: u64,
        field: &Field,
        name: &str,
        part: Part,
        map: &mut Map<String, Value>,
    ) -> Result<(), Fault> {
        match (field.form, part) {
            (Form::Map, Part::Bytes(entry)) => {
                let [key, value] = parts(entry, [Wire::Bytes; 2])?;
                let key = key.text()?;
                let value = self.deeper()?.value(number, field.kind, Part::Bytes(value.bytes()))?;
                let Value::Object(entries) = map.entry(name).or_insert_with(|| Value::Object(Map::new())) else {
                    return Err(Fault::new("the field has the name of another field"));
                };
                if entries.insert(key.to_owned(), value).is_some() {
                    return Err(Fault::new("a key occurs twice"));
                }
            }
            (Form::Map, _) => return Err(wrong_wire(number)),
            // Packed: the numbers of a list in one field.
            (Form::Repeated, Part::Bytes(packed)) if field.kind.is_varint() => {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() {
                    push(map, name, special::number(field.kind, reader.varint()?)?)?;
                }
            }
            (Form::Repeated, part) => push(map, name, self.value(number, field.kind, part)?)?,
            (Form::Plain | Form::Pointer, part) => {
                let value = self.value(number, field.kind, part)?;
                if !is_left_out(field, &value) {
                    map.insert(name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn value(self, number: u64, kind: Kind, part: Part) -> Result<Value, Fault> {
        let bytes = match (kind, part) {
            (Kind::Bool | Kind::Int32 | Kind::Int64, Part::Varint(varint)) => return special::number(kind, varint),
            (Kind::Bool | Kind::Int32 | Kind::Int64, _) => return Err(wrong_wire(number)),
            (_, Part::Bytes(bytes)) => bytes,
            _ => return Err(wrong_wire(number)),
        };
        match kind {
            Kind::Bytes => Ok(Value::from(STANDARD.encode(bytes))),
            Kind::Time => special::time(bytes, false),
            Kind::MicroTime => special::time(bytes, true),
            Kind::Quantity => special::quantity(bytes),
            Kind::IntOrString => special::int_or_string(bytes),
            Kind::RawExtension => special::raw_extension(bytes),
            Kind::FieldsV1 => special::fields_v1(bytes),
            Kind::Message(message) => self.deeper()?.message(message, bytes),
            _ => utf8(bytes).map(Value::from),
        }
    }

    fn message(self, message: usize, bytes: &[u8]) -> Result<Value, Fault> {
        if let Some(Message::List(kind)) = self.table.messages.get(message) {
            let (mut reader, mut values) = (Reader::new(bytes), Vec::new());
            while let Some((number, wire)) = reader.key()? {
                if number != 1 {
                    return Err(unknown(number));
                }
                let part = if wire == Wire::Bytes { Part::Bytes(reader.bytes()?) } else { Part::Absent };
                values.push(self.value(number, *kind, part)?);
            }
            return Ok(Value::Array(values));
        }
        let mut map = Map::new();
        self.fields(message, bytes, &mut map)?;
        Ok(Value::Object(map))
    }

    fn deeper(self) -> Result<Self, Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::new(format!("messages are nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

fn push(map: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), Fault> {
    let Value::Array(values) = map.entry(name).or_insert_with(|| Value::Array(Vec::new())) else {
        return Err(Fault::new("the field has the name of another field"));
    };
    values.push(value);
    Ok(())
}

/// True if the field's value is the same for an API server as no field.
fn is_left_out(field: &Field, value: &Value) -> bool {
    match value {
        // The zero time, or an empty RawExtension or FieldsV1. Go prints null, and reads null as no value. JSON has no
        // pointer to the zero time: client-go sends one in a Lease that was read without its times.
        Value::Null => true,
        _ if field.form == Form::Pointer => false,
        // Go prints {}. An API server reads JSON into the same Go struct, which isn't a pointer: absent and {} both
        // leave it as it was made, zero. A pointer to an empty struct differs from nil, and stays.
        Value::Object(map) => map.is_empty() && matches!(field.kind, Kind::Message(_)),
        // Go's encoder writes these to protobuf, and leaves them out of JSON.
        Value::String(text) => field.omitempty && text.is_empty() && matches!(field.kind, Kind::String | Kind::Bytes),
        Value::Number(_) => field.omitempty && field.kind.is_varint() && *value == 0,
        Value::Bool(value) => field.omitempty && !value,
        Value::Array(_) => false,
    }
}
