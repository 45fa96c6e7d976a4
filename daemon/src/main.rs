//! latentd: keeps Stable Diffusion models in memory and serves every program of one user.

mod blobs;
mod cli;
mod clock;
mod config;
mod contain;
mod database;
mod demo;
mod device;
mod engine;
mod error;
mod file_holder;
mod folders;
mod jobs;
mod library;
mod live;
mod lock_file;
mod machine;
mod memory;
mod onnx;
mod paths;
mod plugins;
mod process;
mod random;
mod reserve;
mod rpc;
mod sandbox;
mod schema;
mod state_dir;
mod storage;
mod styles;
mod suggest;
mod tasks;
mod thread;
mod threads;
mod unnamed_file;
mod whole_file;
mod workers;

#[global_allocator]
static ALLOCATOR: reserve::Allocator = reserve::Allocator;

fn main() -> std::process::ExitCode {
    cli::main()
}
