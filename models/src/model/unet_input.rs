//! What a UNet sees beside noisy latents and text.

/// What a UNet sees of a picture, behind the noisy latents: told by how many channels its first convolution takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UNetInput {
    /// Nothing.
    #[default]
    Latents,
    /// A mask, 1 where to draw anew, and latents of the picture beneath it, in the model's scale: an inpainting checkpoint.
    Inpainting,
    /// Latents of the picture that is edited, in the VAE's scale: an InstructPix2Pix checkpoint.
    Edit,
}

impl UNetInput {
    /// That of a UNet with so many input channels over latents of so many; `None` if it is none of these.
    pub fn of(channels: usize, latent_channels: usize) -> Option<Self> {
        [Self::Latents, Self::Inpainting, Self::Edit]
            .into_iter()
            .find(|input| latent_channels.checked_add(input.channels(latent_channels)) == Some(channels))
    }

    /// Channels behind those of the noisy latents.
    pub fn channels(self, latent_channels: usize) -> usize {
        match self {
            Self::Latents => 0,
            Self::Inpainting => 1 + latent_channels,
            Self::Edit => latent_channels,
        }
    }

    /// What a checkpoint with such a UNet is called, with its article.
    pub fn title(self) -> &'static str {
        match self {
            Self::Latents => "a plain checkpoint",
            Self::Inpainting => "an inpainting checkpoint",
            Self::Edit => "an InstructPix2Pix checkpoint",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_by_channels() {
        for (channels, expected) in [
            (4, Some(UNetInput::Latents)),
            (9, Some(UNetInput::Inpainting)),
            (8, Some(UNetInput::Edit)),
            (5, None),
            (0, None),
            (usize::MAX, None),
        ] {
            assert_eq!(UNetInput::of(channels, 4), expected, "{channels}");
        }
    }
}
