//! `latentd plugins validate`: whether a plugin keeps to what it must, without a daemon.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use latentd_client::protocol::PluginParams;
use serde::Serialize;
use serde_json::Value as Json;

use super::failure::Failure;
use super::output::{print, print_json, visible};
use crate::plugins::{self, Checked, Options, Outcome, Program};

/// Flags of `plugins validate`.
#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// The plugin's library
    library: PathBuf,
    /// What inputs are made from: the same number gives the same report [default: drawn]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The plugin's parameters, as JSON [default: its schema's defaults]
    #[arg(long, value_name = "JSON", value_parser = params)]
    params: Option<PluginParams>,
    /// Seconds that each check may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    limit: Duration,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What `plugins validate` starts to do the checks.
#[derive(Debug, Args)]
pub(super) struct ValidateChildArgs {
    library: PathBuf,
    #[arg(long)]
    seed: u64,
    #[arg(long, value_parser = params)]
    params: Option<PluginParams>,
}

fn params(text: &str) -> Result<PluginParams, String> {
    match serde_json::from_str(text) {
        Ok(Json::Object(params)) => Ok(PluginParams::from_json(params)),
        Ok(_) => Err("an object is wanted, such as {\"strength\": 0.5}".to_owned()),
        Err(error) => Err(format!("no JSON: {error}")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give seconds, such as 10".to_owned())?;
    let is_sane = (0.1..=3600.0).contains(&seconds);
    if is_sane { Ok(Duration::from_secs_f64(seconds)) } else { Err("give 0.1 to 3600 seconds".to_owned()) }
}

/// What was found, for programs.
#[derive(Serialize)]
struct Report {
    library: String,
    /// As the manifest says, if it can be read.
    name: Option<String>,
    version: Option<String>,
    seed: u64,
    ok: usize,
    warned: usize,
    failed: usize,
    skipped: usize,
    checks: Vec<Checked>,
    /// The command that does the same again.
    repeat: String,
}

/// Looks at a library; fails if a check does.
pub(super) fn run(args: ValidateArgs) -> Result<ExitCode, Failure> {
    let ValidateArgs { library, seed, params, limit, json } = args;
    let seed = match seed {
        Some(seed) => seed,
        // Short enough to be typed.
        None => crate::random::u64().map_err(|error| Failure::new(error.text))? >> 32,
    };
    let path =
        std::env::current_exe().map_err(|error| Failure::new(format!("cannot find myself: {error}")))?;
    let program = Program { path, arguments: [CHILD.0, CHILD.1].map(OsString::from).to_vec() };
    let repeat = repeat(&library, seed, params.as_ref(), limit);
    let options = Options { seed, params, limit };
    let mut checks = vec![];
    let mut printed = Ok(());
    if !json {
        print(&format!("{}, seed {seed}\n", visible(&library.to_string_lossy())))?;
    }
    let mut told = |checked: Checked| {
        if !json && printed.is_ok() {
            printed = print(&line(&checked));
        }
        checks.push(checked);
    };
    let plugin = plugins::validate(&library, &program, &options, &mut told)
        .map_err(|error| Failure::new(format!("cannot look at {}: {error}", library.display())))?;
    printed?;
    let count = |word: &str| checks.iter().filter(|checked| said(&checked.outcome).0 == word).count();
    let (ok, warned, failed, skipped) = (count("ok"), count("warning"), count("FAILED"), count("skipped"));
    let (name, version) = plugin.unzip();
    let library = library.to_string_lossy().into_owned();
    let report = Report { library, name, version, seed, ok, warned, failed, skipped, checks, repeat };
    if json {
        print_json(&report)?;
    } else {
        let which = match (&report.name, &report.version) {
            (Some(name), Some(version)) => format!("{} {}: ", visible(name), visible(version)),
            _ => String::new(),
        };
        let Report { repeat, .. } = &report;
        print(&format!(
            "{which}{ok} ok, {warned} warned, {failed} failed, {skipped} skipped\nagain with: {repeat}\n"
        ))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command that [`run_child`] stands behind.
const CHILD: (&str, &str) = ("plugins", "validate-child");

/// Does the checks that it is told to.
pub(super) fn run_child(args: ValidateChildArgs) -> Result<ExitCode, Failure> {
    // What the plugin writes to the log is for whoever writes the plugin.
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false);
    log.with_max_level(tracing::Level::WARN).try_init().ok();
    plugins::run_child(&args.library, args.seed, args.params).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}

/// What is said of an outcome.
fn said(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match outcome {
        Outcome::Ok => ("ok", None),
        Outcome::Warned(why) => ("warning", Some(why)),
        Outcome::Failed(why) => ("FAILED", Some(why)),
        Outcome::Skipped(why) => ("skipped", Some(why)),
    }
}

fn line(checked: &Checked) -> String {
    let (word, why) = said(&checked.outcome);
    let why = why.map_or_else(String::new, |why| format!(": {}", visible(why)));
    format!("{word:8} {}{why}\n", visible(&checked.name))
}

fn repeat(library: &Path, seed: u64, params: Option<&PluginParams>, limit: Duration) -> String {
    let mut command =
        format!("latentd plugins validate {} --seed {seed}", quoted(&library.to_string_lossy()));
    if let Some(params) = params.and_then(PluginParams::to_json) {
        command = format!("{command} --params {}", quoted(&Json::Object(params).to_string()));
    }
    if limit != Duration::from_secs(10) {
        command = format!("{command} --limit {}", limit.as_secs_f64());
    }
    visible(&command).into_owned()
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_how_to_have_it_again() {
        let params = params(r#"{"a": "it's"}"#).expect("read");
        let command = repeat(Path::new("a b/x.so"), 7, Some(&params), Duration::from_secs(2));
        assert_eq!(
            command,
            r#"latentd plugins validate 'a b/x.so' --seed 7 --params '{"a":"it'\''s"}' --limit 2"#
        );
        assert_eq!(
            repeat(Path::new("x.so"), 7, None, Duration::from_secs(10)),
            "latentd plugins validate x.so --seed 7"
        );
        let failed = Checked { name: "a/b".into(), outcome: Outcome::Failed("x\ny".into()) };
        assert_eq!(line(&failed), "FAILED   a/b: x\\ny\n");
        assert!(super::params("[1]").is_err() && seconds("0").is_err() && seconds("nan").is_err());
    }
}
