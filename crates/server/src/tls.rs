//! TLS: rustls over ring, certificates from PEM files. For listeners, with client certificates where they are asked for;
//! for calls, with authorities beside the system's, or the very certificate of the server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::config::{ClientTls, TlsConfig};

/// Why a listener has no TLS: the file, and what is wrong with it. Nothing of a key is in it.
#[derive(Debug)]
pub struct TlsError {
    file: PathBuf,
    problem: String,
}

impl TlsError {
    /// The file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
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

/// What a call needs: trust in the system's authorities, and in those of a file, if one is given. A certificate of the
/// file that is itself the server's is trusted as such.
///
/// # Errors
/// The file cannot be read, holds nothing, or what it holds is no certificate.
pub(crate) fn client(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    client_as(ca, None)
}

/// As [`client`], with a certificate to show whoever asks for one.
///
/// # Errors
/// As there; or the certificate and its key do not belong together.
pub(crate) fn client_as(ca: Option<&Path>, own: Option<&ClientTls>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in rustls_native_certs::load_native_certs().certs {
        // One that the system trusts and rustls cannot read is one fewer to trust; the handshake says what is missing.
        roots.add(authority).ok();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong(ca.unwrap_or(Path::new("")), error))?;
    let Some(file) = ca else { return with_own(builder.with_root_certificates(roots), own) };
    let given = certificates(file)?;
    for authority in &given {
        roots.add(authority.clone()).map_err(|error| wrong(file, error))?;
    }
    let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier = Given { given, chains: chains.map_err(|error| wrong(file, error))? };
    with_own(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)), own)
}

fn with_own(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    own: Option<&ClientTls>,
) -> Result<ClientConfig, TlsError> {
    let Some(own) = own else { return Ok(builder.with_no_client_auth()) };
    let (chain, key) = identity(own)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| wrong(&own.certificate, error))
}

/// The certificate that is shown, with its key.
///
/// # Errors
/// One of them is none, or they do not belong together.
pub(crate) fn identity(
    own: &ClientTls,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = CertificateDer::pem_slice_iter(own.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| wrong(&own.certificate, error))?;
    if chain.is_empty() {
        return Err(wrong(&own.certificate, "there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.expose().as_bytes())
        .map_err(|error| wrong(&own.key, format!("no private key: {error}")))?;
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &rustls::crypto::ring::default_provider())
        .map_err(|error| wrong(&own.certificate, error))?;
    Ok((chain, key))
}

/// Trusts chains to an authority; and a certificate that was given, where the server shows that very one.
///
/// A self-signed certificate, as tools make it, says of itself that it is an authority, and no authority may be an end
/// of a chain. Whoever names it by its bytes has said more than any chain could.
#[derive(Debug)]
struct Given {
    given: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Given {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.chains.verify_server_cert(shown, intermediates, name, ocsp, now);
        match judged {
            // Its time was judged before its place in the chain, so it is neither expired nor from the future.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.given.contains(shown) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Why a handshake of ours has failed, in words of the trade instead of a library's.
pub(crate) fn explain(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(Error::InvalidCertificate(why)) = inner else { return error.to_string() };
    let said = match why {
        CertificateError::UnknownIssuer => {
            "its certificate is of an authority that is not trusted here; --ca names a file with it"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is not valid for this name"
        }
        CertificateError::Revoked => "its certificate was revoked",
        CertificateError::BadSignature => "the signature of its certificate is wrong",
        // As a rule one that was signed by itself, and says that it is an authority.
        CertificateError::Other(_) => {
            "its certificate may not be that of a server; --ca names a file with it, to trust exactly that one"
        }
        _ => "its certificate is not valid",
    };
    said.to_owned()
}

/// All certificates of a PEM file.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).map_err(|error| wrong(file, error))?;
    let all = read.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(file, error))?;
    if all.is_empty() { Err(wrong(file, "there is no certificate in it")) } else { Ok(all) }
}
