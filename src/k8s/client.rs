//! One client for each cluster: the address of its API server, the login, and
//! the classification of its answers.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper_util::client::proxy::matcher::Matcher;
use kube::client::Body;
use kube::config::{Config, ExecAuthCluster, Kubeconfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

use super::apis::Apis;
use super::error;
use super::token::{Held, token};
use crate::aws::Aws;
use crate::aws::fence::Attempt;
use crate::engine::clock::Clock;
use crate::engine::error::{Error, Result};
use crate::engine::pause::Pauses;
use crate::engine::secret;

const CONNECT: Duration = Duration::from_secs(5);
/// Attempts of a request if the server is too busy.
const TRIES: u32 = 5;

/// A cluster, with the data that a manifest has about it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Name of the EKS cluster.
    pub cluster: &'a str,
    /// The API server's URL. It may be empty if there is a kubeconfig for the
    /// cluster.
    pub endpoint: &'a str,
    /// Base64 of PEM.
    pub certificate_authority: &'a str,
}

/// The clusters of one run. Each client is made once.
pub struct Clusters {
    aws: Arc<Aws>,
    kubeconfigs: BTreeMap<String, PathBuf>,
    open: Mutex<HashMap<[String; 3], Arc<Cluster>>>,
    counts: Counts,
}

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

impl Clusters {
    /// `kubeconfigs`: kubeconfig files by [`Target::cluster`].
    pub fn new(aws: Arc<Aws>, kubeconfigs: BTreeMap<String, PathBuf>) -> Self {
        Self { aws, kubeconfigs, open: Mutex::default(), counts: Counts::default() }
    }

    /// True if the address of `target`'s API server is known.
    pub fn locates(&self, target: Target<'_>) -> bool {
        !target.endpoint.is_empty() || self.kubeconfigs.contains_key(target.cluster)
    }

    /// The client for `target`. Doesn't connect yet.
    ///
    /// # Errors
    /// `Class::Input` for a kubeconfig, proxy or certificate that can't be
    /// used, `Class::Denied` for a kubeconfig's credential plugin that fails.
    pub async fn get(&self, target: Target<'_>) -> Result<Arc<Cluster>> {
        let key = [target.cluster, target.endpoint, target.certificate_authority].map(str::to_owned);
        if let Some(known) = self.lock().get(&key) {
            return Ok(known.clone());
        }
        let cluster = Arc::new(self.open(target).await?);
        Ok(self.lock().entry(key).or_insert(cluster).clone())
    }

    /// Requests made so far, by action such as `k8s:list`.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[String; 3], Arc<Cluster>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, target: Target<'_>) -> Result<Cluster> {
        let name = target.cluster;
        let file = self.kubeconfigs.get(name);
        let mut config = match file {
            Some(file) => from_kubeconfig(name, file)?,
            None => from_eks(target)?,
        };
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(self.aws.patience);
        // Without this, the idle time of a connection counts towards the time
        // limit.
        config.reset_reader_on_write = true;
        config.default_retry = false;
        // A kubeconfig's credential plugin runs here. It may block for long.
        let client = tokio::task::spawn_blocking(move || kube::Client::try_from(config))
            .await
            .map_err(|e| Error::bug(format!("the client for cluster {name} can't be built: {e}")))?
            .map_err(|e| match e {
                kube::Error::Auth(_) => error::transport(&e, name, ""),
                other => Error::input(format!("the client for cluster {name} can't be built: {other}")),
            })?;
        Ok(Cluster {
            name: name.to_owned(),
            kubeconfig: file.cloned(),
            aws: self.aws.clone(),
            client,
            token: Held::default(),
            apis: tokio::sync::Mutex::default(),
            counts: self.counts.clone(),
        })
    }
}

/// One cluster's API server.
pub struct Cluster {
    name: String,
    /// The kubeconfig, which has its own login. `None`: ringfence logs in with
    /// EKS tokens.
    kubeconfig: Option<PathBuf>,
    aws: Arc<Aws>,
    client: kube::Client,
    token: Held,
    apis: tokio::sync::Mutex<Option<Arc<Apis>>>,
    counts: Counts,
}

/// A request. `path` begins with `/`, and its segments are escaped.
#[derive(Debug)]
pub struct Call {
    /// The action under which the request is counted, such as `list`.
    pub action: &'static str,
    pub method: Method,
    pub path: String,
    pub accept: &'static str,
    /// Media type and content.
    pub body: Option<(&'static str, Vec<u8>)>,
}

impl Call {
    pub fn get(action: &'static str, path: impl Into<String>) -> Self {
        Self { action, method: Method::GET, path: path.into(), accept: "application/json", body: None }
    }

    /// True if the request may change something.
    fn changes(&self) -> bool {
        self.method != Method::GET && !self.path.contains("dryRun=All")
    }
}

impl Cluster {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The APIs of the cluster. They are read once; `fresh` reads them again.
    /// This is the first request to a cluster, so it shows whether the server
    /// can be reached.
    pub async fn apis(&self, fresh: bool) -> Result<Arc<Apis>> {
        let mut known = self.apis.lock().await;
        if let Some(apis) = known.as_ref().filter(|_| !fresh) {
            return Ok(apis.clone());
        }
        let apis = Arc::new(Apis::discover(self).await?);
        *known = Some(apis.clone());
        Ok(apis)
    }

    /// Sends `call` and returns the answer's JSON. Retries with pauses while
    /// the server is too busy.
    ///
    /// # Errors
    /// `Class::Unreachable` with possible remedies; `Class::Denied` with the
    /// way to give the caller access; and errors of the server.
    pub async fn call(&self, call: &Call) -> Result<Value> {
        let named = |e: Error| e.operation(format!("k8s:{}", call.action));
        let mut pauses = Pauses::doubling(Duration::from_millis(250));
        for attempt in 1.. {
            let request = self.request(call).await.map_err(named)?;
            self.count(call.action);
            let passed = call.changes().then(|| self.aws.fence.enter()).transpose().map_err(named)?;
            let limit = passed.as_ref().map_or(self.aws.patience, |passed| passed.limit.min(self.aws.patience));
            let answer = tokio::time::timeout(limit, self.exchange(request)).await;
            passed.into_iter().for_each(Attempt::over);
            let (status, asked, body) = answer.unwrap_or_else(|_| Err(error::no_answer(&self.name))).map_err(named)?;
            if matches!(status, 429 | 503 | 504) && attempt < TRIES {
                let pause = pauses.next_length();
                self.aws.clock.sleep(asked.unwrap_or(pause)).await;
                continue;
            }
            if !(200..300).contains(&status) {
                return Err(named(error::status(status, &body, &self.name, &self.way_in())));
            }
            return error::json(&body).ok_or_else(|| named(error::not_kubernetes(status, &body, &self.name)));
        }
        Err(Error::bug(format!("no request was sent to cluster {}", self.name)))
    }

    /// The answer's status, its Retry-After, and its body.
    async fn exchange(&self, request: Request<Body>) -> Result<(u16, Option<Duration>, Bytes)> {
        let broken = |e: kube::Error| error::transport(&e, &self.name, &self.ways_out());
        let response = self.client.send(request).await.map_err(broken)?;
        let (status, asked) = (response.status().as_u16(), retry_after(&response));
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        Ok((status, asked, body))
    }

    async fn request(&self, call: &Call) -> Result<Request<Body>> {
        let (media, body) = call.body.as_ref().map_or((None, Body::empty()), |(m, b)| (Some(*m), b.clone().into()));
        let mut request = Request::new(body);
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call
            .path
            .parse()
            .map_err(|e| Error::bug(format!("`{}` can't be asked of cluster {}: {e}", call.path, self.name)))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(call.accept));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("ringfence/", env!("CARGO_PKG_VERSION"))));
        if let Some(media) = media {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        }
        if self.kubeconfig.is_none() {
            let mut bearer = HeaderValue::try_from(format!("Bearer {}", self.token().await?))
                .map_err(|_| Error::bug("a token holds characters that a header can't"))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(request)
    }

    async fn token(&self) -> Result<String> {
        let fresh = async || token(&self.aws.config, &self.aws.scope, &self.name).await;
        self.token.get(Clock::timestamp(), fresh).await
    }

    fn count(&self, action: &str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(format!("k8s:{action}")).or_default() += 1;
    }

    fn ways_out(&self) -> String {
        match &self.kubeconfig {
            Some(file) => {
                format!(
                    "check that the tunnel, bastion host or VPN for {} is running; or leave the in-cluster part to GitOps with the files that `ringfence render` writes",
                    file.display()
                )
            }
            None => format!(
                "run ringfence in the cluster's VPC, or in a connected network that access.privateSources names; or open a tunnel and pass its kubeconfig with --kubeconfig {}=FILE; or leave the in-cluster part to GitOps with the files that `ringfence render` writes",
                self.name
            ),
        }
    }

    fn way_in(&self) -> String {
        match &self.kubeconfig {
            Some(file) => format!("the user in {} needs cluster-admin", file.display()),
            None => format!(
                "name {} under access.operators in the spec and apply: the access entry gives it access to the cluster; if this computer's clock is wrong by minutes, its tokens are also invalid",
                self.aws.caller
            ),
        }
    }
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(Duration::from_secs(15)))
}

fn from_eks(target: Target<'_>) -> Result<Config> {
    let name = target.cluster;
    let url = uri(target.endpoint)
        .ok_or_else(|| Error::bug(format!("the endpoint of cluster {name} isn't a URL: `{}`", target.endpoint)))?;
    if url.scheme_str() != Some("https") && !is_loopback(&url) {
        return Err(Error::input(format!(
            "the API server of cluster {name} is at {url}: a token sent there could be read on its way"
        ))
        .help("use an https URL; plain http is allowed only for addresses of this machine"));
    }
    let mut config = Config::new(url);
    if config.cluster_url.scheme_str() == Some("http") {
        // Without a list, the system's certificates are loaded, which a
        // container may lack.
        config.root_cert = Some(Vec::new());
    } else if !target.certificate_authority.is_empty() {
        config.root_cert =
            Some(certificates(target.certificate_authority).ok_or_else(|| {
                Error::bug(format!("the certificate authority of cluster {name} isn't base64 of PEM"))
            })?);
    }
    config.proxy_url = proxy(&config.cluster_url)?;
    Ok(config)
}

fn from_kubeconfig(name: &str, file: &Path) -> Result<Config> {
    let wrong = |why: &dyn std::fmt::Display| {
        Error::input(format!("--kubeconfig {name}={}: {why}", file.display()))
            .help("check it with `kubectl --kubeconfig FILE version`")
    };
    let kubeconfig = Kubeconfig::read_from(file).map_err(|e| wrong(&e))?;
    let wanted = kubeconfig.current_context.as_deref().filter(|c| !c.is_empty());
    let context = match (wanted, kubeconfig.contexts.as_slice()) {
        (Some(wanted), all) => all.iter().find(|c| c.name == wanted),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let context = context.and_then(|c| c.context.as_ref()).ok_or_else(|| wrong(&"it names no current context"))?;
    let cluster = kubeconfig
        .clusters
        .iter()
        .find(|c| c.name == context.cluster)
        .and_then(|c| c.cluster.as_ref())
        .ok_or_else(|| wrong(&format!("it holds no cluster `{}`", context.cluster)))?;
    let server = cluster.server.as_deref().unwrap_or_default();
    let mut config = Config::new(uri(server).ok_or_else(|| wrong(&format!("its server isn't a URL: `{server}`")))?);
    let auth = ExecAuthCluster::try_from(cluster).map_err(|e| wrong(&e))?;
    if let Some(pem) = &auth.certificate_authority_data {
        config.root_cert = Some(pem_certificates(pem).ok_or_else(|| wrong(&"its certificate authority isn't PEM"))?);
    }
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or(false);
    config.tls_server_name = cluster.tls_server_name.clone();
    config.proxy_url = match cluster.proxy_url.as_deref().filter(|p| !p.is_empty()) {
        Some(url) => Some(proxy_uri(url, "the kubeconfig's proxy-url")?),
        None => proxy(&config.cluster_url)?,
    };
    let user = context.user.as_deref().unwrap_or_default();
    let user = kubeconfig.auth_infos.iter().find(|u| u.name == user).and_then(|u| u.auth_info.clone());
    config.auth_info = user.unwrap_or_default();
    // Serialised, the login contains secrets in plain text, because the type is
    // made for writing kubeconfig files.
    let login = serde_json::to_value(&config.auth_info).unwrap_or_default();
    ["token", "password", "client-key-data"].iter().filter_map(|s| login.get(s)?.as_str()).for_each(secret::keep);
    if let Some(exec) = config.auth_info.exec.as_mut().filter(|e| e.provide_cluster_info) {
        exec.cluster = Some(auth);
    }
    Ok(config)
}

fn uri(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    (matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()).then_some(uri)
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The proxy that the environment sets for `server`. kube compares NO_PROXY
/// with the proxy's host instead of the server's, and doesn't know ALL_PROXY.
fn proxy(server: &Uri) -> Result<Option<Uri>> {
    let first = |names: &[&'static str]| {
        names.iter().find_map(|n| Some((*n, std::env::var(n).ok().filter(|v| !v.trim().is_empty())?)))
    };
    let Some((name, value)) = first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]) else {
        return Ok(None);
    };
    let except = first(&["NO_PROXY", "no_proxy"]).map(|(_, v)| v).unwrap_or_default();
    if is_loopback(server) || bypassed(server, except) {
        return Ok(None);
    }
    proxy_uri(&value, name).map(Some)
}

fn bypassed(server: &Uri, except: String) -> bool {
    let matcher = Matcher::builder().all("http://proxy.invalid").no(except).build();
    matcher.intercept(server).is_none()
}

/// `name` is the variable, for errors. The value isn't shown, because it may
/// contain a password.
fn proxy_uri(value: &str, name: &str) -> Result<Uri> {
    let value = value.trim();
    let value = match value.split_once("://") {
        // In both cases the proxy resolves host names.
        Some(("socks5h", rest)) => format!("socks5://{rest}"),
        Some(_) => value.to_owned(),
        None => format!("http://{value}"),
    };
    let uri: Option<Uri> = value.parse().ok();
    uri.filter(|u| matches!(u.scheme_str(), Some("http" | "https" | "socks5")) && u.host().is_some()).ok_or_else(|| {
        Error::input(format!("{name} isn't the URL of a proxy")).help("write http://HOST:PORT or socks5://HOST:PORT")
    })
}

/// The DER form of each certificate in base64-encoded PEM. EKS returns two
/// while it rotates a cluster's certificate authority.
fn certificates(base64: &str) -> Option<Vec<Vec<u8>>> {
    pem_certificates(&STANDARD.decode(base64.trim()).ok()?)
}

fn pem_certificates(pem: &[u8]) -> Option<Vec<Vec<u8>>> {
    let all = CertificateDer::pem_slice_iter(pem).map(|one| Some(one.ok()?.to_vec())).collect::<Option<Vec<_>>>()?;
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::engine::error::Class;

    fn at(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn no_proxy_is_about_the_server() {
        let eks = at("https://ABC123.gr7.us-east-1.eks.amazonaws.com");
        assert!(!bypassed(&eks, String::new()));
        assert!(!bypassed(&eks, "localhost,127.0.0.1,".to_owned()));
        assert!(bypassed(&eks, "localhost, .eks.amazonaws.com".to_owned()));
        assert!(bypassed(&at("https://10.64.3.4"), "10.64.0.0/12".to_owned()));
        assert!(bypassed(&eks, "*".to_owned()));
    }

    #[test]
    fn loopback_in_every_spelling() {
        for url in ["http://127.0.0.1:4500/k8s/1/r/c", "https://localhost:6443", "https://[::1]:6443"] {
            assert!(is_loopback(&at(url)), "{url}");
        }
        assert!(!is_loopback(&at("https://10.0.0.1")));
    }

    #[test]
    fn proxies_of_all_kinds() {
        assert_eq!(proxy_uri("proxy:3128", "HTTPS_PROXY").unwrap(), at("http://proxy:3128"));
        assert_eq!(proxy_uri("socks5h://127.0.0.1:1080", "ALL_PROXY").unwrap(), at("socks5://127.0.0.1:1080"));
        let error = proxy_uri("socks4://user:secret@h:1", "ALL_PROXY").unwrap_err();
        assert!(error.message.contains("ALL_PROXY") && !error.message.contains("secret"), "{error}");
    }

    #[test]
    fn tokens_go_over_https_only() {
        let target = |endpoint| Target { cluster: "c", endpoint, certificate_authority: "" };
        assert!(from_eks(target("http://127.0.0.1:4500/k8s/1/r/c")).is_ok());
        assert_eq!(from_eks(target("http://eks.example.com")).unwrap_err().class, Class::Input);
    }

    fn kubeconfig(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, text).unwrap();
        from_kubeconfig("shared-1", &file)
    }

    #[test]
    fn kubeconfigs() {
        let whole = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
            contexts: [{name: a, context: {cluster: c, user: u}}, {name: b, context: {cluster: x}}]\n\
            clusters: [{name: c, cluster: {server: 'https://127.0.0.1:6443', tls-server-name: kube, proxy-url: 'socks5://127.0.0.1:1080', \
            certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFRSUQKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=}}]\n\
            users: [{name: u, user: {token: secret}}]\n";
        let config = kubeconfig(whole).unwrap();
        assert_eq!(config.cluster_url, at("https://127.0.0.1:6443"));
        assert_eq!(config.root_cert, Some(vec![vec![1, 2, 3]]));
        assert_eq!(config.tls_server_name.as_deref(), Some("kube"));
        assert_eq!(config.proxy_url, Some(at("socks5://127.0.0.1:1080")));
        assert!(config.auth_info.token.is_some());

        let alone = whole.replace("current-context: a\n", "").replace(", {name: b, context: {cluster: x}}", "");
        assert!(kubeconfig(&alone).is_ok(), "the only context is meant");
        for (broken, why) in [
            (whole.replace("current-context: a", "current-context: z"), "no current context"),
            (whole.replace("cluster: c,", "cluster: z,"), "no cluster `z`"),
            (whole.replace("https://127.0.0.1:6443", "here"), "isn't a URL: `here`"),
            (whole.replace("LS0t", "????"), "certificate authority"),
            ("a: [".to_owned(), "YAML"),
        ] {
            let error = kubeconfig(&broken).unwrap_err();
            assert!(error.class == Class::Input && error.message.contains(why), "{why}: {error}");
            assert!(error.message.starts_with("--kubeconfig shared-1="), "{error}");
        }
        assert_eq!(from_kubeconfig("c", Path::new("/nowhere/config")).unwrap_err().class, Class::Input);
    }

    #[test]
    fn two_certificates_while_the_authority_rotates() {
        let pem = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nBAU=\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(&STANDARD.encode(pem)).unwrap(), [vec![1, 2, 3], vec![4, 5]]);
        assert!(certificates(&STANDARD.encode("no pem")).is_none());
        assert!(certificates("?").is_none());
    }
}
