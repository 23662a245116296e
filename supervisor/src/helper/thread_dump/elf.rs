//! A file of code (ELF), read as far as it is asked for.

use std::cell::OnceCell;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use addr2line::{Loader, demangle_auto};
use framehop::ExplicitModuleSectionInfo;
use object::elf::PF_X;
use object::read::ReadCache;
use object::{Object, ObjectSection, ObjectSegment, SegmentFlags};

/// A section's bytes.
pub(super) type Section = Rc<[u8]>;

/// No section is larger that is read whole.
const MOST_SECTION: u64 = 256 << 20;

/// The smallest page of the machines that prefork is made for.
const PAGE: u64 = 4096;

/// A file of code.
pub(super) struct Image {
    file: File,
    layout: OnceCell<Option<Layout>>,
    /// Reads symbols and debug information.
    loader: OnceCell<Option<Loader>>,
}

/// Where in it what is.
struct Layout {
    /// Which part of the file with code is loaded to which address. The kernel maps whole
    /// pages: it begins at one.
    segments: Vec<(Range<u64>, u64)>,
    text: Option<Range<u64>>,
    got: Option<Range<u64>>,
    eh_frame: Option<(Range<u64>, Section)>,
    eh_frame_hdr: Option<(Range<u64>, Section)>,
    debug_frame: Option<Section>,
}

/// A function and where in its source, as debug information has it.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) function: Option<String>,
    pub(super) source: Option<String>,
}

impl Image {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            layout: OnceCell::new(),
            loader: OnceCell::new(),
        }
    }

    /// The address that a part of the file is linked to.
    pub(super) fn address_at(&self, offset: u64) -> Option<u64> {
        let segments = &self.layout()?.segments;
        let (part, address) = segments.iter().find(|(part, _)| part.contains(&offset))?;
        Some(address + (offset - part.start))
    }

    /// How its functions are returned from.
    pub(super) fn unwind_info(&self) -> Option<ExplicitModuleSectionInfo<Section>> {
        let layout = self.layout()?;
        let (eh_frame_svma, eh_frame) = layout.eh_frame.clone().unzip();
        let (eh_frame_hdr_svma, eh_frame_hdr) = layout.eh_frame_hdr.clone().unzip();
        Some(ExplicitModuleSectionInfo {
            base_svma: 0,
            text_svma: layout.text.clone(),
            got_svma: layout.got.clone(),
            eh_frame_svma,
            eh_frame,
            eh_frame_hdr_svma,
            eh_frame_hdr,
            debug_frame: layout.debug_frame.clone(),
            ..ExplicitModuleSectionInfo::default()
        })
    }

    fn layout(&self) -> Option<&Layout> {
        self.layout.get_or_init(|| self.read()).as_ref()
    }

    fn read(&self) -> Option<Layout> {
        let cache = ReadCache::new(&self.file);
        let elf = object::File::parse(&cache).ok()?;
        let section = |name| elf.section_by_name(name);
        let range = |section: &object::Section<'_, '_, _>| {
            section.address()..section.address().saturating_add(section.size())
        };
        let data = |section: &object::Section<'_, '_, &ReadCache<&File>>| {
            let data = (section.size() <= MOST_SECTION).then(|| section.uncompressed_data());
            data?.ok().map(|data| Section::from(&*data))
        };
        let whole = |name| section(name).and_then(|it| Some((range(&it), data(&it)?)));
        Some(Layout {
            segments: elf.segments().filter_map(|it| code(&it)).collect(),
            text: section(".text").map(|it| range(&it)),
            got: section(".got").map(|it| range(&it)),
            eh_frame: whole(".eh_frame"),
            eh_frame_hdr: whole(".eh_frame_hdr"),
            debug_frame: whole(".debug_frame").map(|(_, data)| data),
        })
    }

    /// The functions at these addresses, by its symbols.
    pub(super) fn names(&self, addresses: &[u64]) -> Vec<Option<String>> {
        let name = |address: &u64| {
            let symbol = self.loader()?.find_symbol(*address)?;
            Some(demangle_auto(symbol.into(), None).into_owned())
        };
        addresses.iter().map(name).collect()
    }

    /// The functions at these addresses, those that are inlined there first, by its debug
    /// information. None where it has none.
    pub(super) fn places(&self, addresses: &[u64]) -> Option<Vec<Vec<Place>>> {
        let loader = self.loader()?;
        let places: Vec<_> = addresses
            .iter()
            .map(|address| places(loader, *address).unwrap_or_default())
            .collect();
        let is_known = places.iter().flatten().any(|place| place.source.is_some());
        is_known.then_some(places)
    }

    fn loader(&self) -> Option<&Loader> {
        let path = || format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let load = || Loader::new(path()).ok();
        self.loader.get_or_init(load).as_ref()
    }
}

fn code<'a>(segment: &impl ObjectSegment<'a>) -> Option<(Range<u64>, u64)> {
    let SegmentFlags::Elf { p_flags } = segment.flags() else {
        return None;
    };
    let (from, length) = segment.file_range();
    let into_page = from % PAGE;
    let whole = from - into_page..from.saturating_add(length);
    let address = segment.address().checked_sub(into_page)?;
    (p_flags & PF_X != 0).then_some((whole, address))
}

fn places(loader: &Loader, address: u64) -> Option<Vec<Place>> {
    let mut frames = loader.find_frames(address).ok()?;
    let mut places = Vec::new();
    while let Ok(Some(frame)) = frames.next() {
        let function = frame.function.as_ref().and_then(|it| it.demangle().ok());
        let source = frame.location.and_then(|it| {
            let line = it.line.unwrap_or_default();
            Some(format!("{}:{line}", it.file?))
        });
        places.push(Place {
            function: function.map(std::borrow::Cow::into_owned),
            source,
        });
    }
    Some(places)
}
