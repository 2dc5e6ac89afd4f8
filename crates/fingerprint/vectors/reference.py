"""The fingerprint algorithm a second time, in another language, to make the vectors and to learn it from.

`python3 reference.py > fingerprint.json` (needs `pip install blake3`). It shares no code with the Rust crate, so a
vector on which both agree is evidence; written for reading, not for speed, and without the Rust crate's limits.
"""

import json
import re
import sys
from decimal import Decimal

import blake3

OPERATION, METHOD, PATH, QUERY, JSON, RAW, MULTIPART, NAME, VALUE, PART = range(1, 11)
ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Number(str):
    """A number's spelling, kept as text so that nothing is rounded."""


def no_duplicates(pairs):
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("duplicate name")
    return dict(pairs)


def refuse(word):
    raise ValueError(word)


def parse(document):
    text = document.decode("utf-8")
    return json.loads(
        text, object_pairs_hook=no_duplicates, parse_int=Number, parse_float=Number, parse_constant=refuse
    )


def write_number(spelling):
    sign, digits, exponent = Decimal(spelling).as_tuple()
    digits = "".join(map(str, digits)).lstrip("0")
    stripped = digits.rstrip("0")
    if not stripped:
        return "0"
    point = len(digits) + exponent
    digits, count, minus = stripped, len(stripped), "-" if sign else ""
    if count <= point <= 21:
        return minus + digits + "0" * (point - count)
    if 0 < point <= 21:
        return minus + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return minus + "0." + "0" * -point + digits
    mantissa = digits[0] + ("." + digits[1:] if count > 1 else "")
    return f"{minus}{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def write_string(text):
    out = []
    for char in text:
        if char in ESCAPES:
            out.append(ESCAPES[char])
        elif char < " " or 0xD800 <= ord(char) <= 0xDFFF:
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def write(value):
    if isinstance(value, Number):
        return write_number(value)
    if isinstance(value, str):
        return write_string(value)
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{write_string(name)}:{write(value[name])}" for name in names) + "}"
    return {None: "null", True: "true", False: "false"}[value]


def canonical(document):
    return write(parse(document)).encode("utf-8")


def framed(tag, content):
    return bytes([tag]) + len(content).to_bytes(8, "big") + content


def one_spelling(text):
    def escape(match):
        char = chr(int(match[1], 16))
        return char if re.fullmatch(r"[A-Za-z0-9._~-]", char) else match[0].upper()

    return re.sub("%([0-9A-Fa-f]{2})", escape, text).encode("utf-8")


def write_query(query):
    pairs = [piece.partition("=") for piece in query.split("&") if piece]
    pairs = [(one_spelling(name), one_spelling(value) if equals else None) for name, equals, value in pairs]
    pairs.sort(key=lambda pair: pair[0])
    return b"".join(framed(NAME, name) + (b"" if value is None else framed(VALUE, value)) for name, value in pairs)


def write_parts(boundary, body):
    text = ("\r\n" + body).encode("utf-8")
    pieces = text.split(f"\r\n--{boundary}".encode())
    closing = next((at for at, piece in enumerate(pieces) if at and piece.startswith(b"--")), None)
    if closing is None:
        raise ValueError("no closing boundary")
    out = b""
    for piece in pieces[1:closing]:
        head, _, content = piece.partition(b"\r\n\r\n")
        lines = [line.partition(b":") for line in head.strip().split(b"\r\n") if line]
        headers = sorted(((name.lower(), value.strip()) for name, _, value in lines), key=lambda pair: pair[0])
        written = b"".join(framed(NAME, name) + framed(VALUE, value) for name, value in headers)
        out += framed(PART, written + framed(RAW, content))
    return out


def fingerprint(request):
    message = b"semel-fingerprint\x01"
    for tag, part in ((OPERATION, "operation"), (METHOD, "method")):
        if part in request:
            message += framed(tag, request[part].encode("utf-8"))
    if "path" in request:
        message += framed(PATH, one_spelling(request["path"]))
    if query := write_query(request.get("query", "")):
        message += framed(QUERY, query)
    if "json" in request:
        body = request["json"].encode("utf-8")
        try:
            message += framed(JSON, canonical(body))
        except ValueError:
            message += framed(RAW, body)
    if "raw" in request:
        message += framed(RAW, request["raw"].encode("utf-8"))
    if "multipart" in request:
        boundary, body = request["multipart"]["boundary"], request["multipart"]["body"]
        try:
            message += framed(MULTIPART, write_parts(boundary, body))
        except ValueError:
            message += framed(RAW, body.encode("utf-8"))
    return "1:" + blake3.blake3(message).hexdigest()


DOCUMENTS = [
    "{}", "[]", '""', "0", " null ", "[true, false]", '{"b":1,"a":2}', '{"a":{"z":[{"y":1,"x":2}],"b":0}}',
    '{"\\u20ac":1,"\\r":2,"\\ufb33":3,"1":4,"\\ud83d\\ude00":5,"\\u0080":6,"\\u00f6":7}',
    '{"":1,"a":2,"aa":3,"A":4}', '"\\u0041\\/\\u000a\\"\\\\\\u001F\\u007f\\b\\f\\r\\t"', '"\\ud83d\\ude00"',
    '"\\uD800"', '"\\udc00\\ud800x"', '"e\\u0301"', '"\u00e9"', '"\u2028"',
    "1.0", "1e0", "10e-1", "-0", "0.000", "-0e9", "100", "1E2", "0.1", "1e-1", "1e20", "1e21", "1e-6", "1e-7",
    "-1.25e-8", "9007199254740992", "9007199254740993", "9007199254740993.0", "0.1000000000000000055511151231257827",
    "123456789012345678901", "1234567890123456789012", "333333333.33333329", "1.7976931348623157e308", "5e-324",
    '{"a":1,"a":1}', '{"a":1,"\\u0061":2}', "{", "[1,]", "01", "+1", "NaN", "'a'", '"\t"', "\ufeff{}", "1 2", "",
]
ORDER = '{"amount": 10.50, "currency": "IDR", "customer": {"name": "Ayu", "id": 9007199254740993}}'
SAME = '{"customer":{"id":9007199254740993.0,"name":"\\u0041yu"},"currency":"IDR","amount":1.05e1}'
FORM = '--{0}\r\nContent-Disposition: form-data; name="n"\r\n\r\nv\r\n--{0}\r\nA:1\r\n\r\n\r\n--{0}--\r\n'
REQUESTS = [
    ("nothing", {}),
    ("an operation alone", {"operation": "email.send"}),
    ("an operation with a payload", {"operation": "payment.charge", "json": ORDER}),
    ("the same payload spelled otherwise", {"operation": "payment.charge", "json": SAME}),
    ("another operation", {"operation": "payment.refund", "json": ORDER}),
    ("the same bytes raw", {"operation": "payment.charge", "raw": ORDER}),
    ("a name twice is raw", {"operation": "payment.charge", "json": '{"a":1,"a":2}'}),
    ("an empty payload", {"operation": "payment.charge", "raw": ""}),
    ("a request", {"method": "POST", "path": "/api/v1/orders", "query": "b=2&a=1", "json": "{}"}),
    ("query order", {"method": "POST", "path": "/api/v1/orders", "query": "a=1&b=2", "json": "{}"}),
    ("order within a name", {"method": "POST", "path": "/api/v1/orders", "query": "a=2&a=1"}),
    ("the other order within a name", {"method": "POST", "path": "/api/v1/orders", "query": "a=1&a=2"}),
    ("with and without value", {"query": "a&b="}),
    ("escapes in a path", {"method": "PUT", "path": "/a%7eb/c%2fd"}),
    ("the same path", {"method": "PUT", "path": "/a~b/c%2Fd"}),
    ("framing, one way", {"operation": "ab", "method": "c"}),
    ("framing, the other way", {"operation": "a", "method": "bc"}),
    ("a form", {"method": "POST", "multipart": {"boundary": "one", "body": FORM.format("one")}}),
    ("the same form", {"method": "POST", "multipart": {"boundary": "2", "body": "hello\r\n" + FORM.format("2")}}),
    ("a form without its end", {"method": "POST", "multipart": {"boundary": "one", "body": "--one\r\n\r\nv"}}),
    ("not ASCII", {"operation": "größe", "path": "/größe", "json": '"größe 😀"'}),
]


def documents():
    for document in DOCUMENTS:
        try:
            form = canonical(document.encode("utf-8")).decode("utf-8")
        except ValueError:
            form = None
        yield {"json": document, "canonical": form}


if __name__ == "__main__":
    vectors = {
        "algorithm_version": 1,
        "canonical_json": list(documents()),
        "fingerprints": [
            {"about": about, "request": request, "fingerprint": fingerprint(request)} for about, request in REQUESTS
        ],
    }
    json.dump(vectors, sys.stdout, indent=2)
    print()
