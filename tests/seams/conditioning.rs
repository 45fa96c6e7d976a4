//! What images are told, and those who change it.

use std::sync::Arc;

use latentd_models::nn::Precision;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::pipeline::{ConditioningStage, Role, Stages, Texts, Txt2Img, Wants};
use latentd_models::prompt::{CHUNK_TOKENS, Conditioning, EOS, Emphasis, Reading};
use latentd_models::{Error, Result, Tensor};

use crate::drawing::{draw, draw_with, model, request};

/// Does something with what images are told.
struct With<F>(F);

impl<F: FnMut(&mut ConditioningStage) -> Result<()>> Stages for With<F> {
    fn wants(&self) -> Wants {
        Wants { conditioning: true, ..Wants::default() }
    }

    fn conditioning(&mut self, stage: &mut ConditioningStage) -> Result<()> {
        self.0(stage)
    }
}

fn long(words: usize) -> String {
    (0..words).map(|word| if word % 9 == 0 { "circle, " } else { "red " }).collect()
}

/// Encoded again from its tokens, each text gives the numbers that the host made of it.
#[test]
fn texts_encoded_again_are_the_same_to_the_bit() {
    let model = model(&cpu(), Precision::F32);
    let emphasised = "a (red:1.4) [circle], \\(blue\\) BREAK (square)";
    let scheduled = format!("a [(red:1.6):blue:0.5] [circle|square|{}]", long(90));
    let reading = |emphasis| Reading { emphasis, ..Reading::default() };
    let base = Txt2Img { steps: 4, ..request() };
    let rows = [
        base.clone(),
        Txt2Img { prompt: emphasised.into(), negative_prompt: "(blurry:1.2), dark".into(), ..base.clone() },
        Txt2Img { prompt: emphasised.into(), reading: reading(Emphasis::NoNorm), ..base.clone() },
        Txt2Img { prompt: emphasised.into(), reading: reading(Emphasis::None), clip_skip: 2, ..base.clone() },
        Txt2Img { prompt: scheduled.as_str().into(), ..base.clone() },
        Txt2Img { prompt: format!("{} AND (red:1.3) :0.5", long(90)).into(), ..base.clone() },
        Txt2Img { prompt: long(200).into(), pad_cond_uncond: true, ..base.clone() },
        Txt2Img { negative_prompt: long(200).into(), pad_cond_uncond: true, ..base.clone() },
        Txt2Img { negative_prompt: long(200).into(), pad_cond_uncond_v0: true, ..base.clone() },
        Txt2Img { prompt: long(100).into(), pad_cond_uncond_v0: true, ..base.clone() },
        Txt2Img { prompt: Texts::Each(vec!["red".into(), emphasised.into()]), batch_size: 2, ..base.clone() },
    ];
    for request in rows {
        let mut conds = 0;
        let again = |stage: &mut ConditioningStage| {
            for (index, cond) in stage.conds.iter_mut().enumerate() {
                let encoded = stage.encoding.encode(&cond.chunks, Some(index))?;
                assert_eq!(encoded, *cond.conditioning, "{} of {:?}", cond.text, request.prompt);
                cond.conditioning = Arc::new(encoded);
                conds += 1;
            }
            Ok(())
        };
        let drawn = draw_with(&model, &mut &model, &request, &mut With(again)).expect("draws");
        assert_eq!(drawn, draw(&model, &request).expect("draws"), "{:?}", request.prompt);
        assert!(conds >= 2, "{:?}", request.prompt);
    }
}

#[test]
fn who_takes_part_is_told_what_each_branch_is_told_and_when() {
    let model = model(&cpu(), Precision::F32);
    let request = Txt2Img {
        prompt: "a [red:blue:0.5] Circle AND a \\(square\\)".into(),
        negative_prompt: "(blurry:1.2)".into(),
        steps: 4,
        batch_size: 2,
        ..request()
    };
    let mut told = vec![];
    let write = |stage: &mut ConditioningStage| {
        for cond in &*stage.conds {
            let calls: Vec<_> = cond.calls.iter().map(|calls| (calls.start, calls.end)).collect();
            told.push((cond.image, cond.branch, cond.role, cond.text.to_string(), calls));
            let [chunk] = &*cond.chunks else { panic!("{} chunks", cond.chunks.len()) };
            assert_eq!((chunk.ids.len(), chunk.bytes.len()), (CHUNK_TOKENS, CHUNK_TOKENS));
            let words: Vec<&str> =
                chunk.bytes.iter().filter_map(|bytes| cond.text.get(bytes.clone())).collect();
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            let expected: &[&str] = match &*cond.text {
                "a red Circle" => &["a", "red", "Circle"],
                "a blue Circle" => &["a", "blue", "Circle"],
                " a \\(square\\)" => &["a", "(", "square", ")"],
                _ => &["blurry"],
            };
            // A word may be of several tokens.
            assert_eq!(words.concat(), expected.concat(), "{}", cond.text);
            assert_eq!(chunk.ids.last(), Some(&EOS));
        }
        // A text of one's own, alone.
        let chunks = stage.encoding.chunks("a (red:1.5) circle")?;
        assert_eq!(chunks[0].weights[..5], [1.0, 1.0, 1.5, 1.0, 1.0]);
        assert_eq!(stage.encoding.encode(&chunks, None)?.tokens.dims()[..2], [1, CHUNK_TOKENS]);
        assert!(stage.encoding.encode(&chunks, Some(stage.conds.len())).is_err());
        Ok(())
    };
    draw_with(&model, &mut &model, &request, &mut With(write)).expect("draws");
    let all = usize::MAX;
    let of_image = |image| {
        [
            (image, 0, Role::Cond, "a red Circle".to_owned(), vec![(0, 3), (5, all)]),
            (image, 0, Role::Cond, "a blue Circle".to_owned(), vec![(3, 5)]),
            (image, 1, Role::Cond, " a \\(square\\)".to_owned(), vec![(0, all)]),
            (image, 2, Role::Uncond, "(blurry:1.2)".to_owned(), vec![(0, all)]),
        ]
    };
    assert_eq!(told, [of_image(0), of_image(1)].concat());
}

#[test]
fn what_is_new_counts_where_it_was_put_and_nowhere_else() {
    let model = model(&cpu(), Precision::F32);
    let request = Txt2Img { batch_size: 2, ..request() };
    let plain = draw(&model, &request).expect("draws");
    let second = |stage: &mut ConditioningStage| {
        let mut conds = stage.conds.iter_mut().filter(|cond| cond.image == 1 && cond.role == Role::Cond);
        let cond = conds.next().expect("one");
        let tokens = cond.conditioning.tokens.scaled(1.5);
        cond.conditioning = Arc::new(Conditioning { tokens, pooled: None });
        Ok(())
    };
    let drawn = draw_with(&model, &mut &model, &request, &mut With(second)).expect("draws");
    assert_eq!(drawn[0], plain[0]);
    assert_ne!(drawn[1].image, plain[1].image);
    // What was encoded is as it was.
    assert_eq!(draw(&model, &request).expect("draws"), plain);
    let shape = |stage: &mut ConditioningStage| {
        let tokens = Tensor::full(1.0, [1, 2 * CHUNK_TOKENS, stage.conds[0].conditioning.tokens.dim(2)]);
        stage.conds[0].conditioning = Arc::new(Conditioning { tokens, pooled: None });
        Ok(())
    };
    let refused = draw_with(&model, &mut &model, &request, &mut With(shape));
    assert!(matches!(refused, Err(Error::Stage(_))));
    let cancelled = |_: &mut ConditioningStage| Err(Error::Cancelled);
    assert!(matches!(draw_with(&model, &mut &model, &request, &mut With(cancelled)), Err(Error::Cancelled)));
}
