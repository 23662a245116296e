//! Names and source lines for addresses of code.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use prefork_api::StackFrame;

use super::elf::{Image, Place};
use super::mappings::{Code, Module};
use crate::sanitize::one_line;

/// Characters of a name that are shown. Generic functions have names of thousands.
const MOST_NAME: usize = 256;

/// Frames of a thread, with those of functions that are inlined.
const MOST_FRAMES: usize = 64;

/// What was found out by now.
#[derive(Default)]
pub(super) struct Symbols {
    /// Files without a name for some address that is in them.
    nameless: BTreeSet<String>,
    /// Files without source lines.
    lineless: BTreeSet<String>,
    /// What symbols say.
    known: BTreeMap<u64, String>,
}

impl Symbols {
    /// Frames with the names that symbols give.
    pub(super) fn names(&mut self, code: &Code, addresses: &[u64]) -> Vec<StackFrame> {
        for (module, inside) in by_file(code, addresses) {
            let at: Vec<u64> = inside.iter().map(|(_, in_file)| *in_file).collect();
            for ((address, _), name) in inside.iter().zip(module.image.names(&at)) {
                match name {
                    Some(name) => drop(self.known.insert(*address, short(&name))),
                    None => drop(self.nameless.insert(module.name.clone())),
                }
            }
        }
        let frames = addresses.iter().map(|address| self.frame(code, *address));
        frames.collect()
    }

    /// The same with the names and source lines that debug information gives.
    pub(super) fn lines(&mut self, code: &Code, addresses: &[u64]) -> Vec<StackFrame> {
        let mut places = BTreeMap::new();
        for (module, inside) in by_file(code, addresses) {
            let at: Vec<u64> = inside.iter().map(|(_, in_file)| *in_file).collect();
            match module.image.places(&at) {
                Some(found) => {
                    let addresses = inside.iter().map(|(address, _)| *address);
                    places.extend(addresses.zip(found));
                }
                None => drop(self.lineless.insert(module.name.clone())),
            }
        }
        let frames = addresses.iter().flat_map(|address| {
            let plain = self.frame(code, *address);
            let places = places.remove(address).unwrap_or_default();
            with_places(plain, places)
        });
        frames.take(MOST_FRAMES).collect()
    }

    /// What there was no name or line for.
    pub(super) fn lacks(self) -> impl Iterator<Item = String> {
        let said = |what: &'static str, files: BTreeSet<String>| {
            let files: Vec<String> = files.into_iter().collect();
            (!files.is_empty()).then(|| format!("{what}{}", files.join(", ")))
        };
        let nameless = said("names of some functions: no symbols in ", self.nameless);
        let lineless = said("source lines: no debug information in ", self.lineless);
        nameless.into_iter().chain(lineless)
    }

    fn frame(&self, code: &Code, address: u64) -> StackFrame {
        StackFrame {
            address: format!("{address:#x}"),
            function: self.known.get(&address).cloned(),
            source: None,
            module: code.module_of(address).map(|module| module.name.clone()),
        }
    }
}

/// A frame as debug information has it: functions that were inlined each have their own.
fn with_places(plain: StackFrame, places: Vec<Place>) -> Vec<StackFrame> {
    let last = places.len().saturating_sub(1);
    let frames = places.into_iter().enumerate().map(|(index, place)| {
        let by_symbol = plain.function.clone().filter(|_| index == last);
        StackFrame {
            function: place.function.as_deref().map(short).or(by_symbol),
            source: place.source.as_deref().map(short),
            ..plain.clone()
        }
    });
    let frames: Vec<_> = frames.collect();
    if frames.is_empty() {
        vec![plain]
    } else {
        frames
    }
}

/// The addresses by the file that they are in, as they are and as the file has them.
fn by_file<'a>(code: &'a Code, addresses: &[u64]) -> Vec<(&'a Module, Vec<(u64, u64)>)> {
    let mut files: Vec<(&Module, Vec<(u64, u64)>)> = Vec::new();
    for address in addresses {
        let Some(module) = code.module_of(*address) else {
            continue;
        };
        let Some(in_file) = module.in_file(*address) else {
            continue;
        };
        let same = |image: &Rc<Image>| Rc::ptr_eq(image, &module.image);
        match files.iter_mut().find(|(known, _)| same(&known.image)) {
            Some((_, inside)) => inside.push((*address, in_file)),
            None => files.push((module, vec![(*address, in_file)])),
        }
    }
    files
}

/// A stranger's text on one line, and not too much of it.
pub(super) fn short(text: &str) -> String {
    let text = one_line(text);
    match text.char_indices().nth(MOST_NAME) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_and_does_nothing() {
        let long = short(&"é".repeat(300));
        assert_eq!(long.chars().count(), MOST_NAME + 1);
        assert!(long.ends_with('…'));
        assert_eq!(short("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }

    #[test]
    fn what_is_inlined_has_a_frame_of_its_own() {
        let plain = StackFrame {
            address: "0x10".to_owned(),
            function: Some("outer_by_symbol".to_owned()),
            ..StackFrame::default()
        };
        let place = |function: Option<&str>, source: &str| Place {
            function: function.map(str::to_owned),
            source: Some(source.to_owned()),
        };
        let frames = with_places(
            plain.clone(),
            vec![place(Some("inner"), "a.rs:1"), place(None, "b.rs:2")],
        );
        let names: Vec<_> = frames.iter().map(|it| it.function.as_deref()).collect();
        assert_eq!(names, [Some("inner"), Some("outer_by_symbol")]);
        assert_eq!(frames[1].source.as_deref(), Some("b.rs:2"));
        assert_eq!(with_places(plain.clone(), Vec::new()), [plain]);
    }
}
