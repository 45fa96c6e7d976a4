//! A disk that is full, as a limit on the size of files: writes fail, nothing else does, and nothing drawn is lost.

use latentd_client::protocol::{ErrorName, OutputFormat, OutputParams, Txt2ImgParams};

use crate::harness::{Daemon, Options, long, refused, serve, small, within};

/// Enough for the daemon's own books at the start; not for a result of several pictures.
const LIMIT: u64 = 72 << 10;

#[tokio::test]
async fn results_are_delivered_from_memory_and_so_are_files() {
    let mut daemon = Daemon::with(Options { file_size_limit: Some(LIMIT), ..Options::default() });
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
    let mut drawn = within(client.txt2img(&file)).await.expect("drawn, and not lost");
    let image = drawn.images.remove(0);
    assert!(image.path.is_none() && image.png.is_some_and(|png| png.0.len() as u64 > LIMIT));
    let notice = drawn.notices.join("\n");
    for part in ["cannot write", "outputs", "File too large", "make room", "in the answer"] {
        assert!(notice.contains(part), "{part}: {notice}");
    }
    let outputs = daemon.folder.path().join("state/latentd/outputs");
    assert_eq!(std::fs::read_dir(outputs).expect("there").count(), 0, "no part of a file stays");
    // Long after the books are full, and of more jobs than stay in memory otherwise.
    let mut jobs = Vec::new();
    for seed in 0..300 {
        let params = Txt2ImgParams { steps: 1, ..small(seed) };
        jobs.push(within(client.txt2img(&params)).await.expect("the next job is fine"));
    }
    for result in &jobs {
        assert_eq!(within(client.wait(&result.job)).await.expect("known"), *result);
    }
    // An id is no promise that the daemon cannot keep.
    let limit = format!("files may have {LIMIT} bytes at most; raise that limit");
    let mut said = Vec::new();
    for _ in 0..5 {
        let text = refused(within(client.submit("txt2img", &small(1), None)).await, ErrorName::Busy);
        assert!(text.contains("cannot be stored") && text.contains(&limit), "{text}");
        said.push(daemon.log().matches("the job history refused").count());
    }
    assert_eq!(said.first(), said.last(), "it is not said of each: {}", daemon.log());
    // Once there is room, all of it is written.
    daemon.lift_file_size_limit();
    within(client.txt2img(&small(1))).await.expect("drawn");
    daemon.wait_log("jobs that the disk refused are on it now");
    daemon.signal(libc::SIGKILL);
    daemon.ended();
    daemon.restart();
    let client = daemon.client().await;
    for result in &jobs {
        assert_eq!(within(client.wait(&result.job)).await.expect("kept"), *result);
    }
}

#[test]
fn a_limit_on_files_that_is_too_small_to_start_is_named() {
    for limit in [1 << 10, 16 << 10] {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options { file_size_limit: Some(limit), ..Options::default() };
        let output = serve(folder.path(), &options).output().expect("ran");
        let text = String::from_utf8_lossy(&output.stderr);
        let expected = format!("files may have {limit} bytes at most; raise that limit (ulimit -f)");
        assert!(output.status.code() == Some(1) && text.contains(&expected), "{text}");
    }
}

#[tokio::test]
async fn a_picture_whose_folder_is_removed_while_it_waits_is_kept_elsewhere() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    // The second waits behind it, so that its folder goes after it was tried and before it is written to.
    let before = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().display().to_string();
    let output = OutputParams { format: OutputFormat::File, dir: Some(dir.clone()) };
    let params = Txt2ImgParams { output, ..small(1) };
    let job = within(client.submit("txt2img", &params, None)).await.expect("submitted");
    drop(folder);
    within(client.cancel(&before)).await.expect("cancelled");
    let drawn = within(client.wait(&job)).await.expect("drawn, and not lost");
    let path = drawn.images.first().and_then(|image| image.path.clone()).expect("a path");
    assert!(
        std::path::Path::new(&path).starts_with(daemon.folder.path())
            && std::fs::exists(&path).is_ok_and(|is| is)
    );
    let notice = drawn.notices.join("\n");
    assert!(notice.contains(&dir) && notice.contains(&path) && notice.contains("make it first"), "{notice}");
    let mut fetch = daemon.command(&["jobs", "fetch", &job, "-o"]);
    let fetched = fetch.arg(daemon.folder.path().join("fetched.png")).output().expect("ran");
    let text = String::from_utf8_lossy(&fetched.stderr);
    assert!(fetched.status.success() && text.contains(&notice), "{text}");
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
