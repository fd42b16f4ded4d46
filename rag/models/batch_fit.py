"""The largest batch that a device holds beside what else needs its memory."""

from __future__ import annotations

from collections.abc import Callable

from rag.errors import ConfigurationError

LEAST_TOKENS = 512
MOST_TOKENS = 262_144
"""More does not make a GPU faster: it is busy with less."""
KEEP_FREE = 0.1


def fit_batch_tokens(
    peak_bytes: Callable[[int], int | None],
    free_bytes: int,
    *,
    at_once: int = 1,
    least: int = LEAST_TOKENS,
    most: int = MOST_TOKENS,
) -> int:
    """The largest budget of padded tokens, a doubling of `least`, that fits into a device.

    `peak_bytes` runs a batch of so many tokens and says what it took at its peak, None where
    memory ran out. So many fit `at_once`, and a tenth of `free_bytes` stays free. Raises
    ConfigurationError where not even the least batch fits.
    """
    usable = int(free_bytes * (1 - KEEP_FREE)) // at_once
    fitting, tokens = 0, least
    while tokens <= most:
        taken = peak_bytes(tokens)
        if taken is None or taken > usable:
            break
        fitting = tokens
        tokens *= 2
    if not fitting:
        raise ConfigurationError(
            f"{at_once} batches of {least} tokens do not fit into {free_bytes} free bytes of the"
            " device; free memory there, or keep the index on the CPU"
        )
    return fitting
