"""The Hub's list of datasets, page by page: every page can be the last one, and the next run goes on after it.

In: an endpoint, filters, and where an earlier listing stopped. Out: pages of items in the catalogue's JSON shape, each
with the address of the next page. The Hub pages by a `Link` header; the newest change comes first, so that a later
listing may stop at the first item that it knows already. Nothing but card data is read: no file, no row, no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from potstill.errors import DataError
from potstill.hub_way import hub_unreachable
from potstill.retrieval.cards import card_summary, hub_configs

PAGE = 1000
TIMEOUT_S = 60.0
MAX_PAGE_BYTES = 500_000_000
_EXPAND = ("cardData", "description", "disabled", "downloads", "gated", "lastModified", "private", "tags")


@dataclass(frozen=True)
class Page:
    """One page of the listing.

    Attributes:
        items: Items in the catalogue's JSON shape; broken ones as they came.
        next: Address of the next page, or None at the end.
    """

    items: list[Any] = field(default_factory=list)
    next: str | None = None


def endpoint() -> str:
    """Address of the Hub that the client uses (`HF_ENDPOINT`), without a slash at its end."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT).rstrip("/")


def first_page(filters: Sequence[str] = (), search: str = "", page: int = PAGE) -> str:
    """Address of the first page: newest change first, card data included."""
    query: list[tuple[str, str]] = [("sort", "lastModified"), ("direction", "-1"), ("limit", str(page))]
    query += [("filter", item) for item in filters] + ([("search", search)] if search else [])
    query += [("expand", item) for item in _EXPAND]
    return f"{endpoint()}/api/datasets?{urlencode(query)}"


def pages(start: str) -> Iterator[Page]:
    """Read pages from an address on.

    Raises:
        DataError: The Hub cannot be reached, refuses, or answers something that is no list.
    """
    from huggingface_hub.utils import HfHubHTTPError, build_hf_headers, hf_raise_for_status, http_backoff

    if reason := hub_unreachable():
        raise DataError(f"the Hub cannot be reached: {reason}")
    address: str | None = start
    while address is not None:
        if urlsplit(address)[:2] != urlsplit(endpoint())[:2]:
            # The token must not travel to another host because a page says so.
            raise DataError(
                f"the listing goes on at {address[:120]}, which is not {endpoint()}; nothing was sent there"
            )
        try:
            answer = http_backoff("GET", address, headers=build_hf_headers(), timeout=TIMEOUT_S)
            hf_raise_for_status(answer)
            if len(answer.content) > MAX_PAGE_BYTES:
                raise DataError(f"a page of the listing has {len(answer.content):,} bytes, over {MAX_PAGE_BYTES:,}")
            items = answer.json()
            link = answer.headers.get("Link", "")
        except HfHubHTTPError as error:
            code = error.response.status_code if error.response is not None else 0
            mend = "the token (HF_TOKEN) is refused" if code in (401, 403) else "run the same command again to go on"
            raise DataError(f"the Hub answered {code} to the listing; {mend}") from None
        except (OSError, ValueError, RecursionError, RuntimeError) as error:
            said = f"{type(error).__name__}: {str(error)[:120]}"
            raise DataError(f"the listing broke off ({said}); run the same command again to go on") from None
        if not isinstance(items, list):
            raise DataError(f"the Hub answered {type(items).__name__} to the listing, not a list")
        found = re.search(r"<([^<>]+)>\s*;\s*rel=\"?next\"?", link)
        address = found[1] if found else None
        yield Page([catalogue_item(item) for item in items], address)


def catalogue_item(item: Any) -> Any:
    """One item of the Hub's answer in the catalogue's JSON shape; what is no mapping stays as it is."""
    if not isinstance(item, Mapping):
        return item
    given = item.get("cardData")
    card: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    description = item.get("description")
    return {
        "id": item.get("id"),
        "pretty_name": card.get("pretty_name"),
        "description": card_summary(description) if isinstance(description, str) else None,
        "task_categories": card.get("task_categories"),
        "task_ids": card.get("task_ids"),
        "languages": card.get("language"),
        "licences": card.get("license"),
        "tags": item.get("tags") or [],
        "gated": item.get("gated"),
        "downloads": item.get("downloads"),
        "configs": hub_configs(card.get("dataset_info"), card.get("configs")),
        "train_eval_index": card.get("train-eval-index"),
        "last_modified": item.get("lastModified"),
        "hidden": bool(item.get("private") or item.get("disabled")),
    }
