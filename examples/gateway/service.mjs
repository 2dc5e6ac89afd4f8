// A service that nobody wants to change: it takes payments and knows nothing of idempotency keys. Each request that
// reaches it is another payment. Run it with `node service.mjs 9000`, and the gateway before it (see README.md).
import http from "node:http";

const payments = [];

const read = async (request) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces).toString();
};

const answer = (response, status, value) => {
  response.writeHead(status, { "content-type": "application/json", "set-cookie": "visited=yes" });
  response.end(JSON.stringify(value));
};

const server = http.createServer(async (request, response) => {
  const path = new URL(request.url, "http://localhost").pathname;
  if (request.method === "POST" && path === "/v1/payment_intents") {
    const fields = new URLSearchParams(await read(request));
    // Card processors take their time.
    await new Promise((resolve) => setTimeout(resolve, Number(fields.get("metadata[takes_ms]") ?? 0)));
    const payment = { id: `pi_${payments.length + 1}`, object: "payment_intent", amount: Number(fields.get("amount")), status: "succeeded" };
    payments.push(payment);
    answer(response, 200, payment);
  } else if (request.method === "GET" && path === "/v1/payment_intents") {
    answer(response, 200, { object: "list", url: path, has_more: false, data: payments });
  } else {
    answer(response, 404, { error: { type: "invalid_request_error", message: "There is nothing here." } });
  }
});

server.listen(Number(process.argv[2] ?? 9000), "127.0.0.1", () => {
  console.log(`listening: http://127.0.0.1:${server.address().port}`);
});
