//! What trainers put around the names of a network's tensors, and looking at the numbers under such a name.

use latentd_kernels::{PackError, Weights};

use crate::error::{Error, Result};
use crate::files::Tensors;

/// What trainers write before the names, of which the averaged weights are the better ones.
const WRAPPERS: [&str; 7] =
    ["", "params_ema.", "params-ema.", "params.", "state_dict.", "model_state_dict.", "module."];

/// Where a file has a network's tensors, as `is_in` tells of a prefix.
pub(super) fn prefix(file: &Tensors, is_in: impl Fn(&Tensors, &str) -> bool) -> Option<String> {
    let ways = WRAPPERS.iter().flat_map(|wrapper| ["", "module."].map(|more| format!("{wrapper}{more}")));
    ways.into_iter().find(|prefix| is_in(file, prefix))
}

/// Looks at all numbers of the tensors after a prefix, but those that may be left by their names after it.
///
/// # Errors
/// A tensor has numbers that are not finite.
pub(super) fn check_finite(file: &Tensors, prefix: &str, may_be_left: fn(&str) -> bool) -> Result<()> {
    let names = file.names_under(prefix).into_iter();
    let used = names.filter(|(name, _)| !may_be_left(name.strip_prefix(prefix).unwrap_or(name)));
    for (name, own) in used {
        if let Some((dtype, bytes)) = file.weights(name)?
            && !(Weights { dtype, bytes: &bytes }).all_finite()
        {
            let reason = format!("tensor {own} {}", PackError::NotFinite);
            return Err(Error::model(file.path(), reason));
        }
    }
    Ok(())
}
