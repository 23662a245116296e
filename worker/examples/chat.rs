//! A chat over WebSocket, with axum. Its sessions last through a drain for as long
//! as they may, and end with a goodbye.
//!
//! ```sh
//! cargo build -p prefork-worker --example chat
//! prefork run --workers 1 -- target/debug/examples/chat
//! ```
//!
//! Open `http://127.0.0.1:8080/` in two windows: what one says, both see. Then
//! `prefork restart web`. Both are told `the room moves`, may go on talking for
//! two more seconds, and are closed with code 1001 (going away, RFC 6455). The
//! page comes back by itself, to the successor, which has been taking new
//! sessions since it was ready. A session that would last longer than
//! `drain_timeout`, 30 s unless set, is cut.
//!
//! Each worker is a room of its own, since each is a process of its own: hence
//! the one worker. With several, the rooms have to meet behind them, in
//! whatever the application has for that.

use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{Html, Response};
use axum::routing::get;
use prefork_worker::{Context, Worker};
use tokio::sync::broadcast;
use tokio::time::sleep;

/// What is said and not heard yet by the slowest; it misses the rest.
const BACKLOG: usize = 256;

/// How long a session goes on once the worker is leaving.
const FAREWELL: Duration = Duration::from_secs(2);

const PAGE: &str = r#"<!doctype html><title>chat</title>
<pre id=said></pre><form><input autofocus autocomplete=off></form>
<script>
const say = line => said.append(line + "\n");
let room;
const enter = () => {
  room = new WebSocket("ws://" + location.host + "/room");
  room.onmessage = event => say(event.data);
  room.onclose = () => setTimeout(enter, 200);
};
enter();
const [form, input] = [document.forms[0], document.querySelector("input")];
form.onsubmit = () => { room.send(input.value); input.value = ""; return false; };
</script>"#;

#[derive(Clone)]
struct Room {
    context: Context,
    said: broadcast::Sender<String>,
}

async fn enter(State(room): State<Room>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| async move {
        // An error is a client that has gone.
        let _ = room.talk(socket).await;
        room.tell_status();
    })
}

impl Room {
    async fn talk(&self, mut socket: WebSocket) -> Result<(), axum::Error> {
        let mut heard = self.said.subscribe();
        self.tell_status();
        let pid = self.context.pid();
        socket.send(format!("welcome to {pid}").into()).await?;
        let mut moves = false;
        let end = async {
            self.context.draining().await;
            sleep(FAREWELL).await;
        };
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(line))) => drop(self.said.send(line.to_string())),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                    Some(Ok(_)) => {}
                },
                Ok(line) = heard.recv() => socket.send(line.into()).await?,
                () = self.context.draining(), if !moves => {
                    moves = true;
                    socket.send("the room moves".into()).await?;
                }
                () = &mut end => {
                    let frame = CloseFrame { code: close_code::AWAY, reason: "the room moves".into() };
                    return socket.send(Message::Close(Some(frame))).await;
                }
            }
        }
    }

    fn tell_status(&self) {
        let here = self.said.receiver_count();
        self.context.set_status(format!("{here} in the room"));
    }
}

fn main() -> ExitCode {
    Worker::new("chat-example", env!("CARGO_PKG_VERSION")).run_tower(|context| async {
        let (said, _) = broadcast::channel(BACKLOG);
        let room = Room { context, said };
        Ok(Router::new()
            .route("/", get(Html(PAGE)))
            .route("/room", get(enter))
            .with_state(room))
    })
}
