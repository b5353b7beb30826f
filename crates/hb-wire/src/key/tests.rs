use proptest::prelude::*;

use super::*;

/// RFC 9421, B.1.4, and the same key as this crate must write it.
const RFC_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n\
    -----END PRIVATE KEY-----\n";
const RFC_PUBLIC: &str = "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs";

#[test]
fn a_key_is_read_and_written_as_the_rfc_has_it() {
    let key = HostKey::from_pem(RFC_PEM).unwrap();
    assert_eq!(key.public().to_string(), RFC_PUBLIC);
    assert_eq!(*key.to_pem(), RFC_PEM);
    let again = HostKey::from_pem(&HostKey::from_seed([7; 32]).to_pem()).unwrap();
    assert_eq!(again.public(), HostKey::from_seed([7; 32]).public());
    assert_eq!(HostKey::from_pem(&format!("\n{RFC_PEM}\n\n")).unwrap().public(), key.public());
}

#[test]
fn version_2_of_pkcs8_is_read_too_and_its_public_half_must_fit() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let with_public = key.to_pkcs8_pem(LineEnding::LF).unwrap();
    assert_eq!(HostKey::from_pem(&with_public).unwrap().public().0, key.verifying_key().to_bytes());
    let wrong = KeypairBytes {
        secret_key: [7; 32],
        public_key: Some(ed25519_dalek::pkcs8::PublicKeyBytes(
            SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes(),
        )),
    };
    let wrong = wrong.to_pkcs8_pem(LineEnding::LF).unwrap();
    assert_eq!(HostKey::from_pem(&wrong).unwrap_err(), ParseKeyError::NotPkcs8);
}

#[test]
fn anything_but_a_key_is_refused_without_showing_it() {
    for bad in ["", "secret", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", RFC_PUBLIC]
        .into_iter()
        .map(str::to_owned)
        .chain([RFC_PEM.replace("PRIVATE", "PUBLIC"), RFC_PEM.replace("MC4", "MC5"), RFC_PEM.replace("VwBC", "VuBC")])
    {
        assert_eq!(HostKey::from_pem(&bad).unwrap_err(), ParseKeyError::NotPkcs8, "{bad}");
    }
    assert_eq!(HostKey::from_pem(&"x".repeat(5_000)).unwrap_err(), ParseKeyError::TooLarge);
}

#[test]
fn debug_shows_only_the_fingerprint() {
    let shown = format!("{:?}", HostKey::from_pem(RFC_PEM).unwrap());
    assert_eq!(shown, "HostKey(SHA256:sWwtG+rRJiY5dk/bDuTTd0WZM2vUk0BM2ksRNsWfIGI)");
}

#[test]
fn a_public_key_has_one_spelling() {
    assert_eq!(PublicKey::parse(RFC_PUBLIC).unwrap().to_string(), RFC_PUBLIC);
    let json = format!("\"{RFC_PUBLIC}\"");
    assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap().to_string(), RFC_PUBLIC);
    for bad in [
        "",
        "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bt",
        "JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs",
        "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs=",
        "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0b",
    ] {
        assert!(PublicKey::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn signing_reproduces_rfc_8032() {
    // RFC 8032, section 7.1, test 2.
    let seed = crate::hex::bytes::<32>("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
    let key = HostKey::from_seed(seed);
    let signature = crate::hex::bytes::<64>(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    );
    assert_eq!(key.sign(&[0x72]), signature);
    assert!(key.public().vetted().unwrap().verify(&[0x72], &signature));
    assert!(!key.public().verifying().unwrap().verify(&[0x73], &signature));
}

#[test]
fn keys_of_small_order_and_second_spellings_are_refused() {
    // The eight points of small order and their non-canonical spellings, as libsodium's block list has them.
    for (hex, why) in [
        ("0100000000000000000000000000000000000000000000000000000000000000", WeakKey::SmallOrder),
        ("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", WeakKey::SmallOrder),
        ("0000000000000000000000000000000000000000000000000000000000000000", WeakKey::SmallOrder),
        ("0000000000000000000000000000000000000000000000000000000000000080", WeakKey::SmallOrder),
        ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", WeakKey::SmallOrder),
        ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85", WeakKey::SmallOrder),
        ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", WeakKey::SmallOrder),
        ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", WeakKey::SmallOrder),
        ("0100000000000000000000000000000000000000000000000000000000000080", WeakKey::SmallOrder),
        ("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", WeakKey::SmallOrder),
        ("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", WeakKey::SmallOrder),
        // y = 2 is no point of the curve; y = p + 3 is a second spelling of y = 3, a point of large order.
        ("0200000000000000000000000000000000000000000000000000000000000000", WeakKey::NotAPoint),
        ("f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", WeakKey::NotCanonical),
        ("f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", WeakKey::NotCanonical),
    ] {
        let key = PublicKey(crate::hex::bytes(hex));
        assert_eq!(key.verifying().unwrap_err(), why, "{hex}");
        assert_eq!(key.vetted().unwrap_err(), why, "{hex}");
    }
}

// "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko; 2020), the vectors of its table: message, key, signature.
const TAMING: [(&str, &str, &str); 10] = [
    (
        "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a\
         0000000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43\
         a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
    (
        "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa\
         8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f\
         87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed512\
         5ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7\
         e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e\
         547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa1942\
         7e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
    ),
    (
        "fdaebc429f4a735932a160da1301080c13280eea8bc280d1b392c6b9e6ba3a5a",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f\
         454d370c8d9fc323a41450f8d513eafeb5b0697390c1e505a0d4ddc71f566607",
    ),
    (
        "84b698d39be126ff55fe45079e6c8bf64a0d7db6994560b4e96b7021eb39c1a1",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f\
         084d5b99c2a9463d9c8bd5026916996984eeec87ddf1d3be329006ace1b37b09",
    ),
];

#[test]
fn the_edge_cases_that_implementations_disagree_about_are_refused() {
    let mut accepted_by_lax_verification = 0;
    for (i, (message, key, signature)) in TAMING.iter().enumerate() {
        let message = crate::hex::bytes::<32>(message);
        let key = PublicKey(crate::hex::bytes(key));
        let signature = crate::hex::bytes::<64>(signature);
        let refused = key.vetted().map_or(true, |verifier| !verifier.verify(&message, &signature));
        assert!(refused, "vector {i}");
        let lax = VerifyingKey::from_bytes(&key.0)
            .is_ok_and(|k| ed25519_dalek::Verifier::verify(&k, &message, &Signature::from_bytes(&signature)).is_ok());
        accepted_by_lax_verification += u32::from(lax);
    }
    assert!(accepted_by_lax_verification >= 3, "the vectors would prove nothing if anybody refused them");
}

#[test]
fn a_signature_with_an_r_of_small_order_is_refused_even_from_a_good_key() {
    // R is the identity and S = k * a: made with the private key of seed 7…7, and right by the equation alone.
    let signature = crate::hex::bytes::<64>(
        "0100000000000000000000000000000000000000000000000000000000000000\
         14b9892ef4156443df564f231f1dfc6868f6fdf9b9dac9012d7d2715f017f602",
    );
    let verifier = HostKey::from_seed([7; 32]).public().vetted().unwrap();
    let lax = ed25519_dalek::Verifier::verify(&verifier.0, b"beat", &Signature::from_bytes(&signature));
    assert!(lax.is_ok(), "the vector would prove nothing if anybody refused it");
    assert!(!verifier.verify(b"beat", &signature));
}

#[test]
fn a_signature_whose_s_was_raised_by_the_group_order_is_refused() {
    let order = crate::hex::bytes::<32>("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    for seed in 0..64 {
        let key = HostKey::from_seed([seed; 32]);
        let mut signature = key.sign(b"beat");
        let mut carry = 0_u16;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert_eq!(carry, 0, "S + L fits 256 bits, so that it is a different spelling of the same S");
        assert!(!key.public().verifying().unwrap().verify(b"beat", &signature), "{seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn no_text_makes_a_key_parser_panic(text in "[A-Za-z0-9_-]{43}|.{0,60}", bytes: [u8; 32]) {
        if let Ok(key) = PublicKey::parse(&text) {
            prop_assert_eq!(key.to_string(), text);
        }
        let key = PublicKey(bytes);
        prop_assert_eq!(PublicKey::parse(&key.to_string()), Ok(key));
        if let Ok(verifier) = key.verifying() {
            prop_assert_eq!(verifier.public(), key);
        }
    }
}

#[test]
fn the_canonical_form_is_judged_as_compressing_the_point_again_would() {
    // Every encoding near p, with both signs, and some far from it.
    let mut judged = 0;
    for high in [0x7f, 0xff, 0x7e, 0x00] {
        for middle in [0xff, 0xfe, 0x00] {
            for low in 0..=255 {
                let mut bytes = [middle; 32];
                (bytes[0], bytes[31]) = (low, high);
                let Ok(key) = VerifyingKey::from_bytes(&bytes) else { continue };
                if key.is_weak() {
                    continue;
                }
                let same = key.to_edwards().compress().to_bytes() == bytes;
                assert_eq!(PublicKey(bytes).verifying().is_ok(), same, "{bytes:02x?}");
                judged += 1;
            }
        }
    }
    assert!(judged > 1_000, "{judged}");
}
