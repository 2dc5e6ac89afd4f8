// Signs and verifies with the providers' own libraries. A JSON list of tasks on standard input, one of results on standard
// output: {"signature"} for a task that signs, {"holds", "said"} for one that verifies.
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import EasyPost from "@easypost/api";
import "@shopify/shopify-api/adapters/node";
import { LogSeverity, shopifyApi } from "@shopify/shopify-api";
import { Webhook as Standard } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as Svix } from "svix";

const libraries = { standardwebhooks: Standard, svix: Svix };

const verifiers = {
  shopify({ secret, headers, body }) {
    const shopify = shopifyApi({
      apiKey: "key",
      apiSecretKey: secret,
      apiVersion: "2026-10",
      hostName: "localhost",
      isEmbeddedApp: false,
      logger: { level: LogSeverity.Error },
    });
    const rawRequest = { method: "POST", url: "/", headers };
    return shopify.webhooks.validate({ rawBody: body, rawRequest }).then((judged) => {
      if (!judged.valid) throw new Error(judged.reason);
    });
  },
  easypost({ secret, headers, body }) {
    new EasyPost("key").Utils.validateWebhook(Buffer.from(body), headers, secret);
  },
};

function sign({ library, secret, id, timestamp, body }) {
  if (library === "stripe") {
    return { signature: Stripe.webhooks.generateTestHeaderString({ payload: body, secret, timestamp }) };
  }
  if (library === "aftership") {
    // There is no library; this is what its documentation has its users compute.
    return { signature: createHmac("sha256", secret).update(body, "utf8").digest("base64") };
  }
  return { signature: new libraries[library](secret).sign(id, new Date(timestamp * 1000), body) };
}

async function verify(task) {
  const { library, secret, headers, body } = task;
  try {
    if (verifiers[library]) await verifiers[library](task);
    else new libraries[library](secret).verify(body, headers);
    return { holds: true };
  } catch (error) {
    return { holds: false, said: error.message };
  }
}

const results = [];
for (const task of JSON.parse(readFileSync(0, "utf8"))) {
  results.push(task.action === "sign" ? sign(task) : await verify(task));
}
console.log(JSON.stringify(results));
