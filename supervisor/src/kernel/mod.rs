//! The kernel: system calls, `/proc`, descriptors kept in reserve, and files of strangers.

pub mod fd_reserve;
pub mod procfs;
pub(crate) mod regular_file;
pub(crate) mod sandbox;
pub(crate) mod sys;
pub(crate) mod trusted_path;
