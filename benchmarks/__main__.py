"""Run every benchmark: ``python -m benchmarks [--quick]``. Each writes its results into ``benchmarks/results``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

for script in sorted(HERE.glob("*.py")):
    if script.name not in ("__main__.py", "common.py"):
        print(f"== {script.stem}", flush=True)
        subprocess.run([sys.executable, str(script), *sys.argv[1:]], check=True)
