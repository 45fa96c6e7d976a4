//! Tokens, emphasis and conditioning against transformers' tokenizer and A1111's grammar.

use latentd_models::files;
use latentd_models::networks::clip::{ClipConfig, ClipText};
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Loader, Precision, Run};
use latentd_models::prompt::{
    Conditioning, Embeddings, Encoding, Piece, PromptSchedule, Reading, Wording, chunks, encode,
    pad_with_empty, parse_emphasis, split_weight, tokenize,
};
use serde_json::Value;

use crate::golden::{Golden, assert_close, checkpoint, fixture};

fn json(name: &str) -> Value {
    let text = std::fs::read_to_string(fixture(&format!("golden/{name}.json"))).expect("golden file");
    serde_json::from_str(&text).expect("json")
}

fn compressed_json(name: &str) -> Value {
    let file = std::fs::File::open(fixture(&format!("golden/{name}.json.gz"))).expect("golden file");
    serde_json::from_reader(flate2::read::GzDecoder::new(file)).expect("json")
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

/// A part of the generated corpus of `tests/fixtures/reference/corpus.py`; its README says how the whole of it compares.
#[test]
fn tokens_of_any_text_are_clips() {
    let cases = compressed_json("corpus");
    let mut wrong = vec![];
    for case in list(&cases) {
        let wanted: Vec<u64> = list(&case[1]).iter().filter_map(Value::as_u64).collect();
        let found: Vec<u64> =
            tokenize(text(&case[0])).expect("tokenises").into_iter().map(u64::from).collect();
        if found != wanted {
            wrong.push(format!("{:?}\n found {found:?}\nwanted {wanted:?}", text(&case[0])));
        }
    }
    let count = list(&cases).len();
    assert!(count >= 3000 && wrong.is_empty(), "{} of {count} differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_long_text_is_fine() {
    let start = std::time::Instant::now();
    for text in [
        "word ".repeat(20_000),
        "a".repeat(100_000),
        "字".repeat(33_000),
        "\u{0}\u{1f600}".repeat(10_000),
        "<|endoftext|>".repeat(10_000),
        // What is mended is looked at again, but not as often as it is nested.
        format!("&{}", "amp;".repeat(50_000)),
        "&#38;#38;".repeat(20_000),
        "Ã©".repeat(50_000),
        "â€ sÃ\u{80} ".repeat(20_000),
        "ÃƒÂ¢Ã¢â€šÂ¬Ã¢â€žÂ¢ 字\n".repeat(5_000),
    ] {
        let chunks = chunks(&text, &Embeddings::default(), &Reading::default()).expect("chunks");
        assert!(chunks.iter().all(|chunk| chunk.ids.len() == 77 && chunk.weights.len() == 77));
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

fn parsed(prompt: &str) -> latentd_models::Result<Vec<(String, f64)>> {
    let piece = |piece| match piece {
        Piece::Text(text, weight) => (text, weight),
        Piece::Break => ("BREAK".to_owned(), -1.0),
    };
    Ok(parse_emphasis(prompt)?.into_iter().map(piece).collect())
}

/// Generated prompts, through A1111's regular expressions in Python: numbers of all kinds, digits and white space of
/// other scripts, brackets in any order.
#[test]
fn the_grammar_of_prompts_is_a1111s() {
    let cases = compressed_json("grammar");
    assert!(list(&cases).len() >= 5000);
    let number = |value: &Value| text(value).parse::<f64>().expect("a number");
    for case in list(&cases) {
        let prompt = text(&case[0]);
        let found = parsed(prompt);
        if case[5].is_null() {
            let error = found.expect_err(prompt).to_string();
            assert!(error.contains("is no number"), "{prompt:?}: {error}");
        } else {
            let pieces = list(&case[5]).iter();
            let wanted: Vec<(String, f64)> =
                pieces.map(|piece| (text(&piece[0]).to_owned(), number(&piece[1]))).collect();
            let found = found.unwrap_or_else(|error| panic!("{prompt:?}: {error}"));
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            let alike = found.len() == wanted.len()
                && found.iter().zip(&wanted).all(|(a, b)| a.0 == b.0 && same(a.1, b.1));
            assert!(alike, "{prompt:?}\n found {found:?}\nwanted {wanted:?}");
        }
        assert_eq!(split_weight(prompt), (text(&case[3]), number(&case[4])), "{prompt:?}");
        if !prompt.contains('#') {
            assert_eq!(Wording::of_prompt(prompt).text, text(&case[2]), "{prompt:?}");
        }
        assert_eq!(Wording::of_negative_prompt(prompt).text, text(&case[1]), "{prompt:?}");
    }
}

#[test]
fn emphasis_is_a1111s() {
    let cases = json("conditioning");
    assert!(list(&cases["parse"]).len() >= 40);
    for case in list(&cases["parse"]) {
        let prompt = text(&case["prompt"]);
        let found = parsed(prompt).expect("parses");
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

fn clip() -> ClipText {
    let file = files::open(&checkpoint("tiny-sd1")).expect("opens");
    let prefix = "cond_stage_model.transformer.text_model.";
    let config = ClipConfig::detect(&file, prefix).expect("config");
    ClipText::load(&Loader::file(&file, &cpu(), Precision::F32), prefix, config).expect("loads")
}

fn encoded(clip: &ClipText, text: &str, clip_skip: usize) -> latentd_models::Result<Conditioning> {
    let (embeddings, reading) = (&Embeddings::default(), &Reading::default());
    let encoding = Encoding { embeddings, reading, clip_skip };
    Ok(encode(clip, &PromptSchedule::of_text(text), &encoding, &Run::WHOLE)?.remove(0))
}

/// Weights of any size are numbers or an error, and brackets of any depth are no reason to wait.
#[test]
fn weights_beyond_reason_are_refused() {
    let clip = clip();
    let encode = |prompt: &str| encoded(&clip, prompt, 1);
    let nines = "9".repeat(400);
    for prompt in [
        format!("(cat:{nines})"),
        format!("(cat:-{nines})"),
        format!("((cat:0):{nines})"),
        "(".repeat(2000) + "x",
    ] {
        let error = encode(&prompt).expect_err("refused").to_string();
        assert!(error.contains("too large"), "{error}");
    }
    for prompt in [
        "(cat:99999999)".to_owned(),
        "(cat:0)".to_owned(),
        "(cat:-5) dog".to_owned(),
        "(cat:1e999) (dog:nan) (cow:inf) (z:+-1) (:1) :".to_owned(),
        "[".repeat(50_000) + "x",
        format!("(cat:0.{}1)", "0".repeat(400)),
    ] {
        let values = crate::golden::values(&encode(&prompt).expect("encodes").tokens);
        assert!(values.iter().all(|value| value.is_finite()), "{}", &prompt[..20.min(prompt.len())]);
    }
    let start = std::time::Instant::now();
    for prompt in ["(a".repeat(100_000), "(a".repeat(66_000) + &")".repeat(66_000), "[(a".repeat(66_000)] {
        assert!(parse_emphasis(&prompt).is_ok_and(|pieces| !pieces.is_empty()));
    }
    // Some tenths of a second; without a bound on the depth it is half a minute.
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn conditioning_is_a1111s() {
    let cases = json("conditioning");
    let golden = Golden::open("conditioning");
    let clip = clip();
    for case in list(&cases["conditioning"]) {
        let name = text(&case["name"]);
        for side in ["positive", "negative"] {
            let found =
                chunks(text(&case[side]), &Embeddings::default(), &Reading::default()).expect("chunks");
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
            let of = |prompt| encoded(&clip, prompt, skip).expect("encodes");
            let (mut cond, mut uncond) = (of(text(&case["positive"])), of(text(&case["negative"])));
            let (empty, length) = (of(""), cond.tokens.dim(1).max(uncond.tokens.dim(1)));
            for each in [&mut cond, &mut uncond] {
                pad_with_empty(each, length, &empty).expect("pads");
            }
            assert_close(
                &part("positive"),
                &cond.tokens.get(0).expect("one"),
                golden.get(&part("positive")),
                1e-5,
            );
            assert_close(
                &part("negative"),
                &uncond.tokens.get(0).expect("one"),
                golden.get(&part("negative")),
                1e-5,
            );
        }
    }
}
