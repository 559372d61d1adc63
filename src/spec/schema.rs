//! The JSON Schema of the spec, for editors and for the structural check. It is derived from the types in
//! [`super::document`] and [`super::settings`].

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::document::Document;
use super::profile_schema::tidy;

/// The schema's URL. Editors use it as the key of their caches.
const ID: &str = "https://ringfence.dev/schemas/v1alpha1/tenancy.json";

/// The schema for checks, computed once.
pub(super) static TENANCY: LazyLock<Value> = LazyLock::new(schema);

/// The JSON Schema (draft 2020-12) of a tenancy file.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Document>();
    schema.insert("$id".to_owned(), ID.into());
    let mut schema = schema.to_value();
    tidy(&mut schema, false);
    schema
}
