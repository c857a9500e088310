"""Helpers of the SDK's tests: its sample agents are importable as `sdk_agents`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
