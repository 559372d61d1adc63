//! The progress of a run. On a terminal: a bar, and a line for each running step. Elsewhere: plain lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::human::done;
use super::text::{Paint, count, cut, duration, padded, plain, prose, width};
use crate::engine::address::Address;
use crate::engine::event::Event;
use crate::engine::plan::Action;

/// Steps that are expected to take at least this long are announced, with the expected time.
const SLOW: Duration = Duration::from_secs(30);

/// The maximum number of lines for running steps.
const THINGS: usize = 12;

/// The state of a run so far.
#[derive(Default)]
pub(super) struct Board {
    steps: usize,
    over: usize,
    failed: usize,
    expected: Duration,
    running: BTreeMap<usize, Thing>,
    stopping: bool,
    /// The number of steps that have started, which gives their order on the screen.
    begun: usize,
}

struct Thing {
    order: usize,
    address: Address,
    action: Action,
    since: Duration,
    expected: Duration,
    detail: String,
}

impl Board {
    /// Records an event at the time `now` since the start of the run. Returns the permanent lines. `plainly`: there
    /// is no progress bar.
    pub fn take(&mut self, event: &Event, now: Duration, plainly: bool, paint: Paint) -> Vec<String> {
        match event {
            Event::Begin { steps, expected } => {
                (self.steps, self.expected) = (*steps, *expected);
                let about = match *expected >= SLOW {
                    true => format!(", about {}", rough(*expected)),
                    false => String::new(),
                };
                match plainly && *steps > 0 {
                    true => vec![format!("{} to do{about}", count(*steps, "step"))],
                    false => vec![],
                }
            }
            Event::Start { step, address, action, expected, .. } => {
                self.begun += 1;
                let thing = Thing {
                    order: self.begun,
                    address: address.clone(),
                    action: *action,
                    since: now,
                    expected: *expected,
                    detail: String::new(),
                };
                self.running.insert(*step, thing);
                match plainly && *expected >= SLOW {
                    true => vec![format!(
                        "{}: {}, takes about {}",
                        plain(address.as_str()),
                        doing(*action),
                        rough(*expected)
                    )],
                    false => vec![],
                }
            }
            Event::Progress { step, address, detail } => {
                let detail = prose(detail);
                let news = self.running.get(step).is_some_and(|t| {
                    t.expected >= SLOW && t.detail != detail && !detail.eq_ignore_ascii_case(doing(t.action))
                });
                self.detail(*step, detail.clone());
                match plainly && news {
                    true => vec![format!("{}: {detail}", plain(address.as_str()))],
                    false => vec![],
                }
            }
            Event::Retry { step, error, after, .. } => {
                let why = error.code.clone().unwrap_or_else(|| error.message.clone());
                self.detail(*step, format!("again in {}: {}", duration(*after), prose(&why)));
                vec![]
            }
            Event::Done { step, address, action, took, .. } => {
                self.end(*step);
                let text = format!("{} {} ({})", plain(address.as_str()), done(*action, false), duration(*took));
                vec![match plainly {
                    true => format!("[{}/{}] {text}", self.over, self.steps),
                    false => format!("{} {text}", paint.green("✓")),
                }]
            }
            Event::Failed { step, address, action, error, took } => {
                self.end(*step);
                self.failed += 1;
                let text = format!(
                    "{} not {} ({}): {}",
                    plain(address.as_str()),
                    done(*action, false),
                    duration(*took),
                    prose(&error.to_string())
                );
                vec![match plainly {
                    true => format!("[{}/{}] {text}", self.over, self.steps),
                    false => paint.red(&format!("✗ {text}")),
                }]
            }
            Event::Blocked { step, address, action, error, took } => {
                self.end(*step);
                // The step that met the error has already named it, for the whole cluster.
                if took.is_zero() {
                    return vec![];
                }
                let text =
                    format!("{} not {}: {}", plain(address.as_str()), done(*action, false), prose(&error.to_string()));
                vec![match plainly {
                    true => format!("[{}/{}] {text}", self.over, self.steps),
                    false => paint.yellow(&format!("! {text}")),
                }]
            }
            Event::Skipped { .. } => {
                self.over += 1;
                vec![]
            }
            Event::Stopping { running } => {
                self.stopping = true;
                vec![paint.yellow(&format!(
                    "Stopping: no new step starts, {} still running; press Ctrl-C again to leave at once",
                    count(*running, "step")
                ))]
            }
            Event::End { .. } => {
                self.running.clear();
                vec![]
            }
        }
    }

    /// The running steps, after an interval without news.
    pub fn still(&self, now: Duration) -> Vec<String> {
        let longest =
            self.running.values().max_by_key(|t| (t.expected.saturating_sub(now.saturating_sub(t.since)), t.expected));
        let Some(thing) = longest else { return vec![] };
        let of = |took: Duration, expected: Duration| match expected >= SLOW {
            true => format!("{} of about {}", duration(took), rough(expected)),
            false => duration(took),
        };
        let mut text = format!(
            "[{}/{}] {}: still {} {} ({})",
            self.over,
            self.steps,
            of(now, self.expected),
            doing(thing.action),
            plain(thing.address.as_str()),
            of(now.saturating_sub(thing.since), thing.expected)
        );
        if !thing.detail.is_empty() && !thing.detail.eq_ignore_ascii_case(doing(thing.action)) {
            let _ = write!(text, ", {}", thing.detail);
        }
        match self.running.len() {
            1 => {}
            all => drop(write!(text, "; {} more running", all - 1)),
        }
        vec![text]
    }

    fn detail(&mut self, step: usize, detail: String) {
        if let Some(thing) = self.running.get_mut(&step) {
            thing.detail = detail;
        }
    }

    fn end(&mut self, step: usize) {
        self.running.remove(&step);
        self.over += 1;
    }

    /// The progress bar, and below it the running steps, the longest first.
    pub fn lines(&self, now: Duration, room: usize, height: usize, paint: Paint) -> Vec<String> {
        const CELLS: usize = 24;
        if self.steps == 0 {
            return vec![];
        }
        let full = (self.over * CELLS).checked_div(self.steps).unwrap_or(CELLS).min(CELLS);
        let head = if full > 0 && full < CELLS { ">" } else { "" };
        let bar = format!("{}{head}", "=".repeat(full.saturating_sub(head.len())));
        let mut text = format!("{}/{}  {}", self.over, self.steps, duration(now));
        if self.expected >= SLOW {
            let _ = write!(text, " of about {}", rough(self.expected));
        }
        if self.stopping {
            text.push_str("  stopping");
        }
        let mut bar =
            format!("[{}] {}", paint.green(&format!("{bar:CELLS$}")), cut(&text, room.saturating_sub(CELLS + 4)));
        if self.failed > 0 {
            let _ = write!(bar, "  {}", paint.red(&format!("{} failed", self.failed)));
        }
        let mut things: Vec<&Thing> = self.running.values().collect();
        things.sort_by_key(|t| t.order);
        let fit = THINGS.min(height.saturating_sub(4)).max(1);
        let hidden = things.len().saturating_sub(fit);
        things.truncate(fit);
        let pad = things.iter().map(|t| width(t.address.as_str())).max().unwrap_or(0).min(room * 2 / 3);
        let mut out = vec![bar];
        for thing in things {
            let took = now.saturating_sub(thing.since);
            let mut text = format!(
                "  {}  {}  {}",
                padded(&plain(thing.address.as_str()), pad),
                doing(thing.action),
                duration(took)
            );
            if thing.expected >= SLOW {
                let _ = write!(text, " of about {}", rough(thing.expected));
            }
            if !thing.detail.is_empty() && !thing.detail.eq_ignore_ascii_case(doing(thing.action)) {
                let _ = write!(text, "  {}", thing.detail);
            }
            out.push(cut(&text, room.saturating_sub(1)));
        }
        if hidden > 0 {
            out.push(paint.dim(&format!("  and {hidden} more")));
        }
        out
    }
}

fn doing(action: Action) -> &'static str {
    match action {
        Action::Create => "creating",
        Action::Update => "changing",
        Action::Wait => "waiting",
        Action::Delete => "destroying",
    }
}

/// An estimate. It has whole minutes, except if it is short.
fn rough(expected: Duration) -> String {
    match expected.as_secs() {
        seconds @ 0..90 => duration(Duration::from_secs(seconds)),
        seconds => duration(Duration::from_secs(seconds.div_ceil(60) * 60)),
    }
}

/// The part of the screen that changes. Its own timer redraws it, so nothing else needs a clock.
pub(super) struct Live {
    bar: ProgressBar,
    board: Arc<Mutex<Board>>,
    speed: f64,
}

impl Live {
    /// `speed`: how many times faster than real time the run's clock is.
    pub fn new(target: ProgressDrawTarget, speed: f64, (room, height): (usize, usize), paint: Paint) -> Self {
        let board = Arc::new(Mutex::new(Board::default()));
        let shown = board.clone();
        let draw = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let lines = lock(&shown).lines(state.elapsed().mul_f64(speed), room, height, paint);
            let _ = out.write_str(&lines.join("\n"));
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{board}") {
            bar.set_style(style.with_key("board", draw));
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, board, speed }
    }

    /// Records an event. Permanent lines are written above the bar.
    pub fn take(&self, event: &Event, paint: Paint) {
        let now = self.bar.elapsed().mul_f64(self.speed);
        let lines = lock(&self.board).take(event, now, false, paint);
        for line in lines {
            self.bar.println(line);
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A line with a spinner.
pub(super) fn spinner(target: ProgressDrawTarget, text: String) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_message(text);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}
