//! Each stage against its reference (torch, transformers, diffusers, k-diffusion), on the same random weights.
//! How the numbers were made: `tests/fixtures/README.md`.
#![allow(clippy::print_stdout, reason = "how far off each stage is, is what one reads these for")]

mod adapters;
mod bf16;
mod channels;
mod controlnets;
mod drawing;
mod embeddings;
mod from_latents;
mod golden;
mod hires;
mod hostile_prompts;
mod hypernetworks;
mod image_noise;
mod img2img;
mod ip_adapters;
#[path = "../fixtures/made_up.rs"]
mod made_up;
mod networks;
mod noise;
mod outpaint;

mod pictures_in;
mod prompts;
mod redraw;
mod refiner;
mod resize_latents;
mod restorers;
mod samplers;
mod schedules;
mod schedules_of_prompts;
mod soft_inpainting;
mod taesd;
mod upscalers;
