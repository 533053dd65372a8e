"""From the strings of bronze to typed values, for a whole column at once.

Here, in ``replay`` and in the connectors pandas is imported where it is used: that takes a quarter of a second, and
many commands only read what a source's YAML says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pandas as pd

# What these let through, Postgres reads too: load casts there.
PATTERNS = {
    "integer": r"^-?\d{1,10}$",
    "bigint": r"^-?\d{1,18}$",
    "numeric(18,4)": r"^-?(\d{1,14}(\.\d{0,20})?|\.\d{1,20})$",
    "timestamptz": (r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?( ?(Z|[+-](0\d|1[0-5])(:?[0-5]\d)?))?)?$"),
    "date": r"^\d{4}-\d{2}-\d{2}$",
    # Not (?i) alone: to it the long s of old prints is an s.
    "boolean": r"^((?i:true|t|f|no)|(?i:fal)[sS][eE]|(?i:ye)[sS]|0|1)$",
}
INT32 = 2**31
NO_ZONE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?)?$"
HAS_ZONE = r"(Z|:.*[+-]\d{2}(:?\d{2})?)$"


def parse(values: pa.ChunkedArray | pa.Array, kind: str) -> tuple[pd.Series, np.ndarray]:
    """``values`` (strings) as ``kind`` and, for each, whether it could be read (null can).

    Numbers come back as float64 (NaN for null), times as datetime64[ns, UTC], dates as datetime64[ns],
    booleans as nullable booleans, text as objects. What cannot be read comes back as null.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if kind == "text":
        # Postgres takes any text but this.
        has_nul = pc.fill_null(pc.match_substring(values, "\0"), False)
        if not pc.any(has_nul).as_py():
            return values.to_pandas(), np.ones(len(values), bool)
        return pc.if_else(has_nul, None, values).to_pandas(), ~has_nul.to_numpy(zero_copy_only=False)
    shaped = pc.if_else(pc.match_substring_regex(values, PATTERNS[kind]), values, pa.scalar(None, pa.string()))
    if kind in ("integer", "bigint", "numeric(18,4)"):
        typed = pc.cast(shaped, pa.float64()).to_pandas()
        if kind == "integer":
            typed = typed.where((typed >= -INT32) & (typed < INT32))
        elif kind != "bigint":
            # Rounded to four places it would have a digit too many.
            typed = typed.where(typed.abs() < 1e14)
    elif kind == "boolean":
        lower = pc.utf8_lower(shaped)
        typed = pc.is_in(lower, pa.array(["true", "t", "yes", "1"])).to_pandas().astype("boolean")
        typed = typed.mask(lower.is_null().to_pandas())
    else:
        if kind == "timestamptz":
            # Said in full: pandas gives a time without a zone that of the row before it.
            shaped = pc.if_else(pc.equal(pc.utf8_length(shaped), 10), _joined(shaped, "T00:00"), shaped)
            shaped = pc.if_else(pc.match_substring_regex(shaped, HAS_ZONE), shaped, _joined(shaped, "Z"))
        typed = _moments(shaped, is_utc=kind == "timestamptz")
    is_null = values.is_null().to_numpy(zero_copy_only=False)
    return typed, is_null | typed.notna().to_numpy()


def _moments(shaped: pa.Array, is_utc: bool) -> pd.Series:
    import pandas as pd

    try:
        # Ten times faster, but for the whole column or not at all.
        return pc.cast(shaped, pa.timestamp("ns", tz="UTC" if is_utc else None)).to_pandas()
    except pa.ArrowInvalid:
        return pd.to_datetime(shaped.to_pandas(), format="ISO8601", utc=is_utc, errors="coerce")


def _joined(values: pa.Array, suffix: str) -> pa.Array:
    return pc.binary_join_element_wise(values, pa.scalar(suffix), "")


def in_utc(values: pa.Array, zone: str) -> pa.Array:
    """Local times without a zone as UTC; whatever else stays as it is. A date alone is its midnight.

    An hour that the clock shows twice is taken as the second one, an hour that it skips as the one after.
    """
    if zone == "UTC":
        return values
    import pandas as pd

    is_local = pc.fill_null(pc.match_substring_regex(values, NO_ZONE), False)
    local = pd.to_datetime(pc.if_else(is_local, values, None).to_pandas(), format="ISO8601", errors="coerce")
    moments = local.dt.tz_localize(zone, ambiguous=np.zeros(len(local), bool), nonexistent="shift_forward")
    texts = pa.array(moments.dt.tz_convert("UTC").dt.strftime("%Y-%m-%d %H:%M:%S.%fZ"), pa.string(), from_pandas=True)
    return pc.coalesce(texts, values)
