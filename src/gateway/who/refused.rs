//! The reasons of a refusal, for the audit log. A client learns only that it is not authenticated.

use std::fmt;

macro_rules! reasons {
    ($($name:ident: $text:literal,)+) => {
        /// Why a credential isn't accepted. Each reason is a fixed text: no part of a credential can get into a log.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refused {
            $(#[doc = $text] $name,)+
        }

        impl Refused {
            /// The reason as a sentence without a period.
            pub fn reason(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

reasons! {
    NoCredential: "the request has neither a bearer token nor a client certificate",
    SeveralHeaders: "the request has more than one Authorization header",
    NotBearer: "the Authorization header has another scheme than Bearer",
    EmptyToken: "the bearer token is empty",
    MalformedHeader: "the Authorization header isn't a scheme, one space and one token",
    TooLong: "the token is too long",

    NotJwt: "the token isn't a signed JWT",
    Json: "the token's JSON is malformed or nested too deep, or has a member twice",
    HeaderParameter: "the token's header has a parameter that brings a key, compression, encryption or an extension",
    Type: "the token's header names a type other than JWT and at+jwt",
    Algorithm: "the issuer's tokens may not be signed with the token's algorithm",
    KeyId: "the token's key id isn't a short text",
    Issuer: "the token's issuer isn't configured",
    UnknownKey: "the issuer has no key with the token's key id and algorithm",
    KeysUnavailable: "the issuer's keys can't be fetched",
    Signature: "the token's signature is wrong",
    Audience: "the token is for another audience",
    Dates: "one of the token's claims exp, nbf and iat isn't a date, or exp is missing",
    Expired: "the credential is expired",
    NotYetValid: "the credential isn't valid yet",
    IssuedInFuture: "the token is issued in the future",
    Subject: "the token's subject is missing or empty",
    Username: "the token's claim for the user's name is missing, empty, too long or has control characters",

    AwsNotAccepted: "tokens of AWS aren't accepted",
    AwsEncoding: "the AWS token isn't a URL in base64url",
    AwsHost: "the AWS token's URL isn't of an allowed STS endpoint",
    AwsQuery: "the AWS token's query is malformed",
    AwsParameter: "the AWS token's query has a parameter that isn't allowed",
    AwsTwice: "the AWS token's query has a parameter twice",
    AwsMissing: "the AWS token's query lacks a parameter",
    AwsAction: "the AWS token isn't a request for GetCallerIdentity of version 2011-06-15",
    AwsAlgorithm: "the AWS token's algorithm or signature isn't of Signature Version 4",
    AwsScope: "the AWS token isn't signed for the service, region and day of its request",
    AwsDate: "the AWS token's date is malformed",
    AwsExpires: "the AWS token's X-Amz-Expires isn't a number from 0 to 900",
    AwsSignedHeaders: "the AWS token's signature isn't about exactly the headers host and x-k8s-aws-id",
    AwsRefused: "STS refuses the AWS token",
    AwsUnavailable: "STS can't be reached, throttles, or is asked too often",
    AwsAnswer: "the answer of STS isn't understood",
    AwsPrincipal: "the AWS token is of neither a role nor a user",
    AwsAccount: "the AWS token is of an account that isn't allowed",

    CertificateMalformed: "the client certificate can't be read",
    CertificateUsage: "the client certificate isn't for client authentication",
    CertificateName: "the client certificate has no name, or an ambiguous one",
}

impl Refused {
    /// True if another server failed and the same credential may be accepted later. A gateway may answer 503 instead
    /// of 401, so that clients retry instead of asking a person to sign in.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::KeysUnavailable | Self::AwsUnavailable)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Refused {}
