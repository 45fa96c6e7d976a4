//! Prompts that change from step to step, are several, have styles around them, or differ from picture to picture.

use latentd_client::protocol::{
    Emphasis, ErrorName, ImageIn, ImageOut, LibraryListParams, Precision, Prompt, PromptTokensParams,
    SaveStyleParams, Txt2ImgParams, Txt2ImgResult,
};

use crate::harness::{Daemon, Options, refused, small, within};

async fn draw(daemon: &Daemon, prompt: &str, change: impl FnOnce(&mut Txt2ImgParams)) -> Txt2ImgResult {
    let mut params = Txt2ImgParams { prompt: prompt.into(), precision: Precision::F32, steps: 4, ..small(7) };
    change(&mut params);
    within(daemon.client().await.txt2img(&params)).await.expect("drawn")
}

fn pixels(image: &ImageOut) -> Vec<u8> {
    let png = image.png.as_ref().expect("a PNG");
    latentd_models::image::Picture::decode(&png.0, 1 << 20).expect("decodes").pixels
}

async fn drawn(daemon: &Daemon, prompt: &str, change: impl FnOnce(&mut Txt2ImgParams)) -> Vec<u8> {
    pixels(&draw(daemon, prompt, change).await.images[0])
}

fn infotext(image: &ImageOut) -> &str {
    image.infotext.as_deref().expect("an infotext")
}

/// The picture again, from what it says of itself.
async fn again(daemon: &Daemon, image: &ImageOut) -> (Txt2ImgParams, Vec<u8>) {
    let client = daemon.client().await;
    let png = image.png.clone().expect("a PNG").0;
    let said = within(client.image_info(ImageIn::png(png)))
        .await
        .expect("read")
        .request
        .expect("a request")
        .into_drawing();
    let drawn = within(client.txt2img(&said)).await.expect("drawn");
    (said, pixels(&drawn.images[0]))
}

#[tokio::test]
async fn words_change_from_step_to_step() {
    let daemon = Daemon::start();
    let plain = |_: &mut Txt2ImgParams| ();
    let (red, blue) = (drawn(&daemon, "red", plain).await, drawn(&daemon, "blue", plain).await);
    // All of the steps, or none.
    assert!(drawn(&daemon, "[red:blue:1.0]", plain).await == red);
    assert!(drawn(&daemon, "[red:blue:4]", plain).await == red);
    assert!(drawn(&daemon, "[red:red:0.5]", plain).await == red);
    // A1111 counts model calls from 0 and steps from 1: what changes at step 0 has changed before the first call.
    assert!(drawn(&daemon, "[red:blue:0]", plain).await == blue);
    let half = drawn(&daemon, "[red:blue:0.5]", plain).await;
    assert!(half != red && half != blue);
    assert!(drawn(&daemon, "[red:blue:2]", plain).await == half, "a share is of the steps");
    assert!(drawn(&daemon, "[red:blue:1]", plain).await != half);
    // In the negative prompt too.
    let negative =
        |text: &'static str| move |params: &mut Txt2ImgParams| params.negative_prompt = text.into();
    assert!(
        drawn(&daemon, "a", negative("[red:blue:0.5]")).await != drawn(&daemon, "a", negative("red")).await
    );
    // A sampler of second order goes through it twice as fast as its steps.
    let heun = |text: &'static str| drawn(&daemon, text, |params| params.sampler_name = "Heun".into());
    assert!(heun("[red:blue:0.5]").await == heun("[red:blue:4]").await);
    let turns = drawn(&daemon, "[red|blue]", plain).await;
    assert!(turns != red && turns != blue && turns != half);
    let said = draw(&daemon, "[red|blue] [a::2]", plain).await;
    let (request, repeated) = again(&daemon, &said.images[0]).await;
    assert_eq!((request.prompt, said.notices), ("[red|blue] [a::2]".into(), vec![]));
    assert!(repeated == pixels(&said.images[0]));
}

#[tokio::test]
async fn old_scheduling_is_told_where_it_matters() {
    let daemon = Daemon::start();
    let old = |params: &mut Txt2ImgParams| params.use_old_scheduling = true;
    let with = draw(&daemon, "[red:blue:1.0]", old).await;
    assert!(pixels(&with.images[0]) == drawn(&daemon, "[red:blue:1]", |_| ()).await);
    assert!(infotext(&with.images[0]).contains(", Old prompt editing timelines: True"));
    let (request, repeated) = again(&daemon, &with.images[0]).await;
    assert!(request.use_old_scheduling && repeated == pixels(&with.images[0]));
    let without = draw(&daemon, "[red:blue:0.5]", old).await;
    assert!(!infotext(&without.images[0]).contains("timelines"));
}

#[tokio::test]
async fn prompts_are_composed_by_weight() {
    let daemon = Daemon::start();
    let scale = |scale| move |params: &mut Txt2ImgParams| params.cfg_scale = scale;
    // Halves of one thing are that thing, but for the order in which numbers are added.
    let halves = drawn(&daemon, "red :0.5 AND red :0.5", scale(6.0)).await;
    let whole = drawn(&daemon, "red", scale(6.0)).await;
    let apart = halves.iter().zip(&whole).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(apart <= Some(1), "{apart:?}");
    let both = drawn(&daemon, "red AND blue", scale(3.0)).await;
    assert!(
        both != drawn(&daemon, "red", scale(3.0)).await
            && both != drawn(&daemon, "red and blue", scale(3.0)).await
    );
    assert!(drawn(&daemon, "red AND blue :0", scale(3.0)).await == drawn(&daemon, "red", scale(3.0)).await);
    assert!(drawn(&daemon, "red AND blue :-1", scale(3.0)).await != both);
    // In one batch or one after the other; also where the parts are of different length.
    let long = "red, ".repeat(40) + " AND [blue:a:2] :1.5";
    let batch = |params: &mut Txt2ImgParams| params.batch_size = 2;
    let two = draw(&daemon, &long, batch).await;
    let alone = draw(&daemon, &long, |params| params.seed = 8).await;
    assert!(pixels(&two.images[1]) == pixels(&alone.images[0]));
    let (request, repeated) = again(&daemon, &two.images[1]).await;
    assert!(request.prompt == long.as_str().into() && repeated == pixels(&two.images[1]));
    let many = "a AND ".repeat(100);
    let client = daemon.client().await;
    let params = Txt2ImgParams { prompt: many.into(), ..small(1) };
    let text = refused(within(client.txt2img(&params)).await, ErrorName::InvalidParams);
    assert!(text.contains("101 parts by AND; up to 100"), "{text}");
}

#[tokio::test]
async fn brackets_mean_what_is_asked_for() {
    let daemon = Daemon::start();
    let prompt = "(red:1.4) BREAK blue";
    let mut all = vec![];
    for emphasis in Emphasis::ALL {
        let drawn = draw(&daemon, prompt, |params| params.emphasis = emphasis).await;
        let told = format!(", Emphasis: {}", emphasis.name());
        assert_eq!(infotext(&drawn.images[0]).contains(&told), emphasis != Emphasis::Original);
        let (request, repeated) = again(&daemon, &drawn.images[0]).await;
        assert!(request.emphasis == emphasis && repeated == pixels(&drawn.images[0]));
        assert!(!all.contains(&repeated), "{emphasis:?} is like another");
        all.push(repeated);
    }
    let plain = draw(&daemon, "red", |params| params.emphasis = Emphasis::Ignore).await;
    assert!(!infotext(&plain.images[0]).contains("Emphasis"), "nothing to emphasise");
    // A comma that is further back than it may be.
    let phrase = "a, ".to_owned() + &"b ".repeat(70) + "c d e f";
    let near = drawn(&daemon, &phrase, |_| ()).await;
    let far = draw(&daemon, &phrase, |params| params.comma_padding_backtrack = 74).await;
    assert!(pixels(&far.images[0]) != near);
    let (request, repeated) = again(&daemon, &far.images[0]).await;
    assert!(request.comma_padding_backtrack == 74 && repeated == pixels(&far.images[0]));
    // The older way to pad: by the last token, or by cutting.
    let v0 = |negative: String| {
        let daemon = &daemon;
        async move {
            draw(daemon, "red", |params| {
                params.negative_prompt = negative.into();
                params.pad_cond_uncond = true;
                params.pad_cond_uncond_v0 = true;
            })
            .await
        }
    };
    let cut = v0("blue, ".repeat(60)).await;
    assert!(
        infotext(&cut.images[0]).contains(", Pad conds v0: True")
            && !infotext(&cut.images[0]).contains("Pad conds:")
    );
    let (request, repeated) = again(&daemon, &cut.images[0]).await;
    assert!(request.pad_cond_uncond_v0 && repeated == pixels(&cut.images[0]));
    assert!(!infotext(&v0("blue".into()).await.images[0]).contains("Pad conds"));
}

#[tokio::test]
async fn each_picture_may_have_its_own_prompt() {
    let daemon = Daemon::start();
    let each = draw(&daemon, "", |params| {
        params.prompt =
            vec!["red".to_owned(), "[a|b] AND blue".to_owned(), "red".to_owned(), "c".repeat(400)].into();
        params.negative_prompt = vec!["x".to_owned(), String::new(), "y".to_owned(), "x".to_owned()].into();
        (params.batch_size, params.n_iter) = (2, 2);
    })
    .await;
    assert_eq!(each.images.len(), 4);
    for (image, (prompt, negative)) in each.images.iter().zip([
        ("red", "x"),
        ("[a|b] AND blue", ""),
        ("red", "y"),
        (&"c".repeat(400)[..], "x"),
    ]) {
        let seed = image.seed.expect("told") as i64;
        let alone = draw(&daemon, prompt, |params| {
            params.negative_prompt = negative.into();
            params.seed = seed;
        });
        assert!(pixels(image) == pixels(&alone.await.images[0]), "{prompt}");
        assert!(infotext(image).starts_with(prompt), "{}", infotext(image));
        assert_eq!(infotext(image).contains("Negative prompt"), !negative.is_empty());
        let (request, repeated) = again(&daemon, image).await;
        assert!(request.prompt == prompt.into() && repeated == pixels(image), "{request:?}");
    }
    let client = daemon.client().await;
    let two = Prompt::Each(vec!["a".into(), "b".into()]);
    let params = Txt2ImgParams { prompt: two.clone(), ..small(1) };
    let text = refused(within(client.txt2img(&params)).await, ErrorName::InvalidParams);
    assert!(
        text.contains("prompt is a list of 2, and 1 pictures are to be drawn; give one text for each"),
        "{text}"
    );
    // Networks of the first prompt are everybody's.
    let prompt = Prompt::Each(vec!["a <lora:x>".into(), "b <lora:y>".into()]);
    let params = Txt2ImgParams { prompt, batch_size: 2, ..small(1) };
    let notices = within(client.txt2img(&params)).await.expect("drawn").notices;
    assert!(
        notices[0].starts_with("lora 'x' is not") && notices[1].starts_with("<lora:y>: all pictures"),
        "{notices:?}"
    );
}

#[tokio::test]
async fn styles_are_saved_and_stand_around_prompts() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let style = |name: &str, prompt: &str, negative_prompt: &str| SaveStyleParams {
        name: name.into(),
        prompt: prompt.into(),
        negative_prompt: negative_prompt.into(),
    };
    within(client.save_style(&style("blue", "blue, {prompt}, [a|b]", "x"))).await.expect("saved");
    within(client.save_style(&style("c", "c", "{prompt}!"))).await.expect("saved");
    let all = within(client.styles()).await.expect("listed");
    let names: Vec<(&str, bool)> =
        all.styles.iter().map(|style| (style.name.as_str(), style.saved)).collect();
    assert_eq!(names, [("blue", true), ("c", true)]);
    let styled = draw(&daemon, "red", |params| {
        params.negative_prompt = "y".into();
        params.styles = vec!["blue".into(), "c".into()];
    })
    .await;
    let expected =
        draw(&daemon, "blue, red, [a|b], c", |params| params.negative_prompt = "y, x!".into()).await;
    assert!(styled.images[0].png == expected.images[0].png, "the text too: {}", infotext(&styled.images[0]));
    // Styles that make more of a prompt than there is room for.
    let four = "{prompt}".repeat(4);
    within(client.save_style(&style("four", &four, ""))).await.expect("saved");
    let params = Txt2ImgParams { prompt: "abcdefgh".into(), styles: vec!["four".into(); 30], ..small(1) };
    let text = refused(within(client.txt2img(&params)).await, ErrorName::InvalidParams);
    assert!(text.contains("its styles make 524288 characters of it, 200000 are allowed"), "{text}");
    let params = Txt2ImgParams { styles: vec!["blu".into()], ..small(1) };
    let text = refused(within(client.txt2img(&params)).await, ErrorName::NotFound);
    assert!(text.contains("no style 'blu'") && text.contains("did you mean 'blue'?"), "{text}");
    within(client.delete_style("blue")).await.expect("deleted");
    refused(within(client.delete_style("blue")).await, ErrorName::NotFound);
    refused(within(client.save_style(&style("None", "", ""))).await, ErrorName::InvalidParams);
}

#[tokio::test]
async fn an_editor_is_told_what_a_prompt_is() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let params = PromptTokensParams {
        text: "a (red:1.5) [circle:square:0.25] <lora:nowhere:1> AND blue :0.5 # no".into(),
        ..PromptTokensParams::default()
    };
    let found = within(client.prompt_tokens(&params)).await.expect("read");
    assert_eq!(found.text, "a (red:1.5) [circle:square:0.25]  AND blue :0.5 \n");
    let weights: Vec<f64> = found.parts.iter().map(|part| part.weight).collect();
    assert_eq!(weights, [1.0, 0.5]);
    let first = &found.parts[0];
    let schedule: Vec<_> =
        first.schedule.iter().map(|stretch| (stretch.from, stretch.until, stretch.text)).collect();
    assert_eq!(schedule, [(1, 6, 0), (7, 20, 1)]);
    let tokens: Vec<(&str, f64)> =
        first.texts[1].chunks[0].iter().map(|token| (token.text.as_str(), token.weight)).collect();
    assert_eq!(tokens, [("a", 1.0), ("red", 1.5), ("square", 1.0)]);
    assert!(first.texts[1].chunks[0].iter().all(|token| token.ends_word));
    assert_eq!((found.tokens, found.room, found.truncated), (3, 75, false));
    let networks: Vec<_> =
        found.networks.iter().map(|network| (network.name.as_str(), network.found)).collect();
    assert_eq!(networks, [("nowhere", false)]);
    assert!(found.warnings.iter().any(|text| text.contains("nowhere")), "{:?}", found.warnings);
    // What is wrong is told while it is typed, and no error.
    for (text, warning) in [
        ("a (b:1.1.1)", "'1.1.1'"),
        ("a (b", "1 × ( without a partner"),
        ("a | b", "a | outside of"),
        ("(a cat AND a dog:1.3)", "part 1: 1 × ( without a partner"),
        ("(a cat AND a dog:1.3)", "part 2: 1 × ) without a partner"),
        ("a | b AND [c:d:3]", "part 1: a | outside of"),
        ("(a BREAK b)", "BREAK within brackets is drawn as a word"),
    ] {
        let params = PromptTokensParams { text: text.into(), ..PromptTokensParams::default() };
        let found = within(client.prompt_tokens(&params)).await.expect("read");
        assert!(found.warnings.iter().any(|text| text.contains(warning)), "{text}: {:?}", found.warnings);
    }
    for (text, emphasis) in
        [("[a BREAK b:c:3] (d)", Emphasis::Original), ("(a BREAK", Emphasis::None), ("a]", Emphasis::None)]
    {
        let params = PromptTokensParams { text: text.into(), emphasis, ..PromptTokensParams::default() };
        let found = within(client.prompt_tokens(&params)).await.expect("read");
        assert_eq!(found.warnings, [""; 0], "{text} with {emphasis:?}");
    }
    let params = PromptTokensParams {
        text: "a AND <lora:b> :2".into(),
        negative: true,
        ..PromptTokensParams::default()
    };
    let found = within(client.prompt_tokens(&params)).await.expect("read");
    assert_eq!((found.parts.len(), found.networks.len(), found.warnings.len()), (1, 0, 1));
    let turns = "[a|b|c] ".repeat(6_000);
    let params = PromptTokensParams { text: turns, steps: 1000, ..PromptTokensParams::default() };
    let found = within(client.prompt_tokens(&params)).await.expect("read");
    // The first one holds for two calls.
    assert!(found.truncated && found.parts[0].texts.len() == 3 && found.parts[0].schedule.len() == 999);
}

#[tokio::test]
async fn what_is_told_of_steps_is_what_is_drawn() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let euler = |params: &mut Txt2ImgParams| params.sampler_name = "Euler".into();
    for (text, steps, expected) in [
        ("a [red:blue:2] circle", 3, &[(1, 3, 0)][..]),
        ("a [red|blue] circle", 2, &[(1, 2, 0)]),
        ("a [red:blue:2] circle", 4, &[(1, 3, 0), (4, 4, 1)]),
    ] {
        let sampler_name = "Euler".to_owned();
        let params =
            PromptTokensParams { text: text.into(), steps, sampler_name, ..PromptTokensParams::default() };
        let told = within(client.prompt_tokens(&params)).await.expect("read").parts.remove(0).schedule;
        let told: Vec<_> = told.iter().map(|stretch| (stretch.from, stretch.until, stretch.text)).collect();
        assert_eq!(told, expected, "{text} in {steps} steps");
        let steps = |params: &mut Txt2ImgParams| {
            euler(params);
            params.steps = steps;
        };
        let is_red = drawn(&daemon, text, steps).await == drawn(&daemon, "a red circle", steps).await;
        assert_eq!(is_red, told.len() == 1, "{text}");
    }
}

#[tokio::test]
async fn pictures_of_a_list_are_told_and_drawn_as_if_alone() {
    let models = tempfile::tempdir().expect("a folder");
    for (from, to) in [
        ("models/Stable-diffusion/tiny-sd1.safetensors", "Stable-diffusion/tiny-sd1.safetensors"),
        ("adapters/lycoris-locon.safetensors", "Lora/style.safetensors"),
        ("adapters/emb-style.pt", "embeddings/emb-style.pt"),
    ] {
        let to = models.path().join(to);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        std::fs::copy(crate::harness::fixtures().join("..").join(from), to).expect("copied");
    }
    let daemon = Daemon::with(Options { models: Some(models.path().to_owned()), ..Options::default() });
    let client = daemon.client().await;
    within(client.library(&LibraryListParams::default())).await.expect("listed");
    // One leaves a bracket open that would take in what is put behind it, one names an embedding.
    let prompts = ["a <lora:style:1>", "b <x:c", "emb-style"];
    let list = Prompt::Each(prompts.map(str::to_owned).to_vec());
    let result = draw(&daemon, "", |params| (params.prompt, params.batch_size) = (list, 3)).await;
    for (index, image) in result.images.iter().enumerate() {
        assert!(infotext(image).contains("<lora:style:1>"), "{}", infotext(image));
        assert_eq!(infotext(image).contains("TI hashes"), index == 2, "{}", infotext(image));
        let (_, pixels_again) = again(&daemon, image).await;
        assert!(pixels_again == pixels(image), "{}", infotext(image));
    }
}
