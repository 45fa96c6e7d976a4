//! The seams between files, networks, devices and whoever takes part in a picture: each with something that does nothing
//! and something that does.

mod adapters;
mod attention;
mod coding;
mod conditioning;
mod devices;
mod drawing;
mod embeddings;
mod hires;
mod hypernetworks;
mod passes;
mod regions;
mod residuals;
mod sampling;
mod unet_blocks;
