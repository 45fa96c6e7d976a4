//! One budget for what all connections hold: half of it for messages that are not whole yet, a quarter for answers of any
//! size, a quarter for all else that waits to be sent.
//!
//! It is counted in pieces as large as one read. A connection's first piece is free, so that small requests and answers
//! always pass. Connections that each hold a part of a message and wait for the rest would wait for ever, so one of them
//! may go beyond the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a piece.
pub(crate) const PIECE: usize = 64 << 10;

/// The budget.
#[derive(Clone)]
pub(crate) struct Buffers {
    pieces: Arc<Semaphore>,
    /// The right to go beyond it.
    beyond: Arc<Semaphore>,
    /// Pieces for answers.
    answers: Arc<Semaphore>,
    most_answers: u32,
    /// Bytes that wait to be sent to all clients.
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
}

/// What one connection has of it.
pub(crate) struct Share {
    buffers: Buffers,
    pieces: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedSemaphorePermit>,
}

/// What a connection that waited for more may take.
pub(crate) enum More {
    Pieces(OwnedSemaphorePermit),
    /// As many as it needs.
    Beyond(OwnedSemaphorePermit),
}

impl Buffers {
    pub(crate) fn new(bytes: u64) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let pieces = |bytes: usize| (bytes / PIECE).min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let answers = pieces(bytes / 4);
        Self {
            pieces: Arc::new(Semaphore::new(pieces(bytes / 2))),
            beyond: Arc::new(Semaphore::new(1)),
            answers: Arc::new(Semaphore::new(answers)),
            most_answers: u32::try_from(answers).unwrap_or(u32::MAX),
            waiting: Arc::default(),
            most_waiting: bytes / 4,
        }
    }

    /// Waits for room for an answer; all the room that there is for one that is larger than that.
    pub(crate) async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let pieces = u32::try_from(bytes / PIECE as u64).unwrap_or(u32::MAX).min(self.most_answers);
        // Never closed.
        Arc::clone(&self.answers).acquire_many_owned(pieces).await.ok()
    }

    /// What waits for one client has changed.
    pub(super) fn wait(&self, before: usize, after: usize) {
        self.waiting.fetch_add(after, Ordering::Relaxed);
        self.waiting.fetch_sub(before, Ordering::Relaxed);
    }

    /// Whether so much waits for all of them that none for which something waits should ask for more.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > self.most_waiting
    }

    pub(crate) fn share(&self) -> Share {
        Share { buffers: self.clone(), pieces: None, beyond: None }
    }
}

impl Share {
    /// Pieces that are missing to hold `bytes`.
    pub(crate) fn missing(&self, bytes: usize) -> u32 {
        if self.beyond.is_some() {
            return 0;
        }
        let wanted = u32::try_from((bytes / PIECE).saturating_sub(1)).unwrap_or(u32::MAX);
        let held = self.pieces.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        wanted.saturating_sub(u32::try_from(held).unwrap_or(u32::MAX))
    }

    /// Waits for as many pieces.
    pub(crate) async fn more(&self, pieces: u32) -> Option<More> {
        let Buffers { pieces: all, beyond, .. } = &self.buffers;
        // Neither is ever closed.
        tokio::select! {
            biased;
            more = Arc::clone(all).acquire_many_owned(pieces) => more.ok().map(More::Pieces),
            more = Arc::clone(beyond).acquire_owned() => more.ok().map(More::Beyond),
        }
    }

    /// Takes in what was waited for.
    pub(crate) fn add(&mut self, more: More) {
        match more {
            More::Pieces(more) => match &mut self.pieces {
                Some(pieces) => pieces.merge(more),
                None => self.pieces = Some(more),
            },
            More::Beyond(beyond) => self.beyond = Some(beyond),
        }
    }

    /// Nothing is held any more.
    pub(crate) fn clear(&mut self) {
        (self.pieces, self.beyond) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn more(share: &mut Share, pieces: u32) {
        let more = share.more(pieces).await.expect("never closed");
        share.add(more);
    }

    #[tokio::test]
    async fn small_messages_are_free_large_ones_share_and_one_goes_beyond() {
        let buffers = Buffers::new(20 * PIECE as u64);
        let (mut first, mut second, mut third) = (buffers.share(), buffers.share(), buffers.share());
        assert_eq!(first.missing(PIECE), 0);
        assert_eq!(first.missing(9 * PIECE), 8);
        more(&mut first, 8).await;
        assert_eq!((first.missing(9 * PIECE), first.missing(11 * PIECE)), (0, 2));
        more(&mut second, 2).await;
        // All is taken.
        more(&mut second, 1).await;
        assert_eq!(second.missing(1000 * PIECE), 0);
        {
            let waits = third.more(1);
            tokio::pin!(waits);
            tokio::select! {
                biased;
                _ = &mut waits => panic!("one alone goes beyond"),
                () = std::future::ready(()) => (),
            }
            second.clear();
            assert!(matches!(waits.await, Some(More::Pieces(_))));
        }
        more(&mut third, 2).await;
        assert_eq!(third.missing(4 * PIECE), 1);
    }

    #[tokio::test]
    async fn answers_wait_for_room_and_none_is_too_large() {
        let buffers = Buffers::new(40 * PIECE as u64);
        let all = buffers.room(u64::MAX).await;
        assert!(all.is_some_and(|all| all.num_permits() == 10));
        let first = buffers.room(6 * PIECE as u64).await;
        let small = buffers.room(100).await;
        assert!(small.is_some_and(|small| small.num_permits() == 0), "small ones are free");
        let waits = buffers.room(5 * PIECE as u64);
        tokio::pin!(waits);
        tokio::select! {
            biased;
            _ = &mut waits => panic!("no room"),
            () = std::future::ready(()) => (),
        }
        drop(first);
        assert!(waits.await.is_some());
        assert!(!buffers.is_crowded());
        buffers.wait(0, 11 * PIECE);
        assert!(buffers.is_crowded());
        buffers.wait(11 * PIECE, 0);
        assert!(!buffers.is_crowded());
    }
}
