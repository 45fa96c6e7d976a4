//! A request's prompts: as they are drawn, what they are drawn with, and what their pictures tell of them.

use latentd_client::protocol::{Prompt, Txt2ImgParams};
use latentd_models::pipeline::Texts;
use latentd_models::prompt::Wording;

use super::hypernetworks::{Hypernetworks, is_hypernetwork};
use super::loras::{Loras, is_lora};
use super::notices::Notices;
use super::output::Output;
use super::told_prompt::ToldPrompt;
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
    /// The request's own with its styles around them. Refuses what the pictures' texts have no room for.
    pub(super) fn resolve(params: &Txt2ImgParams, styles: &[Style], output: &Output) -> Result<Self> {
        let styled = |prompt: &Prompt, of: fn(&Style) -> &str| -> Vec<String> {
            let all = prompt.texts().iter();
            all.map(|text| styles.iter().fold(text.clone(), |text, style| around(of(style), &text))).collect()
        };
        let wanted = styled(&params.prompt, |style| &style.prompt);
        let unwanted = styled(&params.negative_prompt, |style| &style.negative_prompt);
        for (field, texts) in [("prompt", &wanted), ("negative_prompt", &unwanted)] {
            let length = texts.iter().map(|text| text.chars().count()).max().unwrap_or_default();
            if length > LONGEST {
                return Err(Error::invalid(format!(
                    "{field}: its styles make {length} characters of it, {LONGEST} are allowed; leave styles out"
                )));
            }
        }
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
    pub(super) fn tell_unapplied(&self, notices: &mut Notices) -> Result<()> {
        let first = self.first()?;
        if first.networks.len() > MOST_NETWORKS {
            return Err(Error::invalid(format!(
                "prompt: names {} networks, {MOST_NETWORKS} are allowed; leave some out",
                first.networks.len()
            )));
        }
        let others = unapplied::other_networks(first, |network| is_lora(network) || is_hypernetwork(network));
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
        let first = self.first()?;
        if index == 0 || !self.is_each[0] {
            return Ok(ToldPrompt::of(first, loras, hypernetworks));
        }
        let own = self.wanted.get(index).ok_or_else(|| Error::internal("a picture without a prompt"))?;
        let networks = first.networks.iter().map(|network| network.written.as_str());
        // In front, where nothing that its own text leaves open takes them in.
        let joined = Wording::of_prompt(&(networks.collect::<String>() + &own.text));
        Ok(ToldPrompt::of(&joined, loras, hypernetworks))
    }
}

/// Networks that a prompt names.
const MOST_NETWORKS: usize = 1000;

/// Characters of a prompt, as in a request.
const LONGEST: usize = 200_000;
