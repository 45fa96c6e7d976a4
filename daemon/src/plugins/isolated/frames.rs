//! Messages over a socket: the length as four big-endian bytes, then so many of MessagePack.
//!
//! Who waits looks again and again for a moment before sleeping: most answers are there within microseconds, and to be woken
//! takes longer than they do. The moment is longer than that takes, so that who wakes the other does not sleep meanwhile. Each time the
//! core is offered to others: the other side may have been put on the same one, and would wait for the moment to end.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::threads;

/// Bytes of one message.
pub(super) const LARGEST: usize = 64 << 20;
/// How long is looked before sleeping, where the other side has a core of its own meanwhile.
const SPIN: Duration = Duration::from_micros(200);
/// What is read at once.
const CHUNK: usize = 1 << 16;

/// One end of the socket.
pub(super) struct Frames {
    socket: UnixStream,
    /// Messages from several threads do not mix.
    writing: Mutex<()>,
    came: Mutex<Vec<u8>>,
    spin: Duration,
}

/// What came while it was waited for.
pub(super) enum Came {
    Frame(Vec<u8>),
    /// Nothing until the time was up.
    Nothing,
    /// The other side is gone.
    End,
}

impl Frames {
    pub(super) fn new(socket: UnixStream) -> Self {
        let spin = if threads::cores() > 1 { SPIN } else { Duration::ZERO };
        Self { socket, writing: Mutex::default(), came: Mutex::default(), spin }
    }

    /// Sends a message that begins with room for its length; see [`begun`]. Who does not read for so long is told as an error.
    pub(super) fn send(&self, mut message: Vec<u8>, within: Option<Duration>) -> io::Result<()> {
        let length = message.len().saturating_sub(4);
        if length > LARGEST {
            let text = format!("a message of {length} bytes; {LARGEST} are possible");
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        let head = (length as u32).to_be_bytes();
        message.iter_mut().zip(head).for_each(|(to, byte)| *to = byte);
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = message.as_slice();
        while !rest.is_empty() {
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            // SAFETY: so many bytes are there. A peer that is gone is an error, not a signal.
            let sent =
                unsafe { libc::send(self.socket.as_raw_fd(), rest.as_ptr().cast(), rest.len(), flags) };
            match usize::try_from(sent) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == ErrorKind::Interrupted => (),
                    error if error.kind() == ErrorKind::WouldBlock => self.wait_for_room(within)?,
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Waits until more can be sent.
    fn wait_for_room(&self, within: Option<Duration>) -> io::Result<()> {
        let mut waited = [libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 }];
        let within = within.map_or(-1, |within| i32::try_from(within.as_millis()).unwrap_or(i32::MAX));
        // SAFETY: one of them is there.
        match unsafe { libc::poll(waited.as_mut_ptr(), 1, within) } {
            0 => Err(io::Error::new(ErrorKind::TimedOut, "nobody reads what is sent")),
            _ => Ok(()),
        }
    }

    /// Waits for a message, at most so long; `other` is looked after as well, and ends the waiting once it has something.
    pub(super) fn receive(
        &self,
        within: Option<Duration>,
        other: Option<BorrowedFd<'_>>,
    ) -> io::Result<Came> {
        let begun = Instant::now();
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(frame) = whole(&mut came)? {
                return Ok(Came::Frame(frame));
            }
            match self.more(&mut came)? {
                Some(0) => return Ok(Came::End),
                Some(_) => continue,
                None => (),
            }
            let waited = begun.elapsed();
            if waited < self.spin {
                thread::yield_now();
                continue;
            }
            let left = within.map(|within| within.saturating_sub(waited));
            if left.is_some_and(|left| left.is_zero()) || !self.sleep(left, other)? {
                return Ok(Came::Nothing);
            }
        }
    }

    /// What is there already: how many bytes, none if there is nothing.
    fn more(&self, came: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let begun = came.len();
        came.reserve(CHUNK);
        let room = came.spare_capacity_mut();
        // SAFETY: there is so much room.
        let read = unsafe {
            libc::recv(self.socket.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT)
        };
        match usize::try_from(read) {
            Ok(read) => {
                // SAFETY: so many were written there.
                unsafe { came.set_len(begun + read) };
                Ok(Some(read))
            }
            Err(_) => match io::Error::last_os_error() {
                error if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => Ok(None),
                error if error.kind() == ErrorKind::ConnectionReset => Ok(Some(0)),
                error => Err(error),
            },
        }
    }

    /// Sleeps until something comes; whether it is the socket.
    fn sleep(&self, within: Option<Duration>, other: Option<BorrowedFd<'_>>) -> io::Result<bool> {
        let of = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut waited = [of(self.socket.as_raw_fd()), of(other.map_or(-1, |other| other.as_raw_fd()))];
        let within = within.map_or(-1, |within| i32::try_from(within.as_millis()).unwrap_or(i32::MAX).max(1));
        // SAFETY: two of them are there.
        let count = unsafe { libc::poll(waited.as_mut_ptr(), 2, within) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == ErrorKind::Interrupted { Ok(true) } else { Err(error) };
        }
        Ok(waited.first().is_some_and(|socket| socket.revents != 0))
    }
}

/// Takes the first message off what came, once all of it is there.
fn whole(came: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some(head) = came.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > LARGEST {
        let text = format!("a message of {length} bytes; {LARGEST} are possible");
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    if came.len() < 4 + length {
        return Ok(None);
    }
    // What is kept of it has no room beyond it.
    let frame = came.get(4..4 + length).unwrap_or_default().to_vec();
    came.drain(..4 + length);
    Ok(Some(frame))
}

/// A message to be filled, with room for its length.
pub(super) fn begun() -> Vec<u8> {
    let mut message = Vec::with_capacity(512);
    message.resize(4, 0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Frames, UnixStream) {
        let (one, other) = UnixStream::pair().expect("a pair");
        (Frames::new(one), other)
    }

    #[test]
    fn messages_come_whole_whatever_they_are_cut_into() {
        use std::io::Write;
        let (frames, mut other) = pair();
        let mut bytes = vec![];
        for text in ["first", "", "third"] {
            bytes.extend((text.len() as u32).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        let (one, two) = bytes.split_at(7);
        other.write_all(one).expect("written");
        let soon = Some(Duration::from_millis(1));
        assert!(matches!(frames.receive(soon, None), Ok(Came::Nothing)));
        other.write_all(two).expect("written");
        for text in ["first", "", "third"] {
            let Ok(Came::Frame(frame)) = frames.receive(soon, None) else { panic!("no message") };
            assert_eq!(frame, text.as_bytes());
        }
        drop(other);
        assert!(matches!(frames.receive(soon, None), Ok(Came::End)));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        use std::io::Write;
        let (frames, mut other) = pair();
        other.write_all(&[0xff; 64]).expect("written");
        let error = frames.receive(None, None).err().expect("refused");
        assert!(error.to_string().contains("4294967295 bytes"), "{error}");
        let large = vec![0; LARGEST + 5];
        assert!(frames.send(large, None).is_err());
        // Nobody reads.
        let mut message = begun();
        message.resize(8 << 20, 0);
        let error = frames.send(message, Some(Duration::from_millis(5))).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
