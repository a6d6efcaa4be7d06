"""What a process reads of the global batch."""

from typing import NamedTuple


class Share(NamedTuple):
    """The replicas whose rows this process reads.

    Attributes:
        replicas: Number of replicas of all processes.
        first: Index of the first replica of this process.
        count: Number of replicas of this process.
    """

    replicas: int = 1
    first: int = 0
    count: int = 1
