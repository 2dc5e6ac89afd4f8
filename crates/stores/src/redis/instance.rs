//! Redis servers of a test's own, which may be stopped, cut off and promoted; and a name that leads to one of them.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, cmd};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::testing::client;

/// A port that was free a moment ago.
pub(super) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// On the path, as `cargo xtask services up` has it.
const REDIS: &str = "redis-server";

/// A server, gone when it is dropped.
pub(super) struct Instance {
    pub(super) port: u16,
    program: String,
    arguments: Vec<String>,
    folder: TempDir,
    child: Option<Child>,
}

impl Instance {
    /// Syncs every write before its answer, unless `arguments` say otherwise.
    pub(super) fn start(arguments: &[&str]) -> Self {
        Self::start_of(REDIS, arguments)
    }

    /// The same of another program that takes Redis' arguments.
    pub(super) fn start_of(program: &str, arguments: &[&str]) -> Self {
        let (port, folder, program) = (free_port(), tempfile::tempdir().unwrap(), program.to_owned());
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut instance = Self { port, program, arguments, folder, child: None };
        instance.start_again();
        instance
    }

    /// A copy of the server at that port, up to date.
    pub(super) async fn replica_of(port: u16) -> Self {
        Self::replica_by(REDIS, port).await
    }

    pub(super) async fn replica_by(program: &str, port: u16) -> Self {
        let replica = Self::start_of(program, &["--replicaof", &format!("127.0.0.1 {port}")]);
        replica.until(cmd("INFO").arg("replication"), |said| said.contains("master_link_status:up")).await;
        replica
    }

    /// One that watches others, and watches none.
    pub(super) fn sentinel() -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, format!("port {port}\nbind 127.0.0.1\n")).unwrap();
        let program = REDIS.to_owned();
        let mut sentinel = Self { port, program, arguments: Vec::new(), folder, child: None };
        let mut command = Command::new(REDIS);
        command.arg(file).arg("--sentinel").current_dir(sentinel.folder.path());
        sentinel.run(command, "Sentinel ID is");
        sentinel
    }

    /// On the same port, with what is on its disk. Waits until it says that it is ready.
    pub(super) fn start_again(&mut self) {
        let mut command = Command::new(&self.program);
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(self.folder.path())
            .args(self.arguments.iter().flat_map(|argument| argument.split(' ')));
        self.run(command, "Ready to accept connections");
    }

    /// Starts it, and waits until it says that it is ready.
    fn run(&mut self, mut command: Command, ready: &str) {
        let started = command.stdout(Stdio::piped()).spawn();
        let mut child = started.expect("the server is where `cargo xtask services up` has it");
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(ready) {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "redis-server has ended");
        }
        // Whatever else it says is read, so that it never waits for us.
        std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(drop));
        self.child = Some(child);
    }

    /// Without a word of warning.
    pub(super) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What it was started with.
    pub(super) fn argument(&self, name: &str) -> &str {
        let at = self.arguments.iter().position(|argument| argument == name).expect("it was given");
        &self.arguments[at + 1]
    }

    /// Ends the connections of all who ask; not those of replicas.
    pub(super) async fn kill_clients(&self) {
        let _: i64 = self.ask(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal")).await;
    }

    /// Until a replica has everything that is here.
    pub(super) async fn until_replicated(&self) {
        let mut client = self.client().await;
        let () = cmd("SET").arg("beat").arg("1").query_async(&mut client).await.unwrap();
        while cmd("WAIT").arg(1).arg(1_000).query_async::<i64>(&mut client).await.unwrap() == 0 {}
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(super) async fn client(&self) -> MultiplexedConnection {
        client(&self.url()).await
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query_async(&mut self.client().await).await.unwrap()
    }

    /// Asks until the answer is as it should be.
    pub(super) async fn until(&self, command: &Cmd, is: impl Fn(&str) -> bool) {
        let mut client = self.client().await;
        loop {
            let said: String = command.query_async(&mut client).await.unwrap();
            if is(&said) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A port that leads to a server, until it leads to another one, or to none: what a name, a balancer or a cable is.
pub(super) struct Way {
    pub(super) port: u16,
    leads_to: Arc<watch::Sender<Option<u16>>>,
    task: JoinHandle<()>,
}

impl Way {
    pub(super) async fn to(port: u16) -> Self {
        let leads_to = Arc::new(watch::Sender::new(Some(port)));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = Arc::clone(&leads_to);
        let task = tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let mut now = told.subscribe();
                let Some(port) = *now.borrow_and_update() else { continue };
                tokio::spawn(async move {
                    let there = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
                    let Ok(mut there) = there else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut here, &mut there) => {}
                        _ = now.changed() => {}
                    }
                });
            }
        });
        Self { port, leads_to, task }
    }

    /// Whatever goes over it is cut; what comes then goes there.
    pub(super) fn leads_to(&self, port: Option<u16>) {
        self.leads_to.send_replace(port);
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}
