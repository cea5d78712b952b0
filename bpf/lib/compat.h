/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where kernels differ. One entry each, with the version and commit that made the difference; what
 * is asked at run time is always BTF or the symbol table, never the version number, because
 * distributions port features back.
 */
#ifndef RINGFENCE_COMPAT_H
#define RINGFENCE_COMPAT_H

/*
 * bpf_rdonly_cast: since 6.2 (a35b9af4ec2c "bpf: Add a kfunc for generic type cast"); the verifier
 * replaces the call by a move. It takes the id of a struct; `void` for access by bytes came later
 * (6.17, f2362a57aeff "bpf: allow void* cast using bpf_rdonly_cast()"), so the programs here cast
 * to a struct, which every kernel that has the function accepts.
 *
 * Weak, so that an object which uses it still opens where it is missing: user space looks for the
 * function in the kernel's BTF and does not load the programs that need it.
 */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#endif
