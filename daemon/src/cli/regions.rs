//! The regions of `latentd generate`.

use std::path::Path;

use clap::Args;
use latentd_client::protocol::RegionParams;

use super::failure::Failure;
use super::info::picture;

/// Parts of the picture as flags.
#[derive(Debug, Args)]
pub(super) struct RegionArgs {
    /// A part of the picture that is told something else: a picture that is white or opaque there, and a prompt; may be given several times
    #[arg(long = "region", num_args = 2, value_names = ["MASK", "TEXT"], allow_hyphen_values = true)]
    regions: Vec<String>,
    /// How much of what guides in a region is its prompt, from 0 to 1: the first for the first region, and so on [default: 1]
    #[arg(long = "region-weight", value_name = "X", requires = "regions", allow_negative_numbers = true)]
    weights: Vec<f64>,
}

impl RegionArgs {
    /// What the flags say, or else `default`.
    pub(super) fn over(&self, default: Vec<RegionParams>) -> Result<Vec<RegionParams>, Failure> {
        if self.regions.is_empty() {
            return Ok(default);
        }
        let (regions, _) = self.regions.as_chunks::<2>();
        if self.weights.len() > regions.len() {
            let (weights, regions) = (self.weights.len(), regions.len());
            let text = format!("--region-weight: {weights} are given for {regions} regions; leave some out");
            return Err(Failure::usage(text));
        }
        let weights = self.weights.iter().copied().chain(std::iter::repeat(1.0));
        let region = |([mask, prompt], weight): (&[String; 2], f64)| {
            Ok(RegionParams { weight, ..RegionParams::new(picture(Path::new(mask))?, prompt) })
        };
        regions.iter().zip(weights).map(region).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        regions: RegionArgs,
    }

    fn of(flags: &[&str]) -> Result<Vec<RegionParams>, Failure> {
        Flags::parse_from(["x"].iter().chain(flags)).regions.over(vec![])
    }

    #[test]
    fn regions_have_their_weights_in_turn() {
        let regions = ["--region", "/l.png", "a cat", "--region", "/r.png", "-dog", "--region-weight", "0.5"];
        let found = of(&regions).expect("read");
        let told = found.iter().map(|region| {
            (region.mask.path.as_deref().expect("a path"), region.prompt.as_str(), region.weight)
        });
        assert_eq!(told.collect::<Vec<_>>(), [("/l.png", "a cat", 0.5), ("/r.png", "-dog", 1.0)]);
        assert!(of(&[]).expect("read").is_empty());
        let more = [&regions[..], &["--region-weight", "1", "--region-weight", "1"]].concat();
        assert!(of(&more).is_err());
    }
}
