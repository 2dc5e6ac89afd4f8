//! The schedules of the documents, blocks marked `toml test=jobs`: a server that has them starts their jobs when their time
//! has come, by a wall clock that is set forward.

use std::time::Duration;

use serde_json::Value;

use super::{config, documents};
use crate::faketime::WallClock;
use crate::server::Server;
use crate::target::Target;
use crate::wait::eventually;

const CONFIG: &str = "toml test=jobs";
/// What the documents call their target.
const TARGET: &str = "http://127.0.0.1:9000/jobs/expire-locks";
/// Every five minutes: what the documents' schedule says.
const INTERVAL: u64 = 300;
/// A server looks at its clock every half minute.
const LOOKS_WITHIN: Duration = Duration::from_secs(45);

#[expect(clippy::disallowed_methods, reason = "a schedule goes by the wall clock")]
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn the_schedules_of_the_documents_start_their_jobs() {
    let Some(clock) = WallClock::new() else { return };
    let mut ran = 0;
    for path in documents() {
        let config = config(&std::fs::read_to_string(&path).unwrap(), CONFIG);
        if config.is_empty() {
            continue;
        }
        let target = Target::start().await;
        let environment = clock.environment();
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let config = config.replace(TARGET, &format!("{}/json", target.url()));
        let server = Server::start_on_with("memory:", &config, &environment).await;
        let jobs = server.get("/v1/jobs", &[]).await.json();
        let schedule = &jobs["jobs"][0]["schedule"];
        assert_eq!(
            (&schedule["cron"], &schedule["timeZone"]),
            (&"*/5 * * * *".into(), &"Europe/Berlin".into())
        );
        // The clock is set to just after an instant. A server that was too slow to have begun before that waits for the next.
        for steps in 0..4 {
            let ahead = INTERVAL * (steps + 1) - now() % INTERVAL + 1;
            clock.step(&format!("+{ahead}s"));
            if tokio::time::timeout(LOOKS_WITHIN, target.arrived(1)).await.is_ok() {
                break;
            }
        }
        let began = target.seen().into_iter().next().expect("the job is started");
        let body: Value = serde_json::from_str(&began.body).unwrap();
        assert_eq!(body["jobType"], "EXPIRE_LOCKS");
        assert!(body["scheduledAt"].as_str().unwrap().ends_with(":00Z"), "{body}");
        assert!(body["run"].is_string() && body["fence"].is_u64(), "{body}");
        for header in ["idempotency-key", "semel-job", "semel-fence", "semel-attempt"] {
            assert!(began.headers.contains_key(header), "{header} in {:?}", began.headers);
        }
        eventually("it is recorded as completed", async || {
            let runs = server.get("/v1/jobs/EXPIRE_LOCKS/runs", &[]).await.json();
            (runs["runs"][0]["status"] == "COMPLETED").then_some(())
        })
        .await;
        ran += 1;
    }
    assert!(ran > 0, "no schedule was found");
}
