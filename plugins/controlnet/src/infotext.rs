//! Units in pictures' texts, as sd-webui-controlnet writes them.

use latentd_plugin_api::{Call, InfotextParse, InfotextWrite, Reading, Result, Writing};
use serde::Serialize;

use crate::plan::Planned;
use crate::preprocessors::Slider;
use crate::running::ControlNet;

/// Begins the keys.
const KEY: &str = "ControlNet ";

impl Planned {
    /// "Module: canny, Model: …", with numbers as Python writes them. Images are told by latentd itself.
    /// Nothing if the model's name has what fields are told apart by: it could not be read back.
    fn told(&self, call: &Call<'_>) -> Result<Option<String>> {
        let Self { unit, module, settings, .. } = self;
        let model = self.model_name(call)?;
        // A slider that the module has not is -1 there.
        let slider = |of: Option<Slider>, value| number(if of.is_some() { value } else { -1.0 });
        let a = slider(module.threshold_a, settings.first);
        let b = slider(module.threshold_b, settings.second);
        let perfect = if unit.pixel_perfect { "True" } else { "False" };
        if model.contains([',', ':']) {
            return Ok(None);
        }
        Ok(Some(format!(
            "Module: {}, Model: {model}, Weight: {}, Resize Mode: {}, Processor Res: {}, Threshold A: {a}, Threshold B: {b}, \
             Guidance Start: {}, Guidance End: {}, Pixel Perfect: {perfect}, Control Mode: {}, Hr Option: {}",
            module.name,
            number(unit.weight),
            unit.resize_mode.name(),
            settings.resolution,
            number(unit.guidance_start),
            number(unit.guidance_end),
            unit.control_mode.name(),
            unit.hr_option.name(),
        )))
    }
}

/// "1.0", "0.35".
fn number(value: f64) -> String {
    format!("{value:?}")
}

impl InfotextWrite for ControlNet {
    fn infotext_write(&self, stage: &Writing<'_>) -> Result<()> {
        let told = self.units.iter().filter_map(|unit| unit.told(&stage.call).transpose());
        let told = told.collect::<Result<Vec<_>>>()?;
        // Without gaps: it is read until there is no next one.
        let told: Vec<_> =
            told.into_iter().enumerate().map(|(index, told)| (format!("{KEY}{index}"), told)).collect();
        let pairs: Vec<(&str, &str)> = told.iter().map(|(key, value)| (&**key, &**value)).collect();
        for picture in 0..stage.pictures().len() {
            stage.add(picture, &pairs)?;
        }
        Ok(())
    }
}

/// A unit as it is read back.
#[derive(Serialize)]
struct Read<'a> {
    module: &'a str,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resize_mode: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processor_res: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold_a: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold_b: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guidance_start: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guidance_end: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pixel_perfect: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_mode: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hr_option: Option<&'a str>,
}

#[derive(Serialize)]
struct Params<'a> {
    units: Vec<Read<'a>>,
}

/// What `text` says of a field, after "Name: " and before a comma.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix(": "))
}

impl<'a> Read<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let number = |name: &str| field(text, name).and_then(|text| text.parse().ok());
        let model = field(text, "Model")?;
        // sd-webui-controlnet adds eight digits of a hash that it alone computes.
        let named = model.rsplit_once(" [").filter(|(_, hash)| hash.ends_with(']') && hash.len() == 9);
        // −1 of a slider that is hidden there.
        let shown = |name: &str| number(name).filter(|value| *value >= 0.0);
        Some(Self {
            module: field(text, "Module")?,
            model: named.map_or(model, |(name, _)| name),
            weight: number("Weight"),
            resize_mode: field(text, "Resize Mode"),
            processor_res: shown("Processor Res").filter(|value| *value > 0.0),
            threshold_a: shown("Threshold A"),
            threshold_b: shown("Threshold B"),
            guidance_start: number("Guidance Start"),
            guidance_end: number("Guidance End"),
            pixel_perfect: field(text, "Pixel Perfect").map(|text| text == "True"),
            control_mode: field(text, "Control Mode"),
            hr_option: field(text, "Hr Option"),
        })
    }
}

impl InfotextParse for ControlNet {
    fn infotext_parse(stage: &Reading<'_>) -> Result<()> {
        let units = (0..).map_while(|index| stage.get(&format!("{KEY}{index}")));
        let units: Vec<_> = units.filter_map(Read::of).collect();
        if units.is_empty() { Ok(()) } else { stage.reply(&Params { units }) }
    }
}
