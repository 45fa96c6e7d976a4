//! How the numbers of models become one: A1111's formulas, in f32.

use latentd_kernels::Weights;

/// How the numbers of models become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Those of A alone: to put a VAE or add-ons into it, or to change its type.
    None,
    /// A · (1 − M) + B · M.
    WeightedSum,
    /// A + (B − C) · M.
    AddDifference,
}

impl Interpolation {
    /// All of them, with their names and what A1111 calls them.
    pub const ALL: [(Self, &str, &str); 3] = [
        (Self::WeightedSum, "weighted_sum", "Weighted sum"),
        (Self::AddDifference, "add_difference", "Add difference"),
        (Self::None, "none", "No interpolation"),
    ];

    /// The one with this name, or A1111's.
    pub fn from_name(name: &str) -> Option<Self> {
        let is_named =
            |own: &str, theirs: &str| [own, theirs].iter().any(|each| each.eq_ignore_ascii_case(name));
        Self::ALL.iter().find(|(_, own, theirs)| is_named(own, theirs)).map(|(each, ..)| *each)
    }

    /// What A1111 calls it.
    pub fn title(self) -> &'static str {
        Self::ALL.iter().find(|(each, ..)| *each == self).map_or("", |(.., title)| title)
    }
}

/// An interpolation with its M.
#[derive(Clone, Copy)]
pub(super) struct Formula {
    pub interpolation: Interpolation,
    pub multiplier: f64,
}

impl Formula {
    /// Puts B's numbers, and C's, into as many of A's. Whether all that comes of it is finite.
    pub(super) fn mix(
        self,
        values: &mut [f32],
        [b, c]: &mut [Vec<f32>; 2],
        of_b: Weights<'_>,
        of_c: Option<Weights<'_>>,
    ) -> bool {
        b.resize(values.len(), 0.0);
        of_b.widen(b);
        let (stays, comes) = ((1.0 - self.multiplier) as f32, self.multiplier as f32);
        match (self.interpolation, of_c) {
            (Interpolation::AddDifference, Some(of_c)) => {
                c.resize(values.len(), 0.0);
                of_c.widen(c);
                for ((a, b), c) in values.iter_mut().zip(&*b).zip(&*c) {
                    *a += (*b - *c) * comes;
                }
            }
            (Interpolation::WeightedSum, _) => {
                for (a, b) in values.iter_mut().zip(&*b) {
                    *a = *a * stays + *b * comes;
                }
            }
            _ => {}
        }
        values.iter().all(|value| value.is_finite())
    }
}
