//! Parts of schemas that can't be derived from a Rust type.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::catalog::{CAPABILITIES, ENDPOINT_SERVICES};

/// `YYYY-MM-DD`.
pub(super) fn date(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$" })
}

/// Services with a VPC endpoint.
pub(super) fn endpoints(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["array", "null"], "items": { "type": "string", "enum": ENDPOINT_SERVICES } })
}

/// Linux capabilities.
pub(super) fn capabilities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "enum": CAPABILITIES } })
}
