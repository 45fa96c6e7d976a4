//! `latentd styles`: texts around prompts, by name.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use latentd_client::Client;
use latentd_client::protocol::{SaveStyleParams, StyleEntry};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::launch::ask;
use super::output::{print, print_json, say, visible};

/// Flags of `styles`.
#[derive(Debug, Args)]
pub(super) struct StylesArgs {
    #[command(subcommand)]
    command: StylesCommand,
}

#[derive(Debug, Subcommand)]
enum StylesCommand {
    /// List all styles: those that were saved, and those in A1111's styles*.csv
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Save a style, in place of one of its name
    Save {
        /// What --style calls it
        name: String,
        /// What stands around the prompt in the place of {prompt}, or behind it
        #[arg(default_value = "", hide_default_value = true, allow_negative_numbers = true)]
        prompt: String,
        /// The same of the negative prompt
        #[arg(
            short,
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true,
            allow_hyphen_values = true
        )]
        negative_prompt: String,
    },
    /// Delete a style that was saved
    Delete {
        /// Its name
        name: String,
    },
}

/// A style, as lines.
fn lines(style: &StyleEntry) -> String {
    let text = |key: &str, text: &str| {
        if text.is_empty() { String::new() } else { format!("  {key}: {}\n", visible(text)) }
    };
    let place = if style.saved { String::new() } else { format!("  ({})", visible(&style.path)) };
    let prompts = text("prompt", &style.prompt) + &text("negative prompt", &style.negative_prompt);
    format!("{}{place}\n{prompts}", visible(&style.name))
}

/// Asks the daemon.
pub(super) async fn run(global: &GlobalArgs, args: StylesArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    match args.command {
        StylesCommand::List { json } => {
            let request = async |client: &Client| client.styles().await;
            let list = ask(global, &config, &[], request).await?.1;
            if json {
                print_json(&list)?;
                return Ok(ExitCode::SUCCESS);
            }
            for problem in &list.problems {
                say(&format!("latentd: {}", visible(problem)));
            }
            if list.styles.is_empty() {
                say("latentd: there are none; save one with: latentd styles save NAME TEXT");
            }
            print(&list.styles.iter().map(lines).collect::<String>())?;
        }
        StylesCommand::Save { name, prompt, negative_prompt } => {
            let params = SaveStyleParams { name, prompt, negative_prompt };
            let request = async |client: &Client| client.save_style(&params).await;
            print(&lines(&ask(global, &config, &[], request).await?.1))?;
        }
        StylesCommand::Delete { name } => {
            let request = async |client: &Client| client.delete_style(&name).await;
            let gone = ask(global, &config, &[], request).await?.1;
            print(&format!("deleted {}\n", visible(&gone.name)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_style_stands_in_lines() {
        let style = StyleEntry {
            name: "ink".into(),
            prompt: "{prompt}, ink\n".into(),
            path: "/a/styles.csv".into(),
            ..StyleEntry::default()
        };
        assert_eq!(lines(&style), "ink  (/a/styles.csv)\n  prompt: {prompt}, ink\\n\n");
        let saved = StyleEntry { negative_prompt: "grey".into(), saved: true, ..style };
        assert_eq!(lines(&saved), "ink\n  prompt: {prompt}, ink\\n\n  negative prompt: grey\n");
    }
}
