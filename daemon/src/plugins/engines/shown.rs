//! How A1111 shows library files that are engines: some under names that their files do not have.

use latentd_client::protocol::LibraryKind;

/// Upscalers: what their files are called, and how they are shown (`modules/realesrgan_model.py`, `dat_model.py`; the extension
/// for `SwinIR`).
const UPSCALERS: [(&str, &str); 11] = [
    ("RealESRGAN_x4plus", "R-ESRGAN 4x+"),
    ("RealESRGAN_x4plus_anime_6B", "R-ESRGAN 4x+ Anime6B"),
    ("RealESRGAN_x2plus", "R-ESRGAN 2x+"),
    ("realesr-general-x4v3", "R-ESRGAN General 4xV3"),
    ("realesr-general-wdn-x4v3", "R-ESRGAN General WDN 4xV3"),
    ("realesr-animevideov3", "R-ESRGAN AnimeVideo"),
    ("SwinIR_4x", "SwinIR 4x"),
    ("003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_GAN", "SwinIR 4x"),
    ("DAT_x2", "DAT x2"),
    ("DAT_x3", "DAT x3"),
    ("DAT_x4", "DAT x4"),
];

/// How a library file is shown.
pub(super) fn shown(kind: LibraryKind, name: &str) -> &str {
    if kind != LibraryKind::Upscaler {
        return name;
    }
    UPSCALERS.iter().find(|(file, _)| *file == name).map_or(name, |(_, shown)| shown)
}
