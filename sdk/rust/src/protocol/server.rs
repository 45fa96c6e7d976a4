//! The daemon itself: `initialize`, `api_info`, `ping`, `status`, `shutdown`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PluginStatus, ResidentModel};

/// Nothing, as an empty map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// `initialize`: optional, before other calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InitializeParams {
    /// Who calls.
    pub client: Client,
    /// The method name under which this connection gets events of the jobs it submits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub events: Option<String>,
    /// What stands before the event in such a notification: with `["CODE"]` its params are `["CODE", [event]]`
    /// instead of `[event]`. Neovim takes events so, under the name `nvim_exec_lua`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 65536)))]
    pub event_args: Vec<String>,
}

/// A client's name, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// Its name.
    #[schemars(length(max = 256))]
    pub name: String,
    /// Its version.
    #[schemars(length(max = 256))]
    pub version: String,
}

/// What `initialize` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InitializeResult {
    /// The daemon.
    pub server: Server,
    /// The protocol's number: 1.
    pub protocol: u32,
    /// What this daemon can do.
    pub capabilities: Capabilities,
    /// What it refuses above.
    pub limits: ServerLimits,
}

/// The daemon's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Server {
    /// "latentd".
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What a daemon can do, as the values that requests may carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Capabilities {
    /// Methods.
    pub methods: Vec<String>,
    /// Values of `sampler_name`.
    pub samplers: Vec<String>,
    /// Values of `scheduler`.
    pub schedulers: Vec<String>,
    /// Values of `rng`.
    pub rngs: Vec<String>,
    /// Values of `precision`.
    pub precisions: Vec<String>,
    /// Values of `output.format`.
    pub output_formats: Vec<String>,
    /// Values of `preview.kind`.
    pub preview_kinds: Vec<String>,
}

/// What a daemon refuses above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerLimits {
    /// Bytes of one message.
    pub message_bytes: u64,
    /// Values in one message.
    pub message_elements: u64,
    /// Arrays and maps inside each other.
    pub message_depth: u64,
    /// Jobs that may wait.
    pub queue: u32,
    /// Bytes of the pixels of one request's pictures.
    pub result_bytes: u64,
    /// Seconds a result is kept.
    pub result_ttl_s: u64,
    /// Requests of one connection that may be under way.
    pub requests_per_connection: u32,
}

/// What `api_info` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiInfo {
    /// The protocol's number: 1.
    pub protocol: u32,
    /// Every method by name.
    pub methods: BTreeMap<String, MethodInfo>,
    /// JSON Schema of each notification's map, by its default method name.
    pub notifications: BTreeMap<String, serde_json::Value>,
}

/// One method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MethodInfo {
    /// The protocol that first had it.
    pub since: u32,
    /// The protocol that first advised against it.
    pub deprecated: Option<u32>,
    /// JSON Schema of the parameters' map.
    pub params: serde_json::Value,
    /// JSON Schema of the result.
    pub result: serde_json::Value,
    /// Whether its requests become jobs, which `jobs.submit` takes.
    #[serde(default)]
    pub job: bool,
    /// The plugin that has it; absent of latentd's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// What it does, as the plugin says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What `status` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: f64,
    /// What draws.
    pub devices: Vec<Device>,
    /// Memory.
    pub memory: MemoryStatus,
    /// Models in memory, the least recently used first.
    pub models: Vec<ResidentModel>,
    /// Jobs.
    pub queue: QueueStatus,
    /// What lies on the disk.
    #[serde(default)]
    pub storage: StorageStatus,
    /// Plugins that were called since it started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<PluginStatus>,
    /// Open connections.
    pub connections: u32,
    /// It finishes what runs and takes nothing new.
    pub stopping: bool,
    /// What came of reading the configuration again (SIGHUP), once it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigStatus>,
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ConfigStatus {
    /// When it was read last; seconds since 1970.
    pub reloaded_at: Option<f64>,
    /// Settings that were changed then.
    pub changed: Vec<String>,
    /// Settings whose new value waits for a restart.
    pub needs_restart: Vec<String>,
    /// What is wrong with it: then nothing was changed.
    pub error: Option<String>,
}

/// Something that draws.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// "cpu".
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Threads it computes with.
    pub threads: u32,
}

/// The daemon's memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryStatus {
    /// What models and pictures may take together.
    pub budget_bytes: u64,
    /// What models take.
    pub models_bytes: u64,
    /// What the process takes, where the system tells.
    pub rss_bytes: Option<u64>,
}

/// What the daemon keeps on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StorageStatus {
    /// Results of jobs, which go by themselves (`result_ttl_s`, `results_total_bytes`).
    pub results: FolderStatus,
    /// Pictures of requests with `output.format` "file" and no folder of their own. They stay until somebody removes
    /// them.
    pub outputs: FolderStatus,
    /// Bytes that memory holds because the disk refused them; they are written once there is room.
    pub unsaved_bytes: u64,
}

/// A folder, as it was counted a moment ago.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FolderStatus {
    /// Where it is.
    pub path: String,
    /// Files in it.
    pub files: u64,
    /// Bytes in those.
    pub bytes: u64,
}

/// The queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueStatus {
    /// Jobs waiting.
    pub queued: u32,
    /// The job being drawn.
    pub running: Option<String>,
    /// Jobs that may wait.
    pub limit: u32,
}
