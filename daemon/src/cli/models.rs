//! `latentd models`.

use std::fmt::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use latentd_client::protocol::{
    LibraryDetails, LibraryEntry, LibraryGetParams, LibraryKind, LibraryListParams, LibraryProblem,
    LoadParams, ResidentModel,
};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::output::{print, print_json, size, visible};
use super::{convert, inspect, merge};

/// Flags of `models`.
#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// List the files in the models folders and what is built in, and files that cannot be used
    List {
        /// Only this kind: checkpoint, vae, lora, embedding, …
        #[arg(long, value_parser = parse_kind)]
        kind: Option<LibraryKind>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of one file, and what is said of it in the file and beside it
    Show {
        /// Its kind: checkpoint, vae, lora, embedding, …
        #[arg(value_parser = parse_kind)]
        kind: LibraryKind,
        /// Its name, its path, or a hash
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring a checkpoint into memory
    Load {
        /// Its name
        checkpoint: String,
        /// A VAE's name; None for the checkpoint's own [default: as the daemon is set]
        #[arg(long)]
        vae: Option<String>,
    },
    /// Drop a checkpoint from memory
    Unload {
        /// Its name
        checkpoint: String,
    },
    /// List what is in memory, the next to go first
    Loaded {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Keep a loaded checkpoint in memory
    Pin {
        /// Its name
        checkpoint: String,
        /// Let it go again when another needs the room
        #[arg(long)]
        off: bool,
    },
    /// Look through the models folders now
    Rescan,
    /// Say what a weight file or a diffusers folder is, and why; needs no daemon
    Inspect(inspect::InspectArgs),
    /// Write a weight file or a diffusers folder as safetensors, in another layout or type; needs no daemon
    Convert(convert::ConvertArgs),
    /// Merge checkpoints, a VAE and LoRAs into a new checkpoint, with a running daemon or one that this starts
    Merge(Box<merge::MergeArgs>),
}

fn parse_kind(text: &str) -> Result<LibraryKind, String> {
    LibraryKind::from_name(text).ok_or_else(|| {
        let names: Vec<_> = LibraryKind::ALL.iter().map(|(_, name)| *name).collect();
        format!("known: {}", names.join(", "))
    })
}

/// Runs the command.
pub(super) async fn run(global: &GlobalArgs, args: ModelsArgs) -> Result<ExitCode, Failure> {
    let command = match args.command {
        ModelsCommand::Inspect(args) => return inspect::run(&args),
        ModelsCommand::Convert(args) => return convert::run(args).await,
        ModelsCommand::Merge(args) => return merge::run(global, *args).await,
        command => command,
    };
    let client = global.connect().await?;
    match command {
        ModelsCommand::Inspect(_) | ModelsCommand::Convert(_) | ModelsCommand::Merge(_) => (),
        ModelsCommand::List { kind, json } => {
            let library = client.library(&LibraryListParams { kind }).await?;
            if json {
                print_json(&library)?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut text: String = library.entries.iter().map(entry_line).collect();
            for LibraryProblem { path, reason } in &library.problems {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "unusable     {}: {}", visible(path), visible(reason));
            }
            print(&text)?;
        }
        ModelsCommand::Show { kind, name, json } => {
            let entry = client.library_entry(&LibraryGetParams { kind, name }).await?;
            if json { print_json(&entry)? } else { print(&shown(&entry))? }
        }
        ModelsCommand::Load { checkpoint, vae } => {
            print(&line(&client.load_model_with(&LoadParams { checkpoint, vae }).await?))?;
        }
        ModelsCommand::Unload { checkpoint } => {
            let unloaded = client.unload_model(&checkpoint).await?;
            print(if unloaded { "unloaded\n" } else { "was not in memory\n" })?;
        }
        ModelsCommand::Loaded { json } => {
            let models = client.loaded_models().await?;
            if json {
                print_json(&models)?;
            } else {
                print(&models.iter().map(line).collect::<String>())?;
            }
        }
        ModelsCommand::Pin { checkpoint, off } => print(&line(&client.pin_model(&checkpoint, !off).await?))?,
        ModelsCommand::Rescan => {
            let found = client.rescan().await?;
            print(&format!("{} usable, {} not\n", found.entries, found.problems))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One file: what it is, and where.
fn entry_line(entry: &LibraryEntry) -> String {
    let LibraryEntry { kind, name, dtype, also, .. } = entry;
    let (architecture, prediction) = (entry.architecture.as_deref(), entry.prediction.as_deref());
    let place = entry.path.as_deref().map_or("built in".into(), visible);
    let name = visible(name);
    let columns = format!(
        "{kind:12} {name:32} {:14} {:7} {dtype:5} {:>10}  {place}",
        architecture.unwrap_or("-"),
        prediction.unwrap_or("-"),
        size(entry.size)
    );
    let also: Vec<_> = also.iter().map(|kind| kind.name()).collect();
    let also = if also.is_empty() { String::new() } else { format!("  (holds also: {})", also.join(", ")) };
    let also = if entry.lacks_vae { format!("{also}  (has no VAE)") } else { also };
    let unsupported =
        entry.unsupported.as_ref().map_or_else(String::new, |why| format!("  ({})", visible(why)));
    format!("{columns}{also}{unsupported}\n")
}

/// All that is known of one file, a line each.
fn shown(entry: &LibraryEntry) -> String {
    let mut text = entry_line(entry);
    let mut line = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key:14} {}", visible(value));
        }
    };
    line("format", entry.format.as_deref());
    line("layout", entry.layout.as_deref());
    line("SHA-256", entry.hash.as_deref());
    line("old hash", entry.old_hash.as_deref());
    line("add-on hash", entry.addon_hash.as_deref());
    line("base model", entry.base_model.as_deref());
    line("preview", entry.preview.as_deref());
    let none = LibraryDetails::default();
    let details = entry.details.as_deref().unwrap_or(&none);
    line("trained as", details.output_name.as_deref());
    line("name", details.model_name.as_deref());
    line("for", details.base_model.as_deref());
    for words in &details.trigger_words {
        line("trigger words", Some(words));
    }
    let tags: Vec<_> = details.tags.iter().map(|tag| format!("{} ({})", tag.tag, tag.count)).collect();
    line("tags", (!tags.is_empty()).then(|| tags.join(", ")).as_deref());
    line("weight", details.preferred_weight.map(|weight| weight.to_string()).as_deref());
    line("description", details.description.as_deref());
    line("notes", details.notes.as_deref());
    line("version", details.civitai_version.map(|number| number.to_string()).as_deref());
    line("model", details.civitai_model.map(|number| number.to_string()).as_deref());
    for (key, value) in &details.metadata {
        line("metadata", Some(&format!("{key} = {value}")));
    }
    for ignored in &details.ignored {
        line("ignored", Some(ignored));
    }
    text
}

fn line(model: &ResidentModel) -> String {
    let pinned = if model.pinned { "  pinned" } else { "" };
    let name = visible(&model.name);
    let vae = model.vae.as_deref().map_or_else(String::new, |vae| format!("  with {}", visible(vae)));
    format!("{name:32} {:6} {:5} {}{vae}{pinned}\n", model.architecture, model.dtype, size(model.bytes))
}
