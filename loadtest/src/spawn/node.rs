//! A node of the server, as an operator would start it, but without rates.

use std::path::Path;

use super::free_port;
use super::ops::Ops;
use super::server::Server;

pub(super) struct Node {
    pub(super) server: Server,
    pub(super) url: String,
    /// Where its metrics are, if it is one of Rookery's.
    pub(super) ops: Option<Ops>,
}

pub(super) struct Settings<'a> {
    pub(super) binary: &'a Path,
    pub(super) number: u8,
    pub(super) database_url: &'a str,
    pub(super) redis_url: &'a str,
    pub(super) jwt_secret: &'a str,
    pub(super) workers: u16,
    /// Further variables of its environment.
    pub(super) extra: &'a [(String, String)],
}

pub(super) async fn start(folder: &Path, settings: &Settings<'_>) -> anyhow::Result<Node> {
    let name = format!("node-{}", settings.number);
    let folder = folder.join(&name);
    std::fs::create_dir(&folder)?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let ops = format!("127.0.0.1:{}", free_port()?);
    let mut environment = vec![
        ("DATABASE_URL", settings.database_url.to_owned()),
        ("REDIS_URL", settings.redis_url.to_owned()),
        ("JWT_SECRET", settings.jwt_secret.to_owned()),
        ("LISTEN_ADDR", listen.clone()),
        ("OPS_ADDR", ops.clone()),
        ("NODE_ID", name.clone()),
        ("DATA_DIR", folder.display().to_string()),
        ("ROOKERY_RATES_ENABLED", "false".to_owned()),
        // Below the 20,000 files that a process may open on common machines.
        ("ROOKERY_LIMITS_SOCKETS", "19000".to_owned()),
        ("TOKIO_WORKER_THREADS", settings.workers.to_string()),
    ];
    environment.extend(
        settings
            .extra
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone())),
    );
    let command = vec![settings.binary.into(), "serve".into()];
    // Not TERM: a drain takes its time, and there is nobody to be kind to.
    let server = Server::start(&name, &folder, "KILL", command, &environment)?;
    let readyz = format!("http://{ops}/readyz");
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()?;
    server
        .ready(async || {
            http.get(&readyz)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
        })
        .await?;
    Ok(Node {
        server,
        url: format!("http://{listen}"),
        ops: Some(Ops::new(&format!("http://{ops}"), http)),
    })
}
