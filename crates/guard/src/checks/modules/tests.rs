// SPDX-License-Identifier: Apache-2.0
use super::*;

fn look(views: &[(View, &[u64])], names: &[(View, &[&str])]) -> Look {
    let module = |address: u64| Loaded::live(address, &format!("module_{address}"));
    let addresses: BTreeMap<View, BTreeSet<u64>> =
        views.iter().map(|(view, set)| (*view, set.iter().copied().collect())).collect();
    let all: BTreeSet<u64> = addresses.values().flatten().copied().collect();
    Look {
        modules: all.into_iter().map(|address| (address, module(address))).collect(),
        addresses,
        names: names
            .iter()
            .map(|(view, set)| (*view, set.iter().map(|name| (*name).to_owned()).collect()))
            .collect(),
    }
}

fn same(look: &Look) -> BTreeSet<Difference> {
    differences(look, look)
}

#[test]
fn views_that_agree_differ_in_nothing() {
    let all: &[u64] = &[1, 2];
    let names: &[&str] = &["module_1", "module_2"];
    let look = look(
        &[(View::List, all), (View::Kset, all), (View::Tree, all), (View::Hooks, &[1])],
        &[(View::Proc, names), (View::Sysfs, names)],
    );
    assert_eq!(same(&look), BTreeSet::new());
}

#[test]
fn a_module_that_took_itself_off_the_list_is_named_with_all_views_that_lack_it() {
    let look = look(
        &[(View::List, &[1]), (View::Kset, &[1, 2]), (View::Tree, &[1, 2])],
        &[(View::Proc, &["module_1"]), (View::Sysfs, &["module_1", "module_2"])],
    );
    let found = same(&look);
    let [one] = found.iter().collect::<Vec<_>>()[..] else { panic!("{found:?}") };
    assert_eq!((one.name.as_str(), one.address), ("module_2", 2));
    assert_eq!(one.lacks, BTreeSet::from([View::List, View::Proc]));
    let finding = finding(one);
    assert!(finding.seen.contains("not in the module list, /proc/modules"), "{}", finding.seen);
    assert_eq!(finding.technique, "module hidden");
}

#[test]
fn a_module_on_no_list_at_all_is_found_by_its_memory_or_by_what_it_gave() {
    for view in [View::Areas, View::Hooks] {
        let look = look(
            &[(View::List, &[1]), (View::Kset, &[1]), (View::Tree, &[1]), (view, &[1, 2])],
            &[],
        );
        let found = same(&look);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.iter().all(|one| one.lacks.contains(&View::Tree) && one.address == 2));
    }
}

#[test]
fn a_module_that_loads_is_no_difference_unless_it_has_a_kobject_already() {
    for (state, in_kset, expected) in [(1, true, 0), (2, false, 0), (3, false, 0), (3, true, 1)] {
        let kset: &[u64] = if in_kset { &[1] } else { &[] };
        let mut look = look(&[(View::List, &[1]), (View::Kset, kset)], &[(View::Proc, &[])]);
        for module in look.modules.values_mut() {
            *module = Loaded::in_state(1, "module_1", state);
        }
        assert_eq!(same(&look).len(), expected, "state {state}, kobject {in_kset}");
    }
}

#[test]
fn a_module_that_came_while_the_views_were_taken_is_no_difference() {
    let before = look(&[(View::List, &[1]), (View::Tree, &[])], &[]);
    // The tree had not got it before; the list has lost it since.
    let after = look(&[(View::List, &[]), (View::Tree, &[1])], &[]);
    assert_eq!(differences(&before, &after), BTreeSet::new());
}

#[test]
fn a_name_that_memory_has_not_is_made_up() {
    let look = look(&[(View::List, &[1])], &[(View::Proc, &["module_1", "ghost"])]);
    let found = same(&look);
    let [one] = found.iter().collect::<Vec<_>>()[..] else { panic!("{found:?}") };
    assert_eq!((one.name.as_str(), finding(one).technique.as_str()), ("ghost", "module made up"));
}
