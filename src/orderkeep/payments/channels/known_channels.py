"""Which channels there are, from the settings' plain values."""

from collections.abc import Mapping, Sequence

from orderkeep.payments.channels.channel import Channel
from orderkeep.payments.channels.sandbox import SANDBOX, SandboxChannel
from orderkeep.payments.channels.signed import SignedChannel


def known_channels(
    *, sandbox_is_on: bool, secrets_by_channel: Mapping[str, Sequence[str]]
) -> dict[str, Channel]:
    """Return every channel a payment can be opened on, by name.

    Raises:
        ValueError: an outside channel has the sandbox's name, or a secret that is none.
    """
    if SANDBOX in secrets_by_channel:
        message = f"no outside channel can be named {SANDBOX}"
        raise ValueError(message)
    channels: dict[str, Channel] = {
        name: SignedChannel(name, secrets=secrets) for name, secrets in secrets_by_channel.items()
    }
    if sandbox_is_on:
        channels[SANDBOX] = SandboxChannel()
    return channels
