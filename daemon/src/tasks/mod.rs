//! What jobs do: from a request's parameters to a [`Task`] in which everything is settled, and from there to a result.
//!
//! A method is one file here, and one row of `rpc/methods`: [`JobMethod`] for one whose requests become jobs, a function
//! for one that is quick. Nothing here knows the wire,
//! the queue, or who watches.

mod beside;
mod continuation;
mod decoding;
mod device;
mod draw;
mod drawn;
mod draws;
mod embeddings;
mod finished;
mod from_pictures;
mod given;
mod hires;
mod hooks;
mod hypernetworks;
mod image_info;
mod img2img;
mod infotext;
mod loopback;
mod loras;
mod merge;
mod merge_recipe;
mod names;
mod noise;
mod notices;
mod outpaint;
mod output;
mod packing;
mod patch;
mod plugin_method;
mod plugin_resources;
mod plugins;
mod prompt_tokens;
mod prompts;
mod refiner;
mod regions;
mod restorers;
mod rewriting;
mod sampling;
mod saving_files;
mod sd_upscale;
mod studio;
mod subcourse;
mod subjobs;
mod subrequest;
mod subruns;
mod tag_questions;
mod tags;
mod task;
mod told_picture;
mod told_prompt;
mod txt2img;
mod unapplied;
mod upscale;

pub(crate) use decoding::Decoding;
pub(crate) use device::{Device, DeviceId};
pub(crate) use given::put_blob;
pub(crate) use image_info::image_info;
pub(crate) use img2img::Img2Img;
pub(crate) use merge::Merge;
pub(crate) use outpaint::Outpaint;
pub(crate) use plugin_method::{PluginMethod, quick_plugin_method};
pub(crate) use prompt_tokens::prompt_tokens;
pub(crate) use studio::{Drawing, Studio};
pub(crate) use task::{JobMethod, Request, Run, Task, Watch};
pub(crate) use txt2img::Txt2Img;
pub(crate) use upscale::Upscale;
