//! Starts daemons in folders of their own, and what the tests share.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use latentd_client::Client;
use latentd_client::codec::{Decoder, Limits, Message, encode_request};
use latentd_client::protocol::{ErrorName, Txt2ImgParams, WireError};
use rmpv::Value;
use tempfile::TempDir;

/// Within this, anything that is waited for has happened, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_mins(2);

/// A daemon that ends with the test.
pub(crate) struct Daemon {
    pub folder: TempDir,
    pub process: Child,
    pub socket: PathBuf,
    options: Options,
}

/// How a daemon is started.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// The models folder; the fixtures if `None`.
    pub models: Option<PathBuf>,
    /// More flags of `serve`.
    pub flags: Vec<String>,
    /// The configuration file's text.
    pub config: String,
    /// Bytes that no file of the daemon may exceed.
    pub file_size_limit: Option<u64>,
    /// The user it runs as, who must then own its folder; ours if `None`.
    pub user: Option<u32>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// Where its log goes.
    pub log: LogTo,
}

/// Where a daemon's log goes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum LogTo {
    /// Into a file, which [`Daemon::log`] reads.
    #[default]
    File,
    /// Onto a device that is full.
    Full,
    /// Into a pipe whose reader is gone.
    Nobody,
    /// Into a pipe that nobody reads.
    Unread,
}

impl Daemon {
    /// With the fixtures' models.
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with_flags(flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::with(Options { flags, ..Options::default() })
    }

    pub(crate) fn with(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("latentd-").tempdir().expect("a folder");
        let socket = folder.path().join("run/latentd/latentd.sock");
        if options.user.is_some() {
            std::os::unix::fs::chown(folder.path(), options.user, None).expect("given away");
        }
        let process = spawn(folder.path(), &options);
        let mut daemon = Self { folder, process, socket, options };
        daemon.wait_ready();
        daemon
    }

    /// Starts it again on the same folders, after it ended.
    pub(crate) fn restart(&mut self) {
        self.process = spawn(self.folder.path(), &self.options);
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        let line = first_line(&mut self.process).unwrap_or_else(|| panic!("not ready:\n{}", self.log()));
        assert_eq!(line, format!("latentd: listening on {}\n", self.socket.display()), "{}", self.log());
    }

    /// The variables it was given.
    pub(crate) fn environment(&self) -> &[(String, String)] {
        &self.options.environment
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until the log, which comes through a pipe, says `text`.
    pub(crate) fn wait_log(&self, text: &str) {
        let deadline = Instant::now() + SOON;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no '{text}' in\n{}", self.log());
            std::thread::yield_now();
        }
    }

    pub(crate) async fn client(&self) -> Client {
        within(Client::connect(Some(&self.socket))).await.expect("connected")
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: i32) {
        let process = i32::try_from(self.process.id()).expect("a process id");
        // SAFETY: the process is our child and not yet waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
    }

    /// Its files may have any size from now on.
    pub(crate) fn lift_file_size_limit(&self) {
        let process = i32::try_from(self.process.id()).expect("a process id");
        let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: reads the limit, which is ours; the process is our child.
        let set =
            unsafe { libc::prlimit(process, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(set, 0);
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.process.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A command of `latentd` that finds this daemon.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.folder.path());
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// `latentd` in a folder without anything else: plugins of ours that were built lie beside the program itself, and would be found.
pub(crate) fn alone() -> &'static Path {
    static ALONE: OnceLock<PathBuf> = OnceLock::new();
    ALONE.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_latentd"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alone");
        std::fs::create_dir_all(&folder).expect("a folder");
        let (new, path) = (folder.join(format!("new-{}", std::process::id())), folder.join("latentd"));
        std::fs::remove_file(&new).ok();
        std::fs::hard_link(built, &new).or_else(|_| std::fs::copy(built, &new).map(drop)).expect("linked");
        std::fs::rename(&new, &path).expect("in place");
        // Of one that was there already a rename leaves both.
        std::fs::remove_file(&new).ok();
        path
    })
}

/// `latentd` with all its folders under `folder`.
pub(crate) fn program(folder: &Path) -> Command {
    let mut command = Command::new(alone());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LATENTD_")) {
        command.env_remove(name);
    }
    // Tests may run under `nohup`, which what they start would inherit.
    // SAFETY: signal is async-signal-safe, and SIG_DFL is a valid disposition.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    command.env("HOME", folder);
    for (variable, part) in [
        ("XDG_RUNTIME_DIR", "run"),
        ("XDG_STATE_HOME", "state"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_DATA_HOME", "data"),
    ] {
        command.env(variable, folder.join(part));
    }
    command
}

/// The command that starts a daemon.
pub(crate) fn serve(folder: &Path, options: &Options) -> Command {
    let config = folder.join("config.toml");
    std::fs::write(&config, &options.config).expect("written");
    let mut command = program(folder);
    command.arg("serve").arg("--config").arg(config);
    command.arg("--models-dir").arg(options.models.clone().unwrap_or_else(fixtures));
    command.args(&options.flags).envs(options.environment.iter().cloned());
    if let Some(user) = options.user {
        command.uid(user).current_dir("/");
    }
    if let Some(bytes) = options.file_size_limit {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: setrlimit is async-signal-safe and reads the limit, which the closure owns.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
    }
    command
}

fn spawn(folder: &Path, options: &Options) -> Child {
    let mut command = serve(folder, options);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if options.log == LogTo::Full {
        command.stderr(std::fs::File::options().write(true).open("/dev/full").expect("opened"));
    }
    let mut process = command.spawn().expect("spawned");
    match options.log {
        // The daemon's own limits must not cut its log: it goes through a pipe.
        LogTo::File => {
            let mut errors = process.stderr.take().expect("piped");
            let mut log =
                std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("opened");
            std::thread::spawn(move || std::io::copy(&mut errors, &mut log));
        }
        LogTo::Nobody => drop(process.stderr.take()),
        LogTo::Full | LogTo::Unread => (),
    }
    process
}

/// The first line on stdout; `None` if it ends, or says nothing in time.
pub(crate) fn first_line(process: &mut Child) -> Option<String> {
    let out = process.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(out).read_line(&mut line);
        sender.send(read.ok().filter(|length| *length > 0).map(|_| line)).ok();
    });
    receiver.recv_timeout(SOON).ok().flatten()
}

/// The folder of small checkpoints with random weights.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models")
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

/// A picture that is quick to draw.
pub(crate) fn small(seed: i64) -> Txt2ImgParams {
    Txt2ImgParams {
        prompt: "a red circle on a blue background".into(),
        seed,
        steps: 2,
        width: Some(64),
        height: Some(64),
        checkpoint: Some("tiny-sd1".into()),
        ..Default::default()
    }
}

/// A job that is still running whenever a test looks at it.
pub(crate) fn long() -> Txt2ImgParams {
    Txt2ImgParams { steps: 1000, width: Some(256), height: Some(256), ..small(1) }
}

/// The daemon's error, which a call must have ended with.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(
    outcome: Result<T, latentd_client::Error>,
    name: ErrorName,
) -> String {
    let error = outcome.expect_err("refused");
    let wire = error.wire().unwrap_or_else(|| panic!("not from the daemon: {error}"));
    assert_eq!(wire.name, name, "{wire}");
    wire.text.clone()
}

/// A connection without a client: bytes in, messages out.
pub(crate) struct Raw {
    pub stream: UnixStream,
    decoder: Decoder,
    last_id: u32,
}

impl Raw {
    pub(crate) fn connect(daemon: &Daemon) -> Self {
        let stream = UnixStream::connect(&daemon.socket).expect("connected");
        stream.set_read_timeout(Some(SOON)).expect("set");
        stream.set_write_timeout(Some(SOON)).expect("set");
        Self { stream, decoder: Decoder::new(Limits::default()), last_id: 0 }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    pub(crate) fn send_value(&mut self, value: &Value) {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).expect("encodes");
        self.send(&bytes);
    }

    /// The next message; `None` when the daemon has closed.
    pub(crate) fn next(&mut self) -> Option<Message> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(value) = self.decoder.next_value().expect("the daemon speaks MessagePack") {
                return Some(Message::from_value(value).expect("the daemon speaks RPC"));
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.decoder.feed(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Sends a request and gives its answer; notifications in between are passed over.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Result<Value, WireError> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&encode_request(id, method, params).expect("encodes"));
        self.answer(id)
    }

    pub(crate) fn answer(&mut self, wanted: u32) -> Result<Value, WireError> {
        loop {
            match self.next().expect("an answer") {
                Message::Response { id, error, result } if id == wanted => {
                    return if error.is_nil() { Ok(result) } else { Err(WireError::from_value(&error)) };
                }
                Message::Notification { .. } => (),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A map with text keys.
pub(crate) fn map(entries: &[(&str, Value)]) -> Value {
    Value::Map(entries.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect())
}
