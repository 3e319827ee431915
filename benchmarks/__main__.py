"""Run every benchmark: ``python -m benchmarks [--quick]``. Each writes its results into ``benchmarks/results``.

``gpu_check.py`` is left out: it needs a GPU, and is ``make gpu-check``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

for script in sorted(HERE.glob("*.py")):
    if script.name not in ("__main__.py", "common.py", "gpu_check.py", "gpu_checks.py"):
        print(f"== {script.stem}", flush=True)
        subprocess.run([sys.executable, str(script), *sys.argv[1:]], check=True)
