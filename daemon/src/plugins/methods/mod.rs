//! Methods of plugins' own, `NAME.method`: [`find`] finds one by its whole name, [`called`] settles its parameters and calls it,
//! [`result`] makes of what it answers what clients are sent.

mod called;
mod find;
mod result;

pub(crate) use called::{Method, Returned, WITHIN};
pub(crate) use find::{Listed, may_be};
