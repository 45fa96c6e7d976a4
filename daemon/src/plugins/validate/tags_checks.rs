//! What is looked at in `prompt.tags`: that it answers maps or nothing to whatever a prompt may say, the same each time.

use std::cell::RefCell;

use latentd_plugin_api::abi::{latentd_tag, latentd_text};
use rmpv::Value;

use super::bench::{Bench, Looked, Ready, fail, may, must};
use super::inputs::Random;
use super::outcome::Outcome;
use super::wider::Roomy;
use crate::error::{Class, Result};
use crate::plugins::host::{bytes, text};
use crate::plugins::opened::Opened;
use crate::plugins::rewrite::given;
use crate::plugins::tags::Tagger;

/// Levels of an answer.
const DEEPEST: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Usual,
    Texts,
    LargerStructs,
    Strides,
    Repeat,
}

/// All of them, by their names.
pub(super) const ALL: [(&str, Check); 5] = [
    ("usual", Check::Usual),
    ("texts", Check::Texts),
    ("larger-structs", Check::LargerStructs),
    ("strides", Check::Strides),
    ("repeat", Check::Repeat),
];

/// Does one.
pub(super) fn run(ready: &Ready, check: Check, random: &mut Random) -> Outcome {
    look(ready, check, random).err().unwrap_or(Outcome::Ok)
}

/// Asks of a tag; `behind` and `between` are zero bytes behind the struct and between the arguments.
fn asked(
    ready: &Ready,
    name: &str,
    arguments: &[&str],
    (behind, between): (usize, usize),
) -> Result<Option<Vec<u8>>> {
    let job = Bench::new();
    let params = ready.params().cloned().unwrap_or_default();
    let given = given(&ready.plugin.manifest, &params, &job)?;
    let params = given.packed_for_plan();
    let opened = RefCell::new(Opened::new(given.files.clone(), vec![]));
    let texts: Vec<latentd_text> = arguments.iter().map(|argument| text(argument)).collect();
    let texts = Roomy::new::<latentd_text>(&texts, between);
    let tag = latentd_tag {
        size: 0,
        reserved: 0,
        name: text(name),
        arguments: texts.list(),
        file: 0,
        params: bytes(&params),
    };
    let tag = Roomy::of(&tag, behind);
    let tagger = Tagger::of(std::sync::Arc::clone(&ready.plugin));
    let (reply, _) = tagger.call(&job, &opened, tag.pointer())?;
    if let Some(reply) = &reply {
        let mut rest = reply.as_slice();
        match rmpv::decode::read_value_with_max_depth(&mut rest, DEEPEST) {
            Ok(Value::Map(_)) if rest.is_empty() => (),
            _ => return Err(tagger.error(Class::Plugin, &format!("<{name}:…>: its answer is not one map"))),
        }
    }
    Ok(reply)
}

/// Tags that somebody may have.
const USUAL: [(&str, &[&str]); 4] =
    [("lora", &["name", "1", "lbw=OUTD"]), ("lora", &["name"]), ("other", &["1"]), ("x", &[])];

fn look(ready: &Ready, check: Check, random: &mut Random) -> Looked {
    let maybe = |name: &str, arguments: &[&str], what: &str| {
        ready.at(what);
        may(asked(ready, name, arguments, (0, 0)), what).map(|_| ())
    };
    match check {
        Check::Usual => USUAL
            .iter()
            .try_for_each(|(name, arguments)| must(asked(ready, name, arguments, (0, 0)), name).map(|_| ())),
        Check::Texts => {
            let parts = ["", " ", "=", "lbw=", "1", "-1e308", "nan", "é", "🙂", "IN01", ",", "0.5", "\n"];
            for _ in 0..100 {
                let count = parts.len();
                let arguments: Vec<&str> = (0..count).filter_map(|_| random.pick(&parts)).copied().collect();
                maybe("lora", &arguments, &format!("{arguments:?}"))?;
            }
            let long = "1,".repeat(50_000);
            maybe("lora", &["name", "1", &long], "100000 bytes")?;
            let many = vec!["x"; 10_000];
            maybe("lora", &many, "10000 arguments")?;
            maybe(&"n".repeat(100_000), &["1"], "a name of 100000 bytes")
        }
        Check::LargerStructs | Check::Strides | Check::Repeat => {
            let room = match check {
                Check::LargerStructs => (64, 0),
                Check::Strides => (0, 40),
                _ => (0, 0),
            };
            for (name, arguments) in USUAL {
                let expected = must(asked(ready, name, arguments, (0, 0)), name)?;
                if must(asked(ready, name, arguments, room), name)? != expected {
                    return fail(match check {
                        Check::Repeat => "not repeatable: the same tag has other answers",
                        Check::Strides => {
                            "elements of lists lie farther apart, and it answers otherwise: is LATENTD_AT used?"
                        }
                        _ => "its arguments' structs are larger, and it answers otherwise",
                    });
                }
            }
            Ok(())
        }
    }
}
