"""`python -m tests.faults`: see `programme.py`."""

import sys

from tests.faults.programme import main

if __name__ == "__main__":
    sys.exit(main())
