//! The middle one of numbers.

/// Of one or more; of an even count the mean of the two in the middle. Their order changes.
pub fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    let odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    if odd {
        return *upper;
    }
    below.iter().copied().fold(f32::NEG_INFINITY, f32::max).midpoint(*upper)
}
