//! The user and group IDs of a tenant's pods (POD-3).

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The range is above the IDs that distributions and images use, and below 2^31, because some tools accept no larger
/// IDs. It holds as many small blocks as possible, so that two tenants rarely get the same block.
const FIRST: u32 = 1 << 20;
const SIZE: u32 = 256;
const BLOCKS: u32 = ((1 << 31) - FIRST) / SIZE;

/// A pure function of the tenant's id. A rename, a move or a new cluster doesn't change the range.
pub fn uid_range(tenant: &str) -> UidRange {
    let digest = Sha256::digest(tenant.as_bytes());
    let seed = digest.iter().take(8).fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    // The remainder is below BLOCKS, so the conversion can't fail.
    let block = u32::try_from(seed % u64::from(BLOCKS)).unwrap_or_default();
    let first = FIRST + block * SIZE;
    UidRange { first, last: first + SIZE - 1 }
}

/// The user and group IDs that a tenant's pods run as (POD-3): `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UidRange {
    pub first: u32,
    pub last: u32,
}
