//! The process that the plugin may end: it does the checks that it is told to over its standard input, which is a socket.
//!
//! A line with a check's number comes in, a line of JSON with its outcome goes out; `end` ends it. Which check goes on is
//! known to whoever asked for it.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use latentd_client::protocol::PluginParams;
use latentd_plugin_api::abi::latentd_plugin_entry;

use super::bench::{Looked, Ready};
use super::inputs::Random;
use super::list::{Check, What, checks};
use super::outcome::{Line, Outcome};
use super::{
    engine_checks, infotext_checks, library_checks, method_checks, rewrite_checks, stage_checks, tags_checks,
};
use crate::plugins::{host, library, manifest, manifest::Manifest, tables};

/// Does what it is told to with a library, until it is told to end.
pub(crate) fn run(path: &Path, seed: u64, params: Option<PluginParams>) -> io::Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let manifest = manifest::read(&std::fs::read(path)?).map_err(|why| io::Error::other(why.to_string()))?;
    let checks = checks(&manifest);
    let mut session =
        Session { path, manifest, seed, params, told: socket.try_clone()?, entry: None, ready: None };
    for number in commands(socket.try_clone()?) {
        let Some(check) = checks.get(number) else { continue };
        let outcome = session.look(check).err().unwrap_or(Outcome::Ok);
        let line = serde_json::to_string(&Line::Outcome(outcome)).map_err(io::Error::other)?;
        socket.write_all(format!("{line}\n").as_bytes())?;
    }
    Ok(())
}

/// What is asked for. If whoever asks goes away, this process ends, whatever the plugin does meanwhile.
fn commands(socket: UnixStream) -> Receiver<usize> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut send = Some(send);
        for line in BufReader::new(socket).lines().map_while(Result::ok) {
            match line.parse() {
                Ok(number) => send.as_ref().is_some_and(|send| send.send(number).is_ok()),
                Err(_) => send.take().is_some(),
            };
        }
        // SAFETY: it ends the process, and runs nothing of what the plugin left for its end.
        unsafe { libc::_exit(1) };
    });
    receive
}

/// How far the library has come.
struct Session<'a> {
    path: &'a Path,
    manifest: Manifest,
    seed: u64,
    params: Option<PluginParams>,
    told: UnixStream,
    entry: Option<&'static latentd_plugin_entry>,
    ready: Option<Ready>,
}

impl Session<'_> {
    fn look(&mut self, check: &Check) -> Looked {
        let Self { manifest, entry, .. } = self;
        let loaded = || entry.ok_or_else(|| Outcome::Skipped("it is not loaded".to_owned()));
        match check.what {
            What::Load => {
                let loaded = tables::load(self.path, manifest).map_err(Outcome::Failed)?;
                *entry = Some(loaded);
                library_checks::entry(loaded, manifest)
            }
            What::Init => tables::init(loaded()?, &host::TABLE).map_err(Outcome::Failed),
            What::UnknownExtension => library_checks::unknown_extension(loaded()?),
            What::Tables => {
                let entry = loaded()?;
                let looked = library_checks::tables(entry, manifest);
                if !matches!(looked, Err(Outcome::Failed(_))) {
                    let told = self.told.try_clone().map_err(|error| Outcome::Skipped(error.to_string()))?;
                    let tables = tables::tables(entry, manifest).map_err(Outcome::Failed)?;
                    let plugin =
                        Arc::new(library::Plugin { manifest: manifest.clone(), tables, remote: None });
                    self.ready = Some(Ready::new(plugin, self.params.clone(), self.seed, told));
                }
                looked
            }
            What::Library(what) => {
                let ready = self.ready()?;
                Err(library_checks::run(ready, what, &mut Random::of(self.seed, &check.name)))
            }
            What::Stage(stage, what) => {
                let ready = self.ready()?;
                Err(stage_checks::run(ready, stage, what, &mut Random::of(self.seed, &check.name)))
            }
            What::Rewrite(what) => {
                let ready = self.ready()?;
                Err(rewrite_checks::run(ready, what, &mut Random::of(self.seed, &check.name)))
            }
            What::Tags(what) => {
                let ready = self.ready()?;
                Err(tags_checks::run(ready, what, &mut Random::of(self.seed, &check.name)))
            }
            What::Engine(kind, what) => {
                let ready = self.ready()?;
                Err(engine_checks::run(ready, kind, what, &mut Random::of(self.seed, &check.name)))
            }
            What::Method(place, what) => {
                let ready = self.ready()?;
                Err(method_checks::run(ready, place, what, &mut Random::of(self.seed, &check.name)))
            }
            What::Infotext(what) => {
                let ready = self.ready()?;
                Err(infotext_checks::run(ready, what, &mut Random::of(self.seed, &check.name)))
            }
            What::Exit => Ok(()),
        }
    }

    fn ready(&self) -> Looked<&Ready> {
        self.ready.as_ref().ok_or_else(|| Outcome::Skipped("its tables are not there".to_owned()))
    }
}
