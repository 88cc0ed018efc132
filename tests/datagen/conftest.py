"""Tests are no package; what those of generation share (`scripted`) is found beside them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
