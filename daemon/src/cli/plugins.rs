//! `latentd plugins`: what is installed, and what parameters it takes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use latentd_client::Client;
use latentd_client::protocol::{PluginEntry, PluginParams};
use serde_json::Value as Json;

use super::failure::Failure;
use super::global::GlobalArgs;
use super::install::{self, InstallArgs};
use super::launch::ask;
use super::new_plugin::{self, Language};
use super::output::{print, print_json, say, visible};
use super::validate::{self, ValidateArgs, ValidateChildArgs};
use crate::config::Config;

/// Flags of `plugins`.
#[derive(Debug, Args)]
pub(super) struct PluginsArgs {
    #[command(subcommand)]
    command: PluginsCommand,
}

#[derive(Debug, Subcommand)]
enum PluginsCommand {
    /// List the plugins that were found, and why some of them cannot be used
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a folder with a plugin that works, to begin from
    New {
        /// What requests will call it: a-z, 0-9 and '-'
        name: String,
        /// What it is written in
        #[arg(long, value_enum, default_value_t = Language::C)]
        lang: Language,
        /// Where, if not in NAME
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Show what a plugin does and asks for, and put its file into the folder where latentd finds it
    Install(InstallArgs),
    /// Remove a plugin that was installed
    Remove {
        /// Its name
        name: String,
    },
    /// Use a plugin again that was set aside after crashes, and agree to what it asks for
    Enable {
        /// Its name
        name: String,
        /// Agree without being asked
        #[arg(long, short)]
        yes: bool,
    },
    /// Print the JSON Schema of a plugin's parameters
    Schema {
        /// Its name
        name: String,
        /// That of its settings in the configuration file
        #[arg(long)]
        settings: bool,
    },
    /// Run a plugin's library with made-up inputs, and say what it does wrong; needs no daemon
    Validate(ValidateArgs),
    #[command(hide = true)]
    ValidateChild(ValidateChildArgs),
}

/// A plugin, as lines.
fn lines(plugin: &PluginEntry) -> String {
    let PluginEntry {
        name,
        version,
        path,
        state,
        reason,
        stages,
        methods,
        engines,
        saves,
        asks,
        agreed,
        isolation,
        uses,
        ..
    } = plugin;
    let cell = |text: &Option<String>| text.as_deref().map_or("-".into(), |text| visible(text).into_owned());
    let engines =
        engines.iter().flat_map(|(kind, names)| names.iter().map(move |name| format!("{kind} '{name}'")));
    let methods = methods.keys().map(|method| format!("{}.{method}", name.as_deref().unwrap_or("-")));
    let saves = saves.iter().map(|kind| format!("may write {kind} files"));
    let asks = install::asked(asks);
    let asks =
        (!agreed).then(|| format!("asks for {} (not agreed to: latentd plugins enable)", asks.join(", ")));
    let inline = (isolation.as_deref() == Some("inline")).then(|| "runs within the daemon".to_owned());
    let parts: Vec<String> =
        stages.iter().cloned().chain(methods).chain(engines).chain(saves).chain(asks).chain(inline).collect();
    let stages = if parts.is_empty() { "-".into() } else { visible(&parts.join(", ")).into_owned() };
    let uses =
        if uses.is_empty() { String::new() } else { format!("  uses {}\n", visible(&uses.join(", "))) };
    let reason = reason.as_ref().map_or_else(String::new, |why| format!("  {}\n", visible(why)));
    let (name, version, path) = (cell(name), cell(version), visible(path));
    format!("{name:24} {version:10} {state:9} {stages}  {path}\n{uses}{reason}")
}

/// Reads `NAME` or `NAME=JSON`.
pub(super) fn plugin(text: &str) -> Result<(String, PluginParams), String> {
    let (name, params) = text.split_once('=').unwrap_or((text, "{}"));
    if name.trim().is_empty() {
        return Err(format!("give NAME or NAME=JSON, such as {EXAMPLE}"));
    }
    let is = match serde_json::from_str(params) {
        Ok(Json::Object(params)) => return Ok((name.to_owned(), PluginParams::from_json(params))),
        Ok(Json::Array(_)) => "a list".to_owned(),
        Ok(Json::String(_)) => "a text".to_owned(),
        Ok(other) => other.to_string(),
        Err(error) => return Err(format!("what is behind {name}= is no JSON: {error}; give {EXAMPLE}")),
    };
    Err(format!("what is behind {name}= is {is}, and an object is wanted; give {EXAMPLE}"))
}

/// Reads `NAME=VERSION`.
pub(super) fn plugin_version(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, version)) if !name.trim().is_empty() && !version.trim().is_empty() => {
            Ok((name.to_owned(), version.to_owned()))
        }
        _ => Err("give NAME=VERSION, such as vignette=1.0.0; `latentd plugins list` has them".to_owned()),
    }
}

/// What a shell is given.
const EXAMPLE: &str = r#"'vignette={"strength": 0.5}'"#;

/// Asks the daemon.
pub(super) async fn run(global: &GlobalArgs, args: PluginsArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    match args.command {
        PluginsCommand::List { json } => {
            let request = async |client: &Client| client.plugins().await;
            let list = ask(global, &config, &[], request).await?.1;
            if json {
                print_json(&list)?;
                return Ok(ExitCode::SUCCESS);
            }
            if list.plugins.is_empty() {
                let folder = Config::default_plugins_dir();
                let folder = folder.display().to_string();
                say(&format!("latentd: there are none; put one into {}", visible(&folder)));
            }
            print(&list.plugins.iter().map(lines).collect::<String>())?;
            let has_apart = list.plugins.iter().any(|plugin| plugin.isolation.as_deref() == Some("process"));
            for lack in list.not_confined.iter().filter(|_| has_apart) {
                say(&format!(
                    "latentd: this kernel cannot deny to plugins all that it should: {}",
                    visible(lack)
                ));
            }
        }
        PluginsCommand::New { name, lang, folder } => new_plugin::run(&name, lang, folder)?,
        PluginsCommand::Install(args) => install::install(&args)?,
        PluginsCommand::Remove { name } => install::remove(&config, &name)?,
        PluginsCommand::Enable { name, yes } => install::enable(global, &config, &name, yes).await?,
        PluginsCommand::Schema { name, settings } => {
            let request = async |client: &Client| client.plugin_schema(&name).await;
            let schema = ask(global, &config, &[], request).await?.1;
            match (settings, schema.settings) {
                (false, _) => print_json(&schema.parameters)?,
                (true, Some(settings)) => print_json(&settings)?,
                (true, None) => say(&format!("latentd: plugin '{}' has no settings", visible(&name))),
            }
        }
        PluginsCommand::Validate(args) => return validate::run(args),
        PluginsCommand::ValidateChild(args) => return validate::run_child(args),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use latentd_client::protocol::{PluginAsks, PluginMethod, PluginState};

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        plugins: PluginsArgs,
    }

    #[test]
    fn a_plugin_stands_in_lines() {
        let plugin = PluginEntry {
            name: Some("vignette".into()),
            version: Some("1.0.0".into()),
            path: "/p/vignette.so".into(),
            state: PluginState::Ready,
            stages: vec!["image.post".into(), "job.plan".into()],
            methods: [("fit".to_owned(), PluginMethod::default())].into(),
            engines: [("upscaler".to_owned(), vec!["2x".to_owned(), "4x".to_owned()])].into(),
            agreed: true,
            uses: vec!["tensor".into(), "subjob".into()],
            ..PluginEntry::default()
        };
        let shown = "vignette                 1.0.0      ready     image.post, job.plan, vignette.fit, upscaler '2x', upscaler '4x'  \
                     /p/vignette.so\n  uses tensor, subjob\n";
        assert_eq!(lines(&plugin), shown);
        let refused = PluginEntry {
            path: "/p/a\n.so".into(),
            state: PluginState::Refused,
            reason: Some("is no library".into()),
            agreed: true,
            ..PluginEntry::default()
        };
        let shown = "-                        -          refused   -  /p/a\\n.so\n  is no library\n";
        assert_eq!(lines(&refused), shown);
        let asks = PluginAsks { network: true, memory_bytes: Some(1 << 30), ..PluginAsks::default() };
        let shown = lines(&PluginEntry { asks, agreed: false, ..plugin });
        assert!(shown.contains(", asks for the network, 1.0 GiB of memory (not agreed to"), "{shown}");
    }

    #[test]
    fn commands_are_read() {
        let command = |arguments: &[&str]| {
            Flags::try_parse_from(["x"].iter().chain(arguments)).ok().map(|flags| flags.plugins.command)
        };
        assert!(matches!(command(&["list", "--json"]), Some(PluginsCommand::List { json: true })));
        assert!(matches!(command(&["list"]), Some(PluginsCommand::List { json: false })));
        assert!(
            matches!(command(&["schema", "vignette"]), Some(PluginsCommand::Schema { name, settings: false }) if name == "vignette")
        );
        assert!(command(&["schema"]).is_none());
    }

    #[test]
    fn a_plugin_is_given_with_its_parameters_or_alone() {
        for (text, expected) in [
            ("vignette", Ok("{}")),
            ("vignette={}", Ok("{}")),
            (
                r#"vignette={"strength": 0.5, "at": ["a=b", null]}"#,
                Ok(r#"{"at":["a=b",null],"strength":0.5}"#),
            ),
            ("vignette=", Err("is no JSON: EOF")),
            ("vignette=strength:0.5", Err("what is behind vignette= is no JSON: expected value")),
            ("vignette=[1]", Err("vignette= is a list, and an object is wanted")),
            ("vignette=0.5", Err("vignette= is 0.5, and an object is wanted")),
            ("={}", Err("give NAME or NAME=JSON")),
            ("", Err("give NAME or NAME=JSON")),
        ] {
            match (plugin(text), expected) {
                (Ok((name, params)), Ok(expected)) => {
                    let params = serde_json::to_string(&params.to_json()).expect("JSON");
                    assert_eq!((name.as_str(), params.as_str()), ("vignette", expected));
                }
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{text}: {error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
