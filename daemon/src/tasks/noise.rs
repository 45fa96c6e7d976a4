//! The noise that a request's pictures begin with: seeds settled, what is not applied told.

use latentd_client::protocol::Txt2ImgParams;
use latentd_models::sampling::Variation;

use super::notices::Notices;
use crate::error::{Class, Error, Result};

/// Seeds that are drawn stay in the range that A1111 draws from.
const DRAWN_SEEDS: u64 = 1 << 32;

/// What the pipeline is told of it.
#[derive(Debug, PartialEq)]
pub(super) struct Noise {
    pub seed: u64,
    pub variation: Option<Variation>,
    pub resized_from: Option<(usize, usize)>,
}

impl Noise {
    pub(super) fn resolve(params: &Txt2ImgParams, pictures: u64, notices: &mut Notices) -> Result<Self> {
        let strength = params.subseed_strength;
        let is_varied = strength != 0.0;
        let variation = if is_varied {
            Some(Variation { subseed: seed("subseed", params.subseed, pictures)?, strength })
        } else {
            None
        };
        let seed = seed("seed", params.seed, if is_varied { 1 } else { pictures })?;
        Ok(Self { seed, variation, resized_from: resized_from(params, notices)? })
    }
}

/// Draws the seeds that a request leaves open.
pub(super) fn draw(params: &mut Txt2ImgParams) -> Result<()> {
    if params.seed < 0 {
        params.seed = drawn()?.cast_signed();
    }
    if params.subseed < 0 && params.subseed_strength != 0.0 {
        params.subseed = drawn()?.cast_signed();
    }
    Ok(())
}

fn drawn() -> Result<u64> {
    Ok(crate::random::u64()? % DRAWN_SEEDS)
}

/// A1111 resizes if both sides are given.
fn resized_from(params: &Txt2ImgParams, notices: &mut Notices) -> Result<Option<(usize, usize)>> {
    let sides = [
        ("seed_resize_from_w", params.seed_resize_from_w),
        ("seed_resize_from_h", params.seed_resize_from_h),
    ];
    let mut given = [None; 2];
    for ((field, side), given) in sides.into_iter().zip(&mut given) {
        *given = usize::try_from(side).ok().filter(|side| *side > 0);
        if given.is_some_and(|side| side < 8) {
            return Err(Error::invalid(format!(
                "{field}: {side} is less than 8 pixels; give 8 or more, or 0"
            )));
        }
    }
    match given {
        [Some(width), Some(height)] => Ok(Some((width, height))),
        [None, None] => Ok(None),
        [width, _] => {
            let [(with, side), (without, _)] = if width.is_some() { sides } else { [sides[1], sides[0]] };
            let text = format!("{with}: {side} does nothing without {without}; give both");
            notices.not_applied(Class::InvalidParams, text)?;
            Ok(None)
        }
    }
}

/// The seed of the first picture, drawn where the request leaves it open. Picture i has seed + i, which must be a seed
/// that a request can name.
fn seed(field: &str, wanted: i64, pictures: u64) -> Result<u64> {
    let Ok(seed) = u64::try_from(wanted) else {
        return drawn();
    };
    let largest = i64::MAX.cast_unsigned();
    let most = largest - pictures.saturating_sub(1);
    if seed > most {
        return Err(Error::invalid(format!(
            "{field}: {seed} is too large for {pictures} pictures, of which the last would go beyond {largest}; give \
             {most} or less"
        )));
    }
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_has_a_seed_that_can_be_named() {
        for (wanted, pictures, fits) in
            [(0, 1000, true), (i64::MAX, 1, true), (i64::MAX, 2, false), (i64::MAX - 3, 4, true)]
        {
            let outcome = seed("seed", wanted, pictures);
            assert_eq!(outcome.is_ok(), fits, "{wanted} for {pictures}");
            assert!(outcome.map_or_else(|error| error.text.contains("give"), |seed| seed == wanted as u64));
        }
        assert!(seed("seed", -1, 64_000).is_ok_and(|seed| seed < DRAWN_SEEDS));
    }

    #[test]
    fn a_variation_has_seeds_of_its_own() {
        let resolve = |params: Txt2ImgParams| Noise::resolve(&params, 4, &mut Notices::new(false));
        let params =
            |subseed| Txt2ImgParams { seed: i64::MAX, subseed, subseed_strength: 0.5, ..Default::default() };
        let noise = resolve(params(7)).expect("seeds");
        assert_eq!(noise.seed, i64::MAX.cast_unsigned(), "all pictures have it");
        assert_eq!(noise.variation, Some(Variation { subseed: 7, strength: 0.5 }));
        let error = resolve(params(i64::MAX)).expect_err("too large");
        assert!(error.text.starts_with("subseed: "), "{error}");
        assert!(resolve(params(-1)).is_ok_and(|noise| noise.variation.is_some()));
        assert!(
            resolve(Txt2ImgParams { seed: 1, ..Default::default() })
                .is_ok_and(|noise| noise.variation.is_none())
        );
    }

    #[test]
    fn both_sides_or_none_are_resized_from() {
        for ((width, height), expected, told) in [
            ((-1, -1), Some(None), None),
            ((0, 0), Some(None), None),
            ((512, 70), Some(Some((512, 70))), None),
            ((512, 0), Some(None), Some("seed_resize_from_w: 512 does nothing without seed_resize_from_h")),
            ((-1, 64), Some(None), Some("seed_resize_from_h: 64 does nothing without seed_resize_from_w")),
            ((512, 7), None, None),
        ] {
            let params =
                Txt2ImgParams { seed_resize_from_w: width, seed_resize_from_h: height, ..Default::default() };
            let mut notices = Notices::new(false);
            let found = resized_from(&params, &mut notices);
            assert_eq!(found.as_ref().ok(), expected.as_ref(), "{width}x{height}");
            assert!(found.err().is_none_or(|error| error.text.contains("give 8 or more")));
            let notices = notices.into_texts();
            assert_eq!(notices.len(), usize::from(told.is_some()), "{notices:?}");
            assert!(told.is_none_or(|told| notices[0].starts_with(told)), "{notices:?}");
            assert_eq!(
                resized_from(&params, &mut Notices::new(true)).is_err(),
                told.is_some() || expected.is_none()
            );
        }
    }
}
