//! The process that runs one graph, until nobody wants it any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use super::array::Failure;
use super::graph::Loaded;
use super::messages::{self, Answer, Run};
use super::segment::Segment;
use crate::{process, sandbox};

/// Reads the graph of a file and runs it as often as it is told to. The file may take `room` bytes in memory.
pub(crate) fn serve(
    mut socket: UnixStream,
    file: File,
    segment: File,
    threads: usize,
    room: u64,
) -> io::Result<()> {
    let segment = Segment::of(segment)?;
    sandbox::allow_memory(room)?;
    // From its places: where the descriptor stands is what all processes share that have it.
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    let read = file.read_exact_at(&mut bytes, 0).map_err(|error| Failure::File(error.to_string()));
    drop(file);
    let graph = read.and_then(|()| Loaded::open(bytes));
    let answer: Answer = graph.as_ref().map(|_| vec![]).map_err(Clone::clone);
    messages::say(&mut socket, &answer)?;
    let Ok(graph) = graph else { return Ok(()) };
    loop {
        process::give_memory_back();
        let run: Run = match messages::hear(&mut socket, &mut || Ok(())) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            heard => heard?,
        };
        sandbox::allow_memory(run.room)?;
        let answer: Answer = run_once(&graph, &segment, run, threads);
        messages::say(&mut socket, &answer)?;
    }
}

fn run_once(graph: &Loaded, segment: &Segment, run: Run, threads: usize) -> Answer {
    let wrong = |error: io::Error| Failure::Input(error.to_string());
    let inputs = messages::take(segment, run.inputs, segment.bytes()).map_err(wrong)?.0;
    let outputs = graph.run(inputs, run.most_bytes, threads)?;
    Ok(messages::put(segment, &outputs).map_err(wrong)?.0)
}
