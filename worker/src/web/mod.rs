//! The bundled web server.
