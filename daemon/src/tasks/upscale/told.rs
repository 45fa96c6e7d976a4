//! What a picture's file tells beside its pixels: what the one that was given told, and what was done to it, in A1111's words.

use latentd_models::image::{Beside, Infotext, Resize, read_icc, read_texts};

use super::super::given::{Given, wrong};
use super::super::infotext;
use super::super::plugins::told_engine;
use super::plan::{Plan, Shape};
use crate::error::Result;

/// Keys of PNG that A1111 tells it in.
const KEYS: [&str; 2] = ["postprocessing", "extras"];

/// What a file is to tell.
pub(super) struct Texts {
    /// The text of the picture that was given, with what was done to it.
    pub infotext: Option<String>,
    /// What was done.
    line: String,
    /// PNG's texts beside it.
    others: Vec<(String, String)>,
    icc: Option<Vec<u8>>,
}

impl Plan {
    /// What is done to a picture, as pairs.
    pub(super) fn told(&self, shape: &Shape) -> Vec<(String, String)> {
        let mut pairs = vec![];
        let mut tell = |key: &str, value: String| pairs.push((key.to_owned(), value));
        if let Some(first) = &self.first {
            match self.resize {
                Resize::By(scale) => tell("Postprocess upscale by", scale.to_string()),
                Resize::To { width, height, crop } => {
                    tell("Postprocess upscale to", format!("{width}x{height}"));
                    if crop {
                        let (width, height) = self.result(shape);
                        tell("Postprocess crop to", format!("{width}x{height}"));
                    }
                }
            }
            tell("Postprocess upscaler", first.name.clone());
            if let Some((second, share)) = &self.second {
                tell("Postprocess upscaler 2", second.name.clone());
                tell("Postprocess upscaler 2 visibility", share.to_string());
            }
            for (key, side) in [("Postprocess tile", self.tile), ("Postprocess overlap", self.overlap)] {
                if let Some(side) = side {
                    tell(key, side.to_string());
                }
            }
        }
        for restorer in &self.restorers {
            let name = restorer.name;
            tell(&format!("{name} visibility"), thousandths(restorer.visibility));
            if let Some(weight) = restorer.weight {
                tell(&format!("{name} weight"), thousandths(weight));
            }
        }
        let engines: Vec<_> = self.engines().iter().map(told_engine).collect();
        if let Some(engines) = infotext::engines(&engines) {
            tell("Postprocess engines", engines);
        }
        pairs
    }
}

/// As A1111 rounds them.
fn thousandths(value: f64) -> String {
    ((value * 1000.0).round() / 1000.0).to_string()
}

impl Texts {
    /// Those of a given picture with these pairs more.
    pub(super) fn of(given: &Given, pairs: &[(String, String)], field: &str) -> Result<Self> {
        let line = Infotext::line(pairs);
        let Some(file) = given.file() else {
            return Ok(Self { infotext: None, others: told_alone(&line), line, icc: None });
        };
        let texts = read_texts(file).map_err(|error| wrong(field, &error))?;
        let infotext = texts.infotext.map(|text| Infotext::extended(&text, pairs));
        let is_kept =
            |(keyword, _): &(String, String)| is_png_keyword(keyword) && !KEYS.contains(&&keyword[..]);
        let others = texts.others.into_iter().filter(is_kept).chain(told_alone(&line)).collect();
        Ok(Self { infotext, line, others, icc: read_icc(file) })
    }

    /// As a file has it.
    pub(super) fn beside(&self) -> Beside<'_> {
        let infotext = self.infotext.as_deref().unwrap_or_default();
        Beside { infotext, texts: &self.others, icc: self.icc.as_deref() }
    }

    /// What who asked is told.
    pub(super) fn told(&self) -> String {
        self.infotext.clone().unwrap_or_else(|| self.line.clone())
    }
}

fn told_alone(line: &str) -> Vec<(String, String)> {
    KEYS.iter().map(|key| ((*key).to_owned(), line.to_owned())).collect()
}

/// Whether it is a keyword of PNG's own, and not a name that was given to another format's text.
fn is_png_keyword(keyword: &str) -> bool {
    let is_other = keyword.starts_with("exif:") || keyword == "comment";
    let is_possible = |c: char| matches!(c as u32, 0x20..=0x7e | 0xa1..=0xff);
    let has_blanks = keyword.trim_matches(' ') != keyword || keyword.contains("  ");
    !is_other
        && !has_blanks
        && (1..=79).contains(&keyword.chars().count())
        && keyword.chars().all(is_possible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_those_of_png() {
        for (keyword, is_one) in [
            ("workflow", true),
            ("XML:com.adobe.xmp", true),
            ("exif:Artist", false),
            ("comment", false),
            ("", false),
            (" a", false),
            ("a  b", false),
            ("雪", false),
        ] {
            assert_eq!(is_png_keyword(keyword), is_one, "{keyword}");
        }
        assert!(!is_png_keyword(&"k".repeat(80)));
        assert_eq!(thousandths(0.12345), "0.123");
    }
}
