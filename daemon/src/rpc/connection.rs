//! One connection: a task that reads requests, answers the quick ones itself, starts a task for each of the others,
//! and writes what waits in the outbox.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use interprocess::local_socket::tokio::Stream;
use latentd_client::codec::{Decoder, Limits, Message};
use rmpv::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use super::methods::{Methods, Reply, Run, Session};
use super::session::{Daemon, Outbox, Phase};
use crate::error::{Class, Error, Result};
use crate::jobs::Ended;

const READ_BYTES: usize = 64 << 10;

/// A frame on its way out.
struct Sending {
    bytes: Vec<u8>,
    sent: usize,
}

struct Connection<'a> {
    daemon: &'a Arc<Daemon>,
    session: Session,
    outbox: Arc<Outbox>,
    decoder: Decoder,
    requests: JoinSet<()>,
    /// Nothing more is read; the connection ends when all is sent.
    ending: bool,
}

/// Serves one connection to its end. With `refused` it only says why.
pub(super) async fn run(daemon: &Arc<Daemon>, methods: &Arc<Methods>, stream: Stream, refused: bool) {
    let config = daemon.config.get();
    let outbox = Arc::new(Outbox::new(config.outbox_bytes as usize));
    let limits = Limits {
        bytes: config.message_bytes as usize,
        elements: config.message_elements,
        ..Limits::default()
    };
    let mut connection = Connection {
        daemon,
        session: Session {
            daemon: Arc::clone(daemon),
            outbox: Arc::clone(&outbox),
            methods: Arc::clone(methods),
            follows_own: Arc::new(AtomicBool::new(false)),
        },
        outbox,
        decoder: Decoder::new(limits),
        requests: JoinSet::new(),
        ending: false,
    };
    if refused {
        let text = format!("{} connections are open, which is the limit; close one", config.connections);
        connection.end(&Error::new(Class::Busy, text));
    }
    connection.serve(&stream).await;
    // Requests still under way are forgotten here; their jobs go on.
}

impl Connection<'_> {
    async fn serve(&mut self, stream: &Stream) {
        let mut phase = self.daemon.phase.subscribe();
        let stall = Duration::from_secs(self.daemon.config.get().write_stall_s);
        let mut received = vec![0; READ_BYTES];
        let mut sending: Option<Sending> = None;
        let mut last_sent = Instant::now();
        let (mut reader, mut writer) = (stream, stream);
        loop {
            if self.outbox.has_overflowed() {
                debug!("a client leaves too many events unread; closed");
                return;
            }
            if sending.is_none() {
                sending = self.outbox.pop().map(|bytes| Sending { bytes, sent: 0 });
                last_sent = Instant::now();
            }
            let closing = *phase.borrow_and_update() == Phase::Closing;
            if sending.is_none() && (self.ending || (closing && self.requests.is_empty())) {
                return;
            }
            // A client that does not read what it asked for may not ask for more.
            let reading = !self.ending && !closing && !self.outbox.is_full();
            tokio::select! {
                biased;
                sent = write_some(&mut writer, sending.as_ref()), if sending.is_some() => match sent {
                    Ok(count) if count > 0 => {
                        last_sent = Instant::now();
                        sending = sending.take().filter(|frame| frame.sent + count < frame.bytes.len())
                            .map(|frame| Sending { sent: frame.sent + count, ..frame });
                    }
                    _ => return,
                },
                read = reader.read(&mut received), if reading => match read {
                    Ok(count) if count > 0 => self.receive(received.get(..count).unwrap_or_default()),
                    // Answers that are ready are still sent, in case it hung up one way only. What is under way is
                    // forgotten; jobs go on, and their results are kept.
                    _ => self.ending = true,
                },
                () = self.outbox.changed() => (),
                Some(_) = self.requests.join_next() => (),
                _ = phase.changed() => (),
                () = tokio::time::sleep_until(last_sent + stall), if sending.is_some() => {
                    debug!("a client reads nothing; closed");
                    return;
                }
            }
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
        while !self.ending {
            match self.decoder.next_value() {
                Ok(Some(value)) => self.message(value),
                Ok(None) => return,
                Err(error) => self.end(&Error::invalid(error.to_string())),
            }
        }
    }

    fn message(&mut self, value: Value) {
        match Message::from_value(value) {
            Ok(Message::Request { id, method, params }) => self.request(id, &method, params),
            // Clients tell us things we did not ask for (`nvim_set_client_info`, `nvim_error_event`), and answer
            // nothing that we asked, as we ask nothing.
            Ok(Message::Notification { .. } | Message::Response { .. }) => (),
            Err(error) => {
                let answer = Error::invalid(error.to_string());
                match error.id {
                    Some(id) => self.outbox.respond(id, Err(answer)),
                    None => self.end(&answer),
                }
            }
        }
    }

    fn request(&mut self, id: u32, method: &str, params: Value) {
        let methods = Arc::clone(&self.session.methods);
        let found = methods.find(method).and_then(|found| Ok((found, only_map(params)?)));
        let (method, params) = match found {
            Ok(found) => found,
            Err(error) => return self.outbox.respond(id, Err(error)),
        };
        let limit = self.daemon.config.get().requests_per_connection as usize;
        if self.requests.len() >= limit && !matches!(method.run, Run::Now(_)) {
            let text = format!(
                "{limit} requests of this connection are under way, which is the limit; wait for some"
            );
            return self.outbox.respond(id, Err(Error::new(Class::Busy, text)));
        }
        let outbox = Arc::clone(&self.outbox);
        match &method.run {
            Run::Now(run) => outbox.respond(id, run(&self.session, params)),
            Run::Quick(run) => {
                let answer = run(self.session.clone(), params);
                self.requests.spawn(async move {
                    let _slot = outbox.slot().await;
                    outbox.respond(id, answer.await);
                });
            }
            Run::Submit(run) => {
                let answer = run(self.session.clone(), params);
                self.requests.spawn(async move { outbox.respond(id, answer.await) });
            }
            Run::Wait(run) => {
                let ended = run(self.session.clone(), params);
                let daemon = Arc::clone(self.daemon);
                self.requests.spawn(async move {
                    let ended = ended.await;
                    let _turn = outbox.turn().await;
                    outbox.respond(id, result(&daemon, ended).await);
                });
            }
        }
    }

    fn end(&mut self, reason: &Error) {
        debug!(%reason, "connection ends");
        self.outbox.last_words(reason);
        self.ending = true;
    }
}

/// Reads a job's result, where that holds up nobody.
async fn result(daemon: &Daemon, ended: Result<Ended>) -> Reply {
    let ended = ended?;
    let jobs = Arc::clone(&daemon.jobs);
    let result = daemon.books.call(move || jobs.result(&ended)).await?;
    Ok(Arc::unwrap_or_clone(result))
}

/// `params` is an array with one map; an empty one stands for the empty map.
fn only_map(params: Value) -> Result<Value> {
    let wrong = |what: String| {
        let text = format!("params: {what}; send an array with one map, such as [{{\"prompt\": \"a cat\"}}]");
        Err(Error::new(Class::InvalidParams, text))
    };
    let Value::Array(parts) = params else {
        return wrong("it is not an array".into());
    };
    let count = parts.len();
    match parts.into_iter().next() {
        None => Ok(Value::Map(Vec::new())),
        Some(_) if count > 1 => wrong(format!("it has {count} parts")),
        Some(map @ Value::Map(_)) => Ok(map),
        // An empty table of Lua goes over the wire as an empty array.
        Some(Value::Array(empty)) if empty.is_empty() => Ok(Value::Map(Vec::new())),
        Some(_) => wrong("its part is not a map".into()),
    }
}

async fn write_some(writer: &mut &Stream, sending: Option<&Sending>) -> std::io::Result<usize> {
    let rest = sending.and_then(|frame| frame.bytes.get(frame.sent..)).unwrap_or_default();
    writer.write(rest).await
}
