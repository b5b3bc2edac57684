"""Let the tests import their own modules: pytest's importlib mode does not make them importable."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
