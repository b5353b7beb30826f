// Signs and verifies hb's messages with the npm packages http-message-sig and http-message-signatures.
//
// node interop.mjs MODULES LIBRARY: reads one JSON request a line from stdin, answers one JSON document a line on
// stdout; the first line of the answer says which library this is. Started by crates/hb-wire/tests/it/interop.rs.

import crypto from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import readline from "node:readline";

const [modules, library] = process.argv.slice(2);
const require = createRequire(`${modules}/`);

const COMPONENTS = ["@method", "@authority", "@path", "content-digest"];
const PARAMETERS = ["created", "nonce", "keyid", "tag"];
const TAG = "hb/1";

// RFC 8410: what precedes the 32 bytes of a key in DER.
const PRIVATE_DER = Buffer.from("302e020100300506032b657004220420", "hex");
const PUBLIC_DER = Buffer.from("302a300506032b6570032100", "hex");
const bytes = (text) => Buffer.from(text, "base64");
const privateKey = (seed) =>
  crypto.createPrivateKey({ key: Buffer.concat([PRIVATE_DER, bytes(seed)]), format: "der", type: "pkcs8" });
const publicKey = (key) =>
  crypto.createPublicKey({ key: Buffer.concat([PUBLIC_DER, bytes(key)]), format: "der", type: "spki" });

// Neither library looks at the body: RFC 9530 is done here.
const digestOf = (body) => `sha-256=:${crypto.createHash("sha256").update(bytes(body)).digest("base64")}:`;
const digestMatches = (request) => request.headers["content-digest"] === digestOf(request.body);

const judges = {
  "http-message-sig": ({ createSignature, verifySignature, isSignatureError }) => {
    const descriptor = (request, headers) => ({
      kind: "request",
      method: request.method,
      targetUri: request.url,
      fields: Object.entries(headers).map(([name, value]) => ({ name, value })),
    });
    return {
      async sign(request) {
        const digest = digestOf(request.body);
        const key = privateKey(request.seed);
        const { created, nonce, keyid } = request;
        const fields = await createSignature(descriptor(request, { "content-digest": digest }), {
          label: "hb",
          components: COMPONENTS,
          parameters: { created, nonce, keyid, tag: TAG },
          signer: { algorithm: "ed25519", sign: (data) => crypto.sign(null, data, key) },
        });
        return { "content-digest": digest, "signature-input": fields.signatureInput, signature: fields.signature };
      },
      async verify(request) {
        const key = publicKey(request.key);
        try {
          const verified = await verifySignature(descriptor(request, request.headers), {
            label: "hb",
            policy: {
              algorithms: ["ed25519"],
              requiredComponents: COMPONENTS,
              requiredParameters: PARAMETERS,
              clockSkew: Number.MAX_SAFE_INTEGER,
            },
            resolveVerifier: () => ({
              algorithm: "ed25519",
              verify: (data, signature) => crypto.verify(null, data, key, signature),
            }),
          });
          return verified.parameters;
        } catch (error) {
          if (isSignatureError(error)) return null;
          throw error;
        }
      },
    };
  },
  "http-message-signatures": ({ httpbis, createSigner, createVerifier }) => ({
    async sign(request) {
      const digest = digestOf(request.body);
      const { created, nonce, keyid } = request;
      const signed = await httpbis.signMessage(
        {
          key: createSigner(privateKey(request.seed), "ed25519"),
          name: "hb",
          fields: COMPONENTS,
          params: PARAMETERS,
          paramValues: { created: new Date(created * 1000), nonce, keyid, tag: TAG },
        },
        { method: request.method, url: request.url, headers: { "content-digest": digest } },
      );
      const { "Signature-Input": input, Signature: signature } = signed.headers;
      return { "content-digest": digest, "signature-input": input, signature };
    },
    async verify(request) {
      let seen = null;
      const ok = await httpbis.verifyMessage(
        {
          keyLookup: async (parameters) => {
            seen = { nonce: parameters.nonce, created: parameters.created.getTime() / 1000 };
            return { verify: createVerifier(publicKey(request.key), "ed25519") };
          },
          notAfter: Number.MAX_SAFE_INTEGER,
          requiredParams: PARAMETERS,
          requiredFields: COMPONENTS,
        },
        { method: request.method, url: request.url, headers: request.headers },
      );
      return ok === true ? seen : null;
    },
  }),
};

const judge = judges[library](require(library));
const { version } = JSON.parse(readFileSync(`${modules}/node_modules/${library}/package.json`, "utf8"));
process.stdout.write(`${JSON.stringify({ library: `${library} ${version}` })}\n`);

for await (const line of readline.createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let answer;
  if (request.do === "sign") {
    answer = { headers: await judge.sign(request) };
  } else {
    const seen = digestMatches(request) ? await judge.verify(request) : null;
    answer = seen ? { ok: true, nonce: seen.nonce, created: seen.created } : { ok: false };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
