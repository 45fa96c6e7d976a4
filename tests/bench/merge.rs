//! How much memory a merge of two checkpoints of the real size takes, and how long: `cargo bench -p latentd --bench merge`.
//!
//! Makes two files of random f16 in the shapes of SD 1.5 (2 GiB each, which with what is merged of them need 6.5 GiB in the
//! temporary folder, or in the folder that is given), and merges them in a daemon of its own: a weighted sum, then the
//! difference of three. Says for each how much the daemon had in memory at most, mapped pages of files among it and not.
#![allow(clippy::print_stdout, reason = "the report is what this is for")]

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use latentd_client::Client;
use latentd_client::protocol::{EventKind, MergeParams};
use latentd_models::model::{Checkpoint, ComponentKind};
use latentd_models::nn::Precision;
use latentd_models::nn::backend::dry_run::dry_run;
use serde_json::{Map, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How often memory is looked at, where the kernel keeps no highest value.
const LOOK_EVERY: Duration = Duration::from_millis(2);

fn main() -> Outcome<()> {
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let own = tempfile::tempdir()?;
    let folder = given.map_or_else(|| own.path().to_owned(), PathBuf::from);
    let checkpoints = folder.join("Stable-diffusion");
    std::fs::create_dir_all(&checkpoints)?;
    for (seed, name) in [(1, "a"), (2, "b"), (3, "c")] {
        let path = checkpoints.join(format!("{name}.safetensors"));
        // The third may have the numbers of the first.
        if name == "c" && !path.exists() {
            std::fs::hard_link(checkpoints.join("a.safetensors"), &path)?;
        } else if !path.exists() {
            make(&path, seed)?;
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&folder))
}

/// Writes a checkpoint in the shapes of SD 1.5 with small random numbers.
fn make(path: &Path, seed: u64) -> Outcome<()> {
    let (device, _) = dry_run();
    let synthetic = Checkpoint::synthetic_sd15();
    let (mut header, mut end) = (Map::new(), 0);
    for kind in ComponentKind::ALL {
        let component = synthetic.load(kind, &device, Precision::F32, &|| false)?;
        for (name, part) in component.parts.iter() {
            let shape = part.shape();
            let bytes = shape.iter().product::<usize>() * 2;
            let tensor = json!({"dtype": "F16", "shape": shape, "data_offsets": [end, end + bytes]});
            header.insert(name.to_owned(), tensor);
            end += bytes;
        }
    }
    let mut text = serde_json::to_vec(&header)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(&text)?;
    let mut state = seed;
    for _ in 0..end / 8 {
        // Xorshift; of each number the sign and the mantissa, of a size that weights have.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.write_all(&(state & 0x83ff_83ff_83ff_83ff | 0x2400_2400_2400_2400).to_le_bytes())?;
    }
    out.write_all(&vec![0; end % 8])?;
    out.flush()?;
    println!("{}: {} MiB, {} tensors", path.display(), end >> 20, header.len());
    Ok(())
}

/// A daemon of its own.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn measure(folder: &Path) -> Outcome<()> {
    for (what, c) in [("weighted sum", None), ("difference of three", Some("c".to_owned()))] {
        let state = tempfile::tempdir()?;
        let socket = state.path().join("socket");
        let process = Command::new(env!("CARGO_BIN_EXE_latentd"))
            .arg("serve")
            .args([Path::new("--socket"), &socket])
            .args([Path::new("--state-dir"), state.path()])
            .args([Path::new("--models-dir"), folder])
            .env("XDG_CONFIG_HOME", state.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut daemon = Daemon(process);
        let stdout = daemon.0.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut String::new())?;
        let client = Client::connect(Some(&socket)).await?;
        let method = c.is_some().then(|| "add_difference".to_owned());
        let b = Some("b".to_owned());
        let params =
            MergeParams { b, c, method, multiplier: 0.5, overwrite: true, ..MergeParams::new("a", "merged") };
        let id = daemon.0.id();
        let ended = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ended);
        let looks = std::thread::spawn(move || {
            let mut most = 0;
            while !has_ended.load(Ordering::Relaxed) {
                most = most.max(status(id, "RssAnon").unwrap_or_default());
                std::thread::sleep(LOOK_EVERY);
            }
            most
        });
        let (mut hashed, begun) = (None, Instant::now());
        let merged = client.merge_models_with(&params, |event| match &event.kind {
            EventKind::Progress { stage, .. } if stage.as_deref() == Some("merging") => {
                hashed.get_or_insert_with(|| begun.elapsed());
            }
            _ => {}
        });
        let merged = merged.await;
        ended.store(true, Ordering::Relaxed);
        let most_own = looks.join().map_err(|_| "the look at memory failed")?;
        let merged = merged?;
        let (all, hashed) = (begun.elapsed(), hashed.unwrap_or_default());
        println!(
            "{what}: {} tensors, {} MiB in {:.1?} after {hashed:.1?} of hashing; VmHWM {} MiB, RssAnon at most {} MiB",
            merged.tensors,
            merged.bytes >> 20,
            all.saturating_sub(hashed),
            status(id, "VmHWM").ok_or("no VmHWM")? >> 10,
            most_own >> 10
        );
        std::fs::remove_file(merged.path)?;
    }
    Ok(())
}

/// A line of what the kernel says of a process, in KiB.
fn status(process: u32, line: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|each| each.strip_prefix(line)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}
