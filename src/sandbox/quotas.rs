//! Service Quotas: AWS's defaults, and the raised values of a production account.

use super::pages::{Pages, paged};
use super::state::State;
use super::wire::{Fault, Reply, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Quotas have no state of their own: they are the table below with the overrides of [`State::quotas`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Quotas {}

struct Quota {
    service: &'static str,
    code: &'static str,
    name: &'static str,
    /// The default of a new account.
    default: f64,
    /// The raised value of a production account.
    raised: f64,
    adjustable: bool,
}

const fn quota(
    service: &'static str,
    code: &'static str,
    name: &'static str,
    default: f64,
    raised: f64,
    adjustable: bool,
) -> Quota {
    Quota { service, code, name, default, raised, adjustable }
}

const QUOTAS: &[Quota] = &[
    quota("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs", 5.0, 100.0, true),
    quota("ec2", "L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 5.0, 2000.0, true),
    quota("ec2", "L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", 5.0, 2000.0, true),
    quota("eks", "L-1194D53C", "Clusters", 100.0, 100.0, true),
    quota("eks", "L-23414FF3", "Fargate profiles per cluster", 10.0, 10.0, true),
    quota("eks", "L-6D54EA21", "Managed node groups per cluster", 30.0, 30.0, true),
    quota("eks", "L-BD136A63", "Nodes per managed node group", 450.0, 450.0, true),
    quota("iam", "L-0DA4ABF3", "Managed policies per role", 10.0, 10.0, true),
    quota("iam", "L-6E65F664", "Instance profiles per account", 1000.0, 1000.0, true),
    quota("iam", "L-858F3967", "OpenId connect providers per account", 100.0, 100.0, true),
    quota("iam", "L-C07B4B0D", "Role trust policy length", 2048.0, 2048.0, true),
    quota("iam", "L-E95E4862", "Customer managed policies per account", 1500.0, 1500.0, true),
    quota("iam", "L-FE177D64", "Roles per account", 1000.0, 1000.0, true),
    quota("vpc", "L-0EA8095F", "Inbound or outbound rules per security group", 60.0, 60.0, true),
    quota("vpc", "L-1B52E74A", "Gateway VPC endpoints per Region", 20.0, 100.0, true),
    quota("vpc", "L-29B6F2EB", "Interface VPC endpoints per VPC", 50.0, 50.0, true),
    quota("vpc", "L-2AFB9258", "Security groups per network interface", 5.0, 5.0, true),
    quota("vpc", "L-407747CB", "Subnets per VPC", 200.0, 200.0, true),
    quota("vpc", "L-589F43AA", "Route tables per VPC", 200.0, 200.0, true),
    quota("vpc", "L-83CA0A9D", "IPv4 CIDR blocks per VPC", 5.0, 5.0, true),
    quota("vpc", "L-93826ACB", "Routes per route table", 50.0, 50.0, true),
    quota("vpc", "L-A4707A72", "Internet gateways per Region", 5.0, 100.0, true),
    quota("vpc", "L-DF5E4CA3", "Network interfaces per Region", 5000.0, 5000.0, true),
    quota("vpc", "L-E79EC296", "VPC security groups per Region", 2500.0, 2500.0, true),
    quota("vpc", "L-F678F1CE", "VPCs per Region", 5.0, 100.0, true),
    quota("vpc", "L-FE5A380F", "NAT gateways per Availability Zone", 5.0, 100.0, true),
];

const SERVICES: &[(&str, &str)] = &[
    ("ec2", "Amazon Elastic Compute Cloud (Amazon EC2)"),
    ("eks", "Amazon Elastic Kubernetes Service (Amazon EKS)"),
    ("iam", "AWS Identity and Access Management (IAM)"),
    ("vpc", "Amazon Virtual Private Cloud (Amazon VPC)"),
];

/// The quotas of a new account, as overrides of a production account's. They are by name, so that an override by code
/// takes precedence.
pub fn fresh() -> BTreeMap<String, f64> {
    QUOTAS.iter().map(|quota| (quota.name.to_owned(), quota.default)).collect()
}

/// The value of a quota, by its code: the override by code or name, else the value of a production account. A quota
/// that isn't in the table is unlimited.
pub fn limit(overrides: &BTreeMap<String, f64>, code: &str) -> f64 {
    let known = QUOTAS.iter().find(|quota| quota.code == code);
    let by_name = known.and_then(|quota| overrides.get(quota.name));
    overrides.get(code).or(by_name).copied().or(known.map(|quota| quota.raised)).unwrap_or(f64::MAX)
}

pub fn call(state: &mut State, req: &Request) -> Reply {
    let overrides = &state.quotas;
    match req.operation.as_str() {
        // AWS may leave out quotas that were never changed (Service Quotas API reference, ListServiceQuotas). The
        // sandbox leaves them all out.
        "ListServiceQuotas" => {
            let applied = |quota: &Quota| limit(overrides, quota.code);
            list(req, |quota| Some(applied(quota)).filter(|value| *value != quota.default))
        }
        "ListAWSDefaultServiceQuotas" => list(req, |quota| Some(quota.default)),
        "GetServiceQuota" => one(req).map(|quota| json!({"Quota": wire(req, quota, limit(overrides, quota.code))})),
        "GetAWSDefaultServiceQuota" => one(req).map(|quota| json!({"Quota": wire(req, quota, quota.default)})),
        _ => Err(req.unknown_operation()),
    }
}

fn list(req: &Request, value: impl Fn(&Quota) -> Option<f64>) -> Reply {
    let code = req.text("ServiceCode").unwrap_or_default();
    if !SERVICES.iter().any(|(service, _)| *service == code) {
        return Err(no_such(format!("ringfence's sandbox has no quotas of the service {code:?}.")));
    }
    let only = req.text("QuotaCode");
    let quotas =
        QUOTAS.iter().filter(|quota| quota.service == code && only.as_deref().is_none_or(|only| only == quota.code));
    let all = quotas.filter_map(|quota| Some((quota.code.to_owned(), wire(req, quota, value(quota)?))));
    const PAGES: Pages = Pages { size: "MaxResults", token: "NextToken", next: "NextToken", usual: 100, most: 100 };
    paged(req, &PAGES, "Quotas", all).map_err(|why| Fault::new(400, "IllegalArgumentException", why))
}

fn one(req: &Request) -> Result<&'static Quota, Fault> {
    let (service, code) = (req.text("ServiceCode").unwrap_or_default(), req.text("QuotaCode").unwrap_or_default());
    let found = QUOTAS.iter().find(|quota| quota.service == service && quota.code == code);
    found.ok_or_else(|| {
        no_such(format!("The request failed because the specified resource {service}/{code} does not exist."))
    })
}

fn wire(req: &Request, quota: &Quota, value: f64) -> Value {
    let name = SERVICES.iter().find(|(service, _)| *service == quota.service).map(|(_, name)| name);
    let global = quota.service == "iam";
    let region = if global { "" } else { req.region.as_str() };
    json!({
        "ServiceCode": quota.service, "ServiceName": name, "QuotaCode": quota.code, "QuotaName": quota.name,
        "QuotaArn": format!("arn:{}:servicequotas:{region}:{}:{}/{}", req.partition(), req.account, quota.service, quota.code),
        "Value": value, "Unit": "None", "Adjustable": quota.adjustable, "GlobalQuota": global,
        "QuotaAppliedAtLevel": "ACCOUNT",
    })
}

fn no_such(message: String) -> Fault {
    Fault::new(400, "NoSuchResourceException", message)
}
