//! What other programs call samplers and schedules.

/// A1111's names by the words that identifiers elsewhere are made of.
const SAMPLERS: &[(&str, &str)] = &[
    ("euler", "Euler"),
    ("euler a", "Euler a"),
    ("euler cfg pp", "Euler CFG++"),
    ("euler a cfg pp", "Euler a CFG++"),
    ("heun", "Heun"),
    ("lms", "LMS"),
    ("lmsd", "LMS"),
    ("dpm 2", "DPM2"),
    ("kdpm 2", "DPM2"),
    ("kdpm2", "DPM2"),
    ("kdpm2 a", "DPM2 a"),
    ("dpm2", "DPM2"),
    ("dpm 2 a", "DPM2 a"),
    ("kdpm 2 a", "DPM2 a"),
    ("dpm2 a", "DPM2 a"),
    ("dpm fast", "DPM fast"),
    ("dpm adaptive", "DPM adaptive"),
    ("dpmpp 2s a", "DPM++ 2S a"),
    ("dpmpp sde", "DPM++ SDE"),
    ("dpmpp 2m", "DPM++ 2M"),
    ("dpm solver multistep", "DPM++ 2M"),
    ("dpmpp 2m sde", "DPM++ 2M SDE"),
    ("dpmpp 2m sde heun", "DPM++ 2M SDE Heun"),
    ("dpmpp 3m sde", "DPM++ 3M SDE"),
    ("restart", "Restart"),
    ("ddim", "DDIM"),
    ("plms", "PLMS"),
    ("pndm", "PLMS"),
    ("unipc", "UniPC"),
    ("uni pc", "UniPC"),
    ("unipc trailing", "UniPC"),
    ("lcm", "LCM"),
    ("tcd", "TCD"),
    ("ipndm", "IPNDM"),
    ("ipndm v", "IPNDM_V"),
];

const SCHEDULES: &[(&str, &str)] = &[
    ("automatic", "Automatic"),
    ("default", "Automatic"),
    ("uniform", "Uniform"),
    ("karras", "Karras"),
    ("exponential", "Exponential"),
    ("polyexponential", "Polyexponential"),
    ("sgm uniform", "SGM Uniform"),
    ("kl optimal", "KL Optimal"),
    ("align your steps", "Align Your Steps"),
    ("ays", "Align Your Steps"),
    ("simple", "Simple"),
    ("normal", "Normal"),
    ("ddim", "DDIM"),
    ("ddim uniform", "DDIM"),
    ("beta", "Beta"),
];

/// The sampler that a text names, as a request names it; its schedule may stand behind it.
pub(super) fn known_sampler(name: &str) -> Option<String> {
    if name.is_empty() || name.eq_ignore_ascii_case("default") {
        return None;
    }
    let (name, schedule) = sampler(name);
    Some(schedule.map_or_else(|| name.clone(), |schedule| format!("{name} {schedule}")))
}

/// A sampler as A1111 calls it, and its schedule where the name says that too; as it is, where nobody here knows it.
pub(super) fn sampler(name: &str) -> (String, Option<&'static str>) {
    let words = words(name);
    let find = |words: &[String]| found(SAMPLERS, &words.join(" "));
    let karras = || match words.split_last() {
        Some((last, rest)) if last == "k" || last == "karras" => Some((find(rest)?, Some("Karras"))),
        _ => None,
    };
    match find(&words).map(|name| (name, None)).or_else(karras) {
        Some((name, schedule)) => (name.to_owned(), schedule),
        None => (name.to_owned(), None),
    }
}

/// A schedule as A1111 calls it; as it is, where nobody here knows it.
pub(super) fn schedule(name: &str) -> String {
    found(SCHEDULES, &words(name).join(" ")).map_or_else(|| name.to_owned(), str::to_owned)
}

fn found(table: &[(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(own, _)| *own == name).map(|(_, name)| *name)
}

/// `k_dpmpp_2s_ancestral`, `DPM++ 2S Ancestral` and the like as words, without what says on which device noise is drawn.
fn words(name: &str) -> Vec<String> {
    let name = name.to_lowercase().replace("++", "pp");
    let words = name.split(['_', ' ', '-']).filter(|word| !word.is_empty() && *word != "gpu");
    let words = words.map(|word| if word == "ancestral" { "a" } else { word }.to_owned());
    let words: Vec<String> = words.collect();
    // k-diffusion's.
    words.strip_prefix(&["k".to_owned()]).map_or_else(|| words.clone(), <[String]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_programs_are_known() {
        for (name, expected, scheduled) in [
            ("k_euler_ancestral", "Euler a", None),
            ("euler_a", "Euler a", None),
            ("Euler A", "Euler a", None),
            ("dpmpp_2m_sde_gpu", "DPM++ 2M SDE", None),
            ("DPM++ 2M Karras", "DPM++ 2M", Some("Karras")),
            ("dpmpp_2m_k", "DPM++ 2M", Some("Karras")),
            ("k_dpm_2_ancestral", "DPM2 a", None),
            ("k_dpmpp_2s_ancestral", "DPM++ 2S a", None),
            ("uni_pc", "UniPC", None),
            ("DPM++ 4M", "DPM++ 4M", None),
            ("", "", None),
        ] {
            assert_eq!(sampler(name), (expected.to_owned(), scheduled), "{name}");
        }
        for (name, expected) in
            [("karras", "Karras"), ("sgm_uniform", "SGM Uniform"), ("ddim_uniform", "DDIM"), ("odd", "odd")]
        {
            assert_eq!(schedule(name), expected, "{name}");
        }
    }
}
