use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Global, exit, host, stop};
use crate::aws::probe::{self, Difference, Outcome};
use crate::engine::error::Error;
use crate::run::{self, Failure, unwritten};
use crate::sandbox::{Options, Script, Server, fresh_quotas};
use crate::ui::{self, Ui};

#[derive(Debug, Args)]
pub struct Sandbox {
    /// Address and port to listen on. Port 0 selects a free port.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4599")]
    listen: SocketAddr,
    /// Keep the sandbox's state in this directory.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How many times faster than real time the sandbox's clock runs.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = super::positive)]
    speed: f64,
    /// The service quotas of the sandbox: `fresh` has the defaults of a new AWS account, `production` has raised
    /// quotas.
    #[arg(long, value_enum, default_value_t = Account::Production)]
    account: Account,
    /// Override one service quota, by its code or its name. Repeatable.
    #[arg(long, value_name = "QUOTA=N", value_parser = quota)]
    quota: Vec<(String, f64)>,
    /// Append each call to FILE, as a line of JSON.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// A script of faults to inject: lost and late answers, errors, stale reads, process death at a call (see
    /// docs/faults.md).
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Compare the sandbox with another endpoint, or with AWS itself (`aws`): make the same calls to both and show
    /// where the answers differ. Resources that the comparison creates are deleted afterwards. On AWS the comparison
    /// costs one or two dollars and takes half an hour.
    #[arg(long, value_name = "URL", conflicts_with_all = ["listen", "state", "speed", "account", "quota", "record", "faults", "enforce_iam"])]
    check: Option<String>,
    /// Enforce the role's IAM policies for credentials that sts:AssumeRole issued. Other credentials have
    /// administrator access.
    #[arg(long)]
    enforce_iam: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Account {
    Fresh,
    Production,
}

impl Sandbox {
    /// Serves until it is interrupted. The roles and policies that the spec refers to exist in the sandbox, if there
    /// is a spec.
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let Self { listen, state, speed, account, quota, record, faults, enforce_iam, check } = self;
        if let Some(other) = check {
            return compare(&other, ui).await;
        }
        if !listen.ip().is_loopback() {
            return Err(Error::usage(format!(
                "the sandbox checks no credentials, so it listens on loopback addresses only, not on {}",
                listen.ip()
            ))
            .help("use 127.0.0.1")
            .into());
        }
        let faults = faults.as_deref().map(script).transpose()?.unwrap_or_default();
        let spec = global.has_spec().then(|| host::load(global, ui)).transpose()?;
        let options = Options {
            faults,
            principals: spec.as_ref().map(run::named).unwrap_or_default(),
            account: spec.as_ref().map_or_else(|| Options::default().account, run::account),
            speed,
            state_dir: state,
            quotas: quotas(account, quota),
            record,
            enforce_iam,
            ..Options::default()
        };
        let server = Server::start(options, listen).map_err(|e| {
            Error::input(format!("the sandbox can't start on {listen}: {e}")).help("choose another port or directory")
        })?;
        ui.print(&format!(
            "Sandbox at http://{} (time passes {speed} times faster). Set AWS_ENDPOINT_URL to this address. Ctrl-C stops the sandbox.",
            server.addr()
        ))?;
        stop::requested().await;
        server.shutdown().await.map_err(|e| unwritten("the sandbox's state", &e))?;
        Ok(exit::DONE)
    }
}

/// Fast enough that clusters become ACTIVE within the comparison, and slow enough that deleted NAT gateways are still
/// listed.
const CHECK_SPEED: f64 = 3000.0;

/// Returns exit code 1 if there are differences without a known reason.
async fn compare(other: &str, ui: &Ui) -> Result<u8, Failure> {
    if other != "aws" && !other.starts_with("http://") && !other.starts_with("https://") {
        return Err(Error::usage(format!("--check can't compare the sandbox with `{other}`: it is not a URL"))
            .help("write it as http://127.0.0.1:5000, or `aws` for AWS itself")
            .into());
    }
    let options = Options { speed: CHECK_SPEED, ..Options::default() };
    let server = Server::start(options, ([127, 0, 0, 1], 0).into())
        .map_err(|e| Error::input(format!("the sandbox can't start: {e}")))?;
    ui.status(&format!("Comparing the sandbox with {other} …"));
    let url = (other != "aws").then_some(other);
    let outcome = probe::run(&format!("http://{}", server.addr()), url, stop::requested()).await?;
    let unexplained = outcome.unexplained().count();
    let text = match ui.format() {
        ui::Format::Json => serde_json::to_string(&outcome).map_err(|e| Error::bug(e.to_string()))?,
        _ => told(&outcome, other),
    };
    ui.print(&text)?;
    Ok(match (outcome.stopped, unexplained + outcome.left.len()) {
        (true, _) => exit::INTERRUPTED,
        (_, 0) => exit::DONE,
        _ => exit::ERROR,
    })
}

fn told(outcome: &Outcome, other: &str) -> String {
    let mut text = String::new();
    let mut call = "";
    // Unexplained differences come last, because the end of the output is what the reader sees.
    let (known, new): (Vec<_>, Vec<_>) = outcome.differences.iter().partition(|d| d.known.is_some());
    for difference in known.iter().chain(&new) {
        if call != difference.call {
            call = &difference.call;
            text.push_str(&format!("{call}\n"));
        }
        let Difference { at, sandbox, other, known, .. } = difference;
        let known = known.as_deref().unwrap_or("not explained");
        text.push_str(&format!("  {at}: {sandbox} in the sandbox, {other} at the other endpoint: {known}\n"));
    }
    for (what, all) in [("Calls that could not be made to both", &outcome.skipped), ("Left behind", &outcome.left)] {
        if !all.is_empty() {
            text.push_str(&format!("\n{what}:\n"));
            all.iter().for_each(|one| text.push_str(&format!("  {one}\n")));
        }
    }
    let stopped = if outcome.stopped { "Interrupted. " } else { "" };
    text.push_str(&format!(
        "\n{stopped}{} calls to the sandbox and {other}, {} with the same answer. {} differences are known, {} aren't explained.",
        outcome.calls,
        outcome.alike,
        known.len(),
        new.len()
    ));
    text
}

fn script(file: &Path) -> crate::engine::error::Result<Script> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Error::input(format!("the fault script {} can't be read: {e}", file.display())))?;
    Script::parse(&text).map_err(|e| {
        Error::input(format!("{} isn't a valid fault script: {e}", file.display()))
            .help("docs/faults.md describes the format")
    })
}

fn quotas(account: Account, given: Vec<(String, f64)>) -> BTreeMap<String, f64> {
    let mut quotas = match account {
        Account::Fresh => fresh_quotas(),
        Account::Production => BTreeMap::new(),
    };
    quotas.extend(given);
    quotas
}

fn quota(text: &str) -> Result<(String, f64), String> {
    text.rsplit_once('=')
        .and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .ok_or_else(|| "write it as QUOTA=NUMBER, such as L-F678F1CE=20".to_owned())
}
