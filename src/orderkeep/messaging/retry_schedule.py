"""How long to pause before trying again: growing pauses, spread so that no crowd returns as one.

The pause doubles with each attempt. Jitter moves it between half and one and a half times its
length, so that the mean stays what the doubling says: with a base of 1 s, a maximum of 300 s and
16 tries, a message is set aside after about 40 minutes. Nothing exceeds the maximum: there the
pauses are equal, and the crowd stays as spread as the earlier ones have left it.
"""

# Doubling beyond this is past every sensible maximum, and stays exact in floating point.
_DOUBLINGS_MAX = 50


def pause_before_attempt(attempt: int, *, jitter: float, base_s: float, max_s: float) -> float:
    """Return how many seconds to wait before the given attempt.

    Args:
        attempt: The attempt about to be made; 1 is the first retry.
        jitter: 0.0 (half the pause) to 1.0 (one and a half). Drawn by the caller: this stays pure.
        base_s: The mean of the first pause.
        max_s: No pause is longer.

    Raises:
        ValueError: attempt is below 1, jitter is outside 0.0..1.0, or not 0 < base_s <= max_s.
    """
    if attempt < 1:
        message = f"attempt {attempt} is below 1"
        raise ValueError(message)
    if not 0.0 <= jitter <= 1.0:
        message = f"jitter {jitter} is outside 0.0..1.0"
        raise ValueError(message)
    if not 0.0 < base_s <= max_s:
        message = f"pauses of {base_s} s growing to {max_s} s do not grow"
        raise ValueError(message)
    pause_s: float = base_s * 2 ** min(attempt - 1, _DOUBLINGS_MAX)
    return min(pause_s * (0.5 + jitter), max_s)
