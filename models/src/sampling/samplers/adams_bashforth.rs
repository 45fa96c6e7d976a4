//! Steps by several slopes, alike in length: the formulas of Adams and Bashforth up to the fourth order.

/// What each of so many slopes counts, the latest first.
pub(super) fn weights(slopes: usize) -> &'static [f64] {
    match slopes {
        0 => &[],
        1 => &[1.0],
        2 => &[3.0 / 2.0, -1.0 / 2.0],
        3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
        _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    }
}
