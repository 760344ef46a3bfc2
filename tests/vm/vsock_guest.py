"""Guest side of the vsock tests.

    scan                     dials CIDs 0 to 3 at many ports
    serve PORT COUNT         COUNT connections at once: digest, then echo,
                             once the other side has shut down its half
    clients PORT COUNT       COUNT connections at once to the host
    many PORT COUNT          the same, as far as they are taken: tells how many
"""
import hashlib
import os
import socket
import sys


def scan():
    ports = [0, 1, 22, 80, 1020, 1021, 1022, 1023, 1024, 5000, 5001, 2**31]
    for cid in range(4):
        for port in ports:
            conn = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
            conn.settimeout(3)
            try:
                conn.connect((cid, port))
                print("reached %d:%d %s" % (cid, port,
                                            conn.recv(100).decode()))
            except OSError as error:
                print("tried %d:%d %s" % (cid, port, error))
            conn.close()


def read_all(conn):
    data = b""
    while True:
        part = conn.recv(65536)
        if not part:
            return data
        data += part


def serve(port, count):
    server = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    server.bind((socket.VMADDR_CID_ANY, int(port)))
    server.listen(256)
    conns = []
    for _ in range(int(count)):
        conns.append(server.accept()[0])
    print("accepted", len(conns), flush=True)

    def answer(conn):
        data = read_all(conn)
        conn.sendall(hashlib.sha256(data).hexdigest().encode() + data)
        conn.close()

    for conn in conns:
        answer(conn)
    print("served", len(conns), flush=True)


def clients(port, count):
    conns = []
    for _ in range(int(count)):
        conn = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        conn.connect((2, int(port)))
        conns.append(conn)
    messages = [os.urandom(2000 + i) for i in range(len(conns))]
    for conn, message in zip(conns, messages):
        conn.sendall(message)
        conn.shutdown(socket.SHUT_WR)
    right = 0
    for conn, message in zip(conns, messages):
        right += read_all(conn) == message
        conn.close()
    print("echoed right", right)
    try:
        conn = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        conn.connect((2, int(port) + 1))
        print("reached a port nobody listens on")
    except OSError:
        print("refused where nobody listens")


def many(port, count):
    conns, refused = [], 0
    for _ in range(int(count)):
        conn = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            conn.connect((2, int(port)))
            conns.append(conn)
        except OSError:
            refused += 1
            conn.close()
    for conn in conns:
        conn.sendall(b"x")
    print("taken" if len(conns) > 20 else "hardly any",
          "refused" if refused > 20 else "hardly any", len(conns) + refused)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
