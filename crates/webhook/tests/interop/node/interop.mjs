// Signs and verifies with the providers' own libraries. A JSON list of tasks on standard input, one of results on standard
// output: {"signature"} for a task that signs, {"holds", "said"} for one that verifies.
import { readFileSync } from "node:fs";
import { Webhook as Standard } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as Svix } from "svix";

const libraries = { standardwebhooks: Standard, svix: Svix };

function sign({ library, secret, id, timestamp, body }) {
  if (library === "stripe") {
    return { signature: Stripe.webhooks.generateTestHeaderString({ payload: body, secret, timestamp }) };
  }
  return { signature: new libraries[library](secret).sign(id, new Date(timestamp * 1000), body) };
}

function verify({ library, secret, headers, body }) {
  try {
    new libraries[library](secret).verify(body, headers);
    return { holds: true };
  } catch (error) {
    return { holds: false, said: error.message };
  }
}

const tasks = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(tasks.map((task) => (task.action === "sign" ? sign(task) : verify(task)))));
