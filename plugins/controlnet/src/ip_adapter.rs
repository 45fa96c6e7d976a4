//! IP-Adapters: what CLIP sees of a unit's picture as further keys and values of the UNet's attentions to the text.

use latentd_plugin_api::{
    Attention, Call, Declaring, Error, File, Mask, Model, NetworkInfo, Part, Plan, Result, Role, Tensor,
    Where,
};

use crate::hints::Source;
use crate::preprocessors::{Picture, squashed};
use crate::running::ControlNet;

/// An adapter's one part.
const KEYS: &str = "keys";
/// The encoder's part that sees nothing.
const NOTHING: &str = "nothing";

/// What an IP-Adapter takes, and where what it makes is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpAdapter {
    /// What of the encoder it takes: "embedding", of the whole picture, or "hidden", of all its parts.
    input: &'static str,
    /// Numbers of that.
    width: usize,
    /// Block, layer and channels of each attention, in its order.
    pub places: Vec<(Part, usize, usize, usize)>,
}

/// The half of CLIP that sees pictures.
struct Encoder {
    file: File,
    /// Pixels of what it sees, each way.
    side: usize,
    /// Of what it makes: parts of a picture.
    tokens: usize,
}

impl IpAdapter {
    /// Of a file, for the job's model; an error says what would be right.
    pub fn of(told: &NetworkInfo, model: &Model, name: &str) -> Result<Self> {
        let entry = told.entry(KEYS)?;
        let input = ["embedding", "hidden"].into_iter().find_map(|input| Some((input, entry.input(input)?)));
        let width = input.and_then(|(_, port)| port.fixed(port.sizes.len().checked_sub(1)?));
        let (Some((input, _)), Some(width)) = (input, width) else {
            return Err(Error::unsupported(format!("model '{name}' takes nothing that CLIP makes")));
        };
        let own: Vec<usize> =
            entry.outputs.iter().step_by(2).map(|port| port.fixed(2).unwrap_or_default()).collect();
        let places = attentions(model);
        let wanted: Vec<usize> = places.iter().map(|(.., channels)| *channels).collect();
        if own != wanted {
            return Err(Error::invalid(format!(
                "model '{name}' is an IP-Adapter for another family: it is for attentions of {own:?} channels; those of the \
                 checkpoint's UNet, of {}, have {wanted:?}",
                model.family
            )));
        }
        Ok(Self { input, width, places })
    }

    /// What it takes in memory, with what sees for it.
    pub fn needs(&self, call: &Call<'_>, plan: &Plan<'_>, file: File) -> Result<()> {
        let Encoder { file: encoder, side, tokens } = self.encoder(call)?;
        plan.network(encoder, "", &[("image", &[1, 3, side, side])], 1.0)?;
        let seen: &[usize] = if self.is_plus() { &[1, tokens, self.width] } else { &[1, self.width] };
        plan.network(file, KEYS, &[(self.input, seen)], 2.0)
    }

    fn is_plus(&self) -> bool {
        self.input == "hidden"
    }

    /// What sees for it: by what it makes, whatever it is called.
    fn encoder(&self, call: &Call<'_>) -> Result<Encoder> {
        let mut skipped = String::new();
        for name in call.file_names("clip_vision")? {
            let file = call.find_file("clip_vision", name)?;
            let told = match call.describe_network(file) {
                Ok(told) => told,
                Err(error) if call.is_cancelled() => return Err(error),
                // One that the host does not know is not the one, unless it was meant to be.
                Err(_) => {
                    skipped = format!("{skipped}; {name} is none");
                    continue;
                }
            };
            let Some(whole) = told.entries.get("").filter(|_| told.kind == "clip-vision") else { continue };
            let made = whole.outputs.iter().find(|port| port.name == self.input);
            let width = made.and_then(|port| port.fixed(port.sizes.len().checked_sub(1)?));
            let side = whole.input("image").and_then(|port| port.fixed(2));
            if let (Some(side), true) = (side, width == Some(self.width)) {
                let tokens = whole.outputs.iter().find(|port| port.name == "hidden");
                let tokens = tokens.and_then(|port| port.fixed(1)).unwrap_or_default();
                return Ok(Encoder { file, side, tokens });
            }
        }
        let what = if self.is_plus() { "parts of a picture" } else { "a whole picture" };
        let which = match (self.is_plus(), self.width) {
            (false, 1024) | (true, 1280) => ": CLIP-ViT-H-14, which sd-webui-controlnet calls clip_h",
            (false, 1280) | (true, 1664) => ": CLIP-ViT-bigG-14, which sd-webui-controlnet calls clip_g",
            _ => "",
        };
        Err(Error::invalid(format!(
            "module: an IP-Adapter sees by a CLIP that makes {} numbers of {what}, and the library has none; put it into the folder \
             clip_vision{which}{skipped}",
            self.width
        )))
    }

    /// What the encoder makes of a picture, and of nothing: once for each.
    fn seen<'a>(&self, call: &Call<'a>, picture: &Picture) -> Result<[Tensor<'a>; 2]> {
        let Encoder { file, side, .. } = self.encoder(call)?;
        let image = {
            let seen = squashed(picture, side);
            let mut tensor = call.new_tensor(&[1, 3, side, side])?;
            let values = tensor.values_mut();
            for (at, pixel) in seen.data.chunks_exact(3).enumerate() {
                for (channel, value) in pixel.iter().enumerate() {
                    values[channel * side * side + at] = f32::from(*value) / 255.0;
                }
            }
            call.finished(tensor)?
        };
        // Jobs within this one, and the next one with the same picture, find it there.
        let (identity, digest) = (file.info(call)?.identity, call.digest(image)?);
        let of_picture = [b"seen", identity, &digest, self.input.as_bytes()].concat();
        let of_nothing = [b"nothing", identity].concat();
        let picture = call.cached_tensor(&of_picture)?;
        let nothing = if self.is_plus() {
            call.cached_tensor(&of_nothing)?
        } else {
            let zeros = call.new_tensor(&[1, self.width])?;
            Some(call.finished(zeros)?)
        };
        if let (Some(picture), Some(nothing)) = (picture, nothing) {
            return Ok([picture, nothing]);
        }
        // It may take a gigabyte: it stays no longer than it is needed.
        let network = call.open_network(file)?;
        let picture = network.run(call, "", &[("image", image.into())])?.get(self.input)?;
        call.cache(&of_picture, picture)?;
        let nothing = if let Some(nothing) = nothing {
            nothing
        } else {
            let nothing = network.run(call, NOTHING, &[])?.get(self.input)?;
            call.cache(&of_nothing, nothing)?;
            nothing
        };
        network.close(call)?;
        Ok([picture, nothing])
    }
}

/// Attentions to the text in the order in which the adapters' files have them: of the way down, of the way up, of the middle.
fn attentions(model: &Model) -> Vec<(Part, usize, usize, usize)> {
    let of = |part: Part| {
        let sites = model.sites.iter().filter(move |site| site.part == part);
        sites.flat_map(move |site| {
            (0..site.attentions).map(move |layer| (part, site.index, layer, site.width))
        })
    };
    of(Part::Input).chain(of(Part::Output)).chain(of(Part::Middle)).collect()
}

impl Attention for ControlNet {
    fn attention(&self, stage: &Declaring<'_>) -> Result<()> {
        let (call, pass) = (&stage.call, &stage.pass);
        for (index, planned) in self.units.iter().enumerate() {
            let Some(adapter) = &self.network(call, index)?.ip_adapter else { continue };
            let unit = &planned.unit;
            let Some(span) = unit.span(pass.steps).filter(|_| unit.is_in(pass.kind, self.has_hires)) else {
                continue;
            };
            let mut sources: Vec<(Source, Vec<usize>)> = vec![];
            for (picture, _) in &pass.pictures {
                let source = self.source(call, planned, *picture)?.cropped(pass.size)?;
                match sources.iter_mut().find(|(own, _)| *own == source) {
                    Some((_, pictures)) => pictures.push(*picture),
                    None => sources.push((source, vec![*picture])),
                }
            }
            let network = self.opened(call, index)?;
            let mask = unit.effective_region_mask.map(|mask| mask.image(call)).transpose()?;
            let scales = unit.scales(self.network(call, index)?.kind, adapter.places.len(), pass.kind);
            let is_one = sources.len() == 1;
            for (source, pictures) in sources {
                let seen = adapter.seen(call, &source.picture)?;
                let images: Vec<Option<usize>> =
                    if is_one { vec![None] } else { pictures.into_iter().map(Some).collect() };
                for (role, seen) in [Role::Cond, Role::Uncond].into_iter().zip(seen) {
                    let made = network.run(call, KEYS, &[(adapter.input, seen.into())])?;
                    let made: Vec<Tensor<'_>> = made.iter().map(|(_, tensor)| tensor).collect();
                    for image in &images {
                        for (((part, index, layer, _), pair), scale) in
                            adapter.places.iter().zip(made.chunks_exact(2)).zip(&scales)
                        {
                            let at = Where {
                                part: Some(*part),
                                index: Some(*index),
                                layer: Some(*layer),
                                role: Some(role),
                                image: *image,
                                span,
                                ..Where::default()
                            };
                            let &[key, value] = pair else { continue };
                            stage.keys(false, at, (key, value), *scale, mask.map(Mask::from))?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
