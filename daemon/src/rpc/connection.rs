//! One connection: a task that reads requests, answers the quick ones itself, starts a task for each of the others,
//! and writes what waits in the outbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use interprocess::local_socket::tokio::Stream;
use latentd_client::codec::{Decoder, Limits, Message};
use rmpv::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use super::methods::{Answered, Methods, Run, Session};
use super::session::{Activity, Daemon, Frame, Outbox, PIECE, Phase, Share};
use crate::error::{Class, Error, Result};
use crate::jobs::Ended;
use crate::process::has_hung_up;

/// Bytes of messages from which decoding them would hold up others on the same thread.
const LARGE: usize = 1 << 20;
/// Bytes a second that a message must come with at least, once it has begun.
const SLOWEST: f64 = (1 << 20) as f64;
/// How often it is looked whether a client that sends nothing more still listens.
const LISTENS_STILL: Duration = Duration::from_secs(1);

/// A frame on its way out.
struct Sending {
    frame: Frame,
    sent: usize,
}

struct Connection<'a> {
    daemon: &'a Arc<Daemon>,
    session: Session,
    outbox: Arc<Outbox>,
    decoder: Decoder,
    /// What it has of the memory for messages that are not whole.
    share: Share,
    /// When the message that is not whole began.
    begun: Option<Instant>,
    requests: JoinSet<()>,
    activity: Arc<Activity>,
    /// The client sends nothing more; what it asked for is still answered.
    heard_all: bool,
    /// Nothing more is read; the connection ends when all is sent.
    ending: bool,
}

/// Serves one connection to its end. With `refused` it only says why.
pub(super) async fn run(daemon: &Arc<Daemon>, methods: &Arc<Methods>, stream: Stream, refused: bool) {
    let config = daemon.config.get();
    let outbox = Arc::new(Outbox::new(config.outbox_bytes as usize, daemon.buffers.clone()));
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
            listens: Arc::new(AtomicBool::new(false)),
        },
        outbox,
        decoder: Decoder::new(limits),
        share: daemon.buffers.share(),
        begun: None,
        requests: JoinSet::new(),
        activity: daemon.registry.enter(),
        heard_all: false,
        ending: false,
    };
    if refused {
        let text =
            format!("{} connections are open and in use, which is the limit; close one", config.connections);
        connection.end(&Error::new(Class::Busy, text));
    }
    connection.serve(&stream).await;
    // Requests still under way are forgotten here; their jobs go on, unless it was asked otherwise.
    for job in daemon.holders.end_of(&connection.outbox) {
        let jobs = Arc::clone(&daemon.jobs);
        daemon.books.run(move || jobs.abandon(&job));
    }
}

impl Connection<'_> {
    async fn serve(&mut self, stream: &Stream) {
        let mut phase = self.daemon.phase.subscribe();
        let stall = Duration::from_secs(self.daemon.config.get().write_stall_s);
        let mut sending: Option<Sending> = None;
        let mut last_sent = Instant::now();
        let (mut reader, mut writer) = (stream, stream);
        loop {
            if self.outbox.has_overflowed() {
                debug!("a client leaves too many events unread; closed");
                return;
            }
            if sending.is_none() {
                sending = self.outbox.pop().map(|frame| Sending { frame, sent: 0 });
                last_sent = Instant::now();
            }
            let closing = *phase.borrow_and_update() == Phase::Closing;
            let answers_all = closing || self.heard_all;
            if sending.is_none() && (self.ending || (answers_all && self.requests.is_empty())) {
                return;
            }
            self.activity.set_busy(self.is_busy(sending.is_some()));
            if self.activity.gives_way() && !self.ending {
                let text = "this connection was idle longest when there were too many; connect again";
                self.end(&Error::new(Class::Busy, text));
                continue;
            }
            // A client that does not read what it asked for may not ask for more.
            let hears = !self.ending && !closing && !self.heard_all && !self.outbox.is_full();
            if !hears {
                self.begun = self.begun.map(|_| Instant::now());
            }
            let missing = self.share.missing(self.decoder.pending() + PIECE);
            let whole_by = self.whole_by(stall);
            tokio::select! {
                biased;
                sent = write_some(&mut writer, sending.as_ref()), if sending.is_some() => match sent {
                    Ok(count) if count > 0 => {
                        last_sent = Instant::now();
                        sending = sending.take().map(|sending| Sending { sent: sending.sent + count, ..sending })
                            .filter(|sending| !sending.rest().is_empty());
                    }
                    _ => return,
                },
                read = reader.read_buf(self.decoder.room(PIECE)), if hears && missing == 0 => match read {
                    Ok(count) if count > 0 => self.receive(),
                    // It hung up, or says that it has asked for all it wants. Jobs go on, their results are kept.
                    Ok(_) if !has_hung_up(stream) => self.heard_all = true,
                    _ => self.ending = true,
                },
                more = self.share.more(missing), if hears && missing > 0 => {
                    if let Some(more) = more {
                        self.share.add(more);
                    }
                }
                () = self.outbox.changed() => (),
                Some(_) = self.requests.join_next() => (),
                _ = phase.changed() => (),
                () = self.activity.asked() => (),
                () = tokio::time::sleep_until(last_sent + stall), if sending.is_some() => {
                    debug!("a client reads nothing; closed");
                    return;
                }
                () = tokio::time::sleep_until(whole_by), if hears && self.begun.is_some() => {
                    self.end(&self.too_slow(missing > 0));
                }
                () = tokio::time::sleep(LISTENS_STILL), if self.heard_all => if has_hung_up(stream) {
                    return;
                },
            }
        }
    }

    /// Whether ending now would take something from the client.
    fn is_busy(&self, sends: bool) -> bool {
        let listens = [&self.session.listens, &self.session.follows_own];
        sends
            || !self.requests.is_empty()
            || self.decoder.pending() > 0
            || listens.iter().any(|listens| listens.load(Ordering::Relaxed))
    }

    /// When the message that is not whole must be.
    fn whole_by(&self, stall: Duration) -> Instant {
        let begun = self.begun.unwrap_or_else(Instant::now);
        begun + stall + Duration::from_secs_f64(self.decoder.pending() as f64 / SLOWEST)
    }

    fn too_slow(&self, no_room: bool) -> Error {
        let pending = self.decoder.pending();
        Error::new(
            Class::Busy,
            if no_room {
                format!(
                    "other connections hold all memory for messages (buffers_bytes); {pending} bytes of this one came; retry later"
                )
            } else {
                format!("{pending} bytes of a message came and then too little for too long; send it whole")
            },
        )
    }

    fn receive(&mut self) {
        if self.decoder.pending() < LARGE {
            self.decode();
        } else {
            tokio::task::block_in_place(|| self.decode());
        }
        let pending = self.decoder.pending();
        if pending < PIECE {
            self.share.clear();
        }
        self.begun = if pending == 0 { None } else { self.begun.or_else(|| Some(Instant::now())) };
    }

    fn decode(&mut self) {
        while !self.ending {
            match self.decoder.next_value() {
                Ok(Some(value)) => {
                    self.begun = None;
                    self.message(value);
                }
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

    fn request(&mut self, id: u32, name: &str, params: Value) {
        let methods = Arc::clone(&self.session.methods);
        let found = methods.find(name).and_then(|found| Ok((found, only_map(params)?)));
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
                self.requests.spawn(async move { answer_of_job(&daemon, &outbox, id, ended.await).await });
            }
            Run::OfPlugin(run) => {
                let answered = run(self.session.clone(), name, params);
                let daemon = Arc::clone(self.daemon);
                self.requests.spawn(async move {
                    match answered.await {
                        Ok(Answered::Now(bytes)) => {
                            let _turn = outbox.turn().await;
                            let room = daemon.buffers.room(bytes.len() as u64).await;
                            outbox.respond_shared(id, Ok(Arc::new(bytes)), room);
                        }
                        Ok(Answered::Ended(ended)) => answer_of_job(&daemon, &outbox, id, Ok(ended)).await,
                        Err(error) => outbox.respond(id, Err(error)),
                    }
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

/// Answers with a job's result, once there is room for it.
async fn answer_of_job(daemon: &Daemon, outbox: &Outbox, id: u32, ended: Result<Ended>) {
    let _turn = outbox.turn().await;
    let bytes = ended.as_ref().map_or(0, |ended| daemon.jobs.result_bytes(ended));
    let room = daemon.buffers.room(bytes).await;
    outbox.respond_shared(id, result(daemon, ended).await, room);
}

/// Reads a job's result, where that holds up nobody.
async fn result(daemon: &Daemon, ended: Result<Ended>) -> Result<Arc<Vec<u8>>> {
    let ended = ended?;
    let jobs = Arc::clone(&daemon.jobs);
    daemon.books.call(move || jobs.result(&ended)).await
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

impl Sending {
    fn rest(&self) -> &[u8] {
        self.frame.rest(self.sent)
    }
}

async fn write_some(writer: &mut &Stream, sending: Option<&Sending>) -> std::io::Result<usize> {
    writer.write(sending.map(Sending::rest).unwrap_or_default()).await
}
