"""How many bytes of bodies a service holds at a time, over all requests: what bounds its memory whoever uploads."""

from collections import Counter

HELD_BYTES = 192 * 1024 * 1024  # three of the largest batches


class BodyRoom:
    """Counts the bytes that have arrived and are still in use.

    What a caller only announces takes no room, so nobody keeps others out by sending slowly. One caller gets half of
    it at most, so nobody keeps others out by sending much. One event loop uses it: no lock.
    """

    def __init__(self, limit: int = HELD_BYTES) -> None:
        self.limit = limit
        self._held: Counter[str] = Counter()
        self._total = 0

    @property
    def held(self) -> int:
        """Bytes in use."""
        return self._total

    def take(self, owner: str, size: int) -> bool:
        """Takes room for `size` bytes of a caller; says whether there was any."""
        if self._total + size > self.limit or self._held[owner] + size > self.limit // 2:
            return False
        self._held[owner] += size
        self._total += size
        return True

    def give_back(self, owner: str, size: int) -> None:
        """Gives room back."""
        self._total -= size
        self._held[owner] -= size
        if self._held[owner] <= 0:
            del self._held[owner]
