//! How quickly the daemon itself answers: `cargo bench -p latentd --bench daemon`.
//!
//! Start to readiness over a folder of 1,000 model files, the round trip of `ping`, what `prompt.tokens` takes, and how long a cancelled job
//! goes on, beside the time of one of its steps. Medians, with the worst beside them.
#![allow(clippy::print_stdout, reason = "the report is what this is for")]

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use latentd_client::Client;
use latentd_client::codec::{Decoder, Limits, encode_request};
use latentd_client::protocol::{EventKind, JobState, LibraryListParams, PromptTokensParams, Txt2ImgParams};

const MODELS: usize = 1000;

/// A daemon of its own, in a folder of its own.
struct Daemon {
    process: Child,
    ready: Duration,
    socket: PathBuf,
}

impl Daemon {
    fn start(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let socket = folder.join("socket");
        let begun = Instant::now();
        let mut process = Command::new(env!("CARGO_BIN_EXE_latentd"))
            .arg("serve")
            .args([Path::new("--socket"), &socket])
            .args([Path::new("--state-dir"), &folder.join("state")])
            .args([Path::new("--models-dir"), &folder.join("models")])
            .env("XDG_CONFIG_HOME", folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = process.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut String::new())?;
        Ok(Self { process, ready: begun.elapsed(), socket })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let checkpoints = folder.path().join("models/Stable-diffusion");
    std::fs::create_dir_all(&checkpoints)?;
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/models/Stable-diffusion/tiny-sd1.safetensors");
    let first = checkpoints.join("model-0000.safetensors");
    std::fs::copy(fixture, &first)?;
    for index in 1..MODELS {
        std::fs::hard_link(&first, checkpoints.join(format!("model-{index:04}.safetensors")))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(folder.path()))
}

/// How long the answer to a request takes to come, whatever a client makes of it.
fn answers(daemon: &Daemon, params: &PromptTokensParams) -> Result<Vec<Duration>, Box<dyn Error>> {
    let params = rmpv::decode::read_value(&mut rmp_serde::to_vec_named(params)?.as_slice())?;
    let request = encode_request(1, "prompt.tokens", &params)?;
    let mut stream = UnixStream::connect(&daemon.socket)?;
    let (mut decoder, mut answer) = (Decoder::new(Limits::default()), vec![]);
    stream.write_all(&request)?;
    while decoder.next_value()?.is_none() {
        let mut bytes = [0; 16384];
        let count = stream.read(&mut bytes)?;
        decoder.feed(&bytes[..count]);
        answer.extend_from_slice(&bytes[..count]);
    }
    let mut times = vec![];
    for _ in 0..1000 {
        let begun = Instant::now();
        stream.write_all(&request)?;
        // Each is as long as the first.
        stream.read_exact(&mut answer)?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

async fn measure(folder: &Path) -> Result<(), Box<dyn Error>> {
    let daemon = Daemon::start(folder)?;
    println!("first start over {MODELS} models: ready in {:.1?}", daemon.ready);
    let begun = Instant::now();
    let client = Client::connect(Some(&daemon.socket)).await?;
    let listed = client.library(&LibraryListParams::default()).await?;
    println!("  all {} looked into and listed {:.1?} later", listed.entries.len(), begun.elapsed());
    drop(daemon);

    let mut starts = vec![];
    for _ in 0..9 {
        starts.push(Daemon::start(folder)?.ready);
    }
    report("start over 1,000 models, again", starts);

    let daemon = Daemon::start(folder)?;
    let client = Client::connect(Some(&daemon.socket)).await?;
    let mut pings = vec![];
    for _ in 0..20_000 {
        let begun = Instant::now();
        client.ping().await?;
        pings.push(begun.elapsed());
    }
    report("ping round trip", pings);

    let words = "a fox in the snow, (sharp focus:1.2), masterpiece, ";
    let changing = "a [red:blue:0.5] fox in the [snow|rain], (sharp focus:1.2), masterpiece, ";
    for (what, text) in [("words", words), ("words that change, four texts", changing)] {
        let text = text.repeat(200).chars().take(4096).collect();
        let typed = PromptTokensParams { text, ..PromptTokensParams::default() };
        report(
            &format!("prompt.tokens of 4 KB of {what}, to the answer's last byte"),
            answers(&daemon, &typed)?,
        );
        let mut reads = vec![];
        for _ in 0..1000 {
            let begun = Instant::now();
            client.prompt_tokens(&typed).await?;
            reads.push(begun.elapsed());
        }
        report("  and as the Rust client has it", reads);
    }

    let request = Txt2ImgParams {
        prompt: "a lighthouse at dusk".into(),
        steps: 1000,
        width: Some(256),
        height: Some(256),
        ..Txt2ImgParams::default()
    };
    let (mut cancels, mut steps) = (vec![], vec![]);
    for _ in 0..9 {
        let job = client.submit("txt2img", &request, None).await?;
        let mut events = client.subscribe(&job, 0).await?;
        let mut before = None;
        while let Some(event) = events.next().await {
            let EventKind::Progress { step, .. } = event.kind else { continue };
            if let Some((last, begun)) = before.replace((step, Instant::now()))
                && last > 0
                && step == last + 1
            {
                steps.push(Instant::elapsed(&begun));
            }
            if step >= 5 {
                break;
            }
        }
        let begun = Instant::now();
        client.cancel(&job).await?;
        if client.wait(&job).await.is_ok() || client.job(&job).await?.state != JobState::Cancelled {
            return Err("the job was not cancelled".into());
        }
        cancels.push(begun.elapsed());
    }
    report("one step of 256×256 with the tiny model", steps);
    report("from cancel to the job's end", cancels);
    Ok(())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at =
        |share: usize| times.get(times.len() * share / 100).or(times.last()).copied().unwrap_or_default();
    println!("{what}: p50 {:.1?}, p99 {:.1?}", at(50), at(99));
}
