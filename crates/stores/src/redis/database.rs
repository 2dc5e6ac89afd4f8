//! Which server has which slot, and a command's way there and back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use redis::{Client, Cmd, ConnectionAddr, ConnectionInfo, Pipeline, TlsCertificates, Value, cmd};

use super::error::Failure;
use super::node::Node;
use super::options::{Options, Wait};
use super::script::Script;
use crate::limits;
use crate::remote::open::OpenError;

/// A server alone, or a cluster of them.
pub(super) struct Database {
    info: ConnectionInfo,
    seeds: Vec<(String, u16)>,
    connections: usize,
    patience: Duration,
    name: String,
    pub(super) wait: Option<Wait>,
    /// The server that the URL names.
    first: Arc<Node>,
    nodes: Mutex<HashMap<(String, u16), Arc<Node>>>,
    /// `None` for a server alone.
    map: RwLock<Option<Map>>,
}

/// Where the slots of a cluster are, as far as it is known.
#[derive(Default)]
struct Map {
    ranges: Vec<(u16, u16, Arc<Node>)>,
    moved: HashMap<u16, Arc<Node>>,
}

impl Map {
    fn node(&self, slot: u16) -> Option<&Arc<Node>> {
        let within = |range: &&(u16, u16, Arc<Node>)| (range.0..=range.1).contains(&slot);
        self.moved.get(&slot).or_else(|| self.ranges.iter().find(within).map(|range| &range.2))
    }
}

/// What a script is run on.
pub(super) struct Call<'a> {
    pub(super) slot: u16,
    pub(super) script: &'a Script,
    pub(super) keys: &'a [&'a [u8]],
    pub(super) arguments: &'a [&'a [u8]],
}

impl Database {
    pub(super) fn new(options: &Options) -> Result<Self, OpenError> {
        let failed = |error| OpenError::because("cannot use the URL of Redis", error);
        let client = match &options.root_certificates {
            None => Client::open(options.server.clone()),
            Some(path) => {
                let pem = std::fs::read(path).map_err(|error| {
                    OpenError::because(format!("cannot read the certificates in {}", path.display()), error)
                })?;
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
                Client::build_with_tls(options.server.clone(), certificates)
            }
        };
        let client = client.map_err(failed)?;
        let info = client.get_connection_info().clone();
        // Who waits for replicas blocks those behind it on the same connection.
        let many = if options.wait.is_some() {
            limits::REDIS_CONNECTIONS_WAITING
        } else {
            limits::REDIS_CONNECTIONS
        };
        let connections = options.connections.unwrap_or(many);
        let name = format!("semel:{}", options.prefix);
        let first = Arc::new(Node::new(client, connections, options.timeout, &name));
        Ok(Self {
            info,
            seeds: options.seeds.clone(),
            connections,
            patience: options.timeout,
            name,
            wait: options.wait,
            first,
            nodes: Mutex::default(),
            map: RwLock::new(None),
        })
    }

    /// It is a cluster: its map is asked for and kept.
    pub(super) async fn use_cluster(&self) -> Result<(), Failure> {
        *self.map.write() = Some(Map::default());
        self.look_at_map().await
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.map.read().is_some()
    }

    /// The server that the URL names.
    pub(super) fn first(&self) -> &Node {
        &self.first
    }

    /// Every server that has slots, or the only one.
    pub(super) fn servers(&self) -> Vec<Arc<Node>> {
        let map = self.map.read();
        let mut servers: Vec<Arc<Node>> = Vec::new();
        for (_, _, node) in map.iter().flat_map(|map| &map.ranges) {
            if !servers.iter().any(|known| Arc::ptr_eq(known, node)) {
                servers.push(Arc::clone(node));
            }
        }
        if servers.is_empty() { vec![Arc::clone(&self.first)] } else { servers }
    }

    pub(super) fn node(&self, slot: u16) -> Arc<Node> {
        let map = self.map.read();
        let known = map.as_ref().and_then(|map| map.node(slot));
        Arc::clone(known.unwrap_or(&self.first))
    }

    /// The server at an address of the cluster.
    fn at(&self, host: &str, port: u16) -> Result<Arc<Node>, Failure> {
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.get(&(host.to_owned(), port)) {
            return Ok(Arc::clone(node));
        }
        let addr = match self.info.addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        let client = Client::open(self.info.clone().set_addr(addr)).map_err(Failure::no_connection)?;
        let node = Arc::new(Node::new(client, self.connections, self.patience, &self.name));
        nodes.insert((host.to_owned(), port), Arc::clone(&node));
        Ok(node)
    }

    /// Asks whoever answers where the slots are.
    async fn look_at_map(&self) -> Result<(), Failure> {
        let mut asked = vec![(self.first_host(), Arc::clone(&self.first))];
        let known: Vec<_> =
            self.nodes.lock().iter().map(|(at, node)| (at.0.clone(), Arc::clone(node))).collect();
        asked.extend(known);
        for (host, port) in &self.seeds {
            asked.push((host.clone(), self.at(host, *port)?));
        }
        let mut failure = Failure::NotSent("nobody knows the cluster".into(), true);
        for (host, node) in asked {
            match one(&node, cmd("CLUSTER").arg("SLOTS")).await {
                Ok(slots) => {
                    let ranges = self.ranges(&slots, &host)?;
                    if !ranges.is_empty() {
                        *self.map.write() = Some(Map { ranges, moved: HashMap::new() });
                        return Ok(());
                    }
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn first_host(&self) -> String {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => "localhost".to_owned(),
        }
    }

    /// Reads the answer to `CLUSTER SLOTS`: from, to, and the servers that have them, the one that takes writes first.
    fn ranges(&self, slots: &Value, asked: &str) -> Result<Vec<(u16, u16, Arc<Node>)>, Failure> {
        let mut ranges = Vec::new();
        for range in items(slots) {
            let [Value::Int(from), Value::Int(to), first, ..] = items(range) else { continue };
            let [host, Value::Int(port), ..] = items(first) else { continue };
            // A server that does not know its own name is where it was asked.
            let host =
                text(host).filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| asked.to_owned());
            let number = |value: &i64| u16::try_from(*value).unwrap_or_default();
            ranges.push((number(from), number(to), self.at(&host, number(port))?));
        }
        Ok(ranges)
    }

    /// Runs a script where its keys are.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Value, Failure> {
        let mut node = self.node(call.slot);
        let (mut whole, mut asking, mut looked) = (false, false, false);
        for _ in 0..limits::REDIS_HOPS {
            let failure = match self.run(&node, call, whole, asking).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            asking = false;
            if failure.is_unknown_script() {
                whole = true;
            } else if let Some((host, port, once)) = failure.elsewhere().filter(|_| self.is_cluster()) {
                node = self.at(&host, port)?;
                asking = once;
                if let Some(map) = self.map.write().as_mut().filter(|_| !once) {
                    map.moved.insert(call.slot, Arc::clone(&node));
                }
            } else if failure.is_lost_node() && self.is_cluster() && !looked {
                // Perhaps somebody has taken its place. Nothing was done, so it may be said again there.
                looked = true;
                self.look_at_map().await?;
                node = self.node(call.slot);
            } else {
                return Err(failure);
            }
        }
        Err(Failure::NotSent("the cluster sends commands in a circle".into(), true))
    }

    async fn run(&self, node: &Node, call: &Call<'_>, whole: bool, asking: bool) -> Result<Value, Failure> {
        let mut commands = Pipeline::new();
        if asking {
            commands.add_command(cmd("ASKING"));
        }
        let (name, what) = if whole { ("EVAL", &call.script.code) } else { ("EVALSHA", &call.script.digest) };
        let mut run = cmd(name);
        run.arg(what).arg(call.keys.len());
        for part in call.keys.iter().chain(call.arguments) {
            run.arg(*part);
        }
        commands.add_command(run);
        let wait = self.wait.filter(|_| call.script.waits);
        if let Some(wait) = wait {
            commands.add_command(wait_for(wait));
        }
        let mut answers = node.ask(&commands).await?.into_iter();
        if asking {
            answers.next();
        }
        let answer = said(answers.next())?;
        if let Some(wait) = wait {
            enough(&said(answers.next())?, wait)?;
        }
        Ok(answer)
    }

    /// Sends scripts before they are needed, so that the first call of each is not made twice. A server that has not taken
    /// them is sent them then.
    pub(super) async fn teach(&self, scripts: &[&Script]) {
        let mut commands = Pipeline::new();
        for script in scripts {
            let mut load = cmd("SCRIPT");
            load.arg("LOAD").arg(&script.code);
            commands.add_command(load);
        }
        for server in self.servers() {
            drop(server.ask(&commands).await);
        }
    }

    /// One command to the server that has the slot.
    pub(super) async fn command(&self, slot: u16, command: &Cmd) -> Result<Value, Failure> {
        let mut node = self.node(slot);
        for _ in 0..limits::REDIS_HOPS {
            let failure = match one(&node, command).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let Some((host, port, false)) = failure.elsewhere().filter(|_| self.is_cluster()) else {
                return Err(failure);
            };
            node = self.at(&host, port)?;
        }
        Err(Failure::NotSent("the cluster sends commands in a circle".into(), true))
    }

    /// Lets go of all connections.
    pub(super) async fn close(&self) {
        let nodes: Vec<_> = self.nodes.lock().values().cloned().collect();
        for node in nodes.iter().chain([&self.first]) {
            node.forget().await;
        }
    }
}

fn wait_for(wait: Wait) -> Cmd {
    let timeout = u64::try_from(wait.timeout.as_millis()).unwrap_or(u64::MAX);
    let mut command = cmd(if wait.synced { "WAITAOF" } else { "WAIT" });
    if wait.synced {
        command.arg(1);
    }
    command.arg(wait.replicas).arg(timeout);
    command
}

/// Reads the answer to that: whether what was waited for has come about in time.
fn enough(answer: &Value, wait: Wait) -> Result<(), Failure> {
    let is_enough = |have: i64| usize::try_from(have).is_ok_and(|have| have >= wait.replicas);
    match answer {
        Value::Int(replicas) if !wait.synced && is_enough(*replicas) => Ok(()),
        Value::Int(replicas) if !wait.synced => Err(Failure::TooFewReplicas(*replicas)),
        // How many have synced it here, and how many there.
        Value::Array(synced) if wait.synced => match synced.as_slice() {
            [Value::Int(1..), Value::Int(replicas)] if is_enough(*replicas) => Ok(()),
            [Value::Int(1..), Value::Int(replicas)] => Err(Failure::TooFewReplicas(*replicas)),
            _ => Err(Failure::NotSynced),
        },
        _ => Err(Failure::NotSynced),
    }
}

/// One command to one server.
pub(super) async fn one(node: &Node, command: &Cmd) -> Result<Value, Failure> {
    let mut commands = Pipeline::with_capacity(1);
    commands.add_command(command.clone());
    said(node.ask(&commands).await?.pop())
}

fn said(answer: Option<Value>) -> Result<Value, Failure> {
    match answer {
        Some(Value::ServerError(error)) => Err(Failure::Sent(error.into())),
        Some(answer) => Ok(answer),
        None => Err(Failure::NoAnswer),
    }
}

/// The items of a list; none of anything else.
pub(super) fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => &[],
    }
}

/// The bytes of a text.
pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// A text.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::VerbatimString { text, .. } => Some(text.clone()),
        other => bytes(other).map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(replicas: usize, synced: bool) -> Wait {
        Wait { replicas, synced, timeout: Duration::from_millis(300) }
    }

    #[test]
    fn what_is_waited_for_is_said_as_the_server_reads_it() {
        let packed =
            |wait| String::from_utf8(wait_for(wait).get_packed_command()).unwrap().replace("\r\n", " ");
        assert_eq!(packed(wait(2, false)), "*3 $4 WAIT $1 2 $3 300 ");
        assert_eq!(packed(wait(2, true)), "*4 $7 WAITAOF $1 1 $1 2 $3 300 ");
        assert_eq!(packed(wait(0, true)), "*4 $7 WAITAOF $1 1 $1 0 $3 300 ");
    }

    #[test]
    fn l4_less_than_what_was_waited_for_is_not_enough() {
        let pair = |here, there| Value::Array(vec![Value::Int(here), Value::Int(there)]);
        for (answer, asked, is_enough) in [
            (Value::Int(1), wait(1, false), true),
            (Value::Int(2), wait(1, false), true),
            (Value::Int(0), wait(1, false), false),
            (Value::Int(-1), wait(0, false), false),
            (Value::Nil, wait(0, false), false),
            (pair(1, 1), wait(1, false), false),
            (pair(1, 0), wait(0, true), true),
            (pair(1, 2), wait(2, true), true),
            (pair(1, 1), wait(2, true), false),
            (pair(0, 2), wait(2, true), false),
            (Value::Int(2), wait(2, true), false),
            (Value::Array(vec![Value::Int(1)]), wait(0, true), false),
            (Value::Nil, wait(0, true), false),
        ] {
            assert_eq!(enough(&answer, asked).is_ok(), is_enough, "{answer:?} for {asked:?}");
        }
    }
}
