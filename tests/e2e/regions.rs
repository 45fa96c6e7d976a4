//! Parts of a picture with prompts of their own, through the socket.

use latentd_client::protocol::{
    ErrorName, ImageIn, ImageOut, Precision, RegionParams, Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::Picture;

use crate::harness::{Daemon, refused, small, within};

/// A mask of this size that is white left of a column.
fn left(width: u32, height: u32, column: u32) -> ImageIn {
    let row = (0..width).map(|x| if x < column { 255 } else { 0 });
    let pixels = (0..height).flat_map(|_| row.clone()).collect();
    ImageIn::raw(pixels, width, height, 1)
}

fn request(regions: Vec<RegionParams>) -> Txt2ImgParams {
    Txt2ImgParams { regions, precision: Precision::F32, steps: 3, ..small(5) }
}

async fn draw(daemon: &Daemon, params: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(params)).await.expect("drawn")
}

fn picture(image: &ImageOut) -> Picture {
    Picture::decode(&image.png.as_ref().expect("a PNG").0, 1 << 24).expect("decodes")
}

#[tokio::test]
async fn a_region_is_drawn_from_its_own_prompt() {
    let daemon = Daemon::start();
    let plain = draw(&daemon, &request(vec![])).await;
    let dog = RegionParams::new(left(64, 64, 32), "a dog");
    let with_dog = draw(&daemon, &request(vec![dog.clone()])).await;
    assert!(with_dog.notices.is_empty(), "{:?}", with_dog.notices);
    assert_ne!(picture(&with_dog.images[0]), picture(&plain.images[0]));
    // A mask of another size, in other forms, and by its name.
    let client = daemon.client().await;
    let small_mask = left(8, 8, 4);
    let Picture { width, height, channels, pixels } =
        Picture::from_raw(small_mask.raw.clone().expect("pixels").0, 8, 8, 1).expect("a picture");
    let png = Picture { width, height, channels, pixels }.to_png().expect("encodes");
    let blob = within(client.put_blob(png.clone())).await.expect("kept").blob;
    // Opaque on the left.
    let rgba = (0..64).flat_map(|at| [9, 9, 9, if at % 8 < 4 { 255 } else { 0 }]).collect();
    for mask in [small_mask, ImageIn::png(png), ImageIn::blob(&blob), ImageIn::raw(rgba, 8, 8, 4)] {
        let same = draw(&daemon, &request(vec![RegionParams { mask, ..dog.clone() }])).await;
        assert_eq!(picture(&same.images[0]), picture(&with_dog.images[0]));
    }
    // Half as strong is neither.
    let half = draw(&daemon, &request(vec![RegionParams { weight: 0.5, ..dog.clone() }])).await;
    assert_ne!(picture(&half.images[0]), picture(&with_dog.images[0]));
    assert_ne!(picture(&half.images[0]), picture(&plain.images[0]));
    let none = draw(&daemon, &request(vec![RegionParams { weight: 0.0, ..dog }])).await;
    assert_eq!(picture(&none.images[0]), picture(&plain.images[0]));
}

#[tokio::test]
async fn a_picture_tells_its_regions_and_is_drawn_again_from_that() {
    let daemon = Daemon::start();
    let regions = vec![
        RegionParams::new(
            left(64, 64, 24),
            "a [dog:cat:0.5], \"quoted\": {x}\nNegative prompt: no # comment",
        ),
        RegionParams { weight: 0.25, ..RegionParams::new(left(16, 8, 10), "(tree:1.3) AND sky :0.5") },
    ];
    let params =
        Txt2ImgParams { batch_size: 2, refiner_checkpoint: Some("tiny-sd1-ema".into()), ..request(regions) };
    let drawn = draw(&daemon, &params).await;
    let client = daemon.client().await;
    for image in &drawn.images {
        let text = image.infotext.as_deref().expect("told");
        assert!(text.contains(", Regions: \"[{\\\"mask\\\":\\\""), "{text}");
        let png = image.png.clone().expect("a PNG").0;
        let info = within(client.image_info(ImageIn::png(png))).await.expect("read");
        let said = info.request.expect("a request").into_drawing();
        assert!(info.others.is_empty(), "{:?}", info.others);
        assert_eq!(said.regions.len(), 2);
        assert!(said.regions[0].prompt.ends_with("no \n") && said.regions[1].weight == 0.25, "{said:?}");
        let again = draw(&daemon, &said).await;
        assert_eq!((&again.images[0].png, &again.images[0].infotext), (&image.png, &image.infotext));
    }
    // Of masks that nobody has any more the text tells by what name they were known.
    let other = Daemon::start();
    let png = drawn.images[0].png.clone().expect("a PNG").0;
    let client = other.client().await;
    let said = within(client.image_info(ImageIn::png(png)))
        .await
        .expect("read")
        .request
        .expect("a request")
        .into_drawing();
    let text = refused(within(client.txt2img(&said)).await, ErrorName::NotFound);
    assert!(text.contains("regions[0].mask.blob: ") && text.contains("blobs.put"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_a_region_is_refused() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let good = RegionParams::new(left(8, 8, 4), "a dog");
    for (region, words) in [
        (RegionParams { weight: 1.5, ..good.clone() }, "regions.0.weight"),
        (RegionParams { weight: f64::NAN, ..good.clone() }, "regions.0.weight"),
        (RegionParams { mask: ImageIn::default(), ..good.clone() }, "regions[0].mask: is empty"),
        (RegionParams { mask: ImageIn::png(vec![1]), ..good.clone() }, "regions[0].mask: "),
        (RegionParams { mask: ImageIn::path("mask.png"), ..good.clone() }, "regions[0].mask.path: "),
        (RegionParams { prompt: "x AND ".repeat(100), ..good.clone() }, "101 parts"),
    ] {
        let text = refused(within(client.txt2img(&request(vec![region]))).await, ErrorName::InvalidParams);
        assert!(text.contains(words), "{text}");
    }
    let text =
        refused(within(client.txt2img(&request(vec![good.clone(); 17]))).await, ErrorName::InvalidParams);
    assert!(text.contains("regions"), "{text}");
    // Networks are of whole pictures: told, or refused where all is wanted or nothing.
    let region = RegionParams { prompt: "a dog <lora:x:1>".into(), ..good.clone() };
    let told = draw(&daemon, &request(vec![region.clone()])).await;
    assert!(
        told.notices.iter().any(|notice| notice.starts_with("<lora:x:1>: networks are of whole")),
        "{told:?}"
    );
    assert_eq!(
        told.images[0].png,
        draw(&daemon, &request(vec![RegionParams { prompt: "a dog ".into(), ..good }])).await.images[0].png
    );
    let strict = Txt2ImgParams { strict: true, ..request(vec![region]) };
    refused(within(client.txt2img(&strict)).await, ErrorName::Unsupported);
}

/// What guidance combines is counted before it is drawn, however few of it go through the UNet at once.
#[tokio::test]
async fn more_than_there_is_memory_for_is_refused() {
    let daemon = Daemon::with_flags(&["--memory-bytes", "8000000000"]);
    let regions = (0..16).map(|place| RegionParams {
        weight: 0.05,
        ..RegionParams::new(left(16, 16, place + 1), "a dog AND ".repeat(99) + "a cat")
    });
    let params =
        Txt2ImgParams { batch_size: 64, width: Some(512), height: Some(512), ..request(regions.collect()) };
    let client = daemon.client().await;
    let text = refused(within(client.txt2img(&params)).await, ErrorName::Memory);
    assert!(text.contains("fewer pictures at once"), "{text}");
}
