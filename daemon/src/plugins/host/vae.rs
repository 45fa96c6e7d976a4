//! The VAE that a stage has at hand.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::image::RgbImage;
use latentd_models::pipeline::ImageCoding;
use latentd_plugin_api::abi::{
    LATENTD_IMAGE_POST, LATENTD_INVALID, LATENTD_UNSUPPORTED, latentd_call, latentd_handle, latentd_status,
    latentd_vae,
};

use super::serving::{Failure, Served, misuse, objects, reserve, serve};
use crate::plugins::call::{Call, State};
use crate::plugins::objects::{Content, Image};

pub(super) static VAE: latentd_vae = latentd_vae {
    size: size_of::<latentd_vae>() as u32,
    reserved: 0,
    encode_image: Some(encode_image),
    decode_latents: Some(decode_latents),
};

fn vae<'a>(call: &Call<'a>) -> Served<&'a dyn ImageCoding> {
    call.at_hand.coding.ok_or_else(|| {
        let text = format!("there is no VAE at hand in this function; in {LATENTD_IMAGE_POST}");
        Failure(LATENTD_UNSUPPORTED, text)
    })
}

fn invalid<T>(text: impl Into<String>) -> Served<T> {
    Err(Failure(LATENTD_INVALID, text.into()))
}

unsafe extern "C" fn encode_image(
    call: *mut latentd_call,
    image: latentd_handle,
    seed: u64,
    latents: *mut latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let vae = vae(call)?;
        if latents.is_null() {
            return misuse("latents are null");
        }
        let image = match objects(state)?.readable_content(image)? {
            Content::Image(image) => rgb(image)?,
            Content::Tensor(_) | Content::Bytes(_) => return invalid("a tensor is no image"),
        };
        let made = vae.encode(image, seed)?;
        let lease = reserve(call, size_of_val(made.values()))?;
        let handle = objects(state)?.allocate(Content::Tensor(made), Some(lease))?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { latents.write(handle) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// An image without alpha, of three channels.
fn rgb(image: &Image) -> Served<RgbImage> {
    let Image { width, height, channels, pixels } = image;
    let pixels = match channels {
        1 => pixels.iter().flat_map(|grey| [*grey; 3]).collect(),
        3 => Vec::clone(pixels),
        _ => return invalid("an image with alpha has no latents: lay it over a colour first"),
    };
    Ok(RgbImage { width: *width, height: *height, pixels })
}

unsafe extern "C" fn decode_latents(
    call: *mut latentd_call,
    latents: latentd_handle,
    image: *mut latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let vae = vae(call)?;
        if image.is_null() {
            return misuse("image is null");
        }
        let latents: Tensor = match objects(state)?.readable_content(latents)? {
            Content::Tensor(latents) => latents.clone(),
            Content::Image(_) | Content::Bytes(_) => return invalid("an image is no latents"),
        };
        if let Some(index) = latents.values().iter().position(|value| !value.is_finite()) {
            return invalid(format!("number {index} of the latents is {}", latents.values()[index]));
        }
        let RgbImage { width, height, pixels } = vae.decode(&latents)?;
        let lease = reserve(call, pixels.len())?;
        let made = Content::Image(Image { width, height, channels: 3, pixels: Arc::new(pixels) });
        let handle = objects(state)?.allocate(made, Some(lease))?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { image.write(handle) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}
