//! Optional attributes: how a record of the format grows without a new version.
//!
//! A record ends in a list of them. A reader that does not know a tag keeps the attribute as it is wherever it writes
//! the record again; if the attribute is critical, the reader must not use the record, because its other fields may not
//! mean what they used to.

use crate::limits;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

/// One attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attribute {
    /// What it says.
    pub tag: u64,
    /// True if a reader that does not know the tag must not use the record.
    pub is_critical: bool,
    /// Its bytes, which the tag explains.
    pub value: Vec<u8>,
}

/// The attributes of a record, ascending by tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Attributes(Vec<Attribute>);

impl Attributes {
    /// Adds an attribute, in the place of one with the same tag.
    pub fn set(&mut self, attribute: Attribute) {
        self.0.retain(|other| other.tag != attribute.tag);
        let place = self.0.partition_point(|other| other.tag < attribute.tag);
        self.0.insert(place, attribute);
    }

    /// Adds all attributes of another record, in the place of those with the same tags.
    pub fn add(&mut self, others: Attributes) {
        others.0.into_iter().for_each(|attribute| self.set(attribute));
    }

    /// The attributes that are none of those `known`.
    pub fn unknown(&self, known: &[u64]) -> Attributes {
        Attributes(self.0.iter().filter(|attribute| !known.contains(&attribute.tag)).cloned().collect())
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all values together.
    pub fn value_bytes(&self) -> usize {
        self.0.iter().map(|attribute| attribute.value.len()).sum()
    }

    /// The value of an attribute.
    pub fn get(&self, tag: u64) -> Option<&[u8]> {
        self.0.iter().find(|attribute| attribute.tag == tag).map(|attribute| attribute.value.as_slice())
    }

    /// Removes an attribute and returns its value.
    pub fn take(&mut self, tag: u64) -> Option<Vec<u8>> {
        let place = self.0.iter().position(|attribute| attribute.tag == tag)?;
        Some(self.0.remove(place).value)
    }

    /// The first critical attribute that is none of those `known`.
    pub fn unknown_critical(&self, known: &[u64]) -> Option<u64> {
        let unknown = |attribute: &&Attribute| attribute.is_critical && !known.contains(&attribute.tag);
        self.0.iter().find(unknown).map(|attribute| attribute.tag)
    }

    /// Appends the list to a record.
    pub fn encode(&self, out: &mut Encoder) {
        out.varint(self.0.len() as u64);
        for attribute in &self.0 {
            out.varint(attribute.tag);
            out.u8(attribute.is_critical.into());
            out.string(&attribute.value);
        }
    }

    /// Reads the list from a record.
    pub fn decode(input: &mut Decoder<'_>) -> Result<Attributes, DecodeError> {
        let count = input.count(limits::ATTRIBUTES_MAX, "the number of attributes")?;
        let mut left = limits::ATTRIBUTES_BYTES_MAX;
        let mut all: Vec<Attribute> = Vec::with_capacity(count);
        for _ in 0..count {
            let tag = input.varint()?;
            if all.last().is_some_and(|before| before.tag >= tag) {
                return Err(DecodeError::Invalid("the order of attributes"));
            }
            let is_critical = match input.u8()? {
                0 => false,
                1 => true,
                _ => return Err(DecodeError::Invalid("the critical bit of an attribute")),
            };
            let value = input.string(left, "the length of attributes")?.to_vec();
            left -= value.len();
            all.push(Attribute { tag, is_critical, value });
        }
        Ok(Attributes(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<Attributes, DecodeError> {
        let mut input = Decoder::new(bytes);
        let attributes = Attributes::decode(&mut input)?;
        input.end()?;
        Ok(attributes)
    }

    fn encode(attributes: &Attributes) -> Vec<u8> {
        let mut out = Encoder::new();
        attributes.encode(&mut out);
        out.finish()
    }

    proptest! {
        #[test]
        fn attributes_come_back_as_they_went_in(
            all in prop::collection::vec((any::<u64>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20)
        ) {
            let mut attributes = Attributes::default();
            for (tag, is_critical, value) in all {
                attributes.set(Attribute { tag, is_critical, value: value.clone() });
                prop_assert_eq!(attributes.get(tag), Some(value.as_slice()));
            }
            prop_assert_eq!(decode(&encode(&attributes)), Ok(attributes));
        }

        #[test]
        fn a_list_has_one_encoding(bytes in prop::collection::vec(0u8..4, 0..30)) {
            if let Ok(attributes) = decode(&bytes) {
                prop_assert_eq!(encode(&attributes), bytes);
            }
        }
    }

    #[test]
    fn lists_out_of_order_or_bounds_are_refused() {
        let order = Err(DecodeError::Invalid("the order of attributes"));
        assert_eq!((decode(&[2, 5, 0, 0, 5, 0, 0]), decode(&[2, 5, 0, 0, 4, 0, 0])), (order.clone(), order));
        assert_eq!(decode(&[1, 5, 2, 0]), Err(DecodeError::Invalid("the critical bit of an attribute")));
        let filled = |count: usize, bytes: usize| {
            let mut attributes = Attributes::default();
            for tag in 0..count as u64 {
                attributes.set(Attribute { tag, is_critical: false, value: vec![7; bytes] });
            }
            encode(&attributes)
        };
        assert!(decode(&filled(limits::ATTRIBUTES_MAX, 1)).is_ok());
        let many = decode(&filled(limits::ATTRIBUTES_MAX + 1, 1));
        assert_eq!(many, Err(DecodeError::Limit("the number of attributes")));
        assert!(decode(&filled(2, limits::ATTRIBUTES_BYTES_MAX / 2)).is_ok());
        let long = decode(&filled(2, limits::ATTRIBUTES_BYTES_MAX / 2 + 1));
        assert_eq!(long, Err(DecodeError::Limit("the length of attributes")));
    }

    #[test]
    fn only_a_critical_attribute_must_be_known() {
        let mut attributes = Attributes::default();
        for (tag, is_critical) in [(9, true), (3, true), (1, false)] {
            attributes.set(Attribute { tag, is_critical, value: vec![] });
        }
        assert_eq!(attributes.unknown_critical(&[3, 9]), None);
        assert_eq!(attributes.unknown_critical(&[3]), Some(9));
        assert_eq!(attributes.unknown_critical(&[]), Some(3));
    }
}
