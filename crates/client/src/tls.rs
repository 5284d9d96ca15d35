//! TLS for `https` and `wss`: what REST and sockets trust.
//!
//! The system decides, as for other programs, and so the variables that rustls-native-certs knows from
//! OpenSSL: `SSL_CERT_FILE` and `SSL_CERT_DIR` name what is trusted instead.

use std::error::Error;
use std::io;
use std::sync::{Arc, LazyLock};

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};

struct Trust {
    config: Arc<ClientConfig>,
    /// What is missing of what was to be trusted; the rest is trusted all the same, if there is any.
    missing: Option<String>,
}

/// Read once, by whoever needs it first.
static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    let missing = match found.errors.first() {
        Some(error) => Some(error.to_string()),
        None => (added == 0).then(|| "there is no certificate in PEM format".to_owned()),
    };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Trust {
        config: Arc::new(config),
        missing,
    }
});

/// The configuration of all connections with TLS: HTTP/1.1, no certificate of one's own.
pub(crate) fn config() -> Arc<ClientConfig> {
    Arc::clone(&TRUST.config)
}

/// What to do where an error is about who signed a certificate.
pub(crate) fn advice(error: &(dyn Error + 'static)) -> Option<String> {
    advice_on(error, TRUST.missing.as_deref())
}

fn advice_on(error: &(dyn Error + 'static), missing: Option<&str>) -> Option<String> {
    let mut inner = error;
    // One for each library on the way.
    while let Some(wrapper) = inner.downcast_ref::<io::Error>() {
        inner = wrapper.get_ref()?;
    }
    let rustls::Error::InvalidCertificate(why) = inner.downcast_ref()? else {
        return None;
    };
    match why {
        CertificateError::UnknownIssuer => Some(match missing {
            None => {
                "the system does not trust who signed it; the variable SSL_CERT_FILE can name a \
                     PEM file with what to trust instead"
                    .to_owned()
            }
            Some(missing) => format!(
                "who signed it is not trusted, and of what SSL_CERT_FILE, SSL_CERT_DIR or the system \
                 say is to be trusted something is missing: {missing}"
            ),
        }),
        CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Some(
            "who signed it has the name of somebody trusted, and another key; the variable \
             SSL_CERT_FILE can name a PEM file with what to trust instead"
                .to_owned(),
        ),
        // What openssl makes by default when it signs itself.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => Some(
            "a certificate that may sign others is not taken for a server's: make it with \
             basicConstraints=CA:FALSE, or sign another with it"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As libraries hand it on.
    fn wrapped(why: CertificateError, times: usize) -> Box<dyn Error + Send + Sync> {
        let bare: Box<dyn Error + Send + Sync> = rustls::Error::InvalidCertificate(why).into();
        (0..times).fold(bare, |error, _| io::Error::other(error).into())
    }

    #[test]
    fn who_is_not_trusted_is_told_what_to_do() {
        for times in 0..3 {
            let error = wrapped(CertificateError::UnknownIssuer, times);
            let advice = advice_on(&*error, None).unwrap();
            assert!(advice.contains("SSL_CERT_FILE"), "{advice}");
            let advice = advice_on(&*error, Some("no such file at '/typo'")).unwrap();
            assert!(advice.contains("/typo"), "{advice}");
            let namesake = wrapped(CertificateError::BadSignature, times);
            let advice = advice_on(&*namesake, None).unwrap();
            assert!(advice.contains("another key"), "{advice}");
            let expired = wrapped(CertificateError::Expired, times);
            assert_eq!(advice_on(&*expired, None), None);
        }
        assert_eq!(advice_on(&io::Error::other("cut"), None), None);
        assert_eq!(advice_on(&std::fmt::Error, None), None);
    }
}
