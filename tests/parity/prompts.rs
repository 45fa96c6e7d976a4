//! Tokens, emphasis and conditioning against transformers' tokenizer and A1111's grammar.

use latentd_models::files::{Loader, SafeTensors};
use latentd_models::networks::clip::{ClipConfig, ClipText};
use latentd_models::prompt::{Piece, chunks, encode, pad_alike, parse_emphasis, tokenize};
use serde_json::Value;

use crate::golden::{Golden, assert_close, checkpoint, fixture};

fn json(name: &str) -> Value {
    let text = std::fs::read_to_string(fixture(&format!("golden/{name}.json"))).expect("golden file");
    serde_json::from_str(&text).expect("json")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

#[test]
fn tokens_are_clips() {
    let cases = json("tokens");
    assert!(list(&cases).len() >= 60);
    for case in list(&cases) {
        let wanted: Vec<u64> = list(&case["ids"]).iter().filter_map(Value::as_u64).collect();
        let found: Vec<u64> =
            tokenize(text(&case["text"])).expect("tokenises").into_iter().map(u64::from).collect();
        assert_eq!(found, wanted, "{:?}", text(&case["text"]));
    }
}

#[test]
fn a_long_text_is_fine() {
    for text in
        ["word ".repeat(20_000), "a".repeat(100_000), "字".repeat(33_000), "\u{0}\u{1f600}".repeat(10_000)]
    {
        let chunks = chunks(&text).expect("chunks");
        assert!(chunks.iter().all(|chunk| chunk.ids.len() == 77 && chunk.weights.len() == 77));
    }
}

#[test]
fn emphasis_is_a1111s() {
    let cases = json("conditioning");
    assert!(list(&cases["parse"]).len() >= 40);
    for case in list(&cases["parse"]) {
        let prompt = text(&case["prompt"]);
        let found: Vec<(String, f64)> = parse_emphasis(prompt)
            .into_iter()
            .map(|piece| match piece {
                Piece::Text(text, weight) => (text, weight),
                Piece::Break => ("BREAK".to_owned(), -1.0),
            })
            .collect();
        let wanted: Vec<(String, f64)> = list(&case["parsed"])
            .iter()
            .map(|piece| (text(&piece[0]).to_owned(), piece[1].as_f64().expect("a weight")))
            .collect();
        let same = found.len() == wanted.len()
            && found
                .iter()
                .zip(&wanted)
                .all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-9 * b.1.abs().max(1.0));
        assert!(same, "{prompt:?}\n found {found:?}\nwanted {wanted:?}");
    }
}

#[test]
fn conditioning_is_a1111s() {
    let cases = json("conditioning");
    let golden = Golden::open("conditioning");
    let file = SafeTensors::open(&checkpoint("tiny-sd1")).expect("opens");
    let prefix = "cond_stage_model.transformer.text_model.";
    let config = ClipConfig::detect(&file, prefix).expect("config");
    let clip = ClipText::load(&Loader::file(&file), prefix, config).expect("loads");
    for case in list(&cases["conditioning"]) {
        let name = text(&case["name"]);
        for side in ["positive", "negative"] {
            let found = chunks(text(&case[side])).expect("chunks");
            for (index, wanted) in list(&case[format!("{side}_chunks")]).iter().enumerate() {
                let ids: Vec<u64> = list(&wanted["ids"]).iter().filter_map(Value::as_u64).collect();
                let found =
                    found.get(index).unwrap_or_else(|| panic!("{name}: {side} chunk {index} is missing"));
                assert_eq!(
                    found.ids.iter().map(|id| u64::from(*id)).collect::<Vec<_>>(),
                    ids,
                    "{name} {side} {index}"
                );
            }
            assert_eq!(found.len(), list(&case[format!("{side}_chunks")]).len(), "{name} {side}");
        }
        for skip in [1, 2] {
            let part = |side: &str| format!("{name}.skip{skip}.{side}");
            if !golden.has(&part("positive")) {
                continue;
            }
            let mut cond = encode(&clip, text(&case["positive"]), skip, &|| false).expect("encodes");
            let mut uncond = encode(&clip, text(&case["negative"]), skip, &|| false).expect("encodes");
            pad_alike(&clip, &mut cond, &mut uncond, skip).expect("pads");
            assert_close(
                &part("positive"),
                &cond.squeeze(0).expect("one"),
                golden.get(&part("positive")),
                1e-5,
            );
            assert_close(
                &part("negative"),
                &uncond.squeeze(0).expect("one"),
                golden.get(&part("negative")),
                1e-5,
            );
        }
    }
}
