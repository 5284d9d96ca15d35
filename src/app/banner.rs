//! What a starting node says on the terminal: where it listens and what to try next.

use std::io::{self, Write};

use crate::config::Config;
use crate::store;

/// Prints it to standard error, for people; logs have their own lines.
pub(super) fn show(config: &Config) {
    let address = config.http.listen_addr;
    tracing::info!(%address, ops = %config.http.ops_addr, node = %config.node.id, "listening");
    if config.redis.url.is_some() {
        return;
    }
    let kept = if config.database.is_sqlite() {
        let file = store::sqlite_file(config.database.url.expose());
        format!("Everything is kept in {file}")
    } else {
        "Everything is kept in PostgreSQL".to_owned()
    };
    let text = format!(
        "\n  Rookery listens on http://{address}\n  {kept}\n\n  \
         Open http://{address} in two windows and register two people,\n  \
         or talk from two terminals:\n\n    \
         cargo run -p rookery-client --example talk -- --server http://{address} --user ann --to bob\n    \
         cargo run -p rookery-client --example talk -- --server http://{address} --user bob --to ann\n\n  \
         API: http://{address}/docs   Metrics: http://{}/metrics   Stop: Ctrl-C\n\n",
        config.http.ops_addr
    );
    // Nobody has to be there to read it.
    io::stderr().write_all(text.as_bytes()).ok();
}
