"""Damage and lies in JSON: values of another type, of another size, texts that are no JSON."""

import copy
import json
from random import Random
from typing import Any

# Tokens that json.dumps does not write stand for themselves until the text is made.
_RAW = {
    "@digits@": "9" * 5000,
    "@manydigits@": "1" + "0" * 400,
    "@float@": "1e400",
    "@nan@": "NaN",
    "@infinity@": "-Infinity",
    "@deep@": "[" * 3000 + "]" * 3000,
    "@deepobject@": '{"a":' * 3000 + "1" + "}" * 3000,
    "@surrogate@": '"\\ud800"',
    "@null@": '"a\\u0000b\\u001b[31m\\n"',
    "@small@": "1e-999999",
}
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.0, -0.5, 2**31, 2**53 + 1, 2**63, -(2**63), 1e308, 5e-324),
    *("", " ", "inf", "nan", "1e999999999", "0x1p+99999", "1/0", "../../x", "x" * 5000, "é🎨"),
    *([], {}, [[]], [None], {"": None}, [1, "a"], {"a": {"b": {}}}, ["dcgan64"] * 3),
    *_RAW,
)
_KEYS = ("", "extra", "__class__", "__proto__", "x" * 3000, "step", "id", "\u202e")


def mutated_document(draw: Random, document: Any) -> tuple[str, bytes]:
    """Return what was done and the text of a document after one to three changes."""
    changed = copy.deepcopy(document)
    labels = []
    for _ in range(draw.choice((0, 1, 1, 1, 1, 2, 3))):
        label, changed = _change(draw, changed)
        labels.append(label)
    text = _text(draw, changed)
    if draw.random() < 0.1:
        odd = draw.choice(_ODD_TEXTS)
        return f"{' '.join(labels)} {odd.__name__}", odd(draw, text)
    return " ".join(labels) or "intact", text.encode("utf-8", "surrogatepass")


def _change(draw: Random, document: Any) -> tuple[str, Any]:
    places = list(_places(document))
    if not places or draw.random() < 0.03:
        return "other document", copy.deepcopy(draw.choice(_VALUES))
    holder, key = draw.choice(places)
    action = draw.choice(("replace", "replace", "replace", "swap", "remove", "add", "repeat"))
    if action == "replace":
        holder[key] = copy.deepcopy(draw.choice(_VALUES))
    elif action == "swap":
        other, other_key = draw.choice(places)
        holder[key] = copy.deepcopy(other[other_key])
    elif action == "remove":
        del holder[key]
    elif isinstance(holder, dict):
        holder[draw.choice(_KEYS)] = copy.deepcopy(holder[key])
    else:
        holder.extend([copy.deepcopy(holder[key])] * draw.choice((1, 1, 3, 2000)))
    return f"{action} {str(key)[:40]}", document


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (holder, key) of a document, without going down by recursion."""
    found: list[tuple[Any, Any]] = []
    waiting = [value] if isinstance(value, dict | list) else []
    while waiting:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, item in list(items):
            found.append((holder, key))
            if isinstance(item, dict | list):
                waiting.append(item)
    return found


def _text(draw: Random, document: Any) -> str:
    text = json.dumps(document, indent=draw.choice((None, 1)))
    for token, raw in _RAW.items():
        text = text.replace(f'"{token}"', raw)
    return text


def other_encoding(draw: Random, text: str) -> bytes:
    return text.encode(draw.choice(("utf-16", "utf-32", "utf-8-sig")), "surrogatepass")


def twice(draw: Random, text: str) -> bytes:
    return (text + text).encode("utf-8", "surrogatepass")


def deep(draw: Random, text: str) -> bytes:
    depth = draw.choice((900, 5000, 200_000))
    return draw.choice((b"[", b'{"a":')) * depth


def odd_bytes(draw: Random, text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").replace(b"a", b"\xff", 1)


def cut(draw: Random, text: str) -> bytes:
    return text[: draw.randrange(len(text) + 1)].encode("utf-8", "surrogatepass")


def repeated_key(draw: Random, text: str) -> bytes:
    return text.replace("{", '{"a": 1, "a": 2, ', 1).encode("utf-8", "surrogatepass")


_ODD_TEXTS = (other_encoding, twice, deep, odd_bytes, cut, repeated_key)
