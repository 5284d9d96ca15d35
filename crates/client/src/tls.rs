//! TLS for `https` and `wss`: what REST and sockets trust.

use std::error::Error;
use std::io;
use std::sync::{Arc, LazyLock};

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};

/// The certificates that the system trusts, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name;
/// read once, by whoever needs them first.
static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
});

/// The configuration of all connections with TLS: HTTP/1.1, no certificate of one's own.
pub(crate) fn config() -> Arc<ClientConfig> {
    Arc::clone(&CONFIG)
}

/// What to do where an error is about who signed a certificate.
pub(crate) fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut inner = error;
    // One for each library on the way.
    while let Some(wrapper) = inner.downcast_ref::<io::Error>() {
        inner = wrapper.get_ref()?;
    }
    let rustls::Error::InvalidCertificate(why) = inner.downcast_ref()? else {
        return None;
    };
    match why {
        CertificateError::UnknownIssuer => Some(
            "the system does not trust who signed it: put that certificate into a PEM file, and \
             name the file in the variable SSL_CERT_FILE",
        ),
        // What openssl makes by default when it signs itself.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => Some(
            "a certificate that may sign others is not taken for a server's: make it with \
             basicConstraints=CA:FALSE, or sign another with it",
        ),
        _ => None,
    }
}
