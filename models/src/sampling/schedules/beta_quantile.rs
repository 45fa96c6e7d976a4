//! The quantile of a beta distribution.

/// The `x` from 0 to 1 below which a share `p` of the beta distribution with parameters `a` and `b`, both over 0, lies.
pub(super) fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    if p <= 0.0 {
        return 0.0;
    }
    if p >= 1.0 {
        return 1.0;
    }
    // The smaller of both tails, so that what is near 0 keeps its digits.
    if p <= share_below(0.5, a, b) { lower(p, a, b) } else { 1.0 - lower(1.0 - p, b, a) }
}

/// The quantile if it is 0.5 or less, by Newton's method in the logarithm within a bracket.
fn lower(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (-745.0, 0.5f64.ln());
    // Near 0 the share is xᵃ / (a · B(a, b)).
    let mut u = ((p.ln() + a.ln() + ln_beta(a, b)) / a).clamp(low, high);
    for _ in 0..200 {
        let x = u.exp();
        let error = share_below(x, a, b) - p;
        if error > 0.0 {
            high = u;
        } else {
            low = u;
        }
        // The derivative by u = ln x: density times x.
        let slope = (a * u + (b - 1.0) * (-x).ln_1p() - ln_beta(a, b)).exp();
        let newton = u - error / slope;
        if (newton - u).abs() <= 1e-15 * u.abs() || low >= high {
            break;
        }
        u = if newton > low && newton < high { newton } else { f64::midpoint(low, high) };
    }
    u.exp()
}

/// The regularised incomplete beta function.
fn share_below(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let front = (a * x.ln() + b * (-x).ln_1p() - ln_beta(a, b)).exp();
    // Each tail where its fraction converges quickly.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(x, a, b) / a
    } else {
        1.0 - front * fraction(1.0 - x, b, a) / b
    }
}

/// Its continued fraction by Lentz's method (Abramowitz and Stegun 26.5.8).
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let (mut c, mut product) = (1.0, d);
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = product;
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            product *= d * c;
        }
        if (product - before).abs() <= 1e-16 * product.abs() {
            break;
        }
    }
    product
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// The logarithm of the gamma function over 0, by Stirling's series above 10 and the recursion below.
fn ln_gamma(mut z: f64) -> f64 {
    let mut product = 1.0;
    while z < 10.0 {
        product *= z;
        z += 1.0;
    }
    let inverse = 1.0 / (z * z);
    let terms = [
        1.0 / 12.0,
        -1.0 / 360.0,
        1.0 / 1260.0,
        -1.0 / 1680.0,
        1.0 / 1188.0,
        -691.0 / 360_360.0,
        1.0 / 156.0,
    ];
    let series = terms.iter().rev().fold(0.0, |sum, term| sum * inverse + term) / z;
    (z - 0.5) * z.ln() - z + 0.5 * std::f64::consts::TAU.ln() + series - product.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy's `stats.beta.ppf`.
    #[test]
    fn quantiles_are_scipys() {
        for (p, a, b, wanted) in [
            (0.5, 0.6, 0.6, 0.5),
            (0.05, 0.6, 0.6, 0.012554456873611399),
            (0.95, 0.6, 0.6, 0.9874455431263885),
            (0.001, 0.6, 0.6, 1.855873851745199e-05),
            (0.3, 0.2, 0.9, 0.0028349598364627356),
            (0.7, 1.0, 0.5, 0.9099999999999999),
            (0.4, 0.05, 0.05, 0.01057605815099534),
            (0.25, 2.5, 7.5, 0.15025789391603803),
        ] {
            let found = beta_quantile(p, a, b);
            assert!((found - wanted).abs() <= 1e-12 * wanted, "{p}, {a}, {b}: {found} for {wanted}");
        }
        assert_eq!((beta_quantile(0.0, 0.6, 0.6), beta_quantile(1.0, 0.6, 0.6)), (0.0, 1.0));
        for p in [1e-9, 0.4999, 0.5, 0.5001, 1.0 - 1e-9] {
            for a in [0.01, 0.6, 10.0] {
                let x = beta_quantile(p, a, 0.01);
                assert!((0.0..=1.0).contains(&x), "{p}, {a}: {x}");
            }
        }
    }
}
