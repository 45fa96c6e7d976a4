//! What there is to look at in a plugin.

use latentd_plugin_api::abi::{LATENTD_INFOTEXT_PARSE, LATENTD_PROMPT_TAGS, LATENTD_REQUEST_REWRITE};

use super::{
    engine_checks, infotext_checks, library_checks, method_checks, rewrite_checks, stage_checks, tags_checks,
};
use crate::plugins::engine_kinds::Kind;
use crate::plugins::manifest::Manifest;
use crate::plugins::tables::STAGES;

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// Short; with the stage's before a slash.
    pub name: String,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Load,
    Init,
    UnknownExtension,
    Tables,
    Library(library_checks::Check),
    Stage(&'static str, stage_checks::Check),
    Rewrite(rewrite_checks::Check),
    Tags(tags_checks::Check),
    Infotext(infotext_checks::Check),
    Engine(Kind, engine_checks::Check),
    /// Of the manifest's methods the one in this place.
    Method(usize, method_checks::Check),
    /// The process ends, and with it what the library began.
    Exit,
}

impl What {
    /// Whether nothing can be looked at without it; each child does it again.
    pub(super) fn is_preparation(self) -> bool {
        matches!(self, Self::Load | Self::Init | Self::Tables)
    }
}

/// What there is to look at in a plugin, in this order.
pub(super) fn checks(manifest: &Manifest) -> Vec<Check> {
    let check = |name: &str, what| Check { name: name.to_owned(), what };
    let mut checks = vec![
        check("load", What::Load),
        check("init", What::Init),
        check("extension-null", What::UnknownExtension),
        check("tables", What::Tables),
    ];
    checks.extend(library_checks::of(manifest).map(|(name, what)| check(name, What::Library(what))));
    for stage in STAGES.iter().copied() {
        if manifest.stages.iter().any(|named| named.id == stage) {
            let short = stage.split('/').next().unwrap_or(stage);
            if stage == LATENTD_REQUEST_REWRITE {
                let all = rewrite_checks::ALL.iter();
                checks
                    .extend(all.map(|(name, what)| check(&format!("{short}/{name}"), What::Rewrite(*what))));
                continue;
            }
            if stage == LATENTD_PROMPT_TAGS {
                let all = tags_checks::ALL.iter();
                checks.extend(all.map(|(name, what)| check(&format!("{short}/{name}"), What::Tags(*what))));
                continue;
            }
            if stage == LATENTD_INFOTEXT_PARSE {
                let all = infotext_checks::ALL.iter();
                checks
                    .extend(all.map(|(name, what)| check(&format!("{short}/{name}"), What::Infotext(*what))));
                continue;
            }
            let of_stage = stage_checks::of(stage);
            checks.extend(
                of_stage.map(|(name, what)| check(&format!("{short}/{name}"), What::Stage(stage, what))),
            );
        }
    }
    for named in &manifest.engines {
        let of_kind = |(name, what): (&str, engine_checks::Check)| {
            check(&format!("{}/{name}", named.kind.name()), What::Engine(named.kind, what))
        };
        let own = engine_checks::ALL.into_iter().filter(|_| !named.entries.is_empty());
        checks.extend(own.chain(named.library.map(|_| engine_checks::OF_FILES)).map(of_kind));
    }
    for (place, row) in manifest.methods.iter().enumerate() {
        let all = method_checks::ALL.iter();
        checks.extend(
            all.map(|(name, what)| check(&format!("{}/{name}", row.name), What::Method(place, *what))),
        );
    }
    checks.push(check("exit", What::Exit));
    checks
}
