//! Preprocessors: what makes hints of pictures, as sd-webui-controlnet and `controlnet_aux` make them. Those here need no network.
//!
//! Plain functions over bytes: nothing here knows the host.

/// A picture of 8-bit numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Rows from the top, red, green and blue of each pixel side by side.
    pub data: Vec<u8>,
}
