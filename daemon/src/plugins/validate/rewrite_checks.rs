//! What is looked at in `request.rewrite`: that it answers patches to whatever a request may say, the same ones each time.

use std::cell::RefCell;

use latentd_client::protocol::PluginParams;
use latentd_plugin_api::abi::{latentd_prompt, latentd_rewrite};
use rmpv::Value;

use super::bench::{Bench, Looked, Ready, fail, may, must};
use super::inputs::Random;
use super::outcome::Outcome;
use super::schema;
use super::wider::Roomy;
use crate::error::{Class, Error, Result};
use crate::plugins::given::GivenPicture;
use crate::plugins::job::{JobFacts, described};
use crate::plugins::opened::Opened;
use crate::plugins::rewrite::{Answer, PromptText, Rewriter, given, told};

/// Parameters that are made up.
const PARAMS: usize = 48;
/// A code that no version has.
const NO_CODE: u32 = 4711;
/// Levels of a patch.
const DEEPEST: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Usual,
    /// None, many, and lists with one for each picture.
    Prompts,
    Texts,
    UnknownKind,
    LargerStructs,
    Strides,
    Repeat,
    Cancelled,
    Params,
}

/// All of them, by their names.
pub(super) const ALL: [(&str, Check); 9] = [
    ("usual", Check::Usual),
    ("prompts", Check::Prompts),
    ("texts", Check::Texts),
    ("unknown-kind", Check::UnknownKind),
    ("larger-structs", Check::LargerStructs),
    ("strides", Check::Strides),
    ("repeat", Check::Repeat),
    ("cancelled", Check::Cancelled),
    ("params", Check::Params),
];

/// Does one.
pub(super) fn run(ready: &Ready, check: Check, random: &mut Random) -> Outcome {
    look(ready, check, random).err().unwrap_or(Outcome::Ok)
}

/// What it is asked with.
#[derive(Clone, Default)]
struct Asked {
    prompts: Vec<PromptText>,
    seeds: Vec<u64>,
    /// Of its prompts, if it is none of those that are known.
    kind: Option<u32>,
    /// Zero bytes behind each struct, and between the elements of lists; multiples of 8.
    behind: usize,
    between: usize,
}

impl Asked {
    fn usual(pictures: u64) -> Self {
        let prompt = |text: &str, field: &str, is_negative| PromptText {
            text: text.to_owned(),
            field: field.to_owned(),
            is_negative,
            image: None,
        };
        let prompts = vec![
            prompt("a {red|blue} cat, __colour__, <lora:x:1>", "/prompt", false),
            prompt("blurry", "/negative_prompt", true),
        ];
        Self { prompts, seeds: (1..=pictures).collect(), ..Self::default() }
    }

    fn of(text: &str) -> Self {
        let mut asked = Self::usual(2);
        asked.prompts.iter_mut().for_each(|prompt| text.clone_into(&mut prompt.text));
        asked
    }

    /// Asks a plugin; its patches must be maps.
    fn by(&self, ready: &Ready, params: &PluginParams, job: &Bench) -> Result<Answer> {
        let given = given(&ready.plugin.manifest, params, job)?;
        let params = given.packed_for_plan();
        let sizes = given.pictures.iter().map(GivenPicture::size).collect();
        let opened = RefCell::new(Opened::new(given.files.clone(), sizes));
        let pictures = self.seeds.len() as u32;
        let facts = JobFacts {
            method: "txt2img",
            request: &ready.request,
            pictures,
            batch: pictures,
            strict: false,
            depth: 0,
        };
        let of_job = Roomy::of(&described(&facts, &params, &[]), self.behind);
        let kind = |prompt| latentd_prompt { kind: self.kind.unwrap_or(told(prompt).kind), ..told(prompt) };
        let prompts =
            Roomy::new::<latentd_prompt>(&self.prompts.iter().map(kind).collect::<Vec<_>>(), self.between);
        let seeds = Roomy::new(&self.seeds, self.between);
        let args = latentd_rewrite {
            size: 0,
            reserved: 0,
            job: of_job.pointer(),
            prompts: prompts.list(),
            seeds: seeds.list(),
        };
        let args = Roomy::of(&args, self.behind);
        let rewriter = Rewriter::of(std::sync::Arc::clone(&ready.plugin));
        let answer = rewriter.call(job, &opened, args.pointer())?;
        for (number, patch) in answer.patches.iter().enumerate() {
            let wrong = |what: &str| Err(rewriter.error(Class::Plugin, &format!("request {number}: {what}")));
            let mut rest = patch.as_slice();
            match rmpv::decode::read_value_with_max_depth(&mut rest, DEEPEST) {
                Ok(Value::Map(entries)) if rest.is_empty() => {
                    if entries.iter().any(|(key, _)| key.as_str().is_none()) {
                        return wrong("a key of its patch is no text");
                    }
                }
                Ok(_) => return wrong("its patch is not one map"),
                Err(error) => return wrong(&format!("its patch cannot be read: {error}")),
            }
        }
        Ok(answer)
    }
}

fn look(ready: &Ready, check: Check, random: &mut Random) -> Looked {
    let params = ready.params()?;
    let answer = |asked: &Asked| must(asked.by(ready, params, &Bench::new()), "");
    let maybe = |asked: &Asked, what: &str| {
        ready.at(what);
        may(asked.by(ready, params, &Bench::new()), what).map(|_| ())
    };
    match check {
        Check::Usual => {
            [1, 4].into_iter().try_for_each(|pictures| answer(&Asked::usual(pictures)).map(|_| ()))
        }
        Check::Prompts => {
            maybe(&Asked { prompts: vec![], ..Asked::usual(1) }, "no prompts")?;
            maybe(&Asked { seeds: vec![], ..Asked::usual(1) }, "no pictures")?;
            let each = |image: usize| PromptText {
                text: format!("picture {image}"),
                field: format!("/prompt/{image}"),
                is_negative: false,
                image: Some(image),
            };
            maybe(&Asked { prompts: (0..4).map(each).collect(), ..Asked::usual(4) }, "a list of prompts")?;
            let regions = |place: usize| PromptText {
                field: format!("/regions/{place}/prompt"),
                image: None,
                ..each(place)
            };
            let many = Asked { prompts: (0..1000).map(regions).collect(), ..Asked::usual(64) };
            maybe(&many, "1000 prompts of 64 pictures")
        }
        Check::Texts => {
            let long = ["{", "[", "(", "${x=", "{a|", "__", "\\", "a", "<", "{a}", "é"];
            for text in long {
                maybe(&Asked::of(&text.repeat(100_000 / text.len())), &format!("100000 bytes of '{text}'"))?;
            }
            let parts = [
                "{", "}", "|", "[", "]", "(", ")", "__", "::", "$$", "${", "<lora:", ">", "\\", "#", "\n",
                "1", "a", "é",
            ];
            for _ in 0..200 {
                let text: String = (0..16).filter_map(|_| random.pick(&parts)).copied().collect();
                maybe(&Asked::of(&text), &format!("'{}'", text.escape_debug()))?;
            }
            Ok(())
        }
        Check::UnknownKind => {
            maybe(&Asked { kind: Some(NO_CODE), ..Asked::usual(2) }, "prompts of an unknown kind")
        }
        Check::LargerStructs | Check::Strides | Check::Repeat => {
            let (behind, between) = match check {
                Check::LargerStructs => (64, 0),
                Check::Strides => (0, 40),
                _ => (0, 0),
            };
            let expected = answer(&Asked::usual(4))?;
            if answer(&Asked { behind, between, ..Asked::usual(4) })? == expected {
                return Ok(());
            }
            fail(match check {
                Check::Repeat => "not repeatable: the same request gives other patches",
                Check::Strides => {
                    "elements of lists lie farther apart, and it answers otherwise: is LATENTD_AT used?"
                }
                _ => "its arguments' structs are larger, and it answers otherwise",
            })
        }
        Check::Cancelled => {
            let job = Bench::new();
            job.cancel();
            match Asked::usual(4).by(ready, params, &job) {
                Err(Error { class: Class::Cancelled, .. }) => Ok(()),
                answer => must(answer, "the job was cancelled").map(|_| ()),
            }
        }
        Check::Params => {
            let Some(schema) = &ready.plugin.manifest.parameters else {
                return Err(Outcome::Skipped("it takes no parameters".to_owned()));
            };
            for _ in 0..PARAMS {
                let Some(params) = schema::params(schema, random) else { continue };
                let shown = schema::shown(&params);
                ready.at(&shown);
                let params = PluginParams::from_json(params);
                may(Asked::usual(3).by(ready, &params, &Bench::new()), &shown)?;
            }
            Ok(())
        }
    }
}
