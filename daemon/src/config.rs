//! Settings: one TOML file, the environment over it, flags over both.
//!
//! Each setting is a field of [`Config`], documented where it is declared; its range is an attribute there. The
//! environment variable of a setting is `LATENTD_` and its name in capitals; what is said of plugins has none. A path may begin with `~`; a relative one
//! begins in the file's folder, or for the environment and flags where the program was started. At SIGHUP a daemon reads
//! all of it again; [`Config::NEEDS_RESTART`] are the settings that it does not change while it runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use latentd_client::protocol::LibraryKind;
use latentd_client::socket;
use latentd_models::nn::Precision;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::library::{AUTOMATIC_VAE, Root};
use crate::plugins::{Agreements, Folder, PluginConfigs};
use crate::schema::{Tree, View};
use crate::{machine, paths, schema, threads};

/// All settings, with their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Folders with models in A1111's layout, its own root or `models` folder among them. The default one is made where it is
    /// missing, others are not.
    #[schemars(extend("format" = "path"))]
    pub models_dirs: Vec<PathBuf>,
    /// Folders with plugins. Behind them `latentd/plugins` in the user's data folder and the folder of the program itself are
    /// always searched, in this order.
    #[schemars(extend("format" = "path"))]
    pub plugins_dirs: Vec<PathBuf>,
    /// What is said of plugins by name: whether each is used (`enabled`), and what it takes as `settings`.
    pub plugins: PluginConfigs,
    /// More folders of checkpoints. As in all of these a file is of that kind unless its content says otherwise, and is named by
    /// its path in the folder.
    #[schemars(extend("format" = "path"))]
    pub ckpt_dirs: Vec<PathBuf>,
    /// More folders of VAEs.
    #[schemars(extend("format" = "path"))]
    pub vae_dirs: Vec<PathBuf>,
    /// More folders of LoRAs and their kin.
    #[schemars(extend("format" = "path"))]
    pub lora_dirs: Vec<PathBuf>,
    /// More folders of textual-inversion embeddings.
    #[schemars(extend("format" = "path"))]
    pub embeddings_dirs: Vec<PathBuf>,
    /// More folders of hypernetworks.
    #[schemars(extend("format" = "path"))]
    pub hypernetwork_dirs: Vec<PathBuf>,
    /// More folders of ControlNets.
    #[schemars(extend("format" = "path"))]
    pub controlnet_dirs: Vec<PathBuf>,
    /// More folders of upscalers, whatever network they are.
    #[schemars(extend("format" = "path"))]
    pub esrgan_models_paths: Vec<PathBuf>,
    /// More folders of GFPGAN networks, which restore faces.
    #[schemars(extend("format" = "path"))]
    pub gfpgan_models_paths: Vec<PathBuf>,
    /// More folders of CodeFormer networks, which restore faces.
    #[schemars(extend("format" = "path"))]
    pub codeformer_models_paths: Vec<PathBuf>,
    /// Whether the hashes of all files are computed while nothing else is to be done.
    pub hash_in_background: bool,
    /// The checkpoint used when a request names none; if empty the first of the library that can be drawn with, else
    /// the built-in latentd-demo.
    pub default_checkpoint: String,
    /// The VAE of requests that name none: "Automatic" for the one whose file's name begins with the checkpoint's, else the
    /// checkpoint's own; "None" for the latter in any case; or a name.
    #[schemars(length(min = 1))]
    pub default_vae: String,
    /// Seconds that a checkpoint stays in memory after its last job if a request does not say; -1 until another needs the
    /// room.
    #[schemars(range(min = -1, max = 31_536_000))]
    pub keep_alive_s: i64,
    /// Checkpoints that are brought into memory at the start, one after the other, while jobs may draw already.
    pub preload: Vec<String>,
    /// Where the daemon listens; at most 100 bytes.
    #[schemars(extend("format" = "path"))]
    pub socket: PathBuf,
    /// Index, job history, results, log.
    #[schemars(extend("format" = "path"))]
    pub state_dir: PathBuf,
    /// Threads that compute, at most four for a core; 0 for one per core.
    pub threads: u32,
    /// What requests are computed in that do not say: auto is bf16 where the processor is known to be quicker in it (AMX,
    /// Zen 4), else f32; doctor says which and why.
    pub precision: DefaultPrecision,
    /// Bytes that models and pictures may take together; 0 for three quarters of the memory that the machine, or a control
    /// group, lets the daemon have. What it takes itself, some 50 MiB, and `buffers_bytes` come beside that.
    pub memory_bytes: u64,
    /// Bytes of it in which plugins keep what they made beyond their jobs; 0 for a sixteenth of it, at most 256 MiB. What was used
    /// longest ago goes first, and all of it before a network.
    pub plugin_cache_bytes: u64,
    /// Jobs that may wait; above it a submit is E_BUSY.
    #[schemars(range(min = 1, max = 100_000))]
    pub queue: u32,
    /// Bytes that the requests of waiting jobs may take; above it a submit is E_BUSY.
    #[schemars(range(min = 1_048_576))]
    pub queue_bytes: u64,
    /// Ended jobs that are remembered; the oldest go first.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub history: u32,
    /// Connections at the same time.
    #[schemars(range(min = 1, max = 10_000))]
    pub connections: u32,
    /// Requests of one connection that may be under way; above it a request is E_BUSY.
    #[schemars(range(min = 1, max = 100_000))]
    pub requests_per_connection: u32,
    /// Bytes of one message a client may send.
    #[schemars(range(min = 4096, max = 4_294_967_295_u64))]
    pub message_bytes: u64,
    /// Values in one message a client may send.
    #[schemars(range(min = 64, max = 100_000_000))]
    pub message_elements: u64,
    /// Bytes that all connections together may hold: half for messages that are not whole yet, a quarter for results on
    /// their way, a quarter for all else that waits to be sent; 0 for an eighth of the memory, at most 1 GiB. Above it
    /// large messages wait for each other. A client that stops in the middle of a message loses its connection after
    /// `write_stall_s`.
    pub buffers_bytes: u64,
    /// Bytes that may wait for one slow client: above it previews are dropped, above half of it no further answers
    /// are made, and a client that lets this many bytes of events pile up is disconnected.
    #[schemars(range(min = 65_536))]
    pub outbox_bytes: u64,
    /// Seconds a client may take nothing of what waits for it before its connection is closed.
    #[schemars(range(min = 1, max = 86_400))]
    pub write_stall_s: u64,
    /// Bytes of the pixels of one request's pictures. So many bytes of results also wait in memory while the disk refuses
    /// them; above it a submit is E_BUSY.
    #[schemars(range(min = 192))]
    pub result_bytes: u64,
    /// Seconds a job and its result are kept.
    #[schemars(range(min = 1))]
    pub result_ttl_s: u64,
    /// Bytes of all kept results; the oldest go first. The newest stays in any case, and what somebody waits for until it
    /// is read.
    pub results_total_bytes: u64,
    /// Bytes of given pictures that are kept for requests that name them by their hash (`blobs.put`); those used longest ago go
    /// first.
    pub blobs_bytes: u64,
    /// Seconds that such a picture is kept from its last use on.
    pub blob_ttl_s: u64,
    /// Bytes of `memory_bytes` that one run of an ONNX graph may take beside its weights; 0 for half of it. Graphs are run in
    /// processes of their own, which get no more.
    pub onnx_bytes: u64,
    /// Seconds that such a run may take, and reading the file; then its process is ended.
    #[schemars(range(min = 1, max = 86_400))]
    pub onnx_time_s: u64,
    /// Seconds that the running job may go on once the daemon is told to end (SIGTERM, SIGINT, `shutdown`); then it is
    /// interrupted. Less than service managers wait before they kill.
    #[schemars(range(max = 86_400))]
    pub stop_grace_s: u64,
    /// Seconds without connections and jobs after which the daemon ends; 0 for never.
    pub idle_exit_s: u64,
    /// What is logged: error, warn, info, debug, trace, or a tracing filter.
    pub log_level: String,
    /// How it is logged.
    pub log_format: LogFormat,
}

/// What requests are computed in that do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DefaultPrecision {
    /// The quickest here.
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16 with f32 sums.
    Bf16,
}

impl DefaultPrecision {
    /// What that is on this machine.
    pub(crate) fn resolve(self) -> Precision {
        match self {
            Self::Auto => Precision::best(),
            Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            models_dirs: vec![Self::default_models_dir()],
            plugins_dirs: Vec::new(),
            plugins: PluginConfigs::new(),
            ckpt_dirs: Vec::new(),
            vae_dirs: Vec::new(),
            lora_dirs: Vec::new(),
            embeddings_dirs: Vec::new(),
            hypernetwork_dirs: Vec::new(),
            controlnet_dirs: Vec::new(),
            esrgan_models_paths: Vec::new(),
            gfpgan_models_paths: Vec::new(),
            codeformer_models_paths: Vec::new(),
            hash_in_background: true,
            default_checkpoint: String::new(),
            default_vae: AUTOMATIC_VAE.to_owned(),
            keep_alive_s: -1,
            preload: vec![],
            socket: socket::default_path(),
            state_dir: paths::xdg("XDG_STATE_HOME", ".local/state").join("latentd"),
            threads: 0,
            precision: DefaultPrecision::Auto,
            memory_bytes: 0,
            plugin_cache_bytes: 0,
            queue: 512,
            queue_bytes: 1 << 30,
            history: 10_000,
            connections: 256,
            requests_per_connection: 4096,
            message_bytes: 256 << 20,
            message_elements: 1 << 20,
            buffers_bytes: 0,
            outbox_bytes: 64 << 20,
            write_stall_s: 30,
            result_bytes: 256 << 20,
            result_ttl_s: 24 * 3600,
            results_total_bytes: 2 << 30,
            blobs_bytes: 256 << 20,
            blob_ttl_s: 3600,
            onnx_bytes: 0,
            onnx_time_s: 600,
            stop_grace_s: 60,
            idle_exit_s: 0,
            log_level: "info".into(),
            log_format: LogFormat::Text,
        }
    }
}

impl Config {
    /// Settings that a daemon takes at its start and not again.
    pub(crate) const NEEDS_RESTART: &[&str] = &[
        "models_dirs",
        "plugins_dirs",
        "preload",
        "ckpt_dirs",
        "vae_dirs",
        "lora_dirs",
        "embeddings_dirs",
        "hypernetwork_dirs",
        "controlnet_dirs",
        "esrgan_models_paths",
        "gfpgan_models_paths",
        "codeformer_models_paths",
        "hash_in_background",
        "socket",
        "state_dir",
        "threads",
        "memory_bytes",
        "plugin_cache_bytes",
        "buffers_bytes",
        "log_format",
    ];

    /// Names of the settings that differ.
    pub(crate) fn differences(&self, other: &Self) -> Result<Vec<String>, toml::ser::Error> {
        let (own, other) = (toml::Table::try_from(self)?, toml::Table::try_from(other)?);
        Ok(own
            .into_iter()
            .filter(|(name, value)| other.get(name) != Some(value))
            .map(|(name, _)| name)
            .collect())
    }

    /// These settings, but where a restart is needed those of `before`.
    pub(crate) fn keeping_what_needs_restart(self, before: &Self) -> Self {
        let Self {
            models_dirs,
            plugins_dirs,
            ckpt_dirs,
            vae_dirs,
            lora_dirs,
            embeddings_dirs,
            hypernetwork_dirs,
            controlnet_dirs,
            esrgan_models_paths,
            gfpgan_models_paths,
            codeformer_models_paths,
            hash_in_background,
            preload,
            socket,
            state_dir,
            threads,
            memory_bytes,
            plugin_cache_bytes,
            buffers_bytes,
            log_format,
            ..
        } = before.clone();
        Self {
            models_dirs,
            plugins_dirs,
            ckpt_dirs,
            vae_dirs,
            lora_dirs,
            embeddings_dirs,
            hypernetwork_dirs,
            controlnet_dirs,
            esrgan_models_paths,
            gfpgan_models_paths,
            codeformer_models_paths,
            hash_in_background,
            preload,
            socket,
            state_dir,
            threads,
            memory_bytes,
            plugin_cache_bytes,
            buffers_bytes,
            log_format,
            ..self
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{}: {error}", path.display())]
    Syntax { path: PathBuf, error: toml::de::Error },
    #[error("{origin}: {reason}")]
    Setting { origin: String, reason: String },
}

impl Config {
    /// Reads the file (the one named, which must exist, or the default one, which need not) and the environment.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let path = file.map_or_else(Self::default_file, Path::to_owned);
        let mut table = match std::fs::read_to_string(&path) {
            Ok(text) => text
                .parse::<toml::Table>()
                .map_err(|error| ConfigError::Syntax { path: path.clone(), error })?,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                toml::Table::new()
            }
            Err(error) => return Err(ConfigError::Read { path, error }),
        };
        let schema = schema::of::<Self>();
        let origin = path.display().to_string();
        check(&schema, &table, &origin)?;
        settle_paths(&schema, &mut table, path.parent(), |_| origin.clone())?;
        let mut given = environment(&schema, |variable| std::env::var_os(variable))?;
        check(&schema, &given, "environment")?;
        settle_paths(&schema, &mut given, None, variable)?;
        table.extend(given);
        let config: Self = table.try_into().map_err(|error: toml::de::Error| ConfigError::Setting {
            origin,
            reason: error.message().to_owned(),
        })?;
        Ok(config)
    }

    /// Every setting as a configuration file would have it, with what it means.
    pub(crate) fn to_commented_toml(&self) -> Result<String, toml::ser::Error> {
        let schema = schema::of::<Self>();
        let meaning =
            |name: &str| schema.pointer(&format!("/properties/{name}/description")).and_then(Json::as_str);
        let values = toml::Table::try_from(self)?;
        let lines = values.iter().map(|(name, value)| {
            let meaning = meaning(name).unwrap_or_default().replace('\n', "\n# ");
            format!("# {meaning}\n{name} = {value}\n")
        });
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// The models folder of those who configure none.
    pub(crate) fn default_models_dir() -> PathBuf {
        paths::xdg("XDG_DATA_HOME", ".local/share").join("latentd").join("models")
    }

    /// Where it is kept what users agreed that plugins may.
    pub(crate) fn agreements() -> Agreements {
        let data = paths::xdg("XDG_DATA_HOME", ".local/share").join("latentd");
        Agreements::new(data.join("plugin-agreements.json"))
    }

    /// The folder with plugins of those who configure none.
    pub(crate) fn default_plugins_dir() -> PathBuf {
        paths::xdg("XDG_DATA_HOME", ".local/share").join("latentd").join("plugins")
    }

    /// The settings of folders that the environment gives, by their variables, as they were settled: from the root on.
    pub(crate) fn folders_of_environment(&self) -> Vec<(String, Vec<PathBuf>)> {
        let schema = schema::of::<Self>();
        let values = toml::Table::try_from(self).unwrap_or_default();
        let given = values.into_iter().filter_map(|(name, value)| {
            let is_path =
                schema.pointer(&format!("/properties/{name}/format")).and_then(Json::as_str) == Some("path");
            let variable = variable(&name);
            let is_given = std::env::var_os(&variable).is_some_and(|given| !given.is_empty());
            let folders = value.as_array().filter(|_| is_path && is_given)?;
            Some((variable, folders.iter().filter_map(toml::Value::as_str).map(PathBuf::from).collect()))
        });
        given.collect()
    }

    /// All folders with plugins, in the order in which they are searched.
    pub(crate) fn plugin_folders(&self) -> Vec<Folder> {
        let folder = |path, is_named, is_programs| Folder { path, is_programs, is_named };
        let named = self.plugins_dirs.iter().map(|path| folder(path.clone(), true, false));
        let program = std::env::current_exe().ok();
        let own = program.as_deref().and_then(Path::parent);
        let own = own.map(|path| folder(path.to_owned(), false, true));
        named.chain([folder(Self::default_plugins_dir(), false, false)]).chain(own).collect()
    }

    /// All folders with models.
    pub(crate) fn models_roots(&self) -> Vec<Root> {
        use LibraryKind as K;
        let of_kind = [
            (&self.ckpt_dirs, K::Checkpoint),
            (&self.vae_dirs, K::Vae),
            (&self.lora_dirs, K::Lora),
            (&self.embeddings_dirs, K::Embedding),
            (&self.hypernetwork_dirs, K::Hypernetwork),
            (&self.controlnet_dirs, K::Controlnet),
            (&self.esrgan_models_paths, K::Upscaler),
            (&self.gfpgan_models_paths, K::Restorer),
            (&self.codeformer_models_paths, K::Restorer),
        ];
        let of_kind = of_kind.into_iter().flat_map(|(folders, kind)| {
            folders.iter().map(move |path| Root { path: path.clone(), kind: Some(kind) })
        });
        self.models_dirs.iter().cloned().map(Root::of_models).chain(of_kind).collect()
    }

    /// Folders in which A1111's files of styles may be: models folders, and its root if one is its `models`.
    pub(crate) fn styles_dirs(&self) -> Vec<PathBuf> {
        let is_models = |path: &&Path| path.file_name().is_some_and(|name| name == "models");
        let root = |path: &Path| Some(path).filter(is_models)?.parent().map(Path::to_owned);
        let mut all = vec![];
        for path in &self.models_dirs {
            all.extend(
                [path.clone()]
                    .into_iter()
                    .chain(root(path))
                    .filter(|each| !all.contains(each))
                    .collect::<Vec<_>>(),
            );
        }
        all
    }

    /// Where the file is looked for.
    pub(crate) fn default_file() -> PathBuf {
        paths::xdg("XDG_CONFIG_HOME", ".config").join("latentd").join("config.toml")
    }

    /// Threads that compute, at least one.
    pub(crate) fn compute_threads(&self) -> usize {
        match self.threads {
            0 => threads::cores() as usize,
            threads => threads as usize,
        }
    }

    /// Bytes that models and pictures may take together.
    pub(crate) fn memory_budget(&self) -> u64 {
        match self.memory_bytes {
            0 => machine::total_memory().map_or(8 << 30, |total| total / 4 * 3),
            bytes => bytes,
        }
    }

    /// Bytes of a budget in which plugins keep what they made.
    pub(crate) fn plugin_cache_budget(&self, budget: u64) -> u64 {
        const MOST: u64 = 256 << 20;
        match self.plugin_cache_bytes {
            0 => (budget / 16).min(MOST),
            bytes => bytes.min(budget),
        }
    }

    /// Bytes that connections may hold.
    pub(crate) fn buffers_budget(&self) -> u64 {
        const MOST: u64 = 1 << 30;
        match self.buffers_bytes {
            0 => machine::total_memory().map_or(MOST, |total| (total / 8).min(MOST)),
            bytes => bytes,
        }
    }
}

fn check(schema: &Json, table: &toml::Table, origin: &str) -> Result<(), ConfigError> {
    let setting = |reason| ConfigError::Setting { origin: origin.to_owned(), reason };
    schema::check(schema, &toml::Value::Table(table.clone())).map_err(|error| setting(error.text))?;
    let threads = table.get("threads").and_then(toml::Value::as_integer).unwrap_or_default();
    let threads = u32::try_from(threads).unwrap_or(u32::MAX);
    threads::check(threads, threads::cores()).map_err(|reason| setting(format!("threads: {reason}")))
}

/// Makes the paths in a table whole. Relative ones begin in `base`, or where this program was started.
fn settle_paths(
    schema: &Json,
    table: &mut toml::Table,
    base: Option<&Path>,
    origin: impl Fn(&str) -> String,
) -> Result<(), ConfigError> {
    let is_path = |name: &str| schema.pointer(&format!("/properties/{name}/format")) == Some(&"path".into());
    for (name, value) in table.iter_mut().filter(|(name, _)| is_path(name)) {
        let values = match value {
            toml::Value::Array(items) => items.as_mut_slice(),
            one => std::slice::from_mut(one),
        };
        for value in values {
            let path = Path::new(value.as_str().unwrap_or_default());
            let whole = match base {
                Some(base) => paths::absolute(path, base),
                None => paths::absolute_from_here(path),
            };
            let setting = |reason| ConfigError::Setting { origin: origin(name), reason };
            let whole = whole.map_err(|error| setting(format!("{name}: {error}")))?;
            let text = whole.into_os_string().into_string();
            *value = toml::Value::String(text.map_err(|_| setting(format!("{name}: is not UTF-8")))?);
        }
    }
    Ok(())
}

/// The environment variable of a setting.
fn variable(setting: &str) -> String {
    format!("LATENTD_{}", setting.to_uppercase())
}

impl Tree for toml::Value {
    const WHOLE_FLOATS: bool = false;

    fn view(&self) -> View<'_, Self> {
        match self {
            Self::String(text) => View::Text(Some(text)),
            Self::Integer(number) => View::Integer(i128::from(*number)),
            Self::Float(number) => View::Float(*number),
            Self::Boolean(value) => View::Boolean(*value),
            Self::Datetime(time) => View::Other(time.to_string()),
            Self::Array(items) => View::Array(items),
            Self::Table(table) => {
                View::Map(table.iter().map(|(key, value)| (Ok(key.as_str()), value)).collect())
            }
        }
    }
}

/// The settings that the environment gives, read as the schema says.
fn environment(schema: &Json, read: impl Fn(&str) -> Option<OsString>) -> Result<toml::Table, ConfigError> {
    let mut settings = toml::Table::new();
    let fields = schema.get("properties").and_then(Json::as_object);
    for (name, field) in fields.into_iter().flatten() {
        let variable = variable(name);
        if field.get("type").and_then(Json::as_str) == Some("object") {
            continue;
        }
        let Some(given) = read(&variable).filter(|given| !given.is_empty()) else {
            continue;
        };
        let unusable =
            |reason: &str| ConfigError::Setting { origin: variable.clone(), reason: reason.to_owned() };
        let text = |given: OsString| given.into_string().map_err(|_| unusable("is not UTF-8"));
        let value = match field.get("type").and_then(Json::as_str) {
            Some("array") => {
                let parts = std::env::split_paths(&given).map(|part| text(part.into_os_string()));
                toml::Value::Array(parts.map(|part| part.map(toml::Value::String)).collect::<Result<_, _>>()?)
            }
            Some("boolean") => {
                let value = text(given)?.trim().parse();
                toml::Value::Boolean(value.map_err(|_| unusable("must be true or false"))?)
            }
            Some("integer") => {
                let number = text(given)?.trim().parse();
                toml::Value::Integer(number.map_err(|_| unusable("must be an integer"))?)
            }
            _ => toml::Value::String(text(given)?),
        };
        settings.insert(name.clone(), value);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("config.toml");
        std::fs::write(&file, text).expect("written");
        Config::load(Some(&file)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_doctor_prints_is_a_configuration_file() {
        let config = Config { queue: 7, ..Config::default() };
        let text = config.to_commented_toml().expect("printed");
        assert!(text.contains("# Jobs that may wait; above it a submit is E_BUSY.\nqueue = 7\n"), "{text}");
        assert_eq!(load(&text), Ok(config));
    }

    #[test]
    fn settings_are_read_and_wrong_ones_named() {
        assert_eq!(load("queue = 7").map(|config| config.queue), Ok(7));
        for (text, expected) in [
            ("que = 7", "did you mean 'queue'?"),
            ("queue = 0", "queue: 0 is out of range; give 1 to 100000"),
            ("queue = 'x'", "queue: 'x' must be an integer"),
            ("log_format = 'yaml'", "'yaml' is none of text, json"),
            ("queue = ", "TOML parse error"),
            ("threads = 1000000", "threads: 1000000 is out of range with"),
            ("threads = -1", "threads: -1 is out of range"),
            (
                "models_dirs = ['/a', '~you/models']",
                "models_dirs: '~you/models' means the home folder of another",
            ),
            ("socket = ''", "socket: a path is empty"),
            ("default_vae = ''", "default_vae: is empty"),
        ] {
            let error = load(text).expect_err("refused");
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn paths_are_whole_wherever_they_come_from() {
        let schema = schema::of::<Config>();
        let table =
            "models_dirs = ['~/a', 'b', '/c']\nstate_dir = '~'\nsocket = 'run/s'\ndefault_checkpoint = '~'";
        let mut table: toml::Table = table.parse().expect("TOML");
        settle_paths(&schema, &mut table, Some(Path::new("/base")), str::to_owned).expect("settled");
        let home = std::env::home_dir().expect("a home folder").display().to_string();
        assert_eq!(
            table["models_dirs"].as_array().expect("several")[0].as_str(),
            Some(&*format!("{home}/a"))
        );
        assert_eq!(table["models_dirs"].as_array().expect("several")[1].as_str(), Some("/base/b"));
        assert_eq!(table["models_dirs"].as_array().expect("several")[2].as_str(), Some("/c"));
        assert_eq!(table["state_dir"].as_str(), Some(&*home));
        assert_eq!(table["socket"].as_str(), Some("/base/run/s"));
        assert_eq!(table["default_checkpoint"].as_str(), Some("~"), "a name, no path");
        let mut given = toml::Table::from_iter([("socket".to_owned(), "~you/s".into())]);
        let error = settle_paths(&schema, &mut given, None, variable).expect_err("refused").to_string();
        assert!(error.starts_with("LATENTD_SOCKET: socket: '~you/s'"), "{error}");
        // Every setting that is a path is one of these; a list is of paths, but for one of names.
        let defaults = toml::Table::try_from(Config::default()).expect("a table");
        for (name, value) in defaults {
            let is_path = value.as_str().is_some_and(|text| text.starts_with('/'))
                || (value.is_array() && name != "preload");
            let marked = schema.pointer(&format!("/properties/{name}/format")) == Some(&"path".into());
            assert_eq!(is_path, marked, "{name}");
        }
    }

    #[test]
    fn plugins_are_searched_where_it_is_said_then_where_they_always_are() {
        let program = std::env::current_exe().expect("a program");
        let folder =
            |path: &Path, is_named, is_programs| Folder { path: path.to_owned(), is_programs, is_named };
        let own = folder(program.parent().expect("a folder"), false, true);
        let default = folder(&Config::default_plugins_dir(), false, false);
        assert!(default.path.ends_with("latentd/plugins"), "{default:?}");
        assert_eq!(Config::default().plugin_folders(), [default.clone(), own.clone()]);
        let config = load("plugins_dirs = ['/b', '/a']").expect("read");
        let given = ["/b", "/a"].map(|path| folder(Path::new(path), true, false));
        assert_eq!(config.plugin_folders(), [&given[..], &[default, own]].concat());
    }

    #[test]
    fn what_needs_a_restart_stays_and_the_rest_changes() {
        // Another value for each setting.
        let mut table = toml::Table::try_from(Config::default()).expect("a table");
        for (name, value) in &mut table {
            *value = match (name.as_str(), &value) {
                ("precision", _) => "f32".into(),
                ("log_format", _) => "json".into(),
                (_, toml::Value::Integer(number)) => toml::Value::Integer(number + 1),
                (_, toml::Value::Boolean(value)) => toml::Value::Boolean(!*value),
                (_, toml::Value::Array(_)) => toml::Value::Array(vec!["/other".into()]),
                ("plugins", _) => toml::Value::Table(toml::toml! { ant = { enabled = false } }),
                _ => "other".into(),
            };
        }
        let (before, wanted) = (Config::default(), table.clone().try_into::<Config>().expect("settings"));
        assert_eq!(before.differences(&wanted).expect("compared").len(), table.len());
        let applied = wanted.clone().keeping_what_needs_restart(&before);
        assert_eq!(applied.differences(&wanted).expect("compared"), {
            let mut names = Config::NEEDS_RESTART.to_vec();
            names.sort_unstable();
            names
        });
        assert!(before.differences(&before).expect("compared").is_empty());
    }

    #[test]
    fn the_environment_is_read_by_the_schema() {
        let schema = schema::of::<Config>();
        let read = |variable: &str| match variable {
            "LATENTD_QUEUE" => Some("9".into()),
            "LATENTD_MODELS_DIRS" => Some("/a:/b".into()),
            "LATENTD_LOG_LEVEL" => Some("debug".into()),
            "LATENTD_LORA_DIRS" => Some("/c".into()),
            "LATENTD_HASH_IN_BACKGROUND" => Some("false".into()),
            _ => None,
        };
        let settings = environment(&schema, read).expect("readable");
        assert_eq!(settings.len(), 5);
        assert_eq!(settings["hash_in_background"].as_bool(), Some(false));
        assert_eq!(settings["models_dirs"].as_array().map(Vec::len), Some(2));
        let error = environment(&schema, |_| Some("x".into())).expect_err("refused").to_string();
        assert!(error.contains("must be an integer"), "{error}");
    }
}
