//! AWS: clients for one account and region, ownership tags, error classes and
//! the count of calls. `aws_sdk_*` is named here and in `kinds/aws/` only.

pub mod calls;
mod environment;
pub mod error;
pub mod fence;
pub mod http;
pub mod lock;
mod pace;
pub mod probe;
pub mod simulate;
pub mod skew;
pub mod tags;
mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::service_config::ServiceConfigKey;

use crate::arn::{Arn, role_of};
use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};
use crate::engine::secret;

pub use crate::engine::kind::Scope;
pub use calls::Calls;
pub use fence::Fence;
use wire::Wire;

/// The settings for connecting to AWS.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// `spec.region`. It takes precedence over the environment.
    pub region: String,
    /// A sandbox: its URL, and the account of its access keys. The
    /// environment's endpoints and credentials are ignored then.
    pub sandbox: Option<(String, String)>,
    /// The time limit for an answer. Default: a minute.
    pub patience: Option<Duration>,
}

/// Clients for one scope, and other data that every kind needs.
#[derive(Clone)]
pub struct Aws {
    pub scope: Arc<Scope>,
    /// `metadata.name` of the spec, the owner of the resources.
    pub tenancy: String,
    /// The caller's ARN. For an assumed role, the ARN of the role.
    pub caller: String,
    pub ec2: aws_sdk_ec2::Client,
    pub eks: aws_sdk_eks::Client,
    pub iam: aws_sdk_iam::Client,
    pub kms: aws_sdk_kms::Client,
    pub logs: aws_sdk_cloudwatchlogs::Client,
    pub ssm: aws_sdk_ssm::Client,
    pub sts: aws_sdk_sts::Client,
    pub calls: Calls,
    pub clock: Clock,
    /// The clients above and those of the clusters pass this fence before each
    /// change.
    pub fence: Fence,
    /// The time limit for an answer.
    pub patience: Duration,
    /// For clients without a fence: the lock's own client, and readers.
    pub config: SdkConfig,
    pub ignored: tags::Ignored,
}

impl Aws {
    /// Loads the environment's configuration and asks STS for the caller's
    /// identity. Makes one call.
    pub async fn connect(access: &Access, tenancy: &str, clock: Clock) -> Result<Arc<Self>> {
        let (config, wire) = configured(access, &clock).await?;
        let (calls, fence, patience) = (Calls::default(), Fence::default(), wire.patience);
        let fenced = config.to_builder().http_client(Wire { fence: Some(fence.clone()), ..wire }).build();
        macro_rules! client {
            ($sdk:ident) => {
                $sdk::Client::from_conf(
                    $sdk::config::Builder::from(&fenced)
                        .interceptor(calls.clone())
                        .retry_classifier(Unreadable)
                        .build(),
                )
            };
        }
        let sts = client!(aws_sdk_sts);
        let identity = match sts.get_caller_identity().send().await.map_err(error::failed("sts:GetCallerIdentity")) {
            Ok(identity) => identity,
            Err(error) => return Err(environment::explained(error).await),
        };
        let account = identity.account().unwrap_or_default().to_owned();
        let arn = identity.arn().unwrap_or_default();
        let partition = Arn::parse(arn).map_or("aws", |arn| arn.partition).to_owned();
        if account.len() != 12 {
            return Err(Error::new(
                Class::Unreachable,
                format!("STS answered without an account id (got `{account}`)"),
            )
            .help("check AWS_ENDPOINT_URL: the endpoint doesn't speak AWS's protocol"));
        }
        Ok(Arc::new(Self {
            scope: Arc::new(Scope { account, region: access.region.clone(), partition }),
            tenancy: tenancy.to_owned(),
            caller: role_of(arn),
            ec2: client!(aws_sdk_ec2),
            eks: client!(aws_sdk_eks),
            iam: client!(aws_sdk_iam),
            kms: client!(aws_sdk_kms),
            logs: client!(aws_sdk_cloudwatchlogs),
            ssm: client!(aws_sdk_ssm),
            sts,
            calls,
            clock,
            fence,
            patience,
            config,
            ignored: tags::Ignored::default(),
        }))
    }
}

/// The endpoints that the environment or the profile sets in place of AWS's, as
/// the SDK's clients find them. Empty if all calls go to AWS itself (AWS SDKs
/// and Tools Reference Guide, "Service-specific endpoints").
pub fn endpoints(config: &SdkConfig) -> BTreeSet<String> {
    const SERVICES: [&str; 8] = ["EC2", "EKS", "IAM", "KMS", "CloudWatch Logs", "STS", "SSM", "Service Quotas"];
    let own = SERVICES.into_iter().filter_map(|service| {
        let key = ServiceConfigKey::builder().service_id(service).env("AWS_ENDPOINT_URL").profile("endpoint_url");
        config.service_config()?.load_config(key.build().ok()?)
    });
    let all = own.chain(config.endpoint_url().map(str::to_owned));
    all.map(|url| url.trim_end_matches('/').to_owned()).collect()
}

/// The environment's configuration with credentials of a session of `role`.
/// Makes one call.
pub async fn assume(config: &SdkConfig, role: &str) -> Result<SdkConfig> {
    let call = aws_sdk_sts::Client::new(config).assume_role().role_arn(role).role_session_name("ringfence");
    let answer = call.send().await.map_err(error::failed("sts:AssumeRole"))?;
    let Some(session) = answer.credentials else {
        return Err(Error::new(Class::Unreachable, format!("STS gave no credentials for {role}")));
    };
    let ends = (*session.expiration()).try_into().ok();
    secret::keep(&session.secret_access_key);
    secret::keep(&session.session_token);
    let token = Some(session.session_token);
    let credentials = Credentials::new(session.access_key_id, session.secret_access_key, token, ends, "assumed");
    Ok(config.to_builder().credentials_provider(SharedCredentialsProvider::new(credentials)).build())
}

/// Attempts of a call that may be repeated. If one call in five fails, one in a
/// thousand plans of 300 calls fails.
const ATTEMPTS: u32 = 8;

/// A successful answer that can't be read: an incomplete answer, or a web page.
/// It is treated like a missing answer.
#[derive(Debug)]
struct Unreadable;

impl ClassifyRetry for Unreadable {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let success = context.response().is_some_and(|response| response.status().is_success());
        match context.output_or_error() {
            Some(Err(_)) if success => RetryAction::transient_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "Unreadable"
    }
}

/// The environment's configuration. Makes no call.
pub async fn load(access: &Access, clock: &Clock) -> Result<SdkConfig> {
    Ok(configured(access, clock).await?.0)
}

async fn configured(access: &Access, clock: &Clock) -> Result<(SdkConfig, Wire)> {
    let wire = Wire {
        http: http::client(access.sandbox.is_some())?,
        pace: pace::Pace::new(clock.clone()),
        clock: clock.clone(),
        patience: access.patience.unwrap_or(Duration::from_secs(60)),
        fence: None,
    };
    let paused = |seconds: f64| Duration::from_secs_f64(seconds / clock.speed());
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(access.region.clone()))
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(ATTEMPTS)
                .with_initial_backoff(paused(0.5))
                .with_max_backoff(paused(5.0)),
        )
        // The time limit for answers is in `wire`.
        .timeout_config(TimeoutConfig::builder().connect_timeout(Duration::from_secs(5)).build())
        .http_client(wire.clone());
    let loader = match &access.sandbox {
        None => loader,
        // The account number is the access key: emulators choose the account by
        // it.
        Some((url, account)) => {
            loader.endpoint_url(url).credentials_provider(Credentials::new(account, "sandbox", None, None, "sandbox"))
        }
    };
    let mut config = loader.load().await;
    if access.sandbox.is_none() {
        config = environment::with_services(config).await;
        environment::check(&config)?;
    }
    let Some(credentials) = config.credentials_provider() else { return Ok((config, wire)) };
    let kept = SharedCredentialsProvider::new(Kept(credentials));
    Ok((config.to_builder().credentials_provider(kept).build(), wire))
}

/// Remembers credentials so that messages hide them: a server may repeat them
/// in an error.
#[derive(Debug)]
struct Kept(SharedCredentialsProvider);

impl ProvideCredentials for Kept {
    fn provide_credentials<'a>(&'a self) -> provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        provider::future::ProvideCredentials::new(async {
            let credentials = self.0.provide_credentials().await?;
            secret::keep(credentials.secret_access_key());
            credentials.session_token().into_iter().for_each(secret::keep);
            Ok(credentials)
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.0.fallback_on_interrupt()
    }
}
