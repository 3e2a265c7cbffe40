"""The door that the seed promised: `python -m meter.schema_generator --backend sql --dialect postgres`."""

from __future__ import annotations

from meter.store.generated_schema import main

if __name__ == "__main__":
    main()
