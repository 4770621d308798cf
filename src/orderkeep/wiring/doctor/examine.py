"""The whole examination, in the order in which a person would ask."""

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from urllib.parse import unquote

from orderkeep.instant import Instant
from orderkeep.messaging.rabbitmq.look import look_at_address, look_at_broker
from orderkeep.settings import Settings
from orderkeep.wiring.doctor.database import examine_database
from orderkeep.wiring.doctor.examination import Examination, fine
from orderkeep.wiring.doctor.of_addresses import examine_addresses
from orderkeep.wiring.doctor.of_rabbitmq import examine_topology
from orderkeep.wiring.doctor.of_settings import examine_settings
from orderkeep.wiring.parts import Role
from orderkeep.wiring.shop import unstarted_shop
from orderkeep.wiring.storage import rabbit_options, used_topology

_CONNECTION_NAME = "orderkeep doctor"

_PASSWORD_MASK = "***"  # noqa: S105 (what stands in for a password)

# The password of a URL. One that holds a bare `@` or `/` is not found whole, and does not work.
_URL_PASSWORD = re.compile(r"://[^:@/]*:([^@]+)@")

# A word that stands in many sentences; whoever has it for a password has no secret.
_MASKED_LENGTH_MIN = 4


async def examine(settings: Settings, *, now: Callable[[], Instant]) -> list[Examination]:
    """Return what there is to say about everything that the settings name.

    Args:
        settings: What to examine.
        now: Reads this machine's clock.
    """
    # The queues that the services of these settings read.
    async with unstarted_shop(settings, roles=frozenset({Role.WORK})) as shop:
        read_queues = shop.read_queues
    unread = {queue.name for queue in used_topology(settings).queues} - read_queues
    examinations = [
        *examine_settings(
            settings, unread_queues=unread if settings.has_database_queues else frozenset()
        ),
        *await examine_database(settings, now=now),
        *await _examine_broker(settings, read_queues=read_queues),
    ]
    passwords = _passwords_of(settings)
    return [_without(passwords, each) for each in examinations]


async def _examine_broker(settings: Settings, *, read_queues: Collection[str]) -> list[Examination]:
    if settings.has_database_queues:
        return [fine("broker", "the queues are in the database; there is no broker")]
    options = rabbit_options(settings, name=_CONNECTION_NAME)
    topology = used_topology(settings)
    consumed = {queue.name for queue in topology.queues} & set(read_queues)
    addresses = [await look_at_address(url, options=options) for url in settings.broker_url]
    examinations = list(examine_addresses(addresses))
    for url, address in zip(settings.broker_url, addresses, strict=True):
        if address.error is None:
            facts = await look_at_broker(url, topology, options=options, consumed_queues=consumed)
            examinations += examine_topology(facts, topology, options=options, consumed=consumed)
            break
    return examinations


def _passwords_of(settings: Settings) -> frozenset[str]:
    urls = (
        settings.effective_database_url,
        settings.effective_database_direct_url,
        *settings.broker_url,
    )
    written = {found for url in urls for found in _URL_PASSWORD.findall(url)}
    return frozenset(
        password
        for password in {*written, *map(unquote, written)}
        if len(password) >= _MASKED_LENGTH_MIN
    )


def _without(passwords: Collection[str], examination: Examination) -> Examination:
    """Return the examination without the passwords, should an error have quoted one."""
    found, remedy = examination.found, examination.remedy
    for password in sorted(passwords, key=len, reverse=True):
        # As a word of its own: `guest` may be the user's name as well, and part of others.
        pattern = rf"(?<=:){re.escape(password)}(?=@)|(?<=['\"]){re.escape(password)}(?=['\"])"
        found = re.sub(pattern, _PASSWORD_MASK, found)
        remedy = None if remedy is None else re.sub(pattern, _PASSWORD_MASK, remedy)
    return replace(examination, found=found, remedy=remedy)
