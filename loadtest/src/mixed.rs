//! An ordinary day: pairs write to each other at a rate and mark what they read, and beside them
//! people type, come back, change their presence, read history and lists, and log in. All at once,
//! each at a rate of its own; what is measured is all of it.

use std::time::Duration;

use anyhow::Context;
use rookery_client::{Api, ClientCommand, Connect, ServerEvent, Socket};
use rookery_protocol::command::Sync;
use rookery_protocol::rest::Login;
use tokio::sync::oneshot;

use crate::direct;
use crate::history::Reader;
use crate::meter::Meter;
use crate::options::MixedOptions;
use crate::pace::{Outcome, Pace};
use crate::population::{Circle, Library, Person};
use crate::presence::{Signal, Stage};
use crate::report::Run;
use crate::schedule::Schedule;
use crate::source;

/// No answer within this is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is there beside the pairs, and nobody twice: who comes back was away. What has no rate has
/// nobody.
pub(crate) struct Company {
    pub targets: Vec<String>,
    pub circles: Vec<Circle>,
    pub typists: Vec<Circle>,
    pub returning: Vec<Person>,
    pub library: Library,
    pub accounts: Vec<Login>,
}

/// Runs it.
///
/// # Errors
/// As `direct`, and for a connection that is refused to those beside.
pub(crate) async fn run(
    plan: direct::Plan,
    company: &Company,
    options: &MixedOptions,
    meter: &Meter,
) -> anyhow::Result<Run> {
    let targets = &company.targets;
    let presence = Stage::connect(Signal::Presence, targets, &company.circles).await?;
    let typing = Stage::connect(Signal::Typing, targets, &company.typists).await?;
    let reader = Reader::connect(targets, &company.library).await?;
    let apis: Vec<Api> = targets.iter().map(|target| Api::new(target)).collect();
    let (begins, begun) = oneshot::channel();
    let beside = async {
        // Ends without a word when the pairs could not connect: their error is the one that counts.
        let Ok(schedule) = begun.await else {
            return Ok(Vec::new());
        };
        let schedule: Schedule = schedule;
        let pace = |rate: f64| {
            let pace = || Pace::between(rate, schedule.start, schedule.measure_to);
            (rate > 0.0).then(|| pace().counting_from(schedule.measure_from))
        };
        let (seen, typed, back, page, list, login) = tokio::try_join!(
            maybe(pace(options.presence), async |pace| presence
                .run(&pace)
                .await),
            maybe(pace(options.typing), async |pace| typing.run(&pace).await),
            maybe(pace(options.reconnects), async |pace| {
                let act = async |number| come_back(company, number).await;
                pace.run(act).await
            }),
            maybe(pace(options.history), async |pace| {
                pace.run(async |number| reader.page(number).await).await
            }),
            maybe(pace(options.lists), async |pace| {
                pace.run(async |number| reader.list(number).await).await
            }),
            maybe(pace(options.logins), async |pace| {
                pace.run(async |number| log_in(&apis, &company.accounts, number).await)
                    .await
            }),
        )?;
        let names = ["seen", "typing", "reconnect", "page", "list", "login"];
        let outcomes = [seen, typed, back, page, list, login];
        anyhow::Ok(names.into_iter().zip(outcomes).collect::<Vec<_>>())
    };
    let direct = direct::run_with(plan, meter, |schedule| {
        // Fails only when those beside have failed, which ends the run.
        let _ = begins.send(schedule);
    });
    let (mut run, beside) = tokio::try_join!(direct, beside)?;
    for (name, outcome) in beside {
        let Some(outcome) = outcome else { continue };
        match name {
            "seen" | "page" | "list" => outcome.put(&mut run, name),
            _ => outcome.put_loose(&mut run, name),
        }
    }
    run.about = format!("{}; {}", run.about, options.text());
    Ok(run)
}

/// Does it if it has a pace.
async fn maybe(
    pace: Option<Pace>,
    act: impl AsyncFnOnce(Pace) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Option<Outcome>> {
    match pace {
        Some(pace) => act(pace).await.map(Some),
        None => Ok(None),
    }
}

/// Connects, asks for what was missed, and goes away.
async fn come_back(company: &Company, number: usize) -> anyhow::Result<()> {
    let url = &company.targets[number % company.targets.len()];
    let person = &company.returning[number % company.returning.len()];
    let visit = async {
        let how = Connect {
            source: source::of(url, number % company.returning.len()),
            ..Connect::resuming(&person.token)
        };
        let mut socket = Socket::connect(url, &how).await?;
        socket.ready().await?;
        socket.send(&ClientCommand::Sync(Sync::default())).await?;
        loop {
            match socket.recv().await? {
                ServerEvent::SyncDone(_) => break,
                ServerEvent::Error(error) => anyhow::bail!("{}", error.message),
                _ => {}
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, visit)
        .await
        .context("coming back")?
}

async fn log_in(apis: &[Api], accounts: &[Login], number: usize) -> anyhow::Result<()> {
    let api = &apis[number % apis.len()];
    let login = api.login(&accounts[number % accounts.len()]);
    tokio::time::timeout(PATIENCE, login)
        .await
        .context("logging in")??;
    Ok(())
}
