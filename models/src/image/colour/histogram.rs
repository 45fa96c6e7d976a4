//! Numbers given the distribution that other numbers have (scikit-image's `match_histograms`, of one channel).

/// How often each number occurs.
pub(in crate::image) fn counts(values: impl Iterator<Item = u8>) -> [u64; 256] {
    let mut counts = [0; 256];
    for value in values {
        counts[usize::from(value)] += 1;
    }
    counts
}

/// For each number what it becomes, so that numbers that occur as often as `own` are distributed like `wanted`. Neither may
/// be empty. Between two numbers that are wanted it is a line, and what is between whole numbers is cut off.
pub(super) fn matched(own: &[u64; 256], wanted: &[u64; 256]) -> [u8; 256] {
    let points: Vec<(f64, f64)> = shares(wanted)
        .enumerate()
        .filter(|(value, _)| wanted[*value] > 0)
        .map(|(value, share)| (share, value as f64))
        .collect();
    let mut matched = [0; 256];
    for (matched, share) in matched.iter_mut().zip(shares(own)) {
        *matched = interpolated(&points, share) as u8;
    }
    matched
}

/// For each number the share of numbers that are no greater.
pub(in crate::image) fn shares(counts: &[u64; 256]) -> impl Iterator<Item = f64> {
    let all = counts.iter().sum::<u64>() as f64;
    counts.iter().scan(0, move |sum, count| {
        *sum += count;
        Some(*sum as f64 / all)
    })
}

/// `numpy.interp` at one place, to the last bit: points in ascending order.
pub(in crate::image) fn interpolated(points: &[(f64, f64)], place: f64) -> f64 {
    let after = points.partition_point(|(x, _)| *x <= place);
    match (after.checked_sub(1).map(|before| points[before]), points.get(after)) {
        (None, Some((_, first))) => *first,
        (Some((_, last)), None) => last,
        (Some((x, y)), Some((next_x, next_y))) if x != place => (next_y - y) / (next_x - x) * (place - x) + y,
        (Some((_, y)), Some(_)) => y,
        (None, None) => 0.0,
    }
}
