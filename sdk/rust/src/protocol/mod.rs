//! What the methods take and give: protocol 1.
//!
//! The daemon decodes requests into these types and checks them against the JSON Schemas derived from them, so
//! `api_info` shows what is true. Conventions of the wire beyond the types:
//!
//! - `params` is an array with one map; an empty array stands for an empty map, there and
//!   wherever a map belongs (Lua's `{}` is one).
//! - An unknown field, at any depth, is an error that names the nearest known one. In a plugin's parameters the plugin's
//!   own schema decides (`plugins.schema`).
//! - **Job ids.** An `id` given to `jobs.submit` *is* the job's id: 1–64 of `A–Z a–z 0–9 . _ -`, beginning with a
//!   letter or digit. The same id with the same request (as it was sent: a field that is left out is another than its default) gives the same job, also
//!   after a restart; with another
//!   request it is E_INVALID_PARAMS.
//! - **A submit is refused at once** for whatever is wrong with it: a field, a name, a folder, a size; then there is no
//!   job. What cannot be told within 100 ms (a folder that is slow to answer) is told later: the job is in state
//!   `resolving`, keeps its place in the queue, and fails if it is refused then. The file of its checkpoint is the one of
//!   that moment: replaced or removed later it is drawn with all the same, and one that is written to fails the job.
//! - A client must expect states, and kinds of events, that a newer daemon has and it does not know.
//! - **A job outlives its connection** unless its submit says `on_disconnect: "cancel"`; `txt2img` takes that too. Then it
//!   is cancelled when the connection ends, whyever.
//! - **Events** go to those who subscribed. `jobs.subscribe {job}` replays what is still known of that job after
//!   event number `since` (0, everything, if left out), follows it, and ends by itself with the job.
//!   `jobs.subscribe {}` follows every job from now on, and the library (`library.event`), until the connection
//!   ends. `initialize` with `events` chooses the notification's method name instead of `job.event`, and follows
//!   the jobs that this connection submits from then on. A subscriber gets an event once however often it asked.
//! - `seq` counts a job's events from 1. Numbers may be missing: progress and previews that a slow reader did not
//!   take are replaced by newer ones. The last event (finished, failed, cancelled) always comes.
//! - A job that the daemon's end cut off is in state `interrupted`; its last event is `failed`, and waiting for it
//!   is E_INTERNAL.
//! - `preview` events carry the first image of the batch, at 1/8 of the size.
//! - `library.event` is `[{type: "changed", added, changed, removed}]`, with names as `KIND/NAME`: a file that moves is in
//!   `added` and `removed` of one event, and of which the hash became known in `changed`.
//! - Bytes that are no MessagePack end the connection after a last notification `rpc.error [[code, text]]`; a
//!   request of the wrong shape is answered with E_INVALID_PARAMS, and the connection goes on.
//! - Errors are `[code, "E_NAME: text"]` with the codes of [`ErrorName`].

mod blobs;
mod error;
mod event;
mod image;
mod image_info;
mod img2img;
mod job;
mod library;
mod merge;
mod models;
mod outpaint;
mod plugins;
mod prompt;
mod prompt_tokens;
mod region;
mod sampling;
mod sd_upscale;
mod server;
mod styles;
mod txt2img;
mod upscale;

pub use blobs::{Blob, BlobPutParams};
pub use error::{ErrorName, WireError};
pub use event::{Event, EventKind, LibraryEvent, LibraryEventKind, Pass, PluginProgress};
pub use image::{Bytes, ImageIn, ImageOut};
pub use image_info::{ImageInfo, ImageInfoParams, RepeatRequest};
pub use img2img::{DenoisingCurve, Img2ImgParams, LoopbackParams, Masks, SoftInpaintingParams};
pub use job::{
    JobList, JobListParams, JobParams, JobRef, JobState, JobView, OnDisconnect, SubmitParams,
    SubscribeParams, Subscribed,
};
pub use library::{
    LibraryDetails, LibraryEntry, LibraryGetParams, LibraryKind, LibraryList, LibraryListParams,
    LibraryProblem, LibraryTag, RescanResult,
};
pub use merge::{MergeParams, MergeResult, WeightType};
pub use models::{LoadParams, LoadedModels, PinParams, ResidentModel, UnloadParams, UnloadResult};
pub use outpaint::{OutpaintMethod, OutpaintParams};
pub use plugins::{
    PluginAsks, PluginEnableParams, PluginEntry, PluginLine, PluginList, PluginMethod, PluginMethodKind,
    PluginMethodSchema, PluginParams, PluginSchema, PluginSchemaParams, PluginState, PluginStatus,
};
pub use prompt::{Emphasis, Prompt};
pub use prompt_tokens::{
    PromptNetwork, PromptPart, PromptStretch, PromptText, PromptToken, PromptTokens, PromptTokensParams,
};
pub use region::RegionParams;
pub use sampling::{NoiseSchedule, UniPcSkipType, UniPcVariant};
pub use sd_upscale::{RedrawMode, SdUpscaleParams, SeamFixMode};
pub use server::{
    ApiInfo, Capabilities, Client, ConfigStatus, Device, Empty, FolderStatus, InitializeParams,
    InitializeResult, MemoryStatus, MethodInfo, QueueStatus, Server, ServerLimits, Status, StorageStatus,
};
pub use styles::{DeleteStyleParams, SaveStyleParams, StyleEntry, StyleList};
pub use txt2img::{
    Artifact, LoraParams, OutputFormat, OutputParams, Precision, PreviewKind, PreviewParams, Rng, Timings,
    Txt2ImgParams, Txt2ImgResult, VaeDecodeMethod,
};
pub use upscale::{UpscaleParams, UpscaleResult};

/// The protocol's number. It changes only when a method's meaning does.
pub const PROTOCOL: u32 = 1;

/// The method name of event notifications, unless `initialize` chose another.
pub const DEFAULT_EVENT_METHOD: &str = "job.event";

/// The method name of library notifications.
pub const LIBRARY_EVENT_METHOD: &str = "library.event";

/// The notification that says why a connection ends.
pub const CONNECTION_ERROR_METHOD: &str = "rpc.error";
