//! One connection: a task that reads, one that writes, and what they share with callers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use interprocess::local_socket::tokio::Stream;
use rmpv::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::Error;
use super::events::{EventQueue, LibraryQueue};
use crate::codec::{Decoder, Limits, Message, decode_value};
use crate::protocol::{
    CONNECTION_ERROR_METHOD, DEFAULT_EVENT_METHOD, Event, EventKind, LIBRARY_EVENT_METHOD, LibraryEvent,
    WireError,
};

/// What the reader hands answers and events to.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u32,
    waiting: HashMap<u32, oneshot::Sender<Result<Value, Error>>>,
    listeners: Vec<Listener>,
    library_listeners: Vec<Weak<LibraryQueue>>,
    /// Why the connection ended.
    ended: Option<Ending>,
}

/// Why a connection ended, told to everybody who waits.
#[derive(Clone, Debug)]
enum Ending {
    Closed(String),
    Protocol(String),
    Daemon(WireError),
}

impl From<Ending> for Error {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Closed(reason) => Self::Closed(reason),
            Ending::Protocol(reason) => Self::Protocol(reason),
            Ending::Daemon(error) => Self::Daemon(error),
        }
    }
}

impl From<Error> for Ending {
    fn from(error: Error) -> Self {
        match error {
            Error::Protocol(reason) => Self::Protocol(reason),
            Error::Daemon(error) => Self::Daemon(error),
            Error::Closed(reason) => Self::Closed(reason),
            other => Self::Closed(other.to_string()),
        }
    }
}

#[derive(Debug)]
struct Listener {
    job: Option<String>,
    queue: Weak<EventQueue>,
}

impl Shared {
    /// A number for a request, and where its answer will be.
    pub(super) fn expect_answer(&self) -> Result<(u32, oneshot::Receiver<Result<Value, Error>>), Error> {
        let mut state = self.lock();
        if let Some(ending) = &state.ended {
            return Err(ending.clone().into());
        }
        state.last_id = state.last_id.wrapping_add(1);
        let id = state.last_id;
        let (sender, receiver) = oneshot::channel();
        state.waiting.insert(id, sender);
        Ok((id, receiver))
    }

    /// A queue that gets the events of `job`, or of all jobs.
    pub(super) fn listen(&self, job: Option<&str>) -> Arc<EventQueue> {
        let queue = Arc::new(EventQueue::default());
        let mut state = self.lock();
        if state.ended.is_some() {
            queue.close();
        }
        state.listeners.retain(|listener| listener.queue.strong_count() > 0);
        state.listeners.push(Listener { job: job.map(str::to_owned), queue: Arc::downgrade(&queue) });
        queue
    }

    /// A queue that gets what happens to the library.
    pub(super) fn listen_to_library(&self) -> Arc<LibraryQueue> {
        let queue = Arc::new(LibraryQueue::default());
        let mut state = self.lock();
        if state.ended.is_some() {
            queue.close();
        }
        state.library_listeners.retain(|listener| listener.strong_count() > 0);
        state.library_listeners.push(Arc::downgrade(&queue));
        queue
    }

    fn dispatch(&self, message: Message) -> Result<(), Error> {
        match message {
            Message::Response { id, error, result } => {
                let sender = self.lock().waiting.remove(&id);
                let outcome =
                    if error.is_nil() { Ok(result) } else { Err(WireError::from_value(&error).into()) };
                if let Some(sender) = sender {
                    // A caller that no longer waits has dropped its end.
                    drop(sender.send(outcome));
                }
                Ok(())
            }
            Message::Notification { method, params } => {
                let Value::Array(params) = params else {
                    return Ok(());
                };
                let first = params.into_iter().next().unwrap_or(Value::Nil);
                match method.as_str() {
                    DEFAULT_EVENT_METHOD => self.event(first),
                    LIBRARY_EVENT_METHOD => {
                        self.library_event(first);
                        Ok(())
                    }
                    CONNECTION_ERROR_METHOD => Err(WireError::from_value(&first).into()),
                    _ => Ok(()),
                }
            }
            Message::Request { method, .. } => Err(Error::Protocol(format!("a request for '{method}'"))),
        }
    }

    fn event(&self, value: Value) -> Result<(), Error> {
        if is_of_a_newer_kind(&value) {
            return Ok(());
        }
        let event: Event =
            decode_value(value).map_err(|error| Error::Protocol(format!("an event: {error}")))?;
        for listener in &self.lock().listeners {
            if listener.job.as_ref().is_none_or(|job| *job == event.job)
                && let Some(queue) = listener.queue.upgrade()
            {
                queue.push(event.clone());
            }
        }
        Ok(())
    }

    /// One of another kind than this client knows is not for it.
    fn library_event(&self, value: Value) {
        let Ok(event) = decode_value::<LibraryEvent>(value) else {
            return;
        };
        for queue in self.lock().library_listeners.iter().filter_map(Weak::upgrade) {
            queue.push(event.clone());
        }
    }

    /// Answers everybody who still waits.
    fn end(&self, ending: &Ending) {
        let mut state = self.lock();
        state.ended = Some(ending.clone());
        for (_, sender) in state.waiting.drain() {
            drop(sender.send(Err(ending.clone().into())));
        }
        for queue in state.listeners.drain(..).filter_map(|listener| listener.queue.upgrade()) {
            queue.close();
        }
        for queue in state.library_listeners.drain(..).filter_map(|listener| listener.upgrade()) {
            queue.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an event is of a kind that a later daemon may have and this client does not know.
fn is_of_a_newer_kind(event: &Value) -> bool {
    let entries = event.as_map().map_or(&[][..], Vec::as_slice);
    let kind =
        entries.iter().find(|(key, _)| key.as_str() == Some("type")).and_then(|(_, kind)| kind.as_str());
    kind.is_some_and(|kind| !EventKind::NAMES.contains(&kind))
}

/// Writes whole messages. A task of its own, so that a caller who stops waiting cannot leave half a message on
/// the wire. When writing fails the reader finds the connection closed too, often with the daemon's reason.
pub(super) async fn write(mut messages: mpsc::UnboundedReceiver<Vec<u8>>, stream: Arc<Stream>) {
    let mut stream = &*stream;
    while let Some(message) = messages.recv().await {
        if stream.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// Reads until the connection ends.
pub(super) async fn read(shared: Arc<Shared>, stream: Arc<Stream>) {
    let ending = match read_all(&shared, &stream).await {
        Ok(()) => Ending::Closed("the daemon closed it".into()),
        Err(error) => error.into(),
    };
    // Who asks from now on learns it at once, and the writer stops at the latest with the client.
    shared.end(&ending);
}

async fn read_all(shared: &Shared, mut stream: &Stream) -> Result<(), Error> {
    // Results may be larger than any request; the daemon is trusted with memory up to this.
    let mut decoder = Decoder::new(Limits { bytes: 1 << 30, ..Limits::default() });
    let mut bytes = vec![0; 64 << 10];
    loop {
        let length = stream.read(&mut bytes).await.map_err(|error| Error::Closed(error.to_string()))?;
        if length == 0 {
            return Ok(());
        }
        decoder.feed(bytes.get(..length).unwrap_or_default());
        while let Some(value) = decoder.next_value()? {
            let message = Message::from_value(value).map_err(|error| Error::Protocol(error.to_string()))?;
            shared.dispatch(message)?;
        }
    }
}
