//! Server-sent events, the receiving side: bytes in any pieces become messages (WHATWG HTML, section 9.2.6).
//!
//! Pure: it holds what is not complete yet and reads nothing itself. The `event` and `retry` fields are passed over:
//! the data names its own kind, and the pace of new attempts is ours.
//!
//! Invariant: at most [`MAX_PENDING`] bytes of an unfinished message are held.

/// Bytes of one message: an event is a sentence and a few names.
const MAX_PENDING: usize = 256 * 1024;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The stream's last id, to resume after; empty if it never named one.
    pub(super) id: String,
    /// Its data lines, joined by line breaks.
    pub(super) data: String,
}

/// A message is larger than [`MAX_PENDING`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than 256 KiB")]
pub(super) struct TooLarge;

/// What is not complete yet.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// The last byte was a CR: a LF that follows belongs to it.
    after_return: bool,
    began: bool,
    id: String,
    data: Option<String>,
}

impl Parser {
    /// Takes the next piece of the stream; the messages it completes.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Vec<Message>, TooLarge> {
        let mut messages = Vec::new();
        for &byte in piece {
            let rest_of_break = std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if rest_of_break => {}
                b'\r' | b'\n' => messages.extend(self.end_line()),
                _ if self.pending() >= MAX_PENDING => return Err(TooLarge),
                _ => self.line.push(byte),
            }
        }
        Ok(messages)
    }

    fn pending(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, String::len)
    }

    fn end_line(&mut self) -> Option<Message> {
        let bytes = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&bytes);
        let first = !std::mem::replace(&mut self.began, true);
        let line = if first { line.strip_prefix('\u{feff}').unwrap_or(&line) } else { &line };
        if line.is_empty() {
            let data = self.data.take()?;
            return Some(Message { id: self.id.clone(), data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                None => self.data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // A comment (an empty field name), or a field nobody needs.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(id: &str, data: &str) -> Message {
        Message { id: id.to_owned(), data: data.to_owned() }
    }

    fn whole(text: &str) -> Vec<Message> {
        Parser::default().push(text.as_bytes()).unwrap()
    }

    #[test]
    fn messages_are_read_as_the_standard_says() {
        let table = [
            ("data: one\n\n", vec![message("", "one")]),
            ("data:one\n\n", vec![message("", "one")]),
            ("data:  two spaces\n\n", vec![message("", " two spaces")]),
            ("id: 7\ndata: a\ndata: b\n\n", vec![message("7", "a\nb")]),
            ("id: 7\r\ndata: a\r\n\r\n", vec![message("7", "a")]),
            ("id: 7\rdata: a\r\r", vec![message("7", "a")]),
            (": alive\n\n:\n\ndata: a\n\n", vec![message("", "a")]),
            ("id: 7\ndata: a\n\ndata: b\n\n", vec![message("7", "a"), message("7", "b")]),
            ("id: 7\ndata: a\n\nid\ndata: b\n\n", vec![message("7", "a"), message("", "b")]),
            ("id: 7\n\ndata: b\n\n", vec![message("7", "b")]),
            ("event: held\nretry: 10\nother: x\ndata: a\n\n", vec![message("", "a")]),
            ("data\n\n", vec![message("", "")]),
            ("data\ndata\n\n", vec![message("", "\n")]),
            ("data: a:b: c\n\n", vec![message("", "a:b: c")]),
            ("id: 1\0\ndata: a\n\n", vec![message("", "a")]),
            ("\u{feff}data: a\n\n", vec![message("", "a")]),
            ("data: a", vec![]),
            ("data: a\n", vec![]),
            ("\n\n\n", vec![]),
        ];
        for (text, expected) in table {
            assert_eq!(whole(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_endless_message_is_refused() {
        let mut parser = Parser::default();
        let line = [b"data: ".as_slice(), &[b'x'; 1_000], b"\n"].concat();
        let refused = (0..MAX_PENDING / 1_000 + 2).find_map(|_| parser.push(&line).err());
        assert_eq!(refused, Some(TooLarge));
        assert_eq!(Parser::default().push(&vec![b'x'; MAX_PENDING + 1]), Err(TooLarge));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "(id: [0-9]|data: [a-zü]{0,3}|:|\r\n|\n|\r|x){0,40}", cuts in prop::collection::vec(0usize..200, 0..8)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let mut parser = Parser::default();
            let pieces: Vec<Message> =
                cuts.windows(2).flat_map(|pair| parser.push(&bytes[pair[0]..pair[1]]).unwrap()).collect();
            prop_assert_eq!(pieces, whole(&text));
        }

        #[test]
        fn garbage_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Parser::default().push(&bytes).is_ok());
        }
    }
}
