from __future__ import annotations
def run_compiled(*a, **k): raise NotImplementedError
