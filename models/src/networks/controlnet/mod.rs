//! Networks that say where: ControlNets and T2I-Adapters, which make of a picture what is added within a UNet.
//!
//! Both have a part that runs once for a picture and one whose results are added: a ControlNet's `hint` and `residuals`, of which
//! the latter follow what the UNet is asked; an adapter's `features`, which are the same at each step.

mod adapter;
mod adapter_names;
mod hint;
mod network;
mod over;
mod places;

pub(super) use adapter::find as find_adapter;
pub(super) use network::find as find_controlnet;
