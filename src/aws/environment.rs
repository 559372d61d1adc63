//! Settings of the environment and of the configuration files. The SDK reads some of them in another way than the AWS
//! CLI, and reports some failures without the cause.

use std::collections::BTreeMap;
use std::env;

use aws_config::SdkConfig;
use aws_config::profile::{self, ProfileSet};
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_runtime::env_config::property::PropertiesKey;
use aws_types::os_shim_internal::{Env, Fs};
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use http::Uri;

use crate::engine::error::{Class, Error, Result};

const ENDPOINT: &str = "AWS_ENDPOINT_URL";

/// Our services whose names have a space, with the key that the AWS CLI uses in a `services` section. The SDK looks for
/// `cloudwatch-logs` instead (aws-sdk-rust, issue 1060).
const SPACED: [(&str, &str); 2] = [("CloudWatch Logs", "cloudwatch_logs"), ("Service Quotas", "service_quotas")];

/// Our services, by the SDK's names.
const SERVICES: [&str; 8] = ["EC2", "EKS", "IAM", "KMS", "CloudWatch Logs", "STS", "SSM", "Service Quotas"];

/// # Errors
/// An endpoint is no URL, or it is set together with FIPS endpoints.
pub fn check(config: &SdkConfig) -> Result<()> {
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    for service in SERVICES {
        let key = ServiceConfigKey::builder().service_id(service).profile("endpoint_url").env(ENDPOINT).build().ok();
        let Some(url) = key.and_then(|key| config.service_config()?.load_config(key)) else { continue };
        let own = variable(service);
        let name = [own.as_str(), ENDPOINT].into_iter().find(|name| set(name)).unwrap_or("the profile's endpoint_url");
        if !is_address(&url) {
            return Err(Error::input(format!("{name} is `{url}`, which isn't the URL of an endpoint"))
                .help("write it as https://HOST or http://HOST:PORT, or unset it"));
        }
        if config.use_fips() == Some(true) {
            let message = format!(
                "FIPS endpoints are enabled, but {name} sets an endpoint: this is impossible, because only AWS's \
                 own endpoints have a FIPS form"
            );
            return Err(Error::input(message)
                .help("unset AWS_USE_FIPS_ENDPOINT (in a profile, use_fips_endpoint), or unset the endpoint"));
        }
    }
    Ok(())
}

/// The environment variable of a service's own endpoint.
fn variable(service: &str) -> String {
    format!("{ENDPOINT}_{}", service.to_uppercase().replace(' ', "_"))
}

fn is_address(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    })
}

/// The configuration, with the endpoints that the AWS CLI would use.
pub async fn with_services(config: SdkConfig) -> SdkConfig {
    let profiles = profiles().await;
    let section = profiles.as_ref().and_then(|profiles| Some((profiles, profiles.get("services")?)));
    let Some((profiles, section)) = section else { return config };
    let endpoint = |name: &str| {
        let key = PropertiesKey::builder().section_key("services").section_name(section).property_name(name);
        profiles.other_sections().get(&key.sub_property_name("endpoint_url").build().ok()?).cloned()
    };
    let endpoints: BTreeMap<&str, String> =
        SPACED.iter().filter_map(|(service, name)| Some((*service, endpoint(name)?))).collect();
    if endpoints.is_empty() {
        return config;
    }
    config.to_builder().service_config(AsTheCli { config, endpoints }).build()
}

#[derive(Debug)]
struct AsTheCli {
    config: SdkConfig,
    endpoints: BTreeMap<&'static str, String>,
}

impl LoadServiceConfig for AsTheCli {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let (service, env) = (key.service_id(), key.env());
        let said = self.config.service_config().and_then(|config| config.load_config(key));
        // The environment takes precedence over the profile.
        let own = variable(service);
        let from_environment = [own.as_str(), ENDPOINT].iter().any(|name| env::var_os(name).is_some());
        match self.endpoints.get(service).filter(|_| env == ENDPOINT && !from_environment) {
            Some(endpoint) => Some(endpoint.clone()),
            None => said,
        }
    }
}

/// Adds to `error` the settings of the profile that this program doesn't support.
pub async fn explained(error: Error) -> Error {
    if error.class != Class::Denied || env::var_os("AWS_ACCESS_KEY_ID").is_some() {
        return error;
    }
    let Some(profiles) = profiles().await else { return error };
    let name = profiles.selected_profile();
    let message = if profiles.get("mfa_serial").is_some() {
        let said = &error.message;
        format!("{said}; the profile `{name}` has an mfa_serial, but ringfence can't ask for MFA codes")
    } else if profiles.get("login_session").is_some() {
        format!("no AWS credentials: the profile `{name}` uses a session of `aws login`, which ringfence can't read")
    } else {
        return error;
    };
    Error { message, ..error }.help(format!(
        "let the AWS CLI create a session, and export its credentials: eval \"$(aws configure export-credentials --profile {name} --format \
         env)\""
    ))
}

/// The configuration files, if they can be read. The SDK reports their mistakes.
async fn profiles() -> Option<ProfileSet> {
    profile::load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), None).await.ok()
}
