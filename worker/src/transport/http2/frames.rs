//! Follows the frames that an HTTP/2 client sends on their way to hyper, to
//! measure the bodies of its requests (RFC 9113, 4 and 6).
//!
//! hyper does not say on which stream a request has come. So the head of each
//! request with a body is given one more field, which names its stream, and
//! which is taken away before anybody sees it. A number that nobody can guess
//! tells it from what a client may write.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::header::HeaderName;

use crate::transport::http2::bodies::{Part, Uploads};

/// The field that names a request's stream.
static MARK: HeaderName = HeaderName::from_static("prefork-stream");

/// A mark in HPACK: a literal with a new name, not indexed (RFC 7541, 6.2.2).
/// In the field's value are the connection's number and the stream, in hex.
const MARK_LENGTH: usize = 2 + 14 + 1 + VALUE_LENGTH;
const VALUE_LENGTH: usize = 16 + 8;

/// What an HTTP/2 client sends before its first frame.
const PREFACE: usize = 24;

/// A frame's header: the length of what follows, type, flags and stream.
pub(crate) const HEADER: usize = 9;

/// The largest frame that hyper takes.
const LARGEST: usize = 16 << 10;

const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// What a client's frames have come to.
#[derive(Debug)]
pub(crate) struct Frames {
    uploads: Arc<Uploads>,
    /// The header that is coming, of which so many bytes are there and kept back.
    header: [u8; HEADER],
    held: usize,
    /// Bytes that are still to come before the next header.
    left: usize,
    /// What goes behind them.
    insert: Option<(Place, u32)>,
    /// The stream whose head has begun to come and is to be marked.
    marking: Option<u32>,
    /// The last stream that was opened.
    last: u32,
    /// What of a connection's larger window has come.
    granting: Option<u32>,
    /// The request whose head is coming, and whether this frame is its last.
    opening: u32,
    ends_head: bool,
}

/// Where a mark goes.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// At the end of the frame that it is written for.
    Inside,
    /// Into one more frame.
    Behind,
}

/// What has become of bytes that came.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// As many of the first ones are to be passed on as they are now,
    pub(crate) kept: usize,
    /// and then these.
    pub(crate) then: BytesMut,
    split: bool,
}

impl Passed {
    fn pass(&mut self, bytes: &[u8], range: Range<usize>) {
        match self.split {
            true => self.then.extend_from_slice(&bytes[range]),
            false => self.kept = range.end,
        }
    }

    fn insert(&mut self, bytes: &[u8]) {
        self.split = true;
        self.then.extend_from_slice(bytes);
    }
}

impl Frames {
    /// To follow a connection from its first byte.
    pub(crate) fn new(uploads: Arc<Uploads>) -> Self {
        Self {
            uploads,
            header: [0; HEADER],
            held: 0,
            left: PREFACE,
            insert: None,
            marking: None,
            last: 0,
            granting: None,
            opening: 0,
            ends_head: false,
        }
    }

    /// Follows bytes that came, and says what to pass on.
    pub(crate) fn pass(&mut self, bytes: &mut [u8]) -> Passed {
        let mut passed = Passed::default();
        let mut at = 0;
        while at < bytes.len() {
            if self.left == 0 {
                at = self.take_header(bytes, at, &mut passed);
            } else {
                let end = bytes.len().min(at + self.left);
                self.take_grant(&bytes[at..end]);
                passed.pass(bytes, at..end);
                self.left -= end - at;
                at = end;
            }
            if self.left == 0
                && let Some((place, stream)) = self.insert.take()
            {
                self.insert_mark(place, stream, &mut passed);
            }
            if self.left == 0 {
                self.end_frame();
            }
        }
        self.uploads.set_opening(self.opening);
        passed
    }

    /// Takes what there is of the number of bytes that a client asks for.
    fn take_grant(&mut self, bytes: &[u8]) {
        if let Some(grant) = &mut self.granting {
            *grant = bytes
                .iter()
                .fold(*grant, |grant, byte| grant << 8 | u32::from(*byte));
        }
    }

    fn end_frame(&mut self) {
        if self.ends_head {
            self.opening = 0;
        }
        if let Some(grant) = self.granting.take() {
            self.uploads.grant(grant & (u32::MAX >> 1));
        }
    }

    /// All of bytes that were read before.
    pub(crate) fn rewrite(&mut self, read: &[u8]) -> Bytes {
        let mut bytes = BytesMut::from(read);
        let passed = self.pass(&mut bytes);
        bytes.truncate(passed.kept);
        bytes.unsplit(passed.then);
        bytes.freeze()
    }

    /// Takes what there is of a header; where it ends.
    fn take_header(&mut self, bytes: &mut [u8], at: usize, passed: &mut Passed) -> usize {
        let end = bytes.len().min(at + HEADER - self.held);
        let taken = &bytes[at..end];
        self.header[self.held..][..taken.len()].copy_from_slice(taken);
        self.held += taken.len();
        if self.held < HEADER {
            return end;
        }
        self.held = 0;
        if let Some(stream) = self.begin() {
            passed.insert(&cut(stream));
        }
        if end - at == HEADER {
            bytes[at..end].copy_from_slice(&self.header);
            passed.pass(bytes, at..end);
        } else {
            passed.insert(&self.header);
        }
        end
    }

    /// A frame begins; its header may be changed. The stream that is to be cut
    /// off before it comes.
    fn begin(&mut self) -> Option<u32> {
        let [a, b, c, kind, flags, id @ ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes(id) & (u32::MAX >> 1);
        self.left = length;
        self.ends_head = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
        let mut to_cut = None;
        match kind {
            DATA => {
                if self.uploads.receive(stream, length as u64) == Part::Cut {
                    to_cut = Some(stream);
                }
            }
            HEADERS if stream > self.last => {
                self.last = stream;
                self.opening = stream;
                self.marking = None;
                if flags & END_STREAM == 0 {
                    self.uploads.open(stream);
                    self.marking = Some(stream);
                }
            }
            HEADERS | CONTINUATION => {}
            RST_STREAM => self.uploads.end(stream),
            WINDOW_UPDATE if stream == 0 => {
                self.granting = Some(0);
                return None;
            }
            _ => return None,
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            self.uploads.end(stream);
        }
        if self.ends_head
            && let Some(stream) = self.marking.take()
        {
            let padded = kind == HEADERS && flags & PADDED != 0;
            self.make_room(length, padded, stream);
        }
        to_cut
    }

    /// The frame that begins ends a head, which is to have a mark at its end.
    fn make_room(&mut self, length: usize, padded: bool, stream: u32) {
        let longer = length + MARK_LENGTH;
        let place = if padded || longer > LARGEST {
            self.header[4] &= !END_HEADERS;
            Place::Behind
        } else {
            self.header[..3].copy_from_slice(&length_of(longer));
            Place::Inside
        };
        self.insert = Some((place, stream));
    }

    fn insert_mark(&self, place: Place, stream: u32, passed: &mut Passed) {
        if let Place::Behind = place {
            passed.insert(&header(MARK_LENGTH, CONTINUATION, stream));
        }
        let name = MARK.as_str();
        passed.insert(&[0, name.len() as u8]);
        passed.insert(name.as_bytes());
        passed.insert(&[VALUE_LENGTH as u8]);
        passed.insert(value(self.uploads.number(), stream).as_bytes());
    }
}

/// The frame that makes hyper end a stream: trailers after which there would be
/// more (RFC 9113, 8.1). It changes nothing that later heads depend on.
fn cut(stream: u32) -> [u8; HEADER] {
    header(0, HEADERS, stream)
}

/// The header of a frame that ends a head, or trailers.
pub(crate) fn header(length: usize, kind: u8, stream: u32) -> [u8; HEADER] {
    let [a, b, c] = length_of(length);
    let [d, e, f, g] = stream.to_be_bytes();
    [a, b, c, kind, END_HEADERS, d, e, f, g]
}

fn length_of(length: usize) -> [u8; 3] {
    let [.., a, b, c] = length.to_be_bytes();
    [a, b, c]
}

fn value(number: u64, stream: u32) -> String {
    format!("{number:016x}{stream:08x}")
}

/// Takes the mark away from a request's headers; the stream that it names.
/// What a client has written there is no mark.
pub(crate) fn take_mark(headers: &mut HeaderMap, number: u64) -> Option<u32> {
    let last = headers.get_all(&MARK).iter().next_back()?;
    let stream = last.to_str().ok().and_then(|text| {
        let (begin, stream) = text.split_at_checked(16)?;
        let begin = u64::from_str_radix(begin, 16).ok()?;
        (begin == number).then(|| u32::from_str_radix(stream, 16).ok())?
    });
    headers.remove(&MARK);
    stream
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut header = header(payload.len(), kind, stream);
        header[4] = flags;
        [&header, payload].concat()
    }

    fn uploads() -> Arc<Uploads> {
        Arc::new(Uploads::under(&Limits {
            max_body_size: Some(10),
            ..Limits::default()
        }))
    }

    /// A field that says which request this is.
    fn mark(uploads: &Uploads, stream: u32) -> Vec<u8> {
        let value = value(uploads.number(), stream);
        let parts: [&[u8]; 4] = [b"\0\x0e", b"prefork-stream", b"\x18", value.as_bytes()];
        parts.concat()
    }

    /// What is passed on of bytes that come in pieces of this length.
    fn passed(uploads: &Arc<Uploads>, bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut frames = Frames::new(Arc::clone(uploads));
        let pieces = bytes.chunks(piece).map(|piece| frames.rewrite(piece));
        pieces.collect::<Vec<_>>().concat()
    }

    #[test]
    fn heads_of_requests_with_a_body_are_marked_and_all_else_stays_as_it_is() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let long = vec![7; LARGEST - 10];
        let all = END_HEADERS | END_STREAM;
        let asked = |marks: [Vec<u8>; 4]| {
            let [one, two, three, four] = marks;
            let behind = |mark: &[u8], stream| match mark {
                [] => (END_HEADERS, Vec::new()),
                mark => (0, frame(CONTINUATION, END_HEADERS, stream, mark)),
            };
            let (third, behind_third) = behind(&three, 9);
            let (fourth, behind_fourth) = behind(&four, 11);
            [
                preface.clone(),
                frame(4, 0, 0, &[0; 12]),
                frame(HEADERS, all, 1, &[1; 20]),
                frame(HEADERS, END_HEADERS, 3, &[&[2; 20][..], &one].concat()),
                frame(DATA, 0, 3, &[3; 5]),
                frame(HEADERS, all, 3, &[4; 3]),
                frame(HEADERS, 0, 7, &[5; 20]),
                frame(CONTINUATION, 0, 7, &[]),
                frame(CONTINUATION, END_HEADERS, 7, &[&[6; 2][..], &two].concat()),
                frame(HEADERS, third | PADDED, 9, &[1, 9, 9, 0]),
                behind_third,
                frame(DATA, END_STREAM, 9, &[]),
                frame(HEADERS, fourth, 11, &long),
                behind_fourth,
                frame(RST_STREAM, 0, 11, &[0; 4]),
            ]
            .concat()
        };
        for piece in [1, 2, 3, 5, 8, 9, 10, 33, 1000, 20_000] {
            let uploads = uploads();
            let sent = asked(Default::default());
            let marked = asked([3, 7, 9, 11].map(|stream| mark(&uploads, stream)));
            assert_eq!(passed(&uploads, &sent, piece), marked, "{piece}");
            let progress = |stream| uploads.progress(stream).map(|it| (it.received, it.ended));
            assert_eq!(progress(1), None);
            assert_eq!(progress(3), Some((5, true)));
            assert_eq!(progress(7), Some((0, false)));
            assert_eq!(progress(9), Some((0, true)));
            assert_eq!(uploads.opening(), None);
        }
    }

    #[test]
    fn frames_that_are_nearly_right_are_the_same_however_they_are_cut() {
        let begun = |frames: &[Vec<u8>]| [&[0; PREFACE][..], &frames.concat()].concat();
        let corpus = [
            begun(&[
                frame(4, 0, 0, &[0; 12]),
                frame(HEADERS, END_HEADERS, 1, &[1; 20]),
            ]),
            begun(&[
                frame(HEADERS, 0, 7, &[5; 20]),
                frame(CONTINUATION, END_HEADERS, 7, &[6; 2]),
                frame(DATA, PADDED, 7, &[2, 3, 0, 0]),
                frame(RST_STREAM, 0, 7, &[0; 4]),
            ]),
            begun(&[
                frame(HEADERS, END_HEADERS | PADDED, 9, &[1, 9, 9, 0]),
                frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]),
                frame(DATA, END_STREAM, 9, &[8; 30]),
            ]),
        ];
        prefork_testkit::mutate::mutate(9113, 20_000, &corpus, |bytes| {
            // Each has a number of its own, so that its marks are of one length only.
            let length = |piece| passed(&uploads(), bytes, piece).len();
            let whole = length(bytes.len().max(1));
            for piece in [1, 7] {
                assert_eq!(length(piece), whole, "in pieces of {piece}");
            }
        });
    }

    #[test]
    fn a_stream_is_cut_off_before_what_is_too_much() {
        let uploads = uploads();
        let begin = [vec![0; PREFACE], frame(HEADERS, END_HEADERS, 1, b"head")].concat();
        let mut frames = Frames::new(Arc::clone(&uploads));
        frames.rewrite(&begin);
        assert_eq!(uploads.opening(), None);
        uploads.answered(1);
        let enough = frame(DATA, 0, 1, &[0; 10]);
        assert_eq!(frames.rewrite(&enough), enough);
        let more = frame(DATA, 0, 1, b"x");
        let end = [cut(1).to_vec(), more.clone()].concat();
        assert_eq!(frames.rewrite(&more), end);
        assert_eq!(frames.rewrite(&more), more);
    }

    #[test]
    fn a_head_is_coming_until_its_last_byte() {
        let uploads = uploads();
        let mut frames = Frames::new(Arc::clone(&uploads));
        frames.rewrite(&[0; PREFACE]);
        let head = [
            frame(HEADERS, END_STREAM, 5, b"he"),
            frame(CONTINUATION, END_HEADERS, 5, b"ad"),
        ]
        .concat();
        for (index, byte) in head.iter().enumerate() {
            frames.rewrite(&[*byte]);
            let opening = (8..head.len() - 1).contains(&index).then_some(5);
            assert_eq!(uploads.opening(), opening, "{index}");
        }
    }

    #[test]
    fn only_the_connections_own_mark_counts_and_none_stays() {
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&MARK, value.parse().unwrap());
            }
            headers
        };
        let (mine, other) = (value(7, 0x1234), value(8, 3));
        for (values, stream) in [
            (&[][..], None),
            (&["5", &mine], Some(0x1234)),
            (&[&mine, "5"], None),
            (&[&other], None),
            (&["ä"], None),
        ] {
            let mut headers = headers(values);
            assert_eq!(take_mark(&mut headers, 7), stream, "{values:?}");
            assert!(headers.is_empty());
        }
    }
}
