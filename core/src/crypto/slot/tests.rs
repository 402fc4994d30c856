//! Slots open by the right secret only, byte for byte as another implementation makes them, and whatever the storage
//! writes into them.

use proptest::prelude::*;

use super::*;
use crate::id::hex;
use crate::id::unhex;

// Made by Python from its `cryptography` package and the reference C implementation of Argon2, for the master key
// 0 to 31, repository 0x10 to 0x1f, salt 0x80 to 0x9f and slot id 0xa0 to 0xaf. They never change.

/// Opened by "correct horse" at 8 MiB, 1 pass, 1 lane.
const BY_PASSPHRASE: &str = concat!(
    "4259474e534c4f5401010100002000000100000001000000808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
    "101112131415161718191a1b1c1d1e1fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf01000000000000005fcb9dede4746724e416035eb4039c63",
    "74999a866d811be006b51b24223c74d69e0afc91f9a0eca6f18637e9cf3b3d0eb692cd2e33cc2e4b157dc179055b8390e24848396204f8ab",
    "587ae19c9bb21444dacc20742f262b0d5c92ed1a9414c1f1bc26c1a342d9ae2d7891717c22aab2c7071160fe660d4ce04b285484713e0665",
    "4b1ae5aa202d4c5fb6756a3cb77040f96713210977dc28204e6eb4bf332c5db12c77d4a78da082b82148eefe4de2b8ce466825226f961eef",
    "3439e4b3372be1fed54d1fd8f68208691a91cb553cfa4163b07aba42c3c93c26e5b600627acfc0a5b580f6e425921e1ec7bdf6ffb178bfed",
    "5b9c57bcf75de25ed61b1400321c721d0ccf9636c2c09a726a52f147403e745e725e32e489abe72393c885caa749ed7b7de22fe4c48c9016",
    "08c27b2df944108b",
);

/// Opened by bytes that are no text, at 8 MiB, 2 passes, 3 lanes.
const BY_TWO_PASSES: &str = concat!(
    "4259474e534c4f5401010100002000000200000003000000808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
    "101112131415161718191a1b1c1d1e1fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf0100000000000000405f30e937356482f85daeeb017ac89f",
    "a60f2d8e3df0538ed70b7393ea0c7999930ad8a535dddea088ba75def51c35316054869ecf0f11fbe1dc318e7fef5ba7dde2972381a087fc",
    "b75b23a6c5cf3a9b3317eb8e441e96abcb660c77bc78ff13e3ccc869a3c068b1eb09d5c2c794794c297d492372ee1af20cfd8606e8b62497",
    "78de461bbb8e2a565f5662482b5a93792f86b21ea0e34b102bc887ced819283a56cf18bd82e812e6a9c32b6683b7a2601f5927834dd764a9",
    "2f1613ebfb134a0b012eae8383a1a76ac80a12f80b1445bab0c2a1d98ad65502d889c134b94a4f5ae7e40076013de6a88d372bbd298baf85",
    "2e1e84b0aeba4c50041b57fbcb09560e04d3507668583460462342ccee427c3a73ce6f20d5255c1a7322e001f804315f0291b19e3bc2b4d3",
    "47b39bc5ab899963",
);

/// Opened by the 32 bytes 0xc0 to 0xdf.
const BY_MACHINE: &str = concat!(
    "4259474e534c4f5401010200000000000000000000000000808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
    "101112131415161718191a1b1c1d1e1fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf01000000000000002da9fe56197aed0a4667b2fdf0e11c35",
    "b64c7db4a5ee5d7ff2a60ca58a9e89398bc069b604aecf172b8c48e71b16bfb942174f34ba176925cfc8ce5fb9d4e28bfaec6d8178c593dc",
    "5170a4afecb74eeaf86d05dd3cf10071404a394f1c458265387aef6e8ec2e81d17c441f969d028b4c54088b69ed320fd67c416a7c6ed1d5a",
    "ad94821069d8e0223be2603964d32293d2abe3dc09a0ea8e6df2335d26d1557dc35b5a1971fdfa19f6998e5c6fff56ba6d7e876f4ec03ae6",
    "1ed429e882e6c9ab61fbb15ffcbf53496951fb8807b6b6f772900b4858bd9df70ee194160fb1c369e2cccd4c808836b0b659e49e67a67a7e",
    "75da9d17fdf5582baba89f168bb63c846b0154ce91073ade1e4f335c76c93e7309f549487972cb655081afd4736d6fdc7af36735e04ae5ba",
    "623b945ec215eb75",
);

const MACHINE_KEY: [u8; 32] = counting(0xc0);

const fn counting<const N: usize>(from: u8) -> [u8; N] {
    let mut bytes = [0; N];
    let mut i = 0;
    while i < N {
        bytes[i] = from + i as u8;
        i += 1;
    }
    bytes
}

fn master() -> MasterKey {
    MasterKey::from_bytes(counting(0))
}

fn keys() -> Keys {
    Keys::derive(&master(), RepositoryId(counting(0x10)))
}

fn slot(text: &str) -> Slot {
    Slot::parse(&unhex(text).unwrap()).unwrap()
}

fn make(passphrase: &[u8], label: &str, cost: KdfCost) -> Result<Vec<u8>> {
    let created = Time { secs: 1_700_000_000, nanos: 5 };
    Slot::create(&master(), &keys(), SlotId([9; 16]), passphrase, label, created, cost)
}

/// A machine's slot, which opens without delay.
fn make_machine(label: &str) -> Vec<u8> {
    Slot::create_machine(&master(), &keys(), SlotId([9; 16]), &MACHINE_KEY, label, Time::default()).unwrap()
}

/// A slot with some of its bytes replaced.
fn patched(slot: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut slot = slot.to_vec();
    slot[at..at + with.len()].copy_from_slice(with);
    slot
}

fn is_master(opened: std::result::Result<MasterKey, OpenError>) -> bool {
    opened.is_ok_and(|key| key.expose() == master().expose())
}

#[test]
fn slots_of_another_implementation_open() {
    let passphrase = slot(BY_PASSPHRASE);
    assert!(is_master(passphrase.open(b"correct horse")));
    assert_eq!(passphrase.open(b"correct horsf").err(), Some(OpenError::Refused));
    assert_eq!(passphrase.open(b"").err(), Some(OpenError::Refused));
    assert_eq!(passphrase.open_machine(&MACHINE_KEY).err(), Some(OpenError::Refused), "it is a passphrase's");
    assert_eq!(passphrase.cost(), Some(KdfCost::for_tests()));
    assert_eq!(passphrase.repository(), RepositoryId(counting(0x10)));
    assert_eq!(passphrase.id(), SlotId(counting(0xa0)));
    let info = SlotInfo { label: "laptop, caf\u{e9}".into(), created: Time { secs: 1_767_225_600, nanos: 0 } };
    assert_eq!(passphrase.info(&keys()).unwrap(), info);

    let two_passes = slot(BY_TWO_PASSES);
    assert!(is_master(two_passes.open(b"\xff\0raw")), "a passphrase is bytes, not text");
    assert_eq!(two_passes.cost(), Some(KdfCost { memory_kib: 8192, passes: 2, lanes: 3 }));

    let machine = slot(BY_MACHINE);
    assert!(is_master(machine.open_machine(&MACHINE_KEY)));
    assert_eq!(machine.open_machine(&[0; 32]).err(), Some(OpenError::Refused));
    assert_eq!(machine.open(&MACHINE_KEY).err(), Some(OpenError::Refused), "it is a machine's");
    assert_eq!((machine.cost(), machine.info(&keys()).unwrap().label), (None, "machine".into()));
}

#[test]
fn a_new_slot_opens_and_no_two_are_alike() {
    let bytes = make(b"secret", "desk", KdfCost::for_tests()).unwrap();
    assert_eq!(bytes.len(), SLOT_BYTES);
    let slot = Slot::parse(&bytes).unwrap();
    assert!(is_master(slot.open(b"secret")));
    let info = SlotInfo { label: "desk".into(), created: Time { secs: 1_700_000_000, nanos: 0 } };
    assert_eq!(slot.info(&keys()).unwrap(), info, "nanoseconds are not kept");
    let again = make(b"secret", "desk", KdfCost::for_tests()).unwrap();
    assert_ne!(bytes[24..56], again[24..56], "each slot has a salt of its own");
    assert_ne!(bytes[96..], again[96..]);
    assert!(!format!("{slot:?}").contains(&hex(&bytes[96..100])), "{slot:?}");
}

#[test]
fn slots_that_would_not_protect_are_not_made() {
    assert!(matches!(make(b"", "", KdfCost::default()), Err(Error::Invalid { .. })), "an empty passphrase");
    let cost = KdfCost::for_tests();
    for weak in [
        KdfCost { memory_kib: (19 << 10) - 1, passes: 3, lanes: 4 },
        KdfCost { passes: 2, ..cost },
        KdfCost { memory_kib: (1 << 20) + 1, ..KdfCost::default() },
        KdfCost { passes: 0, ..KdfCost::default() },
        KdfCost { passes: 17, ..KdfCost::default() },
        KdfCost { lanes: 0, ..KdfCost::default() },
        KdfCost { lanes: 17, ..KdfCost::default() },
    ] {
        assert!(matches!(make(b"x", "", weak), Err(Error::Invalid { .. })), "{weak:?}");
    }
    assert!(KdfCost::default().check_new().is_ok());
    assert!(KdfCost { memory_kib: 19 << 10, passes: 2, lanes: 1 }.check_new().is_ok(), "the least of a new slot");
}

#[test]
fn labels_have_a_limit_and_come_back() {
    let longest = "\u{e9}".repeat(99) + "x";
    let slot = Slot::parse(&make_machine(&longest)).unwrap();
    assert_eq!(slot.info(&keys()).unwrap().label, longest, "199 bytes");
    let too_long = make(b"x", &"x".repeat(200), KdfCost::for_tests());
    assert!(matches!(too_long, Err(Error::Limit { found: 200, max: 199, .. })));
    let before_1970 = Time { secs: -5, nanos: 0 };
    let bytes = Slot::create_machine(&master(), &keys(), SlotId([1; 16]), &MACHINE_KEY, "", before_1970).unwrap();
    assert_eq!(Slot::parse(&bytes).unwrap().info(&keys()).unwrap().created, Time::default());
}

#[test]
fn what_a_slot_asks_for_is_limited_before_it_costs_anything() {
    let good = unhex(BY_PASSPHRASE).unwrap();
    let asking = |at: usize, value: u32| Slot::parse(&patched(&good, at, &value.to_le_bytes())).err();
    for memory_kib in [0, 8, 8191, (1 << 20) + 1, u32::MAX] {
        let expected = Some(DecodeError::Limit("the memory for deriving its key"));
        assert_eq!(asking(12, memory_kib), expected, "{memory_kib} KiB");
    }
    for value in [0, 17, u32::MAX] {
        let expected = Some(DecodeError::Limit("the time for deriving its key"));
        assert_eq!((asking(16, value), asking(20, value)), (expected, expected), "{value} passes or lanes");
    }
    let most = KdfCost { memory_kib: 1 << 20, passes: 16, lanes: 16 };
    let bytes = patched(&patched(&good, 12, &most.memory_kib.to_le_bytes()), 16, &[16, 0, 0, 0, 16]);
    assert_eq!(Slot::parse(&bytes).unwrap().cost(), Some(most), "the most that is allowed parses");
}

#[test]
fn what_is_not_a_slot_of_this_version_is_told_apart() {
    let good = make_machine("x");
    let parse = |at: usize, byte: u8| Slot::parse(&patched(&good, at, &[byte])).err();
    assert_eq!(parse(0, b'b'), Some(DecodeError::Invalid("a key slot's magic")));
    assert_eq!(parse(8, 0), Some(DecodeError::Invalid("a key slot's version")));
    assert_eq!(parse(8, 2), Some(DecodeError::TooNew(2)));
    assert_eq!(parse(9, 2), Some(DecodeError::Invalid("a key slot's suite")));
    for at in [11, 88, 89, 92, 95] {
        assert_eq!(parse(at, 7), Some(DecodeError::Invalid("a key slot's reserved field")), "byte {at}");
    }
    for (at, byte) in [(10, 0), (10, 3), (12, 1), (16, 1), (23, 1)] {
        assert_eq!(parse(at, byte), Some(DecodeError::Invalid("a key slot's key derivation")), "byte {at}");
    }
    for length in 0..SLOT_BYTES {
        assert_eq!(Slot::parse(&good[..length]).err(), Some(DecodeError::Short), "{length} bytes");
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert_eq!(Slot::parse(&longer).err(), Some(DecodeError::Trailing));
    let later = [patched(&good, 8, &[2]).as_slice(), &[0]].concat();
    assert_eq!(Slot::parse(&later).err(), Some(DecodeError::TooNew(2)), "a later version may have another length");
}

#[test]
fn every_flipped_bit_keeps_a_slot_shut() {
    let good = make_machine("bench");
    for bit in 0..good.len() * 8 {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(slot) = Slot::parse(&damaged) {
            assert_eq!(slot.open_machine(&MACHINE_KEY).err(), Some(OpenError::Refused), "bit {bit} was flipped");
            let described = bit / 8 < 96 || (144..368).contains(&(bit / 8));
            assert_eq!(slot.info(&keys()).is_err(), described, "bit {bit} and the label");
        }
    }
}

#[test]
fn the_commitment_covers_what_opening_alone_would_accept() {
    // Two slots with the same head and key: the parts of one, in the other, would open by themselves.
    let wrap = || WrappingKey::derive(Derivation::Machine, &[1; 32], SlotSecret::Machine(&MACHINE_KEY)).unwrap();
    let head =
        Head { derivation: Derivation::Machine, salt: [1; 32], repository: keys().repository(), id: SlotId([2; 16]) };
    let make = |label| {
        let secret = SlotSecret::Machine(&MACHINE_KEY);
        seal_slot(&head, secret, &master(), &keys(), label, Time::default()).unwrap()
    };
    let (one, other) = (make("one"), make("other"));
    let mixed = [&one[..144], &other[144..368], &one[368..]].concat();
    assert!(wrap().seal.open(&mixed[..96], &mixed[96..144]).is_ok(), "the sealed master key is untouched");
    let mixed = Slot::parse(&mixed).unwrap();
    assert_eq!(mixed.open_machine(&MACHINE_KEY).err(), Some(OpenError::Refused), "a label was exchanged");
    assert!(is_master(Slot::parse(&one).unwrap().open_machine(&MACHINE_KEY)));
}

#[test]
fn info_that_is_sealed_but_malformed_is_damage() {
    let keys = keys();
    let good = make_machine("label");
    let info = encode_info("label", Time::default()).unwrap();
    for (what, at, bytes) in [
        ("a label that is not UTF-8", 9, &[0xff_u8][..]),
        ("a label longer than its place", 8, &[200]),
        ("padding that is not zero", 207, &[1]),
        ("a time beyond all clocks", 7, &[0x80]),
    ] {
        let sealed = keys.slot_info().seal(&good[..96], &patched(&info, at, bytes));
        let slot = Slot::parse(&patched(&good, 144, &sealed)).unwrap();
        assert!(matches!(slot.info(&keys), Err(Error::Corrupt { .. })), "{what}");
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..450), head in 0usize..400) {
        let _ = Slot::parse(&bytes);
        // The same behind a valid beginning, so that the later fields are reached.
        let mut bytes = [&make_machine("")[..head], &bytes].concat();
        bytes.resize(SLOT_BYTES, 0);
        if let Ok(slot) = Slot::parse(&bytes) {
            prop_assert!(slot.cost().is_none_or(|cost| cost.check().is_ok()));
            prop_assert!(slot.cost().is_some() || slot.open_machine(&[1; 32]).is_err());
        }
    }

    #[test]
    fn labels_and_times_come_back(label in "\\PC{0,49}", secs in 0i64..i64::MAX) {
        let created = Time { secs, nanos: 0 };
        let info = encode_info(&label, created).unwrap();
        prop_assert_eq!(info.len(), INFO_BYTES);
        prop_assert_eq!(decode_info(&info), Ok(SlotInfo { label, created }));
    }
}
