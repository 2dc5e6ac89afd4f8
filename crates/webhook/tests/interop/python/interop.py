"""Signs and verifies with the providers' own libraries. A JSON list of tasks on standard input, one of results on standard
output: {"signature"} for a task that signs, {"holds", "said"} for one that verifies.
"""

import json
import sys
from datetime import datetime, timezone

import Adyen.util
import easypost.util
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
    if task["library"] == "adyen":
        item = json.loads(body)["notificationItems"][0]["NotificationRequestItem"]
        return {"signature": Adyen.util.generate_notification_sig(item, task["secret"]).decode()}
    webhook = libraries[task["library"]](task["secret"])
    return {"signature": webhook.sign(task["id"], datetime.fromtimestamp(timestamp, timezone.utc), body)}


def adyen(task):
    item = json.loads(task["body"])["notificationItems"][0]["NotificationRequestItem"]
    if not Adyen.util.is_valid_hmac_notification(item, task["secret"]):
        raise ValueError("not valid")


def by_easypost(task):
    easypost.util.validate_webhook(task["body"].encode(), task["headers"], task["secret"])


verifiers = {"adyen": adyen, "easypost": by_easypost}


def verify(task):
    try:
        if task["library"] in verifiers:
            verifiers[task["library"]](task)
        else:
            libraries[task["library"]](task["secret"]).verify(task["body"], task["headers"])
    except Exception as error:  # whatever it is, the test shows it
        return {"holds": False, "said": repr(error)}
    return {"holds": True}


actions = {"sign": sign, "verify": verify}
print(json.dumps([actions[task["action"]](task) for task in json.load(sys.stdin)]))
