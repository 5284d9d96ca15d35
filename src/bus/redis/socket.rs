//! A connection of the bus: made, authenticated, written and read.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use fred::types::config::{Config, Server, ServerConfig, TlsConnector};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;

use super::connection::{CONNECT_TIMEOUT, UNACKNOWLEDGED_TIMEOUT, unquoted};
use super::sentinels::Sentinels;
use super::wire::{self, Answer, Answers, Unexpected};

/// A host and its port.
pub(super) type Place = (String, u16);

/// Why there is no connection, or not any longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("Redis does not answer")]
    Silent,
    #[error("the connection was closed")]
    Closed,
    #[error("Redis does not confirm a subscription")]
    Unconfirmed,
    #[error("a new connection was asked for")]
    Renewed,
    #[error("this Redis is a replica")]
    Replica,
    #[error("no sentinel names the master")]
    NoMaster,
    #[error("Redis refuses: {0}")]
    Refused(String),
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Cut {
    /// Redis refuses, for this reason.
    pub(super) fn refused(why: &str) -> Self {
        Self::Refused(unquoted(why).to_owned())
    }
}

/// Whom to connect to, and as whom. What the URL says is read by fred, as for the other connections.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    /// They know where the master is, if the URL does not.
    pub(super) sentinels: Option<Arc<Sentinels>>,
}

/// What a connection is for.
pub(super) struct Purpose {
    /// What it is called in `CLIENT LIST`.
    pub(super) name: &'static str,
    /// Bytes that are read at a time.
    pub(super) room: usize,
}

impl Address {
    /// Connects to a master, authenticated.
    pub(super) async fn connect(&self, purpose: &Purpose) -> Result<(Socket, Place), Cut> {
        let place = self.place().await?;
        let opened = timeout(CONNECT_TIMEOUT, self.open(&place)).await;
        let mut socket = Socket {
            stream: opened.map_err(|_| Cut::Silent)??,
            out: BytesMut::new(),
            answers: Answers::with_room(purpose.room),
        };
        let greeted = timeout(CONNECT_TIMEOUT, self.greet(&mut socket, purpose.name)).await;
        greeted.map_err(|_| Cut::Silent)??;
        Ok((socket, place))
    }

    async fn place(&self) -> Result<Place, Cut> {
        let named = match (&self.sentinels, &self.config.server) {
            (Some(sentinels), _) => sentinels.named().await,
            (None, ServerConfig::Centralized { server }) => Some(place_of(server)),
            (None, _) => None,
        };
        named.ok_or(Cut::NoMaster)
    }

    async fn open(&self, (host, port): &Place) -> Result<Stream, Cut> {
        // A URL has an IPv6 address in brackets, sentinels do not.
        let host = host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, *port)).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT))?;
        let Some(tls) = &self.config.tls else {
            return Ok(Either::Left(stream));
        };
        let TlsConnector::Rustls(connector) = &tls.connector;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = connector.connect(name, stream).await?;
        Ok(Either::Right(Box::new(stream)))
    }

    /// Says who we are and asks what the other one is.
    async fn greet(&self, socket: &mut Socket, name: &str) -> Result<(), Cut> {
        let (user, password) = (&self.config.username, &self.config.password);
        let auth: Vec<&str> = match (user, password) {
            (Some(user), Some(password)) => vec!["AUTH", user, password],
            (None, Some(password)) => vec!["AUTH", password],
            (_, None) => Vec::new(),
        };
        let greeting = |out: &mut BytesMut| {
            if !auth.is_empty() {
                wire::put_command(out, &auth);
            }
            // A name helps people only: whether it is taken does not matter.
            wire::put_command(out, &["CLIENT", "SETNAME", name]);
        };
        socket.write(greeting).await?;
        if !auth.is_empty()
            && let Answer::Refused(why) = socket.answer().await?
        {
            return Err(Cut::refused(&why));
        }
        let named = socket.answer().await?;
        match (socket.is_replica().await, named) {
            (Ok(false), _) => Ok(()),
            (Ok(true), _) => Err(Cut::Replica),
            // One that takes no clients says why in the place of its first answer.
            (Err(Cut::Closed | Cut::Io(_)), Answer::Refused(why)) => Err(Cut::refused(&why)),
            (Err(cut), _) => Err(cut),
        }
    }
}

fn place_of(server: &Server) -> Place {
    (server.host.to_string(), server.port)
}

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection. After the first error it is good for nothing.
pub(super) struct Socket {
    stream: Stream,
    /// What is written in one go; keeps its room, which whoever writes bounds.
    out: BytesMut,
    answers: Answers,
}

impl Socket {
    /// Writes all that is put there, in one go.
    pub(super) async fn write(&mut self, put: impl FnOnce(&mut BytesMut)) -> Result<(), Cut> {
        self.out.clear();
        put(&mut self.out);
        self.stream.write_all(&self.out).await?;
        // TLS may keep something back.
        self.stream.flush().await?;
        Ok(())
    }

    /// Waits for the next answer.
    pub(super) async fn answer(&mut self) -> Result<Answer, Cut> {
        loop {
            if let Some(answer) = self.arrived()? {
                return Ok(answer);
            }
            self.fill().await?;
        }
    }

    /// The next answer, if it has arrived.
    pub(super) fn arrived(&mut self) -> Result<Option<Answer>, Unexpected> {
        self.answers.next()
    }

    /// Waits for something to arrive. Nothing is lost if it is not awaited to its end.
    pub(super) async fn fill(&mut self) -> Result<(), Cut> {
        match self.stream.read_buf(self.answers.room()).await? {
            0 => Err(Cut::Closed),
            _ => Ok(()),
        }
    }

    /// More answers than questions belong to nothing.
    pub(super) fn is_answered(&self) -> Result<(), Cut> {
        if self.answers.is_empty() {
            Ok(())
        } else {
            Err(Unexpected.into())
        }
    }

    /// Asks Redis whether it is a replica: what is published there reaches nobody else.
    pub(super) async fn is_replica(&mut self) -> Result<bool, Cut> {
        let info = self.info("replication").await?;
        Ok(info.lines().any(|line| line == "role:slave"))
    }

    /// Asks Redis which of its runs this is; none if it may not be asked.
    pub(super) async fn run_id(&mut self) -> Result<Option<String>, Cut> {
        let info = self.info("server").await?;
        let found = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        Ok(found.map(str::to_owned))
    }

    /// By INFO, since the account of a node may ask for it; one that may not is told nothing, and
    /// believes that it is a master's. Nothing else may be under way.
    async fn info(&mut self, section: &str) -> Result<String, Cut> {
        self.write(|out| wire::put_command(out, &["INFO", section]))
            .await?;
        let info = match self.answer().await? {
            Answer::Text(info) => info,
            Answer::Refused(why) if why.starts_with("NOPERM") => String::new(),
            Answer::Refused(why) => return Err(Cut::refused(&why)),
            _ => return Err(Unexpected.into()),
        };
        self.is_answered()?;
        Ok(info)
    }
}
