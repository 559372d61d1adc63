//! Faults by chance: throttling, internal errors, overload, closed
//! connections, time-outs, web pages and cut bodies, before or after the work.

use super::*;

/// Made and taken down, while so many of a hundred answers are wrong.
async fn life(spec: &str, percent: u32, seeds: std::ops::Range<u64>) {
    let calm = Ground::new(spec);
    let mut wanted = Vec::new();
    for policy in [apply(), destroy()] {
        calm.undisturbed(&policy).await;
        wanted.push(calm.estate());
    }
    let tried = seeds.clone().count();
    let (mut struck, mut calls) = (0, 0);
    for seed in seeds.clone() {
        let ground = Ground::at(spec, SLOW);
        for (policy, wanted) in [apply(), destroy()].iter().zip(&wanted) {
            let rate = f64::from(percent) / 100.0;
            ground.faults(&format!("{{seed: {seed}, faults: [{{rate: {rate}, either: mixed}}]}}"));
            ground.undisturbed(policy).await;
            let (some, all) = ground.server.struck();
            (struck, calls) = (struck + some, calls + all);
            ground.faults("{}");
            let differences = wanted.differences(&ground.estate());
            assert!(differences.is_empty(), "seed {seed}: {differences:#?}");
        }
    }
    let what = format!("{percent} % of answers wrong, apply and destroy: seeds {seeds:?}, {struck} of {calls} calls");
    note(&what, tried, "as undisturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_twenty() {
    life(&three_tiers(), 5, seeds(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_five() {
    life(&three_tiers(), 20, seeds(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_five_for_each_tier() {
    for tier in ["premium", "standard", "serverless"] {
        life(&alone(tier), 20, seeds(2)).await;
    }
}

/// `few` in the ordinary tests, as many as `RINGFENCE_SEEDS` says otherwise.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let said = std::env::var("RINGFENCE_SEEDS").ok().and_then(|n| n.parse().ok());
    1..said.unwrap_or(few) + 1
}
