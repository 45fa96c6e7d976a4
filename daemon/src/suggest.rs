//! "Did you mean …?"

/// The name closest to `wanted`, if there is one at all.
pub(crate) fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = comparable(wanted);
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Up to `count` names, the closest first.
pub(crate) fn nearest_few<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
    count: usize,
) -> Vec<&'a str> {
    let wanted = comparable(wanted);
    let mut scored: Vec<_> =
        names.into_iter().map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name)).collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    scored.truncate(count);
    scored.into_iter().map(|(_, name)| name).collect()
}

/// In lower case, and no longer than a name may be: the comparison's time grows with the length, which is a client's
/// to choose.
fn comparable(wanted: &str) -> String {
    wanted.chars().take(64).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_what_was_meant() {
        let fields = ["prompt", "negative_prompt", "cfg_scale", "seed", "steps"];
        for (typed, meant) in
            [("promt", "prompt"), ("cfgscale", "cfg_scale"), ("Seeds", "seed"), ("step", "steps")]
        {
            assert_eq!(nearest(typed, fields), Some(meant), "{typed}");
        }
        assert_eq!(nearest("x", []), None);
    }
}
