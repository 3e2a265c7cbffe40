"""An independent checker: from what clients were told, what Redis has and what the store has, whether money is right.

It imports nothing of `meter`: formats and tables are read by its own code, so that no fault of ours hides another one.
"""

from __future__ import annotations
