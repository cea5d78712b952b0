// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A hook of netfilter on all incoming packets: how rootkits wait for a magic packet. */
#include "attack.h"

#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <net/net_namespace.h>

static unsigned int watch(void *data, struct sk_buff *packet, const struct nf_hook_state *state)
{
	return NF_ACCEPT;
}

static const struct nf_hook_ops hook = {
	.hook = watch,
	.pf = NFPROTO_IPV4,
	.hooknum = NF_INET_PRE_ROUTING,
	.priority = NF_IP_PRI_FIRST,
};

static int attack(void)
{
	return nf_register_net_hook(&init_net, &hook);
}

static void undo(void)
{
	nf_unregister_net_hook(&init_net, &hook);
}

ATTACK("a hook of netfilter");
