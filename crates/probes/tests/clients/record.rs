// SPDX-License-Identifier: Apache-2.0
//! Records, read by the types that the compiler of the kernel side wrote down: no layout is said
//! a second time.

use std::collections::HashMap;
use std::io::Write;
use std::sync::OnceLock;

use libbpf_rs::Btf;
use libbpf_rs::btf::types::{Int, MemberAttr, Struct};
use libbpf_rs::btf::{BtfType, HasSize};

/// Offset and size of each field of each structure; fields of fields are joined by dots.
type Layouts = HashMap<String, (usize, usize)>;

fn layouts() -> &'static Layouts {
    static LAYOUTS: OnceLock<Layouts> = OnceLock::new();
    LAYOUTS.get_or_init(|| {
        let mut layouts = Layouts::new();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(include_bytes!(concat!(env!("OUT_DIR"), "/clients.bpf.o"))).unwrap();
        let btf = Btf::from_path(file.path()).unwrap();
        for found in btf.type_by_kind::<Struct<'_>>() {
            let name = found.name().map(|name| name.to_string_lossy().into_owned());
            if let Some(name) = name.filter(|name| name.starts_with("ringfence_")) {
                layouts.insert(name.clone(), (0, found.size()));
                add(&mut layouts, &btf, &name, 0, &found);
            }
        }
        layouts
    })
}

fn add(layouts: &mut Layouts, btf: &Btf<'_>, prefix: &str, base: usize, found: &Struct<'_>) {
    for member in found.iter() {
        let MemberAttr::Normal { offset } = member.attr else { panic!("a bit field") };
        let name = format!("{prefix}.{}", member.name.unwrap().to_string_lossy());
        let offset = base + offset as usize / 8;
        let kind: BtfType<'_> = btf.type_by_id(member.ty).unwrap();
        let kind = kind.skip_mods_and_typedefs();
        if let Ok(inner) = Struct::try_from(kind) {
            layouts.insert(name.clone(), (offset, inner.size()));
            add(layouts, btf, &name, offset, &inner);
        } else {
            // Of arrays only the place is asked for.
            layouts
                .insert(name, (offset, Int::try_from(kind).map_or(0, |int| int.bits as usize / 8)));
        }
    }
}

/// A record.
#[derive(Clone)]
pub(crate) struct Record(pub(crate) Vec<u8>);

impl Record {
    fn number(&self, base: usize, field: &str) -> u64 {
        let (offset, size) = *layouts().get(field).unwrap_or_else(|| panic!("no field {field}"));
        let bytes = &self.0[base + offset..base + offset + size];
        bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// A field of the header.
    pub(crate) fn header(&self, field: &str) -> u64 {
        self.number(0, &format!("ringfence_header.{field}"))
    }

    /// Bytes of the header from where a field begins.
    pub(crate) fn header_bytes(&self, field: &str, length: usize) -> &[u8] {
        let offset = layouts()[&format!("ringfence_header.{field}")].0;
        &self.0[offset..offset + length]
    }

    /// Where the actor begins.
    fn actor_at() -> usize {
        layouts()["ringfence_header"].1
    }

    /// A field of the actor.
    pub(crate) fn actor(&self, field: &str) -> u64 {
        self.number(Self::actor_at(), &format!("ringfence_actor.{field}"))
    }

    /// A field of the event's own part, such as `ringfence_process_exit.code`.
    pub(crate) fn body(&self, field: &str) -> u64 {
        self.number(self.header("body") as usize, field)
    }

    /// Bytes of the actor from where a field begins.
    pub(crate) fn actor_bytes(&self, field: &str, length: usize) -> &[u8] {
        let offset = Self::actor_at() + layouts()[&format!("ringfence_actor.{field}")].0;
        &self.0[offset..offset + length]
    }

    fn text_at(&self, base: usize, field: &str) -> String {
        let offset = self.number(base, &format!("{field}.offset")) as usize;
        let length = self.number(base, &format!("{field}.length")) as usize;
        String::from_utf8_lossy(&self.0[offset..offset + length]).into_owned()
    }

    /// A string of the actor.
    pub(crate) fn actor_text(&self, field: &str) -> String {
        self.text_at(Self::actor_at(), &format!("ringfence_actor.{field}"))
    }

    /// A string of the event's own part.
    pub(crate) fn text(&self, field: &str) -> String {
        self.text_at(self.header("body") as usize, field)
    }

    /// Bytes of the event's own part from where a field begins.
    pub(crate) fn bytes(&self, field: &str, length: usize) -> &[u8] {
        let offset = self.header("body") as usize + layouts()[field].0;
        &self.0[offset..offset + length]
    }

    /// The type.
    pub(crate) fn kind(&self) -> u8 {
        self.header("type") as u8
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (pid, path) = (self.actor("process.pid"), self.actor_text("executable.path"));
        write!(f, "{} of {pid} ({path})", self.kind())
    }
}

/// The size of a structure of api/ringfence.h.
pub(crate) fn size_of_part(name: &str) -> usize {
    layouts()[name].1
}
