//! What a unit is told, by sd-webui-controlnet's names, and what of that holds.

use latentd_plugin_api::{Error, File, FileOr, GivenImage, Result};
use serde::{Deserialize, Deserializer};

use crate::preprocessors::hint::ResizeMode;

/// The plugin's parameters.
#[derive(Deserialize)]
pub struct Params {
    /// None where it computes for others.
    #[serde(default)]
    pub units: Vec<Unit>,
}

/// One unit. Those that are told twice have a name that sd-webui-controlnet once had for them.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are sd-webui-controlnet's")]
pub struct Unit {
    pub enabled: bool,
    pub module: String,
    model: Option<FileOr>,
    pub weight: f64,
    image: Option<GivenImage>,
    input_image: Option<GivenImage>,
    #[serde(default)]
    images: Vec<GivenImage>,
    mask: Option<GivenImage>,
    mask_image: Option<GivenImage>,
    pub resize_mode: Resize,
    pub processor_res: f64,
    pub threshold_a: f64,
    pub threshold_b: f64,
    pub guidance_start: f64,
    pub guidance_end: f64,
    pub pixel_perfect: bool,
    pub control_mode: ControlMode,
    pub hr_option: HiresOption,
    pub inpaint_crop_input_image: bool,
    pub save_detected_map: bool,
    pub advanced_weighting: Option<Vec<f64>>,
    pub effective_region_mask: Option<GivenImage>,
}

/// How much a unit counts beside the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMode {
    Balanced,
    Prompt,
    Control,
}

/// In which passes of a hires fix a unit takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiresOption {
    Both,
    Low,
    High,
}

/// How a control map comes to the size of what is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize(pub ResizeMode);

impl Unit {
    /// Its file.
    pub fn file(&self) -> Option<File> {
        match self.model {
            Some(FileOr::File(file)) => Some(file),
            Some(FileOr::Word(_)) | None => None,
        }
    }

    /// Its picture for one of the job's, if it has any of its own.
    pub fn image(&self, picture: usize) -> Option<GivenImage> {
        let of_list =
            (!self.images.is_empty()).then(|| self.images.get(picture % self.images.len())).flatten();
        of_list.copied().or(self.image).or(self.input_image)
    }

    /// All pictures that it has.
    pub fn images(&self) -> impl Iterator<Item = GivenImage> {
        self.images.iter().copied().chain(self.image).chain(self.input_image)
    }

    /// Where its picture is to be drawn anew.
    pub fn mask(&self) -> Option<GivenImage> {
        self.mask.or(self.mask_image)
    }

    /// What is told by two names.
    pub fn check(&self) -> Result<()> {
        let told = [self.image.is_some(), self.input_image.is_some(), !self.images.is_empty()];
        if told.iter().filter(|told| **told).count() > 1 {
            return Err(Error::invalid(
                "image, images and input_image are one and the same: give one of them",
            ));
        }
        if self.mask.is_some() && self.mask_image.is_some() {
            return Err(Error::invalid("mask and mask_image are one and the same: give one of them"));
        }
        if self.guidance_start > self.guidance_end {
            let (start, end) = (self.guidance_start, self.guidance_end);
            let text = format!(
                "guidance_start is {start}, which is after guidance_end, {end}; it may be as much at most"
            );
            return Err(Error::invalid(text));
        }
        Ok(())
    }
}

/// What a choice is called, or its number among them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Chosen {
    Name(String),
    Number(u64),
}

impl Chosen {
    /// Which of choices it is, each with its names; the schema lets no others through.
    fn of<'de, D: Deserializer<'de>, T: Copy>(
        deserializer: D,
        choices: &[(T, &[&str])],
    ) -> Result<T, D::Error> {
        let found = match Self::deserialize(deserializer)? {
            Self::Name(name) => choices.iter().find(|(_, names)| names.contains(&name.as_str())),
            Self::Number(number) => usize::try_from(number).ok().and_then(|number| choices.get(number)),
        };
        found.map(|(choice, _)| *choice).ok_or_else(|| serde::de::Error::custom("none of the choices"))
    }
}

/// Choices in sd-webui-controlnet's order, each by its name, and by those that it had before.
const RESIZES: [(ResizeMode, &[&str]); 3] = [
    (ResizeMode::Just, &["Just Resize"]),
    (ResizeMode::Crop, &["Crop and Resize", "Inner Fit (Scale to Fit)", "Scale to Fit (Inner Fit)"]),
    (ResizeMode::Fill, &["Resize and Fill", "Outer Fit (Shrink to Fit)", "Envelope (Outer Fit)"]),
];
const MODES: [(ControlMode, &[&str]); 3] = [
    (ControlMode::Balanced, &["Balanced"]),
    (ControlMode::Prompt, &["My prompt is more important"]),
    (ControlMode::Control, &["ControlNet is more important"]),
];
const HIRES: [(HiresOption, &[&str]); 3] = [
    (HiresOption::Both, &["Both"]),
    (HiresOption::Low, &["Low res only"]),
    (HiresOption::High, &["High res only"]),
];

fn name_of<T: PartialEq>(choices: &[(T, &[&'static str])], own: &T) -> &'static str {
    let found = choices.iter().find(|(choice, _)| choice == own);
    found.and_then(|(_, names)| names.first()).copied().unwrap_or_default()
}

impl Resize {
    /// As sd-webui-controlnet calls it.
    pub fn name(self) -> &'static str {
        name_of(&RESIZES, &self.0)
    }
}

impl ControlMode {
    /// As sd-webui-controlnet calls it.
    pub fn name(self) -> &'static str {
        name_of(&MODES, &self)
    }
}

impl HiresOption {
    /// As sd-webui-controlnet calls it.
    pub fn name(self) -> &'static str {
        name_of(&HIRES, &self)
    }
}

impl<'de> Deserialize<'de> for Resize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Chosen::of(deserializer, &RESIZES).map(Self)
    }
}

impl<'de> Deserialize<'de> for ControlMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Chosen::of(deserializer, &MODES)
    }
}

impl<'de> Deserialize<'de> for HiresOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Chosen::of(deserializer, &HIRES)
    }
}
