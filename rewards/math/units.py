"""Units of measurement and counted things that may stand behind a number.

Only what is listed is taken off a number, so that `7 or 8` or `3 squared` never read as 7 or 3. Units are compared when
both answers have one: 5 m is not 5 cm, and neither is a square metre a metre. Counted things (apples, people) are not
compared, because a question names them in many ways.
"""

from __future__ import annotations

import re

_SAME = {
    "metre": "m meter meters metre metres",
    "centimetre": "cm centimeter centimeters centimetre centimetres",
    "millimetre": "mm millimeter millimeters millimetre millimetres",
    "kilometre": "km kms kilometer kilometers kilometre kilometres",
    "inch": "inch inches",
    "foot": "ft foot feet",
    "yard": "yd yard yards",
    "mile": "mi mile miles",
    "unit": "unit units",
    "gram": "g gm gram grams",
    "milligram": "mg milligram milligrams",
    "kilogram": "kg kgs kilogram kilograms",
    "pound": "lb lbs pound pounds gbp",
    "ounce": "oz ounce ounces",
    "ton": "ton tons tonne tonnes",
    "litre": "l liter liters litre litres",
    "millilitre": "ml milliliter milliliters millilitre millilitres",
    "gallon": "gal gallon gallons",
    "quart": "quart quarts",
    "pint": "pint pints",
    "cup": "cup cups",
    "teaspoon": "tsp teaspoon teaspoons",
    "tablespoon": "tbsp tablespoon tablespoons",
    "acre": "acre acres",
    "hectare": "ha hectare hectares",
    "second": "s sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "yr yrs year years",
    "dollar": "dollar dollars usd",
    "cent": "cent cents",
    "euro": "euro euros eur",
    "degree": "° deg degree degrees",
    "radian": "rad radian radians",
    "joule": "joule joules",
    "newton": "newton newtons",
    "watt": "watt watts",
    "volt": "volt volts",
    "mile/hour": "mph",
    "kilometre/hour": "kph kmh",
}
_THINGS = """
    animals answers apples arrangements bags balls birds blocks boats books bottles boxes boys bricks candies candles
    cards cars cats chairs chickens children choices classes coins combinations cookies cows crayons cubes cupcakes
    customers diagonals digits dogs donuts edges eggs employees erasers eyes faces factors fish flowers friends games
    girls guests hats horses houses integers items jars kids kittens lemons letters marbles men moves muffins numbers
    nuts oranges outcomes pages paintings pairs pancakes parts passengers pears pencils pens people permutations persons
    photos pictures pieces pizzas plants players points posts potatoes primes puppies questions rabbits rectangles roses
    rounds rows seats seeds sets sheep sheets shells shirts shoes sides slices socks solutions songs squares stamps
    stars stickers stones stops students subsets teachers teams terms things tickets tiles times tomatoes towels toys
    trees triangles trips values vertices visitors ways women words workers
"""
_UNITS = {name: unit for unit, names in _SAME.items() for name in names.split()}
_PLURALS = frozenset(_THINGS.split())
_COUNTED = (_PLURALS | {word.removesuffix("s") for word in _PLURALS}) - {"square", "cube"}
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3, "^2": 2, "^3": 3}
_WORD = re.compile(r"\^[23]|[^\W\d_]+|°|/")
_IGNORED = str.maketrans("", "", ".{}")
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Words that multiply the number before them by a power of ten."""
COUNTED = "counted"
"""The unit of counted things, which no comparison looks at."""


def unit_of(text: str) -> str | None:
    """One name for all spellings of a unit: `sq. ft`, `square feet` and `ft^2` are `foot^2`.

    Args:
        text: what stands behind a number, without LaTeX around it.

    Returns:
        The name, `COUNTED`, or None when the text is not made of known units only.
    """
    text = text.lower().translate(_IGNORED)
    words = _WORD.findall(text)
    if "".join(words) != "".join(text.split()):
        return None
    if len(words) == 1 and words[0] in _COUNTED:
        return COUNTED
    parts: list[str] = []
    power, divided, closed = 1, False, False
    for word in words:
        if word in ("per", "/"):
            if not parts or parts[-1] == "/":
                return None
            parts.append("/")
            divided, closed = True, False
        elif word in _POWERS:
            if closed:
                parts[-1] += f"^{_POWERS[word]}"
            else:
                power = _POWERS[word]
        elif word in _UNITS and not closed:
            parts.append(_UNITS[word] + (f"^{power}" if power != 1 else ""))
            power, closed = 1, True
        else:
            return None
    return "".join(parts) if parts and closed and (not divided or len(parts) >= 3) else None
