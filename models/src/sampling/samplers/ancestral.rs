//! Steps that go down further than asked, and come back up by noise.

/// For a step from one level to another: the level that is gone down to, and the deviation of the noise that is added.
pub(super) fn ancestral(from: f64, to: f64, eta: f64) -> (f64, f64) {
    if eta == 0.0 {
        return (to, 0.0);
    }
    let up = to.min(eta * (to.powi(2) * (from.powi(2) - to.powi(2)) / from.powi(2)).sqrt());
    ((to.powi(2) - up.powi(2)).sqrt(), up)
}
