//! The example pag, through the socket, against the paper's formula over torch on the same weights
//! (`tests/fixtures/pag_reference.py` made the pictures).

use serde_json::json;

use crate::freeu::plain;
use crate::harness::Daemon;
use crate::plugin_library::{build_crate, install};
use crate::reference::{pixels, reaches, with};

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
