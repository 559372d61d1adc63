//! The protobuf wire format: keys, varints and lengths. The encoding page of protobuf.dev describes it.

/// How deep messages, and JSON within them, may be nested.
pub(super) const MAX_DEPTH: usize = 64;

/// A reason to refuse a body, with the JSON path of the field.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    path: String,
    reason: String,
}

impl Fault {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { path: String::new(), reason: reason.into() }
    }

    /// The same fault, seen from the message around the field `name`.
    pub(super) fn within(mut self, name: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Bytes,
    /// Fixed-width numbers, groups, and numbers that protobuf doesn't define. No message of the table has these.
    Other,
}

#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next field's number and wire type. `None` at the end of the message.
    pub(super) fn key(&mut self) -> Result<Option<(u64, Wire)>, Fault> {
        if self.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            2 => Wire::Bytes,
            _ => Wire::Other,
        };
        Ok(Some((key >> 3, wire)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for (at, byte) in self.0.iter().copied().enumerate() {
            // The tenth byte has one bit of the 64. Go drops the bits above, so they could hide a second value.
            if at == 9 && byte > 1 {
                return Err(Fault::new("a number has more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(Fault::new("the body ends within a number"))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.varint()?;
        let (value, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| self.0.split_at_checked(length))
            .ok_or_else(|| Fault::new("a length points past the end"))?;
        self.0 = rest;
        Ok(value)
    }
}

/// A field of a message that isn't in the table.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    Absent,
    Varint(u64),
    Bytes(&'a [u8]),
}

impl<'a> Part<'a> {
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Part::Absent)
    }

    pub(super) fn varint(&self) -> u64 {
        if let Part::Varint(value) = self { *value } else { 0 }
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        if let Part::Bytes(value) = self { value } else { &[] }
    }

    pub(super) fn text(&self) -> Result<&'a str, Fault> {
        utf8(self.bytes())
    }
}

/// Reads a message whose fields are 1 to `N`, each at most once, with these wire types.
pub(super) fn parts<'a, const N: usize>(bytes: &'a [u8], wires: [Wire; N]) -> Result<[Part<'a>; N], Fault> {
    let mut parts = [Part::Absent; N];
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.key()? {
        let index = number.checked_sub(1).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let (Some(part), Some(expected)) = (parts.get_mut(index), wires.get(index)) else {
            return Err(unknown(number));
        };
        if !part.is_absent() {
            return Err(twice(number));
        }
        if wire != *expected {
            return Err(wrong_wire(number));
        }
        *part = if wire == Wire::Varint { Part::Varint(reader.varint()?) } else { Part::Bytes(reader.bytes()?) };
    }
    Ok(parts)
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::new("a string isn't UTF-8"))
}

pub(super) fn unknown(number: u64) -> Fault {
    Fault::new(format!("field {number} is a field that this version of ringfence doesn't know"))
}

pub(super) fn twice(number: u64) -> Fault {
    Fault::new(format!("field {number} occurs twice"))
}

pub(super) fn wrong_wire(number: u64) -> Fault {
    Fault::new(format!("field {number} has the wrong wire type"))
}
