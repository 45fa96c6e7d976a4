//! A unit's network: what the host says of its file, and whether it is one for the job's model.

use latentd_plugin_api::{Call, Error, File, Model, NetworkInfo, Part, ResidualAt, Result};

use crate::ip_adapter::IpAdapter;

/// What kind of network it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ControlNet,
    Adapter,
    IpAdapter,
}

/// A network that says where.
#[derive(Clone, Debug)]
pub struct Network {
    pub kind: Kind,
    /// Colours of the picture that it takes.
    pub colours: usize,
    /// Channels of what it makes of that, for a [`Kind::ControlNet`].
    pub hint_channels: usize,
    /// Whether of its residuals the mean over the picture counts, as of the one that is trained on shuffled pictures.
    pub is_pooled: bool,
    /// Whether its file says by what its weights differ from those of the checkpoint's UNet.
    pub on_base: bool,
    /// Where what it makes is added, in the order of its outputs, and of how many channels that is.
    pub places: Vec<(ResidualAt, usize)>,
    /// What adds nothing anywhere, but is looked up.
    pub ip_adapter: Option<IpAdapter>,
}

/// The part of a ControlNet that runs once for a picture.
pub const HINT: &str = "hint";
/// The part that runs at each step.
pub const RESIDUALS: &str = "residuals";
/// An adapter's one part.
pub const FEATURES: &str = "features";

impl Network {
    /// Of a file, for the job's model; an error says what would be right.
    pub fn of(call: &Call<'_>, file: File, model: &Model) -> Result<Self> {
        let told = call.describe_network(file)?;
        let name = file.info(call)?.name;
        match told.kind.as_str() {
            "controlnet" => Self::controlnet(&told, model, name),
            "t2i-adapter" => Self::adapter(&told, model, name),
            "ip-adapter" => Ok(Self {
                kind: Kind::IpAdapter,
                colours: 3,
                hint_channels: 0,
                is_pooled: false,
                on_base: false,
                places: vec![],
                ip_adapter: Some(IpAdapter::of(&told, model, name)?),
            }),
            kind => Err(Error::invalid(format!(
                "model '{name}' is a network of kind '{kind}', which is for no unit; give a ControlNet, a T2I-Adapter or an IP-Adapter"
            ))),
        }
    }

    fn controlnet(told: &NetworkInfo, model: &Model, name: &str) -> Result<Self> {
        let (hint, residuals) = (told.entry(HINT)?, told.entry(RESIDUALS)?);
        let fixed = |name: &str, side: usize| residuals.input(name).and_then(|port| port.fixed(side));
        let own = (fixed("x", 1), fixed("context", 2));
        let channels =
            residuals.outputs.iter().map(|port| port.fixed(1).unwrap_or_default()).collect::<Vec<_>>();
        let wanted = places(model);
        if own != (Some(model.latent_channels), Some(model.context_width)) || channels != channels_of(&wanted)
        {
            let text = format!(
                "model '{name}' is a ControlNet for another family: it is told {} numbers a token and has residuals of \
                 {channels:?} channels; the checkpoint's UNet, of {}, is told {} and takes {:?}",
                own.1.unwrap_or_default(),
                model.family,
                model.context_width,
                channels_of(&wanted),
            );
            return Err(Error::invalid(text));
        }
        let picture = hint.input("image").and_then(|port| port.fixed(1));
        let made = hint.outputs.first().and_then(|port| port.fixed(1));
        let (Some(colours @ 3), Some(hint_channels)) = (picture, made) else {
            let text =
                format!("model '{name}' takes pictures of {picture:?} channels; ControlNets of 3 are run");
            return Err(Error::unsupported(text));
        };
        // As sd-webui-controlnet tells it.
        let is_pooled = name.to_lowercase().contains("shuffle");
        let on_base = told.on_base;
        Ok(Self {
            kind: Kind::ControlNet,
            colours,
            hint_channels,
            is_pooled,
            on_base,
            places: wanted,
            ip_adapter: None,
        })
    }

    fn adapter(told: &NetworkInfo, model: &Model, name: &str) -> Result<Self> {
        let features = told.entry(FEATURES)?;
        let channels =
            features.outputs.iter().map(|port| port.fixed(1).unwrap_or_default()).collect::<Vec<_>>();
        let wanted = levels(model);
        if channels != channels_of(&wanted) {
            let text = format!(
                "model '{name}' is a T2I-Adapter for another family: its features have {channels:?} channels; those of the \
                 checkpoint's UNet, of {}, have {:?}",
                model.family,
                channels_of(&wanted),
            );
            return Err(Error::invalid(text));
        }
        let colours = features.input("image").and_then(|port| port.fixed(1)).unwrap_or_default();
        Ok(Self {
            kind: Kind::Adapter,
            colours,
            hint_channels: 0,
            is_pooled: false,
            on_base: told.on_base,
            places: wanted,
            ip_adapter: None,
        })
    }
}

impl Network {
    /// How many places it has a weight for.
    pub fn count(&self) -> usize {
        self.ip_adapter.as_ref().map_or(self.places.len(), |adapter| adapter.places.len())
    }
}

fn channels_of(places: &[(ResidualAt, usize)]) -> Vec<usize> {
    places.iter().map(|(_, channels)| *channels).collect()
}

/// Where a ControlNet's residuals are added: each skip, then the middle.
fn places(model: &Model) -> Vec<(ResidualAt, usize)> {
    let skips = model.sites.iter().filter(|site| site.part == Part::Input);
    let skips = skips.map(|site| (ResidualAt::Skip(site.index), site.channels));
    let middle = model.sites.iter().filter(|site| site.part == Part::Middle);
    skips.chain(middle.map(|site| (ResidualAt::Middle, site.channels))).collect()
}

/// Where an adapter's features are added: the last output of each size.
fn levels(model: &Model) -> Vec<(ResidualAt, usize)> {
    let inputs: Vec<_> = model.sites.iter().filter(|site| site.part == Part::Input).collect();
    let is_last = |index: usize| inputs.get(index + 1).is_none_or(|next| next.down != inputs[index].down);
    let last = (0..inputs.len()).filter(|index| is_last(*index)).map(|index| inputs[index]);
    last.map(|site| (ResidualAt::Encoder(site.index), site.channels)).collect()
}
