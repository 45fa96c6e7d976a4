//! What plugins cost: `cargo bench -p latentd --bench plugins`.
//!
//! How long the first request with a plugin takes more than the next (finding, copying and loading it, or starting a process that
//! does), what a call takes that does nothing (of each block of the UNet, one after the other, and of each step, when the UNet has had
//! the caches), what stages take that read and give pictures or latents of 512 × 512, and how much longer a request takes beside a
//! plugin that it does not name: within the daemon and in a process of the plugin's own. What a stage takes is what further calls add,
//! so an instance's beginning and end are not in it. The plugins are built with `cc`.
#![allow(clippy::print_stdout, reason = "the report is what this is for")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use latentd_client::Client;
use latentd_client::protocol::{PluginParams, Precision, Txt2ImgParams, Txt2ImgResult};

/// A daemon of its own, in a folder of its own.
struct Daemon {
    process: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start(folder: &Path, isolation: &str) -> Result<Self, Box<dyn Error>> {
        let socket = folder.join("socket");
        let config = ["vignette", "faults", "costs"]
            .map(|name| format!("[plugins.{name}]\nisolation = \"{isolation}\"\n"))
            .concat();
        let path = folder.join("config.toml");
        std::fs::write(&path, config)?;
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models");
        let mut process = Command::new(env!("CARGO_BIN_EXE_latentd"))
            .arg("serve")
            .args([Path::new("--socket"), &socket])
            .args([Path::new("--state-dir"), &folder.join("state")])
            .args([Path::new("--models-dir"), &models])
            .args([Path::new("--config"), &path])
            .env("XDG_CONFIG_HOME", folder)
            .env("XDG_DATA_HOME", folder.join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = process.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut String::new())?;
        Ok(Self { process, socket })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Builds a plugin, and puts it where the daemon looks.
fn install(folder: &Path, source: &str) -> Result<(), Box<dyn Error>> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let (source, plugins) = (repository.join(source), folder.join("data/latentd/plugins"));
    std::fs::create_dir_all(&plugins)?;
    let name = source.file_stem().ok_or("no name")?;
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-I"])
        .arg(repository.join("plugin-api/include"))
        .arg(&source)
        .arg("-o")
        .arg(plugins.join(name).with_extension("so"))
        .arg("-lm")
        .current_dir(source.parent().ok_or("no folder")?)
        .status()?;
    if built.success() { Ok(()) } else { Err("cc failed".into()) }
}

fn request(steps: u32, plugin: Option<&str>) -> Txt2ImgParams {
    Txt2ImgParams {
        prompt: "a red circle on a blue background".into(),
        seed: 7,
        steps,
        width: Some(64),
        height: Some(64),
        checkpoint: Some("tiny-sd1".into()),
        precision: Precision::F32,
        plugins: plugin.map(|name| (name.to_owned(), PluginParams::default())).into_iter().collect(),
        ..Txt2ImgParams::default()
    }
}

async fn timed(client: &Client, params: &Txt2ImgParams) -> Result<(Duration, Txt2ImgResult), Box<dyn Error>> {
    let begun = Instant::now();
    let drawn = client.txt2img(params).await?;
    Ok((begun.elapsed(), drawn))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Steps of requests whose plugin is called once a step: the difference is what calls take, without the instance.
const FEW: u32 = 5;
const MANY: u32 = 45;

/// Rounds of each kind of request, one after the other.
const ROUNDS: usize = 60;

/// Passes of requests whose plugin is called once a pass, likewise.
const PASSES: u32 = 5;

/// A request whose plugin is called at a stage.
fn at(stage: &str, request: Txt2ImgParams) -> Txt2ImgParams {
    let params = serde_json::Map::from_iter([("at".to_owned(), stage.into())]);
    let plugins = [("costs".to_owned(), PluginParams::from_json(params))].into();
    Txt2ImgParams { plugins, ..request }
}

/// One whose plugin reads and gives what there is at a stage of 512 × 512, so often.
fn turning(stage: &str, passes: u32) -> Txt2ImgParams {
    at(stage, Txt2ImgParams { n_iter: passes, width: Some(512), height: Some(512), ..request(1, None) })
}

/// Seconds that a plugin took by itself.
fn spent(drawn: &Txt2ImgResult, plugin: &str) -> Result<f64, Box<dyn Error>> {
    Ok(drawn.plugin_timings.get(plugin).copied().ok_or("not told")?)
}

/// How often functions of `costs` were called.
async fn calls(client: &Client) -> Result<u64, Box<dyn Error>> {
    let status = client.status().await?;
    Ok(status.plugins.iter().find(|plugin| plugin.name == "costs").map_or(0, |plugin| plugin.calls))
}

async fn measure(folder: &Path, isolation: &str) -> Result<(), Box<dyn Error>> {
    println!("isolation = \"{isolation}\"");
    let mut loads = vec![];
    for _ in 0..10 {
        let folder = tempfile::tempdir_in(folder)?;
        install(folder.path(), "plugin-api/examples/vignette/vignette.c")?;
        let daemon = Daemon::start(folder.path(), isolation)?;
        let client = Client::connect(Some(&daemon.socket)).await?;
        timed(&client, &request(1, None)).await?;
        let mut plain = vec![];
        let first = timed(&client, &request(1, Some("vignette"))).await?.0;
        for _ in 0..10 {
            plain.push(timed(&client, &request(1, Some("vignette"))).await?.0.as_secs_f64());
        }
        loads.push((first.as_secs_f64() - median(plain)) * 1e3);
    }
    println!("  first request with a plugin over the next: {:.2} ms", median(loads));

    let folder = tempfile::tempdir_in(folder)?;
    let daemon = Daemon::start(folder.path(), isolation)?;
    let client = Client::connect(Some(&daemon.socket)).await?;
    timed(&client, &request(20, None)).await?;
    let mut without = vec![];
    for _ in 0..ROUNDS {
        without.push(timed(&client, &request(20, None)).await?.0.as_secs_f64());
    }
    install(folder.path(), "plugin-api/examples/vignette/vignette.c")?;
    install(folder.path(), "tests/fixtures/plugins/faults.c")?;
    install(folder.path(), "tests/fixtures/plugins/costs.c")?;
    let expected = timed(&client, &request(20, None)).await?.1.images;
    let (mut beside, mut few, mut many) = (vec![], vec![], vec![]);
    let mut blocks = vec![];
    let (mut images, mut latents) = (vec![], vec![]);
    for round in 0..ROUNDS {
        let (time, drawn) = timed(&client, &request(20, None)).await?;
        beside.push(time.as_secs_f64());
        if drawn.images != expected {
            return Err("a plugin that is not named changed a picture".into());
        }
        // noise.init, denoise.combine of each step, image.post; each answers that it does nothing.
        for (steps, all) in [(FEW, &mut few), (MANY, &mut many)] {
            let drawn = timed(&client, &request(steps, Some("faults"))).await?.1;
            all.push(spent(&drawn, "faults")? * 1e6);
        }
        // Microseconds that further calls of a plugin add, and how many those are.
        let costs = async |few: &Txt2ImgParams, many: &Txt2ImgParams| {
            let (mut took, mut called) = ([0.0; 2], [0; 2]);
            for (index, params) in [few, many].into_iter().enumerate() {
                let before = calls(&client).await?;
                took[index] = spent(&timed(&client, params).await?.1, "costs")? * 1e6;
                called[index] = calls(&client).await? - before;
            }
            Ok::<f64, Box<dyn Error>>((took[1] - took[0]) / (called[1] - called[0]) as f64)
        };
        let stage = "unet.block/draft-1";
        blocks.push(costs(&at(stage, request(FEW, None)), &at(stage, request(MANY, None))).await?);
        // Larger pictures take longer.
        if round % 4 > 0 {
            continue;
        }
        for (stage, all) in [("image.post/draft-1", &mut images), ("latent.final/draft-1", &mut latents)] {
            all.push(costs(&turning(stage, 1), &turning(stage, PASSES)).await?);
        }
    }
    println!(
        "  a request beside plugins that it does not name, over one without any: {:.3}",
        median(beside) / median(without)
    );
    let a_call = (median(many) - median(few)) / f64::from(MANY - FEW);
    println!(
        "  a call that does nothing: {:.2} µs in each block, {a_call:.2} µs in each step",
        median(blocks)
    );
    println!("  an image of 512 × 512 turned around in image.post: {:.0} µs", median(images));
    println!("  latents of 64 × 64 turned around in latent.final: {:.0} µs", median(latents));
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for isolation in ["inline", "process"] {
        runtime.block_on(measure(folder.path(), isolation))?;
    }
    Ok(())
}
