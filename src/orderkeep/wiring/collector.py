"""Python's collector of cycles, told to look seldom, and not at what stays.

It looks whenever so many objects more were made than freed, and a batch of orders makes thousands
that are all in use. Hardly anything here forms a cycle, so each look finds nothing; together they
took a tenth of the processor's time that an order takes.
"""

import gc

# Objects made beyond those freed until the collector looks at the youngest. Python's own is 700,
# from 3.13 on 2,000: a few orders make as many. With ten times more nothing further is gained.
_YOUNG_COUNT = 10_000


def spare_what_stays() -> None:
    """Leave what is there by now out of every look to come, and look seldom at what is not."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_COUNT)
