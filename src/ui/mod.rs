//! The only module that prints: plans, progress, reports and failures, for people and for programs.
//!
//! The result of a command goes to stdout, everything else to stderr. With [`Format::Json`], stdout holds only JSON
//! documents, one in each line: see `docs/plan-format.md`. A closed pipe (`| head`) is no error; a full disk is one.

mod check;
mod detail;
mod doctor;
mod failure;
mod html;
mod human;
mod json;
mod markdown;
mod progress;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod view;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

pub use terminal::{Color, Terminal};

use crate::engine::address::{Address, Owner};
use crate::engine::clock::Clock;
use crate::engine::error::Error;
use crate::engine::event::Event;
use crate::engine::kind::Registry;
use crate::engine::plan::{Plan, Policy};
use crate::engine::report::Report;
use crate::run::Failure;
use crate::run::check::Checked;
use crate::run::doctor::Check;
use crate::spec::{Spec, SpecError};
use crate::template;
use human::Layout;
use progress::{Board, Live};
use terminal::Screen;
use text::{Paint, count, hang, plain};

/// Without a terminal, a line is written at least this often.
const SILENCE: Duration = Duration::from_secs(60);

/// How output is formatted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Human,
    Json,
    Markdown,
    Html,
    /// For [`Ui::checked`] only. For others it is [`Self::Human`].
    Sarif,
    /// For [`Ui::checked`] only. For others it is [`Self::Human`].
    Junit,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub format: Format,
    pub color: Color,
    /// Show attributes, and the number of calls by action.
    pub verbose: bool,
}

/// The streams of input and output.
pub struct Streams {
    pub input: Box<dyn BufRead + Send>,
    pub out: Box<dyn Write + Send>,
    pub err: Box<dyn Write + Send>,
}

/// The subject of a plan.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    pub tenancy: String,
    pub account: String,
    pub region: String,
    pub file: PathBuf,
    pub spec_hash: String,
    pub policy: Policy,
    /// The spec's tenants, by id.
    pub tenants: BTreeMap<String, Tenant>,
    /// The spec's pools.
    pub pools: BTreeSet<String>,
    pub warnings: Vec<SpecError>,
    /// Errors in the spec that AWS's offers showed. The plan can't be executed.
    pub wrong: Vec<SpecError>,
    /// Notes of the checks before the first write.
    pub notes: Vec<String>,
    /// A note about the whole plan, such as that it is for a sandbox.
    pub note: Option<String>,
    /// True for a drift report.
    pub drift: bool,
}

/// The name and the tier of a tenant.
#[derive(Clone, Debug, Default)]
pub struct Tenant {
    pub name: String,
    pub tier: String,
}

/// What the end of a report needs beside the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending<'a> {
    /// True for the command `destroy`.
    pub destroy: bool,
    /// A note about the whole run, such as that it is for a sandbox.
    pub note: Option<&'a str>,
    /// The next command, or another next step.
    pub next: Option<&'a str>,
    /// Addresses of `--allow-destroy` that are deleted. The next run would refuse them as unknown.
    pub gone: &'a [Address],
}

/// The program's output and input.
pub struct Ui {
    options: Options,
    terminal: Terminal,
    input: Arc<Mutex<Box<dyn BufRead + Send>>>,
    out: Mutex<Box<dyn Write + Send>>,
    err: Arc<Mutex<Box<dyn Write + Send>>>,
    /// The process's own stderr. Its size may change.
    own: bool,
    waiting: Mutex<Option<ProgressBar>>,
}

impl Ui {
    /// Uses the process's own streams.
    pub fn stdio(options: Options) -> Self {
        let streams = Streams {
            input: Box::new(BufReader::new(io::stdin())),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        };
        Self { own: true, ..Self::new(options, streams, Terminal::stdio(options.color)) }
    }

    pub fn new(options: Options, streams: Streams, terminal: Terminal) -> Self {
        Self {
            options,
            terminal,
            input: Arc::new(Mutex::new(streams.input)),
            out: Mutex::new(streams.out),
            err: Arc::new(Mutex::new(streams.err)),
            own: false,
            waiting: Mutex::new(None),
        }
    }

    pub fn format(&self) -> Format {
        self.options.format
    }

    pub fn verbose(&self) -> bool {
        self.options.verbose
    }

    /// Shows the current activity, until the next output.
    pub fn status(&self, text: &str) {
        self.clear();
        let text = format!("{}…", plain(text));
        match self.terminal.err {
            true => *lock(&self.waiting) = Some(progress::spinner(self.screen(), text)),
            false => self.say(&text),
        }
    }

    /// Writes a note to stderr.
    pub fn note(&self, text: &str) {
        let mut out = String::new();
        hang(&mut out, "", text, self.terminal.width);
        self.say(out.trim_end());
    }

    /// Writes a document unchanged: a schema, a graph, a script. Adds a missing line break at the end.
    pub fn print(&self, document: &str) -> io::Result<()> {
        self.put(&format!("{}\n", document.trim_end()))
    }

    /// Shows that the spec is valid, and its contents.
    pub fn valid(&self, spec: &Spec) -> io::Result<()> {
        if self.options.format == Format::Json {
            let warnings: Vec<_> = spec.warnings.iter().map(failure::finding).collect();
            let document = json!({
                "schema": "ringfence.dev/validate/v1", "type": "valid", "tenancy": spec.name,
                "pools": spec.pools.len(), "tenants": spec.tenants.len(), "warnings": warnings,
            });
            return self.put(&format!("{document}\n"));
        }
        self.put(&format!(
            "{} is valid: {}, {}.\n",
            plain(&spec.source.display().to_string()),
            count(spec.pools.len(), "pool"),
            count(spec.tenants.len(), "tenant")
        ))
    }

    /// Shows the result of `doctor`, and the next command.
    pub fn doctor(&self, checks: &[Check], next: &str) -> io::Result<()> {
        self.put(&match self.options.format {
            Format::Human | Format::Sarif | Format::Junit => doctor::human(checks, next, self.layout()),
            Format::Json => format!("{}\n", doctor::json(checks, next)),
            Format::Markdown | Format::Html => doctor::markdown(checks, next),
        })
    }

    /// Shows the verdicts on objects. `decorated`: also the objects, as the cluster would store them. For people, these
    /// are the document on stdout, and the verdicts go to stderr.
    pub fn checked(&self, checked: &[Checked], tenant: &str, decorated: bool) -> io::Result<()> {
        match self.options.format {
            Format::Json => self.put(&format!("{}\n", check::json(checked, tenant, decorated))),
            Format::Sarif => self.put(&format!("{}\n", check::sarif(checked))),
            Format::Junit => self.put(&check::junit(checked, tenant)?),
            _ if decorated => {
                for one in checked {
                    if let Some(object) = &one.decorated {
                        let text = template::yaml(object).map_err(io::Error::other)?;
                        self.put(&format!("---\n{}\n", text.trim_end()))?;
                    }
                }
                self.say(check::human(checked, tenant, self.layout_err()).trim_end());
                Ok(())
            }
            _ => self.put(&check::human(checked, tenant, self.layout())),
        }
    }

    /// Shows warnings about a spec. In JSON they are part of the document.
    pub fn warnings(&self, warnings: &[SpecError]) {
        if self.options.format != Format::Json && !warnings.is_empty() {
            self.say(failure::warnings(warnings, self.layout_err()).trim_end());
        }
    }

    /// Shows the plan. `calls`: the number of calls of each action so far.
    pub fn plan(
        &self,
        plan: &Plan,
        subject: &Subject,
        kinds: &Registry,
        calls: &BTreeMap<String, u64>,
    ) -> io::Result<()> {
        let verbose = self.options.verbose;
        self.put(&match self.options.format {
            Format::Human | Format::Sarif | Format::Junit => human::plan(plan, subject, kinds, self.layout()),
            Format::Json => format!("{}\n", json::plan(plan, subject, kinds, verbose.then_some(calls))),
            Format::Markdown => markdown::plan(plan, subject, kinds, verbose),
            Format::Html => html::plan(plan, subject, kinds)?,
        })?;
        self.calls(calls);
        Ok(())
    }

    /// Shows a run until `events` closes. `note`: a note shown first.
    ///
    /// A failure to write doesn't end the run. The failure is returned at the end.
    pub async fn run(&self, mut events: UnboundedReceiver<Event>, clock: &Clock, note: Option<&str>) -> io::Result<()> {
        self.clear();
        if let Some(note) = note {
            self.note(note);
        }
        let json = self.options.format == Format::Json;
        // JSON lines and a progress bar on the same terminal would mix.
        let quiet = json && self.terminal.out && self.terminal.err;
        let paint = Paint(self.terminal.color_err);
        let size = (self.terminal.width, self.terminal.height);
        let live = (self.terminal.err && !quiet).then(|| Live::new(self.screen(), clock.speed(), size, paint));
        let plainly = live.is_none() && !quiet;
        let mut board = Board::default();
        let mut result = Ok(());
        let begun = clock.elapsed();
        loop {
            let event = tokio::select! {
                biased;
                event = events.recv() => event,
                // This interval is real time, because a reader waits in real time.
                () = clock.sleep(SILENCE.mul_f64(clock.speed())), if plainly => {
                    board.still(clock.elapsed().saturating_sub(begun)).iter().for_each(|line| self.say(line));
                    continue;
                }
            };
            let Some(event) = event else { break };
            if json {
                let written = self.put(&format!("{}\n", json::event(&event)));
                result = result.and(written);
            }
            match &live {
                Some(live) => live.take(&event, paint),
                None if quiet => {}
                None => {
                    for line in board.take(&event, clock.elapsed().saturating_sub(begun), true, paint) {
                        self.say(&line);
                    }
                }
            }
        }
        if let Some(live) = live {
            live.finish();
        }
        result
    }

    /// Shows the end of a run.
    pub fn report(
        &self,
        report: &Report,
        plan: &Plan,
        ending: &Ending<'_>,
        calls: &BTreeMap<String, u64>,
    ) -> io::Result<()> {
        let flat = Layout { paint: Paint(false), ..self.layout() };
        self.put(&match self.options.format {
            Format::Human | Format::Sarif | Format::Junit => human::report(report, plan, ending, self.layout()),
            Format::Json => {
                format!("{}\n", json::report(report, plan, ending, self.options.verbose.then_some(calls)))
            }
            Format::Markdown => markdown::report(&human::report(report, plan, ending, flat)),
            Format::Html => html::report("ringfence apply", &human::report(report, plan, ending, flat))?,
        })?;
        self.calls(calls);
        Ok(())
    }

    /// Shows why the command failed: for people on stderr, for programs as a document on stdout.
    pub fn failure(&self, failure: &Failure) {
        let flat = || failure::human(failure, Layout { paint: Paint(false), ..self.layout() });
        let written = match self.options.format {
            Format::Human | Format::Sarif | Format::Junit => Ok(()),
            Format::Json => self.put(&format!("{}\n", failure::json(failure))),
            Format::Markdown => self.put(&markdown::report(&flat())),
            Format::Html => html::report("ringfence: error", &flat()).and_then(|page| self.put(&page)),
        };
        // If stdout can't be written, stderr is the only way to tell a reader of JSON.
        if self.options.format != Format::Json || written.is_err() {
            self.say(failure::human(failure, self.layout_err()).trim_end());
        }
    }

    /// Asks for a `yes`, then for the address of each of `whole`. Without a terminal it returns an error, whose help
    /// names the flags that confirm.
    pub async fn confirm(&self, question: &str, whole: &BTreeSet<Address>) -> Result<bool, Failure> {
        if !self.terminal.input || !self.terminal.err {
            let mut how = "add --auto-approve".to_owned();
            if !whole.is_empty() {
                let flags: Vec<String> = whole.iter().map(|a| format!("--allow-destroy {a}")).collect();
                how += &format!("; `apply` and `destroy --tenant` also need {}", flags.join(" "));
            }
            return Err(Error::input(format!(
                "this command must be confirmed, but there is no terminal for the question: {question}"
            ))
            .help(how)
            .into());
        }
        self.clear();
        if self.answer(&format!("{} Type `yes` to continue: ", plain(question))).await? != "yes" {
            return Ok(false);
        }
        for address in whole {
            let text = format!(
                "This deletes {address} with the work and data that the plan names. Type its address to continue: "
            );
            if self.answer(&text).await? != address.as_str() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A separate thread reads the answer, so that a signal can end the run while the question is unanswered.
    async fn answer(&self, question: &str) -> io::Result<String> {
        {
            let mut err = lock(&self.err);
            err.write_all(format!("\n{}", Paint(self.terminal.color_err).bold(question)).as_bytes())?;
            err.flush()?;
        }
        let input = self.input.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            lock(&input).read_line(&mut line).map(|_| line.trim().to_owned())
        });
        read.await.map_err(io::Error::other)?
    }

    fn calls(&self, calls: &BTreeMap<String, u64>) {
        if self.options.verbose && self.options.format != Format::Json && !calls.is_empty() {
            self.say(human::calls(calls, Paint(self.terminal.color_err)).trim_end());
        }
    }

    fn layout(&self) -> Layout {
        Layout { paint: Paint(self.terminal.color_out), width: self.terminal.width, verbose: self.options.verbose }
    }

    fn layout_err(&self) -> Layout {
        Layout { paint: Paint(self.terminal.color_err), ..self.layout() }
    }

    fn screen(&self) -> ProgressDrawTarget {
        match self.own {
            true => ProgressDrawTarget::stderr_with_hz(8),
            false => {
                let Terminal { width, height, .. } = self.terminal;
                ProgressDrawTarget::term_like(Box::new(Screen { err: self.err.clone(), width, height }))
            }
        }
    }

    /// Removes the spinner.
    fn clear(&self) {
        if let Some(bar) = lock(&self.waiting).take() {
            bar.finish_and_clear();
        }
    }

    /// Writes to stdout. A closed pipe is no error.
    fn put(&self, text: &str) -> io::Result<()> {
        self.clear();
        let mut out = lock(&self.out);
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    /// Writes a line to stderr. There is no other stream that could report a failure.
    fn say(&self, line: &str) {
        self.clear();
        let mut err = lock(&self.err);
        let _ = err.write_all(format!("{line}\n").as_bytes()).and_then(|()| err.flush());
    }
}

impl Subject {
    /// `hash`: the digest of the spec. `note`: a note about the whole plan.
    pub fn new(spec: &Spec, account: &str, hash: &str, policy: &Policy, note: Option<&str>) -> Self {
        let tenants =
            spec.tenants.iter().map(|t| (t.id.clone(), Tenant { name: t.name.clone(), tier: t.tier.clone() }));
        Self {
            tenancy: spec.name.clone(),
            account: account.to_owned(),
            region: spec.region.clone(),
            file: spec.source.clone(),
            spec_hash: hash.to_owned(),
            policy: policy.clone(),
            tenants: tenants.collect(),
            pools: spec.pools.iter().map(|p| p.name.clone()).collect(),
            warnings: spec.warnings.clone(),
            wrong: Vec::new(),
            notes: Vec::new(),
            note: note.map(str::to_owned),
            drift: false,
        }
    }

    fn heading(&self) -> String {
        let what = match (self.drift, self.policy.destroy) {
            (true, _) => "Drift of",
            (_, true) => "Plan to destroy",
            _ => "Plan for",
        };
        let file = self.file.display();
        plain(&format!("{what} {}: account {}, {}, {file}", self.tenancy, self.account, self.region))
    }

    /// The lines below the heading: what limits the plan, and notes.
    fn scope(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.policy.tenants.is_empty() {
            let ids = self.policy.tenants.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let deps = if self.policy.with_deps { " and the resources that they depend on" } else { "" };
            lines.push(plain(&format!(
                "Only {} {ids}{deps}",
                if self.policy.tenants.len() == 1 { "tenant" } else { "tenants" }
            )));
        }
        if self.policy.aws_only {
            lines.push("Only the AWS part: objects in clusters aren't read".to_owned());
        }
        lines.extend(self.note.as_deref().map(plain));
        lines
    }

    fn label(&self, owner: &Owner) -> String {
        let known = match owner {
            Owner::Tenancy => true,
            Owner::Pool(name) => self.pools.contains(name),
            Owner::Tenant(id) => match self.tenants.get(id) {
                Some(Tenant { name, tier }) => return plain(&format!("{owner} {name} ({tier})")),
                None => false,
            },
        };
        match known {
            true => plain(&owner.to_string()),
            false => plain(&format!("{owner} (not in the spec)")),
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
