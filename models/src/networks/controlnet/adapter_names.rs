//! What T2I-Adapters' layers are called: by their authors, in the full form and the light one, and by diffusers.

use crate::files::Tensors;
use crate::networks::detect::count;

/// What stands before the names, if anything does.
const PREFIXES: [&str; 2] = ["adapter.", ""];

/// Blocks of a level of the authors' full form, which has all of them in one row.
const IN_A_LEVEL: usize = 2;

/// Names of an adapter's layers, each of which has a weight and a bias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AdapterNames {
    pub prefix: &'static str,
    /// The first convolution; the light form has none.
    pub first: Option<String>,
    pub levels: Vec<LevelNames>,
}

/// Those of a level; between levels the size halves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LevelNames {
    pub blocks: Vec<BlockNames>,
    /// What the light form ends with.
    pub last: Option<String>,
}

/// Those of a residual block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockNames {
    /// What comes first, also on the way around.
    pub first: Option<String>,
    pub convolutions: [String; 2],
    /// On the way around alone.
    pub around: Option<String>,
}

impl AdapterNames {
    /// Of a file's adapter, if it has one.
    pub(super) fn of(file: &Tensors) -> Option<Self> {
        let has = |name: &str| file.shape(&format!("{name}.weight")).is_some();
        let prefix = PREFIXES.into_iter().find(|prefix| {
            // An upscaler's residual blocks are of other names.
            let blocks = ["body.0.resnets.0.", "body.0.body.0.", "body.0."];
            blocks
                .iter()
                .any(|block| ["block1", "block2"].iter().all(|part| has(&format!("{prefix}{block}{part}"))))
        })?;
        let there = |name: String| has(&name).then_some(name);
        let body = |index: usize| format!("{prefix}body.{index}");
        let bodies = count(file, |index| format!("{}.", body(index)));
        let block = |name: &str| BlockNames {
            first: there(format!("{name}.in_conv")),
            convolutions: [format!("{name}.block1"), format!("{name}.block2")],
            around: there(format!("{name}.skep")),
        };
        let first_block = body(0);
        let inner = ["resnets", "body"]
            .into_iter()
            .find(|inner| file.has_under(&format!("{first_block}.{inner}.0.")));
        let levels = match inner {
            Some(inner) => (0..bodies)
                .map(|level| {
                    let name = body(level);
                    let blocks = count(file, |index| format!("{name}.{inner}.{index}."));
                    let mut blocks: Vec<_> =
                        (0..blocks).map(|index| block(&format!("{name}.{inner}.{index}"))).collect();
                    if let Some(first) = blocks.first_mut() {
                        first.first = there(format!("{name}.in_conv"));
                    }
                    LevelNames { blocks, last: there(format!("{name}.out_conv")) }
                })
                .collect(),
            None => (0..bodies.div_ceil(IN_A_LEVEL))
                .map(|level| {
                    let blocks = (level * IN_A_LEVEL..bodies.min((level + 1) * IN_A_LEVEL))
                        .map(|index| block(&body(index)));
                    LevelNames { blocks: blocks.collect(), last: None }
                })
                .collect(),
        };
        Some(Self { prefix, first: there(format!("{prefix}conv_in")), levels })
    }
}
