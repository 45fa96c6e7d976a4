//! `prompt.tokens`: what a prompt is to the models, while somebody types it.

use latentd_client::protocol::{
    LibraryKind, PromptNetwork, PromptPart, PromptStretch, PromptText, PromptToken, PromptTokens,
    PromptTokensParams, Txt2ImgParams,
};
use latentd_models::prompt::{
    CallSpan, Embeddings, Emphasis, NamedNetwork, Part, PromptSchedule, Reading, ShownToken, Timeline,
    Wording, doubts, doubts_of_text, shown_chunks,
};

use super::embeddings::RequestEmbeddings;
use super::hypernetworks::is_hypernetwork;
use super::loras::is_lora;
use super::names;
use super::notices::Notices;
use super::studio::Studio;
use super::unapplied;
use crate::error::Result;
use crate::library::Patient;

/// Tokens of a chunk.
const CHUNK: usize = 75;

/// Tokens that are shown; of texts behind these only the words.
const MOST: usize = 10_000;

/// What `params.text` is to the models.
pub(crate) fn prompt_tokens(params: PromptTokensParams, studio: &Studio) -> Result<PromptTokens> {
    let PromptTokensParams { text, negative, checkpoint, steps, sampler_name, .. } = params;
    let (sampler, _) = names::sampler_and_schedule(&sampler_name, "Automatic")?;
    let reading = names::reading(&Txt2ImgParams {
        emphasis: params.emphasis,
        comma_padding_backtrack: params.comma_padding_backtrack,
        use_old_scheduling: params.use_old_scheduling,
        ..Txt2ImgParams::default()
    });
    let calls = sampler.foreseen_calls(steps as usize);
    let timeline = Timeline::new(calls, reading.use_old_scheduling);
    let mut notices = Notices::new(false);
    let wording = if negative { Wording::of_negative_prompt(&text) } else { Wording::of_prompt(&text) };
    let parts = if negative {
        vec![Part::of_negative_prompt(&wording.text, &timeline)?]
    } else {
        Part::of_prompt(&wording.text, &timeline)?
    };
    let texts: Vec<String> = parts.iter().flat_map(|part| part.schedule.texts.clone()).collect();
    let embeddings = match embeddings(&texts, &reading, checkpoint.as_deref(), studio, &mut notices) {
        Ok(found) => found,
        // Such as a weight that is no number: what else there is to know is told all the same.
        Err(error) => {
            notices.tell(error.text);
            RequestEmbeddings::default()
        }
    };
    let mut shown = Shown {
        embeddings: &embeddings.found,
        reading: &reading,
        calls,
        tokens: 0,
        longest: vec![],
        notices,
    };
    let parts = parts.iter().map(|part| shown.part(part)).collect();
    let Shown { tokens, longest, mut notices, .. } = shown;
    // Chunks before the last one are full, with padding where they are not.
    let room = CHUNK * longest.len().max(1);
    let used = CHUNK * longest.len().saturating_sub(1) + longest.last().copied().unwrap_or_default();
    let networks = if negative { vec![] } else { networks(&wording.networks, studio, &mut notices) };
    let told: Vec<String> = if negative {
        let networks = unapplied::negative_networks(wording.networks.iter());
        networks.into_iter().chain(doubts(&wording.text, reading.emphasis)).collect()
    } else {
        doubts_of_parts(&wording.text, reading.emphasis).collect()
    };
    for text in told {
        notices.tell(text);
    }
    Ok(PromptTokens {
        text: wording.text,
        parts,
        networks,
        embeddings: embeddings.names().map(str::to_owned).collect(),
        tokens: used as u32,
        room: room as u32,
        warnings: notices.into_texts(),
        truncated: tokens > MOST,
    })
}

/// Those whose names stand in the texts and that are for the checkpoint, if one is named.
fn embeddings(
    texts: &[String],
    reading: &Reading,
    checkpoint: Option<&str>,
    studio: &Studio,
    notices: &mut Notices,
) -> Result<RequestEmbeddings> {
    let Some(checkpoint) = checkpoint else {
        return RequestEmbeddings::of_any_width(texts, reading, &studio.library, notices);
    };
    let files = studio.files(Some(checkpoint), None, &Patient)?;
    let known = studio.device.memory.known(&files, studio.settings.get().precision)?;
    RequestEmbeddings::resolve(texts, reading, &known, &studio.library, notices)
}

fn networks(all: &[NamedNetwork], studio: &Studio, notices: &mut Notices) -> Vec<PromptNetwork> {
    let shown = all.iter().map(|network| {
        let kind = match network {
            network if is_lora(network) => Some(LibraryKind::Lora),
            network if is_hypernetwork(network) => Some(LibraryKind::Hypernetwork),
            _ => None,
        };
        let found = kind.map(|kind| studio.library.find(kind, network.name()));
        let found =
            found.is_some_and(|found| found.inspect_err(|error| notices.tell(error.text.clone())).is_ok());
        PromptNetwork {
            kind: network.kind.clone(),
            name: network.name().to_owned(),
            written: network.written.clone(),
            found,
        }
    });
    shown.collect()
}

/// What is shown so far.
struct Shown<'a> {
    embeddings: &'a Embeddings,
    reading: &'a Reading,
    /// Model calls in which it is said.
    calls: usize,
    /// All tokens, also those that are not shown.
    tokens: usize,
    /// Tokens of the chunks of the longest text.
    longest: Vec<usize>,
    notices: Notices,
}

impl Shown<'_> {
    fn part(&mut self, part: &Part) -> PromptPart {
        PromptPart {
            weight: part.weight,
            schedule: stretches(&part.schedule, self.calls),
            texts: part.schedule.texts.iter().map(|text| self.text(text)).collect(),
        }
    }

    fn text(&mut self, text: &str) -> PromptText {
        if self.tokens > MOST {
            return PromptText { text: text.to_owned(), chunks: vec![] };
        }
        let chunks = shown_chunks(text, self.embeddings, self.reading).unwrap_or_else(|error| {
            self.notices.tell(error.to_string());
            vec![]
        });
        // An error is told by now.
        if let Ok(Some(doubt)) = doubts_of_text(text, self.reading) {
            self.notices.tell(doubt);
        }
        let lengths: Vec<usize> = chunks.iter().map(Vec::len).collect();
        self.tokens += lengths.iter().sum::<usize>();
        if (lengths.len(), lengths.last()) > (self.longest.len(), self.longest.last()) {
            self.longest = lengths;
        }
        let chunks = if self.tokens > MOST { vec![] } else { chunks };
        let chunks = chunks.into_iter().map(|chunk| chunk.into_iter().map(token).collect());
        PromptText { text: text.to_owned(), chunks: chunks.collect() }
    }
}

fn token(token: ShownToken) -> PromptToken {
    let ShownToken { id, text, ends_word, weight, embedding } = token;
    PromptToken { id, text, ends_word, weight: f64::from(weight), embedding }
}

/// Of what is composed each sentence has the number of its part.
fn doubts_of_parts(prompt: &str, emphasis: Emphasis) -> impl Iterator<Item = String> {
    let is_composed = Part::split(prompt).nth(1).is_some();
    Part::split(prompt).enumerate().flat_map(move |(index, part)| {
        let told = doubts(part, emphasis).into_iter();
        told.map(move |text| if is_composed { format!("part {}: {text}", index + 1) } else { text })
    })
}

/// What is said at which of so many calls, as it is drawn.
fn stretches(schedule: &PromptSchedule, calls: usize) -> Vec<PromptStretch> {
    let stretch = |CallSpan { calls, text }| PromptStretch {
        from: calls.start as u32 + 1,
        until: calls.end as u32,
        text: text as u32,
    };
    schedule.spans(calls).into_iter().map(stretch).collect()
}
