//! Variations, and pictures that show what their seed draws at another size.

use latentd_client::protocol::{ErrorName, ImageIn, ImageOut, Precision, Rng, Txt2ImgParams};

use crate::harness::{Daemon, Raw, map, refused, small, within};

fn plain(seed: i64) -> Txt2ImgParams {
    Txt2ImgParams { precision: Precision::F32, ..small(seed) }
}

async fn draw(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<ImageOut> {
    within(daemon.client().await.txt2img(params)).await.expect("drawn").images
}

fn pixels(image: &ImageOut) -> Vec<u8> {
    let png = image.png.as_ref().expect("a PNG");
    latentd_models::image::Picture::decode(&png.0, 1 << 20).expect("decodes").pixels
}

#[tokio::test]
async fn variations_of_one_seed_are_pictures_of_their_own() {
    let daemon = Daemon::start();
    for rng in [Rng::Nv, Rng::Cpu] {
        let of = |subseed, subseed_strength| Txt2ImgParams { subseed, subseed_strength, rng, ..plain(7) };
        let seven = pixels(&draw(&daemon, &of(-1, 0.0)).await[0]);
        let eight = pixels(&draw(&daemon, &Txt2ImgParams { seed: 8, rng, ..plain(8) }).await[0]);
        let all = draw(&daemon, &Txt2ImgParams { batch_size: 2, n_iter: 2, ..of(8, 0.25) }).await;
        let seeds: Vec<_> = all.iter().map(|image| (image.seed, image.subseed)).collect();
        assert_eq!(seeds, (8..12).map(|subseed| (Some(7), Some(subseed))).collect::<Vec<_>>());
        for (place, image) in all.iter().enumerate() {
            let text = image.infotext.as_deref().expect("a text");
            let told =
                format!("Model: tiny-sd1, Variation seed: {}, Variation seed strength: 0.25, RNG", 8 + place);
            assert!(text.contains("Seed: 7, ") && text.contains(&told), "{text}");
            let alone = draw(&daemon, &of(8 + place as i64, 0.25)).await.remove(0);
            assert!(alone.png == image.png, "picture {place} is the same alone");
            assert!(pixels(image) != seven && pixels(image) != eight);
        }
        let whole = draw(&daemon, &of(8, 1.0)).await.remove(0);
        // Step noise is the seed's own, so it is no more than near the other's picture.
        assert!(pixels(&whole) != seven);
        let euler = |params| Txt2ImgParams { sampler_name: "Euler".into(), ..params };
        let near = pixels(&draw(&daemon, &euler(of(8, 1.0))).await[0]);
        let other = pixels(&draw(&daemon, &euler(Txt2ImgParams { rng, ..plain(8) })).await[0]);
        let off = near.iter().zip(&other).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(off <= Some(1), "{off:?}");
    }
}

#[tokio::test]
async fn a_variation_that_is_drawn_by_lot_is_told() {
    let daemon = Daemon::start();
    let params = Txt2ImgParams { subseed_strength: 0.5, ..plain(-1) };
    let drawn = draw(&daemon, &params).await.remove(0);
    let (seed, subseed) = (drawn.seed.expect("a seed"), drawn.subseed.expect("a variation"));
    let said =
        within(daemon.client().await.image_info(ImageIn::png(drawn.png.clone().expect("a PNG").0))).await;
    let said = said.expect("read").request.expect("a request").into_drawing();
    assert_eq!((said.seed as u64, said.subseed as u64, said.subseed_strength), (seed, subseed, 0.5));
    assert!(draw(&daemon, &said).await[0].png == drawn.png, "the same bytes");
}

#[tokio::test]
async fn a_picture_shows_what_its_seed_draws_at_another_size() {
    let daemon = Daemon::start();
    let from =
        |width, height| Txt2ImgParams { seed_resize_from_w: width, seed_resize_from_h: height, ..plain(7) };
    let own = draw(&daemon, &plain(7)).await.remove(0);
    let text = |image: &ImageOut| image.infotext.clone().expect("a text");
    assert!(!text(&own).contains("Seed resize"));
    let same = draw(&daemon, &from(64, 64)).await.remove(0);
    assert!(pixels(&same) == pixels(&own) && text(&same).contains(", Seed resize from: 64x64, "));
    let other = draw(&daemon, &from(96, 40)).await.remove(0);
    assert!(pixels(&other) != pixels(&own) && text(&other).contains(", Seed resize from: 96x40, "));
    let half = within(daemon.client().await.txt2img(&from(96, -1))).await.expect("drawn");
    assert!(pixels(&half.images[0]) == pixels(&own) && !text(&half.images[0]).contains("Seed resize"));
    assert_eq!(half.notices, ["seed_resize_from_w: 96 does nothing without seed_resize_from_h; give both"]);
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for (params, expected) in [
        (
            Txt2ImgParams { subseed_strength: 1.5, ..plain(1) },
            "subseed_strength: 1.5 is out of range; give 0 to 1",
        ),
        (Txt2ImgParams { subseed_strength: 0.5, height: Some(8), ..plain(1) }, "give a height of 16"),
        (Txt2ImgParams { seed_resize_from_w: 7, seed_resize_from_h: 64, ..plain(1) }, "give 8 or more"),
        (Txt2ImgParams { seed_resize_from_w: 5000, ..plain(1) }, "seed_resize_from_w: 5000"),
    ] {
        let text = refused(within(client.txt2img(&params)).await, ErrorName::InvalidParams);
        assert!(text.contains(expected), "{text}");
    }
    let mut raw = Raw::connect(&daemon);
    let error = raw.call("txt2img", &map(&[("rng", "GPU".into())])).expect_err("refused");
    assert!(error.text.contains("rng: 'GPU' is none of nv, cpu, NV, CPU"), "{error}");
    let drawn = |rng: &str| {
        let request = [
            ("rng", rng.into()),
            ("seed", 1.into()),
            ("steps", 1.into()),
            ("width", 64.into()),
            ("height", 64.into()),
        ];
        Raw::connect(&daemon).call("txt2img", &map(&request)).expect("drawn")
    };
    let image = |rng| drawn(rng)["images"][0]["png"].clone();
    assert!(image("CPU") == image("cpu") && image("NV") == image("nv") && image("cpu") != image("nv"));
}
