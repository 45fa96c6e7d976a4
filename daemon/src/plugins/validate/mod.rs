//! Whether a plugin keeps to the ABI: its library is run with made-up inputs, from usual to hostile, without a daemon or models.
//!
//! [`parent`] has a child process do it, so that a crash or a hang of the plugin is a failed check; [`child`] does one check
//! after the other, those of the library as a whole in [`library_checks`], those of each stage in [`stage_checks`]
//! and [`rewrite_checks`], of engines and methods of its own in [`engine_checks`] and [`method_checks`]. Inputs come from a seed alone ([`inputs`], [`schema`]): the same seed gives the same report.

mod bench;
mod child;
mod coding;
mod conds;
mod engine_checks;
mod infotext_checks;
mod inputs;
mod library_checks;
mod list;
mod method_checks;
mod outcome;
mod parent;
mod passes;
mod residuals;
mod rewrite_checks;
mod scene;
mod schema;
mod stage;
mod stage_checks;
mod tags_checks;
mod wider;
mod wider_conds;
mod within;

use std::path::Path;

pub(crate) use child::run as run_child;
pub(crate) use outcome::{Checked, Options, Outcome};
pub(crate) use parent::Program;

/// Looks at a library; `told` is given each check as it ends. Gives the manifest's name and version, if it can be read.
pub(crate) fn validate(
    library: &Path,
    program: &Program,
    options: &Options,
    told: &mut dyn FnMut(Checked),
) -> std::io::Result<Option<(String, String)>> {
    let read = super::search::look_at(library);
    let outcome = read.as_ref().map_or_else(|why| Outcome::Failed(why.clone()), |_| Outcome::Ok);
    told(Checked { name: "manifest".to_owned(), outcome });
    let Ok(manifest) = read else { return Ok(None) };
    parent::run(library, &manifest, program, options, told)?;
    Ok(Some((manifest.name, manifest.version)))
}
