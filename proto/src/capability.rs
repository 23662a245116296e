//! Capabilities: what a worker can do beyond the mandatory, by the names that its `hello`
//! and `rejoin` carry. A supervisor asks nothing of a worker that did not name it.

/// It answers commands of the application, `tell`.
pub const TELL: &str = "tell";

/// It takes new settings of the application in place, `reload`.
pub const RELOAD: &str = "reload";

/// It stops accepting and goes on when it is told to, `pause` and `resume`.
pub const PAUSE: &str = "pause";

/// Its `health` has HTTP totals, or its scoreboard.
pub const HTTP_COUNTS: &str = "http_counts";

/// It serves what waits in the queue of another worker's listener, `rescue`.
pub const RESCUE: &str = "rescue";

/// It counts in the memory that comes with `scoreboard`.
pub const SCOREBOARD: &str = "scoreboard";

/// It goes to the next supervisor when its own has gone.
pub const REJOIN: &str = "rejoin";

/// It keeps the reading ends of what it prints to, `output`.
pub const OUTPUT: &str = "output";

/// Its listeners speak TLS by what comes with `tls` and `tickets`.
pub const TLS: &str = "tls";

/// It asks clients for their certificates where what comes with `tls` says so.
pub const CLIENT_CERTIFICATES: &str = "client_certificates";

/// It reads the PROXY protocol on listeners that say so.
pub const PROXY_PROTOCOL: &str = "proxy_protocol";

/// It writes a line for each request to what comes with `access_log`.
pub const ACCESS_LOG: &str = "access_log";

/// It forwards requests to other pools, and hears of them by `upstreams`.
pub const FORWARD: &str = "forward";

/// It counts what each worker behind it has answered, in the memory that comes with
/// `upstream_counts`.
pub const UPSTREAM_COUNTS: &str = "upstream_counts";

/// It notes its requests in the memory that comes with `requests`.
pub const REQUESTS: &str = "requests";

/// It hands open connections on when it drains, and takes those of others, by what comes
/// with `passage`.
pub const PASS_ON: &str = "pass_on";

/// It knows `inherited`: it takes the descriptor that a line belongs to from those that it
/// was born with.
pub const INHERIT: &str = "inherit";
