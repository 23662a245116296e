//! Writes 100 (Continue) to HTTP/2 clients that wait for it, which hyper does
//! over HTTP/1 only (RFC 9110, 10.1.1).
//!
//! It is a HEADERS frame of this library's between two of hyper's: never inside a
//! frame, nor inside a head of several (RFC 9113, 4.3). Its one field is a literal
//! that is not indexed, so that no later head depends on it (RFC 7541, 6.2.2). It
//! is owed before the response is given to hyper, and goes out at the first place
//! that there is, so it comes before the response.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::transport::http2::bodies::Uploads;
use crate::transport::http2::frames::{
    CONTINUATION, END_HEADERS, HEADER, HEADERS, RST_STREAM, header,
};

/// `:status` by its number in the static table (RFC 7541, appendix A), and `100`.
const FIELDS: [u8; 5] = [8, 3, b'1', b'0', b'0'];

/// A connection's interim responses.
#[derive(Debug)]
pub(crate) struct Interim {
    uploads: Arc<Uploads>,
    output: Output,
    /// What is left of the one that is being written.
    writing: Bytes,
}

impl Interim {
    /// Those that are owed to the clients of these bodies, from the first byte of
    /// the output on.
    pub(crate) fn new(uploads: Arc<Uploads>) -> Self {
        Self {
            uploads,
            output: Output::default(),
            writing: Bytes::new(),
        }
    }

    /// What is to be written before anything of hyper's, if there is something.
    pub(crate) fn waiting(&mut self) -> Option<&mut Bytes> {
        if self.writing.is_empty() {
            if !self.uploads.owes_continue() || !self.output.is_between_frames() {
                return None;
            }
            let stream = self.uploads.take_owed()?;
            let head = header(FIELDS.len(), HEADERS, stream);
            self.writing = [&head[..], &FIELDS].concat().into();
        }
        Some(&mut self.writing)
    }

    /// What may be written before one that is owed: the rest of a frame, as far as
    /// it is in the first of these. `None` where none is owed.
    pub(crate) fn rest_of_frame<'a>(&self, bytes: &'a [IoSlice<'_>]) -> Option<&'a [u8]> {
        if !self.uploads.owes_continue() {
            return None;
        }
        let first: &[u8] = bytes.iter().find(|part| !part.is_empty())?;
        let (mut output, mut end) = (self.output, 0);
        while end < first.len() && (end == 0 || !output.is_between_frames()) {
            end += output.take(&first[end..]).0;
        }
        Some(&first[..end])
    }

    /// So many of these bytes were written.
    pub(crate) fn wrote(&mut self, bytes: &[IoSlice<'_>], mut written: usize) {
        for part in bytes {
            let mut part = &part[..part.len().min(written)];
            written -= part.len();
            while !part.is_empty() {
                let (taken, reset) = self.output.take(part);
                part = &part[taken..];
                if let Some(stream) = reset {
                    self.uploads.reset(stream);
                }
            }
        }
    }
}

/// Where hyper's output is in its frames.
#[derive(Debug, Default, Clone, Copy)]
struct Output {
    /// The header that is being written, of which so many bytes are out.
    header: [u8; HEADER],
    begun: usize,
    /// Bytes that are still to come of the frame after its header.
    left: usize,
    /// A head has begun that further frames go on with.
    is_in_head: bool,
}

impl Output {
    fn is_between_frames(&self) -> bool {
        self.begun == 0 && self.left == 0 && !self.is_in_head
    }

    /// Takes some of what is written: how much, and the stream that it resets.
    fn take(&mut self, bytes: &[u8]) -> (usize, Option<u32>) {
        if self.left > 0 {
            let taken = self.left.min(bytes.len());
            self.left -= taken;
            return (taken, None);
        }
        let taken = bytes.len().min(HEADER - self.begun);
        self.header[self.begun..][..taken].copy_from_slice(&bytes[..taken]);
        self.begun += taken;
        if self.begun < HEADER {
            return (taken, None);
        }
        self.begun = 0;
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.is_in_head = flags & END_HEADERS == 0;
        }
        let reset = (kind == RST_STREAM).then(|| u32::from_be_bytes(stream));
        (taken, reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
        let mut frame = header(length, kind, stream).to_vec();
        frame[4] = flags;
        frame.resize(HEADER + length, b'x');
        frame
    }

    /// Writes all of this in parts of this size, and what is owed where it may go.
    fn written(interim: &mut Interim, mut bytes: &[u8], part: usize) -> Vec<u8> {
        let mut written = Vec::new();
        loop {
            while let Some(waiting) = interim.waiting() {
                written.extend_from_slice(&waiting.split_to(waiting.len().min(part)));
            }
            if bytes.is_empty() {
                return written;
            }
            let (head, body) = bytes.split_at(bytes.len().min(5));
            let offered = [IoSlice::new(head), IoSlice::new(body)];
            let rest = interim.rest_of_frame(&offered).map(<[u8]>::len);
            let taken = rest.unwrap_or(bytes.len()).min(part);
            interim.wrote(&offered, taken);
            written.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
        }
    }

    #[test]
    fn an_interim_response_goes_between_two_frames_and_two_heads() {
        let data = frame(0, 0, 3, 20);
        let begun = frame(HEADERS, 0, 5, 7);
        let ended = frame(CONTINUATION, END_HEADERS, 5, 0);
        let all = [data.clone(), begun.clone(), ended.clone(), data.clone()].concat();
        let ours = [&header(5, HEADERS, 1)[..], b"\x08\x03100"].concat();
        let head_at = data.len();
        let ends = [0, head_at, head_at + begun.len() + ended.len(), all.len()];
        for part in [1, 2, 9, 1000] {
            for at in 0..=all.len() {
                let uploads = Arc::new(Uploads::under(&Limits::default()));
                let mut interim = Interim::new(Arc::clone(&uploads));
                let before = written(&mut interim, &all[..at], part);
                assert!(before == all[..at]);
                uploads.begin(1);
                uploads.owe_continue(1);
                let after = written(&mut interim, &all[at..], part);
                let end = *ends.iter().find(|end| **end >= at).unwrap();
                let right = [&all[at..end], &ours, &all[end..]].concat();
                assert!(after == right, "at {at} in parts of {part}: {after:?}");
            }
        }
    }

    #[test]
    fn nothing_is_sent_on_a_stream_that_was_reset() {
        let uploads = Arc::new(Uploads::under(&Limits::default()));
        let mut interim = Interim::new(Arc::clone(&uploads));
        uploads.begin(1);
        uploads.begin(3);
        written(&mut interim, &frame(RST_STREAM, 0, 1, 4), 3);
        uploads.owe_continue(1);
        uploads.owe_continue(3);
        let ours = written(&mut interim, &[], 100);
        assert_eq!(ours[..HEADER], header(5, HEADERS, 3));
        assert_eq!(ours.len(), HEADER + FIELDS.len());
    }
}
