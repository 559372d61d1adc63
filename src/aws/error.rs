//! Turns SDK errors into [`Error`]s. Only this module decides what each error code means.

use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::wire::{At, NO_ANSWER, NOT_AWS};
use crate::engine::error::{Class, Error};
use crate::engine::secret::hide;

/// Makes an [`Error`] of any SDK error of `operation` (`ec2:CreateVpc`); for
/// `map_err`.
pub fn failed<E>(operation: &'static str) -> impl FnOnce(SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    move |error| {
        let error = convert(&error);
        // The failed call may be an earlier one that gets credentials.
        match &error.operation {
            Some(_) => error,
            None => error.operation(operation),
        }
    }
}

/// True if `error` says that the requested resource doesn't exist.
pub fn is_not_found(error: &Error) -> bool {
    error.class == Class::NotFound
}

fn convert<E>(error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(service) => match service.err().code() {
            Some(code) => {
                // The help also quotes the message. So secrets must be hidden before.
                let message = hide(service.err().message().unwrap_or("no message").trim());
                let message = message.trim_end_matches('.');
                let class = match (class(code, message), service.raw().status().as_u16()) {
                    (Class::Invalid, 429) => Class::Throttled,
                    // A server error may have any code, so the HTTP status decides.
                    (Class::Invalid, 500..) => Class::Unclear,
                    (class, _) => class,
                };
                Error { code: Some(hide(code)), help: help(code, message), ..Error::new(class, message) }
            }
            None => not_aws(service.raw()),
        },
        SdkError::ResponseError(response) => not_aws(response.raw()),
        SdkError::TimeoutError(_) => Error::new(Class::Unclear, NO_ANSWER),
        SdkError::DispatchFailure(dispatch) => {
            if let Some(barred) = dispatch.as_connector_error().and_then(|e| barred(e)) {
                return barred.clone();
            }
            let cause = chain(error);
            if dispatch.is_timeout() && cause.ends_with(NO_ANSWER) {
                return Error::new(Class::Unclear, NO_ANSWER);
            }
            let host = links(error).find_map(|link| link.downcast_ref::<At>()).map(|at| at.host.as_str());
            if let Some(refused) = assumed(error) {
                return refused;
            }
            if host.is_none() && is_credentials(&cause) {
                return no_credentials(&cause);
            }
            if let Some((_, page)) = cause.split_once(NOT_AWS) {
                return Error::new(Class::Unclear, format!("{NOT_AWS}{page}")).help(SOMEBODY_ELSE);
            }
            let refused = cause.contains("refused") || cause.contains("dns error") || cause.contains("tcp connect");
            let host = host.unwrap_or("the endpoint");
            if dispatch.is_user()
                || dispatch.is_timeout()
                || (dispatch.is_io() && refused)
                || cause.contains("certificate")
            {
                Error::new(Class::Unreachable, format!("{host} can't be reached: {}", last(&cause)))
                    .help("check the network, the proxy variables, AWS_ENDPOINT_URL and AWS_CA_BUNDLE")
            } else {
                Error::new(Class::Unclear, format!("the connection to {host} broke: {}", last(&cause)))
            }
        }
        _ => {
            let cause = chain(error);
            if let Some(refused) = assumed(error) {
                return refused;
            }
            if is_credentials(&cause) {
                return no_credentials(&cause);
            }
            Error::new(Class::Invalid, format!("the request can't be built: {}", last(&cause)))
        }
    }
}

/// Texts in the messages of transient errors (eventual consistency): not every server knows a new role or key at once.
const NOT_YET: &[&str] = &[
    "does not exist",
    "Error in role params",
    "Role could not be assumed",
    "doesn't have the Amazon EKS Managed Policies",
    "IAM role's policy must include",
    "Misconfigured PodExecutionRole Trust Policy",
    "service principals",
    // EKS, about an access entry whose role is new (terraform-provider-aws,
    // `internal/service/eks/access_entry.go`).
    "invalid principal",
    "Invalid principal",
    "Access Denied for LogDestination",
    "cannot be assumed",
    "Unable to assume",
    // EKS, about a new key, or a role whose policy is new (terraform-provider-aws 49247).
    "Access denied to KMS key",
    // EKS Pod Identity, after a change of a trust policy (terraform-provider-aws 41483, aws-cdk 31522).
    "Trust policy of the role provided is invalid",
    // CloudWatch Logs, about a new key (terraform-provider-aws 29282).
    "KMS Key Id could not be found",
];

/// The class of a service's error code. If one code has several meanings, `message` decides. Sources of the texts:
/// hashicorp/terraform-provider-aws `internal/service/eks` and the services' API references.
fn class(code: &str, message: &str) -> Class {
    match code {
        // EKS uses a key with the caller's permissions. Permissions that depend on the tags of a new key may take up to
        // five minutes to take effect (KMS Developer Guide, "ABAC for AWS KMS"; cluster-api-provider-aws 2432,
        // terraform-aws-eks 2678).
        "InvalidRequestException" if message.starts_with("User not authorized to perform kms:") => Class::NotYetAllowed,
        // CloudWatch Logs, about a new key or a new key policy (terraform-provider-aws 29282, hashicorp/terraform
        // 24194).
        "AccessDeniedException" if message.starts_with("The specified KMS key does not exist or is not allowed") => {
            Class::NotYet
        }
        // KMS, about a key that was just made or enabled (terraform-provider-aws `internal/service/kms/key.go`).
        "DisabledException" => Class::NotYet,
        // IAM, while the URL of a new OIDC issuer doesn't answer yet (IAM API, "CreateOpenIDConnectProvider").
        "OpenIdIdpCommunicationError" => Class::NotYet,
        "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown"
        | "RequestThrottled"
        | "ThrottledException" => Class::Throttled,
        "UnauthorizedOperation"
        | "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "OptInRequired"
        | "NotAuthorized"
        | "IncompleteSignature"
        | "InvalidSignatureException" => Class::Denied,
        "DependencyViolation"
        | "DeleteConflict"
        | "ResourceInUseException"
        | "ResourceInUse"
        | "ConcurrentModification"
        | "ConcurrentModificationException"
        | "OperationAbortedException"
        | "ConflictException"
        | "IncorrectState"
        // About an address that is still associated (EC2 API, ReleaseAddress).
        | "InvalidIPAddress.InUse" => Class::Conflict,
        // EKS passes on EC2's error about a launch template.
        "InvalidRequestException" if message.starts_with("You are not authorized") => Class::Denied,
        "InvalidRequestException" if message.contains("in progress") || message.contains("currently") => {
            Class::Conflict
        }
        "NoSuchEntity"
        | "NotFoundException"
        | "ResourceNotFoundException"
        | "NatGatewayNotFound"
        | "ParameterNotFound"
        | "GatewayNotAttached"
        | "Gateway.NotAttached" => Class::NotFound,
        "ClientException" if message.starts_with("No cluster found") => Class::NotFound,
        "EntityAlreadyExists"
        | "AlreadyExistsException"
        | "ResourceAlreadyExistsException"
        | "InvalidGroup.Duplicate"
        | "ParameterAlreadyExists"
        | "FlowLogAlreadyExists"
        | "InvalidLaunchTemplateName.AlreadyExistsException" => Class::Exists,
        "InvalidParameterException"
        | "InvalidRequestException"
        | "MalformedPolicyDocument"
        | "MalformedPolicyDocumentException"
        | "InvalidParameter"
            if NOT_YET.iter().any(|text| message.contains(text)) =>
        {
            Class::NotYet
        }
        "LimitExceeded" | "LimitExceededException" | "ResourceLimitExceededException" | "ResourceLimitExceeded" => {
            Class::Quota
        }
        "InternalError"
        | "InternalFailure"
        | "InternalServerError"
        | "ServerException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "Unavailable"
        | "ServiceFailure"
        | "KMSInternalException"
        | "InternalServerErrorException"
        | "RequestTimeout" => Class::Unclear,
        _ if code.ends_with(".NotFound") || code.ends_with("NotFoundException") => Class::NotFound,
        _ if code.ends_with("LimitExceeded") => Class::Quota,
        _ => Class::Invalid,
    }
}

/// Codes for access keys that are unknown: to AWS, or in a region that isn't enabled for the account.
const UNKNOWN_KEYS: [&str; 5] = [
    "AuthFailure",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
];

/// Codes for known access keys with a wrong signature.
const WRONG_SIGNATURES: [&str; 3] = ["SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature"];

fn help(code: &str, message: &str) -> Option<String> {
    Some(match class(code, message) {
        Class::Denied if code.starts_with("Expired") => {
            "the credentials have expired: sign in again, then run the same command".to_owned()
        }
        Class::Denied if UNKNOWN_KEYS.contains(&code) => {
            "AWS refuses these access keys: check AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN; AWS says the same \
             if the account hasn't enabled the region (`aws account list-regions` shows the enabled ones)"
                .to_owned()
        }
        Class::Denied if WRONG_SIGNATURES.contains(&code) => {
            "the secret key doesn't belong to the key id, or this computer's clock is wrong; a proxy may also have changed the \
             request"
                .to_owned()
        }
        Class::Denied if code == "OptInRequired" => {
            "the account isn't signed up for this service, or hasn't enabled this region (`aws account list-regions`)"
                .to_owned()
        }
        Class::Denied | Class::NotYetAllowed => {
            "`ringfence iam-policy` prints the permissions that this spec needs".to_owned()
        }
        Class::Quota => "ask for a higher quota in Service Quotas, then run the same command".to_owned(),
        _ => return None,
    })
}

fn not_aws(raw: &HttpResponse) -> Error {
    let status = raw.status().as_u16();
    let body = raw.body().bytes().unwrap_or_default();
    // Secrets are hidden before the text is cut: half of a secret must not be shown either.
    let start: String =
        hide(&String::from_utf8_lossy(body)).chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect();
    // A web page from a proxy doesn't say whether the call reached AWS.
    let class = if (400..500).contains(&status) { Class::Unreachable } else { Class::Unclear };
    Error::new(class, format!("{NOT_AWS}: HTTP {status}, beginning `{}`", start.trim())).help(SOMEBODY_ELSE)
}

const SOMEBODY_ELSE: &str = "a proxy, a captive portal or an emulator without this operation may have answered; check AWS_ENDPOINT_URL and the proxy variables";

fn no_credentials(cause: &str) -> Error {
    Error::new(Class::Denied, format!("no AWS credentials: {}", last(cause)))
        .help("set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or sign in with `aws sso login`; `--sandbox` needs none")
}

fn is_credentials(cause: &str) -> bool {
    let cause = cause.to_lowercase();
    cause.contains("credential") || cause.contains("identity resolver")
}

/// The reason why the wire didn't send the request. `None`: the error has another cause.
fn barred<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    links(error).skip(1).find_map(|link| link.downcast_ref())
}

/// An error and its causes, outermost first.
fn links<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |link| link.source())
}

/// All causes, outermost first.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    links(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The error of a refused AssumeRole for credentials, with STS's message.
fn assumed(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let said = |link: &(dyn std::error::Error + 'static)| {
        let plain = link.downcast_ref::<AssumeRoleError>().map(|e| (e.meta().clone(), "AssumeRole"));
        let by_token = || link.downcast_ref::<AssumeRoleWithWebIdentityError>();
        plain.or_else(|| by_token().map(|e| (e.meta().clone(), "AssumeRoleWithWebIdentity")))
    };
    let (meta, operation) = links(error).find_map(said)?;
    let code = meta.code()?;
    let message = hide(meta.message().unwrap_or("no message").trim_end_matches('.'));
    let help = "check that the profile's role exists, and that its trust policy and the caller's own policies allow sts:AssumeRole";
    let error = Error::new(Class::Denied, format!("no AWS credentials: the role can't be assumed: {message}"));
    Some(Error { code: Some(hide(code)), ..error }.operation(format!("sts:{operation}")).help(help))
}

/// The last three links of a chain, which name the real cause.
fn last(chain: &str) -> String {
    let links: Vec<&str> = chain.split(": ").collect();
    links[links.len().saturating_sub(3)..].join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_waited_for_and_what_is_wrong_is_not() {
        for (code, message, expected) in [
            (
                "InvalidParameterException",
                "Access denied to KMS key arn:aws:kms:us-east-1:123456789012:key/1 due to explicit deny policy or revoked grant",
                Class::NotYet,
            ),
            (
                "AccessDeniedException",
                "The specified KMS key does not exist or is not allowed to be used with Arn 'arn:aws:logs:us-east-1:123456789012:log-group:/a'",
                Class::NotYet,
            ),
            ("InvalidParameterException", "The specified KMS Key Id could not be found", Class::NotYet),
            (
                "InvalidRequestException",
                "User not authorized to perform kms:CreateGrant operation",
                Class::NotYetAllowed,
            ),
            (
                "InvalidRequestException",
                "User not authorized to perform kms:DescribeKey operation",
                Class::NotYetAllowed,
            ),
            ("DisabledException", "arn:aws:kms:us-east-1:123456789012:key/1 is disabled", Class::NotYet),
            ("InvalidParameterException", "Trust policy of the role provided is invalid", Class::NotYet),
            ("OpenIdIdpCommunicationError", "Could not connect to the issuer", Class::NotYet),
            ("InvalidRequestException", "User is not authorized to perform iam:GetRole", Class::Invalid),
            ("InvalidRequestException", "You are not authorized to use the launch template", Class::Denied),
            ("AccessDeniedException", "User: me is not authorized to perform: kms:CreateKey", Class::Denied),
            (
                "ResourceInUseException",
                "Cannot create Fargate Profile a because cluster b currently has Fargate profile c in status CREATING",
                Class::Conflict,
            ),
        ] {
            assert_eq!(class(code, message), expected, "{code}: {message}");
        }
    }

    #[test]
    fn a_permission_that_may_not_count_yet_has_the_help_of_one_that_is_missing() {
        let denied = help("AccessDeniedException", "no");
        assert!(denied.is_some());
        assert_eq!(help("InvalidRequestException", "User not authorized to perform kms:CreateGrant operation"), denied);
    }
}
