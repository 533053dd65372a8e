"""Who buys: invented people with addresses under example.com and example.org."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from include.demo.catalogue import ZONE_WEIGHTS, ZONES

FIRST = (
    "Ada", "Ben", "Carla", "Dev", "Elif", "Femi", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Leo", "Mina", "Noor",
    "Omar", "Petra", "Quinn", "Rosa", "Sami", "Tara", "Uma", "Viktor", "Wren", "Xenia", "Yusuf", "Zoe", "Anton", "Bela",
)  # fmt: skip
LAST = (
    "Adler", "Baker", "Cruz", "Diaz", "Evans", "Fischer", "Gupta", "Hansen", "Ito", "Jensen", "Khan", "Lopez", "Meyer",
    "Novak", "Okafor", "Patel", "Quist", "Rossi", "Silva", "Tanaka", "Ueda", "Varga", "Weber", "Xu", "Young", "Zhang",
    "O'Neil", "Sørensen", "García",
)  # fmt: skip
_ASCII = str.maketrans({"'": "", "ø": "o", "í": "i"})


@dataclass(frozen=True)
class People:
    """A pool of persons; arrays and lists of shape (n,)."""

    first: list[str]
    last: list[str]
    email: np.ndarray
    telephone: list[str]
    zone: np.ndarray
    """Index into ``catalogue.ZONES``."""


def draw_people(n: int, rng: np.random.Generator) -> People:
    """``n`` persons with distinct e-mail addresses in lower case."""
    first = [FIRST[i] for i in rng.integers(0, len(FIRST), n)]
    last = [LAST[i] for i in rng.integers(0, len(LAST), n)]
    domain = np.where(rng.random(n) < 0.6, "example.com", "example.org")
    email = [
        f"{a}.{b}{i}@{d}".lower().translate(_ASCII)
        for i, (a, b, d) in enumerate(zip(first, last, domain, strict=True), start=1)
    ]
    return People(
        first=first,
        last=last,
        email=np.array(email),
        telephone=[f"+1-555-{a:03d}-{b:04d}" for a, b in rng.integers((0, 0), (1000, 10000), (n, 2))],
        zone=rng.choice(len(ZONES), n, p=ZONE_WEIGHTS),
    )
