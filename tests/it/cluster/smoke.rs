//! The shortest path: apply, and a plan without a difference.

use super::baseline::{OLDER, POOL, SILO};

#[test]
fn what_was_applied_shows_no_difference() {
    for baseline in [&POOL, &SILO, &OLDER] {
        let plan = baseline.plan();
        assert_eq!(plan["steps"].as_array().map(Vec::len), Some(0), "{plan:#}");
    }
}
