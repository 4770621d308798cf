"""What is drawn by chance is drawn once."""

import subprocess
import sys
import uuid

from orderkeep.wiring.chance import new_uuid


def test_uuids_are_of_version_7_and_unlike_each_other():
    drawn = [new_uuid() for _ in range(2_000)]

    assert len(set(drawn)) == len(drawn)
    assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in drawn} == {
        (7, uuid.RFC_4122)
    }


# In a process of its own, which has one thread.
_FORKING = """
import os
from orderkeep.wiring.chance import new_uuid

new_uuid()  # from here on some are drawn in advance
is_parent = os.fork()
drawn = [new_uuid() for _ in range(300)]
if is_parent:
    os.wait()
print(*drawn, sep="\\n", flush=True)
"""


def test_a_forked_process_draws_none_that_its_parent_draws():
    printed = subprocess.run(
        [sys.executable, "-c", _FORKING], capture_output=True, text=True, check=True
    ).stdout.split()

    # The first twelve digits are the time.
    assert len({uuid.UUID(one).hex[13:] for one in printed}) == len(printed) == 600
