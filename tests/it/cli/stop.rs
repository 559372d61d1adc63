//! Ctrl-C once: the run waits for steps in progress. Twice: it leaves them. In both cases, the same command goes on
//! later.

use std::time::Duration;

use super::lock::{Background, LEASE, estate, locks, run, serve, until};
use super::*;

const INTERRUPTED: i32 = 130;

fn faults(served: &Served, script: &str) {
    served.server.set_faults(Script::parse(script).unwrap());
}

fn calls(served: &Served, service: &str, operation: &str) -> u64 {
    served.server.counts().get(&(service.to_owned(), operation.to_owned())).copied().unwrap_or_default()
}

/// Asserts that the next apply converges: it succeeds, and the plan after it is empty.
#[track_caller]
fn converges(served: &Served, estate: &Estate) {
    faults(served, "{}");
    let next = run(served, estate, &["apply", "--auto-approve"]).exits(0);
    assert!(next.out.contains("Apply complete"), "{}", next.out);
    run(served, estate, &["plan", "--detailed-exitcode"]).exits(0);
    assert_eq!(calls(served, "ec2", "CreateVpc"), 1);
}

#[test]
fn the_first_signal_waits_for_running_steps() {
    // A program that was started with SIGHUP ignored, as by nohup, must go on ignoring it.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    let hangs_up = !matches!(u64::from_str_radix(ignored.trim(), 16), Ok(mask) if mask & 1 == 1);
    for signal in ["INT", "TERM"].into_iter().chain(hangs_up.then_some("HUP")) {
        let estate = estate();
        let served = serve(&estate);
        let mut apply = Background::applying(&served, &estate);
        apply.signal(signal);
        apply.says("Stopping: no new step starts");
        let apply = apply.ends().exits(INTERRUPTED);
        for said in ["Not started: ", "Apply interrupted: ", "run the same command again"] {
            assert!(apply.out.contains(said), "{said}: {}", apply.out);
        }
        assert!(!apply.out.contains("Failed"), "{}", apply.out);
        assert!(!apply.out.contains(" 0 added"), "{}", apply.out);
        let planned = run(&served, &estate, &["plan"]).exits(0).out;
        assert!(!planned.contains("silo/cluster will be"), "the cluster was waited for: {planned}");
        assert_eq!(calls(&served, "eks", "CreateNodegroup"), 0);
        assert_eq!(locks(&served), [("/1".to_owned(), true)]);
        converges(&served, &estate);
        assert_eq!(calls(&served, "eks", "CreateCluster"), 1);
    }
}

#[test]
fn the_second_signal_exits_at_once() {
    for (signal, when) in [("INT", "before"), ("TERM", "after")] {
        let estate = estate();
        let served = serve(&estate);
        faults(&served, &format!("faults: [{{call: 'eks:CreateCluster', {when}: hang}}]"));
        let mut apply = Background::start(&served, &estate, &[&["apply", "--auto-approve"], &LEASE[..]].concat());
        until(|| served.server.struck().0 > 0);
        apply.signal(signal);
        apply.says("press Ctrl-C again to leave at once");
        let clock = Clock::real();
        apply.signal(signal);
        let apply = apply.ends().exits(INTERRUPTED);
        assert!(clock.wall() < Duration::from_secs(2), "it took {:?}", clock.wall());
        assert!(apply.out.contains("Abandoned while running: ") && apply.out.contains("silo/cluster"), "{}", apply.out);
        // It isn't known whether EKS will create the cluster.
        let said = apply.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("so the lock is kept. The next run waits until the lock's lease expires, "), "{said}");
        assert_eq!(locks(&served), [("/1".to_owned(), false)]);
        converges(&served, &estate);
    }
}

/// No change was being sent, so no change can still happen.
#[test]
fn the_second_signal_while_only_waiting_releases_the_lock() {
    let estate = estate();
    let served = serve(&estate);
    faults(&served, "resources: [{kind: 'eks:cluster', stuck: true}]");
    let mut apply = Background::applying(&served, &estate);
    apply.signal("INT");
    apply.says("press Ctrl-C again to leave at once");
    // Waits until all other steps that had begun have ended.
    until(|| {
        let before = served.server.counts();
        calls(&served, "eks", "DescribeCluster") > 2 && before == served.server.counts()
    });
    apply.signal("INT");
    let apply = apply.ends().exits(INTERRUPTED);
    assert!(apply.out.contains("Abandoned while running: 1 step"), "{}", apply.out);
    assert!(apply.out.contains("Apply interrupted: "), "{}", apply.out);
    assert!(apply.err.contains("The lock is released."), "{}", apply.err);
    assert_eq!(locks(&served), [("/1".to_owned(), true)]);
    converges(&served, &estate);
}

/// Under `nohup`, a run outlives its terminal.
#[test]
fn a_hangup_that_is_ignored_stops_nothing() {
    let estate = estate();
    let served = serve(&estate);
    faults(&served, "faults: [{call: 'ec2:CreateVpc', after: {delay: 1000}}]");
    let apply = Background::start_by("nohup", &served, &estate, &["apply", "--auto-approve"]);
    until(|| served.server.struck().0 > 0);
    apply.signal("HUP");
    let apply = apply.ends().exits(0);
    assert!(apply.out.contains("Apply complete"), "{}", apply.out);
}

#[test]
fn while_it_waits_for_the_lock_nothing_is_written() {
    let estate = estate();
    let served = serve(&estate);
    let holder = Background::applying_with(&served, &estate, &[]);
    holder.signal("STOP");
    let mut waiting = Background::start(&served, &estate, &["apply", "--auto-approve", "--lock-timeout", "10m"]);
    waiting.says("Waiting for the lock");
    waiting.signal("INT");
    let waiting = waiting.ends().exits(INTERRUPTED);
    assert_eq!(waiting.out, "");
    assert_eq!(calls(&served, "ssm", "PutParameter"), 1, "the holder's own");
    holder.signal("CONT");
    holder.ends().exits(0);
    assert_eq!(locks(&served), [("/1".to_owned(), true)]);
}

#[test]
fn a_signal_ends_the_pause_between_attempts() {
    let estate = estate();
    let served = serve(&estate);
    faults(&served, "faults: [{call: 'ec2:CreateVpc', before: throttle}]");
    let mut apply = Background::start(&served, &estate, &["apply", "--auto-approve"]);
    until(|| served.server.struck().0 > 0);
    apply.signal("INT");
    apply.says("Stopping: no new step starts");
    let clock = Clock::real();
    let apply = apply.ends().exits(INTERRUPTED);
    assert!(clock.wall() < Duration::from_secs(60), "it took {:?}", clock.wall());
    // Texts are wrapped to the width of the terminal.
    let out = apply.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["ec2:CreateVpc", "which reads what exists and continues from there", "Apply interrupted: "] {
        assert!(out.contains(said), "{said}: {out}");
    }
    assert_eq!(locks(&served), [("/1".to_owned(), true)]);
    faults(&served, "{}");
    run(&served, &estate, &["apply", "--auto-approve"]).exits(0);
    run(&served, &estate, &["plan", "--detailed-exitcode"]).exits(0);
}

#[test]
fn a_signal_while_reading_exits_at_once() {
    let estate = estate();
    let served = serve(&estate);
    faults(&served, "faults: [{call: 'ec2:DescribeSubnets', before: hang}]");
    let apply = Background::start(&served, &estate, &["apply", "--auto-approve"]);
    until(|| served.server.struck().0 > 0);
    let clock = Clock::real();
    apply.signal("INT");
    let apply = apply.ends().exits(INTERRUPTED);
    assert!(clock.wall() < Duration::from_secs(20), "it took {:?}", clock.wall());
    assert_eq!(apply.out, "");
    assert_eq!(locks(&served), [("/1".to_owned(), true)]);
    assert_eq!(calls(&served, "ec2", "CreateVpc"), 0);
    converges(&served, &estate);
}

#[test]
fn a_signal_during_the_question_exits_at_once() {
    let estate = estate();
    let served = serve(&estate);
    let run = against(&served.url(), &mut estate.asked("ctrl-c", "", &["apply"])).exits(INTERRUPTED);
    assert!(run.out.contains("Apply this plan?"), "{}", run.out);
    assert_eq!(locks(&served), [("/1".to_owned(), true)]);
    assert_eq!(calls(&served, "ec2", "CreateVpc"), 0);
    converges(&served, &estate);
}
