//! The text encoder that a stage has at hand.

use latentd_models::prompt::CHUNK_TOKENS;
use latentd_plugin_api::abi::{
    LATENTD_ANY, LATENTD_CONDITIONING, LATENTD_INVALID, LATENTD_UNSUPPORTED, latentd_bytes, latentd_call,
    latentd_handle, latentd_list, latentd_status, latentd_text, latentd_texts, latentd_token,
};

use super::serving::{Failure, Served, elements, misuse, objects, read_bytes, reserve, serve};
use crate::plugins::call::{Call, State};
use crate::plugins::objects::Content;
use crate::plugins::texts::Texts;

/// Bytes of a text that is tokenised.
const TEXT_BYTES: u64 = 1 << 20;
/// Chunks that are encoded at once.
const MOST_CHUNKS: usize = 1024;

pub(super) static TEXTS: latentd_texts = latentd_texts {
    size: size_of::<latentd_texts>() as u32,
    reserved: 0,
    tokenise: Some(tokenise),
    encode: Some(encode),
};

fn texts<'a>(call: &Call<'a>) -> Served<&'a Texts<'a>> {
    call.at_hand.texts.ok_or_else(|| {
        let text = format!("there is no text encoder at hand in this function; in {LATENTD_CONDITIONING}");
        Failure(LATENTD_UNSUPPORTED, text)
    })
}

fn invalid<T>(text: impl Into<String>) -> Served<T> {
    Err(Failure(LATENTD_INVALID, text.into()))
}

unsafe extern "C" fn tokenise(
    call: *mut latentd_call,
    text: latentd_text,
    tokens: *mut latentd_list,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let texts = texts(call)?;
        if tokens.is_null() {
            return misuse("tokens is null");
        }
        if text.length > TEXT_BYTES {
            return invalid(format!("a text of {} bytes; up to {TEXT_BYTES} are tokenised", text.length));
        }
        // SAFETY: the plugin lends so many bytes.
        let bytes = unsafe { read_bytes(latentd_bytes { data: text.data.cast(), length: text.length }) };
        let Some(bytes) = bytes else { return misuse("the text is null") };
        let Ok(text) = std::str::from_utf8(bytes) else { return invalid("the text is no UTF-8") };
        let chunks = texts.encoding.chunks(text)?;
        let lease = reserve(call, chunks.len() * CHUNK_TOKENS * size_of::<latentd_token>())?;
        let made = texts.tokens(&chunks).into_boxed_slice();
        let list = latentd_list {
            items: made.as_ptr().cast(),
            count: made.len() as u32,
            stride: size_of::<latentd_token>() as u32,
        };
        // What is in a box stays where it is.
        state.lent.push(Box::new((made, lease)));
        // SAFETY: it is not null, and the plugin's own.
        unsafe { tokens.write(list) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn encode(
    call: *mut latentd_call,
    tokens: latentd_list,
    like: u32,
    context: *mut latentd_handle,
    pooled: *mut latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let texts = texts(call)?;
        if context.is_null() || pooled.is_null() {
            return misuse("context or pooled is null");
        }
        // SAFETY: the plugin lends a list.
        let tokens = unsafe { read_tokens(tokens) }?;
        let chunks = texts.chunks(&tokens).or_else(invalid)?;
        let like = (like != LATENTD_ANY).then_some(like as usize);
        let made = texts.encoding.encode(&chunks, like)?;
        let mut objects = objects(state)?;
        let mut allocated = |tensor: latentd_models::Tensor| -> Served<u64> {
            let lease = reserve(call, size_of_val(tensor.values()))?;
            Ok(objects.allocate(Content::Tensor(tensor), Some(lease))?)
        };
        let of_tokens = allocated(made.tokens)?;
        let of_all = made.pooled.map(&mut allocated).transpose()?.unwrap_or_default();
        // SAFETY: neither is null, and both are the plugin's own.
        unsafe {
            context.write(of_tokens);
            pooled.write(of_all);
        }
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// A plugin's tokens.
///
/// # Safety
/// `tokens` points to as many elements of as many bytes as it says, or is empty.
unsafe fn read_tokens(tokens: latentd_list) -> Served<Vec<latentd_token>> {
    let (count, most) = (tokens.count as usize, MOST_CHUNKS * CHUNK_TOKENS);
    if count > most {
        return invalid(format!("{count} tokens; up to {most} are encoded at once"));
    }
    // SAFETY: as the caller says.
    unsafe { elements(tokens, most as u32, "tokens") }
}
