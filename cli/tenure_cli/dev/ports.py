"""Free TCP ports on the loopback interface."""

import random
import socket
from collections.abc import Iterable

# Below the kernel's ephemeral range (32768 on Linux): an outgoing connection must not take a port while the process
# that owns it is being restarted.
LOWEST, HIGHEST = 20_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As a server would: connections of its predecessor in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int, keep: Iterable[int] = ()) -> list[int]:
    """`count` free ports, those of `keep` that are still free first. Raises OSError when the range is exhausted."""
    chosen = [port for port in dict.fromkeys(keep) if is_free(port)][:count]
    start = random.SystemRandom().randrange(LOWEST, HIGHEST)
    for offset in range(HIGHEST - LOWEST):
        if len(chosen) == count:
            return chosen
        port = LOWEST + (start - LOWEST + offset) % (HIGHEST - LOWEST)
        if port not in chosen and is_free(port):
            chosen.append(port)
    if len(chosen) == count:
        return chosen
    raise OSError(f"no {count} free ports between {LOWEST} and {HIGHEST} on 127.0.0.1")
