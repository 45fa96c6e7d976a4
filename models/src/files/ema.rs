//! The averaged weights of a UNet that LDM's training keeps beside the plain ones, as `model_ema.` and the name of the
//! plain ones without its dots.

use super::layout_names::UNET;
use super::tensors::Tensors;
use crate::{Error, Result};

/// Begins their names.
const PREFIX: &str = "model_ema.diffusion_model";

/// Parts of names in a UNet, of two that begin alike the longer first. A number after one of them stands for itself.
const PARTS: [&str; 29] = [
    "transformer_blocks",
    "skip_connection",
    "output_blocks",
    "middle_block",
    "input_blocks",
    "out_layers",
    "emb_layers",
    "time_embed",
    "label_emb",
    "in_layers",
    "proj_out",
    "proj_in",
    "to_out",
    "weight",
    "attn1",
    "attn2",
    "norm1",
    "norm2",
    "norm3",
    "to_q",
    "to_k",
    "to_v",
    "bias",
    "conv",
    "norm",
    "proj",
    "net",
    "out",
    "op",
];

impl Tensors {
    /// The same file with the averaged weights of its UNet in the place of the plain ones; an error if it has none. Those
    /// that it has no average of stay. A1111 draws with the plain ones.
    pub fn with_ema(self) -> Result<Self> {
        let average = |(name, _): (&str, &str)| {
            let rest = name.strip_prefix(UNET)?;
            let own = self.own_name(&format!("{PREFIX}{}", rest.replace('.', "")))?;
            Some((name.to_owned(), own.to_owned()))
        };
        let names: Vec<_> = self.names_under(UNET).into_iter().filter_map(average).collect();
        // A file of nothing else is read so by itself.
        let has_no_others = self.names_under(UNET).iter().any(|(_, own)| own.starts_with(PREFIX));
        if names.is_empty() && !has_no_others {
            let reason =
                "has no averaged weights (model_ema.…) beside the plain ones; use them, or another file";
            return Err(Error::model(self.path(), reason));
        }
        Ok(self.renamed(names))
    }

    /// Whether averaged weights of a UNet are beside the plain ones, or alone.
    pub fn has_ema(&self) -> bool {
        self.has_under(PREFIX)
    }
}

/// A file that has no plain weights, with its averaged ones in their place.
pub(super) fn instead(file: Tensors) -> Result<Tensors> {
    let names = file.names().filter_map(|own| {
        let name = dotted(own.strip_prefix(PREFIX)?)?;
        Some((format!("{UNET}{name}"), own.to_owned()))
    });
    let names: Vec<_> = names.collect();
    file.renamed_apart(names)
}

/// A name in a UNet with its dots, if it is one.
fn dotted(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = vec![];
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            // LDM's feed-forward part is called so; no other name begins with it.
            let part = PARTS.iter().chain(&["ff"]).find(|part| rest.starts_with(**part))?;
            parts.push(part);
            rest = rest.get(part.len()..)?;
            continue;
        }
        // Where two numbers meet the second has one digit.
        let has_two = matches!(parts.last(), Some(&("input_blocks" | "output_blocks" | "label_emb")));
        let first = if has_two { digits.checked_sub(1).filter(|first| *first > 0)? } else { digits };
        parts.push(rest.get(..first)?);
        if has_two {
            parts.push(rest.get(first..digits)?);
        }
        rest = rest.get(digits..)?;
    }
    Some(parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_found_again() {
        for name in [
            "input_blocks.0.0.weight",
            "input_blocks.11.0.in_layers.0.bias",
            "input_blocks.3.0.op.weight",
            "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.weight",
            "input_blocks.10.1.transformer_blocks.12.ff.net.0.proj.weight",
            "input_blocks.1.1.transformer_blocks.0.ff.net.2.bias",
            "input_blocks.1.1.proj_in.weight",
            "middle_block.1.transformer_blocks.0.norm3.weight",
            "middle_block.2.out_layers.3.weight",
            "output_blocks.5.2.conv.weight",
            "output_blocks.8.1.norm.weight",
            "output_blocks.0.0.skip_connection.weight",
            "time_embed.2.weight",
            "label_emb.0.2.bias",
            "out.2.bias",
            "out.0.weight",
        ] {
            assert_eq!(dotted(&name.replace('.', "")).as_deref(), Some(name));
        }
        for name in ["decay", "input_blocks0", "weightweightx", "input_blocks"] {
            assert!(dotted(name).is_none_or(|dotted| dotted.replace('.', "") == name), "{name}");
        }
    }
}
