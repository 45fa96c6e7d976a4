//! `latentd plugins install`, `remove`, `enable`: what a user wants to have, and agrees that it may.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use latentd_client::Client;
use latentd_client::protocol::{PluginAsks, PluginEntry, PluginState};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::output::{print, say, size, visible};
use crate::config::Config;
use crate::paths;
use crate::plugins::{self, About, Agreement, Asks, Package};
use crate::suggest::advice;

/// Flags of `plugins install`.
#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    /// The plugin's library, or an executable with its manifest beside it
    file: PathBuf,
    /// Install it, and agree to what it asks for, without being asked
    #[arg(long, short)]
    yes: bool,
}

/// What a plugin asks for, each for people.
pub(super) fn asked(asks: &PluginAsks) -> Vec<String> {
    let PluginAsks { network, folders, write_folders, memory_bytes } = asks;
    let network = network.then(|| "the network".to_owned());
    let reads = folders.iter().map(|folder| format!("reading {folder}"));
    let writes = write_folders.iter().map(|folder| format!("reading and writing {folder}"));
    let memory = memory_bytes.map(|bytes| format!("{} of memory", size(bytes)));
    network.into_iter().chain(reads).chain(writes).chain(memory).collect()
}

/// What it is and does, as lines.
fn shown(about: &About) -> String {
    let About { name, version, license, description, stages, methods, engines, saves, asks } = about;
    let license = license.as_ref().map(|license| format!(" ({license})")).unwrap_or_default();
    let mut lines = vec![format!("{name} {version}{license}")];
    lines.extend(description.iter().flat_map(|text| text.lines()).map(|line| format!("  {line}")));
    let saves = saves.iter().map(|kind| format!("writing {kind} files of the library"));
    let asks: Vec<String> = saves.chain(asked(&asks.told())).collect();
    for (what, texts) in [
        ("stages", stages.join(", ")),
        ("methods", methods.join(", ")),
        ("engines", engines.join(", ")),
        ("asks for", asks.join(", ")),
    ] {
        let texts = if texts.is_empty() { "none" } else { &texts };
        lines.push(format!("  {what:9} {texts}"));
    }
    lines.join("\n") + "\n"
}

/// Asks on a terminal; where there is none nobody has agreed.
fn agrees(question: &str, yes: bool) -> Result<bool, Failure> {
    if yes {
        return Ok(true);
    }
    let mut input = std::io::stdin().lock();
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask on; say --yes if that is wanted"));
    }
    let mut err = std::io::stderr().lock();
    let asked = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
    asked.map_err(|error| Failure::new(format!("cannot ask: {error}")))?;
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(|error| Failure::new(format!("cannot read the answer: {error}")))?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

/// Keeps what was agreed to.
fn agree(name: &str, version: &str, sha256: &str, asks: &Asks) -> Result<(), Failure> {
    let agreement = Agreement { version: version.to_owned(), sha256: sha256.to_owned(), asks: asks.clone() };
    let kept = Config::agreements().agree(name, agreement);
    kept.map_err(|error| Failure::new(format!("cannot keep what was agreed: {error}")))
}

/// Folders that are asked for and are not there: it would do without.
fn tell_missing(asks: &Asks) {
    let (reads, writes) = asks.paths(paths::home().as_deref());
    for folder in reads.iter().chain(&writes).filter(|folder| !folder.is_dir()) {
        say(&format!("latentd: {} is not there yet", visible(&folder.to_string_lossy())));
    }
}

/// Copies a plugin's file to where it is found.
pub(super) fn install(args: &InstallArgs) -> Result<(), Failure> {
    let InstallArgs { file, yes } = args;
    let failed = |why: String| Failure::new(format!("{}: {why}", visible(&file.to_string_lossy())));
    let package = Package::read(file).map_err(failed)?;
    let About { name, version, asks, .. } = &package.about;
    print(&shown(&package.about))?;
    tell_missing(asks);
    if !agrees("install it?", *yes)? {
        return Err(Failure::new("nothing was installed"));
    }
    // What is there before it is agreed to does without what it asks for.
    let folder = Config::default_plugins_dir();
    let (path, before) = package.install(&folder).map_err(Failure::new)?;
    agree(name, version, &package.sha256, asks)?;
    let replaced = if before.is_empty() { "" } else { ", in place of the one that was there" };
    print(&format!("installed {}{replaced}\n", path.display()))
}

/// Removes a plugin's file from where it was installed, and what was agreed for it.
pub(super) fn remove(config: &Config, name: &str) -> Result<(), Failure> {
    let folder = Config::default_plugins_dir();
    let removed = plugins::remove(&folder, name).map_err(Failure::new)?;
    let forgotten = Config::agreements().forget(name);
    forgotten.map_err(|error| Failure::new(format!("cannot forget what was agreed: {error}")))?;
    for path in &removed {
        print(&format!("removed {}\n", path.display()))?;
    }
    match plugins::find(&config.plugin_folders(), name) {
        Ok((_, _, path)) if removed.is_empty() => Err(Failure::new(format!(
            "it lies in {}, where nobody installed it; remove it there",
            path.display()
        ))),
        Ok((about, _, path)) => {
            let path = path.to_string_lossy().into_owned();
            say(&format!("latentd: {} of {} is used now", visible(&about.version), visible(&path)));
            Ok(())
        }
        Err(names) if removed.is_empty() => Err(unknown(name, &names)),
        Err(_) => Ok(()),
    }
}

fn unknown(name: &str, names: &[String]) -> Failure {
    let advice = advice(name, names.iter().map(String::as_str));
    Failure::new(format!("no plugin is called '{}'{advice}", visible(name)))
}

/// Agrees to what a plugin asks for, and has the daemon use it again.
pub(super) async fn enable(
    global: &GlobalArgs,
    config: &Config,
    name: &str,
    yes: bool,
) -> Result<(), Failure> {
    let (about, sha256, _) =
        plugins::find(&config.plugin_folders(), name).map_err(|names| unknown(name, &names))?;
    let About { version, asks, .. } = &about;
    if !asks.is_nothing() && Config::agreements().granted(name, &sha256) != *asks {
        print(&shown(&about))?;
        tell_missing(asks);
        if agrees("agree to what it asks for?", yes)? {
            agree(name, version, &sha256, asks)?;
        } else {
            say("latentd: it does without what it asks for");
        }
    }
    if config.plugins.get(name).is_some_and(|config| !config.enabled) {
        let text = format!("the configuration file leaves it out: [plugins.{name}] enabled = false");
        return Err(Failure::new(text));
    }
    // With none that runs there is nothing that was set aside.
    let Ok(client) = Client::connect(Some(&global.config()?.socket)).await else { return Ok(()) };
    let PluginEntry { state, reason, .. } = client.enable_plugin(name).await?;
    match reason {
        Some(reason) if state != PluginState::Loaded && state != PluginState::Ready => {
            Err(Failure::new(format!("it is {state}: {}", visible(&reason))))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_shown_with_all_that_it_asks_for() {
        let asks = Asks {
            network: true,
            folders: vec!["~/a".into()],
            write_folders: vec!["/b".into()],
            memory: Some(3 << 29),
        };
        let about = About {
            name: "mender".into(),
            version: "1.0".into(),
            license: Some("MIT".into()),
            description: Some("Mends.\nSlowly.".into()),
            asks,
            ..About::default()
        };
        let expected = "mender 1.0 (MIT)\n  Mends.\n  Slowly.\n  stages    none\n  methods   none\n  engines   none\n  asks for  \
                        the network, reading ~/a, reading and writing /b, 1.5 GiB of memory\n";
        assert_eq!(shown(&about), expected);
        assert!(shown(&About::default()).contains("asks for  none"));
    }

    #[test]
    fn who_says_yes_is_not_asked() {
        assert!(agrees("?", true).expect("agreed"));
    }
}
