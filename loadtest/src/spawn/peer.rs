//! A node of a peer: its `start` program, told where everything is.

use std::path::Path;

use tokio::net::TcpStream;

use super::free_port;
use super::node::Node;
use super::server::Server;
use crate::peer::Peer;

/// What all nodes of a peer share.
pub(super) struct Shared<'a> {
    pub(super) peer: &'a Peer,
    pub(super) database_url: &'a str,
    pub(super) redis_url: &'a str,
    pub(super) jwt_secret: &'a str,
    /// A port that is free on every loopback address, for nodes that talk to each other.
    pub(super) cluster_port: u16,
}

pub(super) async fn start(folder: &Path, number: u8, shared: &Shared<'_>) -> anyhow::Result<Node> {
    let name = format!("{}-{number}", shared.peer.name);
    let folder = folder.join(&name);
    std::fs::create_dir(&folder)?;
    let port = free_port()?;
    let environment = [
        ("PORT", port.to_string()),
        ("DATABASE_URL", shared.database_url.to_owned()),
        ("REDIS_URL", shared.redis_url.to_owned()),
        ("JWT_SECRET", shared.jwt_secret.to_owned()),
        ("NODE_NAME", name.clone()),
        ("NODE_NUMBER", number.to_string()),
        ("NODE_FOLDER", folder.display().to_string()),
        ("CLUSTER_PORT", shared.cluster_port.to_string()),
    ];
    let command = vec![shared.peer.start.clone().into()];
    let server = Server::start(&name, &folder, "KILL", command, &environment)?;
    server
        .ready(async || TcpStream::connect(("127.0.0.1", port)).await.is_ok())
        .await?;
    Ok(Node {
        server,
        url: format!("http://127.0.0.1:{port}"),
        ops: None,
    })
}
