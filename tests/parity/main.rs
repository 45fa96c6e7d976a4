//! Each stage against its reference (torch, transformers, diffusers, k-diffusion), on the same random weights.
//! How the numbers were made: `tests/fixtures/README.md`.

mod drawing;
mod golden;
mod networks;
mod noise;
mod prompts;
mod schedules;
