//! How many threads may compute.

/// Threads for each core: more of them only wait for each other, each with memory of its own.
const PER_CORE: u32 = 4;

/// Cores that this process may use.
pub(crate) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// Refuses more threads than are of any use; the reason begins with their number.
pub(crate) fn check(threads: u32, cores: u32) -> Result<(), String> {
    let most = cores.saturating_mul(PER_CORE);
    if threads <= most {
        return Ok(());
    }
    Err(format!("{threads} is out of range with {cores} cores; give 0 (one per core) to {most}"))
}

/// The number that a flag gives.
pub(crate) fn parse(text: &str) -> Result<u32, String> {
    let threads = text.parse().map_err(|_| "must be an integer of 0 or more".to_owned())?;
    check(threads, cores()).map(|()| threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_four_for_a_core_are_refused() {
        for threads in [0, 1, 8] {
            assert_eq!(check(threads, 2), Ok(()));
        }
        let expected = "9 is out of range with 2 cores; give 0 (one per core) to 8";
        assert_eq!(check(9, 2), Err(expected.into()));
        assert!(check(u32::MAX, u32::MAX).is_ok());
        assert!(parse("0").is_ok() && parse("-1").is_err() && parse("4000000000").is_err());
    }
}
