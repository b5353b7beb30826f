//! Both directions, 1,000 random messages each: what hb signs, they accept, and refuse once it was changed; what they
//! sign, hb accepts, and refuses once it was changed.

use base64ct::{Base64, Encoding as _};
use hb_wire::nonce::Nonce;
use hb_wire::signature::{self, Message, SignatureError, SignedHeaders};
use httpsig::prelude::message_component::{HttpMessageComponent, HttpMessageComponentId};
use httpsig::prelude::{
    AlgorithmName, HttpSignatureBase, HttpSignatureHeaders, HttpSignatureParams, PublicKey, SecretKey,
};
use serde_json::{Value, json};

use crate::judge::Judge;
use crate::random::{Random, Request};

const MESSAGES: usize = 1_000;
const SEED: u64 = 0x6862_2f31;
/// Another server, to which a message may be carried.
const ELSEWHERE: &str = "x.example.com";

fn requests() -> Vec<Request> {
    let mut random = Random::new(SEED);
    (0..MESSAGES).map(|_| Request::any(&mut random)).collect()
}

/// What an attacker may change on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Nothing,
    Path,
    Body,
    Nonce,
    Authority,
}

const CHANGES: [Change; 5] = [Change::Nothing, Change::Path, Change::Body, Change::Nonce, Change::Authority];

impl Change {
    fn body(self, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        if self == Self::Body {
            match body.first_mut() {
                Some(first) => *first ^= 1,
                None => body.push(b'x'),
            }
        }
        body
    }

    fn input(self, input: &str, nonce: Nonce) -> String {
        let mut other = nonce;
        other.0[15] ^= 1;
        let changed = input.replace(&nonce.to_string(), &other.to_string());
        assert_ne!(changed, input, "the nonce stands in the signature's input");
        if self == Self::Nonce { changed } else { input.to_owned() }
    }

    fn path(self, path: &str) -> String {
        if self == Self::Path { format!("{path}x") } else { path.to_owned() }
    }

    fn url(self, request: &Request) -> String {
        match self {
            Self::Path => format!("{}x", request.url),
            Self::Authority => format!("https://{ELSEWHERE}{}", request.path),
            Self::Nothing | Self::Body | Self::Nonce => request.url.clone(),
        }
    }
}

/// The headers of a signed request, as the judges get and give them.
fn headers_json(headers: &SignedHeaders, input: &str) -> Value {
    json!({ "content-digest": headers.content_digest, "signature-input": input, "signature": headers.signature })
}

fn they_accept_what_hb_signs_and_nothing_else(judge: Judge) {
    let requests = requests();
    let mut questions = Vec::new();
    for request in &requests {
        let headers = signature::sign(&request.key(), &request.message(), &request.params);
        for change in CHANGES {
            let input = change.input(&headers.signature_input, request.params.nonce);
            questions.push(json!({
                "do": "verify",
                "method": request.method,
                "url": change.url(request),
                "body": Base64::encode_string(&change.body(&request.body)),
                "headers": headers_json(&headers, &input),
                "key": Base64::encode_string(&request.key().public().0),
                "keyid": request.params.keyid,
            }));
        }
    }
    let answers = judge.ask(&questions);
    for (i, answer) in answers.iter().enumerate() {
        let (request, change) = (&requests[i / CHANGES.len()], CHANGES[i % CHANGES.len()]);
        let expected = change == Change::Nothing;
        assert_eq!(answer["ok"], expected, "{change:?} {} {answer}", questions[i]);
        if expected {
            assert_eq!(answer["nonce"], request.params.nonce.to_string());
            assert_eq!(answer["created"], request.params.created);
        }
    }
}

fn hb_accepts_what_they_sign_and_nothing_else(judge: Judge) {
    let requests = requests();
    let questions: Vec<Value> = requests
        .iter()
        .map(|request| {
            json!({
                "do": "sign",
                "method": request.method,
                "url": request.url,
                "body": Base64::encode_string(&request.body),
                "seed": Base64::encode_string(&request.seed),
                "created": request.params.created,
                "nonce": request.params.nonce.to_string(),
                "keyid": request.params.keyid,
            })
        })
        .collect();
    let answers = judge.ask(&questions);
    for (request, answer) in requests.iter().zip(&answers) {
        let field =
            |name: &str| answer["headers"][name].as_str().unwrap_or_else(|| panic!("no {name}: {answer}")).to_owned();
        let theirs = SignedHeaders {
            content_digest: field("content-digest"),
            signature_input: field("signature-input"),
            signature: field("signature"),
        };
        // Ed25519 is deterministic: the same request gives the same three fields, byte for byte.
        assert_eq!(theirs, signature::sign(&request.key(), &request.message(), &request.params));
        hb_accepts_it_unless_changed(request, &theirs);
    }
}

fn hb_accepts_it_unless_changed(request: &Request, headers: &SignedHeaders) {
    let verifier = request.key().public().verifying().unwrap();
    for change in CHANGES {
        let input = change.input(&headers.signature_input, request.params.nonce);
        let signed = signature::parse(&headers.content_digest, &input, &headers.signature).unwrap();
        let (path, body) = (change.path(&request.path), change.body(&request.body));
        let authority = if change == Change::Authority { ELSEWHERE } else { &request.authority };
        let message = Message { method: request.method, authority, path: &path, body: &body };
        let expected = match change {
            Change::Nothing => Ok(()),
            Change::Body => Err(SignatureError::DigestMismatch),
            Change::Path | Change::Nonce | Change::Authority => Err(SignatureError::Mismatch),
        };
        assert_eq!(signed.verify(&verifier, &message), expected, "{change:?} {headers:?}");
        if change == Change::Nothing {
            assert_eq!(signed.params, request.params);
        }
    }
}

#[test]
fn the_python_package_accepts_what_hb_signs_and_nothing_else() {
    they_accept_what_hb_signs_and_nothing_else(Judge::Python);
}

#[test]
fn hb_accepts_what_the_python_package_signs_and_nothing_else() {
    hb_accepts_what_they_sign_and_nothing_else(Judge::Python);
}

#[test]
fn the_npm_package_http_message_sig_accepts_what_hb_signs_and_nothing_else() {
    they_accept_what_hb_signs_and_nothing_else(Judge::NodeSig);
}

#[test]
fn hb_accepts_what_the_npm_package_http_message_sig_signs_and_nothing_else() {
    hb_accepts_what_they_sign_and_nothing_else(Judge::NodeSig);
}

#[test]
fn the_npm_package_http_message_signatures_accepts_what_hb_signs_and_nothing_else() {
    they_accept_what_hb_signs_and_nothing_else(Judge::NodeSignatures);
}

#[test]
fn hb_accepts_what_the_npm_package_http_message_signatures_signs_and_nothing_else() {
    hb_accepts_what_they_sign_and_nothing_else(Judge::NodeSignatures);
}

const COMPONENTS: [&str; 4] = ["@method", "@authority", "@path", "content-digest"];

/// The signature base of the crate `httpsig`: it takes the values of the components as they are.
fn httpsig_base(params: &HttpSignatureParams, message: &Message<'_>, content_digest: &str) -> HttpSignatureBase {
    let values = [message.method, message.authority, message.path, content_digest];
    let lines: Vec<HttpMessageComponent> = COMPONENTS
        .iter()
        .zip(values)
        .map(|(name, value)| {
            let id = HttpMessageComponentId::try_from(*name).unwrap();
            HttpMessageComponent::try_from((&id, &[value.to_owned()][..])).unwrap()
        })
        .collect();
    HttpSignatureBase::try_new(&lines, params).unwrap()
}

#[test]
fn the_crate_httpsig_accepts_what_hb_signs_and_nothing_else() {
    for request in requests() {
        let headers = signature::sign(&request.key(), &request.message(), &request.params);
        let key = PublicKey::from_bytes(&AlgorithmName::Ed25519, &request.key().public().0).unwrap();
        for change in CHANGES {
            let input = change.input(&headers.signature_input, request.params.nonce);
            let parsed = HttpSignatureHeaders::try_parse(&headers.signature, &input).unwrap();
            let parsed = parsed.get("hb").unwrap();
            // The crate leaves the digest of the body to its caller.
            let digest = hb_wire::digest::content_digest(&change.body(&request.body));
            let path = change.path(&request.path);
            let authority = if change == Change::Authority { ELSEWHERE } else { &request.authority };
            let message = Message { path: &path, authority, ..request.message() };
            let base = httpsig_base(parsed.signature_params(), &message, &digest);
            let accepted = base.verify_signature_headers(&key, parsed).is_ok();
            assert_eq!(accepted, change == Change::Nothing, "{change:?} {headers:?}");
        }
    }
}

#[test]
fn hb_accepts_what_the_crate_httpsig_signs_and_nothing_else() {
    let ids = COMPONENTS.map(|name| HttpMessageComponentId::try_from(name).unwrap());
    for request in requests() {
        let mut params = HttpSignatureParams::try_new(&ids).unwrap();
        params.set_created(request.params.created.unsigned_abs());
        params.set_nonce(&request.params.nonce.to_string());
        params.set_keyid(&request.params.keyid);
        params.set_tag(signature::TAG);
        let content_digest = hb_wire::digest::content_digest(&request.body);
        let key = SecretKey::from_bytes(&AlgorithmName::Ed25519, &request.seed).unwrap();
        let base = httpsig_base(&params, &request.message(), &content_digest);
        let signed = base.build_signature_headers(&key, Some("hb")).unwrap();
        let theirs = SignedHeaders {
            content_digest,
            signature_input: signed.signature_input_header_value(),
            signature: signed.signature_header_value(),
        };
        hb_accepts_it_unless_changed(&request, &theirs);
    }
}
