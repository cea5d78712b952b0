// SPDX-License-Identifier: Apache-2.0
//! Walks over the kernel's red-black trees.
//!
//! Layout: include/linux/rbtree_types.h and include/linux/rbtree_latch.h. A latched tree
//! (`mod_tree`, `bpf_tree`) is two trees over the same elements; writers change one while readers
//! are told by the lowest bit of a sequence number to use the other.

use crate::lists::{KERNEL_HALF, MAX_NODES};
use crate::{AccessError, Kernel, Object};

/// A red-black tree is at most twice as high as a perfect one: 2 × 64 for 64-bit addresses.
const MAX_HEIGHT: usize = 128;

/// How often a latched tree is read again because it changed meanwhile.
const LATCH_ATTEMPTS: u32 = 16;

/// The eight bytes at an offset within them.
fn word(bytes: &[u8], offset: usize) -> u64 {
    let bytes = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl<'a> Kernel<'a> {
    /// The addresses of the nodes below the pointer at `root`, in order.
    fn tree_nodes(&self, root: u64) -> Result<Vec<u64>, AccessError> {
        let layout = self.object("rb_node", 0)?;
        let left = layout.offset_within("rb_left", 8)?;
        let right = layout.offset_within("rb_right", 8)?;
        let mut bytes = vec![0; layout.size()? as usize];
        let wrong = |at, reason| AccessError::Inconsistent {
            what: "red-black tree".to_owned(),
            start: root,
            at,
            reason,
        };
        let mut nodes = Vec::new();
        // Nodes whose left side is being visited, with their right child.
        let mut path: Vec<(u64, u64)> = Vec::new();
        let mut at = self.u64_at(root)?;
        loop {
            while at != 0 {
                if at < KERNEL_HALF {
                    return Err(wrong(at, "the node is not an address of the kernel"));
                }
                if path.len() >= MAX_HEIGHT {
                    return Err(wrong(at, "it is higher than a red-black tree can be"));
                }
                if nodes.len() >= MAX_NODES {
                    return Err(wrong(at, "it has more than 4,194,304 nodes"));
                }
                self.read_into("struct rb_node", at, &mut bytes)?;
                let (to_left, to_right) = (word(&bytes, left), word(&bytes, right));
                path.push((at, to_right));
                at = to_left;
            }
            let Some((node, to_right)) = path.pop() else { return Ok(nodes) };
            nodes.push(node);
            at = to_right;
        }
    }

    /// The objects in a `struct rb_root` or `rb_root_cached` at `root`, in the tree's order: those
    /// of type `type_name` that are in it by their `member`, a `struct rb_node`.
    pub fn rbtree(
        &self,
        root: u64,
        type_name: &str,
        member: &str,
    ) -> Result<Vec<Object<'a>>, AccessError> {
        let layout = self.object(type_name, 0)?;
        let offset = layout.offset_of(member)?;
        let nodes = self.tree_nodes(root)?;
        let object = |node: u64| self.object_of(layout.type_id(), node.wrapping_sub(offset));
        Ok(nodes.into_iter().map(object).collect())
    }

    /// The objects in a `struct latch_tree_root` at `root`, in the tree's order: those of type
    /// `type_name` that are in it by their `member`, a `struct latch_tree_node`.
    ///
    /// Of the two trees the one is read that readers are to use; again where the sequence number
    /// changed meanwhile.
    pub fn latch_tree(
        &self,
        root: u64,
        type_name: &str,
        member: &str,
    ) -> Result<Vec<Object<'a>>, AccessError> {
        let latch = self.object("latch_tree_root", root)?;
        // `seqcount_latch_t` and the `seqcount_t` within begin with the number, whatever lockdep
        // adds behind it (include/linux/seqlock_types.h).
        let sequence = latch.field("seq")?.address();
        let mut result = Ok(Vec::new());
        for _ in 0..LATCH_ATTEMPTS {
            let before = self.u32_at(sequence)?;
            let side = u64::from(before & 1);
            let tree = latch.element("tree", side)?;
            let nodes = format!("{member}.node[{side}]");
            result = self.rbtree(tree.address(), type_name, &nodes);
            if self.u32_at(sequence)? == before {
                return result;
            }
        }
        result.and(Err(AccessError::Inconsistent {
            what: "latched tree".to_owned(),
            start: root,
            at: root,
            reason: "it changed during each of 16 attempts to read it",
        }))
    }
}
