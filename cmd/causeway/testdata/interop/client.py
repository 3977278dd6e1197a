"""A TLS client that is not Go: sends files of frames to a router, each time
waits until so many frames have come in all, and prints them in hexadecimal.

usage: client.py PORT DOMAIN ROOT CERT KEY (FRAMES COUNT)..."""
import socket
import ssl
import struct
import sys

port, domain, root, cert, key = sys.argv[1:6]
ctx = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=root)
ctx.minimum_version = ssl.TLSVersion.TLSv1_3
ctx.verify_flags |= ssl.VERIFY_X509_STRICT
ctx.set_alpn_protocols(["dbw/1"])
ctx.load_cert_chain(cert, key)
assert ctx.check_hostname and ctx.verify_mode == ssl.CERT_REQUIRED


def frames_end(data, start):
    """Returns the end of the frame that begins at start, or None."""
    if len(data) < start + 55:
        return None
    end = start + 55 + struct.unpack_from(">I", data, start + 51)[0]
    if len(data) < end + 4:
        return None
    end += 4 + struct.unpack_from(">I", data, end)[0]
    return end if len(data) >= end else None


with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as raw:
    with ctx.wrap_socket(raw, server_hostname=domain) as tls:
        assert tls.selected_alpn_protocol() == "dbw/1", tls.selected_alpn_protocol()
        data, found, at = b"", 0, 0
        for name, count in zip(sys.argv[6::2], sys.argv[7::2]):
            with open(name, "rb") as f:
                tls.sendall(f.read())
            while found < int(count):
                end = frames_end(data, at)
                if end is None:
                    got = tls.recv(65536)
                    assert got, "the router closed the connection"
                    data += got
                else:
                    at, found = end, found + 1
        sys.stdout.write(data[:at].hex())
