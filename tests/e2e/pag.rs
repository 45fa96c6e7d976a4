//! The example pag, through the socket, against the paper's formula over torch on the same weights
//! (`tests/fixtures/pag_reference.py` made the pictures).

use std::fs;

use latentd_models::image::Picture;
use serde_json::{Value as Json, json};

use crate::freeu::{LEAST_DECIBELS, decibels, pixels, plain, request, with};
use crate::harness::{Daemon, fixtures};
use crate::plugin_library::{build_crate, install};

/// Draws what rows of a reference say with this plugin; how near the worst comes.
#[allow(clippy::print_stderr, reason = "how near they are, with --nocapture")]
pub(crate) async fn reaches(daemon: &Daemon, plugin: &str) {
    let folder = fixtures().join("../plugins");
    let read = |name: String| fs::read(folder.join(name)).expect("read");
    let index: Json = serde_json::from_slice(&read(format!("{plugin}.json"))).expect("JSON");
    let all = Picture::decode(&read(format!("{plugin}.png")), 1 << 20).expect("decodes").pixels;
    let (mut rest, mut worst) = (&all[..], (f64::INFINITY, String::new()));
    for row in index["rows"].as_array().expect("rows") {
        for found in pixels(daemon, &with(plugin, &row["params"], request(row))).await {
            let wanted;
            (wanted, rest) = rest.split_at(found.len());
            let reached = decibels(&found, wanted);
            eprintln!("{plugin}: {reached:.1} dB: {}", row["params"]);
            if reached < worst.0 {
                worst = (reached, row.to_string());
            }
        }
    }
    assert!(rest.is_empty(), "pictures that no row tells of");
    eprintln!("{plugin}: the least is {:.1} dB", worst.0);
    assert!(worst.0 >= LEAST_DECIBELS, "{:.1} dB: {}", worst.0, worst.1);
}

#[tokio::test]
async fn pictures_are_those_of_the_papers_formula() {
    let daemon = Daemon::start();
    install(&daemon, "libpag.so", &build_crate("plugin-api/examples/pag"));
    reaches(&daemon, "pag").await;

    let expected = pixels(&daemon, &plain(5)).await;
    for (params, is_same) in [
        (json!({"scale": 0}), true),
        (json!({"start": 0.5, "end": 0.5}), true),
        (json!({"blocks": [{"part": "output", "index": 200}]}), true),
        (json!({}), false),
    ] {
        let found = pixels(&daemon, &with("pag", &params, plain(5))).await;
        assert_eq!(found == expected, is_same, "{params}");
    }
}
