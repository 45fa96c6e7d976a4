//! A request's prompts: as they are drawn, what they are drawn with, and what their pictures tell of them.

use std::borrow::Cow;
use std::sync::Arc;

use latentd_client::protocol::{Prompt, Txt2ImgParams};
use latentd_models::pipeline::Texts;
use latentd_models::prompt::Wording;

use super::hypernetworks::{Hypernetworks, is_hypernetwork};
use super::loras::{Loras, is_lora};
use super::notices::Notices;
use super::output::Output;
use super::tags::Tags;
use super::told_prompt::{ToldPrompt, whole};
use super::unapplied;
use crate::error::{Class, Error, Result};
use crate::styles::{Style, around};

/// The prompts of a request: one for all pictures, or one for each.
pub(super) struct RequestPrompts {
    wanted: Vec<Wording>,
    unwanted: Vec<Wording>,
    /// Whether there is one for each picture.
    is_each: [bool; 2],
}

impl RequestPrompts {
    /// The request's own with its styles around them. Refuses what the pictures' texts have no room for, and what is more
    /// text than anybody means, before it is made.
    pub(super) fn resolve(params: &Txt2ImgParams, styles: &[Arc<Style>], output: &Output) -> Result<Self> {
        let [wanted, unwanted] = styled(params, styles)?;
        let longest =
            |texts: &[String]| texts.iter().max_by_key(|text| text.len()).cloned().unwrap_or_default();
        output.check_prompts([longest(&wanted).as_str(), longest(&unwanted).as_str()])?;
        let is_each = |prompt: &Prompt| matches!(prompt, Prompt::Each(_));
        Ok(Self {
            wanted: wanted.iter().map(|text| Wording::of_prompt(text)).collect(),
            unwanted: unwanted.iter().map(|text| Wording::of_negative_prompt(text)).collect(),
            is_each: [is_each(&params.prompt), is_each(&params.negative_prompt)],
        })
    }

    /// The one whose networks are applied to all pictures.
    pub(super) fn first(&self) -> Result<&Wording> {
        self.wanted
            .first()
            .ok_or_else(|| Error::invalid("prompt: the list is empty; give one text for each picture"))
    }

    /// What is drawn, and what is steered away from.
    pub(super) fn texts(&self) -> [Texts; 2] {
        let of = |all: &[Wording], is_each: bool| match all {
            [one] if !is_each => Texts::One(one.text.clone()),
            all => Texts::Each(all.iter().map(|each| each.text.clone()).collect()),
        };
        [of(&self.wanted, self.is_each[0]), of(&self.unwanted, self.is_each[1])]
    }

    /// Tells what they ask for that is not applied.
    pub(super) fn tell_unapplied(&self, tags: &Tags, notices: &mut Notices) -> Result<()> {
        let first = self.first()?;
        if first.networks.len() > MOST_NETWORKS {
            return Err(Error::invalid(format!(
                "prompt: names {} networks, {MOST_NETWORKS} are allowed; leave some out",
                first.networks.len()
            )));
        }
        let others = unapplied::other_networks(first, |network| {
            is_lora(network) || is_hypernetwork(network) || tags.has(network)
        });
        let later = self.wanted.iter().skip(1).flat_map(|wording| &wording.networks);
        let later = unapplied::later_networks(later.filter(|network| !first.networks.contains(network)));
        let negative =
            unapplied::negative_networks(self.unwanted.iter().flat_map(|wording| &wording.networks));
        for text in [others, later, negative].into_iter().flatten() {
            notices.not_applied(Class::Unsupported, text)?;
        }
        Ok(())
    }

    /// What a picture tells of its prompt, with the networks of the first, which are applied to it too.
    pub(super) fn told(
        &self,
        index: usize,
        loras: &Loras,
        hypernetworks: &Hypernetworks,
    ) -> Result<ToldPrompt> {
        let prompt = self.applied(index)?;
        Ok(ToldPrompt::of(&prompt, loras, hypernetworks))
    }

    /// The same in one text, with what the request had beside its prompts if `beside` says so.
    pub(super) fn told_whole(
        &self,
        index: usize,
        loras: &Loras,
        hypernetworks: &Hypernetworks,
        beside: bool,
    ) -> Result<String> {
        let prompt = self.applied(index)?;
        Ok(whole(&prompt, loras, hypernetworks, beside))
    }

    /// A picture's prompt with the networks that are applied to it.
    fn applied(&self, index: usize) -> Result<Cow<'_, Wording>> {
        let first = self.first()?;
        if index == 0 || !self.is_each[0] {
            return Ok(Cow::Borrowed(first));
        }
        let own = self.wanted.get(index).ok_or_else(|| Error::internal("a picture without a prompt"))?;
        let networks = first.networks.iter().map(|network| network.written.as_str());
        // In front, where nothing that its own text leaves open takes them in.
        Ok(Cow::Owned(Wording::of_prompt(&(networks.collect::<String>() + &own.text))))
    }
}

/// Networks that a prompt names.
const MOST_NETWORKS: usize = 1000;

/// Characters of a prompt, as in a request.
const LONGEST: usize = 200_000;

/// Bytes of all prompts of a request together, its styles around them.
const MOST_BYTES: usize = 16 << 20;

/// The request with its styles around its prompts, those of a second pass too.
pub(super) fn with_styles(mut params: Txt2ImgParams, styles: &[Arc<Style>]) -> Result<Txt2ImgParams> {
    params.styles.clear();
    if styles.is_empty() {
        return Ok(params);
    }
    let around = |params: &Txt2ImgParams, old: [&Prompt; 2]| -> Result<[Prompt; 2]> {
        let mut texts = styled(params, styles)?.into_iter();
        Ok(old.map(|old| match (old, texts.next().unwrap_or_default()) {
            (Prompt::All(_), texts) => Prompt::All(texts.into_iter().next().unwrap_or_default()),
            (Prompt::Each(_), texts) => Prompt::Each(texts),
        }))
    };
    let [prompt, negative_prompt] = around(&params, [&params.prompt, &params.negative_prompt])?;
    let second = Txt2ImgParams {
        prompt: params.hr_prompt.clone(),
        negative_prompt: params.hr_negative_prompt.clone(),
        ..Txt2ImgParams::default()
    };
    let [hr_prompt, hr_negative_prompt] = around(&second, [&params.hr_prompt, &params.hr_negative_prompt])?;
    // What is empty is the first pass's.
    let own = |old: &Prompt, new: Prompt| if *old == Prompt::default() { Prompt::default() } else { new };
    params.hr_prompt = own(&params.hr_prompt, hr_prompt);
    params.hr_negative_prompt = own(&params.hr_negative_prompt, hr_negative_prompt);
    Ok(Txt2ImgParams { prompt, negative_prompt, ..params })
}

/// Prompts and negative prompts with styles around them.
fn styled(params: &Txt2ImgParams, styles: &[Arc<Style>]) -> Result<[Vec<String>; 2]> {
    type Field<'a> = (&'static str, &'a Prompt, fn(&Style) -> &str);
    let fields: [Field; 2] = [
        ("prompt", &params.prompt, |style| &style.prompt),
        ("negative_prompt", &params.negative_prompt, |style| &style.negative_prompt),
    ];
    let mut bytes = 0;
    let mut all = [vec![], vec![]];
    for ((field, prompt, of), styled) in fields.into_iter().zip(&mut all) {
        for text in prompt.texts() {
            let mut text = Cow::Borrowed(text);
            for style in styles {
                let longer = around(of(style), &text, LONGEST).map_err(|length| {
                    Error::invalid(format!(
                        "{field}: its styles make {length} characters of it, {LONGEST} are allowed; leave styles out"
                    ))
                })?;
                text = Cow::Owned(longer);
            }
            bytes += text.len();
            if bytes > MOST_BYTES {
                let with = if styles.is_empty() { "" } else { " with its styles" };
                return Err(Error::invalid(format!(
                    "{field}: the prompts of the request are more than {MOST_BYTES} bytes together{with}, which is the limit; \
                     shorten them, or draw fewer pictures at a time"
                )));
            }
            styled.push(text.into_owned());
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_make_no_more_of_prompts_than_is_allowed() {
        let style = |prompt: &str| Arc::new(Style { prompt: prompt.into(), ..Style::default() });
        let check = |prompt: Prompt, styles: &[Arc<Style>], expected: Option<&str>| {
            let params = Txt2ImgParams { prompt, ..Txt2ImgParams::default() };
            let error = styled(&params, styles).err().map(|error| error.text).unwrap_or_default();
            assert!(error.contains(expected.unwrap_or_default()), "{error}");
            assert_eq!(error.is_empty(), expected.is_none(), "{error}");
        };
        // Four times as long thirty times over.
        let four = vec![style("{prompt}{prompt}{prompt}{prompt}"); 30];
        check("abcdefgh".into(), &four, Some("prompt: its styles make 524288 characters of it"));
        check("abcdefgh".into(), &four[..7], None);
        let long = style(&"x".repeat(199_000));
        check(vec!["a".to_owned(); 84].into(), &[Arc::clone(&long)], None);
        let too_much = Some("more than 16777216 bytes together with its styles");
        check(vec!["a".to_owned(); 64_000].into(), &[long], too_much);
        let alone = Some("more than 16777216 bytes together, which is the limit; shorten them");
        check(vec!["x".repeat(200_000); 84].into(), &[], alone);
        check(vec!["x".repeat(199_000); 84].into(), &[], None);
    }
}
