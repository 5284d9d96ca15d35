//! Whether the server is there, asked before anything is built on it.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;

use super::parsed;
use crate::store::{Result, StoreError, StoreOptions};

/// A server that takes longer to let somebody in is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Logs in and asks the server what it is.
pub(in crate::store) async fn knock(options: &StoreOptions) -> Result<()> {
    let options = parsed(&options.url)?
        .application_name(&options.application_name)
        .disable_statement_logging();
    let ask = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        // Not prepared: a pooler of transactions may stand between.
        let question = sqlx::raw_sql("select pg_is_in_recovery()");
        let row = question.fetch_one(&mut connection).await?;
        connection.close().await?;
        sqlx::Row::try_get::<bool, _>(&row, 0)
    };
    match timeout(ANSWER_WITHIN, ask).await {
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => Err(StoreError::Unavailable(
            "it is a standby, which takes no writes".to_owned(),
        )),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(StoreError::Unavailable("no answer".to_owned())),
    }
}

/// Where it is: host and port, or its socket.
pub(in crate::store) fn address(options: &StoreOptions) -> Result<String> {
    let options = parsed(&options.url)?;
    let (host, port) = (options.get_host(), options.get_port());
    Ok(match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None if host.contains(':') => format!("[{host}]:{port}"),
        None => format!("{host}:{port}"),
    })
}
