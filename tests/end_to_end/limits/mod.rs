//! The machine's limits: descriptors, disks and directories that fail.

mod descriptor_reserve;
mod descriptors;
mod descriptors_in_flight;
mod full_disk;
mod slow_directory;
mod slow_disk;
