"""How numbers look in print. One form per kind of number, so that tables, sentences and captions agree to the last digit."""

NOTHING = "–"

_ATTACKS = {
    "pgd": "PGD",
    "mi-fgsm": "MI-FGSM",
    "apgd-ce": "APGD-CE",
    "apgd-dlr": "APGD-DLR, targeted",
    "fmn": "FMN",
    "transfer": "transfer",
    "square": "Square",
    "autoattack": "AutoAttack",
    "worst-case": "worst case",
}


def percent(share: float | int | None) -> str:
    """Return a share in [0, 1] as percent with one decimal."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def interval(low: float | int, high: float | int) -> str:
    """Return the two ends of an interval of shares, in percent."""
    return f"{100 * low:.1f}–{100 * high:.1f}"


def magnitude(value: float | int | None) -> str:
    """Return a count >= 0 with three significant digits and k, M, G or T."""
    if value is None:
        return NOTHING
    for unit, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= 0.9995 * unit:
            return f"{_three_digits(value / unit)}{suffix}"
    return f"{value:.0f}"


def _three_digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"


def count(value: int) -> str:
    """Return a whole number with thousands separated."""
    return f"{value:,}"


def duration(seconds: float | int | None) -> str:
    """Return a time >= 0, no finer than a few parts in a hundred."""
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def radius(eps_255: int) -> str:
    """Return an L∞ radius in units of the pixel range."""
    return f"{eps_255}/255"


def attack_name(attack: str) -> str:
    """Return the literature's name of an attack."""
    return _ATTACKS.get(attack, attack)


def evaluations(measured: dict | None) -> str:
    """Return calls of f per image: mean, and range where there is one."""
    if not measured:
        return NOTHING
    if measured["min"] == measured["max"]:
        return f"{measured['max']:g}"
    return f"{measured['mean']:.1f} ({measured['min']:g}–{measured['max']:g})"


def joined(parts: list[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
