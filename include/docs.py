"""dbt's documentation and the data dictionary, built from the running warehouse and shown in a browser.

``python -m include.docs [--no-serve]`` (``make docs``). The page is the one that the docs service shows; where that is
not up, the command serves the page itself until Ctrl-C.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import sys
from typing import Any

import httpx
import psycopg

from include import dbt, dictionary
from include.settings import settings
from include.warehouse.engine import connect

ANSWER_SECONDS = 5.0
"""How long whoever listens on the page's port may take to say whose page it shows."""


def url() -> str:
    """Where the page is shown, by the docs service or by this command."""
    return f"http://{settings().host}:{settings().docs_port}"


def is_served() -> bool:
    """Whether somebody shows this home's page: the fingerprint beside it tells whose it is."""
    try:
        answer = httpx.get(f"{url()}/fingerprint", timeout=ANSWER_SECONDS)
    except httpx.HTTPError:
        return False
    return answer.is_success and answer.text == dbt.docs_site().with_name("fingerprint").read_text()


def build() -> int:
    """The page and docs/data-dictionary.md anew; 1 when that failed, with what was there left as it was.

    ``ValueError`` when the warehouse is down and there is no page of before.
    """
    try:
        connect().close()
    except psycopg.OperationalError:
        if not dbt.docs_site().exists():
            raise ValueError("the warehouse is down, and no page was ever built: `./emporium up` first.") from None
        print("docs: the warehouse is down, so this is the page as it was built last; `./emporium up` for a new one")
        return 0
    if failed := dbt.run("docs"):
        return failed
    dictionary.write_page()
    return 0


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nobody reads a line per request."""


def serve() -> None:
    """Show the page until Ctrl-C. ``OSError`` with what to do when the port is somebody else's."""
    handler = functools.partial(_Quiet, directory=str(dbt.docs_site().parent))
    try:
        server = http.server.ThreadingHTTPServer((settings().host, settings().docs_port), handler)
    except OSError as error:
        raise OSError(f"{url()} is taken ({error.strerror}): set EMPORIUM_DOCS_PORT to another one.") from error
    with server:
        print(f"docs: {url()} until Ctrl-C", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("docs: stopped")


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m include.docs", description="Build and show the documentation.")
    parser.add_argument("--no-serve", action="store_true", help="build only")
    args = parser.parse_args(argv)
    try:
        if (failed := build()) or args.no_serve:
            return failed
        if is_served():
            print(f"docs: {url()}")
        else:
            serve()
    except (psycopg.Error, ValueError, OSError) as error:
        print(f"docs: {str(error).strip()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
