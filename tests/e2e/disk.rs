//! A disk that is full, as a limit on the size of files: writes fail, nothing else does.

use latentd_client::protocol::{ErrorName, JobState, OutputFormat, OutputParams, Txt2ImgParams};

use crate::harness::{Daemon, Options, refused, small, within};

/// Enough for the daemon's own books at the start; not for a result of several pictures.
const LIMIT: u64 = 72 << 10;

#[tokio::test]
async fn results_are_delivered_from_memory_and_files_fail_alone() {
    let daemon = Daemon::with(Options { file_size_limit: Some(LIMIT), ..Options::default() });
    let client = daemon.client().await;
    let big = Txt2ImgParams { n_iter: 12, steps: 1, ..small(1) };
    let job = within(client.submit("txt2img", &big, None)).await.expect("submitted");
    assert_eq!(within(client.wait(&job)).await.expect("delivered").images.len(), 12);
    assert_eq!(within(client.wait(&job)).await.expect("and again").images.len(), 12);
    daemon.wait_log("kept in memory");

    let file = Txt2ImgParams {
        width: Some(256),
        height: Some(256),
        output: OutputParams { format: OutputFormat::File, dir: None },
        ..small(1)
    };
    let job = within(client.submit("txt2img", &file, None)).await.expect("submitted");
    let text = refused(within(client.wait(&job)).await, ErrorName::Internal);
    assert!(text.contains("cannot write") && text.contains("File too large"), "{text}");
    assert_eq!(within(client.job(&job)).await.expect("known").state, JobState::Failed);
    let outputs = daemon.folder.path().join("state/latentd/outputs");
    assert_eq!(std::fs::read_dir(outputs).expect("there").count(), 0, "no part of a file stays");
    // Long after the books are full.
    for seed in 0..30 {
        within(client.txt2img(&Txt2ImgParams { steps: 1, ..small(seed) }))
            .await
            .expect("the next job is fine");
    }
}

#[test]
fn a_full_device_as_target_is_an_error_with_the_reason() {
    let daemon = Daemon::start();
    let size = ["--width", "64", "--height", "64", "--steps", "1"];
    let output = daemon.command(&["generate", "x", "-o", "/dev/full"]).args(size).output().expect("ran");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("/dev/full") && text.contains("No space left"), "{text}");
}
