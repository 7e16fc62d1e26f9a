"""A certificate for 127.0.0.1 that signs itself, with its key, and another one that signs nobody here.

Made once, valid from 2020 to 2120, for tests alone: the key is public by being here.
"""

from __future__ import annotations

import ssl
from pathlib import Path

HERE = """\
-----BEGIN CERTIFICATE-----
MIIBvTCCAWOgAwIBAgIUfAZRbJNsa2iIEgSm8ZMxMysWC7AwCgYIKoZIzj0EAwIw
HTEbMBkGA1UEAwwScHJlaGVhdC10ZXN0cy1oZXJlMCAXDTIwMDEwMTAwMDAwMFoY
DzIxMjAwMTAxMDAwMDAwWjAdMRswGQYDVQQDDBJwcmVoZWF0LXRlc3RzLWhlcmUw
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARX5t8UuiqN2IarjWd4iGT6WhjmXEzJ
AvPz6Y3dlCYjiFym133rNsHN7kfsvZQcY8k4u65evE/WqRlZKqZVV3g/o38wfTAd
BgNVHQ4EFgQU4RodEcAiHbP130SwwiSdFcVZ4FIwHwYDVR0jBBgwFoAU4RodEcAi
HbP130SwwiSdFcVZ4FIwDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAoQw
GgYDVR0RBBMwEYcEfwAAAYIJbG9jYWxob3N0MAoGCCqGSM49BAMCA0gAMEUCICHA
XruGsX4+7MC5CMNSKFMW2SRScXJwM6Fu1bA97IHOAiEAht/F0ygQ/XudqDo5zWMW
5qL55luy6F2Mb8pzTPo5anA=
-----END CERTIFICATE-----
"""

KEY_OF_HERE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgXlMzJhKRlw/BUwlt
ZJqqU13JHmyJfM59+P+e8IVavk6hRANCAARX5t8UuiqN2IarjWd4iGT6WhjmXEzJ
AvPz6Y3dlCYjiFym133rNsHN7kfsvZQcY8k4u65evE/WqRlZKqZVV3g/
-----END PRIVATE KEY-----
"""

ELSEWHERE = """\
-----BEGIN CERTIFICATE-----
MIIBxzCCAW2gAwIBAgIUR+CkuIw6/cMtPxD7OLgcYzMIC0MwCgYIKoZIzj0EAwIw
IjEgMB4GA1UEAwwXcHJlaGVhdC10ZXN0cy1lbHNld2hlcmUwIBcNMjAwMTAxMDAw
MDAwWhgPMjEyMDAxMDEwMDAwMDBaMCIxIDAeBgNVBAMMF3ByZWhlYXQtdGVzdHMt
ZWxzZXdoZXJlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE5f0BDa5HdBUXxeMX
CSg0OI+3eOk4vxHRe2ldHwCAsg0JMjV7VbyGyubAqdgEvk2WMig2CPSsqN8ArpRb
DORgq6N/MH0wHQYDVR0OBBYEFLkMfflpkrkTLo64uO+l1coNSGPMMB8GA1UdIwQY
MBaAFLkMfflpkrkTLo64uO+l1coNSGPMMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0P
AQH/BAQDAgKEMBoGA1UdEQQTMBGHBH8AAAGCCWxvY2FsaG9zdDAKBggqhkjOPQQD
AgNIADBFAiAwFTkpTwdMqwOyJrasQfTiyRGlaWONk6MkFii3qWdGIgIhAOIygurV
BrWbiX5W6DW9mn2eaD++CRb9cN4sF9PVYFRv
-----END CERTIFICATE-----
"""


def server_side(folder: Path) -> ssl.SSLContext:
    """What a server shows that is trusted by whoever trusts `HERE`."""
    certificate, key = folder / "here.crt", folder / "here.key"
    certificate.write_text(HERE)
    key.write_text(KEY_OF_HERE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
