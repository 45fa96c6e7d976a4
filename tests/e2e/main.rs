//! A real daemon process, driven through its real socket. Every wait has an end; nothing sleeps and hopes.

mod command_line;
mod disk;
mod harness;
mod hostile;
mod jobs;
mod library;
mod lifecycle;
mod pictures;
