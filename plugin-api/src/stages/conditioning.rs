//! What pictures are told: the stage that may change it, and the text encoder that goes with it.

use std::ops::Range;

use super::{Pass, Role, hand_over, lent, pass};
use crate::abi::{
    LATENTD_ANY, LATENTD_COND, LATENTD_TEXTS, LATENTD_UNCOND, latentd_cond, latentd_conds, latentd_list,
    latentd_span, latentd_texts, latentd_token,
};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::handed_over::HandedOver;
use crate::host::{items, lend, text};
use crate::job::Plugin;
use crate::tensor::Tensor;

/// `conditioning`: what the pictures of a pass are told, when it begins, and each time another checkpoint goes on with it.
pub trait Conditioning: Plugin {
    /// May replace what each is told by something of the same sizes.
    fn conditioning(&self, stage: &Conds<'_>) -> Result<()>;
}

/// A token of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// In the vocabulary of CLIP.
    pub id: u32,
    /// The bytes of the text that it is of; empty where it is of none: begin, end, padding.
    pub bytes: Range<usize>,
    /// What emphasis multiplies its state by.
    pub weight: f32,
    /// Not 0: a vector of an embedding stands here, as the host numbers them in this call; `id` is then nothing.
    pub embedding: u32,
}

/// What the text encoder makes of tokens.
#[derive(Clone, Copy)]
pub struct Encoded<'a> {
    /// `(1, tokens, width)`.
    pub context: Tensor<'a>,
    /// `(1, width)`, of models that have it.
    pub pooled: Option<Tensor<'a>>,
}

/// [`Conditioning`].
pub struct Conds<'a> {
    /// The call.
    pub call: Call<'a>,
    /// The pass.
    pub pass: Pass,
    all: Vec<Cond<'a>>,
}

impl<'a> Conds<'a> {
    /// All of the pass: each text of each branch of each picture.
    pub fn conds(&self) -> &[Cond<'a>] {
        &self.all
    }
}

/// One text that a branch of a picture's guidance is told.
pub struct Cond<'a> {
    /// Which of the job's pictures.
    pub image: usize,
    /// Which branch of its guidance.
    pub branch: usize,
    /// What the branch is taken for.
    pub role: Role,
    /// The text, emphasis and all, without schedule and networks.
    pub prompt: &'a str,
    /// The model calls of the pass for which it counts, ascending; the last may end at `usize::MAX`.
    pub spans: Vec<Range<usize>>,
    /// What the text encoder took; each stands at its place on the context's token axis.
    pub tokens: Vec<Token>,
    /// `(1, tokens, width)`; it may go on behind the last of `tokens`.
    pub context: Tensor<'a>,
    /// `(1, width)`, of models that have it.
    pub pooled: Option<Tensor<'a>>,
    place: u32,
}

impl<'a> Cond<'a> {
    /// What it would be with these tokens in the place of its own: whole chunks of 77. From its own it is as it is, to the bit.
    pub fn encode(&self, tokens: &[Token]) -> Result<Encoded<'a>> {
        self.context.call.encode_like(tokens, self.place)
    }

    /// Puts another context of the same sizes in its place.
    pub fn replace(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        hand_over(&self.context.call, 2 * self.place, new)
    }

    /// Puts another pooled of the same sizes in its place.
    pub fn replace_pooled(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        hand_over(&self.context.call, 2 * self.place + 1, new)
    }

    /// Puts what was encoded in its place.
    pub fn replace_with(&self, encoded: &Encoded<'a>) -> Result<()> {
        let call = &self.context.call;
        hand_over(call, 2 * self.place, encoded.context)?;
        match encoded.pooled {
            Some(pooled) => hand_over(call, 2 * self.place + 1, pooled),
            None => Ok(()),
        }
    }
}

impl<'a> Call<'a> {
    fn texts(&self) -> Result<&'static latentd_texts> {
        self.host.service(LATENTD_TEXTS)
    }

    /// A text's tokens in whole chunks of 77, as the request's prompts are read, without schedule and networks. Only in
    /// [`Conditioning`].
    pub fn tokenise(&self, text: &str) -> Result<Vec<Token>> {
        let tokenise = self.texts()?.tokenise.ok_or_else(lacks)?;
        let mut list = latentd_list { items: std::ptr::null(), count: 0, stride: 0 };
        // SAFETY: the call is under way; the text is lent, and the list is ours.
        Error::of_service(unsafe { tokenise(self.pointer, lend(text), &raw mut list) })?;
        // SAFETY: the host lends such a list until the call ends.
        unsafe { tokens(list) }
    }

    /// What the text encoder makes of tokens by themselves: whole chunks of 77. Only in [`Conditioning`].
    pub fn encode(&self, tokens: &[Token]) -> Result<Encoded<'a>> {
        self.encode_like(tokens, LATENTD_ANY)
    }

    fn encode_like(&self, tokens: &[Token], like: u32) -> Result<Encoded<'a>> {
        let encode = self.texts()?.encode.ok_or_else(lacks)?;
        let token = |(place, token): (usize, &Token)| latentd_token {
            id: token.id,
            place: place as u32,
            begin: token.bytes.start as u32,
            end: token.bytes.end as u32,
            weight: token.weight,
            embedding: token.embedding,
        };
        let tokens: Vec<latentd_token> = tokens.iter().enumerate().map(token).collect();
        let list = latentd_list {
            items: tokens.as_ptr().cast(),
            count: u32::try_from(tokens.len()).map_err(|_| Error::failed("too many tokens"))?,
            stride: size_of::<latentd_token>() as u32,
        };
        let (mut context, mut pooled) = (0, 0);
        // SAFETY: the call is under way; the list is lent, and the handles are ours.
        let status = unsafe { encode(self.pointer, list, like, &raw mut context, &raw mut pooled) };
        Error::of_service(status)?;
        let tensor = |handle| Tensor { call: *self, handle };
        Ok(Encoded { context: tensor(context), pooled: (pooled != 0).then(|| tensor(pooled)) })
    }
}

/// As `items` says.
unsafe fn tokens(list: latentd_list) -> Result<Vec<Token>> {
    let token = |token: latentd_token| Token {
        id: token.id,
        bytes: token.begin as usize..token.end as usize,
        weight: token.weight,
        embedding: token.embedding,
    };
    // SAFETY: as the caller says.
    Ok(unsafe { items::<latentd_token>(list) }?.into_iter().map(token).collect())
}

impl<'a> Conds<'a> {
    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_conds) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let (pass, conds) = unsafe { (pass(given.pass)?, items::<latentd_cond>(given.conds)?) };
        let call_of = |call: u32| if call == LATENTD_ANY { usize::MAX } else { call as usize };
        let cond = |(place, cond): (usize, latentd_cond)| {
            // SAFETY: as the caller says.
            let (spans, tokens) = unsafe { (items::<latentd_span>(cond.spans)?, tokens(cond.tokens)?) };
            Ok(Cond {
                image: cond.image as usize,
                branch: cond.branch as usize,
                role: match cond.role {
                    LATENTD_COND => Role::Cond,
                    LATENTD_UNCOND => Role::Uncond,
                    _ => Role::Other,
                },
                // SAFETY: lent until the call ends.
                prompt: unsafe { text(cond.prompt) },
                spans: spans.into_iter().map(|span| call_of(span.from)..call_of(span.until)).collect(),
                tokens,
                context: Tensor { call, handle: cond.context },
                pooled: (cond.pooled != 0).then_some(Tensor { call, handle: cond.pooled }),
                place: place as u32,
            })
        };
        let all = conds.into_iter().enumerate().map(cond).collect::<Result<_>>()?;
        Ok(Self { call, pass, all })
    }
}
