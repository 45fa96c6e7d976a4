"""What the examples are to compute, in numpy and float64: the yardstick of their tests, written from the sources that the
examples name and not from their code. Latents are (pictures, channels, h, w)."""

import numpy as np


def vignette(pixels, strength=0.5, radius=0.5):
    """pixels: (h, w, 1 | 3 | 4) u8; alpha stays."""
    pixels = np.asarray(pixels, np.uint8)
    h, w, channels = pixels.shape
    u = (np.arange(w) + 0.5) / (w / 2) - 1
    v = (np.arange(h) + 0.5) / (h / 2) - 1
    distance = np.hypot(u[None, :], v[:, None]) / np.sqrt(2)
    along = np.clip((distance - radius) / max(1 - radius, 1e-300), 0, 1)
    light = 1 - strength * (3 * along**2 - 2 * along**3)
    result = np.floor(pixels * light[:, :, None] + 0.5).astype(np.uint8)
    if channels == 4:
        result[:, :, 3] = pixels[:, :, 3]
    return result


def guidance(uncond, conds, weights=None, masks=None, scale=1.0):
    """uncond + scale · Σ weight · mask · (cond − uncond). conds: branches, each (pictures, channels, h, w); weights: one
    per branch; masks: per branch (pictures | 1, 1, h, w), or None."""
    uncond = np.asarray(uncond, np.float64)
    conds = np.asarray(conds, np.float64)
    weights = np.ones(len(conds)) if weights is None else np.asarray(weights, np.float64)
    masks = [None] * len(conds) if masks is None else masks
    result = uncond.copy()
    for cond, weight, mask in zip(conds, weights, masks, strict=True):
        where = 1.0 if mask is None else np.asarray(mask, np.float64)
        result += scale * weight * where * (cond - uncond)
    return result


def cfg_rescale(guided, positive, x=None, sigma=None, phi=0.7, space="v"):
    """Lin et al. 2024, section 3.4, equations 14 to 16. positive: guidance at scale 1. x and sigma only for space "v",
    by k-diffusion's scalings of v: sample = c_skip · x + c_out · v."""
    guided = np.asarray(guided, np.float64)
    positive = np.asarray(positive, np.float64)
    if space == "v":
        skip = np.asarray(x, np.float64) / (sigma**2 + 1)
        out = -sigma / np.sqrt(sigma**2 + 1)
        guided, positive = (guided - skip) / out, (positive - skip) / out
    axes = (1, 2, 3)
    std_positive = positive.std(axis=axes, ddof=1, keepdims=True)
    std_guided = guided.std(axis=axes, ddof=1, keepdims=True)
    safe = np.where(std_guided > 0, std_guided, 1)
    rescaled = np.where(std_guided > 0, guided * (std_positive / safe), guided)
    result = phi * rescaled + (1 - phi) * guided
    return result * out + skip if space == "v" else result


def dynamic_thresholding(
    uncond,
    conds,
    cfg_scale,
    x=None,
    weights=None,
    masks=None,
    mimic_scale=7.0,
    threshold_percentile=1.0,
    separate_feature_channels=True,
    scaling_startpoint="MEAN",
    variability_measure="AD",
    interpolate_phi=1.0,
    space="noise",
):
    """sd-dynamic-thresholding in its mode Constant, each picture alone. x only for space "noise"."""
    uncond = np.asarray(uncond, np.float64)
    conds = np.asarray(conds, np.float64)
    if space == "noise":
        x = np.asarray(x, np.float64)
        uncond, conds = x - uncond, x - conds
    mimic = guidance(uncond, conds, weights, masks, mimic_scale)
    cfg = guidance(uncond, conds, weights, masks, cfg_scale)

    mean = cfg.mean(axis=(2, 3), keepdims=True)
    centred_mimic = mimic - mimic.mean(axis=(2, 3), keepdims=True)
    centred = cfg - mean
    axes = (2, 3) if separate_feature_channels else (1, 2, 3)
    if variability_measure == "STD":
        range_mimic = centred_mimic.std(axis=axes, ddof=1, keepdims=True)
        range_cfg = centred.std(axis=axes, ddof=1, keepdims=True)
    else:
        range_mimic = np.abs(centred_mimic).max(axis=axes, keepdims=True)
        range_cfg = np.quantile(np.abs(centred), threshold_percentile, axis=axes, keepdims=True)

    if scaling_startpoint == "MEAN" and variability_measure == "AD":
        limit = np.maximum(range_mimic, range_cfg)
        factor = np.divide(range_mimic, limit, out=np.ones_like(limit), where=limit > 0)
        result = np.clip(centred, -limit, limit) * factor + mean
    else:
        factor = np.divide(range_mimic, range_cfg, out=np.ones_like(range_cfg), where=range_cfg > 0)
        result = cfg * factor if scaling_startpoint == "ZERO" else centred * factor + mean
    result = interpolate_phi * result + (1 - interpolate_phi) * cfg
    return x - result if space == "noise" else result
