use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Global, exit, stop, unwritten};
use crate::engine::error::Error;
use crate::sandbox::{Options, Script, Server};
use crate::ui::{Failure, Ui};

#[derive(Debug, Args)]
pub struct Sandbox {
    /// Address and port to listen on; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4599")]
    listen: SocketAddr,
    /// Keep what it holds in this directory.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How much faster than the wall its time passes.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = super::positive)]
    speed: f64,
    /// A service quota, by code or name. Repeatable.
    #[arg(long, value_name = "QUOTA=N", value_parser = quota)]
    quota: Vec<(String, f64)>,
    /// Append each call as a line of JSON.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// What goes wrong, as a script: lost and late answers, errors, lagging
    /// reads, death at a call (docs/faults.md).
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Hold keys that sts:AssumeRole issued to the policies of their role;
    /// others stay the account's administrator.
    #[arg(long)]
    enforce_iam: bool,
}

impl Sandbox {
    /// Serves until it is interrupted.
    pub async fn run(self, _global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let Self { listen, state, speed, quota, record, faults, enforce_iam } = self;
        if !listen.ip().is_loopback() {
            return Err(Error::input(format!(
                "the sandbox checks no credentials, so it listens on loopback addresses only, not on {}",
                listen.ip()
            ))
            .help("use 127.0.0.1")
            .into());
        }
        let faults = faults.as_deref().map(script).transpose()?.unwrap_or_default();
        let options = Options {
            faults,
            speed,
            state_dir: state,
            quotas: quota.into_iter().collect::<BTreeMap<_, _>>(),
            record,
            enforce_iam,
            ..Options::default()
        };
        let server = Server::start(options, listen).map_err(|e| {
            Error::input(format!("the sandbox can't start on {listen}: {e}")).help("choose another port or directory")
        })?;
        ui.print(&format!(
            "Sandbox at http://{} (time passes {speed} times faster). Point AWS_ENDPOINT_URL there; Ctrl-C ends it.",
            server.addr()
        ))?;
        stop::requested().await;
        server.shutdown().await.map_err(|e| unwritten("the sandbox's state", &e))?;
        Ok(exit::DONE)
    }
}

fn script(file: &Path) -> crate::engine::error::Result<Script> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Error::input(format!("the fault script {} can't be read: {e}", file.display())))?;
    Script::parse(&text).map_err(|e| {
        Error::input(format!("{} is no fault script: {e}", file.display())).help("docs/faults.md has the format")
    })
}

fn quota(text: &str) -> Result<(String, f64), String> {
    text.rsplit_once('=')
        .and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .ok_or_else(|| "write it as QUOTA=NUMBER, such as L-F678F1CE=20".to_owned())
}
