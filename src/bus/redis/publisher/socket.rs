//! The publisher's connection: made, authenticated, written and read.

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

use super::super::connection::{CONNECT_TIMEOUT, UNACKNOWLEDGED_TIMEOUT, unquoted};
use super::super::sentinels::Sentinels;
use super::queue::{Publication, is_news};
use super::wire::{self, Answer, Answers, Unexpected};

/// What the connection is called in `CLIENT LIST`.
const NAME: &str = "rookery-publisher";
/// Refusals that concern the connection or its server, not the one publication.
const USELESS: [&str; 4] = ["NOAUTH", "READONLY", "LOADING", "MASTERDOWN"];

/// A host and its port.
pub(super) type Place = (String, u16);

/// Why there is no connection, or not any longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("Redis does not answer")]
    Silent,
    #[error("the connection was closed")]
    Closed,
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

/// Whom to connect to, and as whom. What the URL says is read by fred, as for the other connections.
pub(super) struct Address {
    config: Config,
    /// They know where the master is, if the URL does not.
    sentinels: Option<Arc<Sentinels>>,
}

impl Address {
    pub(super) fn new(config: Config, sentinels: Option<Arc<Sentinels>>) -> Self {
        Self { config, sentinels }
    }

    /// Connects to a master, authenticated.
    pub(super) async fn connect(&self) -> Result<(Socket, Place), Cut> {
        let place = self.place().await?;
        let opened = timeout(CONNECT_TIMEOUT, self.open(&place)).await;
        let mut socket = Socket {
            stream: opened.map_err(|_| Cut::Silent)??,
            out: BytesMut::new(),
            name: String::new(),
            answers: Answers::default(),
        };
        let greeted = timeout(CONNECT_TIMEOUT, self.greet(&mut socket)).await;
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
    async fn greet(&self, socket: &mut Socket) -> Result<(), Cut> {
        let (user, password) = (&self.config.username, &self.config.password);
        let auth: Vec<&str> = match (user, password) {
            (Some(user), Some(password)) => vec!["AUTH", user, password],
            (None, Some(password)) => vec!["AUTH", password],
            (_, None) => Vec::new(),
        };
        socket.out.clear();
        if !auth.is_empty() {
            wire::put_command(&mut socket.out, &auth);
        }
        // A name helps people only: whether it is taken does not matter.
        wire::put_command(&mut socket.out, &["CLIENT", "SETNAME", NAME]);
        socket.flush().await?;
        if !auth.is_empty()
            && let Answer::Refused(why) = socket.answer().await?
        {
            return Err(Cut::Refused(unquoted(&why).to_owned()));
        }
        socket.answer().await?;
        if socket.is_replica().await? {
            return Err(Cut::Replica);
        }
        Ok(())
    }
}

fn place_of(server: &Server) -> Place {
    (server.host.to_string(), server.port)
}

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection on which publications are sent. After the first error it is good for nothing.
pub(super) struct Socket {
    stream: Stream,
    /// What is written in one go; keeps its room, which a pipeline bounds.
    out: BytesMut,
    /// The name of a channel, likewise.
    name: String,
    answers: Answers,
}

impl Socket {
    /// Sends these and waits for all answers. `confirmed` counts those news that Redis took, also
    /// if this is not awaited to its end. Returns the first refusal.
    pub(super) async fn publish(
        &mut self,
        publications: &[Publication],
        confirmed: &mut u64,
    ) -> Result<Option<String>, Cut> {
        self.out.clear();
        for (channel, payload) in publications {
            self.name.clear();
            channel.write_name(&mut self.name);
            wire::put_publish(&mut self.out, self.name.as_bytes(), payload);
        }
        self.flush().await?;
        let mut refusal = None;
        for (channel, _) in publications {
            match self.answer().await? {
                Answer::Number => *confirmed += u64::from(is_news(channel)),
                Answer::Refused(why) if is_useless(&why) => return Err(Cut::Refused(why)),
                Answer::Refused(why) => refusal = refusal.or(Some(why)),
                Answer::Word | Answer::Text(_) => return Err(Unexpected.into()),
            }
        }
        self.is_answered()?;
        Ok(refusal)
    }

    /// Asks Redis whether it is a replica: what is published there reaches nobody else. By INFO,
    /// since the account of a node may ask for it; one that may not is believed to be a master's.
    pub(super) async fn is_replica(&mut self) -> Result<bool, Cut> {
        self.out.clear();
        wire::put_command(&mut self.out, &["INFO", "replication"]);
        self.flush().await?;
        let is_replica = match self.answer().await? {
            Answer::Text(info) => info.lines().any(|line| line == "role:slave"),
            Answer::Refused(why) if why.starts_with("NOPERM") => false,
            Answer::Refused(why) => return Err(Cut::Refused(why)),
            Answer::Word | Answer::Number => return Err(Unexpected.into()),
        };
        self.is_answered()?;
        Ok(is_replica)
    }

    /// Waits for the end of a connection on which nothing is under way.
    pub(super) async fn ended(&mut self) -> Cut {
        match self.fill().await {
            Ok(()) => Unexpected.into(),
            Err(cut) => cut,
        }
    }

    async fn flush(&mut self) -> Result<(), Cut> {
        self.stream.write_all(&self.out).await?;
        // TLS may keep something back.
        self.stream.flush().await?;
        Ok(())
    }

    async fn answer(&mut self) -> Result<Answer, Cut> {
        loop {
            if let Some(answer) = self.answers.next()? {
                return Ok(answer);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Cut> {
        match self.stream.read_buf(self.answers.room()).await? {
            0 => Err(Cut::Closed),
            _ => Ok(()),
        }
    }

    /// More answers than questions belong to nothing.
    fn is_answered(&self) -> Result<(), Cut> {
        if self.answers.is_empty() {
            Ok(())
        } else {
            Err(Unexpected.into())
        }
    }
}

fn is_useless(refusal: &str) -> bool {
    USELESS.iter().any(|code| refusal.starts_with(code))
}
