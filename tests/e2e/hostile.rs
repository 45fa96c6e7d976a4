//! Bytes and requests that no honest client sends: a clear error, the daemon alive, the next job fine.

use std::net::Shutdown;

use latentd_client::codec::Message;
use latentd_client::protocol::{CONNECTION_ERROR_METHOD, ErrorName, JobState};
use rmpv::Value;

use crate::harness::{Daemon, Options, Raw, long, map, small, within};

#[tokio::test]
async fn bytes_that_are_no_messages_end_that_connection_only() {
    let daemon = Daemon::start();
    let nested = vec![0x91; 100_000];
    let rows: [(&[u8], &str); 6] = [
        (&[0xc1], "0xc1"),
        (&[0x94, 0x00, 0x01, 0xa4, b'p', b'i', b'n', b'g', 0xc6, 0xff, 0xff, 0xff, 0xff], "needs at least"),
        (&[0xdd, 0xff, 0xff, 0xff, 0xff], "values"),
        (&nested, "nested deeper than 64"),
        (b"GET / HTTP/1.1\r\n\r\n", "not a MessagePack-RPC message"),
        (&[0x93, 0x07, 0x01, 0x02], "type 7"),
    ];
    for (bytes, expected) in rows {
        let mut raw = Raw::connect(&daemon);
        // It may close before it has read all of them.
        std::io::Write::write_all(&mut raw.stream, bytes).ok();
        match raw.next() {
            Some(Message::Notification { method, params }) => {
                assert_eq!(method, CONNECTION_ERROR_METHOD);
                assert!(params.to_string().contains(expected), "{params} has no '{expected}'");
            }
            // Closing with bytes unread may take the last words away.
            None => (),
            other => panic!("{other:?}"),
        }
        assert!(raw.next().is_none(), "closed");
    }
    let client = daemon.client().await;
    within(client.txt2img(&small(1))).await.expect("the next job is fine");
}

#[test]
fn truncated_messages_and_hang_ups_at_every_byte_hurt_nobody() {
    let daemon = Daemon::start();
    let request = map(&[("method", "txt2img".into()), ("params", map(&[("steps", 0.into())]))]);
    let bytes = latentd_client::codec::encode_request(1, "jobs.submit", &request).expect("encodes");
    for length in 0..bytes.len() {
        let mut raw = Raw::connect(&daemon);
        raw.send(&bytes[..length]);
        raw.stream.shutdown(Shutdown::Both).expect("shut");
    }
    assert_eq!(Raw::connect(&daemon).call("ping", &map(&[])), Ok(map(&[])));
}

#[test]
fn requests_of_the_wrong_shape_are_answered() {
    let daemon = Daemon::start();
    let mut raw = Raw::connect(&daemon);
    let request = |parts: &[Value]| Value::Array(parts.to_vec());
    let ping = || Value::from("ping");
    let rows = [
        request(&[0.into(), 7.into(), ping()]),
        request(&[0.into(), 7.into(), ping(), Value::Array(vec![]), Value::Nil]),
        request(&[0.into(), 7.into(), 5.into(), Value::Array(vec![])]),
        request(&[0.into(), 7.into(), ping(), map(&[])]),
        request(&[0.into(), 7.into(), ping(), Value::Nil]),
        request(&[0.into(), 7.into(), ping(), Value::Array(vec![Value::Nil])]),
        request(&[0.into(), 7.into(), ping(), Value::Array(vec![map(&[]), map(&[])])]),
        request(&[0.into(), 7.into(), ping(), Value::Array(vec![map(&[("x", 1.into())])])]),
    ];
    for row in rows {
        raw.send_value(&row);
        let error = raw.answer(7).expect_err("refused");
        assert_eq!(error.name, ErrorName::InvalidParams, "{row}: {error}");
    }
    // Names as bin, and no parameters at all, are fine.
    raw.send_value(&request(&[0.into(), 8.into(), Value::Binary(b"ping".to_vec()), Value::Array(vec![])]));
    assert_eq!(raw.answer(8), Ok(map(&[])));
    // Notifications we do not know, and answers to nothing, are passed over.
    raw.send_value(&request(&[
        2.into(),
        Value::Binary(b"nvim_set_client_info".to_vec()),
        Value::Array(vec![]),
    ]));
    raw.send_value(&request(&[2.into(), "nvim_error_event".into(), Value::Array(vec![1.into()])]));
    raw.send_value(&request(&[1.into(), 99.into(), Value::Nil, Value::Nil]));
    assert_eq!(raw.call("ping", &map(&[])), Ok(map(&[])));
}

#[test]
fn wrong_fields_are_named() {
    let daemon = Daemon::start();
    let mut raw = Raw::connect(&daemon);
    let text = |text: &str| Value::from(text);
    let rows = [
        (map(&[("promt", text("x"))]), "did you mean 'prompt'?"),
        (map(&[("output", map(&[("fromat", text("png"))]))]), "did you mean 'output.format'?"),
        (map(&[("width", 0.into())]), "width: 0 is out of range"),
        (map(&[("width", 513.into())]), "give 512 or 520"),
        (map(&[("width", (-8).into())]), "width: -8 is out of range"),
        (map(&[("width", (1u64 << 31).into())]), "width: 2147483648 is out of range"),
        (map(&[("width", text("64"))]), "width: '64' must be an integer"),
        (map(&[("steps", 0.into())]), "steps: 0 is out of range"),
        (map(&[("cfg_scale", Value::F64(f64::NAN))]), "cfg_scale: NaN must be a finite number"),
        (map(&[("seed", (-2).into())]), "seed: -2 is out of range"),
        (map(&[("seed", u64::MAX.into())]), "seed: "),
        (map(&[("prompt", text("a\0b"))]), "prompt: text has a NUL character"),
        (map(&[("sampler_name", text("Eular a"))]), "did you mean 'Euler a'?"),
        (map(&[("output", map(&[("dir", text("relative"))]))]), "must be an absolute path"),
        (map(&[("n_iter", 1000.into()), ("batch_size", 64.into())]), "lower n_iter or batch_size"),
    ];
    for (params, expected) in rows {
        let error = raw.call("txt2img", &params).expect_err("refused");
        assert_eq!(error.name, ErrorName::InvalidParams, "{params}: {error}");
        assert!(error.text.contains(expected), "{params}: {error}");
        // Submitting is as strict as calling.
        let submit = map(&[("method", text("txt2img")), ("params", params)]);
        assert_eq!(raw.call("jobs.submit", &submit), Err(error));
    }
    let invalid_utf8: &[u8] = b"\x94\x00\x63\xa7txt2img\x91\x81\xa6prompt\xa2\xc3\x28";
    raw.send(invalid_utf8);
    let error = raw.answer(0x63).expect_err("refused");
    assert!(error.text.contains("not valid UTF-8"), "{error}");
    for (method, name, expected) in [
        ("txt2mg", ErrorName::NotFound, "did you mean 'txt2img'?"),
        ("job.get", ErrorName::NotFound, "did you mean 'jobs.get'?"),
        ("jobs.wait", ErrorName::InvalidParams, "job: is missing"),
    ] {
        let error = raw.call(method, &map(&[])).expect_err("refused");
        assert_eq!((error.name, error.text.contains(expected)), (name, true), "{error}");
    }
    let error = raw.call("txt2img", &map(&[("precision", text("f16"))])).expect_err("refused");
    assert_eq!(error.name, ErrorName::Unsupported, "{error}");
    let long = text(&"x".repeat(40_000));
    let jpeg = map(&[("prompt", long), ("output", map(&[("format", text("jpeg"))]))]);
    let error = raw.call("txt2img", &jpeg).expect_err("refused");
    assert!(error.name == ErrorName::InvalidParams && error.text.contains("use png or webp"), "{error}");
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for (name, expected, text) in [
        ("../tiny-sd1", ErrorName::InvalidParams, "'..'"),
        ("Stable-diffusion/../../x", ErrorName::InvalidParams, "'..'"),
        ("/etc/passwd", ErrorName::InvalidParams, "outside the models folders"),
        ("", ErrorName::InvalidParams, "is empty"),
        ("tiny-sd2", ErrorName::NotFound, "known: tiny-sd1"),
    ] {
        let mut params = small(1);
        params.checkpoint = Some(name.into());
        let error = crate::harness::refused(within(client.txt2img(&params)).await, expected);
        assert!(error.contains(text), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_its_results_stay() {
    let daemon = Daemon::with(Options {
        config: "write_stall_s = 1\noutbox_bytes = 65536\n".into(),
        ..Options::default()
    });
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &small(3), Some("kept"))).await.expect("submitted");
    let socket = daemon.socket.clone();
    let closed = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("connected");
        stream.set_write_timeout(Some(crate::harness::SOON)).expect("set");
        let ask = latentd_client::codec::encode_request(1, "api_info", &map(&[])).expect("encodes");
        // Until the daemon, whose answers nobody takes, hangs up.
        while stream.write_all(&ask).is_ok() {}
    });
    within(closed).await.expect("closed");
    within(client.ping()).await.expect("alive");
    assert_eq!(within(client.wait(&job)).await.expect("kept").images.len(), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_at_any_stage_leaves_its_job_alone() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    // Right after the request, without waiting for anything.
    let mut raw = Raw::connect(&daemon);
    let submit = map(&[
        ("method", "txt2img".into()),
        ("id", "gone".into()),
        ("params", map(&[("steps", 2.into()), ("width", 64.into()), ("height", 64.into())])),
    ]);
    raw.call("jobs.submit", &submit).expect("submitted");
    let mut following = Raw::connect(&daemon);
    following.call("jobs.subscribe", &map(&[("job", "gone".into())])).expect("subscribed");
    following.send(
        &latentd_client::codec::encode_request(9, "jobs.wait", &map(&[("job", "gone".into())]))
            .expect("encodes"),
    );
    drop((raw, following));
    within(client.wait("gone")).await.expect("finished all the same");
    // While it waits for a running one.
    let job = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let other = daemon.client().await;
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), other.wait(&job)).await;
    assert!(waiting.is_err(), "it runs for long");
    drop(other);
    assert!(!within(client.job(&job)).await.expect("known").state.is_terminal());
    within(client.cancel(&job)).await.expect("cancelled");
    crate::harness::refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    assert_eq!(within(client.job(&job)).await.expect("known").state, JobState::Cancelled);
}
