"""A pool's module with a mistake in it."""

import cluster_no_such_library  # noqa: F401
