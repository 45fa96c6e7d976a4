//! `latentd jobs`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use latentd_client::Client;
use latentd_client::protocol::{
    EventKind, JobListParams, JobState, JobView, MergeResult, Pass, PluginProgress,
};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::launch::ask;
use super::output::{print, print_json, say, size, visible};
use super::pictures::Target;
use crate::clock;

/// The method whose jobs draw no pictures.
const MERGE: &str = "models.merge";

/// Flags of `jobs`.
#[derive(Debug, Args)]
pub(super) struct JobsArgs {
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// List the newest jobs
    List {
        /// Only jobs in this state: resolving, queued, running, finished, failed, cancelled, interrupted
        #[arg(long, value_parser = parse_state)]
        state: Option<JobState>,
        /// How many at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one job
    Get {
        /// Its id
        job: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Wait for a job; says what came of it
    Wait {
        /// Its id
        job: String,
    },
    /// Wait for a job, and write its pictures to files
    Fetch {
        /// Its id
        job: String,
        /// The file to write: .png, .jpg or .webp; `-` for PNG on stdout [default: latentd-SEED.png]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Cancel a job
    Cancel {
        /// Its id
        job: String,
    },
    /// Print what happens to one job, or to all, as it happens
    Watch {
        /// Its id; every job if left out
        job: Option<String>,
    },
}

fn parse_state(text: &str) -> Result<JobState, String> {
    JobState::from_name(text).ok_or_else(|| {
        let names: Vec<_> = JobState::ALL.iter().map(|(_, name)| *name).collect();
        format!("known: {}", names.join(", "))
    })
}

/// Runs the command.
pub(super) async fn run(global: &GlobalArgs, args: JobsArgs) -> Result<ExitCode, Failure> {
    if let JobsCommand::Fetch { job, output } = &args.command {
        let target = Target::new(output.clone())?;
        // What is kept can be fetched when the daemon that drew it is gone.
        let fetch = async |client: &Client| match client.job(job).await?.method.as_str() {
            MERGE => Ok(None),
            _ => client.wait(job).await.map(Some),
        };
        let (_, result) = ask(global, &global.config()?, &[], fetch).await?;
        let Some(result) = result else {
            return Err(Failure::usage(format!("job {job} is of {MERGE}, which draws no pictures")));
        };
        for notice in &result.notices {
            say(&format!("latentd: {}", visible(notice)));
        }
        target.write(result.images, result.artifacts)?;
        return Ok(ExitCode::SUCCESS);
    }
    let client = global.connect().await?;
    match args.command {
        JobsCommand::Fetch { .. } => (),
        JobsCommand::List { state, limit, json } => {
            let jobs = client.jobs(&JobListParams { state, limit: Some(limit) }).await?;
            if json {
                print_json(&jobs)?;
            } else {
                print(&jobs.iter().map(line).collect::<String>())?;
            }
        }
        JobsCommand::Get { job, json } => {
            let view = client.job(&job).await?;
            if json { print_json(&view)? } else { print(&line(&view))? }
        }
        JobsCommand::Wait { job } if client.job(&job).await?.method == MERGE => {
            let merged: MergeResult = client.wait_for(&job).await?;
            print(&format!("{}  {}\n", visible(&merged.path), size(merged.bytes)))?;
        }
        JobsCommand::Wait { job } => {
            let result = client.wait(&job).await?;
            let mut text = String::new();
            for image in &result.images {
                let forms = [
                    ("png", &image.png),
                    ("jpeg", &image.jpeg),
                    ("webp", &image.webp),
                    ("raw pixels", &image.raw),
                ];
                let given = forms.iter().find(|(_, bytes)| bytes.is_some());
                let form = image.path.as_deref().or(given.map(|(form, _)| *form)).unwrap_or("nothing");
                let seed = image.seed.unwrap_or_default();
                let _ = writeln!(text, "{}x{}  seed {seed}  {}", image.width, image.height, visible(form));
            }
            print(&text)?;
        }
        JobsCommand::Cancel { job } => print(&line(&client.cancel(&job).await?))?,
        JobsCommand::Watch { job } => {
            let mut events = match &job {
                Some(job) => client.subscribe(job, 0).await?,
                None => client.subscribe_all().await?,
            };
            while let Some(event) = events.next().await {
                print(&format!("{}  {}\n", visible(&event.job), visible(&describe(&event.kind))))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(view: &JobView) -> String {
    let age = (clock::now() - view.created_at).max(0.0);
    let mut line = format!(
        "{}  {:11}  {}/{}  {age:.0} s ago",
        visible(&view.job),
        view.state.name(),
        view.step,
        view.steps
    );
    if let Some(position) = view.position {
        let _ = write!(line, "  {position} before it");
    }
    if let Some(eta) = view.eta_s {
        let _ = write!(line, "  {eta:.0} s left");
    }
    if let Some(error) = &view.error {
        let _ = write!(line, "  {}", visible(&error.to_string()));
    }
    line.push('\n');
    line
}

fn describe(kind: &EventKind) -> String {
    match kind {
        EventKind::Queued => "queued".into(),
        EventKind::Started => "started".into(),
        EventKind::Progress { stage, pass, step, steps, eta_s, plugin } => {
            let left = eta_s.map(|eta| format!(", {eta:.0} s left")).unwrap_or_default();
            let of = if *pass == Some(Pass::Hires) { " (hires)" } else { "" };
            let plugin = plugin.as_ref().map(|plugin| {
                let PluginProgress { name, share, what } = plugin;
                format!(", {name} {:.0}% {}", share * 100.0, visible(what)).trim_end().to_owned()
            });
            let plugin = plugin.unwrap_or_default();
            format!("{}{of} {step}/{steps}{left}{plugin}", stage.as_deref().unwrap_or("step"))
        }
        EventKind::Preview { step, image, plugin, .. } => {
            let by = plugin.as_ref().map(|plugin| format!(" by {plugin}")).unwrap_or_default();
            format!("preview {}x{} at step {step}{by}", image.width, image.height)
        }
        EventKind::Finished => "finished".into(),
        EventKind::Failed { error } => format!("failed: {error}"),
        EventKind::Cancelled => "cancelled".into(),
    }
}
