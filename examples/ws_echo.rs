//! Sends back what comes, with the settings of the server's own sockets: what `scripts/autobahn.sh`
//! judges. Listens on a free port of 127.0.0.1 and prints its address.

#[expect(
    clippy::disallowed_methods,
    reason = "ends with its process, nothing is to be stopped"
)]
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("ws://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(rookery::gateway::echo(stream));
    }
}
