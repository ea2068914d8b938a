"""Digests are SHA-256 by its published vectors."""

import pytest

from hasher.digest import DamagedMessage, digest, verified

VECTORS = [  # FIPS 180-4 examples, NIST CSRC
    (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (b"a" * 10**6, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
]


@pytest.mark.parametrize(("message", "name"), VECTORS)
def test_the_published_vectors_hold(message: bytes, name: str) -> None:
    assert digest(message) == name
    assert verified(message, name) is message


def test_another_message_under_the_name_is_damage() -> None:
    with pytest.raises(DamagedMessage) as raised:
        verified(b"abd", VECTORS[1][1])
    assert raised.value.digest == VECTORS[1][1]
