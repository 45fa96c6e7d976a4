//! `attention`: what rows of a pass look up otherwise than the model says.

use super::{Part, Pass, Role, lent, pass};
use crate::abi::{
    LATENTD_ANY, LATENTD_ATTENTION_APPEND, LATENTD_ATTENTION_BANK, LATENTD_ATTENTION_BIAS,
    LATENTD_ATTENTION_CAPTURE, LATENTD_ATTENTION_IDENTITY, LATENTD_ATTENTION_OWN, LATENTD_ATTENTION_RECEIVED,
    LATENTD_ATTENTION_SET, LATENTD_COND, LATENTD_CROSS, LATENTD_INPUT, LATENTD_MIDDLE, LATENTD_OTHER,
    LATENTD_OUTPUT, LATENTD_SELF, LATENTD_UNCOND, latentd_attention, latentd_attention_rule,
};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::host::lend;
use crate::job::Plugin;
use crate::mask::Mask;
use crate::tensor::Tensor;

/// `attention`: a pass's model is ready, or another one goes on in it.
pub trait Attention: Plugin {
    /// May declare what rows look up otherwise.
    fn attention(&self, stage: &Declaring<'_>) -> Result<()>;
}

/// [`Attention`].
pub struct Declaring<'a> {
    /// The call.
    pub call: Call<'a>,
    /// Which.
    pub pass: Pass,
    /// Width of the tokens that the model is told.
    pub context_width: usize,
    table: latentd_attention,
}

/// Which attentions and rows a rule is for; by default all of them that the sampler asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Where<'a> {
    /// Which part, block and transformer layer.
    pub part: Option<Part>,
    /// Which block of that part.
    pub index: Option<usize>,
    /// Which layer of that block.
    pub layer: Option<usize>,
    /// Rows of this role.
    pub role: Option<Role>,
    /// Rows of this branch.
    pub branch: Option<usize>,
    /// Rows of this picture.
    pub image: Option<usize>,
    /// Rows with exactly this tag.
    pub tag: &'a str,
    /// Shares of the pass's steps; all if both are 0.
    pub span: (f64, f64),
}

impl<'a> Declaring<'a> {
    /// Every place finds its own value in self-attention.
    pub fn identity(&self, places: Where<'_>) -> Result<()> {
        self.add(&Self::rule(true, LATENTD_ATTENTION_IDENTITY, places, 1.0)?)
    }

    /// What the model's own keys find counts so much, and where.
    pub fn own(&self, is_self: bool, places: Where<'_>, weight: f64, mask: Option<Mask<'_>>) -> Result<()> {
        let rule = Self::rule(is_self, LATENTD_ATTENTION_OWN, places, weight)?;
        self.add(&latentd_attention_rule { mask: Mask::handle(mask), ..rule })
    }

    /// What is found in further tokens `(1 or pictures, tokens, width)` is added, times a weight and a mask as of
    /// [`Self::own`].
    pub fn context(
        &self,
        places: Where<'_>,
        context: Tensor<'_>,
        weight: f64,
        mask: Option<Mask<'_>>,
    ) -> Result<()> {
        let rule = Self::rule(false, LATENTD_ATTENTION_SET, places, weight)?;
        self.add(&latentd_attention_rule { context: context.handle, mask: Mask::handle(mask), ..rule })
    }

    /// The same in keys and values `(1 or pictures, tokens, channels)` of one attention, which `places` names by part, index and
    /// layer.
    pub fn keys(
        &self,
        is_self: bool,
        places: Where<'_>,
        (key, value): (Tensor<'_>, Tensor<'_>),
        weight: f64,
        mask: Option<Mask<'_>>,
    ) -> Result<()> {
        let rule = Self::rule(is_self, LATENTD_ATTENTION_SET, places, weight)?;
        let (key, value, mask) = (key.handle, value.handle, Mask::handle(mask));
        self.add(&latentd_attention_rule { key, value, mask, ..rule })
    }

    /// Further tokens, as of [`Self::context`], in the softmax of the model's own; their values times a weight.
    pub fn append(&self, places: Where<'_>, context: Tensor<'_>, weight: f64) -> Result<()> {
        let rule = Self::rule(false, LATENTD_ATTENTION_APPEND, places, weight)?;
        self.add(&latentd_attention_rule { context: context.handle, ..rule })
    }

    /// Keys and values `(1 or pictures, tokens, channels)` in the softmax of those of one attention, which `places` names by part,
    /// index and layer; the values times a weight.
    pub fn append_keys(
        &self,
        is_self: bool,
        places: Where<'_>,
        (key, value): (Tensor<'_>, Tensor<'_>),
        weight: f64,
    ) -> Result<()> {
        let rule = Self::rule(is_self, LATENTD_ATTENTION_APPEND, places, weight)?;
        self.add(&latentd_attention_rule { key: key.handle, value: value.handle, ..rule })
    }

    /// `(1, keys)` is added to the scores of the model's own keys, or of one attention `(queries, keys)`.
    pub fn bias(&self, is_self: bool, places: Where<'_>, bias: Tensor<'_>) -> Result<()> {
        let rule = Self::rule(is_self, LATENTD_ATTENTION_BIAS, places, 1.0)?;
        self.add(&latentd_attention_rule { bias: bias.handle, ..rule })
    }

    /// What keys and values of self-attention are made of is kept in a bank of this name.
    pub fn capture(&self, places: Where<'_>, bank: &str) -> Result<()> {
        let rule = Self::rule(true, LATENTD_ATTENTION_CAPTURE, places, 1.0)?;
        self.add(&latentd_attention_rule { bank: lend(bank), ..rule })
    }

    /// What a bank has is appended to self-attention; its values times a weight.
    pub fn from_bank(&self, places: Where<'_>, bank: &str, weight: f64) -> Result<()> {
        let rule = Self::rule(true, LATENTD_ATTENTION_BANK, places, weight)?;
        self.add(&latentd_attention_rule { bank: lend(bank), ..rule })
    }

    /// The attention that each key receives is kept in a bank of this name.
    pub fn received(&self, is_self: bool, places: Where<'_>, bank: &str) -> Result<()> {
        let rule = Self::rule(is_self, LATENTD_ATTENTION_RECEIVED, places, 1.0)?;
        self.add(&latentd_attention_rule { bank: lend(bank), ..rule })
    }

    /// A rule without tensors.
    fn rule(is_self: bool, kind: u32, places: Where<'_>, weight: f64) -> Result<latentd_attention_rule> {
        let any = |number: Option<usize>| number.map_or(LATENTD_ANY, |number| number as u32);
        Ok(latentd_attention_rule {
            size: size_of::<latentd_attention_rule>() as u32,
            kind,
            which: if is_self { LATENTD_SELF } else { LATENTD_CROSS },
            part: match places.part {
                None => LATENTD_ANY,
                Some(Part::Input) => LATENTD_INPUT,
                Some(Part::Middle) => LATENTD_MIDDLE,
                Some(Part::Output) => LATENTD_OUTPUT,
                Some(part) => return Err(Error::failed(format!("{part:?} has no attention"))),
            },
            index: any(places.index),
            layer: any(places.layer),
            roles: places.role.map_or(0, |role| match role {
                Role::Cond => 1 << LATENTD_COND,
                Role::Uncond => 1 << LATENTD_UNCOND,
                Role::Other => 1 << LATENTD_OTHER,
            }),
            branch: any(places.branch),
            image: any(places.image),
            reserved: 0,
            tag: lend(places.tag),
            from: places.span.0,
            until: places.span.1,
            weight,
            context: 0,
            key: 0,
            value: 0,
            mask: 0,
            bias: 0,
            bank: lend(""),
        })
    }

    /// The texts of a rule live as long as what was given to make it.
    fn add(&self, rule: &latentd_attention_rule) -> Result<()> {
        let add = self.table.add.ok_or_else(lacks)?;
        // SAFETY: the call is under way; the struct and its texts are lent.
        Error::of_service(unsafe { add(self.call.pointer, std::ptr::from_ref(rule)) })
    }

    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_attention) -> Result<Self> {
        // SAFETY: as the caller says.
        let table = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let pass = unsafe { pass(table.pass) }?;
        Ok(Self { call, pass, context_width: table.context_width as usize, table })
    }
}
