// SPDX-License-Identifier: Apache-2.0
//! Walks over the kernel's linked lists.
//!
//! A list in memory that somebody else writes may lead anywhere: into itself, out of the kernel, or
//! on without end. Each walk ends at a circle (found by Brent's method, so within a few times the
//! circle's length), at a node that cannot be an address of the kernel, and at [`MAX_NODES`].
//!
//! Back pointers are not compared: on a running kernel a node may leave the list while the walk
//! stands on it, which the kernel's own readers under RCU bear as well.

use crate::{AccessError, Kernel, Object};

/// The most nodes that a walk visits: more than any list of a kernel has (`PID_MAX_LIMIT` is
/// 4,194,304, include/linux/threads.h).
pub(crate) const MAX_NODES: usize = 4 << 20;

/// The lowest address of the kernel's half, with 5-level page tables.
pub(crate) const KERNEL_HALF: u64 = 0xff00_0000_0000_0000;

/// Finds circles: remembers one node, and moves on to a later one after each power of two.
#[derive(Clone, Copy, Default)]
struct Circle {
    remembered: u64,
    steps: usize,
    limit: usize,
}

impl Circle {
    /// Whether the walk has been at this node before.
    fn closes(&mut self, node: u64) -> bool {
        if node == self.remembered {
            return true;
        }
        self.steps += 1;
        if self.steps > self.limit {
            (self.remembered, self.steps) = (node, 0);
            self.limit = 2 * self.limit + 1;
        }
        false
    }
}

/// How a list ends.
#[derive(Clone, Copy)]
enum End {
    /// At the node with this address: `list_head`, a ring.
    Ring(u64),
    /// At a null pointer or at an odd one: `hlist` and `hlist_nulls`.
    Null,
}

/// The nodes of a list. `next` lies at offset 0 of each kind of node.
struct Nodes<'a> {
    kernel: Kernel<'a>,
    what: &'static str,
    head: u64,
    at: u64,
    end: End,
    circle: Circle,
    visited: usize,
    done: bool,
}

impl<'a> Nodes<'a> {
    fn new(kernel: Kernel<'a>, what: &'static str, head: u64, end: End) -> Self {
        let circle = Circle::default();
        Self { kernel, what, head, at: head, end, circle, visited: 0, done: false }
    }

    fn step(&mut self) -> Result<Option<u64>, AccessError> {
        let next = self.kernel.u64_at(self.at)?;
        let ended = match self.end {
            End::Ring(head) => next == head,
            End::Null => next == 0 || next & 1 == 1,
        };
        if ended {
            return Ok(None);
        }
        let wrong = |reason| AccessError::Inconsistent {
            what: self.what.to_owned(),
            start: self.head,
            at: self.at,
            reason,
        };
        if next < KERNEL_HALF {
            return Err(wrong("its next node is not an address of the kernel"));
        }
        if self.visited >= MAX_NODES {
            return Err(wrong("it has more than 4,194,304 nodes"));
        }
        if self.circle.closes(next) {
            return Err(wrong("it leads in a circle that does not come back to its head"));
        }
        self.visited += 1;
        self.at = next;
        Ok(Some(next))
    }
}

impl Iterator for Nodes<'_> {
    type Item = Result<u64, AccessError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step();
        self.done = !matches!(step, Ok(Some(_)));
        step.transpose()
    }
}

impl<'a> Kernel<'a> {
    fn objects(
        &self,
        nodes: Nodes<'a>,
        type_name: &str,
        member: &str,
    ) -> impl Iterator<Item = Result<Object<'a>, AccessError>> + use<'a> {
        let kernel = *self;
        let layout = self.object(type_name, 0).and_then(|object| {
            let offset = object.offset_of(member)?;
            Ok((object.type_id(), offset))
        });
        let (layout, error) = match layout {
            Ok(layout) => (Some(layout), None),
            Err(error) => (None, Some(Err(error))),
        };
        let walk = layout.into_iter().flat_map({
            let mut nodes = Some(nodes);
            move |(type_id, offset)| {
                let nodes = nodes.take().into_iter().flatten();
                nodes.map(move |node| {
                    node.map(|node| kernel.object_of(type_id, node.wrapping_sub(offset)))
                })
            }
        });
        error.into_iter().chain(walk)
    }

    /// The objects on a `struct list_head` ring, without the head itself: those of type `type_name`
    /// that are on it by their `member`. Ends after the first error.
    ///
    /// `head` is the address of the head, which on rings without one (`task_struct.tasks` seen from
    /// any task) is the node of an object, and that object is not visited.
    pub fn list(
        &self,
        head: u64,
        type_name: &str,
        member: &str,
    ) -> impl Iterator<Item = Result<Object<'a>, AccessError>> + use<'a> {
        self.objects(Nodes::new(*self, "list", head, End::Ring(head)), type_name, member)
    }

    /// The objects on a `struct hlist_head`, `hlist_nulls_head` or `llist_head` at `head`: a
    /// pointer to the first node, ended by null or, for `hlist_nulls`, by an odd value.
    pub fn hlist(
        &self,
        head: u64,
        type_name: &str,
        member: &str,
    ) -> impl Iterator<Item = Result<Object<'a>, AccessError>> + use<'a> {
        self.objects(Nodes::new(*self, "hlist", head, End::Null), type_name, member)
    }

    /// The objects of a chain without list nodes: from the pointer at `head` on, each object's
    /// `member` points to the next one, and the last to null. Notifier chains and `linux_binfmt` of
    /// old are such.
    pub fn chain(
        &self,
        head: u64,
        type_name: &str,
        member: &str,
    ) -> impl Iterator<Item = Result<Object<'a>, AccessError>> + use<'a> {
        let kernel = *self;
        let layout = self.object(type_name, 0).and_then(|object| object.offset_of(member));
        let mut walk = Nodes::new(*self, "chain", head, End::Null);
        let (offset, mut failed) = match layout {
            Ok(offset) => (offset, None),
            Err(error) => (0, Some(error)),
        };
        let type_id = self.types.find_type(type_name).unwrap_or_default();
        std::iter::from_fn(move || {
            if let Some(error) = failed.take() {
                walk.done = true;
                return Some(Err(error));
            }
            let object = walk.next()?;
            // The pointer to the next object stands inside this one.
            if let Ok(address) = object {
                walk.at = address.wrapping_add(offset);
            }
            Some(object.map(|address| kernel.object_of(type_id, address)))
        })
    }
}
