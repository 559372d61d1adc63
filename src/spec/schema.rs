//! The JSON Schema of the spec, for editors and for the structural check, derived from the
//! types in [`super::model`].

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::catalog::{CAPABILITIES, ENDPOINT_SERVICES};
use super::model::{Document, Profile, Quantity};

/// Where the schema is published; editors key their caches by it.
const ID: &str = "https://ringfence.dev/schemas/v1alpha1/tenancy.json";

/// The schemas that every load checks against, made once.
pub(super) static TENANCY: LazyLock<Value> = LazyLock::new(schema);
pub(super) static PROFILE_FILE: LazyLock<Value> = LazyLock::new(profile_schema);
/// A complete profile, as it is after `extends` and `overrides`.
pub(super) static PROFILE: LazyLock<Value> = LazyLock::new(|| profile(false));

/// The JSON Schema (draft 2020-12) of a tenancy file.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Document>();
    schema.insert("$id".to_owned(), ID.into());
    let mut schema = schema.to_value();
    tidy(&mut schema, false);
    schema
}

/// A tenant's `overrides`: any part of a profile.
pub(super) fn overrides(generator: &mut SchemaGenerator) -> Schema {
    generator.definitions_mut().insert("Overrides".to_owned(), profile(true));
    Schema::new_ref("#/$defs/Overrides".to_owned())
}

/// The JSON Schema of a profile file: any part of a profile, and what it is built from.
pub fn profile_schema() -> Value {
    let mut schema = profile(true);
    let head = json!({
        "description": { "type": "string", "description": "What the tier is, in a few words." },
        "extends": {
            "type": "string",
            "description": "The profile that this one changes; in a file named like a built-in one, that one.",
            "examples": ["standard"],
        },
        "overridable": {
            "type": "array",
            "items": { "type": "string" },
            "description": "What a tenant's `overrides` may change: settings, or sections with all that is in them.",
            "examples": [["namespace.quota", "nodes.max"]],
        },
    });
    if let (Some(Value::Object(properties)), Value::Object(head)) = (schema.get_mut("properties"), head) {
        properties.extend(head);
    }
    schema
}

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

/// The profile's schema; as a merge patch (RFC 7396), nothing is required, and what isn't
/// required in a profile may be `null` to remove it.
fn profile(patch: bool) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<Profile>().to_value();
    tidy(&mut schema, patch);
    schema
}

/// Descriptions in one line each; and, for a patch, nothing required and entries removable.
fn tidy(schema: &mut Value, patch: bool) {
    let Value::Object(map) = schema else { return };
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if patch {
        map.retain(|key, _| !matches!(key.as_str(), "required" | "title" | "default"));
        if let Some(values) = map.get_mut("additionalProperties").filter(|v| v.is_object()) {
            *values = json!({ "anyOf": [values.take(), { "type": "null" }] });
        }
    }
    for (key, value) in map {
        match (key.as_str(), value) {
            ("properties" | "$defs", Value::Object(schemas)) => schemas.values_mut().for_each(|s| tidy(s, patch)),
            ("anyOf" | "oneOf", Value::Array(schemas)) => schemas.iter_mut().for_each(|s| tidy(s, patch)),
            ("items", value) => tidy(value, patch),
            _ => {}
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A Kubernetes quantity, such as 500m, 2Gi or 40.",
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": QUANTITY,
        })
    }
}

/// Kubernetes' own format of quantities, without signs and exponents.
pub(super) const QUANTITY: &str = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$";
