// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A function of the protocol TCP (struct proto) is one of the module. */
#include "attack.h"

#include <net/sock.h>
#include <net/tcp.h>

static int (*original)(struct sock *sk, int level, int name, char __user *value,
		       int __user *length);

static int lies(struct sock *sk, int level, int name, char __user *value, int __user *length)
{
	return original(sk, level, name, value, length);
}

static int attack(void)
{
	original = tcp_prot.getsockopt;
	tcp_prot.getsockopt = lies;
	return 0;
}

static void undo(void)
{
	tcp_prot.getsockopt = original;
}

ATTACK("an operation of the protocol TCP replaced");
