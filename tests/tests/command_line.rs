//! The command line: what it prints, and exit codes that scripts can use.

use std::path::Path;
use std::process::{Output, Stdio};

use crate::server::{Server, command};
use crate::target::Target;

async fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(arguments, folder).output().await.unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[tokio::test]
async fn execute_prints_the_result_and_says_by_its_exit_code_what_became_of_it() {
    let server = Server::development().await;
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let execute = async |arguments: &[&str]| {
        let mut all = vec!["execute", "--url", url.as_str()];
        all.extend(arguments);
        run(folder.path(), &all).await
    };
    let done = execute(&["echo", "--key", "a b", "--payload", r#"{"b":1,"a":2}"#]).await;
    assert_eq!(code(&done), 11, "a key that the server does not take: {}", err(&done));
    let done = execute(&["echo", "--key", "one", "--payload", r#"{"b":1,"a":2}"#]).await;
    assert_eq!((code(&done), out(&done)), (0, "{\"b\":1,\"a\":2}\n"), "{}", err(&done));
    let other = execute(&["echo", "--key", "one", "--payload", "3"]).await;
    assert_eq!(code(&other), 11);
    assert!(err(&other).contains("IDEMPOTENCY_PARAMETER_MISMATCH"), "{}", err(&other));
    let unknown = execute(&["fail", "--key", "two", "--payload", r#"{"status":500}"#]).await;
    assert_eq!(code(&unknown), 12, "{}", err(&unknown));
    let again = execute(&["fail", "--key", "two", "--payload", r#"{"status":500}"#]).await;
    assert_eq!(code(&again), 12);
    let unavailable = execute(&["fail", "--key", "three", "--payload", r#"{"status":429}"#]).await;
    assert_eq!(code(&unavailable), 13);
    let accepted = execute(&["sleep", "--key", "four", "--payload", r#"{"ms":60000}"#, "--async"]).await;
    assert_eq!(code(&accepted), 10);
    let json = execute(&["echo", "--key", "one", "--payload", r#"{"b":1,"a":2}"#, "--json"]).await;
    assert_eq!(out(&json), "{\"status\":\"completed\",\"result\":{\"b\":1,\"a\":2}}\n");
    let random = execute(&["echo"]).await;
    assert_eq!((code(&random), out(&random)), (0, "{}\n"));
    assert!(err(&random).contains("the key is "), "{}", err(&random));
    let odd = execute(&["echo", "--payload", "{"]).await;
    assert_eq!(code(&odd), 2);
    assert!(err(&odd).contains("the payload is not JSON"), "{}", err(&odd));
}

#[tokio::test]
async fn execute_says_what_a_target_has_said_that_refuses() {
    let target = Target::start().await;
    let config =
        target.operation("json", "/refused/json", "") + &target.operation("text", "/refused/text", "");
    let server = Server::start(&config).await;
    let folder = tempfile::tempdir().unwrap();
    for (operation, said) in [("json", r#"{"z":1.10,"big":9007199254740993}"#), ("text", "no")] {
        let url = server.url();
        let refused = run(folder.path(), &["execute", operation, "--key", operation, "--url", &url]).await;
        assert_eq!((code(&refused), out(&refused)), (11, ""), "{}", err(&refused));
        let expected = format!(
            "OPERATION_REJECTED (422): The target rejected the operation\n  target answered 422\n  {said}\n"
        );
        assert!(err(&refused).ends_with(&expected), "{}", err(&refused));
    }
}

#[tokio::test]
async fn what_no_retry_mends_is_a_wrong_command_line_and_says_so_in_words() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (&["--url", "nonsense"][..], "must begin with http:// or https://"),
        (&["--url", "http://127.0.0.1:99999"], "must have a port"),
        (&["--token", "a\nb"], "the token has characters that no header can have"),
        (&["--url", "https://127.0.0.1:1", "--ca", "/nope"], "/nope"),
    ] {
        let mut all = vec!["execute", "echo", "--key", "k"];
        all.extend(arguments);
        let wrong = run(folder.path(), &all).await;
        assert_eq!(code(&wrong), 2, "{arguments:?}: {}", err(&wrong));
        assert!(err(&wrong).contains(said), "{arguments:?}: {}", err(&wrong));
        let mut all = vec!["records", "ls"];
        all.extend(arguments.iter().map(|word| if *word == "--url" { "--admin-url" } else { word }));
        let wrong = run(folder.path(), &all).await;
        assert_eq!(code(&wrong), 2, "records {arguments:?}: {}", err(&wrong));
    }
    let resolve = run(folder.path(), &["records", "resolve", "--state", "dead", "--reason", "x"]).await;
    assert_eq!(code(&resolve), 2);
    assert!(err(&resolve).contains("--completed|--not-executed"), "{}", err(&resolve));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_be_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = run(folder.path(), &["execute", "echo", "--url", "http://127.0.0.1:1"]).await;
    assert_eq!(code(&nobody), 1);
    assert!(err(&nobody).contains("cannot reach 127.0.0.1:1"), "{}", err(&nobody));
}

#[tokio::test]
async fn a_configuration_is_checked_shown_and_begun() {
    let folder = tempfile::tempdir().unwrap();
    let example = run(folder.path(), &["config", "example"]).await;
    std::fs::write(folder.path().join("semel.toml"), &example.stdout).unwrap();
    let good = run(folder.path(), &["config", "check"]).await;
    assert_eq!((code(&good), out(&good)), (0, "the configuration is good (semel.toml)\n"), "{}", err(&good));
    let shown = run(folder.path(), &["config", "show", "--listen", "127.0.0.1:7"]).await;
    let line = out(&shown).lines().find(|line| line.starts_with("server.listen ")).unwrap();
    assert!(line.contains("\"127.0.0.1:7\"") && line.ends_with("# flag --listen"), "{line}");
    let json = run(folder.path(), &["config", "show", "--json"]).await;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let listen = json["values"].as_array().unwrap().iter().find(|value| value["key"] == "server.listen");
    assert!(listen.unwrap()["origin"].as_str().unwrap().starts_with("semel.toml:"));
    std::fs::write(folder.path().join("wrong.toml"), "[server]\nlissten = 1\n[log]\nfilter = \"!!!\"\n")
        .unwrap();
    let wrong = run(folder.path(), &["config", "check", "--config", "wrong.toml"]).await;
    assert_eq!(code(&wrong), 3);
    for said in
        ["wrong.toml:2: server.lissten: unknown key; did you mean `listen`?", "wrong.toml:4: log.filter"]
    {
        assert!(err(&wrong).contains(said), "{said} is not in {}", err(&wrong));
    }
    let metadata = "[[operations]]\nname = \"a\"\ntarget = \"http://169.254.169.254/latest\"\n";
    std::fs::write(folder.path().join("wrong.toml"), metadata).unwrap();
    let wrong = run(folder.path(), &["config", "check", "--config", "wrong.toml"]).await;
    let said = "wrong.toml:3: operations[0].target: 169.254.169.254 is a link-local";
    assert!(code(&wrong) == 3 && err(&wrong).contains(said), "{}", err(&wrong));
    let outside = "[server.tls]\ncertificate = \"nope.pem\"\nkey = \"nope.key\"\n[targets]\nca = \"/nope\"\n\
                   [log]\nfilter = \"!!!\"\n";
    std::fs::write(folder.path().join("wrong.toml"), outside).unwrap();
    for command in [&["config", "check"][..], &["serve"]] {
        let mut all = command.to_vec();
        all.extend(["--config", "wrong.toml"]);
        let wrong = run(folder.path(), &all).await;
        assert_eq!(code(&wrong), 3, "what the server does not start with, the check does not find good");
        for said in [
            "wrong.toml:2: server.tls.certificate: ",
            "wrong.toml:5: targets.ca: ",
            "wrong.toml:7: log.filter: ",
        ] {
            assert!(err(&wrong).contains(said), "{said}: {}", err(&wrong));
        }
    }
    let missing = run(folder.path(), &["config", "check", "--config", "missing.toml"]).await;
    assert_eq!(code(&missing), 3);
    assert!(err(&missing).contains("missing.toml: cannot read the configuration"), "{}", err(&missing));
}

#[tokio::test]
async fn a_reader_that_has_had_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["config", "example"][..], &["config", "show"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(arguments, folder.path());
        let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert_eq!((code(&output), err(&output)), (0, ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn help_completions_and_a_wrong_command_line_are_what_scripts_expect() {
    let folder = tempfile::tempdir().unwrap();
    let help = run(folder.path(), &["--help"]).await;
    assert_eq!(code(&help), 0);
    for word in ["serve", "execute", "config", "completions", "Exit codes"] {
        assert!(out(&help).contains(word), "{word}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let completions = run(folder.path(), &["completions", shell]).await;
        assert!(code(&completions) == 0 && out(&completions).contains("semel"), "{shell}");
    }
    assert_eq!(code(&run(folder.path(), &["nonsense"]).await), 2);
    let version = run(folder.path(), &["--version"]).await;
    assert!(out(&version).starts_with("semel "), "{}", out(&version));
}
