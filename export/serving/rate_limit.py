"""Limits how many requests a second an address may make: a bucket of tokens for each, in a table of bounded size."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_ADDRESSES = 10_000
"""addresses that are remembered; of more, those that asked least recently are forgotten, and begin with a full burst"""
_IPV6_PREFIX = 64  # bits that a network gives to one customer, who can have any of the addresses below


class RateLimiter:
    """Gives each address `burst` tokens, and `rate` new ones a second; a request takes one.

    Args:
        rate: tokens a second; 0 for no limit.
        burst: tokens that an address has at most.
        clock: tells the time in seconds.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst = rate, burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def wait_s(self, address: str) -> float:
        """Take a token of an address and return 0; without one, return the seconds until there is."""
        if not self.rate:
            return 0.0
        now, key = self._clock(), _network_of(address)
        tokens, counted_at = self._buckets.pop(key, (float(self.burst), now))
        tokens = min(self.burst, tokens + (now - counted_at) * self.rate)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        while len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self.rate

    def __len__(self) -> int:
        return len(self._buckets)


def _network_of(address: str) -> str:
    """Return the address, or of IPv6 the network of a customer; what is no address, such as a socket's, as it is."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
