//! Talk to one person from a terminal or a script.
//!
//! Two terminals make a conversation: `--user ann --to bob` in one, `--user bob --to ann` in the
//! other. Name several servers to see the connection move when one of them goes.

use std::collections::HashSet;
use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use rookery_client::{Api, ApiError, Credentials, Handle, Live, LiveConfig, Outgoing, Update};
use rookery_protocol::message::Message;
use rookery_protocol::rest::{Login, Register, Tokens};
use rookery_protocol::user::User;
use rookery_protocol::{ConversationId, ErrorCode, MessageId};
use tokio::sync::mpsc;

/// Talk to one person: what they write is printed, what you type is sent, `✓` is its
/// acknowledgement.
#[derive(Debug, Parser)]
struct Options {
    /// A node, or a load balancer; give it several times to be able to move between nodes
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    server: Vec<String>,
    /// Who you are; registered if there is no such user
    #[arg(long)]
    user: String,
    /// Your password; without it `USER-tries-rookery`, which is for trying things out only
    #[arg(long, env = "ROOKERY_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Whom to talk to; waited for if there is no such user yet
    #[arg(long)]
    to: String,
    /// Send this one message, wait for its acknowledgement and exit
    #[arg(long, value_name = "TEXT")]
    once: Option<String>,
    /// Exit after this many messages of theirs
    #[arg(long, value_name = "N")]
    wait: Option<u64>,
    /// With --once or --wait: give up, with exit code 1, after this many seconds
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let scripted = options.once.is_some() || options.wait.is_some();
    let limit = if scripted {
        options.timeout
    } else {
        u64::from(u32::MAX)
    };
    let outcome = match tokio::time::timeout(Duration::from_secs(limit), talk(&options)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow::anyhow!("nothing more within {limit} s")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("talk: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn talk(options: &Options) -> anyhow::Result<()> {
    let (api, tokens) = enter_anywhere(options).await?;
    let peer = find(&api, &options.to).await?;
    let conversation = api.create_direct(peer.user_id).await?.conversation_id;
    let mut talk = Talk {
        live: Live::start(LiveConfig::new(
            options.server.clone(),
            Credentials::from(&tokens),
        ))?,
        conversation,
        peer,
        node: String::new(),
        unacked: HashSet::new(),
        received: 0,
    };
    match &options.once {
        Some(text) => {
            talk.send(text).await?;
            talk.run(None, options.wait).await?;
        }
        None => talk.run(Some(lines()), options.wait).await?,
    }
    let unacked = talk.live.close().await.unacked;
    if unacked.is_empty() {
        return Ok(());
    }
    bail!("{} messages were not acknowledged", unacked.len())
}

struct Talk {
    live: Live,
    conversation: ConversationId,
    peer: User,
    node: String,
    unacked: HashSet<MessageId>,
    received: u64,
}

impl Talk {
    async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        let handle: &Handle = self.live.handle();
        let sent = handle
            .send(Outgoing::to_conversation(self.conversation, text))
            .await?;
        self.unacked.insert(sent);
        Ok(())
    }

    /// Until there is nothing to send, nothing unacknowledged and nothing to wait for.
    async fn run(
        &mut self,
        mut lines: Option<mpsc::Receiver<String>>,
        wait: Option<u64>,
    ) -> anyhow::Result<()> {
        while !self.done(lines.is_none(), wait) {
            tokio::select! {
                line = next_line(&mut lines) => match line {
                    Some(line) if line.trim().is_empty() => {}
                    Some(line) => self.send(&line).await?,
                    None => lines = None,
                },
                update = self.live.next() => {
                    let update = update.context("the connection was ended for good")?;
                    self.show(update).await?;
                }
            }
        }
        Ok(())
    }

    fn done(&self, nothing_to_send: bool, wait: Option<u64>) -> bool {
        match wait {
            Some(wait) => self.received >= wait && self.unacked.is_empty(),
            None => nothing_to_send && self.unacked.is_empty(),
        }
    }

    async fn show(&mut self, update: Update) -> anyhow::Result<()> {
        match update {
            Update::Connected { node_id, url, .. } => {
                eprintln!("-- connected to {node_id} at {url}");
                self.node = node_id;
            }
            Update::Message(message) if message.conversation_id == self.conversation => {
                self.print(&message).await?;
            }
            Update::Acked(ack) if self.unacked.remove(&ack.message_id) => {
                println!("[{}] #{} ✓", self.node, ack.seq);
            }
            Update::Failed { message_id, error } if self.unacked.remove(&message_id) => {
                bail!("refused: {} {}", error.code.as_str(), error.message);
            }
            Update::Reset(reset) if reset.conversation_id == self.conversation => {
                eprintln!(
                    "-- too much was missed; what came before #{} is in the history",
                    reset.seq
                );
            }
            Update::Draining { .. } => eprintln!("-- {} goes away", self.node),
            Update::Disconnected {
                code,
                reason,
                retry_in,
            } => {
                eprintln!("-- disconnected ({code} {reason}), again in {retry_in:.1?}");
            }
            Update::Stopped { code, reason } => bail!("ended by the server: {code} {reason}"),
            _ => {}
        }
        Ok(())
    }

    async fn print(&mut self, message: &Message) -> anyhow::Result<()> {
        let theirs = message.sender_id == self.peer.user_id;
        let name = if theirs {
            self.peer.username.as_str()
        } else {
            "(you, elsewhere)"
        };
        println!(
            "[{}] #{} {name}: {}",
            self.node, message.seq, message.content
        );
        if theirs {
            self.received += 1;
            self.live.handle().read(self.conversation, message.seq)?;
        }
        Ok(())
    }
}

/// Enters at the first server that answers.
async fn enter_anywhere(options: &Options) -> anyhow::Result<(Api, Tokens)> {
    let mut outcome = Err(anyhow::anyhow!("at least one --server is needed"));
    for server in &options.server {
        let api = Api::new(server);
        match enter(&api, options).await {
            Ok(tokens) => return Ok((api.with_token(&tokens.access_token), tokens)),
            Err(error) => {
                let answered = error.status != 0;
                outcome = Err(error).with_context(|| format!("{server} as {}", options.user));
                if answered {
                    break;
                }
            }
        }
    }
    outcome
}

/// Logs in, or registers who is unknown.
async fn enter(api: &Api, options: &Options) -> Result<Tokens, ApiError> {
    let made_up = || format!("{}-tries-rookery", options.user);
    let password = options.password.clone().unwrap_or_else(made_up);
    let register = Register {
        username: options.user.clone(),
        email: format!("{}@example.org", options.user),
        password: password.clone(),
        full_name: None,
        device_name: Some("talk".into()),
    };
    match api.register(&register).await {
        Err(error) if error.code == ErrorCode::Conflict => {
            let device_name = Some("talk".into());
            api.login(&Login {
                login: options.user.clone(),
                password,
                device_name,
            })
            .await
        }
        answer => answer,
    }
}

async fn find(api: &Api, name: &str) -> anyhow::Result<User> {
    for attempt in 0..60 {
        let found = api.search_users(name).await?.items;
        if let Some(user) = found
            .into_iter()
            .find(|user| user.username.eq_ignore_ascii_case(name))
        {
            return Ok(user);
        }
        if attempt == 0 {
            eprintln!("-- waiting for {name}, who is not registered yet");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    bail!("there is no user {name}")
}

/// Lines of the standard input, read by a thread that ends with the process.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

async fn next_line(lines: &mut Option<mpsc::Receiver<String>>) -> Option<String> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}
