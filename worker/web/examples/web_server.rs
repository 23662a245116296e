//! The bundled web server as a program of its own. Alone it shows its welcome page:
//! `cargo run -p prefork-web --example web_server -- --listen 127.0.0.1:8080`.

use std::process::ExitCode;

fn main() -> ExitCode {
    prefork_web::main()
}
