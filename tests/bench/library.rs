//! A library of 30,000 files: `cargo bench -p latentd --bench library`.
//!
//! How long a first scan and a later start take until `library.list` answers, a list and a lookup, from the last byte of a
//! file to the event that tells of it, and what the daemon takes of the processor while nothing happens. The files are real:
//! LoRAs and embeddings of a few numbers, in folders of a thousand, a tenth with notes and a picture beside them.
#![allow(clippy::print_stdout, reason = "the report is what this is for")]

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use latentd_client::protocol::{LibraryEvent, LibraryGetParams, LibraryKind, LibraryListParams};
use latentd_client::{Client, LibraryStream};

const FILES: usize = 30_000;
const IN_ONE_FOLDER: usize = 1000;
/// Every so many files has notes and a picture.
const NOTED: usize = 10;

/// A daemon of its own, in a folder of its own.
struct Daemon {
    process: Child,
    begun: Instant,
    socket: PathBuf,
}

impl Daemon {
    fn start(folder: &Path, hashing: bool) -> Result<Self, Box<dyn Error>> {
        let socket = folder.join("socket");
        let begun = Instant::now();
        let mut process = Command::new(env!("CARGO_BIN_EXE_latentd"))
            .arg("serve")
            .args([Path::new("--socket"), &socket])
            .args([Path::new("--state-dir"), &folder.join("state")])
            .args([Path::new("--models-dir"), &folder.join("models")])
            .args(["--hash-in-background", if hashing { "true" } else { "false" }])
            .env("XDG_CONFIG_HOME", folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = process.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut String::new())?;
        Ok(Self { process, begun, socket })
    }

    /// Ticks of the processor that it took.
    fn ticks(&self) -> Result<u64, Box<dyn Error>> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields = stat.rsplit_once(')').ok_or("no fields")?.1.split_whitespace();
        // utime and stime, the 14th and 15th.
        Ok(fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
    }

    fn resident_kib(&self) -> Result<u64, Box<dyn Error>> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A safetensors file of one tensor.
fn file(tensor: &str, length: usize, number: usize) -> Vec<u8> {
    let header = format!(
        r#"{{"__metadata__":{{"ss_base_model_version":"sd_v1","ss_output_name":"file {number}"}},"{tensor}":{{"dtype":"F16","shape":[1,{length}],"data_offsets":[0,{}]}}}}"#,
        2 * length
    );
    let mut data = vec![0; 2 * length];
    data[..8].copy_from_slice(&(number as u64).to_le_bytes());
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn lora(number: usize) -> Vec<u8> {
    file("lora_unet_mid_block.lora_up.weight", 64, number)
}

fn make(models: &Path) -> std::io::Result<()> {
    for number in 0..FILES {
        let (kind, bytes) = match number % 3 {
            0 => ("embeddings", file("emb_params", 768, number)),
            _ => ("Lora", lora(number)),
        };
        let folder = models.join(kind).join(format!("part {}", number / IN_ONE_FOLDER));
        if number % IN_ONE_FOLDER < 3 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(folder.join(format!("file {number}.safetensors")), bytes)?;
        if number % NOTED == 0 {
            fs::write(folder.join(format!("file {number}.json")), r#"{"activation text": "word"}"#)?;
            fs::write(folder.join(format!("file {number}.preview.png")), b"")?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    make(&folder.path().join("models"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(folder.path()))
}

/// From the start of the process until all files are listed.
async fn start_and_list(folder: &Path) -> Result<(Daemon, Client, Duration), Box<dyn Error>> {
    let daemon = Daemon::start(folder, false)?;
    let client = Client::connect(Some(&daemon.socket)).await?;
    let entries = client.library(&LibraryListParams::default()).await?.entries;
    let files = entries.iter().filter(|entry| !entry.built_in).count();
    if files != FILES {
        return Err(format!("{files} files were found").into());
    }
    let taken = daemon.begun.elapsed();
    Ok((daemon, client, taken))
}

async fn measure(folder: &Path) -> Result<(), Box<dyn Error>> {
    let (daemon, client, cold) = start_and_list(folder).await?;
    println!("first start over {FILES} files, which are all looked into: listed after {cold:.2?}");
    drop((client, daemon));
    let mut starts = vec![];
    for _ in 0..9 {
        starts.push(start_and_list(folder).await?.2);
    }
    report("a later start until all are listed", starts);

    let (daemon, client, _) = start_and_list(folder).await?;
    let (mut lists, mut gets) = (vec![], vec![]);
    for _ in 0..20 {
        let begun = Instant::now();
        client.library(&LibraryListParams::default()).await?;
        lists.push(begun.elapsed());
    }
    report("library.list of all", lists);
    for number in (0..FILES).step_by(97).filter(|number| number % 3 != 0) {
        let get = LibraryGetParams { kind: LibraryKind::Lora, name: format!("file {number}") };
        let begun = Instant::now();
        client.library_entry(&get).await?;
        gets.push(begun.elapsed());
    }
    report("library.get of one", gets);

    let before = daemon.ticks()?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (ticks, kib) = (daemon.ticks()? - before, daemon.resident_kib()?);
    println!("idle for 10 s: {ticks} ticks (of 10 ms) of the processor; {} MiB of memory", kib / 1024);

    let mut events = client.subscribe_library().await?;
    let lora_at = |name: &str| folder.join("models/Lora").join(name);
    let (mut added, mut replaced, mut moved, mut removed) = (vec![], vec![], vec![], vec![]);
    for round in 0..9 {
        let (new, renamed) =
            (lora_at(&format!("new {round}.safetensors")), lora_at(&format!("moved {round}.safetensors")));
        let mut copy = fs::File::create(&new)?;
        copy.write_all(&lora(FILES + round))?;
        drop(copy);
        added.push(heard(&mut events, |event| !event.added.is_empty()).await?);
        fs::write(&new, lora(2 * FILES + round))?;
        replaced.push(heard(&mut events, |event| !event.changed.is_empty()).await?);
        fs::rename(&new, &renamed)?;
        moved.push(heard(&mut events, |event| !event.added.is_empty() && !event.removed.is_empty()).await?);
        fs::remove_file(&renamed)?;
        removed.push(heard(&mut events, |event| !event.removed.is_empty()).await?);
    }
    report("from the last byte of a new file to the event", added);
    report("of one that is written anew", replaced);
    report("of one that moves", moved);
    report("of one that is removed", removed);
    drop((events, client, daemon));

    let daemon = Daemon::start(folder, true)?;
    let client = Client::connect(Some(&daemon.socket)).await?;
    let begun = Instant::now();
    loop {
        let entries = client.library(&LibraryListParams::default()).await?.entries;
        if entries.iter().all(|entry| entry.hash.is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("all hashed in the background within {:.1?}", begun.elapsed());
    drop((client, daemon));
    let mut starts = vec![];
    for _ in 0..9 {
        starts.push(start_and_list(folder).await?.2);
    }
    report("a later start, with all hashes known", starts);
    Ok(())
}

/// Until the event comes.
async fn heard(
    events: &mut LibraryStream,
    is_it: impl Fn(&LibraryEvent) -> bool,
) -> Result<Duration, Box<dyn Error>> {
    let begun = Instant::now();
    loop {
        let event = events.next().await.ok_or("the connection ended")?;
        if is_it(&event) {
            return Ok(begun.elapsed());
        }
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at =
        |share: usize| times.get(times.len() * share / 100).or(times.last()).copied().unwrap_or_default();
    println!("{what}: p50 {:.1?}, p99 {:.1?}", at(50), at(99));
}
