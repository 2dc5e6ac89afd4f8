//! TLS for listeners: rustls over ring, certificates from PEM files, client certificates where they are asked for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::config::TlsConfig;

/// Why a listener has no TLS: the file, and what is wrong with it. Nothing of a key is in it.
#[derive(Debug)]
pub struct TlsError {
    file: PathBuf,
    problem: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS: {}: {}", self.file.display(), self.problem)
    }
}

impl std::error::Error for TlsError {}

fn wrong(file: &Path, problem: impl fmt::Display) -> TlsError {
    TlsError { file: file.to_owned(), problem: problem.to_string() }
}

/// What a listener needs. HTTP/2 and HTTP/1.1 are offered; early data (0-RTT), which can be replayed, is not.
///
/// # Errors
/// A file cannot be read, holds nothing, or key and certificate do not belong together.
pub(crate) fn server(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(&config.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&config.key)
        .map_err(|error| wrong(&config.key, format!("no private key: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&config.certificate, error))?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(file)? {
                roots.add(authority).map_err(|error| wrong(file, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(file, error))?)
        }
    };
    let mut server =
        builder.with_single_cert(chain, key).map_err(|error| wrong(&config.certificate, error))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

/// All certificates of a PEM file.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).map_err(|error| wrong(file, error))?;
    let all = read.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(file, error))?;
    if all.is_empty() { Err(wrong(file, "there is no certificate in it")) } else { Ok(all) }
}
