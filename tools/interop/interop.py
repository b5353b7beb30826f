"""Signs and verifies hb's messages with the PyPI package http-message-signatures.

Reads one JSON request a line from stdin, answers one JSON document a line on stdout; the first line of the answer says
which library this is. Started by crates/hb-wire/tests/it/interop.rs.
"""

import base64
import datetime
import json
import sys
from importlib.metadata import version

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, InvalidSignature
from http_message_signatures.algorithms import ED25519
from http_message_signatures.resolvers import MappingKeyResolver

COMPONENTS = ("@method", "@authority", "@path", "content-digest")
ORDER = ("created", "nonce", "keyid", "tag")
TAG = "hb/1"


class Message:
    """The request, as the library wants it."""

    def __init__(self, request):
        self.method = request["method"]
        self.url = request["url"]
        self.headers = dict(request.get("headers", {}))


class Signer(HTTPMessageSigner):
    """Writes the parameters in the order of the profile; RFC 9421 leaves it to the signer, the library has its own."""

    def _build_signature_base(self, message, *, signature_params, **rest):
        ordered = {name: signature_params[name] for name in ORDER}
        assert len(ordered) == len(signature_params), signature_params
        return super()._build_signature_base(message, signature_params=ordered, **rest)


class Verifier(HTTPMessageVerifier):
    """hb trusts no clock: the judge must not either."""

    max_clock_skew = datetime.timedelta(days=365 * 200)


def body_of(request):
    return base64.b64decode(request["body"])


def sign(request):
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(request["seed"]))
    message = Message(request)
    signer = Signer(
        signature_algorithm=ED25519,
        key_resolver=MappingKeyResolver(public_keys={}, private_keys={request["keyid"]: key}),
    )
    signer.sign(
        message,
        key_id=request["keyid"],
        created=datetime.datetime.fromtimestamp(request["created"], tz=datetime.timezone.utc),
        nonce=request["nonce"],
        label="hb",
        tag=TAG,
        include_alg=False,
        covered_component_ids=COMPONENTS,
        body=body_of(request),
    )
    return {"headers": {name.lower(): value for name, value in message.headers.items()}}


def verify(request):
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(request["key"]))
    verifier = Verifier(
        signature_algorithm=ED25519,
        key_resolver=MappingKeyResolver(public_keys={request["keyid"]: key}, private_keys={}),
    )
    try:
        (result,) = verifier.verify(
            Message(request), max_age=None, expect_tag=TAG, require_components=COMPONENTS, body=body_of(request)
        )
    except InvalidSignature as refusal:
        return {"ok": False, "why": str(refusal)}
    return {"ok": True, "nonce": result.nonce, "created": result.parameters["created"]}


def main():
    print(json.dumps({"library": "http-message-signatures " + version("http-message-signatures")}))
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps({"sign": sign, "verify": verify}[request["do"]](request)))


main()
