from ipaddress import ip_address

import pytest

from graphton.network import Rule, Target, allowed_addresses, allows, parse_rules


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("pypi.org:443", "pypi.org", 443),
        ("PyPI.org.:443", "pypi.org", 443),
        ("_srv.a-b.example:1", "_srv.a-b.example", 1),
        ("10.1.2.3:65535", "10.1.2.3", 65535),
        ("[::1]:80", "::1", 80),
        ("[0:0:0:0:0:0:0:1]:80", "::1", 80),
    ],
)
def test_targets(text: str, host: str, port: int) -> None:
    assert Target.parse(text) == Target(host, port)
    assert Target.parse(str(Target.parse(text))) == Target(host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("pypi.org", "pypi.org:0", "pypi.org:65536", "pypi.org:", ":443", "", "[::1]", "::1:80"),
        *("user@pypi.org:443", "user:x@pypi.org:443", "pypi.org:443@evil.example:443"),
        *("pypi.org:443/path", "http://pypi.org:443", "pypi.org :443", "pypi.org\n:443"),
        *(
            "2130706433:80",
            "0x7f000001:80",
            "0x7f.1:80",
            "127.1:80",
            "0177.0.0.1:80",
            "1.2.3.256:80",
        ),
        *("127.0.0.1..:80", "a..b:80", "-a.b:80", "pypi.org%00:443", "pypi.org\0.evil:443"),
        *(
            "[127.0.0.1]:80",
            "[::1%lo]:80",
            "café.example:443",
            f"{'a' * 64}.b:80",
            f"{'a.' * 130}b:80",
        ),
    ],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Target.parse(text)


def test_rules() -> None:
    rules = parse_rules(" pypi.org, .github.com ,*.python.org:8443,, 10.0.0.1:5000,[::1]:80 ")
    assert rules[0] == Rule("pypi.org", subdomains=False, ports=frozenset({80, 443}))
    assert rules[2] == Rule("python.org", subdomains=True, ports=frozenset({8443}))
    for allowed in (
        *("pypi.org:443", "pypi.org:80", "PYPI.ORG.:443", "api.github.com:443"),
        *("a.b.github.com:80", "www.python.org:8443", "10.0.0.1:5000", "[::1]:80"),
    ):
        assert allows(rules, Target.parse(allowed)), allowed
    for refused in (
        *("pypi.org:22", "www.pypi.org:443", "pypi.org.evil.example:443", "notpypi.org:443"),
        *("github.com:443", "evilgithub.com:443", "www.python.org:443", "10.0.0.1:80"),
        *("10.0.0.10:5000", "[::2]:80", "127.0.0.1:80"),
    ):
        assert not allows(rules, Target.parse(refused)), refused
    assert not allows(parse_rules(""), Target.parse("pypi.org:443"))


@pytest.mark.parametrize(
    "entry",
    ["*", "*pypi.org", "a.*.org", "https://pypi.org", "pypi.org/simple", "pypi.org:x", ".10.0.0.1",
     "127.1", "a b", "*.", ".", "pypi.org:0", "10.0.0.0/8", "*.*.org"],
)  # fmt: skip
def test_rules_that_mean_nothing_are_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"^`.+`: "):
        parse_rules(f"pypi.org,{entry}")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1"),  # noqa: S104
        *("255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("2002:7f00:1::", "203.0.113.9", "::ffff:203.0.113.9", "64:ff9b::cb00:7109"),
    ],
)
def test_a_name_must_not_lead_here(address: str) -> None:
    own = [ip_address("203.0.113.9")]
    rules = parse_rules("evil.example")
    found = [ip_address(address), ip_address("198.51.100.7")]
    assert allowed_addresses(rules, found, 443, own) == found[1:]
    literal = f"[{address}]" if ":" in address else address
    if "%" not in address:  # no list can have it
        rules = parse_rules(f"evil.example,{literal}:443")
        assert allowed_addresses(rules, found, 443, own) == found
        assert allowed_addresses(rules, found, 80, own) == found[1:]


def test_other_addresses() -> None:
    for address in ("10.0.0.1", "192.168.1.1", "198.51.100.7", "2001:db8::1", "fd00::1"):
        assert allowed_addresses((), [ip_address(address)], 443, [])
