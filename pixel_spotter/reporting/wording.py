"""How a report writes its numbers."""

from pixel_spotter.reporting.groups import Estimate


def pixels(value: float, like: float | None = None) -> str:
    """Write an error in px, as exactly as one of the size ``like`` deserves."""
    return _small(value, 3 if abs(value if like is None else like) < 10 else 2)


def share(value: float, like: float | None = None) -> str:
    """Write a fraction in per cent."""
    return f"{value:.1%}"


def whole(value: float, like: float | None = None) -> str:
    """Write a count."""
    return f"{value:,.0f}"


def seconds(value: float, like: float | None = None) -> str:
    """Write a time in s, as exactly as one of the size ``like`` deserves."""
    size = abs(value if like is None else like)
    return _small(value, 0 if size >= 10 else 1 if size >= 1 else 3)


def plain(value: float, like: float | None = None) -> str:
    """Write a figure of unknown kind."""
    return f"{value:.3f}"


def with_interval(figure: Estimate, unit: str = "px") -> str:
    """Write an error in px with its interval: ``0.217 ± 0.012 px``."""
    if figure.half is None:
        return f"{pixels(figure.mean)} {unit}"
    return f"{pixels(figure.mean)} ± {pixels(figure.half, figure.mean)} {unit}"


def listed(names: list[str]) -> str:
    """Join names as a sentence does: ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _small(value: float, digits: int) -> str:
    """Write a number that is not negative; what is not 0 does not look so either."""
    if value == 0:
        return "0"
    least = 10.0**-digits
    return f"{value:,.{digits}f}" if value >= least / 2 else f"<{least:.{digits}f}"
