//! What is looked at in `infotext.parse`: that it reads whatever a text may say, and the same each time.

use latentd_plugin_api::abi::{latentd_infotext, latentd_pair};

use super::bench::{Bench, Looked, Ready, fail, may, must};
use super::inputs::Random;
use super::outcome::Outcome;
use super::wider::Roomy;
use crate::error::Result;
use crate::plugins::host::text;
use crate::plugins::infotext::{Pair, parse};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Usual,
    /// None, and many.
    Pairs,
    Texts,
    LargerStructs,
    Strides,
    Repeat,
}

/// All of them, by their names.
pub(super) const ALL: [(&str, Check); 6] = [
    ("usual", Check::Usual),
    ("pairs", Check::Pairs),
    ("texts", Check::Texts),
    ("larger-structs", Check::LargerStructs),
    ("strides", Check::Strides),
    ("repeat", Check::Repeat),
];

/// Does one.
pub(super) fn run(ready: &Ready, check: Check, random: &mut Random) -> Outcome {
    look(ready, check, random).err().unwrap_or(Outcome::Ok)
}

/// What it reads in these pairs, as JSON; `behind` bytes are behind the struct, `between` those between pairs.
fn read(ready: &Ready, pairs: &[Pair], behind: usize, between: usize) -> Result<Option<String>> {
    let pair = |(key, value): &Pair| latentd_pair { key: text(key), value: text(value) };
    let pairs = Roomy::new::<latentd_pair>(&pairs.iter().map(pair).collect::<Vec<_>>(), between);
    let args = latentd_infotext {
        size: 0,
        reserved: 0,
        pairs: pairs.list(),
        prompt: text("a cat"),
        negative_prompt: text("blurry"),
    };
    let args = Roomy::of(&args, behind);
    let (params, _) = parse(&ready.plugin, args.pointer(), &Bench::new())?;
    Ok(params.and_then(|params| params.to_json()).map(|params| serde_json::Value::Object(params).to_string()))
}

/// As extensions of A1111 write them.
fn usual() -> Vec<Pair> {
    let pairs = [
        ("ADetailer model", "face_yolov8n.pt"),
        ("ADetailer confidence", "0.3"),
        ("ADetailer model 2nd", "hand_yolov8n.pt"),
        ("ControlNet 0", "Module: canny, Model: control_v11p, Weight: 1, Guidance Start: 0"),
        ("FreeU Stages", "[{\"backbone_factor\": 1.2}]"),
        ("Template", "a {red|blue} cat"),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec()
}

fn look(ready: &Ready, check: Check, random: &mut Random) -> Looked {
    let maybe = |pairs: &[Pair], what: &str| {
        ready.at(what);
        may(read(ready, pairs, 0, 0), what).map(|_| ())
    };
    match check {
        Check::Usual => must(read(ready, &usual(), 0, 0), "").map(|_| ()),
        Check::Pairs => {
            maybe(&[], "no pairs")?;
            let many: Vec<Pair> =
                (0..1000).map(|place| (format!("Key {place}"), place.to_string())).collect();
            maybe(&many, "1000 pairs")?;
            maybe(&[usual(), usual()].concat(), "each pair twice")
        }
        Check::Texts => {
            for part in ["1", "-", "{", "[", "\"", ",", ": ", "\\", "é", "a", "1e"] {
                let value = part.repeat(100_000 / part.len());
                let pairs: Vec<Pair> = usual().into_iter().map(|(key, _)| (key, value.clone())).collect();
                maybe(&pairs, &format!("values of 100000 bytes of '{part}'"))?;
            }
            let parts = [
                "",
                "1",
                "-1",
                "0.5",
                "True",
                "None",
                "nan",
                "inf",
                "{}",
                "[]",
                "{\"",
                ",",
                " ",
                "\n",
                "é",
                "99999999999999999999",
            ];
            for _ in 0..200 {
                let value: String = (0..4).filter_map(|_| random.pick(&parts)).copied().collect();
                let pairs: Vec<Pair> = usual().into_iter().map(|(key, _)| (key, value.clone())).collect();
                maybe(&pairs, &format!("values '{}'", value.escape_debug()))?;
            }
            Ok(())
        }
        Check::LargerStructs | Check::Strides | Check::Repeat => {
            let (behind, between) = match check {
                Check::LargerStructs => (64, 0),
                Check::Strides => (0, 40),
                _ => (0, 0),
            };
            let expected = must(read(ready, &usual(), 0, 0), "")?;
            if must(read(ready, &usual(), behind, between), "")? == expected {
                return Ok(());
            }
            fail(match check {
                Check::Repeat => "not repeatable: it reads something else in the same text",
                Check::Strides => {
                    "elements of lists lie farther apart, and it answers otherwise: is LATENTD_AT used?"
                }
                _ => "its arguments' structs are larger, and it answers otherwise",
            })
        }
    }
}
