"""One order with a plain client that retries: requests over urllib3's Retry; what came of it as a line of JSON.

order.py ADDRESS KEY BODY
"""

import json
import sys

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

address, key, body = sys.argv[1:4]
# Whatever fails is tried again, POST included: that is what the key is for.
retry = Retry(total=5, backoff_factor=0.05, status_forcelist=[409, 503], allowed_methods=None, raise_on_status=False)
session = requests.Session()
session.mount("http://", HTTPAdapter(max_retries=retry))
headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
answer = session.post(f"{address}/orders", data=body, headers=headers, timeout=30)
said = answer.json()
replayed = answer.headers.get("idempotent-replayed") == "true"
print(json.dumps({"id": said.get("id"), "error": said.get("code"), "status": answer.status_code, "replayed": replayed}))
