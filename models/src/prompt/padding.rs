//! Conditioning of other lengths.

use super::conditioning::Conditioning;
use crate::Result;
use crate::tensor::Tensor;

/// Repeats the encoded empty prompt behind one until it has so many tokens.
pub fn pad_with_empty(conditioning: &mut Conditioning, tokens: usize, empty: &Conditioning) -> Result<()> {
    let missing = tokens.saturating_sub(conditioning.tokens.dim(1)).div_ceil(empty.tokens.dim(1).max(1));
    if missing == 0 {
        return Ok(());
    }
    let empty = std::iter::repeat_n(&empty.tokens, missing);
    let parts: Vec<&Tensor> = std::iter::once(&conditioning.tokens).chain(empty).collect();
    conditioning.tokens = Tensor::cat(&parts, 1)?;
    Ok(())
}

/// Repeats the last token of one until it has so many.
pub fn pad_with_last(conditioning: &mut Conditioning, tokens: usize) -> Result<()> {
    let own = conditioning.tokens.dim(1);
    if own == 0 || own >= tokens {
        return Ok(());
    }
    let last = conditioning.tokens.narrow(1, own - 1, 1)?;
    let last = std::iter::repeat_n(&last, tokens - own);
    let parts: Vec<&Tensor> = std::iter::once(&conditioning.tokens).chain(last).collect();
    conditioning.tokens = Tensor::cat(&parts, 1)?;
    Ok(())
}
