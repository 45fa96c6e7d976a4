//! `latentd call`: any method by its name, such as one that a plugin has.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use latentd_client::Client;
use latentd_client::protocol::PluginParams;
use rmpv::Value;
use serde_json::{Map, Value as Json, json};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::launch::ask;
use super::one_job::{done, submit};
use super::output::print_json;
use super::stopped::Stopped;
use crate::whole_file;

/// Levels of a result.
const DEEPEST: usize = 64;
/// What a picture's bytes stand under.
const FORMATS: [(&str, &str); 4] = [("png", "png"), ("jpeg", "jpg"), ("webp", "webp"), ("raw", "raw")];

/// Flags of `call`.
#[derive(Debug, Args)]
pub(super) struct CallArgs {
    /// The method: NAME.method of a plugin, or one of latentd's own
    method: String,
    /// Its parameters as a JSON object, with pictures as {"path": "FILE"}; - reads them from stdin [default: {}]
    params: Option<String>,
    /// Where pictures of the result are written to [default: this folder]
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl CallArgs {
    fn params(&self) -> Result<Map<String, Json>, Failure> {
        let text = match self.params.as_deref() {
            None => return Ok(Map::new()),
            Some("-") => {
                let mut text = String::new();
                let read = std::io::stdin().lock().read_to_string(&mut text);
                read.map_err(|error| Failure::new(format!("cannot read stdin: {error}")))?;
                text
            }
            Some(text) => text.to_owned(),
        };
        let mut params = match serde_json::from_str(&text) {
            Ok(params @ Json::Object(_)) => params,
            Ok(_) => return Err(Failure::usage(format!("{text}: give a JSON object, such as {EXAMPLE}"))),
            Err(error) => return Err(Failure::usage(format!("no JSON: {error}; give {EXAMPLE}"))),
        };
        with_whole_paths(&mut params)?;
        match params {
            Json::Object(params) => Ok(params),
            _ => Ok(Map::new()),
        }
    }
}

/// What a shell is given.
const EXAMPLE: &str = r#"'{"image": {"path": "photo.png"}}'"#;

/// The daemon has another folder than this command.
fn with_whole_paths(params: &mut Json) -> Result<(), Failure> {
    match params {
        Json::Array(items) => items.iter_mut().try_for_each(with_whole_paths),
        Json::Object(entries) => {
            let is_alone = entries.len() == 1;
            entries.iter_mut().try_for_each(|(name, value)| match value {
                Json::String(path) if is_alone && name == "path" => {
                    let wrong = |what: String| Failure::usage(format!("{path}: {what}"));
                    let whole = std::path::absolute(&*path).map_err(|error| wrong(error.to_string()))?;
                    let whole = whole.to_str().ok_or_else(|| wrong("its folder is not UTF-8".to_owned()))?;
                    *value = whole.into();
                    Ok(())
                }
                value => with_whole_paths(value),
            })
        }
        _ => Ok(()),
    }
}

/// Writes what JSON does not have into files.
struct Files<'a> {
    folder: &'a Path,
    /// How their names begin.
    stem: &'a str,
}

impl Files<'_> {
    /// A value as JSON; `place` is where it stands in the result.
    fn shown(&self, value: Value, place: &str, depth: usize) -> Result<Json, Failure> {
        if depth > DEEPEST {
            return Err(Failure::new("the result is too deep"));
        }
        Ok(match value {
            Value::Binary(bytes) => json!({"path": self.write(place, "bin", &bytes)?}),
            Value::Array(items) => {
                let items = items.into_iter().enumerate();
                let shown =
                    |(at, item): (usize, Value)| self.shown(item, &below(place, &at.to_string()), depth + 1);
                Json::Array(items.map(shown).collect::<Result<_, _>>()?)
            }
            Value::Map(entries) => {
                let mut map = Map::new();
                for (name, value) in entries {
                    let name = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
                    let ending =
                        FORMATS.iter().find(|(format, _)| *format == name).map(|(_, ending)| *ending);
                    match (ending, value) {
                        (Some(ending), Value::Binary(bytes)) => {
                            map.insert("path".into(), self.write(place, ending, &bytes)?.into());
                        }
                        (_, value) => {
                            let shown = self.shown(value, &below(place, &name), depth + 1)?;
                            map.insert(name, shown);
                        }
                    }
                }
                Json::Object(map)
            }
            // Numbers without a value are none in JSON, either.
            value => serde_json::to_value(&value).unwrap_or_default(),
        })
    }

    fn write(&self, place: &str, ending: &str, bytes: &[u8]) -> Result<String, Failure> {
        let path = self.folder.join(format!("{}{place}.{ending}", self.stem));
        whole_file::write(&path, bytes)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        Ok(path.display().to_string())
    }
}

/// The name of a part, for a file: what files' names should not have is left out.
fn below(place: &str, name: &str) -> String {
    let word = |c: char| if c.is_alphanumeric() || c == '_' { c } else { '-' };
    format!("{place}-{}", name.chars().take(64).map(word).collect::<String>())
}

/// Calls the method, shows how far it is if it is a job, and prints what it gives.
pub(super) async fn run(global: &GlobalArgs, args: CallArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    let params = PluginParams::from_json(args.params()?);
    let folder = args.output.as_deref().unwrap_or(Path::new(""));
    if args.output.is_some() {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|error| Failure::new(format!("cannot make {}: {error}", folder.display())))?;
    }
    let mut stopped = Stopped::listen()?;
    let method = args.method.as_str();
    let known = async |client: &Client| client.api_info().await;
    let (client, info) = tokio::select! {
        info = ask(global, &config, &[], known) => info?,
        () = stopped.wait() => return Err(Failure::cancelled()),
    };
    let result = if info.methods.get(method).is_some_and(|method| method.job) {
        let (client, job) = tokio::select! {
            submitted = submit(global, &config, &[], method, &params) => submitted?,
            () = stopped.wait() => return Err(Failure::cancelled()),
        };
        done::<Value>(&client, &job, stopped).await?
    } else {
        tokio::select! {
            answer = client.call_value(method, &params) => answer?,
            () = stopped.wait() => return Err(Failure::cancelled()),
        }
    };
    print_json(&Files { folder, stem: method }.shown(result, "", 0)?)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(params: Option<&str>) -> CallArgs {
        CallArgs { method: "a.b".into(), params: params.map(str::to_owned), output: None }
    }

    #[test]
    fn parameters_are_an_object_with_whole_paths() {
        assert_eq!(args(None).params().expect("none"), Map::new());
        let params = args(Some(r#"{"image": {"path": "a.png"}, "of": {"path": "b", "more": 1}}"#));
        let params = params.params().expect("read");
        let here = std::env::current_dir().expect("a folder").join("a.png");
        assert_eq!(params["image"]["path"], here.to_str().expect("UTF-8"));
        assert_eq!(params["of"], json!({"path": "b", "more": 1}));
        for text in ["[1]", "1", "{", ""] {
            assert_eq!(args(Some(text)).params().expect_err(text).code, 2);
        }
    }

    #[test]
    fn what_json_does_not_have_goes_into_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files { folder: folder.path(), stem: "a.b" };
        let entry = |name: &str, value: Value| (Value::from(name), value);
        let image = Value::Map(vec![entry("png", Value::Binary(vec![1])), entry("width", 2.into())]);
        let result = Value::Map(vec![
            entry("images", Value::Array(vec![image.clone(), image])),
            entry("a/../b", Value::Binary(vec![3])),
            entry("count", 4.into()),
        ]);
        let shown = files.shown(result, "", 0).expect("shown");
        let path = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(shown["images"][1], json!({"path": path("a.b-images-1.png"), "width": 2}));
        assert_eq!(shown["a/../b"], json!({"path": path("a.b-a----b.bin")}));
        assert_eq!(shown["count"], 4);
        assert_eq!(std::fs::read(path("a.b-images-0.png")).expect("written"), [1]);
    }
}
