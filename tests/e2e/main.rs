//! A real daemon process, driven through its real socket. Every wait has an end; nothing sleeps and hopes.

mod addons;
mod cancel;
mod command_line;
mod connections;
mod crash;
#[cfg(feature = "demo")]
mod demo;
mod disconnect;
mod disk;
mod formats;
mod harness;
mod hires;
mod hostile;
mod image_info;
mod img2img;
mod jobs;
mod launch;
mod library;
mod lifecycle;
mod limits;
mod log;
mod memory;
mod merge;
mod noise;
mod pictures;
mod prompt_grammar;
mod prompts;
mod refiner;
mod regions;
mod reload;
mod same_bytes;
mod samplers;
mod state;
mod submit;
mod vae;
mod weight_files;
