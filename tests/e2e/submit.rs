//! What a submit settles: names, files and folders, before the job's turn and for good.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use latentd_client::protocol::{
    ErrorName, JobListParams, JobState, OutputFormat, OutputParams, Txt2ImgParams, Txt2ImgResult,
};
use latentd_client::{Client, Error};
use rmpv::Value;

use crate::harness::{Daemon, Options, Raw, SOON, fixtures, long, map, refused, small, within};

fn fixture(name: &str) -> PathBuf {
    fixtures().join(format!("Stable-diffusion/{name}.safetensors"))
}

/// A models folder with the checkpoints `good` and `busy`, and a daemon over it.
fn start() -> (Daemon, tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let models = folder.path().join("Stable-diffusion");
    fs::create_dir(&models).expect("made");
    for name in ["good", "busy"] {
        fs::copy(fixture("tiny-sd1"), models.join(format!("{name}.safetensors"))).expect("copied");
    }
    let daemon = Daemon::with(Options { models: Some(folder.path().to_owned()), ..Options::default() });
    (daemon, folder, models)
}

fn good() -> Txt2ImgParams {
    Txt2ImgParams { checkpoint: Some("good".into()), ..small(1) }
}

/// Keeps the daemon from doing anything else.
async fn occupy(client: &Client) -> String {
    let params = Txt2ImgParams { checkpoint: Some("busy".into()), ..long() };
    let job = within(client.submit("txt2img", &params, None)).await.expect("submitted");
    // Until it runs, another one may come first.
    reaches(client, &job, JobState::Running).await;
    job
}

/// Waits until a job is in this state, on its way from one to the next.
async fn reaches(client: &Client, job: &str, wanted: JobState) {
    let waits = async {
        loop {
            match client.job(job).await.expect("known").state {
                state if state == wanted => break,
                JobState::Resolving | JobState::Queued => tokio::task::yield_now().await,
                state => panic!("{state}, not {wanted}"),
            }
        }
    };
    within(waits).await;
}

async fn submit(client: &Client, params: &Txt2ImgParams) -> Result<String, Error> {
    within(client.submit("txt2img", params, None)).await
}

/// What becomes of `job`, which waits behind `busy`.
async fn drawn_after(client: &Client, busy: &str, job: &str) -> Result<Txt2ImgResult, Error> {
    // On a busy machine it may not be resolved yet when its submit is answered.
    reaches(client, job, JobState::Queued).await;
    within(client.cancel(busy)).await.expect("cancelled");
    within(client.wait(job)).await
}

#[tokio::test]
async fn what_is_wrong_is_refused_at_once_while_another_job_runs() {
    let (daemon, _folder, models) = start();
    // Nobody looks through all of these for a name that is none.
    for index in 0..2000 {
        fs::write(models.join(format!("broken-{index}.safetensors")), b"broken").expect("written");
    }
    let client = daemon.client().await;
    within(client.rescan()).await.expect("scanned");
    let busy = occupy(&client).await;
    let dir = |dir: &str| OutputParams { format: OutputFormat::File, dir: Some(dir.into()) };
    let rows = [
        (Txt2ImgParams { checkpoint: Some("goood".into()), ..small(1) }, ErrorName::NotFound, "good"),
        (Txt2ImgParams { checkpoint: Some("broken-7".into()), ..small(1) }, ErrorName::Model, "broken-7"),
        (Txt2ImgParams { sampler_name: "Eular a".into(), ..good() }, ErrorName::InvalidParams, "'Euler a'"),
        (Txt2ImgParams { scheduler: "Karas".into(), ..good() }, ErrorName::InvalidParams, "'Karras'"),
        (Txt2ImgParams { seed: i64::MAX, batch_size: 2, ..good() }, ErrorName::InvalidParams, "seed:"),
        (
            Txt2ImgParams { n_iter: 1000, width: None, height: None, ..good() },
            ErrorName::InvalidParams,
            "lower n_iter",
        ),
        (Txt2ImgParams { output: dir("/no/such/folder"), ..good() }, ErrorName::InvalidParams, "no folder"),
    ];
    for (params, name, expected) in &rows {
        let mut quickest = SOON;
        for _ in 0..20 {
            let started = Instant::now();
            let outcome = submit(&client, params).await;
            quickest = quickest.min(started.elapsed());
            let text = refused(outcome, *name);
            assert!(text.contains(expected), "{text}");
        }
        assert!(quickest < Duration::from_millis(10), "{expected}: {quickest:?}");
    }
    let mut raw = Raw::connect(&daemon);
    let params = map(&[("method", "txt2img".into()), ("params", map(&[("promt", "x".into())]))]);
    let error = raw.call("jobs.submit", &params).expect_err("refused");
    assert!(error.text.contains("did you mean 'prompt'?"), "{error}");
    let jobs = within(client.jobs(&JobListParams::default())).await.expect("listed");
    assert_eq!(jobs.iter().map(|view| &view.job).collect::<Vec<_>>(), [&busy], "no job was made");
    // Put there a moment ago, and meant.
    fs::copy(fixture("tiny-sd1"), models.join("goood.safetensors")).expect("copied");
    let job = submit(&client, &rows[0].0).await.expect("submitted");
    drawn_after(&client, &busy, &job).await.expect("drawn");
}

#[tokio::test]
async fn a_file_that_is_replaced_or_removed_is_drawn_with_as_it_was() {
    let (daemon, folder, models) = start();
    let client = daemon.client().await;
    let file = models.join("good.safetensors");
    let reference = within(client.txt2img(&good())).await.expect("drawn").images;
    let replace = |from: &Path| {
        fs::copy(from, folder.path().join("new")).expect("copied");
        fs::rename(folder.path().join("new"), &file).expect("replaced");
    };
    for change in ["replaced", "removed"] {
        within(client.unload_model("good")).await.expect("unloaded");
        let busy = occupy(&client).await;
        let job = submit(&client, &good()).await.expect("submitted");
        reaches(&client, &job, JobState::Queued).await;
        if change == "replaced" {
            replace(&fixture("tiny-sd1-ema"));
        } else {
            fs::remove_file(&file).expect("removed");
        }
        let drawn = drawn_after(&client, &busy, &job).await.expect("drawn").images;
        assert!(drawn == reference, "{change}: the same bytes, the model's hash among them");
        if change == "replaced" {
            let other = within(client.txt2img(&good())).await.expect("drawn").images;
            assert!(other[0].png != reference[0].png, "the next request means the new file");
        } else {
            refused(submit(&client, &good()).await, ErrorName::NotFound);
        }
        replace(&fixture("tiny-sd1"));
    }
}

#[tokio::test]
async fn a_file_that_is_written_to_fails_its_job_by_name() {
    let (daemon, _folder, models) = start();
    let client = daemon.client().await;
    let file = models.join("good.safetensors");
    let bytes = fs::read(&file).expect("read");
    let other = fs::read(fixture("tiny-sd1-ema")).expect("read");
    let changes =
        [("truncated", &bytes[..bytes.len() / 2]), ("overwritten", &other[..]), ("again", &bytes[..])];
    for (change, content) in changes {
        // In memory or not.
        if change == "again" {
            within(client.load_model("good")).await.expect("loaded");
        }
        let busy = occupy(&client).await;
        let job = submit(&client, &good()).await.expect("submitted");
        reaches(&client, &job, JobState::Queued).await;
        fs::write(&file, content).expect("written");
        let text = refused(drawn_after(&client, &busy, &job).await, ErrorName::Model);
        assert!(text.contains("'good'") && text.contains("was written to"), "{change}: {text}");
        fs::write(&file, &bytes).expect("written");
        within(client.txt2img(&good())).await.expect("the next job is fine");
    }
}

#[tokio::test]
async fn a_request_is_the_same_as_it_was_sent() {
    let mut daemon = Daemon::start();
    let request = |steps: Value, more: &[(&str, Value)]| {
        let mut entries = vec![
            ("width", 64.into()),
            ("height", 64.into()),
            ("checkpoint", "tiny-sd1".into()),
            ("cfg_scale", steps.clone()),
        ];
        entries.extend(more.iter().map(|(key, value)| (*key, value.clone())));
        map(&[("method", "txt2img".into()), ("id", "mine".into()), ("params", map(&entries))])
    };
    let check = |daemon: &Daemon| {
        let mut raw = Raw::connect(daemon);
        for same in [request(2.into(), &[]), request(2.0.into(), &[]), request(2f32.into(), &[])] {
            assert_eq!(raw.call("jobs.submit", &same), Ok(map(&[("job", "mine".into())])));
        }
        for other in [request(3.into(), &[]), request(2.into(), &[("steps", 20.into())])] {
            let error = raw.call("jobs.submit", &other).expect_err("refused");
            assert_eq!(
                error.name,
                ErrorName::InvalidParams,
                "{error}: a default that is sent is another request"
            );
        }
    };
    check(&daemon);
    within(daemon.client().await.wait("mine")).await.expect("drawn");
    check(&daemon);
    daemon.signal(libc::SIGTERM);
    assert!(daemon.ended().success());
    daemon.restart();
    check(&daemon);
}

/// A file that answers nobody who opens it, until this is dropped: a lease that its holder does not give back.
struct Unanswering(fs::File);

impl Unanswering {
    fn new(path: &Path) -> Self {
        let file = fs::File::options().read(true).write(true).open(path).expect("opened");
        // SAFETY: plain system calls; the signal by which the holder is asked is ignored in this whole process.
        unsafe {
            libc::signal(libc::SIGIO, libc::SIG_IGN);
            assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK), 0, "leased");
        }
        Self(file)
    }
}

impl Drop for Unanswering {
    fn drop(&mut self) {
        // SAFETY: a plain system call on a file that is ours.
        unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    }
}

#[tokio::test]
async fn a_folder_that_does_not_answer_holds_up_nobody_else() {
    let (daemon, folder, models) = start();
    let client = daemon.client().await;
    within(client.txt2img(&good())).await.expect("drawn");
    // It comes into the folder as one whose name is known but not its content.
    let elsewhere = folder.path().join("elsewhere");
    fs::copy(fixture("tiny-sd1"), &elsewhere).expect("copied");
    let lease = Unanswering::new(&elsewhere);
    fs::rename(&elsewhere, models.join("slow.safetensors")).expect("moved");
    let slow = Txt2ImgParams { checkpoint: Some("slow".into()), ..small(1) };
    let mut jobs = Vec::new();
    for id in ["a", "b"] {
        jobs.push(within(client.submit("txt2img", &slow, Some(id))).await.expect("submitted"));
        assert_eq!(within(client.submit("txt2img", &slow, Some(id))).await.expect("the same"), id);
        assert_eq!(within(client.job(id)).await.expect("known").state, JobState::Resolving);
    }
    within(client.txt2img(&good())).await.expect("passes them by");
    let output = daemon.command(&["jobs", "list", "--state", "resolving"]).output().expect("ran");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    within(client.cancel("b")).await.expect("cancelled");
    refused(within(client.wait("b")).await, ErrorName::Cancelled);
    drop(lease);
    within(client.wait("a")).await.expect("drawn once the folder answers");
}
