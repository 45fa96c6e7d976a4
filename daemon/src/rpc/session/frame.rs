//! A message on its way to one client.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

/// Above this a body is not copied to stand behind its head.
const COPIED: usize = 4096;
/// What a frame takes beside its bytes: itself, its place in a queue, the name of its job, and what an allocation costs.
const ITSELF: usize = 192;

/// Bytes of its own, then bytes that others may hold too: the result of a job is in memory once, however many wait for it.
pub(crate) struct Frame {
    head: Vec<u8>,
    body: Option<Arc<Vec<u8>>>,
    /// What it has of the memory for answers, until it is sent or dropped.
    _room: Option<OwnedSemaphorePermit>,
}

impl Frame {
    pub(super) fn new(mut head: Vec<u8>, body: &Arc<Vec<u8>>) -> Self {
        if body.len() > COPIED {
            return Self { head, body: Some(Arc::clone(body)), _room: None };
        }
        head.extend_from_slice(body);
        Self { head, body: None, _room: None }
    }

    pub(super) fn holding(self, room: Option<OwnedSemaphorePermit>) -> Self {
        Self { _room: room, ..self }
    }

    /// What is still to be sent after the first `sent` bytes, or a part of it; empty when all is.
    pub(crate) fn rest(&self, sent: usize) -> &[u8] {
        match self.head.get(sent..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => {
                let sent = sent.saturating_sub(self.head.len());
                self.body.as_ref().and_then(|body| body.get(sent..)).unwrap_or_default()
            }
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn cost(&self) -> usize {
        self.head.capacity() + self.body.as_ref().map_or(0, |body| body.len()) + ITSELF
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sent_whole_however_it_is_cut() {
        for length in [0, 1, COPIED, COPIED + 1] {
            let body: Arc<Vec<u8>> = Arc::new((0..length).map(|at| at as u8).collect());
            let frame = Frame::new(b"head".to_vec(), &body);
            let whole = [b"head", &body[..]].concat();
            for step in [1, 3, usize::MAX] {
                let mut sent = Vec::new();
                while let rest @ [_, ..] = frame.rest(sent.len()) {
                    sent.extend_from_slice(&rest[..step.min(rest.len())]);
                }
                assert!(sent == whole, "{length} bytes in steps of {step}");
            }
            assert!(frame.cost() >= whole.len());
        }
    }
}
