//! What a test can order, one file per order: a word, then what belongs to it.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// How to begin, from the file `boot`.
pub(crate) enum Boot {
    /// No order: as a good worker does.
    Well,
    /// `exit CODE TEXT`: write the text to stderr and leave at once.
    Exit { code: u8, text: String },
    /// `mute`: say nothing at all.
    Mute,
    /// `slow MILLISECONDS`: begin only then.
    Slow(Duration),
    /// `write BYTES`: send these bytes instead of a `hello`.
    Write(Vec<u8>),
    /// `uncounted`: say that it does not count what it serves.
    Uncounted,
    /// `unready`: shake hands but never be ready.
    Unready,
    /// `hang-up`: close the channel and live on.
    HangUp,
    /// `listen`: listen on a port of its own, and say nothing.
    Listen,
    /// `stubborn`: begin well, but never leave when asked to.
    Stubborn,
    /// `withhold`: begin well, and come back to the next supervisor without the
    /// listeners.
    Withhold,
}

/// What to do while it runs, from the file with the slot's number.
pub(crate) enum Order {
    /// `exit CODE TEXT`: write the text to stderr and leave.
    Exit { code: u8, text: String },
    /// `abort`: die of SIGABRT.
    Abort,
    /// `print TEXT`: write the text to stdout.
    Print(String),
    /// `silent`: send no more health.
    Silent,
    /// `labour MILLISECONDS`: take that much of a processor from report to report.
    Labour(Duration),
    /// `crowd NUMBER`: let that many threads loop beside what it does.
    Crowd(u64),
    /// `spin`: loop, and do nothing else any more.
    Spin,
    /// `deaf`: read no more.
    Deaf,
    /// `stubborn`: answer neither `drain` nor `stop`.
    Stubborn,
    /// `write BYTES`: send these bytes over the channel.
    Write(Vec<u8>),
    /// `long BYTES`: send that many bytes without a newline.
    Long(usize),
    /// `flood MILLISECONDS`: send reports as fast as they are taken.
    Flood(Duration),
    /// `descriptors NUMBER`: send that many with a line that announces none.
    Descriptors(usize),
    /// `grow BYTES`: take that much memory.
    Grow(usize),
    /// `become COMMAND`: have a shell do it in this process's place.
    Become(String),
    /// `hang-up`: close the channel and live on.
    HangUp,
    /// `hold TEXT`: write the text to stderr out of memory that does not come.
    Hold(String),
    /// `let-go`: have that memory come.
    LetGo,
    /// `park`: leave as many descriptors unread in sockets as the kernel allows.
    Park,
    /// `start COMMAND`: have a shell run it as a child, with a listener as its stdin.
    Start(String),
}

/// The directory with the orders.
pub(crate) struct Orders(Option<PathBuf>);

impl Orders {
    pub(crate) fn in_directory(directory: Option<OsString>) -> Self {
        Self(directory.map(PathBuf::from))
    }

    /// How to begin.
    pub(crate) fn boot(&self) -> Boot {
        let Some(order) = self.read("boot") else {
            return Boot::Well;
        };
        let (word, rest) = split(&order);
        match word.as_str() {
            "exit" => {
                let (code, text) = exit(rest);
                Boot::Exit { code, text }
            }
            "mute" => Boot::Mute,
            "slow" => Boot::Slow(Duration::from_millis(number(rest))),
            "write" => Boot::Write(rest.to_vec()),
            "uncounted" => Boot::Uncounted,
            "unready" => Boot::Unready,
            "hang-up" => Boot::HangUp,
            "listen" => Boot::Listen,
            "stubborn" => Boot::Stubborn,
            "withhold" => Boot::Withhold,
            other => panic!("no such boot order: {other}"),
        }
    }

    /// The order for this slot, taken away.
    pub(crate) fn take(&self, slot: u32) -> Option<Order> {
        let order = self.read(&slot.to_string())?;
        let path = self.0.as_ref()?.join(slot.to_string());
        fs::remove_file(path).expect("the order is for this worker alone");
        let (word, rest) = split(&order);
        Some(match word.as_str() {
            "exit" => {
                let (code, text) = exit(rest);
                Order::Exit { code, text }
            }
            "abort" => Order::Abort,
            "print" => Order::Print(text(rest)),
            "silent" => Order::Silent,
            "labour" => Order::Labour(Duration::from_millis(number(rest))),
            "crowd" => Order::Crowd(number(rest)),
            "spin" => Order::Spin,
            "deaf" => Order::Deaf,
            "stubborn" => Order::Stubborn,
            "write" => Order::Write(rest.to_vec()),
            "long" => Order::Long(usize::try_from(number(rest)).expect("a length fits")),
            "flood" => Order::Flood(Duration::from_millis(number(rest))),
            "descriptors" => Order::Descriptors(usize::try_from(number(rest)).expect("it fits")),
            "grow" => Order::Grow(usize::try_from(number(rest)).expect("a size fits")),
            "become" => Order::Become(text(rest)),
            "hang-up" => Order::HangUp,
            "park" => Order::Park,
            "start" => Order::Start(text(rest)),
            "hold" => Order::Hold(text(rest)),
            "let-go" => Order::LetGo,
            other => panic!("no such order: {other}"),
        })
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.0.as_ref()?.join(name)).ok()
    }
}

/// The first word and what follows the space after it.
fn split(order: &[u8]) -> (String, &[u8]) {
    let end = order.iter().position(|byte| *byte == b' ');
    let (word, rest) = order.split_at(end.unwrap_or(order.len()));
    (text(word), rest.strip_prefix(b" ").unwrap_or(rest))
}

fn exit(rest: &[u8]) -> (u8, String) {
    let (code, rest) = split(rest);
    (code.parse().expect("an exit code"), text(rest))
}

fn number(rest: &[u8]) -> u64 {
    text(rest).parse().expect("a number")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
