//! Numbers of groups: found by the texts of their names, so that names are made for new groups only.

use std::collections::HashMap;

use crate::codec::Corrupt;

/// The numbers of the groups of a list. What a group consists of, the list knows.
#[derive(Debug, Default)]
pub(crate) struct GroupNumbers {
    numbers: HashMap<Box<[u8]>, usize>,
    /// The name that was asked for last, in memory that is used again.
    name: Vec<u8>,
}

impl GroupNumbers {
    /// The number of the group of these names; `begin` makes a new one and says its number.
    pub(crate) fn of(
        &mut self,
        kind: u8,
        names: [&str; 2],
        begin: impl FnOnce() -> Result<usize, Corrupt>,
    ) -> Result<usize, Corrupt> {
        self.name.clear();
        self.name.push(kind);
        self.name.extend_from_slice(names[0].as_bytes());
        // No text holds this byte, so names that are joined by it are not those of another group.
        self.name.push(0xff);
        self.name.extend_from_slice(names[1].as_bytes());
        if let Some(number) = self.numbers.get(&*self.name) {
            return Ok(*number);
        }
        let number = begin()?;
        self.numbers.insert(self.name.as_slice().into(), number);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_apart_by_where_their_names_end() {
        let mut numbers = GroupNumbers::default();
        let mut next = 0..;
        let mut of = |kind, names| numbers.of(kind, names, || Ok(next.next().unwrap())).unwrap();
        let groups =
            [(0, ["ab", "c"]), (0, ["a", "bc"]), (0, ["abc", ""]), (0, ["", "abc"]), (1, ["ab", "c"])];
        for _ in 0..2 {
            let found: Vec<_> = groups.iter().map(|(kind, names)| of(*kind, *names)).collect();
            assert_eq!(found, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn a_group_that_cannot_begin_is_not_there_the_next_time() {
        let mut numbers = GroupNumbers::default();
        assert_eq!(numbers.of(0, ["a", ""], || Err(Corrupt("no name"))), Err(Corrupt("no name")));
        assert_eq!(numbers.of(0, ["a", ""], || Ok(7)), Ok(7));
    }
}
