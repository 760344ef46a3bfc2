"""Host side of the vsock tests.

    greet PATH           accepts one connection, says hello, ends
    echo PATH COUNT      echoes COUNT connections made by the guest
    hold PATH            accepts connections and keeps them, till it is killed
    clients PATH PORT COUNT   COUNT connections at once into the guest
"""
import hashlib
import os
import socket
import sys
import threading
import time


def listen(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(128)
    server.settimeout(300)
    return server


def greet(path):
    conn, _ = listen(path).accept()
    conn.sendall(b"hello")
    conn.close()


def echo_one(conn):
    """All that comes until the other side's end goes back behind it."""
    data = b""
    while True:
        part = conn.recv(65536)
        if not part:
            break
        data += part
    conn.sendall(data)
    conn.close()


def echo(path, count):
    server = listen(path)
    threads = []
    for _ in range(int(count)):
        conn, _ = server.accept()
        threads.append(threading.Thread(target=echo_one, args=(conn,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    print("echoed", len(threads))


def hold(path):
    server = listen(path)
    conns = []
    while True:
        conns.append(server.accept()[0])


def connect(path, port):
    conn = socket.socket(socket.AF_UNIX)
    conn.settimeout(200)
    conn.connect(path)
    conn.sendall(b"CONNECT %d\n" % port)
    answer = b""
    while not answer.endswith(b"\n"):
        part = conn.recv(1)
        if not part:
            raise ConnectionError("refused")
        answer += part
    if not answer.startswith(b"OK "):
        raise ConnectionError(answer)
    return conn, int(answer[3:])


def wait_for(path, port):
    """The guest's server is not up at once."""
    while True:
        try:
            return connect(path, port)
        except OSError:
            time.sleep(0.2)


def read_all(conn):
    data = b""
    while True:
        part = conn.recv(65536)
        if not part:
            return data
        data += part


def clients(path, port, count):
    """Opens all, then talks on all, half-closes all, and reads all."""
    conns = [wait_for(path, int(port))]
    conns += [connect(path, int(port)) for _ in range(int(count) - 1)]
    ports = {port for _, port in conns}
    print("open at once", len(conns), "with", len(ports), "ports")
    messages = [os.urandom(3000 + i) for i in range(len(conns))]
    for (conn, _), message in zip(conns, messages):
        conn.sendall(message)
    for conn, _ in conns:
        conn.shutdown(socket.SHUT_WR)
    right = 0
    for (conn, _), message in zip(conns, messages):
        want = hashlib.sha256(message).hexdigest().encode()
        right += read_all(conn) == want + message
        conn.close()
    print("answered right", right)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
