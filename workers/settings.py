"""arq's entry point in a checkout: `arq workers.settings.WorkerSettings`. What it runs is in `meter/worker/`.

Of a wheel it is `arq meter.worker.settings.WorkerSettings`; `meter worker` runs the same jobs under supervision. An
editable install puts the checkout on the path of every project of that environment, so this folder is no package: a
`workers` package of yours hides it, and where yours is no package either, its `settings.py` replaces this one.
"""

from __future__ import annotations

import sys
from importlib.util import spec_from_file_location
from pathlib import Path

from meter.worker.settings import WorkerSettings

__all__ = ["WorkerSettings"]

_files = [Path(folder) / "settings.py" for folder in sys.modules["workers"].__path__]
_ours = Path(__file__).read_bytes()  # a second checkout has this very file, and would look for the first one's
_theirs = [file for file in _files if file.exists() and file.read_bytes() != _ours]
if _theirs and (_spec := spec_from_file_location(__name__, _theirs[0])) and _spec.loader:
    _spec.loader.exec_module(sys.modules[__name__])  # arq appends its working folder to the path, behind the checkout
