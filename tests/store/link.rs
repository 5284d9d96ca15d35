//! A wire to PostgreSQL that can be silenced, cut, and taken away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rookery_test_support::eventually;
use rookery_test_support::servers::Postgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the wire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Open for the connections made since the one with this number.
    OpenSince(u64),
    /// Open for those before it; the others are left waiting.
    OpenBefore(u64),
    /// Nothing passes, and nobody is told: as of a host that vanished.
    Silent,
}

impl Mode {
    fn is_open_for(self, number: u64) -> bool {
        match self {
            Self::OpenSince(first) => first <= number,
            Self::OpenBefore(end) => number < end,
            Self::Silent => false,
        }
    }
}

/// See the module.
pub(crate) struct Link {
    address: std::net::SocketAddr,
    server: u16,
    mode: watch::Sender<Mode>,
    /// How many connections there have been.
    accepted: Arc<AtomicU64>,
    /// What is said next with this in it reaches the server, its answer nobody.
    cuts_at: Arc<Mutex<Option<&'static str>>>,
    listening: Option<JoinHandle<()>>,
}

impl Link {
    pub(crate) async fn to(server: &Postgres) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut link = Self {
            address: listener.local_addr().unwrap(),
            server: server.port(),
            mode: watch::Sender::new(Mode::OpenSince(0)),
            accepted: Arc::default(),
            cuts_at: Arc::default(),
            listening: None,
        };
        link.listen(listener);
        link
    }

    /// The database that `url` names, through this link.
    pub(crate) fn url(&self, url: &str) -> String {
        let to = format!(":{}/", self.server);
        assert!(url.contains(&to), "{url}");
        url.replace(&to, &format!(":{}/", self.address.port()))
    }

    pub(crate) fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    pub(crate) fn speak(&self) {
        self.mode.send_replace(Mode::OpenSince(0));
    }

    /// Speaks on new connections; those that there are stay silent for ever.
    pub(crate) fn forsake(&self) {
        let next = self.accepted.load(Ordering::SeqCst);
        self.mode.send_replace(Mode::OpenSince(next));
    }

    /// Speaks on the connections that there are; new ones are left waiting.
    pub(crate) fn admit_nobody(&self) {
        let next = self.accepted.load(Ordering::SeqCst);
        self.mode.send_replace(Mode::OpenBefore(next));
    }

    pub(crate) fn cut_at(&self, text: &'static str) {
        *self.cuts_at.lock().unwrap() = Some(text);
    }

    /// Every connection breaks, and new ones are refused.
    pub(crate) async fn refuse(&mut self) {
        let listening = self.listening.take().expect("it listens");
        listening.abort();
        listening.await.ok();
    }

    pub(crate) async fn accept_again(&mut self) {
        let mut listener = None;
        // A child process that is being started at this moment holds a copy of the old one.
        eventually("the port can be listened on again", async || {
            listener = TcpListener::bind(self.address).await.ok();
            listener.is_some()
        })
        .await;
        self.listen(listener.expect("it listens"));
    }

    fn listen(&mut self, listener: TcpListener) {
        let (server, mode) = (self.server, self.mode.clone());
        let cuts_at = Arc::clone(&self.cuts_at);
        let accepted = Arc::clone(&self.accepted);
        self.listening = Some(tokio::spawn(async move {
            // Dropped with the task, and with it every connection.
            let mut wires = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let wire = Wire {
                    number: accepted.fetch_add(1, Ordering::SeqCst),
                    mode: mode.subscribe(),
                    cuts_at: Arc::clone(&cuts_at),
                };
                wires.spawn(wire.run(client, server));
            }
        }));
    }
}

struct Wire {
    number: u64,
    mode: watch::Receiver<Mode>,
    cuts_at: Arc<Mutex<Option<&'static str>>>,
}

impl Wire {
    async fn run(self, client: TcpStream, server: u16) {
        let mut mode = self.mode.clone();
        let number = self.number;
        let is_open = move |mode: &Mode| mode.is_open_for(number);
        mode.wait_for(is_open).await.ok();
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
            return;
        };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let cut = Arc::new(tokio::sync::Notify::new());
        let forth = pump(
            from_client,
            to_server,
            (self.mode.clone(), is_open),
            |bytes| {
                let says = |text: &mut &str| {
                    let text = text.as_bytes();
                    bytes.windows(text.len()).any(|part| part == text)
                };
                if self.cuts_at.lock().unwrap().take_if(says).is_some() {
                    cut.notify_one();
                }
            },
        );
        let back = pump(from_server, to_client, (self.mode, is_open), |_| {});
        tokio::select! {
            biased;
            () = cut.notified() => {}
            () = async { tokio::join!(forth, back); } => {}
        }
    }
}

/// Passes bytes on while the wire is open, after `look` has seen them.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (mut mode, is_open): (watch::Receiver<Mode>, impl Fn(&Mode) -> bool),
    look: impl Fn(&[u8]),
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if mode.wait_for(&is_open).await.is_err() {
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
        look(&bytes[..count]);
    }
    to.shutdown().await.ok();
}
