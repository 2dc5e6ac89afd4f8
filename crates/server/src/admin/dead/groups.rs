//! Dead letters by what they died of: how many, since when, until when, and one to look at.
//!
//! Counted as they are read, newest first, and no more of them than a bound: however many have died, the answer comes soon,
//! and says where to go on.

use std::cmp::Reverse;
use std::collections::HashMap;

use semel_api::dead::{DeadGroup, DeadGroups};
use semel_api::limits::{DEAD_READ_MAX, PAGE_MAX};
use semel_core::query::{Cursor, Summary};
use semel_core::{Store, StoreError, Timestamp};

use super::select::{Selection, shape};
use super::{error_of, letter};
use crate::admin::{cursor, view};
use crate::limits::DEAD_GROUPS_HELD_MAX;

struct Group {
    count: u64,
    first: Timestamp,
    last: Timestamp,
    /// The one that died last.
    example: Summary,
}

/// Counts what is meant, from after `cursor`, and gives the `shown` largest groups.
///
/// # Errors
/// As those of a search.
pub(super) async fn count(
    store: &dyn Store,
    selection: &Selection,
    mut from: Option<Cursor>,
    shown: usize,
) -> Result<DeadGroups, StoreError> {
    let mut groups: HashMap<String, Group> = HashMap::new();
    let (mut counted, mut others, mut read) = (0, 0, 0);
    loop {
        let wanted = (DEAD_READ_MAX - read).min(PAGE_MAX);
        let page = store.search(selection.query().clone(), from, wanted as usize).await?;
        read += wanted;
        for summary in page.items.into_iter().filter(|summary| selection.is_meant(summary)) {
            counted += 1;
            others += u64::from(!add(&mut groups, summary));
        }
        from = page.next;
        if from.is_none() || read >= DEAD_READ_MAX {
            break;
        }
    }
    let mut groups: Vec<(String, Group)> = groups.into_iter().collect();
    groups.sort_by(|(error, one), (other, two)| {
        (Reverse(one.count), Reverse(one.last), error).cmp(&(Reverse(two.count), Reverse(two.last), other))
    });
    others += groups.iter().skip(shown).map(|(_, group)| group.count).sum::<u64>();
    groups.truncate(shown);
    let wire = |(error, group): (String, Group)| DeadGroup {
        error,
        count: group.count,
        first: view::time(group.first),
        last: view::time(group.last),
        example: letter(&group.example),
    };
    let next = from.as_ref().map(cursor::write);
    let groups = groups.into_iter().map(wire).collect();
    Ok(DeadGroups { groups, counted, others, more: next.is_some(), next })
}

/// Puts it into its group; `false` if there is no room for another group.
fn add(groups: &mut HashMap<String, Group>, summary: Summary) -> bool {
    let (error, died) = (shape(error_of(&summary)), summary.times.written);
    if let Some(group) = groups.get_mut(&error) {
        group.count += 1;
        group.first = group.first.min(died);
        if died > group.last {
            group.last = died;
            group.example = summary;
        }
        return true;
    }
    if groups.len() >= DEAD_GROUPS_HELD_MAX {
        return false;
    }
    groups.insert(error, Group { count: 1, first: died, last: died, example: summary });
    true
}
