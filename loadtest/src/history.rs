//! Reading at depth: pages of 50 from anywhere in a long conversation, the list of conversations,
//! and syncs of 50 entries. Each at its own rate, all at once; time must not grow with the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use rookery_client::rest::{PageRequest, Span};
use rookery_client::{Api, ClientCommand, ServerEvent, Socket};
use rookery_protocol::command::Sync;
use rookery_protocol::{ConversationId, Format, Seq};
use tokio::sync::Mutex;

use crate::meter::Meter;
use crate::options::HistoryOptions;
use crate::pace::{Outcome, Pace, WARM_UP};
use crate::population::Library;
use crate::progress;
use crate::report::Run;
use crate::source;

/// What a page, a list and a sync are asked for.
const PAGE: usize = 50;
/// Sockets that syncs take turns on: one less than a user may have, on all nodes together.
pub(crate) const SOCKETS: u32 = 4;
/// No answer within this is none.
const PATIENCE: Duration = Duration::from_secs(10);
/// Steps through the log so that any number of pages is spread over all of it: the golden ratio.
const STRIDE: f64 = 0.618_033_988_749_895;

/// Runs it.
///
/// # Errors
/// No connection, or a first request that fails.
pub(crate) async fn run(
    targets: &[String],
    library: &Library,
    options: &HistoryOptions,
    meter: &Meter,
) -> anyhow::Result<Run> {
    let reader = Reader::connect(targets, library).await?;
    // What fails always is an error with its reason, and no row of numbers.
    reader.page(0).await.context("reading a page of history")?;
    reader
        .list(0)
        .await
        .context("reading the conversation list")?;
    reader.sync(0).await.context("a sync")?;

    let answered: Arc<AtomicU64> = Arc::default();
    let counted = Arc::clone(&answered);
    meter
        .gauges
        .set(move || vec![("answers", counted.load(Relaxed))]);
    let (warm_up, ()) = tokio::join!(
        reader.read(options.rate, WARM_UP, &answered),
        progress::gauges(WARM_UP, "warm-up", &meter.gauges),
    );
    let [page_before, list_before, sync_before] = warm_up?;
    meter.gauges.measures();
    let (cpu, begun) = (meter.cpu(), Instant::now());
    let time = Duration::from_secs(options.seconds);
    let (read, ()) = tokio::join!(
        reader.read(options.rate, time, &answered),
        progress::gauges(time, "measuring", &meter.gauges),
    );
    let [page, list, sync] = read?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut run = Run::new("history", "history");
    run.about = format!(
        "{} messages in one of {} conversations; {} pages, lists and syncs of {PAGE} each a second",
        library.messages, options.conversations, options.rate,
    );
    run.seconds = seconds;
    page.after(page_before).put(&mut run, "page");
    list.after(list_before).put(&mut run, "list");
    sync.after(sync_before).put(&mut run, "sync");
    run.put_roles("cores", meter.cpu().cores(&cpu, seconds));
    Ok(run)
}

/// Somebody with a long conversation.
pub(crate) struct Reader<'a> {
    apis: Vec<Api>,
    sockets: Vec<Mutex<Socket>>,
    /// As of a device that has everything but the last entries of the long conversation.
    cursors: HashMap<ConversationId, Seq>,
    library: &'a Library,
}

impl<'a> Reader<'a> {
    pub(crate) async fn connect(targets: &[String], library: &'a Library) -> anyhow::Result<Self> {
        let token = &library.reader.token;
        let apis = targets
            .iter()
            .map(|target| Api::new(target).with_token(token))
            .collect::<Vec<_>>();
        let mut cursors = ends(&apis[0]).await?;
        let end = Seq(i64::from(library.messages) - PAGE as i64);
        cursors.insert(library.long, end);
        let mut sockets = Vec::new();
        for index in 0..SOCKETS as usize {
            let target = &targets[index % targets.len()];
            let how = source::connect(target, index, token, Format::Json);
            sockets.push(Mutex::new(source::open(target, &how).await?));
        }
        Ok(Self {
            apis,
            sockets,
            cursors,
            library,
        })
    }

    /// Pages, lists and syncs, each at this rate for so long.
    async fn read(
        &self,
        rate: f64,
        time: Duration,
        answered: &Arc<AtomicU64>,
    ) -> anyhow::Result<[Outcome; 3]> {
        // A third of a turn apart: requests that have nothing to do with each other do not always
        // meet.
        let begin = Instant::now();
        let [pages, lists, syncs] = [0.0, 1.0, 2.0].map(|third| {
            let from = begin + Duration::from_secs_f64(third / 3.0 / rate);
            let mut pace = Pace::between(rate, from, from + time);
            pace.answered = Arc::clone(answered);
            pace
        });
        let (page, list, sync) = tokio::try_join!(
            pages.run(async |number| self.page(number).await),
            lists.run(async |number| self.list(number).await),
            syncs.run(async |number| self.sync(number).await),
        )?;
        Ok([page, list, sync])
    }

    fn api(&self, number: usize) -> &Api {
        &self.apis[number % self.apis.len()]
    }

    /// A page from somewhere in the log; all of its entries have to be there, in order.
    pub(crate) async fn page(&self, number: usize) -> anyhow::Result<()> {
        let last = self.library.messages as f64;
        let depth = (number as f64 * STRIDE).fract() * (last - PAGE as f64);
        let before = depth as i64 + PAGE as i64 + 1;
        let call = self
            .api(number)
            .history(self.library.long, Span::Before(Seq(before)), PAGE);
        let page = tokio::time::timeout(PATIENCE, call).await??;
        let seqs = page.items.iter().map(|message| message.seq.0);
        anyhow::ensure!(
            seqs.eq(before - PAGE as i64..before),
            "the page before {before} is not whole"
        );
        Ok(())
    }

    pub(crate) async fn list(&self, number: usize) -> anyhow::Result<()> {
        let request = PageRequest {
            limit: Some(PAGE),
            cursor: None,
        };
        let call = self.api(number).conversations(&request);
        let page = tokio::time::timeout(PATIENCE, call).await??;
        anyhow::ensure!(!page.items.is_empty(), "the list is empty");
        Ok(())
    }

    /// The last 50 entries, over a socket.
    pub(crate) async fn sync(&self, number: usize) -> anyhow::Result<()> {
        let sync = ClientCommand::Sync(Sync {
            reference: None,
            cursors: Some(self.cursors.clone()),
            since: None,
        });
        let mut socket = self.sockets[number % self.sockets.len()].lock().await;
        let answer = async {
            socket.send(&sync).await?;
            let mut entries = 0;
            loop {
                match socket.recv().await? {
                    ServerEvent::MessageBatch(batch) => entries += batch.messages.len(),
                    ServerEvent::Error(error) => anyhow::bail!("{}", error.message),
                    ServerEvent::SyncDone(_) => break,
                    _ => {}
                }
            }
            anyhow::ensure!(
                entries == PAGE,
                "a sync brought {entries} entries, not {PAGE}"
            );
            Ok(())
        };
        tokio::time::timeout(PATIENCE, answer).await?
    }
}

/// Where each conversation of a person ends.
async fn ends(api: &Api) -> anyhow::Result<HashMap<ConversationId, Seq>> {
    let mut ends = HashMap::new();
    let mut request = PageRequest {
        limit: Some(PAGE),
        cursor: None,
    };
    loop {
        let page = api.conversations(&request).await;
        let page = page.context("reading the conversation list")?;
        ends.extend(page.items.iter().map(|c| (c.conversation_id, c.last_seq)));
        request.cursor = page.next_cursor;
        if request.cursor.is_none() {
            return Ok(ends);
        }
    }
}
