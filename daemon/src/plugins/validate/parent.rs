//! Has a child process do the checks, and another one where that ended: by a signal, by exiting, or because a check took too
//! long.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::list::{Check, What, checks};
use super::outcome::{Checked, Line, Options, Outcome};
use super::{library_checks, stage_checks};
use crate::plugins::manifest::Manifest;

/// How often it is looked whether the child is still there.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes of a line, of which the child's own are far from.
const LONGEST_LINE: usize = 1 << 20;

/// What is run as the child, which is then given `LIBRARY --seed N [--params JSON]`.
pub(crate) struct Program {
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
}

/// Does all checks of a library.
pub(super) fn run(
    library: &Path,
    manifest: &Manifest,
    program: &Program,
    options: &Options,
    told: &mut dyn FnMut(Checked),
) -> io::Result<()> {
    // Whoever builds it anew meanwhile does not change what is looked at.
    let folder = tempfile::Builder::new().prefix("latentd-validate-").tempdir()?;
    let copy = folder.path().join(format!("{}{}", manifest.name, std::env::consts::DLL_SUFFIX));
    std::fs::write(&copy, std::fs::read(library)?)?;
    let checks = checks(manifest);
    let mut runner =
        Runner { program, copy: &copy, checks: &checks, options, process: None, has_hung: false };
    // Why nothing more can be looked at; and the stages that do not return.
    let (mut broken, mut hung): (Option<String>, BTreeSet<&str>) = (None, BTreeSet::new());
    for (number, check) in checks.iter().enumerate() {
        let outcome = match (&broken, check.what) {
            (Some(why), _) => Outcome::Skipped(why.clone()),
            // It would hang in all of them.
            (None, What::Stage(stage, what))
                if hung.contains(stage) && what != stage_checks::Check::Cancelled =>
            {
                Outcome::Skipped("it did not return where all was usual".to_owned())
            }
            _ => runner.check(number, check)?,
        };
        let is_failed = matches!(outcome, Outcome::Failed(_));
        if is_failed && check.what.is_preparation() {
            broken = Some(format!("its {} failed", check.name));
        }
        match check.what {
            What::Stage(stage, stage_checks::Check::Usual) if runner.has_hung => {
                hung.insert(stage);
            }
            What::Library(library_checks::Check::DefaultParams) if runner.has_hung => {
                broken = Some("no instance can be made".to_owned());
            }
            _ => (),
        }
        told(Checked { name: check.name.clone(), outcome });
    }
    Ok(())
}

struct Runner<'a> {
    program: &'a Program,
    copy: &'a Path,
    checks: &'a [Check],
    options: &'a Options,
    process: Option<Process>,
    /// Whether the last check took too long.
    has_hung: bool,
}

/// What a child answered.
enum Answer {
    Outcome(Outcome),
    Ended(ExitStatus),
    TooLong,
}

impl Runner<'_> {
    fn check(&mut self, number: usize, check: &Check) -> io::Result<Outcome> {
        if self.process.is_none() {
            self.process = Some(Process::start(self.program, self.copy, self.options)?);
            for (before, preparation) in self.checks.iter().enumerate().take(number) {
                if preparation.what.is_preparation()
                    && let Outcome::Failed(why) | Outcome::Skipped(why) = self.ask(before, preparation)?
                {
                    return Ok(Outcome::Skipped(format!(
                        "its {} failed in a new process: {why}",
                        preparation.name
                    )));
                }
            }
        }
        self.ask(number, check)
    }

    fn ask(&mut self, number: usize, check: &Check) -> io::Result<Outcome> {
        let Some(process) = &mut self.process else {
            return Ok(Outcome::Skipped("its process ended".to_owned()));
        };
        let answer = if check.what == What::Exit {
            process.ask("end", self.options.limit)?
        } else {
            process.ask(&number.to_string(), self.options.limit)?
        };
        let has_hung = matches!(answer, Answer::TooLong);
        self.has_hung = false;
        let outcome = match answer {
            Answer::Outcome(outcome) => return Ok(outcome),
            Answer::Ended(status) if check.what == What::Exit && status.success() => Outcome::Ok,
            Answer::Ended(status) => Outcome::Failed(format!("{}{}", process.at, ended(status))),
            Answer::TooLong => {
                let seconds = self.options.limit.as_secs_f64();
                Outcome::Failed(format!("{}it did not return within {seconds} s", process.at))
            }
        };
        self.process = None;
        self.has_hung = has_hung;
        Ok(outcome)
    }
}

/// How a process ended, for people.
fn ended(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else {
        return format!("it ended the process, with exit code {}", status.code().unwrap_or_default());
    };
    let (name, what) = match signal {
        libc::SIGSEGV => ("SIGSEGV", ": it used an address where nothing is"),
        libc::SIGBUS => ("SIGBUS", ": it used an address that cannot be"),
        libc::SIGABRT => ("SIGABRT", ": it aborted"),
        libc::SIGFPE => ("SIGFPE", ": it divided an integer by 0"),
        libc::SIGILL => ("SIGILL", ": it ran into what is no code"),
        libc::SIGTRAP => ("SIGTRAP", ""),
        libc::SIGKILL => ("SIGKILL", ": was there too little memory?"),
        libc::SIGTERM => ("SIGTERM", ""),
        libc::SIGPIPE => ("SIGPIPE", ""),
        libc::SIGSYS => ("SIGSYS", ""),
        other => return format!("it was ended by signal {other}"),
    };
    format!("it was ended by {name}{what}")
}

/// A child, which ends with this.
struct Process {
    child: Child,
    socket: UnixStream,
    /// What came of a line.
    read: Vec<u8>,
    /// What it said that it tries, to be put before what came of it.
    at: String,
}

impl Process {
    fn start(program: &Program, library: &Path, options: &Options) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).arg(library).arg("--seed").arg(options.seed.to_string());
        if let Some(params) =
            options.params.as_ref().and_then(latentd_client::protocol::PluginParams::to_json)
        {
            command.arg("--params").arg(serde_json::Value::Object(params).to_string());
        }
        // What the plugin prints is no part of the report.
        let child = command.stdin(OwnedFd::from(theirs)).stdout(Stdio::from(io::stderr())).spawn()?;
        Ok(Self { child, socket, read: vec![], at: String::new() })
    }

    /// Says a line and waits for the answer.
    fn ask(&mut self, line: &str, limit: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + limit;
        self.at.clear();
        // If it ended meanwhile, that is seen below.
        self.socket.write_all(format!("{line}\n").as_bytes()).ok();
        let mut ended = None;
        let mut more = [0; 4096];
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                // What is no answer is something that the plugin wrote.
                match serde_json::from_slice(&line) {
                    Ok(Line::Outcome(outcome)) => return Ok(Answer::Outcome(outcome)),
                    Ok(Line::At(what)) => self.at = format!("{what}: "),
                    Err(_) => (),
                }
                continue;
            }
            if ended.is_none() && Instant::now() > deadline {
                return Ok(Answer::TooLong);
            }
            match self.socket.read(&mut more) {
                Ok(count) if count > 0 => {
                    if self.read.len() > LONGEST_LINE {
                        self.read.clear();
                    }
                    self.read.extend(more.get(..count).unwrap_or_default());
                    continue;
                }
                // Nobody has the other end any more.
                Ok(_) => {
                    thread::sleep(if ended.is_none() { Duration::from_millis(1) } else { Duration::ZERO });
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => (),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
            if let Some(status) = ended {
                // All that it wrote was read since.
                return Ok(Answer::Ended(status));
            }
            ended = self.child.try_wait()?;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
