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


def dcci(picture):
    """Zhou, Shen, Dong 2012: twice as large. picture: (…, h, w), 0…1; its pixels stand at even rows and columns of the result.
    What is kept has the picture's type: many values lie between two of 8 bits, and f32 decides which they become."""
    picture = np.asarray(picture)
    h, w = picture.shape[-2:]
    result = np.full((*picture.shape[:-2], 2 * h, 2 * w), np.nan, picture.dtype)
    result[..., ::2, ::2] = picture

    def mirrored(places, count):
        if count == 1:
            return places % 2
        last = 2 * count - 2
        away = np.abs(places) % (2 * last)
        return np.where((places > last + 1) | (places < 0), np.where(away > last, 2 * last - away, away), places)

    def looker(ys, xs):
        def see(dx, dy):
            return result[..., mirrored(ys + dy, h)[:, None], mirrored(xs + dx, w)[None, :]].astype(np.float64)

        return see

    def cubic(see, ways):
        a, b, c, d = (see(*way) for way in ways)
        return (-a + 9 * b + 9 * c - d) / 16

    def chosen(one, other, value_of_one, value_of_other):
        one, other = 255 * one, 255 * other
        weight, rest = 1 / (1 + one**5), 1 / (1 + other**5)
        mixed = (weight * value_of_one + rest * value_of_other) / (weight + rest)
        value = np.where(1 + one > 1.15 * (1 + other), value_of_other, np.where(1 + other > 1.15 * (1 + one), value_of_one, mixed))
        return np.clip(value, 0, 1)

    places = [(dx, dy) for dy in (-3, -1, 1) for dx in (-3, -1, 1)]
    see = looker(np.arange(1, 2 * h, 2), np.arange(1, 2 * w, 2))
    up = sum(np.abs(see(x + 2, y) - see(x, y + 2)) for x, y in places)
    down = sum(np.abs(see(x, y) - see(x + 2, y + 2)) for x, y in places)
    result[..., 1::2, 1::2] = chosen(up, down, cubic(see, [(3, -3), (1, -1), (-1, 1), (-3, 3)]),
                                     cubic(see, [(-3, -3), (-1, -1), (1, 1), (3, 3)]))
    near = [(x, y) for y in range(-2, 3) for x in range(-2, 3) if abs(x) + abs(y) in (0, 2)]
    for row, column in ((0, 1), (1, 0)):
        see = looker(np.arange(row, 2 * h, 2), np.arange(column, 2 * w, 2))
        across = sum(np.abs(see(x - 1, y) - see(x + 1, y)) for x, y in near)
        along = sum(np.abs(see(x, y - 1) - see(x, y + 1)) for x, y in near)
        result[..., row::2, column::2] = chosen(across, along, cubic(see, [(x, 0) for x in (-3, -1, 1, 3)]),
                                                cubic(see, [(0, y) for y in (-3, -1, 1, 3)]))
    assert not np.isnan(result).any()
    return result


def tiled(picture, upscale, scale, size, overlap):
    """A1111's tiles: evenly spaced, each fading in over the first `overlap` columns and rows. picture: (c, h, w), 0…1."""
    picture = np.asarray(picture)

    def starts(length):
        if size >= length:
            return [0], length
        count = -(-(length - overlap) // (size - overlap))
        return [int(index * (length - size) / (count - 1)) for index in range(count)], size

    (ys, high), (xs, wide) = starts(picture.shape[1]), starts(picture.shape[2])
    fade = overlap * scale
    ramp = (np.arange(fade) / fade).astype(picture.dtype)
    result = np.zeros((picture.shape[0], picture.shape[1] * scale, picture.shape[2] * scale), picture.dtype)
    for y in ys:
        strip = np.zeros((picture.shape[0], high * scale, picture.shape[2] * scale), picture.dtype)
        for x in xs:
            tile = upscale(picture[:, y:y + high, x:x + wide])
            part = strip[:, :, x * scale:(x + wide) * scale]
            if x:
                tile[:, :, :fade] = part[:, :, :fade] * (1 - ramp) + tile[:, :, :fade] * ramp
            part[:] = tile
        part = result[:, y * scale:(y + high) * scale]
        if y:
            strip[:, :fade] = part[:, :fade] * (1 - ramp[:, None]) + strip[:, :fade] * ramp[:, None]
        part[:] = strip
    return result
