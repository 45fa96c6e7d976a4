//! What a confined process may, and what it may not: tried by a program in C, which says what each attempt led to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::{SOON, program};

/// Memory that is granted, if not told otherwise.
const MEMORY: u64 = 64 << 20;

/// The program that tries.
fn tries() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tries");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e/confined.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Werror", "-pthread", "-o"]).arg(&path).arg(source);
        let built = compiler.output().expect("a compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        (folder, path)
    });
    path
}

/// Runs a program with these grants, beside the right to run it.
fn confined(flags: &[&str], path: &Path, arguments: &[&str]) -> Command {
    let mut command = program(Path::new("/nowhere"));
    command.arg("confined").arg(format!("--memory={MEMORY}")).arg(format!("--parent={}", std::process::id()));
    command.args(flags).arg(path).args(arguments).stdin(Stdio::null());
    command
}

/// The same, with what it runs granted, and nothing of our environment.
fn run(flags: &[&str], path: &Path, arguments: &[&str]) -> Output {
    let run = format!("--run={}", path.display());
    let flags: Vec<&str> = flags.iter().copied().chain([run.as_str()]).collect();
    let mut command = confined(&flags, path, arguments);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").output().expect("started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What each attempt led to.
fn tried(flags: &[&str], arguments: &[&str]) -> BTreeMap<String, i32> {
    let output = run(flags, tries(), arguments);
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    let told = text(&output.stdout);
    let line = |line: &str| {
        let (name, error) = line.rsplit_once(' ').expect("two words");
        (name.to_owned(), error.parse().expect("a number"))
    };
    told.lines().map(line).collect()
}

#[track_caller]
fn check(found: &BTreeMap<String, i32>, expected: &[(i32, &[&str])]) {
    let named: BTreeMap<&str, i32> =
        expected.iter().flat_map(|(error, names)| names.iter().map(|name| (*name, *error))).collect();
    let found: BTreeMap<&str, i32> = found.iter().map(|(name, error)| (name.as_str(), *error)).collect();
    let differs = named.iter().filter(|(name, error)| found.get(**name) != Some(error));
    let differs: Vec<_> = differs.map(|(name, error)| (name, error, found.get(*name))).collect();
    assert!(differs.is_empty(), "(what, expected, found): {differs:?}");
    assert_eq!(found.len(), named.len(), "{:?}", found.keys().filter(|name| !named.contains_key(*name)));
}

#[test]
fn other_processes_are_out_of_reach() {
    let mut other = Command::new("sleep").arg("600").spawn().expect("started");
    let found = tried(&[], &["others", &other.id().to_string()]);
    assert_eq!(other.try_wait().expect("asked"), None, "it lives");
    other.kill().expect("killed");
    other.wait().expect("waited");
    let denied = [
        "kill",
        "kill-group",
        "kill-all",
        "tgkill",
        "tkill",
        "sigqueue",
        "pidfd_open",
        "ptrace",
        "process_vm_readv",
        "setowner",
        "setsignal",
        "ioctl-owner",
        "prlimit",
        "raise",
        "raise-memory",
        "setpriority",
        "setpriority-user",
        "affinity",
    ];
    let own = ["kill-own", "tgkill-own", "prlimit-own", "setpriority-own", "affinity-own"];
    check(&found, &[(libc::EPERM, &denied), (0, &own), (libc::EACCES, &["proc-mem", "proc-environ"])]);
    // The one that it looks at most: who started it.
    let found = tried(&[], &["others", &std::process::id().to_string()]);
    check(&found, &[(libc::EPERM, &denied), (0, &own), (libc::EACCES, &["proc-mem", "proc-environ"])]);
}

#[test]
fn no_process_is_begun() {
    let denied = [
        "fork",
        "vfork",
        "clone",
        "system",
        "unshare",
        "chroot",
        "personality",
        "death",
        "typed",
        "io_uring",
        "bpf",
        "keyctl",
        "perf",
        "userfaultfd",
    ];
    let found = tried(&[], &["processes"]);
    check(
        &found,
        &[(0, &["thread", "personality-ask"]), (libc::EPERM, &denied), (libc::ENOSYS, &["clone3", "newest"])],
    );
    // Without the right to become a program, not even this one.
    let output = confined(&[], tries(), &["inside"]).output().expect("started");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Operation not permitted"), "{}", text(&output.stderr));
    // With that right to one, no other outside of the system's.
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy");
    std::fs::copy("/bin/true", &copy).expect("copied");
    let output = run(
        &[&format!("--read={}", copy.display())],
        Path::new("/bin/sh"),
        &["-c", &format!("exec {}", copy.display())],
    );
    assert_eq!(output.status.code(), Some(126), "{}", text(&output.stderr));
    // abort() works: it is a signal to itself.
    assert_eq!(run(&[], tries(), &["abort"]).status.signal(), Some(libc::SIGABRT));
}

#[test]
fn the_network_is_a_grant() {
    let mut families: Vec<String> = (1..=17).map(|family| format!("socket/{family}")).collect();
    let mut denied: Vec<&str> = families.iter().map(String::as_str).collect();
    denied.extend(["datagrams", "bind", "pair-datagrams", "pair-raw"]);
    let free = ["pair", "pair-packets", "pipe"];
    check(&tried(&[], &["sockets"]), &[(libc::EPERM, &denied), (0, &free)]);
    let mut found = tried(&["--network"], &["sockets"]);
    // Where there is no IPv6 it is not for us to allow.
    assert!([0, libc::EAFNOSUPPORT].contains(&found["socket/10"]));
    found.remove("socket/10");
    families.retain(|family| !["socket/2", "socket/10"].contains(&family.as_str()));
    let mut denied: Vec<&str> = families.iter().map(String::as_str).collect();
    denied.extend(["pair-datagrams", "pair-raw"]);
    // What it tries to bind is no socket.
    let bound = found.remove("bind").expect("tried");
    assert_eq!(bound, libc::ENOTSOCK);
    check(&found, &[(libc::EPERM, &denied), (0, &["pair", "pair-packets", "pipe", "socket/2", "datagrams"])]);
}

#[test]
fn memory_has_a_limit_that_nothing_gets_around() {
    check(
        &tried(&[], &["memory", &MEMORY.to_string()]),
        &[
            (0, &["half", "reserve", "stack-limit"]),
            (libc::ENOMEM, &["more", "malloc", "commit"]),
            (libc::EPERM, &["shared", "validated", "stack", "memfd", "shmget", "msgget"]),
            (libc::EACCES, &["zero", "shm"]),
        ],
    );
}

#[test]
fn files_are_read_and_written_where_that_is_granted() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (writes, file, home) = (at("writes"), at("file"), at("home"));
    std::fs::create_dir(&writes).expect("made");
    std::fs::create_dir(&home).expect("made");
    std::fs::write(&file, "text").expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
    std::fs::write(Path::new(&home).join("secret"), "secret").expect("written");
    let flags = [&*format!("--write={writes}"), &*format!("--read={file}")];
    let found = tried(&flags, &["files", &writes, &file, &home]);
    let allowed = [
        "read-file",
        "own-status",
        "own-task",
        "cpuinfo",
        "meminfo",
        "cpus",
        "null",
        "random",
        "library",
        "make",
        "write",
        "own-times",
        "truncate",
        "list",
        "mkdir",
        "rmdir",
        "symlink",
        "unlink",
    ];
    let not_granted = [
        "change-file",
        "append-file",
        "rename-file",
        "remove-file",
        "home",
        "secret",
        "passwd",
        "root",
        "tmp",
        "proc",
        "proc-1",
        "tty",
        "change-library",
        "mkfifo",
        "through-link",
    ];
    check(
        &found,
        &[
            (0, &allowed),
            (libc::EACCES, &not_granted),
            (libc::EPERM, &["chmod-file", "chown-file", "times-file", "watch"]),
            (libc::EXDEV, &["link"]),
        ],
    );
    assert_eq!(std::fs::read(&file).expect("there"), b"text");
    let mode = std::fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn it_has_nothing_of_the_one_who_started_it() {
    let mut command =
        confined(&["--inherited=1", &format!("--run={}", tries().display())], tries(), &["inside"]);
    command.env_clear().env("ONE", "1");
    // What the one who started it left open.
    // SAFETY: dup2 is async-signal-safe, and these numbers are nobody's in the child.
    unsafe {
        command.pre_exec(|| {
            for number in [3, 4, 9, 700] {
                libc::dup2(0, number);
            }
            Ok(())
        });
    }
    let output = command.output().expect("started");
    let zeros = "0000000000000000";
    let expected = format!(
        "ONE=1\nopen 0\nopen 1\nopen 2\nopen 3\nat /\nprivileges 1\ncore 0\nCapPrm:\t{zeros}\nCapEff:\t{zeros}\n"
    );
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
}

/// Languages whose programs are scripts: if they are here.
#[test]
fn interpreters_run() {
    let folder = tempfile::tempdir().expect("a folder");
    for (interpreter, name, script) in [
        (
            "/usr/bin/python3",
            "x.py",
            "import json, threading, struct, ctypes, os, hashlib\n\
             t = threading.Thread(target=lambda: print('thread')); t.start(); t.join()\n\
             open(os.environ['TMPDIR'] + '/made', 'w').write('made')\n\
             try: open('/root/.profile')\n\
             except OSError as error: print(error.errno)\n\
             try: os.fork()\n\
             except OSError as error: print(error.errno)\n",
        ),
        (
            "/usr/bin/node",
            "x.js",
            "const fs = require('fs');\n\
             console.log('thread');\n\
             fs.writeFileSync(process.env.TMPDIR + '/made', 'made');\n\
             try { fs.readFileSync('/root/.profile') } catch (error) { console.log(-error.errno) }\n\
             const { error } = require('child_process').spawnSync('true');\n\
             console.log(-error.errno);\n",
        ),
    ] {
        if !Path::new(interpreter).exists() {
            continue;
        }
        let script_path = folder.path().join(name);
        std::fs::write(&script_path, script).expect("written");
        let (read, write) =
            (format!("--read={}", script_path.display()), format!("--write={}", folder.path().display()));
        let run = format!("--run={interpreter}");
        let flags = [&*read, &*write, &*run, "--memory=2000000000"];
        let mut command = program(Path::new("/nowhere"));
        command.arg("confined").arg(format!("--parent={}", std::process::id())).args(flags).arg(interpreter);
        command.arg(&script_path).env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8");
        let output = command.env("TMPDIR", folder.path()).stdin(Stdio::null()).output().expect("started");
        let told = text(&output.stdout);
        assert_eq!(told, "thread\n13\n1\n", "{interpreter}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{interpreter}");
        assert!(output.status.success());
        std::fs::remove_file(folder.path().join("made")).expect("made");
    }
}

fn exists(id: u32) -> bool {
    // Killed is as good as gone: whose child it became waits for it.
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn it_ends_with_the_one_who_started_it() {
    let shell = |parent: &str| -> Child {
        let latentd = env!("CARGO_BIN_EXE_latentd");
        let tries = tries().display();
        let script = format!(
            "{latentd} confined --memory=1000000 --parent={parent} --run={tries} {tries} wait & echo $!; wait"
        );
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell.spawn().expect("started")
    };
    let mut one = shell("$$");
    let mut lines = BufReader::new(one.stdout.take().expect("piped")).lines();
    let id: u32 = lines.next().expect("a line").expect("read").parse().expect("a number");
    assert_eq!(lines.next().expect("a line").expect("read"), "ready");
    assert!(exists(id));
    one.kill().expect("killed");
    until("it outlives its parent", || !exists(id));
    one.wait().expect("waited");
    // One whose parent ended before it could ask for that.
    let mut other = shell("1");
    let mut told = String::new();
    other.stderr.take().expect("piped").read_to_string(&mut told).expect("read");
    assert!(told.contains("process 1, which started this one, is gone"), "{told}");
    other.wait().expect("waited");
}
