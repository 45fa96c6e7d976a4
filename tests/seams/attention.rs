//! Sets of keys and values beside the model's own.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::model::Network;
use latentd_models::networks::attention_bank::Bank;
use latentd_models::networks::unet::{
    AppendedKeys, AttentionChange, AttentionPlaces, AttentionRule, RowContext, SetKeys, UNet, UNetCall,
};
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{
    Activations, Device, KeySet, Precision, RowKeys, Run, attention, attention_of_rows, attention_with_bias,
    behind, keys, received,
};

use crate::drawing::{checkpoint, components};

const QUERIES: usize = 6;
const CHANNELS: usize = 64;

fn numbers(seed: f32, count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 * 0.37 + seed) * 1.7).sin()).collect()
}

fn sequence(device: &Device, seed: f32, batch: usize, tokens: usize) -> Activations {
    device.upload(&numbers(seed, batch * tokens * CHANNELS), &[batch, tokens, CHANNELS]).expect("uploads")
}

#[test]
fn sets_are_added_by_weight_and_mask() {
    let device = cpu();
    let q = sequence(&device, 0.1, 2, QUERIES);
    let set = |seed: f32, tokens| {
        let (k, v) = (sequence(&device, seed, 1, tokens), sequence(&device, seed + 9.0, 1, tokens));
        keys(&device, &k, &v, 4).expect("keys")
    };
    let (own, other) = (set(1.0, 5), set(2.0, 9));
    let found = |rows: &[RowKeys]| {
        let found = attention_of_rows(&device, &q, rows).expect("attends");
        device.download(&found).expect("downloads")
    };
    let plain = found(&[RowKeys::own(&own), RowKeys::own(&own)]);
    let alone = found(&[RowKeys::own(&other), RowKeys::own(&other)]);
    let mask: Vec<f32> = (0..QUERIES).map(|query| query as f32 / 5.0).collect();
    let with = RowKeys {
        own: KeySet { keys: &own, weight: 0.25, mask: None },
        found: None,
        sets: vec![KeySet { keys: &other, weight: 0.5, mask: Some(&mask) }],
    };
    // The first row has a second set, the second row has none.
    let both = found(&[with, RowKeys::own(&own)]);
    let half = QUERIES * CHANNELS;
    for index in 0..half {
        let wanted = 0.25 * plain[index] + 0.5 * mask[index / CHANNELS] * alone[index];
        assert!((both[index] - wanted).abs() < 1e-6, "{index}: {} for {wanted}", both[index]);
    }
    assert_eq!(both[half..], plain[half..], "the other row is as it was, to the bit");
    // A row of two that are alike, masked alike.
    let pair = |seed: f32, tokens: usize| {
        let twice = |seed| {
            let one = numbers(seed, tokens * CHANNELS);
            device.upload(&[&one[..], &one[..]].concat(), &[2, tokens, CHANNELS]).expect("uploads")
        };
        keys(&device, &twice(seed), &twice(seed + 9.0), 4).expect("keys")
    };
    let (own_pair, other_pair) = (pair(1.0, 5), pair(2.0, 9));
    let masked = |own, other, mask| RowKeys {
        own: KeySet { keys: own, weight: 0.25, mask: None },
        found: None,
        sets: vec![KeySet { keys: other, weight: 0.5, mask: Some(mask) }],
    };
    let apart = found(&[masked(&own, &other, &mask[..]), masked(&own, &other, &mask[..])]);
    assert_eq!(found(&[masked(&own_pair, &other_pair, &mask[..])]), apart);
    assert!(attention_of_rows(&device, &q, &[masked(&own_pair, &other_pair, &mask[1..])]).is_err());
    let short = sequence(&device, 3.0, 1, QUERIES);
    assert!(attention_of_rows(&device, &short, &[RowKeys::own(&own), RowKeys::own(&own)]).is_err());
}

#[test]
fn what_is_looked_at_score_by_score_is_what_the_kernels_find() {
    let device = cpu();
    for (queries, count, heads) in [(6, 9, 4), (1, 1, 1), (5, 300, 8)] {
        let (q, k, v) = (
            sequence(&device, 0.1, 2, queries),
            sequence(&device, 1.0, 2, count),
            sequence(&device, 2.0, 2, count),
        );
        let packed = keys(&device, &k, &v, heads).expect("keys");
        let download = |x: &Activations| device.download(x).expect("downloads");
        let kernels = download(&attention(&device, &q, &packed, false).expect("attends"));
        let biased = |bias: &Tensor| attention_with_bias(&device, &q, (&k, &v), heads, bias);
        let none = download(&biased(&Tensor::full(0.0, [1, count])).expect("attends"));
        let off = kernels.iter().zip(&none).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(off < 1e-5, "{queries} {count} {heads}: {off}");
        // One key alone: its value.
        let only: Vec<f32> = (0..queries * count)
            .map(|at| if at % count == at / count % count { 0.0 } else { f32::NEG_INFINITY })
            .collect();
        let found = download(&biased(&Tensor::new(only, [queries, count]).expect("fits")).expect("attends"));
        let values = download(&v);
        for (at, found) in found.iter().enumerate() {
            let (row, channel) = (at / CHANNELS, at % CHANNELS);
            let key = row / queries * count + row % queries % count;
            assert!((found - values[key * CHANNELS + channel]).abs() < 1e-6);
        }
        // All that there is goes to the one key that may be looked at.
        let first: Vec<f32> = (0..count).map(|key| if key == 0 { 0.0 } else { f32::NEG_INFINITY }).collect();
        let first = Tensor::new(first, [1, count]).expect("fits");
        let sums = received(&device, &q, &k, heads, Some(&first)).expect("sums");
        let expected = |at: usize| if at.is_multiple_of(count) { queries as f32 } else { 0.0 };
        let is_near = |(at, sum): (usize, &f32)| (sum - expected(at)).abs() < 1e-3;
        assert!(sums.values().iter().enumerate().all(is_near), "{sums:?}");
        assert!(received(&device, &q, &k, heads, Some(&Tensor::full(0.0, [1, count + 1]))).is_err());
        let sums = received(&device, &q, &k, heads, None).expect("sums");
        assert_eq!(sums.dims(), [2, count]);
        let sum: f32 = sums.values().iter().sum();
        assert!((sum - 2.0 * queries as f32).abs() < 1e-3);
        assert!(biased(&Tensor::full(0.0, [1, count + 1])).is_err());
        assert!(biased(&Tensor::full(0.0, [queries + 1, count])).is_err());
        let one = device.part(&k, 0, 1).expect("part");
        let both = behind(&device, &[&one, &one]).expect("joined");
        assert_eq!(both.dims(), [1, 2 * count, CHANNELS]);
        assert!(behind(&device, &[&k]).is_err(), "of one sequence at a time");
    }
}

fn unet() -> (Arc<UNet>, usize) {
    let [text, unet, _] = components(&checkpoint(), &cpu(), Precision::F32);
    let (Network::UNet(unet), Network::TextEncoder(text)) = (unet.network, text.network) else {
        panic!("networks")
    };
    (unet, text.clip.config().width)
}

#[test]
fn a_unets_sets_do_what_they_say() {
    let (unet, width) = unet();
    let x = Tensor::new(numbers(0.3, 2 * 4 * 8 * 9), [2, 4, 8, 9]).expect("latents");
    let tokens = |seed, count| Tensor::new(numbers(seed, count * width), [1, count, width]).expect("tokens");
    let times = unet.time_embeddings(&[400.0]).expect("embeds");
    let times = [&times[0], &times[0]];
    let own = unet.context(&tokens(1.0, 77), &[], &Run::WHOLE).expect("context");
    let extra = Arc::new(unet.context(&tokens(5.0, 4), &[], &Run::WHOLE).expect("context"));
    let run = |rules: &[&[AttentionRule]]| {
        let contexts: Vec<RowContext> = rules.iter().map(|rules| RowContext { own: &own, rules }).collect();
        let call = UNetCall { times: &times, contexts: &contexts, residuals: &[], transforms: &[] };
        unet.denoise(&x, &call, &Run::WHOLE).expect("runs")
    };
    let plain = run(&[&[], &[]]);
    let of_context = |weight, mask: Option<Tensor>| AttentionRule {
        places: AttentionPlaces::default(),
        change: AttentionChange::Set {
            keys: SetKeys::Context(Arc::clone(&extra)),
            weight,
            mask: mask.map(Arc::new),
        },
    };
    let set = |weight, mask: Option<f32>| of_context(weight, mask.map(|value| Tensor::full(value, [8, 9])));
    let (one, other) = ([set(0.7, None)], [set(0.7, Some(0.0))]);
    let found = run(&[&one, &[]]);
    assert_ne!(found.get(0).expect("row"), plain.get(0).expect("row"), "a set does something");
    assert_eq!(found.get(1).expect("row"), plain.get(1).expect("row"), "to its own row only");
    let close = |a: &Tensor, b: &Tensor| a.values().iter().zip(b.values()).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close(&run(&[&other, &[]]), &plain), "nowhere is nothing");
    assert!(close(&run(&[&[set(0.7, Some(1.0))], &[]]), &found), "everywhere is everywhere");
    let flat = [of_context(0.7, Some(Tensor::full(1.0, [72])))];
    let contexts = [RowContext { own: &own, rules: &flat }, RowContext::own(&own)];
    let call = UNetCall { times: &times, contexts: &contexts, residuals: &[], transforms: &[] };
    assert!(unet.denoise(&x, &call, &Run::WHOLE).is_err(), "a mask without rows");
    // The network's own at no weight, and the same tokens as a set of their own.
    let own_again = Arc::new(unet.context(&tokens(1.0, 77), &[], &Run::WHOLE).expect("context"));
    let no_own = |is_self| AttentionRule {
        places: AttentionPlaces { is_self, ..AttentionPlaces::default() },
        change: AttentionChange::Own { weight: 0.0, mask: None },
    };
    let again = AttentionRule {
        places: AttentionPlaces::default(),
        change: AttentionChange::Set { keys: SetKeys::Context(own_again), weight: 1.0, mask: None },
    };
    assert!(close(&run(&[&[no_own(false), again.clone()], &[]]), &plain));
    assert!(!close(&run(&[&[no_own(false)], &[]]), &plain));
    // Self-attention: each row by itself, whatever the others do.
    let identity = |index| AttentionRule {
        places: AttentionPlaces { is_self: true, index, ..AttentionPlaces::default() },
        change: AttentionChange::Identity,
    };
    let both = run(&[&[identity(None)], &[identity(None)]]);
    let first = run(&[&[identity(None)], &[]]);
    assert_eq!(first.get(0).expect("row"), both.get(0).expect("row"));
    assert_eq!(first.get(1).expect("row"), plain.get(1).expect("row"));
    assert!(!close(&first, &plain) && close(&run(&[&[identity(Some(99))], &[]]), &plain));
    let none = run(&[&[no_own(true)], &[]]);
    assert!(!close(&none, &first) && none.get(1).expect("row") == plain.get(1).expect("row"));
    // Tokens that share the softmax of the model's own are joined to them: the order of keys is no matter.
    let joined = |a: Tensor, b: Tensor| {
        let context =
            unet.context(&Tensor::cat(&[&a, &b], 1).expect("joined"), &[], &Run::WHOLE).expect("context");
        let rows = [RowContext::own(&context), RowContext::own(&context)];
        let call = UNetCall { times: &times, contexts: &rows, residuals: &[], transforms: &[] };
        unet.denoise(&x, &call, &Run::WHOLE).expect("runs")
    };
    let appended = joined(tokens(1.0, 77), tokens(5.0, 4));
    let rule = |places: AttentionPlaces, change| [AttentionRule { places, change }];
    let append = |weight| {
        let keys = AppendedKeys::Context(tokens(5.0, 4));
        rule(AttentionPlaces::default(), AttentionChange::Append { keys, weight, owner: "a".into() })
    };
    let with = run(&[&append(1.0), &[]]);
    assert!(with.get(0).expect("row").values() == appended.get(0).expect("row").values(), "to the bit");
    assert!(with.get(1).expect("row") == plain.get(1).expect("row"), "to its own row only");
    assert!(!close(&run(&[&append(0.5), &[]]), &with));
    // A bias is for all heads: zeros are nothing, and what is far below is as if it were not there.
    let bias = |values: Vec<f32>| {
        let bias = Tensor::new(values, [1, 77]).expect("fits");
        rule(AttentionPlaces::default(), AttentionChange::Bias { bias: Arc::new(bias), owner: "a".into() })
    };
    assert!(close(&run(&[&bias(vec![0.0; 77]), &[]]), &plain));
    let first = |key: usize| if key < 40 { 0.0 } else { -1e4 };
    let short =
        unet.context(&tokens(1.0, 77).narrow(1, 0, 40).expect("part"), &[], &Run::WHOLE).expect("context");
    let rows = [RowContext::own(&short), RowContext::own(&own)];
    let call = UNetCall { times: &times, contexts: &rows, residuals: &[], transforms: &[] };
    let expected = unet.denoise(&x, &call, &Run::WHOLE).expect("runs");
    assert!(close(&run(&[&bias((0..77).map(first).collect()), &[]]), &expected) && !close(&expected, &plain));
    // What self-attention is made of, appended to itself, is twice the same: nothing changes but the last bits.
    let bank = Arc::new(Bank::default());
    let in_self = AttentionPlaces { is_self: true, ..AttentionPlaces::default() };
    let capture = rule(in_self, AttentionChange::Capture { bank: Arc::clone(&bank), picture: 0 });
    let use_it =
        |weight| rule(in_self, AttentionChange::FromBank { bank: Arc::clone(&bank), picture: 0, weight });
    assert!(run(&[&use_it(1.0), &[]]) == plain, "nothing was kept yet");
    assert!(run(&[&capture, &[]]) == plain, "who only keeps changes nothing");
    let places: Vec<_> = bank.all().into_iter().map(|(place, ..)| (place.part, place.index)).collect();
    assert!(
        !places.is_empty() && bank.all().iter().all(|(place, picture, _)| place.is_self && *picture == 0)
    );
    assert!(close(&run(&[&use_it(1.0), &[]]), &plain));
    assert!(!close(&run(&[&use_it(0.5), &[]]), &plain));
    let received = Arc::new(Bank::default());
    let change = AttentionChange::Received { bank: Arc::clone(&received), picture: 3 };
    assert!(close(&run(&[&rule(in_self, change), &[]]), &plain));
    for (_, picture, sums) in received.all() {
        let places = sums.dim(1) as f32;
        let sum: f32 = sums.values().iter().sum();
        assert!(picture == 3 && (sum - places).abs() < 1e-3 * places, "{sum} of {places} queries");
    }
    assert_eq!(received.all().len(), places.len());
    // With what is added to its scores.
    let of_prompt = Arc::new(Bank::default());
    let change = AttentionChange::Received { bank: Arc::clone(&of_prompt), picture: 0 };
    let only = bias((0..77).map(|key| if key == 5 { 0.0 } else { -1e4 }).collect());
    let both = [only[0].clone(), rule(AttentionPlaces::default(), change)[0].clone()];
    let once = run(&[&both, &[]]);
    for (place, _, sums) in of_prompt.all() {
        let all: f32 = sums.values().iter().sum();
        assert!((sums.values()[5] - all).abs() < 1e-3 * all && all > 0.0, "{place:?}: {sums:?}");
    }
    assert!(run(&[&both, &[]]) == once, "what is kept of its keys is the same");
    assert!(close(&appended, &joined(tokens(5.0, 4), tokens(1.0, 77))) && !close(&appended, &plain));
}
