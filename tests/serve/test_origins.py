"""Pages of other sites cannot use a server, and after DNS rebinding they cannot either."""

import pytest

from featx.errors import InputError
from featx.serve.origins import Origins

HERE = Origins.of("127.0.0.1", is_local=True)


def refuse(origins=HERE, method="GET", path="/metrics", host="127.0.0.1:8000", **headers):
    return origins.refuse(method, path, {"host": host, **{k.replace("_", "-"): v for k, v in headers.items()}})


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000"])
def test_names_of_this_machine(host):
    assert refuse(host=host) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "", "::1", "0"]
)
def test_other_names_are_refused_here_and_nowhere_else(host):
    assert "is not a name of this machine" in refuse(host=host)
    assert refuse(Origins.of("0.0.0.0", is_local=False), host=host) is None


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"origin": "https://evil.example"}, "origin 'https://evil.example'"),
        ({"origin": "null"}, "origin 'null'"),
        ({"origin": "http://127.0.0.1:3000"}, "another site's pages"),
        ({"sec_fetch_site": "cross-site"}, "another site's page is refused"),
        ({"sec_fetch_site": "cross-site", "sec_fetch_dest": "image"}, "another site's page is refused"),
        ({"origin": "http://127.0.0.1:8000", "sec_fetch_site": "same-origin"}, None),
        ({"sec_fetch_site": "none"}, None),
        ({}, None),
    ],
)
def test_requests_of_pages_of_other_sites(headers, reason, local):
    said = refuse(Origins.of("127.0.0.1", is_local=local), **headers)
    assert (said is None) == (reason is None)
    assert (reason or "") in (said or "")


def test_a_link_to_the_page_is_followed():
    link = {"sec_fetch_site": "cross-site", "sec_fetch_dest": "document"}
    assert refuse(path="/", **link) is None
    assert refuse(path="/metrics", **link)
    assert refuse(path="/", method="POST", **link)


def test_allowed_origins_and_their_hosts():
    origins = Origins.of("127.0.0.1", is_local=True, allow_origins=["https://Lab.example:8443"])
    assert refuse(origins, origin="https://lab.example:8443", sec_fetch_site="cross-site") is None
    assert refuse(origins, host="lab.example") is None  # as a reverse proxy passes it on
    assert refuse(origins, origin="https://lab.example")
    assert refuse(origins, host="evil.example")
    everyone = Origins.of("127.0.0.1", is_local=True, allow_origins="*")
    assert refuse(everyone, origin="https://evil.example", sec_fetch_site="cross-site") is None
    assert refuse(everyone, host="evil.example")


@pytest.mark.parametrize("origin", ["lab.example", "https://lab.example/", "ftp://lab.example", "", "https://"])
def test_malformed_origins(origin):
    with pytest.raises(InputError, match="allow_origin="):
        Origins.of("127.0.0.1", is_local=True, allow_origins=[origin])
