//! The services, from both ends: a function of the ABI on the plugin's side, which asks the host, and on the host's side what
//! calls the service with what came.

use latentd_plugin_api::abi::{
    LATENTD_ATTENTION, LATENTD_CACHE, LATENTD_CONTROL_RESIDUALS, LATENTD_ENGINES, LATENTD_EVALS,
    LATENTD_JOB_PLAN, LATENTD_JOBS, LATENTD_LIBRARY, LATENTD_MODELS, LATENTD_NETWORKS, LATENTD_ONNX,
    LATENTD_OPS, LATENTD_REGISTRY, LATENTD_SUBJOBS, LATENTD_TENSORS, LATENTD_TEXTS, LATENTD_VAE,
    latentd_attention_rule, latentd_bytes, latentd_cache, latentd_call, latentd_detection,
    latentd_engine_need, latentd_engine_result, latentd_engine_run, latentd_eval_args, latentd_evals,
    latentd_file, latentd_file_info, latentd_handle, latentd_input, latentd_jobs, latentd_kept,
    latentd_library, latentd_list, latentd_model_describe, latentd_model_info, latentd_need, latentd_net,
    latentd_network_run, latentd_networks, latentd_onnx, latentd_ops, latentd_registry, latentd_residual,
    latentd_save, latentd_status, latentd_subjob, latentd_subjobs, latentd_subplan, latentd_subresult,
    latentd_tensor_info, latentd_tensors, latentd_text, latentd_texts, latentd_token, latentd_vae,
    latentd_want,
};
use rmp::encode;
use rmpv::ValueRef;

use super::asking::{HOST, ask};
use super::coding::{Arena, Coded, Fields, Wrong, key, write_list};
use crate::plugins::host::{self, give_back, service_of};

/// The type of an argument: a number or text, a `[list]` of something, a `(struct)` that is pointed to.
macro_rules! argument {
    ([$item:ty]) => { latentd_list };
    (($item:ty)) => { *const $item };
    ($item:ident) => { $item };
}

/// The type of a result.
macro_rules! result {
    ([$item:ty]) => {
        latentd_list
    };
    (($item:ty)) => {
        $item
    };
    ($item:ident) => {
        $item
    };
}

macro_rules! write {
    ([$item:ty], $value:expr, $out:expr) => {
        write_list::<$item>(&$value, $out)
    };
    (($item:ty), $value:expr, $out:expr) => {
        Coded::write(&$value, $out)
    };
    ($item:ident, $value:expr, $out:expr) => {
        Coded::write(&$value, $out)
    };
}

macro_rules! read {
    ([$item:ty], $fields:expr, $name:expr, $arena:expr) => {
        $fields.list::<$item>($name, $arena)
    };
    (($item:ty), $fields:expr, $name:expr, $arena:expr) => {
        $fields.read::<*const $item>($name, $arena)
    };
    ($item:ident, $fields:expr, $name:expr, $arena:expr) => {
        $fields.read::<$item>($name, $arena)
    };
}

/// What a result is before the service fills it.
macro_rules! fresh {
    ([$item:ty], $arena:expr) => {
        latentd_list { items: std::ptr::null(), count: 0, stride: 0 }
    };
    (($item:ty), $arena:expr) => {
        <$item>::read(&ValueRef::Nil, $arena)?
    };
    ($item:ident, $arena:expr) => {
        <$item>::none()
    };
}

/// Gives a result to the plugin.
macro_rules! give {
    ([$item:ty], $fields:expr, $name:expr, $arena:expr, $to:expr) => {
        $to.write($fields.list::<$item>($name, $arena)?)
    };
    (($item:ty), $fields:expr, $name:expr, $arena:expr, $to:expr) => {
        give_back(&$fields.read::<$item>($name, $arena)?, $to)
    };
    ($item:ident, $fields:expr, $name:expr, $arena:expr, $to:expr) => {
        $to.write($fields.read::<$item>($name, $arena)?)
    };
}

macro_rules! lends {
    ([$item:ty]) => {
        true
    };
    (($item:ty)) => {
        true
    };
    ($item:ident) => {
        <$item as Coded>::LENDS
    };
}

macro_rules! asks {
    ($(
        $table:ident[$function:literal] = $served:expr;
        fn $guest:ident($($given:ident: $of:tt),*) -> ($($left:ident: $is:tt),*);
    )*) => {
        $(
            pub(super) unsafe extern "C" fn $guest(
                call: *mut latentd_call,
                $($given: argument!($of),)*
                $($left: *mut result!($is),)*
            ) -> latentd_status {
                let is_null = [$(!$left.is_null()),*];
                let nulls: u32 = is_null.iter().map(|there: &bool| u32::from(!there)).sum();
                let given: &[&str] = &[$(stringify!($given)),*];
                let write = |out: &mut Vec<u8>| {
                    encode::write_map_len(out, given.len() as u32 + nulls).ok();
                    $(
                        key(out, stringify!($given));
                        // SAFETY: the plugin lends it.
                        unsafe { write!($of, $given, out) };
                    )*
                    // A place that is none is told, too: the service says what is wrong with it.
                    $(
                        if $left.is_null() {
                            key(out, stringify!($left));
                            encode::write_nil(out).ok();
                        }
                    )*
                };
                let lends = false $(|| lends!($is))*;
                #[allow(unused_variables)]
                let read = |results: &Fields<'_, '_>, arena: &Arena| {
                    $(
                        if !$left.is_null() {
                            // SAFETY: it is the plugin's own, and not null.
                            unsafe { give!($is, results, stringify!($left), arena, $left) };
                        }
                    )*
                    Ok(())
                };
                ask(call, ($table, $function), write, read, lends)
            }
        )*

        /// Calls a service; its results as a map. `None`: there is no such service.
        ///
        /// # Safety
        /// `call` is one of a plugin's that has not returned.
        pub(super) unsafe fn serve(
            (table, function): (&str, &str),
            call: *mut latentd_call,
            args: &ValueRef<'_>,
        ) -> Result<Option<(latentd_status, Vec<u8>)>, Wrong> {
            let (arena, mut out) = (Arena::default(), vec![]);
            let fields = Fields::of(args)?;
            let status = match (table, function) {
                $(
                    ($table, $function) => {
                        let Some(service) = $served else { return Ok(None) };
                        $(let $given: argument!($of) = read!($of, fields, stringify!($given), &arena)?;)*
                        $(let mut $left: result!($is) = fresh!($is, &arena);)*
                        // SAFETY: what is lent lives until the function returns.
                        let status = unsafe {
                            service(
                                call,
                                $($given,)*
                                $(place(&fields, stringify!($left), &raw mut $left),)*
                            )
                        };
                        if status == 0 {
                            let left: &[&str] = &[$(stringify!($left)),*];
                            encode::write_map_len(&mut out, left.len() as u32).ok();
                            $(
                                key(&mut out, stringify!($left));
                                // SAFETY: the service lends it until its caller returns.
                                unsafe { write!($is, $left, &mut out) };
                            )*
                        }
                        status
                    }
                )*
                _ => return Ok(None),
            };
            Ok(Some((status, out)))
        }
    };
}

/// Where a result goes: nowhere if the plugin gave no place.
fn place<T>(fields: &Fields<'_, '_>, name: &str, own: *mut T) -> *mut T {
    if matches!(fields.get(name), Some(ValueRef::Nil)) { std::ptr::null_mut() } else { own }
}

macro_rules! of {
    ($type:ident, $id:ident, $function:ident) => {
        service_of::<$type>($id).and_then(|table| table.$function)
    };
}

asks! {
    HOST["replace"] = host::TABLE.replace;
    fn replace(slot: u32, handle: latentd_handle) -> ();
    HOST["reply"] = host::TABLE.reply;
    fn reply(slot: u32, reply: latentd_bytes) -> ();
    LATENTD_JOB_PLAN["stage"] = host::PLAN.stage;
    fn plan_stage(want: (latentd_want)) -> ();
    LATENTD_JOB_PLAN["note"] = host::PLAN.note;
    fn plan_note(note: latentd_bytes) -> ();
    LATENTD_JOB_PLAN["network"] = host::PLAN.network;
    fn plan_network(need: (latentd_need)) -> ();
    LATENTD_JOB_PLAN["engine"] = host::PLAN.engine;
    fn plan_engine(need: (latentd_engine_need)) -> ();
    LATENTD_JOB_PLAN["subjob"] = host::PLAN.subjob;
    fn plan_subjob(subplan: (latentd_subplan)) -> ();
    LATENTD_JOB_PLAN["memory"] = host::PLAN.memory;
    fn plan_memory(host_bytes: u64, device_bytes: u64) -> ();
    LATENTD_ATTENTION["add"] = Some(host::add_rule);
    fn attention_add(rule: (latentd_attention_rule)) -> ();
    LATENTD_CONTROL_RESIDUALS["add"] = Some(host::add_residual);
    fn control_add(residual: (latentd_residual)) -> ();
    LATENTD_ENGINES["detected"] = Some(host::detected);
    fn engines_detected(detection: (latentd_detection)) -> ();
    LATENTD_JOBS["notice"] = of!(latentd_jobs, LATENTD_JOBS, notice);
    fn job_notice(text: latentd_text) -> ();
    LATENTD_JOBS["preview"] = of!(latentd_jobs, LATENTD_JOBS, preview);
    fn job_preview(image: latentd_handle) -> ();
    LATENTD_JOBS["artifact"] = of!(latentd_jobs, LATENTD_JOBS, artifact);
    fn job_artifact(name: latentd_text, image: u32, handle: latentd_handle) -> ();
    LATENTD_JOBS["reserve"] = of!(latentd_jobs, LATENTD_JOBS, reserve);
    fn job_reserve(host_bytes: u64, device_bytes: u64) -> ();
    LATENTD_JOBS["folder"] = of!(latentd_jobs, LATENTD_JOBS, folder);
    fn job_folder() -> (path: latentd_text);
    LATENTD_JOBS["settings"] = of!(latentd_jobs, LATENTD_JOBS, settings);
    fn job_settings() -> (map: latentd_bytes);
    LATENTD_MODELS["describe"] = of!(latentd_model_describe, LATENTD_MODELS, describe);
    fn model_describe() -> (info: (latentd_model_info));
    LATENTD_EVALS["eval"] = of!(latentd_evals, LATENTD_EVALS, eval);
    fn evals_eval(args: (latentd_eval_args)) -> (outputs: latentd_handle);
    LATENTD_EVALS["bank"] = of!(latentd_evals, LATENTD_EVALS, bank);
    fn evals_bank(name: latentd_text) -> (kept: [latentd_kept]);
    LATENTD_TENSORS["alloc"] = of!(latentd_tensors, LATENTD_TENSORS, alloc);
    fn tensor_alloc(info: (latentd_tensor_info)) -> (handle: latentd_handle);
    LATENTD_TENSORS["info"] = of!(latentd_tensors, LATENTD_TENSORS, info);
    fn tensor_info(handle: latentd_handle) -> (info: (latentd_tensor_info));
    LATENTD_TENSORS["ref"] = of!(latentd_tensors, LATENTD_TENSORS, r#ref);
    fn tensor_ref(handle: latentd_handle) -> ();
    LATENTD_OPS["noise"] = of!(latentd_ops, LATENTD_OPS, noise);
    fn ops_noise(seed: u64, stream: u64, info: (latentd_tensor_info)) -> (noise: latentd_handle);
    LATENTD_TEXTS["tokenise"] = of!(latentd_texts, LATENTD_TEXTS, tokenise);
    fn texts_tokenise(text: latentd_text) -> (tokens: [latentd_token]);
    LATENTD_TEXTS["encode"] = of!(latentd_texts, LATENTD_TEXTS, encode);
    fn texts_encode(tokens: [latentd_token], like: u32) -> (context: latentd_handle, pooled: latentd_handle);
    LATENTD_VAE["encode_image"] = of!(latentd_vae, LATENTD_VAE, encode_image);
    fn vae_encode_image(image: latentd_handle, seed: u64) -> (latents: latentd_handle);
    LATENTD_VAE["decode_latents"] = of!(latentd_vae, LATENTD_VAE, decode_latents);
    fn vae_decode_latents(latents: latentd_handle) -> (image: latentd_handle);
    LATENTD_LIBRARY["find"] = of!(latentd_library, LATENTD_LIBRARY, find);
    fn library_find(kind: latentd_text, name: latentd_text) -> (file: latentd_file);
    LATENTD_LIBRARY["names"] = of!(latentd_library, LATENTD_LIBRARY, names);
    fn library_names(kind: latentd_text) -> (names: [latentd_text]);
    LATENTD_LIBRARY["info"] = of!(latentd_library, LATENTD_LIBRARY, info);
    fn library_info(file: latentd_file) -> (info: (latentd_file_info));
    LATENTD_LIBRARY["tensor"] = of!(latentd_library, LATENTD_LIBRARY, tensor);
    fn library_tensor(file: latentd_file, name: latentd_text) -> (tensor: latentd_handle);
    LATENTD_LIBRARY["open"] = of!(latentd_library, LATENTD_LIBRARY, open);
    fn library_open(file: latentd_file) -> (bytes: latentd_handle);
    LATENTD_LIBRARY["save"] = of!(latentd_library, LATENTD_LIBRARY, save);
    fn library_save(save: (latentd_save)) -> (file: latentd_file);
    LATENTD_LIBRARY["remove"] = of!(latentd_library, LATENTD_LIBRARY, remove);
    fn library_remove(file: latentd_file) -> ();
    LATENTD_NETWORKS["open"] = of!(latentd_networks, LATENTD_NETWORKS, open);
    fn networks_open(file: latentd_file, on_base: u32) -> (network: latentd_net);
    LATENTD_NETWORKS["close"] = of!(latentd_networks, LATENTD_NETWORKS, close);
    fn networks_close(network: latentd_net) -> ();
    LATENTD_NETWORKS["describe"] = of!(latentd_networks, LATENTD_NETWORKS, describe);
    fn networks_describe(file: latentd_file) -> (map: latentd_bytes);
    LATENTD_NETWORKS["run"] = of!(latentd_networks, LATENTD_NETWORKS, run);
    fn networks_run(network: latentd_net, run: (latentd_network_run)) -> (outputs: [latentd_input]);
    LATENTD_ONNX["open"] = of!(latentd_onnx, LATENTD_ONNX, open);
    fn onnx_open(file: latentd_file) -> (graph: latentd_net);
    LATENTD_ONNX["close"] = of!(latentd_onnx, LATENTD_ONNX, close);
    fn onnx_close(graph: latentd_net) -> ();
    LATENTD_ONNX["describe"] = of!(latentd_onnx, LATENTD_ONNX, describe);
    fn onnx_describe(file: latentd_file) -> (map: latentd_bytes);
    LATENTD_ONNX["initializer"] = of!(latentd_onnx, LATENTD_ONNX, initializer);
    fn onnx_initializer(graph: latentd_net, name: latentd_text) -> (tensor: latentd_handle);
    LATENTD_ONNX["run"] = of!(latentd_onnx, LATENTD_ONNX, run);
    fn onnx_run(graph: latentd_net, inputs: [latentd_input]) -> (outputs: [latentd_input]);
    LATENTD_REGISTRY["names"] = of!(latentd_registry, LATENTD_REGISTRY, names);
    fn registry_names(kind: u32) -> (names: [latentd_text]);
    LATENTD_REGISTRY["run"] = of!(latentd_registry, LATENTD_REGISTRY, run);
    fn registry_run(run: (latentd_engine_run)) -> (result: (latentd_engine_result));
    LATENTD_CACHE["get"] = of!(latentd_cache, LATENTD_CACHE, get);
    fn cache_get(key: latentd_bytes) -> (handle: latentd_handle);
    LATENTD_CACHE["put"] = of!(latentd_cache, LATENTD_CACHE, put);
    fn cache_put(key: latentd_bytes, handle: latentd_handle) -> ();
    LATENTD_SUBJOBS["run"] = of!(latentd_subjobs, LATENTD_SUBJOBS, run);
    fn subjobs_run(subjob: (latentd_subjob)) -> (result: (latentd_subresult));
}
