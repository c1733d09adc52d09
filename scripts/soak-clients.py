"""The clients of scripts/soak: SERVER-PID FOLDER SECONDS. Normal and abusive ones, reloads, and the figures that are printed."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time

pid, folder, seconds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
program = os.environ["MOONPORT_EXECUTABLE"]
admin = os.path.join(folder, "admin.sock")
stop = threading.Event()
lock = threading.Lock()
counts = {}
problems = []


def count(what, amount=1):
    with lock:
        counts[what] = counts.get(what, 0) + amount


def command(*words):
    return subprocess.run([program, words[0], "--admin", admin, *words[1:]], capture_output=True, text=True, timeout=60)


def status():
    return json.loads(command("status", "--json").stdout)


def resident():
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def descriptors():
    return len(os.listdir(f"/proc/{pid}/fd"))


def connect(address, receive_buffer=None):
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(30)
    client.connect(address)
    return client


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def normal(addresses, rng):
    """Talks, checks each answer, and leaves."""
    client = connect(addresses[0])
    stream = client.makefile("rb")
    for number in range(rng.randint(1, 40)):
        text = rng.choice(["sleep", "room", "fill", f"hello {number} " + "y" * rng.randint(0, 2000)])
        client.sendall(text.encode() + b"\n")
        while True:
            line = stream.readline()
            if line == b"news\n":
                continue
            if text == "fill":
                line = line[50 * 20000 :]
            if line.rstrip(b"\n") != text.encode():
                raise ValueError(f"{line[:60]!r} came where {text[:60]!r} was expected")
            break
        count("answers")
    stream.close()
    client.close()


def churn(addresses, rng):
    client = connect(addresses[0])
    if rng.random() < 0.5:
        client.sendall(b"half a line")
    if rng.random() < 0.3:
        client.sendall(b"fail\n")
    rng.choice([reset, lambda c: c.close()])(client)
    count("came and went")


def abusive(addresses, rng):
    """Floods, lies, drips or does not read. Whatever comes of it is the server's to decide."""
    kind = rng.randint(0, 5)
    try:
        client = connect(addresses[2] if kind == 3 else addresses[1], 4096 if kind == 2 else None)
        client.settimeout(3)
        if kind == 0:
            client.sendall(b"\n" * 20000)
        elif kind == 1:
            client.sendall(b"x" * 300000)
        elif kind == 2:
            client.sendall(b"fill\n" * 20)
            stop.wait(1.5)
        elif kind == 3:
            client.sendall(rng.choice([b"\x80\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\5ab"]))
            stop.wait(0.2)
        elif kind == 4:
            for _ in range(20):
                client.sendall(b"d")
                stop.wait(0.2)
        else:
            client.sendall(b"room\nsleep\n" * 50)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        rng.choice([reset, lambda c: c.close()])(client)
    except OSError:
        pass
    count("abuses")


def repeat(body, addresses, pause, seed):
    rng = random.Random(seed)
    while not stop.is_set():
        try:
            body(addresses, rng)
        except (OSError, ValueError) as problem:
            if not stop.is_set():
                problems.append(f"{body.__name__}: {problem}")
                stop.set()
        stop.wait(pause)


def reload_again():
    while not stop.wait(5):
        path = os.path.join(folder, "main.lua")
        with open(path, encoding="utf-8") as file:
            text = file.read().split("\n-- ")[0]
        with open(path + "~", "w", encoding="utf-8") as file:
            file.write(f"{text}\n-- {time.time()}\n")
        os.rename(path + "~", path)
        done = command("reload")
        if done.returncode != 0:
            problems.append(f"reload: {done.stderr}")
            stop.set()
        count("reloads")


def listeners():
    for _ in range(300):
        try:
            found = [line["address"] for line in status()["listeners"]]
            return [(a.rsplit(":", 1)[0], int(a.rsplit(":", 1)[1])) for a in found]
        except (ValueError, KeyError):
            time.sleep(0.1)
    raise SystemExit("the server did not come up")


def main():
    addresses = listeners()
    idle_descriptors = descriptors()
    begun = time.monotonic()
    bodies = [(normal, 0.01)] * 3 + [(churn, 0.005)] * 2 + [(abusive, 0.05)] * 4
    threads = [
        threading.Thread(target=repeat, args=(body, addresses, pause, seed), daemon=True)
        for seed, (body, pause) in enumerate(bodies)
    ]
    threads.append(threading.Thread(target=reload_again, daemon=True))
    for thread in threads:
        thread.start()
    settled = min(300, seconds / 4)
    samples = []
    while not stop.is_set() and time.monotonic() - begun < seconds:
        stop.wait(min(30, max(1, seconds / 20)))
        age = time.monotonic() - begun
        samples.append((age, resident()))
        now = status()
        with lock:
            told = ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
        print(
            f"{age:6.0f} s  {samples[-1][1] / 1048576:6.1f} MB resident, {now['memory'] / 1048576:5.1f} MB Lua,"
            f" {now['connections']:3d} open, generation {now['generation']}; {told}", flush=True)
    stop.set()
    for thread in threads:
        thread.join(60)
    # What lingers and what times out.
    end = time.monotonic() + 40
    while time.monotonic() < end and (descriptors() > idle_descriptors or status()["connections"] > 0):
        time.sleep(0.2)
    refused = ", ".join(f"{reason} {number}" for reason, number in sorted(status()["refused"].items()))
    print(f"refused: {refused}")
    print(f"descriptors: {idle_descriptors} before, {descriptors()} after")
    if descriptors() != idle_descriptors:
        problems.append("descriptors are not back")
    # The means of the tenth after settling and of the last tenth: single samples depend on what the collector just did.
    part = max(1, len([s for s in samples if s[0] >= settled]) // 10)
    early = [size for age, size in samples if age >= settled][:part]
    late = [size for _, size in samples][-part:]
    if early:
        growth = (sum(late) / len(late)) / (sum(early) / len(early)) - 1
        print(f"memory growth after {settled:.0f} s: {growth * 100:+.2f} %")
        if growth >= 0.01:
            problems.append("memory grew by 1 % or more")
    for problem in problems:
        print(f"problem: {problem}")
    return 1 if problems else 0


sys.exit(main())
