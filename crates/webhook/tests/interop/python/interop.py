"""Signs and verifies with the providers' own libraries. A JSON list of tasks on standard input, one of results on standard
output: {"signature"} for a task that signs, {"holds", "said"} for one that verifies.
"""

import json
import sys
from datetime import datetime, timezone

import standardwebhooks
import stripe
import svix.webhooks

libraries = {"standardwebhooks": standardwebhooks.Webhook, "svix": svix.webhooks.Webhook}


def sign(task):
    timestamp, body = task["timestamp"], task["body"]
    if task["library"] == "stripe":
        # The library signs nothing in public; this is what its own verification computes.
        code = stripe.WebhookSignature._compute_signature(f"{timestamp}.{body}", task["secret"])
        return {"signature": f"t={timestamp},v1={code}"}
    webhook = libraries[task["library"]](task["secret"])
    return {"signature": webhook.sign(task["id"], datetime.fromtimestamp(timestamp, timezone.utc), body)}


def verify(task):
    try:
        libraries[task["library"]](task["secret"]).verify(task["body"], task["headers"])
    except Exception as error:  # whatever it is, the test shows it
        return {"holds": False, "said": repr(error)}
    return {"holds": True}


actions = {"sign": sign, "verify": verify}
print(json.dumps([actions[task["action"]](task) for task in json.load(sys.stdin)]))
