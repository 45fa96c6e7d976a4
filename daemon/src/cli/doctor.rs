//! `latentd doctor`: what this machine and this configuration look like to the daemon.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use latentd_client::Client;
use latentd_client::protocol::{FolderStatus, LibraryListParams, PluginEntry, Status};
use latentd_models::nn::{self, Precision};
use serde::Serialize;

use super::failure::Failure;
use super::global::GlobalArgs;
use super::output::{print, print_json, size, visible};
use crate::config::{Config, DefaultPrecision};
use crate::demo::{self, DemoModel};
use crate::machine;
use crate::plugins;
use crate::sandbox;
use crate::threads;

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Only the settings in force, as a configuration file with what each means
    #[arg(long, conflicts_with = "json")]
    settings: bool,
}

/// Everything it says.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    cpu: Option<String>,
    cpu_features: Vec<String>,
    /// The kernels' instruction set.
    kernels: &'static str,
    /// What precision "auto" means here.
    auto_precision: &'static str,
    /// Why.
    auto_precision_reason: String,
    cores: usize,
    memory_bytes: Option<u64>,
    memory_available_bytes: Option<u64>,
    config_file: PathBuf,
    config_file_found: bool,
    settings: Config,
    compute_threads: usize,
    memory_budget_bytes: u64,
    models_dirs: Vec<Folder>,
    /// Plugins that are there, by their manifests alone; those too that cannot be used.
    plugins: Vec<PluginEntry>,
    /// What the settings say of plugins that are not there.
    plugin_problems: Vec<String>,
    /// What this system cannot deny to processes that run what is not latentd's own.
    not_confined: Vec<String>,
    /// Whether this program carries the demo model.
    demo_model: bool,
    daemon: Option<Status>,
    daemon_error: Option<String>,
    library_entries: Option<usize>,
    library_problems: Vec<String>,
    /// What draws when a request names no checkpoint, as the daemon says.
    default_checkpoint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Folder {
    path: PathBuf,
    found: bool,
    safetensors_files: usize,
}

/// Looks around and reports.
pub(super) async fn run(global: &GlobalArgs, args: DoctorArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    if args.settings {
        print(&config.to_commented_toml().map_err(Failure::new)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let config_file = global.config_file()?.unwrap_or_else(Config::default_file);
    let (auto_precision, auto_precision_reason) = Precision::best_and_why();
    let plugins = plugins::look(&config.plugin_folders(), &config.plugins, &Config::agreements());
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        cpu: machine::cpu_name(),
        cpu_features: machine::cpu_features(),
        kernels: nn::kernels(),
        auto_precision: auto_precision.name(),
        auto_precision_reason,
        cores: threads::cores() as usize,
        memory_bytes: machine::total_memory(),
        memory_available_bytes: machine::available_memory(),
        config_file_found: config_file.is_file(),
        config_file,
        compute_threads: config.compute_threads(),
        memory_budget_bytes: config.memory_budget(),
        models_dirs: config.models_roots().iter().map(|root| folder(&root.path)).collect(),
        plugin_problems: plugins::configured_in_vain(&config.plugins, &plugins),
        plugins: plugins.plugins,
        not_confined: sandbox::lacks(),
        demo_model: DemoModel::find().is_some(),
        settings: config,
        daemon: None,
        daemon_error: None,
        library_entries: None,
        library_problems: Vec::new(),
        default_checkpoint: None,
    };
    if let Err(error) = ask_daemon(&mut report).await {
        report.daemon_error = Some(error.to_string());
    }
    if args.json {
        print_json(&report)?;
    } else {
        print(&text(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask_daemon(report: &mut Report) -> Result<(), latentd_client::Error> {
    let client = Client::connect(Some(&report.settings.socket)).await?;
    report.daemon = Some(client.status().await?);
    let library = client.library(&LibraryListParams::default()).await?;
    report.library_entries = Some(library.entries.len());
    report.default_checkpoint = library.default_checkpoint;
    report.library_problems =
        library.problems.iter().map(|problem| format!("{}: {}", problem.path, problem.reason)).collect();
    Ok(())
}

fn folder(path: &Path) -> Folder {
    fn count(path: &Path, depth: usize) -> usize {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|entry| {
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && depth > 0 => count(&path, depth - 1),
                    _ => usize::from(path.extension().is_some_and(|extension| extension == "safetensors")),
                }
            })
            .sum()
    }
    Folder { path: path.to_owned(), found: path.is_dir(), safetensors_files: count(path, 4) }
}

/// A plugin and its settings, as a line.
fn of_plugin(plugin: &PluginEntry) -> String {
    let PluginEntry { name, version, path, state, reason, .. } = plugin;
    let named = name.as_ref().zip(version.as_ref()).map(|(name, version)| format!("{name} {version}, "));
    let why = reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    format!("{}{path}: {state}{why}", named.unwrap_or_default())
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key:14} {}", visible(&value));
    };
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".into(), size);
    line("latentd", report.version.into());
    line("processor", report.cpu.clone().unwrap_or_else(|| "unknown".into()));
    line("features", report.cpu_features.join(" "));
    let auto = format!("auto is {}: {}", report.auto_precision, report.auto_precision_reason);
    let precision = match report.settings.precision {
        DefaultPrecision::Auto => auto,
        set => format!("{} as configured ({auto})", set.resolve().name()),
    };
    line("precision", precision);
    line("cores", format!("{}, {} used for drawing", report.cores, report.compute_threads));
    let free = bytes(report.memory_available_bytes);
    let budget = size(report.memory_budget_bytes);
    line("memory", format!("{}, {free} free, budget {budget}", bytes(report.memory_bytes)));
    let found = if report.config_file_found { "" } else { " (not there; defaults are used)" };
    line("config file", format!("{}{found}", report.config_file.display()));
    line("state folder", report.settings.state_dir.display().to_string());
    line("socket", report.settings.socket.display().to_string());
    for folder in &report.models_dirs {
        let what = if folder.found {
            format!("{} .safetensors files", folder.safetensors_files)
        } else {
            "not there".into()
        };
        line("models folder", format!("{}: {what}", folder.path.display()));
    }
    for plugin in &report.plugins {
        line("plugin", of_plugin(plugin));
    }
    for problem in &report.plugin_problems {
        line("unused", problem.clone());
    }
    if report.not_confined.is_empty() {
        line("confinement", "processes that run what is not latentd's own get what they are granted".into());
    }
    for lack in &report.not_confined {
        line("not confined", format!("a process that runs what is not latentd's own: {lack}"));
    }
    let demo = match DemoModel::find() {
        Some(demo) => format!("{}, built in ({} of this program)", demo::NAME, size(demo.packed_size)),
        None => "not in this build (feature demo)".into(),
    };
    line("demo model", demo);
    let settings = &report.settings;
    line(
        "limits",
        format!(
            "queue {}, message {}, result {}, results {} for {} s, {} connections",
            settings.queue,
            size(settings.message_bytes),
            size(settings.result_bytes),
            size(settings.results_total_bytes),
            settings.result_ttl_s,
            settings.connections
        ),
    );
    match (&report.daemon, &report.daemon_error) {
        (Some(daemon), _) => {
            let (uptime, queued) = (daemon.uptime_s, daemon.queue.queued);
            line(
                "daemon",
                format!("{} (process {}), up {uptime:.0} s, {queued} jobs wait", daemon.version, daemon.pid),
            );
            let folder = |folder: &FolderStatus| {
                format!("{}: {} files, {}", folder.path, folder.files, size(folder.bytes))
            };
            let unsaved = match daemon.storage.unsaved_bytes {
                0 => String::new(),
                bytes => format!("; {} wait in memory for room on the disk", size(bytes)),
            };
            line("results", folder(&daemon.storage.results) + &unsaved);
            line("pictures", folder(&daemon.storage.outputs));
            let entries = report.library_entries.unwrap_or_default();
            line("library", format!("{entries} usable, {} not", report.library_problems.len()));
            let default = match (&report.default_checkpoint, settings.default_checkpoint.as_str()) {
                (Some(name), _) => name.clone(),
                (None, "") => "none".into(),
                (None, configured) => format!("none: '{configured}', as configured, cannot be drawn with"),
            };
            line("checkpoint", format!("{default} (when a request names none)"));
        }
        (None, error) => line("daemon", format!("not running ({})", error.as_deref().unwrap_or("no answer"))),
    }
    for problem in &report.library_problems {
        line("unusable", problem.clone());
    }
    text
}
