//! The model of the pass, for stages around it.

use latentd_models::networks::unet_sites::SitePart;
use latentd_models::pipeline::{Region, Role};
use latentd_plugin_api::abi::{
    LATENTD_COND, LATENTD_CROSS, LATENTD_EVALS, LATENTD_INPUT, LATENTD_INVALID, LATENTD_MIDDLE,
    LATENTD_NOT_FOUND, LATENTD_OUTPUT, LATENTD_SELF, LATENTD_UNCOND, LATENTD_UNSUPPORTED, latentd_call,
    latentd_eval_args, latentd_evals, latentd_handle, latentd_kept, latentd_list, latentd_row,
    latentd_status, latentd_text,
};

use super::serving::{
    Failure, Served, elements, misuse, objects, read_text, reserve, serve, serve_nested, taken,
};
use crate::plugins::call::{Asked, AskedRow, Call, State};
use crate::plugins::objects::Content;

/// Rows of one evaluation.
const MOST_ROWS: u32 = 1024;
/// Bytes of a row's tag.
const TAG_BYTES: usize = 128;

pub(super) static EVALS: latentd_evals = latentd_evals {
    size: size_of::<latentd_evals>() as u32,
    reserved: 0,
    eval: Some(eval),
    bank: Some(bank),
};

unsafe extern "C" fn eval(
    call: *mut latentd_call,
    args: *const latentd_eval_args,
    outputs: *mut latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>| {
        let Some(model) = call.at_hand.model else {
            let text = format!("{LATENTD_EVALS} evaluates in denoise.wrap alone");
            return Err(Failure(LATENTD_UNSUPPORTED, text));
        };
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(args) = (unsafe { taken(args) }) else { return misuse("args are null") };
        if outputs.is_null() {
            return misuse("outputs are null");
        }
        // SAFETY: the plugin lends a list of rows.
        let asked = call.with(|state| unsafe { asked(&args, state) })?;
        let bytes = size_of_val(asked.x.values());
        let made = model.evaluate(asked).map_err(|(status, text)| Failure(status, text))?;
        let lease = reserve(call, bytes)?;
        let handle = call
            .with(|state| Ok::<_, Failure>(objects(state)?.allocate(Content::Tensor(made), Some(lease))?))?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { outputs.write(handle) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve_nested(call, work) }
}

unsafe extern "C" fn bank(
    call: *mut latentd_call,
    name: latentd_text,
    kept: *mut latentd_list,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let Some(model) = call.at_hand.model else {
            return Err(Failure(LATENTD_UNSUPPORTED, "banks are read in denoise.wrap alone".to_owned()));
        };
        if kept.is_null() {
            return misuse("kept is null");
        }
        // SAFETY: the plugin lends a text.
        let name = unsafe { read_text(name) };
        let Some(bank) = model.bank(call.plugin, &name) else {
            return Err(Failure(LATENTD_NOT_FOUND, format!("no rule of this pass names a bank '{name}'")));
        };
        let mut told = vec![];
        for (at, picture, tensor) in bank.all() {
            let lease = reserve(call, size_of_val(tensor.values()))?;
            told.push(latentd_kept {
                which: if at.is_self { LATENTD_SELF } else { LATENTD_CROSS },
                part: match at.part {
                    SitePart::Input | SitePart::InputStored => LATENTD_INPUT,
                    SitePart::Middle => LATENTD_MIDDLE,
                    SitePart::Output => LATENTD_OUTPUT,
                },
                index: at.index as u32,
                layer: at.layer as u32,
                image: picture as u32,
                reserved: 0,
                tensor: objects(state)?.allocate(Content::Tensor(tensor), Some(lease))?,
            });
        }
        let list = latentd_list {
            items: told.as_ptr().cast(),
            count: told.len() as u32,
            stride: size_of::<latentd_kept>() as u32,
        };
        state.lent.push(Box::new(told));
        // SAFETY: it is not null, and the plugin's own.
        unsafe { kept.write(list) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// What a plugin asks.
///
/// # Safety
/// Its list is as it says, and so are the texts of its rows.
unsafe fn asked(args: &latentd_eval_args, state: &State<'_>) -> Served<Asked> {
    let mut objects = objects(state)?;
    let mut tensor = |handle: u64, what: &str| match objects.readable_content(handle)? {
        Content::Tensor(tensor) => Ok(tensor.clone()),
        Content::Image(_) | Content::Bytes(_) => {
            Err(Failure(LATENTD_INVALID, format!("{what} is no tensor, which is needed")))
        }
    };
    let x = tensor(args.x, "x")?;
    if let Some(index) = x.values().iter().position(|value| !value.is_finite()) {
        let text = format!("number {index} of x {:?} is {}", x.dims(), x.values()[index]);
        return Err(Failure(LATENTD_INVALID, text));
    }
    if !args.sigma.is_finite() || args.sigma < 0.0 {
        return Err(Failure(LATENTD_INVALID, format!("sigma is {}", args.sigma)));
    }
    // SAFETY: as the caller says.
    let given = unsafe { elements::<latentd_row>(args.rows, MOST_ROWS, "rows") }?;
    let mut rows = vec![];
    for row in given {
        // SAFETY: as the caller says.
        let tag = unsafe { read_text(row.tag) };
        if tag.len() > TAG_BYTES {
            return Err(Failure(
                LATENTD_INVALID,
                format!("a tag of {} bytes; {TAG_BYTES} are allowed", tag.len()),
            ));
        }
        let context = if row.context == 0 { None } else { Some(tensor(row.context, "a row's context")?) };
        let region = row.region;
        rows.push(AskedRow {
            image: row.image as usize,
            branch: row.branch as usize,
            role: match row.role {
                LATENTD_COND => Role::Cond,
                LATENTD_UNCOND => Role::Uncond,
                _ => Role::Other,
            },
            weight: row.weight,
            tag,
            region: Region {
                x: i64::from(region.x),
                y: i64::from(region.y),
                width: region.w as usize,
                height: region.h as usize,
                canvas_width: region.canvas_w as usize,
                canvas_height: region.canvas_h as usize,
            },
            context,
        });
    }
    Ok(Asked { rows, x, sigma: (args.sigma > 0.0).then_some(args.sigma), inside: args.inside })
}
