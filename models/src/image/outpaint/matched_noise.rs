//! Noise that has a picture's spectrum and colours, where there is no picture yet (`scripts/outpainting_mk_2.py:
//! get_matched_noise` of A1111 1.10.1, by parlance-zz).
//!
//! A1111 shifts planes and spectra by half before and after each transform, and transforms noise back and forth once more.
//! For sides of even length all that cancels out, and so do all factors, since of the noise only the order of its values
//! counts in the end. So it is left out here, and other sides are refused.

use rayon::prelude::*;
use rustfft::num_complex::Complex64;

use super::spectrum::Transforms;
use crate::image::colour::histogram::{counts, interpolated, shares};
use crate::image::inpaint::Mask;
use crate::image::{Channels, Picture};
use crate::{Error, Result};

/// Below this much of a mask there is no noise, and from the other on a pixel does not count for the colours.
const NO_NOISE: f64 = 1e-6;
const NO_REFERENCE: f64 = 1e-3;

/// RGB: the picture where the mask is 0, noise with its spectrum and the distribution of its colours where it is 255. `noise`
/// has a number from 0 to 1 for each value of the picture, red, green and blue of a pixel together. `noise_q` is the exponent of
/// the spectrum ("Fall-off exponent": lower is more detail), `color_variation` the share of the noise that differs between
/// colours. Both sides are even. Takes about 100 bytes a pixel.
///
/// Frequencies that the picture has nothing of have no phase; here they stay nothing, where A1111's whole result is lost.
pub fn matched_noise(
    picture: &Picture,
    mask: &Mask,
    noise: &[f64],
    noise_q: f64,
    color_variation: f64,
) -> Result<Picture> {
    picture.check()?;
    check(picture, mask, noise.len(), noise_q, color_variation)?;
    let (columns, rows) = mask.size();
    let pixels = &picture.pixels;
    let hidden: Vec<f64> = mask.values().iter().map(|value| f64::from(*value) / 255.0).collect();
    let brightest = pixels
        .chunks_exact(3)
        .zip(&hidden)
        .flat_map(|(pixel, hidden)| pixel.iter().map(move |value| share(*value) * (1.0 - hidden)))
        .fold(0.0, f64::max);
    let brightest = if brightest > 0.0 { brightest } else { 1.0 };
    let mean = pixels.iter().map(|value| share(*value)).sum::<f64>() / pixels.len() as f64;
    let transforms = Transforms::new(rows, columns);
    let mut made = pixels.clone();
    for channel in 0..3 {
        let own = || pixels.iter().skip(channel).step_by(3);
        let windowed = own()
            .zip(&hidden)
            .map(|(value, hidden)| share(*value) * (1.0 - hidden) / brightest + mean * hidden);
        let mut spectrum = transforms.there(windowed);
        let coloured = noise.chunks_exact(3).map(|pixel| {
            let grey = pixel.iter().sum::<f64>() / 3.0;
            pixel[channel] * color_variation + (1.0 - color_variation) * grey
        });
        let coloured = transforms.there(coloured);
        spectrum.par_chunks_mut(rows).zip(coloured.par_chunks(rows)).enumerate().for_each(
            |(column, (spectrum, noise))| {
                for (row, (value, noise)) in spectrum.iter_mut().zip(noise).enumerate() {
                    *value = shaped(*value, noise.norm() * window((row, rows), (column, columns)), noise_q);
                }
            },
        );
        drop(coloured);
        let shaped = transforms.back(spectrum);
        let kept = own().zip(&hidden).filter(|(_, hidden)| **hidden < NO_REFERENCE);
        let reference = counts(kept.map(|(value, _)| *value));
        let drawn: Vec<usize> = (0..hidden.len()).filter(|at| hidden[*at] > NO_NOISE).collect();
        for (at, colour) in matched(&shaped, drawn, &reference) {
            let value = &mut made[at * 3 + channel];
            let both = share(*value) * (1.0 - hidden[at]) + colour * hidden[at];
            *value = (both.clamp(0.0, 1.0) * 255.0) as u8;
        }
    }
    Ok(Picture { pixels: made, ..*picture })
}

fn check(picture: &Picture, mask: &Mask, numbers: usize, noise_q: f64, color_variation: f64) -> Result<()> {
    let wrong = |text: String| Err(Error::Request(text));
    let (width, height) = (picture.width, picture.height);
    if picture.channels != Channels::Rgb {
        return wrong(format!("picture: {:?} has no spectrum here; give RGB", picture.channels));
    }
    if !width.is_multiple_of(2) || !height.is_multiple_of(2) {
        return wrong(format!("picture: {width}x{height} has a side of odd length; give even ones"));
    }
    if (width, height) != mask.size() {
        let (wide, high) = mask.size();
        return wrong(format!(
            "mask: {wide}x{high} does not lie over a picture of {width}x{height}; give it the same size"
        ));
    }
    if numbers != picture.pixels.len() {
        return wrong(format!("noise: {numbers} numbers for {} values; give as many", picture.pixels.len()));
    }
    if !(0.0..=4.0).contains(&noise_q) {
        return wrong(format!("noise_q: {noise_q} is no exponent; give 0 to 4"));
    }
    if !(0.0..=1.0).contains(&color_variation) {
        return wrong(format!("color_variation: {color_variation} is no share; give 0 to 1"));
    }
    if !mask.values().contains(&0) {
        return wrong("mask: nothing of the picture is left; leave some of it black".to_owned());
    }
    Ok(())
}

fn share(value: u8) -> f64 {
    f64::from(value) / 255.0
}

/// What high frequencies of the noise are weakened by: of these, counted from 0 up and then from below 0.
fn window((row, rows): (usize, usize), (column, columns): (usize, usize)) -> f64 {
    let shorter = rows.min(columns) as f64;
    let place = |index: usize, count: usize| {
        let index = (index + count / 2) % count;
        (index as f64 / count as f64 * 2.0 - 1.0) * (count as f64 / shorter)
    };
    let (x, y) = (place(row, rows), place(column, columns));
    1.0 / ((x * x + 1.0) * (y * y + 1.0))
}

/// The picture's phase, with its strength to the power of `noise_q` times that of the noise squared.
fn shaped(picture: Complex64, noise: f64, noise_q: f64) -> Complex64 {
    let strength = picture.norm();
    if strength == 0.0 {
        return picture;
    }
    picture / strength * (noise * noise * strength.powf(noise_q))
}

/// For each of these places its value's counterpart among colours that occur so often, from 0 to 1: scikit-image's
/// `match_histograms`. Equal values become the same.
fn matched(values: &[f64], mut places: Vec<usize>, reference: &[u64; 256]) -> Vec<(usize, f64)> {
    places.par_sort_unstable_by(|a, b| values[*a].total_cmp(&values[*b]).then(a.cmp(b)));
    let points: Vec<(f64, f64)> = shares(reference)
        .enumerate()
        .filter(|(value, _)| reference[*value] > 0)
        .map(|(value, part)| (part, share(value as u8)))
        .collect();
    let all = places.len() as f64;
    let mut made = Vec::with_capacity(places.len());
    for group in places.chunk_by(|a, b| values[*a] == values[*b]) {
        let quantile = (made.len() + group.len()) as f64 / all;
        let colour = interpolated(&points, quantile);
        made.extend(group.iter().map(|place| (*place, colour)));
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize, value: impl Fn(usize) -> u8) -> Picture {
        let pixels = (0..width * height * 3).map(value).collect();
        Picture { width, height, channels: Channels::Rgb, pixels }
    }

    fn right_half(width: usize, height: usize) -> Mask {
        let pixels = (0..width * height).map(|at| if at % width < width / 2 { 0 } else { 255 }).collect();
        Mask::of(&Picture { width, height, channels: Channels::Grey, pixels }, false).expect("a mask")
    }

    #[test]
    fn what_has_no_spectrum_stays_what_it_is() {
        for value in [0, 128, 255] {
            let plain = picture(8, 4, |_| value);
            let made = matched_noise(&plain, &right_half(8, 4), &[0.5; 96], 0.0, 0.05).expect("fits");
            assert_eq!(made, plain);
        }
    }

    #[test]
    fn noise_has_the_colours_of_what_is_there() {
        let striped = picture(16, 16, |at| if at / 3 % 2 == 0 { 10 } else { 200 });
        let noise: Vec<f64> = (0..768).map(|at| (at as f64).sin().abs()).collect();
        let made = matched_noise(&striped, &right_half(16, 16), &noise, 1.0, 1.0).expect("fits");
        for (at, pixel) in made.pixels.chunks_exact(3).enumerate() {
            if at % 16 < 8 {
                assert_eq!(pixel, &striped.pixels[at * 3..at * 3 + 3]);
            }
            assert!(pixel.iter().all(|value| (10..=200).contains(value)), "{pixel:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_with_its_remedy() {
        let (even, mask) = (picture(8, 4, |_| 9), right_half(8, 4));
        let all = Mask::of(&Picture { channels: Channels::Grey, pixels: vec![255; 32], ..even }, false);
        let all = all.expect("a mask");
        let grey = Picture { channels: Channels::Grey, pixels: vec![0; 32], ..even };
        let noise = [0.5; 96];
        for (picture, mask, noise, noise_q, color_variation, said) in [
            (&picture(7, 4, |_| 9), &mask, &noise[..], 1.0, 0.0, "7x4 has a side of odd"),
            (&picture(8, 6, |_| 9), &mask, &noise, 1.0, 0.0, "8x4 does not lie over a picture of 8x6"),
            (&grey, &mask, &noise, 1.0, 0.0, "give RGB"),
            (&even, &mask, &noise[1..], 1.0, 0.0, "95 numbers for 96"),
            (&even, &mask, &noise, 4.5, 0.0, "noise_q: 4.5"),
            (&even, &mask, &noise, f64::NAN, 0.0, "noise_q: NaN"),
            (&even, &mask, &noise, 1.0, -0.1, "color_variation: -0.1"),
            (&even, &all, &noise, 1.0, 0.0, "leave some of it black"),
        ] {
            let refused = matched_noise(picture, mask, noise, noise_q, color_variation).expect_err("refused");
            assert!(refused.to_string().contains(said), "{refused}");
        }
    }
}
