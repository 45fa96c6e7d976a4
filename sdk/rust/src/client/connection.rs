//! One connection: a task that reads, one that writes, and what they share with callers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use interprocess::local_socket::tokio::Stream;
use rmpv::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::Error;
use super::events::EventQueue;
use crate::codec::{Decoder, Limits, Message, decode_value};
use crate::protocol::{CONNECTION_ERROR_METHOD, DEFAULT_EVENT_METHOD, Event, WireError};

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
    /// Why the connection ended.
    closed: Option<String>,
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
        if let Some(reason) = &state.closed {
            return Err(Error::Closed(reason.clone()));
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
        if state.closed.is_some() {
            queue.close();
        }
        state.listeners.retain(|listener| listener.queue.strong_count() > 0);
        state.listeners.push(Listener { job: job.map(str::to_owned), queue: Arc::downgrade(&queue) });
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
                    DEFAULT_EVENT_METHOD => self.event(&first),
                    CONNECTION_ERROR_METHOD => Err(WireError::from_value(&first).into()),
                    _ => Ok(()),
                }
            }
            Message::Request { method, .. } => Err(Error::Protocol(format!("a request for '{method}'"))),
        }
    }

    fn event(&self, value: &Value) -> Result<(), Error> {
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

    /// Answers everybody who still waits.
    fn close(&self, reason: &str) {
        let mut state = self.lock();
        state.closed = Some(reason.to_owned());
        for (_, sender) in state.waiting.drain() {
            drop(sender.send(Err(Error::Closed(reason.to_owned()))));
        }
        for queue in state.listeners.drain(..).filter_map(|listener| listener.queue.upgrade()) {
            queue.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    let reason = match read_all(&shared, &stream).await {
        Ok(()) => "the daemon closed it".to_owned(),
        Err(error) => error.to_string(),
    };
    shared.close(&reason);
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
