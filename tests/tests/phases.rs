//! Work in phases, in real processes: the requirement's order of four, killed after each phase in turn, and in each.
//!
//! The service under test is this very test program, started again with a folder of its own: it has the layer, `Phases`,
//! and an embedded store. What its phases do is a line in a file beside it, which is counted from outside.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use semel::{Config, IdempotencyLayer, PhaseError, Phases};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::http::{Answer, Http};
use crate::server::Server;
use crate::wait::eventually;

const PHASES: [&str; 4] = ["validated", "inventory_reserved", "order_created", "notification_sent"];
/// How long a killed attempt is in the way of the next: no longer than a test can wait, and long beside any pause of a
/// busy machine, since what pauses for longer has lost its claim.
const LOCK: Duration = Duration::from_secs(8);
/// Where the service that is started again keeps its things, and where it is to die.
const FOLDER: &str = "PHASES_TEST_FOLDER";
const DIE: &str = "PHASES_TEST_DIE";
/// Whether its phases are marked `once`.
const ONCE: &str = "PHASES_TEST_ONCE";
/// What the phases have done, in its folder.
const EFFECTS: &str = "effects";

/// Where the process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Die {
    /// The phase is checkpointed, and nothing more has begun.
    After(usize),
    /// The phase has had its effect, and is not checkpointed.
    In(usize),
}

impl Die {
    fn text(self) -> String {
        match self {
            Self::After(phase) => format!("after {phase}"),
            Self::In(phase) => format!("in {phase}"),
        }
    }
}

/// One phase's effect: seen from outside, whatever becomes of this process.
fn effect(folder: &Path, phase: &str) -> Result<String, String> {
    use std::io::Write as _;
    let file = std::fs::File::options().append(true).create(true).open(folder.join(EFFECTS));
    let mut file = file.map_err(|error| error.to_string())?;
    writeln!(file, "{phase}").map_err(|error| error.to_string())?;
    Ok(format!("{phase} is done"))
}

async fn create_order(folder: Arc<Path>, phases: Phases) -> Result<Response, PhaseError<String>> {
    let die = std::env::var(DIE).unwrap_or_default();
    let dies = |at: Die| {
        if die == at.text() {
            // As kill -9 would: nothing is flushed, nothing settled.
            std::process::abort();
        }
    };
    let mut given = Vec::new();
    for (number, phase) in PHASES.into_iter().enumerate() {
        let folder = Arc::clone(&folder);
        let work = || async {
            let done = effect(&folder, phase);
            dies(Die::In(number));
            done
        };
        let once = std::env::var_os(ONCE).is_some();
        let done: String =
            if once { phases.once(phase, work).await? } else { phases.phase(phase, work).await? };
        dies(Die::After(number));
        given.push(done);
    }
    phases.finish()?;
    let order = format!(r#"{{"orderId":"ORD-12345","phases":{}}}"#, serde_json::json!(given));
    Ok((StatusCode::CREATED, [("content-type", "application/json")], order).into_response())
}

async fn app(folder: &Path) -> Router {
    let store = format!("embedded:{}", folder.join("keys").display());
    let ledger = semel::open(&store).await.unwrap();
    let config = Config::new("orders").shared_keys(true).lock_timeout(LOCK);
    let layer = IdempotencyLayer::try_new(ledger, config).unwrap();
    let folder: Arc<Path> = folder.into();
    let create = move |phases: Phases| create_order(Arc::clone(&folder), phases);
    Router::new().route("/orders", post(create)).layer(layer)
}

/// Without being told otherwise it places one order; started again by the tests below, it serves until it dies.
#[tokio::test]
async fn the_service_places_an_order() {
    let own = tempfile::tempdir().unwrap();
    let told = std::env::var(FOLDER);
    let folder = told.as_deref().map_or(own.path(), Path::new);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = app(folder).await;
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    if told.is_ok() {
        println!("listening: {address}");
        serving.await.unwrap();
        return;
    }
    let placed = order(&Http::new(), address, "k").await.unwrap();
    assert_eq!((placed.status, effects(folder)), (201, PHASES.map(str::to_owned).to_vec()));
    serving.abort();
}

async fn order(http: &Http, address: SocketAddr, key: &str) -> Result<Answer, String> {
    let headers = [("idempotency-key", key), ("content-type", "application/json")];
    http.post(&format!("http://{address}/orders"), &headers, r#"{"sku":"A-1"}"#).await
}

/// What the phases have done, in order.
fn effects(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(EFFECTS)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The service in a process of its own.
struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    async fn start(case: &Case, die: Option<Die>, once: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "phases::the_service_places_an_order", "--nocapture"]);
        command.env(FOLDER, &case.folder).env(DIE, die.map(Die::text).unwrap_or_default());
        if once {
            command.env(ONCE, "1");
        }
        command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, address)) = line.split_once("listening: ") {
                    return address.trim().parse().unwrap();
                }
            }
            panic!("the service did not start");
        };
        let address = tokio::time::timeout(Duration::from_secs(60), listening).await.expect("a start");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, address }
    }

    async fn stop(&mut self) {
        self.child.start_kill().unwrap();
        self.dead().await;
    }

    async fn dead(&mut self) {
        tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await.expect("an end").unwrap();
    }
}

/// An order, in a folder of its own, and where the first process that serves it is killed.
struct Case {
    die: Die,
    folder: PathBuf,
    key: String,
}

/// One for each place.
fn cases(root: &Path) -> Vec<Case> {
    let everywhere = (0..PHASES.len()).flat_map(|phase| [Die::After(phase), Die::In(phase)]);
    let case = |(number, die): (usize, Die)| {
        let key = format!("order-{number}");
        let folder = root.join(&key);
        std::fs::create_dir(&folder).unwrap();
        Case { die, folder, key }
    };
    everywhere.enumerate().map(case).collect()
}

/// What the phases have done if the process died there and another one went on.
fn expected(die: Die) -> Vec<String> {
    let mut expected = PHASES.map(str::to_owned).to_vec();
    if let Die::In(phase) = die {
        // The one that was cut is run again, under the same downstream key: that is its policy.
        expected.insert(phase, PHASES[phase].to_owned());
    }
    expected
}

/// Places each order, and has its process die of it: all of them first, so that their leases lapse together.
async fn kill_all(http: &Http, cases: &[Case], once: bool) {
    for case in cases {
        let mut victim = Service::start(case, Some(case.die), once).await;
        assert!(order(http, victim.address, &case.key).await.is_err(), "{:?}: no answer", case.die);
        victim.dead().await;
    }
}

/// The answer to a retry, once the killed attempt is not in its way any more.
async fn retried(http: &Http, heir: &Service, case: &Case) -> Answer {
    eventually("the lease lapses, and the retry goes on", async || {
        let answer = order(http, heir.address, &case.key).await.unwrap();
        let is_in_progress = answer.status == 409 && answer.header("retry-after").is_some();
        (!is_in_progress).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn killed_after_every_phase_in_turn_the_retry_runs_each_phase_once() {
    let (http, root) = (Http::new(), tempfile::tempdir().unwrap());
    let cases = cases(root.path());
    kill_all(&http, &cases, false).await;
    for case in &cases {
        let (die, mut heir) = (case.die, Service::start(case, None, false).await);
        let placed = retried(&http, &heir, case).await;
        assert_eq!(placed.status, 201, "{die:?}: {}", placed.text());
        let results = PHASES.map(|phase| format!("{phase} is done"));
        assert_eq!(placed.json()["phases"], serde_json::json!(results), "stored results are given again");
        assert_eq!(effects(&case.folder), expected(die), "{die:?}");
        let again = order(&http, heir.address, &case.key).await.unwrap();
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(effects(&case.folder), expected(die), "{die:?}: a replay");
        heir.stop().await;
    }
}

#[tokio::test]
async fn a_phase_marked_once_that_was_cut_by_a_kill_is_run_by_no_retry() {
    let (http, root) = (Http::new(), tempfile::tempdir().unwrap());
    let cases = cases(root.path());
    kill_all(&http, &cases, true).await;
    for case in &cases {
        let (die, mut heir) = (case.die, Service::start(case, None, true).await);
        let answer = retried(&http, &heir, case).await;
        match die {
            Die::After(_) => {
                assert_eq!(answer.status, 201, "{die:?}: {}", answer.text());
                assert_eq!(effects(&case.folder), PHASES, "{die:?}");
            }
            Die::In(phase) => {
                // From now on nobody knows, whoever asks.
                let again = order(&http, heir.address, &case.key).await.unwrap();
                assert_eq!(again.status, 409, "{die:?}: {}", again.text());
                assert!(again.text().contains("IDEMPOTENCY_OUTCOME_UNKNOWN"), "{die:?}: {}", again.text());
                assert_eq!(effects(&case.folder), PHASES[..=phase], "{die:?}");
            }
        }
        heir.stop().await;
    }
}

/// Stands for the service at one address, whichever process it is by now.
#[derive(Clone)]
struct Front {
    behind: Arc<Mutex<SocketAddr>>,
    http: Http,
}

async fn pass(State(front): State<Front>, headers: HeaderMap, body: Bytes) -> Response {
    let behind = *front.behind.lock().unwrap();
    let key = headers["idempotency-key"].to_str().unwrap();
    let headers = [("idempotency-key", key), ("content-type", "application/json")];
    match front.http.post(&format!("http://{behind}/orders"), &headers, body).await {
        Ok(answer) => {
            let status = StatusCode::from_u16(answer.status).unwrap();
            (status, [(header::CONTENT_TYPE, "application/json")], answer.body).into_response()
        }
        // What it did before it died, nobody knows.
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

impl Front {
    /// Before this process; and an operation of the server that leads here.
    async fn before(victim: &Service, name: &str) -> (Self, String) {
        let front = Self { behind: Arc::new(Mutex::new(victim.address)), http: Http::new() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/orders", post(pass)).with_state(front.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let operation = format!(
            "[[operations]]\nname = \"{name}\"\ntarget = \"http://{address}/orders\"\nsemantics = \"resume\"\n\
             lease = \"5s\"\nretry = {{ max_attempts = 1000, first = \"50ms\", cap = \"200ms\" }}\n"
        );
        (front, operation)
    }
}

/// The client asks once, and never again; and the server itself is killed, too.
#[tokio::test]
async fn killed_after_every_phase_in_turn_the_server_drives_the_order_to_its_end_without_a_retry() {
    let root = tempfile::tempdir().unwrap();
    let cases = cases(root.path());
    let (mut victims, mut fronts, mut config) = (Vec::new(), Vec::new(), String::new());
    for case in &cases {
        let victim = Service::start(case, Some(case.die), false).await;
        let (front, operation) = Front::before(&victim, &case.key).await;
        config.push_str(&operation);
        victims.push(victim);
        fronts.push(front);
    }
    let server = Server::start_in(root.path(), &config).await;
    for case in &cases {
        let asked = [("prefer", "respond-async")];
        let taken = server.execute(&case.key, &case.key, r#"{"sku":"A-1"}"#, &asked).await;
        assert_eq!(taken.status, 202, "{}", taken.text());
    }
    for victim in &mut victims {
        victim.dead().await;
    }
    server.kill().await;
    let server = Server::start_in(root.path(), &config).await;
    let mut heirs = Vec::new();
    for (case, front) in cases.iter().zip(&fronts) {
        let heir = Service::start(case, None, false).await;
        *front.behind.lock().unwrap() = heir.address;
        heirs.push(heir);
    }
    for case in &cases {
        // It asks only where its order stands.
        let done = eventually("the server drives it to its end", async || {
            let answer = server.get(&format!("/v1/idempotency/executions/{}", case.key), &[]).await;
            (answer.status == 200).then_some(answer)
        })
        .await;
        assert_eq!(done.json()["result"]["orderId"], "ORD-12345", "{:?}: {}", case.die, done.text());
        assert_eq!(effects(&case.folder), expected(case.die), "{:?}", case.die);
    }
    for mut heir in heirs {
        heir.stop().await;
    }
}
