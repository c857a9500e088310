"""What tests of agents, and of what agents stand on, are made with.

`StorageContract`: what every storage must do; inherit it and give it yours.
"""

from tenure.testing._storage import StorageContract

__all__ = ["StorageContract"]
