//! Finds a running daemon, or starts one in the background.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use latentd_client::protocol::ErrorName;
use latentd_client::{Client, Error};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::output::say;
use crate::config::Config;
use crate::{process, state_dir};

/// How long a daemon that `generate` started stays when nobody uses it, unless the configuration says otherwise.
const IDLE_EXIT_S: u64 = 600;
/// How long a daemon may take to be ready.
const READY: Duration = Duration::from_secs(30);
/// How often a request is made in all, while one daemon after the other ends.
const ATTEMPTS: u32 = 3;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Asks the daemon of this configuration, which is started if none runs. One that ends meanwhile, say because nobody has
/// used it for long enough, is followed by another: then `request` is made once more.
pub(super) async fn ask<T>(
    global: &GlobalArgs,
    config: &Config,
    models_dirs: &[PathBuf],
    request: impl AsyncFn(&Client) -> Result<T, Error>,
) -> Result<(Client, T), Failure> {
    let mut attempts = 1..=ATTEMPTS;
    loop {
        let client = connect_or_start(global, config, models_dirs).await?;
        let error = match request(&client).await {
            Ok(answer) => return Ok((client, answer)),
            Err(error) => error,
        };
        attempts.next();
        if attempts.is_empty() || !has_ended(&client, &error).await {
            return Err(error.into());
        }
    }
}

/// Whether a daemon gave an error because it has ended, or does so with nothing left to do.
async fn has_ended(client: &Client, error: &Error) -> bool {
    match error {
        Error::Closed(_) => return true,
        Error::Daemon(error) if error.name == ErrorName::Busy => (),
        _ => return false,
    }
    let Ok(status) = client.status().await else {
        return true;
    };
    if !status.stopping || status.queue.running.is_some() || status.queue.queued > 0 {
        return false;
    }
    let ended = async {
        while client.ping().await.is_ok() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(READY, ended).await.is_ok()
}

/// A connection to the daemon of this configuration, which is started if none runs.
pub(super) async fn connect_or_start(
    global: &GlobalArgs,
    config: &Config,
    models_dirs: &[PathBuf],
) -> Result<Client, Failure> {
    match Client::connect(Some(&config.socket)).await {
        Ok(client) => {
            if !models_dirs.is_empty() {
                say(
                    "latentd: a daemon runs already, with the folders it was given; --models-dir changes nothing",
                );
            }
            return Ok(client);
        }
        Err(Error::Connect { error, .. })
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
        Err(error) => return Err(error.into()),
    }
    let log = config.state_dir.join("latentd.log");
    say(&format!("latentd: starting a daemon in the background (log: {})", log.display()));
    let mut command = daemon_command(global, config, models_dirs, &log)?;
    let ready = tokio::task::spawn_blocking(move || start(&mut command));
    let failed = |what: String| Failure::new(format!("the daemon did not start: {what}{}", last_line(&log)));
    match tokio::time::timeout(READY, ready).await {
        Ok(Ok(Ok(()))) => {
            Client::connect(Some(&config.socket)).await.map_err(|error| failed(error.to_string()))
        }
        Ok(Ok(Err(error))) => match Client::connect(Some(&config.socket)).await {
            // Somebody else's start was quicker.
            Ok(client) => Ok(client),
            Err(_) => Err(failed(error.to_string())),
        },
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("it was not ready within {} s", READY.as_secs()))),
    }
}

fn daemon_command(
    global: &GlobalArgs,
    config: &Config,
    models_dirs: &[PathBuf],
    log: &Path,
) -> Result<Command, Failure> {
    let open_log = || -> io::Result<File> {
        state_dir::make_private(&config.state_dir)?;
        File::options().create(true).append(true).open(log)
    };
    let stderr =
        open_log().map_err(|error| Failure::new(format!("cannot write {}: {error}", log.display())))?;
    let program =
        std::env::current_exe().map_err(|error| Failure::new(format!("cannot find myself: {error}")))?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--socket").arg(&config.socket).arg("--state-dir").arg(&config.state_dir);
    // What is said before the log begins goes to stderr, which is the same file.
    command.arg("--log-file").arg(log);
    if let Some(file) = global.config_file()? {
        command.arg("--config").arg(file);
    }
    for folder in models_dirs {
        command.arg("--models-dir").arg(folder);
    }
    for (variable, folders) in config.folders_of_environment() {
        // Not to be sought in the folder where it runs.
        command.env(variable, std::env::join_paths(folders).map_err(Failure::usage)?);
    }
    let idle = if config.idle_exit_s == 0 { IDLE_EXIT_S } else { config.idle_exit_s };
    command.arg("--idle-exit-s").arg(idle.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    // No folder of its user's is held by a process that stays.
    command.current_dir("/");
    process::detach(&mut command);
    Ok(command)
}

/// Starts it and waits for its line.
fn start(command: &mut Command) -> io::Result<()> {
    let mut child = command.spawn()?;
    let mut out = child.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
    let mut line = Vec::new();
    let mut byte = [0];
    while out.read(&mut byte)? == 1 {
        if byte == [b'\n'] {
            return Ok(());
        }
        line.extend_from_slice(&byte);
    }
    let status = child.wait()?;
    Err(io::Error::other(format!("it ended with {status}")))
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().map(|line| format!(" ({line})")).unwrap_or_default()
}
