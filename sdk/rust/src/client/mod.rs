//! The async client.

pub mod blocking;
mod connection;
mod error;
mod events;

use std::path::Path;
use std::sync::Arc;

use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::{StreamCommon as _, tokio::Stream as _};
use interprocess::local_socket::{GenericFilePath, ToFsName};
use rmpv::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::codec::{decode_value, encode_request};
use crate::protocol::{
    ApiInfo, Blob, BlobPutParams, Bytes, DeleteStyleParams, Empty, Event, ImageIn, ImageInfo,
    ImageInfoParams, Img2ImgParams, InitializeParams, InitializeResult, JobList, JobListParams, JobParams,
    JobRef, JobView, LibraryEntry, LibraryGetParams, LibraryList, LibraryListParams, LoadParams,
    LoadedModels, MergeParams, MergeResult, OnDisconnect, OutpaintParams, PinParams, PluginEnableParams,
    PluginEntry, PluginList, PluginSchema, PluginSchemaParams, PromptTokens, PromptTokensParams,
    RescanResult, ResidentModel, SaveStyleParams, Status, StyleEntry, StyleList, SubmitParams,
    SubscribeParams, Subscribed, Txt2ImgParams, Txt2ImgResult, UnloadParams, UnloadResult, UpscaleParams,
    UpscaleResult,
};
use crate::socket;
use connection::Shared;
pub use error::Error;
pub use events::{EventStream, LibraryStream};

/// How a request is submitted, beside what it asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubmitOptions<'a> {
    /// The job's id. Submitting the same request with the same id again, after a lost connection for example, gives the
    /// same job.
    pub id: Option<&'a str>,
    /// What becomes of the job when this connection ends before it does.
    pub on_disconnect: OnDisconnect,
}

/// A connection to a daemon, for use inside a tokio runtime. Calls may overlap; cancelling one (dropping its
/// future) only stops the waiting.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    messages: mpsc::UnboundedSender<Vec<u8>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Client {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Whoever holds the path of a socket gets what is sent to it.
fn check_peer(stream: &Stream) -> Result<(), String> {
    #[cfg(unix)]
    {
        let own = socket::effective_user();
        match stream.peer_creds().ok().and_then(|peer| peer.euid()) {
            Some(user) if user == own => (),
            Some(user) => return Err(format!("user {user} listens there, and you are user {own}")),
            None => return Err("the system does not say whose it is".into()),
        }
    }
    Ok(())
}

impl Client {
    /// Connects to the daemon at `path`, or at [`socket::default_path`], if it is this user's.
    pub async fn connect(path: Option<&Path>) -> Result<Self, Error> {
        let path = path.map_or_else(socket::default_path, Path::to_owned);
        socket::check_place(&path).map_err(|reason| Error::Unsafe { path: path.clone(), reason })?;
        let connect = async {
            let name = path.as_os_str().to_fs_name::<GenericFilePath>()?;
            Stream::connect(name).await
        };
        let stream = connect.await.map_err(|error| Error::Connect { path: path.clone(), error })?;
        check_peer(&stream).map_err(|reason| Error::Unsafe { path, reason })?;
        let stream = Arc::new(stream);
        let shared = Arc::new(Shared::default());
        let (messages, outgoing) = mpsc::unbounded_channel();
        let tasks = [
            tokio::spawn(connection::read(Arc::clone(&shared), Arc::clone(&stream))),
            tokio::spawn(connection::write(outgoing, stream)),
        ];
        Ok(Self { shared, messages, tasks })
    }

    /// Calls any method, such as `NAME.method` of a plugin. Of a job this waits for the result; [`Self::submit`] and
    /// [`Self::wait_for`] do so apart.
    pub async fn call<P, R>(&self, method: &str, params: &P) -> Result<R, Error>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let value = self.call_value(method, params).await?;
        decode_value(value).map_err(|error| Error::Protocol(format!("the result of {method}: {error}")))
    }

    /// As [`Self::call`], and gives the result undecoded.
    pub async fn call_value<P: Serialize + ?Sized>(&self, method: &str, params: &P) -> Result<Value, Error> {
        let (id, answer) = self.shared.expect_answer()?;
        let bytes = encode_request(id, method, params)?;
        // If the writer is gone, so is the connection: the reader answers everybody with the reason.
        drop(self.messages.send(bytes));
        answer.await.map_err(|_| Error::Closed("the reader stopped".into()))?
    }

    /// Introduces this program and learns what the daemon can do. Leave `events` out, or at
    /// [`DEFAULT_EVENT_METHOD`](crate::protocol::DEFAULT_EVENT_METHOD): event streams listen to that name.
    pub async fn initialize(&self, params: &InitializeParams) -> Result<InitializeResult, Error> {
        self.call("initialize", params).await
    }

    /// Whether the daemon answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.call::<_, Empty>("ping", &Empty {}).await.map(drop)
    }

    /// Every method with its schemas.
    pub async fn api_info(&self) -> Result<ApiInfo, Error> {
        self.call("api_info", &Empty {}).await
    }

    /// Devices, memory, models, queue.
    pub async fn status(&self) -> Result<Status, Error> {
        self.call("status", &Empty {}).await
    }

    /// Asks the daemon to finish what runs and end.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.call::<_, Empty>("shutdown", &Empty {}).await.map(drop)
    }

    /// Draws, and waits for the pictures.
    pub async fn txt2img(&self, params: &Txt2ImgParams) -> Result<Txt2ImgResult, Error> {
        self.call("txt2img", params).await
    }

    /// Draws, waits, and hands over what happens meanwhile. Dropping the future leaves the job running.
    pub async fn txt2img_with(
        &self,
        params: &Txt2ImgParams,
        mut on_event: impl FnMut(&Event),
    ) -> Result<Txt2ImgResult, Error> {
        let job = self.submit("txt2img", params, None).await?;
        self.follow(&job, &mut on_event).await?;
        self.wait(&job).await
    }

    /// Draws from pictures, and waits for what comes of them.
    pub async fn img2img(&self, params: &Img2ImgParams) -> Result<Txt2ImgResult, Error> {
        self.call("img2img", params).await
    }

    /// As [`Self::img2img`], and hands over what happens meanwhile. Dropping the future leaves the job running.
    pub async fn img2img_with(
        &self,
        params: &Img2ImgParams,
        mut on_event: impl FnMut(&Event),
    ) -> Result<Txt2ImgResult, Error> {
        let job = self.submit("img2img", params, None).await?;
        self.follow(&job, &mut on_event).await?;
        self.wait(&job).await
    }

    /// Continues a picture beyond its sides, and waits for what comes of it.
    pub async fn outpaint(&self, params: &OutpaintParams) -> Result<Txt2ImgResult, Error> {
        self.call("outpaint", params).await
    }

    /// As [`Self::outpaint`], and hands over what happens meanwhile. Dropping the future leaves the job running.
    pub async fn outpaint_with(
        &self,
        params: &OutpaintParams,
        mut on_event: impl FnMut(&Event),
    ) -> Result<Txt2ImgResult, Error> {
        let job = self.submit("outpaint", params, None).await?;
        self.follow(&job, &mut on_event).await?;
        self.wait(&job).await
    }

    /// Makes pictures larger or restores faces in them, and waits for what comes of it.
    pub async fn upscale(&self, params: &UpscaleParams) -> Result<UpscaleResult, Error> {
        self.call("image.upscale", params).await
    }

    /// As [`Self::upscale`], and hands over what happens meanwhile. Dropping the future leaves the job running.
    pub async fn upscale_with(
        &self,
        params: &UpscaleParams,
        mut on_event: impl FnMut(&Event),
    ) -> Result<UpscaleResult, Error> {
        let job = self.submit("image.upscale", params, None).await?;
        self.follow(&job, &mut on_event).await?;
        self.wait_for(&job).await
    }

    /// Hands over what happens to a job, to its end.
    async fn follow(&self, job: &str, on_event: &mut dyn FnMut(&Event)) -> Result<(), Error> {
        let mut events = self.subscribe(job, 0).await?;
        while let Some(event) = events.next().await {
            on_event(&event);
        }
        Ok(())
    }

    /// Merges checkpoints, a VAE and LoRAs into a new file, and waits for it.
    pub async fn merge_models(&self, params: &MergeParams) -> Result<MergeResult, Error> {
        self.call("models.merge", params).await
    }

    /// As [`Self::merge_models`], and hands over what happens meanwhile. Dropping the future leaves the job running.
    pub async fn merge_models_with(
        &self,
        params: &MergeParams,
        mut on_event: impl FnMut(&Event),
    ) -> Result<MergeResult, Error> {
        let job = self.submit("models.merge", params, None).await?;
        self.follow(&job, &mut on_event).await?;
        self.wait_for(&job).await
    }

    /// What a picture says of how it was made, and the request that repeats it.
    pub async fn image_info(&self, image: ImageIn) -> Result<ImageInfo, Error> {
        self.call("image.info", &ImageInfoParams { image }).await
    }

    /// Gives the daemon a picture to be used in any number of requests: [`ImageIn::blob`] of what this answers.
    pub async fn put_blob(&self, data: Vec<u8>) -> Result<Blob, Error> {
        self.call("blobs.put", &BlobPutParams { data: Bytes(data) }).await
    }

    /// Queues a request and gives the job's id at once.
    pub async fn submit<P>(&self, method: &str, params: &P, id: Option<&str>) -> Result<String, Error>
    where
        P: Serialize + ?Sized,
    {
        self.submit_with(method, params, SubmitOptions { id, ..Default::default() }).await
    }

    /// As [`Self::submit`], with everything that can be said of a submit.
    pub async fn submit_with<P>(
        &self,
        method: &str,
        params: &P,
        options: SubmitOptions<'_>,
    ) -> Result<String, Error>
    where
        P: Serialize + ?Sized,
    {
        let bytes = rmp_serde::to_vec_named(params)?;
        let params = rmpv::decode::read_value(&mut bytes.as_slice())
            .map_err(|error| Error::Protocol(format!("parameters that were just encoded: {error}")))?;
        let SubmitOptions { id, on_disconnect } = options;
        let submit = SubmitParams { method: method.into(), params, id: id.map(str::to_owned), on_disconnect };
        self.call::<_, JobRef>("jobs.submit", &submit).await.map(|answer| answer.job)
    }

    /// Waits for the result of a job that draws.
    pub async fn wait(&self, job: &str) -> Result<Txt2ImgResult, Error> {
        self.wait_for(job).await
    }

    /// Waits for the result of a job of any method, such as [`MergeResult`] of `models.merge`.
    pub async fn wait_for<R: DeserializeOwned>(&self, job: &str) -> Result<R, Error> {
        self.call("jobs.wait", &JobParams { job: job.into() }).await
    }

    /// A job as it stands.
    pub async fn job(&self, job: &str) -> Result<JobView, Error> {
        self.call("jobs.get", &JobParams { job: job.into() }).await
    }

    /// The newest jobs.
    pub async fn jobs(&self, params: &JobListParams) -> Result<Vec<JobView>, Error> {
        self.call::<_, JobList>("jobs.list", params).await.map(|answer| answer.jobs)
    }

    /// Cancels a job; it ends within one step.
    pub async fn cancel(&self, job: &str) -> Result<JobView, Error> {
        self.call("jobs.cancel", &JobParams { job: job.into() }).await
    }

    /// Follows a job from event number `since` on (0: from the start, as far as the daemon remembers) to its end.
    pub async fn subscribe(&self, job: &str, since: u64) -> Result<EventStream, Error> {
        let queue = self.shared.listen(Some(job));
        let params = SubscribeParams { job: Some(job.into()), since: Some(since) };
        self.call::<_, Subscribed>("jobs.subscribe", &params).await?;
        Ok(EventStream::new(queue, true))
    }

    /// Follows all jobs from now on.
    pub async fn subscribe_all(&self) -> Result<EventStream, Error> {
        let queue = self.shared.listen(None);
        self.call::<_, Subscribed>("jobs.subscribe", &SubscribeParams::default()).await?;
        Ok(EventStream::new(queue, false))
    }

    /// Follows the library from now on, as who follows all jobs does.
    pub async fn subscribe_library(&self) -> Result<LibraryStream, Error> {
        let queue = self.shared.listen_to_library();
        self.call::<_, Subscribed>("jobs.subscribe", &SubscribeParams::default()).await?;
        Ok(LibraryStream::new(queue))
    }

    /// The files in the models folders.
    pub async fn library(&self, params: &LibraryListParams) -> Result<LibraryList, Error> {
        self.call("library.list", params).await
    }

    /// One file by kind and name.
    pub async fn library_entry(&self, params: &LibraryGetParams) -> Result<LibraryEntry, Error> {
        self.call("library.get", params).await
    }

    /// Looks through the models folders now.
    pub async fn rescan(&self) -> Result<RescanResult, Error> {
        self.call("library.rescan", &Empty {}).await
    }

    /// Brings a checkpoint into memory, with the VAE that requests have which leave it open.
    pub async fn load_model(&self, checkpoint: &str) -> Result<ResidentModel, Error> {
        self.load_model_with(&LoadParams { checkpoint: checkpoint.into(), vae: None }).await
    }

    /// Brings a checkpoint into memory, with a VAE.
    pub async fn load_model_with(&self, params: &LoadParams) -> Result<ResidentModel, Error> {
        self.call("models.load", params).await
    }

    /// Drops a checkpoint from memory; false if it was not there.
    pub async fn unload_model(&self, checkpoint: &str) -> Result<bool, Error> {
        let answer: UnloadResult =
            self.call("models.unload", &UnloadParams { checkpoint: checkpoint.into() }).await?;
        Ok(answer.unloaded)
    }

    /// What is in memory.
    pub async fn loaded_models(&self) -> Result<Vec<ResidentModel>, Error> {
        self.call::<_, LoadedModels>("models.loaded", &Empty {}).await.map(|answer| answer.models)
    }

    /// Keeps a loaded checkpoint in memory, or lets it go when another needs the room.
    pub async fn pin_model(&self, checkpoint: &str, pinned: bool) -> Result<ResidentModel, Error> {
        self.call("models.pin", &PinParams { checkpoint: checkpoint.into(), pinned }).await
    }

    /// What a prompt is to the models: tokens, chunks, weights, and what it says at which steps.
    pub async fn prompt_tokens(&self, params: &PromptTokensParams) -> Result<PromptTokens, Error> {
        self.call("prompt.tokens", params).await
    }

    /// All styles, which requests name in `styles`.
    pub async fn styles(&self) -> Result<StyleList, Error> {
        self.call("styles.list", &Empty {}).await
    }

    /// Saves a style, in place of one of its name.
    pub async fn save_style(&self, params: &SaveStyleParams) -> Result<StyleEntry, Error> {
        self.call("styles.save", params).await
    }

    /// Deletes a style that was saved.
    pub async fn delete_style(&self, name: &str) -> Result<StyleEntry, Error> {
        self.call("styles.delete", &DeleteStyleParams { name: name.into() }).await
    }

    /// All plugins, which requests name in `plugins`.
    pub async fn plugins(&self) -> Result<PluginList, Error> {
        self.call("plugins.list", &Empty {}).await
    }

    /// A plugin that could not be loaded, or was set aside because its processes crashed, may be used again.
    pub async fn enable_plugin(&self, name: &str) -> Result<PluginEntry, Error> {
        self.call("plugins.enable", &PluginEnableParams { name: name.into() }).await
    }

    /// What a plugin's parameters may be.
    pub async fn plugin_schema(&self, name: &str) -> Result<PluginSchema, Error> {
        self.call("plugins.schema", &PluginSchemaParams { name: name.into() }).await
    }
}
