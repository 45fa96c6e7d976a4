//! Embeddings in prompts: where their vectors stand, and that a picture is drawn with them.

use std::sync::Arc;

use latentd_models::adapters::Embedding;
use latentd_models::files::from_bytes;
use latentd_models::model::Model;
use latentd_models::nn::Precision;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::pipeline::Txt2Img;
use latentd_models::prompt::{BOS, CHUNK_TOKENS, COMMA, Chunk, EOS, Embeddings, Reading, chunks, tokenize};

use crate::drawing::{draw, model, request};

/// An embedding of so many vectors, of `first` and what follows it.
fn embedding(count: usize, width: usize, first: f32) -> Arc<Embedding> {
    let data: Vec<u8> =
        (0..count * width).flat_map(|index| (first + index as f32 * 1e-3).to_le_bytes()).collect();
    let header = format!(
        r#"{{"emb_params":{{"dtype":"F32","shape":[{count},{width}],"data_offsets":[0,{}]}}}}"#,
        data.len()
    );
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    Arc::new(Embedding::of(&from_bytes("x.safetensors", bytes).expect("sound")).expect("an embedding"))
}

/// Embeddings one number wide, whose vectors are 1000 times their place, and what follows it.
fn embeddings(named: &[(&str, usize)]) -> Embeddings {
    let named = named.iter().zip(0u16..);
    let named = named
        .map(|((name, count), place)| ((*name).to_owned(), embedding(*count, 1, 1000.0 * f32::from(place))));
    Embeddings::new(named).expect("named")
}

/// A chunk in short: a run of `t` tokens, `,`, and of `place` vectors of an embedding, each with its weight.
fn told(chunk: &Chunk) -> String {
    assert_eq!((chunk.ids.len(), chunk.weights.len()), (CHUNK_TOKENS, CHUNK_TOKENS));
    assert_eq!((chunk.ids[0], chunk.ids[76]), (BOS, EOS));
    let mut vectors = chunk.vectors.iter().peekable();
    let mut runs: Vec<(String, f32, usize)> = vec![];
    for place in 1..76 {
        let vector = vectors.next_if(|(at, _)| *at == place).map(|(_, vector)| vector[0]);
        let what = match (vector, chunk.ids[place]) {
            (Some(value), _) => format!("e{}", (value / 1000.0).floor()),
            (None, EOS) => {
                assert_eq!(chunk.weights[place], 1.0, "padding");
                continue;
            }
            (None, COMMA) => ",".to_owned(),
            (None, _) => "t".to_owned(),
        };
        let weight = chunk.weights[place];
        match runs.last_mut().filter(|(last, of, _)| (last, *of) == (&what, weight)) {
            Some((_, _, count)) => *count += 1,
            None => runs.push((what, weight, 1)),
        }
    }
    assert!(vectors.next().is_none(), "vectors in their order, within the frame");
    let run = |(what, weight, count): (String, f32, usize)| match weight {
        1.0 => format!("{count}{what}"),
        weight => format!("{count}{what}*{weight:.2}"),
    };
    runs.into_iter().map(run).collect::<Vec<_>>().join(" ")
}

#[test]
fn vectors_stand_where_names_do() {
    type Named = &'static [(&'static str, usize)];
    let cats = |count: usize| "cat ".repeat(count);
    // Embeddings by name and number of vectors, a prompt, its chunks.
    let rows: &[(Named, String, &[&str])] = &[
        (&[("style", 3)], "a style cat".into(), &["1t 3e0 1t"]),
        (&[("Style", 3)], "a STYLE".into(), &["1t 3e0"]),
        (&[("style", 3)], "a lifestyle, styles".into(), &["2t 1, 1t"]),
        (&[("style", 2)], "(style:1.5) [style] style".into(), &["2e0*1.50 2e0*0.91 2e0"]),
        (&[("style", 1), ("style of old", 2)], "style of old style".into(), &["2e1 1e0"]),
        (&[("style", 1), ("style of old", 2)], "style (of old:1.2)".into(), &["1e0 2t*1.20"]),
        (&[("style", 2)], "style BREAK style".into(), &["2e0", "2e0"]),
        (&[("style", 75)], "style".into(), &["75e0"]),
        (&[("style", 75)], "cat style cat".into(), &["1t", "75e0", "1t"]),
        (&[("style", 40)], "style style".into(), &["40e0", "40e0"]),
        (&[("style", 15)], cats(60) + "style", &["60t 15e0"]),
        (&[("style", 15)], cats(61) + "style cat", &["61t", "15e0 1t"]),
        // What follows the comma moves with its vectors, and none is torn apart.
        (&[("style", 4)], cats(70) + ", style cat", &["70t 1,", "4e0 1t"]),
        (&[("style", 4)], cats(60) + "," + &cats(5) + "style " + &cats(6), &["60t 1,", "5t 4e0 6t"]),
        (&[("style", 21)], cats(53) + ", style cat", &["53t 1, 21e0", "1t"]),
        // Its comma is part of the name.
        (&[("cat, style", 4)], cats(70) + "cat, style, cat", &["70t 4e0 1,", "1t"]),
        (&[(", cat", 4)], cats(71) + ", cat dog", &["71t 4e0", "1t"]),
    ];
    for (named, prompt, expected) in rows {
        let chunks = chunks(prompt, &embeddings(named), &Reading::default()).expect("chunks");
        assert_eq!(chunks.iter().map(told).collect::<Vec<_>>(), *expected, "{named:?} in {prompt}");
        for chunk in &chunks {
            let mut vectors = chunk.vectors.iter().map(|(_, vector)| vector[0]);
            let starts = |first: &f32| first % 1000.0 == 0.0;
            assert!(vectors.next().is_none_or(|first| starts(&first)), "no chunk begins within an embedding");
        }
    }
}

#[test]
fn without_embeddings_all_is_as_it_was() {
    let prompt = "a (red:1.3) circle, ".repeat(20) + "BREAK blue";
    let plain = chunks(&prompt, &Embeddings::default(), &Reading::default()).expect("chunks");
    assert_eq!(chunks(&prompt, &embeddings(&[("green", 3)]), &Reading::default()).expect("chunks"), plain);
    let tokens = tokenize("blue").expect("tokens");
    assert_eq!(plain.last().expect("a chunk").ids[1..=tokens.len()], tokens);
}

fn pixels(model: &Model, request: &Txt2Img) -> Vec<u8> {
    draw(model, request).expect("draws").remove(0).image.pixels
}

#[test]
fn both_prompts_are_drawn_with_them() {
    let model = model(&cpu(), Precision::F32);
    let width = model.text_encoder().clip.config().width;
    let with = |first| {
        Arc::new(Embeddings::new([("red circle".to_owned(), embedding(2, width, first))]).expect("named"))
    };
    let plain = request();
    let before = pixels(&model, &plain);
    let positive = Txt2Img { embeddings: with(0.5), ..plain.clone() };
    let drawn = pixels(&model, &positive);
    assert_ne!(drawn, before);
    assert_ne!(pixels(&model, &Txt2Img { embeddings: with(-0.5), ..plain.clone() }), drawn, "other vectors");
    assert_eq!(pixels(&model, &positive), drawn, "the same again");
    assert_eq!(pixels(&model, &plain), before, "and gone again");
    let unused = Txt2Img { prompt: "a cat".into(), ..plain.clone() };
    let unused_with = Txt2Img { embeddings: with(0.5), ..unused.clone() };
    assert_eq!(pixels(&model, &unused_with), pixels(&model, &unused), "one that is not named does nothing");
    let negative = Txt2Img { negative_prompt: "RED CIRCLE".into(), ..unused };
    let negative_with = Txt2Img { embeddings: with(0.5), ..negative.clone() };
    assert_ne!(pixels(&model, &negative_with), pixels(&model, &negative));
}

#[test]
fn their_places_count_and_those_for_other_models_are_refused() {
    let model = model(&cpu(), Precision::F32);
    let width = model.text_encoder().clip.config().width;
    let with = |count, width| Txt2Img {
        prompt: "style style".into(),
        negative_prompt: "".into(),
        steps: 1,
        embeddings: Arc::new(
            Embeddings::new([("Style".to_owned(), embedding(count, width, 0.1))]).expect("named"),
        ),
        ..request()
    };
    for (count, pad_cond_uncond, expected) in
        [(37, false, [77, 77]), (38, false, [154, 77]), (38, true, [154, 154])]
    {
        let request = Txt2Img { pad_cond_uncond, ..with(count, width) };
        assert_eq!(request.text_needs().expect("counted").tokens, expected);
        assert_eq!(request.text_facts(0).expect("counted").pads, pad_cond_uncond);
        draw(&model, &request).expect("draws");
    }
    let error = draw(&model, &with(1, width + 1)).expect_err("refused").to_string();
    assert!(error.starts_with("embedding 'Style' is for a text encoder"), "{error}");
}
