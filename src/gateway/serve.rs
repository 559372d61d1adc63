//! One request, from its first byte to its answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::answer::{Body, Refused, answered, json_response, whole};
use super::attributes::{self, Attributes, Query, Target};
use super::audit::{Line, Verdict};
use super::body::Media;
use super::estate::Tenant;
use super::examine::{Outcome, Write};
use super::limits::Ticket;
use super::listen::{Peer, Server};
use super::metrics::{Labels, OfTenant};
use super::upstream::{Call, Upstream, sent_on};
use super::who::Identity;
use super::{Gateway, State, session};
use crate::engine::clock::Clock;
use crate::telemetry::{Span, SpanKind};

/// The field manager of ringfence's own objects. Its name would hide a tenant's fields among ours.
const OUR_MANAGER: &str = "ringfence";

/// One request's way through the gateway.
struct Exchange {
    gateway: Arc<Gateway>,
    state: Arc<State>,
    line: Line,
    span: Span,
    since: Duration,
}

/// A request that is known to be the tenant's, and within its rights.
struct Entered {
    tenant: Arc<Tenant>,
    identity: Arc<Identity>,
    upstream: Arc<Upstream>,
    target: Target,
    query: Query,
    ticket: Ticket,
    /// Whether the answer has no end of its own.
    is_stream: bool,
}

/// Answers a request.
pub async fn serve(gateway: Arc<Gateway>, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
    let (id, since) = (gateway.next_id(), gateway.clock.elapsed());
    let span = gateway.traces.request(request.headers());
    if span.is_recorded() {
        span.set("http.request.method", request.method().to_string());
    }
    let (time, trace) = (Clock::timestamp().to_string(), span.trace());
    let line = Line { id, trace, address: Some(peer.address), time, ..Line::default() };
    let state = gateway.state();
    let mut exchange = Exchange { gateway, state, line, span: span.clone(), since };
    match span.around(exchange.answer(&peer, request)).await {
        Ok(response) => response,
        Err(refused) => {
            exchange.line.status = refused.status;
            exchange.line.rule = refused.rule.clone();
            if exchange.line.verdict == Verdict::Allowed {
                exchange.line.verdict = if refused.status >= 500 { Verdict::Failed } else { Verdict::Malformed };
            }
            exchange.report();
            refused.response()
        }
    }
}

impl Exchange {
    async fn answer(&mut self, peer: &Peer, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        let entered = self.enter(peer, &request).await?;
        self.line.verdict = Verdict::Allowed;
        let (parts, body) = request.into_parts();
        match &entered.target {
            Target::Info => self.read(entered, "", &parts.headers).await,
            Target::Resource(attributes) if attributes.is_session() => {
                let request = Request::from_parts(parts, body);
                self.session(entered, request).await
            }
            Target::Resource(attributes) => match attributes.verb {
                "get" | "list" | "watch" => {
                    let path = attributes.path();
                    self.read(entered, &path, &parts.headers).await
                }
                _ => self.write(entered, &parts.headers, body).await,
            },
        }
    }

    /// Who asks, for which tenant, and whether the tenant may.
    async fn enter(&mut self, peer: &Peer, request: &Request<Incoming>) -> Result<Entered, Refused> {
        let headers = request.headers();
        if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
            return Err(Refused::bad("the request has two lengths"));
        }
        let uri = request.uri();
        if request.version() != Version::HTTP_2 && (uri.scheme().is_some() || uri.authority().is_some()) {
            return Err(Refused::bad("the request's target must be a path"));
        }
        self.line.verdict = Verdict::Unauthenticated;
        let tokens: Vec<&[u8]> = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect();
        let State { who, recent, .. } = &*self.state;
        let span = Span::part("authentication", SpanKind::Internal);
        let identity = recent.identity(who, &tokens, peer.certificate.as_ref(), &self.gateway.clock).await;
        span.end();
        let identity = identity.map_err(|refused| match refused.is_temporary() {
            true => Refused::new(503, "ServiceUnavailable", "identities can't be checked now").rule(refused.reason()),
            false => Refused::unauthorized().rule(refused.reason()),
        })?;
        self.line.identity = Some(identity.name.clone());
        self.line.verdict = Verdict::Forbidden;
        let (id, path) = attributes::tenant_of(uri.path()).ok_or_else(no_tenant)?;
        let tenant = self.state.estate.tenant(id, &identity).cloned().ok_or_else(no_tenant)?;
        self.line.tenant = Some(tenant.id.clone());
        self.line.verdict = Verdict::Malformed;
        let malformed = |why: attributes::Malformed| Refused::new(404, "NotFound", why.0);
        let query = Query::read(uri.query()).map_err(|why| Refused::bad(why.0))?;
        let target = Target::read(request.method(), path, &query).map_err(malformed)?;
        self.line.verdict = Verdict::Forbidden;
        let target = self.within_rights(&tenant, target, path, &query)?;
        let is_stream = match &target {
            Target::Info => false,
            Target::Resource(a) => {
                a.verb == "watch" || a.is_session() || (a.subresource.as_deref() == Some("log") && query.is("follow"))
            }
        };
        self.line.verdict = Verdict::Limited;
        let now = self.gateway.clock.elapsed();
        let meter = self.gateway.meters.of(&tenant.id, &self.state.limits, now);
        let ticket = match meter.enter(is_stream, now) {
            Ok(ticket) => ticket,
            Err(refused) => {
                meter.pause(&self.gateway.clock).await;
                return Err(refused);
            }
        };
        let upstream =
            self.state.clusters.get(&tenant.cluster).cloned().ok_or_else(|| {
                Refused::new(503, "ServiceUnavailable", "the gateway doesn't know this tenant's cluster")
            })?;
        Ok(Entered { tenant, identity, upstream, target, query, ticket, is_stream })
    }

    /// The target as it is sent on, if the tenant's Role allows it.
    fn within_rights(&mut self, tenant: &Tenant, target: Target, path: &str, query: &Query) -> Result<Target, Refused> {
        let Target::Resource(mut attributes) = target else {
            self.line.verb = "get";
            self.line.name = Some(path.to_owned());
            return Ok(Target::Info);
        };
        self.line.verb = attributes.verb;
        self.line.group = Some(attributes.group.clone());
        self.line.resource = Some(attributes.in_roles());
        self.line.namespace.clone_from(&attributes.namespace);
        self.line.name.clone_from(&attributes.name);
        let Attributes { verb, group, namespace, name, .. } = &attributes;
        let resource = attributes.in_roles();
        if is_self_review(&attributes) {
            return Ok(Target::Resource(attributes));
        }
        let forbidden = || Refused::forbidden(&tenant.user.username, &attributes);
        let is_namespaces = group.is_empty() && attributes.resource == "namespaces";
        let reads = matches!(*verb, "list" | "watch");
        match namespace {
            Some(namespace) if *namespace == tenant.namespace => {}
            // A list over all namespaces is one of the tenant's own.
            None if name.is_none() && reads => {}
            _ => return Err(forbidden()),
        }
        // The list of namespaces is read as the one Namespace.
        let asked = if is_namespaces && *verb == "list" { "get" } else { verb };
        let name = name.as_deref().or_else(|| is_namespaces.then_some(tenant.namespace.as_str()));
        // Since 1.35, API servers ask for `create` however a session is opened (KEP-4006).
        let asked = if attributes.is_session() { "create" } else { asked };
        let also = (*verb == "patch").then_some("update");
        let allowed =
            [Some(asked), also].into_iter().flatten().all(|verb| tenant.rights.allow(verb, group, &resource, name));
        if !allowed {
            let of_helm = query.get("labelSelector").is_some_and(|selector| selector.contains("owner=helm"));
            let mut refused = forbidden();
            if of_helm && attributes.resource == "secrets" {
                refused.message.push_str("; for Helm, set HELM_DRIVER=configmap");
            }
            return Err(refused);
        }
        let manager = query.get("fieldManager").unwrap_or_default();
        if manager.to_ascii_lowercase().starts_with(OUR_MANAGER) {
            return Err(Refused::bad("fieldManager can't begin with `ringfence`"));
        }
        attributes.namespace = Some(tenant.namespace.clone());
        Ok(Target::Resource(attributes))
    }

    async fn read(&mut self, entered: Entered, path: &str, headers: &HeaderMap) -> Result<Response<Body>, Refused> {
        let kept = sent_on(headers);
        let path = match &entered.target {
            Target::Info => self.line.name.clone().unwrap_or_default(),
            Target::Resource(a) if a.group.is_empty() && a.resource == "namespaces" && a.name.is_none() => {
                return self.namespaces(entered, kept).await;
            }
            Target::Resource(_) => path.to_owned(),
        };
        let path = format!("{path}{}", entered.query.written());
        self.forward(entered, Call { method: Method::GET, path, headers: kept, body: None }).await
    }

    /// The list or watch of namespaces, which has the tenant's own.
    async fn namespaces(&mut self, entered: Entered, mut headers: HeaderMap) -> Result<Response<Body>, Refused> {
        let Entered { tenant, query, is_stream, .. } = &entered;
        let field = query.get("fieldSelector").unwrap_or_default();
        if query.get("labelSelector").is_some_and(|selector| !selector.is_empty())
            || !(field.is_empty() || field == format!("metadata.name={}", tenant.namespace))
        {
            return Err(Refused::bad("the gateway lists namespaces without selectors only"));
        }
        if *is_stream {
            // A Role can allow this watch, but no watch of all namespaces.
            let path = format!("/api/v1/watch/namespaces/{}{}", tenant.namespace, query.written());
            return self.forward(entered, Call { method: Method::GET, path, headers, body: None }).await;
        }
        let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let form = ["Table", "PartialObjectMetadata"].into_iter().find(|form| accepts.contains(&format!("as={form}")));
        let accept = match form {
            Some(form) => format!("application/json;as={form};v=v1;g=meta.k8s.io"),
            None => "application/json".to_owned(),
        };
        headers.insert(ACCEPT, HeaderValue::try_from(accept).map_err(|_| Refused::bad("Accept can't be read"))?);
        headers.remove(ACCEPT_ENCODING);
        let path = format!("/api/v1/namespaces/{}", tenant.namespace);
        let call = Call { method: Method::GET, path, headers, body: None };
        let (response, object) = entered.upstream.ask(tenant, &entered.identity, call).await?;
        self.line.status = response.status().as_u16();
        self.report();
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        if !response.status().is_success() || kind == "Table" {
            let (parts, body) = response.into_parts();
            return Ok(answered(&parts, whole(body)));
        }
        let list = json!({
            "kind": format!("{kind}List"),
            "apiVersion": object["apiVersion"],
            "metadata": {"resourceVersion": object["metadata"]["resourceVersion"]},
            "items": [object],
        });
        Ok(json_response(200, &list))
    }

    async fn write(
        &mut self,
        entered: Entered,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Response<Body>, Refused> {
        self.line.verdict = Verdict::Malformed;
        let limits = &self.state.limits;
        let media = Media::of(headers)?;
        let reading = Limited::new(body, limits.body_bytes).collect();
        let body = match tokio::time::timeout(Duration::from_secs(limits.body_seconds), reading).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(e)) if e.is::<LengthLimitError>() => {
                let refused = Refused::new(413, "RequestEntityTooLarge", "the request's body is too large");
                return Err(refused.rule("bytes of a body"));
            }
            Ok(Err(_)) => return Err(Refused::bad("the request's body ended too early")),
            Err(_) => return Err(Refused::new(408, "Timeout", "the request's body didn't come in time")),
        };
        let kept = sent_on(headers);
        let Target::Resource(attributes) = &entered.target else { return Err(Refused::bad("this path is read only")) };
        let write = Write {
            tenant: &entered.tenant,
            identity: &entered.identity,
            upstream: &entered.upstream,
            attributes,
            query: &entered.query,
            headers: &kept,
        };
        let span = Span::part("examination", SpanKind::Internal);
        let examining = span.around(async {
            match attributes.verb {
                "create" if is_self_review(attributes) => write.review(media, &body),
                "create" => write.create(media, &body),
                "delete" | "deletecollection" => write.delete(media, &body),
                _ => write.change(media, &body).await,
            }
        });
        let outcome = examining.await;
        span.end();
        let outcome = outcome.inspect_err(|refused| {
            if refused.status >= 500 {
                self.line.verdict = Verdict::Failed;
            } else if refused.rule.is_some() {
                self.line.verdict = Verdict::Denied;
            }
        })?;
        self.line.verdict = Verdict::Allowed;
        match outcome {
            Outcome::Answer(response) => {
                self.line.status = response.status().as_u16();
                self.report();
                Ok(response)
            }
            Outcome::Send(call) => self.forward(entered, call).await,
        }
    }

    /// Sends a request on, and gives its answer back while it comes.
    async fn forward(&mut self, entered: Entered, call: Call) -> Result<Response<Body>, Refused> {
        self.line.verdict = Verdict::Failed;
        let response = entered.upstream.send(&entered.tenant, &entered.identity, call).await?;
        self.line.verdict = Verdict::Allowed;
        self.line.status = response.status().as_u16();
        self.report();
        let (parts, body) = response.into_parts();
        let Entered { tenant, identity, ticket, is_stream, .. } = entered;
        let end = is_stream.then(|| self.end(tenant, identity));
        let body = Passing { body, end, _ticket: ticket };
        Ok(answered(&parts, body.boxed_unsync()))
    }

    /// Opens a session in a Pod.
    async fn session(&mut self, entered: Entered, mut request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        self.line.verdict = Verdict::Malformed;
        let Entered { tenant, identity, upstream, target, query, ticket, .. } = entered;
        let Target::Resource(attributes) = target else { return Err(Refused::bad("this path is read only")) };
        let mut headers = sent_on(request.headers());
        headers.extend(session::asked(request.version(), request.method(), request.headers())?);
        let path = format!("{}{}", attributes.path(), query.written());
        let call = Call { method: request.method().clone(), path, headers, body: None };
        self.line.verdict = Verdict::Failed;
        let mut response = upstream.send(&tenant, &identity, call).await?;
        self.line.verdict = Verdict::Allowed;
        self.line.status = response.status().as_u16();
        self.report();
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (parts, body) = response.into_parts();
            let body = Passing { body, end: None, _ticket: ticket };
            return Ok(answered(&parts, body.boxed_unsync()));
        }
        let headers = session::answered(&response);
        let (client, server) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut response));
        let end = self.end(tenant, identity);
        tokio::spawn(async move {
            let _ticket = ticket;
            if let (Ok(client), Ok(server)) = futures::join!(client, server) {
                let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                // Either side may end the session in any way.
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    () = end => {}
                }
            }
        });
        let mut response = Response::new(whole(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Becomes ready when a stream must end: after its time, when the gateway stops, or when the identity isn't the
    /// tenant's any more. Then it writes the stream's last line.
    fn end(&self, tenant: Arc<Tenant>, identity: Arc<Identity>) -> BoxFuture<'static, ()> {
        let gateway = self.gateway.clone();
        let last = Last { gateway: gateway.clone(), line: self.line.clone(), since: self.since };
        gateway.metrics.streams.get_or_create(&OfTenant { tenant: tenant.id.clone() }).inc();
        let longest = Duration::from_secs(self.state.limits.stream_seconds);
        async move {
            let _last = last;
            let mut reloads = gateway.reloads.subscribe();
            let time = gateway.clock.sleep(longest);
            tokio::pin!(time);
            loop {
                tokio::select! {
                    () = &mut time => return,
                    () = gateway.stopped() => return,
                    _ = reloads.changed() => {
                        if gateway.state().estate.tenant(&tenant.id, &identity).is_none() {
                            return;
                        }
                    }
                }
            }
        }
        .boxed()
    }

    fn report(&mut self) {
        let took = self.gateway.clock.elapsed().saturating_sub(self.since);
        self.line.milliseconds = (took.as_secs_f64() * 1e6).round() / 1e3;
        let tenant = self.line.tenant.clone().unwrap_or_default();
        let metrics = &self.gateway.metrics;
        metrics.latency.get_or_create(&OfTenant { tenant: tenant.clone() }).observe(took.as_secs_f64());
        let labels = Labels { tenant, verb: self.line.verb, verdict: self.line.verdict.name(), code: self.line.status };
        metrics.requests.get_or_create(&labels).inc();
        self.traced();
        self.gateway.log(&self.line);
    }

    /// Ends the span with what the line has. A stream's span ends when its answer begins.
    fn traced(&self) {
        let Self { line, span, .. } = self;
        if !span.is_recorded() {
            return;
        }
        if let Some(resource) = &line.resource {
            let group = line.group.as_deref().filter(|group| !group.is_empty());
            let group = group.map(|group| format!(".{group}")).unwrap_or_default();
            span.rename(format!("{} {resource}{group}", line.verb));
        }
        span.set("http.response.status_code", i64::from(line.status));
        span.set("ringfence.request", line.id.clone());
        span.set("ringfence.verdict", line.verdict.name());
        let known = [
            ("user.name", &line.identity),
            ("ringfence.tenant", &line.tenant),
            ("ringfence.rule", &line.rule),
            ("k8s.namespace.name", &line.namespace),
            ("ringfence.name", &line.name),
        ];
        for (key, value) in known {
            if let Some(value) = value {
                span.set(key, value.clone());
            }
        }
        if line.status >= 500 {
            span.failed("the request couldn't be answered");
        }
        span.end();
    }
}

/// Writes the last line of a stream when it ends, however it ends.
struct Last {
    gateway: Arc<Gateway>,
    line: Line,
    since: Duration,
}

impl Drop for Last {
    fn drop(&mut self) {
        let took = self.gateway.clock.elapsed().saturating_sub(self.since);
        self.line.milliseconds = (took.as_secs_f64() * 1e6).round() / 1e3;
        self.line.time = Clock::timestamp().to_string();
        self.line.verdict = Verdict::Ended;
        let tenant = self.line.tenant.clone().unwrap_or_default();
        self.gateway.metrics.streams.get_or_create(&OfTenant { tenant }).dec();
        self.gateway.log(&self.line);
    }
}

/// Requests about the caller's own rights, which every user may make (ClusterRole `system:basic-user`).
fn is_self_review(attributes: &Attributes) -> bool {
    let Attributes { verb, group, version, resource, subresource: None, namespace: None, name: None } = attributes
    else {
        return false;
    };
    let review = matches!(
        (group.as_str(), resource.as_str()),
        ("authorization.k8s.io", "selfsubjectaccessreviews" | "selfsubjectrulesreviews")
            | ("authentication.k8s.io", "selfsubjectreviews")
    );
    review && version == "v1" && *verb == "create"
}

/// The same for a tenant that doesn't exist and for one of somebody else.
fn no_tenant() -> Refused {
    Refused::new(403, "Forbidden", "this identity has no access to such a tenant; paths begin with /tenants/ID")
        .rule("tenant")
}

/// The body of an answer on its way. It counts against the tenant's limits until its end.
struct Passing {
    body: Body,
    end: Option<BoxFuture<'static, ()>>,
    _ticket: Ticket,
}

impl hyper::body::Body for Passing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Some(end) = &mut this.end
            && end.poll_unpin(context).is_ready()
        {
            this.end = None;
            return Poll::Ready(None);
        }
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
