"""The key that signs tokens: from the settings, else from the data directory."""

from orderkeep.data_directory import (
    DataDirectoryError,
    has_secret,
    prepare_data_directory,
    read_or_make_secret,
)
from orderkeep.settings import Settings
from orderkeep.web.tokens import TokenKey
from orderkeep.wiring import chance


def token_key(settings: Settings, *, jwt_secret: str) -> TokenKey:
    """Return what tokens are signed and verified with."""
    return TokenKey(secret=jwt_secret, audience=settings.jwt_audience, issuer=settings.jwt_issuer)


def find_jwt_secret_beside(settings: Settings) -> str:
    """Return the key that signs tokens, for a command beside the service; see `find_jwt_secret`.

    On a database server no secret is made: the processes that serve would not know it.

    Raises:
        DataDirectoryError: there is none, or it cannot be read.
    """
    has_own = settings.jwt_secret is not None or has_secret(settings.data_dir)
    if not (settings.is_embedded or has_own):
        message = (
            "no token can be signed: give ORDERKEEP_JWT_SECRET, the same that `orderkeep serve` has"
        )
        raise DataDirectoryError(message)
    return find_jwt_secret(settings)


def find_jwt_secret(settings: Settings) -> str:
    """Return the key that signs tokens: the setting, else the data directory's own.

    Raises:
        DataDirectoryError: the directory's secret can be neither read nor made.
    """
    if settings.jwt_secret is not None:
        return settings.jwt_secret.get_secret_value()
    prepare_data_directory(settings.data_dir)
    return read_or_make_secret(settings.data_dir, drawn=chance.draw_secret())
