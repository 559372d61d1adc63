//! What a request asks for: its verb, resource and names, read from method, path and query as an API server reads them
//! (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`).
//!
//! A path has exactly one spelling here. Anything that a server could read in another way, such as escapes, empty
//! segments or dots, is refused instead of being repaired.

use http::Method;

/// The longest path that is read, in bytes. Names of Kubernetes have at most 253.
const LONGEST_PATH: usize = 2048;
/// The longest query, in bytes. The continue token of a list is the longest value.
const LONGEST_QUERY: usize = 16 * 1024;
/// Parameters that may stand in a query more than once: the words of a command, and ports.
const REPEATED: &[&str] = &["command", "ports"];

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The server's description: discovery, OpenAPI, its version.
    Info,
    Resource(Attributes),
}

/// A request for objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    /// The plural, such as `pods`.
    pub resource: String,
    pub subresource: Option<String>,
    /// None for a request over all namespaces, or for objects in no namespace. A Namespace is in itself.
    pub namespace: Option<String>,
    /// None for a collection.
    pub name: Option<String>,
}

/// Parameters of a request, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// Why a request can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// The tenant that the path begins with, and the rest of the path, as in `/tenants/12345/api/v1/pods`.
pub fn tenant_of(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/tenants/")?;
    let (id, _) = rest.split_once('/').unwrap_or((rest, ""));
    let named = !id.is_empty() && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    named.then(|| (id, &rest[id.len()..]))
}

impl Query {
    /// # Errors
    /// The query is too long, has a parameter twice, or isn't UTF-8.
    pub fn read(query: Option<&str>) -> Result<Self, Malformed> {
        let query = query.unwrap_or_default();
        if query.len() > LONGEST_QUERY {
            return Err(Malformed("the query is too long"));
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if name.contains('\u{FFFD}') || value.contains('\u{FFFD}') {
                return Err(Malformed("the query isn't UTF-8"));
            }
            if !REPEATED.contains(&name.as_ref()) && pairs.iter().any(|(other, _)| *other == name) {
                return Err(Malformed("a parameter stands twice in the query"));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is true: any value is, apart from `false` and `0`
    /// (`k8s.io/apimachinery/pkg/runtime/converter.go`, `Convert_Slice_string_To_bool`).
    pub fn is(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// The same parameters without all but those named.
    pub fn only(&self, names: &[&str]) -> Self {
        Self(self.0.iter().filter(|(name, _)| names.contains(&name.as_str())).cloned().collect())
    }

    /// The text after the path, with its `?`. Empty without parameters.
    pub fn written(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let mut text = form_urlencoded::Serializer::for_suffix("?".to_owned(), 1);
        text.extend_pairs(&self.0);
        text.finish()
    }
}

impl Target {
    /// Reads a request for `path`, which is the path without the tenant.
    ///
    /// # Errors
    /// The path or the method isn't one that API servers have.
    pub fn read(method: &Method, path: &str, query: &Query) -> Result<Self, Malformed> {
        let segments = segments(path)?;
        let (group, version, rest) = match segments.as_slice() {
            ["api" | "apis" | "version"] | ["api", _] | ["apis", _] | ["apis", _, _] | ["openapi", ..] => {
                return match *method {
                    Method::GET => Ok(Self::Info),
                    _ => Err(Malformed("this path is for reading only")),
                };
            }
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Malformed("API servers have no such path")),
        };
        let mut attributes =
            Attributes { group: group.to_owned(), version: version.to_owned(), ..Attributes::default() };
        let own = |text: &str| Some(text.to_owned());
        let rest = match rest {
            ["namespaces", namespace, rest @ ..] => {
                attributes.namespace = own(namespace);
                match rest {
                    // Such a path would name two namespaces, or a resource of this name that no API has.
                    ["namespaces", ..] => return Err(Malformed("API servers have no such path")),
                    [] | ["status" | "finalize"] if !group.is_empty() => {
                        return Err(Malformed("API servers have no such path"));
                    }
                    [] | ["status" | "finalize"] => {
                        attributes.resource = "namespaces".to_owned();
                        attributes.name = own(namespace);
                        attributes.subresource = rest.first().copied().and_then(own);
                        &[]
                    }
                    [resource, rest @ ..] => {
                        attributes.resource = (*resource).to_owned();
                        rest
                    }
                }
            }
            // A form of watches that is deprecated since 1.11. Clients use the parameter `watch`.
            ["watch", ..] => return Err(Malformed("use the parameter watch")),
            [resource, rest @ ..] => {
                attributes.resource = (*resource).to_owned();
                rest
            }
            [] => return Err(Malformed("API servers have no such path")),
        };
        match rest {
            [] => {}
            [name] => attributes.name = own(name),
            [name, subresource] => {
                attributes.name = own(name);
                attributes.subresource = own(subresource);
            }
            _ => return Err(Malformed("paths below a subresource aren't served")),
        }
        attributes.verb = match (method.as_str(), attributes.name.is_some()) {
            ("GET", true) => "get",
            ("GET", false) if query.is("watch") => "watch",
            ("GET", false) => "list",
            ("POST", _) => "create",
            ("PUT", true) => "update",
            ("PATCH", true) => "patch",
            ("DELETE", true) => "delete",
            ("DELETE", false) => "deletecollection",
            _ => return Err(Malformed("API servers have no such method for this path")),
        };
        Ok(Self::Resource(attributes))
    }
}

impl Attributes {
    /// The resource as Roles name it, such as `pods` or `pods/log`.
    pub fn in_roles(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.clone(),
        }
    }

    /// Whether the request opens a session in a Pod, for which the connection changes its protocol.
    pub fn is_session(&self) -> bool {
        self.group.is_empty()
            && self.resource == "pods"
            && matches!(self.subresource.as_deref(), Some("exec" | "attach" | "portforward"))
    }

    /// The path on the API server.
    pub fn path(&self) -> String {
        let mut path = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        let is_namespace = self.group.is_empty() && self.resource == "namespaces";
        if let Some(namespace) = self.namespace.as_ref().filter(|_| !is_namespace) {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        for part in [Some(&self.resource), self.name.as_ref(), self.subresource.as_ref()].into_iter().flatten() {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

fn segments(path: &str) -> Result<Vec<&str>, Malformed> {
    if path.len() > LONGEST_PATH {
        return Err(Malformed("the path is too long"));
    }
    let path = match path {
        // Some client libraries write a slash after these.
        "/api/" | "/apis/" | "/version/" => path.trim_end_matches('/'),
        _ => path,
    };
    let Some(path) = path.strip_prefix('/') else { return Err(Malformed("the path has no slash at its start")) };
    let mut segments = Vec::new();
    for segment in path.split('/') {
        let plain = segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':'));
        if segment.is_empty() || !plain || segment.starts_with('.') || segment.ends_with('.') {
            return Err(Malformed("the path has characters that no name in Kubernetes has"));
        }
        segments.push(segment);
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(method: Method, path: &str) -> Result<Target, Malformed> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        Target::read(&method, path, &Query::read(query)?)
    }

    #[test]
    fn attributes_are_those_of_an_api_server() {
        for (method, path, expected) in [
            (Method::GET, "/api/v1/namespaces/t-a/pods", "list /v1 pods in t-a"),
            (Method::GET, "/api/v1/namespaces/t-a/pods?watch=true", "watch /v1 pods in t-a"),
            (Method::GET, "/api/v1/namespaces/t-a/pods?watch=", "watch /v1 pods in t-a"),
            (Method::GET, "/api/v1/namespaces/t-a/pods?watch=0", "list /v1 pods in t-a"),
            (Method::GET, "/api/v1/namespaces/t-a/pods/web?watch=1", "get /v1 pods in t-a web"),
            (Method::GET, "/api/v1/namespaces/t-a/pods/web/log?follow=1", "get /v1 pods/log in t-a web"),
            (
                Method::POST,
                "/api/v1/namespaces/t-a/pods/web/exec?command=a&command=b",
                "create /v1 pods/exec in t-a web",
            ),
            (Method::GET, "/api/v1/pods", "list /v1 pods"),
            (Method::GET, "/api/v1/namespaces", "list /v1 namespaces"),
            (Method::GET, "/api/v1/namespaces/t-a", "get /v1 namespaces in t-a t-a"),
            (Method::PUT, "/api/v1/namespaces/t-a/finalize", "update /v1 namespaces/finalize in t-a t-a"),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/t-a/deployments/web/scale",
                "patch apps/v1 deployments/scale in t-a web",
            ),
            (Method::DELETE, "/apis/apps/v1/namespaces/t-a/deployments/web", "delete apps/v1 deployments in t-a web"),
            (Method::DELETE, "/apis/apps/v1/namespaces/t-a/deployments", "deletecollection apps/v1 deployments in t-a"),
            (Method::GET, "/api/v1/nodes/n1", "get /v1 nodes n1"),
            (Method::GET, "/api/", "info"),
            (Method::GET, "/apis", "info"),
            (Method::GET, "/apis/apps/v1", "info"),
            (Method::GET, "/openapi/v3/apis/apps/v1?hash=A", "info"),
        ] {
            let target = read(method, path).unwrap();
            let text = match &target {
                Target::Info => "info".to_owned(),
                Target::Resource(a) => {
                    let namespace = a.namespace.as_ref().map_or(String::new(), |n| format!(" in {n}"));
                    let name = a.name.as_ref().map_or(String::new(), |n| format!(" {n}"));
                    format!("{} {}/{} {}{namespace}{name}", a.verb, a.group, a.version, a.in_roles())
                }
            };
            assert_eq!(text, expected, "{path}");
            if let Target::Resource(attributes) = target {
                assert_eq!(attributes.path(), path.split('?').next().unwrap(), "{path}");
            }
        }
    }

    #[test]
    fn paths_with_a_second_meaning_are_refused() {
        for path in [
            "",
            "/",
            "//",
            "api/v1/pods",
            "//api/v1/pods",
            "/api//v1/pods",
            "/api/v1/pods/",
            "/api/v1/./pods",
            "/api/v1/namespaces/t-a/../t-b/pods",
            "/api/v1/namespaces/t-a/namespaces/t-b",
            "/apis/apps/v1/namespaces/t-a/namespaces/t-b",
            "/apis/apps/v1/namespaces/t-a",
            "/apis/apps/v1/namespaces/t-a/status",
            "/api/v1/namespaces/..",
            "/api/v1/namespaces/t-a/pods/..",
            "/api/v1/namespaces/t-a/pods/%2e%2e",
            "/api/v1/namespaces/t-a%2fpods",
            "/api/v1/namespaces/t-b%00/pods",
            "/api/v1/namespaces/t-a./pods",
            "/api/v1/namespaces/t-a/pods/.web",
            "/api/v1/namespaces/t-a/pods;x=1/web",
            "/api/v1/namespaces/t-a\\pods",
            "/api/v1/namespaces/t-a/pods/web/exec/more",
            "/api/v1/watch/pods",
            "/api/v1/proxy/namespaces/t-a/pods/web",
            "/API/v1/pods",
            "/metrics",
            "/healthz",
            "/logs",
            "/debug/pprof",
            "/api/v1/nodes/n/proxy/metrics",
            "/.well-known/openid-configuration",
            "/api/v1/namespaces/t-a/pods/ü",
        ] {
            assert!(read(Method::GET, path).is_err(), "{path}");
        }
        for (method, path) in [
            (Method::OPTIONS, "/api/v1/namespaces/t-a/pods"),
            (Method::HEAD, "/api/v1/namespaces/t-a/pods"),
            (Method::CONNECT, "/api/v1/namespaces/t-a/pods/web"),
            (Method::PUT, "/api/v1/namespaces/t-a/pods"),
            (Method::PATCH, "/api/v1/namespaces/t-a/pods"),
            (Method::POST, "/apis"),
        ] {
            assert!(read(method.clone(), path).is_err(), "{method} {path}");
        }
        assert_eq!(Query::read(Some("a=%26&command=x&command=")).unwrap().written(), "?a=%26&command=x&command=");
        for query in ["watch=0&watch=1", "fieldSelector=a&fieldSelector=b", "dryRun=All&dryRun=", "labelSelector=%ff"] {
            assert!(Query::read(Some(query)).is_err(), "{query}");
        }
    }

    #[test]
    fn a_path_names_its_tenant() {
        assert_eq!(tenant_of("/tenants/12a/api/v1/pods"), Some(("12a", "/api/v1/pods")));
        assert_eq!(tenant_of("/tenants/12a"), Some(("12a", "")));
        for path in
            ["/tenants/", "/tenants/A/api", "/tenants/a-b/api", "/tenants/../api", "/tenants/a%2f/api", "/api", ""]
        {
            assert_eq!(tenant_of(path), None, "{path}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20_000))]

        /// Whatever is read has one spelling, and is read in the same way again: what was judged is what is asked for.
        #[test]
        fn a_path_that_is_read_is_the_path_that_is_sent(
            method in proptest::sample::select(vec!["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE"]),
            words in proptest::collection::vec(
                proptest::sample::select(vec![
                    "api", "apis", "v1", "apps", "namespaces", "t-red", "t-blue", "pods", "status", "log", "exec", "watch",
                    "", ".", "..", "%2e", "%2f", "a;b", "x\u{0}", "ü", "A", "web:80", "proxy", "openapi", "version", "web.",
                ]),
                0..8,
            ),
            query in "[a-z=&%0-9]{0,20}",
        ) {
            let path = format!("/{}", words.join("/"));
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let Ok(query) = Query::read(Some(&query)) else { return Ok(()) };
            if let Ok(Target::Resource(attributes)) = Target::read(&method, &path, &query) {
                proptest::prop_assert_eq!(&attributes.path(), &path);
                proptest::prop_assert!(!path.contains("..") && !path.contains('%') && !path.contains("//"));
                let again = Query::read(query.written().strip_prefix('?')).unwrap();
                proptest::prop_assert_eq!(&again, &query);
                let again = Target::read(&method, &attributes.path(), &again);
                proptest::prop_assert_eq!(again, Ok(Target::Resource(attributes)));
            }
        }
    }
}
