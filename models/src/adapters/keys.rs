//! The names of tensors in files of the LoRA family: a layer, and what the tensor is to it.
//!
//! Kohya's trainers and LyCORIS write `lora_unet_down_blocks_0_….lora_up.weight`, PEFT and diffusers
//! `unet.down_blocks.0.….lora_B.weight`, old diffusers `….processor.to_q_lora.up.weight`.

use super::targets::{Network, joined};

/// What a tensor is to its layer; what a layer is told by comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// LoRA's second matrix.
    Up,
    /// LoRA's first matrix.
    Down,
    /// Between them, with the kernel of a convolution.
    Mid,
    /// LyCORIS' magnitudes: per output or per input.
    DoraScale,
    /// PEFT's, per output.
    Magnitude,
    Hada1A,
    Hada1B,
    Hada2A,
    Hada2B,
    HadaT1,
    HadaT2,
    Kron1,
    Kron1A,
    Kron1B,
    Kron2,
    Kron2A,
    Kron2B,
    KronT2,
    /// IA3's factors.
    Weight,
    OnInput,
    GloraA1,
    GloraA2,
    GloraB1,
    GloraB2,
    OftBlocks,
    OftDiag,
    Rescale,
    Diff,
    DiffBias,
    NormWeight,
    NormBias,
    Alpha,
    Scale,
}

impl Role {
    /// What stands for it at the end of a name.
    pub(super) fn name(self) -> &'static str {
        ENDS.iter().find(|(_, role)| *role == self).map_or("", |(end, _)| end.trim_start_matches('.'))
    }
}

/// How names end.
const ENDS: [(&str, Role); 42] = [
    (".lora_up.weight", Role::Up),
    (".lora_down.weight", Role::Down),
    (".lora_mid.weight", Role::Mid),
    (".lora_B.weight", Role::Up),
    (".lora_A.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    (".alpha", Role::Alpha),
    (".scale", Role::Scale),
    (".dora_scale", Role::DoraScale),
    (".lora_magnitude_vector", Role::Magnitude),
    (".hada_w1_a", Role::Hada1A),
    (".hada_w1_b", Role::Hada1B),
    (".hada_w2_a", Role::Hada2A),
    (".hada_w2_b", Role::Hada2B),
    (".hada_t1", Role::HadaT1),
    (".hada_t2", Role::HadaT2),
    (".lokr_w1", Role::Kron1),
    (".lokr_w1_a", Role::Kron1A),
    (".lokr_w1_b", Role::Kron1B),
    (".lokr_w2", Role::Kron2),
    (".lokr_w2_a", Role::Kron2A),
    (".lokr_w2_b", Role::Kron2B),
    (".lokr_t2", Role::KronT2),
    (".on_input", Role::OnInput),
    (".a1.weight", Role::GloraA1),
    (".a2.weight", Role::GloraA2),
    (".b1.weight", Role::GloraB1),
    (".b2.weight", Role::GloraB2),
    (".oft_blocks", Role::OftBlocks),
    (".oft_diag", Role::OftDiag),
    (".rescale", Role::Rescale),
    (".diff", Role::Diff),
    (".diff_b", Role::DiffBias),
    (".w_norm", Role::NormWeight),
    (".b_norm", Role::NormBias),
    // Of other layers that end so too; before it all others are looked for.
    (".weight", Role::Weight),
    (".network_alpha", Role::Alpha),
];

/// What PEFT puts its adapter's name behind.
const NAMED: [(&str, Role); 3] =
    [(".lora_A.", Role::Down), (".lora_B.", Role::Up), (".lora_magnitude_vector.", Role::Magnitude)];

/// How names begin, and whose they are; of two that begin alike the longer first.
const BEGINNINGS: [(&str, Option<Network>); 14] = [
    ("lora_unet_", Some(Network::UNet)),
    ("lora_te_", Some(Network::Text)),
    ("oft_unet_", Some(Network::UNet)),
    ("oft_te_", Some(Network::Text)),
    ("lycoris_unet_", Some(Network::UNet)),
    ("lycoris_te_", Some(Network::Text)),
    ("lycoris_", None),
    ("unet.", Some(Network::UNet)),
    ("text_encoder.", Some(Network::Text)),
    ("model.diffusion_model.", Some(Network::UNet)),
    ("diffusion_model.", Some(Network::UNet)),
    ("cond_stage_model.", Some(Network::Text)),
    ("base_model.model.", None),
    ("lora_", None),
];

/// A tensor's name taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    /// Whose layer it is, if the name says so.
    pub network: Option<Network>,
    /// The layer as the file writes it, without the beginning.
    pub layer: &'a str,
    pub role: Role,
}

impl<'a> Key<'a> {
    /// Of a name, if it is one of an adapter.
    pub(super) fn of(name: &'a str) -> Option<Self> {
        let (layer, role) = without_end(name)?;
        let begins = |(beginning, network): &(&str, Option<Network>)| {
            layer.strip_prefix(beginning).map(|layer| (layer, *network))
        };
        let (layer, network) = BEGINNINGS.iter().find_map(begins).unwrap_or((layer, None));
        Some(Self { network, layer, role })
    }

    /// The layer with `_` for each `.`, as it is looked up.
    pub(super) fn joined(&self) -> String {
        joined(&self.layer.replace(".processor.", "."))
    }
}

fn without_end(name: &str) -> Option<(&str, Role)> {
    let named = |(mark, role): &(&str, Role)| {
        let (layer, rest) = name.split_once(mark)?;
        let adapter = rest.strip_suffix(".weight").unwrap_or(rest);
        (!adapter.contains('.')).then_some((layer, *role))
    };
    let ends = |(end, role): &(&'static str, Role)| name.strip_suffix(end).map(|layer| (layer, *role));
    NAMED.iter().find_map(named).or_else(|| ENDS.iter().find_map(ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let (unet, text) = (Some(Network::UNet), Some(Network::Text));
        for (name, network, layer, role) in [
            ("lora_unet_mid_block_proj_in.lora_up.weight", unet, "mid_block_proj_in", Role::Up),
            ("lora_te_text_model_a.alpha", text, "text_model_a", Role::Alpha),
            ("lycoris_mid_block_proj.lokr_w1", None, "mid_block_proj", Role::Kron1),
            ("unet.mid.to_q.lora_A.weight", unet, "mid_to_q", Role::Down),
            ("unet.mid.to_q.lora_B.default.weight", unet, "mid_to_q", Role::Up),
            ("unet.mid.to_q.lora_magnitude_vector.weight", unet, "mid_to_q", Role::Magnitude),
            ("unet.mid.to_q.lora_magnitude_vector", unet, "mid_to_q", Role::Magnitude),
            ("unet.mid.attn1.processor.to_out_lora.down.weight", unet, "mid_attn1_to_out", Role::Down),
            ("text_encoder.a.q_proj.lora_linear_layer.up.weight", text, "a_q_proj", Role::Up),
            ("base_model.model.down_blocks.0.a.lora_A.weight", None, "down_blocks_0_a", Role::Down),
            ("down_blocks.0.a.lora.up.weight", None, "down_blocks_0_a", Role::Up),
            ("diffusion_model.input_blocks.1.1.a.lora_down.weight", unet, "input_blocks_1_1_a", Role::Down),
            ("lora_unet_a.a1.weight", unet, "a", Role::GloraA1),
            ("lora_unet_a.weight", unet, "a", Role::Weight),
            ("lora_te1_text_model_a.alpha", None, "te1_text_model_a", Role::Alpha),
        ] {
            let key = Key::of(name).expect(name);
            assert_eq!((key.network, key.joined().as_str(), key.role), (network, layer, role), "{name}");
        }
        for name in ["emb_params", "lora_unet_a", "a.lora_A.b.c.d", ""] {
            assert_eq!(Key::of(name), None, "{name}");
        }
    }
}
