//! The command line.

mod bench;
mod doctor;
mod generate;
mod jobs;
mod launch;
mod models;
mod serve;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use latentd_client::protocol::ErrorName;
use latentd_client::{Client, Error};

use crate::config::Config;

/// Keeps Stable Diffusion models in memory and serves every program of one user.
#[derive(Debug, Parser)]
#[command(
    name = "latentd",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 cancelled."
)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
struct GlobalArgs {
    /// The daemon's socket [default: $XDG_RUNTIME_DIR/latentd/latentd.sock; env: LATENTD_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The configuration file [default: $XDG_CONFIG_HOME/latentd/config.toml]
    #[arg(long, global = true, value_name = "FILE", env = "LATENTD_CONFIG")]
    config: Option<PathBuf>,
    /// Where job history, results and logs are [default: $XDG_STATE_HOME/latentd; env: LATENTD_STATE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl GlobalArgs {
    /// The configuration with these flags over it.
    fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::load(self.config.as_deref()).map_err(Failure::usage)?;
        if let Some(socket) = &self.socket {
            config.socket.clone_from(socket);
        }
        if let Some(state_dir) = &self.state_dir {
            config.state_dir.clone_from(state_dir);
        }
        Ok(config)
    }

    /// A connection to the daemon that runs.
    async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(Some(&self.config()?.socket)).await?)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground; prints one line with its socket once it is ready
    Serve(serve::ServeArgs),
    /// Draw pictures from text, with a running daemon or one that this starts
    Generate(Box<generate::GenerateArgs>),
    /// Look at jobs, wait for them, cancel them
    Jobs(jobs::JobsArgs),
    /// Look at the library, bring models into memory and out of it
    Models(models::ModelsArgs),
    /// Say what hardware, folders, socket and limits there are
    Doctor(doctor::DoctorArgs),
    /// Measure how fast and how large the stages of a picture are here
    Bench(bench::BenchArgs),
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// It went wrong.
    fn new(text: impl Display) -> Self {
        Self { text: text.to_string(), code: 1 }
    }

    /// It was asked wrongly.
    fn usage(text: impl Display) -> Self {
        Self { text: text.to_string(), code: 2 }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.wire().map(|error| error.name) {
            Some(ErrorName::InvalidParams) => 2,
            Some(ErrorName::Cancelled) => 130,
            _ => 1,
        };
        Self { text: error.to_string(), code }
    }
}

/// Runs the command that the arguments name.
#[allow(clippy::print_stderr)]
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome =
        latentd_models::nn::check_kernels().map_err(Failure::usage).and_then(|()| match cli.command {
            Command::Serve(args) => serve::run(&cli.global, args),
            Command::Generate(args) => block_on(generate::run(&cli.global, *args)),
            Command::Jobs(args) => block_on(jobs::run(&cli.global, args)),
            Command::Models(args) => block_on(models::run(&cli.global, args)),
            Command::Doctor(args) => block_on(doctor::run(&cli.global, args)),
            Command::Bench(args) => bench::run(&cli.global, &args),
        });
    outcome.unwrap_or_else(|failure| {
        eprintln!("latentd: {}", failure.text);
        ExitCode::from(failure.code)
    })
}

/// Runs a command that speaks to a daemon.
fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(command);
    // Not by dropping it: that would wait for a daemon that hangs at its start.
    runtime.shutdown_background();
    outcome
}

/// Prints lines; a reader that went away (`| head`) is no failure.
fn print(lines: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(lines.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a value as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::new)?;
    print(&format!("{text}\n"))
}
