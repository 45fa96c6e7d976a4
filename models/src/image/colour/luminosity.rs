//! One picture's colours with another's lightness: the blend mode "luminosity" of the package blendmodes 2022, in f64 and in
//! its order, so that the bytes are the same. (Later versions round where 2022 cuts off, and are 1 off.)

/// `[red, green, blue]` of `colours` moved to the lightness of `lightness`, and towards grey where that leads out of range.
pub(super) fn luminosity(colours: [u8; 3], lightness: [u8; 3]) -> [u8; 3] {
    let unit = |pixel: [u8; 3]| pixel.map(|value| f64::from(value) / 255.0);
    let mut pixel = unit(colours);
    let change = luma(unit(lightness)) - luma(pixel);
    pixel = pixel.map(|value| value + change);
    let luma = luma(pixel);
    let least = pixel.into_iter().fold(f64::INFINITY, f64::min);
    let most = pixel.into_iter().fold(f64::NEG_INFINITY, f64::max);
    if least < 0.0 {
        pixel = pixel.map(|value| luma + ((value - luma) * luma) / (luma - least));
    }
    if most > 1.0 {
        pixel = pixel.map(|value| luma + ((value - luma) * (1.0 - luma)) / (most - luma));
    }
    // Grey at the very ends becomes no number there, which turns out as 0.
    pixel.map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8)
}

fn luma([red, green, blue]: [f64; 3]) -> f64 {
    red * 0.299 + green * 0.587 + blue * 0.114
}
