//! The real server process: started on free ports with a folder of its own, killed, stopped, started again.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::http::{Answer, Http};
use crate::wait::eventually;

/// No start and no stop takes longer than this, or the test has found a hang.
const WITHIN: Duration = Duration::from_secs(60);

/// A server that runs. It is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    doors: String,
    admin: String,
    gateway: Option<String>,
    log: Arc<Mutex<String>>,
    output: Arc<Mutex<String>>,
    http: Http,
    /// Removed with the server.
    #[allow(dead_code, reason = "kept, not read")]
    folder_of_its_own: Option<TempDir>,
}

/// The binary under test: `SEMEL_BIN`, as `cargo xtask test` gives it; else that of this workspace and profile, built
/// here once.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("SEMEL_BIN") {
            return given.into();
        }
        // target/debug/deps/main-…: the binary stands two folders up.
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let mut build = std::process::Command::new(env!("CARGO"));
        // As `cargo xtask test` builds it, so that nothing is compiled twice.
        build.args(["build", "--quiet", "--workspace", "--all-features", "--tests", "--bin", "semel"]);
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
            {
                build.env_remove(name);
            }
        }
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the server does not build");
        profile.join("semel")
    })
}

/// A command of the binary, without what this process's environment would set.
pub(crate) fn command(arguments: &[&str], folder: &Path) -> Command {
    without_environment(Command::new(binary()), arguments, folder)
}

/// As [`command`], started by a script of the shell: `$0` is the binary, `$@` its arguments.
pub(crate) fn command_of(script: &str, arguments: &[&str], folder: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(binary());
    without_environment(shell, arguments, folder)
}

fn without_environment(mut command: Command, arguments: &[&str], folder: &Path) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("SEMEL")) {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(folder).kill_on_drop(true);
    command
}

/// A server that starts: it may say where it listens, or end. It is killed when it is dropped.
pub(crate) struct Starting {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Starting {
    /// Starts a command that serves, on free ports.
    pub(crate) fn of(mut command: Command) -> Self {
        command.env("SEMEL__SERVER__LISTEN", "127.0.0.1:0").env("SEMEL__ADMIN__LISTEN", "127.0.0.1:0");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = errors.next_line().await {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self { child, log, reader }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until a line of the log holds this text.
    pub(crate) async fn logged(&self, text: &str) {
        let what = format!("a line of the log that holds {text:?}");
        eventually(&what, async || self.log().contains(text).then_some(())).await;
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(process_of(&self.child), signal).unwrap();
    }

    /// Waits for its end, and says what it has logged.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let status = ended(&mut self.child).await;
        self.reader.await.unwrap();
        let log = self.log.lock().unwrap().clone();
        (status, log)
    }

    /// Waits until it says where it listens. What it says instead, if it does not.
    pub(crate) async fn running(mut self) -> Result<Server, String> {
        let mut output = BufReader::new(self.child.stdout.take().unwrap()).lines();
        let said = tokio::time::timeout(WITHIN, output.next_line()).await.expect("a start within a minute");
        let Some(line) = said.unwrap() else { return Err(self.ended().await.1) };
        // The rest (the banner) is read, so that the server is never blocked by it.
        let said = Arc::new(Mutex::new(format!("{line}\n")));
        let kept = Arc::clone(&said);
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                kept.lock().unwrap().extend([line.as_str(), "\n"]);
            }
        });
        let words: Vec<&str> = line.split(' ').collect();
        let ["listening:", "doors", doors, "admin", admin, ref more @ ..] = words[..] else {
            panic!("no addresses in {line:?}")
        };
        let (doors, admin) = (doors.to_owned(), admin.to_owned());
        let gateway = match more {
            [] => None,
            ["gateway", gateway] => Some((*gateway).to_owned()),
            _ => panic!("no addresses in {line:?}"),
        };
        let (child, log) = (self.child, self.log);
        let http = Http::new();
        Ok(Server { child, doors, admin, gateway, log, output: said, http, folder_of_its_own: None })
    }
}

fn process_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id().expect("it runs")).unwrap()).unwrap()
}

async fn ended(child: &mut Child) -> ExitStatus {
    tokio::time::timeout(WITHIN, child.wait()).await.expect("an end within a minute").unwrap()
}

impl Server {
    /// Development mode, as a newcomer has it, but on free ports and in a folder that is removed afterwards.
    pub(crate) async fn development() -> Self {
        Self::start("[server]\ndevelopment = true\n").await
    }

    /// With this configuration, in a folder of its own.
    pub(crate) async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self::start_in(folder.path(), config).await;
        server.folder_of_its_own = Some(folder);
        server
    }

    /// With this configuration, on what an earlier server has left in the folder.
    pub(crate) async fn start_in(folder: &Path, config: &str) -> Self {
        std::fs::write(folder.join("semel.toml"), config).unwrap();
        let mut command = command(&["serve"], folder);
        let data = format!("embedded:{}", folder.join("data").display());
        command.env("SEMEL__STORE__URL", data);
        Self::run(command).await.unwrap_or_else(|log| panic!("the server does not start:\n{log}"))
    }

    /// With this configuration, in a folder of its own, on a store that other servers may share.
    pub(crate) async fn start_on(store: &str, config: &str) -> Self {
        Self::try_start_on(store, config)
            .await
            .unwrap_or_else(|log| panic!("the server does not start:\n{log}"))
    }

    /// As [`start_on`](Self::start_on), with more in its environment.
    pub(crate) async fn start_on_with(store: &str, config: &str, environment: &[(&str, &str)]) -> Self {
        let started = Self::try_start_with(store, config, environment).await;
        started.unwrap_or_else(|log| panic!("the server does not start:\n{log}"))
    }

    /// As [`start_on`](Self::start_on). What it says instead, if it does not start.
    pub(crate) async fn try_start_on(store: &str, config: &str) -> Result<Self, String> {
        Self::try_start_with(store, config, &[]).await
    }

    async fn try_start_with(store: &str, config: &str, environment: &[(&str, &str)]) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("semel.toml"), config).unwrap();
        let mut command = command(&["serve"], folder.path());
        command.env("SEMEL__STORE__URL", store).envs(environment.iter().copied());
        if store.starts_with("redis") {
            // Its failover may lose claims. Here there is none.
            command.env("SEMEL__STORE__ACCEPT_CLAIM_LOSS", "true");
        }
        let mut server = Self::run(command).await?;
        server.folder_of_its_own = Some(folder);
        Ok(server)
    }

    /// Runs a command that serves, on free ports. What it says instead, if it does not.
    pub(crate) async fn run(command: Command) -> Result<Self, String> {
        Starting::of(command).running().await
    }

    /// Where the doors are, such as `http://127.0.0.1:41234`.
    pub(crate) fn url(&self) -> String {
        self.doors.clone()
    }

    /// Where operators go.
    pub(crate) fn admin_url(&self) -> String {
        self.admin.clone()
    }

    /// Where the gateway is.
    pub(crate) fn gateway_url(&self) -> String {
        self.gateway.clone().expect("the configuration has a gateway")
    }

    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// What it has printed so far.
    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Waits until a line of the log holds this text.
    pub(crate) async fn logged(&self, text: &str) {
        let what = format!("a line of the log that holds {text:?}");
        eventually(&what, async || self.log().contains(text).then_some(())).await;
    }

    /// Executes an operation; more headers may be given.
    pub(crate) async fn execute(
        &self,
        operation: &str,
        key: &str,
        payload: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut all = vec![("content-type", "application/json"), ("idempotency-key", key)];
        all.extend(headers);
        let body = format!(r#"{{"operation":"{operation}","payload":{payload}}}"#);
        self.http.post(&format!("{}/v1/idempotency/execute", self.doors), &all, body).await.unwrap()
    }

    /// POSTs JSON to a path.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let json = [("content-type", "application/json")];
        self.http.post(&format!("{}{path}", self.doors), &json, body.to_owned()).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.http.get(&format!("{}{path}", self.doors), headers).await.unwrap()
    }

    /// Its process.
    pub(crate) fn process(&self) -> Pid {
        process_of(&self.child)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        ended(&mut self.child).await
    }

    /// SIGTERM, and its end.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// SIGKILL, and its end.
    #[allow(dead_code, reason = "the crash test uses it")]
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }
}
