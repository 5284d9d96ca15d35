//! Redis without persistence: it only carries news.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::Server;
use super::{free_port, program};

pub(super) struct Redis {
    folder: PathBuf,
    port: u16,
    pub(super) url: String,
    /// None while it is killed.
    server: Option<Server>,
}

impl Redis {
    pub(super) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut redis = Self {
            folder: folder.join("redis"),
            port,
            url: format!("redis://127.0.0.1:{port}"),
            server: None,
        };
        redis.run().await?;
        Ok(redis)
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.server.iter().map(Server::pid).collect()
    }

    /// Kills it; returns once it is gone.
    pub(super) fn kill(&mut self) {
        self.server = None;
    }

    /// Starts it, empty, where it was; returns once it answers.
    pub(super) async fn run(&mut self) -> anyhow::Result<()> {
        let binary = program("redis-server", &[], "redis-server")?;
        std::fs::create_dir(&self.folder)?;
        let mut command = vec![binary.into()];
        let port = self.port.to_string();
        let options = [
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ];
        command.extend(options.map(Into::into));
        command.push(self.folder.clone().into());
        // There is nothing that it would have to save.
        let server = Server::start("Redis", &self.folder, "KILL", command, &[])?;
        server.ready(async || answers(self.port).await).await?;
        self.server = Some(server);
        Ok(())
    }
}

async fn answers(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer == *b"+PONG")
    };
    ask.await.unwrap_or(false)
}
