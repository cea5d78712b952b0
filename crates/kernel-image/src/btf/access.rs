// SPDX-License-Identifier: Apache-2.0
//! Questions about one type.

use super::{
    Array, Btf, Enumerator, Int, Kind, MAX_DEPTH, Member, Parameter, Place, Record, TypeId,
    Variable, u32_at,
};

/// Pointers of x86-64.
const POINTER_SIZE: u64 = 8;

/// How many anonymous structures are searched through for one member. The largest structure of
/// Linux 6.18 has below a hundred; hostile input could nest them without end.
const MAX_ANONYMOUS: u32 = 4096;

/// The entries behind a record: members, enumerators, parameters or variables.
#[derive(Clone, Copy)]
struct Entries<'a> {
    btf: &'a Btf,
    record: Option<Record>,
    next: u32,
    width: usize,
}

impl<'a> Entries<'a> {
    fn of(btf: &'a Btf, record: Option<Record>, width: usize) -> Self {
        Self { btf, record, next: 0, width }
    }

    /// The record and the offset of the next entry.
    fn advance(&mut self) -> Option<(Record, usize)> {
        let record = self.record?;
        if self.next >= record.count {
            return None;
        }
        let at = record.entries() + self.width * self.next as usize;
        self.next += 1;
        Some((record, at))
    }

    fn word(&self, at: usize) -> u32 {
        u32_at(&self.btf.bytes, at).unwrap_or(0)
    }
}

macro_rules! iterator {
    ($(#[$meta:meta])* $name:ident, $item:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub struct $name<'a>(Entries<'a>);

        impl<'a> Iterator for $name<'a> {
            type Item = $item<'a>;

            fn next(&mut self) -> Option<$item<'a>> {
                let (record, at) = self.0.advance()?;
                Some(Self::decode(&self.0, record, at))
            }
        }
    };
}

iterator!(
    /// The members of a structure or union, in order of declaration.
    Members,
    Member
);
iterator!(
    /// The values that an enumeration names.
    Enumerators,
    Enumerator
);
iterator!(
    /// The parameters of a function.
    Parameters,
    Parameter
);
iterator!(
    /// The variables of a section.
    Variables,
    Variable
);

impl<'a> Members<'a> {
    fn decode(entries: &Entries<'a>, record: Record, at: usize) -> Member<'a> {
        let offset = entries.word(at + 8);
        let (bit_offset, bit_size) = match record.flag {
            true => (offset & 0x00ff_ffff, offset >> 24),
            false => (offset, 0),
        };
        Member {
            name: entries.btf.name_at(entries.word(at)),
            type_id: TypeId(entries.word(at + 4)),
            bit_offset: u64::from(bit_offset),
            bit_size,
        }
    }
}

impl<'a> Enumerators<'a> {
    fn decode(entries: &Entries<'a>, record: Record, at: usize) -> Enumerator<'a> {
        let low = entries.word(at + 4);
        let value = match (record.kind, record.flag) {
            (Kind::Enum64, _) => ((u64::from(entries.word(at + 8)) << 32) | u64::from(low)) as i64,
            (_, true) => i64::from(low as i32),
            (_, false) => i64::from(low),
        };
        Enumerator { name: entries.btf.name_at(entries.word(at)), value }
    }
}

impl<'a> Parameters<'a> {
    fn decode(entries: &Entries<'a>, _: Record, at: usize) -> Parameter<'a> {
        Parameter {
            name: entries.btf.name_at(entries.word(at)),
            type_id: TypeId(entries.word(at + 4)),
        }
    }
}

impl<'a> Variables<'a> {
    fn decode(entries: &Entries<'a>, _: Record, at: usize) -> Variable<'a> {
        let variable = entries.btf.record(TypeId(entries.word(at)));
        Variable {
            name: entries.btf.name_at(variable.map_or(0, |record| record.name)),
            type_id: TypeId(variable.map_or(0, |record| record.value)),
            offset: entries.word(at + 4),
            size: entries.word(at + 8),
        }
    }
}

impl Btf {
    /// How many types there are; their numbers are 1 to this, inclusive.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The kind of a type; `None` for a number that no type has.
    pub fn kind(&self, id: TypeId) -> Option<Kind> {
        if id == TypeId::VOID {
            return Some(Kind::Void);
        }
        self.record(id).map(|record| record.kind)
    }

    /// The type's own name; empty where it has none.
    pub fn name(&self, id: TypeId) -> &str {
        self.record(id).map_or("", |record| self.name_at(record.name))
    }

    /// The type behind all typedefs, qualifiers and type tags. `None` if they lead in a circle.
    pub fn resolve(&self, id: TypeId) -> Option<TypeId> {
        let mut id = id;
        for _ in 0..MAX_DEPTH {
            if id == TypeId::VOID {
                return Some(id);
            }
            let record = self.record(id)?;
            if !record.kind.is_transparent() {
                return Some(id);
            }
            id = TypeId(record.value);
        }
        None
    }

    fn resolved(&self, id: TypeId) -> Option<Record> {
        self.record(self.resolve(id)?)
    }

    /// The kind behind all typedefs, qualifiers and type tags.
    pub fn resolved_kind(&self, id: TypeId) -> Option<Kind> {
        self.kind(self.resolve(id)?)
    }

    /// Bytes that a value of the type takes in memory. `None` for what has no size: `void`,
    /// functions, forward declarations.
    pub fn size(&self, id: TypeId) -> Option<u64> {
        let mut id = id;
        let mut count = 1_u64;
        for _ in 0..MAX_DEPTH {
            let record = self.resolved(id)?;
            let size = match record.kind {
                Kind::Int
                | Kind::Struct
                | Kind::Union
                | Kind::Enum
                | Kind::Enum64
                | Kind::Float
                | Kind::DataSection => u64::from(record.value),
                Kind::Pointer => POINTER_SIZE,
                Kind::Variable => {
                    id = TypeId(record.value);
                    continue;
                }
                Kind::Array => {
                    let array = self.array(id)?;
                    count = count.checked_mul(u64::from(array.count))?;
                    id = array.element;
                    continue;
                }
                _ => return None,
            };
            return count.checked_mul(size);
        }
        None
    }

    /// The integer type behind typedefs and qualifiers.
    pub fn int(&self, id: TypeId) -> Option<Int> {
        let record = self.resolved(id).filter(|record| record.kind == Kind::Int)?;
        let encoding = u32_at(&self.bytes, record.entries())?;
        Some(Int {
            size: record.value,
            bits: encoding & 0xff,
            bit_offset: (encoding >> 16) & 0xff,
            signed: encoding & (1 << 24) != 0,
            boolean: encoding & (4 << 24) != 0,
        })
    }

    /// Whether values have a sign: signed integers and enumerations with negative values.
    pub fn is_signed(&self, id: TypeId) -> bool {
        let Some(record) = self.resolved(id) else { return false };
        match record.kind {
            Kind::Int => self.int(id).is_some_and(|int| int.signed),
            Kind::Enum | Kind::Enum64 => record.flag,
            _ => false,
        }
    }

    /// What a pointer points to; the target is not resolved further.
    pub fn pointee(&self, id: TypeId) -> Option<TypeId> {
        let record = self.resolved(id).filter(|record| record.kind == Kind::Pointer)?;
        Some(TypeId(record.value))
    }

    /// The array type behind typedefs and qualifiers.
    pub fn array(&self, id: TypeId) -> Option<Array> {
        let record = self.resolved(id).filter(|record| record.kind == Kind::Array)?;
        Some(Array {
            element: TypeId(u32_at(&self.bytes, record.entries())?),
            count: u32_at(&self.bytes, record.entries() + 8)?,
        })
    }

    /// The members of the structure or union behind typedefs and qualifiers; none for another
    /// type.
    pub fn members(&self, id: TypeId) -> Members<'_> {
        let record = self.resolved(id).filter(|record| record.kind.is_composite());
        Members(Entries::of(self, record, 12))
    }

    /// One member by its name, searched for through anonymous structures and unions as in C.
    pub fn member(&self, id: TypeId, name: &str) -> Option<Place> {
        let mut budget = MAX_ANONYMOUS;
        self.member_within(id, name, 0, MAX_DEPTH, &mut budget)
    }

    fn member_within(
        &self,
        id: TypeId,
        name: &str,
        base: u64,
        depth: u32,
        budget: &mut u32,
    ) -> Option<Place> {
        let depth = depth.checked_sub(1)?;
        *budget = budget.checked_sub(1)?;
        let record = self.resolved(id).filter(|record| record.kind.is_composite())?;
        let wanted = name.as_bytes();
        let mut entries = Entries::of(self, Some(record), 12);
        while let Some((record, at)) = entries.advance() {
            let name_at = entries.word(at);
            let anonymous = self.name_is(name_at, b"");
            if !anonymous && !self.name_is(name_at, wanted) {
                continue;
            }
            let member = Members::decode(&entries, record, at);
            let bit_offset = base.checked_add(member.bit_offset)?;
            if !anonymous {
                let (type_id, bit_size) = (member.type_id, member.bit_size);
                return Some(Place { type_id, bit_offset, bit_size });
            }
            let within = self.member_within(member.type_id, name, bit_offset, depth, budget);
            if within.is_some() {
                return within;
            }
        }
        None
    }

    /// A place by a path of members and indices: `mm`, `sighand.action[3].sa`.
    ///
    /// An index must be below the count of its array, but for flexible arrays, where the count is
    /// not known.
    pub fn place(&self, id: TypeId, path: &str) -> Option<Place> {
        self.memo.place(id, path, || self.look_up_place(id, path))
    }

    fn look_up_place(&self, id: TypeId, path: &str) -> Option<Place> {
        let mut place = Place { type_id: id, bit_offset: 0, bit_size: 0 };
        for segment in path.split('.') {
            let (name, indices) = match segment.split_once('[') {
                None => (segment, None),
                Some((name, rest)) => (name, Some(rest.strip_suffix(']')?)),
            };
            if !(name.is_empty() && indices.is_some()) {
                let member = self.member(place.type_id, name)?;
                place = Place {
                    bit_offset: place.bit_offset.checked_add(member.bit_offset)?,
                    ..member
                };
            }
            for index in indices.into_iter().flat_map(|indices| indices.split("][")) {
                let index: u32 = index.parse().ok()?;
                let array = self.array(place.type_id)?;
                if array.count != 0 && index >= array.count {
                    return None;
                }
                let bits = self.size(array.element)?.checked_mul(8 * u64::from(index))?;
                let bit_offset = place.bit_offset.checked_add(bits)?;
                place = Place { type_id: array.element, bit_offset, bit_size: 0 };
            }
        }
        Some(place)
    }

    /// The offset in bytes of a place (see [`Btf::place`]) in the type of this name; `None` for a
    /// bit-field that does not begin at a byte.
    pub fn offset_of(&self, type_name: &str, path: &str) -> Option<u64> {
        let place = self.place(self.find_type(type_name)?, path)?;
        (place.bit_offset % 8 == 0).then_some(place.bit_offset / 8)
    }

    /// The values that an enumeration names; none for another type.
    pub fn enumerators(&self, id: TypeId) -> Enumerators<'_> {
        let is_enum = |record: &Record| matches!(record.kind, Kind::Enum | Kind::Enum64);
        let record = self.resolved(id).filter(is_enum);
        let width = match record.map(|record| record.kind) {
            Some(Kind::Enum64) => 12,
            _ => 8,
        };
        Enumerators(Entries::of(self, record, width))
    }

    /// The signature of a function, given the function or its signature.
    fn prototype(&self, id: TypeId) -> Option<Record> {
        let mut record = self.resolved(id)?;
        if record.kind == Kind::Function {
            record = self.resolved(TypeId(record.value))?;
        }
        (record.kind == Kind::Prototype).then_some(record)
    }

    /// The parameters of a function or of a signature; none for another type.
    pub fn parameters(&self, id: TypeId) -> Parameters<'_> {
        Parameters(Entries::of(self, self.prototype(id), 8))
    }

    /// The type that a function or a signature returns.
    pub fn return_type(&self, id: TypeId) -> Option<TypeId> {
        self.prototype(id).map(|record| TypeId(record.value))
    }

    /// The variables of a section such as `.data..percpu`; none where there is no such section.
    /// Kernels up to 6.18 describe per-CPU variables only.
    pub fn variables(&self, section: &str) -> Variables<'_> {
        let record = self.find(Kind::DataSection, section).and_then(|id| self.record(id));
        Variables(Entries::of(self, record, 12))
    }

    /// The type as a reader of C would name it: `struct task_struct`, `u64`, `char *`.
    pub fn describe(&self, id: TypeId) -> String {
        let mut stars = 0;
        let mut id = id;
        for _ in 0..MAX_DEPTH {
            let Some(record) = self.record(id) else { break };
            match record.kind {
                Kind::Pointer => stars += 1,
                Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag => {}
                _ => break,
            }
            id = TypeId(record.value);
        }
        let name = match self.name(id) {
            "" => "(anonymous)",
            name => name,
        };
        let mut text = match self.kind(id) {
            Some(Kind::Void) => "void".to_owned(),
            Some(Kind::Struct) => format!("struct {name}"),
            Some(Kind::Union) => format!("union {name}"),
            Some(Kind::Enum | Kind::Enum64) => format!("enum {name}"),
            Some(Kind::Array) => "array".to_owned(),
            Some(Kind::Prototype | Kind::Function) => "function".to_owned(),
            _ => name.to_owned(),
        };
        if stars > 0 {
            text.push(' ');
            text.extend(std::iter::repeat_n('*', stars));
        }
        text
    }
}
