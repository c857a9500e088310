"""`python -m tools.soak`: the harness of the crash tests, for hours instead of seconds; `turns`: agents."""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))  # where the tests' helpers are

if __name__ == "__main__":
    if sys.argv[1:2] == ["turns"]:
        sys.exit(importlib.import_module("tools.soak.turns").main(sys.argv[2:]))
    sys.exit(importlib.import_module("tools.soak.run").main())
