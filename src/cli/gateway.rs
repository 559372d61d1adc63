use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{Global, exit, stop};
use crate::engine::clock::Clock;
use crate::engine::error::Error;
use crate::gateway::{Listening, admission};
use crate::run::Failure;
use crate::run::gateway::{Source, Sources, traces};
use crate::ui::Ui;

#[derive(Debug, Args)]
pub struct Gateway {
    /// The gateway's configuration: addresses, certificates, clusters, identity providers, limits. docs/gateway.md
    /// lists the fields. With --admission, the webhook's: docs/webhook.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Serve the admission webhook of one cluster instead. `policyEngine: webhook` runs it inside of the cluster.
    #[arg(long)]
    admission: bool,
}

impl Gateway {
    /// Serves until it is interrupted.
    pub async fn run(self, global: &Global, ui: Arc<Ui>) -> Result<u8, Failure> {
        if self.admission {
            return self.admission(ui).await;
        }
        let sources = Sources {
            config: self.config,
            spec: global.file.clone(),
            profiles: global.profiles.clone(),
            templates: global.templates.clone(),
        };
        let clock = Clock::real();
        let source = Source::new(sources, clock.clone());
        let (config, state) = source.first().await?;
        let notes = ui.clone();
        let failed = move |error: &Error| notes.note(&format!("The gateway goes on without traces: {error}"));
        let traces = traces(&config, |name| std::env::var(name).ok(), failed)?;
        let listening = Listening::open(&config, state, clock, traces).await?;
        let [tenants, status] = listening.addresses().map_err(|e| Error::input(e.to_string()))?;
        ui.note(&format!("The gateway listens on https://{tenants}. Health and metrics are at http://{status}."));
        let failed = move |error: &Error| {
            ui.note(&format!("The gateway goes on with the files as they were: {error}"));
        };
        listening.serve(source.reload(), stop::requested(), failed).await;
        Ok(exit::DONE)
    }

    async fn admission(self, ui: Arc<Ui>) -> Result<u8, Failure> {
        let config = admission::config::Config::load(&self.config)?;
        let listening = admission::Listening::open(config, Clock::real()).await?;
        let [webhook, status] = listening.addresses().map_err(|e| Error::input(e.to_string()))?;
        ui.note(&format!("The webhook listens on https://{webhook}. Health and metrics are at http://{status}."));
        let failed = move |error: &Error| {
            ui.note(&format!("The webhook goes on with what it has: {error}"));
        };
        listening.serve(stop::requested(), failed).await;
        Ok(exit::DONE)
    }
}
