//! `latentd info`: what a picture says of how it was made.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use latentd_client::Client;
use latentd_client::protocol::{ImageIn, ImageInfo};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::launch::ask;
use super::output::{print, print_json, say, visible};
use crate::config::Config;

/// Flags of `info`.
#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// A PNG, JPEG or WebP file
    file: PathBuf,
    /// As JSON, with the request that repeats the picture
    #[arg(long)]
    json: bool,
}

/// What a picture says.
pub(super) async fn of(
    global: &GlobalArgs,
    config: &Config,
    models_dirs: &[PathBuf],
    file: &Path,
) -> Result<ImageInfo, Failure> {
    let image = picture(file)?;
    let request = async |client: &Client| client.image_info(image.clone()).await;
    Ok(ask(global, config, models_dirs, request).await?.1)
}

/// A picture's file for the daemon.
pub(super) fn picture(file: &Path) -> Result<ImageIn, Failure> {
    // A relative path means ours, not the daemon's.
    let path = std::path::absolute(file).map_err(Failure::usage)?;
    let path = path.into_os_string().into_string().map_err(|path| {
        Failure::usage(format!("{}: is not UTF-8, which the daemon needs; rename it", path.display()))
    })?;
    Ok(ImageIn::path(path))
}

/// Prints the picture's text, or what other programs wrote in it.
pub(super) async fn run(global: &GlobalArgs, args: InfoArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    let info = of(global, &config, &[], &args.file).await?;
    if args.json {
        print_json(&info)?;
        return Ok(ExitCode::SUCCESS);
    }
    info.notices.iter().for_each(|notice| say(&format!("latentd: {}", visible(notice))));
    let text = match info.infotext {
        Some(text) => format!("{text}\n"),
        // As the programs have it that wrote it.
        None if !info.texts.is_empty() => {
            let texts: Vec<String> =
                info.texts.iter().map(|(key, text)| format!("{key}: {text}\n")).collect();
            texts.concat()
        }
        None => return Err(Failure::new(format!("{} does not say how it was made", args.file.display()))),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
