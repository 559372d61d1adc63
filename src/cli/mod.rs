//! The command line. Each command has one file: it loads the spec, calls `run`, and passes the result to `ui`.

mod apply;
mod check;
mod completions;
mod destroy;
mod doctor;
mod drift;
mod gateway;
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
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::engine::plan::Policy;
use crate::engine::secret;
use crate::run::Failure;
use crate::ui::{self, Ui};

/// Exit codes, as the README lists them.
pub mod exit {
    pub const DONE: u8 = 0;
    pub const ERROR: u8 = 1;
    pub const CHANGES: u8 = 2;
    /// The rest of the work waits for a cluster's API server that can't be reached, or for another run.
    pub const BLOCKED: u8 = 3;
    /// Some state could not be read, so the command can't confirm its result.
    pub const UNKNOWN: u8 = 4;
    /// The command line is wrong: `EX_USAGE` of sysexits.h. clap's own code 2 would say that there are changes.
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
    /// The file with the tenancy spec.
    #[arg(short, long, global = true, value_name = "FILE", default_value = SPEC)]
    pub file: PathBuf,
    /// Use the embedded AWS sandbox instead of AWS. The sandbox keeps its state in DIR between commands.
    #[arg(long, global = true, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = ".ringfence/sandbox")]
    pub sandbox: Option<PathBuf>,
    /// How many times faster than real time the sandbox's clock runs.
    #[arg(long, global = true, value_name = "N", default_value_t = SANDBOX_SPEED, value_parser = positive)]
    pub sandbox_speed: f64,
    /// Append each call to the sandbox to FILE, as a line of JSON. For tests.
    #[arg(long, global = true, value_name = "FILE", hide = true)]
    pub sandbox_record: Option<PathBuf>,
    /// A directory of tier profiles. They add to or replace the built-in profiles.
    #[arg(long, global = true, value_name = "DIR")]
    pub profiles: Option<PathBuf>,
    /// A directory of templates. They add to or replace the built-in templates.
    #[arg(long, global = true, value_name = "DIR")]
    pub templates: Option<PathBuf>,
    /// Connect to a cluster with the kubeconfig FILE, for example through a tunnel or a bastion host. CLUSTER is a
    /// pool's name or a silo tenant's id.
    #[arg(long, global = true, value_name = "CLUSTER=FILE", value_parser = pair)]
    pub kubeconfig: Vec<(String, PathBuf)>,
    /// Read and change AWS resources only, no objects in clusters.
    #[arg(long, global = true)]
    pub aws_only: bool,
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Show all attributes, and at the end the number of API calls by action. Given twice: also log the requests of
    /// the AWS client.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Human,
    Json,
    Markdown,
    Html,
    /// For `check` only.
    Sarif,
    /// For `check` only.
    Junit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// Which resources a command may change or delete.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Select the resources of this tenant only. Repeatable.
    #[arg(long, value_name = "ID")]
    pub tenant: Vec<String>,
    /// With --tenant: also select the resources that the tenant depends on, such as its pool.
    #[arg(long, requires = "tenant")]
    pub with_deps: bool,
    /// Allow the replacement of the resource at ADDRESS that holds a tenant's work or data: a cluster, a VPC, a
    /// namespace. Repeatable.
    #[arg(long, value_name = "ADDRESS")]
    pub allow_replace: Vec<String>,
    /// Allow the deletion of ADDRESS although it holds a tenant's work or data: a pool, or a tenant's current or
    /// former placement, such as tenant/12345/silo. Repeatable.
    #[arg(long, value_name = "ADDRESS")]
    pub allow_destroy: Vec<String>,
    /// Also delete the audit logs, and the KMS keys that encrypt them, of clusters that the spec no longer has.
    #[arg(long)]
    pub delete_logs: bool,
}

/// Options of commands that change resources.
#[derive(Clone, Debug, Args)]
pub struct Running {
    /// Don't ask for confirmation. Resources that hold a tenant's work or data still need --allow-destroy, except
    /// with `destroy` of the whole tenancy.
    #[arg(long)]
    pub auto_approve: bool,
    /// How many steps of one resource kind may make calls at the same time. Steps that wait for AWS to finish aren't
    /// counted. The rate of calls to each API is limited separately.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallelism: u16,
    /// How long to wait for the lock of another run, such as 90s or 10m. By default, a lock whose holder is alive is
    /// an error. The lock of a dead run is always waited for until its lease expires.
    #[arg(long, value_name = "DURATION", default_value = "0s", hide_default_value = true, value_parser = duration)]
    pub lock_timeout: Duration,
    /// The lease of the lock: how long its holder may be silent. For tests.
    #[arg(long, value_name = "DURATION", hide = true, value_parser = duration)]
    pub lock_lease: Option<Duration>,
    /// Skip the checks of Service Quotas and of IAM permissions before the first write.
    #[arg(long)]
    pub no_preflight: bool,
}

impl Global {
    /// The shell command `ringfence WORDS` with all options that say where and on what this run works. The user can
    /// run the printed command unchanged.
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

    /// True if the spec exists, or if --file names it.
    fn has_spec(&self) -> bool {
        self.file.exists() || self.file != Path::new(SPEC)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the spec offline. Show all its errors at once.
    Validate,
    /// Show what apply would change.
    Plan(plan::Plan),
    /// Create, change and delete resources so that they match the spec.
    Apply(apply::Apply),
    /// Delete all resources of the tenancy, or of the tenants that --tenant selects.
    Destroy(destroy::Destroy),
    /// Show what was changed or deleted outside of ringfence. Exit code 2 if there is drift, 3 if a cluster can't be
    /// read.
    Drift(drift::Drift),
    /// Check credentials, permissions, quotas and versions before the first apply, and print the next command.
    /// Changes nothing. Exit code 1 if a check fails, 4 if a check could not be completed.
    Doctor,
    /// Release the lock of a run that is dead.
    Unlock(unlock::Unlock),
    /// Write the in-cluster objects as files, for GitOps.
    ///
    /// Files from an earlier run that are no longer rendered are deleted. A file that was edited since is kept and
    /// named. The list DIR/.ringfence-TENANCY.sha256 records what was written: commit it to the repository together
    /// with the files.
    Render(render::Render),
    /// Check Kubernetes objects as the tenant's cluster would, offline: its admission policies, the tenant's
    /// namespace and its rights. Exit code 1 if an object would be refused.
    ///
    /// The policies are those that ringfence writes to the cluster. Quotas, limits and what other webhooks do are
    /// not checked.
    Check(check::Check),
    /// Serve the Kubernetes API to tenants: authenticate, examine and decorate each request, and send it on as the
    /// tenant.
    ///
    /// The spec says which identities are a tenant's (`tenants[].access`). What a tenant may do follows from its Role
    /// and from the cluster's admission policies.
    Gateway(gateway::Gateway),
    /// Print the resources and their dependencies in Graphviz DOT format.
    Graph,
    /// Print the IAM policy that the role ringfence runs as needs for this spec, as JSON. Works offline.
    ///
    /// The policy fits into a role's inline policy, whose limit is 10,240 characters without white space: `aws iam
    /// put-role-policy --policy-document` accepts the policy unchanged. The policy of `apply` may be longer than a
    /// managed policy, whose limit is 6,144 characters. Then put the statements before `New` into one managed policy,
    /// and `New` and the statements after it into another.
    ///
    /// The policy allows changes of those resource kinds that the spec uses. If a change of the spec removes a kind,
    /// or changes `spec.iam.path`, apply that change with the policy of the former spec. If the spec has no
    /// `spec.accountId`, the policy names resources of any account.
    IamPolicy(iam_policy::IamPolicy),
    /// Print the ids, ARNs and endpoints of existing resources as JSON.
    Output(output::Output),
    /// Add clusters to the kubeconfig that kubectl uses.
    Kubeconfig(kubeconfig::Kubeconfig),
    /// Print an authentication token for a cluster. kubectl calls this command as its credential plugin.
    Token(token::Token),
    /// Print the JSON Schema of the spec, for editors.
    Schema,
    /// Start a local server that stands in for AWS. Any AWS client can use it.
    Sandbox(sandbox::Sandbox),
    /// Print a shell completion script.
    Completions(completions::Completions),
}

impl Cli {
    /// Runs the command. Returns the exit code.
    pub async fn run(self) -> u8 {
        let Self { global, command } = self;
        let ui = Arc::new(Ui::stdio(ui::Options {
            format: global.format.into(),
            color: match global.color {
                Color::Auto => ui::Color::Auto,
                Color::Always => ui::Color::Always,
                Color::Never => ui::Color::Never,
            },
            verbose: global.verbose > 0,
        }));
        let of_check = matches!(global.format, Format::Sarif | Format::Junit);
        let result = match command {
            _ if of_check && !matches!(command, Command::Check(_)) => {
                let error = Error::usage("only `check` has results in the formats sarif and junit");
                Err(error.help("use --format human, json, markdown or html").into())
            }
            Command::Validate => validate::run(&global, &ui),
            Command::Plan(args) => args.run(&global, &ui).await,
            Command::Apply(args) => args.run(&global, &ui).await,
            Command::Destroy(args) => args.run(&global, &ui).await,
            Command::Drift(args) => args.run(&global, &ui).await,
            Command::Doctor => doctor::run(&global, &ui).await,
            Command::Unlock(args) => args.run(&global, &ui).await,
            Command::Render(args) => args.run(&global, &ui).await,
            Command::Check(args) => args.run(&global, &ui),
            Command::Gateway(args) => args.run(&global, ui.clone()).await,
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
            Format::Sarif => Self::Sarif,
            Format::Junit => Self::Junit,
        }
    }
}

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
    // Only a gateway has more to compute than two threads can.
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let threads = if matches!(cli.command, Command::Gateway(_)) { cores } else { 2 };
    match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(cli.run());
            // The runtime must not wait for a thread that still reads the answer to a question from the terminal.
            runtime.shutdown_background();
            code.into()
        }
        Err(error) => {
            let options = ui::Options { format: cli.global.format.into(), ..ui::Options::default() };
            let message = format!("the program can't start its threads: {error}");
            Ui::stdio(options).failure(
                &Error::input(message).help("free memory, or raise the limit of processes (ulimit -u)").into(),
            );
            exit::ERROR.into()
        }
    }
}

/// Shows why clap refuses the command line, in the requested format. Returns the exit code. clap reports `--help` and
/// `--version` as refusals, too.
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
    // clap writes the error first, then hints and the usage, each as a paragraph.
    let mut paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    let what = paragraphs.next().unwrap_or_default();
    let help = paragraphs.filter(|p| !p.is_empty()).collect::<Vec<_>>().join("; ");
    let options = ui::Options { format: format.into(), ..ui::Options::default() };
    let error = Error::usage(what.strip_prefix("error: ").unwrap_or(&what));
    Ui::stdio(options).failure(&error.help(help).into());
    exit::USAGE
}

/// The value of `--format` in a command line that clap can't parse.
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

/// Writes the libraries' log without credentials. The log writes whole lines, so no credential is split between two
/// writes.
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
        _ => Err("write a number greater than 0".to_owned()),
    }
}
