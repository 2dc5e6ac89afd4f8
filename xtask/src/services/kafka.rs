//! Apache Kafka: one broker that is its own controller (`KRaft`), on the Java of this machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::host::{apt, free_port, on_path, start_in_background};
use super::{Place, Service};
use crate::cargo::Program;
use crate::workspace;

/// The version that `xtask/kafka/pom.xml` names.
const VERSION: &str = "4.1.0";

/// Which cluster it is, for ever: 16 bytes in base64, as Kafka wants it. Its folder belongs to this checkout alone.
const CLUSTER: &str = "U2VtZWwtdGVzdHMtb25seQ";

/// What keeps its memory small. (Metaspace and buffers come on top.)
const JVM: &[&str] = &["-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// One broker. Maven fetches its jars once, those that the pom beside it names and what they need, and they are kept under
/// `target/tools`.
pub(super) struct Kafka;

impl Service for Kafka {
    fn name(&self) -> &'static str {
        "Kafka"
    }

    fn folder_name(&self) -> &'static str {
        "kafka"
    }

    fn variable(&self) -> &'static str {
        "SEMEL_TEST_KAFKA"
    }

    fn url(&self, port: u16) -> String {
        format!("127.0.0.1:{port}")
    }

    fn installed(&self) -> Option<PathBuf> {
        let folder = tools();
        folder.join("libs").exists().then_some(folder)
    }

    fn install(&self) -> Result<()> {
        // Debian's Maven brings a Java along.
        if on_path("mvn").is_none() || on_path("java").is_none() {
            apt("maven")?;
        }
        // Under its name only once it is whole.
        let fetched = workspace::root().join("target/tools/kafka-fetched");
        let mut folder = OsString::from("-DoutputDirectory=");
        folder.push(&fetched);
        Program::new("mvn")
            .args(["--batch-mode", "--quiet", "--strict-checksums", "--file"])
            .args([workspace::root().join("xtask/kafka/pom.xml")])
            .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
            .args([folder])
            .run()?;
        fs::create_dir_all(tools()).context("cannot create the folder of its jars")?;
        fs::rename(&fetched, tools().join("libs")).context("cannot put its jars in their place")
    }

    fn start(&self, at: &Place) -> Result<()> {
        let java = on_path("java").context("Kafka runs on Java, and that is not installed")?.join("java");
        let settings = at.folder.join("server.properties");
        fs::write(&settings, properties(&at.folder, at.port, free_port()?))
            .context("cannot write its settings")?;
        let (jars, settings) =
            (format!("{}/*", at.programs.join("libs").display()), settings.display().to_string());
        if !at.folder.join("data/meta.properties").exists() {
            Program::new(&java)
                .args(JVM)
                .args([
                    "-cp",
                    &jars,
                    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                    "kafka.tools.StorageTool",
                ])
                .args(["format", "--cluster-id", CLUSTER, "--config", &settings])
                .run()?;
        }
        let mut words = JVM.to_vec();
        words.extend([
            "-cp",
            &jars,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "kafka.Kafka",
            &settings,
        ]);
        start_in_background(&java, &words, &at.folder)
    }
}

fn tools() -> PathBuf {
    workspace::root().join("target/tools").join(format!("kafka-{VERSION}"))
}

/// One node for everything, nothing copied, and small buffers: what a broker reserves by default would not fit its heap.
fn properties(folder: &Path, port: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={data}\n\
         num.network.threads=2\n\
         num.io.threads=2\n\
         num.partitions=1\n\
         auto.create.topics.enable=true\n\
         offsets.topic.num.partitions=2\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.num.partitions=2\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         group.min.session.timeout.ms=1000\n\
         log.cleaner.dedupe.buffer.size=4194304\n\
         log.segment.bytes=33554432\n\
         log.retention.bytes=268435456\n",
        data = folder.join("data").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_poms() {
        let pom = fs::read_to_string(workspace::root().join("xtask/kafka/pom.xml")).unwrap();
        assert!(pom.contains(&format!("<version>{VERSION}</version>")), "{VERSION}");
    }

    #[test]
    fn it_listens_on_loopback_only() {
        let properties = properties(Path::new("/folder"), 9092, 9093);
        let listeners: Vec<_> = properties.lines().filter(|line| line.contains("listeners=")).collect();
        assert_eq!(listeners.len(), 2);
        assert!(
            listeners.iter().all(|line| line.matches("://").count() == line.matches("://127.0.0.1:").count())
        );
    }
}
