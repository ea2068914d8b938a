"""What the URLs of all stores have in common."""

import re
from collections.abc import Collection
from urllib.parse import SplitResult, parse_qsl, urlsplit


def split_url(url: str) -> SplitResult:
    """Return the parts of `url`. The text of ValueError repeats none of them, as Python's does."""
    try:
        url.encode()  # bytes that are not UTF-8 are surrogates here
        split = urlsplit(url)
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8") from None
    except ValueError:
        raise ValueError(
            "must have a host that is a name or an IP address, and what is special in a password "
            "percent-encoded, such as [ as %5B"
        ) from None
    if split.netloc and "@" in split.path:
        raise ValueError("must have / and @ in a password percent-encoded, as %2F and %40")
    return split


def parameters(url: SplitResult, **known: Collection[str] | None) -> dict[str, str]:
    """Return the query of `url`.

    `known` has the values that each parameter may take; None allows any. ValueError for any other
    parameter or value; its text names what is known, and never a password.
    """
    if url.fragment:
        raise ValueError("must have # written as %23")
    given = parse_qsl(url.query, keep_blank_values=True)
    for name, value in given:
        if name not in known:
            raise ValueError(
                f"takes no parameters but {listed(known)}; ? is written as %3F elsewhere"
            )
        allowed = known[name]
        if allowed is not None and value not in allowed:
            raise ValueError(f"must have {name} one of {listed(allowed)}")
    if len(dict(given)) < len(given):
        raise ValueError("must have each parameter once")
    return dict(given)


def redacted(url: str) -> str:
    """Return `url` without a user and password, for a log."""
    return re.sub("//(?!/).*@", "//***@", url)  # a / may be in the password, by mistake


def listed(names: Collection[str]) -> str:
    """Return names as a sentence lists them."""
    return ", ".join(names)
