//! Which fields of the ABI's structs cross, by C's names. Functions that structs hold are not among them: each side puts its
//! own there.

use latentd_plugin_api::abi::{
    latentd_attention, latentd_attention_rule, latentd_block, latentd_cond, latentd_conds, latentd_control,
    latentd_denoise, latentd_detection, latentd_engine_facts, latentd_engine_need, latentd_engine_result,
    latentd_engine_run, latentd_eval, latentd_eval_args, latentd_file_info, latentd_infotext, latentd_input,
    latentd_job, latentd_kept, latentd_latents, latentd_method, latentd_model_info, latentd_model_site,
    latentd_need, latentd_network_run, latentd_op, latentd_pair, latentd_pass, latentd_picture,
    latentd_pictures, latentd_prompt, latentd_region, latentd_residual, latentd_rewrite, latentd_row,
    latentd_save, latentd_saved_tensor, latentd_site, latentd_span, latentd_subimage, latentd_subjob,
    latentd_subpicture, latentd_subplan, latentd_subresult, latentd_tag, latentd_tensor_info, latentd_text,
    latentd_token, latentd_want,
};
use rmp::encode;
use rmpv::ValueRef;

use super::coding::{Arena, Coded, Fields, Wrong, key, read_numbers, write_list};

macro_rules! write_field {
    ($self:ident, $out:ident, $field:ident) => {
        $self.$field.write($out)
    };
    ($self:ident, $out:ident, $field:ident $item:ty) => {
        write_list::<$item>(&$self.$field, $out)
    };
}

macro_rules! read_field {
    ($fields:ident, $arena:ident, $field:ident) => {
        $fields.read(stringify!($field), $arena)?
    };
    ($fields:ident, $arena:ident, $field:ident $item:ty) => {
        $fields.list::<$item>(stringify!($field), $arena)?
    };
}

macro_rules! coded {
    ($($name:ident $([$sized:ident])? $(<= $most:literal)? { $($field:ident $(: [$item:ty])?),* $(,)? })*) => {
        $(
            impl Coded for $name {
                const LENDS: bool = true;
                const SIZED: bool = coded!(@is $($sized)?);
                $(const MOST: usize = $most;)?

                unsafe fn write(&self, out: &mut Vec<u8>) {
                    let fields: &[&str] = &[$(stringify!($field)),*];
                    encode::write_map_len(out, fields.len() as u32).ok();
                    $(
                        key(out, stringify!($field));
                        // SAFETY: as the caller says.
                        unsafe { write_field!(self, out, $field $($item)?) };
                    )*
                }

                fn read(value: &ValueRef<'_>, arena: &Arena) -> Result<Self, Wrong> {
                    let fields = Fields::of(value)?;
                    let mut own = Self::none();
                    $(coded!(@size $sized own $name);)?
                    $(own.$field = read_field!(fields, arena, $field $($item)?);)*
                    Ok(own)
                }
            }
        )*

        /// The structs that cross, each with its fields.
        #[cfg(test)]
        pub(super) const CROSSING: &[(&str, &[&str])] =
            &[$((stringify!($name), &[$(stringify!($field)),*])),*];
    };
    (@is) => { false };
    (@is sized) => { true };
    (@size sized $own:ident $name:ident) => { $own.size = size_of::<$name>() as u32 };
}

coded! {
    latentd_attention [sized] { context_width, pass }
    latentd_attention_rule [sized] {
        kind, which, part, index, layer, roles, branch, image, tag, from, until, weight, context, key, value, mask, bias, bank,
    }
    latentd_block [sized] { part, index, channels, skip_channels, eval, h, skip }
    latentd_cond {
        image, branch, role, prompt, spans: [latentd_span], tokens: [latentd_token], context, pooled,
    }
    latentd_conds [sized] { pass, conds: [latentd_cond] }
    latentd_control [sized] { eval, x }
    latentd_denoise [sized] { eval, images: [latentd_picture], x, outputs, guided, cfg_scale }
    latentd_engine_facts [sized] { scale, tile, overlap, multiple, most_at_once, as_float }
    latentd_engine_need [sized] { kind, entry, runs, params }
    latentd_engine_result [sized] { image, detections: [latentd_detection], data }
    latentd_engine_run [sized] {
        kind, entry, file, image, mask, width, height, strength, threshold, params,
    }
    latentd_eval [sized] {
        depth, rows: [latentd_row], pass_kind, pass, step, steps, call, prediction, sigma, timestep, grid_w, grid_h, group,
        groups,
    }
    latentd_eval_args [sized] { inside, x, sigma, rows: [latentd_row] }
    latentd_file_info [sized] { kind, name, family, sha256, identity, metadata }
    latentd_infotext [sized] { pairs: [latentd_pair], prompt, negative_prompt }
    latentd_input { name, handle, ndim, shape }
    latentd_job [sized] { depth, method, request, params, note, pictures, batch }
    latentd_kept { which, part, index, layer, image, tensor }
    latentd_latents [sized] { pass, latents }
    latentd_method [sized] { name, params }
    latentd_model_info [sized] {
        prediction, family, latent_channels, in_channels, latent_down, context_width, pooled_width, skips, latent_scale,
        sites: [latentd_model_site], turn,
    }
    latentd_model_site { part, index, channels, skip_channels, down, attentions, heads, width }
    latentd_need [sized] { on_base, file, entry, inputs: [latentd_input], runs }
    latentd_op <= 4096 { code, keep, a, b, c, n, v }
    latentd_pair { key, value }
    latentd_pass [sized] {
        kind, index, depth, width, height, pictures: [latentd_picture], steps, has_init, base_w, base_h, hires_w, hires_h,
        denoising_strength,
    }
    latentd_picture { image, seed, pixels, mask, crop, unfilled }
    latentd_pictures [sized] { pass, pictures: [latentd_picture] }
    latentd_prompt { text, field, kind, image }
    latentd_region { x, y, w, h, canvas_w, canvas_h }
    latentd_rewrite [sized] { job, prompts: [latentd_prompt], seeds: [u64] }
    latentd_row { image, branch, role, seed, weight, tag, region, mask, context, pooled }
    latentd_save [sized] { replace, kind, name, tensors: [latentd_saved_tensor], metadata }
    latentd_saved_tensor { name, tensor }
    latentd_site { part, index }
    latentd_span { from, until }
    latentd_subimage { prompt, negative, seed, subseed, init, mask, image }
    latentd_subjob [sized] { key, method, patch, images: [latentd_subimage], share }
    latentd_subpicture { seed, pixels, infotext }
    latentd_subplan [sized] { key, method, patch, expected, most, batch, without: [latentd_text] }
    latentd_subresult [sized] {
        status, error, pictures: [latentd_subpicture], notices: [latentd_text],
    }
    latentd_tag [sized] { name, arguments: [latentd_text], file, params }
    latentd_tensor_info [sized] { kind, code, bits, lanes, ndim, device_type, device_id, shape, strides }
    latentd_token { id, place, begin, end, weight, embedding }
    latentd_want [sized] { stage, from, until, sites: [latentd_site] }
}

/// Numbers that a struct counts apart, as a list; null as nil, or as how many there would be.
///
/// # Safety
/// So many are there, or it is null.
unsafe fn write_numbers<T: Coded>(numbers: *const T, count: usize, out: &mut Vec<u8>) {
    if numbers.is_null() && count == 0 {
        encode::write_nil(out).ok();
        return;
    }
    if numbers.is_null() {
        encode::write_uint(out, count as u64).ok();
        return;
    }
    encode::write_array_len(out, count as u32).ok();
    // SAFETY: as the caller says.
    (0..count).for_each(|index| unsafe { (*numbers.add(index)).write(out) });
}

/// `rows` are a list, or nil for all; `row_count` goes with them.
impl Coded for latentd_residual {
    const LENDS: bool = true;
    const SIZED: bool = true;

    unsafe fn write(&self, out: &mut Vec<u8>) {
        encode::write_map_len(out, 6).ok();
        // SAFETY: as the caller says.
        unsafe {
            key(out, "at");
            self.at.write(out);
            key(out, "index");
            self.index.write(out);
            key(out, "rows");
            write_numbers(self.rows, self.row_count as usize, out);
            key(out, "tensor");
            self.tensor.write(out);
            key(out, "mask");
            self.mask.write(out);
            key(out, "scale");
            self.scale.write(out);
        }
    }

    fn read(value: &ValueRef<'_>, arena: &Arena) -> Result<Self, Wrong> {
        let fields = Fields::of(value)?;
        let (rows, row_count) = read_numbers::<u32>(fields.get("rows"), arena)?;
        Ok(Self {
            size: size_of::<Self>() as u32,
            at: fields.read("at", arena)?,
            index: fields.read("index", arena)?,
            row_count,
            rows,
            tensor: fields.read("tensor", arena)?,
            mask: fields.read("mask", arena)?,
            scale: fields.read("scale", arena)?,
        })
    }
}

/// `rows` are a list, or nil for all; `row_count` goes with them.
impl Coded for latentd_network_run {
    const LENDS: bool = true;
    const SIZED: bool = true;

    unsafe fn write(&self, out: &mut Vec<u8>) {
        encode::write_map_len(out, 4).ok();
        // SAFETY: as the caller says.
        unsafe {
            key(out, "entry");
            self.entry.write(out);
            key(out, "inputs");
            write_list::<latentd_input>(&self.inputs, out);
            key(out, "rows");
            write_numbers(self.rows, self.row_count as usize, out);
            key(out, "of_stage");
            self.of_stage.write(out);
        }
    }

    fn read(value: &ValueRef<'_>, arena: &Arena) -> Result<Self, Wrong> {
        let fields = Fields::of(value)?;
        let (rows, row_count) = read_numbers::<u32>(fields.get("rows"), arena)?;
        Ok(Self {
            size: size_of::<Self>() as u32,
            reserved: 0,
            entry: fields.read("entry", arena)?,
            inputs: fields.list::<latentd_input>("inputs", arena)?,
            rows,
            row_count,
            of_stage: fields.read("of_stage", arena)?,
        })
    }
}

/// `points` are a list of x, y, x, y, …; `point_count` goes with them.
impl Coded for latentd_detection {
    const LENDS: bool = true;
    const SIZED: bool = true;

    unsafe fn write(&self, out: &mut Vec<u8>) {
        encode::write_map_len(out, 11).ok();
        // SAFETY: as the caller says.
        unsafe {
            key(out, "class_id");
            self.class_id.write(out);
            key(out, "label");
            self.label.write(out);
            for (name, number) in
                [("score", self.score), ("x0", self.x0), ("y0", self.y0), ("x1", self.x1), ("y1", self.y1)]
            {
                key(out, name);
                number.write(out);
            }
            key(out, "points");
            write_numbers(self.points, 2 * self.point_count as usize, out);
            key(out, "mask");
            self.mask.write(out);
            key(out, "embedding");
            self.embedding.write(out);
            key(out, "data");
            self.data.write(out);
        }
    }

    fn read(value: &ValueRef<'_>, arena: &Arena) -> Result<Self, Wrong> {
        let fields = Fields::of(value)?;
        let (points, count) = read_numbers::<f32>(fields.get("points"), arena)?;
        Ok(Self {
            size: size_of::<Self>() as u32,
            class_id: fields.read("class_id", arena)?,
            label: fields.read("label", arena)?,
            score: fields.read("score", arena)?,
            x0: fields.read("x0", arena)?,
            y0: fields.read("y0", arena)?,
            x1: fields.read("x1", arena)?,
            y1: fields.read("y1", arena)?,
            point_count: count / 2,
            points,
            mask: fields.read("mask", arena)?,
            embedding: fields.read("embedding", arena)?,
            data: fields.read("data", arena)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Fields that go with a list, a struct's size, or are functions.
    fn crosses(name: &str, kind: &str) -> bool {
        !["size", "reserved", "row_count", "point_count"].contains(&name)
            && !kind.starts_with("Option<unsafe")
    }

    #[test]
    fn every_struct_of_the_abi_crosses_with_all_its_fields() {
        let layout = include_str!("../../../../plugin-api/abi/draft-1.txt");
        let mut structs: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for line in layout.lines() {
            let Some((place, kind)) = line.split_once(": ") else { continue };
            let Some((of, field)) = place.split(' ').next().and_then(|place| place.split_once('.')) else {
                continue;
            };
            structs.entry(of).or_default().push((field, kind));
        }
        let mut crossing: BTreeMap<&str, Vec<&str>> =
            CROSSING.iter().map(|(name, fields)| (*name, fields.to_vec())).collect();
        crossing.insert("latentd_network_run", vec!["entry", "inputs", "rows", "of_stage"]);
        crossing.insert("latentd_residual", vec!["at", "index", "rows", "tensor", "mask", "scale"]);
        crossing.insert(
            "latentd_detection",
            vec!["class_id", "label", "score", "x0", "y0", "x1", "y1", "points", "mask", "embedding", "data"],
        );
        // What they are made of, and what is asked for in a way of its own.
        let apart = [
            "latentd_bytes",
            "latentd_list",
            "latentd_text",
            "latentd_map",
            "latentd_host",
            "latentd_plugin_entry",
        ];
        for (name, fields) in structs {
            // A table has a function, and nothing besides.
            let own: Vec<&str> =
                fields.iter().filter(|(field, kind)| crosses(field, kind)).map(|(field, _)| *field).collect();
            if apart.contains(&name) || own.is_empty() {
                continue;
            }
            assert_eq!(crossing.get(name), Some(&own), "{name}");
        }
    }
}
