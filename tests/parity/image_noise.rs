//! The noise an image begins with, against A1111's rules in Python over torch and numpy
//! (`tests/fixtures/reference/image_noise.py`).
//!
//! What is only drawn and pasted is off by what `noise.rs` allows: 4 ULP of the radius, 1.4e-6. Where noise is turned, both
//! shares are divided by the sine of an angle: in the cases there are, of no less than 0.07.

use latentd_models::sampling::{ImageNoise, NoiseSource, Variation};

use crate::golden::Golden;

const DRAWN: f32 = 1.4e-6;
const TURNED: f32 = 2.0 * DRAWN / 0.07;

#[test]
fn an_image_begins_with_a1111s_noise() {
    let golden = Golden::open("image_noise");
    let mut cases = 0;
    for name in golden.names() {
        let parts: Vec<&str> = name.split('.').collect();
        let [source, seed, subseed, percent, from, shape] = parts[..] else { panic!("{name}") };
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let sizes = |text: &str| text.split('x').map(|side| number(side) as usize).collect::<Vec<_>>();
        let (from, shape) = (sizes(from), sizes(shape));
        let strength = number(percent) as f64 / 100.0;
        let noise = ImageNoise {
            source: NoiseSource::from_name(source).expect("a source"),
            seed: number(seed),
            variation: Some(Variation { subseed: number(subseed), strength }),
            resized_from: (from[0] > 0).then_some((from[0], from[1])),
        };
        let (first, mut generator) = noise.begin([shape[0], shape[1], shape[2]]);
        let next = generator.normal(first.len());
        let wanted = golden.floats(name);
        let most = |found: &[f32], wanted: &[f32]| {
            assert_eq!(found.len(), wanted.len(), "{name}");
            found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let (of_first, of_next) = wanted.split_at(wanted.len() / 2);
        let (off, off_next) = (most(&first, of_first), most(&next, of_next));
        println!("{name}: {off:.1e}, step noise {off_next:.1e}");
        assert!(off <= if strength == 0.0 { DRAWN } else { TURNED }, "{name}: {off:.1e}");
        assert!(off_next <= DRAWN, "{name}: {off_next:.1e}");
        cases += 1;
    }
    assert_eq!(cases, 2 * 14);
}
