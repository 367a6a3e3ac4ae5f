"""The conformance kit: holds any session store to every promise of the contract.

With pytest, each check is a test of its own:

```python
from phi_sessions.testing import StoreConformance

class TestMyStore(StoreConformance):
    def open_store(self):
        return MyStore("a place that the checks may fill")
```

Without a test runner, `check_store` makes the checks and returns a report, which is text for
people, JSON for programs, and an error if a promise is broken:

```python
report = await check_store(partial(MyStore, "a place that the checks may fill"))
print(report)
report.raise_if_failed()
```

Whatever opens the store opens the same place each time, as a new object, and may be async. Checks
use ids of their own and delete what they made, so a place may be in use. What a store says that it
`lacks` is not checked, nor are leases of a store that has none: such checks are skipped, and say
why. No check can cut the power or use a second machine: `Promise.POWER_LOSS` and `Promise.HOSTS`
are the store's own to prove. Nor can the kit damage what is stored: what a store makes of damage
is its own to test. A store that blocks the event loop for good blocks the kit, too.

`Scale` says how much is done. One check is picked by its name: `-k a_stale_save_is_refused` with
pytest, `check_store(..., only=["a_stale_save_is_refused"])` without.
"""

from .catalogue import CHECKS
from .check import Check
from .claims import BrokenPromiseError
from .conformance import StoreConformance
from .report import CheckResult, Outcome, Report
from .running import check_store, run_check
from .scale import Scale
from .trial import OpenStore

__all__ = [
    "CHECKS",
    "BrokenPromiseError",
    "Check",
    "CheckResult",
    "OpenStore",
    "Outcome",
    "Report",
    "Scale",
    "StoreConformance",
    "check_store",
    "run_check",
]
