"""Raw answers to observations: the only place that knows the shape of the service's JSON.

Pure: bytes in, Arrow out. No disk, no network, no clock.
"""

from __future__ import annotations

from usms_pipeline.wire.decoding import Decoded, decode, entry_id

__all__ = ["Decoded", "decode", "entry_id"]
