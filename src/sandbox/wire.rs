//! AWS's wire protocols: decodes an HTTP request into a call, and encodes the call's result as an HTTP response.
//!
//! The rules are from the Smithy specification ("AWS EC2 query", "AWS Query", "AWS JSON 1.1", "AWS restJson1") and from
//! the service models in botocore 1.44.5. Both botocore and the Rust SDK use these protocols for these services.

use super::{eks, state};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// An HTTP request as received, with the whole body. Header names are in lower case.
#[derive(Debug, Default, Clone)]
pub struct HttpRequest {
    pub method: String,
    /// Not decoded.
    pub path: String,
    /// Not decoded, without the question mark.
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct HttpResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl HttpRequest {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The query string's pairs, decoded.
    pub fn query_pairs(&self) -> Vec<(String, String)> {
        form(&self.query)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Ec2,
    Iam,
    Sts,
    Kms,
    Logs,
    Ssm,
    Quotas,
    Eks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Ec2,
    Query,
    Json,
    RestJson,
}

impl Service {
    /// The service of a name in the SigV4 credential scope.
    pub fn from_signing_name(name: &str) -> Option<Self> {
        Some(match name {
            "ec2" => Self::Ec2,
            "iam" => Self::Iam,
            "sts" => Self::Sts,
            "kms" => Self::Kms,
            "logs" => Self::Logs,
            "ssm" => Self::Ssm,
            "servicequotas" => Self::Quotas,
            "eks" => Self::Eks,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Iam => "iam",
            Self::Sts => "sts",
            Self::Kms => "kms",
            Self::Logs => "logs",
            Self::Ssm => "ssm",
            Self::Quotas => "servicequotas",
            Self::Eks => "eks",
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Ec2 => Protocol::Ec2,
            Self::Iam | Self::Sts => Protocol::Query,
            Self::Kms | Self::Logs | Self::Ssm | Self::Quotas => Protocol::Json,
            Self::Eks => Protocol::RestJson,
        }
    }

    fn namespace(self) -> &'static str {
        match self {
            Self::Ec2 => "http://ec2.amazonaws.com/doc/2016-11-15/",
            Self::Iam => "https://iam.amazonaws.com/doc/2010-05-08/",
            _ => "https://sts.amazonaws.com/doc/2011-06-15/",
        }
    }
}

/// The caller's identity, from the access key in the credential scope.
#[derive(Debug, Clone)]
pub struct Caller {
    pub arn: String,
    pub user_id: String,
}

/// One decoded API call. `params` is JSON for every protocol:
/// - JSON 1.1: the body as sent; restJson1 (EKS): body, path labels and query string merged under the model's member
///   names (a query value is a string, or a list if it is repeated: read lists with [`Request::texts`]);
/// - EC2 and query: the flat keys nested; numeric segments become lists (`Filter.1.Value.2` is
///   `{"Filter": [{"Value": [..]}]}`, `X.member.1` is `{"X": [..]}`). All leaves are strings.
#[derive(Debug, Clone)]
pub struct Request {
    pub service: Service,
    pub operation: String,
    pub account: String,
    pub region: String,
    pub caller: Caller,
    pub params: Value,
    /// Simulated unix seconds.
    pub now: f64,
    /// `http://127.0.0.1:PORT` without a slash at the end.
    pub base_url: String,
    /// Also sent as `x-amzn-requestid` of the answer.
    pub request_id: String,
}

impl Request {
    /// A string, or a number or boolean in its text form; an empty string counts as absent.
    pub fn text(&self, name: &str) -> Option<String> {
        text(&self.params, name)
    }

    /// A list of strings. A single string is a list of one; a missing member is an empty list.
    pub fn texts(&self, name: &str) -> Vec<String> {
        texts(&self.params, name)
    }

    /// A list of objects. A missing member is an empty list.
    pub fn items(&self, name: &str) -> &[Value] {
        items(&self.params, name)
    }

    pub fn partition(&self) -> &'static str {
        state::partition(&self.region)
    }

    /// `arn:aws:<service>:<region>:<account>:<resource>`.
    pub fn arn(&self, resource: &str) -> String {
        format!("arn:{}:{}:{}:{}:{resource}", self.partition(), self.service.name(), self.region, self.account)
    }

    /// The service's own error for an operation that the sandbox doesn't have.
    pub fn unknown_operation(&self) -> Fault {
        let code = match self.service.protocol() {
            Protocol::Ec2 | Protocol::Query => "InvalidAction",
            Protocol::Json | Protocol::RestJson => "UnknownOperationException",
        };
        let status = if self.service.protocol() == Protocol::RestJson { 404 } else { 400 };
        let message = format!(
            "The action {} is not valid for this web service: ringfence's sandbox has only the operations of {} that ringfence uses",
            self.operation,
            self.service.name(),
        );
        Fault::new(status, code, message)
    }
}

/// See [`Request::text`].
pub fn text(value: &Value, name: &str) -> Option<String> {
    plain(value.get(name)?)
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(s) if s.is_empty() => None,
        Value::String(s) => Some(s.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// See [`Request::texts`].
pub fn texts(value: &Value, name: &str) -> Vec<String> {
    match value.get(name) {
        Some(Value::Array(list)) => list.iter().filter_map(plain).collect(),
        Some(one) => plain(one).into_iter().collect(),
        None => Vec::new(),
    }
}

/// See [`Request::items`].
pub fn items<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// An AWS error.
#[derive(Debug, Clone)]
pub struct Fault {
    pub status: u16,
    pub code: String,
    pub message: String,
    /// Extra members of the error's body, such as EKS's `clusterName`.
    pub fields: Vec<(String, Value)>,
}

impl Fault {
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), fields: Vec::new() }
    }

    /// Adds a member to the error's body.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.fields.push((member.to_owned(), value.into()));
        self
    }
}

/// The result's members under their wire names. In XML, members that begin with `_` aren't sent, and a list whose name
/// begins with `+` is sent as a flattened list: its values one after another under its name.
pub type Reply = Result<Value, Fault>;

/// Access key, region and service from the credential scope.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub access_key: String,
    pub region: String,
    pub service: String,
}

/// Access key, region and service of a signed or presigned request. The signature itself isn't verified.
pub fn scope(request: &HttpRequest) -> Result<Scope, Fault> {
    let header = request.header("authorization");
    let credential = if header.is_empty() {
        request
            .query_pairs()
            .into_iter()
            .find(|(key, _)| key == "X-Amz-Credential")
            .map(|(_, value)| value)
            .ok_or_else(|| Fault::new(403, "MissingAuthenticationToken", "Request is missing Authentication Token"))?
    } else {
        let credential = header
            .strip_prefix("AWS4-HMAC-SHA256")
            .and_then(|rest| rest.split(',').find_map(|part| part.trim().strip_prefix("Credential=")));
        credential.map(str::to_owned).ok_or_else(|| {
            Fault::new(
                400,
                "IncompleteSignature",
                "Authorization header requires 'Credential' parameter and the AWS4-HMAC-SHA256 algorithm.",
            )
        })?
    };
    let parts: Vec<&str> = credential.split('/').collect();
    match parts.as_slice() {
        [key, _date, region, service, "aws4_request"] if !key.is_empty() => {
            Ok(Scope { access_key: (*key).to_owned(), region: (*region).to_owned(), service: (*service).to_owned() })
        }
        _ => Err(Fault::new(
            400,
            "IncompleteSignature",
            "Credential must have exactly 5 slash-delimited elements: KEY/YYYYMMDD/REGION/SERVICE/aws4_request.",
        )),
    }
}

/// Operation and params.
pub fn decode(service: Service, request: &HttpRequest) -> Result<(String, Value), Fault> {
    match service.protocol() {
        Protocol::Ec2 | Protocol::Query => {
            let mut pairs = request.query_pairs();
            pairs.extend(form(&String::from_utf8_lossy(&request.body)));
            let action = pairs.iter().find(|(key, _)| key == "Action").map(|(_, action)| action.clone());
            let action = action
                .ok_or_else(|| Fault::new(400, "MissingAction", "The request must contain the parameter Action"))?;
            pairs.retain(|(key, _)| key != "Action" && key != "Version" && !key.starts_with("X-Amz-"));
            Ok((action, nested(&pairs)))
        }
        Protocol::Json => {
            let target = request.header("x-amz-target");
            let operation = target.rsplit('.').next().filter(|name| !name.is_empty()).ok_or_else(|| {
                Fault::new(400, "UnknownOperationException", "The request must contain the header X-Amz-Target")
            })?;
            Ok((operation.to_owned(), body(&request.body)?))
        }
        Protocol::RestJson => {
            let (operation, labels) = route(eks::ROUTES, &request.method, &request.path).ok_or_else(|| {
                let message = format!(
                    "ringfence's sandbox has no operation {} {} for this service",
                    request.method, request.path
                );
                Fault::new(404, "UnknownOperationException", message)
            })?;
            let Value::Object(mut params) = body(&request.body)? else {
                return Err(Fault::new(400, "SerializationException", "The body is no JSON object"));
            };
            for (key, value) in request.query_pairs() {
                match params.get_mut(&key) {
                    Some(Value::Array(list)) => list.push(value.into()),
                    Some(first) => *first = json!([first.take(), value]),
                    None => {
                        params.insert(key, value.into());
                    }
                }
            }
            params.extend(labels.into_iter().map(|(label, value)| (label.to_owned(), value.into())));
            Ok((operation.to_owned(), Value::Object(params)))
        }
    }
}

fn body(bytes: &[u8]) -> Result<Value, Fault> {
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(bytes)
        .map_err(|why| Fault::new(400, "SerializationException", format!("The body is no JSON: {why}")))
}

/// The operation of a method and path, and the values of the path's labels. Route templates name labels as in
/// `/clusters/{name}`.
fn route<'r>(
    routes: &[(&str, &'r str, &'r str)],
    method: &str,
    path: &str,
) -> Option<(&'r str, Vec<(&'r str, String)>)> {
    let given: Vec<&str> = path.trim_matches('/').split('/').collect();
    routes.iter().filter(|(wanted, ..)| *wanted == method).find_map(|(_, template, operation)| {
        let wanted: Vec<&str> = template.trim_matches('/').split('/').collect();
        if wanted.len() != given.len() {
            return None;
        }
        let mut labels = Vec::new();
        for (segment, value) in wanted.iter().zip(&given) {
            match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(label) if !value.is_empty() => {
                    labels.push((label, percent_decode_str(value).decode_utf8_lossy().into_owned()));
                }
                None if segment == value => {}
                _ => return None,
            }
        }
        Some((*operation, labels))
    })
}

fn form(text: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

/// Flat query keys as a tree. Branches with numeric keys aren't lists yet.
#[derive(Default)]
struct Branch {
    leaf: Option<String>,
    children: BTreeMap<String, Branch>,
}

/// Keys that are deeper than this stay flat, so that no request can exhaust the stack. No operation has such keys.
const MAX_DEPTH: usize = 32;

fn nested(pairs: &[(String, String)]) -> Value {
    let mut root = Branch::default();
    for (key, value) in pairs {
        let mut at = &mut root;
        for segment in key.splitn(MAX_DEPTH, '.') {
            at = at.children.entry(segment.to_owned()).or_default();
        }
        at.leaf = Some(value.clone());
    }
    // The top is always an object, even if all its keys are numbers.
    Value::Object(root.children.into_iter().map(|(key, branch)| (key, branch.value())).collect())
}

impl Branch {
    fn value(mut self) -> Value {
        if self.children.is_empty() {
            return Value::String(self.leaf.unwrap_or_default());
        }
        if self.children.len() == 1 && self.children.contains_key("member") {
            return self.children.remove("member").map_or(Value::Null, Self::value);
        }
        let numbers: Option<BTreeMap<u32, String>> =
            self.children.keys().map(|key| Some((key.parse().ok()?, key.clone()))).collect();
        match numbers {
            Some(numbers) => numbers.values().filter_map(|key| self.children.remove(key)).map(Self::value).collect(),
            None => Value::Object(self.children.into_iter().map(|(key, branch)| (key, branch.value())).collect()),
        }
    }
}

/// The HTTP response to a decoded call.
pub fn encode(service: Service, operation: &str, request_id: &str, reply: &Reply) -> HttpResponse {
    match (service.protocol(), reply) {
        (_, Err(fault)) => encode_fault(service, request_id, fault),
        (Protocol::Ec2, Ok(value)) => {
            let mut xml = format!(
                "{HEAD}<{operation}Response xmlns=\"{}\"><requestId>{request_id}</requestId>",
                service.namespace()
            );
            members(&mut xml, value, "item");
            xml.push_str(&format!("</{operation}Response>"));
            response(200, XML, request_id, xml)
        }
        (Protocol::Query, Ok(value)) => {
            let mut xml = format!("{HEAD}<{operation}Response xmlns=\"{}\"><{operation}Result>", service.namespace());
            members(&mut xml, value, "member");
            xml.push_str(&format!(
                "</{operation}Result><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>"
            ));
            response(200, XML, request_id, xml)
        }
        (Protocol::Json, Ok(value)) => response(200, JSON_1_1, request_id, value.to_string()),
        (Protocol::RestJson, Ok(value)) => response(200, JSON, request_id, value.to_string()),
    }
}

/// An error for a request whose service isn't known, in the protocol that its headers suggest.
pub fn encode_unattributed(request: &HttpRequest, request_id: &str, fault: &Fault) -> HttpResponse {
    let service = if !request.header("x-amz-target").is_empty() {
        Service::Kms
    } else if request.header("content-type").starts_with("application/x-www-form-urlencoded") {
        Service::Sts
    } else {
        Service::Eks
    };
    encode_fault(service, request_id, fault)
}

fn encode_fault(service: Service, request_id: &str, fault: &Fault) -> HttpResponse {
    let Fault { status, code, message, fields } = fault;
    let kind = if *status < 500 { "Sender" } else { "Receiver" };
    let mut xml = String::from(HEAD);
    match service.protocol() {
        Protocol::Ec2 => {
            xml.push_str("<Response><Errors><Error>");
            members(&mut xml, &json!({"Code": code, "Message": message}), "item");
            xml.push_str(&format!("</Error></Errors><RequestID>{request_id}</RequestID></Response>"));
            response(*status, XML, request_id, xml)
        }
        Protocol::Query => {
            xml.push_str(&format!("<ErrorResponse xmlns=\"{}\"><Error>", service.namespace()));
            members(&mut xml, &json!({"Type": kind, "Code": code, "Message": message}), "member");
            xml.push_str(&format!("</Error><RequestId>{request_id}</RequestId></ErrorResponse>"));
            response(*status, XML, request_id, xml)
        }
        Protocol::Json | Protocol::RestJson => {
            let mut body: Map<String, Value> = fields.iter().cloned().collect();
            body.insert("message".to_owned(), message.as_str().into());
            if service.protocol() == Protocol::Json {
                body.insert("__type".to_owned(), code.as_str().into());
                return response(*status, JSON_1_1, request_id, Value::Object(body).to_string());
            }
            let mut answer = response(*status, JSON, request_id, Value::Object(body).to_string());
            answer.headers.push(("x-amzn-errortype".to_owned(), code.clone()));
            answer
        }
    }
}

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
const XML: &str = "text/xml;charset=UTF-8";
const JSON: &str = "application/json";
const JSON_1_1: &str = "application/x-amz-json-1.1";

fn response(status: u16, kind: &str, request_id: &str, body: String) -> HttpResponse {
    let headers =
        vec![("content-type".to_owned(), kind.to_owned()), ("x-amzn-requestid".to_owned(), request_id.to_owned())];
    HttpResponse { status, headers, body: body.into_bytes() }
}

fn members(xml: &mut String, value: &Value, item: &str) {
    if let Value::Object(members) = value {
        for (name, value) in members.iter().filter(|(name, value)| !name.starts_with('_') && !value.is_null()) {
            element(xml, name, value, item);
        }
    }
}

fn element(xml: &mut String, name: &str, value: &Value, item: &str) {
    if let (Some(name), Value::Array(list)) = (name.strip_prefix('+'), value) {
        return list.iter().for_each(|value| element(xml, name, value, item));
    }
    xml.push_str(&format!("<{name}>"));
    match value {
        Value::Object(_) => members(xml, value, item),
        Value::Array(list) => list.iter().for_each(|value| element(xml, item, value, item)),
        Value::String(text) => escape(xml, text),
        other => xml.push_str(&other.to_string()),
    }
    xml.push_str(&format!("</{name}>"));
}

fn escape(xml: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '\r' => xml.push_str("&#xD;"),
            // XML 1.0 can't express other control characters.
            c if c < ' ' && c != '\n' && c != '\t' => {}
            c => xml.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn post(body: &str) -> HttpRequest {
        HttpRequest {
            method: "POST".into(),
            path: "/".into(),
            body: body.as_bytes().to_vec(),
            ..HttpRequest::default()
        }
    }

    #[test]
    fn query_keys_become_a_tree() {
        let body = "Action=X&Version=1&Filter.1.Name=tag%3Aa&Filter.1.Value.2=b+c&Filter.1.Value.10=d&Tags.member.1.Key=k&Empty=";
        let (operation, params) = decode(Service::Ec2, &post(body)).unwrap();
        assert_eq!(operation, "X");
        let wanted = json!({
            "Filter": [{"Name": "tag:a", "Value": ["b c", "d"]}], "Tags": [{"Key": "k"}], "Empty": "",
        });
        assert_eq!(params, wanted);
    }

    #[test]
    fn rest_paths_give_operation_and_labels() {
        let routes =
            [("GET", "/clusters/{name}", "DescribeCluster"), ("GET", "/tags/{resourceArn}", "ListTagsForResource")];
        let arn = "arn:aws:eks:us-east-1:1:cluster/a";
        let (operation, labels) = route(&routes, "GET", "/tags/arn%3Aaws%3Aeks%3Aus-east-1%3A1%3Acluster%2Fa").unwrap();
        assert_eq!((operation, labels), ("ListTagsForResource", vec![("resourceArn", arn.to_owned())]));
        assert!(route(&routes, "GET", "/clusters/").is_none() && route(&routes, "PUT", "/clusters/a").is_none());
    }

    #[test]
    fn xml_escapes_and_keeps_inner_members() {
        let reply = Ok(json!({"set": [{"a": "<&>\r\u{1}", "_inner": 1, "none": null, "+b": [1, 2]}], "n": 3}));
        let xml = String::from_utf8(encode(Service::Ec2, "X", "id", &reply).body).unwrap();
        assert!(xml.contains("<set><item><a>&lt;&amp;&gt;&#xD;</a><b>1</b><b>2</b></item></set><n>3</n>"), "{xml}");
        let xml = String::from_utf8(encode(Service::Iam, "X", "id", &reply).body).unwrap();
        assert!(xml.contains("<XResult><set><member>"), "{xml}");
    }

    #[test]
    fn credentials_are_found_or_asked_for() {
        let mut request = post("");
        assert_eq!(scope(&request).unwrap_err().code, "MissingAuthenticationToken");
        request.query = "X-Amz-Credential=AK%2F20261123%2Feu-west-1%2Fsts%2Faws4_request".into();
        let found = Scope { access_key: "AK".into(), region: "eu-west-1".into(), service: "sts".into() };
        assert_eq!(scope(&request).unwrap(), found);
        request.headers.insert("authorization".into(), "AWS4-HMAC-SHA256 Credential=AK/x".into());
        assert_eq!(scope(&request).unwrap_err().code, "IncompleteSignature");
    }
}
