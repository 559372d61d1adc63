//! The command line: one file a command, each of which loads, calls, and hands
//! the result to `ui`.

mod apply;
mod completions;
mod destroy;
mod doctor;
mod drift;
mod graph;
mod host;
mod iam_policy;
mod kubeconfig;
mod output;
mod plan;
mod render;
mod sandbox;
mod schema;
mod stop;
mod token;
mod unlock;
mod validate;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::engine::plan::Policy;
use crate::engine::secret;
use crate::run::Failure;
use crate::ui::{self, Ui};

/// Exit codes, as in the README.
pub mod exit {
    pub const DONE: u8 = 0;
    pub const ERROR: u8 = 1;
    pub const CHANGES: u8 = 2;
    /// The rest waits: for a cluster's API server that can't be reached, or for
    /// another run.
    pub const BLOCKED: u8 = 3;
    /// What a command promises could not be confirmed.
    pub const UNKNOWN: u8 = 4;
    /// The command line is wrong: `EX_USAGE` of sysexits.h. Not clap's 2, which
    /// says that there are changes.
    pub const USAGE: u8 = 64;
    pub const INTERRUPTED: u8 = 130;
}

/// Provisions multi-tenant SaaS estates on Amazon EKS from one tenancy spec.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    command: Command,
}

const SPEC: &str = "tenancy.yaml";
const SANDBOX_SPEED: f64 = 60.0;

#[derive(Debug, Args)]
pub struct Global {
    /// The tenancy spec.
    #[arg(short, long, global = true, value_name = "FILE", default_value = SPEC)]
    pub file: PathBuf,
    /// Work on an AWS stand-in inside this program instead of AWS; what it
    /// holds is kept in DIR between commands.
    #[arg(long, global = true, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = ".ringfence/sandbox")]
    pub sandbox: Option<PathBuf>,
    /// How much faster than the wall the sandbox's time passes.
    #[arg(long, global = true, value_name = "N", default_value_t = SANDBOX_SPEED, value_parser = positive)]
    pub sandbox_speed: f64,
    /// Append each call to the sandbox to FILE, as a line of JSON: for tests.
    #[arg(long, global = true, value_name = "FILE", hide = true)]
    pub sandbox_record: Option<PathBuf>,
    /// A directory of tier profiles that add to or replace the built-in ones.
    #[arg(long, global = true, value_name = "DIR")]
    pub profiles: Option<PathBuf>,
    /// A directory of templates that add to or replace the built-in ones.
    #[arg(long, global = true, value_name = "DIR")]
    pub templates: Option<PathBuf>,
    /// Reach this cluster (a pool's name or a silo tenant's id) by a
    /// kubeconfig: through a tunnel, a bastion, a test server.
    #[arg(long, global = true, value_name = "CLUSTER=FILE", value_parser = pair)]
    pub kubeconfig: Vec<(String, PathBuf)>,
    /// Leave the clusters' insides alone.
    #[arg(long, global = true)]
    pub aws_only: bool,
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Show attributes, and the calls by action at the end; twice for the
    /// client's log.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Human,
    Json,
    Markdown,
    Html,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// Which resources a command may touch.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Only this tenant's resources, and nothing else. Repeatable.
    #[arg(long, value_name = "ID")]
    pub tenant: Vec<String>,
    /// With --tenant: and what they need, such as their pool.
    #[arg(long, requires = "tenant")]
    pub with_deps: bool,
    /// What holds a tenant's work or data and may be replaced, by its address:
    /// a cluster, a VPC, a namespace. Repeatable.
    #[arg(long, value_name = "ADDRESS")]
    pub allow_replace: Vec<String>,
    /// What holds a tenant's work or data and may be deleted, by its address:
    /// a pool, a tenant's home or old home, such as tenant/12345/silo.
    /// Repeatable.
    #[arg(long, value_name = "ADDRESS")]
    pub allow_destroy: Vec<String>,
    /// Delete audit logs (and the keys they are encrypted with) too, where
    /// they leave the spec.
    #[arg(long)]
    pub delete_logs: bool,
}

/// How a command that changes things goes about it.
#[derive(Clone, Debug, Args)]
pub struct Running {
    /// Don't ask. What holds a tenant's work or data still isn't deleted
    /// without --allow-destroy, except by `destroy` without --tenant.
    #[arg(long)]
    pub auto_approve: bool,
    /// Steps of each kind of resource that make calls at a time. Those that wait
    /// for AWS to finish don't count, and how often each API is called is
    /// limited apart from this.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallelism: u16,
    /// Wait for another run to end, such as 90s or 10m. Without it, a run that
    /// is alive is an error. One that died is waited for until its lease ends,
    /// in any case.
    #[arg(long, value_name = "DURATION", default_value = "0s", hide_default_value = true, value_parser = duration)]
    pub lock_timeout: Duration,
    /// How long the lock's holder may be silent: for tests.
    #[arg(long, value_name = "DURATION", hide = true, value_parser = duration)]
    pub lock_lease: Option<Duration>,
    /// Begin without asking Service Quotas and IAM whether all of it can be
    /// done.
    #[arg(long)]
    pub no_preflight: bool,
}

impl Global {
    /// `ringfence WORDS` with the options that say where and what this run
    /// works on, for a shell: what is printed to be run is whole.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        let Self { file, sandbox, profiles, templates, kubeconfig, aws_only, .. } = self;
        let Self { sandbox_speed, sandbox_record: _, format: _, color: _, verbose: _, .. } = self;
        let quoted = |text: &str| shlex::try_quote(text).unwrap_or(text.into()).into_owned();
        let path = |path: &Path| quoted(&path.display().to_string());
        let mut all = vec!["ringfence".to_owned()];
        all.extend(words.iter().map(|word| quoted(word)));
        if file != Path::new(SPEC) {
            all.push(format!("--file {}", path(file)));
        }
        if let Some(dir) = sandbox {
            all.push(format!("--sandbox={}", path(dir)));
            if *sandbox_speed != SANDBOX_SPEED {
                all.push(format!("--sandbox-speed {sandbox_speed}"));
            }
        }
        all.extend(profiles.iter().map(|dir| format!("--profiles {}", path(dir))));
        all.extend(templates.iter().map(|dir| format!("--templates {}", path(dir))));
        all.extend(kubeconfig.iter().map(|(cluster, file)| format!("--kubeconfig {}={}", quoted(cluster), path(file))));
        if *aws_only {
            all.push("--aws-only".to_owned());
        }
        all.join(" ")
    }

    /// There is a spec, or should be.
    fn has_spec(&self) -> bool {
        self.file.exists() || self.file != Path::new(SPEC)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the spec, offline, and show everything that is wrong at once.
    Validate,
    /// Show what apply would do.
    Plan(plan::Plan),
    /// Make what exists what the spec says.
    Apply(apply::Apply),
    /// Take everything down.
    Destroy(destroy::Destroy),
    /// Show what was changed or deleted by hand. Exit code 2 if anything was, 3
    /// if a cluster can't be read.
    Drift(drift::Drift),
    /// Check credentials, permissions, quotas and versions before the first
    /// apply, and say the next command. Changes nothing. Exit code 1 if
    /// something is wrong, 4 if something could not be found out.
    Doctor,
    /// Release the lock of a run that can't go on.
    Unlock(unlock::Unlock),
    /// Write the in-cluster objects as files, for GitOps.
    Render(render::Render),
    /// Print the resources and what each needs, as Graphviz DOT.
    Graph,
    /// Print the IAM policy that the role ringfence runs as needs for this
    /// spec, as JSON. Offline.
    IamPolicy(iam_policy::IamPolicy),
    /// Print ids, ARNs and endpoints of what exists, as JSON.
    Output(output::Output),
    /// Add clusters to the kubeconfig, for kubectl.
    Kubeconfig(kubeconfig::Kubeconfig),
    /// Print a token for a cluster: kubectl's credential plugin.
    Token(token::Token),
    /// Print the spec's JSON Schema, for editors.
    Schema,
    /// Serve the AWS stand-in to any AWS client.
    Sandbox(sandbox::Sandbox),
    /// Print a completion script for a shell.
    Completions(completions::Completions),
}

impl Cli {
    /// Runs the command; gives the exit code. All output goes through `ui`.
    pub async fn run(self) -> u8 {
        let Self { global, command } = self;
        let ui = Ui::stdio(ui::Options {
            format: global.format.into(),
            color: match global.color {
                Color::Auto => ui::Color::Auto,
                Color::Always => ui::Color::Always,
                Color::Never => ui::Color::Never,
            },
            verbose: global.verbose > 0,
        });
        let result = match command {
            Command::Validate => validate::run(&global, &ui),
            Command::Plan(args) => args.run(&global, &ui).await,
            Command::Apply(args) => args.run(&global, &ui).await,
            Command::Destroy(args) => args.run(&global, &ui).await,
            Command::Drift(args) => args.run(&global, &ui).await,
            Command::Doctor => doctor::run(&global, &ui).await,
            Command::Unlock(args) => args.run(&global, &ui).await,
            Command::Render(args) => args.run(&global, &ui).await,
            Command::Graph => graph::run(&global, &ui).await,
            Command::IamPolicy(args) => args.run(&global, &ui),
            Command::Output(args) => args.run(&global, &ui).await,
            Command::Kubeconfig(args) => args.run(&global, &ui).await,
            Command::Token(args) => args.run(&ui).await,
            Command::Schema => schema::run(&ui),
            Command::Sandbox(args) => args.run(&global, &ui).await,
            Command::Completions(args) => args.run(&ui),
        };
        match result {
            Ok(code) => code,
            Err(failure) => {
                ui.failure(&failure);
                match failure {
                    Failure::Run(error) if error.class == Class::Usage => exit::USAGE,
                    _ => exit::ERROR,
                }
            }
        }
    }
}

impl From<Format> for ui::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Human => Self::Human,
            Format::Json => Self::Json,
            Format::Markdown => Self::Markdown,
            Format::Html => Self::Html,
        }
    }
}

/// Reads the command line, starts the runtime and runs the command.
pub fn start(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(refusal) => return refused(&args, &refusal).into(),
    };
    if cli.global.verbose > 1 {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("ringfence=debug,aws_smithy_runtime=info"));
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Log).init();
    }
    match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(cli.run());
            // A thread that still waits for an answer to a question holds up nobody.
            runtime.shutdown_background();
            code.into()
        }
        Err(error) => {
            let options = ui::Options { format: cli.global.format.into(), ..ui::Options::default() };
            let message = format!("the program can't start its threads: {error}");
            Ui::stdio(options).failure(&Error::input(message).help("free some memory, or allow more processes").into());
            exit::ERROR.into()
        }
    }
}

/// Says why clap refuses the command line, in the format that is asked for in
/// it; gives the exit code. `--help` and `--version` come here too.
fn refused(args: &[OsString], refusal: &clap::Error) -> u8 {
    let format = asked_format(args);
    if !refusal.use_stderr() || format == Format::Human {
        let printed = refusal.print();
        let gone = printed.is_err_and(|e| e.kind() != std::io::ErrorKind::BrokenPipe);
        return match (refusal.use_stderr(), gone) {
            (true, _) => exit::USAGE,
            (false, true) => exit::ERROR,
            (false, false) => exit::DONE,
        };
    }
    let text = refusal.render().to_string();
    // What is wrong, then hints and the usage, each a paragraph.
    let mut paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    let what = paragraphs.next().unwrap_or_default();
    let help = paragraphs.filter(|p| !p.is_empty()).collect::<Vec<_>>().join("; ");
    let options = ui::Options { format: format.into(), ..ui::Options::default() };
    let error = Error::usage(what.strip_prefix("error: ").unwrap_or(&what));
    Ui::stdio(options).failure(&error.help(help).into());
    exit::USAGE
}

/// The format that is asked for in a command line that isn't understood.
fn asked_format(args: &[OsString]) -> Format {
    let before = args.iter().take_while(|a| *a != "--").map(|a| a.to_string_lossy());
    let mut format = Format::Human;
    let mut follows = false;
    for arg in before {
        let value = if follows { Some(&*arg) } else { arg.strip_prefix("--format=") };
        if let Some(Ok(known)) = value.map(|v| Format::from_str(v, false)) {
            format = known;
        }
        follows = arg == "--format";
    }
    format
}

impl Selection {
    fn policy(&self, destroy: bool) -> Policy {
        Policy {
            tenants: self.tenant.iter().cloned().collect::<BTreeSet<_>>(),
            with_deps: self.with_deps,
            destroy,
            allow_replace: self.allow_replace.iter().map(Address::new).collect(),
            allow_destroy: self.allow_destroy.iter().map(Address::new).collect(),
            delete_logs: self.delete_logs,
            aws_only: false,
        }
    }
}

/// The libraries' log, without credentials: they write a whole line at a time.
struct Log;

impl std::io::Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        std::io::stderr().write_all(secret::hide(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

fn pair(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((cluster, file)) if !cluster.is_empty() && !file.is_empty() => Ok((cluster.to_owned(), file.into())),
        _ => Err("write it as CLUSTER=FILE, with the pool's name or the silo tenant's id".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let length = text.parse::<SignedDuration>().ok().and_then(|length| length.try_into().ok());
    length.ok_or_else(|| "write it as 90s, 5m or 1h".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n.is_finite() => Ok(n),
        _ => Err("a number above 0".to_owned()),
    }
}
