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
# What scripts/soak's script does when it is asked to, before it answers.
ASKED = ["sleep", "room", "fill", "timer", "channel", "offload", "task", "shared", "connect"]
# Clients of each kind that are there at any time.
NORMAL, CHURNING, ABUSIVE = 4, 2, 12


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
        text = rng.choice([*ASKED, f"hello {number} " + "y" * rng.randint(0, 2000)])
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
    kind = rng.randint(0, 6)
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
        elif kind == 5:
            client.sendall(b"hello\n" * 10000)
        else:
            client.sendall(b"room\nsleep\n" * 50)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        rng.choice([reset, lambda c: c.close()])(client)
    except OSError:
        pass
    count("abuses")


def problem(text):
    problems.append(text)
    stop.set()


def repeat(body, addresses, pause, seed):
    rng = random.Random(seed)
    while not stop.is_set():
        try:
            body(addresses, rng)
        except Exception as failure:  # pylint: disable=broad-except # whatever ends a client's thread is a problem
            if not stop.is_set():
                problem(f"{body.__name__}: {failure!r}")
        stop.wait(pause)


def reload_once():
    path = os.path.join(folder, "main.lua")
    with open(path, encoding="utf-8") as file:
        text = file.read().split("\n-- ")[0]
    with open(path + "~", "w", encoding="utf-8") as file:
        file.write(f"{text}\n-- {time.time()}\n")
    os.rename(path + "~", path)
    done = command("reload")
    if done.returncode != 0:
        raise ValueError(done.stderr)
    count("reloads")


def reload_again():
    while not stop.wait(5):
        try:
            reload_once()
        except Exception as failure:  # pylint: disable=broad-except
            problem(f"reload: {failure!r}")


def listeners():
    for _ in range(300):
        try:
            found = [line["address"] for line in status()["listeners"]]
            return [(a.rsplit(":", 1)[0], int(a.rsplit(":", 1)[1])) for a in found if not a.startswith("unix:")]
        except (ValueError, KeyError):
            time.sleep(0.1)
    raise SystemExit("the server did not come up")


def report(age):
    now = status()
    with lock:
        told = ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
    print(
        f"{age:6.0f} s  {resident() / 1048576:6.1f} MB resident, {now['memory'] / 1048576:5.1f} MB Lua,"
        f" {now['connections']:3d} open, generation {now['generation']}; {told}", flush=True)


def watch(begun):
    """Samples the memory every second until the time is over or there is a problem."""
    samples = []
    told = 0
    while not stop.wait(1) and time.monotonic() - begun < seconds:
        age = time.monotonic() - begun
        samples.append((age, resident()))
        if age - told >= min(30, seconds / 8):
            told = age
            report(age)
    return samples


def judge_growth(samples, settled):
    """The means of the tenth after settling and of the last tenth: single samples depend on what the collector just did."""
    after = [size for age, size in samples if age >= settled]
    part = len(after) // 10
    if part == 0:
        return problem("the run was too short to measure growth")
    early, late = sum(after[:part]) / part, sum(after[-part:]) / part
    growth = late / early - 1
    print(
        f"memory growth after {settled:.0f} s: {growth * 100:+.2f} %, from {early / 1048576:.1f} to {late / 1048576:.1f} MB"
        f" (lowest {min(after) / 1048576:.1f}, highest {max(after) / 1048576:.1f})")
    if growth >= 0.01:
        problem("memory grew by 1 % or more")


def main():
    addresses = listeners()
    idle_descriptors = descriptors()
    begun = time.monotonic()
    bodies = [(normal, 0.01)] * NORMAL + [(churn, 0.005)] * CHURNING + [(abusive, 0.05)] * ABUSIVE
    threads = [
        threading.Thread(target=repeat, args=(body, addresses, pause, seed), daemon=True)
        for seed, (body, pause) in enumerate(bodies)
    ]
    threads.append(threading.Thread(target=reload_again, daemon=True))
    for thread in threads:
        thread.start()
    samples = watch(begun)
    stop.set()
    for thread in threads:
        thread.join(60)
    # What background threads keep for a generation goes with it.
    for _ in range(2):
        reload_once()
    # What lingers and what times out.
    end = time.monotonic() + 40
    while time.monotonic() < end and (descriptors() != idle_descriptors or status()["connections"] > 0):
        time.sleep(0.2)
    report(time.monotonic() - begun)
    refused = ", ".join(f"{reason} {number}" for reason, number in sorted(status()["refused"].items()))
    print(f"refused: {refused}")
    print(f"descriptors: {idle_descriptors} before, {descriptors()} after")
    if descriptors() != idle_descriptors:
        problem("descriptors are not back")
    if counts.get("reloads", 0) < seconds / 5 * 0.8:
        problem("there were fewer reloads than one every 5 seconds")
    for what in ("answers", "came and went", "abuses"):
        if not counts.get(what):
            problem(f"there were no {what}")
    judge_growth(samples, min(300, seconds / 4))
    for text in problems:
        print(f"problem: {text}")
    return 1 if problems else 0


sys.exit(main())
