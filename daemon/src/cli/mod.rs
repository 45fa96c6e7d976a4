//! The command line.

mod bench;
mod call;
mod confined;
mod convert;
mod doctor;
mod failure;
mod generate;
mod give_way;
mod global;
mod hires;
mod info;
mod init_pictures;
mod inspect;
mod install;
mod jobs;
mod launch;
mod log_file;
mod log_lines;
mod merge;
mod models;
mod new_plugin;
mod one_job;
mod onnx_host;
mod outpaint;
mod output;
mod pictures;
mod plugin_host;
mod plugins;
mod prompt;
mod regions;
mod reload;
mod restoring;
mod sampling;
mod sd_upscale;
mod serve;
mod settings;
mod stopped;
mod styles;
mod upscale;
mod validate;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;
use global::GlobalArgs;

/// Keeps Stable Diffusion models in memory and serves every program of one user.
#[derive(Debug, Parser)]
#[command(
    name = "latentd",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 cancelled."
)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground; prints one line with its socket once it is ready
    Serve(Box<settings::ServeArgs>),
    /// Draw pictures from text, with a running daemon or one that this starts
    Generate(Box<generate::GenerateArgs>),
    /// Continue a picture beyond its sides
    Outpaint(Box<outpaint::OutpaintArgs>),
    /// Make pictures larger, or restore faces in them
    Upscale(Box<upscale::UpscaleArgs>),
    /// Say how a picture was made, and the request that repeats it
    Info(info::InfoArgs),
    /// Say how a prompt is read: its tokens, what it says at which steps, the networks that it names
    Prompt(prompt::PromptArgs),
    /// List, save and delete styles: texts around prompts, by name
    Styles(styles::StylesArgs),
    /// List plugins, and say what parameters they take
    Plugins(plugins::PluginsArgs),
    /// Call any method by its name, such as one that a plugin has
    Call(call::CallArgs),
    /// Look at jobs, wait for them, cancel them
    Jobs(jobs::JobsArgs),
    /// Look at the library and at single files, convert and merge them, bring models into memory and out of it
    Models(models::ModelsArgs),
    /// Say what hardware, folders, socket and limits there are
    Doctor(doctor::DoctorArgs),
    /// Measure how fast and how large the stages of a picture are here
    Bench(bench::BenchArgs),
    #[command(hide = true)]
    Confined(confined::ConfinedArgs),
    #[command(hide = true)]
    OnnxHost(onnx_host::OnnxHostArgs),
    /// The process that a plugin runs in
    #[command(hide = true)]
    PluginHost(plugin_host::PluginHostArgs),
}

/// Reads the arguments. Text that begins with a hyphen and has a space in it is no flag, but what is to be drawn.
fn parse(arguments: &[OsString]) -> Cli {
    Cli::try_parse_from(arguments).unwrap_or_else(|error| {
        let is_text = |argument: &OsString| {
            let text = argument.to_string_lossy();
            let before_value = text.split('=').next().unwrap_or_default();
            text.starts_with('-') && before_value.contains(char::is_whitespace)
        };
        let moved = arguments.iter().position(is_text).and_then(|place| {
            let mut arguments = arguments.to_vec();
            let text = arguments.remove(place);
            arguments.extend(["--".into(), text]);
            Cli::try_parse_from(arguments).ok()
        });
        moved.unwrap_or_else(|| error.exit())
    })
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let cli = parse(&std::env::args_os().collect::<Vec<_>>());
    let outcome =
        latentd_models::nn::check_kernels().map_err(Failure::usage).and_then(|()| match cli.command {
            Command::Serve(args) => serve::run(&cli.global, *args),
            Command::Generate(args) => block_on(generate::run(&cli.global, *args)),
            Command::Outpaint(args) => block_on(outpaint::run(&cli.global, *args)),
            Command::Upscale(args) => block_on(upscale::run(&cli.global, *args)),
            Command::Info(args) => block_on(info::run(&cli.global, args)),
            Command::Prompt(args) => block_on(prompt::run(&cli.global, args)),
            Command::Styles(args) => block_on(styles::run(&cli.global, args)),
            Command::Plugins(args) => block_on(plugins::run(&cli.global, args)),
            Command::Call(args) => block_on(call::run(&cli.global, args)),
            Command::Jobs(args) => block_on(jobs::run(&cli.global, args)),
            Command::Models(args) => block_on(models::run(&cli.global, args)),
            Command::Doctor(args) => block_on(doctor::run(&cli.global, args)),
            Command::Bench(args) => bench::run(&cli.global, &args),
            Command::Confined(args) => confined::run(args).map(|never| match never {}),
            Command::OnnxHost(args) => onnx_host::run(&args),
            Command::PluginHost(args) => plugin_host::run(&args),
        });
    outcome.unwrap_or_else(|failure| {
        if !failure.text.is_empty() {
            output::say(&format!("latentd: {}", failure.text));
        }
        ExitCode::from(failure.code)
    })
}

/// Runs a command that speaks to a daemon.
fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(command);
    // Not by dropping it: that would wait for a daemon that hangs at its start.
    runtime.shutdown_background();
    outcome
}
