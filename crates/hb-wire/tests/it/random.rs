//! Random requests from a seed, within what `hb/1` and a URL allow.

use hb_wire::key::HostKey;
use hb_wire::nonce::Nonce;
use hb_wire::signature::{Message, Params, normalize_authority};

/// `SplitMix64` (Steele, Lea, Flood; 2014): small, seeded, the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.next().to_le_bytes()[0])
    }

    fn word(&mut self, alphabet: &[u8], longest: usize) -> String {
        (0..=self.below(longest)).map(|_| char::from(alphabet[self.below(alphabet.len())])).collect()
    }
}

/// A request, its key and its parameters.
pub(crate) struct Request {
    pub(crate) seed: [u8; 32],
    pub(crate) method: &'static str,
    /// As a user may write it: with upper case letters and default ports.
    pub(crate) url: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    pub(crate) params: Params,
}

impl Request {
    pub(crate) fn any(random: &mut Random) -> Self {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        const KEYID: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
        const PATH: &[u8] = b"ABCXYZabcxyz0123456789_~-";
        let scheme = ["https", "http"][random.below(2)];
        let host = match random.below(4) {
            0 => "127.0.0.1".to_owned(),
            1 => "[2001:db8::7]".to_owned(),
            _ => format!("{}.{}", random.word(LETTERS, 12), random.word(LETTERS, 8)),
        };
        let port = match random.below(4) {
            0 => ":443".to_owned(),
            1 => ":80".to_owned(),
            2 => format!(":{}", 1024 + random.below(60_000)),
            _ => String::new(),
        };
        let mut path = String::new();
        for _ in 0..=random.below(4) {
            path.push('/');
            path.push_str(&random.word(PATH, 12));
        }
        path.push_str(["", "/", "%20x", "/%C3%A9"][random.below(4)]);
        let url = format!("{scheme}://{host}{port}{path}");
        let body_length = [0, 1, 81, 300][random.below(4)];
        Self {
            seed: random.bytes(),
            method: ["POST", "GET", "PUT", "PATCH", "DELETE"][random.below(5)],
            authority: normalize_authority(&url).expect("the URL is well-formed"),
            url,
            path,
            body: (0..body_length).map(|_| random.next().to_le_bytes()[0]).collect(),
            params: Params {
                created: 1 + i64::try_from(random.below(4_000_000_000)).unwrap(),
                nonce: Nonce(random.bytes()),
                keyid: random.word(KEYID, 63),
            },
        }
    }

    pub(crate) fn key(&self) -> HostKey {
        HostKey::from_seed(self.seed)
    }

    pub(crate) fn message(&self) -> Message<'_> {
        Message { method: self.method, authority: &self.authority, path: &self.path, body: &self.body }
    }
}
