"""A service that nobody wants to change: it takes orders and knows nothing of idempotency keys.

Each request that reaches it is another order. Run it with `python3 service.py 9000`, and the gateway before it (see
README.md).
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

orders = []
lock = Lock()


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        # Warehouses take their time.
        time.sleep(order.get("takes_ms", 0) / 1000)
        with lock:
            order["id"] = f"ORD-{len(orders) + 1}"
            orders.append(order)
        self.answer(201, order)

    def do_GET(self):
        self.answer(200, orders)

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), Shop)
print(f"listening: http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
