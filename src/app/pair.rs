//! What a process and its successor say to each other, over a socket pair that is the successor's standard input.
//!
//! A message is one byte for its kind, the length of its text, and the text. The sockets go first, a few with each
//! message, as ancillary data.
//!
//! ```text
//!   predecessor                                  successor
//!   Sockets, Sockets, ..., NoMore  ───────────▶  reads the file, takes what it listens on
//!                                  ◀───────────  AwaitsState
//!   writes what is owed, lets go of the state
//!   State                          ───────────▶  opens it, publishes its first table
//!                                  ◀───────────  Prepared: nothing was accepted yet
//!   (a rollback meanwhile ends it here)
//!   Serve                          ───────────▶  accepts
//!                                  ◀───────────  Serves
//!   accepts no more, drains, ends
//! ```
//!
//! At any point the successor may say `Failed` and why, or just be gone: the predecessor takes the state back.
//!
//! Invariant: whoever waits does so for a limited time.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// How long either side waits for the other's next word: a large store is checked within seconds. All waits together are
/// below what the admin API gives an answer.
const PATIENCE: Duration = Duration::from_secs(9);
/// Sockets with one message; the kernel takes 253.
const TOGETHER: usize = 64;
/// Sockets in all: every worker's of every listener, and the admin API's.
const MOST: usize = 256 * 16 + 1;
/// Bytes of a message's text: a report on a whole file.
const LONGEST: usize = 256 * 1024;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Word {
    /// Some sockets come with it.
    Sockets = b'+',
    /// There are no more sockets.
    NoMore = b'.',
    /// Everything that needs no state is done.
    AwaitsState = b's',
    /// The state is free.
    State = b'g',
    /// Everything but accepting is done.
    Prepared = b'p',
    /// Accept.
    Serve = b'c',
    /// Accepting; the text is the version.
    Serves = b'r',
    /// It will not be; the text is why.
    Failed = b'f',
}

const WORDS: [Word; 8] = [
    Word::Sockets,
    Word::NoMore,
    Word::AwaitsState,
    Word::State,
    Word::Prepared,
    Word::Serve,
    Word::Serves,
    Word::Failed,
];

/// One end of the pair.
#[derive(Debug)]
pub(super) struct Pair(UnixStream);

impl Pair {
    /// Speaks over this stream.
    ///
    /// # Errors
    /// When the system refuses a time limit.
    pub(super) fn new(stream: UnixStream) -> io::Result<Pair> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Pair(stream))
    }

    /// Says a word.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub(super) fn say(&mut self, word: Word, text: &str) -> io::Result<()> {
        let text = &text.as_bytes()[..text.len().min(LONGEST)];
        let mut message = vec![word as u8];
        message.extend_from_slice(&(text.len() as u32).to_be_bytes());
        message.extend_from_slice(text);
        self.0.write_all(&message)
    }

    /// The next word and its text.
    ///
    /// # Errors
    /// When the other side is gone, silent for too long, or says what makes no sense.
    pub(super) fn hear(&mut self) -> io::Result<(Word, String)> {
        let mut kind = [0];
        self.0.read_exact(&mut kind)?;
        self.rest(kind[0])
    }

    /// Waits for this word; its text.
    ///
    /// # Errors
    /// As [`Pair::hear`], and when another word came: a failure's text is then the error's.
    pub(super) fn expect(&mut self, wanted: Word) -> io::Result<String> {
        match self.hear()? {
            (word, text) if word == wanted => Ok(text),
            (Word::Failed, text) => Err(io::Error::other(text)),
            (word, _) => Err(io::Error::other(format!("{word:?} came in place of {wanted:?}"))),
        }
    }

    fn rest(&mut self, kind: u8) -> io::Result<(Word, String)> {
        let strange = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let word = WORDS.into_iter().find(|word| *word as u8 == kind).ok_or_else(|| strange("an unknown word"))?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > LONGEST {
            return Err(strange("a text that is too long"));
        }
        let mut text = vec![0; length];
        self.0.read_exact(&mut text)?;
        Ok((word, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Gives sockets away.
    ///
    /// # Errors
    /// When nobody takes them.
    pub(super) fn give(&mut self, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        for some in sockets.chunks(TOGETHER) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !ancillary.push(SendAncillaryMessage::ScmRights(some)) {
                return Err(io::Error::other("too many sockets for one message"));
            }
            // The kind alone goes with them: what was asked for byte by byte keeps its company.
            let kind = [Word::Sockets as u8];
            if sendmsg(self.0.as_fd(), &[IoSlice::new(&kind)], &mut ancillary, SendFlags::NOSIGNAL)? != 1 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.0.write_all(&0_u32.to_be_bytes())?;
        }
        self.say(Word::NoMore, "")
    }

    /// Takes the sockets that the other side gives away.
    ///
    /// # Errors
    /// As [`Pair::hear`], or when there are too many.
    pub(super) fn take(&mut self) -> io::Result<Vec<OwnedFd>> {
        let mut sockets = Vec::new();
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut kind = [0];
            let mut into = [IoSliceMut::new(&mut kind)];
            let received = recvmsg(self.0.as_fd(), &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(some) = message {
                    sockets.extend(some);
                }
            }
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match self.rest(kind[0])? {
                (Word::Sockets, _) if sockets.len() <= MOST => {}
                (Word::NoMore, _) => return Ok(sockets),
                (word, _) => return Err(io::Error::other(format!("{word:?} came among the sockets"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Pair, Pair) {
        let (one, other) = UnixStream::pair().unwrap();
        (Pair::new(one).unwrap(), Pair::new(other).unwrap())
    }

    #[test]
    fn sockets_arrive_whole_however_many_there_are() {
        for count in [0, 1, 64, 65, 150] {
            let (mut old, mut new) = pair();
            let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let sockets: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
            old.give(&sockets).unwrap();
            old.say(Word::State, "").unwrap();
            let taken: Vec<TcpListener> = new.take().unwrap().into_iter().map(TcpListener::from).collect();
            let places = |listeners: &[TcpListener]| -> Vec<_> {
                listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
            };
            assert_eq!(places(&taken), places(&listeners));
            new.expect(Word::State).unwrap();
        }
    }

    #[test]
    fn a_failure_comes_with_its_reason_and_silence_with_an_end() {
        let (mut old, mut new) = pair();
        new.say(Word::Failed, "line 3 is wrong").unwrap();
        assert_eq!(old.expect(Word::Serves).unwrap_err().to_string(), "line 3 is wrong");
        new.say(Word::Prepared, "").unwrap();
        assert_eq!(old.expect(Word::Serves).unwrap_err().to_string(), "Prepared came in place of Serves");
        drop(new);
        assert_eq!(old.expect(Word::Serves).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (mut old, mut new) = pair();
        drop(old.0.write_all(b"?\0\0\0\0"));
        assert_eq!(new.hear().unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(old.0.write_all(b"f\xff\0\0\0"));
        assert_eq!(new.hear().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
