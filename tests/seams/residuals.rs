//! What is added on the way through a UNet: sizes, order, rows, and that nothing added is nothing changed.

use std::sync::{Arc, Weak};

use latentd_models::Tensor;
use latentd_models::model::Network;
use latentd_models::networks::unet::{RowContext, UNetCall, UNetConfig};
use latentd_models::networks::unet_residuals::ResidualPlace;
use latentd_models::networks::unet_sites::{Site, SitePart, Visited, Visitor};
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Precision, Run};
use latentd_models::pipeline::{
    ControlResiduals, DenoiseCombine, Handles, Held, NoStages, Residual, Role, Stages, Txt2Img, Wants,
};

use crate::drawing::{checkpoint, components, draw, draw_with, model, request};

#[test]
fn sizes_are_those_of_the_way_down() {
    let sizes = UNetConfig::sd15().residual_sizes((65, 64));
    assert_eq!(sizes.outputs(), 12);
    for (place, wanted) in [
        (ResidualPlace::Encoder(0), Some([320, 65, 64])),
        (ResidualPlace::Skip(3), Some([320, 33, 32])),
        (ResidualPlace::Encoder(4), Some([640, 33, 32])),
        (ResidualPlace::Skip(11), Some([1280, 9, 8])),
        (ResidualPlace::Middle, Some([1280, 9, 8])),
        (ResidualPlace::Skip(12), None),
    ] {
        assert_eq!(sizes.at(place), wanted, "{place}");
    }
    assert_eq!(sizes.of_control().count(), 13);
}

/// What goes by at a place: h, and the skip.
type Seen = (Site, Vec<f32>, Option<Vec<f32>>);

/// Looks at what goes by.
struct Looking(Vec<Seen>);

impl Visitor for Looking {
    fn wants(&self, _site: Site) -> bool {
        true
    }

    fn visit(&mut self, site: Site, h: Tensor, skip: Option<Tensor>) -> latentd_models::Result<Visited> {
        self.0.push((site, h.values().to_vec(), skip.map(|skip| skip.values().to_vec())));
        Ok(Visited::default())
    }
}

/// Of each place, by what sees it first and what does not.
#[test]
fn each_is_added_where_it_says() {
    let [text, unet, _] = components(&checkpoint(), &cpu(), Precision::F32);
    let (Network::UNet(unet), Network::TextEncoder(text)) = (unet.network, text.network) else {
        panic!("networks")
    };
    let width = text.clip.config().width;
    let numbers =
        |seed: f32, count: usize| (0..count).map(|i| ((i as f32 * 0.37 + seed) * 1.7).sin()).collect();
    let x = Tensor::new(numbers(0.3, 4 * 8 * 9), [1, 4, 8, 9]).expect("latents");
    let tokens = Tensor::new(numbers(1.0, 77 * width), [1, 77, width]).expect("tokens");
    let own = unet.context(&tokens, &[], &Run::WHOLE).expect("context");
    let times = unet.time_embeddings(&[400.0]).expect("embeds");
    let sizes = unet.config().residual_sizes((8, 9));
    let seen = |residuals: &[(ResidualPlace, Tensor)]| {
        let contexts = [RowContext::own(&own)];
        let call = UNetCall { times: &[&times[0]], contexts: &contexts, residuals, transforms: &[] };
        let mut looking = Looking(vec![]);
        unet.denoise_visited(&x, &call, &Run::WHOLE, &mut looking).expect("runs");
        looking.0
    };
    let plain = seen(&[]);
    for place in (0..sizes.outputs())
        .flat_map(|index| [ResidualPlace::Encoder(index), ResidualPlace::Skip(index)])
        .chain([ResidualPlace::Middle])
    {
        let [channels, height, width] = sizes.at(place).expect("a place");
        let residual = Tensor::new(numbers(2.0, channels * height * width), [1, channels, height, width]);
        let residual = residual.expect("fits");
        let with = seen(&[(place, residual.clone())]);
        let differs = |at: usize| plain[at] != with[at];
        let first = (0..plain.len()).find(|at| differs(*at)).map(|at| &plain[at].0);
        // Whoever looks at the way up sees the skip from the top of the stack.
        let (wanted, of_skip) = match place {
            ResidualPlace::Encoder(index) => (Site { part: SitePart::Input, index }, false),
            ResidualPlace::Skip(index) => {
                (Site { part: SitePart::Output, index: sizes.outputs() - 1 - index }, true)
            }
            ResidualPlace::Middle => (Site { part: SitePart::Output, index: 0 }, false),
        };
        assert_eq!(first, Some(&wanted), "{place}");
        let at = plain.iter().position(|(site, ..)| *site == wanted).expect("a site");
        let sum = |of: &Seen| {
            if of_skip { of.2.clone().expect("a skip") } else { of.1.clone() }
        };
        let (before, after) = (sum(&plain[at]), sum(&with[at]));
        let off = before.iter().zip(residual.values()).zip(&after);
        let worst = off.fold(0.0_f32, |most, ((a, b), sum)| most.max((a + b - sum).abs()));
        assert!(worst < 1e-5, "{place}: {worst}");
        // A skip is only what joins the way up: the rest of that site is as it was.
        assert!(!of_skip || plain[at].1 == with[at].1, "{place}");
    }
    let nothing: Vec<_> = sizes
        .of_control()
        .map(|place| {
            let [channels, height, width] = sizes.at(place).expect("a place");
            (place, Tensor::full(-0.0, [1, channels, height, width]))
        })
        .collect();
    let bits = |seen: &[Seen]| -> Vec<u32> {
        let values = seen.iter().flat_map(|(_, h, skip)| h.iter().chain(skip.iter().flatten()));
        values.map(|value| value.to_bits()).collect()
    };
    assert!(bits(&seen(&nothing)) == bits(&plain), "−0 is nothing, to the bit");
}

/// Adds to rows of one role.
struct Adding {
    scale: f32,
    role: Role,
    calls: usize,
    /// What the last one held.
    held: Weak<()>,
}

impl Stages for Adding {
    fn wants(&self) -> Wants {
        Wants { control_residuals: true, denoise_combine: true, ..Wants::default() }
    }

    /// What was added is let go of as the evaluation ends.
    fn denoise_combine(&mut self, _: &DenoiseCombine, _: &mut Handles) -> latentd_models::Result<()> {
        assert!(self.calls > 0 && self.held.upgrade().is_none());
        Ok(())
    }

    fn control_residuals(
        &mut self,
        stage: &ControlResiduals,
        tensors: &mut Handles,
    ) -> latentd_models::Result<Vec<Residual>> {
        self.calls += 1;
        assert_eq!(tensors.read(stage.latents)?.dims()[1], 4);
        let rows = stage.evaluation.rows.iter().enumerate();
        let rows = rows.filter(|(_, row)| row.role == self.role).map(|(index, _)| index).collect();
        let place = ResidualPlace::Skip(2);
        let [channels, height, width] = stage.sizes.at(place).expect("a place");
        let tensor = Tensor::full(1.0, [1, channels, height, width]);
        let (owner, scale) = ("a".into(), self.scale);
        let held = Arc::new(());
        self.held = Arc::downgrade(&held);
        let held = Held::of(held);
        Ok(vec![Residual { owner, place, rows: Some(rows), tensor, mask: None, scale, held }])
    }
}

#[test]
fn rows_that_nothing_is_added_to_draw_the_same_bytes() {
    let model = model(&cpu(), Precision::F32);
    let request = Txt2Img { batch_size: 2, ..request() };
    let plain = draw_with(&model, &mut &model, &request, &mut NoStages).expect("draws");
    let drawn = |scale, role| {
        let mut adding = Adding { scale, role, calls: 0, held: Weak::new() };
        let drawn = draw_with(&model, &mut &model, &request, &mut adding).expect("draws");
        assert!(adding.calls > 0);
        drawn
    };
    assert_eq!(drawn(0.0, Role::Cond), plain, "zero means zero");
    assert_eq!(drawn(0.5, Role::Other), plain, "of no row");
    let (cond, uncond) = (drawn(0.5, Role::Cond), drawn(0.5, Role::Uncond));
    assert!(cond != plain && uncond != plain && cond != uncond);
    assert_eq!(draw(&model, &request).expect("draws"), plain);
}
