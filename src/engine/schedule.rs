//! The schedule decides which step comes next. It is bookkeeping without time or I/O. The executor advances it when
//! steps end. [`Schedule::foretell`] simulates it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

/// What is known of a step before it starts.
pub(super) struct Job<'a> {
    pub needs: &'a BTreeSet<usize>,
    pub expected: Duration,
    /// Jobs in the same lane run one at a time.
    pub lane: Option<String>,
    /// If one job of a group may not start, no job of the group may.
    pub group: String,
}

/// Among ready jobs, the one with the longest path of dependents starts first.
type Rank = (Reverse<Duration>, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Started,
    Over,
}

/// Jobs with dependencies. Each job comes after its dependencies.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    states: Vec<State>,
    /// The number of unmet dependencies of each job.
    unmet: Vec<usize>,
    users: Vec<Vec<usize>>,
    expected: Vec<Duration>,
    /// The length of the longest path from the start of each job to the end of its last dependent.
    remaining: Vec<Duration>,
    lanes: Vec<Option<usize>>,
    busy: BTreeSet<usize>,
    groups: Vec<usize>,
    /// Ready jobs, by group.
    ready: BTreeMap<usize, BTreeSet<Rank>>,
    /// Jobs whose dependencies are met and whose lane is busy, by lane.
    parked: BTreeMap<usize, BTreeSet<Rank>>,
}

impl Schedule {
    pub fn new<'a>(jobs: impl Iterator<Item = Job<'a>>) -> Self {
        let mut schedule = Self {
            states: Vec::new(),
            unmet: Vec::new(),
            users: Vec::new(),
            expected: Vec::new(),
            remaining: Vec::new(),
            lanes: Vec::new(),
            busy: BTreeSet::new(),
            groups: Vec::new(),
            ready: BTreeMap::new(),
            parked: BTreeMap::new(),
        };
        let (mut names, mut groups) = (BTreeMap::new(), BTreeMap::new());
        let number = |names: &mut BTreeMap<String, usize>, name: String| {
            let next = names.len();
            *names.entry(name).or_insert(next)
        };
        for (i, job) in jobs.enumerate() {
            schedule.states.push(State::Waiting);
            schedule.unmet.push(job.needs.len());
            schedule.users.push(Vec::new());
            schedule.groups.push(number(&mut groups, job.group));
            schedule.expected.push(job.expected);
            schedule.lanes.push(job.lane.map(|lane| number(&mut names, lane)));
            for need in job.needs {
                schedule.users.get_mut(*need).into_iter().for_each(|users| users.push(i));
            }
        }
        schedule.remaining = schedule.expected.clone();
        for i in (0..schedule.states.len()).rev() {
            let held_up = schedule.users_of(i).iter().filter_map(|u| schedule.remaining.get(*u)).max().copied();
            if let Some(remaining) = schedule.remaining.get_mut(i) {
                *remaining += held_up.unwrap_or_default();
            }
        }
        for i in 0..schedule.states.len() {
            if schedule.unmet.get(i) == Some(&0) {
                schedule.queue(i);
            }
        }
        schedule
    }

    fn users_of(&self, i: usize) -> &[usize] {
        self.users.get(i).map(Vec::as_slice).unwrap_or_default()
    }

    fn is(&self, i: usize, state: State) -> bool {
        self.states.get(i) == Some(&state)
    }

    fn set(&mut self, i: usize, state: State) {
        if let Some(known) = self.states.get_mut(i) {
            *known = state;
        }
    }

    pub fn is_started(&self, i: usize) -> bool {
        self.is(i, State::Started)
    }

    /// True if all dependencies of a job are met, its lane was free, and it hasn't started.
    pub fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Starts the jobs that are ready and that `may` allows, the longest path first. It looks at only one more job in
    /// each group.
    pub fn start(&mut self, mut may: impl FnMut(usize) -> bool) -> Vec<usize> {
        let mut started = Vec::new();
        let mut next: BTreeSet<(Rank, usize)> =
            self.ready.iter().filter_map(|(group, queue)| Some((*queue.first()?, *group))).collect();
        while let Some((rank, group)) = next.pop_first() {
            let i = rank.1;
            match self.lanes.get(i).copied().flatten() {
                Some(lane) if self.busy.contains(&lane) => {
                    self.parked.entry(lane).or_default().insert(rank);
                }
                _ if !may(i) => continue,
                lane => {
                    self.busy.extend(lane);
                    started.push(i);
                }
            }
            if let Some(queue) = self.ready.get_mut(&group) {
                queue.pop_first();
                next.extend(queue.first().map(|rank| (*rank, group)));
            }
        }
        self.ready.retain(|_, queue| !queue.is_empty());
        started.iter().for_each(|i| self.set(*i, State::Started));
        started
    }

    fn queue(&mut self, i: usize) {
        let group = self.groups.get(i).copied().unwrap_or_default();
        self.ready.entry(group).or_default().insert(rank(&self.remaining, i));
    }

    /// Job `i` has ended, so its dependents may become ready.
    pub fn done(&mut self, i: usize) {
        self.end(i);
        for user in self.users.get(i).cloned().unwrap_or_default() {
            let Some(unmet) = self.unmet.get_mut(user) else { continue };
            *unmet = unmet.saturating_sub(1);
            if *unmet == 0 && self.is(user, State::Waiting) {
                self.queue(user);
            }
        }
    }

    /// Job `i` has ended and its dependents can't start. Returns these in order.
    pub fn failed(&mut self, i: usize) -> Vec<usize> {
        self.end(i);
        let mut todo: BTreeSet<usize> = self.users_of(i).iter().copied().collect();
        let mut dropped = Vec::new();
        while let Some(user) = todo.pop_first() {
            if self.drop(user) {
                dropped.push(user);
                todo.extend(self.users_of(user));
            }
        }
        dropped
    }

    /// Removes `i`. Returns false if it has started.
    pub fn drop(&mut self, i: usize) -> bool {
        let waits = self.is(i, State::Waiting);
        if waits {
            let rank = rank(&self.remaining, i);
            let group = self.groups.get(i).copied().unwrap_or_default();
            if let Some(queue) = self.ready.get_mut(&group) {
                queue.remove(&rank);
                self.ready.retain(|_, queue| !queue.is_empty());
            }
            let parked = self.lanes.get(i).copied().flatten().and_then(|lane| self.parked.get_mut(&lane));
            if let Some(parked) = parked {
                parked.remove(&rank);
            }
            self.set(i, State::Over);
        }
        waits
    }

    fn end(&mut self, i: usize) {
        self.set(i, State::Over);
        let Some(lane) = self.lanes.get(i).copied().flatten() else { return };
        self.busy.remove(&lane);
        if let Some((_, next)) = self.parked.get_mut(&lane).and_then(BTreeSet::pop_first) {
            self.queue(next);
        }
    }

    /// The duration of all jobs if each takes its expected time.
    pub fn foretell(mut self) -> Duration {
        let mut now = Duration::ZERO;
        let mut running = BinaryHeap::new();
        loop {
            for i in self.start(|_| true) {
                let end = now + self.expected.get(i).copied().unwrap_or_default();
                running.push(Reverse((end, i)));
            }
            let Some(Reverse((end, i))) = running.pop() else { return now };
            now = end;
            self.done(i);
        }
    }
}

fn rank(remaining: &[Duration], i: usize) -> Rank {
    (Reverse(remaining.get(i).copied().unwrap_or_default()), i)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each job has its dependencies, its expected seconds and its lane. Jobs belong to two groups alternately.
    fn schedule(jobs: &[(&[usize], u64, &str)]) -> Schedule {
        let needs: Vec<BTreeSet<usize>> = jobs.iter().map(|(needs, ..)| needs.iter().copied().collect()).collect();
        Schedule::new(jobs.iter().zip(&needs).enumerate().map(|(i, ((_, expected, lane), needs))| Job {
            needs,
            expected: Duration::from_secs(*expected),
            lane: (!lane.is_empty()).then(|| (*lane).to_owned()),
            group: (i % 2).to_string(),
        }))
    }

    #[test]
    fn what_holds_up_the_most_starts_first() {
        let mut all = schedule(&[(&[], 5, ""), (&[], 1, ""), (&[1], 9, ""), (&[], 6, "")]);
        assert_eq!(all.start(|_| true), [1, 3, 0]);
        assert!(all.start(|_| true).is_empty());
        all.done(1);
        assert_eq!(all.start(|_| true), [2]);
    }

    #[test]
    fn who_may_not_start_waits_and_holds_up_no_other_group() {
        let mut all = schedule(&[(&[], 5, ""), (&[], 4, ""), (&[], 3, ""), (&[], 2, "")]);
        let mut asked = Vec::new();
        let started = all.start(|i| {
            asked.push(i);
            i != 0
        });
        assert_eq!((started, asked), (vec![1, 3], vec![0, 1, 3]), "of a group that may not, one is asked about");
        assert_eq!(all.start(|_| true), [0, 2]);
    }

    #[test]
    fn who_waits_for_its_lane_is_not_looked_at() {
        let many: Vec<(&[usize], u64, &str)> = (0..100).map(|i| (&[][..], 200 - i, "a")).collect();
        let mut all = schedule(&many);
        assert_eq!(all.start(|_| true), [0]);
        assert!(!all.any_ready());
        assert!(all.drop(1));
        all.done(0);
        let mut asked = 0;
        assert_eq!(
            all.start(|_| {
                asked += 1;
                true
            }),
            [2]
        );
        assert_eq!(asked, 1);
    }

    #[test]
    fn a_lane_is_for_one_at_a_time() {
        let mut all = schedule(&[(&[], 5, "a"), (&[], 4, "a"), (&[], 3, "b")]);
        assert_eq!(all.start(|_| true), [0, 2]);
        all.done(0);
        assert_eq!(all.start(|_| true), [1]);
    }

    #[test]
    fn what_needs_a_failed_one_never_starts() {
        let mut all = schedule(&[(&[], 1, ""), (&[], 1, ""), (&[0], 1, ""), (&[1], 1, ""), (&[2, 3], 1, "")]);
        assert_eq!(all.start(|_| true), [0, 1]);
        assert_eq!(all.failed(0), [2, 4]);
        all.done(1);
        assert_eq!(all.start(|_| true), [3]);
        assert!(all.failed(3).is_empty());
        assert!(!all.any_ready());
    }

    #[test]
    fn the_foretold_time_is_the_longest_chain_unless_a_lane_is_longer() {
        assert_eq!(
            schedule(&[(&[], 2, ""), (&[0], 600, ""), (&[0], 5, ""), (&[1, 2], 60, "")]).foretell().as_secs(),
            662
        );
        assert_eq!(schedule(&[(&[], 100, "x"), (&[], 100, "x"), (&[], 100, "x")]).foretell().as_secs(), 300);
        assert_eq!(schedule(&[]).foretell(), Duration::ZERO);
    }
}
