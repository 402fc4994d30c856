//! The rows of a derived directory, found by name and by inode, each at a place of its own.
//!
//! The place of a row depends on its name alone. So a listing during which snapshots appear or disappear neither
//! repeats a name nor skips one that stays. Rows are listed in the order of their places, which looks random. Two names
//! with one place are next to impossible; the second one takes the next free place.

use std::collections::HashMap;

use bygone_core::entry::Name;
use bygone_core::read::Access;

use crate::tree::inode::Inode;

/// Bits of a place. The kernel gets a slightly larger number, which may have 63 bits.
const PLACE_BITS: u32 = 60;

/// A row of a derived directory.
#[derive(Debug, Clone)]
pub struct DerivedRow {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub inode: Inode,
    /// The access that a directory allows.
    pub access: Option<Access>,
}

/// All rows of a derived directory.
#[derive(Debug)]
pub struct DerivedRows {
    /// By place.
    rows: Vec<(u64, DerivedRow)>,
    by_name: HashMap<Name, usize>,
    by_inode: HashMap<Inode, usize>,
}

impl DerivedRows {
    /// Arranges `rows`, whose names differ.
    pub fn new(rows: Vec<DerivedRow>) -> DerivedRows {
        let mut rows: Vec<(u64, DerivedRow)> =
            rows.into_iter().map(|row| (place_of(row.name.as_bytes()), row)).collect();
        rows.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.name.cmp(&other.name)));
        let mut free = 0;
        for (place, _) in &mut rows {
            *place = free.max(*place);
            free = *place + 1;
        }
        let by_name = rows.iter().enumerate().map(|(at, (_, row))| (row.name.clone(), at)).collect();
        let by_inode = rows.iter().enumerate().map(|(at, (_, row))| (row.inode, at)).collect();
        DerivedRows { rows, by_name, by_inode }
    }

    /// The rows from this place on, each with its place.
    pub fn from(&self, place: u64) -> &[(u64, DerivedRow)] {
        let start = self.rows.partition_point(|(at, _)| *at < place);
        self.rows.get(start..).unwrap_or_default()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row with this name.
    pub fn find(&self, name: &[u8]) -> Option<&DerivedRow> {
        let name = Name::new(name).ok()?;
        self.rows.get(*self.by_name.get(&name)?).map(|(_, row)| row)
    }

    /// The row with this inode.
    pub fn with_inode(&self, inode: Inode) -> Option<&DerivedRow> {
        self.rows.get(*self.by_inode.get(&inode)?).map(|(_, row)| row)
    }
}

/// FNV-1a of 64 bits, folded.
fn place_of(name: &[u8]) -> u64 {
    let hash = name
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ hash >> PLACE_BITS) & ((1 << PLACE_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn rows(numbers: &BTreeSet<u16>) -> DerivedRows {
        let row = |number: &u16| DerivedRow {
            name: Name::new(format!("name {number}").as_bytes()).unwrap(),
            inode: Inode::File(u64::from(*number)),
            access: None,
        };
        DerivedRows::new(numbers.iter().map(row).collect())
    }

    proptest! {
        #[test]
        fn readers_resume_while_rows_come_and_go(
            before: BTreeSet<u16>, after: BTreeSet<u16>, count in 0usize..50,
        ) {
            let mut read: Vec<u64> = Vec::new();
            let mut next = 0;
            for (place, row) in rows(&before).from(0).iter().take(count) {
                read.push(row.inode.number().unwrap());
                next = place + 1;
            }
            for (place, row) in rows(&after).from(next) {
                prop_assert!(*place < 1 << (PLACE_BITS + 1));
                read.push(row.inode.number().unwrap());
            }
            let distinct: BTreeSet<u64> = read.iter().copied().collect();
            prop_assert_eq!(distinct.len(), read.len(), "no name twice");
            for stays in before.intersection(&after) {
                let number = Inode::File(u64::from(*stays)).number().unwrap();
                prop_assert!(distinct.contains(&number), "{} is skipped", stays);
            }
        }

        #[test]
        fn each_row_is_found_by_name_and_inode(numbers: BTreeSet<u16>) {
            let rows = rows(&numbers);
            prop_assert_eq!(rows.len(), numbers.len());
            for number in numbers {
                let inode = Inode::File(u64::from(number));
                let name = Name::new(format!("name {number}").as_bytes()).unwrap();
                prop_assert_eq!(rows.find(name.as_bytes()).unwrap().inode, inode);
                prop_assert_eq!(&rows.with_inode(inode).unwrap().name, &name);
            }
            prop_assert!(rows.find(b"another").is_none());
        }
    }
}
