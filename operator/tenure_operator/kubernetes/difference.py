"""Whether an object already says what we want it to say. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import cast

from tenure_api.model import Json

APPLIED = "tenure.dev/applied"
"""Annotation with a digest of the manifest that was applied last: it shows the fields that we no longer want."""


def stamped(manifest: Json) -> Json:
    """The manifest with its own digest in an annotation."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED: digest}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def satisfied(wanted: object, found: object) -> bool:
    """Whether `found` says everything that `wanted` says; it may say more (defaults, other managers' fields)."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return not wanted and found is None
        fields = cast("dict[str, object]", wanted)
        have = cast("dict[str, object]", found)
        return all(satisfied(value, have.get(key)) for key, value in fields.items())
    if isinstance(wanted, list):
        items = cast("list[object]", wanted)
        if not isinstance(found, list):
            return not items and found is None
        others = cast("list[object]", found)
        return len(items) == len(others) and all(map(satisfied, items, others))
    return wanted == found or (wanted in (0, "", False) and found is None)
