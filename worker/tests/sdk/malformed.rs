//! Requests that are none, or that two servers could read in two ways: raw
//! bytes on real connections. What RFC 9112 says is in section numbers.

use prefork_proto::message::ToWorker;

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::Worker;

/// What a case comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is answered with this status and the connection closed.
    Refused(u16),
    /// It is answered with this status, for the reason given.
    Accepted(u16, &'static str),
    /// It is answered with this status and the connection closed, for the
    /// reason given.
    Last(u16, &'static str),
    /// The connection is closed without a word, for the reason given.
    Closed(&'static str),
}
use Outcome::{Accepted, Closed, Last, Refused};

/// Every case: its name, its bytes, and what becomes of it. A second request
/// follows each; what was refused must not let it through.
#[rustfmt::skip]
const CASES: &[(&str, &str, Outcome)] = &[
    // How long a body is.
    ("two lengths that differ", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd", Refused(400)),
    ("two lengths in one line", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4, 5\r\n\r\nabcd", Refused(400)),
    ("the same length twice in one line", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4, 4\r\n\r\nabcd", Refused(400)),
    ("the same length twice", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 4\r\n\r\nabcd", Accepted(200, "6.3: a repeated value may be taken for one")),
    ("a length with a sign", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nabcd", Refused(400)),
    ("a negative length", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: -4\r\n\r\nabcd", Refused(400)),
    ("a length in hexadecimal", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0x4\r\n\r\nabcd", Refused(400)),
    ("an empty length", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: \r\n\r\nabcd", Refused(400)),
    ("a length with a space inside", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4 4\r\n\r\nabcd", Refused(400)),
    ("a length beyond 64 bits", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551620\r\n\r\nabcd", Refused(400)),
    ("a length before chunks", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Last(200, "6.1: the coding decides, and the connection has to end")),
    ("a length after chunks", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n", Last(200, "6.1: the coding decides, and the connection has to end")),
    ("chunks that are not the last coding", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", Refused(400)),
    ("a coding without chunks", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n0\r\n\r\n", Refused(400)),
    ("identity", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n", Refused(400)),
    ("a coding in chunks", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    ("a coding and chunks in two lines", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    ("two codings and chunks in three lines", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: deflate\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    ("a coding between chunks in two lines", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks in chunks", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks in two lines", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks and identity in two lines", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks by another name", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks after a tab", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\tchunked\r\n\r\n0\r\n\r\n", Accepted(200, "5.1: space around a value is none of it")),
    ("chunks after a vertical tab", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks in capitals", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n", Accepted(200, "7: names of codings know no case")),
    ("chunks in HTTP/1.0", "POST /echo HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("a length with leading zeros", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0004\r\n\r\nabcd", Accepted(200, "RFC 9110, 8.6: any digits")),
    ("a length and a comma", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4,\r\n\r\nabcd", Refused(400)),
    ("a length with a parameter", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4;a\r\n\r\nabcd", Refused(400)),
    ("a length with an underscore inside", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0_4\r\n\r\nabcd", Refused(400)),
    ("a length with a fraction", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4.0\r\n\r\nabcd", Refused(400)),
    ("a length in digits beyond ASCII", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: ٤\r\n\r\nabcd", Refused(400)),
    ("a length with a vertical tab", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: \x0b4\r\n\r\nabcd", Refused(400)),
    ("a length of none and chunks that carry a request", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n", Last(200, "6.1: the coding decides, and the connection has to end")),
    ("an empty coding", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks and a comma", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked,\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks after a comma", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: ,chunked\r\n\r\n0\r\n\r\n", Accepted(200, "RFC 9110, 5.6.1: an empty member of a list is none")),
    ("chunks in quotes", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks with a parameter", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked;a=b\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks and NUL", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\0\r\n\r\n0\r\n\r\n", Refused(400)),
    ("chunks after NEL", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \u{85}chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("a coding and no chunks beside a length", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd", Refused(400)),
    ("identity beside a length", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\ncontent-length: 4\r\n\r\nabcd", Refused(400)),
    ("an underscore in the coding's name beside a length", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer_encoding: chunked\r\ncontent-length: 4\r\n\r\nabcd", Accepted(200, "RFC 9110, 5.1: it is another header")),
    ("space before the coding's colon", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("a coding in a folded line", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refused(400)),

    // Chunks.
    ("a chunk beyond 64 bits", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n10000000000000004\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk of no size", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\r\n0\r\n\r\n", Refused(400)),
    ("a chunk of a negative size", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-4\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk size with a prefix", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x4\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk size after a space", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n 4\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk longer than its size", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk size that ends with a bare LF", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("chunk data that ends with a bare LF", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\n0\r\n\r\n", Refused(400)),
    ("a chunk extension with a bare LF", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4;a\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk extension", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4;name=\"value\"\r\nabcd\r\n0\r\n\r\n", Accepted(200, "7.1.1: an extension that is not known is ignored")),
    ("trailers", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nx: y\r\n\r\n", Accepted(200, "7.1.2: trailers end a body")),
    ("a chunk size of no digit", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\ng\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk size with an underscore", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0_4\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk size with a plus", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n+4\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk size with leading zeros", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0004\r\nabcd\r\n0\r\n\r\n", Accepted(200, "7.1: any hexadecimal digits")),
    ("a chunk size before a space", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4 \r\nabcd\r\n0\r\n\r\n", Accepted(200, "7.1.1: space before an extension was once allowed, and none follows")),
    ("a chunk size before a space and an extension", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4 ;a=b\r\nabcd\r\n0\r\n\r\n", Accepted(200, "7.1.1: space before an extension was once allowed")),
    ("a chunk size before letters", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4 a\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk size that ends with a bare CR", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\rabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk shorter than its size", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("chunk data that ends with a bare CR", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r0\r\n\r\n", Refused(400)),
    ("a chunk extension with a bare CR", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4;a\rb\r\nabcd\r\n0\r\n\r\n", Refused(400)),
    ("a chunk extension with NUL", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4;a\0b\r\nabcd\r\n0\r\n\r\n", Accepted(200, "7.1.1: an extension is ignored, whatever is in its line")),
    ("a chunk extension of a quoted line", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4;a=\"\r\nabcd\r\n0\r\n\r\n", Accepted(200, "7.1.1: no quotes lead beyond the end of a line")),
    ("a last chunk of many zeros", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0000\r\n\r\n", Accepted(200, "7.1: any number of zeros")),
    ("a last chunk with a bare LF", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\n\r\n", Refused(400)),
    ("a trailer without a colon", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nx\r\n\r\n", Refused(400)),
    ("a folded trailer", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nx: y\r\n z\r\n\r\n", Refused(400)),
    ("a trailer that is a length", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\ncontent-length: 40\r\n\r\n", Accepted(200, "6.5.1 of RFC 9110: what follows a body does not change its length")),
    ("a trailer that is a coding", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\ntransfer-encoding: chunked\r\n\r\n", Accepted(200, "6.5.1 of RFC 9110: what follows a body does not change its coding")),
    ("a trailer with NUL", "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nx: \0\r\n\r\n", Refused(400)),
    ("chunks for an answer that needs none", "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n0\r\n\r\n", Last(200, "the answer does not depend on the body, and what follows is not looked at")),

    // Lines.
    ("bare LF in a head", "GET / HTTP/1.1\nhost: a\n\n", Accepted(200, "2.2: LF alone may be taken for the end of a line")),
    ("bare CR in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n", Refused(400)),
    ("bare CR for the end of a line", "GET / HTTP/1.1\rhost: a\r\r", Refused(400)),
    ("a folded value", "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n", Refused(400)),
    ("a folded value that hides a length", "POST /echo HTTP/1.1\r\nhost: a\r\nx: a\r\n\tcontent-length: 4\r\n\r\nabcd", Refused(400)),
    ("space before the first header", "GET / HTTP/1.1\r\n host: a\r\n\r\n", Refused(400)),
    ("space before a colon", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length : 4\r\n\r\nabcd", Refused(400)),
    ("a header without a colon", "GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n", Refused(400)),
    ("a header without a name", "GET / HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n", Refused(400)),
    ("a name with a separator", "GET / HTTP/1.1\r\nhost: a\r\nx@y: z\r\n\r\n", Refused(400)),
    ("a name beyond ASCII", "GET / HTTP/1.1\r\nhost: a\r\nä: z\r\n\r\n", Refused(400)),
    ("NUL in a name", "GET / HTTP/1.1\r\nhost: a\r\nx\0y: z\r\n\r\n", Refused(400)),
    ("NUL in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: y\0z\r\n\r\n", Refused(400)),
    ("a control character in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: y\x01z\r\n\r\n", Refused(400)),
    ("a value beyond ASCII", "GET / HTTP/1.1\r\nhost: a\r\nx: ä\r\n\r\n", Accepted(200, "RFC 9110, 5.5: obs-text is to be taken as it is")),
    ("an empty line before the request", "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Accepted(200, "2.2: at least one is to be ignored")),
    ("an underscore in a name", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent_length: 9\r\ncontent-length: 4\r\n\r\nabcd", Accepted(200, "RFC 9110, 5.1: it is another header")),
    ("a name with a tab", "GET / HTTP/1.1\r\nhost: a\r\nx\t: y\r\n\r\n", Refused(400)),
    ("a name in quotes", "GET / HTTP/1.1\r\nhost: a\r\n\"x\": y\r\n\r\n", Refused(400)),
    ("a name with a space", "GET / HTTP/1.1\r\nhost: a\r\nx y: z\r\n\r\n", Refused(400)),
    ("DEL in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: \x7f\r\n\r\n", Refused(400)),
    ("a tab in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: y\tz\r\n\r\n", Accepted(200, "RFC 9110, 5.5: a tab is as good as a space")),
    ("an empty value", "GET / HTTP/1.1\r\nhost: a\r\nx:\r\n\r\n", Accepted(200, "RFC 9110, 5.5: a value may be empty")),
    ("a folded value of a tab", "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n\tb\r\n\r\n", Refused(400)),
    ("a line of one space", "GET / HTTP/1.1\r\nhost: a\r\n \r\n\r\n", Refused(400)),
    ("a bare CR before a line's end", "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\r\n\r\n", Refused(400)),

    // Whose request it is.
    ("no Host", "GET / HTTP/1.1\r\n\r\n", Refused(400)),
    ("no Host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", Last(200, "HTTP/1.0 had none")),
    ("two Hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", Refused(400)),
    ("the same Host twice", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", Refused(400)),
    ("two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", Refused(400)),
    ("a Host with a space", "GET / HTTP/1.1\r\nhost: a b\r\n\r\n", Refused(400)),
    ("a Host with a path", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", Refused(400)),
    ("a Host with a user", "GET / HTTP/1.1\r\nhost: user@a\r\n\r\n", Refused(400)),
    ("a Host with two ports", "GET / HTTP/1.1\r\nhost: a:80:81\r\n\r\n", Refused(400)),
    ("an empty Host", "GET / HTTP/1.1\r\nhost:\r\n\r\n", Accepted(200, "3.2: what has no authority sends an empty one")),
    ("a Host with a port", "GET / HTTP/1.1\r\nhost: [::1]:8080\r\n\r\n", Accepted(200, "3.2: uri-host and port")),
    ("a URI that names another host", "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", Accepted(200, "3.2.2: Host is ignored then")),
    ("a URI that names a user", "GET http://user@b/ HTTP/1.1\r\nhost: b\r\n\r\n", Refused(400)),
    ("a URI without a Host", "GET http://b/ HTTP/1.1\r\n\r\n", Refused(400)),
    ("a folded Host", "GET / HTTP/1.1\r\nhost:\r\n a\r\n\r\n", Refused(400)),
    ("a Host with a port of letters", "GET / HTTP/1.1\r\nhost: a:b\r\n\r\n", Refused(400)),
    ("a Host with a port that is too large", "GET / HTTP/1.1\r\nhost: a:65536\r\n\r\n", Accepted(200, "RFC 3986, 3.2.3: any digits")),
    ("a Host in half brackets", "GET / HTTP/1.1\r\nhost: [::1\r\n\r\n", Refused(400)),
    ("a Host of two in one line", "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n", Refused(400)),
    ("a Host with a scheme", "GET / HTTP/1.1\r\nhost: http://a\r\n\r\n", Refused(400)),
    ("a Host beyond ASCII", "GET / HTTP/1.1\r\nhost: ä\r\n\r\n", Refused(400)),
    ("a Host with a query", "GET / HTTP/1.1\r\nhost: a?b\r\n\r\n", Refused(400)),
    ("a Host with a fragment", "GET / HTTP/1.1\r\nhost: a#b\r\n\r\n", Refused(400)),
    ("a Host with a backslash", "GET / HTTP/1.1\r\nhost: a\\b\r\n\r\n", Refused(400)),
    ("a Host with a dot at its end", "GET / HTTP/1.1\r\nhost: a.\r\n\r\n", Accepted(200, "RFC 3986, 3.2.2: a name may end with one")),
    ("space before Host's colon", "GET / HTTP/1.1\r\nhost : a\r\n\r\n", Refused(400)),

    // The form of the target.
    ("an authority for a GET", "GET b:80 HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a name for a GET", "GET b HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("an authority for OPTIONS", "OPTIONS b:80 HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a star for a GET", "GET * HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a star for a POST", "POST * HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", Refused(400)),
    ("a star for OPTIONS", "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", Accepted(404, "3.2.4: it asks the server as a whole")),
    ("a CONNECT", "CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n\r\n", Accepted(404, "3.2.3: the application says whether there is a tunnel")),
    ("a CONNECT to an address", "CONNECT [::1]:443 HTTP/1.1\r\nhost: [::1]:443\r\n\r\n", Accepted(404, "3.2.3: uri-host is an address, too")),
    ("a CONNECT without a port", "CONNECT b HTTP/1.1\r\nhost: b\r\n\r\n", Refused(400)),
    ("a CONNECT with an empty port", "CONNECT b: HTTP/1.1\r\nhost: b\r\n\r\n", Refused(400)),
    ("a CONNECT to port 0", "CONNECT b:0 HTTP/1.1\r\nhost: b\r\n\r\n", Refused(400)),
    ("a CONNECT to port 000", "CONNECT b:000 HTTP/1.1\r\nhost: b\r\n\r\n", Refused(400)),
    ("a CONNECT to a port that is too large", "CONNECT b:65536 HTTP/1.1\r\nhost: b\r\n\r\n", Refused(400)),
    ("a CONNECT to nobody", "CONNECT :443 HTTP/1.1\r\nhost: b\r\n\r\n", Refused(400)),
    ("a CONNECT as a user", "CONNECT user@b:443 HTTP/1.1\r\nhost: b\r\n\r\n", Refused(400)),
    ("a CONNECT to a path", "CONNECT /a HTTP/1.1\r\nhost: b\r\n\r\n", Refused(400)),
    ("a CONNECT to a URI", "CONNECT http://b:80/a HTTP/1.1\r\nhost: b\r\n\r\n", Refused(400)),
    ("a CONNECT to a star", "CONNECT * HTTP/1.1\r\nhost: b\r\n\r\n", Refused(400)),

    // The request line.
    ("HTTP/0.9", "GET /\r\n", Refused(400)),
    ("a version of two digits", "GET / HTTP/1.10\r\nhost: a\r\n\r\n", Refused(400)),
    ("a version that is not there yet", "GET / HTTP/1.2\r\nhost: a\r\n\r\n", Refused(400)),
    ("HTTP/2 in words", "GET / HTTP/2.0\r\nhost: a\r\n\r\n", Refused(400)),
    ("a protocol in lower case", "GET / http/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("two spaces", "GET  / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a tab for a space", "GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a target with a space", "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a target with a control character", "GET /\x7f HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("no target", "GET HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a target that is no path", "GET a/b HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a method in lower case", "get / HTTP/1.1\r\nhost: a\r\n\r\n", Accepted(200, "RFC 9110, 9.1: another method, for the application to know")),
    ("a method of no token", "G@T / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a very long method", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(501)),
    ("a space after the version", "GET / HTTP/1.1 \r\nhost: a\r\n\r\n", Refused(400)),
    ("a space before the method", " GET / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("no method", "/ HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a target with a fragment", "GET /#a HTTP/1.1\r\nhost: a\r\n\r\n", Accepted(200, "3.2: it is left off, as most servers do")),
    ("a target beyond ASCII", "GET /ä HTTP/1.1\r\nhost: a\r\n\r\n", Accepted(404, "3: for the application to know")),
    ("a target with a backslash", "GET \\a HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a target with NUL", "GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a target with a bare CR", "GET /\r HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a target with a vertical tab", "GET /\x0b HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a URI without an authority", "GET http:///a HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a URI of another scheme", "GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n", Accepted(200, "RFC 9110, 7.4: for the application to judge")),
    ("two slashes before the path", "GET //b/ HTTP/1.1\r\nhost: a\r\n\r\n", Accepted(404, "3.2.1: a path, and no authority")),
    ("a version without a number", "GET / HTTP\r\nhost: a\r\n\r\n", Refused(400)),
    ("a version of letters", "GET / HTTP/1.a\r\nhost: a\r\n\r\n", Refused(400)),
    ("a version with a leading zero", "GET / HTTP/01.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a version of another protocol", "GET / HTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a version with a comma", "GET / HTTP/1,1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a version with a sign", "GET / HTTP/1.-1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a space in the protocol", "GET / HTTP /1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("text after the version", "GET / HTTP/1.1 a\r\nhost: a\r\n\r\n", Refused(400)),
    ("a method with a colon", "GE:T / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a method beyond ASCII", "GÄT / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a method with NUL", "G\0T / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a method with a bare CR", "G\rT / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a bare LF before the request", "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Accepted(200, "2.2: an empty line is ignored, and LF alone may end it")),
    ("a bare CR before the request", "\rGET / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a space before an empty line", " \r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("a proxy's line before the request", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Refused(400)),
    ("bytes of TLS", "\x16\x03\x01\x02\0\x01\0\x01\x7f\x03\x03\r\n\r\n", Refused(400)),
    ("the preface of HTTP/2 after a request", "GET / HTTP/1.1\r\nhost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Last(200, "the client goes on in another protocol, in which nothing was agreed")),
    ("bytes after a request", "GET / HTTP/1.1\r\nhost: a\r\n\r\n\x01\x02\r\n\r\n", Last(200, "the request was whole; what follows is refused")),
    ("a body that nobody announced", "POST /echo HTTP/1.1\r\nhost: a\r\n\r\nabcd\r\n\r\n", Last(200, "6.3: without a length there is no body; what follows is refused")),
    ("half a preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", Refused(400)),
    ("a preface without a frame", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Closed("RFC 9113, 3.4: settings have to follow, and what follows are none")),
];

/// What the request after a case asks for; nothing else has this length.
const NEXT: &str = "GET /slow?0 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// The statuses of all answers that are on a connection to its end, and
/// whether the request that follows was answered.
fn statuses(bytes: &[u8]) -> (Vec<u16>, bool) {
    let text = String::from_utf8_lossy(bytes);
    let heads = text.match_indices("HTTP/1.");
    let statuses = heads.map(|(at, _)| text[at + 9..at + 12].parse().unwrap());
    (statuses.collect(), text.ends_with("slow\n"))
}

#[test]
fn every_malformed_request_is_refused_and_nothing_that_follows_it_is_answered() {
    let worker = Worker::ready();
    let mut wrong = Vec::new();
    for (name, bytes, outcome) in CASES {
        let mut client = Client::connect(worker.address);
        client.send(bytes);
        client.send(NEXT);
        let rest = client.rest();
        let (statuses, went_on) = statuses(&rest);
        let first = statuses.first().copied();
        let right = match *outcome {
            Refused(status) => statuses == [status] && !went_on,
            Accepted(status, _) => statuses == [status, 200] && went_on,
            Last(status, _) => first == Some(status) && !went_on,
            Closed(_) => statuses.is_empty(),
        };
        if !right {
            let text = String::from_utf8_lossy(&rest);
            wrong.push(format!("{name}: {outcome:?}, but {statuses:?}: {text:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_answer_to_no_request_is_counted_before_its_client_can_see_it() {
    let mut worker = Worker::ready();
    let mut expected = [0; 5];
    for (name, bytes, _) in CASES {
        let mut client = Client::connect(worker.address);
        client.send(bytes);
        client.send(NEXT);
        for status in statuses(&client.rest()).0 {
            expected[usize::from(status / 100) - 1] += 1;
        }
        // The ping's answer comes after what the client saw, the report after that.
        assert!(worker.ask(|id| ToWorker::Ping { id }).ok);
        let counts = worker.health(|_| true).http.unwrap();
        assert_eq!(counts.requests, expected, "after {name}");
    }
    assert!(expected[3] > 100, "{expected:?}");
}

#[test]
fn what_a_refusal_says_is_whole() {
    let worker = Worker::ready();
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let mut client = Client::connect(worker.address);
        client.send(request);
        let answer = client.response();
        assert_eq!(answer.status, 400);
        assert!(answer.says_close(), "{answer:?}");
        assert_eq!(answer.header("content-length"), Some("0"));
        assert!(answer.header("date").is_some());
        client.until_closed();
    }
}

#[test]
fn the_application_finds_the_host_that_the_uri_names() {
    let worker = Worker::ready();
    let mut client = Client::connect(worker.address);
    client.send("GET http://shop.example:81/host HTTP/1.1\r\nhost: other\r\n\r\n");
    assert_eq!(client.response().text(), "Some(\"shop.example:81\")");
}

#[test]
fn a_refusal_after_an_answer_that_is_still_being_sent_is_counted() {
    let mut worker = Worker::ready();
    let mut client = Client::connect(worker.address);
    // More than the sockets hold, so that the second request is read before
    // the first one's answer has left.
    client.send("GET /large HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/9.9\r\n\r\n");
    worker.in_flight(0);
    client.rest();
    let health = worker.health(|health| health.connections == 0);
    assert_eq!(health.http.unwrap().requests, [0, 1, 0, 1, 0]);
}
