//! The whole state of the sandbox, as one serialisable value.

use super::fate::Fates;
use super::{ec2, eks, iam, k8s, kms, logs, quotas, ssm, sts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The state of all accounts. An account or region is created, empty, at its first call.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    pub accounts: BTreeMap<String, Account>,
    pub ids: Ids,
    /// Simulated unix seconds of the last save. The clock starts from there after a restart.
    pub saved_at: Option<f64>,
    /// Quota overrides of this run, by quota code (`L-…`) or name; see [`quotas::limit`].
    #[serde(skip)]
    pub quotas: BTreeMap<String, f64>,
    /// The `resources` rules of the fault script.
    #[serde(skip)]
    pub fates: Fates,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Account {
    pub iam: iam::Iam,
    pub sts: sts::Sts,
    pub regions: BTreeMap<String, Region>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Region {
    pub ec2: ec2::Ec2,
    pub eks: eks::Eks,
    pub k8s: k8s::K8s,
    pub kms: kms::Kms,
    pub logs: logs::Logs,
    pub ssm: ssm::Ssm,
    pub quotas: quotas::Quotas,
}

impl State {
    pub fn account(&mut self, account: &str) -> &mut Account {
        self.accounts.entry(account.to_owned()).or_default()
    }

    pub fn region(&mut self, account: &str, region: &str) -> &mut Region {
        self.account(account).regions.entry(region.to_owned()).or_default()
    }

    /// Brings the states of one region's resources up to `now` (simulated unix seconds).
    pub fn settle(&mut self, account: &str, region: &str, now: f64) {
        self.region(account, region).ec2.settle(now);
        eks::settle(self, account, region, now);
    }

    /// Replaces the `resources` rules of the fault script. Stuck resources go on.
    pub fn set_fates(&mut self, fates: Fates) {
        self.fates = fates;
        for region in self.accounts.values_mut().flat_map(|account| account.regions.values_mut()) {
            region.ec2.release();
            region.eks.release();
        }
    }

    /// [`State::settle`] for every region that exists.
    pub fn settle_all(&mut self, now: f64) {
        let regions: Vec<(String, String)> = self
            .accounts
            .iter()
            .flat_map(|(id, account)| account.regions.keys().map(|region| (id.clone(), region.clone())))
            .collect();
        for (account, region) in regions {
            self.settle(&account, &region, now);
        }
    }
}

/// Ids that look like AWS's and are the same in every run: a scrambled counter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ids {
    next: u64,
}

impl Ids {
    fn scrambled(&mut self) -> u64 {
        // SplitMix64 is a bijection of the counter, so two ids are never the same.
        self.next = self.next.wrapping_add(1);
        let mut z = self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `vpc-0123456789abcdef0` for `vpc`: 17 hexadecimal digits, the first of them 0, as AWS has them.
    pub fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}-0{:016x}", self.scrambled())
    }

    /// `len` upper-case hexadecimal digits.
    pub fn hex(&mut self, len: usize) -> String {
        let mut digits = String::new();
        while digits.len() < len {
            digits.push_str(&format!("{:016X}", self.scrambled()));
        }
        digits.truncate(len);
        digits
    }

    /// `AROA…`, `AKIA…`: an IAM unique id, 21 characters of A–Z and 2–7.
    pub fn unique(&mut self, prefix: &str) -> String {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let bits = (u128::from(self.scrambled()) << 64) | u128::from(self.scrambled());
        let tail = (0..17).map(|n| char::from(ALPHABET[((bits >> (5 * n)) & 31) as usize]));
        prefix.chars().chain(tail).collect()
    }

    /// A version 4 UUID, as EKS and KMS use.
    pub fn uuid(&mut self) -> String {
        let (a, b) = (self.scrambled(), self.scrambled());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | ((b >> 48) & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }
}

/// `aws`, `aws-cn`, `aws-us-gov` or `aws-eusc` (botocore, `partitions.json`).
pub fn partition(region: &str) -> &'static str {
    match region {
        r if r.starts_with("cn-") => "aws-cn",
        r if r.starts_with("us-gov-") => "aws-us-gov",
        r if r.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

/// The suffix of the host names in a region's partition (botocore, `partitions.json`).
pub fn dns_suffix(region: &str) -> &'static str {
    match partition(region) {
        "aws-cn" => "amazonaws.com.cn",
        "aws-eusc" => "amazonaws.eu",
        _ => "amazonaws.com",
    }
}
