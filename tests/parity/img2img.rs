//! From pictures to latents, against A1111's formulas over Pillow, OpenCV, diffusers and k-diffusion: a table of resize modes,
//! areas, masked contents and samplers (`tests/fixtures/img2img.py`).

use latentd_models::image::inpaint::{Inpaint, Preparation};
use latentd_models::image::{Fit, Picture};
use latentd_models::model::Model;
use latentd_models::nn::Precision;
use latentd_models::pipeline::{Img2Img, InitImage, MaskedContent, NoWatch, Txt2Img, img2img};
use latentd_models::sampling::{Sampler, SamplerOptions, Schedule};

use crate::drawing::Trace;
use crate::golden::{Golden, checkpoint, relative_error, values};
use crate::pictures_in::made_up;

const SIZES: [(usize, usize); 3] = [(96, 64), (64, 64), (50, 90)];
const AREAS: [(&str, Option<&str>, Option<usize>); 5] = [
    ("none", None, None),
    ("whole", Some("rectangle"), None),
    ("corner", Some("corner"), None),
    ("only", Some("rectangle"), Some(0)),
    ("padded", Some("corner"), Some(7)),
];

#[test]
fn the_whole_way_ends_where_the_reference_does() {
    let golden = Golden::open("img2img");
    let model = Model::open(&checkpoint("tiny-sd1"), Precision::F32).expect("opens");
    let (mut count, mut worst) = (0, 0f64);
    let kinds = (0..3).flat_map(|mode| (0..4).flat_map(move |fill| AREAS.map(|area| (mode, fill, area))));
    for (number, (mode, fill, (area, mask, padding))) in kinds.enumerate() {
        let (width, height) = SIZES[number % 3];
        for sampler in Sampler::all() {
            let key = format!("{mode}.{fill}.{area}.{sampler}");
            if !golden.has(&key) {
                continue;
            }
            let preparation = Preparation {
                size: (64, 64),
                fit: Some([Fit::Stretch, Fit::Crop, Fit::Fill][mode]),
                background: [255; 3],
                corrects_colour: false,
                inpaint: Inpaint {
                    round: true,
                    blur: (2.0, 2.0),
                    fills: fill != 1,
                    only_masked: padding,
                    ..Inpaint::default()
                },
            };
            let mask: Option<Picture> = mask.map(|kind| made_up(kind, (width, height), 1, 2));
            let prepared = preparation.prepare(&made_up("blocks", (width, height), 3, 1), mask.as_ref());
            let prepared = prepared.expect("prepares");
            let on_latents = |mask: &latentd_models::image::inpaint::Mask| {
                mask.on_latents(8, 8, true).and_then(|mask| mask.reshaped([1, 8, 8])).expect("fits")
            };
            let drawing =
                crate::samplers::request(sampler, Schedule::Automatic, 5, SamplerOptions::default());
            let request = Img2Img {
                drawing: Txt2Img { width: 64, height: 64, ..drawing },
                denoising_strength: 0.7,
                latent_mask: prepared.mask.as_ref().map(on_latents),
                masked_content: match fill {
                    2 => MaskedContent::Noise,
                    3 => MaskedContent::Nothing,
                    _ => MaskedContent::Picture,
                },
                ..crate::from_latents::plain(InitImage::Picture(prepared.tensor().expect("fits")))
            };
            let mut trace = Trace::default();
            img2img(&model.facts(), &mut &model, &request, &mut NoWatch, &mut trace).expect("draws");
            let error = relative_error(&values(&trace.latents[0]), &golden.floats(&key));
            assert!(error < 1e-4, "{key}: {error:.2e}");
            worst = worst.max(error);
            count += 1;
        }
    }
    println!("{count} rows, at worst {worst:.2e} ({:.0} dB)", -20.0 * worst.log10());
    assert!(count >= 60, "only {count}");
}
