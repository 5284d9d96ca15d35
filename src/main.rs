//! The `rookery` program. Its exit codes are those of [`Exit`].

use std::fmt::Display;
use std::future::Future;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rookery::app;
use rookery::config::{Config, Environment};
use rookery::exit::{self, Exit};
use rookery::lifecycle::signals;
use rookery::reload::Settings;
use rookery::store::BackupError;
use rookery::{descriptors, failpoint, healthcheck, telemetry};

/// Its settings are compiled in, see `.cargo/config.toml`.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long calls that block a thread may take when all else has ended.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// A self-hosted chat server that scales out.
///
/// Without any configuration it runs alone, on 127.0.0.1:8080, with a database in ./data. Set
/// DATABASE_URL to a postgres:// URL and REDIS_URL to run many nodes behind a load balancer.
/// `rookery config` shows all that can be set.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGTERM or SIGINT (the default command).
    ///
    /// The first signal drains: clients are told when to come back, and are sent elsewhere in small
    /// batches. A second signal, or drain.timeout_seconds, ends the process at once. SIGHUP has the
    /// configuration read again: keys of tokens and what is logged change without a restart.
    ///
    /// Exit codes: 0 stopped with everything finished; 1 it failed; 2 the configuration cannot work,
    /// trying again does not help; 3 ended before the drain was over; 4 PostgreSQL or Redis did not
    /// answer within start.timeout_seconds; 5 the schema lacks migrations, or is of a newer version;
    /// 6 another process has the address or the database.
    Serve(ServeArgs),
    /// Bring the database's schema up to date, then exit.
    Migrate(ConfigArgs),
    /// Copy the SQLite database to a new file while nodes write to it, and check the copy.
    ///
    /// The copy is as the database was at one moment, and is readable for this user only. To restore
    /// it, stop the node, remove the database with its -wal and -shm files, and put the copy in its
    /// place. PostgreSQL has pg_dump.
    ///
    /// Exit codes: 0 the copy is there and whole; 1 it failed or was interrupted, and nothing was left
    /// behind; 2 the file exists already, or the database is PostgreSQL.
    Backup(BackupArgs),
    /// Check the configuration and print the effective one, without secrets.
    ///
    /// What is printed can serve as a file for --config, secrets aside; each line says which variable
    /// it is and where its value comes from. Asks no server and changes nothing.
    ///
    /// Exit codes: 0 it can work; 2 it cannot, and standard error says what to set.
    Config(PrintArgs),
    /// Ask a running node whether it works; exit code 0 if it does, 1 if not.
    Healthcheck(HealthcheckArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// A TOML file with settings; environment variables win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not bring the schema up to date at the start; refuse to start if it is not.
    #[arg(long)]
    no_migrate: bool,
}

#[derive(Debug, Args)]
struct BackupArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where to put the copy; nothing may be there.
    #[arg(value_name = "PATH")]
    to: PathBuf,
}

#[derive(Debug, Args)]
struct PrintArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only check; print nothing but what is wrong.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct HealthcheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// What to ask, an http:// URL [default: /healthz at OPS_ADDR]
    #[arg(long)]
    url: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => {
            let options = app::Options {
                migrate: !args.no_migrate,
            };
            run(&args.config, |config, settings| {
                app::run(config, options, settings)
            })
        }
        Command::Migrate(args) => run(&args, async |config, _| {
            app::migrate(config).await?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Backup(args) => back_up(&args),
        Command::Config(args) => print(&args),
        Command::Healthcheck(args) => check_health(&args),
    }
}

/// Loads the configuration, starts the log and the runtime, and runs `work` to its end.
fn run<F>(args: &ConfigArgs, work: impl FnOnce(Config, Settings) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    let environment = Environment::of_this_process();
    let mut config = match Config::load(args.config.as_deref(), &environment) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let log = match telemetry::init(&config) {
        Ok(guard) => guard,
        Err(error) => return refuse(&error),
    };
    failpoint::setup();
    let settings = Settings::new(
        args.config.clone(),
        environment,
        config.clone(),
        log.levels(),
    );
    descriptors::make_room(&mut config.limits, config.database.pool_max as usize);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads)
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(work(config, settings));
            // A look-up of a name that hangs must not keep the process.
            runtime.shutdown_timeout(LAST_CALLS);
            outcome
        }
        Err(error) => Err(error.into()),
    };
    outcome.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        exit::of(&error).into()
    })
}

/// Touches nothing but the new file, not even the log of the node that may be running.
fn back_up(args: &BackupArgs) -> ExitCode {
    let file = args.config.config.as_deref();
    let config = match Config::check(file, &Environment::of_this_process()) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let copied = match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                copied = app::back_up(&config, &args.to) => copied,
                () = asked_to_end() => Err(BackupError::Interrupted),
            }
        }),
        Err(error) => {
            let path = args.to.clone();
            Err(BackupError::Write { path, error })
        }
    };
    match copied {
        Ok(size) => {
            // The copy is there, whoever hears of it.
            let told = format!("{}: {size} bytes, checked\n", args.to.display());
            io::stdout().write_all(told.as_bytes()).ok();
            Exit::Done.into()
        }
        Err(error) => {
            complain(&error);
            match error {
                BackupError::Postgres | BackupError::Exists(_) => Exit::Refused.into(),
                _ => Exit::Failed.into(),
            }
        }
    }
}

/// SIGTERM or SIGINT.
async fn asked_to_end() {
    match signals() {
        Ok(mut signals) => drop(signals.next().await),
        // They end the process by themselves, then.
        Err(_) => std::future::pending().await,
    }
}

fn print(args: &PrintArgs) -> ExitCode {
    let environment = Environment::of_this_process();
    match Config::show(args.config.config.as_deref(), &environment) {
        Ok(_) if args.check => ExitCode::SUCCESS,
        Ok(text) => {
            let mut stdout = io::stdout();
            let printed = stdout.write_all(text.as_bytes());
            match printed.and_then(|()| stdout.flush()) {
                // Whoever reads has read enough, as `head` does.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    complain(&format!("standard output: {error}"));
                    Exit::Failed.into()
                }
                _ => Exit::Done.into(),
            }
        }
        Err(error) => refuse(&error),
    }
}

fn check_health(args: &HealthcheckArgs) -> ExitCode {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => {
            let file = args.config.config.as_deref();
            match Config::check(file, &Environment::of_this_process()) {
                Ok(config) => healthcheck::url_of(config.http.ops_addr),
                Err(error) => return refuse(&error),
            }
        }
    };
    match healthcheck::ask(&url) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{url}: {error}"));
            Exit::Failed.into()
        }
    }
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    complain(&error);
    Exit::Refused.into()
}

/// To standard error, if somebody reads that: the exit code says the most important.
fn complain(why: &dyn Display) {
    writeln!(io::stderr(), "rookery: {why}").ok();
}
