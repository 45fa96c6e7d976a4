//! `latentd prompt`: how a prompt is read.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use latentd_client::Client;
use latentd_client::protocol::{PromptPart, PromptStretch, PromptText, PromptTokens, PromptTokensParams};

use super::failure::Failure;
use super::generate::EmphasisArg;
use super::global::GlobalArgs;
use super::launch::ask;
use super::output::{print, print_json, visible};

/// Flags of `prompt`.
#[derive(Debug, Args)]
pub(super) struct PromptArgs {
    /// The prompt
    #[arg(allow_negative_numbers = true)]
    text: String,
    /// Read it as a negative prompt, where AND, weights and networks are words
    #[arg(long)]
    negative: bool,
    /// The checkpoint that draws it: embeddings for others are words [default: all embeddings are taken]
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    checkpoint: Option<String>,
    /// Sampler steps [default: 20]
    #[arg(long, value_name = "N")]
    steps: Option<u32>,
    /// The sampler, of which some count steps double [default: Euler a]
    #[arg(long, value_name = "NAME")]
    sampler_name: Option<String>,
    /// What brackets do [default: original]
    #[arg(long, ignore_case = true)]
    emphasis: Option<EmphasisArg>,
    /// How many tokens back a comma may stand for a chunk to end there [default: 20]
    #[arg(long, value_name = "N")]
    comma_padding_backtrack: Option<u32>,
    /// Read [from:to:when] as before A1111 1.6: below 1 a share of the steps, else a step
    #[arg(long)]
    use_old_scheduling: bool,
    /// As JSON, with all tokens
    #[arg(long)]
    json: bool,
}

impl PromptArgs {
    fn params(&self) -> PromptTokensParams {
        let default = PromptTokensParams::default();
        PromptTokensParams {
            text: self.text.clone(),
            negative: self.negative,
            checkpoint: self.checkpoint.clone(),
            steps: self.steps.unwrap_or(default.steps),
            sampler_name: self.sampler_name.clone().unwrap_or(default.sampler_name),
            emphasis: self.emphasis.map_or(default.emphasis, EmphasisArg::wire),
            comma_padding_backtrack: self.comma_padding_backtrack.unwrap_or(default.comma_padding_backtrack),
            use_old_scheduling: self.use_old_scheduling,
        }
    }
}

/// What is said of a prompt, as lines.
fn lines(read: &PromptTokens) -> String {
    let mut lines = format!("{} of {} tokens\n", read.tokens, read.room);
    for part in &read.parts {
        lines += &part_lines(part, read.parts.len() > 1);
    }
    let mut line = |words: std::fmt::Arguments| lines.write_fmt(words).unwrap_or_default();
    for network in &read.networks {
        let found = if network.found { "" } else { ", which the library has not" };
        line(format_args!("{} {}{found}\n", visible(&network.kind), visible(&network.name)));
    }
    for embedding in &read.embeddings {
        line(format_args!("embedding {}\n", visible(embedding)));
    }
    if read.truncated {
        line(format_args!("there are too many texts to tell the tokens of all\n"));
    }
    for warning in &read.warnings {
        line(format_args!("warning: {}\n", visible(warning)));
    }
    lines
}

fn part_lines(part: &PromptPart, is_one_of_several: bool) -> String {
    let weight = if is_one_of_several { format!("weight {}, ", part.weight) } else { String::new() };
    let of_text = |(place, text): (usize, &PromptText)| {
        let steps = steps(part, place);
        let tokens: usize = text.chunks.iter().map(Vec::len).sum();
        let plural = if tokens == 1 { "" } else { "s" };
        let chunks = match text.chunks.len() {
            0 | 1 => String::new(),
            several => format!(" in {several} chunks"),
        };
        format!("{weight}{steps}, {tokens} token{plural}{chunks}: {}\n", visible(&text.text))
    };
    part.texts.iter().enumerate().map(of_text).collect()
}

/// When a part says this text; one that only counts behind the last call is said at none.
fn steps(part: &PromptPart, place: usize) -> String {
    /// As many stretches are told.
    const TOLD: usize = 6;
    let mut all = part.schedule.iter().filter(|stretch| stretch.text as usize == place).peekable();
    let of = |PromptStretch { from, until, .. }: &PromptStretch| {
        if from == until { from.to_string() } else { format!("{from}-{until}") }
    };
    let told: Vec<String> = all.by_ref().take(TOLD).map(of).collect();
    if told.is_empty() {
        return "at no step".to_owned();
    }
    let word = if matches!(&*told, [one] if !one.contains('-')) { "step" } else { "steps" };
    let more = if all.peek().is_some() { ", …" } else { "" };
    format!("{word} {}{more}", told.join(", "))
}

/// Asks the daemon and prints what it says.
pub(super) async fn run(global: &GlobalArgs, args: PromptArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    let params = args.params();
    let request = async |client: &Client| client.prompt_tokens(&params).await;
    let read = ask(global, &config, &[], request).await?.1;
    if args.json {
        print_json(&read)?;
    } else {
        print(&lines(&read))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use latentd_client::protocol::{PromptNetwork, PromptToken};

    use super::*;

    #[test]
    fn what_is_said_stands_in_lines() {
        let text = |text: &str, tokens: usize| PromptText {
            text: text.into(),
            chunks: vec![vec![PromptToken::default(); tokens]],
        };
        let stretch = |from, until, text| PromptStretch { from, until, text };
        let first = PromptPart {
            weight: 1.0,
            schedule: vec![stretch(1, 10, 0), stretch(11, 20, 1)],
            texts: vec![text("red", 1), text("blue\n", 2)],
        };
        let second =
            PromptPart { weight: -0.5, schedule: vec![stretch(1, 20, 0)], texts: vec![text("sky", 1)] };
        let lora = PromptNetwork { kind: "lora".into(), name: "x".into(), ..PromptNetwork::default() };
        let read = PromptTokens {
            parts: vec![first.clone(), second],
            networks: vec![PromptNetwork { found: true, ..lora.clone() }, lora],
            embeddings: vec!["e".into()],
            tokens: 2,
            room: 75,
            warnings: vec!["a bracket".into()],
            ..PromptTokens::default()
        };
        let expected = "2 of 75 tokens\nweight 1, steps 1-10, 1 token: red\nweight 1, steps 11-20, 2 tokens: blue\\n\n\
                        weight -0.5, steps 1-20, 1 token: sky\nlora x\nlora x, which the library has not\nembedding e\n\
                        warning: a bracket\n";
        assert_eq!(lines(&read), expected);
        let alone = PromptTokens { parts: vec![first], ..PromptTokens::default() };
        assert!(lines(&alone).contains("\nsteps 1-10, 1 token: red\n"));
        let schedule = (1..=20).map(|step| stretch(step, step, (step - 1) % 2)).collect();
        let turns = PromptPart { schedule, texts: vec![text("a", 1), text("b", 1)], ..PromptPart::default() };
        let read = PromptTokens { parts: vec![turns], ..PromptTokens::default() };
        assert!(lines(&read).ends_with(
            "\nsteps 1, 3, 5, 7, 9, 11, …, 1 token: a\nsteps 2, 4, 6, 8, 10, 12, …, 1 token: b\n"
        ));
    }
}
