//! Real clients through the gateway, none of them changed: the official Stripe SDKs for Node and Python, which send the
//! key by themselves, and a plain client that retries. Behind it services that know nothing of keys.
//!
//! The packages come from npm and `PyPI` by the ordinary clients, once, below the target folder.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::server::Server;
use crate::wait::eventually;

/// What runs the clients: Node with its packages, and a Python environment with its own.
#[derive(Clone)]
struct Clients {
    node: PathBuf,
    python: PathBuf,
}

/// The workspace's own folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<(), String> {
    let output = std::process::Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {said}")) }
}

/// Copies a folder's files, and fetches its packages where that has not been done for this list of them.
fn provide(
    from: &Path,
    to: &Path,
    list: &str,
    fetch: impl Fn(&Path) -> Result<(), String>,
) -> Result<(), String> {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let (wanted, done) = (std::fs::read(to.join(list)).unwrap(), to.join(".fetched"));
    if std::fs::read(&done).ok() != Some(wanted.clone()) {
        fetch(to)?;
        // Written last: a fetch that was cut off is begun again.
        std::fs::write(done, wanted).unwrap();
    }
    Ok(())
}

fn install() -> Result<Clients, String> {
    // target/debug/deps/main-…: the target folder is three up.
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    let (node, python) = (target.join("tools/clients/node"), target.join("tools/clients/python"));
    let source = root().join("tests/clients");
    provide(&source.join("node"), &node, "package.json", |folder| {
        run("npm", &["install", "--no-audit", "--no-fund"], folder)
    })?;
    provide(&source.join("python"), &python, "requirements.txt", |folder| {
        run("python3", &["-m", "venv", "venv"], folder)?;
        run("venv/bin/pip", &["install", "--quiet", "-r", "requirements.txt"], folder)
    })?;
    Ok(Clients { node, python })
}

/// Set to 1 by somebody who cannot fetch the clients, and knows that these tests then say nothing.
const SKIP: &str = "SEMEL_SKIP_CLIENT_TESTS";

/// The clients, fetched once. `None` where somebody has said that these tests are to be skipped; nothing else skips them.
fn clients() -> Option<Clients> {
    static CLIENTS: OnceLock<Result<Clients, String>> = OnceLock::new();
    if std::env::var_os(SKIP).is_some_and(|value| value == "1") {
        println!("skipped: {SKIP}=1");
        return None;
    }
    match CLIENTS.get_or_init(install) {
        Ok(clients) => Some(clients.clone()),
        Err(why) => panic!(
            "the clients of tests/clients cannot be fetched, so nothing is known of them (they need node with npm, python3 \
             with venv, and the registries of both; {SKIP}=1 skips these tests on purpose): {why}"
        ),
    }
}

impl Clients {
    async fn run(command: &mut Command) -> Value {
        let output = command.kill_on_drop(true).output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// One payment with an SDK, with so many retries of its own.
    async fn pay(&self, sdk: Sdk, address: &str, amount: &str, retries: &str, more: &[&str]) -> Value {
        let mut command = match sdk {
            Sdk::Node => Command::new("node"),
            Sdk::Python => Command::new(self.python.join("venv/bin/python")),
        };
        match sdk {
            Sdk::Node => command.arg(self.node.join("pay.mjs")),
            Sdk::Python => command.arg(self.python.join("pay.py")),
        };
        Self::run(command.args([address, amount, retries]).args(more)).await
    }

    /// One order with the plain client.
    async fn order(&self, address: &str, key: &str, body: &Value) -> Value {
        let mut command = Command::new(self.python.join("venv/bin/python"));
        command.arg(self.python.join("order.py")).args([address, key, &body.to_string()]);
        Self::run(&mut command).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sdk {
    Node,
    Python,
}

/// A service of `examples/gateway`, as it stands.
struct Service {
    url: String,
    _process: Child,
}

impl Service {
    async fn start(program: &str, file: &str) -> Self {
        let mut command = Command::new(program);
        command.arg(root().join("examples/gateway").join(file)).arg("0");
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let url = line.strip_prefix("listening: ").unwrap().to_owned();
        Self { url, _process: process }
    }

    /// The gateway before it, by the configuration beside it.
    async fn gateway(&self) -> Server {
        let config = std::fs::read_to_string(root().join("examples/gateway/semel.toml")).unwrap();
        let config =
            config.replace("http://127.0.0.1:9000", &self.url).replace("127.0.0.1:8082", "127.0.0.1:0");
        Server::start(&config).await
    }
}

/// A bad network between a client and the gateway: it cuts the first connections, once the answer has begun to come
/// back, so that the client never sees any of it.
struct BadNetwork {
    url: String,
    cut: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for BadNetwork {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl BadNetwork {
    async fn before(server: &Server, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let gateway = server.gateway_url().replace("http://", "");
        let cut = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut server = TcpStream::connect(&gateway).await.unwrap();
                if counted.load(Ordering::SeqCst) >= cuts {
                    tokio::spawn(
                        async move { tokio::io::copy_bidirectional(&mut client, &mut server).await },
                    );
                    continue;
                }
                let (mut from_client, _to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let mut first = [0; 1];
                tokio::select! {
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                    answered = from_server.read(&mut first) => assert_eq!(answered.unwrap(), 1),
                }
                to_server.shutdown().await.ok();
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { url, cut, task }
    }

    fn cuts(&self) -> usize {
        self.cut.load(Ordering::SeqCst)
    }
}

/// How many there are at the service, asked past the gateway.
async fn count(server: &Server, service: &Service, path: &str) -> usize {
    let all = server.http().get(&format!("{}{path}", service.url), &[]).await.unwrap().json();
    all.get("data").unwrap_or(&all).as_array().unwrap().len()
}

const PAYMENTS: &str = "/v1/payment_intents";

/// All of the acceptance test with one SDK.
async fn stripe(sdk: Sdk) {
    let Some(clients) = clients() else { return };
    let service = Service::start("node", "service.mjs").await;
    let server = service.gateway().await;
    let gateway = server.gateway_url();
    let payments = async || count(&server, &service, PAYMENTS).await;

    // A first call, with the key that the SDK makes.
    let first = clients.pay(sdk, &gateway, "1000", "2", &[]).await;
    assert_eq!(
        (&first["id"], &first["status"], &first["replayed"]),
        (&json!("pi_1"), &json!(200), &json!(false))
    );

    // The connection is cut when the payment has been made; the SDK retries by itself, and pays once.
    let network = BadNetwork::before(&server, 1).await;
    let retried = clients.pay(sdk, &network.url, "2000", "2", &[]).await;
    assert_eq!((&retried["id"], &retried["replayed"]), (&json!("pi_2"), &json!(true)), "{retried}");
    assert_eq!((network.cuts(), payments().await), (1, 2));

    // The same key for another payment.
    let own = clients.pay(sdk, &gateway, "3000", "2", &["order-3"]).await;
    assert_eq!(own["id"], "pi_3");
    let again = clients.pay(sdk, &gateway, "3000", "2", &["order-3"]).await;
    assert_eq!((&again["id"], &again["replayed"]), (&json!("pi_3"), &json!(true)));
    let other = clients.pay(sdk, &gateway, "4000", "2", &["order-3"]).await;
    assert_eq!((&other["status"], &other["error"]), (&json!(400), &json!("IDEMPOTENCY_PARAMETER_MISMATCH")));

    // Two at once: without retries the second is told so; with them it is given the first one's answer.
    let slow = ["order-4", "3000"];
    let (running, refused, waited) = tokio::join!(
        clients.pay(sdk, &gateway, "5000", "2", &slow),
        async {
            in_flight(&server).await;
            clients.pay(sdk, &gateway, "5000", "0", &slow).await
        },
        async {
            in_flight(&server).await;
            clients.pay(sdk, &gateway, "5000", "6", &slow).await
        },
    );
    assert_eq!(running["id"], "pi_4");
    assert_eq!(
        (&refused["status"], &refused["error"]),
        (&json!(409), &json!("IDEMPOTENCY_CONCURRENT_REQUEST"))
    );
    assert_eq!((&waited["id"], &waited["replayed"]), (&json!("pi_4"), &json!(true)), "{waited}");
    assert_eq!(payments().await, 4);
}

/// Waits until something runs under a key.
async fn in_flight(server: &Server) {
    eventually("something in flight", async || {
        let metrics = server.http().get(&format!("{}/metrics", server.admin_url()), &[]).await.unwrap();
        let runs = |line: &str| line.starts_with("semel_records{") && line.ends_with("state=\"running\"} 1");
        metrics.text().lines().any(runs).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stripe_sdk_for_node_pays_once_through_the_gateway() {
    stripe(Sdk::Node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stripe_sdk_for_python_pays_once_through_the_gateway() {
    stripe(Sdk::Python).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_client_that_retries_orders_once_through_the_gateway() {
    let Some(clients) = clients() else { return };
    let service = Service::start("python3", "service.py").await;
    let server = service.gateway().await;
    let gateway = server.gateway_url();
    let orders = async || count(&server, &service, "/orders").await;
    let first = clients.order(&gateway, "order-1", &json!({ "sku": "a" })).await;
    assert_eq!((&first["id"], &first["status"]), (&json!("ORD-1"), &json!(201)));

    let network = BadNetwork::before(&server, 2).await;
    let retried = clients.order(&network.url, "order-2", &json!({ "sku": "b" })).await;
    assert_eq!((&retried["id"], &retried["replayed"]), (&json!("ORD-2"), &json!(true)), "{retried}");
    assert_eq!((network.cuts(), orders().await), (2, 2));

    let other = clients.order(&gateway, "order-2", &json!({ "sku": "c" })).await;
    assert_eq!((&other["status"], &other["error"]), (&json!(422), &json!("IDEMPOTENCY_PARAMETER_MISMATCH")));

    let slow = json!({ "sku": "d", "takes_ms": 1500 });
    let (running, waited) = tokio::join!(clients.order(&gateway, "order-4", &slow), async {
        in_flight(&server).await;
        clients.order(&gateway, "order-4", &slow).await
    });
    assert_eq!(
        (&running["id"], &waited["id"], &waited["replayed"]),
        (&json!("ORD-3"), &json!("ORD-3"), &json!(true))
    );
    assert_eq!(orders().await, 3);
}
