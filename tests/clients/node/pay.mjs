// One payment with the official Stripe SDK, against any address; what came of it as a line of JSON.
// node pay.mjs ADDRESS AMOUNT RETRIES [KEY] [TAKES_MS]; the SDK makes a key of its own where none is given.
import Stripe from "stripe";

const [address, amount, retries, key, takes] = process.argv.slice(2);
const url = new URL(address);
const stripe = new Stripe("sk_test_semel", {
  host: url.hostname,
  port: url.port,
  protocol: "http",
  maxNetworkRetries: Number(retries),
  telemetry: false,
});
let attempts = 0;
stripe.on("request", () => (attempts += 1));

let result;
try {
  const metadata = takes ? { takes_ms: takes } : undefined;
  const options = key ? { idempotencyKey: key } : undefined;
  const payment = await stripe.paymentIntents.create({ amount: Number(amount), currency: "eur", metadata }, options);
  const { statusCode, headers } = payment.lastResponse;
  result = { id: payment.id, status: statusCode, replayed: headers["idempotent-replayed"] === "true" };
} catch (error) {
  result = { error: error.code ?? error.message, status: error.statusCode ?? null };
}
console.log(JSON.stringify({ ...result, attempts }));
