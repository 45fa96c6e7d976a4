//! sRGB to CIE L*a*b* and back in 8 bits as OpenCV has them (`cvtColor`; `imgproc/src/color_lab.cpp` has the numbers): whole
//! numbers and tables all the way. L is scaled to 255, a and b are moved by 128; white is D65.

use std::sync::LazyLock;

/// Bits behind the point of the matrices, of a linear colour beyond 255, and of what the tables for L*a*b* give.
const MATRIX_BITS: u32 = 12;
const LINEAR_BITS: u32 = 3;
const ROOT_BITS: u32 = MATRIX_BITS + LINEAR_BITS;
/// One, on the way back.
const BASE: i32 = 1 << 14;
/// Steps of the table from linear colours to sRGB.
const STEPS: i32 = 1 << 12;

const WHITE: [f64; 3] = [0.950_456, 1.0, 1.088_754];
const TO_XYZ: [[f64; 3]; 3] =
    [[0.412_453, 0.357_580, 0.180_423], [0.212_671, 0.715_160, 0.072_169], [0.019_334, 0.119_193, 0.950_227]];
const FROM_XYZ: [[f64; 3]; 3] = [
    [3.240_479, -1.537_15, -0.498_535],
    [-0.969_256, 1.875_991, 0.041_556],
    [0.055_648, -0.204_043, 1.057_311],
];

struct Tables {
    /// XYZ of a linear colour, white being 1.
    to_xyz: [[i32; 3]; 3],
    from_xyz: [[i32; 3]; 3],
    /// From sRGB to linear.
    linear: [i32; 256],
    /// The cube root, or near 0 the line that stands for it.
    root: Vec<i32>,
    /// `(Y, its cube root)` of L.
    luminance: [(i32, i32); 256],
    /// From linear to sRGB.
    srgb: Vec<u8>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let fixed = |value: f64| (value * f64::from(1 << MATRIX_BITS)).round_ties_even() as i32;
    let steps = |count: u32| (0..count).map(|step| step as f32);
    let linear = |level: f32| {
        let linear = to_linear(level / 255.0);
        ((255 << LINEAR_BITS) as f32 * linear).round_ties_even() as i32
    };
    let root = |step: f32| {
        let one = 1.0 / (255 << LINEAR_BITS) as f32;
        ((1 << ROOT_BITS) as f32 * cube_root(one * step)).round_ties_even() as i32
    };
    let srgb = |step: f32| (255.0 * to_srgb(step / STEPS as f32)).round_ties_even() as u8;
    Tables {
        to_xyz: std::array::from_fn(|row| TO_XYZ[row].map(|share| fixed(share / WHITE[row]))),
        from_xyz: FROM_XYZ.map(|row| std::array::from_fn(|column| fixed(row[column] * WHITE[column]))),
        linear: std::array::from_fn(|level| linear(level as f32)),
        root: steps((256 * 3 / 2) << LINEAR_BITS).map(root).collect(),
        luminance: std::array::from_fn(|level| luminance(level as i32)),
        srgb: steps(STEPS as u32).map(srgb).collect(),
    }
});

fn to_linear(level: f32) -> f32 {
    let level = f64::from(level);
    let linear = if level <= 0.04045 { level / 12.92 } else { ((level + 0.055) / 1.055).powf(2.4) };
    linear as f32
}

fn to_srgb(linear: f32) -> f32 {
    let linear = f64::from(linear);
    let level = if linear <= 0.003_130_8 { linear * 12.92 } else { linear.powf(1.0 / 2.4) * 1.055 - 0.055 };
    level as f32
}

/// The next f32 below, as OpenCV's own cube root has it; one entry of the table depends on that.
fn cube_root(value: f32) -> f32 {
    if value < 216.0 / 24389.0 {
        return value.mul_add(841.0 / 108.0, 16.0 / 116.0);
    }
    let exact = f64::from(value).cbrt();
    let near = exact as f32;
    if f64::from(near) > exact { near.next_down() } else { near }
}

fn luminance(level: i32) -> (i32, i32) {
    let base = BASE as f32;
    if level <= 20 {
        let y = (level * BASE * 20 * 9) as f32 / (17 * 29 * 29 * 29) as f32;
        let root = base * (16.0 / 116.0 + (level * 5) as f32 / (3 * 17 * 29) as f32);
        (y.round_ties_even() as i32, root.round_ties_even() as i32)
    } else {
        let root = (level * 100 * BASE) as f32 / (255 * 116) as f32 + (16 * BASE) as f32 / 116.0;
        let y = root * root * root / (base * base);
        (y.round_ties_even() as i32, root.round_ties_even() as i32)
    }
}

/// The cube of a root on the way back, or what stands for it near 0.
fn cube(root: i32) -> i32 {
    if root <= 3390 {
        root * 108 / 841 - BASE * 16 / 116 * 108 / 841
    } else {
        root * root / BASE * root / BASE
    }
}

fn descaled(sum: i32, bits: u32) -> i32 {
    (sum + (1 << (bits - 1))) >> bits
}

fn product(matrix: &[[i32; 3]; 3], values: [i32; 3], bits: u32) -> [i32; 3] {
    matrix.map(|row| descaled(row[0] * values[0] + row[1] * values[1] + row[2] * values[2], bits))
}

/// `[red, green, blue]` → `[L, a, b]`.
pub(super) fn from_rgb(pixel: [u8; 3]) -> [u8; 3] {
    let tables = &*TABLES;
    let linear = pixel.map(|level| tables.linear[usize::from(level)]);
    let [x, y, z] = product(&tables.to_xyz, linear, MATRIX_BITS).map(|value| tables.root[value as usize]);
    let lightness = (116 * 255 + 50) / 100 * y - (16 * 255 * (1 << ROOT_BITS) + 50) / 100;
    let middle = 128 << ROOT_BITS;
    let lab = [lightness, 500 * (x - y) + middle, 200 * (y - z) + middle];
    lab.map(|value| descaled(value, ROOT_BITS).clamp(0, 255) as u8)
}

/// `[L, a, b]` → `[red, green, blue]`; what sRGB has not is cut off.
pub(super) fn to_rgb(pixel: [u8; 3]) -> [u8; 3] {
    let tables = &*TABLES;
    let (y, root) = tables.luminance[usize::from(pixel[0])];
    let [_, a, b] = pixel.map(i32::from);
    // Near (a − 128) / 500 and (b − 128) / 200.
    let a = ((5 * a * 53687 + (1 << 7)) >> 13) - 128 * BASE / 500;
    let b = ((b * 41943 + (1 << 4)) >> 9) - 128 * BASE / 200 + 1;
    let linear = product(&tables.from_xyz, [cube(root + a), y, cube(root - b)], 14);
    linear.map(|value| tables.srgb[value.clamp(0, STEPS - 1) as usize])
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// All 2²⁴ colours were compared once, both ways, with OpenCV 4.9.0 and 5.0.0: no byte differs. The digests begin
    /// those of `cv2.cvtColor(grid, …)`, the grid having each third level, blue running fastest.
    #[test]
    fn colours_are_opencvs_both_ways() {
        let digest = |change: fn([u8; 3]) -> [u8; 3]| {
            let levels = || (0..=255u8).step_by(3);
            let colours = levels().flat_map(|r| levels().flat_map(move |g| levels().map(move |b| [r, g, b])));
            let bytes: Vec<u8> = colours.flat_map(change).collect();
            format!("{:x?}", &Sha256::digest(&bytes)[..4])
        };
        assert_eq!(digest(from_rgb), "[10, 18, 99, 58]");
        assert_eq!(digest(to_rgb), "[85, cb, a4, 6f]");
    }
}
