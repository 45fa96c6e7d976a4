//! What pictures of A1111 before some versions mean otherwise, as its `modules/infotext_versions.py` has it by default.

use super::told::Told;

/// Sets what a text that says its version does not say. What cannot be asked for is given back as a pair.
pub(super) fn as_it_was(told: &mut Told) -> Option<(String, String)> {
    let version = told.version.as_deref().and_then(numbers)?;
    let request = &mut told.request;
    if version < [1, 6, 0] {
        request.use_old_scheduling |= request.prompt.first().contains('[');
        request.pad_cond_uncond_v0 |= ["DDIM", "PLMS"].contains(&request.sampler_name.as_str());
    }
    let by_steps = version < [1, 8, 0] && request.refiner_checkpoint.is_some();
    by_steps.then(|| ("Refiner switch by sampling steps".to_owned(), "True".to_owned()))
}

/// The numbers of `v1.5.2`, `1.6.0-78-gabcdef`; of other programs' versions none.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let numbers = version.strip_prefix('v').unwrap_or(version).split('-').next()?;
    let numbers: Vec<u32> = numbers.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::super::rows::read;

    #[test]
    fn older_pictures_mean_what_they_meant() {
        let text = |prompt: &str, more: &str| format!("{prompt}\nSteps: 20, Sampler: DDIM, Seed: 1{more}");
        for (prompt, more, old, pads) in [
            ("a [cat:dog:1.0]", ", Version: v1.5.2", true, true),
            ("a [cat:dog:1.0]", ", Version: 1.5.1-4-gabc", true, true),
            ("a cat", ", Version: v1.5.2", false, true),
            ("a [cat:dog:1.0]", ", Version: v1.6.0", false, false),
            ("a [cat:dog:1.0]", ", Version: f0.0.17v1.8.0rc-latest-277-g0af28699", false, false),
            ("a [cat:dog:1.0]", "", false, false),
        ] {
            let (told, others) = read(&text(prompt, more));
            let request = &told.request;
            assert_eq!(
                (request.use_old_scheduling, request.pad_cond_uncond_v0),
                (old, pads),
                "{prompt}{more}"
            );
            assert_eq!(others, []);
        }
        let (_, others) =
            read(&text("a", ", Refiner: x [0123456789], Refiner switch at: 0.5, Version: v1.7.0"));
        assert_eq!(others, [("Refiner switch by sampling steps".to_owned(), "True".to_owned())]);
    }
}
