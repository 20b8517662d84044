"""A training process that ends well and reports no loss, as one did whose loss was read under a wrong key."""

import sys
from pathlib import Path

from looper.edges.trainers.child import serve

if __name__ == "__main__":
    serve(
        Path(sys.argv[1]),
        lambda request, events: {"rank": 8, "relative_change": 0.1, "backend": "a fake", "loss": 0.5},
    )
