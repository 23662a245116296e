//! The files whose code a process has mapped: proc_pid_maps(5), proc_pid_map_files(5).

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::rc::Rc;

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use super::elf::{Image, Section};
use super::symbols::short;

/// Files with code that are opened.
const MOST_FILES: usize = 128;

/// A part of a process's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    range: Range<u64>,
    is_code: bool,
    /// Where in its file it begins.
    offset: u64,
    inode: u64,
    path: String,
}

/// Everything that a process executes.
pub(super) struct Code {
    modules: Vec<Module>,
}

/// A file's code in a process's memory.
pub(super) struct Module {
    pub(super) range: Range<u64>,
    /// Where in the file that begins.
    offset: u64,
    /// The file's name without its directories.
    pub(super) name: String,
    pub(super) image: Rc<Image>,
}

/// The parts of a process's memory.
pub(super) fn of(pid: i32) -> io::Result<Vec<Mapping>> {
    let text = fs::read(format!("/proc/{pid}/maps"))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter_map(parse).collect())
}

/// Where the part ends that an address is in; there, where it is in none.
pub(super) fn end_of(mappings: &[Mapping], address: u64) -> u64 {
    let part = mappings.iter().find(|it| it.range.contains(&address));
    part.map_or(address, |part| part.range.end)
}

fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let mut next = || fields.next();
    let (from, to) = next()?.split_once('-')?;
    let permissions = next()?;
    let offset = next()?;
    let _device = next()?;
    let inode = next()?.parse().ok()?;
    let path = next().unwrap_or_default().trim_start();
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(Mapping {
        range: number(from)?..number(to)?,
        is_code: permissions.contains('x'),
        offset: number(offset)?,
        inode,
        path: path.to_owned(),
    })
}

impl Code {
    /// Opens the files. The process may go afterwards.
    pub(super) fn open(pid: i32, mappings: Vec<Mapping>) -> Self {
        let mut images: Vec<(u64, Rc<Image>)> = Vec::new();
        let mut modules = Vec::new();
        let with_code = mappings
            .into_iter()
            .filter(|it| it.is_code && it.inode != 0);
        for mapping in with_code {
            let known = images.iter().find(|(inode, _)| *inode == mapping.inode);
            let image = known.map(|(_, image)| Rc::clone(image));
            let image = image.or_else(|| {
                let file = open(pid, &mapping).filter(|_| images.len() < MOST_FILES)?;
                let image = Rc::new(Image::new(file));
                images.push((mapping.inode, Rc::clone(&image)));
                Some(image)
            });
            modules.extend(image.map(|image| Module {
                name: name(&mapping.path),
                range: mapping.range,
                offset: mapping.offset,
                image,
            }));
        }
        Self { modules }
    }

    /// What an address is in.
    pub(super) fn module_of(&self, address: u64) -> Option<&Module> {
        self.modules.iter().find(|it| it.range.contains(&address))
    }

    /// What unwinding has to know.
    pub(super) fn unwind_modules(&self) -> impl Iterator<Item = framehop::Module<Section>> {
        self.modules.iter().filter_map(Module::for_unwinding)
    }
}

impl Module {
    /// An address of the process as the file has it.
    pub(super) fn in_file(&self, address: u64) -> Option<u64> {
        Some(address.wrapping_sub(self.bias()?))
    }

    /// What is to be added to an address of the file to have it in the process.
    fn bias(&self) -> Option<u64> {
        let address = self.image.address_at(self.offset)?;
        Some(self.range.start.wrapping_sub(address))
    }

    fn for_unwinding(&self) -> Option<framehop::Module<Section>> {
        let info = self.image.unwind_info()?;
        let (name, range) = (self.name.clone(), self.range.clone());
        Some(framehop::Module::new(name, range, self.bias()?, info))
    }
}

/// The file that a part of memory is from. It is no other one by now: the link that names
/// the part itself leads to it for whoever may follow that. Otherwise it is asked for by
/// its path and has the same number.
fn open(pid: i32, mapping: &Mapping) -> Option<File> {
    let Range { start, end } = mapping.range;
    let part = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    if fs::metadata(&part).is_ok_and(|it| it.is_file()) {
        return File::open(&part).ok();
    }
    let path = format!("/proc/{pid}/root{}", mapping.path);
    let flags = O_NOFOLLOW | O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path);
    let found = file.ok()?;
    let is_it = |it: &fs::Metadata| it.is_file() && it.ino() == mapping.inode;
    found.metadata().is_ok_and(|it| is_it(&it)).then_some(found)
}

/// A path's last part, as people are shown it.
fn name(path: &str) -> String {
    let (_, name) = path.rsplit_once('/').unwrap_or(("", path));
    short(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_read() {
        let line = "7f1c2a000000-7f1c2a021000 r-xp 00001000 fd:01 1312 /srv/a b (deleted)";
        let mapping = parse(line).unwrap();
        assert_eq!(mapping.range, 0x7f1c_2a00_0000..0x7f1c_2a02_1000);
        assert!(mapping.is_code);
        assert_eq!((mapping.offset, mapping.inode), (0x1000, 1312));
        assert_eq!(mapping.path, "/srv/a b (deleted)");
        assert_eq!(name(&mapping.path), "a b (deleted)");
        let stack = parse("7ffc0000-7ffd0000 rw-p 00000000 00:00 0          [stack]").unwrap();
        assert!(!stack.is_code);
        assert_eq!(stack.path, "[stack]");
        assert_eq!(parse("nonsense"), None);
        assert_eq!(end_of(&[stack], 0x7ffc_8000), 0x7ffd_0000);
        assert_eq!(end_of(&[], 5), 5);
    }
}
