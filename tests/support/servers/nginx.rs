//! nginx in front of the nodes of a test, with the configuration that operators get.

use std::ffi::OsString;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;

use super::ports::{self, Port};
use super::{Supervised, listens, program, run, user_id};

const TEMPLATE: &str = include_str!("../../../deploy/nginx/rookery.conf.template");
const TLS: &str = include_str!("../../../deploy/nginx/server.d/tls.conf");
/// The port of `TLS`.
const TLS_PORT: &str = "8443";
const SELF_SIGNED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/self-signed.sh");

pub struct Nginx {
    process: Supervised,
    port: Port,
    tls_port: Option<Port>,
    folder: TempDir,
}

impl Nginx {
    /// Starts nginx in front of `upstreams`, which need not listen yet.
    pub async fn start(upstreams: &[SocketAddr]) -> Result<Self> {
        Self::start_with(upstreams, None).await
    }

    /// As [`Nginx::start`], and beside the plain port one with TLS, whose certificate only
    /// [`Nginx::certificate`] vouches for.
    pub async fn start_with_tls(upstreams: &[SocketAddr]) -> Result<Self> {
        Self::start_with(upstreams, Some(ports::reserve()?)).await
    }

    async fn start_with(upstreams: &[SocketAddr], tls_port: Option<Port>) -> Result<Self> {
        ensure!(!upstreams.is_empty(), "nginx needs at least one upstream");
        let folder = tempfile::Builder::new()
            .prefix("rookery-nginx-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()?;
        let port = ports::reserve()?;
        let path = folder
            .path()
            .to_str()
            .context("the temporary folder's name is not UTF-8")?;

        let servers: Vec<String> = upstreams
            .iter()
            .map(|address| format!("server {address} max_fails=0;"))
            .collect();
        let config = TEMPLATE
            .replace("${ROOKERY_UPSTREAMS}", &servers.join("\n        "))
            .replace("${ROOKERY_LISTEN}", &port.address().to_string())
            .replace("${ROOKERY_RUN_DIR}", path);
        let config_path = folder.path().join("nginx.conf");
        std::fs::write(&config_path, config)?;

        if let Some(port) = &tls_port {
            program("openssl", &[], "openssl")?;
            run(SELF_SIGNED, &[folder.path().join("tls").as_ref()]).await?;
            let listen = TLS.replace(TLS_PORT, &port.address().to_string());
            std::fs::create_dir(folder.path().join("server.d"))?;
            std::fs::write(folder.path().join("server.d/tls.conf"), listen)?;
        }

        let binary = program("nginx", &[PathBuf::from("/usr/sbin")], "nginx")?;
        // Workers keep the rights of the test: the folder belongs to it, not to www-data.
        let user = if user_id()? == 0 { " user root;" } else { "" };
        let command: [OsString; 9] = [
            binary.into(),
            "-c".into(),
            config_path.into(),
            "-p".into(),
            path.into(),
            "-e".into(),
            "stderr".into(),
            "-g".into(),
            format!("daemon off;{user}").into(),
        ];
        let process = Supervised::start("nginx", folder.path(), "TERM", command)?;
        process
            .ready(async || Ok(listens(port.address()).await))
            .await?;
        Ok(Self {
            process,
            port,
            tls_port,
            folder,
        })
    }

    /// Reads its configuration again, as after a change: new workers take over, and the old ones go
    /// when their last connection does.
    pub fn reload(&self) -> Result<()> {
        self.process.signal("HUP")
    }

    /// Kills one worker with all its connections; the master starts another. Returns its process.
    pub async fn kill_worker(&self) -> Result<u32> {
        let master = std::fs::read_to_string(self.folder.path().join("nginx.pid"))?;
        let pgrep = program("pgrep", &[], "procps")?;
        let workers = run(pgrep, &["-P".as_ref(), master.trim().as_ref()]).await?;
        let mut reason = anyhow!("nginx has no worker");
        for worker in workers.lines() {
            match run("kill", &["-KILL".as_ref(), worker.as_ref()]).await {
                Ok(_) => return Ok(worker.parse()?),
                // An old one that ended by itself after a reload: the next one then.
                Err(gone) => reason = gone,
            }
        }
        Err(reason)
    }

    /// `http://127.0.0.1:<port>`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// `https://localhost:<port>`, without a slash at the end.
    pub fn tls_url(&self) -> Result<String> {
        let port = self.tls_port.as_ref().context("started without TLS")?;
        Ok(format!("https://localhost:{}", port.number()))
    }

    /// The file with the certificate of [`Nginx::tls_url`], which is its own authority.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("tls/tls.crt")
    }

    /// What nginx has logged of the requests so far; a socket is logged when it closes.
    pub fn access_log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(
            self.folder.path().join("access.log"),
        )?)
    }
}
