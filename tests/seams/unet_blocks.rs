//! What goes by in the UNet: where it may be looked at, and what changing it does.

use std::collections::BTreeSet;

use latentd_models::networks::unet::{Block, RowContext, UNet, UNetCall};
use latentd_models::networks::unet_sites::{Site, SitePart, Visited, Visitor};
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::backend::fake::fake;
use latentd_models::nn::{Precision, Run};
use latentd_models::pipeline::{
    Evaluation, Handles, NoWatch, Output, Stages, Txt2Img, UNetBlock, Wants, Watch, txt2img,
};
use latentd_models::{Error, Result, Tensor};

use crate::drawing::{draw, draw_with, model, request};

const fn site(part: SitePart, index: usize) -> Site {
    Site { part, index }
}

/// What somebody saw: where, which rows in which group, and how large.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    call: usize,
    site: Site,
    group: (usize, usize),
    /// Image and branch of each.
    rows: Vec<(usize, usize)>,
    h: Vec<usize>,
    skip: Option<Vec<usize>>,
}

/// Looks at some places, multiplies what goes by in others.
struct At {
    /// Everywhere if `None`.
    wanted: Option<BTreeSet<Site>>,
    /// Where h is multiplied, and by what.
    h: Option<(Site, f32)>,
    skip: Option<(Site, f32)>,
    /// Of h, on its way.
    sums: Vec<f64>,
    seen: Vec<Seen>,
}

impl At {
    fn everywhere() -> Self {
        Self { wanted: None, h: None, skip: None, sums: vec![], seen: vec![] }
    }

    fn sites(sites: &[Site]) -> Self {
        Self { wanted: Some(sites.iter().copied().collect()), ..Self::everywhere() }
    }
}

impl Stages for At {
    fn wants(&self) -> Wants {
        Wants { unet_block: true, ..Wants::default() }
    }

    fn wants_site(&self, evaluation: &Evaluation, site: Site) -> bool {
        assert!(evaluation.rows.iter().all(|row| row.tag.is_empty()));
        self.wanted.as_ref().is_none_or(|sites| sites.contains(&site))
    }

    fn unet_block(&mut self, stage: &UNetBlock, tensors: &mut Handles) -> Result<()> {
        let of = stage.evaluation;
        let h = tensors.read(stage.h)?;
        self.sums.push(h.values().iter().map(|value| f64::from(*value)).sum());
        self.seen.push(Seen {
            call: of.call,
            site: stage.site,
            group: (stage.group, stage.groups),
            rows: of.rows[stage.rows.clone()].iter().map(|row| (row.image, row.branch)).collect(),
            h: h.dims().to_vec(),
            skip: stage.skip.map(|skip| tensors.read(skip).map(|skip| skip.dims().to_vec())).transpose()?,
        });
        let times = |by: Option<(Site, f32)>| by.filter(|(site, _)| *site == stage.site).map(|(_, by)| by);
        for (by, handle) in [(times(self.h), Some(stage.h)), (times(self.skip), stage.skip)] {
            if let (Some(by), Some(handle)) = (by, handle) {
                tensors.write(handle)?.iter_mut().for_each(|value| *value *= by);
            }
        }
        Ok(())
    }
}

fn drawn(request: &Txt2Img, stages: &mut dyn Stages) -> Vec<Output> {
    let model = model(&cpu(), Precision::F32);
    draw_with(&model, &mut &model, request, stages).expect("draws")
}

/// Every place of a network over latents of this size, with what goes by there, as LDM's code has it
/// (`ldm/modules/diffusionmodules/openaimodel.py`).
fn places(unet: &UNet, rows: usize, latents: (usize, usize)) -> Vec<(Site, Vec<usize>, Option<Vec<usize>>)> {
    let config = unet.config();
    let (mut size, mut channels) = (latents, config.channels);
    let (mut places, mut skips) = (vec![], vec![]);
    for index in 0..=config.input_blocks.len() {
        match index.checked_sub(1).map(|index| &config.input_blocks[index]) {
            Some(Block::Downsample) => size = (size.0.div_ceil(2), size.1.div_ceil(2)),
            Some(Block::Residual { channels: out, .. }) => channels = *out,
            None => (),
        }
        let dims = vec![rows, channels, size.0, size.1];
        places.push((site(SitePart::Input, index), dims.clone(), None));
        places.push((site(SitePart::InputStored, index), dims.clone(), None));
        skips.push(dims);
    }
    places.push((site(SitePart::Middle, 0), vec![rows, channels, size.0, size.1], None));
    for (index, block) in config.output_blocks.iter().enumerate() {
        let skip = skips.pop().expect("a skip");
        places.push((
            site(SitePart::Output, index),
            vec![rows, channels, size.0, size.1],
            Some(skip.clone()),
        ));
        let Block::Residual { channels: out, upsample, .. } = block else { panic!("no way up") };
        channels = *out;
        size = (skip[2], skip[3]);
        if *upsample {
            size = (size.0 * 2, size.1 * 2);
        }
    }
    places
}

#[test]
fn places_come_in_the_networks_order() {
    let model = model(&cpu(), Precision::F32);
    let request = Txt2Img { steps: 2, ..request() };
    let mut at = At::everywhere();
    let watched = draw_with(&model, &mut &model, &request, &mut at).expect("draws");
    assert_eq!(watched, draw(&model, &request).expect("draws"), "who only looks changes nothing");
    // 8 × 9 latents: 9 is halved to 5 and comes back as 10.
    let places = places(model.unet(), 2, (8, 9));
    assert!(places.iter().any(|(_, h, skip)| skip.as_ref().is_some_and(|skip| skip[3] + 1 == h[3])));
    let wanted: Vec<Seen> = (0..2)
        .flat_map(|call| {
            places.iter().map(move |(site, h, skip)| Seen {
                call,
                site: *site,
                group: (0, 1),
                rows: vec![(0, 0), (0, 1)],
                h: h.clone(),
                skip: skip.clone(),
            })
        })
        .collect();
    assert_eq!(at.seen, wanted);
}

/// Is not asked, for it wants nothing.
struct Nobody;

impl Stages for Nobody {
    fn wants_site(&self, _: &Evaluation, _: Site) -> bool {
        panic!("not asked")
    }

    fn unet_block(&mut self, _: &UNetBlock, _: &mut Handles) -> Result<()> {
        panic!("not called")
    }
}

#[test]
fn what_nobody_wants_is_not_called() {
    for sites in [&[][..], &[site(SitePart::Output, 99), site(SitePart::Middle, 1)]] {
        let mut at = At::sites(sites);
        drawn(&request(), &mut at);
        assert_eq!(at.seen, []);
    }
    let mut at = At::sites(&[site(SitePart::Middle, 0)]);
    drawn(&request(), &mut at);
    assert_eq!(at.seen.len(), 3, "once a step");

    drawn(&request(), &mut Nobody);
}

/// h and skip changed in the ways that a network's structure says are the same, and those that it says are not.
#[test]
fn what_is_changed_goes_on_where_it_says() {
    let plain = drawn(&request(), &mut At::sites(&[]));
    let changed = |h: Option<(Site, f32)>, skip: Option<(Site, f32)>| {
        let sites: Vec<Site> = [h, skip].into_iter().flatten().map(|(site, _)| site).collect();
        drawn(&request(), &mut At { h, skip, ..At::sites(&sites) })
    };
    let doubled: Vec<_> = [
        (SitePart::Input, 0),
        (SitePart::InputStored, 0),
        (SitePart::Input, 4),
        (SitePart::Middle, 0),
        (SitePart::Output, 1),
    ]
    .into_iter()
    .map(|(part, index)| changed(Some((site(part, index), 2.0)), None))
    .collect();
    for (index, pictures) in doubled.iter().enumerate() {
        assert!(pictures[0].image != plain[0].image, "{index}");
        assert!(doubled[..index].iter().all(|other| other[0].image != pictures[0].image), "{index}");
    }
    // By 1 is as it was, written to or not.
    assert_eq!(changed(Some((site(SitePart::Middle, 0), 1.0)), None), plain);
    // The middle's output is the first output block's h.
    assert_eq!(changed(Some((site(SitePart::Output, 0), 2.0)), None), doubled[3]);
    // The last output block's skip is what the first convolution stored.
    let model = model(&cpu(), Precision::F32);
    let last = site(SitePart::Output, model.unet().config().output_blocks.len() - 1);
    let skip = changed(None, Some((last, 2.0)));
    assert!(skip[0].image != plain[0].image);
    let both = changed(Some((site(SitePart::InputStored, 0), 2.0)), Some((last, 2.0)));
    assert_eq!(both, doubled[0], "what is stored, and what goes on");
}

#[test]
fn groups_of_rows_are_the_same_as_all_together() {
    let request = Txt2Img { batch_size: 2, steps: 2, ..request() };
    let output = site(SitePart::Output, 1);
    let with = |at_once| {
        let mut at = At { h: Some((output, 1.5)), ..At::sites(&[output]) };
        let pictures = drawn(&Txt2Img { samples_at_once: at_once, ..request.clone() }, &mut at);
        (pictures, at.seen)
    };
    let (together, seen) = with(None);
    assert_eq!((seen.len(), seen[0].rows.len(), seen[0].group), (2, 4, (0, 1)));
    for (at_once, groups) in [(1, 4), (3, 2)] {
        let (pictures, seen) = with(Some(at_once));
        assert_eq!(pictures, together);
        let of_call: Vec<&Seen> = seen.iter().filter(|seen| seen.call == 1).collect();
        let told: Vec<_> = of_call.iter().map(|seen| seen.group).collect();
        assert_eq!(told, (0..groups).map(|group| (group, groups)).collect::<Vec<_>>());
        let rows: Vec<_> = of_call.iter().flat_map(|seen| seen.rows.clone()).collect();
        assert_eq!(rows, [(0, 0), (1, 0), (0, 1), (1, 1)]);
        assert!(of_call.iter().all(|seen| seen.h[0] == seen.rows.len()));
    }
}

#[test]
fn the_fake_device_does_the_same() {
    for precision in [Precision::F32, Precision::Bf16] {
        let device = fake(256 << 20, None).expect("an arena").0;
        let (here, there) = (model(&cpu(), precision), model(&device, precision));
        let used = device.memory().used;
        let output = site(SitePart::Output, 2);
        let with = |model| {
            let mut at = At { h: Some((output, 1.5)), skip: Some((output, 0.5)), ..At::everywhere() };
            (draw_with(model, &mut &*model, &request(), &mut at).expect("draws"), at.sums)
        };
        assert_eq!(with(&there), with(&here), "{}", precision.name());
        assert_eq!(device.memory().used, used, "all was given back");
        let looked = draw_with(&there, &mut &there, &request(), &mut At::everywhere());
        assert_eq!(looked.expect("draws"), draw(&there, &request()).expect("draws"), "{}", precision.name());
    }
}

/// Fails, or gives what is of no use.
struct Bad(usize);

impl Stages for Bad {
    fn wants(&self) -> Wants {
        Wants { unet_block: true, ..Wants::default() }
    }

    fn unet_block(&mut self, stage: &UNetBlock, tensors: &mut Handles) -> Result<()> {
        match self.0 {
            0 => Err(Error::Stage("no".to_owned())),
            1 => tensors.replace(stage.h, Tensor::full(0.0, [1, 2, 3, 4])),
            _ => Err(Error::Cancelled),
        }
    }
}

#[test]
fn errors_end_the_request() {
    let model = model(&cpu(), Precision::F32);
    let ended = |number| draw_with(&model, &mut &model, &request(), &mut Bad(number)).expect_err("ends");
    assert!(matches!(ended(0), Error::Stage(text) if text == "no"));
    assert!(matches!(ended(1), Error::Stage(text) if text.contains("[1, 2, 3, 4]")));
    assert!(matches!(ended(2), Error::Cancelled));
}

/// Cancelled from within: the next section ends it, however long a stage takes.
#[test]
fn cancelling_is_heard_between_places() {
    static CANCELLED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

    struct Cancelling(BTreeSet<Site>);
    impl Stages for Cancelling {
        fn wants(&self) -> Wants {
            Wants { unet_block: true, ..Wants::default() }
        }
        fn unet_block(&mut self, stage: &UNetBlock, _: &mut Handles) -> Result<()> {
            self.0.insert(stage.site);
            if stage.site == site(SitePart::Input, 2) {
                CANCELLED.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        }
    }
    struct Told;
    impl Watch for Told {
        fn cancelled(&self) -> bool {
            CANCELLED.load(std::sync::atomic::Ordering::Relaxed)
        }
    }
    let model = model(&cpu(), Precision::F32);
    let mut stages = Cancelling(BTreeSet::new());
    let ended = txt2img(&model.facts(), &mut &model, &request(), &mut Told, &mut stages);
    assert!(matches!(ended, Err(Error::Cancelled)));
    assert!(!stages.0.contains(&site(SitePart::Input, 3)), "{:?}", stages.0);
    let again = txt2img(&model.facts(), &mut &model, &request(), &mut NoWatch, &mut stages);
    assert_eq!(again.expect("draws"), draw(&model, &request()).expect("draws"));
}

/// Sizes cannot change yet, in whatever way a visitor gives them.
#[test]
fn another_shape_is_refused_by_name() {
    struct Smaller(bool);
    impl Visitor for Smaller {
        fn wants(&self, at: Site) -> bool {
            at == site(SitePart::Output, 0)
        }
        fn visit(&mut self, _: Site, h: Tensor, skip: Option<Tensor>) -> Result<Visited> {
            let smaller = |of: Tensor| of.narrow(3, 0, 1).map(Some);
            Ok(if self.0 {
                Visited { h: smaller(h)?, skip: None }
            } else {
                Visited { h: None, skip: skip.map_or(Ok(None), smaller)? }
            })
        }
    }
    let model = model(&cpu(), Precision::F32);
    let unet = model.unet();
    let context = Tensor::full(0.1, [1, 77, unet.config().context_width]);
    let context = unet.context(&context, &[], &Run::WHOLE).expect("context");
    let times = unet.time_embeddings(&[500.0]).expect("embeds");
    let contexts = [RowContext::own(&context)];
    let call = UNetCall { times: &[&times[0]], contexts: &contexts, residuals: &[], transforms: &[] };
    let x = Tensor::full(0.5, [1, 4, 16, 16]);
    for (of_h, name) in [(true, "h became"), (false, "the skip became")] {
        let refused = unet.denoise_visited(&x, &call, &Run::WHOLE, &mut Smaller(of_h));
        let Err(Error::Stage(text)) = refused else { panic!("{name}") };
        assert!(text.contains(name) && text.contains("sizes cannot change yet"), "{text}");
    }
}
