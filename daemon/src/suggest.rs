//! "Did you mean …?"

/// What to say of a name that is not known: "; did you mean 'NAME'?" if one is close to it, else nothing.
pub(crate) fn advice<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wanted, names).map_or_else(String::new, |meant| format!("; did you mean '{meant}'?"))
}

/// The name that was probably meant, if one is close to `wanted`.
pub(crate) fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_few(wanted, names, 1).into_iter().next()
}

/// Up to `count` names that are close to `wanted`, the closest first.
pub(crate) fn nearest_few<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
    count: usize,
) -> Vec<&'a str> {
    let wanted = comparable(wanted);
    let likeness = |name: &'a str| {
        let known = comparable(name);
        is_close(&wanted, &known).then(|| (strsim::jaro_winkler(&wanted, &known), name))
    };
    let mut scored: Vec<_> = names.into_iter().filter_map(likeness).collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    scored.dedup_by_key(|(_, name)| *name);
    scored.truncate(count);
    scored.into_iter().map(|(_, name)| name).collect()
}

/// Whether one may have been typed for the other: a slip in every third letter, or one is the beginning of the other.
fn is_close(wanted: &str, known: &str) -> bool {
    const BEGINNING: usize = 3;
    let (wanted_length, known_length) = (wanted.chars().count(), known.chars().count());
    let shorter = wanted_length.min(known_length);
    let begins = shorter >= BEGINNING && (known.starts_with(wanted) || wanted.starts_with(known));
    let slips = wanted_length.max(known_length).div_ceil(3);
    begins || (shorter > 0 && slips < shorter && strsim::damerau_levenshtein(wanted, known) <= slips)
}

/// In lower case, and no longer than a name may be: the comparison's time grows with the length, which is a client's
/// to choose.
fn comparable(name: &str) -> String {
    name.chars().take(64).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_what_was_meant() {
        let fields = ["prompt", "negative_prompt", "cfg_scale", "seed", "steps", "sampler_name"];
        for (typed, meant) in [
            ("promt", "prompt"),
            ("cfgscale", "cfg_scale"),
            ("Seeds", "seed"),
            ("step", "steps"),
            ("stesp", "steps"),
            ("negative", "negative_prompt"),
            ("sampler", "sampler_name"),
        ] {
            assert_eq!(nearest(typed, fields), Some(meant), "{typed}");
        }
        assert_eq!(nearest("pgn", ["png", "raw", "file"]), Some("png"));
    }

    #[test]
    fn nothing_is_suggested_unless_it_is_close() {
        let fields = ["prompt", "negative_prompt", "cfg_scale", "seed", "steps", "rng"];
        for typed in ["", "x", "zz", "hr_upscaler", "denoising_strength", "bananas", "雪の中の灯台"] {
            assert_eq!(nearest(typed, fields), None, "{typed}");
            assert_eq!(advice(typed, fields), "");
        }
        assert_eq!(nearest("x", []), None);
        assert_eq!(nearest("x", ["", "y"]), None);
        assert_eq!(
            nearest_few("tiny-sd", ["tiny-sd1", "v1-5-pruned", "tiny-sd2"], 3),
            ["tiny-sd1", "tiny-sd2"]
        );
    }
}
