"""Every plant there is, by name."""

from collections.abc import Mapping

from tests.planted_bugs import messages, money, orders
from tests.planted_bugs.plant import Plant

PLANTS: Mapping[str, Plant] = {
    plant.name: plant for plant in (*messages.PLANTS, *orders.PLANTS, *money.PLANTS)
}
