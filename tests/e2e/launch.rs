//! Commands that find no daemon, one that is about to end, or one that they start.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use latentd_client::blocking::Client;
use latentd_client::codec::{Decoder, Limits, Message};
use latentd_client::protocol::{Empty, JobListParams};

use crate::harness::{Daemon, fixtures, program};

const SMALL: [&str; 8] =
    ["generate", "a cat", "--width=64", "--height=64", "--steps=2", "--seed=7", "--checkpoint", "tiny-sd1"];

fn output(command: &mut Command) -> (Option<i32>, String) {
    let output = command.stdin(Stdio::null()).output().expect("ran");
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn shut_down(socket: &Path) {
    let mut client = Client::connect(Some(socket)).expect("it stays");
    client.call::<_, Empty>("shutdown", &Empty {}).expect("ends");
}

/// A place for a socket, as a daemon makes it.
fn place(folder: &Path) -> std::path::PathBuf {
    let place = folder.join("run/latentd");
    std::fs::create_dir_all(&place).expect("made");
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o700)).expect("set");
    place.join("latentd.sock")
}

#[test]
fn a_daemon_that_is_just_ending_is_followed_by_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = place(folder.path());
    let listener = UnixListener::bind(&socket).expect("bound");
    let ending = socket.clone();
    // It takes the connection, and is gone before it reads.
    let old = std::thread::spawn(move || {
        let connection = listener.accept().expect("connected");
        std::fs::remove_file(ending).expect("removed");
        drop(listener);
        drop(connection);
    });
    let mut command = program(folder.path());
    command.args(SMALL).args(["-o", "a.png", "--models-dir"]).arg(fixtures()).current_dir(folder.path());
    let (code, said) = output(&mut command);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("starting a daemon") && folder.path().join("a.png").exists(), "{said}");
    old.join().expect("no panic");
    shut_down(&socket);
}

#[test]
fn a_daemon_that_still_ends_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = place(folder.path());
    // Its lock is the last that it gives back.
    let lock = std::fs::File::create(socket.with_extension("sock.lock")).expect("made");
    lock.lock().expect("locked");
    let mut command = program(folder.path());
    command.args(SMALL).args(["-o", "a.png", "--models-dir"]).arg(fixtures()).current_dir(folder.path());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("spawned");
    let mut errors = child.stderr.take().expect("piped");
    let mut said = Vec::new();
    while !said.ends_with(b"latentd.log)\n") {
        let mut byte = [0];
        assert_eq!(errors.read(&mut byte).expect("read"), 1, "{}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    drop(lock);
    assert_eq!(child.wait().expect("ended").code(), Some(0));
    shut_down(&socket);
}

#[test]
fn an_answer_that_was_lost_is_no_second_job() {
    let daemon = Daemon::start();
    let socket = daemon.folder.path().join("between");
    let listener = UnixListener::bind(&socket).expect("bound");
    let real = daemon.socket.clone();
    // Hands the submit over, hangs up on both when it is answered, and keeps out of what comes then.
    let between = std::thread::spawn(move || {
        let accept =
            || (listener.accept().expect("connected").0, UnixStream::connect(&real).expect("connected"));
        let (client, server) = accept();
        std::io::copy(&mut Message1(&client, Decoder::new(Limits::default()), false), &mut &server)
            .expect("sent");
        assert!((&server).read(&mut [0; 4096]).expect("answered") > 0);
        drop((client, server));
        let (client, server) = accept();
        std::thread::scope(|scope| {
            scope.spawn(|| std::io::copy(&mut &server, &mut &client));
            std::io::copy(&mut &client, &mut &server).ok();
            server.shutdown(std::net::Shutdown::Both).ok();
        });
    });
    let (code, said) = output(daemon.command(&SMALL).args(["-o", "a.png", "--socket"]).arg(&socket));
    assert_eq!(code, Some(0), "{said}");
    between.join().expect("no panic");
    let mut client = Client::connect(Some(&daemon.socket)).expect("connected");
    let jobs = client.jobs(&JobListParams::default()).expect("listed");
    let drawn = jobs.iter().filter(|job| job.state.name() == "finished").count();
    assert!(drawn == 1 && jobs.iter().all(|job| job.state.is_terminal()), "{jobs:?}");
}

/// The bytes of the first message of a connection.
struct Message1<'a>(&'a UnixStream, Decoder, bool);

impl Read for Message1<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.2 {
            return Ok(0);
        }
        let count = self.0.read(buffer)?;
        self.1.feed(&buffer[..count]);
        let value = self.1.next_value().expect("MessagePack");
        self.2 = count == 0 || value.is_some_and(|value| Message::from_value(value).is_ok());
        Ok(count)
    }
}

#[test]
fn a_started_daemon_holds_nothing_of_who_started_it() {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(fixtures(), folder.path().join("models")).expect("linked");
    let (mut reader, writer) = std::io::pipe().expect("made");
    let inherited = OwnedFd::from(writer);
    // SAFETY: the descriptor is ours; this only lets programs that we start have it too.
    assert_eq!(unsafe { libc::fcntl(inherited.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    let mut command = program(folder.path());
    command.args(SMALL).args(["-o", "a.png"]).current_dir(folder.path()).env("LATENTD_MODELS_DIRS", "models");
    let (code, said) = output(&mut command);
    assert_eq!(code, Some(0), "{said}");
    drop(inherited);
    // It ends when nobody has it open any more.
    assert_eq!(reader.read(&mut [0]).expect("read"), 0);
    let log = folder.path().join("state/latentd/latentd.log");
    assert!(std::fs::read_to_string(&log).expect("there").contains("ready socket"));
    let socket = folder.path().join("run/latentd/latentd.sock");
    let pid = Client::connect(Some(&socket)).expect("it stays").status().expect("answered").pid;
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).expect("there"), Path::new("/"));
    shut_down(&socket);
}

#[test]
fn folders_of_the_environment_count_from_where_we_are() {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(fixtures().join("Stable-diffusion"), folder.path().join("mine"))
        .expect("linked");
    let mut command = program(folder.path());
    command.args(SMALL).args(["-o", "a.png"]).current_dir(folder.path()).env("LATENTD_CKPT_DIRS", "mine");
    let (code, said) = output(&mut command);
    assert_eq!(code, Some(0), "{said}");
    shut_down(&folder.path().join("run/latentd/latentd.sock"));
}

#[test]
fn the_log_of_a_started_daemon_has_an_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state/latentd");
    std::fs::create_dir_all(&state).expect("made");
    std::fs::write(state.join("latentd.log"), vec![b'x'; 5 << 20]).expect("written");
    let mut command = program(folder.path());
    command.args(SMALL).args(["-o", "a.png", "--models-dir"]).arg(fixtures()).current_dir(folder.path());
    let (code, said) = output(&mut command);
    assert_eq!(code, Some(0), "{said}");
    let log = std::fs::read_to_string(state.join("latentd.log")).expect("there");
    assert!(log.contains("ready socket") && !log.contains("xxx"), "{log}");
    assert_eq!(std::fs::metadata(state.join("latentd.log.1")).expect("kept").len(), 5 << 20);
    shut_down(&folder.path().join("run/latentd/latentd.sock"));
    // Why one could not start is told also where the log was put aside at that moment.
    std::fs::write(state.join("latentd.log"), vec![b'x'; 5 << 20]).expect("written");
    let lock = std::fs::File::options().append(true).open(state.join("lock")).expect("there");
    lock.lock().expect("the first one ends");
    let mut command = program(folder.path());
    let (code, said) = output(command.args(SMALL).current_dir(folder.path()));
    assert!(code == Some(1) && said.contains("already keeps its state"), "{said}");
    assert!(!std::fs::read_to_string(state.join("latentd.log")).expect("there").contains("xxx"));
}

#[test]
fn who_has_locked_the_state_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state/latentd");
    std::fs::create_dir_all(&state).expect("made");
    for journal in ["delete", "wal"] {
        let lock = rusqlite::Connection::open(state.join("state.db")).expect("opened");
        lock.pragma_update(None, "journal_mode", journal).expect("set");
        lock.execute_batch("BEGIN EXCLUSIVE").expect("locked");
        let mut command = program(folder.path());
        let (code, said) = output(command.arg("serve"));
        assert_eq!(code, Some(1), "{said}");
        let expected = format!("state.db is locked by process {} (", std::process::id());
        assert!(said.contains(&expected) && said.contains("end it"), "{journal}: {said}");
    }
}
