//! Draws one picture through a running daemon: `cargo run --example txt2img -- "a red circle" out.png`

use std::error::Error;

use latentd_client::blocking::Client;
use latentd_client::protocol::{EventKind, Txt2ImgParams};

#[allow(clippy::print_stderr)]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let prompt = arguments.next().unwrap_or_else(|| "a red circle on a blue background".into());
    let file = arguments.next().unwrap_or_else(|| "out.png".into());

    let mut client = Client::connect(None)?;
    let params = Txt2ImgParams { prompt: prompt.into(), ..Default::default() };
    let drawn = client.txt2img_with(&params, |event| {
        if let EventKind::Progress { step, steps, .. } = event.kind {
            eprintln!("step {step} of {steps}");
        }
    })?;
    let png = drawn.images.into_iter().next().and_then(|image| image.png).ok_or("no picture came back")?;
    std::fs::write(file, png.0)?;
    Ok(())
}
