//! The same client for programs without an async runtime.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use super::{Error, SubmitOptions};
use crate::protocol::{
    Blob, Event, ImageIn, ImageInfo, Img2ImgParams, InitializeParams, InitializeResult, JobListParams,
    JobView, LibraryList, LibraryListParams, MergeParams, MergeResult, OutpaintParams, PluginList,
    PluginSchema, PromptTokens, PromptTokensParams, SaveStyleParams, Status, StyleEntry, StyleList,
    Txt2ImgParams, Txt2ImgResult, UpscaleParams, UpscaleResult,
};

/// A connection to a daemon; every call waits for its answer. Not for use inside an async runtime.
#[derive(Debug)]
pub struct Client {
    // Dropped before the runtime it lives on.
    client: super::Client,
    runtime: Runtime,
}

impl Client {
    /// Connects to the daemon at `path`, or at [`crate::socket::default_path`].
    pub fn connect(path: Option<&Path>) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
        let client = runtime.block_on(super::Client::connect(path))?;
        Ok(Self { client, runtime })
    }

    /// Calls any method.
    pub fn call<P, R>(&mut self, method: &str, params: &P) -> Result<R, Error>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.runtime.block_on(self.client.call(method, params))
    }

    /// Introduces this program and learns what the daemon can do.
    pub fn initialize(&mut self, params: &InitializeParams) -> Result<InitializeResult, Error> {
        self.runtime.block_on(self.client.initialize(params))
    }

    /// Whether the daemon answers.
    pub fn ping(&mut self) -> Result<(), Error> {
        self.runtime.block_on(self.client.ping())
    }

    /// Devices, memory, models, queue.
    pub fn status(&mut self) -> Result<Status, Error> {
        self.runtime.block_on(self.client.status())
    }

    /// Draws, and waits for the pictures.
    pub fn txt2img(&mut self, params: &Txt2ImgParams) -> Result<Txt2ImgResult, Error> {
        self.runtime.block_on(self.client.txt2img(params))
    }

    /// Draws, waits, and hands over what happens meanwhile.
    pub fn txt2img_with(
        &mut self,
        params: &Txt2ImgParams,
        on_event: impl FnMut(&Event),
    ) -> Result<Txt2ImgResult, Error> {
        self.runtime.block_on(self.client.txt2img_with(params, on_event))
    }

    /// Draws from pictures, and waits for what comes of them.
    pub fn img2img(&mut self, params: &Img2ImgParams) -> Result<Txt2ImgResult, Error> {
        self.runtime.block_on(self.client.img2img(params))
    }

    /// As [`Self::img2img`], and hands over what happens meanwhile.
    pub fn img2img_with(
        &mut self,
        params: &Img2ImgParams,
        on_event: impl FnMut(&Event),
    ) -> Result<Txt2ImgResult, Error> {
        self.runtime.block_on(self.client.img2img_with(params, on_event))
    }

    /// Continues a picture beyond its sides, and waits for what comes of it.
    pub fn outpaint(&mut self, params: &OutpaintParams) -> Result<Txt2ImgResult, Error> {
        self.runtime.block_on(self.client.outpaint(params))
    }

    /// As [`Self::outpaint`], and hands over what happens meanwhile.
    pub fn outpaint_with(
        &mut self,
        params: &OutpaintParams,
        on_event: impl FnMut(&Event),
    ) -> Result<Txt2ImgResult, Error> {
        self.runtime.block_on(self.client.outpaint_with(params, on_event))
    }

    /// Makes pictures larger or restores faces in them, and waits for what comes of it.
    pub fn upscale(&mut self, params: &UpscaleParams) -> Result<UpscaleResult, Error> {
        self.runtime.block_on(self.client.upscale(params))
    }

    /// As [`Self::upscale`], and hands over what happens meanwhile.
    pub fn upscale_with(
        &mut self,
        params: &UpscaleParams,
        on_event: impl FnMut(&Event),
    ) -> Result<UpscaleResult, Error> {
        self.runtime.block_on(self.client.upscale_with(params, on_event))
    }

    /// Merges checkpoints, a VAE and LoRAs into a new file, and waits for it.
    pub fn merge_models(&mut self, params: &MergeParams) -> Result<MergeResult, Error> {
        self.runtime.block_on(self.client.merge_models(params))
    }

    /// As [`Self::merge_models`], and hands over what happens meanwhile.
    pub fn merge_models_with(
        &mut self,
        params: &MergeParams,
        on_event: impl FnMut(&Event),
    ) -> Result<MergeResult, Error> {
        self.runtime.block_on(self.client.merge_models_with(params, on_event))
    }

    /// What a picture says of how it was made, and the request that repeats it.
    pub fn image_info(&mut self, image: ImageIn) -> Result<ImageInfo, Error> {
        self.runtime.block_on(self.client.image_info(image))
    }

    /// Gives the daemon a picture to be used in any number of requests: [`ImageIn::blob`] of what this answers.
    pub fn put_blob(&mut self, data: Vec<u8>) -> Result<Blob, Error> {
        self.runtime.block_on(self.client.put_blob(data))
    }

    /// Queues a request and gives the job's id at once.
    pub fn submit<P>(&mut self, method: &str, params: &P, id: Option<&str>) -> Result<String, Error>
    where
        P: Serialize + ?Sized,
    {
        self.runtime.block_on(self.client.submit(method, params, id))
    }

    /// As [`Self::submit`], with everything that can be said of a submit.
    pub fn submit_with<P>(
        &mut self,
        method: &str,
        params: &P,
        options: SubmitOptions<'_>,
    ) -> Result<String, Error>
    where
        P: Serialize + ?Sized,
    {
        self.runtime.block_on(self.client.submit_with(method, params, options))
    }

    /// Waits for the result of a job that draws.
    pub fn wait(&mut self, job: &str) -> Result<Txt2ImgResult, Error> {
        self.runtime.block_on(self.client.wait(job))
    }

    /// Waits for the result of a job of any method, such as [`MergeResult`] of `models.merge`.
    pub fn wait_for<R: DeserializeOwned>(&mut self, job: &str) -> Result<R, Error> {
        self.runtime.block_on(self.client.wait_for(job))
    }

    /// A job as it stands.
    pub fn job(&mut self, job: &str) -> Result<JobView, Error> {
        self.runtime.block_on(self.client.job(job))
    }

    /// The newest jobs.
    pub fn jobs(&mut self, params: &JobListParams) -> Result<Vec<JobView>, Error> {
        self.runtime.block_on(self.client.jobs(params))
    }

    /// Cancels a job; it ends within one step.
    pub fn cancel(&mut self, job: &str) -> Result<JobView, Error> {
        self.runtime.block_on(self.client.cancel(job))
    }

    /// The files in the models folders.
    pub fn library(&mut self, params: &LibraryListParams) -> Result<LibraryList, Error> {
        self.runtime.block_on(self.client.library(params))
    }

    /// What a prompt is to the models: tokens, chunks, weights, and what it says at which steps.
    pub fn prompt_tokens(&mut self, params: &PromptTokensParams) -> Result<PromptTokens, Error> {
        self.runtime.block_on(self.client.prompt_tokens(params))
    }

    /// All styles, which requests name in `styles`.
    pub fn styles(&mut self) -> Result<StyleList, Error> {
        self.runtime.block_on(self.client.styles())
    }

    /// Saves a style, in place of one of its name.
    pub fn save_style(&mut self, params: &SaveStyleParams) -> Result<StyleEntry, Error> {
        self.runtime.block_on(self.client.save_style(params))
    }

    /// Deletes a style that was saved.
    pub fn delete_style(&mut self, name: &str) -> Result<StyleEntry, Error> {
        self.runtime.block_on(self.client.delete_style(name))
    }

    /// All plugins, which requests name in `plugins`.
    pub fn plugins(&mut self) -> Result<PluginList, Error> {
        self.runtime.block_on(self.client.plugins())
    }

    /// What a plugin's parameters may be.
    pub fn plugin_schema(&mut self, name: &str) -> Result<PluginSchema, Error> {
        self.runtime.block_on(self.client.plugin_schema(name))
    }
}
