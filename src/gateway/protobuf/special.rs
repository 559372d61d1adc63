//! Values: numbers, and the types of apimachinery that have a JSON form of their own.

use jiff::Timestamp;
use serde_json::Value;

use super::table::Kind;
use super::wire::{Fault, MAX_DEPTH, Wire, parts};
use crate::gateway::json;

/// Go's zero time, 0001-01-01T00:00:00Z, in seconds since 1970.
const ZERO_TIME: i64 = -62_135_596_800;

pub(super) fn number(kind: Kind, varint: u64) -> Result<Value, Fault> {
    // A negative number is sign-extended to 64 bits, an int32, too.
    let value = varint.cast_signed();
    match kind {
        // Go takes the lower 32 bits of any number for an int32, and any number but 0 for true. Go's encoder writes
        // none of these.
        Kind::Int32 => i32::try_from(value).map(Value::from).map_err(|_| Fault::new("a number has more than 32 bits")),
        Kind::Bool if varint > 1 => Err(Fault::new("a boolean is neither 0 nor 1")),
        Kind::Bool => Ok(Value::from(varint == 1)),
        _ => Ok(Value::from(value)),
    }
}

/// A `Time` or `MicroTime`. `null` for the zero time, as in Go.
pub(super) fn time(bytes: &[u8], micro: bool) -> Result<Value, Fault> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let [seconds, nanos] = parts(bytes, [Wire::Varint, Wire::Varint])?;
    let invalid = || Fault::new("a time isn't between the years 1 and 9999");
    let seconds = seconds.varint().cast_signed();
    let nanos = i32::try_from(nanos.varint()).ok().filter(|n| *n < 1_000_000_000).ok_or_else(invalid)?;
    // Go reads whole microseconds of a MicroTime, and whole seconds of a Time.
    let nanos = if micro { nanos / 1000 * 1000 } else { 0 };
    if (seconds, nanos) == (ZERO_TIME, 0) {
        return Ok(Value::Null);
    }
    let time = Timestamp::new(seconds, nanos).ok().filter(|_| seconds >= ZERO_TIME).ok_or_else(invalid)?;
    Ok(Value::from(if micro { format!("{time:.6}") } else { time.to_string() }))
}

pub(super) fn quantity(bytes: &[u8]) -> Result<Value, Fault> {
    let [string] = parts(bytes, [Wire::Bytes])?;
    if string.is_absent() {
        return Ok(Value::from("0"));
    }
    let string = string.text()?;
    // An API server trims spaces around a quantity in JSON, and refuses them in protobuf.
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if string.is_empty() || !string.chars().all(is_part) {
        return Err(Fault::new("a quantity is no number with a suffix"));
    }
    Ok(Value::from(string))
}

pub(super) fn int_or_string(bytes: &[u8]) -> Result<Value, Fault> {
    let [kind, number_part, string] = parts(bytes, [Wire::Varint, Wire::Varint, Wire::Bytes])?;
    let (value, text) = (number(Kind::Int32, number_part.varint())?, string.text()?);
    match kind.varint() {
        0 if text.is_empty() => Ok(value),
        1 if value == 0 => Ok(Value::from(text)),
        // The second value would be stored, and no one could see it in JSON.
        0 | 1 => Err(Fault::new("a value is both a number and a string")),
        _ => Err(Fault::new("a value is neither a number nor a string")),
    }
}

/// A `RawExtension`: JSON within protobuf. `null` if it has no content.
pub(super) fn raw_extension(bytes: &[u8]) -> Result<Value, Fault> {
    let [raw] = parts(bytes, [Wire::Bytes])?;
    if raw.is_absent() { Ok(Value::Null) } else { json(raw.bytes()) }
}

/// A `FieldsV1`: JSON within protobuf. `null` if it is empty.
pub(super) fn fields_v1(bytes: &[u8]) -> Result<Value, Fault> {
    let [raw] = parts(bytes, [Wire::Bytes])?;
    if raw.bytes().is_empty() { Ok(Value::Null) } else { json(raw.bytes()) }
}

/// An API server keeps these bytes, so the reader of an object would choose between two values of one key.
fn json(bytes: &[u8]) -> Result<Value, Fault> {
    json::read(bytes, MAX_DEPTH).map_err(|e| Fault::new(format!("this isn't JSON: {e}")))
}
