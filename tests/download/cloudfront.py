"""Signs links as CloudFront's customers do, and judges them as CloudFront does.

RSA with PKCS #1 v1.5 and SHA-1 is a power modulo a number, so that no package is needed.

Source: "Creating a signed URL using a custom policy" and "… a canned policy" in the documentation
of Amazon CloudFront.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import random
from urllib.parse import parse_qsl

PREFIX = bytes.fromhex("3021300906052b0e03021a05000414")  # ASN.1: a SHA-1 follows
PUBLIC_EXPONENT = 65537
NBYTES = 128


def is_prime(number: int, source: random.Random) -> bool:
    """Test a large odd number after Miller and Rabin."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(20):
        value = pow(source.randrange(2, number - 1), odd, number)
        powers = [pow(value, 2**power, number) for power in range(twos)]
        if value != 1 and number - 1 not in powers:
            return False
    return True


class Signer:
    """A key pair of CloudFront."""

    def __init__(self, seed: int = 7, key_pair_id: str = "K15QRJLYKIFSLZ") -> None:
        source = random.Random(seed)
        primes: list[int] = []
        while len(primes) < 2:
            number = source.getrandbits(NBYTES * 4) | (3 << (NBYTES * 4 - 2)) | 1
            if (number - 1) % PUBLIC_EXPONENT and is_prime(number, source):
                primes.append(number)
        self.key_pair_id = key_pair_id
        self.modulus = primes[0] * primes[1]
        self._secret = pow(PUBLIC_EXPONENT, -1, (primes[0] - 1) * (primes[1] - 1))

    def custom(self, resource: str, ends: int, unique_hash: str = "") -> str:
        """Return the query for every file that a resource with wildcards covers."""
        policy = policy_of(resource, ends, **({"unique_hash": unique_hash} if unique_hash else {}))
        return f"Policy={letters(policy)}&Signature={self._sign(policy)}&{self._id()}"

    def canned(self, address: str, ends: int) -> str:
        """Return the query for one address."""
        policy = policy_of(address, ends)
        return f"Expires={ends}&Signature={self._sign(policy)}&{self._id()}"

    def accepts(self, address: str, query: str) -> bool:
        """Judge a request as the server does, by the bytes that came: nothing is decoded."""
        values = dict(parse_qsl(query.replace("%", "!")))
        if values.get("Key-Pair-Id") != self.key_pair_id:
            return False
        if "Policy" in values:
            try:
                policy = base64.b64decode(values["Policy"].translate(str.maketrans("-_~", "+=/")))
                resource = json.loads(policy)["Statement"][0]["Resource"]
            except ValueError:
                return False
        else:
            resource = address
            policy = policy_of(resource, int(values["Expires"]))
        is_signed = values["Signature"] == self._sign(policy)
        return is_signed and fnmatch.fnmatchcase(address, resource)

    def _sign(self, policy: bytes) -> str:
        digest = PREFIX + hashlib.sha1(policy).digest()
        padded = b"\0\1" + b"\xff" * (NBYTES - len(digest) - 3) + b"\0" + digest
        number = pow(int.from_bytes(padded, "big"), self._secret, self.modulus)
        return letters(number.to_bytes(NBYTES, "big"))

    def _id(self) -> str:
        return f"Key-Pair-Id={self.key_pair_id}"


def policy_of(resource: str, ends: int, **more: object) -> bytes:
    """Write a policy as it is signed: without white space."""
    condition = {"DateLessThan": {"AWS:EpochTime": ends}}
    statement = {**more, "Resource": resource, "Condition": condition}
    return json.dumps({"Statement": [statement]}, separators=(",", ":")).encode()


def letters(data: bytes) -> str:
    """Write bytes in CloudFront's base64."""
    return base64.b64encode(data).decode().translate(str.maketrans("+=/", "-_~"))
