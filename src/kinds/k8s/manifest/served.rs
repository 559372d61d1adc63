//! The API of an object, and whether its cluster serves it.

use serde_json::Value;

use super::facts::State;
use super::object::{summary, text};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::k8s::{Api, Apis};

/// The API of a wanted object. `None` while the API that it requires isn't served.
///
/// # Errors [`Class::Invalid`] if the object declares no requirement and its API doesn't exist.
pub(super) fn locate<'a>(apis: &'a Apis, state: &State) -> Result<Option<&'a Api>> {
    let api = served(apis, &state.object);
    match (&state.requires, api) {
        (Some(requires), _) if !apis.serves(requires) => Ok(None),
        (Some(_), None) => Ok(None),
        (None, None) => Err(Error::new(
            Class::Invalid,
            format!(
                "cluster {} doesn't serve {} {}, which {} needs",
                state.cluster,
                text(&state.object, "/apiVersion").unwrap_or("(no apiVersion)"),
                text(&state.object, "/kind").unwrap_or("(no kind)"),
                summary(&state.object)
            ),
        )
        .help("if an add-on brings this API, add `requires:` with its group and version to the template; otherwise correct apiVersion and kind")),
        (_, Some(api)) if api.namespaced && text(&state.object, "/metadata/namespace").is_none() => Err(Error::new(
            Class::Invalid,
            format!("{} has no namespace, but its kind is namespaced", summary(&state.object)),
        )
        .help("add `metadata.namespace` in its template")),
        (_, Some(api)) => Ok(Some(api)),
    }
}

/// What [`locate`] depends on: the version and kind, the API that it requires, and whether it has a namespace.
pub(super) type Shape = (Option<String>, Option<String>, Option<String>, bool);

pub(super) fn shape(state: &State) -> Shape {
    let owned = |pointer: &str| text(&state.object, pointer).map(str::to_owned);
    (owned("/apiVersion"), owned("/kind"), state.requires.clone(), owned("/metadata/namespace").is_some())
}

pub(super) fn served<'a>(apis: &'a Apis, object: &Value) -> Option<&'a Api> {
    apis.find(text(object, "/apiVersion")?, text(object, "/kind")?)
}

pub(super) fn unserved(state: &State) -> Error {
    let (api, what) = (state.requires.as_deref().unwrap_or_default(), summary(&state.object));
    Error::new(Class::Unserved, format!("cluster {} doesn't serve {api}, which {what} needs", state.cluster)).help(
        "check that the add-on or chart that provides this API is installed and healthy, then run the same command",
    )
}

pub(super) fn at(address: &Address, error: Error) -> Error {
    Error { message: format!("{address}: {}", error.message), ..error }
}
