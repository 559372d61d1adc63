//! The JSON Schemas of profiles, derived from [`super::settings`].

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::settings::Profile;

/// The schemas for checks, computed once.
pub(super) static PROFILE_FILE: LazyLock<Value> = LazyLock::new(profile_schema);

/// A complete profile, as it is after `extends` and `overrides`.
pub(super) static PROFILE: LazyLock<Value> = LazyLock::new(|| profile(false));

/// A tenant's `overrides`: any part of a profile.
pub(super) fn overrides(generator: &mut SchemaGenerator) -> Schema {
    generator.definitions_mut().insert("Overrides".to_owned(), profile(true));
    Schema::new_ref("#/$defs/Overrides".to_owned())
}

/// The JSON Schema of a profile file: any part of a profile, and the keys `description`, `extends` and `overridable`.
pub fn profile_schema() -> Value {
    let mut schema = profile(true);
    let head = json!({
        "description": { "type": "string", "description": "The tier in a few words." },
        "extends": {
            "type": "string",
            "description": "The profile that this one changes. In a file with the name of a built-in profile, that name means the built-in profile.",
            "examples": ["standard"],
        },
        "overridable": {
            "type": "array",
            "items": { "type": "string" },
            "description": "The settings that a tenant's `overrides` may change. A section stands for all settings in it.",
            "examples": [["namespace.quota", "nodes.max"]],
        },
    });
    if let (Some(Value::Object(properties)), Value::Object(head)) = (schema.get_mut("properties"), head) {
        properties.extend(head);
    }
    schema
}

/// The profile's schema. With `patch`, the schema of a merge patch (RFC 7396): no field is required, and an optional
/// field of a profile may be `null`, which removes it.
fn profile(patch: bool) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<Profile>().to_value();
    tidy(&mut schema, patch);
    schema
}

/// Joins each description into one line. For a patch, removes `required` and lets entries be `null`.
pub(super) fn tidy(schema: &mut Value, patch: bool) {
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
