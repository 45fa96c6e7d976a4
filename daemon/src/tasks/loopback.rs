//! Pictures that begin with the one before: A1111's script of that name.

use latentd_client::protocol::{DenoisingCurve, LoopbackParams};

/// How often, and how far from the picture before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Loopback {
    pub loops: usize,
    last: f64,
    curve: DenoisingCurve,
}

impl Loopback {
    pub(super) fn new(params: LoopbackParams) -> Self {
        Self {
            loops: params.loops as usize,
            last: params.final_denoising_strength,
            curve: params.denoising_curve,
        }
    }

    /// The strength of the loop of this number, from 0 on, where the first has `first`.
    pub(super) fn strength(&self, first: f64, number: usize) -> f64 {
        if number == 0 || self.loops < 2 {
            return first;
        }
        let share = number as f64 / (self.loops - 1) as f64;
        let quarter = share * std::f64::consts::FRAC_PI_2;
        let share = match self.curve {
            DenoisingCurve::Aggressive => quarter.sin(),
            DenoisingCurve::Lazy => 1.0 - quarter.cos(),
            DenoisingCurve::Linear => share,
        };
        (first + (self.last - first) * share).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_go_from_the_first_to_the_last() {
        for (curve, middle) in [
            (DenoisingCurve::Linear, 0.6),
            (DenoisingCurve::Aggressive, 0.8 - 0.4 * std::f64::consts::FRAC_1_SQRT_2),
            (DenoisingCurve::Lazy, 0.4 + 0.4 * std::f64::consts::FRAC_1_SQRT_2),
        ] {
            let loopback = Loopback { loops: 5, last: 0.4, curve };
            let strengths = [0, 2, 4].map(|number| loopback.strength(0.8, number));
            for (found, wanted) in strengths.into_iter().zip([0.8, middle, 0.4]) {
                assert!((found - wanted).abs() < 1e-12, "{curve:?}: {strengths:?}");
            }
        }
        assert_eq!(Loopback { loops: 1, last: 0.1, curve: DenoisingCurve::Lazy }.strength(0.7, 0), 0.7);
    }
}
