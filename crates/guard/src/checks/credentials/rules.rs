// SPDX-License-Identifier: Apache-2.0
//! What a task can become by itself.
//!
//! Between two executions of a program a task only ever loses power, or uses what it has: its
//! permitted capabilities do not grow (`cap_capset`, `cap_task_fix_setuid`, security/commoncap.c),
//! its user and group ids come from those that it has unless it holds CAP_SETUID or CAP_SETGID
//! (kernel/sys.c), its user namespace changes to one below (`create_user_ns`, `userns_install`,
//! kernel/user_namespace.c). So no event has to be listened to: what breaks these rules was not done
//! by a system call, whichever was made.

/// Bits of capabilities (include/uapi/linux/capability.h).
const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;
const SETPCAP: u64 = 1 << 8;

/// Secure bits that take CAP_SETPCAP to change: all of the first eight but `SECBIT_KEEP_CAPS`
/// (include/uapi/linux/securebits.h). Those of 6.14 and later are anyone's to set.
const PRIVILEGED: u64 = 0xef;
/// The odd ones of them lock the bit below.
const LOCKS: u64 = 0xaa;

/// Whose rights a task has: `struct cred` (include/linux/cred.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    /// Real, effective and saved user id, and that for files.
    pub(super) uids: [u32; 4],
    /// The same of groups.
    pub(super) gids: [u32; 4],
    pub(super) securebits: u64,
    pub(super) permitted: u64,
    pub(super) effective: u64,
    pub(super) bounding: u64,
    pub(super) ambient: u64,
    /// Where the `struct user_namespace` is that all these count in.
    pub(super) namespace: u64,
}

/// What a task has gained that it could not have given to itself, one phrase each.
///
/// `is_below` says whether the second namespace is the first or a descendant of it.
pub(super) fn gains(
    before: &Rights,
    after: &Rights,
    is_below: impl Fn(u64, u64) -> bool,
) -> Vec<String> {
    let mut gains = Vec::new();
    if before.namespace != after.namespace {
        if !is_below(before.namespace, after.namespace) {
            gains.push("a user namespace that is not below its own".to_owned());
        }
        // Whoever enters a namespace below has all capabilities there, and ids as it pleases.
        return gains;
    }
    let new = |names: &str, after: u64, before: u64| {
        (after & !before != 0).then(|| format!("{names} {:#x}", after & !before))
    };
    gains.extend(new("permitted capabilities", after.permitted, before.permitted));
    // What is effective or ambient is permitted (`cap_capset`, `cap_prctl_drop`).
    gains.extend(new("effective capabilities", after.effective, before.permitted));
    gains.extend(new("ambient capabilities", after.ambient, before.permitted));
    gains.extend(new("bounding capabilities", after.bounding, before.bounding));
    if before.permitted & SETUID == 0 {
        gains.extend(strangers("user", &before.uids, &after.uids));
    }
    if before.permitted & SETGID == 0 {
        gains.extend(strangers("group", &before.gids, &after.gids));
    }
    let changed = (before.securebits ^ after.securebits) & PRIVILEGED;
    if before.permitted & SETPCAP == 0 && changed != 0 {
        gains.push(format!("secure bits {:#x}", after.securebits));
    } else if before.securebits & LOCKS & !after.securebits != 0 {
        gains.push(format!("secure bits without the locks of {:#x}", before.securebits));
    }
    gains
}

fn strangers(what: &str, before: &[u32; 4], after: &[u32; 4]) -> Option<String> {
    let new: Vec<u32> = after.iter().copied().filter(|id| !before.contains(id)).collect();
    let first = new.first()?;
    Some(format!("{what} id {first}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: u64 = 0x1000;
    const CHILD: u64 = 0x2000;
    const ALL: u64 = (1 << 41) - 1;

    fn user() -> Rights {
        let (uids, gids) = ([1000; 4], [1000; 4]);
        Rights { uids, gids, bounding: ALL, namespace: INITIAL, ..Rights::default() }
    }

    fn root() -> Rights {
        let (uids, gids) = ([0; 4], [0; 4]);
        Rights { uids, gids, permitted: ALL, effective: ALL, ..user() }
    }

    fn gained(before: &Rights, after: &Rights) -> Vec<String> {
        gains(before, after, |above, below| above == below || (above, below) == (INITIAL, CHILD))
    }

    #[test]
    fn what_system_calls_do_is_no_gain() {
        let cases: [(Rights, Rights); 9] = [
            // setuid() of root, and dropping everything.
            (root(), user()),
            (root(), Rights { bounding: 0, ..user() }),
            // seteuid() to and fro with a saved id: su, sudo, sshd.
            (Rights { uids: [1000, 1000, 0, 1000], permitted: ALL, ..root() }, root()),
            (
                Rights { uids: [1000, 1000, 0, 1000], ..user() },
                Rights { uids: [1000, 0, 0, 0], ..user() },
            ),
            // capset() and effective from permitted.
            (Rights { effective: 0, ..root() }, root()),
            // CAP_SETUID alone.
            (
                Rights { permitted: SETUID, ..user() },
                Rights { permitted: SETUID, uids: [0; 4], ..user() },
            ),
            // unshare(CLONE_NEWUSER), setns().
            (user(), Rights { permitted: ALL, effective: ALL, namespace: CHILD, ..user() }),
            // PR_SET_KEEPCAPS, and what 6.14 lets anyone set.
            (user(), Rights { securebits: 0x110, ..user() }),
            (user(), user()),
        ];
        for (before, after) in cases {
            assert_eq!(gained(&before, &after), Vec::<String>::new(), "{before:?} {after:?}");
        }
    }

    #[test]
    fn what_no_system_call_does_is_one() {
        let child = Rights { permitted: ALL, effective: ALL, namespace: CHILD, ..user() };
        let locked = Rights { securebits: 0x2f, ..root() };
        let cases: [(Rights, Rights); 9] = [
            (user(), root()),
            (user(), Rights { permitted: 1 << 21, ..user() }),
            (user(), Rights { effective: 1 << 21, ..user() }),
            (user(), Rights { ambient: 1 << 21, ..user() }),
            (user(), Rights { uids: [1000, 0, 1000, 0], ..user() }),
            (user(), Rights { gids: [1000, 0, 1000, 0], ..user() }),
            (child, Rights { namespace: INITIAL, ..child }),
            (Rights { bounding: 0, ..root() }, root()),
            (locked, root()),
        ];
        for (before, after) in cases {
            assert!(!gained(&before, &after).is_empty(), "{before:?} {after:?}");
        }
    }
}
