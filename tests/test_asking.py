"""Usage that nobody asked for is asked for: what becomes of the body of a request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cmdrdata_transport.asking import LARGEST_REQUEST, asking, may_change
from cmdrdata_transport.wire.json import parse

PROMPTS = st.text() | st.sampled_from(
    [
        '"stream": true',
        '"stream_options": {',
        '"stream_options": null',
        '{"stream_options": {"include_usage": false}}',
        "\\",
        "}",
        '"}',
        "include_usage",
        "\u2028\ud800",
    ]
)
NAMES = st.sampled_from(["stream", "stream_options", "messages", "content", "metadata", "include_usage"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PROMPTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PROMPTS | NAMES, inner, max_size=3),
    max_leaves=8,
)
OPTIONS = st.none() | st.dictionaries(
    st.sampled_from(["include_obfuscation", "continuous_usage_stats", "stream_options"]), VALUES
)
WRITTEN: list[dict[str, Any]] = [
    {"separators": (",", ":"), "ensure_ascii": False},
    {"separators": (" , ", " : ")},
    {"indent": 2},
    {"indent": "\t", "ensure_ascii": False},
    {},
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """The body of a request for a stream that does not say whether it wants usage, written in some way."""
    members = draw(st.dictionaries(PROMPTS | NAMES, VALUES, max_size=4))
    members.pop("stream", None)
    members.pop("stream_options", None)
    pairs = [*members.items(), ("stream", True)]
    if draw(st.booleans()):
        pairs.append(("stream_options", draw(OPTIONS)))
    text = json.dumps(dict(draw(st.permutations(pairs))), **draw(st.sampled_from(WRITTEN)))
    before = draw(st.sampled_from([b"", b" \n", b"\xef\xbb\xbf"]))
    return before + text.encode("utf-8", "surrogatepass") + draw(st.sampled_from([b"", b"\n", b" \r\n\t"]))


def is_one_splice(old: bytes, new: bytes) -> bool:
    """Whether `new` is `old` with something put in at one place, or in the place of one `null`."""
    same = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(old))
    # A splice may begin with what stands behind it, so it may have been anywhere before.
    return any(
        old[at : at + len(gone)] == gone and new.endswith(old[at + len(gone) :])
        for gone in (b"", b"null")
        for at in range(same + 1)
        if len(new) >= len(old) - len(gone)
    )


@given(body=requests())
@example(body=b'{"stream":true}')
@example(body=b'{"stream_options":{ \n},"stream" : true , "m":{"stream_options":{}}}\n')
@example(body=b'{"metadata":{"stream_options":null},"stream_options":null,"stream":true}')
@example(body=b'{"stream":false,"stream":true,"stream_options":{"include_usage":true},"stream_options":{}}')
def test_a_body_asks_for_usage_by_one_splice(body: bytes) -> None:
    """Any request for a stream becomes the same request and the option; nothing else moves by a byte."""
    asked = asking(body)
    assert asked is not None
    document = parse(body)
    options = {**(document.get("stream_options") or {}), "include_usage": True}
    assert parse(asked) == {**document, "stream_options": options}
    assert is_one_splice(body, asked)
    assert asking(asked) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'["stream", true]',
        b'{"stream": true',
        b'{"stream": true} {}',
        b'{"model": "m"}',
        b'{"stream": false}',
        b'{"stream": 1}',
        b'{"stream": "true"}',
        b'{"stream": null}',
        b'{"stream": true, "stream": false}',
        b'{"messages": [{"stream": true}]}',
        b'{"prompt": "\\"stream\\": true"}',
        b'{"stream": true, "stream_options": {"include_usage": true}}',
        b'{"stream": true, "stream_options": {"include_usage": false}}',
        b'{"stream": true, "stream_options": {"include_usage": null}}',
        b'{"stream": true, "stream_options": []}',
        b'{"stream": true, "stream_options": "none"}',
        b'{"stream": true, "stream_opti\\u006fns": {}}',
        '{"stream": true}'.encode("utf-16"),
        b'{"stream": true, "prompt": "%s"}' % (b"x" * LARGEST_REQUEST),
    ],
    ids=lambda body: body[:60].decode("latin-1"),
)
def test_a_body_is_left_as_it_is(body: bytes) -> None:
    """No stream, no JSON, too large, or the caller's own word on usage: nothing is changed."""
    assert asking(body) is None


def test_a_body_full_of_the_same_words_costs_no_time() -> None:
    """Only a few places are tried for the caller's own options; among too many it is left alone."""
    words = b'{"stream_options":{}},' * 20_000
    assert asking(b'{"stream":true,"m":[%s0],"stream_options":{}}' % words) is None


@pytest.mark.parametrize(
    ("headers", "may"),
    [
        ([(b"Authorization", b"Bearer sk-1")], True),
        ([(b"authorization", b"Basic c2lnbmF0dXJl")], True),
        ([(b"api-key", b"k"), (b"x-stainless-lang", b"python")], True),
        ([(b"Authorization", b"AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c")], False),
        ([(b"Authorization", b'Signature version="1",headers="date x-content-sha256"')], False),
        ([(b"Authorization", b"HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c")], False),
        ([(b"Authorization", b'Digest username="a", qop=auth-int')], False),
        ([(b"X-Amz-Content-SHA256", b"0")], False),
        ([(b"Content-Digest", b"sha-256=:x:")], False),
        ([(b"Signature-Input", b"sig=()")], False),
        ([(b"Content-MD5", b"x")], False),
        ([(b"X-Hub-Signature", b"x")], False),
        ([(b"Content-Encoding", b"gzip")], False),
    ],
)
def test_what_is_signed_or_coded_may_not_change(headers: list[tuple[bytes, bytes]], may: bool) -> None:  # noqa: FBT001
    """A signature or a digest of the body would be wrong of another body; a coding hides it."""
    names = b"\n".join(name for name, _ in headers).lower()
    assert may_change(names, headers) is may
