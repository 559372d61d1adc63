//! The order of steps by their dependencies.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Plan, Step};

/// Steps that wait for each other. Each waits for the next, and the last is the first.
pub(super) struct Circle(pub Vec<Step>);

/// Sorts the steps so that each comes after its dependencies. Otherwise creations come before deletions, by address.
/// Dropped steps are left out.
pub(super) fn order(plan: Plan) -> Result<Plan, Circle> {
    let keep = |s: &Step| s.action == Action::Create || s.found.is_some();
    let dropped: BTreeSet<usize> = plan.steps.iter().enumerate().filter(|(_, s)| !keep(s)).map(|(i, _)| i).collect();
    // A step that only prepared a dropped deletion is dropped, too.
    let dropped_steps = dropped.iter().filter_map(|i| plan.steps.get(*i));
    let prepared = dropped_steps.flat_map(|step| step.needs.iter().map(move |need| (step, *need)));
    let prepared = prepared.filter(|(step, need)| plan.steps.get(*need).is_some_and(|s| s.prepares(step)));
    let prepared: BTreeSet<usize> = prepared.map(|(_, need)| need).collect();
    let left: BTreeSet<usize> =
        (0..plan.steps.len()).filter(|i| !dropped.contains(i) && !prepared.contains(i)).collect();
    let mut waiting: BTreeMap<usize, usize> = BTreeMap::new();
    let mut users: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, step) in left.iter().filter_map(|i| Some((*i, plan.steps.get(*i)?))) {
        let needs: Vec<usize> = step.needs.iter().copied().filter(|n| left.contains(n)).collect();
        waiting.insert(i, needs.len());
        for need in needs {
            users.entry(need).or_default().push(i);
        }
    }
    // Steps are moved one by one, because a copy of all of them would need much memory.
    let mut rest: Vec<Option<Step>> = plan.steps.into_iter().map(Some).collect();
    let rank = |rest: &[Option<Step>], i: usize| {
        let step = rest.get(i)?.as_ref()?;
        Some((step.action == Action::Delete, step.address.clone(), step.generation, i))
    };
    let ready = waiting.iter().filter(|(_, n)| **n == 0).filter_map(|(i, _)| rank(&rest, *i));
    let mut ready: BTreeSet<_> = ready.collect();
    let mut done: BTreeMap<usize, usize> = BTreeMap::new();
    let mut steps: Vec<Step> = Vec::with_capacity(left.len());
    while let Some((_, _, _, i)) = ready.pop_first() {
        let Some(mut step) = rest.get_mut(i).and_then(Option::take) else { continue };
        step.needs = step.needs.iter().filter_map(|n| done.get(n).copied()).collect();
        done.insert(i, steps.len());
        steps.push(step);
        for user in users.get(&i).into_iter().flatten() {
            if let Some(count) = waiting.get_mut(user) {
                *count -= 1;
                if *count == 0 {
                    ready.extend(rank(&rest, *user));
                }
            }
        }
    }
    if done.len() < left.len() {
        return Err(circle(&rest, &left));
    }
    Ok(Plan { steps, ..plan })
}

/// One circle among the steps that are left.
fn circle(rest: &[Option<Step>], left: &BTreeSet<usize>) -> Circle {
    let step = |i: usize| rest.get(i).and_then(Option::as_ref).filter(|_| left.contains(&i));
    let waits = |i: &usize| step(*i).is_some();
    let mut path: Vec<usize> = left.iter().copied().find(waits).into_iter().collect();
    while let Some(last) = path.last() {
        let needs = step(*last).map(|s| &s.needs);
        let Some(next) = needs.into_iter().flatten().copied().find(waits) else { break };
        if let Some(start) = path.iter().position(|i| *i == next) {
            path.drain(..start);
            path.push(next);
            break;
        }
        path.push(next);
    }
    Circle(path.iter().filter_map(|i| step(*i).cloned()).collect())
}
