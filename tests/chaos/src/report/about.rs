//! With what a run was made, so that it can be repeated.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::options::Options;
use crate::world::World;

#[derive(Debug, Serialize)]
pub(crate) struct About {
    pub(crate) seed: u64,
    pub(crate) minutes: f64,
    pub(crate) rate: f64,
    pub(crate) people: u16,
    pub(crate) devices: usize,
    pub(crate) kinds: Vec<String>,
    pub(crate) server: String,
    pub(crate) postgres: String,
    pub(crate) redis: String,
    pub(crate) machine: String,
}

impl About {
    pub(crate) async fn of(
        options: &Options,
        seed: u64,
        binary: &Path,
        world: &World,
    ) -> Result<Self> {
        let version = tokio::process::Command::new(binary)
            .arg("--version")
            .output()
            .await?;
        let redis = world.redis().await?.cli(&["INFO", "server"]).await?;
        let redis = redis
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"));
        Ok(Self {
            seed,
            minutes: options.minutes,
            rate: options.rate,
            people: options.people,
            devices: world.devices.len(),
            kinds: options.kinds.clone(),
            server: String::from_utf8_lossy(&version.stdout).trim().to_owned(),
            postgres: world.cluster.sql("show server_version").await,
            redis: redis.unwrap_or("unknown").trim().to_owned(),
            machine: machine(),
        })
    }
}

/// Processors and memory, as far as the system tells.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split(':').nth(1));
        value.map_or_else(|| "unknown".to_owned(), |value| value.trim().to_owned())
    };
    let (cpu, memory) = (
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal"),
    );
    format!("{cores} cores ({cpu}), {memory}")
}
