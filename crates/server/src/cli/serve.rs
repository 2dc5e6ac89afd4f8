//! `semel serve`: starts, says where, reloads on SIGHUP, stops on SIGTERM and SIGINT.

use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArgs, ServeArgs, config, exit, fail};
use crate::app::{App, Running, StartError};
use crate::config::{
    Config, Loaded, Problem, SAMPLE, SAMPLE_HEADER, SAMPLE_TOKEN, Sources, load, needs_restart,
};
use crate::telemetry::logs::Logs;
use crate::telemetry::metrics::Metrics;

/// Signals to stop that come within this time of the first are the same wish.
const SAME_WISH: Duration = Duration::from_secs(1);

pub(super) fn serve(args: &ServeArgs) -> u8 {
    let loaded = match config::checked(&args.config) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let logs = match Logs::start(&loaded.config.log) {
        Ok(logs) => logs,
        Err(error) => return fail(exit::FAILED, error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(exit::FAILED, format!("no threads: {error}")),
    };
    let code = runtime.block_on(run(&args.config, &loaded, &logs));
    // What has not ended within the grace is not waited for: its records say so.
    runtime.shutdown_background();
    logs.flush();
    code
}

async fn run(args: &ConfigArgs, loaded: &Loaded, logs: &Logs) -> u8 {
    let config = &loaded.config;
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return fail(exit::FAILED, format!("no signals: {error}")),
    };
    let operations = config.engine_operations();
    let names = operations.iter().map(|operation| &operation.name);
    let metrics = Metrics::with_log_drops(&config.service_name, names, logs.dropped());
    warn(config);
    let running = match start(config, metrics, &mut signals).await {
        Some(Ok(running)) => running,
        Some(Err(error)) => return fail(exit::FAILED, error),
        None => return exit::DONE,
    };
    announce(config, &running);
    loop {
        match signals.next().await {
            Asked::Reload => reload(args, loaded, &running),
            Asked::Stop(why) => {
                tracing::info!(signal = why, "stopping");
                break;
            }
        }
    }
    // A second signal is somebody who does not want to wait.
    let finished = tokio::select! {
        finished = running.stop() => finished,
        () = signals.stop_again() => false,
    };
    if finished {
        tracing::info!("stopped");
        exit::DONE
    } else {
        tracing::warn!("stopped before everything had ended");
        exit::FAILED
    }
}

/// Starts; `None` if somebody asks it to stop before it has, such as while it waits for its store.
async fn start(
    config: &Config,
    metrics: Metrics,
    signals: &mut Signals,
) -> Option<Result<Running, StartError>> {
    let mut starting = pin!(App::start(config, metrics));
    loop {
        tokio::select! {
            started = &mut starting => return Some(started),
            asked = signals.next() => if let Asked::Stop(why) = asked {
                tracing::info!(signal = why, "stopped before it served");
                return None;
            },
        }
    }
}

/// Reads the configuration again. One that is wrong changes nothing; of one that is right, the keys are named that were
/// other ones at the start, and cannot be taken over while it runs. The file is the one of the start: where it has gone,
/// there is nothing to read, and no way into the mode that is for nobody's file.
fn reload(args: &ConfigArgs, start: &Loaded, running: &Running) {
    let usual = args.sources();
    let sources = Sources { file: start.file.clone().or_else(|| usual.file.clone()), ..usual };
    let reloaded = load(&sources).map_err(|error| error.to_string()).and_then(|loaded| {
        running.reload(&loaded.config).map_err(|error| error.to_string())?;
        warn(&loaded.config);
        Ok(needs_restart(&start.shown, &loaded.shown))
    });
    match reloaded {
        Ok(keys) => {
            tracing::info!("the configuration was read again");
            if !keys.is_empty() {
                let keys = keys.join(", ");
                tracing::warn!(keys, "these keys have changed, and take effect at the next start");
            }
        }
        Err(error) => tracing::error!(error, "the configuration stays as it was"),
    }
}

/// Says what holds, and is probably not meant.
fn warn(config: &Config) {
    for warning in &config.warnings {
        let Problem { place, path, message } = warning;
        tracing::warn!(place, key = path, "{message}");
    }
}

/// Says where it listens: one line for programs, and in development what to try.
fn announce(config: &Config, running: &Running) {
    let url = |address: SocketAddr, tls: bool| format!("http{}://{address}", if tls { "s" } else { "" });
    let doors = url(running.doors_address(), config.server.tls.is_some());
    let admin = url(running.admin_address(), config.admin.tls.is_some());
    let is_tls = config.gateway.as_ref().is_some_and(|gateway| gateway.tls.is_some());
    let gateway = running.gateway_address().map(|address| url(address, is_tls));
    tracing::info!(
        doors,
        admin,
        gateway,
        store = %config.store.url,
        development = config.development,
        "serving"
    );
    let banner = if config.development {
        let has_sample = config.webhooks.iter().any(|source| source.source.name() == SAMPLE);
        banner(&doors, &admin, &config.store.url.to_string(), has_sample)
    } else {
        String::new()
    };
    let gateway = gateway.map(|gateway| format!(" gateway {gateway}")).unwrap_or_default();
    let text = format!("listening: doors {doors} admin {admin}{gateway}\n{banner}");
    // A server whose standard output is closed serves all the same.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What somebody who tries it out wants to know, ending in a line that works as it stands.
fn banner(doors: &str, admin: &str, store: &str, has_sample: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let payload = r#"{"operation":"count","payload":{"name":"orders"}}"#;
    let sample = if has_sample {
        let event = r#"{"id":"evt_1"}"#;
        format!(
            "\nAnd as a partner sends the same event twice:\n\n  \
             curl -i {doors}/v1/webhooks/{SAMPLE} -H '{SAMPLE_HEADER}: {SAMPLE_TOKEN}' -d '{event}'\n"
        )
    } else {
        String::new()
    };
    format!(
        "
Semel {version}, in development mode: on loopback only, no tokens, built-in operations echo, sleep, fail and count.
Records are kept in {store}. Operators and readers of the documentation go to {admin}/docs

Try it, and then once more: the second answer is the first one, and nothing runs.

  curl -i {doors}/v1/idempotency/execute -H 'Content-Type: application/json' -H 'Idempotency-Key: first-try' -d '{payload}'
{sample}
"
    )
}

/// What somebody asks for by a signal.
enum Asked {
    Reload,
    Stop(&'static str),
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// Waits for somebody who does not want to wait any longer. The same wish often comes twice (from `timeout`, or from
    /// a shell to the whole group), so only one that comes a while later counts.
    async fn stop_again(&mut self) {
        tokio::time::sleep(SAME_WISH).await;
        while self.next().now_or_never().is_some() {}
        while matches!(self.next().await, Asked::Reload) {}
    }
}
