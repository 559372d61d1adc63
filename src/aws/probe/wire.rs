//! Signed requests of the four protocols, and their answers as JSON. No SDK is used: an SDK drops members that its
//! model doesn't know, and fills in missing ones.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::Call;
use crate::aws::{Access, http, load};
use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};

pub const REGION: &str = "us-east-1";
/// The account of the access keys that a stand-in on this computer gets. Emulators choose the account by the access
/// key.
const ACCOUNT: &str = "123456789012";
/// Some stand-ins load modules at the first call. Loading takes long.
const TIMEOUT: Duration = Duration::from_secs(180);
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The answer to a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Done(Value),
    /// An error with its code.
    Refused(String),
    /// No answer, or a server error. The call may have been carried out.
    Lost(String),
}

/// A server that speaks AWS's protocols.
pub struct Endpoint {
    /// The URL without a slash at the end. `None`: AWS itself, where each service has its own.
    pub url: Option<String>,
    connector: Connector,
    credentials: Credentials,
}

impl Endpoint {
    pub async fn new(url: Option<&str>) -> Result<Self> {
        let host = url.and_then(|url| url.split_once("://")).map_or("", |(_, rest)| rest);
        let here = ["127.", "localhost", "[::1]"].iter().any(|start| host.starts_with(start));
        let credentials = if here {
            Credentials::new(ACCOUNT, "check", None, None, "check")
        } else {
            let access = Access { region: REGION.to_owned(), ..Access::default() };
            let config = load(&access, &Clock::real()).await?;
            let provider = config.credentials_provider().ok_or_else(|| no_credentials("none are configured"))?;
            provider.provide_credentials().await.map_err(|e| no_credentials(&e.to_string()))?
        };
        let url = url.map(|url| url.trim_end_matches('/').to_owned());
        Ok(Self { url, connector: http::connector(here)?, credentials })
    }

    pub fn name(&self) -> &str {
        self.url.as_deref().unwrap_or("AWS")
    }

    fn base(&self, service: &str) -> String {
        match &self.url {
            Some(url) => url.clone(),
            None if service == "iam" => "https://iam.amazonaws.com".to_owned(),
            None => format!("https://{service}.{REGION}.amazonaws.com"),
        }
    }

    pub async fn ask(&self, call: &Call) -> Answer {
        let lost = |what: &dyn std::fmt::Display| Answer::Lost(what.to_string());
        let request = match self.request(call) {
            Ok(request) => request,
            Err(why) => return lost(&why),
        };
        let answered = async {
            let response = self.connector.call(request).await.map_err(|e| chain(&e))?;
            let (status, kind) = (response.status().as_u16(), response.headers().get("x-amzn-errortype"));
            let kind = kind.map(str::to_owned);
            let body = ByteStream::new(response.into_body()).collect().await.map_err(|e| chain(&e))?;
            Ok::<_, String>((status, kind, body.into_bytes()))
        };
        match tokio::time::timeout(TIMEOUT, answered).await {
            Ok(Ok((status, kind, body))) => read(call.service(), status, kind.as_deref(), &body),
            Ok(Err(why)) => lost(&why),
            Err(_) => lost(&format!("no answer within {TIMEOUT:?}")),
        }
    }

    fn request(&self, call: &Call) -> Result<HttpRequest> {
        let broken = |e: &dyn std::fmt::Display| Error::bug(format!("{} can't be sent: {e}", call.call));
        let (service, operation) = (call.service(), call.operation());
        let mut headers = vec![];
        let mut method = "POST";
        let mut path = "/".to_owned();
        let body = match service {
            "ec2" | "iam" | "sts" => {
                let (version, member) = match service {
                    "ec2" => ("2016-11-15", ""),
                    "iam" => ("2010-05-08", ".member"),
                    _ => ("2011-06-15", ".member"),
                };
                headers.push(("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned()));
                let mut form = format!("Action={operation}&Version={version}");
                call.with.iter().for_each(|(name, value)| flat(&mut form, name, value, member));
                form
            }
            "eks" => {
                let (verb, rest) = call.rest.split_once(' ').ok_or_else(|| broken(&"it has no method and path"))?;
                method = verb;
                rest.clone_into(&mut path);
                headers.push(("content-type", "application/json".to_owned()));
                if call.with.is_empty() { String::new() } else { json!(call.with).to_string() }
            }
            _ => {
                let target = match service {
                    "kms" => "TrentService",
                    "logs" => "Logs_20140328",
                    "ssm" => "AmazonSSM",
                    _ => "ServiceQuotasV20190624",
                };
                headers.push(("content-type", "application/x-amz-json-1.1".to_owned()));
                headers.push(("x-amz-target", format!("{target}.{operation}")));
                json!(call.with).to_string()
            }
        };
        let url = format!("{}{path}", self.base(service));
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name(service)
            .time(Clock::timestamp().into())
            .settings(SigningSettings::default())
            .build()
            .map_err(|e| broken(&e))?
            .into();
        let signable = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let signable = SignableRequest::new(method, &url, signable, SignableBody::Bytes(body.as_bytes()))
            .map_err(|e| broken(&e))?;
        let (signature, _) = sign(signable, &params).map_err(|e| broken(&e))?.into_parts();
        let mut request = ::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(SdkBody::from(body)).map_err(|e| broken(&e))?;
        signature.apply_to_request_http1x(&mut request);
        HttpRequest::try_from(request).map_err(|e| broken(&e))
    }
}

fn no_credentials(why: &str) -> Error {
    Error::new(Class::Denied, format!("no AWS credentials: {why}")).help("set AWS_PROFILE or AWS_ACCESS_KEY_ID")
}

fn chain(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |e| e.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, &UNRESERVED).to_string()
}

/// Adds `name` and its members as pairs of the query protocols.
fn flat(form: &mut String, name: &str, value: &Value, member: &str) {
    match value {
        Value::Array(list) => {
            for (n, one) in (1..).zip(list) {
                flat(form, &format!("{name}{member}.{n}"), one, member);
            }
        }
        Value::Object(members) => {
            members.iter().for_each(|(key, one)| flat(form, &format!("{name}.{key}"), one, member));
        }
        Value::String(text) => form.push_str(&format!("&{name}={}", encoded(text))),
        other => form.push_str(&format!("&{name}={other}")),
    }
}

fn read(service: &str, status: u16, kind: Option<&str>, body: &[u8]) -> Answer {
    // After a server error, the call may have been carried out all the same.
    let error = |code: String| if status >= 500 { Answer::Lost(code) } else { Answer::Refused(code) };
    let foreign = || error(format!("HTTP {status} without an AWS error"));
    let text = String::from_utf8_lossy(body);
    let query = ["ec2", "iam", "sts"].contains(&service);
    let value = if query { xml(&text) } else { serde_json::from_str(if body.is_empty() { "{}" } else { &text }).ok() };
    let Some(mut value) = value else { return foreign() };
    if status >= 300 {
        let paths = ["/Response/Errors/Error/Code", "/ErrorResponse/Error/Code", "/__type", "/code"];
        let code = kind.or_else(|| paths.iter().find_map(|path| value.pointer(path)?.as_str()));
        // `com.amazon…#Code:http://…`: both ends are optional (Smithy, "AWS JSON 1.1": operation error serialization).
        let code = code.map(|code| code.rsplit('#').next().unwrap_or(code));
        return code.map_or_else(foreign, |code| error(code.split(':').next().unwrap_or(code).trim().to_owned()));
    }
    if query {
        let Some((_, inner)) = value.as_object_mut().and_then(|all| all.iter_mut().next()) else { return foreign() };
        value = inner.take();
        if let Value::Object(members) = &mut value {
            members.retain(|name, _| !["requestId", "ResponseMetadata"].contains(&name.as_str()));
            if let Some(result) = members.iter().find_map(|(name, one)| name.ends_with("Result").then(|| one.clone())) {
                value = result;
            }
        }
    }
    Answer::Done(value)
}

/// AWS's XML as a tree: elements with children are objects, or lists where the children are items; others are text. The
/// only attribute is the namespace.
fn xml(text: &str) -> Option<Value> {
    let document = roxmltree::Document::parse(text).ok()?;
    let root = document.root_element();
    root.has_children().then(|| json!({root.tag_name().name(): tree(root)}))
}

fn tree(element: roxmltree::Node<'_, '_>) -> Value {
    let children = || element.children().filter(roxmltree::Node::is_element);
    let name = |child: &roxmltree::Node<'_, '_>| child.tag_name().name().to_owned();
    if children().next().is_none() {
        return element.text().unwrap_or_default().trim().into();
    }
    if children().all(|child| ["item", "member"].contains(&child.tag_name().name())) {
        return children().map(tree).collect();
    }
    let mut object = Map::new();
    for child in children() {
        let value = tree(child);
        match object.get_mut(&name(&child)) {
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = json!([first.take(), value]),
            None => {
                object.insert(name(&child), value);
            }
        }
    }
    object.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn xml_becomes_a_tree() {
        let text =
            "<?xml version=\"1.0\"?>\n<R xmlns=\"x\"><set><item><a>1 &lt; 2</a><b/></item><item/></set><c>d</c></R>";
        assert_eq!(xml(text).unwrap(), json!({"R": {"set": [{"a": "1 < 2", "b": ""}, ""], "c": "d"}}));
        for broken in ["", "no", "<a><b></a></b>", "<a>", "</a>", "<a"] {
            assert_eq!(xml(broken), None, "{broken}");
        }
    }

    #[test]
    fn errors_are_known_by_their_code() {
        let code = |service, status, body: &str| match read(service, status, None, body.as_bytes()) {
            Answer::Refused(code) => code,
            other => format!("{other:?}"),
        };
        let ec2 = "<Response><Errors><Error><Code>InvalidVpcID.NotFound</Code></Error></Errors></Response>";
        assert_eq!(code("ec2", 400, ec2), "InvalidVpcID.NotFound");
        assert_eq!(
            code("iam", 404, "<ErrorResponse><Error><Code>NoSuchEntity</Code></Error></ErrorResponse>"),
            "NoSuchEntity"
        );
        assert_eq!(code("kms", 400, r#"{"__type":"com.amazonaws.kms#NotFoundException"}"#), "NotFoundException");
        assert_eq!(code("eks", 404, "<html>Not found</html>"), "HTTP 404 without an AWS error");
        assert_eq!(read("ec2", 503, None, b"<html>"), Answer::Lost("HTTP 503 without an AWS error".to_owned()));
    }

    #[test]
    fn parameters_become_pairs() {
        let mut form = String::new();
        flat(&mut form, "Tags", &json!([{"Key": "a b", "Value": true}]), ".member");
        assert_eq!(form, "&Tags.member.1.Key=a%20b&Tags.member.1.Value=true");
    }
}
