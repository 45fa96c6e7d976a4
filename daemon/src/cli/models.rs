//! `latentd models`.

use std::fmt::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use latentd_client::protocol::{LibraryEntry, LibraryKind, LibraryListParams, ResidentModel};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::output::{print, print_json, size};

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
    /// Bring a checkpoint into memory
    Load {
        /// Its name
        checkpoint: String,
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
}

fn parse_kind(text: &str) -> Result<LibraryKind, String> {
    LibraryKind::from_name(text).ok_or_else(|| {
        let names: Vec<_> = LibraryKind::ALL.iter().map(|(_, name)| *name).collect();
        format!("known: {}", names.join(", "))
    })
}

/// Runs the command.
pub(super) async fn run(global: &GlobalArgs, args: ModelsArgs) -> Result<ExitCode, Failure> {
    let client = global.connect().await?;
    match args.command {
        ModelsCommand::List { kind, json } => {
            let library = client.library(&LibraryListParams { kind }).await?;
            if json {
                print_json(&library)?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut text = String::new();
            for entry in &library.entries {
                let architecture = entry.architecture.as_deref().unwrap_or("-");
                let size = size(entry.size);
                let built_in = if entry.built_in { "  built in" } else { "" };
                let LibraryEntry { kind, name, dtype, .. } = entry;
                let _ = writeln!(text, "{kind:12} {name:32} {architecture:14} {dtype:5} {size}{built_in}");
            }
            for problem in &library.problems {
                let _ = writeln!(text, "unusable     {}: {}", problem.path, problem.reason);
            }
            print(&text)?;
        }
        ModelsCommand::Load { checkpoint } => print(&line(&client.load_model(&checkpoint).await?))?,
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

fn line(model: &ResidentModel) -> String {
    let pinned = if model.pinned { "  pinned" } else { "" };
    format!("{:32} {:6} {:5} {}{pinned}\n", model.name, model.architecture, model.dtype, size(model.bytes))
}
