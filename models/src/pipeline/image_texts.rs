//! What a request's images are told, and what that takes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::conditioning::{Padding, Prompts, Wanted, guidance};
use super::conds::{self, With};
use super::contexts::Contexts;
use super::guidance::Guidance;
use super::regions::{RegionPrompt, Share, shares};
use super::stages::Stages;
use super::texts::Texts;
use crate::Result;
use crate::model::TextEncoder;
use crate::nn::Run;
use crate::prompt::{CHUNK_TOKENS, Encoding, Part, PromptSchedule, Reading, Timeline, chunks};

/// A request's prompts and how they are read.
pub(super) struct ImageTexts<'a> {
    pub prompt: &'a Texts,
    pub negative_prompt: &'a Texts,
    /// Parts of all images that are told something else.
    pub regions: &'a [RegionPrompt],
    /// Rows and columns of an image's latents.
    pub latents: [usize; 2],
    pub encoding: Encoding<'a>,
    pub padding: Padding,
    /// What the numbers in them count in.
    pub timeline: Timeline,
    /// The same as it was before A1111 1.6, or after, whichever `timeline` is not.
    pub other_timeline: Timeline,
}

/// What all the prompts of a request take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextNeeds {
    /// Tokens of the longest conditionings: of what is wanted, and of what is steered away from.
    pub tokens: [usize; 2],
    /// Conditionings that are kept beside these two as the UNet takes them.
    pub more_contexts: usize,
    /// Tokens of all conditionings of a pass.
    pub held_tokens: usize,
    /// Predictions of an image that guidance combines.
    pub branches: usize,
}

impl TextNeeds {
    /// What they take, and others in second passes.
    #[must_use]
    pub fn before(&self, other: &Self) -> Self {
        let [wanted, unwanted] = self.tokens;
        // The contexts of both may be kept at once.
        let most = Contexts::KEPT - 2;
        Self {
            tokens: [wanted.max(other.tokens[0]), unwanted.max(other.tokens[1])],
            more_contexts: self.more_contexts.max(other.more_contexts).max(most),
            held_tokens: self.held_tokens.max(other.held_tokens),
            branches: self.branches.max(other.branches),
        }
    }
}

/// What a picture's text has to say of how its prompts were read: what makes no difference to it is not in it.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextFacts {
    /// Whether conditioning was padded with the empty prompt.
    pub pads: bool,
    /// Whether it was padded with its last token, or cut.
    pub pads_v0: bool,
    /// Whether the old meaning of numbers in `[from:to:when]` makes another schedule.
    pub is_scheduled_otherwise: bool,
    /// Whether there is something that `emphasis` could mean.
    pub is_emphasised: bool,
}

impl TextFacts {
    /// What is so of the one or of the other.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            pads: self.pads || other.pads,
            pads_v0: self.pads_v0 || other.pads_v0,
            is_scheduled_otherwise: self.is_scheduled_otherwise || other.is_scheduled_otherwise,
            is_emphasised: self.is_emphasised || other.is_emphasised,
        }
    }
}

/// What one image's prompts take.
#[derive(Clone, Copy, Default)]
struct Needs {
    /// Before padding.
    wanted: usize,
    unwanted: usize,
    /// Texts of what is wanted, and of what is not.
    texts: [usize; 2],
    branches: usize,
}

/// What is the same for all images: how much of each place the prompt guides, and what else does.
struct Common {
    share: Share,
    regions: Vec<Wanted>,
}

/// A prompt's parts where it guides; none if that is nowhere.
fn wanted(prompt: &str, share: &Share, timeline: &Timeline) -> Result<Vec<Wanted>> {
    let mask = match share {
        Share::Nowhere => return Ok(vec![]),
        Share::Everywhere => None,
        Share::There(mask) => Some(Arc::clone(mask)),
    };
    let parts = Part::of_prompt(prompt, timeline)?.into_iter();
    Ok(parts.map(|part| Wanted { part, mask: mask.clone() }).collect())
}

impl Needs {
    /// Both of them.
    fn beside(self, other: &Self) -> Self {
        Self {
            wanted: self.wanted.max(other.wanted),
            unwanted: self.unwanted.max(other.unwanted),
            texts: [self.texts[0] + other.texts[0], self.texts[1] + other.texts[1]],
            branches: self.branches + other.branches,
        }
    }
}

impl<'a> ImageTexts<'a> {
    /// What an image is told.
    fn of(&self, image: usize) -> (&'a str, &'a str) {
        (self.prompt.of(image), self.negative_prompt.of(image))
    }

    /// What is the same for all images.
    fn common(&self, timeline: &Timeline) -> Result<Common> {
        let mut shares = shares(self.regions, self.latents)?.into_iter();
        let share = shares.next().unwrap_or(Share::Everywhere);
        let mut regions = vec![];
        for (region, share) in self.regions.iter().zip(shares) {
            regions.extend(wanted(&region.prompt, &share, timeline)?);
        }
        Ok(Common { share, regions })
    }

    fn prompts(
        (prompt, negative_prompt): (&str, &str),
        timeline: &Timeline,
        common: &Common,
    ) -> Result<Prompts> {
        let mut all = wanted(prompt, &common.share, timeline)?;
        all.extend(common.regions.iter().cloned());
        Ok(Prompts { wanted: all, unwanted: Part::of_negative_prompt(negative_prompt, timeline)? })
    }

    /// Each image's guidance, as somebody changes it who wants to. To a refiner the names of embeddings that are not for its text
    /// encoder are words.
    pub(super) fn guidance(
        &self,
        encoder: &TextEncoder,
        images: Range<usize>,
        is_refiner: bool,
        run: &Run,
        stages: Option<&mut dyn Stages>,
    ) -> Result<Vec<Guidance>> {
        let common = self.common(&self.timeline)?;
        let all = self.encoding.embeddings;
        let width = encoder.clip.config().width;
        let fitting = if !is_refiner || all.all_fit(width) { None } else { Some(all.fitting(width)?) };
        let encoding = Encoding { embeddings: fitting.as_ref().unwrap_or(all), ..self.encoding };
        let mut known: HashMap<(&str, &str), (Guidance, Arc<Prompts>)> = HashMap::new();
        let of_image = |image| -> Result<(Guidance, Arc<Prompts>)> {
            let told = self.of(image);
            if let Some(found) = known.get(&told) {
                return Ok(found.clone());
            }
            let prompts = Arc::new(Self::prompts(told, &self.timeline, &common)?);
            let made = (guidance(encoder, &prompts, &encoding, self.padding, run)?, prompts);
            known.insert(told, made.clone());
            Ok(made)
        };
        let first = images.start;
        let all: Vec<(Guidance, Arc<Prompts>)> = images.map(of_image).collect::<Result<_>>()?;
        let (mut all, prompts): (Vec<Guidance>, Vec<Arc<Prompts>>) = all.into_iter().unzip();
        if let Some(stages) = stages {
            let with = With { encoder, encoding: &encoding, padding: self.padding, run };
            conds::changed(&mut all, first, &prompts, with, stages)?;
        }
        Ok(all)
    }

    /// What passes of so many images take.
    pub(super) fn needs(&self, batch_size: usize, passes: usize) -> Result<TextNeeds> {
        let alike = self.prompt.images().or(self.negative_prompt.images()).is_none();
        let mut known: HashMap<(&str, &str), Needs> = HashMap::new();
        let mut all = TextNeeds::default();
        let common = self.common(&self.timeline)?;
        let of_regions = self.needs_of_wanted(&common.regions)?;
        let alone = Common { regions: vec![], ..common };
        for pass in 0..if alike { 1 } else { passes } {
            let mut told: Vec<(&str, &str)> = (0..if alike { 1 } else { batch_size })
                .map(|image| self.of(pass * batch_size + image))
                .collect();
            told.sort_unstable();
            told.dedup();
            let (mut held, mut at_once, mut conditionings) = (0, 0, 0);
            for told in told {
                let needs = if let Some(needs) = known.get(&told) {
                    *needs
                } else {
                    let own = self.needs_of(&Self::prompts(told, &self.timeline, &alone)?)?;
                    *known.entry(told).or_insert(own.beside(&of_regions))
                };
                let [wanted, unwanted] = self.padded(needs.wanted, needs.unwanted);
                all.tokens = [all.tokens[0].max(wanted), all.tokens[1].max(unwanted)];
                all.branches = all.branches.max(needs.branches);
                held += wanted * needs.texts[0] + unwanted * needs.texts[1];
                at_once += needs.branches;
                conditionings += needs.texts[0] + needs.texts[1];
            }
            let kept = at_once.max(conditionings.min(Contexts::KEPT));
            all.more_contexts = all.more_contexts.max(kept.saturating_sub(2));
            all.held_tokens = all.held_tokens.max(held);
        }
        Ok(all)
    }

    fn needs_of(&self, prompts: &Prompts) -> Result<Needs> {
        let own = self.needs_of_wanted(&prompts.wanted)?;
        let unwanted = &prompts.unwanted.schedule;
        Ok(Needs {
            unwanted: self.tokens(unwanted)?,
            texts: [own.texts[0], unwanted.texts.len()],
            branches: own.branches + 1,
            ..own
        })
    }

    fn needs_of_wanted(&self, all: &[Wanted]) -> Result<Needs> {
        let tokens = all.iter().map(|wanted| self.tokens(&wanted.part.schedule));
        Ok(Needs {
            wanted: tokens.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or_default(),
            texts: [all.iter().map(|wanted| wanted.part.schedule.texts.len()).sum(), 0],
            branches: all.len(),
            ..Needs::default()
        })
    }

    /// Tokens of the longest of a prompt's texts, which all of them have once they are encoded.
    fn tokens(&self, schedule: &PromptSchedule) -> Result<usize> {
        let Encoding { embeddings, reading, .. } = self.encoding;
        let of_text = |text| chunks(text, embeddings, reading).map(|chunks| CHUNK_TOKENS * chunks.len());
        let all: Vec<usize> = schedule.texts.iter().map(|text| of_text(text)).collect::<Result<_>>()?;
        Ok(all.into_iter().max().unwrap_or_default())
    }

    fn padded(&self, wanted: usize, unwanted: usize) -> [usize; 2] {
        if self.padding.pad_cond_uncond_v0 {
            [wanted; 2]
        } else if self.padding.pad_cond_uncond {
            [wanted.max(unwanted); 2]
        } else {
            [wanted, unwanted]
        }
    }

    /// What the text encoder is given for an image at any step.
    pub(super) fn texts_of(&self, image: usize) -> Result<Vec<String>> {
        let common = self.common(&self.timeline)?;
        let Prompts { wanted, unwanted } = Self::prompts(self.of(image), &self.timeline, &common)?;
        let parts = wanted.into_iter().map(|wanted| wanted.part).chain([unwanted]);
        Ok(parts.flat_map(|part| part.schedule.texts).collect())
    }

    /// What an image's text has to say of how its prompts were read.
    pub(super) fn facts(&self, image: usize) -> Result<TextFacts> {
        let Padding { pad_cond_uncond, pad_cond_uncond_v0 } = self.padding;
        let (now, other) = (
            Self::prompts(self.of(image), &self.timeline, &self.common(&self.timeline)?)?,
            Self::prompts(self.of(image), &self.other_timeline, &self.common(&self.other_timeline)?)?,
        );
        let mut facts = TextFacts { is_scheduled_otherwise: now != other, ..TextFacts::default() };
        let parts = now.wanted.iter().map(|wanted| &wanted.part).chain([&now.unwanted]);
        let mut texts = parts.flat_map(|part| &part.schedule.texts);
        facts.is_emphasised = texts.any(|text| text.contains(['(', '[', '\\']) || text.contains("BREAK"));
        if pad_cond_uncond || pad_cond_uncond_v0 {
            let needs = self.needs_of(&now)?;
            let differ = needs.wanted != needs.unwanted;
            facts.pads_v0 = differ && pad_cond_uncond_v0;
            facts.pads = differ && !pad_cond_uncond_v0;
        }
        Ok(facts)
    }
}

/// What the text encoder is given for these prompts at any step.
pub fn texts_of(
    prompt: &Texts,
    negative_prompt: &Texts,
    regions: &[RegionPrompt],
    reading: &Reading,
    steps: usize,
) -> Result<Vec<String>> {
    let timeline = Timeline::new(steps, reading.use_old_scheduling);
    let mut all = vec![];
    for prompt in prompt.all().iter().chain(regions.iter().map(|region| &region.prompt)) {
        all.extend(Part::of_prompt(prompt, &timeline)?.into_iter().flat_map(|part| part.schedule.texts));
    }
    for prompt in negative_prompt.all() {
        all.extend(Part::of_negative_prompt(prompt, &timeline)?.schedule.texts);
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|text| seen.insert(text.clone()));
    Ok(all)
}
