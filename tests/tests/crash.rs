//! SIGKILL at random moments under load: nothing acknowledged is lost, nothing runs twice, what was cut off is unknown.
//!
//! Clients with a few keys each drive the real server against a target that counts; the server is killed and started
//! again on the same folder, again and again. In the end every key is asked for once more, and the history of all
//! that clients and target have seen must have an explanation (L4, L7, L9, L10).

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::load::{Pace, Servers, World, seed};
use crate::server::Server;

/// Clients at once.
const CLIENTS: u64 = 12;

/// How often the server is killed: more in the full run.
fn kills() -> u64 {
    if std::env::var_os("SEMEL_FULL").is_some() { 60 } else { 8 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_acknowledged_is_lost_and_nothing_runs_twice_l4_l7_l9_l10() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(seed, Pace { clients: CLIENTS, ..Pace::default() }).await;
    for round in 0..kills() {
        let server = Server::start_in(folder.path(), &world.config()).await;
        let clients = world.clients(round, &Servers::of([server.url()]));
        tokio::time::sleep(Duration::from_millis(random.random_range(80..900))).await;
        server.kill().await;
        clients.stop().await;
    }
    let server = Server::start_in(folder.path(), &world.config()).await;
    // What a crash has cut off lapses; nobody asks about it, the server finds it by itself.
    let ends = world.ask_for_all(&server.url()).await;
    world.judge(&ends);
    server.stop().await;
}
