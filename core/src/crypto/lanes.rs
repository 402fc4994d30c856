//! CBC-MAC over many strings at once, in eight lanes.
//!
//! A chain is inherently slow: each block waits for the one before, and encrypting one block takes as long as
//! encrypting eight. So eight chains advance side by side, one block of each at a time. Chains may have any length:
//! when one ends, its lane takes the next, longest first, so that the lanes end together.

use aes::Aes256Enc;
use aes::Block;
use aes::cipher::BlockCipherEncBackend;
use aes::cipher::BlockCipherEncClosure;
use aes::cipher::BlockCipherEncrypt;
use aes::cipher::BlockSizeUser;
use aes::cipher::consts::U16;
use aes::cipher::inout::InOutBuf;
use zeroize::Zeroizing;

/// Chains that are walked side by side.
const LANES: usize = 8;

/// Sixteen bytes, not yet a block of the cipher.
pub(super) type Bytes16 = [u8; 16];

/// The input of one chain: blocks as they lie in memory, then one or two computed ones.
pub(super) struct Chain<'a> {
    pub blocks: &'a [Bytes16],
    pub end: ([Bytes16; 2], usize),
}

impl Chain<'_> {
    fn end(&self) -> &[Bytes16] {
        let (blocks, count) = &self.end;
        &blocks[..*count]
    }
}

/// The last state of each chain, wiped when dropped: knowing it is enough to forge a seal.
pub(super) fn last_states(cipher: &Aes256Enc, chains: &[Chain<'_>]) -> Zeroizing<Vec<Bytes16>> {
    let mut states = Zeroizing::new(vec![[0; 16]; chains.len()]);
    let mut order: Vec<usize> = (0..chains.len()).collect();
    order.sort_by_key(|number| std::cmp::Reverse(chains[*number].blocks.len()));
    cipher.encrypt_with_backend(Walk { chains, order: &order, found: &mut states });
    states
}

pub(super) fn xor(a: &Bytes16, b: &Bytes16) -> Bytes16 {
    (u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b)).to_ne_bytes()
}

/// A chain in progress, with the rest of its current part.
struct Lane<'a> {
    number: usize,
    rest: &'a [Bytes16],
    end: &'a [Bytes16],
}

impl<'a> Lane<'a> {
    /// False if the chain has ended.
    fn goes_on(&mut self) -> bool {
        if self.rest.is_empty() {
            self.rest = std::mem::take(&mut self.end);
        }
        !self.rest.is_empty()
    }

    fn take(&mut self, steps: usize) -> &'a [Bytes16] {
        let (now, later) = self.rest.split_at(steps);
        self.rest = later;
        now
    }
}

/// The walk over all chains; the cipher picks the processor's instructions and calls it once with them.
struct Walk<'a> {
    chains: &'a [Chain<'a>],
    order: &'a [usize],
    found: &'a mut [Bytes16],
}

impl BlockSizeUser for Walk<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Walk<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, engine: &B) {
        let Walk { chains, order, found } = self;
        let mut waiting = order.iter().map(|number| {
            let chain = &chains[*number];
            Lane { number: *number, rest: chain.blocks, end: chain.end() }
        });
        let mut lanes: Vec<Lane<'_>> = waiting.by_ref().take(LANES).collect();
        let mut states = [Block::default(); LANES];
        loop {
            let mut place = 0;
            while let Some(lane) = lanes.get_mut(place) {
                if lane.goes_on() {
                    place += 1;
                    continue;
                }
                found[lane.number] = states[place].into();
                if let Some(next) = waiting.next() {
                    *lane = next;
                    states[place] = Block::default();
                } else {
                    // The last lane moves here.
                    lanes.swap_remove(place);
                    states[place] = states[lanes.len()];
                }
            }
            let Some(steps) = lanes.iter().map(|lane| lane.rest.len()).min() else { return };
            if let [lane] = lanes.as_mut_slice() {
                walk_one(engine, lane.take(steps), &mut states[0]);
            } else {
                // Free lanes repeat what the first one does: it costs nothing, and the result is unused.
                let mut parts = [lanes[0].take(steps); LANES];
                parts.iter_mut().zip(&mut lanes).skip(1).for_each(|(part, lane)| *part = lane.take(steps));
                walk_all(engine, &parts, &mut states);
            }
        }
    }
}

#[inline(always)]
fn walk_one<B: BlockCipherEncBackend<BlockSize = U16>>(engine: &B, blocks: &[Bytes16], state: &mut Block) {
    for block in blocks {
        *state = xor(&state.0, block).into();
        engine.encrypt_block(state.into());
    }
}

/// All of `parts` are equally long.
#[inline(always)]
fn walk_all<B: BlockCipherEncBackend<BlockSize = U16>>(
    engine: &B,
    parts: &[&[Bytes16]; LANES],
    states: &mut [Block; LANES],
) {
    for step in 0..parts[0].len() {
        for (state, part) in states.iter_mut().zip(parts) {
            *state = xor(&state.0, &part[step]).into();
        }
        let (together, tail) = InOutBuf::from(states.as_mut_slice()).into_chunks::<B::ParBlocksSize>();
        for blocks in together {
            engine.encrypt_par_blocks(blocks);
        }
        for block in tail {
            engine.encrypt_block(block);
        }
    }
}
