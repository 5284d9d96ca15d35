//! Redis without persistence: it only carries news.

use std::path::Path;

use tokio::net::TcpStream;

use super::server::Server;
use super::{free_port, program};

pub(super) struct Redis {
    pub(super) server: Server,
    pub(super) url: String,
}

pub(super) async fn start(folder: &Path) -> anyhow::Result<Redis> {
    let binary = program("redis-server", &[], "redis-server")?;
    let folder = folder.join("redis");
    std::fs::create_dir(&folder)?;
    let port = free_port()?;
    let mut command = vec![binary.into()];
    let port_text = port.to_string();
    let options = [
        "--bind",
        "127.0.0.1",
        "--port",
        &port_text,
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
    ];
    command.extend(options.map(Into::into));
    command.push(folder.clone().into());
    let server = Server::start("Redis", &folder, "TERM", command, &[])?;
    server
        .ready(async || TcpStream::connect(("127.0.0.1", port)).await.is_ok())
        .await?;
    Ok(Redis {
        server,
        url: format!("redis://127.0.0.1:{port}"),
    })
}
