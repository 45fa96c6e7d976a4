//! How a picture is continued beyond its sides: the fields of `outpaint` beside those of `txt2img`, settled.

use latentd_client::protocol::{Img2ImgParams, OutpaintMethod, OutpaintParams, Txt2ImgParams};
use latentd_models::image::Picture;
use latentd_models::image::outpaint::{Direction, Job, Margins, Mk2, Mk2Plan, PoorMans};

use super::infotext::blurs;
use super::notices::Notices;
use crate::error::{Class, Error, Result};

/// What [`Mk2::begin`] takes for a pixel of what it is begun on.
const BYTES_PER_PIXEL: u64 = 100;

/// How, and how far.
#[derive(Clone, Debug)]
pub(super) struct Continuation {
    margins: Margins,
    mask_blur: usize,
    kind: Kind,
    /// `(width, height)` of what is drawn at once at most.
    at_once: (usize, usize),
    /// The same of each drawing, in their order.
    pub drawn: Vec<(usize, usize)>,
    /// And of the whole.
    pub finished: (usize, usize),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    PoorMans,
    Mk2 { noise_q: f64, color_variation: f64 },
}

/// What continuing a picture needs of who draws.
pub(super) trait Draws {
    /// Does something that computes much, beside which so many bytes are taken.
    fn compute<T: Send>(&self, bytes: u64, work: impl FnOnce() -> T + Send) -> Result<T>;

    /// What is drawn for a job, with the seed of so much more than the picture's.
    fn draw(&mut self, job: &Job, more: u64) -> Result<Picture>;
}

impl Continuation {
    /// Settles all but the sizes.
    pub(super) fn resolve(
        params: &OutpaintParams,
        drawing: &Txt2ImgParams,
        notices: &mut Notices,
    ) -> Result<Self> {
        let batch = drawing.batch_size;
        if batch != 1 {
            let text = format!(
                "batch_size: outpaint draws one picture at once; set it to 1, not {batch}, and n_iter to {batch}"
            );
            return Err(Error::invalid(text));
        }
        let prompts = [("prompt", &drawing.prompt), ("negative_prompt", &drawing.negative_prompt)];
        if let Some((field, _)) = prompts.iter().find(|(_, prompt)| prompt.texts().len() > 1) {
            let text = format!("{field}: outpaint draws from one prompt, not from a list; give one text");
            return Err(Error::invalid(text));
        }
        if !drawing.regions.is_empty() {
            let text = "regions: outpaint draws a picture in parts, of which regions are not; leave them out";
            return Err(Error::invalid(text));
        }
        let default = OutpaintParams::default();
        let is_mk2 = params.method == OutpaintMethod::Mk2;
        let of_other = [
            ("inpainting_fill", is_mk2 && params.inpainting_fill != default.inpainting_fill),
            ("noise_q", !is_mk2 && params.noise_q.to_bits() != default.noise_q.to_bits()),
            (
                "color_variation",
                !is_mk2 && params.color_variation.to_bits() != default.color_variation.to_bits(),
            ),
        ];
        for (field, _) in of_other.into_iter().filter(|(_, is_given)| *is_given) {
            let name = params.method.name();
            let text = format!("{field}: does nothing with {name}; leave it out, or choose the other method");
            notices.not_applied(Class::InvalidParams, text)?;
        }
        let OutpaintParams { left, right, up, down, .. } = *params;
        let [left, right, up, down] = [left, right, up, down].map(|side| side as usize);
        Ok(Self {
            margins: Margins { left, right, up, down },
            mask_blur: mask_blur(params) as usize,
            kind: match params.method {
                OutpaintMethod::PoorMans => Kind::PoorMans,
                OutpaintMethod::Mk2 => {
                    Kind::Mk2 { noise_q: params.noise_q, color_variation: params.color_variation }
                }
            },
            at_once: (0, 0),
            drawn: vec![],
            finished: (0, 0),
        })
    }

    /// The same for a picture of a size, of which so much is drawn at once.
    pub(super) fn planned(
        self,
        picture: (usize, usize),
        at_once: (usize, usize),
        notices: &mut Notices,
    ) -> Result<Self> {
        let planned = Self { at_once, ..self };
        let drawn = match planned.kind {
            Kind::PoorMans => {
                let regions =
                    PoorMans::planned(picture, planned.margins, planned.mask_blur, planned.at_once)?;
                let size = |region: &latentd_models::image::inpaint::Region| {
                    (region.right - region.left, region.bottom - region.top)
                };
                regions.iter().map(size).collect()
            }
            Kind::Mk2 { .. } => {
                let plans = planned.mk2().planned(picture)?;
                plans.iter().try_for_each(|plan| tell_noise(plan, notices))?;
                plans.into_iter().map(|plan| plan.drawn).collect()
            }
        };
        let Margins { left, right, up, down } = planned.margins.rounded(picture.0, picture.1)?;
        let finished = (picture.0 + left + right, picture.1 + up + down);
        Ok(Self { drawn, finished, ..planned })
    }

    /// The largest that is drawn at once.
    pub(super) fn largest(&self) -> (usize, usize) {
        self.drawn.iter().copied().max_by_key(|(width, height)| width * height).unwrap_or(self.at_once)
    }

    fn mk2(&self) -> Mk2 {
        let (noise_q, color_variation) = match self.kind {
            Kind::Mk2 { noise_q, color_variation } => (noise_q, color_variation),
            Kind::PoorMans => (1.0, 0.0),
        };
        let Self { margins, mask_blur, at_once: size, .. } = *self;
        Mk2 { margins, mask_blur, noise_q, color_variation, size }
    }

    /// The continued picture.
    pub(super) fn continued(&self, picture: &Picture, by: &mut impl Draws) -> Result<Picture> {
        match self.kind {
            Kind::PoorMans => {
                let whole = PoorMans::new(picture, self.margins, self.mask_blur, self.at_once)?;
                let tiles = whole.regions().zip(0..).map(|(region, more)| by.draw(&whole.job(region)?, more));
                Ok(whole.combined(&tiles.collect::<Result<Vec<_>>>()?)?)
            }
            Kind::Mk2 { .. } => {
                let mk2 = self.mk2();
                let mut made = picture.clone();
                for plan in mk2.planned((picture.width, picture.height))? {
                    let bytes = (plan.canvas.0 as u64) * (plan.canvas.1 as u64) * BYTES_PER_PIXEL;
                    let begun = by.compute(bytes, || mk2.begin(plan.step, &made))??;
                    made = begun.finish(&by.draw(begun.job(), 0)?)?;
                }
                Ok(made)
            }
        }
    }
}

/// Tells of a step that draws less than what is new: A1111 leaves noise there.
fn tell_noise(plan: &Mk2Plan, notices: &mut Notices) -> Result<()> {
    let (field, what, drawn) = match plan.step.direction {
        Direction::Left | Direction::Right => ("width", "columns", plan.drawn.0),
        Direction::Up | Direction::Down => ("height", "rows", plan.drawn.1),
    };
    let pixels = plan.step.pixels;
    if drawn >= pixels {
        return Ok(());
    }
    let text = format!(
        "{field}: {drawn} {what} are drawn at once with mk2, of {pixels} that are new; the others stay noise; give {pixels} or more"
    );
    notices.not_applied(Class::InvalidParams, text)
}

/// What each drawing is as `img2img`, of which the picture is what was given.
pub(super) fn as_img2img(params: &OutpaintParams, drawing: &Txt2ImgParams) -> Img2ImgParams {
    let fill = match params.method {
        OutpaintMethod::PoorMans => params.inpainting_fill,
        OutpaintMethod::Mk2 => 1,
    };
    let blur = f64::from(blurs(params.method) * mask_blur(params));
    Img2ImgParams {
        drawing: drawing.clone(),
        init_images: vec![params.image.clone()],
        mask_blur_x: blur,
        mask_blur_y: blur,
        inpainting_fill: fill,
        inpaint_full_res: false,
        ..Img2ImgParams::default()
    }
}

/// A1111's default of the method, if it is left out.
fn mask_blur(params: &OutpaintParams) -> u32 {
    params.mask_blur.unwrap_or(match params.method {
        OutpaintMethod::PoorMans => 4,
        OutpaintMethod::Mk2 => 8,
    })
}
