//! Faults by chance: throttling, internal errors, overload, closed
//! connections, time-outs, web pages and cut bodies, before or after the work.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::*;

/// Creates and destroys the estate of each spec, while `percent` of the answers
/// are wrong.
async fn lives(specs: &[String], percent: u32, few: u64) {
    // The number of seeds is `RINGFENCE_SEEDS`, or a few in ordinary tests.
    let said = std::env::var("RINGFENCE_SEEDS").ok().and_then(|n| n.parse().ok());
    let seeds = 1..=said.unwrap_or(few);
    let mut all = Vec::new();
    for spec in specs {
        let calm = Ground::new(spec);
        let mut wanted = Vec::new();
        for policy in [apply(), destroy()] {
            calm.undisturbed(&policy).await;
            wanted.push(calm.estate());
        }
        let wanted = Arc::new(wanted);
        all.extend(seeds.clone().map(|seed| (seed, spec.clone(), wanted.clone())));
    }
    let tried = all.len();
    let count = Arc::new([const { AtomicU64::new(0) }; 2]);
    // These runs mostly wait for answers that never come, so many can run at
    // once.
    at_once(6, all, |(seed, spec, wanted)| {
        let count = count.clone();
        async move {
            let ground = Ground::at(&spec, SLOW);
            for (policy, wanted) in [apply(), destroy()].iter().zip(&*wanted) {
                let rate = f64::from(percent) / 100.0;
                ground.faults(&format!("{{seed: {seed}, faults: [{{rate: {rate}, either: mixed}}]}}"));
                ground.undisturbed(policy).await;
                let (struck, calls) = ground.server.struck();
                count[0].fetch_add(struck, Relaxed);
                count[1].fetch_add(calls, Relaxed);
                ground.faults("{}");
                let differences = wanted.differences(&ground.estate());
                assert!(differences.is_empty(), "seed {seed}: {differences:#?}");
            }
        }
    })
    .await;
    let [struck, calls] = count.each_ref().map(|n| n.load(Relaxed));
    let what = format!("{percent} % of answers wrong, apply and destroy, seeds {seeds:?}: {struck} of {calls} calls");
    note(&what, tried, "as undisturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_twenty() {
    lives(&[three_tiers()], 5, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_five() {
    lives(&[three_tiers(), alone("premium"), alone("standard"), alone("serverless")], 20, 2).await;
}
