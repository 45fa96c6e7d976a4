//! What plugins declare of attention beside sets, through the socket: against torch on the same weights
//! (`tests/fixtures/attends_reference.py` made the pictures), and what cannot be declared.

use latentd_client::protocol::{ErrorName, Precision, Txt2ImgParams};
use serde_json::json;

use crate::freeu::plain;
use crate::harness::{Daemon, refused, within};
use crate::plugin_library::{build_crate, install};
use crate::reference::{decibels, pixels, reaches, with};

fn daemon() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "libattends.so", &build_crate("tests/fixtures/plugins/attends"));
    daemon
}

#[tokio::test]
async fn pictures_are_those_of_torch() {
    reaches(&daemon(), "attends").await;
}

#[tokio::test]
async fn what_is_nothing_changes_no_byte() {
    let daemon = daemon();
    let expected = pixels(&daemon, &plain(5)).await;
    for (params, is_same) in [
        (json!({}), true),
        (json!({"act": "append", "weight": 0}), true),
        (json!({"act": "keys", "weight": 0}), true),
        (json!({"act": "unkept"}), true),
        (json!({"act": "append", "weight": 0.01}), false),
        (json!({"act": "bias"}), false),
    ] {
        let found = pixels(&daemon, &with("attends", &params, plain(5))).await;
        assert_eq!(found == expected, is_same, "{params}");
    }
    assert!(pixels(&daemon, &plain(5)).await == expected, "and a request without it has its bytes");
}

#[tokio::test]
async fn what_cannot_be_declared_fails_the_job_by_name() {
    let daemon = daemon();
    let client = daemon.client().await;
    let expected = pixels(&daemon, &plain(5)).await;
    for (act, name, at, words) in [
        ("length", ErrorName::Plugin, "attention: ", "a bias [1, 76] where there are"),
        ("mask", ErrorName::InvalidParams, "attention/draft-1: ", "a bias of queries is of one attention"),
        ("cross", ErrorName::Plugin, "attention/draft-1: ", "Other has no attention"),
        ("name", ErrorName::InvalidParams, "attention/draft-1: ", "a bank's name has 1 to 64 bytes"),
        ("empty", ErrorName::InvalidParams, "attention/draft-1: ", "a bank's name has 1 to 64 bytes"),
        ("place", ErrorName::InvalidParams, "attention/draft-1: ", "name its part, index and layer"),
        ("nobody", ErrorName::NotFound, "denoise.wrap/draft-1: ", "no rule of this pass names a bank 'kept'"),
    ] {
        let request = with("attends", &json!({"act": act}), plain(5));
        let text = refused(within(client.txt2img(&request)).await, name);
        assert!(
            text.starts_with(&format!("plugin 'attends', {at}")) && text.contains(words),
            "{act}: {text}"
        );
        assert!(pixels(&daemon, &plain(5)).await == expected, "{act}");
    }
}

/// What a device's kernels round in bf16, the rules do not see: they are those of f32, but for that.
#[tokio::test]
async fn rules_hold_in_bf16() {
    let daemon = daemon();
    let of = |precision: Precision| Txt2ImgParams { precision, ..plain(5) };
    let without = pixels(&daemon, &of(Precision::Bf16)).await;
    let off = decibels(&without.concat(), &pixels(&daemon, &of(Precision::F32)).await.concat());
    for act in ["append", "keys", "bias", "queries", "reference", "received"] {
        let params = json!({"act": act});
        let found = pixels(&daemon, &with("attends", &params, of(Precision::Bf16))).await;
        let expected = pixels(&daemon, &with("attends", &params, of(Precision::F32))).await;
        let close = decibels(&found.concat(), &expected.concat());
        assert!(found != without, "{act}");
        assert!(close > off - 6.0, "{act}: {close:.1} dB, {off:.1} dB without rules");
        assert!(pixels(&daemon, &with("attends", &params, of(Precision::Bf16))).await == found, "{act}");
    }
}
