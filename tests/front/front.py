"""A proxy in front of a server on loopback. It runs until stdin closes. `front.py tls PORT CA_FILE` terminates TLS with a
certificate of its own CA, which it writes to CA_FILE. `front.py proxy PORT` is an HTTP proxy that sends everything to PORT.
It prints its own port, and as a proxy also the host of each request."""

import datetime
import ipaddress
import os
import socket
import ssl
import sys
import tempfile
import threading


# Without the lock, lines of threads that print at the same time would be mixed.
one_line = threading.Lock()


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def joined(client, first=b""):
    server = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    server.sendall(first)
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)


def tls(context):
    def handle(client):
        try:
            joined(context.wrap_socket(client, server_side=True))
        except (ssl.SSLError, OSError):
            pass  # a client that doesn't trust us

    return handle


def proxy(client):
    head = b""
    while b"\r\n\r\n" not in head:
        more = client.recv(4096)
        if not more:
            return
        head += more
    with one_line:
        print(head.split(b"\r\n")[0].decode(), flush=True)
    joined(client, head)


def certificate(ca_file):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.timezone.utc)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def builder(subject, public):
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("a company's own CA"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    ca = builder("a company's own CA", ca_key.public_key())
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(ca_key, hashes.SHA256())
    hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = builder("front", key.public_key()).add_extension(hosts, critical=False).sign(ca_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    with open(ca_file, "wb") as file:
        file.write(ca.public_bytes(pem))
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(plain + leaf.public_bytes(pem))
    context.load_cert_chain(file.name)
    os.unlink(file.name)
    return context


def accept(listener, handle):
    while True:
        threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()


handle = tls(certificate(sys.argv[3])) if sys.argv[1] == "tls" else proxy
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
threading.Thread(target=accept, args=(listener, handle), daemon=True).start()
sys.stdin.read()
