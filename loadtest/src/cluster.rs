//! What is driven, one's own or somebody else's, and who drives it: from the options of a kind to a
//! plan for the people there are.

use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::calm::Calm;
use crate::dialect::Dialect;
use crate::direct::Load;
use crate::disk::Disk;
use crate::meter::Meter;
use crate::options::{Common, DirectOptions, GroupOptions, IdleOptions, Kind, MixedOptions};
use crate::peer::Peer;
use crate::population::Population;
use crate::report::Run;
use crate::sampler::Sampler;
use crate::spawn::{Rig, SpawnOptions};
use crate::{direct, drain, group, history, idle, mixed, presence, redis_restart, storm};

/// People beside the pairs of a mixed day, for each sort of thing that they do.
const COMPANY: usize = 100;
/// Members of each group of those who come back.
const GROUP: usize = 10;
/// Registered with a password, which takes the server its time.
const ACCOUNTS: usize = 20;
/// Messages and conversations of the one who reads.
const LIBRARY: (u32, u32) = (10_000, 50);

/// A run that has not come to its end.
struct UnderWay {
    name: String,
    kind: &'static str,
    sampler: Sampler,
}

/// What is driven, and who drives it.
pub(crate) struct Cluster {
    pub nodes: u8,
    pub targets: Vec<String>,
    dialect: Dialect,
    /// Whether it is a peer, which has less to offer.
    is_peer: bool,
    meter: Meter,
    population: Population,
    under_way: Option<UnderWay>,
    /// A run did something to its servers.
    pub is_harmed: bool,
    /// Stopped with the cluster.
    rig: Option<Rig>,
}

impl Cluster {
    /// Starts one, of Rookery's nodes or of a peer's; with targets, they are it.
    ///
    /// # Errors
    /// Something does not start.
    pub(crate) async fn start(
        common: &Common,
        nodes: u8,
        peer: Option<&Peer>,
    ) -> anyhow::Result<Self> {
        ensure!(
            common.pids.is_empty() || !common.target.is_empty(),
            "--pids is for --target: of its own cluster the load test knows them"
        );
        let spawn = SpawnOptions {
            nodes,
            ..common.spawn.clone()
        };
        let rig = match common.target.is_empty() {
            true => Some(Rig::start(&spawn, peer).await?),
            false => None,
        };
        let rookery = Dialect::Rookery(common.format.into());
        let (targets, roles) = match &rig {
            Some(rig) => (rig.targets.clone(), rig.roles.clone()),
            None => (common.target.clone(), common.pids.clone()),
        };
        Ok(Self {
            nodes,
            dialect: peer.map_or(rookery, |peer| peer.dialect),
            is_peer: peer.is_some(),
            meter: Meter::new(roles)?,
            population: Population::new(&targets, rig.as_ref().map(|rig| rig.bulk.clone()))?,
            targets,
            under_way: None,
            is_harmed: false,
            rig,
        })
    }

    /// Where the data are of a database of its own.
    pub(crate) fn disk(&self) -> Option<&Disk> {
        self.rig.as_ref().map(|rig| &rig.disk)
    }

    /// How calm the machine was before one's own cluster was started.
    pub(crate) fn calm(&self) -> Option<&Calm> {
        self.rig.as_ref().map(|rig| &rig.calm)
    }

    /// Runs one run, and samples meanwhile.
    ///
    /// # Errors
    /// It cannot be measured.
    pub(crate) async fn sampled(
        &mut self,
        name: &str,
        kind: &Kind,
        common: &Common,
    ) -> anyhow::Result<Run> {
        if let Some(rig) = &self.rig {
            rig.bulk.rest().await?;
        }
        // What ended between runs is no part of this one.
        self.meter.ended();
        self.under_way = Some(UnderWay {
            name: name.to_owned(),
            kind: kind.name(),
            sampler: Sampler::start(self.meter.clone()),
        });
        let mut run = self.run(kind, common).await?;
        if let Some(under_way) = self.under_way.take() {
            (run.samples, run.measured_from_s) = under_way.sampler.finish();
        }
        run.notes.extend(self.meter.ended());
        name.clone_into(&mut run.name);
        kind.name().clone_into(&mut run.kind);
        Ok(run)
    }

    /// What is known of a run that was cut short.
    pub(crate) fn torso(&mut self) -> Option<Run> {
        let under_way = self.under_way.take()?;
        let mut run = Run::new(&under_way.name, under_way.kind);
        run.about = "cut short: only what was sampled meanwhile".to_owned();
        (run.samples, run.measured_from_s) = under_way.sampler.finish();
        run.notes = self.meter.ended();
        Some(run)
    }

    async fn run(&mut self, kind: &Kind, common: &Common) -> anyhow::Result<Run> {
        if self.is_peer && !kind.suits_peers() {
            bail!("peers know messages one way, groups and idle connections, and nothing else");
        }
        self.is_harmed |= kind.does_harm().is_some();
        match kind {
            Kind::Direct { direct, rate } => self.direct(direct, *rate, common).await,
            Kind::Idle(options) => self.idle(options).await,
            Kind::Group(options) => self.group(options).await,
            Kind::History(options) => {
                let library = self
                    .population
                    .library(options.messages, options.conversations);
                let library = library.await?;
                history::run(&self.targets, &library, options, &self.meter).await
            }
            Kind::Presence(options) => {
                let members = options.watchers as usize + 1;
                let circles = self.population.circles(options.groups as usize, members);
                let circles = circles.await?;
                presence::run(&self.targets, &circles, options, &self.meter).await
            }
            Kind::Storm(options) => {
                let plan = storm::Plan {
                    targets: self.targets.clone(),
                    people: self
                        .population
                        .people(options.connections as usize)
                        .await?
                        .to_vec(),
                    at_once: usize::from(options.at_once),
                    format: common.format.into(),
                };
                storm::run(&plan, &self.meter).await
            }
            Kind::Drain(options) => {
                let seconds = Duration::from_secs(options.seconds);
                let direct = in_turns(options.users, options.warmup, seconds);
                let plan = self
                    .direct_plan(&direct, Some(options.rate), common)
                    .await?;
                drain::run(plan, own(&mut self.rig)?, &self.meter).await
            }
            Kind::RedisRestart(options) => {
                let direct = in_turns(options.users, options.warmup, options.measure());
                let plan = self
                    .direct_plan(&direct, Some(options.rate), common)
                    .await?;
                redis_restart::run(plan, own(&mut self.rig)?, options, &self.meter).await
            }
            Kind::Mixed { direct, mixed } => {
                let company = self.company(direct.users, mixed).await?;
                let plan = self.direct_plan(direct, Some(mixed.rate), common).await?;
                mixed::run(plan, &company, mixed, &self.meter).await
            }
        }
    }

    async fn idle(&mut self, options: &IdleOptions) -> anyhow::Result<Run> {
        let (count, each) = (options.connections as usize, options.conversations as usize);
        let plan = idle::Plan {
            targets: self.targets.clone(),
            people: self.population.sociable(count, each).await?,
            conversations_each: each,
            watch: Duration::from_secs(options.watch),
            dialect: self.dialect,
        };
        idle::run(&plan, &self.meter).await
    }

    async fn group(&mut self, options: &GroupOptions) -> anyhow::Result<Run> {
        let (count, members) = (options.groups as usize, options.members as usize);
        let plan = group::Plan {
            targets: self.targets.clone(),
            dialect: self.dialect,
            circles: self.population.assemblies(count, members).await?,
            window: options.window as usize,
            warmup: Duration::from_secs(options.warmup),
            measure: Duration::from_secs(options.seconds),
            content_bytes: options.bytes as usize,
        };
        group::run(&plan, &self.meter).await
    }

    async fn direct(
        &mut self,
        options: &DirectOptions,
        rate: Option<f64>,
        common: &Common,
    ) -> anyhow::Result<Run> {
        let plan = self.direct_plan(options, rate, common).await?;
        direct::run(plan, &self.meter).await
    }

    /// Those beside the pairs, as many as their rates need, and nobody twice.
    async fn company(
        &mut self,
        users: u32,
        options: &MixedOptions,
    ) -> anyhow::Result<mixed::Company> {
        let people = |rate: f64| if rate > 0.0 { COMPANY } else { 0 };
        let (watched, typing) = (people(options.presence), people(options.typing));
        // In groups, so that there are conversations to ask about.
        let returning = people(options.reconnects) / GROUP;
        let after_pairs = users as usize;
        let after_watched = after_pairs + watched * 2;
        let after_typing = after_watched + typing * 2;
        let population = &mut self.population;
        let returning = population.circles_after(after_typing, returning, GROUP);
        let returning = returning.await?.into_iter();
        Ok(mixed::Company {
            circles: population.circles_after(after_pairs, watched, 2).await?,
            typists: population.circles_after(after_watched, typing, 2).await?,
            returning: returning.flat_map(|circle| circle.people).collect(),
            library: self.population.library(LIBRARY.0, LIBRARY.1).await?,
            accounts: self
                .population
                .accounts(people(options.logins).min(ACCOUNTS))
                .await?,
            targets: self.targets.clone(),
        })
    }

    async fn direct_plan(
        &mut self,
        options: &DirectOptions,
        rate: Option<f64>,
        common: &Common,
    ) -> anyhow::Result<direct::Plan> {
        let load = match rate {
            None => Load::Window {
                messages: options.window as usize,
            },
            Some(per_second) => Load::Rate { per_second },
        };
        Ok(direct::Plan {
            targets: self.targets.clone(),
            couples: self.population.couples(options.users as usize / 2).await?,
            load,
            both_ways: options.both_ways,
            marks: options.marks,
            warmup: Duration::from_secs(options.warmup),
            measure: Duration::from_secs(options.seconds),
            dialect: self.dialect,
            returns: !self.is_peer,
            content_bytes: options.bytes as usize,
            threads: usize::from(common.threads),
            witness: None,
        })
    }
}

/// The servers, for a run that does something to them.
fn own(rig: &mut Option<Rig>) -> anyhow::Result<&mut Rig> {
    rig.as_mut().context("these servers are somebody else's")
}

/// Pairs of people who write to each other in turns.
fn in_turns(users: u32, warmup: u64, measure: Duration) -> DirectOptions {
    DirectOptions {
        users,
        window: 1,
        both_ways: true,
        marks: false,
        seconds: measure.as_secs(),
        warmup,
        bytes: 120,
    }
}
