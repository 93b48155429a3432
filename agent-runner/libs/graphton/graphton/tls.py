"""Which certificates HTTPS clients trust."""

import ssl
from functools import cache


@cache
def tls_context() -> ssl.SSLContext:
    """Trust the system's certificates, or SSL_CERT_FILE. Cached: loading them takes 20 ms."""
    return ssl.create_default_context()
