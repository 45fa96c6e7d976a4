//! What job.plan may call to collect its answer.

use latentd_plugin_api::abi::{
    LATENTD_UNET_BLOCK, latentd_bytes, latentd_call, latentd_list, latentd_plan, latentd_site,
    latentd_status, latentd_want,
};

use super::engines::plan_engine;
use super::networks::plan_network;
use super::serving::{Served, elements, misuse, read_bytes, read_text, serve, taken};
use super::subjobs::plan_subjob;
use crate::plugins::call::{Call, State, Want};

/// Stages that a plugin may want: more than there are.
const MOST_WANTS: usize = 64;
/// Bytes that a plan may leave for its instances.
pub(in crate::plugins) const NOTE_BYTES: u64 = 1 << 20;
/// Places in the UNet that a plan may name.
const MOST_SITES: u32 = 4096;

/// The calls that collect a plan's answer.
pub(in crate::plugins) static PLAN: latentd_plan = latentd_plan {
    size: size_of::<latentd_plan>() as u32,
    reserved: 0,
    stage: Some(plan_stage),
    note: Some(plan_note),
    network: Some(plan_network),
    engine: Some(plan_engine),
    subjob: Some(plan_subjob),
    memory: Some(plan_memory),
};

unsafe extern "C" fn plan_memory(
    call: *mut latentd_call,
    host_bytes: u64,
    device_bytes: u64,
) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        let Some(plan) = &mut state.plan else {
            return misuse("memory is planned within job.plan and describe");
        };
        // One budget has both.
        let bytes = host_bytes.saturating_add(device_bytes);
        plan.memory = plan.memory.saturating_add(bytes);
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn plan_stage(call: *mut latentd_call, want: *const latentd_want) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        let Some(plan) = &mut state.plan else { return misuse("stages are wanted within job.plan") };
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(want) = (unsafe { taken(want) }) else { return misuse("the want is null") };
        // SAFETY: the plugin lends a text.
        let stage = unsafe { read_text(want.stage) };
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        if !is_share(want.from) || !is_share(want.until) || (want.until < want.from) {
            let text = format!("{stage} from {} until {}: shares of 0 to 1 are meant", want.from, want.until);
            return misuse(text);
        }
        // SAFETY: the plugin lends a list.
        let sites = unsafe { read_sites(want.sites) }?;
        if !sites.is_empty() && stage != LATENTD_UNET_BLOCK {
            return misuse(format!("{stage} has no sites; {LATENTD_UNET_BLOCK} has"));
        }
        plan.wants.retain(|other| other.stage != stage);
        if plan.wants.len() >= MOST_WANTS {
            return misuse(format!("more than {MOST_WANTS} stages are wanted"));
        }
        plan.wants.push(Want { stage, from: want.from, until: want.until, sites });
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// Places that a plan names, each as part and index.
///
/// # Safety
/// `sites` points to as many elements of as many bytes as it says, or is empty.
unsafe fn read_sites(sites: latentd_list) -> Served<Vec<(u32, u32)>> {
    // SAFETY: as the caller says.
    let sites = unsafe { elements::<latentd_site>(sites, MOST_SITES, "sites") }?;
    Ok(sites.into_iter().map(|site| (site.part, site.index)).collect())
}

unsafe extern "C" fn plan_note(call: *mut latentd_call, note: latentd_bytes) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        let Some(plan) = &mut state.plan else { return misuse("notes are left within job.plan") };
        // SAFETY: the plugin lends so many bytes.
        let bytes = unsafe { read_bytes(note) }.filter(|_| note.length <= NOTE_BYTES);
        let Some(bytes) = bytes else {
            return misuse(format!("a note of {} bytes; {NOTE_BYTES} are allowed", note.length));
        };
        plan.note = bytes.to_vec();
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}
