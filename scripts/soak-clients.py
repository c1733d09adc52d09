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
# Set while no client may come, so that what the server keeps can be told from what it does for them.
resting = threading.Event()
lock = threading.Lock()
reloading = threading.Lock()
counts = {}
problems = []
# How long the server may take to get what it needs, and how often it is looked at without clients after that.
settled = min(300, seconds / 4)
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
        if resting.is_set():
            stop.wait(0.1)
            continue
        try:
            body(addresses, rng)
        except Exception as failure:  # pylint: disable=broad-except # whatever ends a client's thread is a problem
            if not stop.is_set():
                problem(f"{body.__name__}: {failure!r}")
        stop.wait(pause)


def reload_once():
    with reloading:
        replace_and_reload()


def replace_and_reload():
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
        if resting.is_set():
            continue
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


def wait_for(condition):
    end = time.monotonic() + 40
    while time.monotonic() < end and not condition():
        time.sleep(0.2)


def rest(idle_descriptors):
    """Lets all clients go, and what lingers and times out after them; returns the memory that the server has then."""
    resting.set()
    wait_for(lambda: status()["connections"] == 0)
    # What background threads keep for a generation goes with it.
    for _ in range(2):
        reload_once()
    wait_for(lambda: descriptors() == idle_descriptors)
    # Memory goes back some time after a reload.
    time.sleep(3)
    memory = resident()
    resting.clear()
    return memory


def watch(begun, idle_descriptors):
    """Samples the memory under load every second, and at rest now and then, until the time is over or there is a problem."""
    samples, rests, told = [], [], 0
    while not stop.wait(1) and time.monotonic() - begun < seconds:
        age = time.monotonic() - begun
        samples.append((age, resident()))
        if age - told >= min(30, seconds / 8):
            told = age
            report(age)
        if age >= settled * (len(rests) + 1):
            rests.append(rest(idle_descriptors))
            print(f"{age:6.0f} s  {megabytes(rests[-1])} MB at rest", flush=True)
    return samples, rests


def megabytes(size):
    return f"{size / 1048576:.2f}"


def judge_growth(samples, rests):
    """By what the server keeps at rest: under load the memory goes up and down with what the clients of that minute do not read."""
    if len(rests) < 2:
        return problem("the run was too short to measure growth")
    after = [size for age, size in samples if age >= settled]
    growth = rests[-1] / rests[0] - 1
    print(
        f"memory under load after {settled:.0f} s: {megabytes(sum(after) / len(after))} MB, lowest {megabytes(min(after))},"
        f" highest {megabytes(max(after))}")
    print(
        f"memory at rest: {growth * 100:+.2f} % after {settled:.0f} s; in MB "
        + ", ".join(megabytes(size) for size in rests))
    if growth >= 0.01:
        problem("memory grew by 1 % or more")


def main():
    addresses = listeners()
    # The connection of the command that found the listeners is about to go.
    time.sleep(1)
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
    samples, rests = watch(begun, idle_descriptors)
    stop.set()
    for thread in threads:
        thread.join(60)
    rests.append(rest(idle_descriptors))
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
    judge_growth(samples, rests)
    for text in problems:
        print(f"problem: {text}")
    return 1 if problems else 0


sys.exit(main())
