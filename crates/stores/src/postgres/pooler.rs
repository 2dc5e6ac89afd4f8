//! A `PgBouncer` of a test's own, in transaction mode: its sessions are this test's alone, so that they may be ended.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::remote::testing::variable;

/// Ports are tried until one is still free when the pooler comes to it.
const TRIES: usize = 20;

/// A pooler, gone when it is dropped.
pub(super) struct Pooler {
    port: u16,
    child: Child,
    /// Removed with it.
    _folder: TempDir,
}

impl Pooler {
    /// Before the server of this URL. Waits until it says that it is up. `None` by hand and without the program.
    pub(super) fn before(server: &str) -> Option<Self> {
        let program = variable("SEMEL_TEST_PGBOUNCER")?;
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..TRIES {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let file = folder.path().join("pgbouncer.ini");
            std::fs::write(&file, settings(server, port)).unwrap();
            if let Some(child) = start(&program, &file) {
                return Some(Self { port, child, _folder: folder });
            }
        }
        panic!("PgBouncer did not start: it says why above")
    }

    /// Its URL.
    pub(super) fn url(&self) -> String {
        format!("postgres://semel@127.0.0.1:{}/postgres", self.port)
    }
}

fn settings(server: &str, port: u16) -> String {
    let server: Config = server.parse().unwrap();
    let [Host::Tcp(host)] = server.get_hosts() else { panic!("no host in the server's URL") };
    let (at, user) = (server.get_ports()[0], server.get_user().unwrap());
    format!(
        "[databases]\n* = host={host} port={at} user={user}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = transaction\ndefault_pool_size = 12\nmax_client_conn = 200\n"
    )
}

/// `None` if it ended before it was up.
fn start(program: &str, settings: &Path) -> Option<Child> {
    let mut command = Command::new(program);
    // It refuses to run as root, and becomes another user when it has read its settings.
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|said| said.stdout.starts_with(b"0\n"));
    if is_root {
        command.args(["-u", "postgres"]);
    }
    let started = command.arg(settings).stderr(Stdio::piped()).spawn();
    let mut child = started.unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let (mut line, mut said) = (String::new(), String::new());
    while !line.contains("process up") {
        line.clear();
        if log.read_line(&mut line).unwrap() == 0 {
            child.wait().unwrap();
            println!("{said}");
            return None;
        }
        said.push_str(&line);
    }
    // Whatever else it says is read, so that it never waits for us.
    std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(drop));
    Some(child)
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
