"""One payment with the official Stripe SDK, against any address; what came of it as a line of JSON.

pay.py ADDRESS AMOUNT RETRIES [KEY] [TAKES_MS]; the SDK makes a key of its own where none is given.
"""

import json
import sys

import stripe

address, amount, retries, key, takes = (sys.argv[1:] + ["", ""])[:5]
client = stripe.StripeClient(
    "sk_test_semel", base_addresses={"api": address}, max_network_retries=int(retries)
)
params = {"amount": int(amount), "currency": "eur"}
if takes:
    params["metadata"] = {"takes_ms": takes}
try:
    payment = client.v1.payment_intents.create(params, {"idempotency_key": key} if key else {})
    answer = payment.last_response
    replayed = answer.headers.get("idempotent-replayed") == "true"
    print(json.dumps({"id": payment.id, "status": answer.code, "replayed": replayed}))
except stripe.StripeError as error:
    said = (error.json_body or {}).get("error", {})
    print(json.dumps({"error": said.get("code") or str(error), "status": error.http_status}))
