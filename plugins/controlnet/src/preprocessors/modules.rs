//! Which modules there are: their names, what they are told, and what they need.

use latentd_plugin_api::{Error, Result};
use serde::Serialize;

use super::{MOST_PIXELS, MOST_SEEN, Settings, resolution};

/// A preprocessor.
#[derive(Debug, PartialEq, Serialize)]
pub struct Module {
    /// What requests call it.
    pub name: &'static str,
    /// What sd-webui-controlnet shows; a request may use it, too.
    pub alias: &'static str,
    /// Where it looks at a picture of another size than its own.
    pub resolution: Option<Resolution>,
    /// `threshold_a`.
    pub threshold_a: Option<Slider>,
    /// `threshold_b`.
    pub threshold_b: Option<Slider>,
    /// Whether it looks at a mask beside the picture.
    pub mask: bool,
    /// Whether there is chance in it, which a seed repeats.
    pub seed: bool,
    /// Whether its hint needs no ControlNet.
    pub without_model: bool,
    /// What sd-webui-controlnet lists it under.
    pub tags: &'static [&'static str],
}

/// How large the shorter side of a picture becomes, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resolution {
    /// The least.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// What −1 stands for.
    pub default: u32,
}

/// A number that a module is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slider {
    /// What it is.
    pub name: &'static str,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// Between two values of a client's slider; others are taken, too.
    pub step: f64,
    /// What −1 stands for.
    pub default: f64,
}

const USUAL: Option<Resolution> = Some(Resolution { min: 64, max: 2048, default: 512 });

const fn slider(name: &'static str, min: f64, max: f64, step: f64, default: f64) -> Slider {
    Slider { name, min, max, step, default }
}

const PLAIN: Module = Module {
    name: "none",
    alias: "none",
    resolution: None,
    threshold_a: None,
    threshold_b: None,
    mask: false,
    seed: false,
    without_model: false,
    tags: &["InstructP2P"],
};

const FIDELITY: Option<Slider> = Some(slider("Style Fidelity (only for Balanced mode)", 0.0, 1.0, 0.01, 0.5));
const GAMMA: Option<Slider> = Some(slider("Gamma Correction", 0.1, 2.0, 0.001, 1.0));
const VARIATION: Option<Slider> = Some(slider("Variation", 3.0, 32.0, 1.0, 8.0));

const fn reference(name: &'static str) -> Module {
    Module { name, alias: name, threshold_a: FIDELITY, without_model: true, tags: &["Reference"], ..PLAIN }
}

/// What CLIP sees by is found by the adapter's shape, whatever these say.
const fn ip_adapter(name: &'static str, alias: &'static str) -> Module {
    Module { name, alias, tags: &["IP-Adapter"], ..PLAIN }
}

/// All that need no network of their own.
pub const MODULES: &[Module] = &[
    PLAIN,
    Module {
        name: "canny",
        alias: "canny",
        resolution: USUAL,
        threshold_a: Some(slider("Low Threshold", 1.0, 255.0, 1.0, 100.0)),
        threshold_b: Some(slider("High Threshold", 1.0, 255.0, 1.0, 200.0)),
        tags: &["Canny"],
        ..PLAIN
    },
    Module {
        name: "invert",
        alias: "invert (from white bg & black line)",
        tags: &["Canny", "Lineart", "Scribble", "MLSD"],
        ..PLAIN
    },
    Module {
        name: "blur_gaussian",
        alias: "blur_gaussian",
        resolution: USUAL,
        threshold_a: Some(slider("Sigma", 0.01, 64.0, 0.01, 9.0)),
        tags: &["Tile"],
        ..PLAIN
    },
    Module {
        name: "scribble_xdog",
        alias: "scribble_xdog",
        resolution: USUAL,
        threshold_a: Some(slider("XDoG Threshold", 1.0, 64.0, 0.01, 32.0)),
        tags: &["Scribble", "SparseCtrl"],
        ..PLAIN
    },
    Module { name: "shuffle", alias: "shuffle", resolution: USUAL, seed: true, tags: &["Shuffle"], ..PLAIN },
    Module {
        name: "threshold",
        alias: "threshold",
        resolution: USUAL,
        threshold_a: Some(slider("Binarization Threshold", 0.0, 255.0, 0.01, 127.0)),
        tags: &[],
        ..PLAIN
    },
    Module {
        name: "tile_resample",
        alias: "tile_resample",
        threshold_a: Some(slider("Down Sampling Rate", 1.0, 8.0, 0.01, 1.0)),
        tags: &["Tile"],
        ..PLAIN
    },
    Module {
        name: "tile_colorfix",
        alias: "tile_colorfix",
        threshold_a: VARIATION,
        tags: &["Tile"],
        ..PLAIN
    },
    Module {
        name: "tile_colorfix+sharp",
        alias: "tile_colorfix+sharp",
        threshold_a: VARIATION,
        threshold_b: Some(slider("Sharpness", 0.0, 2.0, 0.01, 1.0)),
        tags: &["Tile"],
        ..PLAIN
    },
    Module {
        name: "recolor_luminance",
        alias: "recolor_luminance",
        threshold_a: GAMMA,
        tags: &["Recolor"],
        ..PLAIN
    },
    Module {
        name: "recolor_intensity",
        alias: "recolor_intensity",
        threshold_a: GAMMA,
        tags: &["Recolor"],
        ..PLAIN
    },
    Module { name: "color", alias: "t2ia_color_grid", resolution: USUAL, tags: &["T2I-Adapter"], ..PLAIN },
    Module {
        name: "lineart_standard",
        alias: "lineart_standard (from white bg & black line)",
        resolution: USUAL,
        tags: &["Lineart"],
        ..PLAIN
    },
    Module { name: "inpaint", alias: "inpaint_global_harmonious", mask: true, tags: &["Inpaint"], ..PLAIN },
    Module { name: "inpaint_only", alias: "inpaint_only", mask: true, tags: &["Inpaint"], ..PLAIN },
    ip_adapter("ip-adapter-auto", "ip-adapter-auto"),
    ip_adapter("ip-adapter_clip_h", "ip-adapter_clip_sd15"),
    ip_adapter("ip-adapter_clip_g", "ip-adapter_clip_sdxl"),
    ip_adapter("ip-adapter_clip_sdxl_plus_vith", "ip-adapter_clip_sdxl_plus_vith"),
    reference("reference_only"),
    reference("reference_adain"),
    reference("reference_adain+attn"),
];

impl Module {
    /// The one with this name or alias.
    pub fn called(name: &str) -> Result<&'static Self> {
        MODULES.iter().find(|module| module.name == name || module.alias == name).ok_or_else(|| {
            let names: Vec<&str> = MODULES.iter().map(|module| module.name).collect();
            Error::invalid(format!("module: there is none called '{name}'; there are {}", names.join(", ")))
        })
    }

    /// Whether it is for IP-Adapters, and for nothing else.
    pub fn is_of_ip_adapters(&self) -> bool {
        self.tags == ["IP-Adapter"]
    }

    /// Its settings of what a request says: −1 stands for the default of each. What lies outside of a range is an error that
    /// tells the range; what a module has no use for is of no matter, unless it is no number.
    pub fn settings(
        &self,
        processor_res: f64,
        threshold_a: f64,
        threshold_b: f64,
        seed: u32,
    ) -> Result<Settings> {
        let name = self.name;
        let within = |field: &str, what: &str, value: f64, range: Option<(f64, f64, f64)>| {
            if value.is_nan() {
                return Err(Error::invalid(format!(
                    "{field}: it is no number; {name} takes one, or -1 for its default"
                )));
            }
            match range {
                None => Ok(0.0),
                Some((.., default)) if value == -1.0 => Ok(default),
                Some((min, max, _)) if (min..=max).contains(&value) => Ok(value),
                Some((min, max, default)) => Err(Error::invalid(format!(
                    "{field}: {value} cannot be; {name} takes {min} to {max} ({what}), or -1 for {default}"
                ))),
            }
        };
        let range = |slider: Option<Slider>| slider.map(|slider| (slider.min, slider.max, slider.default));
        let title = |slider: Option<Slider>| slider.map_or("", |slider| slider.name);
        let sides = self
            .resolution
            .map(|sides| (f64::from(sides.min), f64::from(sides.max), f64::from(sides.default)));
        Ok(Settings {
            resolution: within("processor_res", "pixels of the shorter side", processor_res, sides)? as u32,
            first: within("threshold_a", title(self.threshold_a), threshold_a, range(self.threshold_a))?,
            second: within("threshold_b", title(self.threshold_b), threshold_b, range(self.threshold_b))?,
            seed,
        })
    }

    /// An error unless a picture of these sides can be worked on.
    pub fn check(&self, width: usize, height: usize, settings: &Settings) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Error::invalid(format!(
                "image: {width}x{height} has no pixels; give one that has some"
            )));
        }
        let fits = |width: usize, height: usize, most: usize| {
            width.checked_mul(height).is_some_and(|pixels| pixels <= most)
        };
        if !fits(width, height, MOST_PIXELS) {
            return Err(Error::invalid(format!(
                "image: {width}x{height} is too large; give one of no more than {MOST_PIXELS} pixels"
            )));
        }
        if self.resolution.is_none() {
            return Ok(());
        }
        let (wide, high) = resolution::sides(width, height, settings.resolution);
        if settings.resolution > 0 && fits(wide, high, MOST_SEEN) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "image: {width}x{height} would be looked at as {wide}x{high}, which cannot be; give a processor_res by which it \
             has no more than {MOST_SEEN} pixels, or a picture that is less long"
        )))
    }
}
