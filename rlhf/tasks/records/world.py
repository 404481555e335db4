"""The world that records speak of: what depends on what in it, and by which names attributes go.

It is the same for every seed, so that it can be learnt.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

PLACES: Mapping[str, tuple[str, str]] = {
    "alba": ("north", "31"), "brod": ("east", "47"), "cerno": ("south", "12"), "dunmor": ("north", "38"),
    "elva": ("west", "64"), "farum": ("east", "42"), "gorna": ("south", "19"), "harlo": ("west", "67"),
    "ilmen": ("north", "35"), "jarva": ("east", "45"), "kolmar": ("south", "16"), "lindo": ("west", "61"),
}  # fmt: skip
"""City to region and the first two digits of its zip codes."""
GOODS: Mapping[str, str] = {
    "milk": "litre", "oil": "litre", "rope": "metre", "cloth": "metre", "salt": "kilo", "rice": "kilo", "tile": "piece",
    "lamp": "piece",
}  # fmt: skip
"""Item to unit."""
REGIONS = tuple(dict.fromkeys(region for region, _ in PLACES.values()))
UNITS = tuple(dict.fromkeys(GOODS.values()))

GROUPS: Mapping[str, tuple[str, ...]] = {
    "place": ("city", "region", "zip"),
    "sum": ("left", "right", "total"),
    "check": ("id",),
    "goods": ("item", "unit"),
}
"""Attributes that depend on each other."""
RULES: Mapping[str, str] = {
    "place": "a city lies in one region, and its zip codes begin with the same two digits",
    "sum": "total is left plus right",
    "check": "the last digit of an id is the last digit of the sum of those before it",
    "goods": "an item is measured in one unit",
}
"""In plain English."""

Record = dict[str, str]


@dataclass(frozen=True, slots=True)
class Concept:
    """What attributes of different tables may mean."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]


CONCEPTS: tuple[Concept, ...] = (
    Concept(("zip", "postcode", "postal_code"), ("code of the postal area", "where mail is sorted to")),
    Concept(("city", "town", "municipality"), ("place of residence", "name of the settlement")),
    Concept(("birth_date", "dob", "born_on"), ("day of birth", "when the person was born")),
    Concept(("death_date", "dod", "died_on"), ("day of death", "when the person died")),
    Concept(("first_name", "given_name", "forename"), ("name given at birth", "how friends call the person")),
    Concept(("last_name", "surname", "family_name"), ("name of the family", "name shared by relatives")),
    Concept(("phone", "telephone", "tel_no"), ("number to call", "where to ring")),
    Concept(("fax", "telefax", "fax_no"), ("number for facsimiles", "where to send copies by wire")),
    Concept(("price", "cost", "unit_price"), ("amount to pay for one", "what one of it costs")),
    Concept(("discount", "rebate", "price_cut"), ("amount taken off", "what is paid less")),
    Concept(("quantity", "amount", "qty"), ("how many there are", "number of pieces")),
    Concept(("weight", "mass", "net_weight"), ("how heavy it is", "kilos without packing")),
)
"""Neighbours at even places are easily confused."""


def group(name: str, rng: random.Random) -> Record:
    """Attributes of one group that fit together."""
    if name == "place":
        city = rng.choice([*PLACES])
        region, prefix = PLACES[city]
        return {"city": city, "region": region, "zip": f"{prefix}{rng.randint(0, 999):03}"}
    if name == "sum":
        left, right = rng.randint(0, 99), rng.randint(0, 99)
        return {"left": str(left), "right": str(right), "total": str(left + right)}
    if name == "check":
        head = f"{rng.randint(100, 999)}"
        return {"id": head + check_digit(head)}
    item = rng.choice([*GOODS])
    return {"item": item, "unit": GOODS[item]}


def check_digit(head: str) -> str:
    return str(sum(map(int, head)) % 10)


def fits(record: Record, attribute: str) -> bool:
    """Whether the value of an attribute can be right, given the others of its group."""
    value = record[attribute]
    if attribute in ("city", "item"):
        return value in (PLACES if attribute == "city" else GOODS)
    if attribute == "region":
        return record["city"] in PLACES and value == PLACES[record["city"]][0]
    if attribute == "zip":
        return len(value) == 5 and value.isdigit() and value.startswith(PLACES[record["city"]][1])
    if attribute == "total":
        return value.isdigit() and int(value) == int(record["left"]) + int(record["right"])
    if attribute == "id":
        return len(value) == 4 and value.isdigit() and value[-1] == check_digit(value[:-1])
    assert attribute == "unit", "what can be tested depends on something"
    return value == GOODS[record["item"]]


def reason(record: Record, attribute: str) -> str:
    """What decides about an attribute, on one line: `alba north 31`."""
    if attribute in GROUPS["place"]:
        city = record["city"]
        return " ".join((city, *PLACES[city])) if city in PLACES else "no such city"
    if attribute == "total":
        return f"{record['left']}+{record['right']}={int(record['left']) + int(record['right'])}"
    if attribute == "id":
        head = record["id"][:-1]
        digits = head.isdigit()
        return f"{'+'.join(head)}={sum(map(int, head))}" if digits else "no digits"
    return f"{record['item']} {GOODS[record['item']]}" if record["item"] in GOODS else "no such item"
