//! A library's tables: it is loaded for good, its entry looked at, its functions found.

use std::ffi::c_void;
use std::path::Path;

use latentd_plugin_api::abi::{
    ENTRY_SYMBOL, LATENTD_ABI_MAJOR, LATENTD_ATTENTION, LATENTD_BATCH_POST, LATENTD_CONDITIONING,
    LATENTD_CONTROL_RESIDUALS, LATENTD_DENOISE_BEFORE, LATENTD_DENOISE_COMBINE, LATENTD_DENOISE_WRAP,
    LATENTD_ENGINES, LATENTD_IMAGE_POST, LATENTD_INFOTEXT_PARSE, LATENTD_INFOTEXT_WRITE, LATENTD_JOB_PLAN,
    LATENTD_LATENT_FINAL, LATENTD_NOISE_INIT, LATENTD_PASS_BEGIN, LATENTD_PROMPT_TAGS,
    LATENTD_REQUEST_REWRITE, LATENTD_RPC_METHODS, LATENTD_UNET_BLOCK, latentd_attention_stage,
    latentd_conditioning_stage, latentd_control_stage, latentd_denoise_stage, latentd_engine_stage,
    latentd_host, latentd_infotext_stage, latentd_latents_stage, latentd_methods_extension,
    latentd_pass_stage, latentd_pictures_stage, latentd_plan_extension, latentd_plugin_entry,
    latentd_rewrite_stage, latentd_tags_stage, latentd_unet_block_stage,
};
use libloading::Library;

use super::host::{self, SERVICES, text};
use super::manifest::Manifest;
use super::method_rows::MethodKind;
use super::status::name_of;

/// What stands for the table of what a plugin begins and ends with, which has no id.
pub(super) const ENTRY: &str = "entry";

macro_rules! stages {
    ($($field:ident: $table:ident.$function:ident = $id:ident),* $(,)?) => {
        /// The stages that this host has.
        pub(super) const STAGES: &[&str] = &[$($id),*];

        /// The tables of a plugin, as far as it has them. They are constants of a library that stays.
        #[derive(Clone, Copy)]
        pub(super) struct Tables {
            pub entry: &'static latentd_plugin_entry,
            pub plan: Option<&'static latentd_plan_extension>,
            pub methods: Option<&'static latentd_methods_extension>,
            pub engines: Option<&'static latentd_engine_stage>,
            $(pub $field: Option<&'static $table>),*
        }

        impl Tables {
            /// Ids of the stages that are there.
            fn stages(&self) -> Vec<&'static str> {
                let there = [$(($id, self.$field.is_some())),*];
                there.into_iter().filter(|(_, is_there)| *is_there).map(|(id, _)| id).collect()
            }

            /// Those that `table` gives by their ids; an error if one has no function.
            fn of(
                entry: &'static latentd_plugin_entry,
                plan: *const c_void,
                (methods, engines): (Option<*const c_void>, Option<*const c_void>),
                table: impl Fn(&'static str) -> Result<Option<*const c_void>, String>,
            ) -> Result<Self, String> {
                let plan = kept(Some(plan).filter(|table| !table.is_null()));
                let engines: Option<&'static latentd_engine_stage> = kept(engines);
                let methods: Option<&'static latentd_methods_extension> = kept(methods);
                let tables = Self { entry, plan, methods, engines, $($field: kept(table($id)?)),* };
                let lacks = [
                    (LATENTD_JOB_PLAN, tables.plan.is_some_and(|table| table.plan.is_none())),
                    (
                        LATENTD_RPC_METHODS,
                        tables.methods.is_some_and(|table| table.quick.is_none() && table.run.is_none()),
                    ),
                    (LATENTD_ENGINES, tables.engines.is_some_and(|table| table.run.is_none())),
                    $(($id, tables.$field.is_some_and(|table| table.$function.is_none()))),*
                ];
                match lacks.into_iter().find(|(_, lacks)| *lacks) {
                    Some((id, _)) => Err(format!("its table {id} has no function, or too small a size")),
                    None => Ok(tables),
                }
            }
        }
    };
}

stages! {
    conditioning: latentd_conditioning_stage.run = LATENTD_CONDITIONING,
    request_rewrite: latentd_rewrite_stage.run = LATENTD_REQUEST_REWRITE,
    pass_begin: latentd_pass_stage.run = LATENTD_PASS_BEGIN,
    prompt_tags: latentd_tags_stage.run = LATENTD_PROMPT_TAGS,
    noise_init: latentd_latents_stage.run = LATENTD_NOISE_INIT,
    denoise_before: latentd_denoise_stage.run = LATENTD_DENOISE_BEFORE,
    denoise_wrap: latentd_denoise_stage.run = LATENTD_DENOISE_WRAP,
    attention: latentd_attention_stage.run = LATENTD_ATTENTION,
    control_residuals: latentd_control_stage.run = LATENTD_CONTROL_RESIDUALS,
    unet_block: latentd_unet_block_stage.run = LATENTD_UNET_BLOCK,
    denoise_combine: latentd_denoise_stage.run = LATENTD_DENOISE_COMBINE,
    latent_final: latentd_latents_stage.run = LATENTD_LATENT_FINAL,
    image_post: latentd_pictures_stage.run = LATENTD_IMAGE_POST,
    batch_post: latentd_pictures_stage.run = LATENTD_BATCH_POST,
    infotext_write: latentd_pictures_stage.run = LATENTD_INFOTEXT_WRITE,
    infotext_parse: latentd_infotext_stage.run = LATENTD_INFOTEXT_PARSE,
}

/// Calls a library for the first time.
pub(super) fn begun(
    library: &'static Library,
    manifest: &Manifest,
    host: &'static latentd_host,
) -> Result<Tables, String> {
    let entry = entry(library)?;
    init(entry, host)?;
    tables(entry, manifest)
}

/// Loads a library for good and calls it for the first time.
pub(super) fn begin(path: &Path, manifest: &Manifest, host: &'static latentd_host) -> Result<Tables, String> {
    begun(opened(path)?, manifest, host)
}

impl Tables {
    /// Ids of the tables that are there, and functions of those that have several, as `ID.function`.
    pub(super) fn there(&self) -> (Vec<&'static str>, Vec<String>) {
        let mut ids = self.stages();
        let mut functions = vec![];
        if self.entry.create.is_some() {
            functions.push(format!("{ENTRY}.create"));
        }
        if self.plan.is_some() {
            ids.push(LATENTD_JOB_PLAN);
        }
        if let Some(methods) = self.methods {
            ids.push(LATENTD_RPC_METHODS);
            let there = [("quick", methods.quick.is_some()), ("run", methods.run.is_some())];
            let there = there.into_iter().filter(|(_, is_there)| *is_there);
            functions.extend(there.map(|(function, _)| format!("{LATENTD_RPC_METHODS}.{function}")));
        }
        if let Some(engines) = self.engines {
            ids.push(LATENTD_ENGINES);
            let there = [("describe", engines.describe.is_some()), ("run", engines.run.is_some())];
            let there = there.into_iter().filter(|(_, is_there)| *is_there);
            functions.extend(there.map(|(function, _)| format!("{LATENTD_ENGINES}.{function}")));
        }
        (ids, functions)
    }
}

/// Whether this host has what a plugin needs.
pub(super) fn check(manifest: &Manifest) -> Result<(), String> {
    let (major, minor) = manifest.abi;
    if major != LATENTD_ABI_MAJOR {
        return Err(foreign(major, minor));
    }
    let has = |id: &str| {
        let extensions = [LATENTD_JOB_PLAN, LATENTD_RPC_METHODS, LATENTD_ENGINES];
        SERVICES.contains(&id) || STAGES.contains(&id) || extensions.contains(&id)
    };
    match manifest.requires.iter().find(|id| !has(id)) {
        Some(id) => Err(format!("it requires {id}, which this latentd does not have")),
        None => Ok(()),
    }
}

fn foreign(major: u32, minor: u32) -> String {
    format!(
        "it was built for ABI {major}.{minor}, this latentd has {LATENTD_ABI_MAJOR}.x: get the plugin's build for it"
    )
}

/// Loads a library for good. Nothing of it is called but what the system calls as it loads one.
pub(super) fn opened(path: &Path) -> Result<&'static Library, String> {
    // SAFETY: the user put this file into a folder of plugins that only they can write to: its code is trusted like the
    // daemon's own as long as plugins run within it.
    let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
    Ok(Box::leak(Box::new(library)))
}

/// Loads a library and looks at its entry.
pub(super) fn load(path: &Path, manifest: &Manifest) -> Result<&'static latentd_plugin_entry, String> {
    check(manifest)?;
    entry(opened(path)?)
}

/// What a library exports.
fn entry(library: &'static Library) -> Result<&'static latentd_plugin_entry, String> {
    // SAFETY: by the ABI the symbol is a constant of this type, or as much of it as its size says, which is looked at first.
    let entry = unsafe { library.get::<*const latentd_plugin_entry>(ENTRY_SYMBOL.as_bytes()) };
    let entry = entry.map_err(|_| format!("it exports no {ENTRY_SYMBOL}"))?;
    let entry: *const latentd_plugin_entry = *entry;
    // SAFETY: every version's entry begins with its size; it is a constant.
    let entry = unsafe { host::taken(entry) }.ok_or_else(|| format!("its {ENTRY_SYMBOL} is null"))?;
    let entry: &'static latentd_plugin_entry = Box::leak(Box::new(entry));
    if entry.abi_major != LATENTD_ABI_MAJOR {
        return Err(foreign(entry.abi_major, entry.abi_minor));
    }
    if entry.init.is_none() {
        return Err("its entry has no init".to_owned());
    }
    if entry.extension.is_none() {
        return Err("its entry has no extension".to_owned());
    }
    Ok(entry)
}

/// What a plugin does first of all.
pub(super) fn init(entry: &latentd_plugin_entry, host: &'static latentd_host) -> Result<(), String> {
    let init = entry.init.ok_or("its entry has no init")?;
    // SAFETY: `init` is called once, first of all, with a table that stays.
    let status = unsafe { init(std::ptr::from_ref(host)) };
    if status != 0 {
        return Err(format!("its init failed: {}", name_of(status)));
    }
    Ok(())
}

/// The tables of a plugin, of those stages that its manifest names.
pub(super) fn tables(entry: &'static latentd_plugin_entry, manifest: &Manifest) -> Result<Tables, String> {
    let extension = entry.extension.ok_or("its entry has no extension")?;
    let table = |id: &str| -> *const c_void {
        // SAFETY: the id is a text that outlives the call.
        unsafe { extension(text(id)) }
    };
    let named = |id: &'static str, is_named: bool| -> Result<Option<*const c_void>, String> {
        if !is_named {
            return Ok(None);
        }
        let found = table(id);
        if found.is_null() {
            return Err(format!("its manifest names {id}, but it has no such table"));
        }
        Ok(Some(found))
    };
    let stage = |id| named(id, manifest.stages.iter().any(|stage| stage.id == id));
    let engines = named(LATENTD_ENGINES, !manifest.engines.is_empty())?;
    let methods = named(LATENTD_RPC_METHODS, !manifest.methods.is_empty())?;
    let tables = Tables::of(entry, table(LATENTD_JOB_PLAN), (methods, engines), stage)?;
    let of_kind = |kind| manifest.methods.iter().any(|row| row.kind == kind);
    let lacks = [
        ("quick", of_kind(MethodKind::Quick) && tables.methods.is_some_and(|table| table.quick.is_none())),
        ("run", of_kind(MethodKind::Job) && tables.methods.is_some_and(|table| table.run.is_none())),
    ];
    match lacks.into_iter().find(|(_, lacks)| *lacks) {
        Some((function, _)) => {
            Err(format!("its table {LATENTD_RPC_METHODS} has no function {function}, or too small a size"))
        }
        None => Ok(tables),
    }
}

/// A table as the type that its id says. It stays, as the library does.
fn kept<T>(table: Option<*const c_void>) -> Option<&'static T> {
    // SAFETY: every table begins with its size, and by its id is of this type.
    let table = table.and_then(|table| unsafe { host::taken(table.cast::<T>()) })?;
    Some(Box::leak(Box::new(table)))
}
